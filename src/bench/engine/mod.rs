//! The load itself: threads that each drive a ring of their own, from a plan to what was recorded.
//! Judges nothing, prints nothing.

mod budget;
mod conn;
mod cores;
mod errors;
mod examples;
mod lane;
mod loader;
mod pace;
mod place;
mod task;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_timerslack;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;
use uring_ring::{Address, Features, Mask, Ring, Setup, Unavailable};

use super::measure::{LOAD_THREAD, family, listener};
use super::plan::{Authority, Plan, Shape};
use super::record::{Collector, Fault, Recorder, Rest, Settings};
use super::schedule::{Schedule, Share, Stage};
use examples::Examples;
use lane::{Lane, LocalMenu};
use loader::{Left, Loader, Tag};
pub use place::Unreachable;
use task::Task;
use world::Sockets;

/// Receive buffers of a thread: as large as most responses, and few enough to stay in its cache.
const BUFFER_BYTES: u32 = 4 << 10;
const BUFFERS_MIN: usize = 16;
const BUFFERS_MAX: usize = 256;
/// Entries of a thread's ring; more than one turn's requests are submitted in several enters.
const ENTRIES_MIN: usize = 64;
const ENTRIES_MAX: usize = 4096;
/// From the word to begin to the begin, so that no thread is late for it.
const HEAD_START: Duration = Duration::from_millis(2);

