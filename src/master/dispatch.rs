//! Which worker gets which connection, and what becomes of it until the worker has it: events in,
//! commands out. Knows no sockets, reads no clock, logs nothing.
//!
//! The rules:
//! - The master keeps its copy of a connection until the worker shows that it has taken its own.
//!   What a worker never took (it died, was full, was out of descriptors, stalled) goes to another.
//! - Connections for one worker travel together, one message at a time: while one is being sent,
//!   the next collects.
//! - A worker that leaves what it was passed for as long as the balancer's patience lasts gets nothing more, and what it
//!   left is taken back as soon as another worker has room. When none has, it stays: it is as well
//!   off there as in the queue, and moving it about would serve nobody.
//! - The queue is in order of arrival, whoever had a connection meanwhile, so it is in order of
//!   deadlines too. What has been in it once is never refused because it is full, and neither is
//!   what a worker hands over: its client has been served here before.
//!
//! `F` is a connection: a descriptor, or a number in tests.
//!
//! What the rules lean on, and whoever acts has to see to:
//! - A worker counts a connection as open, and one that it refuses as refused, before it shows a
//!   `taken` beyond it. The page is read in the opposite order: `taken` first.
//! - A worker shows that it has taken a connection before it reads from it: what it died with
//!   before that is as good as new to another.
//! - A worker's end is told after everything that the worker had said, and its socket for
//!   connections has no heir: what is in it goes out from here once more.
//! - Pages are read before [`poll_commands`](Dispatcher::poll_commands), or a worker is held to
//!   stall that has only not been looked at.

mod ledger;
mod queue;
mod round;
mod worker;

use std::mem;
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::balance::Balancer;
use super::children::Life;
use crate::config::PoolConfig;

use queue::{Queue, Waiting};
use round::Round;
use worker::Worker;

/// The kernel passes no more descriptors with a message (`SCM_MAX_FD` of unix(7)).
const BATCH_MAX: usize = 253;
/// Connections on their way to one worker: two full messages, one that is read while the other one
/// waits, and about what 50,000 connections a second bring it within [`STALLED_AFTER`].
const UNCONFIRMED_MAX: usize = 512;
/// A worker's turn takes some hundred microseconds under full load. One that works on a turn for
/// this long is busy with something else, and is asked for what it leaves no more often than this.
pub(super) const STALLED_AFTER: Duration = Duration::from_millis(10);
/// How long a worker gets nothing whose channel is full, that is out of descriptors, or that has
/// nothing left to show that it takes again; it is tried with one connection then, unless it is
/// known to hang.
const REST: Duration = Duration::from_millis(100);

/// What becomes of the balancer when the settings change.
pub(super) enum Balancing {
    AsBefore,
    /// It forgets what it has learnt.
    Anew,
    By(Box<dyn Balancer>),
}

/// How a connection came to the master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Accepted,
    /// A draining worker gave it back, idle between two requests.
    HandedOver {
        by: Life,
    },
}

/// Why no worker gets a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    QueueFull,
    QueueTimeout,
    Stopping,
}

/// How the sending of a batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passed {
    Sent,
    /// The worker's socket has no room for another message.
    Full,
    /// The worker's socket takes nothing any more.
    Broken,
}

/// What a worker's page of the scoreboard shows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Progress {
    /// The highest sequence number that it has taken; 0 before the first.
    pub(super) taken: u64,
    /// Its open connections, those included that it accepted itself.
    pub(super) open: u64,
    /// Connections that it has closed since it began.
    pub(super) closed_total: u64,
    /// Passed connections that it couldn't receive since it began. Each is told of with
    /// [`handle_refused`](Dispatcher::handle_refused) as well, maybe later than it shows here;
    /// until then nothing is held to be taken.
    pub(super) refused_total: u64,
}

/// What to do, in this order.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Command<F> {
    /// Send these in one message; the first has the number `first_seq`, each further one the next.
    /// Answered by [`handle_passed`](Dispatcher::handle_passed), whatever happens.
    Pass { life: Life, first_seq: u64, origins: Vec<Origin>, conns: Vec<F> },
    /// Read whatever is in the worker's socket, without waiting, and close those copies. Answered
    /// by [`handle_reclaimed`](Dispatcher::handle_reclaimed), whatever was there.
    Reclaim { life: Life },
    /// Say so to the client (503) or, when it was handed over, close it.
    Refuse { conn: F, origin: Origin, why: Refusal },
    /// Close the master's copies: their workers have them.
    Release(Vec<F>),
}

/// Where connections go that no worker holds: to wait once more, or out.
struct Ends<F> {
    queue: Queue<F>,
    released: Vec<F>,
}

