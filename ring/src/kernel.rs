//! The real kernel behind a ring: setup, entries, enter. Knows how each operation is spelled for
//! the kernel, not who asked for it.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::process;
use std::time::Duration;

use io_uring::types::{self, Fd};
use io_uring::{IoUring, cqueue, opcode, register::Restriction, squeue};

use crate::buffers::{BufferRing, GroupId};
use crate::errno::Errno;
use crate::op::Op;
use crate::passing::Passing;
use crate::probe::Features;
use crate::scratch::Scratch;
use crate::slots::OpId;

// io_uring_enter(2) flags.
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_NO_IOWAIT: u32 = 1 << 7;

/// A turn may complete several receives for each entry; the kernel's own default is 2.
const CQ_PER_SQ: u32 = 4;

/// Send all of it, and report a vanished peer as an error instead of by SIGPIPE.
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// The offset that means read(2) semantics, which streams need.
const CURRENT_POSITION: u64 = u64::MAX;

/// As long as it takes, too: the kernel counts in signed nanoseconds, and more would be negative.
const WAIT_MAX: Duration = Duration::from_secs(1 << 32);

/// Every opcode that [`Kernel::push`] can write, for the ring's own allow-list.
const OPCODES: [u8; 12] = [
    opcode::AcceptMulti::CODE,
    opcode::Connect::CODE,
    opcode::Recv::CODE, // and RecvMulti
    opcode::Send::CODE,
    opcode::SendMsg::CODE,
    opcode::RecvMsg::CODE,
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::OpenAt2::CODE,
    opcode::Close::CODE,
    opcode::AsyncCancel::CODE,
    opcode::PollAdd::CODE,
];

/// A completion as the kernel gives it.
#[derive(Clone, Copy)]
pub(crate) struct Cqe {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Cqe {
    pub(crate) fn result(self) -> Result<usize, Errno> {
        Errno::check(self.result)
    }

    /// More completions of the same operation will come.
    pub(crate) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that the kernel picked.
    pub(crate) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

pub(crate) struct Kernel {
    uring: ManuallyDrop<IoUring>,
    /// The process that made it.
    owner: u32,
    features: Features,
    /// Entries that the submission queue had no room for; they go first in the next turn.
    overflow: VecDeque<squeue::Entry>,
}

impl Kernel {
    pub(crate) fn new(entries: u32, features: Features) -> io::Result<Kernel> {
        let uring = IoUring::builder()
            .setup_single_issuer() // one task submits: no locking in the kernel (6.0)
            .setup_defer_taskrun() // completions run in our enter, never as interruptions (6.1)
            .setup_submit_all() // a refused entry fails alone (5.18)
            .setup_r_disabled() // restrictions and buffers first, then `enable`
            .setup_cqsize(entries * CQ_PER_SQ)
            .dontfork() // a forked child doesn't inherit the queues
            .build(entries)?;
        let (uring, owner) = (ManuallyDrop::new(uring), process::id());
        Ok(Kernel { uring, owner, features, overflow: VecDeque::new() })
    }

    /// We are a forked child. The queues stayed with the parent, and the descriptor's number may
    /// mean another file by now.
    pub(crate) fn is_inherited(&self) -> bool {
        self.owner != process::id()
    }

    /// From here on the kernel refuses whatever [`OPCODES`] doesn't name.
    pub(crate) fn restrict(&self) -> io::Result<()> {
        let waitid = self.features.waitid.then_some(opcode::WaitId::CODE);
        let flags =
            squeue::Flags::BUFFER_SELECT | squeue::Flags::IO_HARDLINK | squeue::Flags::SKIP_SUCCESS;
        let mut allowed: Vec<Restriction> =
            OPCODES.into_iter().chain(waitid).map(Restriction::sqe_op).collect();
        allowed.push(Restriction::sqe_flags_allowed(flags.bits()));
        self.uring.submitter().register_restrictions(&mut allowed)
    }

    pub(crate) fn enable(&self) -> io::Result<()> {
        self.uring.submitter().register_enable_rings()
    }

    pub(crate) fn add_buffers(&self, ring: &BufferRing, group: GroupId) -> io::Result<()> {
        // SAFETY: the address and count are those of a live buffer ring, which the `Ring` keeps
        // until this kernel ring is gone.
        unsafe {
            self.uring.submitter().register_buf_ring_with_flags(
                ring.address(),
                ring.count(),
                group.0,
                0,
            )
        }
    }

    /// Queues the entry for `op`, which lies in the slot `id` until its last completion.
    /// `unheard` is a stale id, for a part whose completion nobody needs.
    pub(crate) fn notify(&self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.uring.submitter().register_eventfd(eventfd.as_raw_fd())
    }

