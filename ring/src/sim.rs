//! A seeded stand-in for the kernel: the same [`Ring`](crate::Ring), no I/O, virtual time.
//!
//! [`Ring::simulated`](crate::Ring::simulated) makes a ring whose operations reach a [`World`]
//! in memory. The test plays everybody else: it connects [`Client`]s, feeds pipes, ends children,
//! and turns the ring. What the kernel guarantees holds here too; what it doesn't guarantee (whole
//! sends, the order of independent completions, who wins a cancellation) a [`Plan`] breaks, each
//! [`Fault`] as often as asked for, and in the same way every time for the same seed.
//!
//! Descriptors are real and mean nothing: each is a copy of one of `/dev/null`, so that it can be
//! owned and dropped. Dropping one outside the ring goes unnoticed until its number comes again.
//! Unlike on a real kernel, the number of a closed descriptor is free only when the close has
//! been read.
//!
//! ```
//! use std::os::fd::AsRawFd;
//! use uring_ring::sim::{Faults, Plan};
//! use uring_ring::{Op, Outcome, Ring};
//!
//! let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 1, faults: Faults::NONE });
//! let listener = world.listener();
//! let client = world.connect(&listener);
//!
//! ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, 1);
//! ring.turn(None).unwrap();
//! let Outcome::Accepted(Ok(server)) = ring.poll_completion().unwrap().outcome else { panic!() };
//!
//! ring.push(Op::Send { fd: server.as_raw_fd(), buffer: b"hello".to_vec().into() }, 2);
//! ring.push(Op::Close { fd: server, cancel: false }, 3);
//! ring.turn(None).unwrap();
//! assert_eq!(client.read(), b"hello");
//! assert!(client.saw_end());
//! ```

mod machine;
mod plan;
mod stream;

use std::fmt;
use std::io;
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::buffers::BufferRing;
use crate::kernel::Cqe;
use crate::op::Op;
use crate::passing::{self, Arrival};
use crate::scratch::Scratch;
use crate::slots::OpId;

use machine::{FileId, Machine, Payload, Request, Shared, Work};
pub use plan::{Fault, Faults, Plan, Rng};

/// The test's hand on everything outside the server. Clones are the same world.
#[derive(Clone)]
pub struct World {
    machine: Shared,
}

impl World {
    /// Makes a listening socket.
    pub fn listener(&self) -> OwnedFd {
        self.machine.borrow_mut().add_listener()
    }

    /// Connects to a listener, named by its descriptor or its number. The connection waits until
    /// it is accepted; when nobody listens there any more, the client sees a reset.
    pub fn connect(&self, listener: &impl AsRawFd) -> Client {
        let at = self.machine.borrow_mut().connect(listener.as_raw_fd());
        Client { machine: Rc::clone(&self.machine), at }
    }

    /// A connection that the server has already: one that was passed to it, say.
    pub fn connection(&self) -> (OwnedFd, Client) {
        let (fd, at) = self.machine.borrow_mut().add_connection();
        (fd, Client { machine: Rc::clone(&self.machine), at })
    }

    /// Makes a stream socket that is not connected, for [`Op::Connect`].
    pub fn socket(&self) -> OwnedFd {
        self.machine.borrow_mut().add_socket()
    }

    /// From now on somebody takes connections at `peer`; before, they are refused.
    pub fn listen_at(&self, peer: &Address) {
        self.machine.borrow_mut().listen_at(peer);
    }

    /// From now on nobody takes connections at `peer`. Those that exist stay.
    pub fn refuse_at(&self, peer: &Address) {
        self.machine.borrow_mut().refuse_at(peer);
    }

    /// The oldest connection to `peer` that has not been taken by this.
    pub fn take_connection(&self, peer: &Address) -> Option<Client> {
        let at = self.machine.borrow_mut().take_connection(peer)?;
        Some(Client { machine: Rc::clone(&self.machine), at })
    }

    /// Connections that wait in the listener's queue.
    pub fn queued(&self, listener: &impl AsRawFd) -> usize {
        self.machine.borrow().queued(listener.as_raw_fd())
    }

