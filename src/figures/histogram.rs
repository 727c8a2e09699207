//! Durations by their size, to a thirty-second part: written with one addition a sample, read by
//! whoever wants quantiles.

use std::time::Duration;

use super::Counter;

/// A power of two is divided into so many buckets, each at most 1/32 (3.125 %) as wide as the
/// values in it.
const PARTS_BITS: u32 = 5;
const PARTS: usize = 1 << PARTS_BITS;

/// Below 2^10 ns (1.024 us) buckets are as wide as the narrowest above: 32 ns.
const SHORT_BITS: u32 = 10;
/// From 2^42 ns (73 minutes) on all durations count as this long.
const LONG_BITS: u32 = 42;
const NANOS_MAX: u64 = (1 << LONG_BITS) - 1;

/// 32 buckets for what is short, 32 for each of the 32 powers of two: 1,056, or 8,448 bytes.
const BUCKETS: usize = PARTS * (LONG_BITS - SHORT_BITS + 1) as usize;

/// A log-linear histogram of durations. All zeroes is an empty one.
pub(crate) struct Histogram {
    /// Of all samples, in nanoseconds. Wraps after 584 years of them.
    nanos: Counter,
    buckets: [Counter; BUCKETS],
}

impl Histogram {
    pub(crate) const fn new() -> Histogram {
        Histogram { nanos: Counter::new(), buckets: [const { Counter::new() }; BUCKETS] }
    }

    /// So many times this long.
    #[inline]
    pub(crate) fn record(&self, nanos: u64, count: u64) {
        let nanos = nanos.min(NANOS_MAX);
        self.nanos.add(nanos * count);
        self.buckets[bucket_of(nanos)].add(count);
    }
}

/// The bucket of a duration of at most [`NANOS_MAX`].
#[inline]
fn bucket_of(nanos: u64) -> usize {
    let bits = u64::BITS - (nanos | 1 << SHORT_BITS).leading_zeros();
    let shift = bits - 1 - PARTS_BITS;
    // Of a long duration, the highest bit is left as a 32 that counts for one power of two.
    let octave = (bits - 1 - SHORT_BITS) as usize;
    octave * PARTS + (nanos >> shift) as usize
}

/// The shortest duration in a bucket; for the number of buckets, the one after all.
fn start_of(bucket: usize) -> u64 {
    let octave = (bucket / PARTS).saturating_sub(1);
    ((bucket - octave * PARTS) as u64) << (octave as u32 + SHORT_BITS - PARTS_BITS)
}

/// What histograms hold at one moment.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Durations {
    /// All samples.
    pub(crate) count: u64,
    /// Their sum.
    pub(crate) nanos: u64,
    buckets: Box<[u64]>,
}

impl Durations {
    pub(crate) fn new() -> Durations {
        Durations { count: 0, nanos: 0, buckets: vec![0; BUCKETS].into() }
    }

