//! What one connection, or one target, got of the load: for fairness.

use serde::{Deserialize, Serialize};

use super::Answer;

/// Targets that are told apart; all further ones are counted together.
pub const TARGETS_MAX: usize = 64;

/// The part of one connection or target.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Share {
    /// Answers as expected.
    pub answers: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Bytes received in answers as expected.
    pub bytes: u64,
    /// The sum of their service times, in nanoseconds.
    pub service_sum: u64,
    /// The longest of them.
    pub service_max: u64,
}

impl Share {
    #[inline]
    pub(super) fn on_answer(&mut self, service: u64, answer: &Answer) {
        let count = u64::from(answer.count);
        self.answers += count;
        self.bytes += answer.bytes * count;
        self.service_sum = self.service_sum.wrapping_add(service.wrapping_mul(count));
        self.service_max = self.service_max.max(service);
    }

    pub(super) fn add(&mut self, other: &Share) {
        self.answers += other.answers;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.service_sum = self.service_sum.wrapping_add(other.service_sum);
        self.service_max = self.service_max.max(other.service_max);
    }
}

/// The share with this number; the last one is everybody's who has none.
#[inline]
pub(super) fn of<T>(shares: &mut [T], number: u32) -> &mut T {
    let last = shares.len() - 1;
    &mut shares[last.min(number as usize)]
}
