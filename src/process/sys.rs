//! The calls that neither std nor nix makes safe: the one room for `unsafe` in this crate.
//! Each function may be called by anyone; each block proves why. Decides nothing.

#![allow(unsafe_code)]

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

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

/// The page that [`on_stack_signal`] writes to.
static STACK_PAGE: AtomicPtr<WorkerPage> = AtomicPtr::new(ptr::null_mut());

/// What asks a worker for its stack: a real-time signal, since no key, no limit and no part of the
/// kernel sends those by itself, and `SIGQUIT` and the like belong to operators. The first ones are
/// glibc's own or popular with libraries, so not the first.
fn stack_signal() -> i32 {
    libc::SIGRTMIN() + 5
}

/// Lets this process, a worker, answer [`ask_for_stack`] with its stack as the last words of `page`.
///
/// The handler allocates and takes locks, which no handler of a signal should do: it may find the
/// allocator, or std's lock on backtraces, in the middle of something, and then it hangs. It is only
/// for a process that is about to be killed, by someone who doesn't wait for its words for long.
///
/// # Errors
///
/// None that we know of: the signal exists, and may be caught.
pub(crate) fn install_stack_dump(page: &'static WorkerPage) -> io::Result<()> {
    STACK_PAGE.store(ptr::from_ref(page).cast_mut(), Ordering::Release);
    // SAFETY: all zeroes is a valid `sigaction`: no flags, an empty mask, the default disposition.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_stack_signal as extern "C" fn(i32) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` lives through the call, and nobody wants to know the one before. The handler
    // has the signature of one without `SA_SIGINFO`, lives as long as the program, and never
    // unwinds. That it isn't async-signal-safe endangers progress, not memory: std and the allocator
    // are sound for whoever interrupts their own thread, as their locks aren't re-entrant; at worst
    // it waits for itself until it is killed.
    match unsafe { libc::sigaction(stack_signal(), &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks a worker for its stack: it appears as the last words of its page, or not.
///
/// # Errors
///
/// There is no such process (`ESRCH`).
#[cfg_attr(not(test), expect(dead_code, reason = "the master is to ask"))]
pub(crate) fn ask_for_stack(worker: Pid) -> io::Result<()> {
    // SAFETY: takes two integers and touches no memory of ours.
    match unsafe { libc::kill(worker.as_raw(), stack_signal()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_stack_signal(_: i32) {
    // SAFETY: the pointer is null, or was made of a `&'static WorkerPage` and hasn't changed since.
    let Some(page) = (unsafe { STACK_PAGE.load(Ordering::Acquire).as_ref() }) else { return };
    page.write_last_words(Backtrace::force_capture().to_string().as_bytes());
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
            page.figures.requests.add(7);
            0
        });
        assert_eq!((code, page.figures.requests.read()), (0, 7));
    }

    /// A forked worker that does `work` for ever, and what must be true before it is looked at.
    fn forked(page: &WorkerPage, work: impl FnOnce()) -> Pid {
        let Fork::Parent { child } = fork().unwrap() else {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap(); // whatever becomes of the test
            work();
            exit(1);
        };
        while page.traffic.turns.read() == 0 {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn what_a_killed_worker_was_doing_is_known_until_its_successor_begins() {
        let (scoreboard, _memory) = Scoreboard::create(1, UNIX_EPOCH).unwrap();
        let page = scoreboard.claim(0, UNIX_EPOCH).unwrap();
        let child = forked(page, || {
            let black_box = &page.figures.black_box;
            black_box.begin(b"GET /waits HTTP/1.1\r\n", 10, 1_000);
            black_box.park();
            black_box.begin(b"GET /hangs HTTP/1.1\r\n", 10, 2_000);
            page.traffic.turns.add(1);
            std::thread::sleep(std::time::Duration::from_secs(60));
        });
        nix::sys::signal::kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
        page.on_end(crate::process::scoreboard::State::Failed);
        let requests = page.in_flight(3_000).requests;
        let shown: Vec<_> = requests
            .iter()
            .map(|it| (&*it.method_and_target, it.age.as_nanos(), it.is_running))
            .collect();
        assert_eq!(shown, [("GET /hangs", 1_000, true), ("GET /waits", 2_000, false)]);
        scoreboard.claim(0, UNIX_EPOCH).unwrap();
        assert_eq!(page.in_flight(3_000).requests, []);
    }

    #[inline(never)]
    fn a_loop_without_an_end(page: &WorkerPage) {
        page.traffic.turns.set(1);
        loop {
            std::hint::black_box(page.traffic.turns.read());
        }
    }

    #[test]
    fn a_worker_that_hangs_says_where() {
        let (scoreboard, _memory) = Scoreboard::create(1, UNIX_EPOCH).unwrap();
        let page = scoreboard.claim(0, UNIX_EPOCH).unwrap();
        let child = forked(page, || {
            install_stack_dump(page).unwrap();
            a_loop_without_an_end(page);
        });
        ask_for_stack(child).unwrap();
        let start = std::time::Instant::now();
        while page.last_words().is_none() && start.elapsed().as_secs() < 20 {
            std::thread::yield_now();
        }
        nix::sys::signal::kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
        let words = page.last_words().expect("it can still speak");
        assert!(words.contains("a_loop_without_an_end"), "{words}");
        assert!(ask_for_stack(child).is_err(), "there is nobody left");
        page.on_end(crate::process::scoreboard::State::Failed);
        scoreboard.claim(0, UNIX_EPOCH).unwrap();
        assert_eq!(page.last_words(), None, "a successor has its own");
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