/// Why no load was begun.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// This machine has not enough of something for what was asked.
    Budget(String),
    /// The target can't be reached.
    Unreachable(Unreachable),
    /// No ring can be made here.
    Ring(Unavailable),
    /// Something else of this machine.
    Local(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Budget(words) => f.write_str(words),
            StartError::Unreachable(unreachable) => unreachable.fmt(f),
            StartError::Ring(unavailable) => unavailable.fmt(f),
            StartError::Local(error) => write!(f, "cannot start the load: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A load under way.
#[derive(Debug)]
pub struct Running {
    threads: Vec<JoinHandle<io::Result<Ended>>>,
    thread_ids: Vec<u32>,
    cores: Vec<Option<usize>>,
    may_spin: bool,
    epoch: Instant,
    stop: Arc<AtomicBool>,
    finished: Arc<(Mutex<Progress>, Condvar)>,
    places: Vec<Address>,
    server: Option<u32>,
}

#[derive(Default, Debug)]
struct Progress {
    /// Threads that are through.
    count: usize,
    /// They may go: whoever measures their CPU time has done so.
    may_leave: bool,
}

/// What one thread leaves.
#[derive(Debug)]
struct Ended {
    left: Left,
    cpu_nanos: u64,
}

/// A load that is over.
#[derive(Debug)]
pub struct Finished {
    /// For [`Collector::finish`].
    pub rests: Vec<Rest>,
    /// Of each kind of failure, the first one in words.
    pub examples: Vec<(Fault, String)>,
    /// `io_uring_enter(2)` calls of all threads: with a few at the start, their system calls.
    pub enters: u64,
    /// CPU time of the load threads, from the epoch on.
    pub cpu_nanos: u64,
    /// When the last thread stopped to send, in nanoseconds since the epoch; if that was after a
    /// number of requests, when they had their answers.
    pub load_end: u64,
}

impl Plan {
    /// How a run of it is recorded.
    pub fn recording(&self) -> Settings {
        Settings { open_loop: self.is_open_loop(), expected: self.nanos }
    }
}

impl Running {
    /// Connects, and starts the load of a plan. `server` is the first process of a server on this
    /// machine, which is looked for if it isn't named: threads keep away from the cores that its
    /// processes are bound to.
    ///
    /// # Errors
    ///
    /// Nothing was sent: the target can't be reached, or this machine has not enough of something.
    pub fn start(
        plan: &Plan,
        server: Option<u32>,
        collector: &mut Collector,
    ) -> Result<Running, StartError> {
        let features = Features::probe(Mask::NONE).map_err(StartError::Ring)?;
        let connections = u64::from(plan.connections);
        budget::descriptors(connections).map_err(StartError::Budget)?;
        budget::sources(&plan.sources).map_err(StartError::Budget)?;
        let places = place::find(plan).map_err(StartError::Unreachable)?;
        let mut is_local = true;
        for (place, authority) in places.iter().zip(&plan.authorities) {
            let is_net = place.family() != libc::AF_UNIX;
            let share = (authority.share.to - authority.share.from) * connections as f64;
            if is_net {
                budget::ports(share.ceil() as u64, plan.sources.len() as u64)
                    .map_err(StartError::Budget)?;
            }
            is_local &= !is_net || is_own(place);
        }
        let server = server.or_else(|| {
            let mut servers = places.iter().map(listener);
            let first = servers.next().flatten();
            first.filter(|_| servers.all(|it| it == first))
        });
        let mine: Vec<usize> =
            core_affinity::get_core_ids().into_iter().flatten().map(|core| core.id).collect();
        let seen = match server {
            Some(pid) => cores::Server::local(&family(pid), &mine),
            None if is_local => cores::Server::Roaming,
            None => cores::Server::Elsewhere,
        };
        // Each thread needs a connection to each place.
        let threads_max = plan.connections as usize / plan.authorities.len();
        let seats = cores::choose(&plan.pin, plan.threads, &mine, &seen, threads_max);
        let count = seats.cores.len();
        let stop = Arc::new(AtomicBool::new(false));
        let finished = Arc::new((Mutex::new(Progress::default()), Condvar::new()));
        let (ready, is_ready) = channel();
        let (mut threads, mut starts) = (Vec::new(), Vec::new());
        for (thread, core) in seats.cores.iter().enumerate() {
            let recipe = Recipe {
                plan: plan.clone(),
                places: places.clone(),
                thread,
                threads: count,
                may_spin: seats.may_spin,
                features,
            };
            let connections = recipe.connections().len();
            let recorder = collector.recorder(connections, plan.targets.len());
            let (start, begin) = channel();
            starts.push(start);
            let (stop, finished) = (Arc::clone(&stop), Arc::clone(&finished));
            let (ready, core) = (ready.clone(), *core);
            let run = move || {
                if let Some(id) = core {
                    core_affinity::set_for_current(core_affinity::CoreId { id });
                }
                // One more nanosecond is late enough; the default lets 50 us pass.
                let _ = set_timerslack(1);
                // A panic is told when the thread is joined, and must not be waited for before.
                let run = AssertUnwindSafe(|| recipe.run(recorder, &ready, &begin, &stop));
                let ended = catch_unwind(run);
                let (progress, changed) = &*finished;
                let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                progress.count += 1;
                changed.notify_all();
                drop(changed.wait_while(progress, |progress| !progress.may_leave));
                ended.unwrap_or_else(|panic| resume_unwind(panic))
            };
            let builder = thread::Builder::new().name(format!("{LOAD_THREAD}{thread}"));
            threads.push(builder.spawn(run).map_err(StartError::Local)?);
        }
        drop(ready);
        let mut thread_ids = Vec::new();
        for _ in 0..count {
            let trouble = match is_ready.recv() {
                Ok(Ok(id)) => {
                    thread_ids.push(id);
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => StartError::Local(io::Error::other("a thread has ended")),
            };
            // The others end when nobody says begin, and then may go.
            finished.0.lock().unwrap_or_else(PoisonError::into_inner).may_leave = true;
            finished.1.notify_all();
            return Err(trouble);
        }
        let epoch = Instant::now() + HEAD_START;
        for start in starts {
            let _ended = start.send(epoch);
        }
        let (cores, may_spin) = (seats.cores, seats.may_spin);
        Ok(Running { threads, thread_ids, cores, may_spin, epoch, stop, finished, places, server })
    }

    /// The addresses that connections go to.
    pub fn places(&self) -> &[Address] {
        &self.places
    }

    /// The first process of the server, if it was named or found on this machine.
    pub fn server(&self) -> Option<u32> {
        self.server
    }

    /// When the clock of the run began.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// The kernel's ids of the load threads.
    pub fn thread_ids(&self) -> &[u32] {
        &self.thread_ids
    }

    /// The core of each load thread, where it has one of its own.
    pub fn cores(&self) -> &[Option<usize>] {
        &self.cores
    }

    /// Whether the load has cores to itself, so that it can be exact about its times.
    pub fn has_spare_cores(&self) -> bool {
        self.may_spin
    }

    /// Waits until the load is over, or so long; whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let (progress, changed) = &*self.finished;
        let all = self.threads.len();
        let guard = progress.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, time, |progress| progress.count < all);
        waited.unwrap_or_else(PoisonError::into_inner).0.count >= all
    }

    /// Ends the load before its time: no request leaves any more, and answers are waited for as long as
    /// the plan says. Can be called from a handler of signals.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the end, and takes what the threads leave.
    ///
    /// # Errors
    ///
    /// A ring became unusable.
    pub fn finish(self) -> io::Result<Finished> {
        self.finished.0.lock().unwrap_or_else(PoisonError::into_inner).may_leave = true;
        self.finished.1.notify_all();
        let mut examples = Examples::default();
        let (mut rests, mut enters, mut cpu_nanos, mut load_end) = (Vec::new(), 0, 0, 0);
        for thread in self.threads {
            let ended = thread.join().map_err(|_| io::Error::other("a load thread panicked"))??;
            rests.push(ended.left.rest);
            examples.add(ended.left.examples);
            enters += ended.left.enters;
            load_end = load_end.max(ended.left.load_end);
            cpu_nanos += ended.cpu_nanos;
        }
        Ok(Finished { rests, examples: examples.into_list(), enters, cpu_nanos, load_end })
    }
}

/// The address is this machine's own.
fn is_own(place: &Address) -> bool {
    let text = place.to_string();
    let Ok(address) = text.parse::<SocketAddr>() else { return true };
    // Only own addresses can be bound.
    address.ip().is_loopback() || std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// What a thread needs to make its part of the load.
struct Recipe {
    plan: Plan,
    places: Vec<Address>,
    thread: usize,
    threads: usize,
    may_spin: bool,
    features: Features,
}

impl Recipe {
    fn run(
        self,
        recorder: Recorder,
        ready: &Sender<Result<u32, StartError>>,
        begin: &Receiver<Instant>,
        stop: &AtomicBool,
    ) -> io::Result<Ended> {
        let connections = self.connections();
        let count = connections.len();
        let task = self.task(connections);
        let entries = count.next_power_of_two().clamp(ENTRIES_MIN, ENTRIES_MAX) as u32;
        let buffers = count.next_power_of_two().clamp(BUFFERS_MIN, BUFFERS_MAX) as u16;
        let made = (|| {
            let setup = Setup { entries, restricted: false, features: self.features };
            let mut ring = Ring::<Tag>::new(setup).map_err(StartError::Ring)?;
            ring.enable().map_err(StartError::Local)?;
            let group = ring.add_buffers(buffers, BUFFER_BYTES).map_err(StartError::Local)?;
            let keeps = self.plan.requests_per_connection != Some(1) || self.plan.pipeline > 1;
            let sockets =
                Sockets { epoch: Instant::now(), sources: self.plan.sources.clone(), keeps };
            let mut loader = Loader::new(sockets, ring, group, task, recorder);
            loader.prepare().map_err(StartError::Local)?;
            Ok(loader)
        })();
        let mut loader = match made {
            Ok(loader) => loader,
            Err(error) => {
                let _nobody_waits = ready.send(Err(error));
                return Err(io::Error::other("the load was not begun"));
            }
        };
        let _nobody_waits = ready.send(Ok(gettid().as_raw().unsigned_abs()));
        let Ok(epoch) = begin.recv() else {
            return Err(io::Error::other("the load was not begun"));
        };
        thread::sleep(epoch.saturating_duration_since(Instant::now()));
        loader.world().epoch = epoch;
        let before = thread_cpu_nanos();
        let left = loader.run(stop)?;
        Ok(Ended { left, cpu_nanos: thread_cpu_nanos() - before })
    }

    /// The authority of each of this thread's connections.
    fn connections(&self) -> Vec<u32> {
        let all = u64::from(self.plan.connections);
        let mine = Share { from: 0.0, to: 1.0 }.part(self.thread, self.threads).of(all) as usize;
        let authorities = &self.plan.authorities;
        // One for each first, the others by their shares.
        let mut counts = vec![1_usize; authorities.len()];
        let rest = mine.saturating_sub(counts.len());
        for (count, authority) in counts.iter_mut().zip(authorities) {
            *count += authority.share.of(rest as u64) as usize;
        }
        let lanes = (0..).zip(counts);
        lanes.flat_map(|(lane, count): (u32, usize)| std::iter::repeat_n(lane, count)).collect()
    }

    fn task(&self, connections: Vec<u32>) -> Task {
        let plan = &self.plan;
        let whole = Share { from: 0.0, to: 1.0 };
        let mine = whole.part(self.thread, self.threads);
        let requests = plan.requests.map_or(u64::MAX, |all| mine.of(all));
        let lanes = plan.authorities.iter().map(|authority| Lane {
            schedule: self.schedule(authority, requests),
            idle: std::collections::VecDeque::new(),
            menu: LocalMenu::new(
                &authority.menu,
                self.thread,
                self.threads,
                plan.seed,
                plan.pipeline,
            ),
        });
        let openings = plan.connection_rate.map(|rate| {
            let stage = Stage { nanos: u64::MAX >> 1, from: rate, to: rate };
            Schedule::new(&Arc::from([stage]), super::Arrival::Constant, mine, 0, u64::MAX)
        });
        let inflight = |all: u64| usize::try_from(mine.of(all).max(1)).unwrap_or(usize::MAX);
        Task {
            lanes: lanes.collect(),
            peers: self.places.iter().cloned().map(Rc::new).collect(),
            targets: plan.targets.clone().into(),
            connections,
            is_open_loop: plan.is_open_loop(),
            pipeline: plan.pipeline as usize,
            session: plan.session,
            inflight_max: plan.inflight_max.map_or(usize::MAX, inflight),
            requests_per_connection: plan.requests_per_connection.unwrap_or(u64::MAX),
            openings,
            think: plan.think,
            timeout: plan.timeout,
            drain: plan.drain,
            end: plan.nanos.unwrap_or(u64::MAX),
            requests,
            expect: plan.expect.clone(),
            may_spin: self.may_spin,
        }
    }

    fn schedule(&self, authority: &Authority, requests: u64) -> Option<Schedule> {
        let limit = match requests {
            u64::MAX => u64::MAX,
            requests => authority.share.of(requests).div_ceil(self.plan.session),
        };
        match &self.plan.shape {
            Shape::Closed => None,
            Shape::Open { stages, arrival } => {
                let share = authority.share.part(self.thread, self.threads);
                Some(Schedule::new(stages, *arrival, share, self.plan.seed, limit))
            }
            Shape::Replay { times } => {
                Some(Schedule::of_times(times, self.thread, self.threads, limit))
            }
        }
    }
}

/// CPU time of this thread.
fn thread_cpu_nanos() -> u64 {
    let time =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every kernel has this clock");
    time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()
}
