//! What a worker gets from the master beside messages, and gives back to it: connections and
//! listeners. Knows no HTTP, and not what becomes of them.

use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::unistd;
use uring_ring::{Arrival, Errno, Op, Ring};

use super::Tag;
use crate::process::parcel::{DESCRIPTORS_MAX, Origin, Parcel};

/// A worker's end of the line that descriptors travel on.
pub(super) struct Passing {
    socket: OwnedFd,
    /// Wakes the master.
    bell: OwnedFd,
    /// Connections for somebody else.
    outbox: Vec<OwnedFd>,
    is_sending: bool,
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
        Passing { socket, bell, outbox: Vec::new(), is_sending: false }
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

    /// Sends what waits, as much as fits into a message, unless one is on its way.
    pub(super) fn flush(&mut self, ring: &mut Ring<Tag>) {
        if self.is_sending || self.outbox.is_empty() {
            return;
        }
        let rest = self.outbox.split_off(self.outbox.len().min(DESCRIPTORS_MAX));
        let fds = mem::replace(&mut self.outbox, rest);
        let origins = vec![Origin::HandedOver; fds.len()];
        let payload = Parcel::Connections { first: 0, origins }.encode();
        let op = Op::SendFds { fd: self.socket.as_raw_fd(), payload, fds, wait: true };
        ring.push(op, Tag::HandedOver);
        self.is_sending = true;
    }

    /// A message went out, or didn't: then its connections end here.
    pub(super) fn on_sent(&mut self, count: usize, result: Result<(), Errno>) {
        self.is_sending = false;
        if let Err(errno) = result {
            log::warn!("closing {count} idle connections, which nobody takes over: {errno}");
        }
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
