//! What surrounds a run, second by second: CPU time of both sides, the machine, the network. It
//! only reads; whether that makes a run invalid, `summary` judges.
//!
//! Where the kernel doesn't tell something (a container without /proc/pressure), there is no
//! number, instead of a zero.

mod listener;
mod parse;
mod tree;
mod workers;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

pub use listener::listener;
use tree::Tree;
pub use tree::family;
pub use workers::Workers;

/// Samples that are kept. When there would be more, every second one goes.
const SAMPLES_MAX: usize = 600;

/// Load threads have names that begin so: what others of this process do (the live view) isn't load.
pub const LOAD_THREAD: &str = "load-";

/// All that was measured around a run.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// In the order of time; the first has zeroes only.
    pub samples: Vec<Sample>,
    /// Cores of this machine.
    pub cores: u64,
    /// The server, if its process was named.
    pub server: Option<Server>,
    /// Requests that each of the server's workers answered, if it told.
    pub workers: Option<Vec<u64>>,
}

/// The server's processes.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Server {
    /// The first of them.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Most that were alive at a time.
    pub processes: u64,
    /// That died during the run.
    pub died: u64,
}

/// What has been used, or has happened, since the run began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// When: nanoseconds since the run's epoch.
    pub at: u64,
    /// CPU time of this process, in nanoseconds.
    pub client_cpu: u64,
    /// Of its busiest load thread.
    pub client_busiest: u64,
    /// Time in which the load thread that waited most was ready and had no core, in nanoseconds.
    pub client_waited: u64,
    /// Switches from load threads to others, wanted and unwanted.
    pub client_switches: u64,
    /// CPU time of all the server's processes, in nanoseconds.
    pub server_cpu: Option<u64>,
    /// Of its busiest thread.
    pub server_busiest: Option<u64>,
    /// Of all cores together, in nanoseconds.
    pub machine_all: u64,
    /// Of these, idle.
    pub machine_idle: u64,
    /// Of these, given to other guests by the hypervisor.
    pub machine_stolen: u64,
    /// Of these, in soft interrupts: mostly the network's.
    pub machine_softirq: u64,
    /// Time in which some task of the machine waited for a core, in nanoseconds.
    pub pressure_cpu: Option<u64>,
    /// Time in which some task of the machine waited for a disk, in nanoseconds.
    pub pressure_io: Option<u64>,
    /// Segments that this network namespace sent.
    pub segments: Option<u64>,
    /// And sent again.
    pub retransmits: Option<u64>,
    /// Connections that found a listener's queue full.
    pub listen_overflows: Option<u64>,
    /// Connections that a listener dropped, for that or another reason.
    pub listen_drops: Option<u64>,
}

/// Measures a run.
#[derive(Debug)]
pub struct Probe {
    tree: Option<Tree>,
    /// Everything as it was, to subtract from what is.
    begin: Sample,
    /// Load threads as they were at the begin, and last seen: they may end before the run does.
    threads: BTreeMap<u32, (Thread, Thread)>,
    tick_nanos: u64,
    measured: Measured,
    /// Samples that are left out after each that is kept.
    skip: usize,
    since_kept: usize,
}

#[derive(Clone, Copy, Default, Debug)]
struct Thread {
    cpu: u64,
    waited: u64,
    switches: u64,
}

impl Probe {
    /// Begins, with all load threads already there. `server` is the first process of a server on this
    /// machine.
    ///
    /// # Errors
    ///
    /// There is no such process.
    pub fn begin(now: u64, server: Option<u32>) -> Result<Probe, NoSuchProcess> {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        let tick_nanos = 1_000_000_000 / ticks.unsigned_abs().max(1);
        let server = server.map(|pid| {
            let stat = read(&format!("/proc/{pid}/stat")).and_then(|text| parse::stat(&text));
            let stat = stat.ok_or(NoSuchProcess(pid))?;
            Ok(Server { pid, name: stat.name, processes: 0, died: 0 })
        });
        let server = server.transpose()?;
        let mut probe = Probe {
            tree: server.as_ref().map(|server| Tree::new(server.pid, tick_nanos)),
            begin: Sample::default(),
            threads: BTreeMap::new(),
            tick_nanos,
            measured: Measured { server, ..Measured::default() },
            skip: 0,
            since_kept: 0,
        };
        probe.threads = load_threads().map(|(id, thread)| (id, (thread, thread))).collect();
        probe.begin = probe.read(now);
        let first = probe.begin.since(&probe.begin, now);
        probe.measured.samples.push(first);
        Ok(probe)
    }

