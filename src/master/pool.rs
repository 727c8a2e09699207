//! What becomes of the workers: events in, commands out. Forks nothing, logs nothing and reads no
//! clock, so that every rule is a test of a few lines.
//!
//! The rules:
//! - A worker that ends is started again: at once the first time, then after a delay that doubles
//!   with each failure. One that had been ready for [`HEALTHY_AFTER`] starts that count afresh, and
//!   one that had been ready at all never waits longer than [`SERVING_DELAY_MAX`].
//! - A worker that isn't ready in time is killed, as is one that closes its channel and lives on.
//! - Until all workers have been ready once, nobody relies on the pool: a worker that says it
//!   cannot start, or fails [`START_TRIES_MAX`] times, makes the pool give up. After that, nothing does.
//! - The first signal to stop passes on to the workers; a second one, or the deadline, kills them.

use std::time::{Duration, Instant};

use super::end::End;
use super::error::MasterError;
use super::notice::{Fate, Hurry, Next, Notice};
use crate::config::PoolConfig;
use crate::process::channel::Message;
use crate::process::signals::Signal;

/// A worker that was ready this long didn't fail because of how it starts.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// A worker that got ready can serve, and clients queue up for its successor at its socket. At this
/// pace a crash loop costs one core some percent, and each of its clients half a second.
const SERVING_DELAY_MAX: Duration = Duration::from_millis(500);
/// A pool that never was ready gives up at this failure of one worker: two more tries are for
/// what passes (memory, a database that starts as well), not for what is wrong.
const START_TRIES_MAX: u32 = 3;
/// Between the deadline that workers are told and their end by force: time to close what is open.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// A process that ends closes its channel before it can be reaped, by the time that the kernel
/// takes to tear it down.
const CHANNEL_GRACE: Duration = Duration::from_secs(1);

/// What happened. Workers are named by their place in the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    WorkerReady(usize),
    WorkerEnded(usize, End),
    ChannelClosed(usize),
    Signal(Signal),
}

/// What to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Command {
    Fork(usize),
    Send(usize, Message),
    /// By `SIGKILL`.
    Kill(usize),
    /// All workers are ready, for the first time.
    ReportReady,
    Tell(Notice),
    TellOf(usize, Fate),
    /// No process is left; the last command.
    Finish(Verdict),
}

/// How it all ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Stopped,
    GaveUp { worker: usize, end: End },
}

impl Verdict {
    pub(super) fn into_result(self) -> Result<(), MasterError> {
        match self {
            Verdict::Stopped => Ok(()),
            Verdict::GaveUp { worker, end } => Err(MasterError::cannot_start(worker, end)),
        }
    }
}

/// The workers as the master sees them.
pub(super) struct Pool {
    rules: Rules,
    stage: Stage,
    workers: Vec<Worker>,
}

/// How patient the pool is.
#[derive(Clone, Copy, Debug)]
struct Rules {
    ready_timeout: Duration,
    stop_timeout: Duration,
    restart_delay: Duration,
}

enum Stage {
    /// Not all workers have been ready yet.
    Starting,
    Running,
    /// `kill_at` is gone once all that was left has been killed.
    Stopping {
        kill_at: Option<Instant>,
        verdict: Verdict,
    },
}

struct Worker {
    phase: Phase,
    /// Ends in a row, each before it was healthy.
    failures: u32,
    /// The process that there is, or was last, got ready.
    was_ready: bool,
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
    /// Will be reaped soon.
    Killed,
    /// No process, nor will there be one.
    Gone,
}

impl Pool {
    /// A pool whose workers are due to be forked: [`handle_timeout`](Pool::handle_timeout) does it.
    pub(super) fn new(workers: usize, config: &PoolConfig, now: Instant) -> Pool {
        let absent =
            |_| Worker { phase: Phase::Absent { fork_at: now }, failures: 0, was_ready: false };
        Pool {
            rules: Rules {
                ready_timeout: config.ready_timeout,
                stop_timeout: config.stop_timeout,
                restart_delay: config.restart_delay,
            },
            stage: Stage::Starting,
            workers: (0..workers).map(absent).collect(),
        }
    }

    /// Takes in what happened.
    pub(super) fn handle(&mut self, event: Event, now: Instant, commands: &mut Vec<Command>) {
        match event {
            Event::WorkerReady(id) => self.on_ready(id, now, commands),
            Event::WorkerEnded(id, end) => self.on_end(id, end, now, commands),
            Event::ChannelClosed(id) => self.on_channel_closed(id, now),
            Event::Signal(Signal::Stop { name }) => self.on_stop(name, now, commands),
            Event::Signal(Signal::Unused { name }) => {
                commands.push(Command::Tell(Notice::Ignored { signal: name }));
            }
        }
    }

    /// Does what is due by now.
    pub(super) fn handle_timeout(&mut self, now: Instant, commands: &mut Vec<Command>) {
        if let Stage::Stopping { kill_at: Some(at), .. } = self.stage
            && at <= now
        {
            self.kill_all(Hurry::Deadline, commands);
        }
        for (id, worker) in self.workers.iter_mut().enumerate() {
            if worker.phase.due().is_none_or(|at| at > now) {
                continue;
            }
            if let Phase::Absent { .. } = worker.phase {
                worker.phase = Phase::Starting { ready_by: now + self.rules.ready_timeout };
                worker.was_ready = false;
                commands.push(Command::Fork(id));
                continue;
            }
            let fate = match worker.phase {
                Phase::Starting { .. } => Fate::NotReady { after: self.rules.ready_timeout },
                _ => Fate::Unreachable { after: CHANNEL_GRACE },
            };
            worker.phase = Phase::Killed;
            commands.extend([Command::TellOf(id, fate), Command::Kill(id)]);
        }
    }

