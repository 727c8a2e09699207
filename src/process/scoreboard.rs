//! Shared memory where the pool counts what it does: a header that the master writes, and a page for
//! each worker process. Nobody locks, and nobody sends a message to be counted: each value has one
//! writer at a time, everyone may read.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::ptr;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Relaxed, Release},
};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::kill;
use nix::unistd::{Pid, ftruncate};
use serde::Serialize;

use super::clock::Moment;
use super::last_words::LastWords;
use super::sys;
use crate::config::WORKERS_MAX;
use crate::figures::{Counter, Figures, Unfinished};

/// Says that a mapping is a scoreboard of this layout: to be changed with the layout.
const MAGIC: u64 = u64::from_be_bytes(*b"urpool08");

/// Processes that one place may have at a time: one that serves, one that starts, and some that
/// still drain after earlier reloads. There are so many for the largest pool, as any may grow to
/// that: memory of pages that were never used is never touched, and costs nothing.
const PAGES_PER_WORKER: usize = 4;
pub(crate) const PAGES: usize = WORKERS_MAX * PAGES_PER_WORKER;

/// Words for what else the workers of a pool have to know of each other: five MiB, of which only what
/// is used is ever touched.
pub(crate) const SHARED_WORDS: usize = 5 << 17;

/// The pages of a pool's workers. A handle: copies name the same memory, in children too.
#[derive(Clone, Copy)]
pub(crate) struct Scoreboard {
    header: &'static Header,
    pages: &'static [WorkerPage],
}

impl Scoreboard {
    /// Makes the pages of a new pool. They stay mapped as long as the process lives; the
    /// descriptor is for whoever inherits them.
    ///
    /// # Errors
    ///
    /// No memory, or no descriptor left.
    pub(crate) fn create(now: Moment) -> io::Result<(Scoreboard, OwnedFd)> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memory = memfd_create(c"uring-pool scoreboard", flags)?;
        ftruncate(&memory, (size_of::<Header>() + PAGES * size_of::<WorkerPage>()) as i64)?;
        // What is mapped stays there, whoever else has the descriptor.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
        let (header, pages) = sys::map_scoreboard(memory.as_fd())?;
        header.magic.store(MAGIC, Relaxed);
        header.page_bytes.store(size_of::<WorkerPage>() as u64, Relaxed);
        header.started.store(now.nanos, Relaxed);
        header.seed.store(RandomState::new().hash_one(MAGIC), Relaxed);
        Ok((Scoreboard { header, pages }, memory))
    }

    /// Maps the pages of a pool that goes on in this process.
    ///
    /// # Errors
    ///
    /// They are of another version of this program, or no pages at all.
    pub(crate) fn inherit(memory: &OwnedFd) -> io::Result<Scoreboard> {
        let (header, pages) = sys::map_scoreboard(memory.as_fd())?;
        let is_ours = header.magic.load(Relaxed) == MAGIC
            && header.page_bytes.load(Relaxed) == size_of::<WorkerPage>() as u64;
        if !is_ours {
            return Err(io::Error::other("it is of another version"));
        }
        Ok(Scoreboard { header, pages })
    }

    /// A random number that this pool was born with.
    pub(crate) fn seed(&self) -> u64 {
        self.header.seed.load(Relaxed)
    }

    /// Memory that the whole pool shares, and that what comes after an upgrade inherits; all zeroes
    /// in the beginning.
    pub(crate) fn words(&self) -> &'static [AtomicU64; SHARED_WORDS] {
        &self.header.words.0
    }

    /// The number of a page.
    pub(crate) fn place_of(&self, page: &WorkerPage) -> Option<usize> {
        self.pages.iter().position(|it| ptr::eq(it, page))
    }

    /// Whether the page of this number has a process, or will have one.
    pub(crate) fn is_held(&self, place: usize) -> bool {
        self.pages.get(place).is_some_and(|page| page.life.holder.load(Relaxed) != 0)
    }

    /// What the master shows.
    pub(crate) fn pool(&self) -> &'static PoolFigures {
        &self.header.pool
    }

    /// A page for a new process in the place of `worker`, the one that a process of this worker
    /// had before where possible; none when all are taken.
    pub(crate) fn claim(&self, worker: usize, now: Moment) -> Option<&'static WorkerPage> {
        let restarts = self.newest(worker).map_or(0, |page| page.restarts() + 1);
        let unused = self.pages.iter().filter(|page| page.life.owner.load(Relaxed) == 0);
        let page = self.of_worker(worker).chain(unused).find(|page| page.life.try_claim())?;
        page.life.owner.store(worker as u64 + 1, Relaxed);
        page.life.birth.store(self.header.births.fetch_add(1, Relaxed) + 1, Relaxed);
        page.life.restarts.store(restarts, Relaxed);
        page.life.started_at.store(now.unix_seconds, Relaxed);
        page.life.started.store(now.nanos, Relaxed);
        page.life.core.store(0, Relaxed);
        page.orders.released.set(0);
        page.asks.closings.set(0);
        page.asks.sleeps.set(0);
        page.life.last_activity.set(0);
        page.traffic.loop_delay_max.set(0);
        page.figures.black_box.clear();
        page.last_words.clear();
        page.set_state(State::Starting);
        Some(page)
    }

    /// The page of the process that speaks for a worker: which serves, or else was born last.
    pub(crate) fn speaker(&self, worker: usize) -> Option<&'static WorkerPage> {
        let rank = |page: &&WorkerPage| (page.life.serving.read(), page.life.birth.load(Relaxed));
        self.of_worker(worker).max_by_key(rank)
    }

    /// The page of the last process in this worker's place.
    pub(crate) fn newest(&self, worker: usize) -> Option<&'static WorkerPage> {
        self.of_worker(worker).max_by_key(|page| page.life.birth.load(Relaxed))
    }

    /// The pages of all processes that this worker's place has had.
    pub(crate) fn of_worker(&self, worker: usize) -> impl Iterator<Item = &'static WorkerPage> {
        let owner = worker as u64 + 1;
        self.used().filter(move |page| page.life.owner.load(Relaxed) == owner)
    }

    /// The pages that have ever been used.
    pub(crate) fn used(&self) -> impl Iterator<Item = &'static WorkerPage> + use<> {
        self.pages.iter().take_while(|page| page.life.owner.load(Relaxed) != 0)
    }

    /// Frees the pages of processes that have ended while nobody could see it: of those that
    /// another master has forked, who isn't there any more. This master's own are none of them.
    /// Whether there was any of another master's, dead or alive.
    pub(crate) fn release_dead(&self, is_own: impl Fn(&WorkerPage) -> bool) -> bool {
        let mut any = false;
        for page in self.used().filter(|page| !is_own(page)) {
            let holder = page.life.holder.load(Relaxed);
            any |= holder != 0;
            if holder != 0 && kill(Pid::from_raw(holder as i32), None) == Err(Errno::ESRCH) {
                page.on_end(holder as u32, State::Failed);
            }
        }
        any
    }

    /// When the pool started, in nanoseconds of the monotonic clock.
    pub(crate) fn started(&self) -> u64 {
        self.header.started.load(Relaxed)
    }
}

