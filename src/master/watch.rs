//! Which worker hangs. Looks at the workers every now and then while any of them works, and not at
//! all while they idle: the first one to work again rings. Reads no clock and kills nobody.

use std::time::{Duration, Instant};

use super::children::Life;

/// Looks within the time after which a worker hangs. A turn that one of them finds unfinished is
/// looked at again exactly when it has lasted too long.
const LOOKS: u32 = 4;

/// The master's eye on its workers.
pub(super) struct Watch {
    timeout: Duration,
    next_look: Option<Instant>,
    /// The last look found nobody at work.
    was_quiet: bool,
    /// Workers that somebody has stopped (SIGSTOP), and since when.
    stopped: Vec<(Life, Instant)>,
}

/// Why a worker's loop doesn't turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hang {
    /// A turn of it doesn't end.
    Busy,
    /// Somebody has stopped the process (SIGSTOP).
    Stopped,
}

/// What one look says.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// Who hangs, how, and for how long.
    pub(super) hanging: Vec<(Life, Hang, Duration)>,
    /// Nobody worked: whoever begins to shall ring.
    pub(super) is_quiet: bool,
}

impl Watch {
    pub(super) fn new(timeout: Duration, now: Instant) -> Watch {
        let mut watch = Watch { timeout, next_look: None, was_quiet: false, stopped: Vec::new() };
        watch.handle_work(now);
        watch
    }

    pub(super) fn set_timeout(&mut self, timeout: Duration, now: Instant) {
        self.timeout = timeout;
        self.next_look = None;
        self.handle_work(now);
    }

    /// A worker has begun to work.
    pub(super) fn handle_work(&mut self, now: Instant) {
        self.was_quiet = false;
        self.next_look.get_or_insert(now + self.timeout / LOOKS);
    }

    /// These workers are stopped now, and no others.
    pub(super) fn handle_stopped(&mut self, lives: &[Life], now: Instant) {
        self.stopped.retain(|(life, _)| lives.contains(life));
        for life in lives {
            if !self.stopped.iter().any(|(known, _)| known == life) {
                self.stopped.push((*life, now));
            }
        }
        if !self.stopped.is_empty() {
            self.handle_work(now);
        }
    }

    /// Whether somebody has stopped it.
    pub(super) fn is_stopped(&self, life: Life) -> bool {
        self.stopped.iter().any(|(stopped, _)| *stopped == life)
    }

    /// Looks, if it is time to. `busy` says how long a worker's turn has lasted so far.
    pub(super) fn poll_look(
        &mut self,
        now: Instant,
        busy: impl Iterator<Item = (Life, Option<Duration>)>,
    ) -> Option<Look> {
        let planned = self.next_look.filter(|at| *at <= now)?;
        // Who looks late was kept from it, and the workers maybe by the same: a container that was
        // paused, a machine that slept. They get the time of another look.
        let is_late = now.saturating_duration_since(planned) > self.timeout / LOOKS;
        let stopped_for = |life: Life| {
            let since = self.stopped.iter().find(|(stopped, _)| *stopped == life)?.1;
            Some(now.saturating_duration_since(since))
        };
        let mut hanging = Vec::new();
        let mut longest = None;
        for (life, busy_for) in busy {
            let (hang, lasting) = match (busy_for, stopped_for(life)) {
                (_, Some(lasting)) => (Hang::Stopped, lasting),
                (Some(lasting), None) => (Hang::Busy, lasting),
                (None, None) => continue,
            };
            longest = longest.max(Some(lasting));
            if lasting >= self.timeout && !is_late {
                hanging.push((life, hang, lasting));
            }
        }
        let is_quiet = longest.is_none();
        let left = self.timeout.saturating_sub(longest.unwrap_or_default());
        let pause = if left.is_zero() { self.timeout } else { left }.min(self.timeout / LOOKS);
        let pause = if is_late { self.timeout / LOOKS } else { pause };
        // A worker that began between our look and our asking to be rung is seen by the second.
        let may_sleep = is_quiet && std::mem::replace(&mut self.was_quiet, is_quiet);
        self.next_look = (!may_sleep).then(|| now + pause);
        Some(Look { hanging, is_quiet })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life { worker: 0, number: 1 };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_pool_that_idles_is_not_looked_at() {
        let now = Instant::now();
        let mut watch = Watch::new(secs(4), now);
        let idle = || [(LIFE, None)].into_iter();
        assert_eq!(watch.poll_look(now, idle()), None, "it isn't time yet");
        for second in 1..=2 {
            let look = watch.poll_look(now + secs(second), idle()).unwrap();
            assert_eq!(look, Look { hanging: vec![], is_quiet: true });
        }
        assert_eq!(watch.poll_timeout(), None);
        watch.handle_work(now + secs(100));
        assert_eq!(watch.poll_timeout(), Some(now + secs(101)));
    }

    #[test]
    fn a_turn_that_lasts_too_long_is_told_and_a_short_one_is_not() {
        let now = Instant::now();
        let mut watch = Watch::new(secs(4), now);
        let almost = Duration::from_millis(3500);
        let look = watch.poll_look(now + secs(1), [(LIFE, Some(almost))].into_iter()).unwrap();
        assert_eq!(look, Look { hanging: vec![], is_quiet: false });
        assert_eq!(watch.poll_timeout(), Some(now + Duration::from_millis(1500)), "in time");
        let look = watch.poll_look(now + secs(2), [(LIFE, Some(secs(4)))].into_iter()).unwrap();
        assert_eq!(look.hanging, [(LIFE, Hang::Busy, secs(4))]);
        assert_eq!(watch.poll_timeout(), Some(now + secs(3)), "it goes on looking");
    }

    #[test]
    fn who_looks_late_gives_the_workers_more_time() {
        let now = Instant::now();
        let mut watch = Watch::new(secs(4), now);
        let busy = |seconds| [(LIFE, Some(secs(seconds)))].into_iter();
        let resumed = now + secs(60);
        let look = watch.poll_look(resumed, busy(60)).unwrap();
        assert_eq!(look, Look { hanging: vec![], is_quiet: false });
        assert_eq!(watch.poll_timeout(), Some(resumed + secs(1)));
        let look = watch.poll_look(resumed + secs(1), busy(61)).unwrap();
        assert_eq!(look.hanging, [(LIFE, Hang::Busy, secs(61))], "it goes on hanging");
    }

    #[test]
    fn a_stopped_worker_hangs_although_it_does_nothing() {
        let now = Instant::now();
        let mut watch = Watch::new(secs(4), now);
        let idle = || [(LIFE, None)].into_iter();
        watch.poll_look(now + secs(1), idle());
        watch.poll_look(now + secs(2), idle());
        watch.handle_stopped(&[LIFE], now + secs(10));
        let mut hanging = Vec::new();
        while hanging.is_empty() {
            hanging = watch.poll_look(watch.poll_timeout().unwrap(), idle()).unwrap().hanging;
        }
        assert_eq!(hanging, [(LIFE, Hang::Stopped, secs(4))]);
        watch.handle_stopped(&[], now + secs(20));
        let look = watch.poll_look(watch.poll_timeout().unwrap(), idle()).unwrap();
        assert!(look.hanging.is_empty(), "it goes on");
    }
}
