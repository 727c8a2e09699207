//! When which connection has to be looked at. Knows no connections; the clock is an argument.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::table::ConnId;

/// Alarms, at most one valid a connection: the owner remembers for when it set the last one.
///
/// A deadline that moves into the future (with every request, on a busy connection) costs nothing:
/// the alarm set before goes off, finds that nothing is due, and is set anew.
#[derive(Default)]
pub(super) struct Timers {
    alarms: BinaryHeap<Reverse<(Instant, ConnId)>>,
}

impl Timers {
    /// Makes sure of an alarm no later than `deadline`; `alarm` is the connection's last one.
    pub(super) fn set(&mut self, id: ConnId, deadline: Instant, alarm: &mut Option<Instant>) {
        if alarm.is_none_or(|alarm| deadline < alarm) {
            *alarm = Some(deadline);
            self.alarms.push(Reverse((deadline, id)));
        }
    }

    /// The next alarm that is due. The owner drops those that it replaced meanwhile.
    pub(super) fn poll_due(&mut self, now: Instant) -> Option<(Instant, ConnId)> {
        self.alarms.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.alarms.pop().map(|Reverse(alarm)| alarm)
    }

    /// The time of the next alarm that `is_valid`. Others are forgotten: nobody wakes up for them.
    pub(super) fn next(&mut self, is_valid: impl Fn(Instant, ConnId) -> bool) -> Option<Instant> {
        while let Some(&Reverse((at, id))) = self.alarms.peek() {
            if is_valid(at, id) {
                return Some(at);
            }
            self.alarms.pop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deadline_that_moves_away_sets_no_second_alarm() {
        let (start, mut timers, mut alarm) = (Instant::now(), Timers::default(), None);
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
