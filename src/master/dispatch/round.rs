//! One round of balancing: who can take a connection, kept up to date from one to the next.

use std::net::IpAddr;

use super::super::balance::{Balancer, Candidate, Client};
use super::worker::Worker;

/// Reused, so that a round allocates nothing.
#[derive(Default)]
pub(super) struct Round {
    candidates: Vec<Candidate>,
    /// For each candidate, its worker's place in the list.
    indices: Vec<usize>,
    /// The candidate chosen last.
    chosen: usize,
}

impl Round {
    pub(super) fn begin<F>(&mut self, workers: &[Worker<F>]) {
        self.candidates.clear();
        self.indices.clear();
        for (index, worker) in workers.iter().enumerate() {
            if worker.has_room() {
                self.candidates.push(worker.to_candidate());
                self.indices.push(index);
            }
        }
    }

    /// Nobody has room.
    pub(super) fn is_over(&self) -> bool {
        self.candidates.is_empty()
    }

    /// The place in the list of the worker that gets the next connection; never `avoid`.
    pub(super) fn choose(
        &mut self,
        balancer: &mut dyn Balancer,
        address: &dyn Fn() -> Option<IpAddr>,
        avoid: Option<usize>,
    ) -> Option<usize> {
        let avoided = avoid.and_then(|avoid| self.indices.iter().position(|at| *at == avoid));
        let aside = avoided.map(|at| (at, self.candidates.remove(at)));
        let chosen = match self.candidates.len() {
            0 => None,
            // An index out of range is somebody else's bug, and no reason for the master to end.
            count => balancer
                .select(&Client::new(address), &self.candidates)
                .filter(|chosen| *chosen < count),
        };
        if let Some((at, candidate)) = aside {
            self.candidates.insert(at, candidate);
        }
        self.chosen = chosen? + usize::from(avoided.is_some_and(|at| chosen >= Some(at)));
        Some(self.indices[self.chosen])
    }

    /// The worker chosen last has the connection.
    pub(super) fn on_assigned<F>(&mut self, worker: &Worker<F>) {
        if worker.has_room() {
            self.candidates[self.chosen] = worker.to_candidate();
        } else {
            self.candidates.remove(self.chosen);
            self.indices.remove(self.chosen);
        }
    }
}