    pub(crate) fn push(&mut self, id: OpId, op: &mut Op, unheard: OpId) -> Option<Box<Scratch>> {
        let mut scratch = None;
        let entry = match op {
            Op::Accept { fd, multishot: true, .. } => {
                opcode::AcceptMulti::new(Fd(*fd)).flags(libc::SOCK_CLOEXEC).build()
            }
            Op::Accept { fd, multishot: false, .. } => {
                opcode::Accept::new(Fd(*fd), std::ptr::null_mut(), std::ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Op::Connect { fd, peer } => {
                let address = peer.as_bytes();
                opcode::Connect::new(Fd(*fd), address.as_ptr().cast(), address.len() as u32).build()
            }
            // Not exclusive, unlike the poll inside an accept: told of each arrival beside others.
            Op::Watch { fd } => {
                opcode::PollAdd::new(Fd(*fd), libc::POLLIN as u32).multi(true).build()
            }
            Op::Recv { fd, group, multishot: true } => {
                opcode::RecvMulti::new(Fd(*fd), group.0).build()
            }
            Op::Recv { fd, group, multishot: false } => {
                opcode::Recv::new(Fd(*fd), std::ptr::null_mut(), 0)
                    .buf_group(group.0)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            }
            Op::Send { fd, buffer } => match buffer.rest() {
                (only, []) | ([], only) => {
                    opcode::Send::new(Fd(*fd), only.as_ptr(), only.len() as u32)
                        .flags(SEND_FLAGS)
                        .build()
                }
                _ => {
                    let message = scratch.insert(Scratch::message(buffer));
                    let Scratch::Message { header, .. } = message.as_ref() else { unreachable!() };
                    opcode::SendMsg::new(Fd(*fd), header).flags(SEND_FLAGS as u32).build()
                }
            },
            Op::Read { fd, buffer } => {
                buffer.clear();
                opcode::Read::new(Fd(*fd), buffer.as_mut_ptr(), buffer.capacity() as u32)
                    .offset(CURRENT_POSITION)
                    .build()
            }
            Op::ReadAt { file, offset, buffer, count } => {
                let room = buffer.spare_capacity_mut();
                assert!(room.len() >= *count as usize, "no room for {count} bytes");
                opcode::Read::new(Fd(file.as_raw_fd()), room.as_mut_ptr().cast(), *count)
                    .offset(*offset)
                    .build()
            }
            Op::Open { directory, path, flags, resolve } => {
                let scratch = scratch.insert(Box::new(Scratch::open(*flags, *resolve)));
                opcode::OpenAt2::new(Fd(directory.as_raw_fd()), path.as_ptr(), scratch.how())
                    .build()
            }
            Op::Write { fd, buffer } => {
                // More than fits into the entry is a short write: write(2) itself takes less.
                let bytes = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
                opcode::Write::new(Fd(*fd), buffer.as_ptr(), bytes).offset(CURRENT_POSITION).build()
            }
            Op::SendFds { fd, payload, fds, wait } => {
                let passing = Scratch::Passing(Passing::to_send(payload, fds));
                let header = scratch.insert(Box::new(passing)).header();
                let flags = message_flags(libc::MSG_NOSIGNAL, *wait);
                opcode::SendMsg::new(Fd(*fd), header).flags(flags).build()
            }
            Op::RecvFds { fd, payload, fds_max, wait } => {
                let passing = Scratch::Passing(Passing::to_receive(payload, *fds_max));
                let header = scratch.insert(Box::new(passing)).header();
                let flags = message_flags(libc::MSG_CMSG_CLOEXEC, *wait);
                opcode::RecvMsg::new(Fd(*fd), header).flags(flags).build()
            }
            Op::WaitWritable { fd } => opcode::PollAdd::new(Fd(*fd), libc::POLLOUT as u32).build(),
            Op::Close { fd, cancel } => {
                let fd = fd.as_raw_fd();
                if *cancel {
                    self.push_cancel_of_all(fd, unheard);
                }
                opcode::Close::new(Fd(fd)).build()
            }
            Op::Cancel { target } => opcode::AsyncCancel::new(target.to_user_data()).build(),
            Op::WaitChild { pid } if self.features.waitid => {
                scratch = Some(Box::new(Scratch::WaitId));
                // No place for the kernel to write to, and no reaping. When the owner of this dies,
                // a kernel thread cancels it, and writes the record into whichever process ran last
                // on its core: seen on 6.18 in half of all tries.
                let options = libc::WEXITED | libc::WNOWAIT;
                opcode::WaitId::new(libc::P_PID, pid.unsigned_abs(), options).build()
            }
            Op::WaitChild { pid } => {
                // Without a pidfd (no descriptor left) the entry names none and fails at once.
                let pid_fd = scratch.insert(Box::new(Scratch::pid_fd(*pid)));
                opcode::PollAdd::new(Fd(pid_fd.raw_fd()), libc::POLLIN as u32).build()
            }
        };
        self.queue(entry.user_data(id.to_user_data()));
        if let Op::Accept { wait: false, .. } = op {
            // `IORING_ACCEPT_DONTWAIT` is of 6.10, and has a multishot accept wait all the same. An
            // accept takes what is there when it is submitted; what is left of it then waits, and
            // is cancelled by the next entry. (When it was over before, that finds nothing.)
            let cancel = opcode::AsyncCancel::new(id.to_user_data()).build();
            self.queue(cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(unheard.to_user_data()));
        }
        scratch
    }

    /// Cancels everything on `fd` before the entry that follows. In one submission a hard link
    /// keeps the two in order, even when there was nothing to cancel. Where that can't be had (a
    /// queue of one, a kernel that takes nothing now), the order of the queue has to do: a link
    /// that ends its submission makes a worker thread of the cancellation, and the close wins.
    fn push_cancel_of_all(&mut self, fd: i32, unheard: OpId) {
        if self.room() < 2 {
            self.submit();
        }
        let mut flags = squeue::Flags::SKIP_SUCCESS;
        if self.overflow.is_empty() && self.room() >= 2 {
            flags |= squeue::Flags::IO_HARDLINK;
        }
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::fd(Fd(fd)).all()).build();
        self.queue(cancel.flags(flags).user_data(unheard.to_user_data()));
    }

    fn room(&mut self) -> usize {
        let queue = self.uring.submission();
        queue.capacity() - queue.len()
    }

    fn queue(&mut self, entry: squeue::Entry) {
        if self.overflow.is_empty() && self.try_queue(&entry) {
            return;
        }
        self.submit();
        if !(self.overflow.is_empty() && self.try_queue(&entry)) {
            self.overflow.push_back(entry);
        }
    }

    /// Whether there are entries that the kernel hasn't taken.
    pub(crate) fn has_queued(&mut self) -> bool {
        !self.overflow.is_empty() || !self.uring.submission().is_empty()
    }

    fn try_queue(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what the entry points to is owned by the operation's slot (heap memory of its
        // buffers, or its boxed scratch) and lives until its last completion.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Hands the queue to the kernel without waiting. What the kernel refuses now (short of
    /// memory, say) stays queued and is offered again by the next turn.
    fn submit(&mut self) {
        let queued = self.uring.submission().len() as u32;
        // SAFETY: no argument is passed, so there is no memory to be valid.
        let _stays_queued =
            unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, 0, None) };
        while let Some(entry) = self.overflow.front().cloned() {
            if !self.try_queue(&entry) {
                break;
            }
            self.overflow.pop_front();
        }
    }

