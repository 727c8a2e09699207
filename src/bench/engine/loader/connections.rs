//! A loader's connections: opened, lost, closed, and opened again. Sends no request.

use std::mem;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use uring_ring::{Errno, Op};

use super::super::conn::{Asked, Phase};
use super::super::errors::connect_fault;
use super::super::world::World;
use super::{CONNECT_TIMEOUT, Loader, Tag};
use crate::bench::record::{Failure, Fault};
use crate::bench::scan::Scanner;

/// Connections that a thread opens at the same time: with more, a server's accept queue overflows,
/// and the kernel tries again only after a second.
pub(super) const CONNECTING_MAX: usize = 128;
/// How long after a failed connect the next one is tried.
const RETRY: u64 = 50_000_000;
/// How long a server that was asked to close may take; then this end closes.
const ENDING: u64 = 1_000_000_000;

impl<W: World> Loader<W> {
    pub(super) fn queue(&mut self, conn: u32) {
        self.conns[conn as usize].phase = Phase::Queued;
        self.to_open.push_back(conn);
    }

    pub(super) fn open_queued(&mut self, now: u64) {
        while let Some(&(at, conn)) = self.retries.front()
            && at <= now
        {
            self.retries.pop_front();
            self.queue(conn);
        }
        while self.connecting < CONNECTING_MAX
            && let Some(&conn) = self.to_open.front()
        {
            if let Some(openings) = &mut self.task.openings {
                // What nobody wanted to open then is not made up for.
                if openings.next().is_none_or(|at| at > now) {
                    return;
                }
                openings.advance();
            }
            self.to_open.pop_front();
            self.connect(conn, now);
        }
        if let Some(openings) = &mut self.task.openings
            && self.to_open.is_empty()
        {
            while openings.next().is_some_and(|at| at <= now) {
                openings.advance();
            }
        }
    }

    fn connect(&mut self, conn: u32, now: u64) {
        let it = &mut self.conns[conn as usize];
        let peer = &self.task.peers[it.lane as usize];
        match self.world.socket(peer, conn as usize) {
            Ok(socket) => {
                let fd = socket.as_raw_fd();
                it.socket = Some(socket);
                it.phase = Phase::Connecting { since: now };
                it.connecting = true;
                it.requests = 0;
                self.connecting += 1;
                self.ring.push(Op::Connect { fd, peer: Rc::clone(peer) }, Tag::Connect(conn));
            }
            Err(fault) => self.on_connect_failure(conn, fault, now),
        }
    }

    pub(super) fn on_connected(&mut self, conn: u32, result: Result<(), Errno>, now: u64) {
        let it = &mut self.conns[conn as usize];
        it.connecting = false;
        self.connecting -= 1;
        let Phase::Connecting { since } = it.phase else {
            return self.settle(conn, now); // given up meanwhile
        };
        if let Err(errno) = result {
            it.socket = None;
            return self.on_connect_failure(conn, connect_fault(errno), now);
        }
        it.phase = Phase::Open;
        // The way to the connection is waiting for the server; what was lost before is not.
        it.ready_at = now - mem::take(&mut it.late);
        self.open += 1;
        self.alive_at = now;
        self.receive(conn);
        let at = if self.has_begun { now } else { 0 };
        self.recorder.on_connect(at, now.saturating_sub(since));
        match self.conns[conn as usize].errand.take() {
            Some(asked) => {
                self.errands -= 1;
                self.left += 1; // it was taken away when the request got its connection
                self.conns[conn as usize].session_left = self.task.session - 1;
                self.send(conn, &[asked], now);
            }
            None => self.touched.push(conn),
        }
    }

    /// No connection, and so no request that was to go over it.
    fn on_connect_failure(&mut self, conn: u32, fault: Fault, now: u64) {
        let at = if self.has_begun { now } else { 0 };
        self.recorder.on_connect_failure(at, fault);
        let it = &mut self.conns[conn as usize];
        let peer = &self.task.peers[it.lane as usize];
        self.examples.note(fault, || peer.to_string());
        it.phase = Phase::Closed;
        if let Some(asked) = it.errand.take() {
            self.errands -= 1;
            self.fail(conn, asked, None, fault, now);
        }
        if self.opens_on_demand() {
            self.idle(conn);
        } else if !self.is_over {
            self.retries.push_back((now + RETRY, conn));
        }
    }

