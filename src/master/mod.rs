//! The master: forks the workers, listens to them and to its operator, buries them. Does what
//! [`Pool`] decides, on one ring, and sleeps in between. Serves no client.

pub mod balance;
mod birth;
mod children;
mod completions;
#[cfg_attr(not(test), expect(dead_code, reason = "the master doesn't dispatch yet"))]
mod dispatch;
mod end;
mod error;
mod notice;
mod pool;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal as Number;
use nix::unistd::Pid;
use uring_ring::{Errno, Features, Op, Ring, SendBuffer, Setup};

use crate::config::{Address, Checked, PoolConfig};
use crate::process::channel::{self, Message};
use crate::process::cpus::Cpus;
use crate::process::listen::Listeners;
use crate::process::scoreboard::{Scoreboard, State};
use crate::process::seat::Seat;
use crate::process::signals::{self, MasterSignals};
use crate::process::sys::{self, Fork};

use birth::Birth;
use children::{Children, Life};
use end::End;
use pool::{Command, Event, Pool};

pub use error::MasterError;

/// Enough for a few completions a turn; what doesn't fit is submitted earlier.
const RING_ENTRIES: u32 = 64;

/// What there is to tell once all workers are ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready<'a> {
    /// Where the pool listens, with the ports that it really has.
    pub(crate) addresses: &'a [Address],
    /// How many workers serve.
    pub(crate) workers: usize,
}

/// Runs the pool until it is told to stop. There is a worker for each page of the scoreboard.
///
/// `worker` runs in each child, and its result is the child's exit code: 0 after a drain,
/// [`EXIT_CANNOT_START`](crate::process::EXIT_CANNOT_START) when trying again makes no sense.
/// `on_ready` is called once, when all workers are ready for the first time.
///
/// # Errors
///
/// What kept the pool from running; no worker is left then.
pub(crate) fn run(
    config: &Checked<PoolConfig>,
    features: Features,
    listeners: Listeners,
    scoreboard: Scoreboard,
    worker: &dyn Fn(Seat) -> i32,
    on_ready: &mut dyn FnMut(&Ready<'_>),
) -> Result<(), MasterError> {
    assert_eq!(listeners.workers(), scoreboard.pages().len(), "a socket for each worker");
    let mut foreign = birth::open_descriptors();
    foreign.retain(|fd| listeners.descriptors().all(|ours| ours != *fd));
    warn_of_threads();
    // An ignored SIGCHLD, inherited from whoever started us, would reap the workers unseen.
    sys::reset_signal(Number::SIGCHLD).map_err(MasterError::system("reset SIGCHLD"))?;
    let signals = MasterSignals::begin().map_err(MasterError::system("make a signalfd"))?;
    let setup = Setup { entries: RING_ENTRIES, restricted: true, features };
    let ring = Ring::new(setup).map_err(MasterError::Ring)?;
    ring.enable().map_err(MasterError::system("enable the ring"))?;
    let pool = Pool::new(listeners.workers(), config, Instant::now());
    let children = Children::new(listeners.workers());
    let cpus = Cpus::detect();
    let mut master =
        Master { children, ring, listeners, signals, scoreboard, features, cpus, foreign, worker };
    master.supervise(pool, on_ready)
}

/// What a completion means to the master.
#[derive(Clone, Copy, Debug)]
enum Tag {
    Signals,
    Message(Life),
    Told(Life),
    Ended(Life),
    ChannelClosed,
}

/// Everything that acts. Fields drop in this order: the workers end first.
struct Master<'a> {
    children: Children,
    ring: Ring<Tag>,
    listeners: Listeners,
    signals: MasterSignals,
    scoreboard: Scoreboard,
    features: Features,
    cpus: Cpus,
    /// Open before the pool was, and none of its business.
    foreign: Vec<RawFd>,
    worker: &'a dyn Fn(Seat) -> i32,
}

