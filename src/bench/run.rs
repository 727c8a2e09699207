//! One load from its plan to its summary: starts it, collects, measures what surrounds it. Prints
//! nothing; whoever calls may watch.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::engine::{Finished, Running, StartError};
use super::measure::{NoSuchProcess, Probe, Workers};
use super::plan::{Plan, Shape};
use super::record::{Collector, Fault, Live};
use super::report::{load_words, target_words};
use super::schedule::Arrival;
use super::summary::{Host, Load, Setup, Summary, WarmupWish};

/// What happens between two looks at the load.
const LOOK: Duration = Duration::from_millis(50);
/// Samples of what surrounds the run are taken so often.
const SAMPLE: Duration = Duration::from_millis(500);

/// How a load is run and summed up.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// The first process of the server; if it isn't named, it is looked for on this machine.
    pub server: Option<u32>,
    /// What to do about the warm-up.
    pub warmup: WarmupWish,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// A load that was run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All of it in numbers.
    pub summary: Summary,
    /// Of each kind of failure, the first one in words.
    pub examples: Vec<(Fault, String)>,
}

/// Why there is no outcome.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// The load was not begun.
    Start(StartError),
    /// The server that was named isn't there.
    NoServer(NoSuchProcess),
    /// The load broke off.
    Broken(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Start(error) => error.fmt(f),
            RunError::NoServer(error) => error.fmt(f),
            RunError::Broken(error) => write!(f, "the load broke off: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs a plan. `watch` is told how it goes, some twenty times a second, with the time since its
/// begin; when it says `false` the load ends early.
///
/// # Errors
///
/// The load was not begun, or broke off. What the target does wrong is no error but counted.
pub fn run(
    plan: &Plan,
    options: &Options,
    mut watch: impl FnMut(&Live<'_>, Duration) -> bool,
) -> Result<Outcome, RunError> {
    let mut collector = Collector::new(plan.recording());
    let started = SystemTime::now();
    let running = Running::start(plan, options.server, &mut collector).map_err(RunError::Start)?;
    let since = |running: &Running| running.epoch().elapsed().as_nanos() as u64;
    let mut probe = Probe::begin(since(&running), running.server()).map_err(RunError::NoServer)?;
    let address = running.places()[0].to_string().parse::<SocketAddr>().ok();
    // Only who is named is asked: another one might wonder about a request that nobody sent.
    let workers = options.server.zip(address).and_then(|(pid, at)| Workers::begin(pid, at));
    let mut sampled = Duration::ZERO;
    while !running.wait(LOOK) {
        collector.collect();
        let elapsed = running.epoch().elapsed();
        if elapsed >= sampled + SAMPLE {
            sampled = elapsed;
            probe.sample(elapsed.as_nanos() as u64);
        }
        if !watch(&collector.live(), elapsed) {
            running.stop();
        }
    }
    let mut measured = probe.end(since(&running));
    measured.workers = workers.and_then(Workers::end);
    let threads = running.cores().len() as u64;
    let Finished { rests, examples, enters, load_end, .. } =
        running.finish().map_err(RunError::Broken)?;
    let record = collector.finish(rests);
    let setup = Setup {
        command: options.command.clone(),
        started_at: started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        host: Host::read(),
        threads,
        load_end,
        warmup: options.warmup,
        enters: Some(enters),
        ..plan.setup()
    };
    Ok(Outcome { summary: Summary::new(setup, record, measured), examples })
}

impl Plan {
    /// What it loads, and how, in a few words each.
    pub fn words(&self) -> (String, String) {
        let setup = self.setup();
        (target_words(&setup), load_words(&setup))
    }

    /// What is known before the load begins.
    fn setup(&self) -> Setup {
        Setup {
            targets: self.targets.clone(),
            connections: self.connections.into(),
            load: self.load(),
            pipeline: self.pipeline.into(),
            keep_alive: self.requests_per_connection.is_none(),
            requests_per_connection: self.requests_per_connection,
            session: (self.session > 1).then_some(self.session),
            think: self.think,
            connection_rate: self.connection_rate,
            places: self.authorities.len() as u64,
            seed: self.seed,
            notes: self.notes.clone(),
            ..Setup::default()
        }
    }

    /// What decides when a request is due, for people.
    fn load(&self) -> Load {
        match &self.shape {
            Shape::Closed => Load::Closed,
            Shape::Open { stages, arrival } => {
                let mut seconds = 0.0;
                let mut requests = 0.0;
                for stage in stages.iter() {
                    let time = stage.nanos as f64 / 1e9;
                    seconds += time;
                    requests += time * f64::midpoint(stage.from, stage.to);
                }
                let arrival = match arrival {
                    Arrival::Constant => "constant".to_owned(),
                    Arrival::Poisson => "poisson".to_owned(),
                    Arrival::Burst(size) => format!("burst:{size}"),
                };
                let first = stages.first().map_or(0.0, |stage| stage.from);
                let is_first = |rate: f64| (rate - first).abs() <= f64::EPSILON * first;
                let is_steady = stages.iter().all(|it| is_first(it.from) && is_first(it.to));
                let rate = requests / seconds * self.session as f64;
                Load::Open { rate, arrival, is_steady }
            }
            Shape::Replay { times } => {
                let seconds = times.last().map_or(0, |last| last + 1) as f64 / 1e9;
                let rate = times.len() as f64 / seconds.max(1e-9);
                Load::Open { rate, arrival: "replay".into(), is_steady: false }
            }
        }
    }
}
