//! `bench search`: the highest rate at which a promise holds. Knows no screens.

use std::fmt;
use std::time::Duration;

use clap::Args;
use uring_pool::bench::report::rate as words;
use uring_pool::bench::summary::{Assertion, Check, Status, Summary};
use uring_pool::bench::{Options, Plan, Rate, Wanted};

use super::super::Failure;
use super::flags::LoadFlags;
use super::{EX_INVALID, EX_TARGET, EX_USAGE, run_failure};

/// A trial takes so long unless `-z` says otherwise: at 1,000 requests a second enough for p99.
const TRIAL: Duration = Duration::from_secs(4);
/// The first look at what the server can do at all.
const PROBE: Duration = Duration::from_secs(2);
/// The search ends when the rate that holds and the one that doesn't are so close.
const CLOSE: f64 = 1.05;
/// And gives up after so many trials.
const TRIALS_MAX: u32 = 24;
/// A rate that is found must hold so often more.
const CONFIRMATIONS: usize = 3;
/// A trial that the generator spoilt is made so often again.
const REPEATS: u32 = 2;
/// While nothing has broken the promise, the next rate is so much higher.
const STEP: f64 = 1.25;

#[derive(Args, Clone, Debug)]
pub(super) struct SearchFlags {
    /// The promise: 'p99<2ms', 'service.p50<800us', …; repeatable, all must hold
    #[arg(long, value_name = "PROMISE", required = true)]
    slo: Vec<Assertion>,
    #[command(flatten)]
    load: LoadFlags,
    /// The server's process, to measure it and to keep away from its cores
    #[arg(long, value_name = "PID", help_heading = "Measuring")]
    server_pid: Option<u32>,
}

/// Searches, and prints each trial.
pub(super) fn search(flags: &SearchFlags) -> Result<(), Failure> {
    let wanted = flags.load.wanted()?;
    if wanted.rate.is_some() || wanted.stages.is_some() || wanted.requests.is_some() {
        let words = "search finds the rate: leave out -R, --stages and -n";
        return Err(Failure::new(EX_USAGE, words));
    }
    let trial_time = wanted.time.unwrap_or(TRIAL);
    let options = Options { server: flags.server_pid, ..Options::default() };
    let run = |wanted: &Wanted| -> Result<Summary, Failure> {
        let plan = Plan::new(wanted).map_err(|error| Failure::new(EX_USAGE, error))?;
        let outcome = uring_pool::bench::run(&plan, &options, |_, _| true).map_err(run_failure)?;
        Ok(outcome.summary)
    };

    let closed = Wanted {
        time: Some(PROBE),
        arrival: None,
        session: None,
        inflight_max: None,
        ..wanted.clone()
    };
    let most = run(&closed)?.rate;
    if most < 1.0 {
        return Err(Failure::new(EX_TARGET, "the target answers nothing, at no rate at all"));
    }
    println!("  without a rate  {:>10}/s: where the search begins", words(most));
    let mut trials = 0;
    let mut attempt = |rate: f64| -> Result<Trial, Failure> {
        trials += 1;
        let wanted = Wanted { rate: Rate::new(rate), time: Some(trial_time), ..wanted.clone() };
        let trial = Trial::of(&run(&wanted)?, &flags.slo);
        println!("  trial {trials:<2}        {:>10}/s: {trial}", words(rate));
        Ok(trial)
    };

    let mut hunt = Hunt::new(most);
    while let Some(rate) = hunt.next() {
        let mut trial = attempt(rate)?;
        for _ in 0..REPEATS {
            if let Trial::Spoilt(_) = trial {
                trial = attempt(rate)?;
            }
        }
        hunt.handle(rate, trial);
    }
    let Some((rate, found)) = &hunt.low else {
        let words = "no rate was found at which the promise holds four times in a row";
        return Err(Failure::new(EX_INVALID, words));
    };
    let promises: Vec<String> = flags.slo.iter().map(ToString::to_string).collect();
    let promises = promises.join(" and ");
    let times = found.len();
    println!("\n  {}/s with {promises}: it held {times} times of {times}", words(*rate));
    println!("  found: {}", found.join("; "));
    match &hunt.high {
        Some((high, None)) => {
            println!("  the highest such rate within 5 %: {}/s did not hold", words(*high));
            Ok(())
        }
        Some((high, Some(reason))) => Err(Failure::new(
            EX_INVALID,
            format_args!(
                "whether the server could do more is not known: at {}/s {reason}",
                words(*high)
            ),
        )),
        None => Err(Failure::new(EX_INVALID, "no rate was found that breaks the promise")),
    }
}

/// What a run at a rate says.
#[derive(Clone, PartialEq, Debug)]
enum Trial {
    /// All promises were kept; the figures.
    Holds(String),
    /// Which were not.
    Breaks(String),
    /// Some were not, but it may have been the generator's doing: why.
    Spoilt(String),
}

