//! One thread's loop: what is due goes to the ring, what completes to the recorder. Resolves no
//! names and chooses no cores.
//!
//! A turn: open, think and send what is due; one enter, which waits until shortly before the next
//! thing is due; then each completion. The clock is read twice a turn: a request counts as sent when
//! its turn hands it to the ring, an answer as received when the turn that brought it begins. So
//! times err by what a turn takes, and always to the longer side.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use uring_ring::{Address, Completion, Errno, GroupId, Lease, Op, Outcome, Ring, SendBuffer};

use super::super::plan::Expect;
use super::super::record::{Answer, Failure, Fault, Recorder, Rest};
use super::super::scan::{Memory, Reply, ScanError};
use super::super::schedule::Schedule;
use super::conn::{Asked, Conn, Phase};
use super::examples::Examples;
use super::lane::Lane;
use super::pace::Pace;

/// Connections that a thread opens at the same time: with more, a server's accept queue overflows,
/// and the kernel tries again only after a second.
const CONNECTING_MAX: usize = 128;
/// How long after a failed connect the next one is tried.
const RETRY: u64 = 50_000_000;
/// How long a server that was asked to close may take; then this end closes.
const ENDING: u64 = 1_000_000_000;
/// Connecting takes no longer, or has failed.
const CONNECT_TIMEOUT: u64 = 10_000_000_000;
/// Time-outs are looked for so often: each thirtieth part of one, within these bounds.
const SWEEP_MIN: u64 = 1_000_000;
const SWEEP_MAX: u64 = 250_000_000;

/// The time and the sockets of a loader: real, or simulated for tests.
pub(super) trait World {
    /// Nanoseconds since the run began.
    fn now(&mut self) -> u64;
    /// Makes the socket of a connection.
    fn socket(&mut self, peer: &Address, connection: usize) -> Result<OwnedFd, Fault>;
}

/// What a loader does, as the plan says it for this thread.
pub(super) struct Task {
    pub(super) lanes: Vec<Lane>,
    /// Where each lane's connections go.
    pub(super) peers: Vec<Rc<Address>>,
    /// Names of the targets, for people.
    pub(super) targets: std::sync::Arc<[String]>,
    /// The lane of each connection.
    pub(super) connections: Vec<u32>,
    pub(super) is_open_loop: bool,
    pub(super) pipeline: usize,
    pub(super) session: u64,
    pub(super) inflight_max: usize,
    /// Requests of one connection.
    pub(super) requests_per_connection: u64,
    /// When connections may be opened, if that is bounded.
    pub(super) openings: Option<Schedule>,
    pub(super) think: u64,
    pub(super) timeout: u64,
    pub(super) drain: u64,
    /// No request leaves from then on.
    pub(super) end: u64,
    /// At most so many requests leave.
    pub(super) requests: u64,
    pub(super) expect: Expect,
    pub(super) may_spin: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tag {
    Connect(u32),
    Receive(u32),
    Send(u32),
    Close(u32),
}

pub(super) struct Loader<W> {
    world: W,
    ring: Ring<Tag>,
    group: GroupId,
    task: Task,
    recorder: Recorder,
    conns: Vec<Conn>,
    /// The last response head of each target.
    memories: Vec<Memory>,
    pace: Pace,
    /// Connections to be opened, in order.
    to_open: VecDeque<u32>,
    /// Connections that failed, and when each is tried again: in order.
    retries: VecDeque<(u64, u32)>,
    /// Connections whose next request has its time: in order, as all think equally long.
    thinking: VecDeque<(u64, u32)>,
    /// Connections that may have become ready in this turn.
    touched: Vec<u32>,
    /// What leaves next on one connection; empty between sends.
    batch: Vec<Asked>,
    connecting: usize,
    open: usize,
    in_flight: usize,
    /// Requests whose connections are being opened.
    errands: usize,
    sweep: u64,
    sweep_at: u64,
    /// Requests that may still be sent.
    left: u64,
    /// The clock runs; before, connections are opened at no time.
    has_begun: bool,
    is_over: bool,
    examples: Examples,
}

/// What a loader leaves.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) rest: Rest,
    pub(super) examples: Examples,
    pub(super) enters: u64,
    /// When it stopped to send.
    pub(super) load_end: u64,
}

impl<W: World> Loader<W> {
    pub(super) fn new(
        world: W,
        ring: Ring<Tag>,
        group: GroupId,
        task: Task,
        recorder: Recorder,
    ) -> Loader<W> {
        let conns: Vec<Conn> = task.connections.iter().map(|lane| Conn::new(*lane)).collect();
        let memories = task.targets.iter().map(|_| Memory::default()).collect();
        Loader {
            world,
            ring,
            group,
            recorder,
            conns,
            memories,
            pace: Pace::new(task.may_spin),
            to_open: VecDeque::new(),
            retries: VecDeque::new(),
            thinking: VecDeque::new(),
            touched: Vec::new(),
            batch: Vec::new(),
            connecting: 0,
            open: 0,
            in_flight: 0,
            errands: 0,
            sweep: (task.timeout / 30).clamp(SWEEP_MIN, SWEEP_MAX),
            sweep_at: 0,
            left: task.requests,
            has_begun: false,
            is_over: false,
            examples: Examples::default(),
            task,
        }
    }

