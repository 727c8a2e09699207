//! `bench ab`: two servers, started in turn, and the ratio of their figures with its interval.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use uring_pool::bench::report;
use uring_pool::bench::summary::{Status, Summary};
use uring_pool::bench::{Options, Plan, RunError, StartError};

use super::super::Failure;
use super::flags::LoadFlags;
use super::{EX_INVALID, EX_TARGET, EX_USAGE, Interrupts, run_failure};

/// A server listens after this long, or has failed.
const START: Duration = Duration::from_secs(20);
/// And has ended after this long, or is killed.
const STOP: Duration = Duration::from_secs(10);
/// One run takes so long unless `-z` or `-n` says otherwise.
const TIME: Duration = Duration::from_secs(5);
/// Lines of a server that does not start which are told.
const WORDS: usize = 8;
/// Between two looks at a server that starts or ends.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Args, Clone, Debug)]
pub(super) struct AbFlags {
    /// The command that starts the first server
    #[arg(long, value_name = "CMD")]
    a: String,
    /// The command that starts the second server, at the same URL
    #[arg(long, value_name = "CMD")]
    b: String,
    /// How often A B B A is gone through
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=100))]
    rounds: u32,
    #[command(flatten)]
    load: LoadFlags,
}

/// Runs both in turn, and prints the ratios.
pub(super) fn ab(flags: &AbFlags) -> Result<(), Failure> {
    let mut wanted = flags.load.wanted()?;
    if wanted.time.is_none() && wanted.requests.is_none() {
        wanted.time = Some(TIME);
    }
    let plan = Plan::new(&wanted).map_err(|error| Failure::new(EX_USAGE, error))?;
    let interrupts = Interrupts::catch()?;
    if is_taken(&plan)? {
        let words = "somebody listens there already: stop that server, so that each can be started";
        return Err(Failure::new(EX_USAGE, words));
    }
    let mut figures: [Vec<Figures>; 2] = [Vec::new(), Vec::new()];
    for round in 0..flags.rounds {
        let mut both = [Vec::new(), Vec::new()];
        for which in [0, 1, 1, 0] {
            let command = [&flags.a, &flags.b][which];
            let summary = Server::start(command, &plan, &interrupts)?.measure()?;
            let counts = &summary.counts;
            if counts.failed > 0 || counts.ok == 0 {
                let words = format!(
                    "{command}: {} requests failed, {} were answered",
                    counts.failed, counts.ok
                );
                return Err(Failure::new(EX_TARGET, words));
            }
            let figure = Figures::of(&summary);
            println!("  round {} {}  {figure}", round + 1, ["A", "B"][which]);
            let reasons = summary.verdict.reasons.iter();
            for reason in reasons.filter(|reason| reason.status == Status::Invalid) {
                println!("             {}: {}", reason.status.text(), reason.text);
            }
            both[which].push(figure);
        }
        for (all, [first, second]) in figures.iter_mut().zip(both.map(|it| [it[0], it[1]])) {
            all.push(first.middle(second));
        }
    }
    let [a, b] = figures;
    println!("\n  B / A, with the interval that holds it in 19 of 20 such experiments:");
    type Row = (&'static str, fn(&Figures) -> f64);
    let rows: [Row; 4] = [
        ("requests per second", |it| it.rate),
        ("p50", |it| it.p50),
        ("p99", |it| it.p99),
        ("server CPU per request", |it| it.server_us),
    ];
    for (name, figure) in rows {
        let logs: Vec<f64> = a
            .iter()
            .zip(&b)
            .map(|(a, b)| (figure(b) / figure(a)).ln())
            .filter(|it| it.is_finite())
            .collect();
        match interval(&logs) {
            Some((middle, low, high)) => {
                let is_noise = low <= 1.0 && high >= 1.0;
                let words = if is_noise { "  no difference beyond chance" } else { "" };
                println!("  {name:<24} {middle:.3}  ({low:.3} to {high:.3}){words}");
            }
            None => println!("  {name:<24} not known"),
        }
    }
    Ok(())
}

/// What is compared of a run.
#[derive(Clone, Copy, Debug)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
    server_us: f64,
}

impl Figures {
    fn of(summary: &Summary) -> Figures {
        let percentiles = summary.latency.response.percentiles();
        let time = |name| {
            let found = percentiles.iter().find(|(it, _)| *it == name);
            found.and_then(|(_, nanos)| *nanos).map_or(f64::NAN, |nanos| nanos as f64)
        };
        Figures {
            rate: summary.rate,
            p50: time("p50"),
            p99: time("p99"),
            server_us: summary.cpu.server_us_per_request.unwrap_or(f64::NAN),
        }
    }

