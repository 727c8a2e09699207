//! Percentiles of times of which some are only known to be at least so long. None is made up.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A percentile is known when so many samples are expected above it: the 99th takes 1,000 samples.
/// With ten, the part that is really above lies within two thirds more or less, at 95 %.
pub const SAMPLES_ABOVE: u64 = 10;

/// What may be unknown of the samples above, without changing a percentile by more than this part,
/// isn't worth a mark; nor is a microsecond.
const TOLERANCE: f64 = 0.01;
const TOLERANCE_NANOS: f64 = 1_000.0;

/// One percentile, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Percentile {
    /// The time: rounded up to the third digit.
    pub nanos: u64,
    /// It is a lower bound: requests without an answer may have taken longer.
    pub at_least: bool,
}

/// Times that are known, and lower bounds of others.
#[derive(Clone, Debug)]
pub struct Censored {
    known: Histogram<u64>,
    at_least: Histogram<u64>,
    /// Known times, and bounds as if they were the times.
    lowest: Histogram<u64>,
}

impl Censored {
    /// Puts them together. Both must have been made by [`times`](crate::bench::record::times).
    pub fn new(known: Histogram<u64>, at_least: Histogram<u64>) -> Censored {
        let mut lowest = known.clone();
        lowest.add(&at_least).expect("their bounds are the same");
        Censored { known, at_least, lowest }
    }

    /// Samples, known or bounded.
    pub fn len(&self) -> u64 {
        self.lowest.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.lowest.is_empty()
    }

    /// The times that are known.
    pub fn known(&self) -> &Histogram<u64> {
        &self.known
    }

    /// Times of which is known that they would have been longer.
    pub fn at_least(&self) -> &Histogram<u64> {
        &self.at_least
    }

    /// Known times, and bounds as if they were the times: the most favourable that can be true.
    pub fn lowest(&self) -> &Histogram<u64> {
        &self.lowest
    }

    /// The time within which this part of requests was answered; `None` if there are too few
    /// samples to know it.
    ///
    /// Unanswered requests count with what they waited. Where they could have been answered much
    /// later and this would change the percentile, it is marked as a lower bound.
    pub fn percentile(&self, part: f64) -> Option<Percentile> {
        let len = self.len();
        let above = len as f64 * (1.0 - part);
        // Some slack, as 1 - 0.99 isn't exactly 0.01.
        (above + 1e-6 >= SAMPLES_ABOVE as f64 && len > 0).then(|| self.rank(part))
    }

    /// The longest time.
    pub fn max(&self) -> Option<Percentile> {
        (!self.is_empty()).then(|| {
            let (known, bound) = (self.known.max(), self.at_least.max());
            Percentile { nanos: known.max(bound), at_least: !self.at_least.is_empty() }
        })
    }

    /// The mean of the times that are known. It says nothing of the others.
    pub fn mean(&self) -> Option<f64> {
        (!self.known.is_empty()).then(|| self.known.mean())
    }

    fn rank(&self, part: f64) -> Percentile {
        let nanos = self.lowest.value_at_quantile(part);
        if self.at_least.is_empty() {
            return Percentile { nanos, at_least: false };
        }
        // The other extreme: none of them would ever have been answered.
        let rank = (part * self.len() as f64).ceil() as u64;
        let known = self.known.len();
        let highest = (rank <= known && known > 0)
            .then(|| self.known.value_at_quantile(rank as f64 / known as f64));
        let margin = (nanos as f64 * TOLERANCE).max(TOLERANCE_NANOS);
        let is_same = highest.is_some_and(|it| it as f64 <= nanos as f64 + margin);
        Percentile { nanos, at_least: !is_same }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::times;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut times = times();
        values.into_iter().for_each(|value| times.saturating_record(value));
        times
    }

    fn near(found: Option<Percentile>, expected: u64, at_least: bool) {
        let found = found.expect("enough samples");
        assert!(
            found.nanos.abs_diff(expected) * 1_000 <= expected,
            "{} not {expected}",
            found.nanos
        );
        assert_eq!(found.at_least, at_least, "{expected}");
    }

    #[test]
    fn known_times_have_the_percentiles_of_their_ranks() {
        let times = Censored::new(histogram((1..=10_000).map(|it| it * 1_000)), times());
        for (part, expected) in [(0.5, 5_000), (0.9, 9_000), (0.99, 9_900), (0.999, 9_990)] {
            near(times.percentile(part), expected * 1_000, false);
        }
        near(times.max(), 10_000_000, false);
    }

    #[test]
    fn what_too_few_samples_tell_is_not_said() {
        for (count, known) in
            [(19, 0), (20, 1), (99, 1), (100, 2), (999, 2), (1_000, 3), (10_000, 4)]
        {
            let times = Censored::new(histogram(1..=count), times());
            let parts = [0.5, 0.9, 0.99, 0.999];
            let found = parts.iter().filter(|part| times.percentile(**part).is_some()).count();
            assert_eq!(found, known, "{count} samples");
        }
        let none = Censored::new(times(), times());
        assert!(none.percentile(0.5).is_none() && none.max().is_none() && none.mean().is_none());
    }

    /// A server that stops for good: 900 answers of 1 ms, then 100 requests that wait for 1 to 100 s.
    #[test]
    fn unanswered_requests_are_lower_bounds() {
        let answered = histogram([1_000_000; 900]);
        let waiting = histogram((1..=100).map(|it| it * 1_000_000_000));
        let times = Censored::new(answered, waiting);
        near(times.percentile(0.5), 1_000_000, false);
        near(times.percentile(0.9), 1_000_000, false);
        near(times.percentile(0.99), 90_000_000_000, true);
        near(times.max(), 100_000_000_000, true);
    }

    /// Requests in flight when the run ended have waited next to nothing, but might have waited
    /// for long: they count as if they were anywhere above.
    #[test]
    fn bounds_below_a_percentile_mark_it_if_it_matters() {
        let few =
            Censored::new(histogram((1..=100_000).map(|it| it * 1_000)), histogram([500; 10]));
        near(few.percentile(0.5), 50_000_000, false);
        near(few.percentile(0.99), 99_000_000, false);
        let known = histogram((1..=1_000).map(|it| it * 1_000));
        let many = Censored::new(known, histogram([500; 1_000]));
        near(many.percentile(0.9), 800_000, true);
    }

    #[test]
    fn bounds_above_a_percentile_do_not_mark_it() {
        let late = histogram([1_000_000_000; 5]);
        let times = Censored::new(histogram((1..=1_000).map(|it| it * 1_000)), late);
        near(times.percentile(0.5), 503_000, false);
        assert!(times.max().unwrap().at_least);
    }
}
