//! What becomes of the workers: events in, commands out. Forks nothing, logs nothing and reads no
//! clock, so that every rule is a test of a few lines.
//!
//! The rules:
//! - A worker that ends is started again: at once the first time, then after a delay that doubles
//!   with each failure. One that had been ready for [`HEALTHY_AFTER`] starts that count afresh, and
//!   one that had been ready at all never waits longer than [`SERVING_DELAY_MAX`].
//! - One that doesn't get ready again and again leaves its clients to another one until it does.
//! - A worker that isn't ready in time is killed, as is one that hangs, and one that closes its
//!   channel and lives on.
//! - Until all workers have been ready once, nobody relies on the pool: a worker that says it
//!   cannot start, or fails [`START_TRIES_MAX`] times, makes the pool give up. After that, nothing does.
//! - A worker that somebody else told to end is recycled, as is one that has had its share.
//! - A reload starts a successor in every place, and a recycling in one. Only when all of them are
//!   ready are the old workers told to leave; when one fails, the others leave, and the old ones stay.
//!   There is one such change at a time, and settings are read when theirs begins: whoever is
//!   started for something else has those that are in use.
//! - An upgrade is a new master with workers of its own. Once it is ready, everything is offered to
//!   it; once it has taken over, our workers leave. Until it has ended nobody else is started in its
//!   stead; when it ends after all, whatever it had is ours again.
//! - At the first signal to stop the master passes on whom it has accepted; then the signal goes on to
//!   the workers, as it does at once to a new master that serves nobody yet. When all have let go of the
//!   listeners, nobody is let in any more. A second signal, or the deadline, kills them.

mod change;
mod stop;
mod upgrade;

use std::time::{Duration, Instant};

use super::children::Life;
use super::end::End;
use super::error::MasterError;
use super::notice::{Busy, Cause, Clients, Fate, Hurry, Next, Notice};
use super::watch::Hang;
use crate::config::{Accept, PoolConfig};
use crate::process::channel::{Message, RecycleReason};
use crate::process::signals::Signal;
use change::Change;
use upgrade::Upgrade;

/// A worker that was ready this long didn't fail because of how it starts.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// A worker that got ready can serve, and clients queue up for its successor at its socket. At this
/// pace a crash loop costs one core some percent, and each of its clients half a second.
const SERVING_DELAY_MAX: Duration = Duration::from_millis(500);
/// A pool that never was ready gives up at this failure of one worker: two more tries are for
/// what passes (memory, a database that starts as well), not for what is wrong.
const START_TRIES_MAX: u32 = 3;
/// A worker that failed this often before it got ready won't soon: with the default delays this is
/// after three seconds, as long as a client may wait for its connection to be accepted.
const LOOP_FAILURES: u32 = 6;
/// Between the deadline that workers are told and their end by force: time to close what is open.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// A process that ends closes its channel before it can be reaped, by the time that the kernel
/// takes to tear it down.
const CHANNEL_GRACE: Duration = Duration::from_secs(1);
/// A worker that hangs has so long to write down where, and then ends by itself: some milliseconds;
/// on a busy machine the names of a large program take more than a second.
const LAST_WORDS_GRACE: Duration = Duration::from_secs(3);
/// A worker that is due to be recycled, but whose successor failed, serves on for so long.
const RECYCLE_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A signal to the whole process group reaches a worker and its master at about the same time; a
/// worker that got one has no successor started for it before it is clear that it got it alone.
const GROUP_SIGNAL_GRACE: Duration = Duration::from_millis(100);

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    WorkerReady(Life),
    WorkerEnded(Life, End),
    ChannelClosed(Life),
    /// A process has ended, but not its ring.
    EstateLeft(Life),
    /// Now that has, too.
    EstateGone(Life),
    /// No connection comes to it any more.
    AcceptStopped(Life),
    /// Nor to the master itself, and whom it had accepted is with a worker, or was refused.
    QueueEmpty,
    RecycleDue(Life, RecycleReason),
    /// Its loop has not turned for so long.
    WorkerHangs(Life, Hang, Duration),
    Signal(Signal),
    /// Somebody wants so many workers; 0 is one a core.
    Scale {
        workers: usize,
    },
    /// Somebody wanted it of the old master.
    Renew(Wanted),
    /// The settings that were to be read are there, for so many workers, and good.
    Reload {
        workers: usize,
        ready_timeout: Duration,
    },
    /// They are of no use.
    ReloadRefused,
    /// The master of the new binary has its workers ready.
    UpgradeReady,
    /// Everything is its own now.
    UpgradeServes,
    /// There is none.
    UpgradeFailed(Cause),
    /// Its process has ended.
    UpgradeEnded(End),
    /// The master that this one takes over from, and all of its workers.
    OldMasterGone,
}

