//! Who comes in: accepted here or passed by the master, let in by the gate, made an entry. Serves nobody.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use uring_ring::Errno;

use super::Worker;
use super::entry::Entry;
use super::gate::{IDLE_MIN, Newcomer, Step};
use super::table::ConnId;
use crate::conn::{Connection, Draining, Settings};
use crate::figures::Fault;
use crate::process::parcel::Origin;

impl Worker {
    pub(super) fn on_accepted(
        &mut self,
        listener: usize,
        result: Result<OwnedFd, Errno>,
        more: bool,
    ) {
        self.acceptor.on_accepted(listener, &result, more, self.around.now);
        match result {
            Ok(socket) => {
                if let Some(Some(taker)) = self.takers.get_mut(listener) {
                    taker.on_accept(1, self.around.now);
                }
                self.around.traffic.accepted += 1;
                let origin = Origin::Accepted;
                self.gate.arrive(Newcomer { socket, origin, passed_as: 0 });
            }
            Err(Errno::CANCELED | Errno::AGAIN) => {}
            Err(_) => self.around.figures.on_fault(Fault::AcceptFailed),
        }
        let connections = self.connections();
        self.acceptor.arm(&mut self.ring, connections);
    }

    /// A connection that was accepted here, or passed by the master, comes in.
    pub(super) fn on_connection(&mut self, newcomer: Newcomer) {
        let Newcomer { socket, origin, passed_as } = newcomer;
        let (fd, now) = (socket.as_raw_fd(), self.around.now);
        let mut connection = match origin {
            Origin::Accepted => Connection::new(fd, now + self.around.first_request_timeout()),
            Origin::HandedOver => Connection::resumed(fd, now + self.around.settings.idle_timeout),
        };
        if let Some(record) = self.gate.record(&socket, now) {
            connection.set_record(record);
        }
        let mut entry = Entry::new(socket, connection, passed_as);
        if origin == Origin::HandedOver
            && self.gate.counts_clients()
            && let Some(client) = entry.connection.client_to_count()
        {
            // It had its place before, and keeps it, whoever came while it was on its way.
            entry.is_counted = true;
            self.gate.count(client);
        }
        let id = self.table.insert(entry);
        self.settle(id);
    }

    /// Lets in who waits, as far as there is room; makes some where possible.
    pub(super) fn on_newcomers(&mut self) {
        let (is_leaving, now) = (self.around.draining != Draining::No, self.around.now);
        loop {
            match self.gate.poll(self.open(), is_leaving, now) {
                Step::Take(newcomer) if self.bare.is_some() => self.on_bare_connection(newcomer),
                Step::Take(newcomer) => self.on_connection(newcomer),
                Step::MakeRoom(_) if self.bare.is_some() => return, // its handlers know who idles
                Step::MakeRoom(count) => {
                    let count = self.make_room(count);
                    self.gate.on_room_made(count, now);
                }
                Step::Wait => return,
            }
        }
    }

    /// Closes those who have idled longest, and not only for a moment; returns how many.
    pub(super) fn make_room(&mut self, count: usize) -> usize {
        let Settings { head_timeout, idle_timeout, .. } = self.around.settings;
        let idle = self.table.iter().filter(|(_, entry)| !entry.is_closing());
        let now = self.around.now;
        let since = |entry: &Entry| {
            let since = entry.connection.idle_since(head_timeout, idle_timeout)?;
            (now.saturating_duration_since(since) >= IDLE_MIN).then_some(since)
        };
        let mut idle: Vec<(Instant, ConnId)> =
            idle.filter_map(|(id, entry)| Some((since(entry)?, id))).collect();
        if idle.len() > count {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
        for (_, id) in &idle {
            if let Some(entry) = self.table.get_mut(*id) {
                entry.connection.make_room(&self.around.env(*id));
            }
            self.settle(*id);
        }
        idle.len()
    }
}
