//! The monotonic clock as a number that other processes can compare: std's `Instant` has none.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock, the same in all processes of this boot.
pub(crate) fn monotonic_nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every kernel has this clock");
    time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()
}

/// A moment by both clocks: the one that people read, and the one that durations are measured by, as
/// nobody sets it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Moment {
    /// Since 1970; a clock before that counts as 1970.
    pub(crate) unix_seconds: u64,
    /// Of the monotonic clock.
    pub(crate) nanos: u64,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { unix_seconds: since_epoch.as_secs(), nanos: monotonic_nanos() }
    }

    /// Whole seconds since an earlier moment of the monotonic clock.
    pub(crate) fn seconds_since(self, nanos: u64) -> u64 {
        self.nanos.saturating_sub(nanos) / 1_000_000_000
    }
}

/// Tells the number of an instant, without another look at the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchor {
    instant: Instant,
    nanos: u64,
}

impl Anchor {
    /// `now` has the number `nanos`.
    pub(crate) fn new(now: Instant, nanos: u64) -> Anchor {
        Anchor { instant: now, nanos }
    }

    /// The number of an instant since then.
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        self.nanos + at.saturating_duration_since(self.instant).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_instant_has_the_number_of_the_clock() {
        let before = monotonic_nanos();
        let anchor = Anchor::new(Instant::now(), monotonic_nanos());
        let at = anchor.nanos(Instant::now());
        assert!((before..=monotonic_nanos() + 1_000_000).contains(&at));
        let start = Instant::now();
        let anchor = Anchor::new(start, 7);
        assert_eq!(anchor.nanos(start + Duration::from_nanos(5)), 12);
    }
}
