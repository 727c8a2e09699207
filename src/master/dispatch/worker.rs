//! One worker as the dispatcher sees it: what it may get, and whether it takes it.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::super::balance::Candidate;
use super::super::children::Life;
use super::ledger::{Ledger, Outcome};
use super::queue::{Queue, Waiting};
use super::{
    BATCH_MAX, Command, Ends, News, Passed, Progress, REST, STALLED_AFTER, UNCONFIRMED_MAX,
};

pub(super) struct Worker<F> {
    life: Life,
    weight: u32,
    connections_max: u64,
    patience: Duration,
    phase: Phase,
    standing: Standing,
    /// Its loop doesn't turn.
    is_stuck: bool,
    /// Chosen for it, and not sent yet.
    next: VecDeque<Waiting<F>>,
    ledger: Ledger<F>,
    is_passing: bool,
    is_reclaiming: bool,
    /// What its page showed last.
    shown: Progress,
    /// As far as the balancer has been told.
    taken_told: u64,
    closed_told: u64,
    /// As far as it has told us.
    refused_told: u64,
    /// When it was last seen to have taken something.
    taken_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Leaving,
    /// It has ended, but a reclaim must tell first what of it was left.
    Gone,
    /// Nothing is uncertain any more; the last batch may still have to come home.
    Buried,
}

/// How far the worker can be relied on to take what it is passed.
#[derive(Clone, Copy)]
enum Standing {
    Good,
    /// It leaves what it was passed; that may be taken back from then on.
    Stalled {
        reclaim_at: Instant,
    },
    /// It gets nothing until then, or until it shows something new; when it is out of
    /// descriptors, until it has closed some.
    Resting {
        until: Instant,
        is_out: bool,
    },
    /// It gets one connection, and more when it has taken that.
    Tried,
}

impl<F> Worker<F> {
    pub(super) fn new(
        life: Life,
        weight: u32,
        connections_max: u64,
        patience: Duration,
    ) -> Worker<F> {
        Worker {
            life,
            weight,
            connections_max,
            patience,
            phase: Phase::Ready,
            standing: Standing::Good,
            is_stuck: false,
            next: VecDeque::new(),
            ledger: Ledger::new(),
            is_passing: false,
            is_reclaiming: false,
            shown: Progress::default(),
            taken_told: 0,
            closed_told: 0,
            refused_told: 0,
            taken_at: None,
        }
    }

    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Connections that the balancer knows to be open.
    pub(super) fn established(&self) -> u64 {
        self.taken_told.saturating_sub(self.closed_told)
    }

