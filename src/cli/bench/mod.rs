//! `uring-pool bench`: loads a server, and says how it was. Only this command's exit statuses are
//! those of load generators: 0, 2, 3, 98, 99.

mod ab;
mod calibrate;
mod flags;
mod lifecycle;
mod output;
mod results;
mod search;

use clap::{Args, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use uring_pool::bench::live::{View, Wish};
use uring_pool::bench::summary::{Reason, Status, Summary, WarmupWish};
use uring_pool::bench::{Options, Plan, RunError, StartError, time};

use super::Failure;
use flags::LoadFlags;
use output::OutputFlags;

/// Wrong use of the command line.
pub(super) const EX_USAGE: u8 = 2;
/// The target can't be reached, or failed requests.
const EX_TARGET: u8 = 3;
/// The run says nothing: its verdict is `INVALID`.
const EX_INVALID: u8 = 98;

#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchFlags {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    output: OutputFlags,
    /// Lines instead of a screen while it runs
    #[arg(long, help_heading = "Output")]
    no_tui: bool,
    /// What is left out at the begin: auto (found by itself, the default), a time, or 0s
    #[arg(long, value_name = "TIME", value_parser = warmup, help_heading = "Measuring")]
    warmup: Option<WarmupWish>,
    /// The server's first process, to measure it with all that descend from it (default: who
    /// listens there, if this machine tells)
    #[arg(long, value_name = "PID", help_heading = "Measuring")]
    server_pid: Option<u32>,
}

#[derive(Subcommand, Clone, Debug)]
enum BenchCommand {
    /// Find the highest rate at which a promise holds
    Search(search::SearchFlags),
    /// Start two servers in turn, and tell the ratio of their figures
    Ab(ab::AbFlags),
    /// Find out what the generator itself can do on this machine
    Calibrate(calibrate::CalibrateFlags),
    /// Tell what clients notice of reloads, lost workers and upgrades of a server of this project
    Lifecycle(lifecycle::LifecycleFlags),
    /// Compare two results: what is better, what is worse, what is noise
    Compare(results::CompareFlags),
    /// Make one result of those of several generators
    Merge(results::MergeFlags),
    /// Show a result again, in whatever format
    Report(results::ReportFlags),
}

/// Runs it.
pub(super) fn run(flags: &BenchFlags) -> Result<(), Failure> {
    match &flags.command {
        Some(BenchCommand::Search(flags)) => search::search(flags),
        Some(BenchCommand::Ab(flags)) => ab::ab(flags),
        Some(BenchCommand::Calibrate(flags)) => calibrate::calibrate(flags),
        Some(BenchCommand::Lifecycle(flags)) => lifecycle::lifecycle(flags),
        Some(BenchCommand::Compare(flags)) => results::compare_results(flags),
        Some(BenchCommand::Merge(flags)) => results::merge(flags),
        Some(BenchCommand::Report(flags)) => results::report_again(flags),
        None => load(flags),
    }
}

fn load(flags: &BenchFlags) -> Result<(), Failure> {
    let output = flags.output.prepare()?;
    let plan = Plan::new(&flags.load.wanted()?).map_err(|error| Failure::new(EX_USAGE, error))?;
    let options = Options {
        server: flags.server_pid,
        warmup: flags.warmup.unwrap_or_default(),
        command: std::env::args().collect(),
    };
    if let (WarmupWish::Fixed(nanos), Some(time)) = (options.warmup, plan.time())
        && u128::from(nanos) >= time.as_nanos()
        && nanos > 0
    {
        let words = format!("--warmup leaves nothing of the {time:?} that the load takes");
        return Err(Failure::new(EX_USAGE, words));
    }
    let wish = if flags.no_tui { Wish::Lines } else { Wish::Screen };
    let mut view = View::new(wish, &plan).map_err(|error| Failure::new(EX_USAGE, error))?;
    let interrupts = Interrupts::catch()?;
    let outcome = uring_pool::bench::run(&plan, &options, |live, elapsed| {
        view.show(live, elapsed) && !interrupts.have_come()
    });
    let outcome = outcome.map_err(run_failure)?;
    drop(view); // the terminal is itself again
    let delivered = output.deliver(&outcome.summary);
    for (fault, example) in &outcome.examples {
        eprintln!("  {}: {example}, for example", fault.text());
    }
    verdict(&outcome.summary, output.allows_failures())?;
    delivered
}

/// SIGINT and SIGTERM end the load, not the program: what was measured until then is told, and what
/// was started is stopped.
struct Interrupts {
    signals: SigSet,
    come: SignalFd,
}

impl Interrupts {
    /// To be called before there are threads, which inherit that.
    fn catch() -> Result<Interrupts, Failure> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let come = signals.thread_block().and_then(|()| SignalFd::with_flags(&signals, flags));
        let failure = |error| Failure::new(EX_TARGET, format!("cannot wait for signals: {error}"));
        Ok(Interrupts { signals, come: come.map_err(failure)? })
    }

    /// One has come since this was last asked.
    fn have_come(&self) -> bool {
        matches!(self.come.read_signal(), Ok(Some(_)))
    }

    /// Does something whose children must hear these signals: they inherit what is blocked.
    fn heard_within<R>(&self, act: impl FnOnce() -> R) -> R {
        let _they_were_blocked = self.signals.thread_unblock();
        let done = act();
        let _as_before = self.signals.thread_block();
        done
    }
}

/// The exit status of a run: the target's failures first, unless a condition says how many there may
/// be; then the run's own.
fn verdict(summary: &Summary, allows_failures: bool) -> Result<(), Failure> {
    let counts = &summary.counts;
    let own = counts.own_failures();
    if !allows_failures && counts.failed + counts.connect_failures > own {
        let many =
            |count: u64, name: &str| format!("{count} {name}{}", if count == 1 { "" } else { "s" });
        let failed = [(counts.failed, "request"), (counts.connect_failures, "connection")];
        let failed: Vec<String> =
            failed.into_iter().filter(|(n, _)| *n > 0).map(|(n, name)| many(n, name)).collect();
        let words = format!("the target failed: {}", failed.join(" and "));
        return Err(Failure::new(EX_TARGET, words));
    }
    if counts.ok == 0 && own == 0 {
        let words = format!(
            "the target answered nothing: {} requests were sent, {} had no answer at the end",
            counts.sent, counts.unfinished
        );
        return Err(Failure::new(EX_TARGET, words));
    }
    let mut reasons = summary.verdict.reasons.iter();
    let is_judged = |reason: &Reason| allows_failures && reason.is_failure();
    if reasons.any(|reason| reason.status == Status::Invalid && !is_judged(reason)) {
        return Err(Failure::new(EX_INVALID, "the run is invalid: see its reasons"));
    }
    Ok(())
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
