//! What happens in a child between the fork and the worker: it lets go of everything that is the
//! master's, and takes its seat. Never returns to the master's frames.

use std::any::Any;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::time::Duration;

use core_affinity::CoreId;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use uring_ring::Features;

use crate::config::Identity;
use crate::process::accept::Company;
use crate::process::channel::Limit;
use crate::process::privileges::Limits;
use crate::process::scoreboard::WorkerPage;
use crate::process::seat::Seat;
use crate::process::signals::MASTERS_END;
use crate::process::steer::Slot;
use crate::process::{EXIT_CANNOT_START, EXIT_PANIC, signals, sys};

/// What a new worker is born with.
pub(super) struct Birth {
    pub(super) worker_id: usize,
    pub(super) core: Option<usize>,
    /// The worker's end.
    pub(super) channel: OwnedFd,
    pub(super) passing: OwnedFd,
    pub(super) bell: OwnedFd,
    pub(super) limit: Limit,
    pub(super) listeners: Vec<OwnedFd>,
    /// Who else may accept from them.
    pub(super) companies: Vec<Company>,
    /// It accepts from none of them before it is told to.
    pub(super) is_held: bool,
    /// Where their loads are shown.
    pub(super) slots: Vec<Option<&'static Slot>>,
    pub(super) page: &'static WorkerPage,
    pub(super) features: Features,
    pub(super) identity: Option<Identity>,
    pub(super) no_new_privs: bool,
    pub(super) dumps_core: bool,
    /// Which it has, where those of its master are others.
    pub(super) limits: Option<Limits>,
    pub(super) master: Pid,
    /// How long it drains when that dies.
    pub(super) stop_timeout: Duration,
    /// Signals that the embedder has handlers for, in the master.
    pub(super) signals: Vec<Signal>,
    /// Descriptors of the program around the pool, which stay open.
    pub(super) foreign: Vec<RawFd>,
}

/// Runs the worker in this process, and ends with it.
pub(super) fn become_worker(birth: Birth, worker: &dyn Fn(Seat) -> i32) -> ! {
    let worker_id = birth.worker_id;
    let life = AssertUnwindSafe(|| match birth.take_seat() {
        Ok(seat) => worker(seat),
        Err(error) => {
            log::error!("worker {worker_id} cannot take its seat: {error}");
            EXIT_CANNOT_START
        }
    });
    // The frames below are the master's: a panic must not unwind into them, and an exit runs none
    // of their destructors.
    let code = panic::catch_unwind(life).unwrap_or_else(|panic| {
        log::error!("worker {worker_id} panicked: {}", words_of(panic.as_ref()));
        EXIT_PANIC
    });
    // What handlers have printed, of which standard output holds back a line's beginning.
    log::logger().flush();
    let _lost_either_way = io::stdout().flush();
    sys::exit_at_once(code)
}

impl Birth {
    fn take_seat(self) -> io::Result<Seat> {
        let Birth { worker_id, core, channel, listeners, page, .. } = self;
        let Birth {
            identity,
            no_new_privs,
            dumps_core,
            limits,
            features,
            master,
            stop_timeout,
            signals,
            foreign,
            passing,
            bell,
            limit,
            companies,
            is_held,
            slots,
            ..
        } = self;
        sys::end_after_master(master, stop_timeout)?;
        prctl::set_pdeathsig(MASTERS_END)?;
        if getppid() != master {
            sys::exit_at_once(0); // the master died before it could have told us
        }
        let own = listeners.iter().chain([&channel, &passing, &bell]).map(AsRawFd::as_raw_fd);
        sys::close_all_but((0..=2).chain(foreign).chain(own).collect());
        limits.into_iter().for_each(Limits::restore);
        let signals = signals::of_new_worker(&signals)?;
        sys::set_patient(false)?;
        let core = core.filter(|core| pin(*core));
        page.on_birth(process::id(), core);
        Ok(Seat {
            worker_id,
            core,
            listeners,
            companies,
            is_held,
            channel,
            passing,
            bell,
            limit,
            slots,
            signals,
            stop_timeout,
            page,
            features,
            identity,
            no_new_privs,
            dumps_core,
        })
    }
}

/// Descriptors of the program around the pool. Workers keep them: closing a logger's file under one
/// would have its lines end up in whatever gets the number next, a client's connection for example.
#[derive(Debug)]
pub(super) struct Foreign(Vec<RawFd>);

