//! The master of another binary: it gets ready, is offered everything, and serves; or it is told to
//! go. As long as its process lives, there is no other one.

use std::time::Instant;

use super::{CHANNEL_GRACE, Command, Notice, Phase, Place, Pool, STOP_GRACE, Stage, Step, Verdict};
use crate::master::end::End;
use crate::master::notice::{Busy, Cause};

/// How far the new master is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Upgrade {
    /// Told to go then, unless it is ready.
    Starting { ready_by: Instant },
    /// Everything was offered to it. Killed then; gone once it has been.
    TakingOver { by: Option<Instant> },
    /// Our workers leave.
    Serving,
    /// It was told to stop, and has clients to finish with. Told to stop at once then.
    Leaving { hurry_at: Instant },
    /// Killed then.
    Hurried { kill_at: Instant },
    /// Will be reaped soon.
    Killed,
}

impl Upgrade {
    /// Whether nothing will come of it.
    pub(super) fn is_given_up(self) -> bool {
        matches!(self, Upgrade::Leaving { .. } | Upgrade::Hurried { .. } | Upgrade::Killed)
    }

    /// When time alone changes it.
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Upgrade::Starting { ready_by: at }
            | Upgrade::Leaving { hurry_at: at }
            | Upgrade::Hurried { kill_at: at } => Some(at),
            Upgrade::TakingOver { by } => by,
            Upgrade::Serving | Upgrade::Killed => None,
        }
    }
}

impl Pool {
    pub(super) fn on_upgrade(
        &mut self,
        signal: &'static str,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        let why = match self.stage {
            Stage::Starting => Busy::Starting,
            Stage::Stopping { .. } => Busy::Stopping,
            Stage::Running if self.change.is_none() && self.upgrade.is_none() => {
                let ready_by = now + self.rules.upgrade_timeout;
                self.upgrade = Some(Upgrade::Starting { ready_by });
                return commands.push(Command::StartUpgrade);
            }
            Stage::Running => Busy::Changing,
        };
        commands.push(Command::Tell(Notice::Ignored { signal, why }));
    }

    pub(super) fn on_upgrade_ready(&mut self, now: Instant, commands: &mut Vec<Command>) {
        if let Some(Upgrade::Starting { .. }) = self.upgrade {
            let by = Some(now + self.rules.upgrade_timeout);
            self.upgrade = Some(Upgrade::TakingOver { by });
            commands.push(Command::OfferUpgrade);
        }
    }

    pub(super) fn on_upgrade_serves(&mut self, now: Instant, commands: &mut Vec<Command>) {
        if !matches!(self.upgrade, Some(Upgrade::TakingOver { .. })) {
            return;
        }
        self.upgrade = Some(Upgrade::Serving);
        commands.push(Command::Tell(Notice::Upgraded { within: self.rules.stop_timeout }));
        commands.extend(self.wanted.take().map(Command::ForwardReload));
        self.begin_stop(Verdict::Upgraded, now, commands);
        self.finish_if_empty(commands);
    }

    pub(super) fn on_upgrade_failed(
        &mut self,
        cause: Cause,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        if self.upgrade.take().is_some() {
            commands.push(Command::Tell(Notice::UpgradeFailed { cause }));
            self.begin_next_change(now, commands);
            self.finish_if_empty(commands);
        }
    }

    pub(super) fn on_upgrade_ended(&mut self, end: End, now: Instant, commands: &mut Vec<Command>) {
        let failed = Command::Tell(Notice::UpgradeFailed { cause: Cause::Ended(end) });
        match self.upgrade.take() {
            Some(Upgrade::Starting { .. }) => commands.push(failed),
            Some(Upgrade::TakingOver { .. }) => commands.extend([failed, Command::Resume]),
            Some(Upgrade::Serving) => self.on_successor_lost(end, now, commands),
            _ => {} // as it was told to
        }
        self.begin_next_change(now, commands);
        self.finish_if_empty(commands);
    }

    /// The new master has gone, and our workers are leaving. Unless somebody wants it so, there are
    /// to be others.
    fn on_successor_lost(&mut self, end: End, now: Instant, commands: &mut Vec<Command>) {
        let Stage::Stopping { verdict, is_asked, step, .. } = &mut self.stage else { return };
        (*verdict, *step) = (Verdict::Stopped, Step::Workers);
        if end.is_clean() || *is_asked {
            return commands.push(Command::Tell(Notice::NewMasterLost { end, is_replaced: false }));
        }
        commands.push(Command::Tell(Notice::NewMasterLost { end, is_replaced: true }));
        let adopted = self.places.iter().filter(|place| place.is_adopted);
        commands.extend(adopted.map(|place| Command::TakeBack { worker: place.life.worker }));
        commands.push(Command::Resume);
        self.stage = Stage::Running;
        for (worker, place) in self.places.iter_mut().enumerate() {
            *place = Place::new(worker, Phase::Absent { fork_at: now });
        }
        // They have the time that they were told, each for itself.
        let kill_at = now + self.rules.stop_timeout + STOP_GRACE;
        for leaving in self.leaving.iter_mut().filter(|leaving| !leaving.is_killed) {
            leaving.kill_at.get_or_insert(kill_at);
        }
    }

    /// The pool stops, and so does a new master that nobody relies on yet. Until `hurry_at` it may
    /// finish what it has.
    pub(super) fn stop_upgrade(&mut self, hurry_at: Instant, commands: &mut Vec<Command>) {
        if let Some(Upgrade::Starting { .. } | Upgrade::TakingOver { .. }) = self.upgrade {
            self.upgrade = Some(Upgrade::Leaving { hurry_at });
            commands.push(Command::StopUpgrade);
        }
    }

    /// No more time for a new master that was told to stop.
    pub(super) fn hurry_upgrade(&mut self, now: Instant, commands: &mut Vec<Command>) {
        if let Some(Upgrade::Leaving { .. }) = self.upgrade {
            self.upgrade = Some(Upgrade::Hurried { kill_at: now + CHANNEL_GRACE });
            commands.push(Command::StopUpgrade);
        }
    }

    pub(super) fn handle_timeout_of_upgrade(&mut self, now: Instant, commands: &mut Vec<Command>) {
        let Some(upgrade) = self.upgrade.filter(|it| it.due().is_some_and(|at| at <= now)) else {
            return;
        };
        match upgrade {
            Upgrade::Starting { .. } => {
                let cause = Cause::NotReady { within: self.rules.upgrade_timeout };
                commands.push(Command::Tell(Notice::UpgradeFailed { cause }));
                self.stop_upgrade(now + self.rules.stop_timeout + STOP_GRACE, commands);
            }
            Upgrade::Leaving { .. } => self.hurry_upgrade(now, commands),
            Upgrade::TakingOver { .. } => {
                self.upgrade = Some(Upgrade::TakingOver { by: None });
                commands.push(Command::KillUpgrade);
            }
            Upgrade::Hurried { .. } => {
                self.upgrade = Some(Upgrade::Killed);
                commands.push(Command::KillUpgrade);
            }
            Upgrade::Serving | Upgrade::Killed => {}
        }
    }
}
