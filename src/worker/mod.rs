//! The worker: one process, one ring, one loop. Acts on what connections decide; knows no HTTP.

mod access_log;
mod arrivals;
mod connections;
mod entry;
mod gate;
mod lifecycle;
mod orders;
mod passing;
mod publish;
mod recycle;
pub mod rt;
mod run;
mod server;
mod table;
#[cfg(test)]
mod tests;
mod timers;

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::process;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use uring_ring::{Completion, GroupId, Op, Outcome, Ring};

use crate::app::Service;
use crate::conn::{Action, DRAIN_GRACE, DateField, Draining, Env, Pools, Settings};
use crate::errands::Errands;
use crate::figures::Figures;
use crate::guard::Guard;
use crate::process::accept::{Acceptor, Company};
use crate::process::channel::{Limit, Message};
use crate::process::clock::{self, Anchor};
use crate::process::memory::Memory;
use crate::process::scoreboard::WorkerPage;
use crate::process::steer::{Slot, Taker};
use access_log::AccessLog;
use connections::Connections;
use entry::{Entry, Receive};
use gate::{Gate, GateConfig};
use lifecycle::Lifecycle;
use passing::Passing;
use recycle::Recycle;
use rt::{ConnWakers, Runtime, WakeQueue, Woken};
use table::{ConnId, Table};
use timers::Timers;

pub use connections::ConnMeta;
pub(crate) use connections::server;
pub(crate) use run::{Shared, connect, drive, run};
pub use server::Server;

/// What a completion is about.
#[derive(Clone, Copy, Debug)]
enum Tag {
    Accept {
        listener: usize,
    },
    Receive(ConnId),
    Send(ConnId),
    Read(ConnId),
    Writable(ConnId),
    Close(ConnId),
    /// Its target says all that there is to know.
    Cancel,
    Channel,
    /// A message to the master went out.
    Said,
    Signal,
    Bell,
    /// Descriptors from the master.
    Arrived,
    /// Descriptors to the master.
    HandedOver,
    /// Lines of the access log.
    Logged,
    /// What a future asked for, by its number.
    Errand(usize),
}

/// How the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Continue,
    /// Drained, or out of time for it.
    Stopped,
}

/// What a worker is made of.
struct Parts {
    ring: Ring<Tag>,
    buffers: GroupId,
    listeners: Vec<(OwnedFd, Company)>,
    /// Whether it accepts from none of them before it is told to.
    is_held: bool,
    /// Where a steered listener's load is shown, for each of the `listeners`.
    slots: Vec<Option<&'static Slot>>,
    /// Descriptors from and to the master.
    passing: OwnedFd,
    /// The master's.
    bell: OwnedFd,
    recycle: Recycle,
    limit: Limit,
    /// To the master; its end means that the master is gone.
    channel: OwnedFd,
    /// A signalfd.
    signals: OwnedFd,
    /// How long it drains when the master is gone.
    stop_timeout: Duration,
    settings: Settings,
    gate: GateConfig,
    guard: Guard,
    access_log: Option<AccessLog>,
    page: &'static WorkerPage,
    worker_id: usize,
    runtime: Rc<Runtime>,
    queue: Arc<WakeQueue>,
}

/// A worker between two turns.
struct Worker {
    ring: Ring<Tag>,
    buffers: GroupId,
    table: Table<Entry>,
    timers: Timers,
    acceptor: Acceptor<Tag>,
    gate: Gate,
    /// Where connections are bare.
    bare: Option<Connections>,
    access_log: Option<AccessLog>,
    /// Where a steered listener's load is shown, for each listener.
    takers: Vec<Option<Taker>>,
    passing: Passing,
    lifecycle: Lifecycle,
    recycle: Recycle,
    /// The master has to be told once.
    owes_accept_stopped: bool,
    around: Around,
    runtime: Rc<Runtime>,
    errands: Rc<Errands>,
    queue: Arc<WakeQueue>,
    /// Lends its memory to the wake queue.
    woken: Vec<Woken>,
    page: &'static WorkerPage,
    id: usize,
    /// Of this process alone.
    requests: u64,
    connections: u64,
    anchor: Anchor,
    memory: Memory,
    /// Requests up to the last turn.
    requests_shown: u64,
}

/// What connections borrow for a call.
struct Around {
    now: Instant,
    /// The same in nanoseconds of the monotonic clock.
    nanos: u64,
    settings: Settings,
    service: Box<dyn Service>,
    wakers: ConnWakers,
    date: DateField,
    pools: Pools,
    guard: Guard,
    figures: &'static Figures,
    draining: Draining,
    traffic: Traffic,
}

/// What the worker counts itself.
#[derive(Default)]
struct Traffic {
    accepted: u64,
    closed: u64,
    bytes_received: u64,
    bytes_sent: u64,
}

