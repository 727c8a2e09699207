//! Thousands of random stories: workers take, refuse, close, stall, leave and die, sends fail, and
//! whatever is told is told late. Whatever happens, each connection ends once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::rc::Rc;

use super::super::balance::{self, Candidate, Client};
use super::*;
use crate::config::Balance;

const QUEUE_MAX: usize = 20;
const QUEUE_TIMEOUT: Duration = Duration::from_millis(300);
/// Messages that fit into a worker's socket.
const SOCKET_MAX: usize = 3;

/// A connection, seen from outside.
struct Conn {
    origin: Origin,
    arrived: Instant,
    /// In a worker's hands; at most once.
    was_taken: bool,
    was_passed: bool,
    /// The master's descriptor is closed, or the client answered; exactly once.
    is_out: bool,
}

/// A worker process, its socket, and what is under way between it and the dispatcher.
struct Process {
    life: Life,
    connections_max: u64,
    is_alive: bool,
    is_leaving: bool,
    is_stalled: bool,
    socket: VecDeque<(u64, Vec<u32>)>,
    page: Progress,
    open: Vec<u32>,
    /// Refusals that the master hasn't read yet.
    refusals: VecDeque<(u64, u64)>,
    pass: Option<Pass>,
    reclaim: Option<Reclaim>,
    last_seq: u64,
    reclaimed_at: Option<Instant>,
}

struct Pass {
    first_seq: u64,
    conns: Vec<u32>,
    /// Once the kernel has done it.
    result: Option<Passed>,
}

/// What has been read back, one message after the other, until there was no more.
#[derive(Default)]
struct Reclaim {
    seqs: Vec<Range<u64>>,
    is_over: bool,
}

/// What the balancer was told.
#[derive(Default)]
struct Told {
    established: u64,
    closed: u64,
    removed: u64,
}

/// One of ours; once in a while it chooses nobody, or one who isn't there.
struct Moody {
    inner: Box<dyn Balancer>,
    told: Rc<RefCell<Told>>,
    calls: u64,
}

impl Balancer for Moody {
    fn select(&mut self, client: &Client<'_>, candidates: &[Candidate]) -> Option<usize> {
        self.calls += 1;
        assert!(!candidates.is_empty());
        match self.calls % 16 {
            3 => None,
            7 => Some(candidates.len()),
            _ => self.inner.select(client, candidates),
        }
    }

    fn on_connection_established(&mut self, worker_id: usize) {
        self.inner.on_connection_established(worker_id);
        self.told.borrow_mut().established += 1;
    }

    fn on_connection_closed(&mut self, worker_id: usize) {
        self.inner.on_connection_closed(worker_id);
        self.told.borrow_mut().closed += 1;
        let told = self.told.borrow();
        assert!(told.closed <= told.established, "closed before it was there");
    }

    fn on_worker_removed(&mut self, worker_id: usize) {
        self.inner.on_worker_removed(worker_id);
        self.told.borrow_mut().removed += 1;
    }
}

/// How often the interesting things happened, over all seeds.
#[derive(Default, Debug)]
struct Tally {
    taken: u64,
    refused: [u64; 3],
    reclaimed: u64,
    not_received: u64,
    not_sent: u64,
    died_with_some: u64,
    taken_before_passed: u64,
}

struct World {
    dispatcher: Dispatcher<u32>,
    told: Rc<RefCell<Told>>,
    now: Instant,
    random: u64,
    conns: Vec<Conn>,
    processes: Vec<Process>,
    lives: [u32; 4],
    tally: Tally,
}