/// What to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Command {
    Fork(Life),
    /// With the settings that were read last.
    ForkNext(Life),
    Send(Life, Message),
    /// Tell it that nobody else accepts from its listeners.
    TellAlone(Life),
    /// By `SIGKILL`.
    Kill(Life),
    /// Have it write down where it hangs.
    Examine(Life),
    /// It serves from now on.
    Serve(Life),
    /// It gets nothing new from now on.
    Retire(Life),
    /// The listeners of the worker that can't start go to this one, too.
    Adopt {
        worker: usize,
        by: Life,
    },
    /// And back.
    TakeBack {
        worker: usize,
    },
    /// All workers are ready, for the first time.
    ReportReady,
    /// Find out what new workers shall be like.
    ReadSettings(Wanted),
    /// The settings that were read last are those of the workers now.
    SettleReload,
    /// They are not.
    DropReload,
    /// Start the new binary.
    StartUpgrade,
    /// Have it take over.
    OfferUpgrade,
    /// Have it stop; at once, when it was told before.
    StopUpgrade,
    KillUpgrade,
    /// It shall do this.
    ForwardReload(Wanted),
    /// What the new master had taken over is this one's again.
    Resume,
    /// The master itself accepts nothing more.
    StopAccepting,
    /// Nobody else does: whoever still waits is to be told, and whoever comes later is not let in.
    CloseListeners,
    Tell(Notice),
    TellOf(Life, Fate),
    /// No process is left; the last command.
    Finish(Verdict),
}

/// What a reload is to bring about. Looked up when it begins, not when it is asked for: the last
/// word counts, and what is read is used at once or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    /// Settings that are read anew.
    pub(super) reads: bool,
    /// So many workers, whatever the settings say; 0 is one a core.
    pub(super) workers: Option<usize>,
}

/// How it all ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Stopped,
    /// Another master serves on.
    Upgraded,
    GaveUp {
        worker: usize,
        end: End,
    },
}

impl Verdict {
    pub(super) fn into_result(self) -> Result<(), MasterError> {
        match self {
            Verdict::Stopped | Verdict::Upgraded => Ok(()),
            Verdict::GaveUp { worker, end } => Err(MasterError::cannot_start(worker, end)),
        }
    }
}

/// The workers as the master sees them.
pub(super) struct Pool {
    rules: Rules,
    stage: Stage,
    /// A place for each worker that serves, or should.
    places: Vec<Place>,
    /// Processes that serve nothing new, and end.
    leaving: Vec<Leaving>,
    change: Option<Change>,
    /// Ended processes whose rings the kernel hasn't cleared away: it may tell them of connections, in
    /// the stead of whoever else waits.
    estates: Vec<Life>,
    /// Workers of another master may accept from the same listeners.
    is_beside_old_master: bool,
    /// A reload that has to wait for the change under way.
    wanted: Option<Wanted>,
    /// Workers that want a successor, and the earliest time for it.
    due: Vec<(Life, RecycleReason, Instant)>,
    /// The new binary's master, as long as there is one.
    upgrade: Option<Upgrade>,
    /// Processes so far.
    births: u32,
    random: u64,
}

/// How patient the pool is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    ready_timeout: Duration,
    stop_timeout: Duration,
    restart_delay: Duration,
    restart: bool,
    upgrade_timeout: Duration,
    /// Workers have listeners that others can serve. Else the master accepts for all of them.
    lends: bool,
}

