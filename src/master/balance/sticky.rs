//! The balancer that sends a client to the worker that it had before. Keeps no list of clients.

use std::net::IpAddr;
use std::time::Duration;

use super::{Balancer, Candidate, Client, LeastConnections, mix};

/// All connections of a client's address to the same worker.
///
/// Each worker bids for each address with a number of its own (rendezvous hashing), and the highest
/// bid wins. So a worker that leaves moves none but its own clients, each to its second choice; they
/// return with the worker. Heavier workers bid higher, in proportion to their weight. Clients
/// without an address go to the worker with the [fewest connections](LeastConnections).
#[derive(Clone, Debug)]
pub struct Sticky {
    seed: u64,
    others: LeastConnections,
}

impl Sticky {
    /// One whose choices follow from `seed`: a secret one keeps clients from choosing a worker.
    pub fn new(seed: u64) -> Sticky {
        Sticky { seed: mix(seed), others: LeastConnections::new() }
    }

    fn hash(&self, address: IpAddr) -> u64 {
        match address {
            IpAddr::V4(v4) => mix(self.seed ^ u64::from(v4.to_bits())),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                mix(mix(self.seed ^ (bits >> 64) as u64) ^ bits as u64)
            }
        }
    }
}

impl Balancer for Sticky {
    fn select(&mut self, client: &Client<'_>, candidates: &[Candidate]) -> Option<usize> {
        let Some(address) = client.address() else {
            return self.others.select(client, candidates);
        };
        let hash = self.hash(address);
        let bids = candidates.iter().map(|worker| bid(hash, worker));
        bids.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
    }

    /// A client rather waits than goes elsewhere, but not for long.
    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn reset(&mut self) {
        self.others.reset();
    }
}

/// What a worker bids for a client. The chance that `-weight / ln(u)` is the highest one, each `u`
/// even between 0 and 1, is the weight's share of all weights.
fn bid(hash: u64, worker: &Candidate) -> f64 {
    let drawn = (mix(hash ^ mix(worker.worker_id as u64)) >> 32) as u32;
    let even = (f64::from(drawn) + 0.5) / (f64::from(u32::MAX) + 1.0); // neither 0 nor 1
    -f64::from(worker.weight) / even.ln()
}
