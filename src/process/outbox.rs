//! Messages on their way over a channel: in order, one send at a time, and not without bound.
//! Knows nothing of what they say.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::RawFd;

use uring_ring::{Op, Ring};

/// Messages of an embedder's that wait for somebody who doesn't read: many more than anybody sends
/// in a turn, and little memory at their usual size.
const WAITING_MAX: usize = 1024;

/// The sending half of a process's end of a channel. Two sends at once on one socket may be
/// reordered, so that the next one begins when the last one is complete.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Vec<u8>>,
    is_sending: bool,
    is_refusing: bool,
}

/// A message that doesn't wait, since too many do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    /// The one before it was not refused.
    pub(crate) is_first: bool,
}

impl Outbox {
    /// Takes a message that must not get lost.
    pub(crate) fn push(&mut self, packet: Vec<u8>) {
        self.waiting.push_back(packet);
    }

    /// Takes a message, unless too many wait.
    ///
    /// # Errors
    ///
    /// They do: the peer doesn't read.
    pub(crate) fn try_push(&mut self, packet: Vec<u8>) -> Result<(), Refused> {
        if self.has_room() {
            self.is_refusing = false;
            self.waiting.push_back(packet);
            return Ok(());
        }
        Err(Refused { is_first: !mem::replace(&mut self.is_refusing, true) })
    }

    /// Whether [`try_push`](Outbox::try_push) would take a message.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_sending
    }

    /// Sends the next message, unless one is being sent. `on_sent` is to be called when `tag` is
    /// complete.
    pub(crate) fn flush<T: Copy>(&mut self, fd: RawFd, tag: T, ring: &mut Ring<T>) {
        if self.is_sending {
            return;
        }
        if let Some(packet) = self.waiting.pop_front() {
            self.is_sending = true;
            ring.push(Op::Send { fd, buffer: packet.into() }, tag);
        }
    }

    /// A message went out, or never will: the peer is gone.
    pub(crate) fn on_sent(&mut self) {
        self.is_sending = false;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::unistd;
    use uring_ring::{Features, Mask, Setup};

    use super::*;
    use crate::process::channel;

    #[test]
    fn a_peer_that_reads_late_reads_everything_in_order() {
        let features = Features::probe(Mask::NONE).unwrap();
        let mut ring = Ring::new(Setup { entries: 8, restricted: true, features }).unwrap();
        ring.enable().unwrap();
        let (near, far) = channel::pair().unwrap();
        let packet = |number: u32| [&number.to_ne_bytes()[..], &[0; 4096]].concat();
        let mut outbox = Outbox::default();
        const COUNT: u32 = 500; // more than the socket takes
        for number in 0..COUNT {
            outbox.push(packet(number));
            outbox.flush(near.as_raw_fd(), (), &mut ring);
        }
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            (0..COUNT).all(|number| {
                let count = unistd::read(&far, &mut buffer).unwrap();
                buffer[..count] == packet(number)
            })
        });
        while !outbox.is_idle() {
            ring.turn(None).unwrap();
            while ring.poll_completion().is_some() {
                outbox.on_sent();
                outbox.flush(near.as_raw_fd(), (), &mut ring);
            }
        }
        assert!(reader.join().unwrap());
    }

    #[test]
    fn a_peer_that_reads_nothing_is_refused_what_can_wait_and_told_what_cannot() {
        let mut outbox = Outbox::default();
        for _ in 0..WAITING_MAX {
            assert_eq!(outbox.try_push(vec![1]), Ok(()));
        }
        assert_eq!(outbox.try_push(vec![2]), Err(Refused { is_first: true }));
        assert_eq!(outbox.try_push(vec![2]), Err(Refused { is_first: false }));
        outbox.push(vec![3]);
        assert_eq!(outbox.waiting.len(), WAITING_MAX + 1);
        outbox.waiting.clear();
        assert!(outbox.is_idle());
        assert_eq!(outbox.try_push(vec![4]), Ok(()));
    }
}
