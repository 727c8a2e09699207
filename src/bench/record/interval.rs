//! What a thread counts in one interval: memory that goes round between recorder and collector.

use std::mem;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::fault::FAULTS;

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// From intended to done. Not kept in a closed loop, where it is the service time.
    Response,
    /// From sent to done.
    Service,
    /// From intended to sent. Not kept in a closed loop, where it is zero.
    Wait,
    /// From when the generator could have sent to when it did.
    Lag,
    /// From sent to the first byte.
    FirstByte,
    /// Opening a connection.
    Connect,
    /// Closing a connection, where the generator did.
    Close,
    /// From intended to an answer that was not as it should be.
    Unexpected,
    /// From intended to when a request was given up, or the run ended: lower bounds.
    ResponseAtLeast,
    /// Likewise from sent.
    ServiceAtLeast,
    /// Likewise from intended, of requests that were never sent.
    WaitAtLeast,
}

/// How many there are.
pub const CLOCKS: usize = Clock::ALL.len();

impl Clock {
    /// In the order of their numbers.
    pub const ALL: [Clock; 11] = [
        Clock::Response,
        Clock::Service,
        Clock::Wait,
        Clock::Lag,
        Clock::FirstByte,
        Clock::Connect,
        Clock::Close,
        Clock::Unexpected,
        Clock::ResponseAtLeast,
        Clock::ServiceAtLeast,
        Clock::WaitAtLeast,
    ];
}

/// The longest time that is told from longer ones: an hour, in nanoseconds.
const TIME_MAX: u64 = 3_600_000_000_000;
/// Times are kept to this many significant digits: 33,000 counts, which take 131 KB a clock in an
/// interval, of which a record touches one.
const DIGITS: u8 = 3;

/// An empty histogram of times: 1 ns to an hour, three digits.
///
/// ```
/// let mut times = uring_pool::bench::record::times();
/// times.saturating_record(1_234_567);
/// assert_eq!(times.max() / 1_000, 1_234);
/// ```
pub fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_MAX, DIGITS).expect("these bounds are in order")
}

/// A power of two is divided into so many buckets; below, each nanosecond is one.
const HALF: usize = 1 << HALF_BITS;
const HALF_BITS: u32 = 10;
/// Buckets up to [`TIME_MAX`], which are those of [`times`].
const BUCKETS: usize = bucket(TIME_MAX) + 1;

/// A histogram for each clock, as bare counts: a record is one addition, where a `Histogram` also
/// keeps minimum, maximum and sum.
#[derive(Debug)]
pub struct Times {
    counts: [Box<[u32]>; CLOCKS],
    is_used: [bool; CLOCKS],
}

impl Times {
    pub(super) fn new() -> Times {
        let counts = std::array::from_fn(|_| vec![0; BUCKETS].into_boxed_slice());
        Times { counts, is_used: [false; CLOCKS] }
    }

    #[inline]
    pub(super) fn record(&mut self, clock: Clock, nanos: u64) {
        self.record_n(clock, nanos, 1);
    }

    /// So many that took equally long. Longer times than an hour are an hour.
    #[inline]
    pub(super) fn record_n(&mut self, clock: Clock, nanos: u64, count: u32) {
        self.is_used[clock as usize] = true;
        let sum = &mut self.counts[clock as usize][bucket(nanos).min(BUCKETS - 1)];
        *sum = sum.saturating_add(count);
    }

    /// What this clock has measured.
    pub fn of(&self, clock: Clock) -> Histogram<u64> {
        let mut times = times();
        self.add_to(&mut times, clock);
        times
    }

    /// Adds what this clock has measured to `sum`, which must have been made by [`times`].
    pub fn add_to(&self, sum: &mut Histogram<u64>, clock: Clock) {
        if self.is_empty(clock) {
            return;
        }
        for (bucket, count) in self.counts[clock as usize].iter().enumerate() {
            if *count > 0 {
                sum.record_n(begin(bucket), u64::from(*count)).expect("it is within bounds");
            }
        }
    }

    /// This clock has measured nothing.
    pub fn is_empty(&self, clock: Clock) -> bool {
        !self.is_used[clock as usize]
    }

    pub(super) fn add(&mut self, other: &Times) {
        for clock in Clock::ALL.map(|clock| clock as usize) {
            if other.is_used[clock] {
                self.is_used[clock] = true;
                let counts = self.counts[clock].iter_mut().zip(&other.counts[clock]);
                counts.for_each(|(sum, more)| *sum = sum.saturating_add(*more));
            }
        }
    }

    fn clear(&mut self) {
        for (counts, is_used) in self.counts.iter_mut().zip(&mut self.is_used) {
            if mem::take(is_used) {
                counts.fill(0);
            }
        }
    }
}

/// The bucket of a time.
#[inline]
const fn bucket(nanos: u64) -> usize {
    let octave = (nanos | (2 * HALF as u64 - 1)).ilog2() - HALF_BITS;
    octave as usize * HALF + (nanos >> octave) as usize
}

