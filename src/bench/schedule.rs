//! When requests are meant to leave. Reads no clock, keeps no list: what is overdue is the distance
//! between an index and now, however much that is.

use std::sync::Arc;

use fastrand::Rng;

const NANOS: f64 = 1e9;

/// How requests follow each other at a given rate.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Arrival {
    /// Evenly.
    #[default]
    Constant,
    /// Independently, as those of many people: a Poisson process.
    Poisson,
    /// So many at once, and then none for as long as keeps the rate.
    Burst(u32),
}

/// A rate that changes evenly over a time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stage {
    /// Nanoseconds.
    pub nanos: u64,
    /// Requests per second at its begin, of all threads.
    pub from: f64,
    /// And at its end.
    pub to: f64,
}

impl Stage {
    fn seconds(&self) -> f64 {
        self.nanos as f64 / NANOS
    }

    /// Requests until `at` seconds of the stage have passed.
    fn count_at(&self, at: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds();
        at * (self.from + slope * at / 2.0)
    }

    /// The seconds after which so many requests are due; the inverse, in the form that stays exact
    /// for small slopes.
    fn time_of(&self, count: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds();
        let root = (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt();
        if self.from + root > 0.0 { 2.0 * count / (self.from + root) } else { 0.0 }
    }
}

/// A part of all requests: an interval of [0, 1), so that parts together are exactly the whole.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Share {
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Share {
    #[cfg(test)]
    pub(super) const WHOLE: Share = Share { from: 0.0, to: 1.0 };

    fn size(self) -> f64 {
        self.to - self.from
    }

    /// This part of so many things.
    pub(super) fn of(self, whole: u64) -> u64 {
        let place = |at: f64| (at * whole as f64).round() as u64;
        place(self.to) - place(self.from)
    }

    /// Part `index` of `count` equal ones of this.
    pub(super) fn part(self, index: usize, count: usize) -> Share {
        let place = |index: usize| self.from + self.size() * index as f64 / count as f64;
        Share {
            from: place(index),
            to: if index + 1 == count { self.to } else { place(index + 1) },
        }
    }
}

/// The times at which one thread's requests are due, in nanoseconds since the run's begin, in order.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    source: Source,
    /// The one after those that were taken, if any.
    next: Option<u64>,
    left: u64,
}

#[derive(Clone, Debug)]
enum Source {
    Rate(Rate),
    Times { times: Arc<[u64]>, at: usize, step: usize },
}

#[derive(Clone, Debug)]
struct Rate {
    stages: Arc<[Stage]>,
    arrival: Arrival,
    share: Share,
    rng: Rng,
    /// The current stage, its begin in nanoseconds, and the requests of all before it.
    stage: usize,
    begin: u64,
    before: f64,
    /// Requests of all threads that are due by the next one of this part; in bursts, by its burst.
    count: f64,
    /// Of the current burst, how many are left for this part.
    in_burst: u64,
}

impl Schedule {
    /// This share of what the stages add up to, at most `limit` of them.
    pub(super) fn new(
        stages: &Arc<[Stage]>,
        arrival: Arrival,
        share: Share,
        seed: u64,
        limit: u64,
    ) -> Schedule {
        let mut rate = Rate {
            stages: Arc::clone(stages),
            arrival,
            share,
            // Parts draw independently: what they share is the seed of the run.
            rng: Rng::with_seed(seed ^ share.from.to_bits().rotate_left(17)),
            stage: 0,
            begin: 0,
            before: 0.0,
            count: 0.0,
            in_burst: 0,
        };
        rate.start();
        Schedule::of(Source::Rate(rate), limit)
    }

    /// Every `step`-th of `times`, which are in order, from `first` on.
    pub(super) fn of_times(times: &Arc<[u64]>, first: usize, step: usize, limit: u64) -> Schedule {
        Schedule::of(Source::Times { times: Arc::clone(times), at: first, step }, limit)
    }

    fn of(source: Source, limit: u64) -> Schedule {
        let mut schedule = Schedule { source, next: None, left: limit };
        schedule.advance();
        schedule
    }

    /// When the next request is due; `None` when there are no more.
    #[inline]
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    /// Goes on to the one after.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.next = if self.left == 0 { None } else { self.source.next() };
        self.left = self.left.saturating_sub(1);
    }

    /// How many are due and not taken, about.
    pub(super) fn overdue(&self, now: u64) -> u64 {
        match &self.source {
            _ if self.next.is_none_or(|next| next > now) => 0,
            Source::Rate(rate) => (1 + rate.due_by(now)).min(self.left + 1),
            Source::Times { times, at, step } => {
                let due = times.partition_point(|time| *time <= now);
                1 + due.saturating_sub(*at).div_ceil(*step) as u64
            }
        }
    }

    /// How many of a list's times lie before the next one: its index.
    pub(super) fn index(&self) -> usize {
        match &self.source {
            Source::Times { at, step, .. } => at - step,
            Source::Rate(_) => 0,
        }
    }
}