impl World {
    fn new(seed: u64) -> World {
        let all = [
            Balance::LeastConnections,
            Balance::RoundRobin,
            Balance::Weighted,
            Balance::Sticky,
            Balance::PowerOfTwo,
        ];
        let told = Rc::new(RefCell::new(Told::default()));
        let inner = balance::of(all[seed as usize % 5], seed);
        let balancer = Moody { inner, told: Rc::clone(&told), calls: seed };
        let config = PoolConfig {
            queue_max: QUEUE_MAX,
            queue_timeout: QUEUE_TIMEOUT,
            ..PoolConfig::default()
        };
        let address =
            |conn: &u32| (!conn.is_multiple_of(3)).then(|| Ipv4Addr::from_bits(conn % 50).into());
        World {
            dispatcher: Dispatcher::new(&config, Box::new(balancer), address),
            told,
            now: Instant::now(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            conns: Vec::new(),
            processes: Vec::new(),
            lives: [0; 4],
            tally: Tally::default(),
        }
    }

    fn pick(&mut self, count: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % count
    }

    fn step(&mut self) {
        let index = match self.processes.len() as u64 {
            0 => None,
            count => Some(self.pick(count) as usize),
        };
        match (self.pick(40), index) {
            (0..=4, _) => (0..=self.pick(4)).for_each(|_| self.arrive(Origin::Accepted)),
            (5, _) => (0..self.pick(40)).for_each(|_| self.arrive(Origin::Accepted)),
            (6, _) => self.start(),
            (7..=9, _) => self.pass_time(),
            (10, Some(index)) if self.pick(4) == 0 => self.die(index),
            (11, Some(index)) if self.pick(3) == 0 => {
                self.processes[index].is_leaving = true;
                self.dispatcher.handle_worker_leaving(self.processes[index].life);
            }
            (12, Some(index)) => self.processes[index].is_stalled = self.pick(3) == 0,
            (13, Some(index)) => self.hand_over(index),
            (14..=21, Some(index)) => self.take(index),
            (22..=24, Some(index)) => self.close(index),
            (25..=28, Some(index)) => self.show(index),
            (29..=32, Some(index)) => self.kernel_works(index),
            (33..=36, Some(index)) => self.complete(index),
            (37, Some(index)) => self.hear(index),
            _ => self.poll(),
        }
    }

    fn arrive(&mut self, origin: Origin) {
        let id = self.conns.len() as u32;
        let arrived = self.now;
        let fresh = Conn { origin, arrived, was_taken: false, was_passed: false, is_out: false };
        self.conns.push(fresh);
        self.dispatcher.handle_connection(id, origin, self.now);
    }

    /// A worker in a place that has none, or none that stays.
    fn start(&mut self) {
        let worker = self.pick(4) as usize;
        let is_there = |process: &Process| {
            process.life.worker == worker && process.is_alive && !process.is_leaving
        };
        if self.processes.iter().any(is_there) {
            return;
        }
        self.lives[worker] += 1;
        let life = Life { worker, number: self.lives[worker] };
        let connections_max = 1 + self.pick(30);
        self.processes.push(Process {
            life,
            connections_max,
            is_alive: true,
            is_leaving: false,
            is_stalled: false,
            socket: VecDeque::new(),
            page: Progress::default(),
            open: Vec::new(),
            refusals: VecDeque::new(),
            pass: None,
            reclaim: None,
            last_seq: 0,
            reclaimed_at: None,
        });
        self.dispatcher.handle_worker_ready(life, 1 + worker as u32, connections_max);
    }

    fn pass_time(&mut self) {
        self.poll();
        let due = self.dispatcher.poll_timeout();
        let ahead = Duration::from_micros(self.pick(30_000));
        self.now = match due {
            Some(due) if self.pick(2) == 0 => due,
            _ => self.now + ahead,
        };
        self.poll();
    }

    fn die(&mut self, index: usize) {
        if !self.processes[index].is_alive {
            return;
        }
        while !self.processes[index].refusals.is_empty() {
            self.hear(index);
        }
        let process = &mut self.processes[index];
        process.is_alive = false;
        process.open.clear();
        self.tally.died_with_some += u64::from(!process.socket.is_empty());
        self.dispatcher.handle_worker_gone(process.life, process.page.taken);
    }

    /// A draining worker gives an idle connection back: a descriptor of its own to the master.
    fn hand_over(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let life = process.life;
        if process.is_leaving && process.is_alive && process.open.pop().is_some() {
            process.page.open -= 1;
            process.page.closed_total += 1;
            self.arrive(Origin::HandedOver { by: life });
        }
    }

    fn take(&mut self, index: usize) {
        let refuses = self.pick(12) == 0;
        let share = self.pick(3);
        let process = &mut self.processes[index];
        if !process.is_alive || process.is_stalled {
            return;
        }
        let Some((first_seq, conns)) = process.socket.pop_front() else { return };
        let count = conns.len() as u64;
        let kept = if refuses { count * share / 3 } else { count };
        for conn in &conns[..kept as usize] {
            let known = &mut self.conns[*conn as usize];
            assert!(!known.was_taken && !known.is_out, "{conn} is taken twice");
            assert!(known.origin != Origin::HandedOver { by: process.life }, "back to the giver");
            known.was_taken = true;
            process.open.push(*conn);
            process.page.open += 1;
            self.tally.taken += 1;
        }
        if kept < count {
            process.page.refused_total += count - kept;
            process.refusals.push_back((first_seq + kept, count - kept));
            self.tally.not_received += count - kept;
        }
        assert!(process.page.open <= process.connections_max, "more than the worker may have");
        if kept > 0 {
            assert!(first_seq > process.page.taken, "out of order");
            process.page.taken = first_seq + kept - 1;
        }
        let is_early = process.pass.as_ref().is_some_and(|pass| pass.first_seq == first_seq);
        self.tally.taken_before_passed += u64::from(is_early);
    }

    fn close(&mut self, index: usize) {
        let count = self.pick(8);
        let process = &mut self.processes[index];
        for _ in 0..count {
            if process.is_alive && process.open.pop().is_some() {
                process.page.open -= 1;
                process.page.closed_total += 1;
            }
        }
    }

    fn show(&mut self, index: usize) {
        let process = &self.processes[index];
        if process.is_alive {
            self.dispatcher.handle_progress(process.life, process.page, self.now);
        }
    }

    fn hear(&mut self, index: usize) {
        let process = &mut self.processes[index];
        if let Some((first_seq, count)) = process.refusals.pop_front() {
            self.dispatcher.handle_refused(process.life, first_seq, count, self.now);
        }
    }

    /// The kernel does what is to be done with a worker's socket; nobody knows yet.
    fn kernel_works(&mut self, index: usize) {
        let breaks = self.pick(10) == 0;
        let process = &mut self.processes[index];
        if let Some(pass) = &mut process.pass
            && pass.result.is_none()
        {
            let result = match () {
                () if breaks => Passed::Broken,
                () if process.socket.len() >= SOCKET_MAX => Passed::Full,
                () => Passed::Sent, // to nobody, if the worker has died
            };
            if result == Passed::Sent {
                process.socket.push_back((pass.first_seq, pass.conns.clone()));
            } else {
                self.tally.not_sent += 1;
            }
            pass.result = Some(result);
        }
        if let Some(reclaim) = &mut process.reclaim {
            match process.socket.pop_front() {
                Some((first, conns)) => reclaim.seqs.push(first..first + conns.len() as u64),
                None => reclaim.is_over = true,
            }
        }
    }

    /// The master learns what the kernel has done.
    fn complete(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let life = process.life;
        if let Some(reclaim) = process.reclaim.take_if(|reclaim| reclaim.is_over) {
            self.tally.reclaimed += reclaim.seqs.len() as u64;
            self.dispatcher.handle_reclaimed(life, &reclaim.seqs, self.now);
        } else if let Some(pass) = process.pass.take_if(|pass| pass.result.is_some()) {
            let result = pass.result.expect("it was checked");
            self.dispatcher.handle_passed(life, pass.conns, result, self.now);
        }
    }

    fn poll(&mut self) {
        let mut commands = Vec::new();
        self.dispatcher.poll_commands(self.now, &mut commands);
        commands.into_iter().for_each(|command| self.act(command));
        let due = self.dispatcher.poll_timeout();
        assert!(due.is_none_or(|at| at > self.now), "it would spin");
        if !self.dispatcher.wants_progress() {
            assert_eq!(due, None, "a wake-up for nothing");
        }
    }

    fn act(&mut self, command: Command<u32>) {
        match command {
            Command::Pass { life, first_seq, origins, conns } => {
                assert!((1..=BATCH_MAX).contains(&conns.len()));
                let process = self.processes.iter_mut().find(|process| process.life == life);
                let process = process.expect("it was started");
                assert!(process.is_alive && !process.is_leaving, "to one who isn't there");
                assert!(process.pass.is_none(), "one message at a time");
                assert!(first_seq > process.last_seq, "numbers rise");
                process.last_seq = first_seq + conns.len() as u64 - 1;
                for (conn, origin) in conns.iter().zip(&origins) {
                    let conn = &mut self.conns[*conn as usize];
                    assert_eq!(conn.origin, *origin);
                    conn.was_passed = true;
                }
                assert_eq!(conns.len(), origins.len());
                process.pass = Some(Pass { first_seq, conns, result: None });
            }
            Command::Reclaim { life } => {
                let process = self.processes.iter_mut().find(|process| process.life == life);
                let process = process.expect("it was started");
                assert!(process.is_alive, "the dead are asked for nothing");
                let last = process.reclaimed_at.replace(self.now);
                assert!(last.is_none_or(|last| self.now >= last + STALLED_AFTER), "too soon");
                assert!(process.reclaim.replace(Reclaim::default()).is_none(), "one at a time");
            }
            Command::Refuse { conn, origin, why } => {
                let conn = &mut self.conns[conn as usize];
                assert!(!conn.was_taken, "a worker has it");
                assert!(!mem::replace(&mut conn.is_out, true), "it is out twice");
                assert_eq!(conn.origin, origin);
                match why {
                    Refusal::QueueFull => assert!(!conn.was_passed, "it had been admitted"),
                    Refusal::QueueTimeout => {
                        assert!(self.now >= conn.arrived + QUEUE_TIMEOUT, "too early");
                    }
                    Refusal::Stopping => {}
                }
                self.tally.refused[why as usize] += 1;
            }
            Command::Release(conns) => {
                for conn in conns {
                    let conn = &mut self.conns[conn as usize];
                    assert!(conn.was_taken, "nobody has it");
                    assert!(!mem::replace(&mut conn.is_out, true), "it is out twice");
                }
            }
        }
    }

    /// Workers leave, take what is in their sockets, and end.
    fn end(&mut self) {
        self.dispatcher.begin_stop();
        self.poll();
        assert_eq!(self.dispatcher.queue_len(), 0, "nothing waits any more");
        for index in 0..self.processes.len() {
            self.dispatcher.handle_worker_leaving(self.processes[index].life);
            self.processes[index].is_leaving = true;
            for _ in 0..self.pick(3) {
                self.take(index);
            }
        }
        (0..self.processes.len()).for_each(|index| self.die(index));
        for index in 0..self.processes.len() {
            for _ in 0..=SOCKET_MAX + 1 {
                self.kernel_works(index);
                self.complete(index);
            }
        }
        self.poll();
        for (id, conn) in self.conns.iter().enumerate() {
            assert!(conn.is_out, "connection {id} is lost");
        }
        let told = self.told.borrow();
        assert_eq!(told.established, self.tally.taken);
        assert!(told.removed <= self.processes.len() as u64);
        assert!(self.dispatcher.workers.is_empty());
        assert_eq!(
            (self.dispatcher.poll_timeout(), self.dispatcher.wants_progress()),
            (None, false)
        );
    }
}

fn run(seed: u64) -> Tally {
    /// Names the seed of a story that fails.
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {}", self.0);
            }
        }
    }
    let _named = Named(seed);
    let mut world = World::new(seed);
    for _ in 0..600 {
        world.step();
    }
    world.end();
    world.tally
}

#[test]
fn in_any_story_each_connection_ends_once() {
    let mut sum = Tally::default();
    for seed in 0..10_000 {
        let tally = run(seed);
        sum.taken += tally.taken;
        (0..3).for_each(|why| sum.refused[why] += tally.refused[why]);
        sum.reclaimed += tally.reclaimed;
        sum.not_received += tally.not_received;
        sum.not_sent += tally.not_sent;
        sum.died_with_some += tally.died_with_some;
        sum.taken_before_passed += tally.taken_before_passed;
    }
    let rare = [sum.reclaimed, sum.not_received, sum.not_sent, sum.died_with_some];
    assert!(rare.iter().chain(&sum.refused).all(|count| *count > 500), "{sum:?}");
    assert!(sum.taken > 100_000 && sum.taken_before_passed > 500, "{sum:?}");
}
