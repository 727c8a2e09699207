//! What a pipeline asks of a run: assertions (`p99<5ms`), and no regression against a baseline.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::compare::{Change, Comparison, Sense};
use super::{Distribution, Summary};

/// A promise about a figure of the run, as in `p99<5ms`, `service.p50<=800us`, `rate>10k`, `failed=0`,
/// `failed<0.1%`, `server_us<20`.
///
/// ```
/// use uring_pool::bench::summary::Assertion;
///
/// assert!("p99<5ms".parse::<Assertion>().is_ok());
/// assert!("p98<5ms".parse::<Assertion>().unwrap_err().contains("p999"));
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Assertion {
    text: String,
    figure: Figure,
    order: Order,
    bound: f64,
    /// The bound is a part of what was offered.
    is_part: bool,
}

/// What became of an assertion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// The assertion as it was written.
    pub assertion: String,
    /// It is known to be so.
    pub holds: bool,
    /// The figure, for people.
    pub found: String,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Figure {
    /// A percentile of a clock.
    Time {
        clock: usize,
        percentile: usize,
    },
    Rate,
    Failed,
    Unfinished,
    ClientUs,
    ServerUs,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Order {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
}

const ORDERS: [(&str, Order); 6] = [
    ("<=", Order::AtMost),
    (">=", Order::AtLeast),
    ("==", Order::Equal),
    ("<", Order::Less),
    (">", Order::Greater),
    ("=", Order::Equal),
];
const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p999", "max"];
const CLOCKS: [&str; 8] =
    ["response", "service", "wait", "lag", "connect", "ttfb", "close", "unexpected"];

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Assertion, String> {
        let found =
            ORDERS.iter().filter_map(|(sign, order)| Some((text.find(sign)?, *sign, *order)));
        // The first sign, and the longest where two begin.
        let first = found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())));
        let Some((at, sign, order)) = first else {
            return Err(format!("`{text}` compares nothing: write it as in p99<5ms or rate>10k"));
        };
        let (figure, value) = (text[..at].trim(), text[at + sign.len()..].trim());
        let figure = Figure::named(figure)
            .ok_or_else(|| format!("`{figure}` is no figure to assert: {}", Figure::NAMES))?;
        let (bound, is_part) = figure.bound(value)?;
        Ok(Assertion { text: text.to_owned(), figure, order, bound, is_part })
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Figure {
    const NAMES: &str = "p50, p90, p99, p999 or max, alone or of a clock (response, service, wait, lag, \
                         connect, ttfb, close, unexpected) as in service.p99; rate, failed, \
                         unfinished, client_us, server_us";

    fn named(text: &str) -> Option<Figure> {
        let (clock, percentile) = text.split_once('.').unwrap_or((CLOCKS[0], text));
        let percentile = PERCENTILES.iter().position(|name| *name == percentile);
        let clock = CLOCKS.iter().position(|name| *name == clock);
        if let (Some(clock), Some(percentile)) = (clock, percentile) {
            return Some(Figure::Time { clock, percentile });
        }
        match text {
            "rate" => Some(Figure::Rate),
            "failed" => Some(Figure::Failed),
            "unfinished" => Some(Figure::Unfinished),
            "client_us" => Some(Figure::ClientUs),
            "server_us" => Some(Figure::ServerUs),
            _ => None,
        }
    }

    fn bound(self, text: &str) -> Result<(f64, bool), String> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|it| *it >= 0.0);
        match self {
            Figure::Time { .. } => {
                let time = time(text)
                    .ok_or_else(|| format!("`{text}` is no time such as 5ms or 800us"))?;
                Ok((time.as_nanos() as f64, false))
            }
            Figure::Failed | Figure::Unfinished if text.ends_with('%') => {
                let part = number(text.trim_end_matches('%'));
                let part = part.ok_or_else(|| format!("`{text}` is no part such as 0.1%"))?;
                Ok((part / 100.0, true))
            }
            _ => {
                let scales = [("k", 1e3), ("M", 1e6)];
                let scale =
                    scales.iter().find_map(|(unit, by)| Some((text.strip_suffix(unit)?, *by)));
                let (digits, by) = scale.unwrap_or((text, 1.0));
                let value =
                    number(digits).ok_or_else(|| format!("`{text}` is no number such as 10k"))?;
                Ok((value * by, false))
            }
        }
    }
}

/// A time as people write it: `5ms`, `1.5 s`, `800us`.
fn time(text: &str) -> Option<Duration> {
    let units = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let (number, unit) =
        units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    Duration::try_from_secs_f64(number.trim().parse::<f64>().ok()? * unit).ok()
}

impl Assertion {
    /// It says how many requests may fail: whoever asks for that takes some failures for granted.
    pub fn is_about_failures(&self) -> bool {
        self.figure == Figure::Failed
    }

