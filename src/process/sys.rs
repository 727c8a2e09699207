//! The calls that neither std nor nix makes safe: the one room for `unsafe` in this crate.
//! Each function may be called by anyone; each block proves why. Decides nothing.

#![allow(unsafe_code)]

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};
use nix::sys::stat::fstat;
use nix::unistd::{ForkResult, Pid};

use super::scoreboard::{Header, WorkerPage};
use super::signals::MASTERS_END;
use super::steer::Slot;

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

/// Maps the header and as many pages as `memory`, a sealed memfd, has room for. This process and its
/// children share them with everyone who maps the same, and they are never unmapped.
///
/// # Errors
///
/// It is no such memory, or there is no address space left.
pub(crate) fn map_scoreboard(
    memory: BorrowedFd<'_>,
) -> io::Result<(&'static Header, &'static [WorkerPage])> {
    let seals = fcntl(memory, FcntlArg::F_GET_SEALS)?;
    let is_sealed = seals & SealFlag::F_SEAL_SHRINK.bits() != 0;
    // After the seals: what can't shrink any more is at least as large later.
    let bytes = usize::try_from(fstat(memory)?.st_size).unwrap_or(0);
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

/// Takes over a descriptor that this process was started with, and keeps it from its own children.
///
/// # Errors
///
/// There is none of this number that came through an exec and wasn't taken yet (`EBADF`): the
/// standard streams are everybody's, and what this program opens itself is marked to be closed.
pub(crate) fn take_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes integers and touches no memory of ours.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if fd <= libc::STDERR_FILENO || flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: takes integers and touches no memory of ours.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and wasn't marked until now, as all is that std or this function own: so
    // it was there when the program started, and this is its first owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A copy that survives an exec, with a number that isn't a standard stream's.
///
/// # Errors
///
/// No descriptor left.
pub(crate) fn duplicate_for_exec(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: takes integers and touches no memory of ours.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, libc::STDERR_FILENO + 1) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a successful duplication returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
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

/// Lets this process wait for others on its core when it wakes up, instead of interrupting them
/// (`SCHED_BATCH`, sched(7)); or not any more. One that somebody has given a policy of its own keeps
/// that.
///
/// # Errors
///
/// A security module forbids it.
pub(crate) fn set_patient(is_patient: bool) -> io::Result<()> {
    let wanted = if is_patient { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
    // SAFETY: takes an integer; 0 is the calling thread.
    let current = unsafe { libc::sched_getscheduler(0) };
    if current == wanted || ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&current) {
        return Ok(());
    }
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: takes integers, and `parameters`, which it reads.
    match unsafe { libc::sched_setscheduler(0, wanted, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has a program start deaf to no signal, although this process reads its own from a descriptor: one
/// that hangs before it reads any must be there to be told to stop.
pub(crate) fn unblock_signals_in(command: &mut Command) {
    let unblock = || {
        SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: between fork and exec it calls sigprocmask(2) alone, which is async-signal-safe and
    // allocates nothing: what it turns an error into is a number.
    unsafe { command.pre_exec(unblock) };
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

/// An instruction of a program for the kernel: `struct bpf_insn` (linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Instruction {
    code: u8,
    /// Two bit fields, so that their order is the machine's.
    registers: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    pub(crate) fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
        assert!(to < 16 && from < 16, "a register has four bits");
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        Instruction { code, registers, offset, value }
    }
}

/// Makes a map of `count` zeroed slots for the kernel's programs, which this process and its
/// children share with them until all have ended. Kernel 5.5.
///
/// # Errors
///
/// No right to, no memory, a kernel without it.
pub(crate) fn share_slots(count: usize) -> io::Result<(OwnedFd, &'static [Slot])> {
    let value_bytes = size_of::<Slot>();
    let map = create_map(BPF_MAP_TYPE_ARRAY, value_bytes, count, BPF_F_MMAPABLE)?;
    let (bytes, access) = (count * value_bytes, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: the kernel chooses the place, so that nothing is there that it could replace.
    let start =
        unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping starts on a page, holds `count` values of a slot's size, which the
    // kernel keeps in a row (it pads to 8 bytes), and is never unmapped; it keeps the map, which
    // can't shrink. A slot is nothing but atomics, for which zeroes are valid and which the kernel
    // and other processes may write to.
    Ok((map, unsafe { slice::from_raw_parts(start.cast(), count) }))
}

/// A map from which a program selects one of a group's sockets. Kernel 4.19.
pub(crate) struct SocketMap(OwnedFd);

impl SocketMap {
    /// # Errors
    ///
    /// No right to, no memory, a kernel without it.
    pub(crate) fn new(places: usize) -> io::Result<SocketMap> {
        create_map(BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, size_of::<u64>(), places, 0).map(SocketMap)
    }

    /// The cookie of the socket at this place.
    pub(crate) fn read(&self, at: usize) -> Option<u64> {
        let mut cookie = 0;
        self.element(BPF_MAP_LOOKUP_ELEM, at, Some(&mut cookie)).ok()?;
        Some(cookie)
    }

    /// Puts a socket there, which must listen and be in no such map.
    ///
    /// # Errors
    ///
    /// It doesn't, or it is (`EBUSY`).
    pub(crate) fn put(&self, at: usize, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut socket = u64::from(socket.as_raw_fd().unsigned_abs());
        self.element(BPF_MAP_UPDATE_ELEM, at, Some(&mut socket))
    }

    /// Removes the socket that is there, if any.
    ///
    /// # Errors
    ///
    /// There is no such place.
    pub(crate) fn clear(&self, at: usize) -> io::Result<()> {
        match self.element(BPF_MAP_DELETE_ELEM, at, None) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn element(&self, command: i32, at: usize, value: Option<&mut u64>) -> io::Result<()> {
        let key = u32::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut attributes = ElementAttributes {
            map: self.0.as_raw_fd().unsigned_abs(),
            _padding: 0,
            key: &raw const key as u64,
            value: value.map_or(0, |value| ptr::from_mut(value) as u64),
            flags: 0,
        };
        // SAFETY: this map has keys of 4 and values of 8 bytes, as it was made by `new`. Ours are as
        // large, and outlive the call; the value is borrowed for writing, and no command that
        // takes one is given none (it would fail: nothing of ours is at zero).
        unsafe { bpf(command, &mut attributes) }.map(drop)
    }
}

impl AsFd for SocketMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why a program wasn't loaded.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: io::Error,
    /// What the verifier says to it; empty when it was not asked.
    pub(crate) log: String,
}

/// Loads a program that selects a socket of a group. Kernel 4.19.
///
/// # Errors
///
/// No right to, or the verifier refuses it.
pub(crate) fn load_reuseport_program(program: &[Instruction]) -> Result<OwnedFd, Refusal> {
    let without_log = match load(program, &mut []) {
        Ok(loaded) => return Ok(loaded),
        Err(error) => error,
    };
    let mut log = vec![0; LOG_BYTES];
    let error = match load(program, &mut log) {
        Ok(loaded) => return Ok(loaded),
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => without_log,
        Err(error) => error,
    };
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    Err(Refusal { error, log: String::from_utf8_lossy(&log[..end]).into_owned() })
}

/// A hundred instructions take about 10 KiB.
const LOG_BYTES: usize = 64 << 10;

/// The verifier gives up when a signal arrives, and asks to be called again.
const LOAD_TRIES: usize = 5;

fn load(program: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_SK_REUSEPORT,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64, // of the functions that we call, none asks for the GPL
        log_level: u32::from(!log.is_empty()),
        log_bytes: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
    };
    let mut tries = LOAD_TRIES;
    loop {
        tries -= 1;
        // SAFETY: the program and the licence are read, the log is borrowed for writing; each is as
        // long as said, and outlives the call. What the program may do when it runs is bounded by
        // the verifier; of our memory it reaches maps alone, and these hold atomics or sockets.
        match unsafe { bpf(BPF_PROG_LOAD, &mut attributes) } {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries > 0 => {}
            // SAFETY: the call has made this descriptor, so that nobody else owns it.
            loaded => return loaded.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
}

/// Undoes [`attach_program`], whoever did that.
///
/// # Errors
///
/// Nothing is attached.
pub(crate) fn detach_program(socket: BorrowedFd<'_>) -> io::Result<()> {
    /// libc has no name for it (5.3).
    const SO_DETACH_REUSEPORT_BPF: i32 = 68;
    let ignored = 0;
    set_option(socket, libc::SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, ignored)
}

/// Lets a program choose among all sockets of the group that `socket` belongs to, from now on.
///
/// # Errors
///
/// The socket belongs to no group, or the descriptor is no such program.
pub(crate) fn attach_program(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF, program.as_raw_fd())
}

/// Bounds what the kernel takes to be sent on a TCP socket, and hasn't sent yet (`TCP_NOTSENT_LOWAT`);
/// what is accepted at a listener inherits it.
///
/// # Errors
///
/// This is no TCP socket.
pub(crate) fn set_unsent_bytes_max(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes.cast_signed())
}

/// Has a TCP listener hear no more first segments (those with SYN and without ACK): whoever knocks is
/// neither let in nor refused while it is open, and tries again after a second. Whoever is on the way in
/// already still comes: `SO_ATTACH_FILTER` (socket(7)), which for TCP sees segments from their header on.
///
/// # Errors
///
/// This is no socket, or somebody locked its filter.
pub(crate) fn attach_door(listener: BorrowedFd<'_>) -> io::Result<()> {
    /// Where a TCP header has its flags (RFC 9293 section 3.1).
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let statement = |code: u32, k| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, FLAGS_AT),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN | ACK),
        // If it is such a segment, the next one, else one further.
        libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, SYN) },
        statement(libc::BPF_RET | libc::BPF_K, 0),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the option's value is as long as said; it names as many statements as it says, which live
    // until the call is over, and the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that the peer of a stream socket hasn't taken yet, sent or not: `SIOCOUTQ` (tcp(7), unix(7)).
///
/// # Errors
///
/// This is no socket that sends.
pub(crate) fn untaken_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes = 0_i32;
    // SAFETY: the kernel writes an integer, which is ours.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets an option whose value is an integer.
fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is an integer, which is as long as said and is only read.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What tells a socket from any other of this boot: `SO_COOKIE`. Kernel 4.12.
///
/// # Errors
///
/// This is no socket.
pub(crate) fn socket_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut bytes = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes no more than the `bytes` that the cookie has; both are ours.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut bytes,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

fn create_map(kind: u32, value_bytes: usize, entries: usize, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = MapAttributes {
        kind,
        key_bytes: size_of::<u32>() as u32,
        value_bytes: value_bytes as u32,
        entries: u32::try_from(entries).map_err(|_| io::ErrorKind::InvalidInput)?,
        flags,
    };
    // SAFETY: the attributes name no memory.
    let fd = unsafe { bpf(BPF_MAP_CREATE, &mut attributes) }?;
    // SAFETY: the call has made this descriptor, so that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2). Descriptors that it returns are closed on exec.
///
/// # Safety
///
/// `A` is the beginning of `union bpf_attr` for this command, without padding; the memory that it
/// names is as large as the command has it, and may be written to where the command does.
unsafe fn bpf<A>(command: i32, attributes: &mut A) -> io::Result<RawFd> {
    // SAFETY: `attributes` is as large as said; what it leads to is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// Numbers of linux/bpf.h.
const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_DELETE_ELEM: i32 = 3;
const BPF_PROG_LOAD: i32 = 5;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_REUSEPORT_SOCKARRAY: u32 = 20;
const BPF_PROG_TYPE_SK_REUSEPORT: u32 = 21;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// `union bpf_attr` for `BPF_MAP_CREATE`; what is left out is zero.
#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

/// Likewise for `BPF_MAP_*_ELEM`.
#[repr(C)]
struct ElementAttributes {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Likewise for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
}

/// The page that [`on_stack_signal`] writes to.
static STACK_PAGE: AtomicPtr<WorkerPage> = AtomicPtr::new(ptr::null_mut());

/// What asks a worker for its stack: a real-time signal, since no key, no limit and no part of the
/// kernel sends those by itself, and `SIGQUIT` and the like belong to operators. The first ones are
/// glibc's own or popular with libraries, so not the first.
fn stack_signal() -> i32 {
    libc::SIGRTMIN() + 5
}

/// Lets this process, a worker, answer [`ask_for_stack`] with its stack as the last words of `page`,
/// and with its end.
///
/// The process never goes on after that. The handler allocates and takes locks, which no handler of
/// a signal should do: it may find the allocator in the middle of something, and then hang, or leave
/// it in disorder. So the process ends by `SIGKILL` when it has written, and somebody else has to see
/// to it that it does so if it can't.
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
    // has the signature of one without `SA_SIGINFO`, lives as long as the program, and neither
    // unwinds nor returns. It isn't async-signal-safe: what it interrupted may have left the
    // allocator in the middle of something. No other code of this process runs after it, and what
    // it shares with others, its page, is written with atomic stores within bounds.
    match unsafe { libc::sigaction(stack_signal(), &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks a worker for its stack: it appears as the last words of its page, or not. When it is
/// written, the worker kills itself (`SIGKILL`).
///
/// # Errors
///
/// There is no such process (`ESRCH`).
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
    // What the allocator is left like, nobody shall find.
    // SAFETY: takes integers, and ends this process before it returns.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// The master of this process, and how many seconds it may outlive that, for [`on_masters_end`].
static MASTER: AtomicI32 = AtomicI32::new(0);
static ORPHANED_SECONDS_MAX: AtomicU32 = AtomicU32::new(0);

/// What drains in time ends before it is ended.
const ORPHANED_SECONDS_TO_SPARE: u64 = 1;

/// Has this process, a worker, end soon after `within` from the time on when [`MASTERS_END`] tells it
/// that `master` has died, even if it does nothing any more but spin in a handler: by `SIGALRM`, for which
/// whatever it was told before is forgotten then. Who still listens hears of it as of a `SIGTERM`. Who has
/// it told so is somebody else.
///
/// # Errors
///
/// None that we know of: the signal may be caught.
pub(crate) fn end_after_master(master: Pid, within: Duration) -> io::Result<()> {
    let seconds = within.as_millis().div_ceil(1000) as u64 + ORPHANED_SECONDS_TO_SPARE;
    MASTER.store(master.as_raw(), Ordering::Relaxed);
    ORPHANED_SECONDS_MAX.store(u32::try_from(seconds).unwrap_or(u32::MAX), Ordering::Relaxed);
    let handler = SigHandler::Handler(on_masters_end);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler has the signature that it needs without `SA_SIGINFO`, lives as long as the
    // program, doesn't unwind, and does nothing but atomic loads and calls of functions that are
    // async-signal-safe (signal-safety(7)) and leave `errno` alone when they succeed.
    unsafe { sigaction(MASTERS_END, &action) }?;
    // The program around the pool may have blocked them.
    let mut needed = SigSet::from(MASTERS_END);
    needed.add(Signal::SIGALRM);
    needed.thread_unblock()?;
    Ok(())
}

extern "C" fn on_masters_end(_: i32) {
    // SAFETY: takes nothing, and can't fail.
    if unsafe { libc::getppid() } == MASTER.load(Ordering::Relaxed) {
        return; // somebody else has sent it
    }
    // SAFETY: all take integers; the default disposition is no handler. None fails: the signals exist,
    // a process may send itself any, and alarm(2) always succeeds.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(ORPHANED_SECONDS_MAX.load(Ordering::Relaxed));
        libc::kill(libc::getpid(), libc::SIGTERM);
    }
}

/// Ends this process, a forked child, without a farewell. What a program registers to be run at its end
/// (atexit(3), destructors of libraries) is the master's to run: here it could wait for ever for a lock
/// that another thread of the master's held when this process was forked.
pub(crate) fn exit_at_once(code: i32) -> ! {
    // SAFETY: takes an integer, and runs nothing of this process any more.
    unsafe { libc::_exit(code) }
}

/// Has whoever ends this process by exit(3) wait for ever, as for a lock that nobody will let go of.
#[cfg(test)]
pub(crate) fn hang_at_exit() {
    extern "C" fn hang() {
        loop {
            std::thread::park();
        }
    }
    // SAFETY: the function takes nothing, and lives as long as the program.
    assert_eq!(unsafe { libc::atexit(hang) }, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::clock::Moment;
    use crate::process::scoreboard::Scoreboard;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use std::os::fd::AsFd;

    /// Runs `child` in a forked process and returns its exit code.
    fn exit_code(child: impl FnOnce() -> i32) -> i32 {
        match fork().unwrap() {
            Fork::Child => exit_at_once(child()),
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
    fn pages_are_shared_with_children() {
        let (scoreboard, _memory) = Scoreboard::create(Moment::default()).unwrap();
        let page = scoreboard.claim(0, Moment::default()).unwrap();
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
            exit_at_once(1);
        };
        while page.traffic.turns.read() == 0 {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn what_a_killed_worker_was_doing_is_known_until_its_successor_begins() {
        let (scoreboard, _memory) = Scoreboard::create(Moment::default()).unwrap();
        let page = scoreboard.claim(0, Moment::default()).unwrap();
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
        page.on_end(std::process::id(), crate::process::scoreboard::State::Failed);
        let requests = page.in_flight(3_000).requests;
        let shown: Vec<_> = requests
            .iter()
            .map(|it| (&*it.method_and_target, it.age.as_nanos(), it.is_running))
            .collect();
        assert_eq!(shown, [("GET /hangs", 1_000, true), ("GET /waits", 2_000, false)]);
        scoreboard.claim(0, Moment::default()).unwrap();
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
        let (scoreboard, _memory) = Scoreboard::create(Moment::default()).unwrap();
        let page = scoreboard.claim(0, Moment::default()).unwrap();
        let child = forked(page, || {
            install_stack_dump(page).unwrap();
            a_loop_without_an_end(page);
        });
        ask_for_stack(child).unwrap();
        let start = std::time::Instant::now();
        let died = WaitStatus::Signaled(child, Signal::SIGKILL, false);
        while waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() != died {
            assert!(start.elapsed().as_secs() < 20, "it ends by itself");
            std::thread::yield_now();
        }
        let words = page.last_words().expect("it can still speak");
        assert!(words.contains("a_loop_without_an_end"), "{words}");
        assert!(ask_for_stack(child).is_err(), "there is nobody left");
        page.on_end(std::process::id(), crate::process::scoreboard::State::Failed);
        scoreboard.claim(0, Moment::default()).unwrap();
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