impl Around {
    /// How long a new connection may take to bring its first request.
    fn first_request_timeout(&self) -> Duration {
        match self.draining {
            Draining::Closing => DRAIN_GRACE,
            Draining::No | Draining::HandingOver => self.settings.head_timeout,
        }
    }

    fn env(&mut self, id: ConnId) -> Env<'_> {
        Env {
            now: self.now,
            nanos: self.nanos,
            settings: &self.settings,
            service: &*self.service,
            waker: self.wakers.lend(id),
            date: &self.date,
            pools: &mut self.pools,
            guard: &mut self.guard,
            figures: self.figures,
            draining: self.draining,
        }
    }
}

impl Worker {
    /// A worker that starts accepting with its first turn, unless it is held.
    fn new(parts: Parts, service: Box<dyn Service>, now: Instant) -> Worker {
        let Parts { ring, buffers, listeners, channel, signals, settings, .. } = parts;
        let Parts { runtime, queue, slots, passing, bell, recycle, limit, .. } = parts;
        let Parts { gate, guard, access_log, worker_id, page, stop_timeout, is_held, .. } = parts;
        let connections_max = gate.connections_max;
        let tag = |listener| Tag::Accept { listener };
        let mut worker = Worker {
            ring,
            buffers,
            table: Table::new(),
            timers: Timers::new(now),
            // One more than may be open: for whom one that idles has to go.
            acceptor: Acceptor::new(listeners, connections_max + 1, tag, Tag::Cancel),
            gate: Gate::new(gate),
            bare: None,
            access_log,
            takers: slots.into_iter().map(|slot| Some(Taker::new(slot?, now))).collect(),
            passing: Passing::new(passing, bell),
            lifecycle: Lifecycle::new(channel, signals, limit, stop_timeout),
            recycle,
            owes_accept_stopped: false,
            around: Around {
                now,
                nanos: 0,
                settings,
                service,
                wakers: ConnWakers::new(Arc::clone(&queue)),
                date: DateField::new(now, SystemTime::now()),
                pools: Pools::default(),
                guard,
                figures: &page.figures,
                draining: Draining::No,
                traffic: Traffic::default(),
            },
            runtime,
            errands: Errands::new(now),
            queue,
            woken: Vec::new(),
            page,
            id: worker_id,
            requests: 0,
            connections: 0,
            anchor: Anchor::new(now, clock::monotonic_nanos()),
            memory: Memory::open(),
            requests_shown: page.figures.requests.read(),
        };
        worker.measure_memory();
        worker.listen_to_bell();
        worker.passing.receive(&mut worker.ring);
        if is_held {
            worker.acceptor.hold();
        } else {
            worker.acceptor.begin(&mut worker.ring, worker.table.len());
        }
        let report = Message::WorkerReady { worker_id, pid: process::id(), connections_max };
        worker.lifecycle.begin(&report, &mut worker.ring);
        worker
    }

    /// One turn: the work that there is, then one enter, which waits.
    fn turn(&mut self, clock: impl Fn() -> Instant) -> io::Result<Turn> {
        let turn = self.work(clock)?;
        if turn == Turn::Continue {
            self.rest(self.around.now, None)?;
        }
        Ok(turn)
    }

    /// What is complete, what is due, what was woken. Leaves what follows from that to the next
    /// enter.
    #[inline]
    fn work(&mut self, clock: impl Fn() -> Instant) -> io::Result<Turn> {
        let now = clock();
        self.runtime.enter(now);
        self.around.now = now;
        if self.page.asks.sleeps.read() != 0 {
            self.page.asks.sleeps.set(0);
            self.passing.ring_bell(); // somebody has to look whether this turn ends
        }
        self.around.nanos = self.anchor.nanos(now);
        self.page.traffic.busy_since.set(self.around.nanos);
        if self.around.date.refresh(now, SystemTime::now) {
            self.on_second();
        }
        self.gate.begin_turn();
        if self.gate.is_wanted() && self.page.asks.closings.read() == 0 {
            self.gate.set_wanted(false);
        }
        self.errands.enter(now, self.around.date.unix_seconds());
        while let Some(completion) = self.ring.poll_completion() {
            self.on_completion(completion);
        }
        self.runtime.handle_time(now);
        self.on_alarms();
        self.on_woken();
        self.on_newcomers();
        self.on_bare_ends();
        let connections = self.connections();
        self.acceptor.handle_time(now, &mut self.ring, connections);
        self.flush_log();
        self.publish(clock());
        self.speak(now);
        while let Some((number, op)) = self.errands.poll() {
            let id = self.ring.push(op, Tag::Errand(number));
            self.errands.on_pushed(number, id);
        }
        self.passing.flush(now, &mut self.ring);
        if let Some(errno) = self.lifecycle.failure() {
            return Err(errno.into());
        }
        let is_idle = self.connections() == 0
            && self.acceptor.is_off()
            && self.passing.is_idle()
            && self.has_finished_log();
        if self.lifecycle.is_over(now, is_idle) {
            self.say_last_words();
            return Ok(Turn::Stopped);
        }
        Ok(Turn::Continue)
    }

