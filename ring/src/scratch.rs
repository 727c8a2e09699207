//! What an operation needs beside its own buffers: a message header, the way to a child's end.
//! Boxed, so that it stays where it is while the slot table grows.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use io_uring::types::OpenHow;

use crate::errno::Errno;
use crate::passing::{Arrival, Passing};
use crate::send::SendBuffer;

pub(crate) enum Scratch {
    /// sendmsg(2): the header and the two vectors that it points to.
    Message { header: libc::msghdr, parts: [libc::iovec; 2] },
    /// How openat2(2) opens.
    Open(OpenHow),
    /// A message with descriptors, either way.
    Passing(Passing),
    /// waitid(2) through the ring (6.7) tells that the child has ended; waitpid(2) then returns at
    /// once.
    WaitId,
    /// Below 6.7: a pidfd becomes readable when the child ends. Or why there is none.
    PidFd(Result<OwnedFd, Errno>),
    /// What a simulated kernel says.
    #[cfg(feature = "sim")]
    Told(ExitStatus),
    /// What a simulated kernel brings.
    #[cfg(feature = "sim")]
    Brought(Vec<OwnedFd>, Arrival),
}

// Every one of them is allocated as large as the largest, also that of a plain send.
const _: () = assert!(size_of::<Scratch>() <= 96);

impl Scratch {
    /// The header of a two-part send. It points into `buffer`'s heap memory and into itself.
    #[expect(
        clippy::unnecessary_box_returns,
        reason = "it points into itself, so it must not move"
    )]
    pub(crate) fn message(buffer: &SendBuffer) -> Box<Scratch> {
        let (head, body) = buffer.rest();
        let part = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
        let header: libc::msghdr = unsafe { mem::zeroed() };
        let mut scratch = Box::new(Scratch::Message { header, parts: [part(head), part(body)] });
        if let Scratch::Message { header, parts } = scratch.as_mut() {
            header.msg_iov = parts.as_mut_ptr();
            header.msg_iovlen = parts.len();
        }
        scratch
    }

    pub(crate) fn open(flags: i32, resolve: u64) -> Scratch {
        let flags = (flags | libc::O_CLOEXEC).cast_unsigned();
        Scratch::Open(OpenHow::new().flags(flags.into()).resolve(resolve))
    }

    /// How to open, for the kernel.
    pub(crate) fn how(&self) -> *const OpenHow {
        match self {
            Scratch::Open(how) => how,
            _ => unreachable!("only an open has it"),
        }
    }

    pub(crate) fn pid_fd(pid: i32) -> Scratch {
        // SAFETY: takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        Scratch::PidFd(match fd {
            // SAFETY: a successful pidfd_open returns a new descriptor that nobody else owns.
            0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
            _ => Err(match last_errno() {
                errno if errno.raw() == libc::ESRCH => Errno::new(libc::ECHILD), // as waitid says it
                errno => errno,
            }),
        })
    }

    /// How the child ended, once its operation is complete with `result`.
    pub(crate) fn exit_status(
        &self,
        pid: i32,
        result: Result<usize, Errno>,
    ) -> Result<ExitStatus, Errno> {
        match self {
            Scratch::WaitId | Scratch::PidFd(Ok(_)) => result.and_then(|_| reap(pid)),
            Scratch::PidFd(Err(errno)) => Err(*errno),
            #[cfg(feature = "sim")]
            Scratch::Told(status) => result.map(|_| *status),
            _ => unreachable!("a message waits for no child"),
        }
    }

    /// The descriptors that came with `count` bytes, once their operation has succeeded.
    pub(crate) fn received_fds(self, count: usize) -> (Vec<OwnedFd>, Arrival) {
        match self {
            Scratch::Passing(passing) => passing.receive(count),
            #[cfg(feature = "sim")]
            Scratch::Brought(fds, arrival) => (fds, arrival),
            _ => unreachable!("only a message brings descriptors"),
        }
    }

    /// The header of a message with descriptors, for the kernel.
    pub(crate) fn header(&mut self) -> *mut libc::msghdr {
        match self {
            Scratch::Passing(passing) => passing.header(),
            _ => unreachable!("only a message with descriptors has it"),
        }
    }

    /// The pidfd, or a number that is no descriptor.
    pub(crate) fn raw_fd(&self) -> RawFd {
        match self {
            Scratch::PidFd(fd) => fd.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            _ => unreachable!("only a pidfd is a descriptor"),
        }
    }
}

/// Collects a child that is known to have ended.
fn reap(pid: i32) -> Result<ExitStatus, Errno> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
        -1 => Err(last_errno()),
        0 => Err(Errno::new(libc::ECHILD)), // readable pidfd, yet still running: not our child
        _ => Ok(ExitStatus::from_raw(status)),
    }
}

fn last_errno() -> Errno {
    Errno::new(io::Error::last_os_error().raw_os_error().expect("the error of a system call"))
}
