//! `bench lifecycle`: what clients notice while a server of this project reloads, loses a worker and
//! is upgraded. Decides nothing about how those are done.

use std::fs;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uring_pool::bench::record::{Clock, Fault};
use uring_pool::bench::summary::Summary;
use uring_pool::bench::{Options, Plan, Rate};

use super::super::Failure;
use super::flags::LoadFlags;
use super::{EX_TARGET, EX_USAGE, run_failure};

/// Requests per second unless `-R` says otherwise: enough to meet each moment of an event.
const RATE: f64 = 1000.0;
/// An event and what follows from it, unless `-z` says otherwise.
const EACH: Duration = Duration::from_secs(4);

#[derive(Args, Clone, Debug)]
pub(super) struct LifecycleFlags {
    /// The server's master process
    #[arg(long, value_name = "PID")]
    server_pid: u32,
    /// What happens, in this order (an upgrade comes last: another process is the master then)
    #[arg(
        long,
        value_name = "EVENTS",
        value_delimiter = ',',
        default_value = "reload,kill,upgrade"
    )]
    events: Vec<Event>,
    /// An answer later than this is one that somebody notices
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = uring_pool::bench::time)]
    late: Duration,
    #[command(flatten)]
    load: LoadFlags,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    /// SIGHUP to the master: new workers, then the old ones drain
    Reload,
    /// SIGKILL to one worker
    Kill,
    /// SIGUSR2 to the master: another binary takes over
    Upgrade,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Event::Reload => "reload (SIGHUP)",
            Event::Kill => "a worker killed (SIGKILL)",
            Event::Upgrade => "upgrade (SIGUSR2)",
        }
    }

    fn act(self, master: u32) -> Result<(), String> {
        let (signal, pid) = match self {
            Event::Reload => (Signal::SIGHUP, master),
            Event::Upgrade => (Signal::SIGUSR2, master),
            Event::Kill => {
                let path = format!("/proc/{master}/task/{master}/children");
                let children = fs::read_to_string(path).unwrap_or_default();
                let first = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
                (Signal::SIGKILL, first.ok_or("the master has no worker to kill")?)
            }
        };
        kill(Pid::from_raw(pid.cast_signed()), signal)
            .map_err(|error| format!("cannot send {signal} to {pid}: {error}"))
    }
}

/// Loads, acts, and prints what was noticed of each event.
pub(super) fn lifecycle(flags: &LifecycleFlags) -> Result<(), Failure> {
    if flags
        .events
        .iter()
        .position(|it| *it == Event::Upgrade)
        .is_some_and(|at| at + 1 < flags.events.len())
    {
        return Err(Failure::new(
            EX_USAGE,
            "--events: upgrade comes last, as the master is another one then",
        ));
    }
    let mut wanted = flags.load.wanted()?;
    if wanted.stages.is_none() && wanted.replay.is_none() {
        wanted.rate = wanted.rate.or(Rate::new(RATE));
    }
    // Quiet first, then each event with what follows.
    let parts = flags.events.len() as u32 + 1;
    let time = *wanted.time.get_or_insert(EACH * parts);
    let plan = Plan::new(&wanted).map_err(|error| Failure::new(EX_USAGE, error))?;
    let options = Options { server: Some(flags.server_pid), ..Options::default() };
    let mut happened: Vec<(Event, Duration)> = Vec::new();
    let mut trouble = None;
    let outcome = uring_pool::bench::run(&plan, &options, |_, elapsed| {
        let due = time / parts * (happened.len() as u32 + 1);
        if elapsed >= due
            && let Some(event) = flags.events.get(happened.len())
        {
            happened.push((*event, elapsed));
            if let Err(words) = event.act(flags.server_pid) {
                trouble = Some(words);
                return false;
            }
        }
        true
    });
    let outcome = outcome.map_err(run_failure)?;
    if let Some(words) = trouble {
        return Err(Failure::new(EX_TARGET, words));
    }
    let summary = &outcome.summary;
    let ends = happened.iter().map(|(_, at)| *at).skip(1).chain([Duration::MAX]);
    println!(
        "  {:<28} {:>8} {:>7} {:>7} {:>7} {:>7} {:>10}",
        "", "answers", "refused", "reset", "other", "late", "slowest"
    );
    let first = happened.first().map_or(Duration::MAX, |(_, at)| *at);
    row("before", summary, Duration::ZERO, first, flags.late);
    let mut noticed = 0;
    for ((event, from), to) in happened.iter().zip(ends) {
        noticed += row(event.name(), summary, *from, to, flags.late);
    }
    for (fault, example) in &outcome.examples {
        println!("  {}: {example}, for example", fault.text());
    }
    let unfinished = summary.counts.unfinished;
    if noticed + unfinished > 0 {
        let words = format!(
            "{noticed} requests failed or came late around events, {unfinished} had no answer at the end"
        );
        return Err(Failure::new(EX_TARGET, words));
    }
    println!("\n  nobody noticed anything");
    Ok(())
}

/// Prints what happened in a stretch of the run; how many requests failed or were late.
fn row(name: &str, summary: &Summary, from: Duration, to: Duration, late: Duration) -> u64 {
    let record = &summary.record;
    let slot = |at: Duration| (at.as_nanos() / u128::from(record.slot_nanos)) as usize;
    let last =
        if to == Duration::MAX { record.slots.len() } else { slot(to).min(record.slots.len()) };
    let (mut answers, mut refused, mut reset, mut others) = (0, 0, 0, 0);
    let (mut late_ones, mut slowest) = (0, 0);
    for slot in record.slots.get(slot(from)..last).unwrap_or_default() {
        let counts = &slot.counts;
        answers += counts.answers;
        let of =
            |fault: Fault| counts.faults[fault as usize] + counts.connect_faults[fault as usize];
        refused += of(Fault::Refused);
        reset += of(Fault::Reset) + of(Fault::Closed) + of(Fault::CutShort);
        let all: u64 = Fault::ALL.into_iter().map(of).sum();
        others +=
            all - of(Fault::Refused) - of(Fault::Reset) - of(Fault::Closed) - of(Fault::CutShort);
        if let Some(times) = slot.times(Clock::Response) {
            late_ones += times.count_between(late.as_nanos() as u64 + 1, u64::MAX);
            slowest = slowest.max(times.max());
        }
    }
    let slowest = slowest as f64 / 1e6;
    println!(
        "  {name:<28} {answers:>8} {refused:>7} {reset:>7} {others:>7} {late_ones:>7} {slowest:>7.1} ms"
    );
    refused + reset + others + late_ones
}
