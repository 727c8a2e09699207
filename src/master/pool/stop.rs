//! The end of a pool, asked for or not: everybody is told to leave, or made to.

use std::time::Instant;

use super::{
    Command, Hurry, Leaving, Notice, Phase, Pool, STOP_GRACE, Stage, Step, Upgrade, Verdict,
};
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

    /// Starts no other worker, and asks all to end: at once after an upgrade, when there are others who
    /// take over what idles and what waits, or else when nobody waits in the master any more.
    pub(super) fn begin_stop(
        &mut self,
        verdict: Verdict,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        let within = self.rules.stop_timeout;
        let kill_at = now + within + STOP_GRACE;
        let is_upgraded = verdict == Verdict::Upgraded;
        let step = if is_upgraded { Step::Closed } else { Step::Queue };
        self.stage = Stage::Stopping { kill_at: Some(kill_at), verdict, is_asked: false, step };
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
                if is_upgraded {
                    commands.push(Command::Retire(life));
                }
            }
            if let Some(successor) = place.successor.take() {
                let life = successor.life;
                let leaving = Leaving { life, accepts: true, kill_at: None, is_killed: false };
                self.leaving.push(leaving);
            }
            place.phase = Phase::Gone;
        }
        let deadline_ms = within.as_millis() as u64; // at most a day
        let left = self.leaving.iter().filter(|leaving| is_upgraded && !leaving.is_killed);
        for Leaving { life, .. } in left.filter(|leaving| !told.contains(&leaving.life)) {
            commands.push(Command::Send(*life, Message::Reload { deadline_ms }));
        }
    }

    /// The master has passed on whom it had, so workers may go.
    pub(super) fn on_queue_empty(&mut self, now: Instant, commands: &mut Vec<Command>) {
        let Stage::Stopping { kill_at, step: step @ Step::Queue, .. } = &mut self.stage else {
            return;
        };
        *step = Step::Workers;
        let left = kill_at.map_or(STOP_GRACE, |at| at.saturating_duration_since(now));
        let left = left.saturating_sub(STOP_GRACE).as_nanos();
        let deadline_ms = left.div_ceil(1_000_000) as u64; // at most a day
        for Leaving { life, is_killed, .. } in &self.leaving {
            commands.push(Command::Retire(*life));
            if !is_killed {
                commands.push(Command::Send(*life, Message::Shutdown { deadline_ms }));
            }
        }
        self.finish_if_empty(commands);
    }

    /// Once all have let go of the listeners, the kernel lets nobody in who would wait in vain.
    pub(super) fn close_if_left(&mut self, commands: &mut Vec<Command>) {
        if let Stage::Stopping { step: step @ Step::Workers, .. } = &mut self.stage
            && !self.leaving.iter().any(|leaving| leaving.accepts)
        {
            *step = Step::Closed;
            commands.push(Command::CloseListeners);
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

    pub(super) fn finish_if_empty(&mut self, commands: &mut Vec<Command>) {
        self.close_if_left(commands);
        if let Stage::Stopping { verdict, step, .. } = self.stage
            && self.leaving.is_empty()
            && step == Step::Closed
            && self.upgrade.is_none_or(|upgrade| upgrade == Upgrade::Serving)
        {
            commands.push(Command::Finish(verdict));
        }
    }
}
