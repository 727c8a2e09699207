//! What the ring tells the master, as events for the pool. Decides nothing; only goes on reading.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{self, ExitStatus};
use std::time::Instant;

use nix::sys::signal::Signal as Number;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use uring_ring::{Arrival, Completion, Errno, Op, Outcome};

use super::children::{Child, Life};
use super::end::End;
use super::error::MasterError;
use super::pool::{Event, Wanted};
use super::upgrade::NewMaster;
use super::{Master, Tag};
use crate::figures::InFlight;
use crate::process::channel::Message;
use crate::process::clock::monotonic_nanos;
use crate::process::parcel::Parcel;
use crate::process::scoreboard::State;
use crate::process::signals;

impl Master<'_> {
    pub(super) fn on_completion(
        &mut self,
        completion: Completion<Tag>,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> Result<(), MasterError> {
        let Completion { tag, outcome, more } = completion;
        match (tag, outcome) {
            (Tag::Accept { listener }, Outcome::Accepted(result)) => {
                self.on_accepted(listener, result, more, now);
            }
            (Tag::Accept { listener }, Outcome::Watched(result)) => {
                self.dispatching.on_watched(listener, result, more, now, &mut self.ring);
            }
            (Tag::Passed(life), Outcome::SentFds { fds, result, .. }) => {
                self.dispatching.on_passed(life, fds, result, now);
            }
            (Tag::Bell, Outcome::Read { buffer, result }) => {
                result.map_err(io::Error::from).map_err(MasterError::system("hear the bell"))?;
                self.watch.handle_work(now);
                self.push_read(self.bell.as_raw_fd(), buffer, Tag::Bell);
            }
            (Tag::Arrived(life), Outcome::ReceivedFds { payload, fds, result }) => {
                let Some(child) = self.children.get(life) else { return Ok(()) };
                let fd = child.passing.as_raw_fd();
                if matches!(result, Ok(Arrival::End) | Err(_)) {
                    self.children.get_mut(life).expect("just found").is_emptied = true;
                    return Ok(());
                }
                self.on_handed_over(life, Parcel::decode(&payload).as_ref(), fds, now);
                let has_room = self.has_room();
                self.children.get_mut(life).expect("just found").hear(!has_room, now);
                if has_room {
                    self.receive_from(life, fd);
                }
            }
            (Tag::Reclaimed(life), Outcome::ReceivedFds { payload, fds, result }) => {
                self.on_reclaimed(life, &payload, fds, result, now);
            }
            (Tag::Lent(life), Outcome::SentFds { result: Err(errno), .. }) => {
                log::warn!("{} was lent no sockets: {errno}", self.name_of(life));
            }
            (Tag::Signals, Outcome::Read { buffer, result }) => {
                result.map_err(io::Error::from).map_err(MasterError::system("read signals"))?;
                self.on_signals(buffer, now, events);
            }
            (Tag::Wishes, Outcome::Read { buffer, result }) => {
                result.map_err(io::Error::from).map_err(MasterError::system("hear wishes"))?;
                for wish in self.handle.take_wishes() {
                    self.fulfil(wish, events);
                }
                self.push_read(self.handle.bell(), buffer, Tag::Wishes);
            }
            (Tag::Message(life), Outcome::Read { buffer, result }) => {
                self.on_packet(life, buffer, result, now, events);
            }
            (Tag::Ended(life), Outcome::ChildEnded(result)) => {
                self.on_child_ended(life, result, now, events);
            }
            (Tag::RefusalSent(id), Outcome::Sent { result, .. }) => {
                self.dispatching.refusals.on_sent(id, result, &mut self.ring);
            }
            (Tag::RefusalRead(id), Outcome::Read { result, .. }) => {
                self.dispatching.refusals.on_read(id, result, &mut self.ring);
            }
            (Tag::NewMasterSaid(number), Outcome::Read { buffer, result }) => {
                self.on_new_master_said(number, &buffer, result, events);
            }
            (Tag::NewMasterEnded(number), Outcome::ChildEnded(result)) => {
                self.on_new_master_ended(number, result, now, events);
            }
            (Tag::Forwarded(number), Outcome::SentFds { fds, result, .. }) => {
                if let Some(new) = self.heir_of(number) {
                    new.on_forwarded(fds, result, now);
                }
            }
            (Tag::OldMasterSaid, Outcome::Read { buffer, result }) => {
                self.on_old_master_said(&buffer, result, now, events);
            }
            (Tag::OldMasterPassed, Outcome::ReceivedFds { payload, fds, result }) => {
                self.on_old_master_passed(&payload, fds, result, now);
            }
            (Tag::Said(life), Outcome::Sent { result, .. }) => {
                if let Err(errno) = result {
                    log::debug!("worker {} was told nothing: {errno}", life.worker); // it is gone
                }
                if let Some(child) = self.children.get_mut(life) {
                    child.outbox.on_sent();
                    self.flush_outbox(life);
                }
            }
            (Tag::ToldNewMaster(number), Outcome::Sent { .. }) => {
                self.heir_of(number).into_iter().for_each(NewMaster::on_told);
            }
            (Tag::Told, Outcome::Sent { result: Err(errno), .. }) => {
                log::debug!("somebody was told nothing: {errno}"); // who is gone
            }
            (Tag::Told, Outcome::Sent { .. })
            | (Tag::Closed, Outcome::Closed(_))
            | (Tag::Cancel, Outcome::Cancelled(_))
            | (Tag::Lent(_), Outcome::SentFds { .. }) => {}
            (tag, outcome) => unreachable!("{tag:?} was answered by {outcome:?}"),
        }
        Ok(())
    }

    fn on_signals(&mut self, records: Vec<u8>, now: Instant, events: &mut Vec<Event>) {
        for received in signals::decode(&records) {
            log::debug!("{received:?}");
            let number = received.number;
            let custom = self.on_signal.iter_mut().find(|(known, _)| *known == number);
            match custom {
                Some((_, handler)) => self.foreign.watch(|| handler(number as i32)),
                None if number == Number::SIGCHLD => {
                    self.look_for_stopped(now);
                    self.bury_unwatched(now, events);
                    self.bury_orphans();
                }
                None => events.extend(received.signal().map(Event::Signal)),
            }
        }
        self.push_read(self.signals.as_raw_fd(), records, Tag::Signals);
    }

    fn on_packet(
        &mut self,
        life: Life,
        packet: Vec<u8>,
        result: Result<usize, Errno>,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        let is_over = result.is_err() || packet.is_empty();
        if let Some(channel) = self.children.estate(life) {
            if !is_over {
                return self.push_read(channel, packet, Tag::Message(life)); // too late
            }
            if let Some(fd) = self.children.take_estate(life) {
                self.ring.push(Op::Close { fd, cancel: false }, Tag::Closed);
            }
            log::debug!("the kernel has cleared away what worker {} left", life.worker);
            return events.push(Event::EstateGone(life));
        }
        let Some(child) = self.children.get(life) else { return };
        let (channel, limit) = (child.channel.as_raw_fd(), child.limit);
        if is_over {
            events.push(Event::ChannelClosed(life));
            self.children.get_mut(life).expect("just found").is_heard = true;
            return;
        }
        match limit.decode(&packet) {
            Ok(message) => self.on_message(life, message, now, events),
            Err(error) => log::warn!("{} was not understood: {error}", self.name_of(life)),
        }
        self.push_read(channel, packet, Tag::Message(life));
    }

    fn on_message(&mut self, life: Life, message: Message, now: Instant, events: &mut Vec<Event>) {
        match message {
            Message::WorkerReady { connections_max, .. } => {
                self.dispatching.on_ready(life, connections_max);
                events.push(Event::WorkerReady(life));
            }
            Message::AcceptStopped => events.push(Event::AcceptStopped(life)),
            Message::RecycleDue { reason } => events.push(Event::RecycleDue(life, reason)),
            Message::Reload { .. } => {
                let name = "a worker's wish";
                events.push(Event::Signal(signals::Signal::Reload { name }));
            }
            Message::ConnectionClosed { .. } => {} // the scoreboard says more
            Message::NotTaken { first, count } => {
                self.dispatching.on_not_taken(life, first, count, now);
            }
            Message::WorkerMetrics { total_requests, total_connections, .. } => log::info!(
                "{} has served {total_requests} requests of {total_connections} connections",
                self.name_of(life)
            ),
            Message::User { payload } => {
                self.foreign.watch(|| self.around.on_message(life.worker, payload));
            }
            Message::Shutdown { .. }
            | Message::Alone
            | Message::ListenersBack
            | Message::RoomWanted
            | Message::TakeOver
            | Message::Renew { .. }
            | Message::Listening
            | Message::TakenOver => {
                log::warn!("{} said {message:?}, which is the master's", self.name_of(life));
            }
        }
    }

    fn on_child_ended(
        &mut self,
        life: Life,
        result: Result<ExitStatus, Errno>,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        match result {
            Err(errno) if errno.raw() != libc::ECHILD => {
                // No descriptor was left for its pidfd. Whenever a child ends, it is asked for.
                if let Some(child) = self.children.get_mut(life) {
                    child.is_unwatched = true;
                }
                self.bury_unwatched(now, events); // it may have ended before
            }
            result => self.on_end(life, result.map_or(End::Lost, End::from), now),
        }
    }

    /// Somebody ended: perhaps one of those who can't be waited for.
    fn bury_unwatched(&mut self, now: Instant, events: &mut Vec<Event>) {
        for (life, pid) in self.children.unwatched() {
            if let Some(end) = end_of(pid) {
                self.on_end(life, end, now);
            }
        }
        if let Some(new) = self.heir.as_ref().filter(|new| new.is_unwatched)
            && let Some(end) = end_of(new.pid)
        {
            self.on_heir_gone(end, events);
        }
    }

    /// The process of a worker has ended, and was collected.
    fn on_end(&mut self, life: Life, end: End, now: Instant) {
        let Some(child) = self.children.get_mut(life) else { return };
        child.end = Some((end, now));
        // With our copy of its end, the line ends as soon as it is empty.
        if let Some(fd) = child.passing_far.take() {
            self.ring.push(Op::Close { fd, cancel: false }, Tag::Closed);
        }
    }

    /// Those who have ended, and whose lines were read to their ends, are history: what they had
    /// open is closed, what they never took is somebody else's, and their page is free.
    pub(super) fn settle_ended(&mut self, now: Instant, events: &mut Vec<Event>) {
        while let Some((life, end)) = self.children.ended(now) {
            if !end.is_clean() {
                self.tell_last_words(life);
                let lost = self.children.get(life).map_or(0, Child::connections);
                self.scoreboard.pool().lost.add_among_others(lost);
            }
            let Some(child) = self.children.remove(life) else { return };
            if !child.is_heard {
                events.push(Event::EstateLeft(life));
            }
            events.push(Event::WorkerEnded(life, end));
            self.dispatching.on_gone(life, child.page);
            let state = if end.is_clean() { State::Stopped } else { State::Failed };
            child.page.on_end(child.pid.as_raw().unsigned_abs(), state);
            self.names.push((life, child.pid));
            self.ring.push(Op::Close { fd: child.passing, cancel: true }, Tag::Closed);
            if child.is_heard {
                self.ring.push(Op::Close { fd: child.channel, cancel: true }, Tag::Closed);
            } else {
                // The ring of a process outlives it by the time that the kernel takes to clear it
                // away. Until then its accepts are told of connections, and its read of the
                // channel keeps that open.
                self.children.keep_estate(life, child.channel);
            }
        }
    }

    /// As process 1 of a container the master is the parent of whoever has lost his own, and the one
    /// who has to collect him.
    fn bury_orphans(&self) {
        if process::id() != 1 {
            return;
        }
        let ours = |pid: Pid| {
            let workers = self.children.iter().map(|(_, child)| child.pid);
            workers.chain(self.heir.as_ref().map(|heir| heir.pid)).any(|known| known == pid)
        };
        let children = fs::read_to_string("/proc/self/task/1/children").unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let orphan = Pid::from_raw(pid);
            if !ours(orphan) {
                let _alive_or_collected = waitpid(orphan, Some(WaitPidFlag::WNOHANG));
            }
        }
    }

    /// What a worker was doing when it died.
    fn tell_last_words(&self, life: Life) {
        let Some(child) = self.children.get(life) else { return };
        let name = self.name_of(life);
        let unfinished = child.page.in_flight(monotonic_nanos());
        for request in &unfinished.requests {
            let InFlight { method_and_target, age, is_running } = request;
            let what = if *is_running { "running" } else { "waiting" };
            log::warn!("{name} was {what} {method_and_target} for {age:.1?}");
        }
        if unfinished.more > 0 {
            log::warn!("{name} had {} more requests that waited", unfinished.more);
        }
        match child.connections() {
            0 => {}
            1 => log::warn!("{name} had a connection open"),
            open => log::warn!("{name} had {open} connections open"),
        }
        if let Some(stack) = child.page.last_words() {
            log::warn!("{name} was here:\n{}", stack.trim_end());
        }
    }

    fn heir_of(&mut self, number: u32) -> Option<&mut NewMaster> {
        self.heir.as_mut().filter(|new| new.number == number)
    }

    fn on_new_master_ended(
        &mut self,
        number: u32,
        result: Result<ExitStatus, Errno>,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        let Some(new) = self.heir_of(number) else { return };
        match result {
            Err(errno) if errno.raw() != libc::ECHILD => {
                new.is_unwatched = true;
                self.bury_unwatched(now, events);
            }
            result => self.on_heir_gone(result.map_or(End::Lost, End::from), events),
        }
    }

    fn on_heir_gone(&mut self, end: End, events: &mut Vec<Event>) {
        self.lost_heir = self.heir.take().map(|new| new.pid);
        self.release_dead();
        events.push(Event::UpgradeEnded(end));
    }

    fn on_new_master_said(
        &mut self,
        number: u32,
        packet: &[u8],
        result: Result<usize, Errno>,
        events: &mut Vec<Event>,
    ) {
        if result.is_err() || packet.is_empty() {
            return; // its end is told by the kernel
        }
        let message = self.limit.decode(packet);
        let Some(new) = self.heir_of(number) else { return };
        match message {
            Ok(Message::WorkerReady { .. }) => events.push(Event::UpgradeReady),
            Ok(Message::TakenOver) => {
                new.serves = true;
                events.push(Event::UpgradeServes);
            }
            Ok(other) => log::warn!("the new master said {other:?}"),
            Err(error) => log::warn!("the new master was not understood: {error}"),
        }
        if let Some(new) = &self.heir {
            new.listen(self.limit, &mut self.ring);
        }
    }

    fn on_old_master_said(
        &mut self,
        packet: &[u8],
        result: Result<usize, Errno>,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        let Some(old) = &mut self.predecessor else { return };
        if result.is_err() || packet.is_empty() {
            log::info!("the old master (pid {}) has gone", old.pid);
            // What it passed may still be unread; and whether it was killed or had nothing more to
            // say, what it had is nobody's but ours.
            old.is_gone = true;
            if old.is_told && !self.is_in_charge {
                self.take_over(now);
            }
            self.dispatching.set_alone(&mut self.ring);
            self.orphans_at = Some(now);
            return;
        }
        match self.limit.decode(packet) {
            Ok(Message::TakeOver) if self.is_in_charge => {}
            Ok(Message::TakeOver) => self.take_over(now),
            Ok(Message::Renew { reads, workers }) => {
                events.push(Event::Renew(Wanted { reads, workers }));
            }
            Ok(other) => log::warn!("the old master said {other:?}"),
            Err(error) => log::warn!("the old master was not understood: {error}"),
        }
        if let Some(old) = &self.predecessor {
            old.listen(self.limit, &mut self.ring);
        }
    }

    fn on_old_master_passed(
        &mut self,
        payload: &[u8],
        fds: Vec<OwnedFd>,
        result: Result<Arrival, Errno>,
        now: Instant,
    ) {
        if matches!(result, Ok(Arrival::End) | Err(_)) {
            return; // its messages say whether it has gone
        }
        if let Some(Parcel::Connections { origins, .. }) = Parcel::decode(payload) {
            for (connection, origin) in fds.into_iter().zip(origins) {
                self.dispatching.on_connection_of_old_master(connection, origin, now);
            }
        }
        let has_room = self.has_room();
        let Some(old) = &mut self.predecessor else { return };
        old.is_parked = !has_room;
        if has_room {
            old.receive(&mut self.ring);
        }
    }
}

/// How a child has ended that can't be waited for; none while it lives. It is collected.
fn end_of(pid: Pid) -> Option<End> {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(End::Exited { code }),
        Ok(WaitStatus::Signaled(_, signal, core_dumped)) => {
            Some(End::Killed { signal: signal as i32, core_dumped })
        }
        Ok(_) => None,
        Err(_) => Some(End::Lost), // somebody else in this process collected it
    }
}
