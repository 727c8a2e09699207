//! A worker's begin and end: ready, draining, over. Talks to the master; knows no connection.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use uring_ring::{Errno, Op, Ring};

use super::Tag;
use crate::process::channel::{self, Message};
use crate::process::signals;

/// How long a worker drains when nobody says how long: after a signal that it got itself, or when
/// the master is gone. As the default of `stop_timeout`.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// What a worker is told, and what it does about it.
pub(super) struct Lifecycle {
    channel: OwnedFd,
    signals: OwnedFd,
    /// When it ends, drained or not. Set once it drains.
    deadline: Option<Instant>,
    /// What broke the worker's ears, if anything did.
    failure: Option<Errno>,
}

impl Lifecycle {
    pub(super) fn new(channel: OwnedFd, signals: OwnedFd) -> Lifecycle {
        Lifecycle { channel, signals, deadline: None, failure: None }
    }

    /// Listens, and reports: what was pushed before is armed when the master reads the report.
    pub(super) fn begin(&self, report: &Message, ring: &mut Ring<Tag>) {
        self.listen(Tag::Channel, ring);
        self.listen(Tag::Signal, ring);
        let packet = channel::encode(report).expect("a report is short");
        ring.push(Op::Send { fd: self.channel.as_raw_fd(), buffer: packet.into() }, Tag::Report);
    }

    fn listen(&self, tag: Tag, ring: &mut Ring<Tag>) {
        let (fd, buffer) = match tag {
            Tag::Channel => (&self.channel, channel::read_buffer()),
            Tag::Signal => (&self.signals, signals::read_buffer()),
            _ => unreachable!("nothing else is listened to"),
        };
        ring.push(Op::Read { fd: fd.as_raw_fd(), buffer }, tag);
    }

    /// Something was read. Returns whether to begin to drain.
    pub(super) fn on_read(
        &mut self,
        tag: Tag,
        packet: &[u8],
        result: Result<usize, Errno>,
        ring: &mut Ring<Tag>,
        now: Instant,
    ) -> bool {
        let drain_for = match (tag, result) {
            (Tag::Channel, Ok(0) | Err(_)) => {
                log::warn!("the master is gone: finishing what is open");
                return self.begin_drain(now + DRAIN_MAX);
            }
            (Tag::Channel, Ok(_)) => match channel::decode(packet) {
                Ok(Message::Shutdown { deadline_ms }) => Some(Duration::from_millis(deadline_ms)),
                Ok(other) => {
                    log::warn!("not for a worker: {other:?}");
                    None
                }
                Err(error) => {
                    log::warn!("a message of the master's can't be read: {error}");
                    None
                }
            },
            (_, Err(errno)) => {
                self.on_failure(errno);
                return false;
            }
            (_, Ok(_)) => {
                // The whole process group got the signal, it seems. How much time there is, the
                // master will say.
                let is_signal = signals::decode(packet).next().is_some();
                (is_signal && self.deadline.is_none()).then_some(DRAIN_MAX)
            }
        };
        self.listen(tag, ring);
        drain_for.is_some_and(|time| self.begin_drain(now + time))
    }

    /// Whether it is news. The last word about the deadline counts.
    fn begin_drain(&mut self, deadline: Instant) -> bool {
        self.deadline.replace(deadline).is_none()
    }

    /// Something that the worker must hear can't be read.
    pub(super) fn on_failure(&mut self, errno: Errno) {
        self.failure = Some(errno);
    }

    /// Why the worker can't go on: it would hear nothing any more.
    pub(super) fn failure(&self) -> Option<Errno> {
        self.failure
    }

    pub(super) fn is_draining(&self) -> bool {
        self.deadline.is_some()
    }

    /// Whether there is nothing left to do, or no time.
    pub(super) fn is_over(&self, now: Instant, is_idle: bool) -> bool {
        self.deadline.is_some_and(|deadline| is_idle || deadline <= now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }
}
