//! Memory that the kernel needs beside an operation's own buffers: message headers, exit records.
//! Boxed, so that it stays where it is while the slot table grows.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::errno::Errno;
use crate::send::SendBuffer;

pub(crate) enum Scratch {
    /// sendmsg(2): the header and the two vectors that it points to.
    Message { header: libc::msghdr, parts: [libc::iovec; 2] },
    /// waitid(2) through the ring, which the kernel writes to when the child ends (6.7).
    ExitRecord(libc::siginfo_t),
    /// Below 6.7: a pidfd becomes readable when the child ends; waitid(2) then returns at once.
    /// Or why there is none.
    PidFd(Result<OwnedFd, Errno>),
    /// What a simulated kernel says.
    #[cfg(feature = "sim")]
    Told(ExitStatus),
}

impl Scratch {
    /// The header of a two-part send. It points into `buffer`'s heap memory and into itself.
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

    pub(crate) fn exit_record() -> Box<Scratch> {
        // SAFETY: siginfo_t is plain data; the kernel fills it in.
        Box::new(Scratch::ExitRecord(unsafe { mem::zeroed() }))
    }

    pub(crate) fn pid_fd(pid: i32) -> Box<Scratch> {
        // SAFETY: takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        Box::new(Scratch::PidFd(match fd {
            // SAFETY: a successful pidfd_open returns a new descriptor that nobody else owns.
            0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
            _ => Err(match last_errno() {
                errno if errno.raw() == libc::ESRCH => Errno::new(libc::ECHILD), // as waitid says it
                errno => errno,
            }),
        }))
    }

    /// How the child ended, once its operation is complete with `result`.
    pub(crate) fn exit_status(
        &self,
        pid: i32,
        result: Result<usize, Errno>,
    ) -> Result<ExitStatus, Errno> {
        match self {
            Scratch::ExitRecord(record) => result.map(|_| decode(record)),
            Scratch::PidFd(Ok(_)) => result.and_then(|_| reap(pid)),
            Scratch::PidFd(Err(errno)) => Err(*errno),
            #[cfg(feature = "sim")]
            Scratch::Told(status) => result.map(|_| *status),
            Scratch::Message { .. } => unreachable!("a send waits for no child"),
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

/// wait(2) and waitid(2) tell the same in two shapes; std knows the first.
fn decode(record: &libc::siginfo_t) -> ExitStatus {
    const CORE_DUMPED: i32 = 0x80;
    // SAFETY: waitid(2) fills the SIGCHLD fields in, which these read.
    let status = unsafe { record.si_status() };
    ExitStatus::from_raw(match record.si_code {
        libc::CLD_EXITED => status << 8,
        libc::CLD_DUMPED => status | CORE_DUMPED,
        _ => status,
    })
}