    /// Makes something to read from: a pipe, an eventfd, a signalfd.
    /// What the server writes to it, or passes through it, the world keeps.
    pub fn readable(&self) -> OwnedFd {
        self.machine.borrow_mut().add_readable(false)
    }

    /// Makes a [`readable`](World::readable) that can be sent to as well: a line to another process.
    pub fn line(&self) -> OwnedFd {
        self.machine.borrow_mut().add_readable(true)
    }

    /// Makes a file that can be read at any place, and opened by its name when it has one.
    pub fn file(&self, name: Option<&str>, bytes: &[u8]) -> OwnedFd {
        self.machine.borrow_mut().add_file(name, bytes)
    }

    /// Gives a readable one message. A read gets one message, or as much of it as it has room for.
    pub fn feed(&self, readable: &impl AsRawFd, message: &[u8]) {
        self.machine.borrow_mut().feed(readable.as_raw_fd(), Some(message));
    }

    /// Ends a readable: after its messages, reads get nothing, and writes fail.
    pub fn end(&self, readable: &impl AsRawFd) {
        self.machine.borrow_mut().feed(readable.as_raw_fd(), None);
    }

    /// Passes `count` new connections to the server, with one message through a readable. They
    /// wait in it until the server receives the message; a mere read of it loses them.
    pub fn pass(&self, readable: &impl AsRawFd, message: &[u8], count: usize) -> Vec<Client> {
        let files = self.machine.borrow_mut().pass(readable.as_raw_fd(), message, count);
        let client = |at| Client { machine: Rc::clone(&self.machine), at };
        files.into_iter().map(client).collect()
    }

    /// How many descriptors the server has passed through a readable that it has open.
    pub fn passed(&self, readable: &impl AsRawFd) -> usize {
        self.machine.borrow().passed(readable.as_raw_fd())
    }

    /// Takes what the server has written to a readable that it has open, and the messages of the
    /// descriptors that it has passed: each on its own, in order.
    pub fn written(&self, readable: &impl AsRawFd) -> Vec<Vec<u8>> {
        self.machine.borrow_mut().take_written(readable.as_raw_fd())
    }

    /// Lets a child process end, for who waits or will wait for it.
    pub fn end_child(&self, pid: i32, status: ExitStatus) {
        self.machine.borrow_mut().end_child(pid, status);
    }

    /// Virtual time. It passes while a turn waits, and by [`advance`](World::advance).
    pub fn now(&self) -> Instant {
        self.machine.borrow().now()
    }

    /// Lets time pass, as if the server had been busy.
    pub fn advance(&self, time: Duration) {
        self.machine.borrow_mut().advance(time);
    }

    /// The last turn would have waited for ever: it had no limit, nothing was complete, and
    /// nothing was under way. It returned without completions.
    pub fn is_stuck(&self) -> bool {
        self.machine.borrow().is_stuck()
    }

    /// How many turns were [stuck](World::is_stuck).
    pub fn idle_turns(&self) -> u64 {
        self.machine.borrow().idle_turns()
    }

    /// Operations whose last completion has not been read.
    pub fn in_flight(&self) -> usize {
        self.machine.borrow().in_flight()
    }

    /// How often a fault has happened.
    pub fn injected(&self, fault: Fault) -> u64 {
        self.machine.borrow().injected(fault)
    }

    /// What the server still holds. After its end, that is what it has leaked.
    pub fn leaks(&self) -> Leaks {
        let machine = self.machine.borrow();
        Leaks {
            operations: machine.in_flight(),
            buffers: machine.leased(),
            connections: machine.open_connections(),
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("holds", &self.leaks()).finish_non_exhaustive()
    }
}

/// What a server holds, from [`World::leaks`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Leaks {
    /// Operations in flight.
    pub operations: usize,
    /// Provided buffers out on lease.
    pub buffers: usize,
    /// Connections whose descriptor has not been closed through the ring.
    pub connections: usize,
}

impl Leaks {
    /// Nothing at all.
    pub const NONE: Leaks = Leaks { operations: 0, buffers: 0, connections: 0 };
}

/// The other end of a connection, closed when it is dropped.
pub struct Client {
    machine: Shared,
    at: FileId,
}

