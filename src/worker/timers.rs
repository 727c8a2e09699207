//! When which connection has to be looked at. Knows no connections; the clock is an argument.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::table::ConnId;

/// Alarms, at most one valid a connection: the owner remembers for when it set the last one.
///
/// A deadline that moves into the future (with every request, on a busy connection) costs nothing:
/// the alarm set before goes off, finds that nothing is due, and is set anew.
pub(super) struct Timers {
    /// Each with its time in nanoseconds since `start`: half as long as an `Instant`, of which every
    /// idle connection has one here.
    alarms: BinaryHeap<Reverse<(u64, ConnId)>>,
    start: Instant,
}

impl Timers {
    /// Without alarms. None is set for a time before `start`.
    pub(super) fn new(start: Instant) -> Timers {
        Timers { alarms: BinaryHeap::new(), start }
    }

    /// Makes sure of an alarm no later than `deadline`; `alarm` is the connection's last one.
    #[inline]
    pub(super) fn set(&mut self, id: ConnId, deadline: Instant, alarm: &mut Option<Instant>) {
        if alarm.is_none_or(|alarm| deadline < alarm) {
            *alarm = Some(deadline);
            self.alarms.push(Reverse((self.nanos(deadline), id)));
        }
    }

    /// The next alarm that is due. The owner drops those that it replaced meanwhile.
    pub(super) fn poll_due(&mut self, now: Instant) -> Option<(Instant, ConnId)> {
        let now = self.nanos(now);
        self.alarms.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.alarms.pop().map(|Reverse((at, id))| (self.instant(at), id))
    }

    /// The time of the next alarm that `is_valid`. Others are forgotten: nobody wakes up for them.
    pub(super) fn next(&mut self, is_valid: impl Fn(Instant, ConnId) -> bool) -> Option<Instant> {
        while let Some(&Reverse((at, id))) = self.alarms.peek() {
            let at = self.instant(at);
            if is_valid(at, id) {
                return Some(at);
            }
            self.alarms.pop();
        }
        None
    }

    fn nanos(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_nanos() as u64 // enough for 584 years
    }

    fn instant(&self, nanos: u64) -> Instant {
        self.start + Duration::from_nanos(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_moves_away_sets_no_second_alarm() {
        let start = Instant::now();
        let (mut timers, mut alarm) = (Timers::new(start), None);
        let id = ConnId::from_bits(1);
        let at = |seconds| start + Duration::from_secs(seconds);
        timers.set(id, at(10), &mut alarm);
        timers.set(id, at(20), &mut alarm);
        assert_eq!(timers.alarms.len(), 1);
        timers.set(id, at(5), &mut alarm);
        assert_eq!(alarm, Some(at(5)));
        assert_eq!(timers.poll_due(at(4)), None);
        assert_eq!(timers.poll_due(at(5)), Some((at(5), id)));
        assert_eq!(timers.next(|_, _| false), None);
        assert!(timers.alarms.is_empty());
    }
}