enum Stage {
    /// Not all workers have been ready yet.
    Starting,
    Running,
    /// `kill_at` is gone once all that was left has been killed.
    Stopping {
        kill_at: Option<Instant>,
        verdict: Verdict,
        /// By somebody, and not by the pool itself.
        is_asked: bool,
        step: Step,
    },
}

/// How far a pool is that stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The workers serve whom the master has accepted.
    Queue,
    /// They were told to end.
    Workers,
    /// Nobody is let in any more; or somebody else serves, and has the listeners.
    Closed,
}

struct Place {
    phase: Phase,
    /// The process that there is, or was last.
    life: Life,
    /// Ends in a row, each before it was healthy.
    failures: u32,
    /// The process that there is, or was last, got ready.
    was_ready: bool,
    /// It knows that nobody else accepts from its listeners.
    is_alone: bool,
    /// Somebody else serves its listeners.
    is_adopted: bool,
    /// Takes the place once it, and every other one of the same change, is ready.
    successor: Option<Successor>,
}

struct Successor {
    life: Life,
    /// Killed then; gone once it is ready.
    ready_by: Option<Instant>,
}

struct Leaving {
    life: Life,
    /// It has not let go of its listeners.
    accepts: bool,
    /// Gone once it has been killed, or while the whole pool's deadline counts.
    kill_at: Option<Instant>,
    is_killed: bool,
}

enum Phase {
    /// No process; forked then.
    Absent {
        fork_at: Instant,
    },
    /// Killed then, unless it gets ready.
    Starting {
        ready_by: Instant,
    },
    Ready {
        since: Instant,
    },
    /// Its channel is closed; killed then, unless it ends.
    Unreachable {
        kill_at: Instant,
    },
    /// Its loop doesn't turn; killed then.
    Hanging {
        kill_at: Instant,
    },
    /// Will be reaped soon.
    Killed,
    /// No process, nor will there be one but a successor.
    Gone,
}

impl Pool {
    /// A pool whose workers are due to be forked: [`handle_timeout`](Pool::handle_timeout) does it.
    /// `seed` is for the jitter of delays.
    pub(super) fn new(workers: usize, rules: Rules, seed: u64, now: Instant) -> Pool {
        let mut pool = Pool {
            rules,
            stage: Stage::Starting,
            places: Vec::new(),
            leaving: Vec::new(),
            change: None,
            estates: Vec::new(),
            is_beside_old_master: false,
            wanted: None,
            due: Vec::new(),
            upgrade: None,
            births: 0,
            random: seed | 1,
        };
        for worker in 0..workers {
            pool.places.push(Place::new(worker, Phase::Absent { fork_at: now }));
        }
        pool
    }

    /// Whether another master goes on until this one has taken over.
    pub(super) fn set_beside_old_master(&mut self, is_beside: bool) {
        self.is_beside_old_master = is_beside;
    }

    /// Other settings from now on.
    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Whether a reload was asked for that has not ended yet.
    pub(super) fn is_reloading(&self) -> bool {
        let is_reload = |change| matches!(change, Change::Prepare | Change::Reload { .. });
        self.wanted.is_some() || self.change.is_some_and(is_reload)
    }

