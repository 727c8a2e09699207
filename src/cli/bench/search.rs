//! `bench search`: the highest rate at which a promise holds. Knows no screens.

use std::time::Duration;

use clap::Args;
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
const TRIALS_MAX: u32 = 16;
/// A rate that is found must hold so often more.
const CONFIRMATIONS: u32 = 3;

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
    println!("  without a rate  {most:>10.0} requests/s: where the search begins");
    let (mut trials, mut promises) = (0, Vec::new());
    let mut holds = |rate: f64| -> Result<bool, Failure> {
        trials += 1;
        let wanted = Wanted { rate: Rate::new(rate), time: Some(trial_time), ..wanted.clone() };
        let summary = run(&wanted)?;
        let checks: Vec<Check> = flags.slo.iter().map(|promise| promise.check(&summary)).collect();
        promises = checks.iter().map(|check| check.assertion.clone()).collect();
        let mut broken: Vec<String> = checks
            .iter()
            .filter(|check| !check.holds)
            .map(|check| format!("{}: {}", check.assertion, check.found))
            .collect();
        let counts = &summary.counts;
        if counts.failed + counts.unfinished > 0 {
            broken.push(format!("{} failed, {} unfinished", counts.failed, counts.unfinished));
        }
        if summary.verdict.status == Status::Invalid {
            broken.extend(summary.verdict.reasons.first().map(|reason| reason.text.clone()));
        }
        let words = if broken.is_empty() { "holds".to_owned() } else { broken.join("; ") };
        println!("  trial {trials:<2}        {rate:>10.0} requests/s: {words}");
        Ok(broken.is_empty())
    };

    // The rate that holds is above `low`, and below `high`.
    let (mut low, mut high) = (0.0, most * 1.05);
    let mut next = most * 0.8;
    for _ in 0..TRIALS_MAX {
        if holds(next)? {
            low = next;
        } else {
            high = next;
        }
        if low > 0.0 && high / low <= CLOSE {
            break;
        }
        next = if low > 0.0 { (low * high).sqrt() } else { high / 2.0 };
        if next < 1.0 {
            break;
        }
    }
    // A rate may have held by chance: it must do so again, or the next lower one has to.
    let mut confirmed = 0;
    for _ in 0..TRIALS_MAX {
        if low < 1.0 || confirmed == CONFIRMATIONS {
            break;
        }
        if holds(low)? {
            confirmed += 1;
        } else {
            (high, low, confirmed) = (low, low / CLOSE, 0);
        }
    }
    if confirmed < CONFIRMATIONS {
        let words = "no rate was found at which the promise holds three times in a row";
        return Err(Failure::new(EX_INVALID, words));
    }
    println!(
        "\n  {low:.0} requests/s is the highest rate with {}: it held {} times of {}, {high:.0} did not",
        promises.join(" and "),
        confirmed + 1,
        confirmed + 1,
    );
    Ok(())
}
