//! Workers that make room for others: reloads, recycling, upgrades. One change at a time; the old
//! workers leave when all of the new ones are ready, and not before.

use std::time::{Duration, Instant};

use super::{
    Busy, Command, Leaving, Life, Notice, Phase, Place, Pool, RECYCLE_AGAIN_AFTER, STOP_GRACE,
    Stage, Successor, Upgrade, Verdict, Wanted,
};
use crate::master::end::End;
use crate::master::notice::{Cause, Fate, Next};
use crate::process::channel::{Message, RecycleReason};

/// What successors are started for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A reload whose settings are being read.
    Prepare,
    /// All workers, so many of them from then on.
    Reload {
        workers: usize,
        ready_timeout: Duration,
    },
    Recycle {
        worker: usize,
        reason: RecycleReason,
    },
}

impl Pool {
    pub(super) fn may_change(&self) -> bool {
        let is_upgrading = self.upgrade.is_some_and(|upgrade| !upgrade.is_given_up());
        matches!(self.stage, Stage::Running) && self.change.is_none() && !is_upgrading
    }

    pub(super) fn on_reload(
        &mut self,
        workers: usize,
        ready_timeout: Duration,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        if self.change != Some(Change::Prepare) {
            return commands.push(Command::DropReload); // the pool stops
        }
        commands.push(Command::Tell(Notice::Reloading { workers }));
        for worker in self.places.len()..workers {
            self.places.push(Place::new(worker, Phase::Gone));
        }
        self.change = Some(Change::Reload { workers, ready_timeout });
        (0..workers).for_each(|worker| self.fork_successor(worker, now, commands));
    }

    pub(super) fn on_reload_refused(&mut self, now: Instant, commands: &mut Vec<Command>) {
        if self.change.take_if(|change| *change == Change::Prepare).is_some() {
            self.begin_next_change(now, commands);
        }
    }

    pub(super) fn on_scale(&mut self, workers: usize, now: Instant, commands: &mut Vec<Command>) {
        let reads = self.wanted.is_some_and(|wanted| wanted.reads);
        self.want(Wanted { reads, workers: Some(workers) }, "PoolHandle::scale", now, commands);
    }

