//! The calls that neither std nor nix makes safe: the one room for `unsafe` in this crate.
//! Each function may be called by anyone; each block proves why. Decides nothing.

#![allow(unsafe_code)]

use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid};

use super::scoreboard::WorkerPage;

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

/// Takes `count` descriptors from `first` on, which whoever executed this program left open for it.
/// Taken once; later calls find none.
///
/// # Errors
///
/// The number of the first that isn't open, or that this program opened itself (`EBADF`).
pub(crate) fn take_inherited(
    first: RawFd,
    count: usize,
) -> Result<Vec<OwnedFd>, (RawFd, io::Error)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    assert!(first > libc::STDERR_FILENO, "the first three are everybody's");
    if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let take = |fd| {
        // SAFETY: takes integers and touches no memory of ours.
        match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
            -1 => Err((fd, io::Error::last_os_error())),
            // Marked to be closed by exec: it can't have come through one.
            flags if flags & libc::FD_CLOEXEC != 0 => {
                Err((fd, io::Error::from_raw_os_error(libc::EBADF)))
            }
            // SAFETY: it is open and not marked as everything is that std opens, so it was there
            // when the program started; and nobody else takes what was, as we do so once.
            _ => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    };
    (first..).take(count).map(take).collect()
}

/// Makes `count` zeroed pages that this process and its children share until all have ended.
///
/// # Errors
///
/// No memory left.
pub(crate) fn share_pages(count: usize) -> io::Result<&'static [WorkerPage]> {
    let bytes = count * size_of::<WorkerPage>();
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses the place, so that nothing is there that it could replace.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping starts on a page, holds `count` pages and is never unmapped. A page is
    // nothing but atomics, for which zeroes are valid and which other processes may write to.
    Ok(unsafe { slice::from_raw_parts(start.cast(), count) })
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
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::os::fd::AsFd;
    use std::process::exit;

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
    fn what_this_program_opened_is_not_inherited() {
        let code = exit_code(|| {
            let ours = std::fs::File::open("/dev/null").unwrap();
            let (fd, error) = take_inherited(ours.as_raw_fd(), 1).unwrap_err();
            i32::from((fd, error.raw_os_error()) != (ours.as_raw_fd(), Some(libc::EBADF)))
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn pages_are_zeroed_and_shared_with_children() {
        let pages = share_pages(3).unwrap();
        assert_eq!(pages.len(), 3);
        let code = exit_code(|| {
            pages[2].traffic.requests.add(7);
            0
        });
        assert_eq!((code, pages[1].traffic.requests.read()), (0, 0));
        assert_eq!(pages[2].traffic.requests.read(), 7);
    }
}
