//! What can be asked of the ring, and what comes back: the only matches on operations.
//! Each `Op` owns what the kernel borrows until its last completion.

use std::ffi::CString;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::process::ExitStatus;
use std::rc::Rc;

use crate::address::Address;
use crate::buffers::{BufferRing, GroupId, Lease};
use crate::errno::Errno;
use crate::kernel::Cqe;
use crate::passing::Arrival;
use crate::scratch::Scratch;
use crate::send::SendBuffer;
use crate::slots::OpId;

/// An operation for the kernel.
///
/// A descriptor is named by number, as the kernel does it: using one that has been closed is a
/// logic error that ends in `EBADF` (or reaches whichever file has the number now), never in
/// undefined behaviour. What owns memory or a descriptor moves in, and comes back in the [`Outcome`].
#[derive(Debug)]
pub enum Op {
    /// Accepts one connection, or one with each completion until cancelled or out of descriptors.
    Accept {
        /// A listening socket.
        fd: RawFd,
        /// Stay armed after the first connection: all that wait are accepted at once.
        multishot: bool,
        /// While no connection is there, wait; else that is [`Errno::AGAIN`], which then is also
        /// what ends a `multishot` one. Of the rings that wait at one socket the kernel wakes but
        /// the first for a connection, even one whose process is busy and won't come for it.
        wait: bool,
    },
    /// Completes when a connection waits at a listening socket, and each time another one has come
    /// that nobody has accepted yet, until cancelled. Wakes whoever asked for it, whoever else waits.
    Watch {
        /// A listening socket.
        fd: RawFd,
    },
    /// Connects a socket, as connect(2).
    Connect {
        /// A stream socket that is not connected yet; whether it is set to `O_NONBLOCK` makes no
        /// difference.
        fd: RawFd,
        /// Whom to; shared, as many connections often have the same peer.
        peer: Rc<Address>,
    },
    /// Receives into buffers of `group`: once, or one completion per arrival until it ends.
    Recv {
        /// A connected socket.
        fd: RawFd,
        /// Where the kernel takes buffers from.
        group: GroupId,
        /// Stay armed after the first arrival.
        multishot: bool,
    },
    /// Sends the whole buffer (`MSG_WAITALL`). Two at once on one socket may be reordered.
    Send {
        /// A connected socket.
        fd: RawFd,
        /// What to send; comes back with the outcome.
        buffer: SendBuffer,
    },
    /// Reads once into the buffer's capacity, from the file's current position.
    Read {
        /// A file, pipe, eventfd, signalfd or socket.
        fd: RawFd,
        /// Its capacity is the size of the read; old content is dropped.
        buffer: Vec<u8>,
    },
    /// Reads once from a place of a file, behind what the buffer holds. A disk is waited for by the
    /// kernel, never by the caller.
    ReadAt {
        /// Shared, so that it stays open for as long as it is read from. What has no places (a
        /// pipe, a socket) is read from as by [`Op::Read`].
        file: Rc<OwnedFd>,
        /// Where in the file, in bytes from its beginning.
        offset: u64,
        /// Has room for `count` bytes more; what it holds stays.
        buffer: Vec<u8>,
        /// How many bytes at most, and not zero.
        count: u32,
    },
    /// Opens a file by its path below a directory (openat2(2)), close-on-exec.
    Open {
        /// Where a relative path starts.
        directory: Rc<OwnedFd>,
        /// The path.
        path: CString,
        /// `O_RDONLY` and its like; `O_CLOEXEC` is added.
        flags: i32,
        /// `RESOLVE_BENEATH` and its like.
        resolve: u64,
    },
    /// Writes once, to the file's current position. Waits for room; whether also on a file that is
    /// set to `O_NONBLOCK` depends on the kernel. A pipe that nobody reads from any more sends
    /// SIGPIPE, which Rust programs ignore unless told otherwise.
    Write {
        /// A file, pipe, eventfd or socket.
        fd: RawFd,
        /// What to write; comes back with the outcome.
        buffer: Vec<u8>,
    },
    /// Passes descriptors to the process at the other end, with one message. It gets copies; these
    /// come back in every case. Two that wait at once on one socket may be reordered.
    SendFds {
        /// A connected `AF_UNIX` socket that keeps messages apart (`SOCK_SEQPACKET`).
        fd: RawFd,
        /// The message; not empty.
        payload: Vec<u8>,
        /// What to pass, at least one and at most [`FDS_MAX`](crate::FDS_MAX).
        fds: Vec<OwnedFd>,
        /// While the peer's queue is full, wait; else that is [`Errno::AGAIN`] at once. Whether
        /// the socket is set to `O_NONBLOCK` makes no difference.
        wait: bool,
    },
    /// Receives one message, and the descriptors that came with it.
    ///
    /// A message that has arrived is out of the queue, even when a cancellation is under way or
    /// the ring is being dropped; in a dropped ring its descriptors are closed.
    RecvFds {
        /// A connected `AF_UNIX` socket that keeps messages apart (`SOCK_SEQPACKET`).
        fd: RawFd,
        /// Its capacity, which is not zero, is the room for the message; old content is dropped.
        payload: Vec<u8>,
        /// Room for so many descriptors, at least one and at most [`FDS_MAX`](crate::FDS_MAX).
        fds_max: usize,
        /// While there is no message, wait; else that is [`Errno::AGAIN`] at once. Whether the
        /// socket is set to `O_NONBLOCK` makes no difference.
        wait: bool,
    },
    /// Waits until a socket takes bytes, or has failed: for those who send without the ring
    /// ([`Ring::send_file`](crate::Ring::send_file)).
    WaitWritable {
        /// A connected socket.
        fd: RawFd,
    },
    /// Closes the descriptor.
    Close {
        /// Moves in: nobody can use it any more.
        fd: OwnedFd,
        /// First cancel everything in flight on it: a socket with an armed receive would not
        /// send its FIN otherwise. Leave it out when nothing is armed; it costs a second entry.
        cancel: bool,
    },
    /// Cancels one operation; both complete, in either order.
    Cancel {
        /// The operation, from [`Ring::push`](crate::Ring::push).
        target: OpId,
    },
    /// Waits for a child process to end, and reaps it.
    WaitChild {
        /// The child's process id.
        pid: i32,
    },
}