    /// What is asked for now replaces what was before: by this master or, once that serves, by the
    /// new one.
    pub(super) fn want(
        &mut self,
        wanted: Wanted,
        signal: &'static str,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        match self.stage {
            Stage::Stopping { verdict: Verdict::Upgraded, .. }
                if self.upgrade == Some(Upgrade::Serving) =>
            {
                commands.push(Command::ForwardReload(wanted));
            }
            Stage::Stopping { .. } => {
                commands.push(Command::Tell(Notice::Ignored { signal, why: Busy::Stopping }));
            }
            Stage::Starting | Stage::Running => {
                self.wanted = Some(wanted);
                self.begin_next_change(now, commands);
            }
        }
    }

    /// Begins what had to wait, if it still has to be.
    pub(super) fn begin_next_change(&mut self, now: Instant, commands: &mut Vec<Command>) {
        if !self.may_change() {
            return;
        }
        if let Some(wanted) = self.wanted.take() {
            self.change = Some(Change::Prepare);
            return commands.push(Command::ReadSettings(wanted));
        }
        let is_due = |(.., at): &&(Life, RecycleReason, Instant)| *at <= now;
        while let Some(&(life, reason, _)) = self.due.iter().find(is_due) {
            self.due.retain(|(due, ..)| *due != life);
            let serves = self.places.get(life.worker).is_some_and(|place| {
                place.life == life && matches!(place.phase, Phase::Ready { .. })
            });
            if serves {
                commands.push(Command::TellOf(life, Fate::Recycled { reason }));
                self.change = Some(Change::Recycle { worker: life.worker, reason });
                return self.fork_successor(life.worker, now, commands);
            }
        }
    }

    /// How long the workers that are started now may take to get ready.
    fn successors_timeout(&self) -> Duration {
        match self.change {
            Some(Change::Reload { ready_timeout, .. }) => ready_timeout,
            _ => self.rules.ready_timeout,
        }
    }

    fn fork_successor(&mut self, worker: usize, now: Instant, commands: &mut Vec<Command>) {
        self.births += 1;
        let life = Life { worker, number: self.births };
        let ready_by = Some(now + self.successors_timeout());
        self.places[worker].successor = Some(Successor { life, ready_by });
        commands.push(match self.change {
            Some(Change::Reload { .. }) => Command::ForkNext(life),
            _ => Command::Fork(life),
        });
    }

    pub(super) fn on_successor_ready(
        &mut self,
        life: Life,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        let successor = self.places[life.worker].successor.as_mut();
        let Some(successor) = successor.filter(|successor| successor.life == life) else { return };
        successor.ready_by = None;
        commands.push(Command::TellOf(life, Fate::Ready));
        let all = self.places.iter().filter_map(|place| place.successor.as_ref());
        if all.into_iter().all(|successor| successor.ready_by.is_none()) {
            self.finish_change(now, commands);
        }
    }

    /// All successors are ready: they serve, and the others leave.
    fn finish_change(&mut self, now: Instant, commands: &mut Vec<Command>) {
        let Some(change) = self.change.take() else { return };
        if let Change::Reload { .. } = change {
            commands.push(Command::SettleReload);
        }
        let within = self.rules.stop_timeout;
        let mut left = Vec::new();
        for place in &mut self.places {
            let successor = place.successor.take();
            let is_dropped =
                matches!(change, Change::Reload { workers, .. } if place.life.worker >= workers);
            if successor.is_none() && !is_dropped {
                continue;
            }
            if place.phase.has_process() {
                let is_killed = matches!(place.phase, Phase::Killed);
                let kill_at = place.phase.end_due().unwrap_or(now + within + STOP_GRACE);
                left.push(Leaving {
                    life: place.life,
                    accepts: true,
                    kill_at: (!is_killed).then_some(kill_at),
                    is_killed,
                });
            }
            if let Some(Successor { life, .. }) = successor {
                *place = Place::new(life.worker, Phase::Ready { since: now });
                (place.life, place.was_ready) = (life, true);
                commands.push(Command::Serve(life));
            }
        }
        for leaving in left {
            let Leaving { life, .. } = leaving;
            self.leaving.push(leaving);
            let deadline_ms = within.as_millis() as u64; // at most a day
            commands.push(Command::Retire(life));
            commands.push(Command::Send(life, Message::Reload { deadline_ms }));
        }
        if let Change::Reload { workers, .. } = change {
            self.places.truncate(workers);
            commands.push(Command::Tell(Notice::Reloaded { workers }));
        }
        self.tell_who_is_alone(commands);
        self.begin_next_change(now, commands);
    }

    pub(super) fn on_successor_ended(
        &mut self,
        life: Life,
        end: End,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        let place = &mut self.places[life.worker];
        if place.successor.as_ref().is_none_or(|successor| successor.life != life) {
            return;
        }
        place.successor = None;
        commands.push(Command::TellOf(life, Fate::Ended { end, next: Next::Nothing }));
        self.give_up_change(Cause::Ended(end), now, commands);
    }

    pub(super) fn handle_timeout_of_change(&mut self, now: Instant, commands: &mut Vec<Command>) {
        let is_late = |place: &Place| {
            let successor = place.successor.as_ref()?;
            (successor.ready_by? <= now).then_some(successor.life)
        };
        if let Some(life) = self.places.iter().find_map(is_late) {
            let within = self.successors_timeout();
            commands.push(Command::TellOf(life, Fate::NotReady { after: within }));
            self.give_up_change(Cause::NotReady { within }, now, commands);
        }
    }

    /// The old workers stay, and the successors leave: where workers accept themselves, one that is
    /// ready, or about to be, may have clients.
    fn give_up_change(&mut self, cause: Cause, now: Instant, commands: &mut Vec<Command>) {
        let Some(change) = self.change.take() else { return };
        let within = self.rules.stop_timeout;
        let deadline_ms = within.as_millis() as u64; // at most a day
        for place in &mut self.places {
            let Some(Successor { life, ready_by }) = place.successor.take() else { continue };
            let is_late = ready_by.is_some_and(|at| at <= now);
            let kill_at = (!is_late).then_some(now + within + STOP_GRACE);
            self.leaving.push(Leaving { life, accepts: true, kill_at, is_killed: is_late });
            commands.push(if is_late {
                Command::Kill(life)
            } else {
                Command::Send(life, Message::Reload { deadline_ms })
            });
        }
        match change {
            Change::Prepare => unreachable!("nobody was started"),
            Change::Reload { .. } => {
                // Places that it would have added.
                while self
                    .places
                    .last()
                    .is_some_and(|place| place.is_gone() && place.life.number == 0)
                {
                    self.places.pop();
                }
                commands.push(Command::Tell(Notice::ReloadFailed { cause }));
                commands.push(Command::DropReload);
            }
            Change::Recycle { worker, reason } => {
                let life = self.places[worker].life;
                commands.push(Command::TellOf(life, Fate::NotRecycled { cause }));
                self.due.push((life, reason, now + RECYCLE_AGAIN_AFTER));
            }
        }
        self.begin_next_change(now, commands);
    }

    pub(super) fn on_accept_stopped(&mut self, life: Life, commands: &mut Vec<Command>) {
        if let Some(leaving) = self.leaving.iter_mut().find(|leaving| leaving.life == life) {
            leaving.accepts = false;
            self.tell_who_is_alone(commands);
            self.close_if_left(commands);
        }
    }

    /// Workers begin on their guard: whoever had their place may still accept from the same listeners.
    /// Once nobody who leaves does, wherever its place was, all that serve are told.
    pub(super) fn tell_who_is_alone(&mut self, commands: &mut Vec<Command>) {
        let is_stopping = matches!(self.stage, Stage::Stopping { .. });
        let any_left = self.leaving.iter().any(|leaving| leaving.accepts);
        if is_stopping || any_left || !self.estates.is_empty() || self.is_beside_old_master {
            return;
        }
        for place in &mut self.places {
            if matches!(place.phase, Phase::Ready { .. }) && !place.is_alone {
                place.is_alone = true;
                commands.push(Command::TellAlone(place.life));
            }
        }
    }

    /// What it was told of, nobody else may be told of, until its ring has gone. It matters no more
    /// if it had let go of its listeners.
    pub(super) fn on_estate_left(&mut self, life: Life) {
        let left = self.leaving.iter().find(|leaving| leaving.life == life);
        if left.is_none_or(|leaving| leaving.accepts) {
            self.estates.push(life);
        }
    }

    pub(super) fn on_estate_gone(&mut self, life: Life, commands: &mut Vec<Command>) {
        self.estates.retain(|estate| *estate != life);
        self.tell_who_is_alone(commands);
    }
}
