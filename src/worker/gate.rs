//! Who may come in, and when: new connections wait here for room, for their turn, and for what their
//! client has open already. Decides; opens and closes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::Proxies;
use crate::conn::{Record, Settings};
use crate::guard::ClientTable;
use crate::http::{Client, household, peer_of};
use crate::process::parcel::Origin;
use crate::process::scoreboard::Scoreboard;

/// While there is no room and nobody idles, nobody looks again for so long: looking costs a glance
/// at every connection.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Nobody has to go who has idled for less: a client that thinks for a moment, or has only just come,
/// keeps its connection although others want it.
pub(super) const IDLE_MIN: Duration = Duration::from_secs(1);

/// Room is made for several at once, this share of all connections, for the same reason.
const SHARE_AT_ONCE: usize = 64;

/// What a worker's gate is told.
#[derive(Clone, Debug)]
pub(super) struct GateConfig {
    pub(super) connections_max: usize,
    pub(super) connections_per_client: Option<u32>,
    pub(super) accepts_per_turn: u32,
    /// How old a connection may become.
    pub(super) connection_timeout: Option<Duration>,
    pub(super) proxies: Rc<Proxies>,
    /// Whether anything asks for a record of each connection.
    pub(super) keeps_records: bool,
    /// The other workers, who count the same clients; none where there is but one.
    pub(super) neighbours: Option<Neighbours>,
}

/// The workers of the pool, as far as they tell each other how many connections clients have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbours {
    table: ClientTable,
    scoreboard: Scoreboard,
    /// This worker's.
    place: usize,
}

impl Neighbours {
    pub(super) fn new(table: ClientTable, scoreboard: Scoreboard, place: usize) -> Neighbours {
        Neighbours { table, scoreboard, place }
    }

    /// Tells them of a client; returns how many connections of its they have.
    fn tell(&self, client: u64, count: u32) -> u32 {
        self.table.show(self.place, client, count, |place| self.scoreboard.is_held(place))
    }
}

/// A connection that isn't served yet.
pub(super) struct Newcomer {
    pub(super) socket: OwnedFd,
    pub(super) origin: Origin,
    pub(super) passed_as: u64,
}

/// The gate of one worker.
pub(super) struct Gate {
    config: GateConfig,
    newcomers: VecDeque<Newcomer>,
    /// In this turn.
    taken: u32,
    /// Idle connections that were closed to make room, and aren't gone yet.
    leaving: usize,
    /// Others wait in the master for room.
    is_wanted: bool,
    /// Nobody idled the last time.
    look_again_at: Option<Instant>,
    /// Open connections of each client that has any and counts.
    clients: BTreeMap<u64, u32>,
}

/// What to do for those who wait.
pub(super) enum Step {
    Take(Newcomer),
    /// Close so many of those who have idled longest, and tell how many there were.
    MakeRoom(usize),
    Wait,
}

impl Gate {
    pub(super) fn new(config: GateConfig) -> Gate {
        if let (Some(neighbours), Some(_)) = (&config.neighbours, config.connections_per_client) {
            neighbours.table.forget(neighbours.place); // what a worker left that died here
        }
        Gate {
            config,
            newcomers: VecDeque::new(),
            taken: 0,
            leaving: 0,
            is_wanted: false,
            look_again_at: None,
            clients: BTreeMap::new(),
        }
    }

    /// Another turn.
    pub(super) fn begin_turn(&mut self) {
        self.taken = 0;
    }

    pub(super) fn arrive(&mut self, newcomer: Newcomer) {
        self.newcomers.push_back(newcomer);
    }

    /// Whether connections wait in the master, which has no worker with room for them.
    pub(super) fn set_wanted(&mut self, is_wanted: bool) {
        self.is_wanted = is_wanted;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.newcomers.len()
    }

    /// Whether all that may be open are.
    pub(super) fn is_full(&self, connections: usize) -> bool {
        connections >= self.config.connections_max
    }

    /// What to do next. `is_leaving`: the worker leaves, and serves whom it has accepted.
    pub(super) fn poll(&mut self, connections: usize, is_leaving: bool, now: Instant) -> Step {
        let is_wanted = self.is_wanted && !is_leaving && self.is_full(connections);
        if self.newcomers.is_empty() && !is_wanted {
            self.look_again_at = None;
            return Step::Wait;
        }
        if is_leaving || !self.is_full(connections) {
            if self.taken >= self.config.accepts_per_turn && !is_leaving {
                return Step::Wait; // the others first
            }
            self.taken += 1;
            return self.newcomers.pop_front().map_or(Step::Wait, Step::Take);
        }
        if self.leaving > 0 || self.look_again_at.is_some_and(|at| now < at) {
            return Step::Wait;
        }
        Step::MakeRoom((self.config.connections_max / SHARE_AT_ONCE).max(1))
    }

    /// So many connections are about to go.
    pub(super) fn on_room_made(&mut self, count: usize, now: Instant) {
        self.leaving = count;
        self.look_again_at = (count == 0).then(|| now + LOOK_AGAIN);
    }

    /// A connection is gone.
    pub(super) fn on_removed(&mut self) {
        self.leaving = self.leaving.saturating_sub(1);
    }

    /// When to [`poll`](Gate::poll) again, if nothing happens before. `now` when the turn was all
    /// that it was about.
    pub(super) fn poll_timeout(&self, connections: usize, now: Instant) -> Option<Instant> {
        if self.newcomers.is_empty() && !self.is_wanted {
            return None;
        }
        if self.newcomers.is_empty() || self.is_full(connections) {
            self.look_again_at
        } else {
            Some(now)
        }
    }

