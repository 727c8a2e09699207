//! When a worker has had its share and wants a successor. Decides; tells nobody.

use std::time::{Duration, Instant};

use crate::config;
use crate::process::channel::RecycleReason;

/// A worker's own limits.
pub(super) struct Recycle {
    requests: Option<u64>,
    at: Option<Instant>,
    memory_bytes: Option<u64>,
    is_due: bool,
}

impl Recycle {
    /// The limits of a worker that begins `now`. `seed`, its process id for example, makes them
    /// differ from the others' by up to a tenth.
    pub(super) fn new(config: config::Recycle, seed: u32, now: Instant) -> Recycle {
        const SHARES: u64 = 1 << 16;
        let mixed = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48; // below SHARES
        let share = |whole: u64| {
            let off = u128::from(whole / 10) * u128::from(mixed) / u128::from(SHARES);
            whole - off as u64 // at most a tenth
        };
        let millis = |time: Duration| Duration::from_millis(share(time.as_millis() as u64));
        Recycle {
            requests: config.requests.map(share),
            at: config.lifetime.map(|lifetime| now + millis(lifetime)),
            memory_bytes: config.memory_bytes,
            is_due: false,
        }
    }

    /// Whether a limit is reached for the first time. `requests` are those that the worker has
    /// served so far, `memory_bytes` what it occupied when last looked at.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        requests: u64,
        memory_bytes: u64,
    ) -> Option<RecycleReason> {
        if self.is_due {
            return None;
        }
        let reason = if self.requests.is_some_and(|max| requests >= max) {
            RecycleReason::Requests
        } else if self.at.is_some_and(|at| at <= now) {
            RecycleReason::Lifetime
        } else if self.memory_bytes.is_some_and(|max| memory_bytes >= max) {
            RecycleReason::Memory
        } else {
            return None;
        };
        self.is_due = true;
        Some(reason)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.at.filter(|_| !self.is_due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_told_once_and_workers_differ() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        let limits = config::Recycle {
            requests: Some(1000),
            lifetime: Some(hour),
            memory_bytes: Some(1 << 20),
        };
        let due_at = |seed| {
            let mut recycle = Recycle::new(limits, seed, now);
            let due = (0..=1000).find(|count| recycle.poll(now, *count, 0).is_some()).unwrap();
            assert_eq!(recycle.poll(now + hour, 1000, 1 << 30), None, "told already");
            assert_eq!(recycle.poll_timeout(), None);
            due
        };
        let due: Vec<u64> = (1..50).map(due_at).collect();
        assert!(due.iter().all(|count| (900..=1000).contains(count)), "{due:?}");
        assert!(due.iter().max().unwrap() - due.iter().min().unwrap() > 50, "{due:?}");
        let mut recycle = Recycle::new(limits, 7, now);
        let at = recycle.poll_timeout().unwrap();
        assert!((now + hour * 9 / 10..=now + hour).contains(&at));
        assert_eq!(recycle.poll(at, 0, 0), Some(RecycleReason::Lifetime));
        let mut recycle = Recycle::new(limits, 7, now);
        assert_eq!(recycle.poll(now, 0, 1 << 20), Some(RecycleReason::Memory));
    }

    #[test]
    fn without_limits_a_worker_serves_for_good() {
        let now = Instant::now();
        let mut recycle = Recycle::new(config::Recycle::default(), 1, now);
        let year = Duration::from_secs(86_400 * 365);
        assert_eq!(recycle.poll(now + year, u64::MAX, u64::MAX), None);
        assert_eq!(recycle.poll_timeout(), None);
    }
}
