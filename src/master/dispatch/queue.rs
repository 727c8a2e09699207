//! The connections that wait for a worker, in order of arrival. Refuses none itself.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::time::{Duration, Instant};

use super::super::children::Life;
use super::Origin;

/// A connection without a worker.
pub(super) struct Waiting<F> {
    pub(super) conn: F,
    pub(super) origin: Origin,
    pub(super) ticket: Ticket,
}

/// A connection's place among all, which it keeps wherever it is.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    arrival: u64,
    since: Instant,
}

impl<F> Waiting<F> {
    /// The worker that must not get it back.
    pub(super) fn worker_to_avoid(&self) -> Option<Life> {
        match self.origin {
            Origin::Accepted => None,
            Origin::HandedOver { by } => Some(by),
        }
    }
}

/// Arrivals and deadlines rise from front to back: all connections wait equally long.
pub(super) struct Queue<F> {
    timeout: Duration,
    waiting: VecDeque<Waiting<F>>,
    next_arrival: u64,
    /// Those of them that were accepted here.
    accepted: usize,
}

impl<F> Queue<F> {
    pub(super) fn new(timeout: Duration) -> Queue<F> {
        Queue { timeout, waiting: VecDeque::new(), next_arrival: 0, accepted: 0 }
    }

    /// All wait so long from now on, whenever they came.
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Adds one that is new.
    pub(super) fn push(&mut self, conn: F, origin: Origin, now: Instant) {
        let ticket = Ticket { arrival: self.next_arrival, since: now };
        self.next_arrival += 1;
        self.accepted += usize::from(origin == Origin::Accepted);
        self.waiting.push_back(Waiting { conn, origin, ticket });
    }

    /// Puts one back that had left. It came before nearly all others, hence from the front.
    pub(super) fn put_back(&mut self, back: Waiting<F>) {
        let arrival = back.ticket.arrival;
        self.accepted += usize::from(back.origin == Origin::Accepted);
        if self.waiting.front().is_none_or(|first| arrival < first.ticket.arrival) {
            self.waiting.push_front(back);
        } else {
            let place = self.waiting.partition_point(|other| other.ticket.arrival < arrival);
            self.waiting.insert(place, back);
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&Waiting<F>> {
        self.waiting.get(index)
    }

    pub(super) fn remove(&mut self, index: usize) -> Waiting<F> {
        let removed = self.waiting.remove(index).expect("looked at just now");
        self.accepted -= usize::from(removed.origin == Origin::Accepted);
        removed
    }

    pub(super) fn drain(&mut self) -> Drain<'_, Waiting<F>> {
        self.accepted = 0;
        self.waiting.drain(..)
    }

    /// Takes out the first one, if its time is over.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Waiting<F>> {
        let is_over = self.first_deadline()? <= now;
        is_over.then(|| self.remove(0))
    }

    /// Takes out the last one that was accepted, if it arrived at `admitted` or later.
    pub(super) fn pop_newcomer(&mut self, admitted: u64) -> Option<Waiting<F>> {
        let new = self.waiting.iter().rev().take_while(|last| last.ticket.arrival >= admitted);
        let at = new.into_iter().position(|last| last.origin == Origin::Accepted)?;
        Some(self.remove(self.waiting.len() - 1 - at))
    }

    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|first| first.ticket.since + self.timeout)
    }

    /// The number of the next connection to arrive.
    pub(super) fn next_arrival(&self) -> u64 {
        self.next_arrival
    }

    /// Those that were accepted here: what there is a limit for.
    pub(super) fn accepted(&self) -> usize {
        self.accepted
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