    pub(super) fn receive(&mut self, conn: u32) {
        let it = &mut self.conns[conn as usize];
        let Some(socket) = &it.socket else { return };
        let fd = socket.as_raw_fd();
        it.receiving = true;
        let op = Op::Recv { fd, group: self.group, multishot: true };
        self.ring.push(op, Tag::Receive(conn));
    }

    /// Closes; what is in flight ends by that.
    pub(super) fn close(&mut self, conn: u32, since: u64) {
        let it = &mut self.conns[conn as usize];
        let Some(fd) = it.socket.take() else { return };
        if matches!(it.phase, Phase::Open | Phase::Ending { .. }) {
            self.open -= 1;
        }
        it.phase = Phase::Closing { since };
        it.closing = true;
        let cancel = it.receiving || it.sending || it.connecting;
        self.ring.push(Op::Close { fd, cancel }, Tag::Close(conn));
    }

    /// The close is over when all has completed; then the next one is opened.
    pub(super) fn settle(&mut self, conn: u32, now: u64) {
        let it = &mut self.conns[conn as usize];
        let Phase::Closing { since } = it.phase else { return };
        if !it.is_quiet() {
            return;
        }
        it.phase = Phase::Closed;
        self.alive_at = now;
        it.scanner = Scanner::default();
        (it.first_byte, it.session_left) = (0, 0);
        it.ready_at = now;
        let at = if self.has_begun { now } else { 0 };
        self.recorder.on_close(at, Some(now.saturating_sub(since)));
        if self.opens_on_demand() {
            self.idle(conn);
        } else if !self.is_over {
            self.queue(conn);
        }
    }

    /// Everything that was asked on the connection has failed, and it is closed.
    pub(super) fn lose(&mut self, conn: u32, first: Fault, then: Fault, now: u64) {
        let mut fault = first;
        while let Some(asked) = self.conns[conn as usize].settle(1) {
            self.in_flight -= 1;
            self.fail(conn, asked, Some(asked.sent), fault, now);
            fault = then;
        }
        self.close(conn, now);
    }

    pub(super) fn fail(
        &mut self,
        conn: u32,
        asked: Asked,
        sent: Option<u64>,
        fault: Fault,
        now: u64,
    ) {
        let lane = self.conns[conn as usize].lane as usize;
        let target = self.task.lanes[lane].menu.requests[asked.request as usize].target;
        self.recorder.on_failure(&Failure {
            intended: asked.intended,
            sent,
            at: now,
            fault,
            target,
            connection: conn,
        });
        let targets = &self.task.targets;
        self.examples.note(fault, || targets[target as usize].clone());
    }

    /// Looks for what takes too long.
    pub(super) fn sweep(&mut self, now: u64) {
        let is_deserted = self.open == 0 && now >= self.alive_at.saturating_add(self.task.timeout);
        if is_deserted && self.task.end == u64::MAX && !self.retries.is_empty() {
            // So many requests will never be: nobody has listened for as long as one may wait.
            self.task.end = now;
        }
        for conn in 0..self.conns.len() as u32 {
            let it = &self.conns[conn as usize];
            match it.phase {
                Phase::Connecting { since } if now >= since.saturating_add(CONNECT_TIMEOUT) => {
                    self.close(conn, now);
                    let at = if self.has_begun { now } else { 0 };
                    self.recorder.on_connect_failure(at, Fault::ConnectTimeout);
                    if let Some(asked) = self.conns[conn as usize].errand.take() {
                        self.errands -= 1;
                        self.fail(conn, asked, None, Fault::ConnectTimeout, now);
                    }
                }
                Phase::Open => {
                    let first = it.asked.front().map(|asked| asked.sent);
                    if first.is_some_and(|sent| now >= sent.saturating_add(self.task.timeout)) {
                        self.lose(conn, Fault::Timeout, Fault::Timeout, now);
                    }
                }
                Phase::Ending { since } if now >= since + ENDING => self.close(conn, since),
                _ => {}
            }
        }
    }
}