/// The connections that have no worker yet, or may still come back from one.
pub(super) struct Dispatcher<F> {
    queue_max: usize,
    balancer: Box<dyn Balancer>,
    /// The balancer's.
    patience: Duration,
    /// Finds out a client's address.
    address: fn(&F) -> Option<IpAddr>,
    /// In order of their places.
    workers: Vec<Worker<F>>,
    ends: Ends<F>,
    /// Connections that arrived before this one have their place in the queue for sure.
    admitted: u64,
    is_stopping: bool,
    round: Round,
}

impl<F> Dispatcher<F> {
    /// A dispatcher without workers. `address` is called when the balancer asks for it.
    pub(super) fn new(
        config: &PoolConfig,
        balancer: Box<dyn Balancer>,
        address: fn(&F) -> Option<IpAddr>,
    ) -> Dispatcher<F> {
        Dispatcher {
            queue_max: config.queue_max,
            patience: balancer.patience(),
            balancer,
            address,
            workers: Vec::new(),
            ends: Ends { queue: Queue::new(config.queue_timeout), released: Vec::new() },
            admitted: 0,
            is_stopping: false,
            round: Round::default(),
        }
    }

    /// Other settings from now on, also for those that wait already. With a balancer of its own, if
    /// need be; or else the one that there is begins anew, if so it `resets`. Either is told
    /// what the workers have open.
    pub(super) fn configure(&mut self, config: &PoolConfig, balancing: Balancing) {
        self.queue_max = config.queue_max;
        self.ends.queue.set_timeout(config.queue_timeout);
        match balancing {
            Balancing::AsBefore => return,
            Balancing::Anew => self.balancer.reset(),
            Balancing::By(balancer) => {
                self.balancer = balancer;
                self.patience = self.balancer.patience();
                self.workers.iter_mut().for_each(|worker| worker.set_patience(self.patience));
            }
        }
        for worker in &self.workers {
            let id = worker.life().worker;
            (0..worker.established()).for_each(|_| self.balancer.on_connection_established(id));
        }
    }

    /// A worker takes connections from now on, `connections_max` at a time.
    pub(super) fn handle_worker_ready(&mut self, life: Life, weight: u32, connections_max: u64) {
        if self.index_of(life).is_some() {
            return;
        }
        let place = self.workers.partition_point(|other| other.life().worker <= life.worker);
        let worker = Worker::new(life, weight, connections_max, self.patience);
        self.workers.insert(place, worker);
    }

    /// A worker gets nothing new. What is on its way to it stays so.
    pub(super) fn handle_worker_leaving(&mut self, life: Life) {
        if let Some(index) = self.index_of(life) {
            self.workers[index].on_leaving();
        }
    }

    /// A worker has ended, after it had taken everything up to `taken`.
    pub(super) fn handle_worker_gone(&mut self, life: Life, taken: u64) {
        let Some(index) = self.index_of(life) else { return };
        self.workers[index].on_gone(taken);
        self.confirm(index);
    }

    /// A connection needs a worker.
    pub(super) fn handle_connection(&mut self, conn: F, origin: Origin, now: Instant) {
        self.ends.queue.push(conn, origin, now);
    }

    /// Whether a worker's loop is known not to turn: one that leaves what it was passed isn't tried
    /// again then. Told before [`poll_commands`](Dispatcher::poll_commands), as pages are read.
    pub(super) fn handle_stuck(&mut self, life: Life, is_stuck: bool) {
        if let Some(index) = self.index_of(life) {
            self.workers[index].on_stuck(is_stuck);
        }
    }

    /// A worker's page shows this.
    pub(super) fn handle_progress(&mut self, life: Life, progress: Progress, now: Instant) {
        let Some(index) = self.index_of(life) else { return };
        if self.workers[index].on_progress(progress, now) {
            self.confirm(index);
        }
    }

    /// A batch has been sent, or not; its connections come home.
    pub(super) fn handle_passed(
        &mut self,
        life: Life,
        conns: Vec<F>,
        passed: Passed,
        now: Instant,
    ) {
        // Even a worker that is gone stays in the list until its last batch is home.
        let index = self.index_of(life).expect("whoever was passed something is known");
        self.workers[index].on_passed(conns, passed, now, &mut self.ends);
        self.remove_if_done(index);
    }

    /// The messages with these numbers were read back out of a worker's socket.
    pub(super) fn handle_reclaimed(&mut self, life: Life, seqs: &[Range<u64>], now: Instant) {
        let Some(index) = self.index_of(life) else { return };
        self.workers[index].on_reclaimed(seqs, now, &mut self.ends);
        self.confirm(index);
    }

    /// A worker couldn't receive these: it has no descriptors left.
    pub(super) fn handle_refused(&mut self, life: Life, first_seq: u64, count: u64, now: Instant) {
        let Some(index) = self.index_of(life) else { return };
        self.workers[index].on_refused(first_seq, count, now, &mut self.ends);
        self.confirm(index);
    }

    /// From now on nothing waits: what no worker has room for is refused.
    pub(super) fn begin_stop(&mut self) {
        self.is_stopping = true;
    }