impl Source {
    fn next(&mut self) -> Option<u64> {
        match self {
            Source::Rate(rate) => rate.next(),
            Source::Times { times, at, step } => {
                let time = times.get(*at).copied();
                *at += *step;
                time
            }
        }
    }
}

impl Rate {
    /// Puts the first request in its place: parts of an even rate interleave.
    fn start(&mut self) {
        match self.arrival {
            Arrival::Constant => self.count = self.share.from / self.share.size(),
            Arrival::Poisson => self.count = self.gap(),
            Arrival::Burst(size) => self.in_burst = self.share.of(u64::from(size)),
        }
    }

    fn next(&mut self) -> Option<u64> {
        if let Arrival::Burst(size) = self.arrival {
            let mine = self.share.of(u64::from(size));
            if mine == 0 {
                return None;
            }
            if self.in_burst == 0 {
                self.count += f64::from(size);
                self.in_burst = mine;
            }
            self.in_burst -= 1;
            return self.time();
        }
        let time = self.time();
        self.count += match self.arrival {
            Arrival::Poisson => self.gap(),
            _ => 1.0 / self.share.size(),
        };
        time
    }

    /// To the next of this part, in requests of all: exponentially distributed.
    fn gap(&mut self) -> f64 {
        -(1.0 - self.rng.f64()).ln() / self.share.size()
    }

    /// How many of this part are due by `now`, from the one at `count` on.
    fn due_by(&self, now: u64) -> u64 {
        let (mut before, mut begin) = (self.before, self.begin);
        for stage in &self.stages[self.stage.min(self.stages.len())..] {
            if now < begin.saturating_add(stage.nanos) {
                before += stage.count_at(now.saturating_sub(begin) as f64 / NANOS);
                break;
            }
            before += stage.count_at(stage.seconds());
            begin += stage.nanos;
        }
        ((before - self.count) * self.share.size()).ceil().max(0.0) as u64 + self.in_burst
    }

