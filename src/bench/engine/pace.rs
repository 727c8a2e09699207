//! How to be on time: sleep until shortly before, then look at the clock. Sleeps nowhere itself.

use std::time::Duration;

/// Waking up is late by so many nanoseconds at first, until it is known better.
const LATE_FIRST: u64 = 60_000;
/// Later than this is another process's doing, not the timer's: it would be no use to wake earlier.
const LATE_MAX: u64 = 120_000;
/// Time to come from the ring to the clock, and back.
const MARGIN: u64 = 3_000;

/// Learns how late this machine wakes a thread.
#[derive(Debug)]
pub(super) struct Pace {
    /// There is a core for this thread alone, so that looking at the clock takes no time from
    /// anybody.
    may_spin: bool,
    /// About the most that waking up is late.
    late: u64,
    /// When the sleep was to end.
    alarm: Option<u64>,
}

impl Pace {
    pub(super) fn new(may_spin: bool) -> Pace {
        Pace { may_spin, late: LATE_FIRST, alarm: None }
    }

    /// How long to wait in the ring, when something is due at `due`: nothing at all shortly before.
    #[inline]
    pub(super) fn wait_until(&mut self, due: u64, now: u64) -> Duration {
        let left = due.saturating_sub(now);
        let early = if self.may_spin { self.late + MARGIN } else { 0 };
        if left <= early {
            return Duration::ZERO;
        }
        self.alarm = Some(due - early);
        Duration::from_nanos(left - early)
    }

    /// The wait is over, at `now`; whether something has completed, which may have ended it.
    #[inline]
    pub(super) fn on_wake(&mut self, now: u64, by_completion: bool) {
        let Some(alarm) = self.alarm.take() else { return };
        if by_completion || now < alarm {
            return;
        }
        let late = (now - alarm).min(LATE_MAX);
        // Up at once, down slowly: about the latest of the last hundred.
        self.late = if late > self.late { late } else { self.late - (self.late - late) / 64 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_wakes_as_much_earlier_as_waking_is_late() {
        let mut pace = Pace::new(true);
        let mut now = 0;
        for _ in 0..1000 {
            let wait = pace.wait_until(now + 1_000_000, now);
            now += wait.as_nanos() as u64 + 20_000; // this machine is 20 us late
            pace.on_wake(now, false);
        }
        let wait = pace.wait_until(now + 1_000_000, now).as_nanos();
        assert!((970_000..980_000).contains(&wait), "{wait}");
        pace.on_wake(now + 2_000_000, true);
        assert_eq!(pace.wait_until(now + 10_000, now), Duration::ZERO);
        pace.on_wake(now + 5_000_000, false);
        assert_eq!(pace.wait_until(now + 1_000_000, now).as_nanos(), wait, "no sleep, no news");
        pace.on_wake(now + 50_000_000, false);
        let wait = pace.wait_until(now + 1_000_000, now).as_nanos() as u64;
        assert_eq!(wait, 1_000_000 - LATE_MAX - MARGIN, "what was stolen is bounded");
    }

    #[test]
    fn without_a_core_of_its_own_it_sleeps_all_the_time() {
        let mut pace = Pace::new(false);
        assert_eq!(pace.wait_until(1_000_000, 0).as_nanos(), 1_000_000);
        assert_eq!(pace.wait_until(1_000, 2_000), Duration::ZERO);
    }
}