    pub(super) fn life(&self) -> Life {
        self.life
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone | Phase::Buried)
    }

    /// Nothing of it is outstanding.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Buried && self.ledger.is_empty()
    }

    /// Whether it can get another connection.
    pub(super) fn has_room(&self) -> bool {
        let on_their_way_max = match self.standing {
            Standing::Good => UNCONFIRMED_MAX,
            Standing::Tried => 1,
            Standing::Stalled { .. } | Standing::Resting { .. } => 0,
        };
        self.phase == Phase::Ready
            && self.on_their_way() < on_their_way_max
            && self.connections() < self.connections_max
    }

    /// All that was chosen for it is in its socket.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_passing && !self.is_reclaiming && self.next.is_empty()
    }

    /// It leaves something that could be taken back.
    pub(super) fn has_stalled(&self) -> bool {
        matches!(self.standing, Standing::Stalled { .. }) && self.owes_progress()
    }

    /// See [`Dispatcher::released`](super::Dispatcher::released).
    pub(super) fn released(&self) -> (Life, u64) {
        (self.life, self.ledger.released())
    }

    /// It has been passed something, and hasn't shown that it took it.
    pub(super) fn owes_progress(&self) -> bool {
        !self.is_gone() && self.ledger.unconfirmed() > 0
    }

    pub(super) fn to_candidate(&self) -> Candidate {
        Candidate {
            worker_id: self.life.worker,
            connections: self.connections(),
            weight: self.weight,
        }
    }

    pub(super) fn on_leaving(&mut self) {
        if self.phase == Phase::Ready {
            self.phase = Phase::Leaving;
        }
    }

    pub(super) fn on_gone(&mut self, taken: u64) {
        if !self.is_gone() {
            self.phase = Phase::Gone;
        }
        self.shown.taken = taken.max(self.shown.taken);
    }

    pub(super) fn on_stuck(&mut self, is_stuck: bool) {
        self.is_stuck = is_stuck;
    }

    /// Whether anything is new.
    pub(super) fn on_progress(&mut self, progress: Progress, now: Instant) -> bool {
        if self.is_gone() || progress == self.shown {
            return false;
        }
        let has_taken = progress.taken > self.shown.taken;
        let has_closed = progress.closed_total > self.shown.closed_total;
        if has_taken {
            self.taken_at = Some(now);
        }
        match self.standing {
            Standing::Stalled { .. } if !has_taken => {}
            Standing::Resting { is_out: true, .. } if !has_closed => {}
            _ => self.standing = Standing::Good,
        }
        let taken = progress.taken.max(self.shown.taken);
        self.shown = Progress { taken, ..progress };
        true
    }

    pub(super) fn on_passed(
        &mut self,
        conns: Vec<F>,
        passed: Passed,
        now: Instant,
        ends: &mut Ends<F>,
    ) {
        assert!(self.is_passing, "nothing is being passed to {:?}", self.life);
        self.is_passing = false;
        let outcome = match passed {
            Passed::Sent => None,
            Passed::Full | Passed::Broken => Some(Outcome::Back),
        };
        self.ledger.come_home(conns, outcome, ends);
        if outcome.is_some() {
            self.rest(now, false);
        }
    }

    pub(super) fn on_reclaimed(&mut self, seqs: &[Range<u64>], now: Instant, ends: &mut Ends<F>) {
        self.is_reclaiming = false;
        for seqs in seqs {
            self.ledger.settle(seqs.clone(), Outcome::Back, ends);
        }
        if let Standing::Stalled { .. } = self.standing {
            self.rest(now, false);
        }
    }

    pub(super) fn on_refused(
        &mut self,
        first_seq: u64,
        count: u64,
        now: Instant,
        ends: &mut Ends<F>,
    ) {
        self.refused_told += count;
        self.ledger.settle(first_seq..first_seq.saturating_add(count), Outcome::Back, ends);
        self.rest(now, true);
    }

    /// What is certain by now. A page may be newer than what is under way from the worker: while
    /// a reclaim or a refusal is, `taken` may have jumped over connections that the worker hasn't.
    pub(super) fn poll_news(&mut self, ends: &mut Ends<F>) -> Option<News> {
        let is_told_all = self.is_gone() || self.refused_told >= self.shown.refused_total;
        if self.is_reclaiming || !is_told_all || self.phase == Phase::Buried {
            return None;
        }
        let taken_end = self.shown.taken.min(self.ledger.last_seq()) + 1;
        let taken = self.ledger.settle(0..taken_end, Outcome::Taken, ends);
        self.taken_told += taken as u64;
        // With it end all that it had, also what it had handed over: whoever gets that takes it anew.
        let closed = if self.is_gone() { self.taken_told } else { self.shown.closed_total };
        let closed = closed.saturating_sub(self.closed_told);
        self.closed_told += closed;
        if self.is_gone() {
            self.ledger.settle(0..u64::MAX, Outcome::Back, ends);
            self.give_back(&mut ends.queue);
            self.phase = Phase::Buried;
        }
        Some(News { taken, closed, is_gone: self.is_gone() })
    }

    /// Does what is due by now.
    pub(super) fn handle_timeout(&mut self, now: Instant, queue: &mut Queue<F>) {
        match self.standing {
            Standing::Resting { until, is_out } if until <= now => {
                self.standing = if self.is_stuck {
                    Standing::Resting { until: now + REST, is_out }
                } else {
                    Standing::Tried
                };
            }
            _ => {}
        }
        if self.stalls_at().is_some_and(|at| at <= now) {
            self.standing = Standing::Stalled { reclaim_at: now };
        }
        let may_get = matches!(self.standing, Standing::Good | Standing::Tried);
        if self.phase != Phase::Ready || !may_get {
            self.give_back(queue);
        }
    }

    /// When it has something to do without an event. `any_room`: some worker could take what this
    /// one leaves; `any_need`: some connection has no worker that takes it.
    pub(super) fn due(&self, any_room: bool, any_need: bool) -> Option<Instant> {
        let standing = match self.standing {
            Standing::Stalled { reclaim_at } => {
                let may_reclaim = any_room && self.owes_progress() && !self.is_reclaiming;
                may_reclaim.then_some(reclaim_at)
            }
            Standing::Resting { until, .. } => {
                (any_need && self.phase == Phase::Ready).then_some(until)
            }
            Standing::Good | Standing::Tried => None,
        };
        standing.into_iter().chain(self.stalls_at()).min()
    }

    /// A connection was chosen for it.
    pub(super) fn collect(&mut self, waiting: Waiting<F>) {
        self.next.push_back(waiting);
    }

    /// The next batch, unless one is being sent.
    pub(super) fn poll_pass(&mut self, now: Instant) -> Option<Command<F>> {
        if self.is_passing || self.next.is_empty() {
            return None;
        }
        self.is_passing = true;
        let count = self.next.len().min(BATCH_MAX);
        let (first_seq, origins, conns) = self.ledger.issue(self.next.drain(..count), now);
        Some(Command::Pass { life: self.life, first_seq, origins, conns })
    }

    /// Takes back what it leaves, if it is time to.
    pub(super) fn poll_reclaim(&mut self, now: Instant) -> Option<Command<F>> {
        let Standing::Stalled { reclaim_at } = self.standing else { return None };
        if reclaim_at > now || self.is_reclaiming || !self.owes_progress() {
            return None;
        }
        self.is_reclaiming = true;
        self.standing = Standing::Stalled { reclaim_at: now + STALLED_AFTER };
        Some(Command::Reclaim { life: self.life })
    }

    /// Leaves it alone for a while. While it leaves something untaken, that is the greater concern.
    fn rest(&mut self, now: Instant, is_out: bool) {
        if !self.has_stalled() {
            self.standing = Standing::Resting { until: now + REST, is_out };
        }
    }

    fn on_their_way(&self) -> usize {
        self.ledger.unconfirmed() + self.next.len()
    }

    fn connections(&self) -> u64 {
        self.shown.open + self.on_their_way() as u64
    }

    /// When it is held to stall, unless it takes something before.
    fn stalls_at(&self) -> Option<Instant> {
        if self.is_gone() || matches!(self.standing, Standing::Stalled { .. }) {
            return None;
        }
        let waits_since = self.ledger.oldest()?;
        let since = self.taken_at.map_or(waits_since, |taken_at| taken_at.max(waits_since));
        Some(since + self.patience)
    }

    fn give_back(&mut self, queue: &mut Queue<F>) {
        self.next.drain(..).rev().for_each(|waiting| queue.put_back(waiting));
    }
}