    /// When [`handle_timeout`](Pool::handle_timeout) has something to do; never in a pool at ease.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let stop = match self.stage {
            Stage::Stopping { kill_at, .. } => kill_at,
            Stage::Starting | Stage::Running => None,
        };
        self.workers.iter().filter_map(|worker| worker.phase.due()).chain(stop).min()
    }

    fn on_ready(&mut self, id: usize, now: Instant, commands: &mut Vec<Command>) {
        let worker = &mut self.workers[id];
        let Phase::Starting { .. } = worker.phase else { return };
        worker.phase = Phase::Ready { since: now };
        worker.was_ready = true;
        commands.push(Command::TellOf(id, Fate::Ready));
        let all = self.workers.iter().all(|worker| matches!(worker.phase, Phase::Ready { .. }));
        if all && let Stage::Starting = self.stage {
            self.stage = Stage::Running;
            commands.push(Command::ReportReady);
        }
    }

    fn on_end(&mut self, id: usize, end: End, now: Instant, commands: &mut Vec<Command>) {
        let worker = &mut self.workers[id];
        worker.forgive_if_healthy(now);
        worker.failures += 1;
        // By somebody else than us, before it could show whether it serves.
        let says_nothing = end.is_sigkill() && !matches!(worker.phase, Phase::Killed);
        let delay_max = if says_nothing || worker.was_ready {
            SERVING_DELAY_MAX
        } else {
            PoolConfig::RESTART_DELAY_MAX
        };
        let hopeless = end.is_final() || worker.failures >= START_TRIES_MAX;
        let next = match self.stage {
            Stage::Stopping { .. } => Next::Nothing,
            Stage::Starting if hopeless => Next::GiveUp,
            _ => Next::Restart { after: self.rules.delay_after(worker.failures).min(delay_max) },
        };
        worker.phase = match next {
            Next::Restart { after } => Phase::Absent { fork_at: now + after },
            Next::Nothing | Next::GiveUp => Phase::Gone,
        };
        commands.push(Command::TellOf(id, Fate::Ended { end, next }));
        if next == Next::GiveUp {
            self.begin_stop(Verdict::GaveUp { worker: id, end }, now, commands);
        }
        self.finish_if_empty(commands);
    }

    fn on_channel_closed(&mut self, id: usize, now: Instant) {
        let worker = &mut self.workers[id];
        if let Phase::Starting { .. } | Phase::Ready { .. } = worker.phase {
            worker.forgive_if_healthy(now);
            worker.phase = Phase::Unreachable { kill_at: now + CHANNEL_GRACE };
        }
    }

    fn on_stop(&mut self, signal: &'static str, now: Instant, commands: &mut Vec<Command>) {
        if let Stage::Stopping { .. } = self.stage {
            self.kill_all(Hurry::SecondSignal, commands);
            return;
        }
        let within = self.rules.stop_timeout;
        commands.push(Command::Tell(Notice::Stopping { signal, within }));
        self.begin_stop(Verdict::Stopped, now, commands);
        self.finish_if_empty(commands);
    }

    /// Asks every worker to end, and starts no other.
    fn begin_stop(&mut self, verdict: Verdict, now: Instant, commands: &mut Vec<Command>) {
        let within = self.rules.stop_timeout;
        let deadline_ms = within.as_millis() as u64; // at most a day
        self.stage = Stage::Stopping { kill_at: Some(now + within + STOP_GRACE), verdict };
        for (id, worker) in self.workers.iter_mut().enumerate() {
            match worker.phase {
                Phase::Absent { .. } => worker.phase = Phase::Gone,
                Phase::Starting { .. } | Phase::Ready { .. } => {
                    commands.push(Command::Send(id, Message::Shutdown { deadline_ms }));
                }
                Phase::Unreachable { .. } | Phase::Killed | Phase::Gone => {}
            }
        }
    }

    fn kill_all(&mut self, why: Hurry, commands: &mut Vec<Command>) {
        if let Stage::Stopping { kill_at, .. } = &mut self.stage {
            *kill_at = None;
        }
        let left: Vec<usize> =
            (0..self.workers.len()).filter(|id| self.workers[*id].phase.can_be_killed()).collect();
        if left.is_empty() {
            return;
        }
        commands.push(Command::Tell(Notice::Killing { left: left.len(), why }));
        for id in left {
            self.workers[id].phase = Phase::Killed;
            commands.push(Command::Kill(id));
        }
    }

    fn finish_if_empty(&self, commands: &mut Vec<Command>) {
        if let Stage::Stopping { verdict, .. } = self.stage
            && self.workers.iter().all(|worker| matches!(worker.phase, Phase::Gone))
        {
            commands.push(Command::Finish(verdict));
        }
    }
}

impl Worker {
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
            | Phase::Unreachable { kill_at: at } => Some(at),
            Phase::Ready { .. } | Phase::Killed | Phase::Gone => None,
        }
    }

    fn can_be_killed(&self) -> bool {
        matches!(self, Phase::Starting { .. } | Phase::Ready { .. } | Phase::Unreachable { .. })
    }
}

impl Rules {
    /// How long to wait before a worker is started again, at its n-th failure in a row.
    fn delay_after(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.restart_delay.saturating_mul(factor).min(PoolConfig::RESTART_DELAY_MAX)
    }
}

#[cfg(test)]
mod tests;