    /// Takes a sample; about each second, or more often in short runs.
    pub fn sample(&mut self, now: u64) -> Sample {
        let sample = self.read(now).since(&self.begin, now);
        if self.since_kept < self.skip {
            self.since_kept += 1;
            return sample;
        }
        self.since_kept = 0;
        self.keep(sample);
        sample
    }

    /// The last sample, before the load threads end.
    pub fn end(mut self, now: u64) -> Measured {
        let sample = self.read(now).since(&self.begin, now);
        self.keep(sample);
        self.measured
    }

    fn keep(&mut self, sample: Sample) {
        if self.measured.samples.len() == SAMPLES_MAX {
            let mut is_kept = false;
            self.measured.samples.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.skip = 2 * self.skip + 1;
        }
        self.measured.samples.push(sample);
    }

    fn read(&mut self, now: u64) -> Sample {
        let cores = read("/proc/stat").and_then(|text| parse::cores(&text)).unwrap_or_default();
        let pressure = |what| {
            let text = read(&format!("/proc/pressure/{what}"))?;
            Some(parse::pressure(&text)? * 1_000)
        };
        // Those of this process's network namespace.
        let (snmp, netstat) = (read("/proc/self/net/snmp"), read("/proc/self/net/netstat"));
        let tcp = |name| parse::counter(snmp.as_ref()?, "Tcp", name);
        let listen = |name| parse::counter(netstat.as_ref()?, "TcpExt", name);
        self.measured.cores = cores.count;
        let server = self.tree.as_mut().map(|tree| tree.read(Path::new("/proc")));
        if let (Some(server), Some(used)) = (&mut self.measured.server, server) {
            server.processes = server.processes.max(used.processes);
            server.died = used.died;
        }
        let mut busiest = Thread::default();
        for (id, thread) in load_threads() {
            self.threads.entry(id).or_default().1 = thread;
        }
        for (before, thread) in self.threads.values() {
            busiest.cpu = busiest.cpu.max(thread.cpu.saturating_sub(before.cpu));
            busiest.waited = busiest.waited.max(thread.waited.saturating_sub(before.waited));
            busiest.switches += thread.switches.saturating_sub(before.switches);
        }
        Sample {
            at: now,
            client_cpu: own_cpu(),
            client_busiest: busiest.cpu,
            client_waited: busiest.waited,
            client_switches: busiest.switches,
            server_cpu: server.map(|used| used.cpu),
            server_busiest: server.map(|used| used.busiest),
            machine_all: cores.all * self.tick_nanos,
            machine_idle: cores.idle * self.tick_nanos,
            machine_stolen: cores.stolen * self.tick_nanos,
            machine_softirq: cores.softirq * self.tick_nanos,
            pressure_cpu: pressure("cpu"),
            pressure_io: pressure("io"),
            segments: tcp("OutSegs"),
            retransmits: tcp("RetransSegs"),
            listen_overflows: listen("ListenOverflows"),
            listen_drops: listen("ListenDrops"),
        }
    }
}

impl Sample {
    /// What was used between two samples.
    #[must_use]
    pub fn since(&self, earlier: &Sample, at: u64) -> Sample {
        let sub = u64::saturating_sub;
        let both = |now: Option<u64>, then: Option<u64>| Some(sub(now?, then?));
        Sample {
            at,
            client_cpu: sub(self.client_cpu, earlier.client_cpu),
            client_busiest: sub(self.client_busiest, earlier.client_busiest),
            client_waited: sub(self.client_waited, earlier.client_waited),
            client_switches: sub(self.client_switches, earlier.client_switches),
            server_cpu: both(self.server_cpu, earlier.server_cpu),
            server_busiest: both(self.server_busiest, earlier.server_busiest),
            machine_all: sub(self.machine_all, earlier.machine_all),
            machine_idle: sub(self.machine_idle, earlier.machine_idle),
            machine_stolen: sub(self.machine_stolen, earlier.machine_stolen),
            machine_softirq: sub(self.machine_softirq, earlier.machine_softirq),
            pressure_cpu: both(self.pressure_cpu, earlier.pressure_cpu),
            pressure_io: both(self.pressure_io, earlier.pressure_io),
            segments: both(self.segments, earlier.segments),
            retransmits: both(self.retransmits, earlier.retransmits),
            listen_overflows: both(self.listen_overflows, earlier.listen_overflows),
            listen_drops: both(self.listen_drops, earlier.listen_drops),
        }
    }
}

