//! What was asked for: the description of a run beside its figures.

use serde::{Deserialize, Serialize};

use super::verdict::Reason;

/// How a run was set up.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// Methods and URLs, as in `GET http://127.0.0.1:8080/`.
    pub targets: Vec<String>,
    /// The command line.
    pub command: Vec<String>,
    /// When it began: seconds of Unix time.
    pub started_at: u64,
    /// Where the generator ran.
    pub host: Host,
    /// Connections of all threads.
    pub connections: u64,
    /// Threads that generate load.
    pub threads: u64,
    /// What decides when a request is due.
    pub load: Load,
    /// Requests that may be in flight on a connection.
    pub pipeline: u64,
    /// Connections are used for as long as they last.
    pub keep_alive: bool,
    /// If they aren't: for so many requests.
    pub requests_per_connection: Option<u64>,
    /// Requests that follow each other after an arrival, if each is a session.
    pub session: Option<u64>,
    /// From an answer to the next request of the same connection, in nanoseconds.
    pub think: u64,
    /// Connections opened per second at most, if that was bounded.
    pub connection_rate: Option<f64>,
    /// Addresses that connections lead to.
    pub places: u64,
    /// Of everything that was left to chance.
    pub seed: u64,
    /// When the generator stopped to send, in nanoseconds since the run's epoch; what came later
    /// was only waited for. After a number of requests, when they had their answers: that is the
    /// time that they took.
    pub load_end: u64,
    /// What to do about the warm-up.
    pub warmup: WarmupWish,
    /// Times that the generator entered the kernel, if it counted them.
    pub enters: Option<u64>,
    /// What whoever reads the result should know about its input.
    pub notes: Vec<String>,
    /// Of one result that was made of several: what made those doubtful.
    pub inherited: Vec<Reason>,
}

impl Setup {
    /// A closed loop that was told to go slowly.
    pub fn is_held_back(&self) -> bool {
        !self.load.is_open() && (self.think > 0 || self.connection_rate.is_some())
    }
}

/// A machine.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Its kernel's release.
    pub kernel: String,
    /// The name of its CPU.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: u64,
}

impl Host {
    /// This one.
    pub fn read() -> Host {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = text("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Host {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: cpu.map_or("", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from) as u64,
        }
    }
}

/// What decides when a request is due.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// The answer to the one before, on the same connection.
    #[default]
    Closed,
    /// A schedule.
    Open {
        /// Requests a second, the mean over the run.
        rate: f64,
        /// `constant`, `poisson`, `burst:10`, …, for people.
        arrival: String,
        /// The rate is the same from begin to end; else latencies change because it does.
        is_steady: bool,
    },
}

impl Load {
    /// A schedule decides.
    pub fn is_open(&self) -> bool {
        matches!(self, Load::Open { .. })
    }

    /// The load is the same from begin to end.
    pub fn is_steady(&self) -> bool {
        !matches!(self, Load::Open { is_steady: false, .. })
    }
}

/// What to do about the warm-up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmupWish {
    /// Find it.
    #[default]
    Auto,
    /// It lasts so many nanoseconds; none with 0.
    Fixed(u64),
}
