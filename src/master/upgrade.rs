//! Two masters: ours, and that of another binary. The old one starts the new one and goes on until
//! that has taken over; then it hands over what its workers hand over, and ends with them.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uring_ring::{Errno, Op, Ring};

use super::Tag;
use crate::process::channel::{self, Limit, Message};
use crate::process::inherit::{self, Bequest, Inheritance};
use crate::process::listen::Listeners;
use crate::process::parcel::{DESCRIPTORS_MAX, HANDED_OVER_MAX, Origin, Parcel};
use crate::process::sys;

/// Pause after the kernel had too many descriptors under way for this user.
const RETRY: Duration = Duration::from_millis(5);

/// How this program was started, and can be started again.
#[derive(Debug)]
pub(super) struct Program {
    path: io::Result<PathBuf>,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be asked at the start: another file may be in the program's place later.
    pub(super) fn of_this_process() -> Program {
        Program { path: env::current_exe(), arguments: env::args_os().skip(1).collect() }
    }

    /// Starts it, with what the new master needs.
    pub(super) fn start(
        &self,
        number: u32,
        listeners: &Listeners,
        scoreboard: &OwnedFd,
    ) -> io::Result<NewMaster> {
        let path = self.path.as_ref().map_err(|error| io::Error::from(error.kind()))?;
        let (messages, its_messages) = channel::pair()?;
        let (passing, its_passing) = channel::pair()?;
        let bequest =
            Bequest::new(listeners, scoreboard.as_fd(), its_messages.as_fd(), its_passing.as_fd())?;
        let mut command = Command::new(path);
        sys::unblock_signals_in(&mut command);
        let child = command
            .args(&self.arguments)
            .env(inherit::VARIABLE, bequest.letter())
            .env_remove("LISTEN_PID") // they are about this process
            .env_remove("WATCHDOG_PID")
            .spawn()?;
        let pid = Pid::from_raw(child.id() as i32);
        Ok(NewMaster {
            number,
            pid,
            messages,
            passing,
            outbox: VecDeque::new(),
            sending: Vec::new(),
            retry_at: None,
            serves: false,
            is_unwatched: false,
            untold: 0,
        })
    }
}

/// The master that is to take over, or has.
pub(super) struct NewMaster {
    /// What arrives late from one before has another.
    pub(super) number: u32,
    pub(super) pid: Pid,
    messages: OwnedFd,
    passing: OwnedFd,
    outbox: VecDeque<(OwnedFd, Origin)>,
    /// Where those are from that are on their way.
    sending: Vec<Origin>,
    /// Nothing is sent before.
    retry_at: Option<Instant>,
    /// It has taken over.
    pub(super) serves: bool,
    /// Nothing tells when it ends but a signal that may be about anybody.
    pub(super) is_unwatched: bool,
    /// Messages that are on their way.
    untold: usize,
}

impl NewMaster {
    /// Listens to it, and to its end.
    pub(super) fn begin(&self, limit: Limit, ring: &mut Ring<Tag>) {
        ring.push(Op::WaitChild { pid: self.pid.as_raw() }, Tag::NewMasterEnded(self.number));
        self.listen(limit, ring);
    }

    pub(super) fn listen(&self, limit: Limit, ring: &mut Ring<Tag>) {
        let op = Op::Read { fd: self.messages.as_raw_fd(), buffer: limit.read_buffer() };
        ring.push(op, Tag::NewMasterSaid(self.number));
    }

    /// Gives it a connection.
    pub(super) fn hand_over(&mut self, connection: OwnedFd, origin: Origin) {
        self.outbox.push_back((connection, origin));
    }

    /// Tells it something. It says little, and so never waits.
    pub(super) fn say(&mut self, message: &Message, limit: Limit, ring: &mut Ring<Tag>) {
        let packet = limit.encode(message).expect("masters say little");
        let op = Op::Send { fd: self.messages.as_raw_fd(), buffer: packet.into() };
        ring.push(op, Tag::ToldNewMaster(self.number));
        self.untold += 1;
    }

    /// Something was told, or never will be.
    pub(super) fn on_told(&mut self) {
        self.untold -= 1;
    }

