//! Accepting: from every listener, until there are enough connections or no descriptors. What
//! isn't accepted waits in the kernel's queue. Knows no connection, and not who accepts.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
use nix::sys::stat::fstat;
use uring_ring::{Errno, Op, OpId, Ring};

/// Pause after the kernel had no descriptor or memory for a connection. Long enough not to be a
/// busy loop, short against the patience of a client.
const RETRY: Duration = Duration::from_millis(50);

/// A multishot accept empties the whole queue before anyone counts. With less room than this,
/// connections are accepted one by one. As the usual `backlog`.
const ROOM_FOR_A_BURST: usize = 1024;

/// Looks at a listener that is left, each of which finds somebody: all who waited, but not all who come
/// as fast as they are taken. As the usual `backlog`.
const LOOKS_AT_STOP_MAX: u32 = 1024;

/// Who else may accept from a listener.
///
/// Of several that wait in an accept the kernel wakes but the first, busy or not. So no more than one
/// does, and whoever may not be alone *watches* instead: it is told of each connection, whoever else
/// is, and then takes what is there without waiting. That costs a wake-up of each watcher, and a
/// second turn of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Company {
    /// Only those whose place this process takes, until they have [left](Acceptor::set_alone).
    Leaving,
    /// Every worker of the pool.
    Workers,
    /// The one that lent it, which can't serve it now.
    Owner,
}

/// What accepts from a process's listeners, on a ring with tags of type `T`.
pub(crate) struct Acceptor<T> {
    listeners: Vec<Listener>,
    /// The tag of what is accepted from a listener, by its number.
    tag: fn(usize) -> T,
    /// The tag of cancellations, which nobody needs to hear of.
    cancel_tag: T,
    connections_max: usize,
    /// Whoever had to leave the listeners has left them.
    is_alone: bool,
    /// Nothing is armed before.
    retry_at: Option<Instant>,
    /// The last accept failed: that was said once.
    is_starved: bool,
    stopped: bool,
    /// Not one connection is this process's yet.
    is_held: bool,
}

struct Listener {
    /// Gone once it has another owner again.
    socket: Option<OwnedFd>,
    company: Company,
    /// The accept or, in company, the watch.
    waiting: Armed,
    /// What takes, in company, what is there. Never while there is an accept.
    look: Armed,
    wants_look: bool,
    /// How often it is looked at again, once it is left.
    looks_left: u32,
    /// Whether the socket was seen to listen. Until its owner has it do so, nothing can come.
    listens: bool,
    /// To be let go of, although others aren't.
    is_unwanted: bool,
}

#[derive(Clone, Copy)]
enum Armed {
    Off,
    On {
        id: OpId,
        watches: bool,
    },
    /// Asked to end; it may still deliver.
    Ending,
}

impl<T: Copy> Acceptor<T> {
    pub(crate) fn new(
        sockets: impl IntoIterator<Item = (OwnedFd, Company)>,
        connections_max: usize,
        tag: fn(usize) -> T,
        cancel_tag: T,
    ) -> Acceptor<T> {
        let listeners = sockets.into_iter();
        Acceptor {
            listeners: listeners.map(|(socket, company)| Listener::new(socket, company)).collect(),
            tag,
            cancel_tag,
            connections_max,
            is_alone: false,
            retry_at: None,
            is_starved: false,
            stopped: false,
            is_held: false,
        }
    }

