//! What the ring tells the master, as events for the pool. Decides nothing; only goes on reading.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Instant;

use nix::sys::signal::Signal as Number;
use uring_ring::{Arrival, Completion, Errno, Op, Outcome};

use super::children::Life;
use super::end::End;
use super::error::MasterError;
use super::notice::Cause;
use super::pool::Event;
use super::{Master, Tag};
use crate::config::Accept;
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
                self.on_child_ended(life, result, now);
            }
            (Tag::RefusalSent(id), Outcome::Sent { result, .. }) => {
                self.dispatching.refusals.on_sent(id, result, &mut self.ring);
            }
            (Tag::RefusalRead(id), Outcome::Read { result, .. }) => {
                self.dispatching.refusals.on_read(id, result, &mut self.ring);
            }
            (Tag::NewMasterSaid, Outcome::Read { buffer, result }) => {
                self.on_new_master_said(&buffer, result, events);
            }
            (Tag::NewMasterEnded, Outcome::ChildEnded(result)) => {
                let end = result.map_or(End::Lost, End::from);
                events.push(Event::UpgradeFailed(Cause::Ended(end)));
                self.heir = None;
                if self.accept == Accept::Steered && self.finishing.is_none() {
                    self.begin_steering(); // it may have taken the sockets over
                }
            }
            (Tag::Forwarded, Outcome::SentFds { fds, result, .. }) => {
                if let Some(new) = &mut self.heir {
                    new.on_forwarded(fds, result, now);
                }
            }
            (Tag::OldMasterSaid, Outcome::Read { buffer, result }) => {
                self.on_old_master_said(&buffer, result, events);
            }
            (Tag::OldMasterPassed, Outcome::ReceivedFds { payload, fds, result }) => {
                self.on_old_master_passed(&payload, fds, result, now);
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
                Some((_, handler)) => handler(number as i32),
                None if number == Number::SIGCHLD => self.look_for_stopped(now),
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
        let Some(child) = self.children.get(life) else { return };
        let channel = child.channel.as_raw_fd();
        if result.is_err() || packet.is_empty() {
            events.push(Event::ChannelClosed(life));
            self.children.get_mut(life).expect("just found").is_heard = true;
            return;
        }
        match self.limit.decode(&packet) {
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
            Message::User { payload } => self.around.on_message(life.worker, payload),
            Message::Shutdown { .. } | Message::Alone | Message::ListenersBack => {
                log::warn!("{} said {message:?}, which is the master's", self.name_of(life));
            }
        }
    }

    fn on_child_ended(&mut self, life: Life, result: Result<ExitStatus, Errno>, now: Instant) {
        let end = result.map_or(End::Lost, End::from);
        if result.is_err_and(|errno| errno.raw() != libc::ECHILD) {
            // It is there but can't be waited for (no descriptor left for its pidfd): better none
            // than two in one place.
            self.children.signal(life, Number::SIGKILL);
        }
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
            }
            events.push(Event::WorkerEnded(life, end));
            let Some(child) = self.children.remove(life) else { return };
            self.dispatching.on_gone(life, child.page);
            child.page.on_end(if end.is_clean() { State::Stopped } else { State::Failed });
            self.names.push((life, child.pid));
            for fd in [child.channel, child.passing] {
                self.ring.push(Op::Close { fd, cancel: true }, Tag::Closed);
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
        if let Some(stack) = child.page.last_words() {
            log::warn!("{name} was here:\n{}", stack.trim_end());
        }
    }

    fn on_new_master_said(
        &mut self,
        packet: &[u8],
        result: Result<usize, Errno>,
        events: &mut Vec<Event>,
    ) {
        let Some(new) = &mut self.heir else { return };
        if result.is_err() || packet.is_empty() {
            return; // its end is told by the kernel
        }
        match self.limit.decode(packet) {
            Ok(Message::WorkerReady { .. }) => {
                new.serves = true;
                events.push(Event::UpgradeReady);
            }
            Ok(other) => log::warn!("the new master said {other:?}"),
            Err(error) => log::warn!("the new master was not understood: {error}"),
        }
        new.listen(self.limit, &mut self.ring);
    }

    fn on_old_master_said(
        &mut self,
        packet: &[u8],
        result: Result<usize, Errno>,
        events: &mut Vec<Event>,
    ) {
        let Some(old) = &self.predecessor else { return };
        if result.is_err() || packet.is_empty() {
            log::info!("the old master (pid {}) has gone", old.pid);
            self.dispatching.set_alone(&mut self.ring);
            events.push(Event::OldMasterGone);
            self.scoreboard.release_dead();
            return; // what it passed may still be unread
        }
        match self.limit.decode(packet) {
            Ok(other) => log::warn!("the old master said {other:?}"),
            Err(error) => log::warn!("the old master was not understood: {error}"),
        }
        old.listen(self.limit, &mut self.ring);
    }

    fn on_old_master_passed(
        &mut self,
        payload: &[u8],
        fds: Vec<OwnedFd>,
        result: Result<Arrival, Errno>,
        now: Instant,
    ) {
        if matches!(result, Ok(Arrival::End) | Err(_)) {
            self.predecessor = None;
            return;
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
