//! One page of shared memory for each worker, where it counts what it does. Nobody locks, and
//! nobody sends a message to be counted: each value has one writer, everyone may read.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_utils::CachePadded;
use serde::Serialize;

use super::sys;

/// The pages of a pool's workers. A handle: copies name the same memory, in children too.
#[derive(Clone, Copy)]
pub(crate) struct Scoreboard {
    pages: &'static [WorkerPage],
    /// When the pool started, in seconds since 1970.
    started_at: u64,
}

impl Scoreboard {
    /// Maps a page for each worker; they stay mapped as long as the process lives.
    ///
    /// # Errors
    ///
    /// No memory left.
    pub(crate) fn map(workers: usize, now: SystemTime) -> io::Result<Scoreboard> {
        Ok(Scoreboard { pages: sys::share_pages(workers)?, started_at: unix_seconds(now) })
    }

    /// The page of a worker; it outlives the worker, and its successor goes on with it.
    pub(crate) fn page(&self, worker: usize) -> &'static WorkerPage {
        &self.pages[worker]
    }

    /// All pages, in the order of workers.
    pub(crate) fn pages(&self) -> &'static [WorkerPage] {
        self.pages
    }

    pub(crate) fn started_at(&self) -> u64 {
        self.started_at
    }
}

impl fmt::Debug for Scoreboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoreboard").field("workers", &self.pages.len()).finish_non_exhaustive()
    }
}

/// What one worker shows of itself. On a page of its own, in groups that share no cache line.
#[repr(C, align(4096))]
pub(crate) struct WorkerPage {
    pub(crate) life: CachePadded<Life>,
    pub(crate) traffic: CachePadded<Traffic>,
}

const _: () = assert!(size_of::<WorkerPage>() == 4096);

/// Written when a worker begins, changes its state or ends; by the master while there is no
/// worker, and by the worker while there is one.
pub(crate) struct Life {
    state: AtomicU64,
    pid: AtomicU64,
    /// The core's number plus one; zero while there is none.
    core: AtomicU64,
    started_at: AtomicU64,
    /// Processes before this one.
    restarts: AtomicU64,
}

/// Written by the worker with every turn that has something to count.
pub(crate) struct Traffic {
    /// Open now.
    pub(crate) connections: Counter,
    pub(crate) connections_total: Counter,
    pub(crate) connections_closed: Counter,
    pub(crate) requests: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    /// Enters of its ring.
    pub(crate) turns: Counter,
}

impl WorkerPage {
    /// The master forks a worker for this page, the one after `restarts` others.
    pub(crate) fn on_fork(&self, now: SystemTime, restarts: u32) {
        self.life.restarts.store(u64::from(restarts), Relaxed);
        self.life.started_at.store(unix_seconds(now), Relaxed);
        self.set_state(State::Starting);
    }

    /// The new worker tells who and where it is.
    pub(crate) fn on_birth(&self, pid: u32, core: Option<usize>) {
        self.life.pid.store(u64::from(pid), Relaxed);
        self.life.core.store(core.map_or(0, |core| core as u64 + 1), Relaxed);
    }

    /// The master found the worker ended: with it ended the connections that it had open.
    pub(crate) fn on_end(&self, state: State) {
        let Traffic { connections, connections_closed, .. } = &*self.traffic;
        connections_closed.add(connections.read());
        connections.set(0);
        self.set_state(state);
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

    /// The core that the worker is pinned to.
    pub(crate) fn core(&self) -> Option<usize> {
        (self.life.core.load(Relaxed) as usize).checked_sub(1)
    }

    /// Processes before the last one.
    pub(crate) fn restarts(&self) -> u64 {
        self.life.restarts.load(Relaxed)
    }

    /// When the worker was forked, in seconds since 1970.
    pub(crate) fn started_at(&self) -> u64 {
        self.life.started_at.load(Relaxed)
    }
}

/// A count with one writer, so that a plain store does: no bus lock, as `fetch_add` would take.
/// Survives its writer; a successor goes on from where it stands.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.set(self.read().wrapping_add(count));
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    #[inline]
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Relaxed)
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

/// Seconds since 1970; a clock before that counts as 1970.
pub(super) fn unix_seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_the_page() {
        let scoreboard = Scoreboard::map(1, UNIX_EPOCH).unwrap();
        let page = scoreboard.page(0);
        assert_eq!(page.state(), State::Starting);
        for state in State::ALL {
            page.set_state(state);
            assert_eq!(page.state(), state);
        }
    }

    #[test]
    fn counts_survive_a_restart_and_open_connections_dont() {
        let scoreboard = Scoreboard::map(2, UNIX_EPOCH).unwrap();
        let page = scoreboard.page(1);
        page.on_birth(42, Some(0));
        page.traffic.connections_total.add(5);
        page.traffic.connections_closed.add(2);
        page.traffic.connections.set(3);
        page.on_end(State::Failed);
        page.on_fork(UNIX_EPOCH + Duration::from_secs(9), 1);
        page.on_birth(43, None);
        assert_eq!(page.traffic.connections.read(), 0);
        assert_eq!(page.traffic.connections_total.read(), 5);
        assert_eq!(page.traffic.connections_closed.read(), 5);
        assert_eq!((page.state(), page.pid(), page.core()), (State::Starting, 43, None));
        assert_eq!((page.started_at(), page.restarts()), (9, 1));
    }
}
