//! `bench calibrate`: what this machine's generator can do, against a server that does nothing.

use std::time::Duration;

use clap::Args;
use uring_pool::bench::null::NullServer;
use uring_pool::bench::record::Clock;
use uring_pool::bench::report;
use uring_pool::bench::summary::Summary;
use uring_pool::bench::{Options, Pin, Plan, Rate, Wanted, time};

use super::super::Failure;
use super::{EX_TARGET, EX_USAGE, run_failure};

/// The rate at which pacing is judged, and how late requests may leave then.
const PACE: f64 = 10_000.0;
const LATE: u64 = 100_000;

#[derive(Args, Clone, Debug)]
pub(super) struct CalibrateFlags {
    /// How long each of the three measurements takes
    #[arg(short = 'z', long = "time", value_name = "TIME", default_value = "2s", value_parser = time)]
    time: Duration,
}

/// Measures and prints.
pub(super) fn calibrate(flags: &CalibrateFlags) -> Result<(), Failure> {
    let server = NullServer::start().map_err(|error| Failure::new(EX_TARGET, error))?;
    let pin = server.other_core().map_or(Pin::None, |core| Pin::Cores(vec![core]));
    let url = format!("http://{}/", server.address());
    let run = |wanted: Wanted| -> Result<Summary, Failure> {
        let plan = Plan::new(&wanted).map_err(|error| Failure::new(EX_USAGE, error))?;
        let outcome =
            uring_pool::bench::run(&plan, &Options::default(), |_, _| true).map_err(run_failure)?;
        Ok(outcome.summary)
    };
    let wanted = || Wanted {
        urls: vec![url.parse().expect("an address is a URL")],
        time: Some(flags.time),
        threads: Some(1),
        pin: Some(pin.clone()),
        ..Wanted::default()
    };
    let where_both_are = match server.other_core() {
        Some(_) => "each on a core of its own",
        None => "both on one core, as there is no other",
    };
    println!("  one load thread against a server that parses nothing, {where_both_are}\n");
    for (name, pipeline) in [("one at a time", 1), ("16 pipelined", 16)] {
        let summary = run(Wanted { pipeline: Some(pipeline), ..wanted() })?;
        let cpu = summary.cpu.client_us_per_request.unwrap_or(f64::NAN);
        println!(
            "  {name:<16} {:>10}/s, {cpu:.2} µs of the generator's CPU a request: {} a CPU second",
            report::rate(summary.rate),
            report::rate(1e6 / cpu)
        );
        tell_doubts(&summary);
    }
    let summary = run(Wanted { rate: Rate::new(PACE), ..wanted() })?;
    let lag = summary.record.times(Clock::Lag, summary.first_slot());
    let on_time = lag.count_between(0, LATE) as f64 / lag.len().max(1) as f64;
    println!(
        "  {:<16} {:.2} % of requests left within {} of their time: half of them within {}, 99 % \
         within {}",
        format!("at {}/s", report::rate(PACE)),
        on_time * 100.0,
        report::time(LATE),
        report::time(lag.value_at_quantile(0.5)),
        report::time(lag.value_at_quantile(0.99)),
    );
    if on_time < 0.99 {
        println!(
            "  that is not exact enough for rates: this machine is busy, or has too few cores"
        );
    }
    Ok(())
}

/// Says what else played a part in a measurement: others on the cores, mostly.
fn tell_doubts(summary: &Summary) {
    for reason in &summary.verdict.reasons {
        // That the generator is full is what is measured here.
        if reason.rule != "generator_saturated" {
            println!("  {:<16} · {}", "", reason.text);
        }
    }
}