impl fmt::Debug for Scoreboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoreboard").field("pages", &self.pages.len()).finish_non_exhaustive()
    }
}

/// The first page.
#[repr(C, align(4096))]
pub(crate) struct Header {
    magic: AtomicU64,
    page_bytes: AtomicU64,
    /// When the pool started, in nanoseconds of the monotonic clock.
    started: AtomicU64,
    /// Processes so far; orders those of one place.
    births: AtomicU64,
    /// What balancers draw with; the same after an upgrade, so that sticky clients stay.
    seed: AtomicU64,
    pool: CachePadded<PoolFigures>,
    words: SharedWords,
}

/// On pages of their own.
#[repr(C, align(4096))]
struct SharedWords([AtomicU64; SHARED_WORDS]);

/// Written by the master; by two of them for a moment, during an upgrade.
pub(crate) struct PoolFigures {
    /// Workers that there should be.
    pub(crate) workers: Counter,
    /// How connections reach the workers: the number of a [`config::Accept`](crate::config::Accept).
    pub(crate) accept: Counter,
    /// Connections that wait in the master for a worker.
    pub(crate) queue_size: Counter,
    /// Connections that the master has accepted.
    pub(crate) accepted: Counter,
    /// Connections that the master has answered with 503.
    pub(crate) refused: Counter,
    /// Idle connections that went from one worker to another.
    pub(crate) handed_over: Counter,
    /// Connections that ended with a worker that died.
    pub(crate) lost: Counter,
    /// Messages of the embedder's that a worker had no room for, since it read none.
    pub(crate) dropped_messages: Counter,
    /// Reloads that have succeeded.
    pub(crate) reloads: Counter,
    /// Binary upgrades that have succeeded.
    pub(crate) upgrades: Counter,
}

