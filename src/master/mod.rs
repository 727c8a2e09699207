//! The master: forks the workers, listens to them and to its operator, buries them; accepts and
//! passes connections where it has to. Does what [`Pool`] and [`Dispatcher`] decide, on one ring,
//! and sleeps in between. Serves no client.
//!
//! [`Dispatcher`]: dispatch::Dispatcher

pub mod balance;
mod birth;
mod children;
mod commands;
mod completions;
mod dispatch;
mod dispatching;
mod end;
mod error;
mod handle;
mod notice;
mod pool;
mod refusal;
mod reload;
#[cfg(test)]
mod tests;
mod upgrade;
mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal as Number;
use nix::unistd::Pid;
use serde_json::Value;
use uring_ring::{Features, Op, Ring, Setup};

use crate::config::{Accept, Address, Checked, PoolConfig, WORKERS_MAX};
use crate::process::channel::{Limit, Message};
use crate::process::clock::monotonic_nanos;
use crate::process::cpus::Cpus;
use crate::process::inherit::Inheritance;
use crate::process::listen::Listeners;
use crate::process::notify::{Notice as Word, Notifier};
use crate::process::pid_file::PidFile;
use crate::process::scoreboard::Scoreboard;
use crate::process::seat::Seat;
use crate::process::signals::{self, MasterSignals};
use crate::process::steer::{Claim, SteerError, Steering};
use crate::process::sys;

use balance::Balancer;
use birth::Foreign;
use children::{Children, Life};
use dispatching::Dispatching;
use handle::OnSignal;
use notice::Cause;
use pool::{Event, Pool, Rules, Verdict};
use reload::Next;
use upgrade::{NewMaster, OldMaster, Program};
use watch::Watch;

pub use error::MasterError;
pub use handle::PoolHandle;

/// Enough for a batch of connections a turn; what doesn't fit is submitted earlier.
const RING_ENTRIES: u32 = 256;
/// How long a master that was upgraded waits for what is left of its workers. The kernel needs no more
/// on the busiest machine; it is longer where a worker has left its ring to a process of its own.
const ESTATES_MAX: Duration = Duration::from_secs(10);
/// Between looks whether an old master's workers have ended: nobody waits for that, it only costs.
const ORPHANS_EVERY: Duration = Duration::from_secs(1);

/// What there is to tell once all workers are ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready<'a> {
    /// Where the pool listens, with the ports that it really has.
    pub(crate) addresses: &'a [Address],
    /// How many workers serve.
    pub(crate) workers: usize,
    /// How connections reach them.
    pub(crate) accept: Accept,
}

/// What a master begins with.
pub(crate) struct Start {
    pub(crate) config: Checked<PoolConfig>,
    pub(crate) features: Features,
    pub(crate) listeners: Listeners,
    pub(crate) scoreboard: Scoreboard,
    /// The scoreboard's memory.
    pub(crate) memory: OwnedFd,
    /// What another master left to this one.
    pub(crate) old_master: Option<Inheritance>,
    pub(crate) pid_file: Option<PidFile>,
    pub(crate) handle: PoolHandle,
    pub(crate) balancer: Option<Box<dyn Balancer>>,
}