    /// Whether nothing waits for a worker, nor for being sent to one.
    pub(super) fn is_settled(&self) -> bool {
        self.ends.queue.is_empty() && self.workers.iter().all(Worker::is_settled)
    }

    /// It doesn't after all.
    pub(super) fn end_stop(&mut self) {
        self.is_stopping = false;
    }

    /// Decides: what is due by now, and what follows from the events since the last time.
    pub(super) fn poll_commands(&mut self, now: Instant, commands: &mut Vec<Command<F>>) {
        for worker in &mut self.workers {
            worker.handle_timeout(now, &mut self.ends.queue);
        }
        self.assign();
        self.refuse(now, commands);
        commands.extend(self.workers.iter_mut().filter_map(|worker| worker.poll_pass(now)));
        if self.any_room() {
            commands.extend(self.workers.iter_mut().filter_map(|worker| worker.poll_reclaim(now)));
        }
        if !self.ends.released.is_empty() {
            commands.push(Command::Release(mem::take(&mut self.ends.released)));
        }
    }

    /// When [`poll_commands`](Dispatcher::poll_commands) has something to do without an event.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let any_room = self.any_room();
        let any_need = !self.ends.queue.is_empty() || self.workers.iter().any(Worker::has_stalled);
        let due = self.workers.iter().filter_map(|worker| worker.due(any_room, any_need));
        due.chain(self.ends.queue.first_deadline()).min()
    }

    /// For each worker the highest number up to which the master holds no copies, once it has done
    /// what it was told: a worker's own descriptor is the only one then.
    pub(super) fn released(&self) -> impl Iterator<Item = (Life, u64)> {
        self.workers.iter().map(Worker::released)
    }

    /// Connections that wait for a worker.
    pub(super) fn queue_len(&self) -> usize {
        self.ends.queue.len()
    }

    /// Whether a worker's progress would change anything, so that pages should be looked at.
    pub(super) fn wants_progress(&self) -> bool {
        !self.ends.queue.is_empty() || self.workers.iter().any(Worker::owes_progress)
    }

    fn index_of(&self, life: Life) -> Option<usize> {
        let first = self.workers.partition_point(|other| other.life().worker < life.worker);
        let in_place = self.workers[first..].iter().take_while(|w| w.life().worker == life.worker);
        in_place.map(Worker::life).position(|other| other == life).map(|at| first + at)
    }

    fn any_room(&self) -> bool {
        self.workers.iter().any(Worker::has_room)
    }

    /// Believes what a worker's page shows, as far as nothing is known to be missing, and tells
    /// the balancer.
    fn confirm(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        let id = worker.life().worker;
        let Some(news) = worker.poll_news(&mut self.ends) else { return };
        (0..news.taken).for_each(|_| self.balancer.on_connection_established(id));
        (0..news.closed).for_each(|_| self.balancer.on_connection_closed(id));
        if news.is_gone {
            // A successor may be there already, and what the balancer knows is about both.
            let lives_on = |other: &Worker<F>| other.life().worker == id && !other.is_gone();
            if !self.workers.iter().any(lives_on) {
                self.balancer.on_worker_removed(id);
            }
            self.remove_if_done(index);
        }
    }

    fn remove_if_done(&mut self, index: usize) {
        if self.workers[index].is_done() {
            self.workers.remove(index);
        }
    }

    /// Gives what waits to those that have room.
    fn assign(&mut self) {
        self.round.begin(&self.workers);
        let mut skipped = 0;
        while !self.round.is_over()
            && let Some(waiting) = self.ends.queue.get(skipped)
        {
            let avoid = waiting.worker_to_avoid().and_then(|life| self.index_of(life));
            let address = || (self.address)(&waiting.conn);
            let Some(index) = self.round.choose(&mut *self.balancer, &address, avoid) else {
                skipped += 1;
                continue;
            };
            let worker = &mut self.workers[index];
            worker.collect(self.ends.queue.remove(skipped));
            self.round.on_assigned(worker);
        }
    }

    /// Refuses what waits in vain.
    fn refuse(&mut self, now: Instant, commands: &mut Vec<Command<F>>) {
        let refuse = |waiting: Waiting<F>, why| {
            let Waiting { conn, origin, .. } = waiting;
            Command::Refuse { conn, origin, why }
        };
        let queue = &mut self.ends.queue;
        if self.is_stopping {
            commands.extend(queue.drain().map(|waiting| refuse(waiting, Refusal::Stopping)));
        }
        while let Some(waiting) = queue.pop_expired(now) {
            commands.push(refuse(waiting, Refusal::QueueTimeout));
        }
        while queue.accepted() > self.queue_max
            && let Some(waiting) = queue.pop_newcomer(self.admitted)
        {
            commands.push(refuse(waiting, Refusal::QueueFull));
        }
        self.admitted = queue.next_arrival();
    }
}

/// Connections that a worker took or lost, for good.
struct News {
    taken: usize,
    closed: u64,
    is_gone: bool,
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
