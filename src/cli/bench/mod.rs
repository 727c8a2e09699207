//! `uring-pool bench`: loads a server, and says how it was. Only this command's exit statuses are
//! those of load generators: 0, 2, 3, 98, 99.

mod flags;

use std::time::Duration;

use clap::Args;
use uring_pool::bench::record::Live;
use uring_pool::bench::summary::{Status, Summary, WarmupWish};
use uring_pool::bench::{Options, Outcome, Plan, RunError, StartError, time};

use super::Failure;
use flags::LoadFlags;

/// Wrong use of the command line.
pub(super) const EX_USAGE: u8 = 2;
/// The target can't be reached, or failed requests.
const EX_TARGET: u8 = 3;
/// The run says nothing: its verdict is `INVALID`.
const EX_INVALID: u8 = 98;

#[derive(Args, Clone, Debug)]
pub(super) struct BenchFlags {
    #[command(flatten)]
    load: LoadFlags,
    /// What is left out at the begin: auto (found by itself, the default), a time, or 0s
    #[arg(long, value_name = "TIME", value_parser = warmup, help_heading = "Measuring")]
    warmup: Option<WarmupWish>,
    /// The server's process, to measure it with all that descend from it
    #[arg(long, value_name = "PID", help_heading = "Measuring")]
    server_pid: Option<u32>,
    /// What to print: text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    output: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs it.
pub(super) fn run(flags: &BenchFlags) -> Result<(), Failure> {
    let plan = Plan::new(&flags.load.wanted()?).map_err(|error| Failure::new(EX_USAGE, error))?;
    let options = Options {
        server: flags.server_pid,
        warmup: flags.warmup.unwrap_or_default(),
        command: std::env::args().collect(),
    };
    let outcome = uring_pool::bench::run(&plan, &options, |_: &Live<'_>, _: Duration| true)
        .map_err(run_failure)?;
    match flags.output {
        Format::Text => print(&outcome),
        Format::Json => println!("{}", outcome.summary.to_json()),
    }
    verdict(&outcome.summary)
}

fn print(outcome: &Outcome) {
    let Outcome { summary, examples } = outcome;
    println!("{:.0} requests/s, {:?}", summary.rate, summary.counts);
    for (name, value) in summary.latency.response.percentiles() {
        println!("{name}: {value:?} ns");
    }
    println!("{:?}", summary.cpu);
    println!("{:?} {:?}", summary.verdict, examples);
}

/// The exit status of a run: the target's failures first, then the run's own.
fn verdict(summary: &Summary) -> Result<(), Failure> {
    let counts = &summary.counts;
    if counts.failed > 0 || counts.connect_failures > 0 {
        let words = format!(
            "the target failed: {} requests, and {} connections that could not be opened",
            counts.failed, counts.connect_failures
        );
        return Err(Failure::new(EX_TARGET, words));
    }
    if counts.ok == 0 {
        let words = format!(
            "the target answered nothing: {} requests were sent, {} had no answer at the end",
            counts.sent, counts.unfinished
        );
        return Err(Failure::new(EX_TARGET, words));
    }
    match summary.verdict.status {
        Status::Invalid => Err(Failure::new(EX_INVALID, "the run is invalid: see its reasons")),
        _ => Ok(()),
    }
}

fn run_failure(error: RunError) -> Failure {
    let code = match &error {
        RunError::Start(StartError::Budget(_)) | RunError::NoServer(_) => EX_USAGE,
        _ => EX_TARGET,
    };
    Failure::new(code, error)
}

fn warmup(text: &str) -> Result<WarmupWish, String> {
    match text {
        "auto" => Ok(WarmupWish::Auto),
        text => time(text)
            .map(|time| WarmupWish::Fixed(time.as_nanos() as u64))
            .map_err(|error| error.to_string()),
    }
}