/// What its own master asks of a worker, which looks with every turn: on a cache line that rarely
/// changes.
pub(crate) struct Asks {
    /// Not zero while connections wait for room: who closes one tells the master.
    pub(crate) closings: Counter,
    /// Not zero while no timer of the master's looks after the workers: who starts to work rings
    /// its bell, and takes this back.
    pub(crate) sleeps: Counter,
}

/// What one worker process shows of itself, in groups that share no cache line. It outlives the
/// process, and a successor goes on with it.
#[repr(C, align(4096))]
pub(crate) struct WorkerPage {
    pub(crate) life: CachePadded<Life>,
    pub(crate) traffic: CachePadded<Traffic>,
    pub(crate) figures: CachePadded<Figures>,
    pub(crate) orders: CachePadded<Orders>,
    pub(crate) asks: CachePadded<Asks>,
    /// Where the process was when it was asked, before it had to be killed.
    last_words: CachePadded<LastWords>,
}

const _: () = assert!(size_of::<WorkerPage>().is_multiple_of(4096));

impl fmt::Debug for WorkerPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPage").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

/// Written when a worker begins, changes its state or ends; by the master while there is no
/// worker, and by the worker while there is one.
pub(crate) struct Life {
    /// The process that has the page: the master that is about to fork a worker, then that; zero
    /// while nobody has it.
    holder: AtomicU64,
    /// One while new connections come to this process, and not to another one of its place.
    serving: Counter,
    /// The worker's number plus one; zero on a page that was never used.
    owner: AtomicU64,
    /// Orders the processes of a place.
    birth: AtomicU64,
    state: AtomicU64,
    pid: AtomicU64,
    /// The core's number plus one; zero while there is none.
    core: AtomicU64,
    /// When the process was forked, in seconds since 1970, and in nanoseconds of the monotonic clock.
    started_at: AtomicU64,
    started: AtomicU64,
    /// Processes in this place before this one.
    restarts: AtomicU64,
    /// When it last served a request, in nanoseconds of the monotonic clock; zero before.
    pub(crate) last_activity: Counter,
    /// Bytes in RAM when it was last active.
    pub(crate) memory: Counter,
}

/// Written by the master while there is a worker.
pub(crate) struct Orders {
    /// The highest sequence number up to which the master holds no copy of a passed connection. A
    /// socket of a later one doesn't end by being closed here.
    pub(crate) released: Counter,
}

impl Life {
    fn try_claim(&self) -> bool {
        self.try_pass(0, process::id())
    }

    /// From one holder to another: it alone may write then.
    fn try_pass(&self, from: u32, to: u32) -> bool {
        self.holder.compare_exchange(from.into(), to.into(), AcqRel, Relaxed).is_ok()
    }
}

/// Written by the worker with every turn that has something to count.
pub(crate) struct Traffic {
    /// Open now.
    pub(crate) connections: Counter,
    pub(crate) connections_total: Counter,
    pub(crate) connections_closed: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    /// Files that were in memory when they were asked for, and those that weren't.
    pub(crate) cache_hits: Counter,
    pub(crate) cache_misses: Counter,
    /// Enters of its ring.
    pub(crate) turns: Counter,
    /// The sequence number of the last connection that it took from the master.
    pub(crate) taken: Counter,
    /// Connections that the master passed and that it had no descriptor for.
    pub(crate) not_taken: Counter,
    /// When the turn began that it works on, in nanoseconds of the monotonic clock; zero while it
    /// waits.
    pub(crate) busy_since: Counter,
    /// The longest that this process has worked on one turn, in nanoseconds.
    pub(crate) loop_delay_max: Counter,
    /// Bytes of memory that its connections hold.
    pub(crate) memory_held: Counter,
    /// Lines of the access log that were written, and that were dropped.
    pub(crate) lines_logged: Counter,
    pub(crate) lines_dropped: Counter,
}

impl WorkerPage {
    /// The master has forked the process, whose page this is from now on.
    pub(crate) fn on_fork(&self, pid: u32) {
        self.life.holder.store(pid.into(), Relaxed);
    }

    /// The new worker tells who and where it is.
    pub(crate) fn on_birth(&self, pid: u32, core: Option<usize>) {
        self.on_fork(pid);
        self.life.pid.store(u64::from(pid), Relaxed);
        self.life.core.store(core.map_or(0, |core| core as u64 + 1), Relaxed);
    }

