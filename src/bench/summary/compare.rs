//! Two runs against each other: the ratio of each figure with its interval, and whether the
//! difference is more than chance.

use serde::Serialize;

use fastrand::Rng;

use super::stats::{quantile, resample};
use super::{Summary, seconds};
use crate::bench::record::times;

/// Resamples that an interval is made of: its ends move by about a hundredth of its width.
const RESAMPLES: usize = 1_000;
/// What lies within the interval, of all resamples.
const CONFIDENCE: f64 = 0.95;
/// Slots that both runs must have for an interval.
const SLOTS_MIN: usize = 8;

/// Which way a figure gets better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// Times.
    LessIsBetter,
    /// Rates.
    MoreIsBetter,
}

/// A figure of two runs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Change {
    /// Its name: `rate`, `p50`, `p99`, `client_us`, `server_us`.
    pub figure: &'static str,
    /// Of the first run.
    pub a: f64,
    /// Of the second.
    pub b: f64,
    /// `b / a`.
    pub ratio: f64,
    /// Where the ratio is, at 95 %: from here…
    pub low: f64,
    /// …to here.
    pub high: f64,
    /// Which way it gets better.
    pub sense: Sense,
}

impl Change {
    /// The interval has 1: what differs may be chance.
    pub fn is_noise(&self) -> bool {
        self.low <= 1.0 && self.high >= 1.0
    }

    /// It is better in the second run, and not by chance.
    pub fn is_better(&self) -> bool {
        match self.sense {
            Sense::LessIsBetter => self.high < 1.0,
            Sense::MoreIsBetter => self.low > 1.0,
        }
    }
}

/// Two runs against each other.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// Figures that both have.
    pub changes: Vec<Change>,
    /// Why some are missing, or mean less than they seem.
    pub notes: Vec<String>,
}

/// Compares run `b` with run `a`.
///
/// Slots of each run are drawn again and again (with their neighbours, since one slot resembles the
/// next), which shows how much the figures would differ if the same runs were repeated at once.
/// What changes from start to start of a server it can't show: only several runs of each do.
pub fn compare(a: &Summary, b: &Summary) -> Comparison {
    let mut notes = Vec::new();
    let (first, second) = (Slots::of(a), Slots::of(b));
    let mut changes = Vec::new();
    if first.rates.len() < SLOTS_MIN || second.rates.len() < SLOTS_MIN {
        notes.push("one of the runs is too short to know how much its figures vary".to_owned());
    } else {
        let mut random = Rng::with_seed(a.setup.seed ^ b.setup.seed.rotate_left(32));
        let mut ratios: [Vec<f64>; 4] = Default::default();
        for _ in 0..RESAMPLES {
            let drawn = (first.draw(&mut random), second.draw(&mut random));
            for ((of, x), y) in ratios.iter_mut().zip(drawn.0).zip(drawn.1) {
                of.extend(x.zip(y).filter(|(x, _)| *x > 0.0).map(|(x, y)| y / x));
            }
        }
        let figures = [
            ("rate", Some(a.rate), Some(b.rate), Sense::MoreIsBetter),
            time("p50", a, b),
            time("p99", a, b),
            (
                "server_us",
                a.cpu.server_us_per_request,
                b.cpu.server_us_per_request,
                Sense::LessIsBetter,
            ),
        ];
        for ((figure, x, y, sense), ratios) in figures.into_iter().zip(&mut ratios) {
            let (Some(x), Some(y)) = (x, y) else { continue };
            if x > 0.0 && ratios.len() == RESAMPLES {
                ratios.sort_by(f64::total_cmp);
                let tail = (1.0 - CONFIDENCE) / 2.0;
                let (low, high) = (quantile(ratios, tail), quantile(ratios, 1.0 - tail));
                changes.push(Change { figure, a: x, b: y, ratio: y / x, low, high, sense });
            }
        }
    }
    for (name, run) in [("first", a), ("second", b)] {
        if run.verdict.status != super::Status::Valid {
            notes.push(format!("the {name} run is {}", run.verdict.status.text()));
        }
        if !run.latency.response.at_least.is_empty() {
            notes.push(format!("percentiles of the {name} run are lower bounds"));
        }
    }
    if a.setup.load != b.setup.load || a.setup.connections != b.setup.connections {
        notes.push("the runs had different loads".to_owned());
    }
    Comparison { changes, notes }
}

fn time(
    name: &'static str,
    a: &Summary,
    b: &Summary,
) -> (&'static str, Option<f64>, Option<f64>, Sense) {
    let of = |run: &Summary| run.latency.response.percentile(name).map(|nanos| nanos as f64);
    (name, of(a), of(b), Sense::LessIsBetter)
}

/// The slots of a run's window.
struct Slots {
    rates: Vec<f64>,
    /// CPU time and answers of the server, slot by slot, if known.
    server: Option<Vec<(f64, f64)>>,
    /// All response times with their slots and counts, the shortest first.
    times: Vec<(u64, u32, u32)>,
}

