//! What a worker counts of its requests: numbers with one writer that other processes may read
//! while they change. Knows no shared memory, no processes and no clock.

mod black_box;
mod histogram;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

pub(crate) use black_box::{BlackBox, InFlight, Parked, Unfinished};
pub(crate) use histogram::{Durations, Histogram};

/// What the connections of a worker count. All zeroes is a valid beginning.
pub(crate) struct Figures {
    /// Heads that were understood.
    pub(crate) requests: Counter,
    /// Final responses by class, from 1xx to 5xx.
    responses: [Counter; CLASSES],
    faults: [Counter; Fault::ALL.len()],
    pub(crate) black_box: BlackBox,
    /// From the turn that received a head's last byte to the turn that saw the response's last one
    /// taken by the kernel.
    pub(crate) durations: Histogram,
}

/// Classes of status codes: 1xx to 5xx.
pub(crate) const CLASSES: usize = 5;

impl Figures {
    /// Figures in memory of this process alone, for those who are no worker.
    pub(crate) const fn new() -> Figures {
        Figures {
            requests: Counter::new(),
            responses: [const { Counter::new() }; CLASSES],
            faults: [const { Counter::new() }; Fault::ALL.len()],
            black_box: BlackBox::new(),
            durations: Histogram::new(),
        }
    }

    /// A final response with this status code, 100 to 599, was written.
    #[inline]
    pub(crate) fn on_response(&self, code: u16) {
        self.responses[usize::from(code / 100 - 1)].add(1);
    }

    #[cold]
    pub(crate) fn on_fault(&self, fault: Fault) {
        self.faults[fault as usize].add(1);
    }

    /// Responses by class.
    pub(crate) fn responses(&self) -> [u64; CLASSES] {
        self.responses.each_ref().map(Counter::read)
    }

    pub(crate) fn faults(&self, fault: Fault) -> u64 {
        self.faults[fault as usize].read()
    }
}

/// What can go wrong with a connection or a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A head or a body that HTTP doesn't allow, or that asks for what isn't there: 400, 417, 501, 505.
    Malformed,
    /// A head, a target or a body over its limit: 431, 414, 413.
    TooLarge,
    HeadTimeout,
    IdleTimeout,
    BodyTimeout,
    /// The peer doesn't read; or has closed its side, and the handler takes too long.
    WriteTimeout,
    /// The socket failed, mostly because the peer reset the connection.
    Broken,
    /// A handler panicked.
    Panicked,
    /// A response's stream failed, so that the response was cut off.
    CutOff,
    /// An accept failed.
    AcceptFailed,
    /// A client that asks too often: 429.
    RateLimited,
    /// Connections hold too much memory: 503.
    OutOfMemory,
    /// A handler took too long: 503.
    RequestTimeout,
    /// A client with too many connections: closed.
    TooManyConnections,
    /// Closed while idle, to make room for another one.
    MadeRoom,
}

impl Fault {
    /// In the order of their numbers.
    pub(crate) const ALL: [Fault; 15] = [
        Fault::Malformed,
        Fault::TooLarge,
        Fault::HeadTimeout,
        Fault::IdleTimeout,
        Fault::BodyTimeout,
        Fault::WriteTimeout,
        Fault::Broken,
        Fault::Panicked,
        Fault::CutOff,
        Fault::AcceptFailed,
        Fault::RateLimited,
        Fault::OutOfMemory,
        Fault::RequestTimeout,
        Fault::TooManyConnections,
        Fault::MadeRoom,
    ];

    /// Of a refusal with this status code.
    pub(crate) fn of_refusal(code: u16) -> Fault {
        match code {
            413 | 414 | 431 => Fault::TooLarge,
            _ => Fault::Malformed,
        }
    }
}

/// A count with one writer, so that a plain store does: no bus lock, as `fetch_add` would take.
/// Survives its writer; a successor goes on from where it stands.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.set(self.read().wrapping_add(count));
    }

    /// As [`add`](Counter::add), while others may do so as well.
    pub(crate) fn add_among_others(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// As [`set`](Counter::set). Whoever sees this value by [`read_after`](Counter::read_after) sees
    /// everything that was set before it, too.
    #[inline]
    pub(crate) fn set_last(&self, value: u64) {
        self.0.store(value, Release);
    }

    /// See [`set_last`](Counter::set_last).
    #[inline]
    pub(crate) fn read_after(&self) -> u64 {
        self.0.load(Acquire)
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    #[inline]
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_own_counter() {
        let figures = Figures::new();
        for (number, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, number);
            assert_eq!(figures.faults(fault), 0);
            figures.on_fault(fault);
            assert_eq!(figures.faults(fault), 1);
        }
    }

    #[test]
    fn every_status_code_counts_in_its_class() {
        let figures = Figures::new();
        (100..=599).for_each(|code| figures.on_response(code));
        assert_eq!(figures.responses(), [100; CLASSES]);
    }
}