impl Measured {
    /// What was used from one time to another: samples nearest to them are taken, and `at` of the
    /// result is how far these are apart. `None` if there are no two.
    pub fn between(&self, from: u64, to: u64) -> Option<Sample> {
        let nearest = |at: u64| self.samples.iter().min_by_key(|sample| sample.at.abs_diff(at));
        let (first, last) = (nearest(from)?, nearest(to)?);
        (last.at > first.at).then(|| last.since(first, last.at - first.at))
    }
}

impl Measured {
    /// What was used between the two samples that are around the middle of a stretch of time, which
    /// may be shorter than they are apart. `None` outside of them.
    pub fn around(&self, from: u64, to: u64) -> Option<Sample> {
        let middle = u64::midpoint(from, to);
        let after = self.samples.iter().position(|sample| sample.at > middle)?;
        let (first, last) = (self.samples.get(after.checked_sub(1)?)?, self.samples.get(after)?);
        Some(last.since(first, last.at - first.at))
    }
}

/// There is no process with this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSuchProcess(pub u32);

impl std::fmt::Display for NoSuchProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "there is no process {}: --server-pid takes that of a server on this machine",
            self.0
        )
    }
}

impl std::error::Error for NoSuchProcess {}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// CPU time of this process in nanoseconds, with that of threads that have ended.
fn own_cpu() -> u64 {
    let time =
        clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every kernel has this clock");
    time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()
}

fn load_threads() -> impl Iterator<Item = (u32, Thread)> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_task = |entry: fs::DirEntry| {
        let path = entry.path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        if !name.starts_with(LOAD_THREAD) {
            return None;
        }
        let (cpu, waited) = parse::schedstat(&fs::read_to_string(path.join("schedstat")).ok()?)?;
        let status = fs::read_to_string(path.join("status")).ok()?;
        let (own, forced) = parse::switches(&status)?;
        let id = entry.file_name().to_str()?.parse().ok()?;
        Some((id, Thread { cpu, waited, switches: own + forced }))
    };
    tasks.filter_map(of_task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn a_load_thread_that_burns_is_seen() {
        let (stop, end) = channel::<()>();
        let burn = move || while end.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {};
        let name = format!("{LOAD_THREAD}0");
        let thread = thread::Builder::new().name(name).spawn(burn).unwrap();
        let mut probe = Probe::begin(0, Some(std::process::id())).unwrap();
        let busy = (1..1_000_000).map(|now| probe.sample(now));
        let seen = busy.take_while(|sample| sample.client_busiest < 20_000_000).count();
        drop(stop);
        let measured = probe.end(2_000_000);
        thread.join().unwrap();
        let all = measured.between(0, 2_000_000).unwrap();
        assert!(seen > 0 && all.client_busiest >= 20_000_000);
        assert!(all.client_cpu >= all.client_busiest);
        assert!(all.server_cpu.unwrap() >= 20_000_000, "the server is this process");
        assert!(measured.samples.len() <= SAMPLES_MAX + 1);
        assert!(measured.cores >= 1 && all.machine_all > 0);
        assert_eq!(measured.server.unwrap().pid, std::process::id());
    }

    #[test]
    fn a_process_that_is_not_there_is_refused() {
        let refusal = Probe::begin(0, Some(u32::MAX)).unwrap_err().to_string();
        assert!(refusal.contains("4294967295") && refusal.contains("--server-pid"));
    }

    #[test]
    fn what_was_used_between_two_times_is_a_difference() {
        let at =
            |at: u64| Sample { at, client_cpu: 10 * at, server_cpu: Some(at), ..Sample::default() };
        let measured = Measured {
            samples: (0..10).map(|number| at(number * 100)).collect(),
            ..Measured::default()
        };
        let used = measured.between(190, 710).unwrap();
        assert_eq!((used.at, used.client_cpu, used.server_cpu), (500, 5_000, Some(500)));
        assert_eq!((used.segments, measured.between(100, 110)), (None, None));
    }
}
