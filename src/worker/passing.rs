//! What a worker gets from the master beside messages, and gives back to it: connections and
//! listeners. Knows no HTTP, and not what becomes of them.

use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::unistd;
use uring_ring::{Arrival, Errno, Op, Ring};

use super::Tag;
use crate::process::parcel::{DESCRIPTORS_MAX, HANDED_OVER_MAX, Origin, Parcel};

/// Pause after the kernel had too many descriptors under way for this user: the time in which a
/// master that isn't busy receives them.
const RETRY: Duration = Duration::from_millis(5);

/// A worker's end of the line that descriptors travel on.
pub(super) struct Passing {
    socket: OwnedFd,
    /// Wakes the master.
    bell: OwnedFd,
    /// Connections for somebody else.
    outbox: Vec<OwnedFd>,
    is_sending: bool,
    /// Nothing is sent before.
    retry_at: Option<Instant>,
}

/// What arrived.
pub(super) enum Delivery {
    /// The first number, the connections, and how many more there should have been.
    Connections {
        first: u64,
        connections: Vec<(OwnedFd, Origin)>,
        missing: usize,
    },
    Listeners(Vec<OwnedFd>),
    /// Nothing more will.
    End,
}

impl Passing {
    pub(super) fn new(socket: OwnedFd, bell: OwnedFd) -> Passing {
        Passing { socket, bell, outbox: Vec::new(), is_sending: false, retry_at: None }
    }

    pub(super) fn receive(&self, ring: &mut Ring<Tag>) {
        let op = Op::RecvFds {
            fd: self.socket.as_raw_fd(),
            payload: Parcel::read_buffer(),
            fds_max: DESCRIPTORS_MAX,
            wait: true,
        };
        ring.push(op, Tag::Arrived);
    }

    /// What a message brought.
    pub(super) fn on_received(
        payload: &[u8],
        fds: Vec<OwnedFd>,
        result: Result<Arrival, Errno>,
    ) -> Delivery {
        match (result, Parcel::decode(payload)) {
            (Ok(Arrival::Whole | Arrival::Cut { .. }), Some(Parcel::Listeners)) => {
                Delivery::Listeners(fds)
            }
            (
                Ok(Arrival::Whole | Arrival::Cut { .. }),
                Some(Parcel::Connections { first, origins }),
            ) => {
                let missing = origins.len().saturating_sub(fds.len());
                let connections = fds.into_iter().zip(origins).collect();
                Delivery::Connections { first, connections, missing }
            }
            (Ok(Arrival::End) | Err(_), _) => Delivery::End,
            (Ok(_), None) => {
                log::error!("the master passed something unknown"); // of another version, perhaps
                Delivery::End
            }
        }
    }

    /// Gives a connection to whoever serves from now on.
    pub(super) fn hand_over(&mut self, connection: OwnedFd) {
        self.outbox.push(connection);
    }

    /// Sends some of what waits, unless others are on their way.
    pub(super) fn flush(&mut self, now: Instant, ring: &mut Ring<Tag>) {
        let is_paused = self.retry_at.is_some_and(|at| at > now);
        if self.is_sending || self.outbox.is_empty() || is_paused {
            return;
        }
        self.retry_at = None;
        let rest = self.outbox.split_off(self.outbox.len().min(HANDED_OVER_MAX));
        let fds = mem::replace(&mut self.outbox, rest);
        let origins = vec![Origin::HandedOver; fds.len()];
        let payload = Parcel::Connections { first: 0, origins }.encode();
        let op = Op::SendFds { fd: self.socket.as_raw_fd(), payload, fds, wait: true };
        ring.push(op, Tag::HandedOver);
        self.is_sending = true;
    }

    /// A message went out, or didn't: then its connections wait, or end here when nobody will ever
    /// take them.
    pub(super) fn on_sent(&mut self, fds: Vec<OwnedFd>, result: Result<(), Errno>, now: Instant) {
        self.is_sending = false;
        match result {
            Ok(()) => {}
            Err(errno) if errno.raw() == nix::libc::ETOOMANYREFS => {
                self.outbox.splice(0..0, fds);
                self.retry_at = Some(now + RETRY);
            }
            Err(errno) => {
                let count = fds.len();
                log::warn!("closing {count} idle connections, which nobody takes over: {errno}");
            }
        }
    }

    /// When to [`flush`](Passing::flush) without an event.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Connections that wait to be handed over.
    pub(super) fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Whether nothing waits or is on its way.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_sending && self.outbox.is_empty()
    }

    /// Wakes the master. Not through the ring, which would do so at the end of the turn: there may be
    /// no end to it.
    pub(super) fn ring_bell(&self) {
        // Fails only when it has rung 2^64 - 1 times unheard.
        let _ = unistd::write(&self.bell, &1_u64.to_ne_bytes());
    }
}