    /// Sends some of what waits, unless others are on their way.
    pub(super) fn flush(&mut self, now: Instant, ring: &mut Ring<Tag>) {
        let is_paused = self.retry_at.is_some_and(|at| at > now);
        if self.outbox.is_empty() || !self.sending.is_empty() || is_paused {
            return;
        }
        self.retry_at = None;
        let count = self.outbox.len().min(HANDED_OVER_MAX);
        let (fds, origins): (_, Vec<Origin>) = self.outbox.drain(..count).unzip();
        self.sending.clone_from(&origins);
        let payload = Parcel::Connections { first: 0, origins }.encode();
        let op = Op::SendFds { fd: self.passing.as_raw_fd(), payload, fds, wait: true };
        ring.push(op, Tag::Forwarded(self.number));
    }

    /// A message went out, or didn't: then its connections wait, or end when there is nobody.
    pub(super) fn on_forwarded(
        &mut self,
        fds: Vec<OwnedFd>,
        result: Result<(), Errno>,
        now: Instant,
    ) {
        let sent = fds.into_iter().zip(self.sending.drain(..));
        match result {
            Ok(()) => {}
            Err(errno) if errno.raw() == libc::ETOOMANYREFS => {
                sent.rev().for_each(|back| self.outbox.push_front(back));
                self.retry_at = Some(now + RETRY);
            }
            Err(errno) => {
                let count = sent.len();
                log::warn!("{count} connections were lost on their way to the new master: {errno}");
            }
        }
    }

    /// When to [`flush`](NewMaster::flush) without an event.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Connections that are here, and shall be there.
    pub(super) fn held(&self) -> usize {
        self.outbox.len() + self.sending.len()
    }

    /// Whether everything that was for it is on its side.
    pub(super) fn is_served(&self) -> bool {
        self.held() == 0 && self.untold == 0
    }

    pub(super) fn signal(&self, signal: Signal) {
        let _gone_already = kill(self.pid, signal);
    }
}

/// The master that this one takes over from.
pub(super) struct OldMaster {
    pub(super) pid: Pid,
    /// What it passes has to wait.
    pub(super) is_parked: bool,
    messages: OwnedFd,
    passing: OwnedFd,
    /// All that it had, whether or not the settings still name it.
    pub(super) listeners: Listeners,
    /// It has said its last.
    pub(super) is_gone: bool,
    /// It was told that this master's workers are ready.
    pub(super) is_told: bool,
}

impl OldMaster {
    pub(super) fn new(left: Inheritance) -> OldMaster {
        let Inheritance { from: pid, listeners, messages, passing, .. } = left;
        OldMaster {
            pid,
            is_parked: false,
            messages,
            passing,
            listeners,
            is_gone: false,
            is_told: false,
        }
    }

    /// The number of every descriptor.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let lines = [&self.messages, &self.passing].map(AsRawFd::as_raw_fd);
        self.listeners.descriptors().chain(lines)
    }

    /// Listens to it.
    pub(super) fn begin(&self, limit: Limit, ring: &mut Ring<Tag>) {
        self.listen(limit, ring);
        self.receive(ring);
    }

    pub(super) fn listen(&self, limit: Limit, ring: &mut Ring<Tag>) {
        let op = Op::Read { fd: self.messages.as_raw_fd(), buffer: limit.read_buffer() };
        ring.push(op, Tag::OldMasterSaid);
    }

    pub(super) fn receive(&self, ring: &mut Ring<Tag>) {
        let op = Op::RecvFds {
            fd: self.passing.as_raw_fd(),
            payload: Parcel::read_buffer(),
            fds_max: DESCRIPTORS_MAX,
            wait: true,
        };
        ring.push(op, Tag::OldMasterPassed);
    }

    /// Tells it that this master's workers are ready.
    pub(super) fn say_ready(&mut self, workers: usize, limit: Limit, ring: &mut Ring<Tag>) {
        let pid = std::process::id();
        self.say(
            &Message::WorkerReady { worker_id: workers, pid, connections_max: 0 },
            limit,
            ring,
        );
        self.is_told = true;
    }

    pub(super) fn say(&self, message: &Message, limit: Limit, ring: &mut Ring<Tag>) {
        let packet = limit.encode(message).expect("masters say little");
        ring.push(Op::Send { fd: self.messages.as_raw_fd(), buffer: packet.into() }, Tag::Told);
    }
}