impl Foreign {
    /// What is open now, but for what is the pool's.
    pub(super) fn but(ours: &[RawFd]) -> Foreign {
        Foreign(open_descriptors().into_iter().filter(|fd| !ours.contains(fd)).collect())
    }

    /// Calls into the program, and sees what it has opened and closed.
    pub(super) fn watch<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let before = open_descriptors();
        let result = call();
        let after = open_descriptors();
        self.0.retain(|fd| after.contains(fd));
        self.0.extend(after.into_iter().filter(|fd| !before.contains(fd)));
        result
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().copied()
    }
}

fn open_descriptors() -> BTreeSet<RawFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    let numbers: Vec<RawFd> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // One of them was the directory's own, which is closed by now.
    numbers.into_iter().filter(|fd| is_open(*fd)).collect()
}

fn is_open(fd: RawFd) -> bool {
    fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok()
}

/// Not being pinned costs speed, nothing else.
fn pin(core: usize) -> bool {
    let pinned = core_affinity::set_for_current(CoreId { id: core });
    if !pinned {
        log::warn!("cannot pin this worker to core {core}: {}", io::Error::last_os_error());
    }
    pinned
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::channel;
    use crate::process::clock::Moment;
    use crate::process::scoreboard::Scoreboard;
    use crate::process::sys::{Fork, fork};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::signal::kill;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use std::fs::File;
    use std::thread;
    use std::time::Instant;
    use uring_ring::Mask;

    #[test]
    fn a_worker_ends_whatever_its_master_has_registered_for_its_own_end() {
        let master = Pid::this();
        let Fork::Parent { child } = fork().unwrap() else {
            sys::hang_at_exit();
            become_worker(birth(master), &|_| 7)
        };
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::StillAlive if Instant::now() < give_up => thread::yield_now(),
                WaitStatus::StillAlive => kill(child, Signal::SIGKILL).unwrap(),
                end => break assert_eq!(end, WaitStatus::Exited(child, 7)),
            }
        }
    }

    fn birth(master: Pid) -> Birth {
        let (channel, passing) = channel::pair().unwrap();
        let page =
            Scoreboard::create(Moment::default()).unwrap().0.claim(0, Moment::default()).unwrap();
        Birth {
            worker_id: 0,
            core: None,
            bell: channel.try_clone().unwrap(),
            channel,
            passing,
            limit: Limit(1024),
            listeners: Vec::new(),
            companies: Vec::new(),
            is_held: false,
            slots: Vec::new(),
            page,
            features: Features::probe(Mask::NONE).unwrap(),
            identity: None,
            no_new_privs: false,
            dumps_core: false,
            limits: None,
            master,
            stop_timeout: Duration::ZERO,
            signals: Vec::new(),
            foreign: Vec::new(),
        }
    }

    #[test]
    fn a_worker_may_have_other_limits_than_its_master() {
        let master = Pid::this();
        let Fork::Parent { child } = fork().unwrap() else {
            let descriptors = || getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            let (before, limits) = (descriptors(), Limits::now().unwrap());
            setrlimit(Resource::RLIMIT_NOFILE, before.0 - 1, before.1).unwrap();
            let birth = Birth { limits: Some(limits), ..birth(master) };
            become_worker(birth, &|_| i32::from(descriptors() != before))
        };
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    }

    #[test]
    fn what_the_program_opens_and_closes_is_noticed() {
        let Fork::Parent { child } = fork().unwrap() else {
            let open = || File::open("/dev/null").unwrap(); // alone: other tests open files, too
            let [before, ours] = [open(), open()];
            let mut foreign = Foreign::but(&[ours.as_raw_fd()]);
            let has = |foreign: &Foreign, fd| foreign.iter().any(|it| it == fd);
            let number = before.as_raw_fd();
            assert!(has(&foreign, number) && !has(&foreign, ours.as_raw_fd()));
            let opened = foreign.watch(open);
            foreign.watch(|| drop(before));
            assert!(has(&foreign, opened.as_raw_fd()) && !has(&foreign, number));
            let ours_now = open();
            assert_eq!(ours_now.as_raw_fd(), number, "a number that is free again");
            foreign.watch(|| {});
            assert!(!has(&foreign, number));
            sys::exit_at_once(0)
        };
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    }
}