/// What became of an [`Op`], with everything that it owned.
#[derive(Debug)]
pub enum Outcome {
    /// A new connection, close-on-exec, or why the accepting ended.
    Accepted(Result<OwnedFd, Errno>),
    /// The connection is established, or why not.
    Connected(Result<(), Errno>),
    /// A connection waits, or did a moment ago; or why the watch ended.
    Watched(Result<(), Errno>),
    /// Bytes that arrived; `None` when the peer has sent its last.
    Received(Result<Option<Lease>, Errno>),
    /// The buffer, and how many of its bytes went out this time.
    Sent {
        /// Not yet advanced by `result`.
        buffer: SendBuffer,
        /// Bytes that went out; fewer than asked for only when something interrupted the send.
        result: Result<usize, Errno>,
    },
    /// The buffer, holding the bytes that were read.
    Read {
        /// Its length is the result's count.
        buffer: Vec<u8>,
        /// Bytes read; zero at the end.
        result: Result<usize, Errno>,
    },
    /// The buffer, with the bytes that were read behind those that it had.
    ReadAt {
        /// Longer by the result's count.
        buffer: Vec<u8>,
        /// Bytes read: fewer than asked for at the end of the file, and when the kernel has to
        /// fetch the rest; zero behind the end.
        result: Result<usize, Errno>,
    },
    /// A new descriptor, close-on-exec, or why there is none.
    Opened(Result<OwnedFd, Errno>),
    /// The buffer, and how many of its bytes were written.
    Written {
        /// As it was given.
        buffer: Vec<u8>,
        /// Bytes written; files and pipes may take fewer than there are.
        result: Result<usize, Errno>,
    },
    /// The message is in the peer's queue, with copies of the descriptors; or why it is not.
    SentFds {
        /// As it was given.
        payload: Vec<u8>,
        /// As they were given, and still open.
        fds: Vec<OwnedFd>,
        /// All or nothing. `ETOOMANYREFS` says that this user has more descriptors under way, sent
        /// and not received, than `RLIMIT_NOFILE` allows (unix(7)).
        result: Result<(), Errno>,
    },
    /// A message, or the end.
    ReceivedFds {
        /// The buffer, holding the message; empty at the end and on errors.
        payload: Vec<u8>,
        /// What came with it, close-on-exec and in the sender's order.
        fds: Vec<OwnedFd>,
        /// Whether that is all of it.
        result: Result<Arrival, Errno>,
    },
    /// Bytes are taken again, or the socket has failed, which sending will tell.
    Writable(Result<(), Errno>),
    /// The descriptor is closed, whatever the result.
    Closed(Result<(), Errno>),
    /// `NOT_FOUND` when the target was complete already.
    Cancelled(Result<(), Errno>),
    /// How the child ended.
    ChildEnded(Result<ExitStatus, Errno>),
}

