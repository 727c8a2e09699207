//! What the ring brings back to a loader: sends that are through, answers and their ends. Chooses no
//! request.

use std::os::fd::AsRawFd;

use uring_ring::{Completion, Errno, Lease, Op, Outcome, SendBuffer};

use super::super::conn::Phase;
use super::super::errors::fault_of;
use super::super::world::World;
use super::{Loader, Tag, Task};
use crate::bench::record::{Answer, Fault};
use crate::bench::scan::{Reply, ScanError};

impl<W: World> Loader<W> {
    #[inline]
    pub(super) fn on_completion(&mut self, completion: Completion<Tag>, now: u64) {
        let Completion { tag, outcome, more } = completion;
        match (tag, outcome) {
            (Tag::Receive(conn), Outcome::Received(Ok(Some(lease)))) => {
                self.on_bytes(conn, &lease, now);
                if !more {
                    drop(lease);
                    self.on_receive_ended(conn, now);
                }
            }
            (Tag::Send(conn), Outcome::Sent { buffer, result }) => {
                self.on_sent(conn, buffer, result, now);
            }
            (Tag::Receive(conn), Outcome::Received(end)) => self.on_end(conn, &end, now),
            (Tag::Connect(conn), Outcome::Connected(result)) => {
                self.on_connected(conn, result, now);
            }
            (Tag::Close(conn), Outcome::Closed(_)) => {
                self.conns[conn as usize].closing = false;
                self.settle(conn, now);
            }
            (tag, outcome) => unreachable!("{tag:?} gave {outcome:?}"),
        }
    }

    fn on_sent(
        &mut self,
        conn: u32,
        mut buffer: SendBuffer,
        result: Result<usize, Errno>,
        now: u64,
    ) {
        let it = &mut self.conns[conn as usize];
        it.sending = false;
        if let Phase::Closing { .. } = it.phase {
            return self.settle(conn, now);
        }
        match result {
            Ok(count) => {
                buffer.advance(count);
                if buffer.left() > 0
                    && let Some(socket) = &it.socket
                {
                    let fd = socket.as_raw_fd();
                    it.sending = true;
                    self.ring.push(Op::Send { fd, buffer }, Tag::Send(conn));
                    return;
                }
                if it.asked_count < self.task.pipeline {
                    self.touched.push(conn);
                }
            }
            // What the server said before it broke off is worth more: the receive tells.
            Err(_) if it.receiving => {}
            Err(errno) => self.lose(conn, fault_of(errno), fault_of(errno), now),
        }
    }

    #[inline]
    fn on_bytes(&mut self, conn: u32, lease: &Lease, now: u64) {
        let mut rest: &[u8] = lease;
        let mut has_answers = false;
        while !rest.is_empty() {
            let it = &mut self.conns[conn as usize];
            if !matches!(it.phase, Phase::Open) {
                return; // closing, or closed by the server's word: nobody asked for more
            }
            let Some(asked) = it.asked.front() else {
                return self.on_malformed(conn, ScanError::Unasked, now);
            };
            if it.first_byte == 0 {
                it.first_byte = now.max(1);
            }
            let request = &self.task.lanes[it.lane as usize].menu.requests[asked.request as usize];
            let memory = &mut self.memories[request.target as usize];
            match it.scanner.scan(memory, request.is_head, rest) {
                Ok((used, Some(reply))) => {
                    let whole;
                    (whole, rest) = rest.split_at(used);
                    let mut count = 1;
                    if asked.count > 1 && reply.keeps_alive && used as u64 == reply.wire_bytes {
                        let copies = memory.copies(whole, rest, asked.count as usize - 1);
                        rest = &rest[copies * used..];
                        count += copies as u32;
                    }
                    let target = request.target;
                    self.on_reply(conn, target, &reply, count, now);
                    has_answers = true;
                }
                Ok((_, None)) => break,
                Err(error) => return self.on_malformed(conn, error, now),
            }
        }
        if has_answers {
            self.touched.push(conn);
        }
    }

