//! Messages on their way to one process: one at a time, since two sends at once may be reordered, and
//! not without bound, since it may not read. Sends nothing itself.

use std::collections::VecDeque;

/// Bytes of messages that wait for somebody to read. Beyond what the kernel holds (some 200 KiB)
/// a process is this far behind only when it hangs.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// What one process is to be told.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    is_sending: bool,
    /// The last message that could wait was refused: that was said once.
    is_overfull: bool,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Booked {
    Waits,
    /// There is no room for it, for the first time since there was.
    RefusedFirst,
    Refused,
}

impl Outbox {
    /// Books a message that must arrive: the pool's own, of which there are few.
    pub(crate) fn push(&mut self, packet: Vec<u8>) {
        self.waiting_bytes += packet.len();
        self.waiting.push_back(packet);
    }

    /// Books a message, if there is room for it.
    pub(crate) fn offer(&mut self, packet: Vec<u8>) -> Booked {
        if self.waiting_bytes + packet.len() <= WAITING_BYTES_MAX {
            self.is_overfull = false;
            self.push(packet);
            Booked::Waits
        } else if std::mem::replace(&mut self.is_overfull, true) {
            Booked::Refused
        } else {
            Booked::RefusedFirst
        }
    }

    /// The next message to send, unless one is being sent.
    pub(crate) fn poll(&mut self) -> Option<Vec<u8>> {
        if self.is_sending {
            return None;
        }
        let packet = self.waiting.pop_front()?;
        self.waiting_bytes -= packet.len();
        self.is_sending = true;
        Some(packet)
    }

    /// Whether there is room for what can wait.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting_bytes < WAITING_BYTES_MAX
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_sending
    }

    /// It went out, or can't.
    pub(crate) fn on_sent(&mut self) {
        self.is_sending = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_one_by_one_in_order() {
        let mut outbox = Outbox::default();
        (1..=3).for_each(|byte| outbox.push(vec![byte]));
        for byte in 1..=3 {
            assert_eq!(outbox.poll(), Some(vec![byte]));
            assert_eq!(outbox.poll(), None, "one at a time");
            outbox.on_sent();
        }
        assert_eq!(outbox.poll(), None);
    }

    #[test]
    fn who_does_not_read_is_told_no_more_than_there_is_room_for_but_what_matters() {
        let mut outbox = Outbox::default();
        let half = || vec![0; WAITING_BYTES_MAX / 2];
        assert_eq!([outbox.offer(half()), outbox.offer(half())], [Booked::Waits; 2]);
        assert_eq!(outbox.offer(vec![1]), Booked::RefusedFirst);
        assert_eq!(outbox.offer(vec![1]), Booked::Refused);
        outbox.push(vec![2]);
        assert!(outbox.poll().is_some());
        assert_eq!(outbox.offer(vec![3]), Booked::Waits, "there is room again");
        for last in [half(), vec![2], vec![3]] {
            outbox.on_sent();
            assert_eq!(outbox.poll(), Some(last));
        }
    }
}
