//! What the master orders and delivers, and what it is told. Knows no HTTP, and not how it is said:
//! that is the lifecycle's.

use std::time::{Duration, Instant};

use super::gate::Newcomer;
use super::lifecycle::Order;
use super::passing::Delivery;
use super::{Tag, Worker};
use crate::conn::{DRAIN_GRACE, Draining};
use crate::process::channel::Message;
use crate::process::parcel::Origin;

/// Idle connections are closed one after the other, so that their clients don't come back in one
/// instant: 10,000 of them over a second.
const DRAIN_PACE: Duration = Duration::from_micros(100);

/// Turns in which a worker that ends gets rid of what it has to say: one for each message, and more
/// than it sends in its last turn, unless the master doesn't read.
const LAST_WORDS_TURNS_MAX: usize = 64;

impl Worker {
    pub(super) fn on_delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Connections { first, connections, missing } => {
                let count = connections.len();
                let is_new = |(_, origin): &&(_, Origin)| *origin == Origin::Accepted;
                let new = connections.iter().filter(is_new).count() as u64;
                // In this order, and before anything is read from them: what the page of a dead
                // worker doesn't show as taken is given to somebody else.
                let shown = &self.page.traffic;
                shown.connections_total.add(new);
                self.connections += new;
                shown.connections.set((self.connections() + count) as u64);
                shown.not_taken.add(missing as u64);
                shown.taken.set_last(first + (count + missing) as u64 - 1);
                for ((socket, origin), passed_as) in connections.into_iter().zip(first..) {
                    self.gate.arrive(Newcomer { socket, origin, passed_as });
                }
                if missing > 0 {
                    log::warn!("no descriptor was left for {missing} connections (`ulimit -n`)");
                    let message = Message::NotTaken { first: first + count as u64, count: missing };
                    self.lifecycle.say(&message, &mut self.ring);
                }
            }
            Delivery::Listeners(listeners) => {
                let connections = self.connections();
                self.acceptor.adopt(listeners, &mut self.ring, connections);
            }
            Delivery::End => return,
        }
        self.passing.receive(&mut self.ring);
    }

    pub(super) fn follow(&mut self, order: Order) {
        match order {
            Order::Drain => self.begin_drain(),
            Order::AcceptAlone => {
                let connections = self.connections();
                self.acceptor.set_alone(&mut self.ring, connections);
            }
            Order::Listen => {
                let connections = self.connections();
                self.acceptor.begin(&mut self.ring, connections);
            }
            Order::GiveListenersBack => {
                let connections = self.connections();
                self.acceptor.give_back(&mut self.ring, connections);
            }
            Order::MakeRoom => self.gate.set_wanted(true),
            Order::Deliver(payload) => self.runtime.deliver(payload),
        }
    }

    /// Tells the master what it has to know.
    pub(super) fn speak(&mut self, now: Instant) {
        let memory = self.page.life.memory.read();
        if let Some(reason) = self.recycle.poll(now, self.requests, memory) {
            self.lifecycle.say(&Message::RecycleDue { reason }, &mut self.ring);
        }
        if self.owes_accept_stopped && self.acceptor.is_off() {
            self.owes_accept_stopped = false;
            self.lifecycle.say(&Message::AcceptStopped, &mut self.ring);
        }
        while self.lifecycle.may_say_more()
            && let Some(payload) = self.runtime.poll_outbox()
        {
            self.lifecycle.say(&Message::User { payload }, &mut self.ring);
        }
    }

    /// What this process has done, while the master still listens.
    pub(super) fn say_last_words(&mut self) {
        let left = self.passing.waiting();
        if left > 0 {
            log::warn!("closing {left} idle connections, which nobody took over in time");
        }
        let message = Message::WorkerMetrics {
            worker_id: self.id,
            total_requests: self.requests,
            total_connections: self.connections,
        };
        self.lifecycle.say(&message, &mut self.ring);
        for _ in 0..LAST_WORDS_TURNS_MAX {
            if self.lifecycle.has_said_all() || self.ring.turn(Some(Duration::ZERO)).is_err() {
                break;
            }
            while let Some(completion) = self.ring.poll_completion() {
                if let Tag::Said = completion.tag {
                    self.lifecycle.on_said(&mut self.ring);
                }
            }
        }
    }

    pub(super) fn begin_drain(&mut self) {
        self.around.draining = self.lifecycle.draining();
        let connections = self.connections();
        self.acceptor.stop(&mut self.ring, connections);
        self.runtime.begin_drain();
        self.takers.clear(); // its slots are a successor's now
        self.owes_accept_stopped = true;
        let now = self.around.now;
        let half = self.lifecycle.poll_timeout().map_or(now, |deadline| now + (deadline - now) / 2);
        for (number, id) in self.table.ids().into_iter().enumerate() {
            let Some(entry) = self.table.get_mut(id) else { continue };
            if self.around.draining == Draining::Closing {
                let until = now + DRAIN_GRACE + DRAIN_PACE * number as u32;
                entry.connection.handle_drain(until.min(half.max(now + DRAIN_GRACE)));
            }
            entry.connection.handle_leaving(&mut self.around.env(id));
            self.settle(id);
        }
    }
}
