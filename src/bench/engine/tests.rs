//! Loaders on a simulated kernel, in virtual time: what the arithmetic says, to the digit, and
//! every fault at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use uring_ring::sim::{Client, Faults, Plan as SimPlan, Rng};
use uring_ring::{Address, Ring};

use super::super::plan::{Choice, Dish, Expect, Menu};
use super::super::record::{Clock, Collector, Fault, Record, Settings};
use super::super::render::Rendered;
use super::super::schedule::{Arrival, Schedule, Share, Stage};
use super::lane::{Lane, LocalMenu};
use super::loader::Loader;
use super::task::Task;
use super::world::World;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// The other side: it answers each time that the loader looks at the clock, but not in a pause.
struct Server {
    world: uring_ring::sim::World,
    peer: Rc<Address>,
    clients: Vec<(Client, Vec<u8>)>,
    pause: std::ops::Range<u64>,
    epoch: Instant,
    answered: u64,
}

impl Server {
    fn work(&mut self) {
        let now = self.world.now().duration_since(self.epoch).as_nanos() as u64;
        while let Some(client) = self.world.take_connection(&self.peer) {
            self.clients.push((client, Vec::new()));
        }
        if self.pause.contains(&now) {
            return;
        }
        for (client, got) in &mut self.clients {
            got.extend(client.read());
            while got.starts_with(REQUEST) {
                got.drain(..REQUEST.len());
                client.write(OK);
                self.answered += 1;
            }
        }
    }
}

struct Simulated(Rc<RefCell<Server>>);

impl World for Simulated {
    fn now(&mut self) -> u64 {
        let mut server = self.0.borrow_mut();
        server.work();
        server.world.now().duration_since(server.epoch).as_nanos() as u64
    }

    fn socket(&mut self, _: &Address, _: usize) -> Result<OwnedFd, Fault> {
        Ok(self.0.borrow().world.socket())
    }
}

fn menu() -> Menu {
    let request = Rendered {
        keep: Bytes::from_static(REQUEST),
        close: Bytes::from_static(REQUEST),
        target: 0,
        is_head: false,
    };
    let dish = Dish { weight: 1, first: 0, count: 1 };
    Menu { requests: [request].into(), choice: Choice::Weighted(vec![dish]) }
}

/// A load of `seconds` seconds, at `rate` or in a closed loop.
fn task(peer: &Rc<Address>, connections: usize, rate: Option<f64>, seconds: u64) -> Task {
    let schedule = rate.map(|rate| {
        let stages: Arc<[Stage]> = [Stage { nanos: seconds * SECOND, from: rate, to: rate }].into();
        Schedule::new(&stages, Arrival::Constant, Share::WHOLE, 1, u64::MAX)
    });
    Task {
        lanes: vec![Lane {
            schedule,
            idle: VecDeque::new(),
            menu: LocalMenu::new(&menu(), 0, 1, 1, 4),
        }],
        peers: vec![Rc::clone(peer)],
        targets: ["http://h/".to_owned()].into(),
        connections: vec![0; connections],
        is_open_loop: rate.is_some(),
        pipeline: 1,
        session: 1,
        inflight_max: usize::MAX,
        requests_per_connection: u64::MAX,
        openings: None,
        think: 0,
        timeout: 30 * SECOND,
        drain: 5 * SECOND,
        end: seconds * SECOND,
        requests: u64::MAX,
        expect: Expect::default(),
        may_spin: false,
    }
}

fn run(
    faults: Faults,
    seed: u64,
    pause: std::ops::Range<u64>,
    change: impl FnOnce(&Rc<Address>) -> Task,
) -> (Record, u64) {
    let (mut ring, world) = Ring::simulated(SimPlan { seed, faults });
    let group = ring.add_buffers(64, 256).unwrap();
    let peer = Rc::new(Address::from("192.0.2.1:80".parse::<SocketAddr>().unwrap()));
    world.listen_at(&peer);
    let epoch = world.now();
    let server = Rc::new(RefCell::new(Server {
        world,
        peer: Rc::clone(&peer),
        clients: Vec::new(),
        pause,
        epoch,
        answered: 0,
    }));
    let task = change(&peer);
    let settings = Settings { open_loop: task.is_open_loop, expected: Some(10 * SECOND) };
    let mut collector = Collector::new(settings);
    let recorder = collector.recorder(task.connections.len(), 1);
    let mut loader = Loader::new(Simulated(Rc::clone(&server)), ring, group, task, recorder);
    loader.prepare().unwrap();
    // As the real one: the clock begins anew when all is prepared.
    let prepared = server.borrow().world.now();
    server.borrow_mut().epoch = prepared;
    let left = loader.run(&AtomicBool::new(false)).unwrap();
    let record = collector.finish([left.rest]);
    let answered = server.borrow().answered;
    (record, answered)
}