impl Client {
    /// Sends bytes; they arrive during the next turns. To a server that is gone they are lost,
    /// and the client sees a reset.
    pub fn write(&self, bytes: &[u8]) {
        self.machine.borrow_mut().stream(self.at).client_writes(bytes);
    }

    /// Takes all that has come from the server.
    pub fn read(&self) -> Vec<u8> {
        self.machine.borrow_mut().stream(self.at).client_reads()
    }

    /// Takes in at most this many unread bytes (256 KiB otherwise); then sends to it wait.
    pub fn set_window(&self, bytes: usize) {
        self.machine.borrow_mut().stream(self.at).set_window(bytes);
    }

    /// Tells the server that this was all, and keeps on reading.
    pub fn shutdown_write(&self) {
        self.machine.borrow_mut().stream(self.at).client_shuts_write();
    }

    /// Closes both directions: in order, or with a reset when there are unread bytes.
    pub fn close(&self) {
        self.machine.borrow_mut().stream(self.at).client_closes();
    }

    /// Breaks the connection off. What is under way to the server is lost.
    pub fn reset(&self) {
        self.machine.borrow_mut().stream(self.at).client_resets();
    }

    /// The server won't send any more, in order or not.
    pub fn is_closed(&self) -> bool {
        self.saw_end() || self.saw_reset()
    }

    /// The server has sent its last byte; [`read`](Client::read) has it.
    pub fn saw_end(&self) -> bool {
        self.machine.borrow_mut().stream(self.at).saw_end()
    }

    /// The connection broke, and with it what had not been read.
    pub fn saw_reset(&self) -> bool {
        self.machine.borrow_mut().stream(self.at).saw_reset()
    }

    /// Bytes written that the server has not received yet.
    pub fn backlog(&self) -> usize {
        self.machine.borrow_mut().stream(self.at).backlog()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Ok(mut machine) = self.machine.try_borrow_mut() {
            machine.stream(self.at).client_closes();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("saw_end", &self.saw_end())
            .field("saw_reset", &self.saw_reset())
            .finish_non_exhaustive()
    }
}

/// The ring's side: takes operations for submission entries and gives completion entries.
pub(crate) struct Sim {
    machine: Shared,
    /// What the last polled completion brings for its operation.
    payload: Payload,
}

impl Sim {
    pub(crate) fn new(plan: Plan) -> (Sim, World) {
        let machine = Machine::new(plan);
        let world = World { machine: Rc::clone(&machine) };
        (Sim { machine, payload: Payload::None }, world)
    }

    pub(crate) fn push(&mut self, id: OpId, op: &mut Op) {
        let request = match op {
            Op::Accept { fd, multishot, wait } => {
                let work = Work::Accept { multishot: *multishot, wait: *wait };
                Request::On { fd: *fd, work }
            }
            Op::Connect { fd, peer } => {
                Request::On { fd: *fd, work: Work::Connect { peer: Address::clone(peer) } }
            }
            Op::Watch { fd } => Request::On { fd: *fd, work: Work::Watch { seen: 0 } },
            Op::Recv { fd, group, multishot } => {
                Request::On { fd: *fd, work: Work::Recv { group: *group, multishot: *multishot } }
            }
            Op::Send { fd, buffer } => {
                let (head, body) = buffer.rest();
                let work = Work::Send { bytes: [head, body].concat(), sent: 0 };
                Request::On { fd: *fd, work }
            }
            Op::Read { fd, buffer } => {
                buffer.clear();
                Request::On { fd: *fd, work: Work::Read { capacity: buffer.capacity() } }
            }
            Op::ReadAt { file, offset, buffer, count } => {
                let room = buffer.capacity() - buffer.len();
                assert!(room >= *count as usize, "no room for {count} bytes");
                let work = Work::ReadAt { offset: *offset, count: *count as usize };
                Request::On { fd: file.as_raw_fd(), work }
            }
            Op::Open { path, .. } => Request::Open { path: path.as_bytes().to_vec() },
            Op::Write { fd, buffer } => Request::On {
                fd: *fd,
                work: Work::Write { bytes: buffer.clone(), passes: Vec::new() },
            },
            Op::SendFds { fd, payload, fds, .. } => {
                passing::assert_sendable(payload, fds);
                let passes = fds.iter().map(AsRawFd::as_raw_fd).collect();
                let work = Work::Write { bytes: payload.clone(), passes };
                Request::On { fd: *fd, work }
            }
            Op::RecvFds { fd, payload, fds_max, wait } => {
                passing::assert_receivable(payload, *fds_max);
                payload.clear();
                let capacity = payload.capacity();
                let work = Work::RecvFds { capacity, fds_max: *fds_max, wait: *wait };
                Request::On { fd: *fd, work }
            }
            Op::WaitWritable { fd } => Request::On { fd: *fd, work: Work::WaitWritable },
            Op::Close { fd, cancel } => Request::Close { fd: fd.as_raw_fd(), cancel: *cancel },
            Op::Cancel { target } => Request::Cancel { target: target.to_user_data() },
            Op::WaitChild { pid } => Request::WaitChild { pid: *pid },
        };
        self.machine.borrow_mut().submit(id.to_user_data(), request);
    }