// Both are moved with each operation: what only some of them need is boxed instead.
const _: () = assert!(size_of::<Op>() <= 72 && size_of::<Outcome>() <= 80);

impl Outcome {
    /// Takes the final completion of `op` apart: what it owned moves to the caller.
    pub(crate) fn of(
        op: Op,
        scratch: Option<Box<Scratch>>,
        cqe: Cqe,
        groups: &[Rc<BufferRing>],
    ) -> Outcome {
        match op {
            Op::Accept { wait, .. } => Outcome::accepted(cqe, wait),
            Op::Watch { .. } => Outcome::Watched(cqe.result().map(drop)),
            Op::Connect { .. } => Outcome::Connected(cqe.result().map(drop)),
            Op::Recv { group, .. } => Outcome::received(cqe, group, groups),
            Op::Send { buffer, .. } => Outcome::Sent { buffer, result: cqe.result() },
            Op::Read { mut buffer, .. } => {
                let result = cqe.result();
                // SAFETY: the kernel wrote `result` bytes from the start of the buffer, and was
                // given no more room than its capacity.
                unsafe { buffer.set_len(result.unwrap_or(0)) };
                Outcome::Read { buffer, result }
            }
            Op::ReadAt { mut buffer, .. } => {
                let result = cqe.result();
                // SAFETY: the kernel wrote `result` bytes behind what the buffer held, and was
                // given no more room than its capacity.
                unsafe { buffer.set_len(buffer.len() + result.unwrap_or(0)) };
                Outcome::ReadAt { buffer, result }
            }
            Op::Open { .. } => Outcome::Opened(Outcome::descriptor(cqe)),
            Op::Write { buffer, .. } => Outcome::Written { buffer, result: cqe.result() },
            Op::SendFds { payload, fds, .. } => {
                Outcome::SentFds { payload, fds, result: cqe.result().map(drop) }
            }
            Op::RecvFds { payload, .. } => {
                let scratch = scratch.expect("a receiving operation has its scratch");
                Outcome::received_fds(payload, *scratch, cqe)
            }
            Op::WaitWritable { .. } => Outcome::Writable(cqe.result().map(drop)),
            Op::Close { fd, .. } => {
                if cqe.result() == Err(Errno::CANCELED) {
                    drop(fd); // the close never ran, so the descriptor is still ours
                } else {
                    let _closed_by_the_kernel = fd.into_raw_fd();
                }
                Outcome::Closed(cqe.result().map(drop))
            }
            Op::Cancel { .. } => Outcome::Cancelled(cqe.result().map(drop)),
            Op::WaitChild { pid } => {
                let scratch = scratch.expect("a waiting operation has its scratch");
                Outcome::ChildEnded(scratch.exit_status(pid, cqe.result()))
            }
        }
    }