    /// One enter, which waits until there is work, for at most so long.
    #[inline]
    fn rest(&mut self, now: Instant, at_most: Option<Duration>) -> io::Result<()> {
        let wait = if self.queue.is_empty() { self.wait(now) } else { Some(Duration::ZERO) };
        self.ring.turn(wait.into_iter().chain(at_most).min())
    }

    fn on_completion(&mut self, Completion { tag, outcome, more }: Completion<Tag>) {
        match (tag, outcome) {
            (Tag::Receive(id), Outcome::Received(result)) => {
                let Some(entry) = self.table.get_mut(id) else { return };
                if !more {
                    entry.receive = Receive::Off;
                }
                let mut env = self.around.env(id);
                match result {
                    _ if entry.is_closing() => {}
                    Ok(Some(bytes)) => {
                        entry.connection.handle_bytes(&bytes, &mut env);
                        self.around.traffic.bytes_received += bytes.len() as u64;
                    }
                    Ok(None) => entry.connection.handle_end(&mut env),
                    Err(errno) => entry.on_receive_error(errno, &env),
                }
                self.settle(id);
            }
            (Tag::Send(id), Outcome::Sent { mut buffer, result }) => {
                let Some(entry) = self.table.get_mut(id) else { return };
                entry.sending = false;
                match result {
                    _ if entry.is_closing() => {}
                    Ok(sent) if sent > 0 => {
                        self.around.traffic.bytes_sent += sent as u64;
                        buffer.advance(sent);
                        let mut env = self.around.env(id);
                        if buffer.left() == 0 {
                            entry.connection.handle_sent(buffer.into_head(), &mut env);
                        } else {
                            entry.connection.handle_send_progress(&env);
                            entry.send(id, buffer, &mut self.ring);
                        }
                    }
                    _ => entry.connection.handle_failure(&self.around.env(id)),
                }
                self.settle(id);
            }
            (Tag::Read(id), Outcome::ReadAt { buffer, result }) => {
                let Some(entry) = self.table.get_mut(id) else { return };
                entry.reading = false;
                let mut env = self.around.env(id);
                entry.connection.handle_read(buffer, result.map_err(io::Error::from), &mut env);
                self.settle(id);
            }
            (Tag::Writable(id), Outcome::Writable(_)) => {
                let Some(entry) = self.table.get_mut(id) else { return };
                entry.sending = false;
                let turn_bytes = self.around.traffic.bytes_sent;
                let mut env = self.around.env(id);
                let sent = entry.resume_file(id, turn_bytes, &mut self.ring, &mut env);
                self.around.traffic.bytes_sent += sent;
                self.settle(id);
            }
            (Tag::Close(id), Outcome::Closed(_)) => {
                let Some(entry) = self.table.get_mut(id) else { return };
                entry.closed = true;
                self.settle(id);
            }
            (Tag::Logged, Outcome::Written { buffer, result }) => {
                if let (Some(log), Some(lines)) =
                    (&mut self.access_log, &mut self.around.guard.lines)
                {
                    log.on_written(buffer, result, lines, self.around.now, &mut self.ring);
                }
            }
            (Tag::Accept { listener }, Outcome::Accepted(result)) => {
                self.on_accepted(listener, result, more);
            }
            (Tag::Accept { listener }, Outcome::Watched(result)) => {
                self.acceptor.on_watched(listener, result, more, self.around.now);
                let connections = self.connections();
                self.acceptor.arm(&mut self.ring, connections);
            }
            (Tag::Bell, Outcome::Read { result, .. }) => match result {
                Ok(_) => self.listen_to_bell(),
                Err(errno) => self.lifecycle.on_failure(errno),
            },
            (Tag::Cancel, Outcome::Cancelled(_)) => {}
            (Tag::Said, Outcome::Sent { .. }) => self.lifecycle.on_said(&mut self.ring),
            (Tag::Arrived, Outcome::ReceivedFds { payload, fds, result }) => {
                self.on_delivery(Passing::on_received(&payload, fds, result));
            }
            (Tag::HandedOver, Outcome::SentFds { fds, result, .. }) => {
                self.passing.on_sent(fds, result, self.around.now);
            }
            (Tag::Channel | Tag::Signal, Outcome::Read { buffer, result }) => {
                let now = self.around.now;
                if let Some(order) =
                    self.lifecycle.on_read(tag, &buffer, result, &mut self.ring, now)
                {
                    self.follow(order);
                }
            }
            (Tag::Errand(number), outcome) => self.errands.handle_outcome(number, outcome),
            (tag, outcome) => unreachable!("{tag:?} completed as {outcome:?}"),
        }
    }