    pub(crate) fn turn(&mut self, wait: Option<Duration>) -> usize {
        self.machine.borrow_mut().turn(wait)
    }

    pub(crate) fn poll(&mut self) -> Option<Cqe> {
        let mut posted = self.machine.borrow_mut().poll()?;
        self.payload = mem::replace(&mut posted.payload, Payload::None);
        if let Payload::Descriptor(_) = self.payload {
            let Payload::Descriptor(fd) = mem::replace(&mut self.payload, Payload::None) else {
                unreachable!()
            };
            posted.result = fd.into_raw_fd(); // from here on its number stands for it
        }
        Some(posted.cqe())
    }

    /// Writes what the last polled completion brings to where its operation's outcome looks.
    pub(crate) fn deliver(&mut self, op: &mut Op, scratch: &mut Option<Box<Scratch>>) {
        match (op, mem::replace(&mut self.payload, Payload::None)) {
            (Op::Read { buffer, .. }, Payload::Bytes(bytes)) => buffer.extend_from_slice(&bytes),
            (Op::ReadAt { buffer, .. }, Payload::Bytes(bytes)) => {
                // The outcome makes the buffer longer, since a kernel writes and no more.
                let held = buffer.len();
                buffer.extend_from_slice(&bytes);
                buffer.truncate(held);
            }
            (Op::RecvFds { payload, .. }, brought) => {
                let (fds, arrival) = match brought {
                    Payload::Message { bytes, fds, arrival } => {
                        payload.extend_from_slice(&bytes);
                        (fds, arrival)
                    }
                    _ => (Vec::new(), Arrival::End), // or the result is an error
                };
                *scratch = Some(Box::new(Scratch::Brought(fds, arrival)));
            }
            (Op::WaitChild { .. }, payload) => {
                let status = match payload {
                    Payload::Exit(status) => status,
                    _ => ExitStatus::default(), // the result is an error
                };
                *scratch = Some(Box::new(Scratch::Told(status)));
            }
            (Op::Close { fd, .. }, Payload::Closed) => {
                // SAFETY: the outcome of a close gives up its ownership, since the kernel has
                // closed the descriptor. Here we are the kernel.
                drop(unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) });
            }
            _ => {}
        }
    }

    pub(crate) fn add_buffers(&mut self, ring: Rc<BufferRing>) {
        self.machine.borrow_mut().add_group(ring);
    }

    pub(crate) fn send_file(
        &mut self,
        socket: BorrowedFd<'_>,
        head: &[u8],
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> io::Result<usize> {
        let (socket, file) = (socket.as_raw_fd(), file.as_raw_fd());
        Ok(self.machine.borrow_mut().send_file(socket, head, file, offset, count)?)
    }

    pub(crate) fn resident_bytes(&self, count: usize) -> usize {
        self.machine.borrow_mut().resident_bytes(count)
    }

    pub(crate) fn shutdown(&mut self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
        Ok(self.machine.borrow_mut().shutdown(fd.as_raw_fd(), how)?)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if let Ok(mut machine) = self.machine.try_borrow_mut() {
            machine.abandon();
        }
    }
}