impl Slots {
    fn of(run: &Summary) -> Slots {
        let record = &run.record;
        let (first, last) = (run.first_slot(), (run.window.to / record.slot_nanos) as usize);
        let last = last.min(record.slots.len());
        let slots = record.slots.get(first..last).unwrap_or_default();
        let width = seconds(record.slot_nanos);
        let mut all = Vec::new();
        for (number, slot) in (0..).zip(slots) {
            for clock in [record.settings.response(), record.settings.response_at_least()] {
                let times = slot.times(clock).unwrap_or_else(times);
                for step in times.iter_recorded() {
                    let count = u32::try_from(step.count_at_value()).unwrap_or(u32::MAX);
                    all.push((step.value_iterated_to(), number, count));
                }
            }
        }
        all.sort_unstable();
        let server = slots.iter().zip(run.series.get(first..).unwrap_or_default());
        let server =
            server.map(|(slot, point)| Some((point.server_cores?, slot.counts.answers as f64)));
        Slots {
            rates: slots.iter().map(|slot| slot.counts.answers as f64 / width).collect(),
            server: server.collect::<Option<Vec<_>>>().filter(|it| !it.is_empty()),
            times: all,
        }
    }

    /// The figures of one resample: rate, p50, p99, server CPU a request.
    fn draw(&self, random: &mut Rng) -> [Option<f64>; 4] {
        let indices = resample(self.rates.len(), random);
        let mut weights = vec![0_u64; self.rates.len()];
        indices.iter().for_each(|index| weights[*index] += 1);
        let rate =
            indices.iter().map(|index| self.rates[*index]).sum::<f64>() / indices.len() as f64;
        let weight =
            |(_, slot, count): &(u64, u32, u32)| weights[*slot as usize] * u64::from(*count);
        let total: u64 = self.times.iter().map(weight).sum();
        let ranks = [0.5, 0.99].map(|part| (total as f64 * part).ceil() as u64);
        let (mut seen, mut found) = (0, [None, None]);
        for entry in &self.times {
            seen += weight(entry);
            for (rank, found) in ranks.iter().zip(&mut found) {
                if found.is_none() && seen >= *rank && total > 0 {
                    *found = Some(entry.0 as f64);
                }
            }
            if found[1].is_some() {
                break;
            }
        }
        let server = self.server.as_ref().and_then(|server| {
            let sum = indices.iter().fold((0.0, 0.0), |sum, index| {
                let (cores, answers) = server[*index];
                (sum.0 + cores, sum.1 + answers)
            });
            super::ratio(sum.0, sum.1)
        });
        [Some(rate), found[0], found[1], server]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::regressions;
    use super::super::synthetic::Synthetic;
    use super::*;

    fn of(seed: u64, slower: f64) -> Summary {
        Synthetic { seed, slower, ..Synthetic::open(2_000.0, 10) }.summary()
    }

    fn change(comparison: &Comparison, figure: &str) -> Change {
        let found = comparison.changes.iter().find(|change| change.figure == figure);
        found.unwrap_or_else(|| panic!("{figure} in {comparison:?}")).clone()
    }

    #[test]
    fn two_runs_of_the_same_are_noise() {
        // An interval at 95 % misses now and then; not in most cases.
        let misses = (0..20).filter(|seed| {
            let comparison = compare(&of(*seed, 1.0), &of(1_000 + seed, 1.0));
            !change(&comparison, "p50").is_noise()
        });
        assert!(misses.count() <= 4);
    }

    #[test]
    fn a_real_difference_is_found_with_its_size() {
        let comparison = compare(&of(1, 1.0), &of(2, 1.1));
        for figure in ["p50", "p99"] {
            let change = change(&comparison, figure);
            assert!(!change.is_noise() && !change.is_better(), "{change:?}");
            assert!(change.low < 1.1 && change.high > 1.09, "{change:?}");
        }
        let back = compare(&of(2, 1.1), &of(1, 1.0));
        assert!(change(&back, "p50").is_better());
        assert!(change(&back, "rate").is_noise(), "the rate is that of the schedule");
    }

    #[test]
    fn only_what_is_worse_beyond_chance_and_limit_is_a_regression() {
        let (base, slow) = (of(1, 1.0), of(2, 1.1));
        let worse = regressions(&compare(&base, &slow), 0.03);
        let figures: Vec<&str> = worse.iter().map(|it| it.change.figure).collect();
        assert_eq!(figures, ["p50", "p99"]);
        assert!(regressions(&compare(&base, &slow), 0.2).is_empty(), "within the limit");
        assert!(regressions(&compare(&slow, &base), 0.03).is_empty(), "better");
        assert!(regressions(&compare(&base, &of(3, 1.0)), 0.03).is_empty(), "noise");
    }

    #[test]
    fn short_and_different_runs_are_told() {
        let short = Synthetic::open(1_000.0, 0).summary();
        let comparison = compare(&of(1, 1.0), &short);
        assert_eq!(comparison.changes, []);
        let notes = comparison.notes.join("\n");
        assert!(notes.contains("too short") && notes.contains("different loads"), "{notes}");
    }
}
