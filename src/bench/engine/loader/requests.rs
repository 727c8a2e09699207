//! A loader's requests: which connection takes which one, and when it leaves. Knows no answers.

use std::os::fd::AsRawFd;

use bytes::Bytes;
use uring_ring::{Op, SendBuffer};

use super::super::conn::{Asked, Phase};
use super::super::world::World;
use super::{Loader, Tag};
use crate::bench::schedule::Schedule;

impl<W: World> Loader<W> {
    /// A connection that can be asked again, in an open loop.
    pub(super) fn idle(&mut self, conn: u32) {
        let it = &mut self.conns[conn as usize];
        if !it.is_idle {
            it.is_idle = true;
            self.task.lanes[it.lane as usize].idle.push_back(conn);
        }
    }

    /// How many requests a connection could take now.
    #[inline]
    fn room(&self, conn: u32) -> usize {
        let it = &self.conns[conn as usize];
        if it.phase != Phase::Open || it.sending || it.is_thinking {
            return 0;
        }
        let by_connection = self.task.requests_per_connection - it.requests;
        let by_pipeline = self.task.pipeline - it.asked_count.min(self.task.pipeline);
        by_pipeline.min(usize::try_from(by_connection).unwrap_or(usize::MAX))
    }

    /// A connection has been opened, or has finished something: it goes on.
    #[inline]
    pub(super) fn ready(&mut self, conn: u32, now: u64) {
        let room = self.room(conn);
        if room == 0 {
            return;
        }
        let it = &mut self.conns[conn as usize];
        if it.session_left > 0
            || (!self.task.is_open_loop && self.task.think > 0 && it.requests > 0)
        {
            if it.asked.is_empty() {
                it.is_thinking = true;
                let due = it.ready_at + self.task.think;
                self.thinking.push_back((due, conn));
            }
            return;
        }
        if self.task.is_open_loop {
            return self.idle(conn);
        }
        // A pipeline is filled again when it is half empty: request by request, as answers come, would
        // make a segment of each.
        if it.asked_count > self.task.pipeline / 2 {
            return;
        }
        let count = room.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if count == 0 {
            return;
        }
        let ready_at = it.ready_at;
        self.send_new(conn, count, ready_at, now);
    }

    /// A connection has thought for long enough: `due` is when its request was meant to leave.
    pub(super) fn end_thought(&mut self, conn: u32, due: u64, now: u64) {
        let it = &mut self.conns[conn as usize];
        it.is_thinking = false;
        if self.room(conn) == 0 || self.left == 0 {
            return; // lost meanwhile
        }
        let it = &mut self.conns[conn as usize];
        if self.task.is_open_loop && it.session_left == 0 {
            return self.idle(conn); // its session was lost with the connection before
        }
        it.session_left = it.session_left.saturating_sub(1);
        it.ready_at = due;
        self.send_new(conn, 1, due, now);
    }

    /// Sends `count` requests that are due since `due`.
    #[inline]
    fn send_new(&mut self, conn: u32, count: usize, due: u64, now: u64) {
        let lane = self.conns[conn as usize].lane as usize;
        let menu = &mut self.task.lanes[lane].menu;
        let asked = Asked { intended: due, sent: 0, request: menu.pick(0), count: 1 };
        if count == 1 {
            return self.send(conn, &[asked], now);
        }
        if menu.has_one() {
            return self.send(conn, &[Asked { count: count as u32, ..asked }], now);
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.push(asked);
        for _ in 1..count {
            Asked { request: menu.pick(0), ..asked }.append_to(&mut batch);
        }
        self.send(conn, &batch, now);
        batch.clear();
        self.batch = batch;
    }

    /// Sends what the lane's schedule says is due, as far as there are connections for it.
    pub(super) fn send_due(&mut self, lane: usize, now: u64) {
        let limit = now.min(self.task.end.saturating_sub(1));
        while self.in_flight + self.errands < self.task.inflight_max && self.left > 0 {
            let it = &mut self.task.lanes[lane];
            let due = it.schedule.as_ref().and_then(Schedule::next).filter(|due| *due <= limit);
            let (Some(due), Some(&conn)) = (due, it.idle.front()) else { return };
            it.idle.pop_front();
            self.conns[conn as usize].is_idle = false;
            let is_errand = self.opens_on_demand();
            // A connection that will be opened for it takes one request.
            let is_closed = self.conns[conn as usize].phase == Phase::Closed;
            let room = if is_errand && is_closed { 1 } else { self.room(conn) };
            if room == 0 {
                continue; // lost meanwhile: it comes back when it is open again
            }
            let it = &mut self.task.lanes[lane];
            let schedule = it.schedule.as_mut().expect("something is due");
            let request = it.menu.pick(schedule.index());
            let asked = Asked { intended: due, sent: 0, request, count: 1 };
            schedule.advance();
            if is_errand && is_closed {
                let it = &mut self.conns[conn as usize];
                it.errand = Some(asked);
                it.late = now.saturating_sub(due.max(it.ready_at));
                self.errands += 1;
                self.left -= 1;
                self.queue(conn);
                self.open_queued(now);
                continue;
            }
            if room == 1 {
                self.conns[conn as usize].session_left = self.task.session - 1;
                self.send(conn, &[asked], now);
                continue;
            }
            // More that is due goes with it.
            let mut batch = std::mem::take(&mut self.batch);
            batch.push(asked);
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            let most = room.min(self.task.inflight_max - self.in_flight).min(left);
            for _ in 1..most {
                let Some(due) = schedule.next().filter(|due| *due <= limit) else { break };
                let request = it.menu.pick(schedule.index());
                Asked { intended: due, sent: 0, request, count: 1 }.append_to(&mut batch);
                schedule.advance();
            }
            self.send(conn, &batch, now);
            batch.clear();
            self.batch = batch;
        }
    }

    /// Hands requests to the ring, in one send.
    #[inline]
    pub(super) fn send(&mut self, conn: u32, batch: &[Asked], now: u64) {
        let it = &mut self.conns[conn as usize];
        let Some(socket) = &it.socket else { return };
        let fd = socket.as_raw_fd();
        let menu = &self.task.lanes[it.lane as usize].menu;
        let count: usize = batch.iter().map(|asked| asked.count as usize).sum();
        let is_last = it.requests + count as u64 == self.task.requests_per_connection;
        let buffer = match batch {
            [Asked { request, count: 1, .. }] => {
                let request = &menu.requests[*request as usize];
                let bytes = if is_last { &request.close } else { &request.keep };
                SendBuffer::with_body(Vec::new(), Bytes::clone(bytes))
            }
            _ => match menu.batch(count).filter(|_| !is_last) {
                Some(bytes) => SendBuffer::with_body(Vec::new(), bytes),
                None => SendBuffer::new(menu.join(batch, is_last)),
            },
        };
        let size = (buffer.left() / count) as u64;
        for asked in batch {
            let lag = now.saturating_sub(asked.intended.max(it.ready_at));
            self.recorder.on_send(now, lag, size, asked.count);
            it.ask(Asked { sent: now, ..*asked });
        }
        it.requests += count as u64;
        it.sending = true;
        self.in_flight += count;
        self.left -= count as u64;
        self.ring.push(Op::Send { fd, buffer }, Tag::Send(conn));
    }
}
