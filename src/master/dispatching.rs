//! Connections on their way through the master: accepted here or handed back by a worker that
//! leaves, passed to whom the [`Dispatcher`] chooses, refused when there is nobody. Acts; what goes
//! where is decided in `dispatch`.

use std::collections::BTreeMap;
use std::mem;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, SockaddrStorage, getpeername, recv};
use uring_ring::{Arrival, Errno, Op, Ring};

use super::balance::Balancer;
use super::children::{Children, Life};
use super::dispatch::{
    self, Balancing, Command, Dispatcher, Passed, Progress, Refusal, STALLED_AFTER,
};
use super::refusal::Refusals;
use super::{Master, Tag};
use crate::config::PoolConfig;
use crate::process::accept::Acceptor;
use crate::process::channel::Message;
use crate::process::clock::monotonic_nanos;
use crate::process::cpus::Cpus;
use crate::process::parcel::{DESCRIPTORS_MAX, HANDED_OVER_MAX, Origin, Parcel};
use crate::process::scoreboard::{Scoreboard, WorkerPage};

/// After workers were asked to tell, what they did while they didn't know yet is looked up once
/// more: stores of another core are seen within some nanoseconds.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Descriptors of the master that are neither clients nor lines to workers: sockets, and some to
/// spare for what is open for a moment (a file of settings, the programs of an upgrade). A quarter of a
/// limit so low that this is much.
const DESCRIPTORS_RESERVED: usize = 128;

/// Lines to a worker, of which there may be two in each place for a while; its listener; and what one
/// of them hands over at a time.
const DESCRIPTORS_PER_WORKER: usize = 2 * 3 + 1 + HANDED_OVER_MAX;

/// Connections that the master takes however few descriptors there are: what is beyond waits.
const CONNECTIONS_MIN: usize = 16;

/// Whoever handed a connection over in another master is no worker of ours.
const STRANGER: Life = Life { worker: usize::MAX, number: 0 };

/// What the master has of connections.
pub(super) struct Dispatching {
    dispatcher: Dispatcher<OwnedFd>,
    commands: Vec<Command<OwnedFd>>,
    acceptor: Acceptor<Tag>,
    pub(super) refusals: Refusals,
    /// What each worker can take, as it said when it got ready.
    connections_max: BTreeMap<Life, usize>,
    /// Messages that are being read back, and what has been found in them.
    reclaimed: BTreeMap<Life, Vec<Range<u64>>>,
    pub(super) waits_for_room: bool,
    look_again_at: Option<Instant>,
    /// Connections that came, and haven't been given to anybody for good.
    held: usize,
    /// Handed over, and closed in this turn because nobody had room for them.
    lost: usize,
    /// Somebody is to be told when nothing waits any more.
    stops: bool,
}

impl Dispatching {
    pub(super) fn new(config: &PoolConfig, balancer: Box<dyn Balancer>) -> Dispatching {
        let tag = |listener| Tag::Accept { listener };
        Dispatching {
            dispatcher: Dispatcher::new(config, balancer, address_of),
            commands: Vec::new(),
            acceptor: Acceptor::new(Vec::new(), connections_max(config), tag, Tag::Cancel),
            refusals: Refusals::default(),
            connections_max: BTreeMap::new(),
            reclaimed: BTreeMap::new(),
            waits_for_room: false,
            look_again_at: None,
            held: 0,
            lost: 0,
            stops: false,
        }
    }

    /// Other settings, under the limits that are in effect now.
    pub(super) fn configure(&mut self, config: &PoolConfig, balancing: Balancing) {
        self.acceptor.set_connections_max(connections_max(config));
        self.dispatcher.configure(config, balancing);
    }

    /// Accepts from these sockets, and no longer from others.
    pub(super) fn listen(&mut self, sockets: Vec<OwnedFd>, ring: &mut Ring<Tag>) {
        self.acceptor.replace(sockets, ring, self.open());
    }

    /// No other master accepts from these sockets.
    pub(super) fn set_alone(&mut self, ring: &mut Ring<Tag>) {
        self.acceptor.set_alone(ring, self.open());
    }

    pub(super) fn on_watched(
        &mut self,
        listener: usize,
        result: Result<(), Errno>,
        more: bool,
        now: Instant,
        ring: &mut Ring<Tag>,
    ) {
        self.acceptor.on_watched(listener, result, more, now);
        self.acceptor.arm(ring, self.open());
    }

