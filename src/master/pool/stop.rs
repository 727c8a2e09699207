//! The end of a pool, asked for or not: everybody is told to leave, or made to.

use std::time::Instant;

use super::{Command, Hurry, Leaving, Notice, Phase, Pool, STOP_GRACE, Stage, Upgrade, Verdict};
use crate::process::channel::Message;

impl Pool {
    pub(super) fn on_stop(
        &mut self,
        signal: &'static str,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        if let Stage::Stopping { is_asked, .. } = &mut self.stage {
            if std::mem::replace(is_asked, true) {
                self.kill_all(Hurry::SecondSignal, now, commands);
            } else {
                commands.push(Command::Tell(Notice::StopsAlready { signal }));
            }
            return;
        }
        let within = self.rules.stop_timeout;
        commands.push(Command::Tell(Notice::Stopping { signal, within }));
        self.begin_stop(Verdict::Stopped, now, commands);
        if let Stage::Stopping { is_asked, .. } = &mut self.stage {
            *is_asked = true;
        }
        self.finish_if_empty(commands);
    }

    /// Asks every worker to end, and starts no other. After an upgrade there are other workers,
    /// who take over what idles.
    pub(super) fn begin_stop(
        &mut self,
        verdict: Verdict,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        let within = self.rules.stop_timeout;
        let deadline_ms = within.as_millis() as u64; // at most a day
        let kill_at = now + within + STOP_GRACE;
        self.stage = Stage::Stopping { kill_at: Some(kill_at), verdict, is_asked: false };
        commands.push(Command::StopAccepting);
        self.stop_upgrade(kill_at, commands);
        self.wanted = None;
        if self.change.take().is_some() {
            commands.push(Command::DropReload);
        }
        self.due.clear();
        let told: Vec<_> = self.leaving.iter().map(|leaving| leaving.life).collect();
        for place in &mut self.places {
            if place.phase.has_process() {
                let is_killed = matches!(place.phase, Phase::Killed);
                let kill_at = place.phase.end_due();
                let life = place.life;
                self.leaving.push(Leaving { life, accepts: true, kill_at, is_killed });
                commands.push(Command::Retire(place.life));
            }
            if let Some(successor) = place.successor.take() {
                let life = successor.life;
                let leaving = Leaving { life, accepts: true, kill_at: None, is_killed: false };
                self.leaving.push(leaving);
            }
            place.phase = Phase::Gone;
        }
        for leaving in self.leaving.iter().filter(|leaving| !leaving.is_killed) {
            let is_told = told.contains(&leaving.life);
            let message = match verdict {
                Verdict::Upgraded if is_told => continue,
                Verdict::Upgraded => Message::Reload { deadline_ms },
                _ => Message::Shutdown { deadline_ms },
            };
            commands.push(Command::Send(leaving.life, message));
        }
    }

    pub(super) fn kill_all(&mut self, why: Hurry, now: Instant, commands: &mut Vec<Command>) {
        self.hurry_upgrade(now, commands);
        if let Stage::Stopping { kill_at, .. } = &mut self.stage {
            *kill_at = None;
        }
        let left = self.leaving.iter().filter(|leaving| !leaving.is_killed).count();
        if left == 0 {
            return;
        }
        commands.push(Command::Tell(Notice::Killing { left, why }));
        for leaving in self.leaving.iter_mut().filter(|leaving| !leaving.is_killed) {
            leaving.is_killed = true;
            leaving.kill_at = None;
            commands.push(Command::Kill(leaving.life));
        }
    }

    pub(super) fn finish_if_empty(&self, commands: &mut Vec<Command>) {
        if let Stage::Stopping { verdict, .. } = self.stage
            && self.leaving.is_empty()
            && self.upgrade.is_none_or(|upgrade| upgrade == Upgrade::Serving)
        {
            commands.push(Command::Finish(verdict));
        }
    }
}