    /// Adds what a histogram holds now.
    pub(crate) fn add(&mut self, histogram: &Histogram) {
        self.nanos = self.nanos.wrapping_add(histogram.nanos.read());
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            let count = bucket.read();
            *sum += count;
            self.count += count;
        }
    }

    /// A duration that this part of all samples, in thousandths, doesn't exceed, and which is at
    /// most 1/32 longer than the sample that it stands for. `None` without samples.
    pub(crate) fn quantile(&self, thousandths: u32) -> Option<Duration> {
        let rank = u128::from(self.count) * u128::from(thousandths);
        let rank = (rank.div_ceil(1000) as u64).max(1);
        let mut below = 0;
        let bucket = self.buckets.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(Duration::from_nanos(start_of(bucket + 1) - 1))
    }

    /// At most the shortest sample, and at least 31/32 of it.
    pub(crate) fn min(&self) -> Option<Duration> {
        let bucket = self.buckets.iter().position(|count| *count > 0)?;
        Some(Duration::from_nanos(start_of(bucket)))
    }

    /// At least the longest sample, and at most 33/32 of it.
    pub(crate) fn max(&self) -> Option<Duration> {
        self.quantile(1000)
    }

    pub(crate) fn average(&self) -> Option<Duration> {
        self.nanos.checked_div(self.count).map(Duration::from_nanos)
    }

    /// Exactly how many samples are shorter than this power of two nanoseconds, 2^10 to 2^42.
    pub(crate) fn below(&self, bits: u32) -> u64 {
        let end = bucket_of((1 << bits.clamp(SHORT_BITS, LONG_BITS)) - 1) + 1;
        self.buckets[..end].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durations(samples: impl IntoIterator<Item = u64>) -> Durations {
        let histogram = Histogram::new();
        samples.into_iter().for_each(|nanos| histogram.record(nanos, 1));
        let mut durations = Durations::new();
        durations.add(&histogram);
        durations
    }

    #[test]
    fn buckets_meet_exactly_at_every_boundary() {
        assert_eq!((start_of(0), start_of(BUCKETS)), (0, NANOS_MAX + 1));
        for bucket in 0..BUCKETS {
            let (start, end) = (start_of(bucket), start_of(bucket + 1));
            assert!(start < end, "{bucket}");
            assert_eq!((bucket_of(start), bucket_of(end - 1)), (bucket, bucket));
            let width = end - start;
            assert!(width == 32 || width * 32 <= start, "{bucket}: {width} at {start}");
        }
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let histogram = Histogram::new();
        for nanos in [NANOS_MAX, NANOS_MAX + 1, u64::MAX] {
            histogram.record(nanos, 1);
        }
        assert_eq!(histogram.buckets[BUCKETS - 1].read(), 3);
        assert_eq!(histogram.nanos.read(), 3 * NANOS_MAX);
    }

    #[test]
    fn quantiles_are_at_most_a_thirty_second_too_long() {
        let mut seed = 1_u64;
        let mut samples: Vec<u64> = (0..20_000)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                1024 + (seed >> 33 >> (seed % 20)) * 1000
            })
            .collect();
        let durations = durations(samples.iter().copied());
        samples.sort_unstable();
        for part in [0, 1, 100, 500, 900, 990, 999, 1000] {
            let rank = (samples.len() * part).div_ceil(1000).max(1);
            let exact = samples[rank - 1];
            let shown = durations.quantile(part as u32).unwrap().as_nanos() as u64;
            assert!(shown >= exact && shown - exact <= exact / 32, "{part}: {shown} for {exact}");
        }
        let (min, max) = (durations.min().unwrap(), durations.max().unwrap());
        assert!(min.as_nanos() as u64 <= samples[0] && min < max);
        let average = samples.iter().sum::<u64>() / samples.len() as u64;
        assert_eq!(durations.average(), Some(Duration::from_nanos(average)));
    }

    #[test]
    fn no_samples_have_no_quantiles() {
        let none = durations([]);
        assert_eq!((none.quantile(500), none.min(), none.max()), (None, None, None));
        assert_eq!((none.average(), none.below(42)), (None, 0));
    }

    #[test]
    fn counts_below_powers_of_two_are_exact() {
        let boundaries = (SHORT_BITS..=LONG_BITS).map(|bits| 1 << bits);
        let durations = durations(boundaries.flat_map(|at: u64| [at - 1, at]));
        for (number, bits) in (SHORT_BITS..LONG_BITS).enumerate() {
            assert_eq!(durations.below(bits), 2 * number as u64 + 1, "below 2^{bits}");
        }
        assert_eq!(durations.below(LONG_BITS), durations.count);
    }

    #[test]
    fn many_at_once_count_as_each() {
        let histogram = Histogram::new();
        histogram.record(5000, 16);
        let mut sum = durations([5000]);
        sum.add(&histogram);
        assert_eq!((sum.count, sum.nanos), (17, 85_000));
    }
}
