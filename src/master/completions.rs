//! What the ring tells the master, as events for the pool. Decides nothing; only goes on reading.

use std::io;
use std::os::fd::AsRawFd;
use std::process::ExitStatus;

use uring_ring::{Completion, Errno, Op, Outcome};

use super::children::Life;
use super::end::End;
use super::error::MasterError;
use super::pool::Event;
use super::{Master, Tag};
use crate::process::channel::{self, Message};
use crate::process::scoreboard::State;
use crate::process::signals;

impl Master<'_> {
    pub(super) fn on_completion(
        &mut self,
        completion: Completion<Tag>,
        events: &mut Vec<Event>,
    ) -> Result<(), MasterError> {
        match (completion.tag, completion.outcome) {
            (Tag::Signals, Outcome::Read { buffer, result }) => {
                result.map_err(io::Error::from).map_err(MasterError::system("read signals"))?;
                self.on_signals(buffer, events);
            }
            (Tag::Message(life), Outcome::Read { buffer, result }) => {
                self.on_packet(life, buffer, result, events);
            }
            (Tag::Ended(life), Outcome::ChildEnded(result)) => {
                self.on_child_ended(life, result, events);
            }
            (Tag::Told(life), Outcome::Sent { result: Err(errno), .. }) => {
                log::debug!("worker {} was told nothing: {errno}", life.worker); // it is gone
            }
            (Tag::Told(_), Outcome::Sent { .. }) | (Tag::ChannelClosed, Outcome::Closed(_)) => {}
            (tag, outcome) => unreachable!("{tag:?} was answered by {outcome:?}"),
        }
        Ok(())
    }

    fn on_signals(&mut self, records: Vec<u8>, events: &mut Vec<Event>) {
        for received in signals::decode(&records) {
            log::debug!("{received:?}");
            events.push(Event::Signal(received.signal));
        }
        self.push_read(self.signals.as_raw_fd(), records, Tag::Signals);
    }

    fn on_packet(
        &mut self,
        life: Life,
        packet: Vec<u8>,
        result: Result<usize, Errno>,
        events: &mut Vec<Event>,
    ) {
        let Some(channel) = self.children.channel_of(life) else { return };
        if result.is_err() || packet.is_empty() {
            events.push(Event::ChannelClosed(life.worker));
            return;
        }
        match channel::decode(&packet) {
            Ok(Message::WorkerReady { .. }) => events.push(Event::WorkerReady(life.worker)),
            Ok(message @ Message::Shutdown { .. }) => {
                log::warn!("{} said {message:?}, which is the master's", self.name_of(life.worker));
            }
            Err(error) => log::warn!("{} was not understood: {error}", self.name_of(life.worker)),
        }
        self.push_read(channel, packet, Tag::Message(life));
    }

    fn on_child_ended(
        &mut self,
        life: Life,
        result: Result<ExitStatus, Errno>,
        events: &mut Vec<Event>,
    ) {
        let end = result.map_or(End::Lost, End::from);
        if result.is_err_and(|errno| errno.raw() != libc::ECHILD) {
            // It is there but can't be waited for (no descriptor left for its pidfd): better none
            // than two in one place.
            self.children.kill(life.worker);
        }
        let Some((channel, page)) = self.children.remove(life) else { return };
        self.ring.push(Op::Close { fd: channel, cancel: true }, Tag::ChannelClosed);
        let state = if end.is_clean() { State::Stopped } else { State::Failed };
        page.on_end(state);
        events.push(Event::WorkerEnded(life.worker, end));
    }
}