    /// One of several completions of a multishot `op`, which stays armed.
    pub(crate) fn of_armed(op: &Op, cqe: Cqe, groups: &[Rc<BufferRing>]) -> Outcome {
        match op {
            Op::Accept { wait, .. } => Outcome::accepted(cqe, *wait),
            Op::Watch { .. } => Outcome::Watched(cqe.result().map(drop)),
            Op::Recv { group, .. } => Outcome::received(cqe, *group, groups),
            _ => unreachable!("only accept, watch and recv are multishot"),
        }
    }

    /// Where the accept doesn't `wait`, its own cancellation says that nobody is there.
    fn accepted(cqe: Cqe, waits: bool) -> Outcome {
        Outcome::Accepted(match Outcome::descriptor(cqe) {
            Err(Errno::CANCELED) if !waits => Err(Errno::AGAIN), // see `Kernel::push`
            result => result,
        })
    }

    /// The result of an accept or an open.
    fn descriptor(cqe: Cqe) -> Result<OwnedFd, Errno> {
        cqe.result().map(|fd| {
            // SAFETY: a successful accept or open returns a new descriptor that nobody else owns.
            unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
        })
    }

    fn received_fds(mut payload: Vec<u8>, scratch: Scratch, cqe: Cqe) -> Outcome {
        let (fds, result) = match cqe.result() {
            Ok(count) => {
                // SAFETY: the kernel wrote `count` bytes from the start of the buffer, and was
                // given no more room than its capacity.
                unsafe { payload.set_len(count) };
                let (fds, arrival) = scratch.received_fds(count);
                (fds, Ok(arrival))
            }
            Err(errno) => (Vec::new(), Err(errno)),
        };
        Outcome::ReceivedFds { payload, fds, result }
    }

    fn received(cqe: Cqe, group: GroupId, groups: &[Rc<BufferRing>]) -> Outcome {
        let lease = cqe.buffer().map(|buffer| {
            Lease::new(&groups[usize::from(group.0)], buffer, cqe.result().unwrap_or(0))
        });
        Outcome::Received(match cqe.result() {
            Ok(0) => Ok(None), // a lease of nothing goes straight back
            Ok(_) => Ok(Some(lease.expect("received bytes lie in a buffer"))),
            Err(errno) => Err(errno),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn cqe(result: i32, flags: u32) -> Cqe {
        Cqe { user_data: 0, result, flags }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri makes no socket non-blocking")]
    fn a_close_that_never_ran_closes_and_any_other_has() {
        for (result, is_open) in [(-libc::ECANCELED, false), (-libc::EIO, true), (0, true)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            let op = Op::Close { fd: ours.into(), cancel: true };
            let Outcome::Closed(_) = Outcome::of(op, None, cqe(result, 0), &[]) else { panic!() };
            // No kernel has closed it here, so that what we leave alone stays open.
            let read = theirs.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(read, if is_open { Err(ErrorKind::WouldBlock) } else { Ok(0) });
        }
    }

    #[test]
    fn a_buffer_that_brings_no_bytes_goes_straight_back() {
        const BUFFER_1: u32 = 1 << 16 | 1; // IORING_CQE_F_BUFFER and its id
        let groups = [Rc::new(BufferRing::new(2, 8))];
        let group = GroupId(0);
        for result in [0, -libc::ECONNRESET] {
            let received = Outcome::received(cqe(result, BUFFER_1), group, &groups);
            assert!(matches!(received, Outcome::Received(Ok(None) | Err(Errno::RESET))));
            assert_eq!(groups[0].leased(), 0);
        }
    }
}