    /// Of the two runs of a round: what drifts evenly falls out.
    fn middle(self, other: Figures) -> Figures {
        let middle = |a: f64, b: f64| (a * b).sqrt();
        Figures {
            rate: middle(self.rate, other.rate),
            p50: middle(self.p50, other.p50),
            p99: middle(self.p99, other.p99),
            server_us: middle(self.server_us, other.server_us),
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |nanos: f64| {
            if nanos.is_nan() { "–".to_owned() } else { report::time(nanos as u64) }
        };
        let (p50, p99, rate) = (time(self.p50), time(self.p99), report::rate(self.rate));
        write!(f, "{rate:>10} requests/s, p50 {p50:>7}, p99 {p99:>7}")?;
        match self.server_us {
            unknown if unknown.is_nan() => Ok(()),
            known => write!(f, ", server {known:.2} µs a request"),
        }
    }
}

/// Mean and 95 % interval (Student's t) of ratios, from their logarithms.
fn interval(logs: &[f64]) -> Option<(f64, f64, f64)> {
    /// The two-sided 5 % points for 1, 2, … degrees of freedom.
    const STUDENT: [f64; 15] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131,
    ];
    let count = logs.len() as f64;
    let t = STUDENT.get(logs.len().checked_sub(2)?).copied().unwrap_or(2.0);
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let half = t * (variance / count).sqrt();
    Some((mean.exp(), (mean - half).exp(), (mean + half).exp()))
}

/// A server that was started for a run. Its whole process group ends with it.
struct Server<'a> {
    child: Child,
    plan: &'a Plan,
    interrupts: &'a Interrupts,
    /// What it said last, on standard error.
    words: Arc<Mutex<VecDeque<String>>>,
}

impl Server<'_> {
    fn start<'a>(
        command: &str,
        plan: &'a Plan,
        interrupts: &'a Interrupts,
    ) -> Result<Server<'a>, Failure> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null());
        shell.stderr(Stdio::piped()).process_group(0);
        let mut child = interrupts
            .heard_within(|| shell.spawn())
            .map_err(|error| Failure::new(EX_TARGET, format!("cannot start {command}: {error}")))?;
        let words = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(errors) = child.stderr.take() {
            let words = Arc::clone(&words);
            thread::spawn(move || listen(errors, &words));
        }
        let mut server = Server { child, plan, interrupts, words };
        let until = Instant::now() + START;
        while !is_taken(plan)? {
            if interrupts.have_come() {
                return Err(interrupted());
            }
            let ended = server.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() >= until {
                let how = match ended {
                    Some(status) => format!("ended with {status}, and nobody listens"),
                    None => "nobody listens".to_owned(),
                };
                let said = server.words.lock().unwrap_or_else(PoisonError::into_inner);
                let mut words = format!("{command}: {how} where the URL leads to");
                for line in said.iter() {
                    words.push_str("\n  ");
                    words.push_str(line);
                }
                return Err(Failure::new(EX_TARGET, words));
            }
            thread::sleep(LOOK);
        }
        Ok(server)
    }

    fn measure(self) -> Result<Summary, Failure> {
        let options = Options { server: Some(self.child.id()), ..Options::default() };
        let mut is_whole = true;
        let outcome = uring_pool::bench::run(self.plan, &options, |_, _| {
            is_whole &= !self.interrupts.have_come();
            is_whole
        });
        let outcome = outcome.map_err(run_failure)?;
        if is_whole { Ok(outcome.summary) } else { Err(interrupted()) }
    }
}

/// Keeps what a server says last.
fn listen(errors: ChildStderr, words: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(errors).lines().map_while(Result::ok) {
        if line.trim().is_empty() {
            continue;
        }
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        words.push_back(line);
        while words.len() > WORDS {
            words.pop_front();
        }
    }
}

fn interrupted() -> Failure {
    Failure::new(EX_INVALID, "interrupted: there is no ratio of what was not finished")
}

impl Drop for Server<'_> {
    /// It has time to end; and the next one must not be taken for it, so its place is to be free.
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        let _gone = killpg(group, Signal::SIGTERM);
        let until = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) || matches!(is_taken(self.plan), Ok(true)) {
            if Instant::now() >= until {
                break;
            }
            thread::sleep(LOOK);
        }
        let _none_is_left = killpg(group, Signal::SIGKILL);
        let _reaped = self.child.wait();
    }
}

/// Whether somebody listens where the plan leads to; what else is wrong with it is an error.
fn is_taken(plan: &Plan) -> Result<bool, Failure> {
    match plan.reach() {
        Ok(()) => Ok(true),
        Err(error) if error.is_refusal() => Ok(false),
        Err(error) => Err(run_failure(RunError::Start(StartError::Unreachable(error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn an_interval_holds_its_middle_and_narrows_with_agreement() {
        let (middle, low, high) = interval(&[0.1, 0.1, 0.1]).unwrap();
        assert!((middle - 0.1_f64.exp()).abs() < 1e-9 && (high - low).abs() < 1e-9);
        let (middle, low, high) = interval(&[0.0, 0.2]).unwrap();
        assert!(low < middle && middle < high && low < 1.0 && high > 2.0);
        assert_eq!(interval(&[0.1]), None);
    }
}