impl Master<'_> {
    /// The turn: what happened, what is due, what to do about it; then sleep until there is more.
    fn supervise(
        &mut self,
        mut pool: Pool,
        on_ready: &mut dyn FnMut(&Ready<'_>),
    ) -> Result<(), MasterError> {
        let mut events = Vec::new();
        let mut commands = Vec::new();
        self.push_read(self.signals.as_raw_fd(), signals::read_buffer(), Tag::Signals);
        loop {
            let now = Instant::now();
            while let Some(completion) = self.ring.poll_completion() {
                self.on_completion(completion, &mut events)?;
            }
            for event in events.drain(..) {
                pool.handle(event, now, &mut commands);
            }
            pool.handle_timeout(now, &mut commands);
            for command in commands.drain(..) {
                match command {
                    Command::Fork(worker) => events.extend(self.fork(worker)),
                    Command::Send(worker, message) => self.send(worker, &message),
                    Command::Kill(worker) => self.children.kill(worker),
                    Command::Tell(notice) => log::log!(notice.level(), "{notice}"),
                    Command::TellOf(worker, fate) => {
                        log::log!(fate.level(), "{} {fate}", self.name_of(worker));
                    }
                    Command::ReportReady => on_ready(&self.ready()),
                    Command::Finish(verdict) => return verdict.into_result(),
                }
            }
            let due = pool.poll_timeout().map(|at| at.saturating_duration_since(now));
            let wait = if events.is_empty() { due } else { Some(Duration::ZERO) };
            self.ring.turn(wait).map_err(MasterError::system("use the ring"))?;
        }
    }

    /// Starts a worker; that it failed to is an event of its own.
    fn fork(&mut self, worker: usize) -> Option<Event> {
        let error = self.try_fork(worker).err()?;
        self.children.forget_pid(worker);
        self.scoreboard.page(worker).on_end(State::Failed);
        let errno = Errno::new(error.raw_os_error().unwrap_or(libc::EAGAIN));
        Some(Event::WorkerEnded(worker, End::NotForked(errno)))
    }

    fn try_fork(&mut self, worker: usize) -> io::Result<()> {
        let (ours, theirs) = channel::pair()?;
        let core = self.cpus.core_of(worker);
        let master = Pid::this();
        let page = self.scoreboard.page(worker);
        page.on_fork(SystemTime::now(), self.children.lives(worker));
        match sys::fork()? {
            Fork::Child => {
                let foreign = self.foreign_descriptors(ours.as_raw_fd());
                let Master { listeners, scoreboard, features, .. } = self;
                let birth = Birth {
                    worker_id: worker,
                    core,
                    channel: theirs,
                    listeners,
                    scoreboard: *scoreboard,
                    features: *features,
                    master,
                    foreign,
                };
                birth::become_worker(birth, self.worker)
            }
            Fork::Parent { child } => {
                drop(theirs);
                let channel = ours.as_raw_fd();
                let life = self.children.insert(worker, child, ours);
                self.ring.push(Op::WaitChild { pid: child.as_raw() }, Tag::Ended(life));
                self.push_read(channel, channel::read_buffer(), Tag::Message(life));
                Ok(())
            }
        }
    }

    /// What the program around the pool had open, without numbers that have become the pool's.
    fn foreign_descriptors(&self, ours: RawFd) -> Vec<RawFd> {
        let channels: Vec<RawFd> = self.children.channels().chain([ours]).collect();
        self.foreign.iter().copied().filter(|fd| !channels.contains(fd)).collect()
    }

    fn send(&mut self, worker: usize, message: &Message) {
        let Some((life, fd)) = self.children.current(worker) else { return };
        match channel::encode(message) {
            Ok(packet) => {
                self.ring.push(Op::Send { fd, buffer: SendBuffer::new(packet) }, Tag::Told(life));
            }
            Err(error) => log::error!("cannot send {message:?}: {error}"),
        }
    }

    fn push_read(&mut self, fd: RawFd, buffer: Vec<u8>, tag: Tag) {
        self.ring.push(Op::Read { fd, buffer }, tag);
    }

    fn ready(&self) -> Ready<'_> {
        Ready { addresses: self.listeners.addresses(), workers: self.listeners.workers() }
    }

    fn name_of(&self, worker: usize) -> String {
        match self.children.last_pid(worker) {
            Some(pid) => format!("worker {worker} (pid {pid})"),
            None => format!("worker {worker}"),
        }
    }
}

/// A fork copies the calling thread alone; what the others have locked stays locked in the copy.
fn warn_of_threads() {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        log::warn!(
            "this process has {threads} threads, of which a worker gets but one: what another one \
             has locked when a worker is forked stays locked there; start threads in the workers"
        );
    }
}
