//! What a turn leaves for others to see: its figures on the worker's page, its lines in the access log.
//! Counts nothing itself.

use std::mem;
use std::time::{Instant, SystemTime};

use super::Worker;
use crate::conn::Draining;
use crate::errands::CacheCounts;
use crate::process::channel::Message;
use crate::process::scoreboard::State;

impl Worker {
    pub(super) fn measure_memory(&self) {
        if let Some(bytes) = self.memory.resident() {
            self.page.life.memory.set(bytes);
        }
    }

    /// Shows what this turn changed. Counters go on from where the worker before left them.
    pub(super) fn publish(&mut self, end: Instant) {
        let traffic = mem::take(&mut self.around.traffic);
        let shown = &self.page.traffic;
        shown.connections.set(self.connections() as u64);
        shown.connections_total.add(traffic.accepted);
        shown.connections_closed.add(traffic.closed);
        shown.bytes_received.add(traffic.bytes_received);
        shown.bytes_sent.add(traffic.bytes_sent);
        shown.turns.add(1);
        let CacheCounts { hits, misses } = self.errands.take_cache_counts();
        shown.cache_hits.add(hits);
        shown.cache_misses.add(misses);
        let requests = self.around.figures.requests.read();
        if requests != self.requests_shown {
            self.requests += requests - self.requests_shown;
            self.requests_shown = requests;
            self.page.life.last_activity.set(self.around.nanos);
        }
        let worked = end.saturating_duration_since(self.around.now).as_nanos() as u64;
        if worked > shown.loop_delay_max.read() {
            shown.loop_delay_max.set(worked);
        }
        shown.busy_since.set(0);
        shown.memory_held.set(self.around.guard.memory.held());
        if let Some(lines) = &mut self.around.guard.lines {
            let (written, dropped) = lines.take_counts();
            shown.lines_logged.add(written);
            shown.lines_dropped.add(dropped);
        }
        self.connections += traffic.accepted;
        let connections = self.connections();
        for taker in self.takers.iter().flatten() {
            taker.show(connections as u64);
        }
        if traffic.closed > 0 && self.page.asks.closings.read() != 0 {
            let open = self.connections();
            let message = Message::ConnectionClosed { worker_id: self.id, open };
            self.lifecycle.say(&message, &mut self.ring);
        }
        self.page.set_state(if self.lifecycle.draining() != Draining::No {
            State::Stopping
        } else if self.gate.is_full(self.open()) {
            State::Busy
        } else {
            State::Ready
        });
    }

    /// Another second has begun.
    pub(super) fn on_second(&mut self) {
        self.measure_memory();
        self.around.guard.set_time(SystemTime::now());
        if let Some(log) = &mut self.access_log {
            log.look_for_replacement();
        }
    }

    pub(super) fn flush_log(&mut self) {
        if let (Some(log), Some(lines)) = (&mut self.access_log, &mut self.around.guard.lines) {
            log.handle_time(lines, self.around.now, &mut self.ring);
        }
    }

    /// Whether no line waits to be written, when there is nothing else to do before the end.
    pub(super) fn has_finished_log(&mut self) -> bool {
        match (&mut self.access_log, &mut self.around.guard.lines) {
            (Some(log), Some(lines)) if self.around.draining != Draining::No => {
                log.finish(lines, self.around.now, &mut self.ring)
            }
            _ => true,
        }
    }
}
