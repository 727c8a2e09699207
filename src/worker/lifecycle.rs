//! A worker's begin and end: ready, draining, over. Talks to the master; knows no connection.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use uring_ring::{Errno, Op, Ring};

use super::Tag;
use crate::conn::Draining;
use crate::process::channel::{Limit, Message, RecycleReason};
use crate::process::outbox::Outbox;
use crate::process::signals;

/// What idles is handed over even when what is open is given no time: two turns, on a busy machine.
const HAND_OVER_MIN: Duration = Duration::from_millis(200);

/// What a worker is told, and what it does about it.
pub(super) struct Lifecycle {
    channel: OwnedFd,
    signals: OwnedFd,
    limit: Limit,
    /// How long it drains when nobody says how long, as the master is gone.
    stop_timeout: Duration,
    outbox: Outbox,
    /// When it ends, drained or not. Set once it drains.
    deadline: Option<Instant>,
    draining: Draining,
    /// What broke the worker's ears, if anything did.
    failure: Option<Errno>,
}

/// What to do about something that was read.
#[derive(Debug)]
pub(super) enum Order {
    /// As [`Lifecycle::draining`] says.
    Drain,
    AcceptAlone,
    Listen,
    GiveListenersBack,
    /// For those who wait in the master.
    MakeRoom,
    /// The embedder's own message.
    Deliver(serde_json::Value),
}

impl Lifecycle {
    pub(super) fn new(
        channel: OwnedFd,
        signals: OwnedFd,
        limit: Limit,
        stop_timeout: Duration,
    ) -> Lifecycle {
        let draining = Draining::No;
        Lifecycle {
            channel,
            signals,
            limit,
            stop_timeout,
            outbox: Outbox::default(),
            deadline: None,
            draining,
            failure: None,
        }
    }

    /// Listens, and reports: what was pushed before is armed when the master reads the report.
    pub(super) fn begin(&mut self, report: &Message, ring: &mut Ring<Tag>) {
        self.listen(Tag::Channel, ring);
        self.listen(Tag::Signal, ring);
        self.say(report, ring);
    }

    /// Tells the master something, after what it was told before.
    pub(super) fn say(&mut self, message: &Message, ring: &mut Ring<Tag>) {
        match self.limit.encode(message) {
            Ok(packet) => self.outbox.push(packet),
            Err(error) => log::error!("cannot tell the master {message:?}: {error}"),
        }
        self.flush(ring);
    }

    /// Something that the master was told went out, or never will.
    pub(super) fn on_said(&mut self, ring: &mut Ring<Tag>) {
        self.outbox.on_sent();
        self.flush(ring);
    }

    fn flush(&mut self, ring: &mut Ring<Tag>) {
        if let Some(packet) = self.outbox.poll() {
            let buffer = packet.into();
            ring.push(Op::Send { fd: self.channel.as_raw_fd(), buffer }, Tag::Said);
        }
    }

    /// Whether the master reads what it is told: an embedder's messages wait until it does.
    pub(super) fn may_say_more(&self) -> bool {
        self.outbox.has_room()
    }

    /// Whether all that was said is with the master.
    pub(super) fn has_said_all(&self) -> bool {
        self.outbox.is_idle()
    }

    fn listen(&self, tag: Tag, ring: &mut Ring<Tag>) {
        let (fd, buffer) = match tag {
            Tag::Channel => (&self.channel, self.limit.read_buffer()),
            Tag::Signal => (&self.signals, signals::read_buffer()),
            _ => unreachable!("nothing else is listened to"),
        };
        ring.push(Op::Read { fd: fd.as_raw_fd(), buffer }, tag);
    }

    /// Something was read.
    pub(super) fn on_read(
        &mut self,
        tag: Tag,
        packet: &[u8],
        result: Result<usize, Errno>,
        ring: &mut Ring<Tag>,
        now: Instant,
    ) -> Option<Order> {
        let order = match (tag, result) {
            (Tag::Channel, Ok(0) | Err(_)) => {
                log::warn!("the master is gone: finishing what is open");
                return self.drain(Draining::Closing, self.stop_timeout, now);
            }
            (Tag::Channel, Ok(_)) => self.on_packet(packet, now),
            (_, Err(errno)) => {
                self.on_failure(errno);
                return None;
            }
            (_, Ok(_)) => {
                // Whether this worker alone got the signal, or the whole process group, the master
                // knows: it has a successor take over, or says that all shall end.
                let is_news = self.deadline.is_none() && signals::decode(packet).next().is_some();
                if is_news {
                    self.say(&Message::RecycleDue { reason: RecycleReason::Signal }, ring);
                }
                None
            }
        };
        self.listen(tag, ring);
        order
    }

    fn on_packet(&mut self, packet: &[u8], now: Instant) -> Option<Order> {
        match self.limit.decode(packet) {
            Ok(Message::Shutdown { deadline_ms }) => {
                self.drain(Draining::Closing, Duration::from_millis(deadline_ms), now)
            }
            Ok(Message::Reload { deadline_ms }) => {
                self.drain(Draining::HandingOver, Duration::from_millis(deadline_ms), now)
            }
            Ok(Message::Alone) => Some(Order::AcceptAlone),
            Ok(Message::Listening) => Some(Order::Listen),
            Ok(Message::ListenersBack) => Some(Order::GiveListenersBack),
            Ok(Message::RoomWanted) => Some(Order::MakeRoom),
            Ok(Message::User { payload }) => Some(Order::Deliver(payload)),
            Ok(other) => {
                log::warn!("not for a worker: {other:?}");
                None
            }
            Err(error) => {
                log::warn!("a message of the master's can't be read: {error}");
                None
            }
        }
    }

    /// Whether it is news. The last word about the deadline counts; whoever closes doesn't hand
    /// over again.
    fn drain(&mut self, how: Draining, within: Duration, now: Instant) -> Option<Order> {
        let within = match how {
            Draining::HandingOver => within.max(HAND_OVER_MIN),
            Draining::Closing | Draining::No => within,
        };
        self.deadline = Some(now + within);
        let is_news = self.draining == Draining::No
            || (self.draining, how) == (Draining::HandingOver, Draining::Closing);
        is_news.then(|| {
            self.draining = how;
            Order::Drain
        })
    }

    /// Something that the worker must hear can't be read.
    pub(super) fn on_failure(&mut self, errno: Errno) {
        self.failure = Some(errno);
    }

    /// Why the worker can't go on: it would hear nothing any more.
    pub(super) fn failure(&self) -> Option<Errno> {
        self.failure
    }

    /// Whether and how it leaves.
    pub(super) fn draining(&self) -> Draining {
        self.draining
    }

    /// Whether there is nothing left to do, or no time.
    pub(super) fn is_over(&self, now: Instant, is_idle: bool) -> bool {
        self.deadline.is_some_and(|deadline| is_idle || deadline <= now)
    }

    /// When it ends, drained or not.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }
}