/// What of the program around the pool the master calls.
pub(crate) trait Surroundings {
    /// Runs a worker in a child; the result is its exit code: 0 after a drain,
    /// [`EXIT_CANNOT_START`](crate::process::EXIT_CANNOT_START) when trying again makes no sense.
    /// It has the settings that were read last, if it `is_next`, or else those in use.
    fn work(&self, seat: Seat, is_next: bool) -> i32;
    /// All workers are ready, for the first time.
    fn on_ready(&mut self, ready: &Ready<'_>);
    /// Reads the settings anew, for the next workers.
    fn read_settings(&mut self) -> Result<Checked<PoolConfig>, String>;
    /// The settings that were read last are in use from now on, or of no use.
    fn settle_settings(&mut self, are_new: bool);
    /// A worker sent a message of the embedder's own.
    fn on_message(&mut self, worker: usize, payload: Value);
}

/// Runs the pool until it is told to stop.
///
/// # Errors
///
/// What kept the pool from running; no worker is left then.
pub(crate) fn run(start: Start, around: &mut dyn Surroundings) -> Result<(), MasterError> {
    let Start { config, features, listeners, scoreboard, memory, .. } = start;
    let Start { old_master, pid_file, handle, balancer, .. } = start;
    let now = Instant::now();
    let predecessor = old_master.map(OldMaster::new);
    let inherited = predecessor.iter().flat_map(OldMaster::descriptors);
    let own = listeners.descriptors().chain([memory.as_raw_fd(), handle.bell()]);
    let ours: Vec<RawFd> = own.chain(inherited).collect();
    let foreign = Foreign::but(&ours);
    warn_of_threads();
    // An ignored SIGCHLD, inherited from whoever started us, would reap the workers unseen.
    sys::reset_signal(Number::SIGCHLD).map_err(MasterError::system("reset SIGCHLD"))?;
    let signals = MasterSignals::begin().map_err(MasterError::system("make a signalfd"))?;
    let setup = Setup { entries: RING_ENTRIES, restricted: true, features };
    let ring = Ring::new(setup).map_err(MasterError::Ring)?;
    ring.enable().map_err(MasterError::system("enable the ring"))?;
    // Where a write could block, the kernel would have a thread of its own do it.
    let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|errno| MasterError::system("make an eventfd")(errno.into()))?;
    let workers = listeners.workers();
    let seed = scoreboard.seed();
    let has_own_balancer = balancer.is_some();
    let balancer = balancer.unwrap_or_else(|| balance::of(config.balance, seed));
    let mut master = Master {
        children: Children::default(),
        ring,
        limit: Limit(config.message_bytes_max),
        dispatching: Dispatching::new(&config, balancer),
        has_own_balancer,
        watch: Watch::new(config.hang_timeout, now),
        steering: None,
        claim: None,
        accept: config.accept,
        config,
        next: None,
        listeners,
        signals,
        scoreboard,
        memory,
        features,
        cpus: Cpus::detect(),
        foreign,
        bell: bell.into(),
        handle,
        on_signal: Vec::new(),
        program: Program::of_this_process(),
        heir: None,
        lost_heir: None,
        upgrades: 0,
        predecessor,
        orphans_at: None,
        is_in_charge: false,
        owes_announcement: false,
        finishing: None,
        finish_by: None,
        names: Vec::new(),
        serving: BTreeMap::new(),
        pid_file,
        notifier: Notifier::from_environment(),
        watchdog_at: None,
        around,
    };
    master.set_up(now)?;
    let mut pool = Pool::new(workers, Rules::of(&master.config), seed, now);
    pool.set_beside_old_master(master.predecessor.is_some());
    master.supervise(pool)
}

/// What a completion means to the master.
#[derive(Clone, Copy, Debug)]
enum Tag {
    Signals,
    Bell,
    Wishes,
    Message(Life),
    /// A message to a worker went out, or didn't.
    Said(Life),
    /// One to the old master.
    Told,
    ToldNewMaster(u32),
    Ended(Life),
    Closed,
    Cancel,
    Accept {
        listener: usize,
    },
    /// A batch of connections went out, or didn't.
    Passed(Life),
    /// What a worker hands over.
    Arrived(Life),
    Reclaimed(Life),
    /// Listeners went out, or didn't.
    Lent(Life),
    RefusalSent(u64),
    RefusalRead(u64),
    NewMasterEnded(u32),
    NewMasterSaid(u32),
    Forwarded(u32),
    OldMasterSaid,
    OldMasterPassed,
}

/// Everything that acts. Fields drop in this order: the workers end first.
struct Master<'a> {
    children: Children,
    ring: Ring<Tag>,
    limit: Limit,
    dispatching: Dispatching,
    /// The embedder's.
    has_own_balancer: bool,
    watch: Watch,
    steering: Option<Steering>,
    /// Sockets that another master has steered, and which are to be steered here.
    claim: Option<Claim>,
    /// As it is done, which may be other than as configured.
    accept: Accept,
    config: Checked<PoolConfig>,
    /// What the workers have that shall take over.
    next: Option<Next>,
    listeners: Listeners,
    signals: MasterSignals,
    scoreboard: Scoreboard,
    memory: OwnedFd,
    features: Features,
    cpus: Cpus,
    /// None of the pool's business.
    foreign: Foreign,
    /// Workers ring it when there is something to see on the scoreboard.
    bell: OwnedFd,
    handle: PoolHandle,
    on_signal: Vec<(Number, OnSignal)>,
    program: Program,
    /// The master of another binary that takes over from this one; until it is reaped.
    heir: Option<NewMaster>,
    /// The one that has ended.
    lost_heir: Option<Pid>,
    /// New masters so far.
    upgrades: u32,
    /// The master that this one takes over from.
    predecessor: Option<OldMaster>,
    /// It has gone. When to look whether its workers have, too.
    orphans_at: Option<Instant>,
    /// Sockets, figures and files are this master's, and not its predecessor's.
    is_in_charge: bool,
    /// That this master serves is to be told, once it is clear how.
    owes_announcement: bool,
    /// All is over but what is on its way to the new master.
    finishing: Option<Verdict>,
    /// No later, whatever is left of our workers.
    finish_by: Option<Instant>,
    /// Who has ended in this turn, for the log.
    names: Vec<(Life, Pid)>,
    /// Who serves in each worker's place.
    serving: BTreeMap<usize, Life>,
    pid_file: Option<PidFile>,
    notifier: Notifier,
    /// When to tell the service manager that this process is alive.
    watchdog_at: Option<Instant>,
    around: &'a mut dyn Surroundings,
}