    /// Connections that are open, served or not yet.
    fn connections(&self) -> usize {
        self.open() + self.gate.waiting()
    }

    /// Connections that are served.
    fn open(&self) -> usize {
        self.table.len() + self.bare.as_ref().map_or(0, |bare| bare.tally.open())
    }

    /// A connection is gone, or goes elsewhere.
    fn remove(&mut self, id: ConnId) -> Option<Entry> {
        let entry = self.table.remove(id)?;
        self.around.guard.memory.change(entry.held_bytes, 0);
        if entry.is_counted
            && let Some(client) = entry.connection.client_to_count()
        {
            self.gate.discount(client);
        }
        self.gate.on_removed();
        Some(entry)
    }

    /// Does what the connection wants, and waits for what it waits for.
    fn settle(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let mut sent = self.around.traffic.bytes_sent;
        let mut env = self.around.env(id);
        while let Some(action) = entry.connection.poll_action(&mut env) {
            match action {
                Action::Send => {
                    let outgoing = entry.connection.take_outgoing(&env);
                    entry.send(id, outgoing.into(), &mut self.ring);
                }
                Action::Read(read) => entry.read(id, *read, &mut self.ring),
                Action::SendFile(file) => {
                    sent += entry.send_file(id, file, sent, &mut self.ring, &mut env);
                }
                Action::ShutdownWrite => entry.shutdown_write(&mut self.ring),
                Action::Abort => entry.begin_abort(id, &mut self.ring),
                Action::Close => {
                    let released = self.page.orders.released.read();
                    entry.begin_close(id, released, &mut self.ring);
                }
            }
        }
        self.around.traffic.bytes_sent = sent;
        let held_bytes = entry.connection.held_bytes();
        self.around.guard.memory.change(entry.held_bytes, held_bytes);
        entry.held_bytes = held_bytes;
        if entry.is_closing() {
            if entry.may_remove() {
                self.remove(id);
                self.around.traffic.closed += 1;
                let connections = self.connections();
                self.acceptor.arm(&mut self.ring, connections);
            }
            return;
        }
        if self.gate.counts_clients()
            && !entry.is_counted
            && let Some(client) = entry.connection.client_to_count()
        {
            entry.is_counted = true;
            if !self.gate.count(client) {
                entry.connection.turn_client_away(&self.around.env(id));
                return self.settle(id);
            }
        }
        if self.around.draining == Draining::HandingOver && entry.connection.may_move() {
            if entry.end_receive(&mut self.ring)
                && let Some(socket) = self.remove(id).and_then(Entry::into_socket)
            {
                self.passing.hand_over(socket);
            }
            return;
        }
        entry.update_receive(id, self.buffers, &mut self.ring);
        if let Some(deadline) = entry.connection.poll_timeout() {
            self.timers.set(id, deadline, &mut entry.alarm);
        }
    }

    fn on_alarms(&mut self) {
        while let Some((at, id)) = self.timers.poll_due(self.around.now) {
            let Some(entry) = self.table.get_mut(id).filter(|entry| entry.alarm == Some(at)) else {
                continue;
            };
            entry.alarm = None;
            if !entry.is_closing() {
                let mut env = self.around.env(id);
                entry.look_at_reader(&env);
                entry.connection.handle_timeout(&mut env);
            }
            self.settle(id);
        }
    }

    /// Polls what was woken before this turn; what is woken by that waits for the next.
    fn on_woken(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let mut woken = mem::take(&mut self.woken);
        self.queue.take(&mut woken);
        for what in woken.drain(..) {
            match what {
                Woken::Task(number) => self.runtime.handle_wake(number),
                Woken::Connection(id) => {
                    let Some(entry) = self.table.get_mut(id) else { continue };
                    if !entry.is_closing() {
                        entry.connection.handle_wake(&mut self.around.env(id));
                    }
                    self.settle(id);
                }
            }
        }
        self.woken = woken;
    }

    fn listen_to_bell(&mut self) {
        let buffer = Vec::with_capacity(size_of::<u64>());
        self.ring.push(Op::Read { fd: self.queue.bell(), buffer }, Tag::Bell);
    }

    /// How long there is nothing to do unless something happens.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let (open, table) = (self.open(), &self.table);
        let alarm = self.timers.next(|at, id| {
            table.get(id).is_some_and(|entry| entry.alarm == Some(at) && !entry.is_closing())
        });
        let deadlines = [
            alarm,
            self.runtime.poll_timeout(),
            self.acceptor.poll_timeout(),
            self.lifecycle.poll_timeout(),
            self.recycle.poll_timeout(),
            self.gate.poll_timeout(open, now),
            self.access_log.as_ref().and_then(AccessLog::poll_timeout),
            self.passing.poll_timeout(),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }
}
