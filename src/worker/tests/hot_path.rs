//! What a request may cost, on the real kernel: no allocation, and one enter for all that is due.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use uring_ring::{Features, Mask, Setup};

use super::super::*;
use super::settings;
use crate::app::service;
use crate::config;
use crate::figures::Durations;
use crate::guard::{Lines, Quota, Rate, RateTable};
use crate::http::{Request, Response};
use crate::process::clock::{Moment, monotonic_nanos};
use crate::process::log_file::LogFile;
use crate::process::scoreboard::Scoreboard;

const REQUEST: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// A worker in this thread, and clients that are connected to it.
struct Bench {
    worker: Worker,
    clients: Vec<TcpStream>,
    /// The other ends of what the worker listens to.
    _ends: Vec<UnixDatagram>,
}

impl Bench {
    fn new(clients: usize) -> Bench {
        Bench::with(clients, GateConfig::open(1000), Guard::new(1), None)
    }

    /// With an access log in JSON, which goes to this file, and a limit of the client's rate.
    fn guarded(clients: usize, log: &Path) -> Bench {
        let words: Vec<AtomicU64> = (0..1 << 12).map(|_| AtomicU64::new(0)).collect();
        let quota = Quota::new(1_000_000, Duration::from_secs(1));
        let mut guard = Guard::new(1);
        guard.rate = Some(Rate::new(RateTable::new(words.leak(), 0), quota, true));
        guard.lines = Some(Lines::new(config::LogFormat::Json, 256 << 10, SystemTime::now()));
        let gate = GateConfig {
            connections_per_client: Some(1000),
            keeps_records: true,
            ..GateConfig::open(1000)
        };
        let log = AccessLog::new(LogFile::open(log).unwrap(), Duration::from_millis(1), 1 << 20);
        Bench::with(clients, gate, guard, Some(log))
    }

    fn with(
        clients: usize,
        gate: GateConfig,
        guard: Guard,
        access_log: Option<AccessLog>,
    ) -> Bench {
        let features = Features::probe(Mask::NONE).unwrap();
        let mut ring = Ring::new(Setup { entries: 256, restricted: true, features }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (channel, master) = UnixDatagram::pair().unwrap();
        let (signals, kernel) = UnixDatagram::pair().unwrap();
        let (passing, dispatcher) = UnixDatagram::pair().unwrap();
        let scoreboard = Scoreboard::create(Moment::now()).unwrap().0;
        let queue = WakeQueue::new(WakeQueue::bell_descriptor().unwrap());
        let now = Instant::now();
        let parts = Parts {
            buffers: ring.add_buffers(64, 2048).unwrap(),
            ring,
            listeners: vec![(listener.into(), Company::Leaving)],
            channel: channel.into(),
            signals: signals.into(),
            stop_timeout: Duration::from_secs(30),
            is_held: false,
            slots: Vec::new(),
            passing: passing.into(),
            bell: WakeQueue::bell_descriptor().unwrap(),
            recycle: Recycle::new(config::Recycle::default(), 1, now),
            limit: Limit(4096),
            settings: settings(),
            gate,
            guard,
            access_log,
            page: scoreboard.claim(0, Moment::default()).unwrap(),
            worker_id: 0,
            runtime: Runtime::new(now, Arc::clone(&queue)),
            queue,
        };
        parts.ring.enable().unwrap();
        let service = service(async |_: &Request| Response::text("Hello, World!"));
        let mut bench = Bench {
            worker: Worker::new(parts, service, now),
            clients: Vec::new(),
            _ends: vec![master, kernel, dispatcher],
        };
        for _ in 0..clients {
            let client = TcpStream::connect(address).unwrap();
            client.set_nonblocking(true).unwrap();
            bench.clients.push(client);
        }
        bench
    }

    /// All clients ask once, and all are answered.
    fn round(&mut self) {
        for client in &mut self.clients {
            client.write_all(REQUEST).unwrap();
        }
        let mut answer = [0; 1024];
        for number in 0..self.clients.len() {
            let count = loop {
                match self.clients[number].read(&mut answer) {
                    Ok(count) => break count,
                    Err(_) => assert_eq!(self.worker.turn(Instant::now).unwrap(), Turn::Continue),
                }
            };
            assert!(answer[..count].ends_with(b"\r\n\r\nHello, World!"));
        }
    }
}

#[test]
fn a_keep_alive_request_allocates_nothing() {
    let mut bench = Bench::new(4);
    for _ in 0..10 {
        bench.round(); // pools and tables grow to their size
    }
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            bench.round();
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?} for 400 requests");
}

#[test]
fn nor_does_one_that_is_logged_and_limited() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut bench = Bench::guarded(4, &path);
    for _ in 0..500 {
        bench.round(); // also the buffers of the log grow to their size
    }
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            bench.round();
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?} for 400 requests");
    let logged = std::fs::read_to_string(&path).unwrap();
    assert!(logged.lines().count() > 100, "{logged}");
}

#[test]
fn a_turn_serves_all_that_is_due_with_one_enter() {
    let mut bench = Bench::new(64);
    bench.round();
    let before = bench.worker.ring.turns();
    for _ in 0..10 {
        bench.round();
    }
    let turns = bench.worker.ring.turns() - before;
    let requests = 640;
    // A round is one enter that brings the requests and one that sends the answers; the last
    // client may be looked at before that.
    assert!(turns <= requests / 10, "{turns} enters for {requests} requests");
}

#[test]
fn the_page_tells_what_a_turn_has_done() {
    let started = monotonic_nanos();
    let mut bench = Bench::new(2);
    let page = bench.worker.page;
    assert!(page.life.memory.read() > 1 << 20, "it is known from the begin");
    assert_eq!(page.life.last_activity.read(), 0);
    let (rounds, began) = (5, Instant::now());
    (0..rounds).for_each(|_| bench.round());
    // What is sent already is seen by the next turn, which goes to sleep until it is asked again.
    bench.clients[0].write_all(REQUEST).unwrap();
    bench.worker.turn(Instant::now).unwrap();
    let figures = &page.figures;
    assert_eq!((figures.requests.read(), figures.responses()), (10, [0, 10, 0, 0, 0]));
    let mut durations = Durations::new();
    durations.add(&figures.durations);
    assert_eq!(durations.count, 10);
    assert!(durations.max().unwrap() <= began.elapsed() * 2);
    assert!(page.life.last_activity.read() >= started);
    let loop_delay = page.loop_delay(0);
    assert!(!loop_delay.is_zero() && loop_delay <= began.elapsed());
    assert_eq!(page.traffic.busy_since.read(), 0, "it is asleep");
    assert_eq!(page.in_flight(0).requests, []);
}