impl Master<'_> {
    /// Before the first fork.
    fn set_up(&mut self, now: Instant) -> Result<(), MasterError> {
        self.handle.show(self.scoreboard);
        self.push_read(self.signals.as_raw_fd(), signals::read_buffer(), Tag::Signals);
        self.push_read(self.bell.as_raw_fd(), Vec::with_capacity(8), Tag::Bell);
        self.push_read(self.handle.bell(), Vec::with_capacity(8), Tag::Wishes);
        if let Some(old) = &self.predecessor {
            old.begin(self.limit, &mut self.ring);
        }
        // What arrives while a worker works can be accepted and passed together after it. Whoever
        // started this process may have been patient, too.
        let is_patient = self.accept == Accept::Dispatch;
        if is_patient || self.predecessor.is_some() {
            let set = sys::set_patient(is_patient);
            set.unwrap_or_else(|error| log::debug!("the master's patience stays: {error}"));
        }
        if self.accept == Accept::Steered {
            match Steering::new(WORKERS_MAX) {
                Ok(steering) => self.steering = Some(steering),
                Err(error) => self.do_without_steering(&error),
            }
        }
        if self.predecessor.is_none() {
            self.take_charge(now).map_err(MasterError::system("listen"))?;
        }
        Ok(())
    }

    /// Sockets, figures and files are this master's from now on, whosever they were.
    fn take_charge(&mut self, now: Instant) -> io::Result<()> {
        self.is_in_charge = true;
        self.listen()?;
        self.claim = Some(Claim::begin(now));
        self.claim_steering(now);
        let figures = self.scoreboard.pool();
        figures.workers.set(self.listeners.workers() as u64);
        figures.accept.set(self.accept as u64);
        self.listeners.own_files();
        self.serving.values().for_each(|life| self.show_serving(*life, true));
        if self.accept == Accept::Dispatch {
            self.dispatching.listen(self.listeners.all()?, &mut self.ring);
            if self.predecessor.is_none() {
                self.dispatching.set_alone(&mut self.ring);
            }
        }
        Ok(())
    }

    /// Lets connections come to all sockets, and those who are to accept them do so: they may have been
    /// held until now, or some sockets may be new.
    fn listen(&mut self) -> io::Result<()> {
        let result = self.listeners.listen(self.config.backlog);
        let lives: Vec<Life> = self.children.iter().map(|(life, _)| life).collect();
        lives.into_iter().for_each(|life| self.send(life, &Message::Listening));
        result
    }

    /// The turn: what happened, what is due, what to do about it; then sleep until there is more.
    fn supervise(&mut self, mut pool: Pool) -> Result<(), MasterError> {
        let mut events = Vec::new();
        let mut commands = Vec::new();
        loop {
            let now = Instant::now();
            while let Some(completion) = self.ring.poll_completion() {
                self.on_completion(completion, now, &mut events)?;
            }
            self.settle_ended(now, &mut events);
            self.look_after_workers(now, &mut events);
            self.look_for_orphans(now, &mut events);
            self.claim_steering(now);
            for event in events.drain(..) {
                pool.handle(event, now, &mut commands);
            }
            pool.handle_timeout(now, &mut commands);
            for command in commands.drain(..) {
                self.act(command, &mut pool, now, &mut events);
            }
            self.handle.set_reload_requested(pool.is_reloading());
            self.dispatch(now);
            events.extend(self.dispatching.poll_empty().then_some(Event::QueueEmpty));
            self.announce();
            self.names.clear();
            self.feed_watchdog(now);
            if let Some(new) = &mut self.heir {
                new.flush(now, &mut self.ring);
            }
            self.receive_parked(now);
            if self.is_finished(now)
                && let Some(verdict) = self.finishing
            {
                self.handle.set_running(false);
                return verdict.into_result();
            }
            let due = [
                pool.poll_timeout(),
                self.dispatching.poll_timeout(),
                self.watch.poll_timeout(),
                self.children.poll_timeout(),
                self.watchdog_at,
                self.orphans_at,
                self.claim.map(|claim| claim.at),
                self.finish_by.filter(|at| *at > now),
                self.heir.as_ref().and_then(NewMaster::poll_timeout),
            ];
            let due = due.into_iter().flatten().min();
            let wait = due.map(|at| at.saturating_duration_since(now));
            let wait = if events.is_empty() { wait } else { Some(Duration::ZERO) };
            self.ring.turn(wait).map_err(MasterError::system("use the ring"))?;
        }
    }

    /// Whether nothing is left to be sent to anybody. For a new master's workers the end of this one
    /// means that nobody but them is told of connections, so it waits for the rings of its own.
    fn is_finished(&self, now: Instant) -> bool {
        let is_waiting = self.children.has_estates() && self.finish_by.is_some_and(|at| at > now);
        !is_waiting
            && self.heir.as_ref().is_none_or(NewMaster::is_served)
            && self.dispatching.is_finished()
    }

    fn look_after_workers(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.watch.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        let nanos = monotonic_nanos();
        let busy = self.children.iter().map(|(life, child)| (life, child.page.busy_for(nanos)));
        let Some(look) = self.watch.poll_look(now, busy) else { return };
        for (life, hang, lasting) in look.hanging {
            if !self.children.pid_of(life).is_some_and(is_traced) {
                events.push(Event::WorkerHangs(life, hang, lasting));
            }
        }
        self.children.iter().for_each(|(_, it)| it.page.asks.sleeps.set(look.is_quiet.into()));
    }

    /// Workers of an old master that was killed go on for a while, and accept until they hear of it.
    fn look_for_orphans(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.orphans_at.is_none_or(|at| at > now) {
            return;
        }
        let any = self.release_dead(); // and the ring of one that has just ended may be there
        self.orphans_at = any.then_some(now + ORPHANS_EVERY);
        if !any {
            events.push(Event::OldMasterGone);
        }
    }

    /// Finds out who was stopped, or goes on.
    fn look_for_stopped(&mut self, now: Instant) {
        let is_stopped = |pid: Pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        let stopped: Vec<Life> = self
            .children
            .iter()
            .filter(|(_, child)| is_stopped(child.pid))
            .map(|(life, _)| life)
            .collect();
        if self.steering.is_some() {
            for (worker, life) in &self.serving {
                self.steer(*worker, !stopped.contains(life));
            }
        }
        self.watch.handle_stopped(&stopped, now);
    }

    /// Shows the service manager that the loop turns.
    fn feed_watchdog(&mut self, now: Instant) {
        if self.watchdog_at.is_some_and(|at| at > now) {
            return;
        }
        self.watchdog_at = self.notifier.watchdog().map(|interval| now + interval);
        if self.watchdog_at.is_some() {
            self.notifier.tell(&[Word::Watchdog]);
        }
    }

    /// Steers what this master has to, once the kernel has let go of what another one had. Until then
    /// connections go by their hash.
    fn claim_steering(&mut self, now: Instant) {
        let Some(claim) = self.claim.filter(|claim| claim.at <= now) else { return };
        self.claim = None;
        let Some(steering) = &mut self.steering else { return };
        let is_done = {
            let mut groups = self.listeners.groups();
            groups.try_fold(true, |all, group| Ok(steering.try_take_over(&group)? && all))
        };
        match is_done {
            Ok(true) => {}
            Ok(false) => match claim.next(now) {
                Some(next) => self.claim = Some(next),
                None => self.do_without_steering(&SteerError::Taken),
            },
            Err(error) => self.do_without_steering(&error),
        }
    }

    fn do_without_steering(&mut self, error: &SteerError) {
        log::warn!("connections go to workers by their hash, not by load: {error}");
        self.steering = None;
        self.accept = Accept::Shared;
        if self.is_in_charge {
            self.scoreboard.pool().accept.set(self.accept as u64);
        }
    }

    /// Sends new connections to a worker's slots, or around them.
    fn steer(&self, worker: usize, is_welcome: bool) {
        let Some(steering) = &self.steering else { return };
        for slot in self.listeners.slots_of(worker) {
            steering.slot(slot).set_away(!is_welcome);
        }
    }

    fn push_read(&mut self, fd: RawFd, buffer: Vec<u8>, tag: Tag) {
        self.ring.push(Op::Read { fd, buffer }, tag);
    }

    fn name_of(&self, life: Life) -> String {
        let worker = life.worker;
        let ended = self.names.iter().find(|(ended, _)| *ended == life).map(|(_, pid)| *pid);
        match self.children.pid_of(life).or(ended) {
            Some(pid) => format!("worker {worker} (pid {pid})"),
            None => format!("worker {worker}"),
        }
    }
}

/// Whether somebody debugs the process, and may have it wait on purpose.
fn is_traced(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// A fork copies the calling thread alone; what the others have locked stays locked in the copy.
fn warn_of_threads() {
    let threads = fs::read_dir(Path::new("/proc/self/task")).map_or(1, Iterator::count);
    if threads > 1 {
        log::warn!(
            "this process has {threads} threads, of which a worker gets but one: what another one \
             has locked when a worker is forked stays locked there; start threads in the workers"
        );
    }
}

/// What keeps a change from beginning.
fn cause_of(error: &io::Error) -> Cause {
    Cause::System(uring_ring::Errno::new(error.raw_os_error().unwrap_or(libc::EIO)))
}
