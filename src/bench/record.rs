//! What the load threads tell of each request, and what becomes of it: the seam between the engine
//! and its report. Knows no sockets and no clock; judges nothing.
//!
//! Each load thread owns a [`Recorder`]. It counts into an [`Interval`] of memory that was allocated
//! before the run; at the end of each interval that memory goes to the [`Collector`], a thread of
//! its own, and an empty one comes back. A record is some stores into the thread's own memory: it
//! never allocates, locks or waits, and takes the same memory for ten seconds as for ten days.
//!
//! All times are nanoseconds of the monotonic clock since the run's epoch. A request has three of
//! them, and so three clocks:
//!
//! | clock | from | to | what it tells |
//! |---|---|---|---|
//! | wait | intended | sent | how long the request was due before it was on its way |
//! | service | sent | done | how long the server took, once asked |
//! | response | intended | done | how long a user would have waited: the one to quote |
//!
//! A request without an answer isn't forgotten: it has waited until now, so that its times are *at
//! least* so long. Such lower bounds are kept beside the times that are known.
//!
//! ```
//! use uring_pool::bench::record::{Answer, Collector, Settings};
//!
//! let mut collector = Collector::new(Settings::default());
//! let mut recorder = collector.recorder(1, 1);
//! // On a load thread: due at 1.0 ms, sent at 1.2 ms, answered at 1.9 ms.
//! recorder.on_send(1_200_000, 200_000, 64, 1);
//! recorder.on_answer(&Answer {
//!     intended: 1_000_000,
//!     sent: 1_200_000,
//!     first_byte: 1_900_000,
//!     done: 1_900_000,
//!     bytes: 180,
//!     status: 200,
//!     target: 0,
//!     connection: 0,
//!     count: 1,
//! });
//! let rest = recorder.finish(2_000_000);
//! // On the collecting thread:
//! let record = collector.finish([rest]);
//! assert_eq!(record.total().answers, 1);
//! ```

mod collect;
mod fault;
mod heat;
mod interval;
mod json;
mod share;
#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub use collect::{Collector, Live, Record, Slot};
pub use fault::Fault;
pub use heat::Heat;
pub use interval::{CLOCKS, Clock, Counts, Interval, Times, times};
pub use json::{compressed, uncompressed};
pub use share::{Share, TARGETS_MAX};

/// How a run is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Requests are due at times of a schedule; else each is due when it is sent, and waiting and
    /// response times are not kept, since they are zero and the service time.
    pub open_loop: bool,
    /// How long the run will take, in nanoseconds, if that is known: long ones get longer slots.
    pub expected: Option<u64>,
}

impl Default for Settings {
    /// An open loop of unknown length.
    fn default() -> Settings {
        Settings { open_loop: true, expected: None }
    }
}

/// An answer that came whole; or several that are alike in all of this, as pipelined ones often are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// When it was due to be sent. In a closed loop, when it was sent.
    pub intended: u64,
    /// When it was handed to the kernel.
    pub sent: u64,
    /// When the first byte of its answer was received.
    pub first_byte: u64,
    /// When the last byte was.
    pub done: u64,
    /// Of head and body, as received.
    pub bytes: u64,
    /// The status code, 100 to 599 (others count as 0).
    pub status: u16,
    /// Which of the URLs, from 0.
    pub target: u32,
    /// Which of this thread's connections, from 0; a connection that replaces one has its number.
    pub connection: u32,
    /// How many.
    pub count: u32,
}

/// A request that got no answer, or only a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// When it was due to be sent.
    pub intended: u64,
    /// When it was, if it was.
    pub sent: Option<u64>,
    /// When it was given up.
    pub at: u64,
    /// Why.
    pub fault: Fault,
    /// Which of the URLs, from 0.
    pub target: u32,
    /// Which of this thread's connections, from 0.
    pub connection: u32,
}

/// What is so now, and not a count: for the live view. Written by one thread.
#[derive(Default, Debug)]
pub struct Gauges {
    connections: AtomicU64,
    in_flight: AtomicU64,
    backlog: AtomicU64,
}