    /// Its clock and sockets.
    pub(super) fn world(&mut self) -> &mut W {
        &mut self.world
    }

    /// Opens the connections that will be kept, before the clock runs: each gets one try. Nothing is
    /// opened that the load itself opens: at a rate, or for each request.
    ///
    /// # Errors
    ///
    /// The ring is unusable.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        for conn in 0..self.conns.len() as u32 {
            if self.opens_on_demand() {
                self.idle(conn);
            } else {
                self.queue(conn);
            }
        }
        if self.task.openings.is_some() || self.opens_on_demand() {
            return Ok(());
        }
        let until = self.world.now() + CONNECT_TIMEOUT;
        loop {
            let now = self.world.now();
            self.open_queued(now);
            if (self.to_open.is_empty() && self.connecting == 0) || now >= until {
                return Ok(());
            }
            self.turn(Duration::from_millis(10))?;
        }
    }

    /// Loads until the plan is through, or `stop` says so; then waits for what is under way.
    ///
    /// # Errors
    ///
    /// The ring is unusable.
    pub(super) fn run(mut self, stop: &AtomicBool) -> io::Result<Left> {
        self.has_begun = true;
        self.retries.iter_mut().for_each(|(at, _)| *at = 0);
        self.sweep_at = self.sweep;
        for conn in 0..self.conns.len() as u32 {
            let it = &mut self.conns[conn as usize];
            it.ready_at = 0;
            match &mut it.phase {
                Phase::Open => self.touched.push(conn),
                Phase::Connecting { since } | Phase::Closing { since } => *since = 0,
                _ => {}
            }
        }
        loop {
            let now = self.world.now();
            if stop.load(Ordering::Relaxed) {
                self.task.end = self.task.end.min(now);
            }
            if self.act(now) {
                break;
            }
            let wait = self.wait(now);
            self.turn(wait)?;
        }
        Ok(self.finish())
    }

    /// One enter, and all that it brings.
    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        self.ring.turn(Some(wait))?;
        let now = self.world.now();
        let mut has_completed = false;
        while let Some(completion) = self.ring.poll_completion() {
            has_completed = true;
            self.on_completion(completion, now);
        }
        self.pace.on_wake(now, has_completed);
        if self.has_begun {
            if now >= self.recorder.tick_at() {
                self.gauge(now);
            }
            self.recorder.tick(now);
        }
        Ok(())
    }

    /// Does what is due; whether all is done.
    fn act(&mut self, now: u64) -> bool {
        if !self.is_over && self.is_spent(now) {
            // What was due in time and has a connection leaves, though this thread is late.
            for lane in 0..self.task.lanes.len() {
                self.send_due(lane, now);
            }
            self.begin_end(now);
        }
        self.open_queued(now);
        if now >= self.sweep_at {
            self.sweep(now);
            self.sweep_at = now + self.sweep;
        }
        if self.is_over {
            self.touched.clear();
            return (self.in_flight == 0 && self.errands == 0) || now >= self.drained_at();
        }
        for index in 0..self.touched.len() {
            self.ready(self.touched[index], now);
        }
        self.touched.clear();
        while let Some(&(due, conn)) = self.thinking.front()
            && due <= now
        {
            self.thinking.pop_front();
            self.end_thought(conn, due, now);
        }
        if self.task.is_open_loop {
            for lane in 0..self.task.lanes.len() {
                self.send_due(lane, now);
            }
        }
        false
    }

    fn drained_at(&self) -> u64 {
        self.task.end.saturating_add(self.task.drain)
    }

    /// Nothing more is to be sent.
    fn is_spent(&self, now: u64) -> bool {
        now >= self.task.end || self.left == 0
    }

    /// From here on answers are waited for, and nothing is sent.
    fn begin_end(&mut self, now: u64) {
        self.is_over = true;
        self.task.end = self.task.end.min(now);
        self.thinking.clear();
        self.retries.clear();
        self.to_open.retain(|conn| self.conns[*conn as usize].errand.is_some());
    }

    /// In an open loop with churn, a connection is opened when a request is due for it: its user
    /// would wait for that, too.
    fn opens_on_demand(&self) -> bool {
        self.task.is_open_loop && self.task.requests_per_connection != u64::MAX
    }

    /// How long the ring may wait for completions.
    fn wait(&mut self, now: u64) -> Duration {
        let mut coarse = self.recorder.tick_at().min(self.sweep_at);
        let mut paced = u64::MAX;
        if self.is_over {
            coarse = coarse.min(self.drained_at());
        } else {
            coarse = coarse.min(self.task.end);
            if let Some(&(at, _)) = self.retries.front() {
                coarse = coarse.min(at);
            }
            if let Some(&(due, _)) = self.thinking.front() {
                paced = due;
            }
            if self.in_flight + self.errands < self.task.inflight_max {
                for lane in &self.task.lanes {
                    if let Some(schedule) = &lane.schedule
                        && let Some(due) = schedule.next()
                        && !lane.idle.is_empty()
                    {
                        paced = paced.min(due);
                    }
                }
            }
        }
        if !self.to_open.is_empty()
            && self.connecting < CONNECTING_MAX
            && let Some(at) = self.task.openings.as_ref().and_then(Schedule::next)
        {
            coarse = coarse.min(at);
        }
        if paced < coarse {
            self.pace.wait_until(paced, now)
        } else {
            Duration::from_nanos(coarse.saturating_sub(now))
        }
    }

    fn gauge(&self, now: u64) {
        let overdue = |lane: &Lane| lane.schedule.as_ref().map_or(0, |it| it.overdue(now));
        let backlog = self.task.lanes.iter().map(overdue).sum();
        self.recorder.gauge(self.open as u64, self.in_flight as u64, backlog);
    }

    /// What is unsent or unanswered has waited until now.
    fn finish(mut self) -> Left {
        let now = self.world.now();
        self.gauge(now);
        for conn in &self.conns {
            for asked in &conn.asked {
                for _ in 0..asked.count {
                    self.recorder.on_unfinished(asked.intended, Some(asked.sent), now);
                }
            }
            if let Some(asked) = conn.errand {
                self.recorder.on_unfinished(asked.intended, None, now);
            }
        }
        for lane in &mut self.task.lanes {
            let Some(schedule) = &mut lane.schedule else { continue };
            while let Some(due) = schedule.next()
                && due < self.task.end
            {
                self.recorder.on_unfinished(due, None, now);
                schedule.advance();
            }
        }
        let (rest, enters) = (self.recorder.finish(now), self.ring.turns());
        Left { rest, examples: self.examples, enters, load_end: self.task.end.min(now) }
    }
}