    /// The process that had the page has ended, and with it the connections that it had open.
    /// Nothing happens when somebody else has found that out before.
    pub(crate) fn on_end(&self, pid: u32, state: State) {
        if !self.life.try_pass(pid, process::id()) {
            return;
        }
        let Traffic { connections, connections_closed, .. } = &*self.traffic;
        connections_closed.add(connections.read());
        connections.set(0);
        self.traffic.taken.set(0);
        self.traffic.not_taken.set(0);
        self.traffic.busy_since.set(0);
        self.traffic.memory_held.set(0);
        self.life.memory.set(0);
        self.life.serving.set(0);
        self.set_state(state);
        self.life.holder.store(0, Release);
    }

    /// New connections come to this process from now on, or don't.
    pub(crate) fn set_serving(&self, serves: bool) {
        self.life.serving.set(serves.into());
    }

    pub(crate) fn state(&self) -> State {
        State::ALL[(self.life.state.load(Relaxed) as usize).min(State::ALL.len() - 1)]
    }

    pub(crate) fn set_state(&self, state: State) {
        self.life.state.store(state as u64, Relaxed);
    }

    /// Zero before the first worker.
    pub(crate) fn pid(&self) -> u32 {
        self.life.pid.load(Relaxed) as u32
    }

    /// How long the turn has lasted that it works on; none while it waits. `now` is in nanoseconds
    /// of the monotonic clock.
    pub(crate) fn busy_for(&self, now: u64) -> Option<Duration> {
        let since = self.traffic.busy_since.read();
        (since != 0).then(|| Duration::from_nanos(now.saturating_sub(since)))
    }

    /// The core that the worker is pinned to.
    pub(crate) fn core(&self) -> Option<usize> {
        (self.life.core.load(Relaxed) as usize).checked_sub(1)
    }

    /// Processes before the last one.
    pub(crate) fn restarts(&self) -> u64 {
        self.life.restarts.load(Relaxed)
    }

    /// What a worker, alive or dead, has begun and not finished. `now` is in nanoseconds of the
    /// monotonic clock.
    pub(crate) fn in_flight(&self, now: u64) -> Unfinished {
        self.figures.black_box.read(now)
    }

    /// The longest that the process has worked on one turn, be it the one of `now`, in nanoseconds
    /// of the monotonic clock.
    pub(crate) fn loop_delay(&self, now: u64) -> Duration {
        let since = self.traffic.busy_since.read();
        let current = if since == 0 { 0 } else { now.saturating_sub(since) };
        Duration::from_nanos(current.max(self.traffic.loop_delay_max.read()))
    }

    /// Leaves a text for the master. Async-signal-safe: nothing but atomic stores.
    pub(crate) fn write_last_words(&self, text: &[u8]) {
        self.last_words.write(text);
    }

    /// What the process wrote before it ended.
    pub(crate) fn last_words(&self) -> Option<String> {
        self.last_words.read()
    }

    /// When the worker was forked, in seconds since 1970.
    pub(crate) fn started_at(&self) -> u64 {
        self.life.started_at.load(Relaxed)
    }

    /// The same in nanoseconds of the monotonic clock, which nobody sets.
    pub(crate) fn started(&self) -> u64 {
        self.life.started.load(Relaxed)
    }
}

/// What a worker is doing.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Forked, not ready yet.
    Starting,
    /// Serves.
    Ready,
    /// Serves as many as it may; more have to wait.
    Busy,
    /// Finishes what is open, takes nothing new.
    Stopping,
    /// Ended as it was told to.
    Stopped,
    /// Ended otherwise; a successor follows.
    Failed,
}

impl State {
    /// In the order of their numbers; a new page is all zeroes, which is the first.
    const ALL: [State; 6] = [
        State::Starting,
        State::Ready,
        State::Busy,
        State::Stopping,
        State::Stopped,
        State::Failed,
    ];

    /// Whether it serves.
    pub fn is_active(self) -> bool {
        matches!(self, State::Ready | State::Busy)
    }

    /// Whether it serves, or is about to.
    pub fn is_running(self) -> bool {
        self.is_active() || self == State::Starting
    }