    /// Takes in what happened.
    pub(super) fn handle(&mut self, event: Event, now: Instant, commands: &mut Vec<Command>) {
        match event {
            Event::WorkerReady(life) => self.on_ready(life, now, commands),
            Event::WorkerEnded(life, end) => self.on_end(life, end, now, commands),
            Event::ChannelClosed(life) => self.on_channel_closed(life, now),
            Event::EstateLeft(life) => self.on_estate_left(life),
            Event::EstateGone(life) => self.on_estate_gone(life, commands),
            Event::AcceptStopped(life) => self.on_accept_stopped(life, commands),
            Event::QueueEmpty => self.on_queue_empty(now, commands),
            Event::RecycleDue(life, reason) => {
                let at = match reason {
                    RecycleReason::Signal => now + GROUP_SIGNAL_GRACE,
                    _ => now,
                };
                self.due.push((life, reason, at));
                self.begin_next_change(now, commands);
            }
            Event::WorkerHangs(life, hang, lasting) => {
                self.on_hang(life, hang, lasting, now, commands);
            }
            Event::Signal(signal) => self.on_signal(signal, now, commands),
            Event::Scale { workers } => self.on_scale(workers, now, commands),
            Event::Renew(wanted) => self.want(wanted, "a reload", now, commands),
            Event::Reload { workers, ready_timeout } => {
                self.on_reload(workers, ready_timeout, now, commands);
            }
            Event::ReloadRefused => self.on_reload_refused(now, commands),
            Event::UpgradeReady => self.on_upgrade_ready(now, commands),
            Event::UpgradeServes => self.on_upgrade_serves(now, commands),
            Event::UpgradeFailed(cause) => self.on_upgrade_failed(cause, now, commands),
            Event::UpgradeEnded(end) => self.on_upgrade_ended(end, now, commands),
            Event::OldMasterGone => {
                self.is_beside_old_master = false;
                self.tell_who_is_alone(commands);
            }
        }
    }

    /// Does what is due by now.
    pub(super) fn handle_timeout(&mut self, now: Instant, commands: &mut Vec<Command>) {
        if let Stage::Stopping { kill_at: Some(at), .. } = self.stage
            && at <= now
        {
            self.kill_all(Hurry::Deadline, now, commands);
        }
        self.handle_timeout_of_upgrade(now, commands);
        for worker in 0..self.places.len() {
            self.handle_timeout_of(worker, now, commands);
        }
        self.handle_timeout_of_change(now, commands);
        for leaving in &mut self.leaving {
            if leaving.kill_at.is_some_and(|at| at <= now) {
                leaving.kill_at = None;
                leaving.is_killed = true;
                commands.push(Command::TellOf(leaving.life, Fate::Late));
                commands.push(Command::Kill(leaving.life));
            }
        }
        self.begin_next_change(now, commands);
    }

    fn handle_timeout_of(&mut self, worker: usize, now: Instant, commands: &mut Vec<Command>) {
        let place = &mut self.places[worker];
        if place.phase.due().is_none_or(|at| at > now) {
            return;
        }
        let fate = match place.phase {
            Phase::Absent { .. } => {
                self.births += 1;
                place.life = Life { worker, number: self.births };
                place.phase = Phase::Starting { ready_by: now + self.rules.ready_timeout };
                (place.was_ready, place.is_alone) = (false, false);
                commands.push(Command::Fork(place.life));
                return;
            }
            Phase::Starting { .. } => Some(Fate::NotReady { after: self.rules.ready_timeout }),
            Phase::Unreachable { .. } => Some(Fate::Unreachable { after: CHANNEL_GRACE }),
            _ => None, // that it hangs was told
        };
        place.phase = Phase::Killed;
        commands.extend(fate.map(|fate| Command::TellOf(place.life, fate)));
        commands.push(Command::Kill(place.life));
    }