    /// Arms or ends what the number of connections allows or forbids.
    pub(crate) fn arm(&mut self, ring: &mut Ring<T>, connections: usize) {
        let is_off = self.stopped || self.is_held || self.retry_at.is_some();
        let may_accept = !is_off && !self.is_full(connections);
        let room = self.connections_max.saturating_sub(connections);
        let multishot = room > ROOM_FOR_A_BURST;
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            let Some(socket) = &listener.socket else { continue };
            let (fd, tag) = (socket.as_raw_fd(), (self.tag)(number));
            listener.listens = listener.listens || is_listening(socket);
            let is_wanted = may_accept && listener.listens && !listener.is_unwanted;
            let in_company = listener.company != Company::Leaving || !self.is_alone;
            match (listener.waiting, listener.look) {
                (Armed::Off, _) if is_wanted && in_company => {
                    listener.waiting =
                        Armed::On { id: ring.push(Op::Watch { fd }, tag), watches: true };
                }
                (Armed::Off, Armed::Off) if is_wanted => {
                    let id = ring.push(Op::Accept { fd, multishot, wait: true }, tag);
                    listener.waiting = Armed::On { id, watches: false };
                }
                (Armed::On { id, watches }, _) if !is_wanted || watches != in_company => {
                    ring.push(Op::Cancel { target: id }, self.cancel_tag);
                    listener.waiting = Armed::Ending;
                }
                _ => {}
            }
            let is_left = self.stopped || listener.is_unwanted;
            let may_look = if is_left {
                matches!(listener.waiting, Armed::Off)
            } else {
                is_wanted && in_company
            };
            match listener.look {
                Armed::Off if may_look && listener.wants_look => {
                    let id = ring.push(Op::Accept { fd, multishot, wait: false }, tag);
                    listener.look = Armed::On { id, watches: false };
                    listener.wants_look = false;
                }
                // It may have looked before the last one came.
                Armed::On { id, .. } if !is_wanted || listener.wants_look => {
                    ring.push(Op::Cancel { target: id }, self.cancel_tag);
                    listener.look = Armed::Ending;
                }
                // Empty. While somebody held it, the kernel would let others come.
                Armed::Off if is_left && matches!(listener.waiting, Armed::Off) => {
                    listener.socket = None;
                }
                _ => {}
            }
        }
    }

    /// Leaves everybody to whoever else accepts from the same listeners, until it is told to
    /// [`begin`](Acceptor::begin).
    pub(crate) fn hold(&mut self) {
        self.is_held = true;
    }

    /// Accepts from all that listen.
    pub(crate) fn begin(&mut self, ring: &mut Ring<T>, connections: usize) {
        self.is_held = false;
        self.arm(ring, connections);
    }

    /// So many connections from now on, once it is armed again.
    pub(crate) fn set_connections_max(&mut self, connections_max: usize) {
        self.connections_max = connections_max;
    }

    /// Those whose place this process takes have left its listeners.
    pub(crate) fn set_alone(&mut self, ring: &mut Ring<T>, connections: usize) {
        self.is_alone = true;
        self.arm(ring, connections);
    }

    /// Accepts from these as well, until [`give_back`](Acceptor::give_back).
    pub(crate) fn adopt(&mut self, sockets: Vec<OwnedFd>, ring: &mut Ring<T>, connections: usize) {
        sockets.into_iter().for_each(|socket| self.add(socket, Company::Owner));
        self.arm(ring, connections);
    }

    /// Accepts from these, and lets go of all others when they are empty. What is among both stays as
    /// it is.
    pub(crate) fn replace(
        &mut self,
        mut sockets: Vec<OwnedFd>,
        ring: &mut Ring<T>,
        connections: usize,
    ) {
        for listener in &mut self.listeners {
            let Some(socket) = &listener.socket else { continue };
            let same = sockets.iter().position(|other| is_same(socket, other));
            let is_unwanted = same.map(|at| sockets.remove(at)).is_none();
            if is_unwanted && !listener.is_unwanted {
                listener.leave();
            }
            listener.is_unwanted = is_unwanted;
        }
        sockets.into_iter().for_each(|socket| self.add(socket, Company::Leaving));
        self.arm(ring, connections);
    }

    /// Lets go of all that were lent: whoever waits there is their owner's.
    pub(crate) fn give_back(&mut self, ring: &mut Ring<T>, connections: usize) {
        for listener in &mut self.listeners {
            if listener.company == Company::Owner {
                listener.is_unwanted = true;
                (listener.wants_look, listener.looks_left) = (false, 0);
            }
        }
        self.arm(ring, connections);
    }

    /// Accepts what waits at these, after everything else has [stopped](Acceptor::stop).
    pub(crate) fn empty(&mut self, sockets: Vec<OwnedFd>, ring: &mut Ring<T>, connections: usize) {
        for socket in sockets {
            let mut listener = Listener::new(socket, Company::Leaving);
            listener.listens = listener.socket.as_ref().is_some_and(is_listening);
            listener.leave();
            self.put(listener);
        }
        self.arm(ring, connections);
    }

    /// In the place of one that is gone, if there is any.
    fn add(&mut self, socket: OwnedFd, company: Company) {
        self.put(Listener::new(socket, company));
    }

    fn put(&mut self, listener: Listener) {
        match self.listeners.iter_mut().find(|listener| listener.socket.is_none()) {
            Some(free) => *free = listener,
            None => self.listeners.push(listener),
        }
    }

    /// Whether nothing is armed, so that no connection can still come.
    pub(crate) fn is_off(&self) -> bool {
        let is_off = |armed| matches!(armed, Armed::Off);
        self.listeners.iter().all(|listener| is_off(listener.waiting) && is_off(listener.look))
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
        let listener = &mut self.listeners[listener];
        match (listener.look, more) {
            (_, true) => {}
            (Armed::Off, false) => listener.waiting = Armed::Off,
            (Armed::On { .. } | Armed::Ending, false) => {
                listener.look = Armed::Off;
                let is_left = self.stopped || listener.is_unwanted;
                if result.is_ok() && (!is_left || listener.looks_left > 0) {
                    listener.wants_look = true; // there may be more
                    listener.looks_left = listener.looks_left.saturating_sub(1);
                }
            }
        }
        match result {
            Ok(_) => self.is_starved = false,
            // Or somebody else was quicker.
            Err(Errno::CANCELED | Errno::AGAIN) => {}
            // The client was gone before it was accepted.
            Err(errno) if errno.raw() == nix::libc::ECONNABORTED => {}
            Err(errno) => self.pause(*errno, now),
        }
    }

    /// Somebody waits at a listener in company.
    pub(crate) fn on_watched(
        &mut self,
        listener: usize,
        result: Result<(), Errno>,
        more: bool,
        now: Instant,
    ) {
        let listener = &mut self.listeners[listener];
        if !more {
            listener.waiting = Armed::Off;
        }
        match result {
            Ok(()) => listener.wants_look = true,
            Err(Errno::CANCELED) => {}
            Err(errno) => self.pause(errno, now),
        }
    }

    fn pause(&mut self, errno: Errno, now: Instant) {
        let level = if self.is_starved { log::Level::Debug } else { log::Level::Warn };
        log::log!(level, "cannot accept a connection: {errno}; trying every {RETRY:?}");
        self.is_starved = true;
        self.retry_at = Some(now + RETRY);
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

    /// Accepts no more than what is there: as soon as nothing waits at a listener any more, it is looked
    /// at until it is empty, and then let go of. Who came while an accept was cancelled, or one watch
    /// followed another, is still there, and so is everybody behind the first where each accept takes one.
    pub(crate) fn stop(&mut self, ring: &mut Ring<T>, connections: usize) {
        self.stopped = true;
        for listener in &mut self.listeners {
            listener.leave();
            listener.wants_look &= !self.is_held;
        }
        self.arm(ring, connections);
    }

    /// Accepts again from what comes next.
    pub(crate) fn resume(&mut self) {
        self.stopped = false;
    }
}

impl Listener {
    fn new(socket: OwnedFd, company: Company) -> Listener {
        Listener {
            socket: Some(socket),
            company,
            waiting: Armed::Off,
            look: Armed::Off,
            wants_look: false,
            looks_left: 0,
            listens: false,
            is_unwanted: false,
        }
    }

    /// Has it looked at until it is empty.
    fn leave(&mut self) {
        self.wants_look = self.listens;
        self.looks_left = LOOKS_AT_STOP_MAX;
    }
}

/// Whether connections may come to the socket: listen(2) was called on it.
pub(super) fn is_listening(socket: &OwnedFd) -> bool {
    getsockopt(socket, AcceptConn).unwrap_or(true) // what is no socket, accepting tells
}

/// Whether both descriptors are of one socket.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let identity = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    identity(one).is_ok_and(|one| identity(other) == Ok(one))
}
