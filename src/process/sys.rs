//! The calls that neither std nor nix makes safe: the one room for `unsafe` in this crate.
//! Each function may be called by anyone; each block proves why. Decides nothing.

#![allow(unsafe_code)]

use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::slice;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::fstat;
use nix::unistd::{ForkResult, Pid};

use super::scoreboard::{Header, WorkerPage};

/// Which of the two processes this is, after [`fork`].
pub(crate) enum Fork {
    Parent { child: Pid },
    Child,
}

/// Copies this process: fork(2). The child has the calling thread alone.
///
/// # Errors
///
/// No process (`EAGAIN`) or memory (`ENOMEM`) left.
pub(crate) fn fork() -> io::Result<Fork> {
    // Held by this thread, so that no other one's hold on them is copied; and flushed, or the
    // child would print once more what is buffered.
    let (mut stdout, _stderr) = (io::stdout().lock(), io::stderr().lock());
    let _lost_either_way = stdout.flush();
    // SAFETY: the child of a single-threaded process may do whatever its parent might. Of other
    // threads the child has only what they left in memory: glibc's fork makes its allocator whole
    // again, and what else a thread had locked stays locked, so that the child may hang. The
    // master warns of such threads before it forks, and kills what hangs at its ready deadline.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent { child }),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Closes every descriptor that `keep` doesn't name. Only for a forked child, which never returns
/// to the frames whose descriptors these were.
pub(crate) fn close_all_but(mut keep: Vec<RawFd>) {
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep {
        let fd = fd.unsigned_abs();
        if first < fd {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: takes integers and touches no memory of ours. It can't fail: 5.9 brought it, and
    // `first` is no more than `last`. By its number, as glibc wraps it only since 2.34.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Maps the header and as many pages as `memory`, a sealed memfd, has room for. This process and its
/// children share them with everyone who maps the same, and they are never unmapped.
///
/// # Errors
///
/// It is no such memory, or there is no address space left.
pub(crate) fn map_scoreboard(
    memory: BorrowedFd<'_>,
) -> io::Result<(&'static Header, &'static [WorkerPage])> {
    let bytes = usize::try_from(fstat(memory)?.st_size).unwrap_or(0);
    let seals = fcntl(memory, FcntlArg::F_GET_SEALS)?;
    let is_sealed = seals & SealFlag::F_SEAL_SHRINK.bits() != 0;
    let Some(count) =
        bytes.checked_sub(size_of::<Header>()).map(|rest| rest / size_of::<WorkerPage>())
    else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    if !is_sealed {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: the kernel chooses the place, so that nothing is there that it could replace.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, memory.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping starts on a page, holds a header and `count` pages, is never unmapped,
    // and the memory can't shrink under it. Both types are nothing but atomics, for which all bits
    // are valid and which other processes may write to.
    unsafe {
        let header: *const Header = start.cast();
        Ok((&*header, slice::from_raw_parts(header.add(1).cast(), count)))
    }
}

/// Starts to listen: listen(2), without the bound that nix puts on `backlog`.
///
/// # Errors
///
/// The address is in use after all, or the socket is not one that could listen.
pub(crate) fn listen(socket: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: takes two integers and touches no memory of ours.
    match unsafe { libc::listen(socket.as_raw_fd(), backlog) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the kernel drop this signal from now on.
pub(crate) fn ignore_signal(which: Signal) -> io::Result<()> {
    set_signal(which, SigHandler::SigIgn)
}

/// Undoes an inherited setting for this signal.
pub(crate) fn reset_signal(which: Signal) -> io::Result<()> {
    set_signal(which, SigHandler::SigDfl)
}

fn set_signal(which: Signal, disposition: SigHandler) -> io::Result<()> {
    // SAFETY: neither disposition is a handler, so no code of ours will run in a signal's context.
    unsafe { signal(which, disposition) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::scoreboard::Scoreboard;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::os::fd::AsFd;
    use std::process::exit;
    use std::time::UNIX_EPOCH;

    /// Runs `child` in a forked process and returns its exit code.
    fn exit_code(child: impl FnOnce() -> i32) -> i32 {
        match fork().unwrap() {
            Fork::Child => exit(child()),
            Fork::Parent { child } => match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, code) => code,
                other => panic!("{other:?}"),
            },
        }
    }

    #[test]
    fn a_child_keeps_the_named_descriptors_and_no_other() {
        let files: Vec<_> = (0..8).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let open = |fd: BorrowedFd<'_>| nix::fcntl::fcntl(fd, nix::fcntl::F_GETFD).is_ok();
        let code = exit_code(|| {
            close_all_but(vec![2, files[5].as_raw_fd(), 0, 1, files[2].as_raw_fd()]);
            files.iter().enumerate().map(|(i, file)| i32::from(open(file.as_fd())) << i).sum()
        });
        assert_eq!(code, 1 << 2 | 1 << 5);
    }

    #[test]
    fn pages_are_shared_with_children() {
        let (scoreboard, _memory) = Scoreboard::create(1, UNIX_EPOCH).unwrap();
        let page = scoreboard.claim(0, UNIX_EPOCH).unwrap();
        let code = exit_code(|| {
            page.traffic.requests.add(7);
            0
        });
        assert_eq!((code, page.traffic.requests.read()), (0, 7));
    }

    #[test]
    fn what_is_no_scoreboard_is_not_mapped() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(map_scoreboard(file.as_fd()).is_err());
        let unsealed = memfd_create(c"unsealed", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&unsealed, 1 << 20).unwrap();
        assert!(map_scoreboard(unsealed.as_fd()).is_err());
    }
}