    /// When [`handle_timeout`](Pool::handle_timeout) has something to do; never in a pool at ease.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let stop = match self.stage {
            Stage::Stopping { kill_at, .. } => kill_at,
            Stage::Starting | Stage::Running => None,
        };
        let places = self.places.iter().filter_map(|place| place.phase.due());
        let successors = self.places.iter().filter_map(|place| place.successor.as_ref()?.ready_by);
        let leaving = self.leaving.iter().filter_map(|leaving| leaving.kill_at);
        let due = self.due.iter().filter(|_| self.may_change()).map(|(.., at)| *at);
        let upgrade = self.upgrade.and_then(Upgrade::due);
        places.chain(successors).chain(leaving).chain(due).chain(stop).chain(upgrade).min()
    }

    fn on_ready(&mut self, life: Life, now: Instant, commands: &mut Vec<Command>) {
        let Some(place) = self.places.get_mut(life.worker) else { return };
        if place.life != life {
            return self.on_successor_ready(life, now, commands);
        }
        let Phase::Starting { .. } = place.phase else { return };
        place.phase = Phase::Ready { since: now };
        place.was_ready = true;
        commands.extend([Command::TellOf(life, Fate::Ready), Command::Serve(life)]);
        if std::mem::take(&mut place.is_adopted) {
            commands.push(Command::TakeBack { worker: life.worker });
        }
        self.tell_who_is_alone(commands);
        let all = self.places.iter().all(|place| matches!(place.phase, Phase::Ready { .. }));
        if all && let Stage::Starting = self.stage {
            self.stage = Stage::Running;
            commands.push(Command::ReportReady);
            self.begin_next_change(now, commands);
        }
    }

    fn on_end(&mut self, life: Life, end: End, now: Instant, commands: &mut Vec<Command>) {
        self.due.retain(|(due, ..)| *due != life);
        if let Some(at) = self.leaving.iter().position(|leaving| leaving.life == life) {
            self.leaving.swap_remove(at);
            commands.push(Command::TellOf(life, Fate::Ended { end, next: Next::Nothing }));
            self.tell_who_is_alone(commands);
            return self.finish_if_empty(commands);
        }
        let Some(place) = self.places.get_mut(life.worker) else { return };
        if place.life != life {
            return self.on_successor_ended(life, end, now, commands);
        }
        place.forgive_if_healthy(now);
        place.failures += 1;
        // By somebody else than us, before it could show whether it serves.
        let is_ours = matches!(place.phase, Phase::Killed | Phase::Hanging { .. });
        let says_nothing = end.is_sigkill() && !is_ours;
        let delay_max = if says_nothing || place.was_ready {
            SERVING_DELAY_MAX
        } else {
            PoolConfig::RESTART_DELAY_MAX
        };
        let failures = place.failures;
        let loops = !place.was_ready && !says_nothing && failures >= LOOP_FAILURES;
        let hopeless = end.is_final() || failures >= START_TRIES_MAX;
        let next = match self.stage {
            Stage::Stopping { .. } => Next::Nothing,
            Stage::Starting if hopeless => Next::GiveUp,
            _ if !self.rules.restart => Next::Nothing,
            _ => Next::Restart { after: self.delay_after(failures).min(delay_max) },
        };
        let place = &mut self.places[life.worker];
        place.phase = match next {
            Next::Restart { after } => Phase::Absent { fork_at: now + after },
            Next::Nothing | Next::GiveUp => Phase::Gone,
        };
        commands.push(Command::Retire(life));
        commands.push(Command::TellOf(life, Fate::Ended { end, next }));
        match next {
            Next::GiveUp => {
                self.begin_stop(Verdict::GaveUp { worker: life.worker, end }, now, commands);
            }
            Next::Restart { .. } if loops => self.have_adopted(life, failures, commands),
            Next::Nothing if self.places.iter().all(Place::is_gone) && self.change.is_none() => {
                self.begin_stop(Verdict::Stopped, now, commands);
            }
            _ => {}
        }
        self.finish_if_empty(commands);
    }

    /// Finds somebody for the clients of a worker that doesn't start.
    fn have_adopted(&mut self, life: Life, failures: u32, commands: &mut Vec<Command>) {
        let is_ready = |place: &&Place| matches!(place.phase, Phase::Ready { .. });
        let by = self.places.iter().find(is_ready).map(|place| place.life);
        let place = &mut self.places[life.worker];
        if place.is_adopted {
            return;
        }
        let clients = match by {
            Some(_) if !self.rules.lends && failures > LOOP_FAILURES => return, // it was said
            Some(_) if !self.rules.lends => Clients::OfOthers,
            Some(by) => Clients::LentTo { worker: by.worker },
            None => Clients::OfNobody,
        };
        commands.push(Command::TellOf(life, Fate::Looping { failures, clients }));
        if let (Some(by), Clients::LentTo { .. }) = (by, clients) {
            place.is_adopted = true;
            commands.push(Command::Adopt { worker: life.worker, by });
        }
    }

    fn on_channel_closed(&mut self, life: Life, now: Instant) {
        let kill_at = now + CHANNEL_GRACE;
        if let Some(leaving) = self.leaving.iter_mut().find(|leaving| leaving.life == life) {
            if !leaving.is_killed {
                leaving.kill_at = Some(leaving.kill_at.map_or(kill_at, |at| at.min(kill_at)));
            }
            return;
        }
        let Some(place) = self.places.get_mut(life.worker) else { return };
        match (&mut place.successor, &place.phase) {
            (Some(successor), _) if successor.life == life => successor.ready_by = Some(kill_at),
            (_, Phase::Starting { .. } | Phase::Ready { .. }) if place.life == life => {
                place.forgive_if_healthy(now);
                place.phase = Phase::Unreachable { kill_at };
            }
            _ => {}
        }
    }

    fn on_hang(
        &mut self,
        life: Life,
        hang: Hang,
        lasting: Duration,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        let Some(place) = self.places.get_mut(life.worker).filter(|place| place.life == life)
        else {
            return;
        };
        if let Phase::Ready { .. } = place.phase {
            place.forgive_if_healthy(now);
            commands.push(Command::TellOf(life, Fate::Hangs { hang, lasting }));
            commands.push(Command::Retire(life));
            match hang {
                Hang::Busy => {
                    place.phase = Phase::Hanging { kill_at: now + LAST_WORDS_GRACE };
                    commands.push(Command::Examine(life));
                }
                Hang::Stopped => {
                    place.phase = Phase::Killed; // it can't say anything
                    commands.push(Command::Kill(life));
                }
            }
        }
    }

    fn on_signal(&mut self, signal: Signal, now: Instant, commands: &mut Vec<Command>) {
        match signal {
            Signal::Stop { name } => self.on_stop(name, now, commands),
            Signal::Reload { name } => {
                self.want(Wanted { reads: true, workers: None }, name, now, commands);
            }
            Signal::Upgrade { name } => self.on_upgrade(name, now, commands),
        }
    }

    /// How long to wait before a worker is started again, at its n-th failure in a row. A quarter
    /// of it is jitter, so that workers that failed together don't start together.
    fn delay_after(&mut self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let delay = self.rules.restart_delay.saturating_mul(factor);
        let delay = delay.min(PoolConfig::RESTART_DELAY_MAX);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        delay.saturating_sub(delay / 4 * (self.random % 256) as u32 / 256)
    }
}