    /// Whether there are descriptors for more connections, beside so many that are on their way out.
    pub(super) fn has_room(&self, outgoing: usize) -> bool {
        !self.acceptor.is_full(self.open() + outgoing)
    }

    /// Connections that are here: what counts against the limit of descriptors.
    fn open(&self) -> usize {
        self.held + self.refusals.len()
    }

    /// The pool stops: nothing comes in but what is there, and nothing waits.
    pub(super) fn stop(&mut self, ring: &mut Ring<Tag>) {
        self.acceptor.stop(ring, self.open());
        self.dispatcher.begin_stop();
        self.stops = true;
    }

    /// Whether, since the pool stops, everything that was there has gone somewhere; told once.
    pub(super) fn poll_empty(&mut self) -> bool {
        let is_empty = self.stops && self.acceptor.is_off() && self.dispatcher.is_settled();
        is_empty && mem::take(&mut self.stops)
    }

    /// Answers whoever still waits at these, which nobody else has any more, and closes them.
    pub(super) fn empty(&mut self, sockets: Vec<OwnedFd>, ring: &mut Ring<Tag>) {
        self.acceptor.empty(sockets, ring, self.open());
    }

    /// The pool doesn't stop after all.
    pub(super) fn resume(&mut self) {
        self.acceptor.resume();
        self.dispatcher.end_stop();
    }

    /// Whether every client that is here has heard what it has to.
    pub(super) fn is_finished(&self) -> bool {
        self.refusals.is_empty() && self.acceptor.is_off()
    }

    pub(super) fn on_ready(&mut self, life: Life, connections_max: usize) {
        self.connections_max.insert(life, connections_max);
    }

    pub(super) fn on_serving(&mut self, life: Life, weight: u32) {
        let connections_max = self.connections_max.get(&life).copied().unwrap_or(1);
        self.dispatcher.handle_worker_ready(life, weight, connections_max as u64);
    }

    pub(super) fn on_leaving(&mut self, life: Life) {
        self.dispatcher.handle_worker_leaving(life);
    }

    pub(super) fn on_gone(&mut self, life: Life, page: &WorkerPage) {
        self.connections_max.remove(&life);
        self.dispatcher.handle_worker_gone(life, page.traffic.taken.read());
    }

    pub(super) fn on_not_taken(&mut self, life: Life, first: u64, count: usize, now: Instant) {
        self.dispatcher.handle_refused(life, first, count as u64, now);
    }

    pub(super) fn on_passed(
        &mut self,
        life: Life,
        connections: Vec<OwnedFd>,
        result: Result<(), Errno>,
        now: Instant,
    ) {
        let passed = match result {
            Ok(()) => Passed::Sent,
            // Too many descriptors are on their way for this user: as good as a full socket.
            Err(errno) if errno == Errno::AGAIN || errno.raw() == libc::ETOOMANYREFS => {
                Passed::Full
            }
            Err(errno) => {
                log::debug!("worker {} can't be passed anything: {errno}", life.worker);
                Passed::Broken
            }
        };
        self.dispatcher.handle_passed(life, connections, passed, now);
    }

    pub(super) fn on_connection_of_old_master(
        &mut self,
        connection: OwnedFd,
        origin: Origin,
        now: Instant,
    ) {
        let origin = match origin {
            Origin::Accepted => dispatch::Origin::Accepted,
            Origin::HandedOver => dispatch::Origin::HandedOver { by: STRANGER },
        };
        self.held += 1;
        self.dispatcher.handle_connection(connection, origin, now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.dispatcher.poll_timeout(),
            self.refusals.poll_timeout(),
            self.acceptor.poll_timeout(),
            self.look_again_at,
        ];
        due.into_iter().flatten().min()
    }

    /// Tells workers whether the master waits for room.
    fn update_asks(&mut self, scoreboard: Scoreboard, children: &Children, now: Instant) {
        let waiting = self.dispatcher.queue_len();
        let shown = &scoreboard.pool().queue_size;
        let waits = waiting > 0;
        if waits || self.waits_for_room {
            shown.set(waiting as u64); // while nobody waits here, it is another master's to show
        }
        if waits != self.waits_for_room {
            children.iter().for_each(|(_, child)| child.page.asks.closings.set(waits.into()));
            self.look_again_at = waits.then_some(now + LOOK_AGAIN_AFTER);
            self.waits_for_room = waits;
        }
    }
}