impl Gauges {
    /// Connections that are open.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Requests that were sent and have no answer yet.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Requests that are due and not sent.
    pub fn backlog(&self) -> u64 {
        self.backlog.load(Relaxed)
    }
}

/// Takes down what happens to the requests of one thread.
#[derive(Debug)]
pub struct Recorder {
    open_loop: bool,
    /// Nanoseconds that an interval spans.
    span: u64,
    /// When the interval ends.
    ends_at: u64,
    interval: Box<Interval>,
    full: SyncSender<Box<Interval>>,
    empty: Receiver<Box<Interval>>,
    gauges: Arc<Gauges>,
    kept: Kept,
}

/// What a thread leaves when it has finished.
#[derive(Debug)]
pub struct Rest {
    last: Box<Interval>,
    kept: Kept,
}

/// What a recorder keeps over the whole run.
#[derive(Debug)]
struct Kept {
    /// Answers by status code; those of no known code at 0.
    statuses: Box<[u64; STATUSES]>,
    /// How long answers took by when they were due.
    heat: Heat,
    /// What each connection got.
    connections: Vec<Share>,
    /// What each target got; the last one is that of all that have no place of their own.
    targets: Vec<Share>,
    /// Response times of each target's answers, if there are several.
    target_times: Vec<Histogram<u64>>,
    /// Intervals that went on into the next, because the collector had none to give back.
    overdue: u64,
}

/// Status codes that are told apart.
const STATUSES: usize = 600;

impl Kept {
    #[inline]
    fn count_status(&mut self, status: u16, count: u32) {
        let known = if usize::from(status) < STATUSES { usize::from(status) } else { 0 };
        self.statuses[known] += u64::from(count);
    }
}

impl Recorder {
    /// When [`tick`](Recorder::tick) is due, whether or not anything has happened.
    pub fn tick_at(&self) -> u64 {
        self.ends_at
    }

    /// Time passes. To be called in each turn, and by [`tick_at`](Recorder::tick_at) at the latest
    /// (some milliseconds later are fine): an interval ends although nothing happens.
    #[inline]
    pub fn tick(&mut self, now: u64) {
        if now >= self.ends_at {
            self.turn_over(now);
        }
    }

    /// What is so now: connections that are open, requests under way, requests due but not sent.
    #[inline]
    pub fn gauge(&self, connections: u64, in_flight: u64, backlog: u64) {
        self.gauges.connections.store(connections, Relaxed);
        self.gauges.in_flight.store(in_flight, Relaxed);
        self.gauges.backlog.store(backlog, Relaxed);
    }

    /// So many requests of `bytes` bytes each were sent, `lag` nanoseconds after the generator could
    /// have: when they were due and there was a connection for them.
    #[inline]
    pub fn on_send(&mut self, now: u64, lag: u64, bytes: u64, count: u32) {
        self.tick(now);
        let interval = &mut *self.interval;
        interval.counts.sent += u64::from(count);
        interval.counts.bytes_sent += bytes * u64::from(count);
        interval.times.record_n(Clock::Lag, lag, count);
    }

    /// A request was answered as it should be.
    #[inline]
    pub fn on_answer(&mut self, answer: &Answer) {
        self.tick(answer.done);
        let Answer { intended, sent, first_byte, done, count, .. } = *answer;
        let Interval { counts, times, .. } = &mut *self.interval;
        counts.answers += u64::from(count);
        counts.bytes_received += answer.bytes * u64::from(count);
        let service = done.saturating_sub(sent);
        times.record_n(Clock::Service, service, count);
        times.record_n(Clock::FirstByte, first_byte.saturating_sub(sent), count);
        let mut response = service;
        if self.open_loop {
            response = done.saturating_sub(intended);
            times.record_n(Clock::Response, response, count);
            times.record_n(Clock::Wait, sent.saturating_sub(intended), count);
        }
        self.kept.heat.record(intended, response, count);
        self.kept.count_status(answer.status, count);
        share::of(&mut self.kept.connections, answer.connection).on_answer(service, answer);
        share::of(&mut self.kept.targets, answer.target).on_answer(service, answer);
        if !self.kept.target_times.is_empty() {
            let times = share::of(&mut self.kept.target_times, answer.target);
            times.saturating_record_n(response, u64::from(count));
        }
    }