    /// When `count` requests of all parts are due.
    fn time(&mut self) -> Option<u64> {
        loop {
            let stage = self.stages.get(self.stage)?;
            let all = stage.count_at(stage.seconds());
            let count = self.count - self.before;
            if count < all {
                return Some(self.begin + (stage.time_of(count) * NANOS) as u64);
            }
            self.before += all;
            self.begin += stage.nanos;
            self.stage += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn stages(stages: &[(u64, f64, f64)]) -> Arc<[Stage]> {
        stages.iter().map(|&(s, from, to)| Stage { nanos: s * SECOND, from, to }).collect()
    }

    fn times(mut schedule: Schedule) -> Vec<u64> {
        std::iter::from_fn(|| {
            let next = schedule.next();
            schedule.advance();
            next
        })
        .collect()
    }

    fn whole(stages: &Arc<[Stage]>, arrival: Arrival) -> Vec<u64> {
        times(Schedule::new(stages, arrival, Share::WHOLE, 1, u64::MAX))
    }

    #[test]
    fn a_constant_rate_is_even_to_the_nanosecond_from_the_first_on() {
        let got = whole(&stages(&[(10, 1000.0, 1000.0)]), Arrival::Constant);
        assert_eq!(got.len(), 10_000);
        for (index, time) in got.iter().enumerate() {
            assert!(time.abs_diff(index as u64 * 1_000_000) <= 2, "{index}: {time}");
        }
    }

    #[test]
    fn shares_together_are_the_whole_whatever_their_number() {
        for arrival in [Arrival::Constant, Arrival::Burst(10), Arrival::Burst(1)] {
            for count in [1, 2, 3, 7, 16] {
                let stages = stages(&[(3, 100.0, 100.0), (2, 100.0, 900.0), (1, 0.0, 0.0)]);
                let whole = whole(&stages, arrival);
                let mut parts: Vec<u64> = (0..count)
                    .flat_map(|i| {
                        let share = Share::WHOLE.part(i, count);
                        times(Schedule::new(&stages, arrival, share, 1, u64::MAX))
                    })
                    .collect();
                parts.sort_unstable();
                assert_eq!(parts.len(), whole.len(), "{arrival:?} in {count}");
                for (part, whole) in parts.iter().zip(&whole) {
                    assert!(part.abs_diff(*whole) < 1000, "{arrival:?} in {count}");
                }
            }
        }
    }

    #[test]
    fn a_ramp_has_the_area_below_it_and_the_rate_at_each_point() {
        let got = whole(&stages(&[(10, 0.0, 2000.0)]), Arrival::Constant);
        assert_eq!(got.len(), 10_000);
        let in_second = |s: u64| got.iter().filter(|t| **t / SECOND == s).count();
        for second in 0..10 {
            assert!(in_second(second).abs_diff(100 + 200 * second as usize) <= 1);
        }
        let down = whole(&stages(&[(10, 2000.0, 0.0)]), Arrival::Constant);
        assert!(down.len().abs_diff(10_000) <= 1);
        assert!(down.is_sorted() && down.last().unwrap() < &(10 * SECOND));
    }

    #[test]
    fn stages_follow_each_other_without_a_gap() {
        let got =
            whole(&stages(&[(1, 10.0, 10.0), (1, 0.0, 0.0), (1, 20.0, 20.0)]), Arrival::Constant);
        assert_eq!(got.len(), 30);
        assert_eq!(got[9], 900_000_000);
        assert_eq!(got[10], 2 * SECOND);
        assert!(got[29].abs_diff(2 * SECOND + 950_000_000) < 1000);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_and_repeat_with_the_seed() {
        let stages = stages(&[(100, 1000.0, 1000.0)]);
        let got = whole(&stages, Arrival::Poisson);
        assert_eq!(got, whole(&stages, Arrival::Poisson));
        assert!(got.len().abs_diff(100_000) < 1_500, "{}", got.len());
        let gaps: Vec<f64> = got.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "exponential: {variance} {mean}");
        let other = times(Schedule::new(&stages, Arrival::Poisson, Share::WHOLE, 2, u64::MAX));
        assert_ne!(got, other);
        let half =
            times(Schedule::new(&stages, Arrival::Poisson, Share::WHOLE.part(1, 2), 1, u64::MAX));
        assert!(half.len().abs_diff(50_000) < 1_000, "{}", half.len());
    }

    #[test]
    fn bursts_come_at_once_and_keep_the_rate() {
        let got = whole(&stages(&[(1, 100.0, 100.0)]), Arrival::Burst(25));
        assert_eq!(got.len(), 100);
        for (index, time) in got.iter().enumerate() {
            assert_eq!(*time, index as u64 / 25 * SECOND / 4);
        }
    }

    #[test]
    fn a_limit_ends_it_and_a_list_is_dealt_out() {
        let stages = stages(&[(1, 100.0, 100.0)]);
        let schedule = Schedule::new(&stages, Arrival::Constant, Share::WHOLE, 1, 3);
        assert_eq!(times(schedule), [0, 10_000_000, 20_000_000]);
        let list: Arc<[u64]> = (0..7_u64).collect();
        let mut dealt = Schedule::of_times(&list, 1, 3, u64::MAX);
        assert_eq!((dealt.next(), dealt.index()), (Some(1), 1));
        dealt.advance();
        assert_eq!((dealt.next(), dealt.index()), (Some(4), 4));
        dealt.advance();
        assert_eq!(dealt.next(), None);
        assert_eq!([0, 1, 2].map(|i| Share::WHOLE.part(i, 3).of(100)), [33, 34, 33]);
    }

    #[test]
    fn what_is_overdue_is_counted_without_a_walk() {
        let stages = stages(&[(10, 1000.0, 1000.0), (10, 1000.0, 3000.0)]);
        for share in [Share::WHOLE, Share::WHOLE.part(1, 4)] {
            let mut schedule = Schedule::new(&stages, Arrival::Constant, share, 1, u64::MAX);
            for taken in 0..2000 {
                for now in [0, SECOND, 9 * SECOND, 15 * SECOND, 30 * SECOND] {
                    let mut walk = schedule.clone();
                    let mut count = 0;
                    if taken % 100 == 0 {
                        while walk.next().is_some_and(|at| at <= now) {
                            walk.advance();
                            count += 1;
                        }
                        let overdue = schedule.overdue(now);
                        assert!(overdue.abs_diff(count) <= 2, "{overdue} {count} at {now}");
                    }
                }
                schedule.advance();
            }
        }
        let list: Arc<[u64]> = (0..10_u64).collect();
        let schedule = Schedule::of_times(&list, 0, 3, u64::MAX);
        assert_eq!((schedule.overdue(0), schedule.overdue(5), schedule.overdue(99)), (1, 2, 4));
    }

    #[test]
    fn a_backlog_of_a_hundred_million_is_an_index() {
        let stages = stages(&[(1 << 30, 1e6, 1e6)]);
        let schedule = Schedule::new(&stages, Arrival::Constant, Share::WHOLE, 1, u64::MAX);
        assert!(size_of_val(&schedule) < 256);
    }
}