#[test]
fn a_pause_is_told_to_the_digit_in_virtual_time() {
    // A second of four, then two and a half of five, at 1,000/s.
    for (pause, seconds, p90, p99) in [(1000, 4, 600.0, 960.0), (2500, 5, 2000.0, 2450.0)] {
        let (record, _) = run(Faults::NONE, 1, SECOND..SECOND + pause * MILLI, |peer| {
            task(peer, 16, Some(1000.0), seconds)
        });
        let counts = record.total();
        assert_eq!((counts.answers, counts.unfinished()), (1000 * seconds, 0));
        let times = record.times(Clock::Response, 0);
        for (part, expected) in [(0.9, p90), (0.99, p99)] {
            let got = times.value_at_quantile(part) as f64 / 1e6;
            assert!((got / expected - 1.0).abs() < 0.01, "{part}: {got} ms, not {expected}");
        }
    }
}

#[test]
fn a_server_that_never_wakes_leaves_all_as_unfinished() {
    let (record, _) = run(Faults::NONE, 1, SECOND..u64::MAX, |peer| task(peer, 4, Some(1000.0), 2));
    let counts = record.total();
    assert_eq!(counts.answers, 1000);
    assert_eq!((counts.unanswered, counts.unsent), (4, 996));
    assert_eq!(record.times(Clock::ResponseAtLeast, 0).len(), 1000);
}

#[test]
fn whatever_goes_wrong_every_request_is_counted_once() {
    let mut seen = [0_u64; 2];
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let is_open = rng.below(2) == 0;
        let churns = rng.below(3) == 0;
        let (depth, requests) = (1 + rng.below(4), 50 + rng.below(100) as u64);
        let (record, answered) = run(Faults::ALL, seed, 0..0, |peer| {
            let mut task = task(peer, 1 + seed as usize % 5, is_open.then_some(500.0), 2);
            task.requests = requests;
            task.pipeline = depth;
            task.requests_per_connection = if churns { 3 } else { u64::MAX };
            task
        });
        let counts = record.total();
        let told = format!("seed {seed}: {counts:?}");
        // Each one that left is answered, failed, or unfinished; none is made up.
        assert_eq!(
            counts.sent,
            counts.answers + counts.unexpected + counts.broken + counts.unanswered,
            "{told}"
        );
        assert!(counts.sent <= requests && counts.answers <= answered, "{told}");
        assert_eq!(counts.unexpected, 0, "{told}");
        let malformed = Fault::Malformed as usize;
        assert_eq!(counts.faults[malformed] + counts.connect_faults[malformed], 0, "{told}");
        seen[0] += counts.answers;
        seen[1] += counts.broken;
    }
    assert!(seen[0] > 10_000 && seen[1] > 50, "{seen:?}: the faults were no faults");
}

/// Sessions that break off ask less than they were to; a load of so many requests ends all the same.
#[test]
fn a_counted_load_ends_though_sessions_break_off() {
    let stages: Arc<[Stage]> = [Stage { nanos: u64::MAX >> 1, from: 100.0, to: 100.0 }].into();
    let sessions = || Schedule::new(&stages, Arrival::Constant, Share::WHOLE, 1, 20);
    let mut broken = 0;
    for seed in 0..40 {
        let (record, _) = run(Faults::ALL, seed, 0..0, |peer| {
            let mut task = task(peer, 4, Some(500.0), 600);
            (task.session, task.think, task.requests, task.end) = (5, MILLI, 100, u64::MAX);
            task.lanes[0].schedule = Some(sessions());
            task
        });
        assert!(record.total().sent <= 100);
        broken += u64::from(record.total().sent < 100);
    }
    assert!(broken > 0, "no session broke off");
}

#[test]
fn thinking_and_sessions_keep_their_pace() {
    let (record, _) = run(Faults::NONE, 1, 0..0, |peer| {
        let mut task = task(peer, 2, None, 1);
        task.think = 100 * MILLI;
        task
    });
    let answers = record.total().answers;
    assert!((18..=22).contains(&answers), "two connections, ten thoughts a second: {answers}");
    let (record, _) = run(Faults::NONE, 1, 0..0, |peer| {
        let mut task = task(peer, 8, Some(10.0), 1);
        (task.session, task.think) = (3, 10 * MILLI);
        task.end = 2 * SECOND; // the last sessions end, too
        task
    });
    assert_eq!(record.total().answers, 30, "ten sessions of three requests");
}
