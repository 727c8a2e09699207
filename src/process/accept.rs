//! Accepting: from every listener, until there are enough connections or no descriptors. What
//! isn't accepted waits in the kernel's queue. Knows no connection, and not who accepts.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use uring_ring::{Errno, Op, OpId, Ring};

/// Pause after the kernel had no descriptor or memory for a connection. Long enough not to be a
/// busy loop, short against the patience of a client.
const RETRY: Duration = Duration::from_millis(50);

/// A multishot accept empties the whole queue before anyone counts. With less room than this,
/// connections are accepted one by one. As the usual `backlog`.
const ROOM_FOR_A_BURST: usize = 1024;

/// What accepts from a process's listeners, on a ring with tags of type `T`.
pub(crate) struct Acceptor<T> {
    listeners: Vec<Listener>,
    /// The tag of what is accepted from a listener, by its number.
    tag: fn(usize) -> T,
    /// The tag of cancellations, which nobody needs to hear of.
    cancel_tag: T,
    connections_max: usize,
    /// Nothing is armed before.
    retry_at: Option<Instant>,
    /// The last accept failed: that was said once.
    is_starved: bool,
    /// Something is off that would be armed if there were fewer connections.
    waits_for_room: bool,
    stopped: bool,
}

struct Listener {
    /// Gone once it has another owner again.
    socket: Option<OwnedFd>,
    accept: Accept,
    /// Lent by somebody who can't serve it now.
    is_adopted: bool,
    /// To be let go of.
    is_unwanted: bool,
}

#[derive(Clone, Copy)]
enum Accept {
    Off,
    Armed(OpId),
    /// Asked to end; it may still deliver.
    Ending,
}

impl<T: Copy> Acceptor<T> {
    pub(crate) fn new(
        sockets: Vec<OwnedFd>,
        connections_max: usize,
        tag: fn(usize) -> T,
        cancel_tag: T,
    ) -> Acceptor<T> {
        Acceptor {
            listeners: sockets.into_iter().map(|socket| Listener::new(socket, false)).collect(),
            tag,
            cancel_tag,
            connections_max,
            retry_at: None,
            is_starved: false,
            waits_for_room: false,
            stopped: false,
        }
    }

    /// Arms or ends what the number of connections allows or forbids.
    pub(crate) fn arm(&mut self, ring: &mut Ring<T>, connections: usize) {
        let may_accept = !self.stopped && self.retry_at.is_none() && !self.is_full(connections);
        self.waits_for_room = self.is_full(connections);
        let room = self.connections_max.saturating_sub(connections);
        let multishot = room > ROOM_FOR_A_BURST;
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            let Some(socket) = &listener.socket else { continue };
            match (listener.accept, may_accept && !listener.is_unwanted) {
                (Accept::Off, true) => {
                    let op = Op::Accept { fd: socket.as_raw_fd(), multishot };
                    listener.accept = Accept::Armed(ring.push(op, (self.tag)(number)));
                }
                (Accept::Off, false) if listener.is_unwanted => listener.socket = None,
                (Accept::Armed(target), false) => {
                    ring.push(Op::Cancel { target }, self.cancel_tag);
                    listener.accept = Accept::Ending;
                }
                _ => {}
            }
        }
    }

    /// There are fewer connections than before.
    pub(crate) fn handle_room(&mut self, ring: &mut Ring<T>, connections: usize) {
        if self.waits_for_room && !self.is_full(connections) {
            self.arm(ring, connections);
        }
    }

    /// Looks at every listener anew: what came while several accepted from it may be waiting there
    /// without anybody having been told.
    pub(crate) fn arm_anew(&mut self, ring: &mut Ring<T>, connections: usize) {
        for listener in &mut self.listeners {
            if let Accept::Armed(target) = listener.accept {
                ring.push(Op::Cancel { target }, self.cancel_tag);
                listener.accept = Accept::Ending; // armed again when it has ended
            }
        }
        self.arm(ring, connections);
    }

    /// Accepts from these as well, until [`give_back`](Acceptor::give_back).
    pub(crate) fn adopt(&mut self, sockets: Vec<OwnedFd>, ring: &mut Ring<T>, connections: usize) {
        self.listeners.extend(sockets.into_iter().map(|socket| Listener::new(socket, true)));
        self.arm(ring, connections);
    }

    /// Accepts from these, and lets go of all others. What is among both is armed twice for a
    /// moment: once [`has_given_back`](Acceptor::has_given_back), look [anew](Acceptor::arm_anew).
    pub(crate) fn replace(
        &mut self,
        sockets: Vec<OwnedFd>,
        ring: &mut Ring<T>,
        connections: usize,
    ) {
        self.listeners.iter_mut().for_each(|listener| listener.is_unwanted = true);
        self.listeners.extend(sockets.into_iter().map(|socket| Listener::new(socket, false)));
        self.arm(ring, connections);
    }

    /// Lets go of all that were adopted.
    pub(crate) fn give_back(&mut self, ring: &mut Ring<T>, connections: usize) {
        for listener in &mut self.listeners {
            listener.is_unwanted |= listener.is_adopted;
        }
        self.arm(ring, connections);
    }

    /// Whether nothing of what was adopted is left.
    pub(crate) fn has_given_back(&self) -> bool {
        !self.listeners.iter().any(|listener| listener.is_unwanted && listener.socket.is_some())
    }

    /// Whether nothing is armed, so that no connection can still come.
    pub(crate) fn is_off(&self) -> bool {
        self.listeners.iter().all(|listener| matches!(listener.accept, Accept::Off))
    }

    /// Whether more connections have to wait.
    pub(crate) fn is_full(&self, connections: usize) -> bool {
        connections >= self.connections_max
    }

    /// An accept completed; `more` will.
    pub(crate) fn on_accepted(
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
    pub(crate) fn handle_time(&mut self, now: Instant, ring: &mut Ring<T>, connections: usize) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.arm(ring, connections);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.stopped)
    }

    /// Accepts no more.
    pub(crate) fn stop(&mut self, ring: &mut Ring<T>) {
        self.stopped = true;
        self.arm(ring, 0);
    }

    /// Accepts again, once it is armed.
    pub(crate) fn resume(&mut self) {
        self.stopped = false;
    }
}

impl Listener {
    fn new(socket: OwnedFd, is_adopted: bool) -> Listener {
        Listener { socket: Some(socket), accept: Accept::Off, is_adopted, is_unwanted: false }
    }
}
