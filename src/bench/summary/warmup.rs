//! Where a run stops being a warm-up: a change-point test over its slots. What it drops is shown,
//! and it never drops what could be the server's ordinary life: a stall in the middle stays.

use super::stats::{chance_of_greater, median, noise};

/// At most this part of a run is a warm-up: one in three slots. Of one that still changes after
/// that, nothing is dropped, and the verdict says that it wasn't steady.
const PART_MAX: usize = 3;
/// Slots that a run must have for its warm-up to be sought.
const SLOTS_MIN: usize = 10;
/// Below this chance, the first slots are no accident.
const CHANCE_MAX: f64 = 0.05;
/// A slot is like the others within so many standard deviations of their median...
const DEVIATIONS: f64 = 3.0;
/// ...and always within this part of it.
const PART_ALIKE: f64 = 0.10;

/// How many of the first slots are a warm-up: they are all slower than the second half of the run
/// usually is, and together significantly so.
///
/// `costs` has what a slot's requests cost, where more is worse: the median service time, or the
/// inverse of the rate; infinite for a slot without an answer.
///
/// ```
/// use uring_pool::bench::summary::warmup_slots;
///
/// let costs: Vec<f64> = (0..100).map(|slot| if slot < 7 { 9.0 } else { 1.0 }).collect();
/// assert_eq!(warmup_slots(&costs), 7);
/// ```
pub fn warmup_slots(costs: &[f64]) -> usize {
    if costs.len() < SLOTS_MIN {
        return 0;
    }
    let second_half: Vec<f64> =
        costs[costs.len() / 2..].iter().copied().filter(|cost| cost.is_finite()).collect();
    let (Some(middle), Some(noise)) = (median(&second_half), noise(&second_half)) else {
        return 0; // no answers to compare with
    };
    let alike = (middle + DEVIATIONS * noise).max(middle * (1.0 + PART_ALIKE));
    let slow = costs.iter().take_while(|cost| **cost > alike).count();
    if slow == 0 || slow > costs.len() / PART_MAX {
        return 0;
    }
    let (first, rest) = costs.split_at(slow);
    if chance_of_greater(first, rest) <= CHANCE_MAX { slow } else { 0 }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// Noise of a tenth around 1.
    fn noise(seed: u64, slots: usize) -> Vec<f64> {
        let mut random = Rng::with_seed(seed);
        (0..slots).map(|_| 0.9 + 0.2 * random.f64()).collect()
    }

    #[test]
    fn a_slow_begin_is_found_whatever_its_length() {
        for slots in [40, 100, 600] {
            for length in 1..=slots / 3 {
                let mut costs = noise(slots as u64, slots);
                costs[..length].iter_mut().for_each(|cost| *cost *= 4.0);
                assert_eq!(warmup_slots(&costs), length, "of {slots}");
            }
        }
    }

    #[test]
    fn one_that_decays_is_found_where_it_ends() {
        let mut costs = noise(1, 100);
        (0_u8..).zip(&mut costs).for_each(|(at, cost)| *cost += 8.0 * (-f64::from(at) / 4.0).exp());
        assert!((12..=20).contains(&warmup_slots(&costs)), "{}", warmup_slots(&costs));
    }

    #[test]
    fn steady_runs_lose_next_to_nothing() {
        let dropped: usize = (0..500).map(|seed| warmup_slots(&noise(seed, 100))).sum();
        assert!(dropped <= 5, "{dropped} slots of 50,000");
    }

    /// What would hide the truth: dropping a stall because the run is quieter without it.
    #[test]
    fn a_stall_in_the_run_stays() {
        for begin in 1..90 {
            for length in [1, 5, 10] {
                let mut costs = noise(begin as u64, 100);
                costs.iter_mut().skip(begin).take(length).for_each(|cost| *cost = f64::INFINITY);
                assert!(warmup_slots(&costs) <= 1, "a stall at {begin}");
            }
        }
    }

    #[test]
    fn a_run_that_never_gets_steady_loses_nothing() {
        let falling: Vec<f64> = (0..100_u8).map(|slot| 200.0 - f64::from(slot)).collect();
        assert_eq!(warmup_slots(&falling), 0);
        assert_eq!(warmup_slots(&[f64::INFINITY; 50]), 0);
        assert_eq!(warmup_slots(&[9.0, 1.0, 1.0]), 0);
    }

    #[test]
    fn a_fast_begin_is_no_warm_up() {
        let rising: Vec<f64> = (0..100).map(|slot| if slot < 20 { 0.1 } else { 1.0 }).collect();
        assert_eq!(warmup_slots(&rising), 0);
    }

    #[test]
    fn connecting_is_a_warm_up() {
        let mut costs = noise(3, 50);
        costs[..3].fill(f64::INFINITY);
        assert_eq!(warmup_slots(&costs), 3);
    }
}
