//! Balancers that go round, whatever the workers have to do.

use super::{Balancer, Candidate, Client};

/// One worker after the other, by their ids.
#[derive(Clone, Default, Debug)]
pub struct RoundRobin {
    /// The worker after the last one chosen.
    next: usize,
}

impl RoundRobin {
    /// One that begins with the first worker.
    pub fn new() -> RoundRobin {
        RoundRobin::default()
    }
}

impl Balancer for RoundRobin {
    fn select(&mut self, _client: &Client<'_>, candidates: &[Candidate]) -> Option<usize> {
        // Ids before `next` wrap to the end of the number range, so they come last, in order.
        let distance = |worker: &Candidate| worker.worker_id.wrapping_sub(self.next);
        let (index, chosen) =
            candidates.iter().enumerate().min_by_key(|(_, worker)| distance(worker))?;
        self.next = chosen.worker_id + 1;
        Some(index)
    }

    fn reset(&mut self) {
        *self = RoundRobin::default();
    }
}

/// One after the other, each as often as its weight says: nginx's smooth weighted round robin.
///
/// Of as many connections as all weights together, each worker gets exactly its weight, and those
/// of a heavy one lie apart: with 5, 1 and 1 the turns are A A B A C A A.
#[derive(Clone, Default, Debug)]
pub struct Weighted {
    /// What each worker is owed, by its id, in connections times the sum of all weights.
    owed: Vec<i64>,
}

impl Weighted {
    /// One at the beginning of its cycle.
    pub fn new() -> Weighted {
        Weighted::default()
    }
}

impl Balancer for Weighted {
    fn select(&mut self, _client: &Client<'_>, candidates: &[Candidate]) -> Option<usize> {
        let ids = candidates.iter().map(|worker| worker.worker_id + 1).max()?;
        if self.owed.len() < ids {
            self.owed.resize(ids, 0);
        }
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, worker) in candidates.iter().enumerate() {
            let owed = &mut self.owed[worker.worker_id];
            *owed += i64::from(worker.weight);
            total += i64::from(worker.weight);
            if best.is_none_or(|(_, most)| *owed > most) {
                best = Some((index, *owed));
            }
        }
        let (index, _) = best?;
        self.owed[candidates[index].worker_id] -= total;
        Some(index)
    }

    /// Begins a new cycle: debts to and of the one that left would make the next ones uneven.
    fn on_worker_removed(&mut self, _worker_id: usize) {
        self.owed.fill(0);
    }

    fn reset(&mut self) {
        self.owed.clear();
    }
}
