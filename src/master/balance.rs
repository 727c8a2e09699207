//! Which worker gets a connection. Knows loads and addresses; no sockets, no processes, no clock.
//!
//! [`Balancer`] is the trait for your own, [`of`] makes the ones that the settings can name.

mod load;
mod sticky;
mod turns;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Balance;

pub use load::{LeastConnections, PowerOfTwo};
pub use sticky::Sticky;
pub use turns::{RoundRobin, Weighted};

/// Picks the worker for each connection that the master passes on.
///
/// Only [`select`](Balancer::select) is needed: what a worker has to do is in each [`Candidate`].
/// The other methods tell of what happens, for balancers that keep books of their own.
///
/// ```
/// use uring_pool::balance::{Balancer, Candidate, Client};
///
/// /// Fills one worker after the other.
/// struct Fill;
///
/// impl Balancer for Fill {
///     fn select(&mut self, _client: &Client<'_>, candidates: &[Candidate]) -> Option<usize> {
///         (0..candidates.len()).min_by_key(|index| candidates[*index].worker_id)
///     }
/// }
///
/// let full = Candidate { worker_id: 4, connections: 9, weight: 1 };
/// let free = Candidate { worker_id: 1, connections: 0, weight: 1 };
/// assert_eq!(Fill.select(&Client::unknown(), &[full, free]), Some(1));
/// ```
pub trait Balancer {
    /// The index in `candidates` of the worker that gets the client's connection. There is at least
    /// one candidate, and each can take a connection. `None` lets the connection wait for the next
    /// time that a worker's load changes, as does an index that is out of range.
    fn select(&mut self, client: &Client<'_>, candidates: &[Candidate]) -> Option<usize>;

    /// How long a worker may leave a connection that it was passed before another one gets it, and
    /// all further ones: by default 10 ms, several times what a turn takes under full load. Asked
    /// once. One that isn't taken in time on a busy machine has another worker then, whatever was
    /// selected.
    fn patience(&self) -> Duration {
        Duration::from_millis(10)
    }

    /// A worker has taken a connection that it was passed.
    fn on_connection_established(&mut self, worker_id: usize) {
        let _ = worker_id;
    }

    /// A worker has closed a connection, handed it over, or ended with it: sooner or later this is
    /// told of each that was [established](Balancer::on_connection_established).
    fn on_connection_closed(&mut self, worker_id: usize) {
        let _ = worker_id;
    }

    /// A worker has ended, and there is no other one with this id yet.
    fn on_worker_removed(&mut self, worker_id: usize) {
        let _ = worker_id;
    }

    /// Forgets everything that was learnt: called when a reload has changed
    /// [`balance`](crate::config::PoolConfig::balance) or
    /// [`weights`](crate::config::PoolConfig::weights). What workers have open then is told once
    /// more, as [established](Balancer::on_connection_established).
    fn reset(&mut self) {}
}

/// A worker that can take a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The worker's place in the pool, from 0.
    pub worker_id: usize,
    /// Its connections: those open, and those on their way to it.
    pub connections: u64,
    /// Its share, for balancers that look at it; at least 1.
    pub weight: u32,
}

/// Who connects.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    address: &'a dyn Fn() -> Option<IpAddr>,
}

impl<'a> Client<'a> {
    /// A client whose address is found out when somebody asks: it costs a system call.
    pub fn new(address: &'a dyn Fn() -> Option<IpAddr>) -> Client<'a> {
        Client { address }
    }

    /// A client without an address, such as one of a Unix socket.
    pub fn unknown() -> Client<'static> {
        Client { address: &|| None }
    }

    /// Its IP address; an IPv4 address in IPv6's clothes is an IPv4 address. None for clients of a
    /// Unix socket, and for those that have left meanwhile.
    pub fn address(&self) -> Option<IpAddr> {
        (self.address)().map(|address| address.to_canonical())
    }
}

impl fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The balancer that the settings name. `seed` is for those that draw or hash: with another one,
/// sticky clients have other workers.
pub fn of(balance: Balance, seed: u64) -> Box<dyn Balancer> {
    match balance {
        Balance::LeastConnections => Box::new(LeastConnections::new()),
        Balance::RoundRobin => Box::new(RoundRobin::new()),
        Balance::Weighted => Box::new(Weighted::new()),
        Balance::Sticky => Box::new(Sticky::new(seed)),
        Balance::PowerOfTwo => Box::new(PowerOfTwo::new(seed)),
    }
}

/// Spreads the bits of a number over all of it: the finalizer of splitmix64, a bijection.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