    /// Whether the run keeps the promise. What isn't known isn't kept: a percentile of too few
    /// samples, or a lower bound that is below the limit.
    pub fn check(&self, summary: &Summary) -> Check {
        let (value, at_least) = match self.figure {
            Figure::Time { clock, percentile } => {
                let (_, times) = summary.latency.each()[clock];
                let (name, nanos) = times.percentiles()[percentile];
                (nanos.map(|it| it as f64), times.is_at_least(name))
            }
            Figure::Rate => (Some(summary.rate), false),
            Figure::Failed => (Some(self.part(summary.counts.failed, summary)), false),
            Figure::Unfinished => (Some(self.part(summary.counts.unfinished, summary)), false),
            Figure::ClientUs => (summary.cpu.client_us_per_request, false),
            Figure::ServerUs => (summary.cpu.server_us_per_request, false),
        };
        let holds = value.is_some_and(|value| match self.order {
            Order::Less => value < self.bound && !at_least,
            Order::AtMost => value <= self.bound && !at_least,
            Order::Greater => value > self.bound,
            Order::AtLeast => value >= self.bound,
            #[expect(clippy::float_cmp, reason = "meant for counts")]
            Order::Equal => value == self.bound && !at_least,
        });
        let found = match value {
            None => "not known".to_owned(),
            Some(value) => self.say(value, at_least),
        };
        Check { assertion: self.text.clone(), holds, found }
    }

    fn part(&self, count: u64, summary: &Summary) -> f64 {
        if self.is_part {
            count as f64 / summary.counts.offered.max(1) as f64
        } else {
            count as f64
        }
    }

    fn say(&self, value: f64, at_least: bool) -> String {
        let sign = if at_least { "≥ " } else { "" };
        match self.figure {
            Figure::Time { .. } => format!("{sign}{:.3} ms", value / 1e6),
            Figure::Rate => format!("{value:.0}/s"),
            _ if self.is_part => format!("{:.3} %", value * 100.0),
            Figure::Failed | Figure::Unfinished => format!("{value:.0}"),
            Figure::ClientUs | Figure::ServerUs => format!("{value:.2} µs"),
        }
    }
}

/// A figure that is worse than in the baseline, by more than is allowed and by more than chance.
#[derive(Clone, PartialEq, Debug)]
pub struct Regression {
    /// Which, and by how much.
    pub change: Change,
    /// The part by which it is worse.
    pub part: f64,
}

/// The figures of a comparison with a baseline (`a`) that are worse by more than this part, and whose
/// interval leaves out that they are as they were.
pub fn regressions(comparison: &Comparison, part_max: f64) -> Vec<Regression> {
    let worse = |change: &Change| {
        let (ratio, proven) = match change.sense {
            Sense::LessIsBetter => (change.ratio, change.low > 1.0),
            Sense::MoreIsBetter => (1.0 / change.ratio, change.high < 1.0),
        };
        let part = ratio - 1.0;
        (part > part_max && proven).then(|| Regression { change: change.clone(), part })
    };
    comparison.changes.iter().filter_map(worse).collect()
}

impl Distribution {
    /// The percentile with this name, as it is in the document.
    pub fn percentile(&self, name: &str) -> Option<u64> {
        self.percentiles().into_iter().find(|(known, _)| *known == name)?.1
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::Synthetic;
    use super::*;

    fn check(text: &str, summary: &Summary) -> bool {
        text.parse::<Assertion>().unwrap().check(summary).holds
    }

    #[test]
    fn promises_are_kept_or_not() {
        let run = Synthetic::open(1_000.0, 10).summary(); // 1 ms each, about
        for kept in [
            "p99<5ms",
            "response.p50 <= 2ms",
            "rate>0.9k",
            "failed=0",
            "failed<=0.1%",
            "p50>0.5ms",
            "max<1s",
        ] {
            assert!(check(kept, &run), "{kept}");
        }
        for broken in ["p99<1us", "rate>=2k", "failed>0", "server_us<1", "p50>1s", "unfinished=7"] {
            assert!(!check(broken, &run), "{broken}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_kept() {
        let short = Synthetic::open(100.0, 1).summary();
        assert!(!check("p999<1h", &short), "100 samples");
        assert!(!check("p999<60s", &short), "100 samples");
        let hung = Synthetic { hangs_from: Some(5), ..Synthetic::open(1_000.0, 10) }.summary();
        assert!(!check("p99<60s", &hung), "a lower bound");
        assert!(check("p99>2s", &hung), "but at least that");
        let check = "p99<60s".parse::<Assertion>().unwrap().check(&hung);
        assert!(check.found.starts_with("≥ "), "{}", check.found);
    }

    #[test]
    fn rubbish_says_what_would_be_right() {
        for (text, hint) in [
            ("p99", "p99<5ms"),
            ("p98<5ms", "p999"),
            ("p99<5", "5ms"),
            ("p99<", "5ms"),
            ("rate>many", "10k"),
            ("failed<x%", "0.1%"),
            ("", "p99<5ms"),
            ("<", "rate"),
        ] {
            let error = text.parse::<Assertion>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