    #[inline]
    fn on_reply(&mut self, conn: u32, target: u32, reply: &Reply, count: u32, now: u64) {
        let it = &mut self.conns[conn as usize];
        let Some(asked) = it.settle(count) else { return };
        self.in_flight -= count as usize;
        let answer = Answer {
            intended: asked.intended,
            sent: asked.sent,
            first_byte: it.first_byte,
            done: now,
            bytes: reply.wire_bytes,
            status: reply.status,
            target,
            connection: conn,
            count,
        };
        it.first_byte = 0;
        it.ready_at = now;
        match self.task.expect.fault(reply) {
            None => self.recorder.on_answer(&answer),
            Some(fault) => {
                self.recorder.on_unexpected(&answer, fault);
                let Task { targets, expect, .. } = &self.task;
                self.examples.note(fault, || {
                    let (target, Reply { status, body_bytes, .. }) =
                        (&targets[target as usize], reply);
                    format!("{target} answered {status} with {body_bytes} bytes, not {expect}")
                });
            }
        }
        if !reply.keeps_alive {
            // What was pipelined behind it won't be answered.
            let it = &mut self.conns[conn as usize];
            it.phase = Phase::Ending { since: now };
            while let Some(asked) = self.conns[conn as usize].settle(1) {
                self.in_flight -= 1;
                self.fail(conn, asked, Some(asked.sent), Fault::Closed, now);
            }
        } else if it.asked.is_empty() && it.requests >= self.task.requests_per_connection {
            self.close(conn, now);
        }
    }

    fn on_malformed(&mut self, conn: u32, error: ScanError, now: u64) {
        let targets = &self.task.targets;
        let it = &self.conns[conn as usize];
        let target = it.asked.front().map(|asked| {
            let menu = &self.task.lanes[it.lane as usize].menu;
            menu.requests[asked.request as usize].target
        });
        self.examples.note(Fault::Malformed, || {
            let target = target.map_or("a connection", |target| &targets[target as usize]);
            format!("{target}: {error}")
        });
        if target.is_none() {
            // No request is to blame: the one before was answered, and then came more.
            self.recorder.on_connect_failure(now, Fault::Malformed);
        }
        self.lose(conn, Fault::Malformed, Fault::Closed, now);
    }

    /// A receive has ended with bytes: more may follow.
    fn on_receive_ended(&mut self, conn: u32, now: u64) {
        self.conns[conn as usize].receiving = false;
        match self.conns[conn as usize].phase {
            Phase::Closing { .. } => self.settle(conn, now),
            _ => self.receive(conn),
        }
    }

    /// A receive has ended without bytes.
    fn on_end(&mut self, conn: u32, end: &Result<Option<Lease>, Errno>, now: u64) {
        let it = &mut self.conns[conn as usize];
        it.receiving = false;
        let phase = it.phase;
        if let Phase::Closing { .. } = phase {
            return self.settle(conn, now);
        }
        match end {
            Err(errno) if *errno == Errno::NO_BUFFERS => self.receive(conn),
            Err(errno) => self.lose(conn, fault_of(*errno), fault_of(*errno), now),
            Ok(_) => {
                if let Phase::Ending { since } = phase {
                    return self.close(conn, since);
                }
                match it.scanner.end() {
                    Ok(Some(reply)) if !it.asked.is_empty() => {
                        let asked = it.asked[0];
                        let menu = &self.task.lanes[it.lane as usize].menu;
                        let target = menu.requests[asked.request as usize].target;
                        self.on_reply(conn, target, &reply, 1, now);
                        self.close(conn, now);
                    }
                    Ok(_) => self.lose(conn, Fault::Closed, Fault::Closed, now),
                    Err(_) => self.lose(conn, Fault::CutShort, Fault::Closed, now),
                }
            }
        }
    }
}
