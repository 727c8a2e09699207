//! What is on its way to one worker: the master's copies, by sequence number. Decides nothing.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use super::queue::{Queue, Ticket, Waiting};
use super::{Ends, Origin};

/// What became of a connection that was passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The worker has it.
    Taken,
    /// The worker never will; another one gets it.
    Back,
}

/// One entry leaves when two things are known: its outcome, and that the sending is over, which
/// has the copy meanwhile. Those being sent are the last ones, as there is one batch at a time.
pub(super) struct Ledger<F> {
    entries: VecDeque<Entry<F>>,
    /// Entries without an outcome.
    unconfirmed: usize,
    next_seq: u64,
}

struct Entry<F> {
    seq: u64,
    /// None while it is being sent.
    conn: Option<F>,
    /// Known before the copy is home, else none.
    outcome: Option<Outcome>,
    origin: Origin,
    ticket: Ticket,
    passed_at: Instant,
}

impl<F> Ledger<F> {
    pub(super) fn new() -> Ledger<F> {
        Ledger { entries: VecDeque::new(), unconfirmed: 0, next_seq: 1 }
    }

    /// Books a batch that is about to be sent.
    pub(super) fn issue(
        &mut self,
        batch: impl ExactSizeIterator<Item = Waiting<F>>,
        now: Instant,
    ) -> (u64, Vec<Origin>, Vec<F>) {
        let first_seq = self.next_seq;
        let mut origins = Vec::with_capacity(batch.len());
        let mut conns = Vec::with_capacity(batch.len());
        for Waiting { conn, origin, ticket } in batch {
            let seq = self.next_seq;
            let entry = Entry { seq, conn: None, outcome: None, origin, ticket, passed_at: now };
            self.entries.push_back(entry);
            self.next_seq += 1;
            self.unconfirmed += 1;
            origins.push(origin);
            conns.push(conn);
        }
        (first_seq, origins, conns)
    }

    /// Books the copies of the last batch. What has no outcome yet gets `outcome`.
    pub(super) fn come_home(
        &mut self,
        conns: Vec<F>,
        outcome: Option<Outcome>,
        ends: &mut Ends<F>,
    ) {
        let first = self.first_in_flight();
        assert_eq!(self.entries.len() - first, conns.len(), "the whole batch comes home");
        let mut is_mixed = false;
        for (entry, conn) in self.entries.range_mut(first..).zip(conns) {
            entry.conn = Some(conn);
            if entry.outcome.is_none() && outcome.is_some() {
                entry.outcome = outcome;
                self.unconfirmed -= 1;
            }
            is_mixed |= entry.outcome.is_some();
        }
        if !is_mixed {
            return;
        }
        for _ in 0..self.entries.len() {
            let Some(entry) = self.entries.pop_front() else { break };
            match entry.outcome {
                Some(outcome) => entry.leave(outcome, ends),
                None => self.entries.push_back(entry),
            }
        }
    }

    /// Settles those of these numbers that had no outcome yet; returns how many.
    pub(super) fn settle(
        &mut self,
        seqs: Range<u64>,
        outcome: Outcome,
        ends: &mut Ends<F>,
    ) -> usize {
        let start = self.entries.partition_point(|entry| entry.seq < seqs.start);
        let end = self.entries.partition_point(|entry| entry.seq < seqs.end).max(start);
        let home = self.first_in_flight().clamp(start, end);
        let mut settled = home - start;
        for entry in self.entries.range_mut(home..end) {
            if entry.outcome.is_none() {
                entry.outcome = Some(outcome);
                settled += 1;
            }
        }
        match outcome {
            // From the last to the first: each finds its place at the very front.
            Outcome::Back => {
                self.entries.drain(start..home).rev().for_each(|entry| entry.leave(outcome, ends));
            }
            Outcome::Taken => {
                self.entries.drain(start..home).for_each(|entry| entry.leave(outcome, ends));
            }
        }
        self.unconfirmed -= settled;
        settled
    }

    /// When the oldest one without an outcome was passed.
    pub(super) fn oldest(&self) -> Option<Instant> {
        if self.unconfirmed == 0 {
            return None;
        }
        self.entries.iter().find(|entry| entry.outcome.is_none()).map(|entry| entry.passed_at)
    }

    pub(super) fn unconfirmed(&self) -> usize {
        self.unconfirmed
    }

    /// The highest number up to which no copies are left here.
    pub(super) fn released(&self) -> u64 {
        self.entries.front().map_or(self.next_seq, |entry| entry.seq) - 1
    }

    /// The highest number so far.
    pub(super) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn first_in_flight(&self) -> usize {
        self.entries.partition_point(|entry| entry.conn.is_some())
    }
}

impl<F> Entry<F> {
    fn leave(self, outcome: Outcome, ends: &mut Ends<F>) {
        let Entry { origin, ticket, .. } = self;
        let conn = self.conn.expect("it is home");
        match outcome {
            Outcome::Taken => ends.released.push(conn),
            Outcome::Back => Queue::put_back(&mut ends.queue, Waiting { conn, origin, ticket }),
        }
    }
}