    /// A request was answered whole, but not as it should be: with another status, or body. It has
    /// failed: its times are kept apart, and its bytes are no throughput.
    pub fn on_unexpected(&mut self, answer: &Answer, fault: Fault) {
        self.tick(answer.done);
        let count = u64::from(answer.count);
        let Interval { counts, times, .. } = &mut *self.interval;
        counts.unexpected += count;
        counts.faults[fault as usize] += count;
        let took = answer.done.saturating_sub(answer.intended);
        times.record_n(Clock::Unexpected, took, answer.count);
        self.kept.count_status(answer.status, answer.count);
        share::of(&mut self.kept.connections, answer.connection).failed += count;
        share::of(&mut self.kept.targets, answer.target).failed += count;
    }

    /// A request has failed. What it waited until now is a lower bound of what it would have taken.
    pub fn on_failure(&mut self, failure: &Failure) {
        self.tick(failure.at);
        let interval = &mut *self.interval;
        let is_sent = failure.sent.is_some();
        *(if is_sent { &mut interval.counts.broken } else { &mut interval.counts.dropped }) += 1;
        interval.counts.faults[failure.fault as usize] += 1;
        self.bound(failure.intended, failure.sent, failure.at);
        share::of(&mut self.kept.connections, failure.connection).failed += 1;
        share::of(&mut self.kept.targets, failure.target).failed += 1;
    }

    /// At the end of the run a request is unsent, or sent and not answered.
    pub fn on_unfinished(&mut self, intended: u64, sent: Option<u64>, now: u64) {
        self.tick(now);
        let counts = &mut self.interval.counts;
        *(if sent.is_some() { &mut counts.unanswered } else { &mut counts.unsent }) += 1;
        self.bound(intended, sent, now);
    }

    /// A connection was opened, `duration` nanoseconds after that was begun.
    pub fn on_connect(&mut self, now: u64, duration: u64) {
        self.tick(now);
        self.interval.counts.connects += 1;
        self.interval.times.record(Clock::Connect, duration);
    }

    /// A connection could not be opened.
    pub fn on_connect_failure(&mut self, now: u64, fault: Fault) {
        self.tick(now);
        self.interval.counts.connect_failures += 1;
        self.interval.counts.connect_faults[fault as usize] += 1;
    }

    /// A connection is closed. `duration` is how long that took from when it was begun, if this end
    /// began it.
    pub fn on_close(&mut self, now: u64, duration: Option<u64>) {
        self.tick(now);
        self.interval.counts.closes += 1;
        if let Some(duration) = duration {
            self.interval.times.record(Clock::Close, duration);
        }
    }

    /// The run is over for this thread. What is left goes to [`Collector::finish`].
    pub fn finish(mut self, now: u64) -> Rest {
        self.tick(now);
        self.interval.to = now.max(self.interval.from);
        Rest { last: self.interval, kept: self.kept }
    }

    /// The times of a request without an answer are at least so long.
    fn bound(&mut self, intended: u64, sent: Option<u64>, now: u64) {
        let times = &mut self.interval.times;
        let response = now.saturating_sub(intended);
        if self.open_loop {
            times.record(Clock::ResponseAtLeast, response);
            match sent {
                Some(sent) => times.record(Clock::Wait, sent.saturating_sub(intended)),
                None => times.record(Clock::WaitAtLeast, response),
            }
        }
        if let Some(sent) = sent {
            times.record(Clock::ServiceAtLeast, now.saturating_sub(sent));
        }
        self.kept.heat.record(intended, response, 1);
    }

    /// Hands over the interval, and begins the one that `now` is in.
    #[cold]
    fn turn_over(&mut self, now: u64) {
        let begin = now - now % self.span;
        let Ok(empty) = self.empty.try_recv() else {
            self.kept.overdue += 1;
            self.ends_at = begin + self.span;
            return;
        };
        let mut full = mem::replace(&mut self.interval, empty);
        full.to = self.ends_at;
        self.interval.from = begin;
        self.ends_at = begin + self.span;
        if let Err(TrySendError::Full(_)) = self.full.try_send(full) {
            unreachable!("there is room for all the intervals that there are");
        }
    }
}