impl Rules {
    pub(super) fn of(config: &PoolConfig) -> Rules {
        Rules {
            ready_timeout: config.ready_timeout,
            stop_timeout: config.stop_timeout,
            restart_delay: config.restart_delay,
            restart: config.restart,
            upgrade_timeout: config.upgrade_timeout,
            lends: config.accept != Accept::Dispatch,
        }
    }
}

impl Place {
    fn new(worker: usize, phase: Phase) -> Place {
        Place {
            phase,
            life: Life { worker, number: 0 },
            failures: 0,
            was_ready: false,
            is_alone: false,
            is_adopted: false,
            successor: None,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    /// Forgets earlier failures of a worker that has been ready long enough.
    fn forgive_if_healthy(&mut self, now: Instant) {
        if let Phase::Ready { since } = self.phase
            && now >= since + HEALTHY_AFTER
        {
            self.failures = 0;
        }
    }
}

impl Phase {
    /// When time alone changes it.
    fn due(&self) -> Option<Instant> {
        match *self {
            Phase::Absent { fork_at: at }
            | Phase::Starting { ready_by: at }
            | Phase::Unreachable { kill_at: at }
            | Phase::Hanging { kill_at: at } => Some(at),
            Phase::Ready { .. } | Phase::Killed | Phase::Gone => None,
        }
    }

    /// When its process is killed that should have ended by itself.
    fn end_due(&self) -> Option<Instant> {
        self.due().filter(|_| matches!(self, Phase::Unreachable { .. } | Phase::Hanging { .. }))
    }

    fn has_process(&self) -> bool {
        !matches!(self, Phase::Absent { .. } | Phase::Gone)
    }
}

#[cfg(test)]
mod tests;