impl Trial {
    fn of(summary: &Summary, promises: &[Assertion]) -> Trial {
        let checks: Vec<Check> = promises.iter().map(|promise| promise.check(summary)).collect();
        let mut broken: Vec<String> = checks
            .iter()
            .filter(|check| !check.holds)
            .map(|check| format!("{}: {}", check.assertion, check.found))
            .collect();
        let counts = &summary.counts;
        if counts.failed + counts.connect_failures + counts.unfinished > 0 {
            broken.push(format!("{} failed, {} unfinished", counts.failed, counts.unfinished));
        }
        if broken.is_empty() {
            let found: Vec<&str> = checks.iter().map(|check| check.found.as_str()).collect();
            return Trial::Holds(found.join(", "));
        }
        let mut reasons = summary.verdict.reasons.iter();
        match reasons.find(|reason| reason.status == Status::Invalid && !reason.is_targets()) {
            Some(reason) => Trial::Spoilt(reason.text.clone()),
            None => Trial::Breaks(broken.join("; ")),
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trial::Holds(found) => write!(f, "holds ({found})"),
            Trial::Breaks(words) => f.write_str(words),
            Trial::Spoilt(reason) => write!(f, "says nothing: {reason}"),
        }
    }
}

/// Between a rate that holds and one that doesn't, which come closer. Runs nothing.
struct Hunt {
    /// The highest rate that holds, and the figures of each time that it did.
    low: Option<(f64, Vec<String>)>,
    /// The lowest that doesn't; or, with its reason, at which nothing could be said.
    high: Option<(f64, Option<String>)>,
    next: f64,
    trials: u32,
}

impl Hunt {
    /// `most` is what the server can do when nobody minds how long it takes.
    fn new(most: f64) -> Hunt {
        Hunt { low: None, high: None, next: most * 0.8, trials: 0 }
    }

    /// The next rate to try; `None` when the search is over.
    fn next(&self) -> Option<f64> {
        let is_confirmed = self.is_close()
            && self.low.as_ref().is_some_and(|(_, found)| found.len() > CONFIRMATIONS);
        (!is_confirmed && self.trials < TRIALS_MAX && self.next >= 1.0).then_some(self.next)
    }

    fn is_close(&self) -> bool {
        let both = self.low.as_ref().zip(self.high.as_ref());
        both.is_some_and(|((low, _), (high, _))| high / low <= CLOSE)
    }

    fn handle(&mut self, rate: f64, trial: Trial) {
        self.trials += 1;
        let is_again = self.low.as_ref().is_some_and(|(low, _)| rate <= *low);
        match trial {
            Trial::Holds(found) => match &mut self.low {
                Some((_, all)) if is_again => all.push(found),
                low => *low = Some((rate, vec![found])),
            },
            Trial::Breaks(_) => self.high = Some((rate, None)),
            Trial::Spoilt(reason) => self.high = Some((rate, Some(reason))),
        }
        // It had held by chance: the next lower one has to.
        if self.high.as_ref().is_some_and(|(high, _)| *high <= rate) && is_again {
            self.low = None;
            self.next = rate / CLOSE;
            return;
        }
        self.next = match (&self.low, &self.high) {
            (Some((low, _)), _) if self.is_close() => *low,
            (Some((low, _)), Some((high, _))) => (low * high).sqrt(),
            (Some((low, _)), None) => low * STEP,
            (None, Some((high, _))) => high / 2.0,
            (None, None) => self.next,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hunts where the server breaks from one rate on, and the generator from another.
    fn hunt(most: f64, breaks_from: f64, spoils_from: f64) -> Hunt {
        let mut hunt = Hunt::new(most);
        while let Some(rate) = hunt.next() {
            let trial = match rate {
                _ if rate >= spoils_from => Trial::Spoilt("late".into()),
                _ if rate >= breaks_from => Trial::Breaks("p99".into()),
                _ => Trial::Holds("1 ms".into()),
            };
            hunt.handle(rate, trial);
        }
        hunt
    }

    #[test]
    fn it_ends_close_below_the_rate_that_breaks_wherever_that_is() {
        for breaks_from in [70.0, 500.0, 8_300.0, 10_000.0, 25_000.0] {
            let hunt = hunt(10_000.0, breaks_from, f64::MAX);
            let (low, found) = hunt.low.expect("a rate that holds");
            let (high, reason) = hunt.high.expect("one that doesn't");
            assert!(
                low < breaks_from && high >= breaks_from && high / low <= CLOSE,
                "{low} {high}"
            );
            assert_eq!((found.len(), reason), (CONFIRMATIONS + 1, None));
        }
    }

    #[test]
    fn what_the_generator_spoils_is_no_limit_of_the_server() {
        let hunt = hunt(10_000.0, f64::MAX, 6_000.0);
        assert!(hunt.low.is_some_and(|(low, _)| low < 6_000.0));
        assert!(matches!(hunt.high, Some((high, Some(_))) if high >= 6_000.0));
    }

    #[test]
    fn nothing_that_holds_is_found_where_nothing_does() {
        assert!(hunt(10_000.0, 0.0, f64::MAX).low.is_none());
    }

    #[test]
    fn a_rate_that_held_by_chance_is_given_up() {
        let mut hunt = Hunt::new(1_000.0);
        let mut times = 0;
        while let Some(rate) = hunt.next() {
            times += u32::from(rate >= 700.0);
            let holds = rate < 700.0 || (rate < 900.0 && times < 3);
            let trial =
                if holds { Trial::Holds(String::new()) } else { Trial::Breaks(String::new()) };
            hunt.handle(rate, trial);
        }
        assert!(hunt.low.is_some_and(|(low, found)| low < 700.0 && found.len() == 4));
    }
}