/// Connections.
impl<W: World> Loader<W> {
    fn queue(&mut self, conn: u32) {
        self.conns[conn as usize].phase = Phase::Queued;
        self.to_open.push_back(conn);
    }

    fn open_queued(&mut self, now: u64) {
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

    fn on_connected(&mut self, conn: u32, result: Result<(), Errno>, now: u64) {
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
        it.ready_at = now;
        self.open += 1;
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

    fn receive(&mut self, conn: u32) {
        let it = &mut self.conns[conn as usize];
        let Some(socket) = &it.socket else { return };
        let fd = socket.as_raw_fd();
        it.receiving = true;
        let op = Op::Recv { fd, group: self.group, multishot: true };
        self.ring.push(op, Tag::Receive(conn));
    }

    /// Closes; what is in flight ends by that.
    fn close(&mut self, conn: u32, since: u64) {
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
    fn settle(&mut self, conn: u32, now: u64) {
        let it = &mut self.conns[conn as usize];
        let Phase::Closing { since } = it.phase else { return };
        if !it.is_quiet() {
            return;
        }
        it.phase = Phase::Closed;
        it.scanner = super::super::scan::Scanner::default();
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
    fn lose(&mut self, conn: u32, first: Fault, then: Fault, now: u64) {
        let mut fault = first;
        while let Some(asked) = self.conns[conn as usize].settle(1) {
            self.in_flight -= 1;
            self.fail(conn, asked, Some(asked.sent), fault, now);
            fault = then;
        }
        self.close(conn, now);
    }

    fn fail(&mut self, conn: u32, asked: Asked, sent: Option<u64>, fault: Fault, now: u64) {
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
    fn sweep(&mut self, now: u64) {
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

/// Requests.
impl<W: World> Loader<W> {
    /// A connection that can be asked again, in an open loop.
    fn idle(&mut self, conn: u32) {
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
    fn ready(&mut self, conn: u32, now: u64) {
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
    fn end_thought(&mut self, conn: u32, due: u64, now: u64) {
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
    fn send_due(&mut self, lane: usize, now: u64) {
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
                self.conns[conn as usize].errand = Some(asked);
                self.conns[conn as usize].ready_at = due;
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
    fn send(&mut self, conn: u32, batch: &[Asked], now: u64) {
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

/// Completions.
impl<W: World> Loader<W> {
    #[inline]
    fn on_completion(&mut self, completion: Completion<Tag>, now: u64) {
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

/// What an error of an open connection means.
fn fault_of(errno: Errno) -> Fault {
    match errno.raw() {
        libc::ECONNRESET | libc::EPIPE => Fault::Reset,
        libc::ETIMEDOUT => Fault::Timeout,
        libc::EHOSTUNREACH | libc::ENETUNREACH => Fault::Unreachable,
        _ => Fault::Other,
    }
}

/// What an error of a connection that is being opened means.
pub(super) fn connect_fault(errno: Errno) -> Fault {
    match errno.raw() {
        libc::ECONNREFUSED | libc::ENOENT => Fault::Refused,
        libc::EHOSTUNREACH | libc::ENETUNREACH => Fault::Unreachable,
        libc::ETIMEDOUT => Fault::ConnectTimeout,
        libc::EADDRNOTAVAIL | libc::EADDRINUSE => Fault::NoPort,
        libc::EMFILE | libc::ENFILE => Fault::NoDescriptor,
        libc::ECONNRESET => Fault::Reset,
        _ => Fault::Other,
    }
}