impl Master<'_> {
    pub(super) fn on_accepted(
        &mut self,
        listener: usize,
        result: Result<OwnedFd, Errno>,
        more: bool,
        now: Instant,
    ) {
        let dispatching = &mut self.dispatching;
        dispatching.acceptor.on_accepted(listener, &result, more, now);
        if let Ok(connection) = result {
            dispatching.held += 1;
            self.scoreboard.pool().accepted.add_among_others(1);
            dispatching.dispatcher.handle_connection(connection, dispatch::Origin::Accepted, now);
        }
        if !more {
            let open = dispatching.open();
            dispatching.acceptor.arm(&mut self.ring, open);
        }
    }

    /// A worker gives back what idles.
    pub(super) fn on_handed_over(
        &mut self,
        life: Life,
        parcel: Option<&Parcel>,
        connections: Vec<OwnedFd>,
        now: Instant,
    ) {
        let Some(Parcel::Connections { origins, .. }) = parcel else {
            log::warn!("{} passed something unknown", self.name_of(life));
            return;
        };
        let missing = origins.len().saturating_sub(connections.len());
        if missing > 0 {
            log::warn!("no descriptor was left for {missing} idle connections (`ulimit -n`)");
        }
        self.scoreboard.pool().handed_over.add_among_others(connections.len() as u64);
        for connection in connections {
            match &mut self.heir {
                Some(new) if new.serves => new.hand_over(connection, Origin::HandedOver),
                _ => {
                    let origin = dispatch::Origin::HandedOver { by: life };
                    self.dispatching.held += 1;
                    self.dispatching.dispatcher.handle_connection(connection, origin, now);
                }
            }
        }
    }

    /// A message, or none, was read back out of a worker's socket.
    pub(super) fn on_reclaimed(
        &mut self,
        life: Life,
        payload: &[u8],
        copies: Vec<OwnedFd>,
        result: Result<Arrival, Errno>,
        now: Instant,
    ) {
        drop(copies); // the dispatcher has its own
        if let (Ok(Arrival::Whole | Arrival::Cut { .. }), Some(parcel)) =
            (result, Parcel::decode(payload))
        {
            if let Parcel::Connections { first, origins } = parcel {
                let found = self.dispatching.reclaimed.entry(life).or_default();
                found.push(first..first + origins.len() as u64);
            }
            return self.reclaim(life, now); // until there is nothing left
        }
        let found = self.dispatching.reclaimed.remove(&life).unwrap_or_default();
        self.dispatching.dispatcher.handle_reclaimed(life, &found, now);
    }

    fn reclaim(&mut self, life: Life, now: Instant) {
        let far = self.children.get(life).and_then(|child| child.passing_far.as_ref());
        let Some(far) = far else {
            let found = self.dispatching.reclaimed.remove(&life).unwrap_or_default();
            return self.dispatching.dispatcher.handle_reclaimed(life, &found, now);
        };
        let op = Op::RecvFds {
            fd: far.as_raw_fd(),
            payload: Parcel::read_buffer(),
            fds_max: DESCRIPTORS_MAX,
            wait: false,
        };
        self.ring.push(op, Tag::Reclaimed(life));
    }

    /// Looks at what workers have taken and closed, and does what follows.
    pub(super) fn dispatch(&mut self, now: Instant) {
        let dispatching = &mut self.dispatching;
        dispatching.refusals.handle_timeout(now, &mut self.ring);
        let open = dispatching.open();
        dispatching.acceptor.handle_time(now, &mut self.ring, open);
        let has_waited = dispatching.look_again_at.is_some_and(|at| at <= now);
        if has_waited {
            dispatching.look_again_at = None;
        }
        if dispatching.dispatcher.wants_progress() {
            let nanos = monotonic_nanos();
            for (life, child) in self.children.iter() {
                let is_busy = child.page.busy_for(nanos).is_some_and(|it| it >= STALLED_AFTER);
                let is_stuck = is_busy || self.watch.is_stopped(life);
                dispatching.dispatcher.handle_stuck(life, is_stuck);
                let progress = progress_of(child.page, child.closed_before);
                dispatching.dispatcher.handle_progress(life, progress, now);
            }
        }
        let mut commands = mem::take(&mut dispatching.commands);
        dispatching.dispatcher.poll_commands(now, &mut commands);
        for command in commands.drain(..) {
            self.follow(command, now);
        }
        self.dispatching.commands = commands;
        let lost = mem::take(&mut self.dispatching.lost);
        if lost > 0 {
            log::warn!("closing {lost} idle connections, for which no worker had room in time");
        }
        self.dispatching.update_asks(self.scoreboard, &self.children, now);
        if has_waited && self.dispatching.waits_for_room {
            // Not with the first that waits: most of the time there is room at once.
            let workers: Vec<Life> = self.children.iter().map(|(life, _)| life).collect();
            workers.into_iter().for_each(|life| self.send(life, &Message::RoomWanted));
        }
        for (life, released) in self.dispatching.dispatcher.released() {
            let page = self.children.get(life).map(|child| child.page);
            if let Some(page) = page.filter(|page| page.orders.released.read() != released) {
                page.orders.released.set(released);
            }
        }
        // Whoever came and went in this turn may have made the room that others wait for.
        let open = self.dispatching.open();
        self.dispatching.acceptor.arm(&mut self.ring, open);
    }

    fn follow(&mut self, command: Command<OwnedFd>, now: Instant) {
        match command {
            Command::Pass { life, first_seq, origins, conns } => {
                let Some(child) = self.children.get(life) else {
                    let broken = Passed::Broken;
                    return self.dispatching.dispatcher.handle_passed(life, conns, broken, now);
                };
                let origin = |origin| match origin {
                    dispatch::Origin::Accepted => Origin::Accepted,
                    dispatch::Origin::HandedOver { .. } => Origin::HandedOver,
                };
                let origins = origins.into_iter().map(origin).collect();
                let payload = Parcel::Connections { first: first_seq, origins }.encode();
                let fd = child.passing.as_raw_fd();
                self.ring
                    .push(Op::SendFds { fd, payload, fds: conns, wait: false }, Tag::Passed(life));
            }
            Command::Reclaim { life } => self.reclaim(life, now),
            Command::Refuse { conn, origin, why } => self.refuse(conn, origin, why, now),
            Command::Release(copies) => {
                self.dispatching.held = self.dispatching.held.saturating_sub(copies.len());
                for fd in copies {
                    self.ring.push(Op::Close { fd, cancel: false }, Tag::Closed);
                }
            }
        }
    }

    fn refuse(
        &mut self,
        connection: OwnedFd,
        origin: dispatch::Origin,
        why: Refusal,
        now: Instant,
    ) {
        self.dispatching.held = self.dispatching.held.saturating_sub(1);
        match (&mut self.heir, origin) {
            (Some(new), dispatch::Origin::Accepted) if new.serves => {
                new.hand_over(connection, Origin::Accepted);
            }
            (Some(new), dispatch::Origin::HandedOver { .. }) if new.serves => {
                new.hand_over(connection, Origin::HandedOver);
            }
            (_, dispatch::Origin::HandedOver { .. }) if idles(&connection) => {
                self.dispatching.lost += usize::from(why != Refusal::Stopping);
            }
            _ => {
                log::debug!("no worker for a connection: {why:?}");
                self.scoreboard.pool().refused.add_among_others(1);
                self.dispatching.refusals.begin(connection, now, &mut self.ring);
            }
        }
    }
}

/// In this order: what is taken counts as open before, or as refused.
fn progress_of(page: &WorkerPage, closed_before: u64) -> Progress {
    let shown = &page.traffic;
    Progress {
        taken: shown.taken.read_after(),
        refused_total: shown.not_taken.read(),
        open: shown.connections.read(),
        closed_total: shown.connections_closed.read().saturating_sub(closed_before),
    }
}

/// Whether no request has come to a connection, or its client has gone.
fn idles(connection: &OwnedFd) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(connection.as_raw_fd(), &mut [0], flags).unwrap_or(0) == 0
}

fn address_of(connection: &OwnedFd) -> Option<IpAddr> {
    let address: SockaddrStorage = getpeername(connection.as_raw_fd()).ok()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Connections for which the master has descriptors.
fn connections_max(config: &PoolConfig) -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let workers = Cpus::detect().worker_count(config.workers);
    let reserved = DESCRIPTORS_RESERVED.min(descriptors / 4) + DESCRIPTORS_PER_WORKER * workers;
    descriptors.saturating_sub(reserved).max(CONNECTIONS_MIN)
}