    /// Whether there is a process.
    pub fn is_alive(self) -> bool {
        !matches!(self, State::Stopped | State::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scoreboard() -> Scoreboard {
        Scoreboard::create(Moment::default()).unwrap().0
    }

    #[test]
    fn every_state_survives_the_page() {
        let page = scoreboard().claim(0, Moment::default()).unwrap();
        assert_eq!(page.state(), State::Starting);
        for state in State::ALL {
            page.set_state(state);
            assert_eq!(page.state(), state);
        }
    }

    #[test]
    fn counts_survive_a_restart_and_open_connections_dont() {
        let scoreboard = scoreboard();
        let page = scoreboard.claim(1, Moment::default()).unwrap();
        page.on_birth(42, Some(0));
        page.traffic.connections_total.add(5);
        page.traffic.connections_closed.add(2);
        page.traffic.connections.set(3);
        page.on_end(41, State::Failed);
        assert_eq!(page.traffic.connections.read(), 3, "that was somebody else");
        page.on_end(42, State::Failed);
        let later = Moment { unix_seconds: 9, nanos: 90 };
        let again = scoreboard.claim(1, later).unwrap();
        assert!(std::ptr::eq(page, again), "a successor goes on with the page");
        page.on_birth(43, None);
        assert_eq!(page.traffic.connections.read(), 0);
        assert_eq!(page.traffic.connections_total.read(), 5);
        assert_eq!(page.traffic.connections_closed.read(), 5);
        assert_eq!((page.state(), page.pid(), page.core()), (State::Starting, 43, None));
        assert_eq!((page.started_at(), page.started(), page.restarts()), (9, 90, 1));
    }

    #[test]
    fn processes_that_share_a_place_have_a_page_each() {
        let scoreboard = scoreboard();
        let old = scoreboard.claim(0, Moment::default()).unwrap();
        let new = scoreboard.claim(0, Moment::default()).unwrap();
        assert!(!std::ptr::eq(old, new));
        assert!(std::ptr::eq(scoreboard.newest(0).unwrap(), new));
        old.on_end(process::id(), State::Stopped);
        let third = scoreboard.claim(0, Moment::default()).unwrap();
        assert!(std::ptr::eq(old, third), "free pages are used again");
        assert!(std::ptr::eq(scoreboard.newest(0).unwrap(), third));
        assert_eq!((third.restarts(), scoreboard.used().count()), (2, 2));
    }

    #[test]
    fn who_serves_speaks_for_its_place_or_else_who_was_born_last() {
        let scoreboard = scoreboard();
        let speaks = |page| std::ptr::eq(scoreboard.speaker(0).unwrap(), page);
        let [old, successor] = [0, 0].map(|id| scoreboard.claim(id, Moment::default()).unwrap());
        assert!(speaks(successor), "nobody serves");
        old.set_serving(true);
        assert!(speaks(old));
        successor.on_end(process::id(), State::Failed);
        assert!(speaks(old), "its successor has failed");
        old.on_end(process::id(), State::Failed);
        let restarted = scoreboard.claim(0, Moment::default()).unwrap();
        assert!(speaks(restarted));
    }

    #[test]
    fn a_pool_that_grows_and_shrinks_for_ever_finds_its_old_pages() {
        let scoreboard = scoreboard();
        for workers in [1, 40].repeat(20) {
            let pages = (0..workers).map(|id| scoreboard.claim(id, Moment::default()).unwrap());
            pages.for_each(|page| page.on_end(process::id(), State::Stopped));
        }
        assert_eq!(scoreboard.used().count(), 40);
    }

    #[test]
    fn pages_of_processes_that_ended_unseen_are_found() {
        let scoreboard = scoreboard();
        let [own, strangers, living] =
            [0, 1, 2].map(|id| scoreboard.claim(id, Moment::default()).unwrap());
        for page in [own, strangers] {
            page.on_birth(i32::MAX as u32, None); // no process has this pid
        }
        scoreboard.release_dead(|page| std::ptr::eq(page, own));
        let states = [own, strangers, living].map(WorkerPage::state);
        assert_eq!(states, [State::Starting, State::Failed, State::Starting]);
        assert!(std::ptr::eq(scoreboard.claim(1, Moment::default()).unwrap(), strangers));
        scoreboard.release_dead(|_| false);
        assert_eq!(strangers.state(), State::Starting, "it was just claimed, by a living process");
    }

    #[test]
    fn whoever_inherits_the_memory_sees_the_same_pages() {
        let (scoreboard, memory) = Scoreboard::create(Moment::default()).unwrap();
        scoreboard.claim(0, Moment::default()).unwrap().figures.requests.add(7);
        let inherited = Scoreboard::inherit(&memory).unwrap();
        assert_eq!(inherited.newest(0).unwrap().figures.requests.read(), 7);
        scoreboard.header.page_bytes.store(1, Relaxed);
        assert!(Scoreboard::inherit(&memory).is_err(), "of another layout");
    }
}