    /// One enter: submits everything and waits for a completion, for at most `wait`
    /// (`None`: as long as it takes). Returns how many completions are there to be read.
    pub(crate) fn turn(&mut self, wait: Option<Duration>) -> io::Result<usize> {
        if !self.overflow.is_empty() {
            self.submit();
        }
        let to_submit = self.uring.submission().len() as u32;
        let waits = wait != Some(Duration::ZERO)
            && self.overflow.is_empty()
            && self.uring.completion().is_empty();
        let mut flags = ENTER_GETEVENTS;
        if self.features.no_iowait {
            flags |= ENTER_NO_IOWAIT;
        }
        let submitter = self.uring.submitter();
        let entered = match wait.filter(|_| waits) {
            Some(wait) => {
                let timeout = types::Timespec::from(wait.min(WAIT_MAX));
                let args = types::SubmitArgs::new().timespec(&timeout);
                // SAFETY: with EXT_ARG the argument is a `SubmitArgs`, valid for this call, as is
                // the time that it points to.
                unsafe { submitter.enter(to_submit, 1, flags | ENTER_EXT_ARG, Some(&args)) }
            }
            // SAFETY: no argument is passed, so there is no memory to be valid.
            None => unsafe {
                submitter.enter::<libc::sigset_t>(to_submit, u32::from(waits), flags, None)
            },
        };
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            // The time is up; a signal came; the kernel is short of memory or of room in the
            // completion queue. In each case what is complete can be read, the rest stays queued.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY), _)) => {
                Ok(self.uring.completion().len())
            }
            Err((_, error)) => Err(error),
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Cqe> {
        let cqe = self.uring.completion().next()?;
        Some(Cqe { user_data: cqe.user_data(), result: cqe.result(), flags: cqe.flags() })
    }