/// The shortest time of a bucket.
const fn begin(bucket: usize) -> u64 {
    if bucket < 2 * HALF {
        return bucket as u64;
    }
    let octave = (bucket / HALF - 1) as u32;
    ((HALF + bucket % HALF) as u64) << octave
}

/// Counts of events. All add up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that were answered as they should be.
    pub answers: u64,
    /// Requests that were answered with another status or body.
    pub unexpected: u64,
    /// Requests that failed after they were sent.
    pub broken: u64,
    /// Requests that failed before they could be sent.
    pub dropped: u64,
    /// Requests that were sent and not answered when the run ended.
    pub unanswered: u64,
    /// Requests that were due and not sent when the run ended.
    pub unsent: u64,
    /// Bytes of requests.
    pub bytes_sent: u64,
    /// Bytes of answers as they should be.
    pub bytes_received: u64,
    /// Connections that were opened.
    pub connects: u64,
    /// Connections that could not be.
    pub connect_failures: u64,
    /// Connections that ended.
    pub closes: u64,
    /// Requests that failed, by [`Fault`](super::Fault).
    pub faults: [u64; FAULTS],
    /// Connections that could not be opened, likewise.
    pub connect_faults: [u64; FAULTS],
}

impl Counts {
    /// Requests that failed, however.
    pub fn failed(&self) -> u64 {
        self.unexpected + self.broken + self.dropped
    }

    /// Requests without an end.
    pub fn unfinished(&self) -> u64 {
        self.unanswered + self.unsent
    }

    /// Requests that were due.
    pub fn offered(&self) -> u64 {
        self.sent + self.dropped + self.unsent
    }

    /// Adds those of another time or thread.
    pub fn add(&mut self, other: &Counts) {
        let Counts { faults, connect_faults, .. } = other;
        self.faults.iter_mut().zip(faults).for_each(|(sum, more)| *sum += more);
        self.connect_faults.iter_mut().zip(connect_faults).for_each(|(sum, more)| *sum += more);
        self.sent += other.sent;
        self.answers += other.answers;
        self.unexpected += other.unexpected;
        self.broken += other.broken;
        self.dropped += other.dropped;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.connects += other.connects;
        self.connect_failures += other.connect_failures;
        self.closes += other.closes;
    }
}

/// What happened to one thread's requests within an interval. An answer belongs to the interval in
/// which it came.
#[derive(Debug)]
pub struct Interval {
    /// Its begin, in nanoseconds since the run's epoch.
    pub from: u64,
    /// Its end.
    pub to: u64,
    /// How many.
    pub counts: Counts,
    /// How long.
    pub times: Times,
}

impl Interval {
    pub(super) fn new() -> Interval {
        Interval { from: 0, to: 0, counts: Counts::default(), times: Times::new() }
    }

    pub(super) fn clear(&mut self) {
        self.counts = Counts::default();
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_in_the_order_of_their_numbers() {
        for (number, clock) in Clock::ALL.into_iter().enumerate() {
            assert_eq!(clock as usize, number);
        }
    }

    #[test]
    fn every_request_is_somewhere() {
        let counts = Counts {
            sent: 100,
            answers: 80,
            unexpected: 7,
            broken: 3,
            unanswered: 10,
            dropped: 5,
            unsent: 20,
            ..Counts::default()
        };
        assert_eq!(counts.offered(), counts.answers + counts.failed() + counts.unfinished());
    }

    #[test]
    fn times_keep_three_digits_up_to_an_hour() {
        for nanos in (0..42).map(|bits| (1 << bits) + (1 << bits) / 3) {
            let mut times = Times::new();
            times.record(Clock::Service, nanos);
            let kept = times.of(Clock::Service).max();
            assert!(kept.abs_diff(nanos) * 1_000 <= nanos, "{nanos} is kept as {kept}");
        }
    }

    /// Both count into the same buckets, so that nothing is lost from one to the other.
    #[test]
    fn buckets_are_those_of_the_histogram() {
        let expected = times();
        for bits in 0..42 {
            for nanos in [1 << bits, (1 << bits) - 1, (1 << bits) + 1, (1 << bits) / 7 * 9] {
                let nanos = TIME_MAX.min(nanos);
                assert_eq!(begin(bucket(nanos)), expected.lowest_equivalent(nanos), "{nanos}");
            }
        }
        for number in 0..BUCKETS {
            assert_eq!(bucket(begin(number)), number);
        }
    }

    #[test]
    fn longer_times_than_an_hour_are_an_hour() {
        let mut times = Times::new();
        [TIME_MAX, TIME_MAX + 1, TIME_MAX * 2, u64::MAX]
            .into_iter()
            .for_each(|nanos| times.record(Clock::Service, nanos));
        let times = times.of(Clock::Service);
        assert_eq!(times.count_at(TIME_MAX), 4);
    }
}
