//! Balancers that look at how many connections a worker has.

use super::{Balancer, Candidate, Client, mix};

/// The worker with the fewest connections; those that have equally few take turns.
#[derive(Clone, Default, Debug)]
pub struct LeastConnections {
    /// The worker after the last one chosen.
    next: usize,
}

impl LeastConnections {
    /// One that begins with the first worker.
    pub fn new() -> LeastConnections {
        LeastConnections::default()
    }
}

impl Balancer for LeastConnections {
    fn select(&mut self, _client: &Client<'_>, candidates: &[Candidate]) -> Option<usize> {
        // Ids before `next` wrap to the end of the number range, so they come last, in order.
        let load =
            |worker: &Candidate| (worker.connections, worker.worker_id.wrapping_sub(self.next));
        let (index, chosen) =
            candidates.iter().enumerate().min_by_key(|(_, worker)| load(worker))?;
        self.next = chosen.worker_id + 1;
        Some(index)
    }

    fn reset(&mut self) {
        *self = LeastConnections::default();
    }
}

/// The less loaded of two workers that are drawn at random; the first drawn when they are equal.
///
/// Nearly as even as [`LeastConnections`], and it doesn't send everyone to the same worker while
/// counts are a moment old.
#[derive(Clone, Debug)]
pub struct PowerOfTwo {
    /// Of a xorshift generator, thus never 0.
    state: u64,
}

impl PowerOfTwo {
    /// One whose draws follow from `seed`.
    pub fn new(seed: u64) -> PowerOfTwo {
        PowerOfTwo { state: mix(seed) | 1 }
    }

    /// A number below `count`, which is at least 1.
    fn draw(&mut self, count: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((u128::from(self.state) * count as u128) >> 64) as usize // below `count`
    }
}

impl Balancer for PowerOfTwo {
    fn select(&mut self, _client: &Client<'_>, candidates: &[Candidate]) -> Option<usize> {
        let count = candidates.len();
        if count < 2 {
            return count.checked_sub(1);
        }
        let first = self.draw(count);
        // One of the others: those from `first` on move up by one.
        let other = self.draw(count - 1);
        let second = other + usize::from(other >= first);
        let is_less = candidates[second].connections < candidates[first].connections;
        Some(if is_less { second } else { first })
    }
}