    /// Starts to cancel these operations; each still completes. One by one: the kernel finds each by
    /// its id, whereas for a cancellation of all it looks at every one again for each of them.
    pub(crate) fn cancel_each(&mut self, ids: impl Iterator<Item = OpId>, unheard: OpId) {
        for id in ids {
            let cancel = opcode::AsyncCancel::new(id.to_user_data()).build();
            self.queue(cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(unheard.to_user_data()));
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if !self.is_inherited() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.uring) }
        }
    }
}

/// The flags of a message, and whether its operation waits for its turn.
fn message_flags(flags: i32, wait: bool) -> u32 {
    (if wait { flags } else { flags | libc::MSG_DONTWAIT }).cast_unsigned()
}

/// shutdown(2).
pub(crate) fn shutdown(fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: takes two integers and touches no memory of ours.
    match unsafe { libc::shutdown(fd.as_raw_fd(), how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What leaves as one segment with its head. Of more, the head goes ahead: it wakes the peer, which begins to
/// read while the file is on its way.
const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// send(2) of `head`, then sendfile(2), both without waiting for the socket.
pub(crate) fn send_file(
    socket: BorrowedFd<'_>,
    head: &[u8],
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    let socket = socket.as_raw_fd();
    if !head.is_empty() {
        let mut flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        if count <= SEGMENT_BYTES_MAX {
            flags |= libc::MSG_MORE;
        }
        // SAFETY: reads `head.len()` bytes from where the slice lies.
        let sent = unsafe { libc::send(socket, head.as_ptr().cast(), head.len(), flags) };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        if sent < head.len() {
            return Ok(sent);
        }
    }
    let mut place = offset.cast_signed();
    set_nonblocking(socket, true)?;
    // SAFETY: `place` is valid for reading and writing; no other memory of ours is touched.
    let sent = unsafe { libc::sendfile(socket, file.as_raw_fd(), &raw mut place, count) };
    let result = usize::try_from(sent).map_err(|_| io::Error::last_os_error());
    set_nonblocking(socket, false)?;
    match result {
        Ok(sent) => Ok(head.len() + sent),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && !head.is_empty() => {
            Ok(head.len())
        }
        Err(error) => Err(error),
    }
}

/// Of its status flags, a socket that came by an accept has no other.
fn set_nonblocking(socket: RawFd, nonblocking: bool) -> io::Result<()> {
    let flags = if nonblocking { libc::O_NONBLOCK } else { 0 };
    // SAFETY: takes three integers and touches no memory of ours.
    match unsafe { libc::fcntl(socket, libc::F_SETFL, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a byte of a file can be had without waiting for a disk: preadv2(2), `RWF_NOWAIT`.
pub(crate) fn is_resident(file: BorrowedFd<'_>, offset: u64) -> bool {
    let mut byte = 0_u8;
    let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: `part` names one writable byte, and both live until the call is over.
    let count = unsafe {
        libc::preadv2(file.as_raw_fd(), &raw const part, 1, offset.cast_signed(), libc::RWF_NOWAIT)
    };
    count == 1
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write, pipe};

    use super::*;
    use crate::probe::Mask;
    use crate::slots::Slots;

    #[test]
    #[cfg_attr(miri, ignore = "miri has no io_uring")]
    fn a_restricted_ring_refuses_what_no_operation_needs() {
        let (mut reader, writer) = pipe().unwrap();
        let mut kernel = Kernel::new(8, Features::probe(Mask::NONE).unwrap()).unwrap();
        kernel.restrict().unwrap();
        kernel.enable().unwrap();
        let id = Slots::<()>::with_capacity(0).stale_id().to_user_data();
        let byte = b"x".as_ptr();
        let part = libc::iovec { iov_base: byte.cast_mut().cast(), iov_len: 1 };
        let entries = [
            (opcode::Nop::new().build(), -libc::EACCES),
            (
                opcode::Writev::new(Fd(writer.as_raw_fd()), &raw const part, 1).build(),
                -libc::EACCES,
            ),
            (opcode::Shutdown::new(Fd(-1), libc::SHUT_RDWR).build(), -libc::EACCES),
            (opcode::Write::new(Fd(writer.as_raw_fd()), byte, 1).build(), 1),
        ];
        for (entry, result) in entries {
            kernel.queue(entry.user_data(id));
            kernel.turn(None).unwrap();
            assert_eq!(kernel.poll().unwrap().result, result);
        }
        (&writer).write_all(b"y").unwrap();
        let mut got = [0; 2];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"xy"); // the vectored write did nothing
    }
}
