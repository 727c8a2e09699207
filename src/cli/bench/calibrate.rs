//! `bench calibrate`: what this machine's generator can do, against a server that does nothing.

use std::time::Duration;

use clap::Args;
use uring_pool::bench::null::NullServer;
use uring_pool::bench::record::Clock;
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
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let server = NullServer::start(0).map_err(|error| Failure::new(EX_TARGET, error))?;
    let pin = if cores > 1 { Pin::Cores(vec![1]) } else { Pin::None };
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
    println!("  one load thread against a server that parses nothing, each on a core of its own\n");
    for (name, pipeline) in [("one at a time", 1), ("16 pipelined", 16)] {
        let summary = run(Wanted { pipeline: Some(pipeline), ..wanted() })?;
        let cpu = summary.cpu.client_us_per_request.unwrap_or(f64::NAN);
        println!(
            "  {name:<16} {:>10.0} requests/s, {cpu:.2} us of the generator's CPU a request: \
             {:.0} a CPU second",
            summary.rate,
            1e6 / cpu
        );
    }
    let summary = run(Wanted { rate: Rate::new(PACE), ..wanted() })?;
    let lag = summary.record.times(Clock::Lag, summary.first_slot());
    let on_time = lag.count_between(0, LATE) as f64 / lag.len().max(1) as f64;
    println!(
        "  at {PACE:.0}/s        {:.2} % of requests left within {} us of their time, half of them \
         within {:.1} us, 99 % within {:.1} us",
        on_time * 100.0,
        LATE / 1000,
        lag.value_at_quantile(0.5) as f64 / 1e3,
        lag.value_at_quantile(0.99) as f64 / 1e3,
    );
    if on_time < 0.99 {
        println!(
            "  that is not exact enough for rates: this machine is busy, or has too few cores"
        );
    }
    Ok(())
}
