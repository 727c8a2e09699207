//! One thread's loop: what is due goes to the ring, what completes to the recorder. Resolves no
//! names and chooses no cores.
//!
//! A turn: open, think and send what is due; one enter, which waits until shortly before the next
//! thing is due; then each completion. The clock is read twice a turn: a request counts as sent when
//! its turn hands it to the ring, an answer as received when the turn that brought it begins. So
//! times err by what a turn takes, and always to the longer side.

mod completions;
mod connections;
mod requests;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use uring_ring::{GroupId, Ring};

use super::conn::{Asked, Conn, Phase};
use super::examples::Examples;
use super::lane::Lane;
use super::pace::Pace;
use super::task::Task;
use super::world::World;
use crate::bench::record::{Recorder, Rest};
use crate::bench::scan::Memory;
use crate::bench::schedule::Schedule;
use connections::CONNECTING_MAX;

/// Connecting takes no longer, or has failed.
const CONNECT_TIMEOUT: u64 = 10_000_000_000;
/// Time-outs are looked for so often: each thirtieth part of one, within these bounds.
const SWEEP_MIN: u64 = 1_000_000;
const SWEEP_MAX: u64 = 250_000_000;

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
    /// When a connection was last opened, or closed.
    alive_at: u64,
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
    /// When it stopped to send; after a number of requests, when the last one had its answer.
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
            alive_at: 0,
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
        (self.sweep_at, self.alive_at) = (self.sweep, 0);
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
        now >= self.task.end || self.left == 0 || (self.in_flight == 0 && self.has_run_dry())
    }

    /// Nothing will be due any more, and no time is waited for: what sessions that broke off would
    /// have asked is left of the number of requests.
    fn has_run_dry(&self) -> bool {
        let is_through = |lane: &Lane| lane.schedule.as_ref().is_some_and(|it| it.next().is_none());
        self.task.end == u64::MAX
            && self.errands == 0
            && self.thinking.is_empty()
            && self.touched.is_empty()
            && self.task.lanes.iter().all(is_through)
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
        // So many requests have taken until the last one was answered; so much time is over by itself.
        let load_end = if self.left == 0 { now } else { self.task.end.min(now) };
        Left { rest, examples: self.examples, enters, load_end }
    }
}