    /// The record that is to be kept of a connection, if any.
    pub(super) fn record(&self, socket: &OwnedFd, now: Instant) -> Option<Box<Record>> {
        self.config.keeps_records.then(|| {
            let client = Client::new(peer_of(socket.as_raw_fd()), &self.config.proxies);
            Record::new(client, self.config.connection_timeout.map(|timeout| now + timeout))
        })
    }

    /// How old a connection may become.
    pub(super) fn connection_timeout(&self) -> Option<Duration> {
        self.config.connection_timeout
    }

    /// The client that a connection of this peer counts for, where that is limited; none for those
    /// who speak for others.
    pub(super) fn client_to_count(&self, peer: Option<SocketAddr>) -> Option<u64> {
        let client = Client::new(peer, &self.config.proxies);
        let counts = self.counts_clients() && !client.is_trusted();
        if counts { household(client.source()) } else { None }
    }

    /// Whether connections are counted by client.
    pub(super) fn counts_clients(&self) -> bool {
        self.config.connections_per_client.is_some()
    }

    /// Counts a connection of this client's; returns whether it may stay. Of two that come to two
    /// workers at the same time both may have to go, where there is room for one.
    pub(super) fn count(&mut self, client: u64) -> bool {
        let count = self.clients.entry(client).or_default();
        *count += 1;
        let count = *count;
        let elsewhere = self.config.neighbours.map_or(0, |it| it.tell(client, count));
        let all = count.saturating_add(elsewhere);
        self.config.connections_per_client.is_none_or(|most| all <= most)
    }

    /// A connection that was counted is gone.
    pub(super) fn discount(&mut self, client: u64) {
        if let Some(count) = self.clients.get_mut(&client) {
            *count -= 1;
            let count = *count;
            if count == 0 {
                self.clients.remove(&client);
            }
            if let Some(neighbours) = self.config.neighbours {
                neighbours.tell(client, count);
            }
        }
    }
}

impl GateConfig {
    /// A gate that is open for so many.
    #[cfg(test)]
    pub(super) fn open(connections_max: usize) -> GateConfig {
        GateConfig {
            connections_max,
            connections_per_client: None,
            accepts_per_turn: 256,
            connection_timeout: None,
            proxies: Rc::default(),
            keeps_records: false,
            neighbours: None,
        }
    }
}

/// Whether settings ask for a record of each connection, for what only that can tell.
pub(super) fn keeps_records(config: &crate::config::WorkerConfig, settings: &Settings) -> bool {
    config.access_log.path.is_some()
        || config.rate_limit.enabled
        || config.limits.connections_per_client.is_some()
        || config.timeouts.connection.is_some()
        || !config.proxies.trusted.is_empty()
        || settings.request_timeout.is_some()
        || settings.has_request_id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(config: GateConfig, newcomers: usize) -> Gate {
        let mut gate = Gate::new(config);
        for passed_as in 0..newcomers as u64 {
            let socket = std::fs::File::open("/dev/null").unwrap().into();
            gate.arrive(Newcomer { socket, origin: Origin::Accepted, passed_as });
        }
        gate
    }

    #[test]
    fn whoever_comes_first_goes_first_as_long_as_there_is_room() {
        let (mut gate, now) = (gate(GateConfig::open(2), 3), Instant::now());
        for connections in 0..2 {
            let step = gate.poll(connections, false, now);
            assert!(matches!(step, Step::Take(one) if one.passed_as == connections as u64));
        }
        assert!(matches!(gate.poll(2, false, now), Step::MakeRoom(1)));
        gate.on_room_made(1, now);
        assert!(matches!(gate.poll(2, false, now), Step::Wait), "one is about to go");
        gate.on_removed();
        assert!(matches!(gate.poll(1, false, now), Step::Take(_)));
        assert!(matches!(gate.poll(2, false, now), Step::Wait));
        assert_eq!((gate.waiting(), gate.poll_timeout(2, now)), (0, None));
    }

    #[test]
    fn while_nobody_idles_it_looks_now_and_then() {
        let (mut gate, now) = (gate(GateConfig::open(1), 1), Instant::now());
        assert!(matches!(gate.poll(1, false, now), Step::MakeRoom(1)));
        gate.on_room_made(0, now);
        assert!(matches!(gate.poll(1, false, now), Step::Wait));
        let later = gate.poll_timeout(1, now).unwrap();
        assert_eq!(later, now + LOOK_AGAIN);
        assert!(matches!(gate.poll(1, false, later), Step::MakeRoom(1)));
        assert!(matches!(gate.poll(1, true, now), Step::Take(_)), "who leaves turns nobody away");
    }

    #[test]
    fn a_turn_takes_so_many_and_no_more() {
        let config = GateConfig { accepts_per_turn: 2, ..GateConfig::open(100) };
        let (mut gate, now) = (gate(config, 5), Instant::now());
        for left in [3, 1, 0] {
            gate.begin_turn();
            while let Step::Take(_) = gate.poll(0, false, now) {}
            assert_eq!(gate.waiting(), left);
            assert_eq!(gate.poll_timeout(0, now).is_some(), left > 0);
        }
    }

    #[test]
    fn a_client_has_its_share_and_gets_it_back() {
        let config = GateConfig { connections_per_client: Some(2), ..GateConfig::open(9) };
        let mut gate = gate(config, 0);
        assert!(gate.count(1) && gate.count(1) && !gate.count(1) && gate.count(2));
        (0..3).for_each(|_| gate.discount(1));
        assert_eq!(gate.clients.len(), 1);
        assert!(gate.count(1));
    }
}
