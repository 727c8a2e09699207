//! Accepting: from every listener, until there are enough connections or no descriptors. What
//! isn't accepted waits in the kernel's queue. Knows no connection.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use uring_ring::{Errno, Op, OpId, Ring};

use super::Tag;

/// Pause after the kernel had no descriptor or memory for a connection. Long enough not to be a
/// busy loop, short against the patience of a client.
const RETRY: Duration = Duration::from_millis(50);

/// A multishot accept empties the whole queue before anyone counts. With less room than this,
/// connections are accepted one by one. As the usual `backlog`.
const ROOM_FOR_A_BURST: usize = 1024;

/// A worker's listeners.
pub(super) struct Acceptor {
    listeners: Vec<Listener>,
    connections_max: usize,
    /// Nothing is armed before.
    retry_at: Option<Instant>,
    /// The last accept failed: that was said once.
    is_starved: bool,
    stopped: bool,
}

struct Listener {
    socket: OwnedFd,
    accept: Accept,
}

#[derive(Clone, Copy)]
enum Accept {
    Off,
    Armed(OpId),
    /// Asked to end; it may still deliver.
    Ending,
}

impl Acceptor {
    pub(super) fn new(sockets: Vec<OwnedFd>, connections_max: usize) -> Acceptor {
        let listener = |socket| Listener { socket, accept: Accept::Off };
        Acceptor {
            listeners: sockets.into_iter().map(listener).collect(),
            connections_max,
            retry_at: None,
            is_starved: false,
            stopped: false,
        }
    }

    /// Arms or ends what the number of connections allows or forbids.
    pub(super) fn arm(&mut self, ring: &mut Ring<Tag>, connections: usize) {
        let wanted = !self.stopped && self.retry_at.is_none() && !self.is_full(connections);
        let room = self.connections_max.saturating_sub(connections);
        let multishot = room > ROOM_FOR_A_BURST;
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            match (listener.accept, wanted) {
                (Accept::Off, true) => {
                    let op = Op::Accept { fd: listener.socket.as_raw_fd(), multishot };
                    listener.accept =
                        Accept::Armed(ring.push(op, Tag::Accept { listener: number }));
                }
                (Accept::Armed(target), false) => {
                    ring.push(Op::Cancel { target }, Tag::Cancel);
                    listener.accept = Accept::Ending;
                }
                _ => {}
            }
        }
    }

    /// Whether nothing is armed, so that no connection can still come.
    pub(super) fn is_off(&self) -> bool {
        self.listeners.iter().all(|listener| matches!(listener.accept, Accept::Off))
    }

    /// Whether more connections have to wait.
    pub(super) fn is_full(&self, connections: usize) -> bool {
        connections >= self.connections_max
    }

    /// An accept completed; `more` will.
    pub(super) fn on_accepted(
        &mut self,
        listener: usize,
        result: &Result<OwnedFd, Errno>,
        more: bool,
        now: Instant,
    ) {
        if !more {
            self.listeners[listener].accept = Accept::Off;
        }
        match result {
            Ok(_) => self.is_starved = false,
            Err(Errno::CANCELED) => {}
            // The client was gone before it was accepted.
            Err(errno) if errno.raw() == nix::libc::ECONNABORTED => {}
            Err(errno) => {
                let level = if self.is_starved { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "cannot accept a connection: {errno}; trying every {RETRY:?}");
                self.is_starved = true;
                self.retry_at = Some(now + RETRY);
            }
        }
    }

    /// It is `now`: a pause may be over.
    pub(super) fn handle_time(&mut self, now: Instant, ring: &mut Ring<Tag>, connections: usize) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.arm(ring, connections);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.stopped)
    }

    /// Accepts no more.
    pub(super) fn stop(&mut self, ring: &mut Ring<Tag>) {
        self.stopped = true;
        self.arm(ring, 0);
    }
}
