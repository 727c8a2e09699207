//! A master in a process of its own: what the tests start, look at and shoot.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setpgid};
use tempfile::TempDir;
use uring_ring::Features;

use crate::config::{Address, Checked, PoolConfig};
use crate::master::{PoolHandle, Ready, Start, Surroundings, run};
use crate::process::clock::Moment;
use crate::process::listen::Listeners;
use crate::process::scoreboard::{Scoreboard, State, WorkerPage};
use crate::process::seat::Seat;
use crate::process::sys::{self, Fork};

/// Longer than anything here takes on a busy machine, but for what hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running master, the first of its process group. Killed with it when it is dropped.
pub(super) struct Server {
    pub(super) pid: Pid,
    pub(super) scoreboard: Scoreboard,
    addresses: Vec<Address>,
    ended: bool,
    directory: TempDir,
}

impl Server {
    /// Starts a master and waits until it is ready, or gone.
    pub(super) fn start(
        config: &PoolConfig,
        workers: usize,
        features: Features,
        worker: &dyn Fn(Seat) -> i32,
    ) -> Server {
        Server::start_with(config, workers, features, worker, &|_| {})
    }

    /// After something else in its process had its hands on the listeners.
    pub(super) fn start_with(
        config: &PoolConfig,
        workers: usize,
        features: Features,
        worker: &dyn Fn(Seat) -> i32,
        before: &dyn Fn(&Listeners),
    ) -> Server {
        let (scoreboard, memory) = Scoreboard::create(Moment::now()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let (reader, writer) = io::pipe().unwrap();
        let pid = match sys::fork().unwrap() {
            Fork::Child => {
                let master = || {
                    sys::close_all_but(vec![0, 1, 2, writer.as_raw_fd(), memory.as_raw_fd()]); // other tests' files
                    setpgid(Pid::this(), Pid::this()).unwrap();
                    prctl::set_pdeathsig(Signal::SIGKILL).unwrap(); // if the tests are killed
                    log_to(File::create(&log).unwrap());
                    let config = config.clone().validate().unwrap();
                    let listeners = Listeners::bind(&config, workers).unwrap();
                    before(&listeners);
                    serve(config, features, listeners, (scoreboard, memory), worker, &writer)
                };
                sys::exit_at_once(panic::catch_unwind(AssertUnwindSafe(master)).unwrap_or(99))
            }
            Fork::Parent { child } => child,
        };
        drop(writer);
        // Workers have the pipe too, as it was open before the pool: so one line, not to the end.
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        let addresses = line.split_whitespace().map(|text| text.parse().unwrap()).collect();
        Server { pid, scoreboard, addresses, ended: false, directory }
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// The master's exit code, once it has ended; none when a signal ended it.
    pub(super) fn exit_code(&mut self) -> Option<i32> {
        let status = eventually("the master ends", || {
            Some(waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).unwrap())
                .filter(|status| *status != WaitStatus::StillAlive)
        });
        self.ended = true;
        match status {
            WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Waits until the log has `words`.
    pub(super) fn logs(&self, words: &str) {
        eventually(words, || self.log().contains(words).then_some(()));
    }

    pub(super) fn worker(&self, id: usize) -> Pid {
        let pid = self.page(id).pid();
        assert_ne!(pid, 0, "no worker was ever there"); // and a signal to 0 is one to us all
        Pid::from_raw(pid as i32)
    }

    /// The page of the last process in a worker's place.
    pub(super) fn page(&self, id: usize) -> &'static WorkerPage {
        eventually("the worker is forked", || self.scoreboard.newest(id))
    }

    /// Kills a worker's process and waits until the master has noticed.
    pub(super) fn shoot(&self, id: usize) {
        let pid = self.worker(id);
        kill(pid, Signal::SIGKILL).unwrap();
        self.logs(&format!("worker {id} (pid {pid}) was killed by SIGKILL"));
    }

    /// Waits until a worker's state is `state`, and its process another than `before`.
    pub(super) fn awaits(&self, id: usize, state: State, before: Pid) {
        eventually("a worker's state", || {
            (self.page(id).state() == state && self.worker(id) != before).then_some(())
        });
    }

    /// Stops it as a service manager does, and sees that it ends well.
    pub(super) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.exit_code(), Some(0));
    }

    pub(super) fn tcp(&self) -> SocketAddr {
        let tcp = self.addresses.iter().find_map(|address| match address {
            Address::Tcp(tcp) => Some(*tcp),
            Address::Unix(_) => None,
        });
        tcp.expect("it is ready and listens on TCP")
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Which worker answers, by id and pid.
    pub(super) fn ask(&self) -> (usize, Pid) {
        answer(TcpStream::connect(self.tcp()).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ended {
            killpg(self.pid, Signal::SIGKILL).unwrap();
            waitpid(self.pid, None).unwrap();
        }
    }
}

fn serve(
    config: Checked<PoolConfig>,
    features: Features,
    listeners: Listeners,
    (scoreboard, memory): (Scoreboard, OwnedFd),
    worker: &dyn Fn(Seat) -> i32,
    ready_to: &PipeWriter,
) -> i32 {
    let start = Start {
        config: config.clone(),
        features,
        listeners,
        scoreboard,
        memory,
        old_master: None,
        pid_file: None,
        handle: PoolHandle::new().unwrap(),
        balancer: None,
    };
    match run(start, &mut Program { config, worker, ready_to }) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            error.exit_code().into()
        }
    }
}

/// The program around the master.
struct Program<'a> {
    config: Checked<PoolConfig>,
    worker: &'a dyn Fn(Seat) -> i32,
    ready_to: &'a PipeWriter,
}

impl Surroundings for Program<'_> {
    fn work(&self, seat: Seat, _is_next: bool) -> i32 {
        (self.worker)(seat)
    }

    fn on_ready(&mut self, ready: &Ready<'_>) {
        log::info!("it serves ({})", ready.accept);
        let addresses: Vec<String> = ready.addresses.iter().map(Address::to_string).collect();
        writeln!(self.ready_to, "{}", addresses.join(" ")).unwrap();
    }

    fn read_settings(&mut self) -> Result<Checked<PoolConfig>, String> {
        Ok(self.config.clone())
    }

    fn settle_settings(&mut self, _are_new: bool) {}

    fn on_message(&mut self, worker: usize, payload: serde_json::Value) {
        log::info!("worker {worker} says {payload}");
    }
}

/// Asks over a connection which worker serves it, waiting as long as it takes.
pub(super) fn answer(connection: impl Into<OwnedFd>) -> (usize, Pid) {
    let mut connection = File::from(connection.into());
    let patience = TimeVal::seconds(PATIENCE.as_secs() as i64);
    setsockopt(&connection, sockopt::ReceiveTimeout, &patience).unwrap();
    connection.write_all(b"who?").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (id, pid) = answer.split_once(' ').unwrap();
    (id.parse().unwrap(), Pid::from_raw(pid.parse().unwrap()))
}

/// Polls for what another process does.
pub(super) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sends the log of this process, and of its children, to a file.
fn log_to(file: File) {
    struct Lines(File);
    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let line = format!("{} {}\n", record.level(), record.args());
            (&self.0).write_all(line.as_bytes()).unwrap();
        }
        fn flush(&self) {}
    }
    log::set_logger(Box::leak(Box::new(Lines(file)))).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
}

/// What /proc says of a process under `key` in its status; none when there is no such process.
pub(super) fn proc_status(pid: Pid, key: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Ended, whether or not somebody has collected it.
pub(super) fn has_ended(pid: Pid) -> bool {
    proc_status(pid, "State").is_none_or(|state| state.starts_with('Z'))
}

/// Processes whose parent is `pid`, and which have ended without being collected.
pub(super) fn zombies_of(pid: Pid) -> usize {
    let is_zombie_of = |child: Pid| {
        proc_status(child, "PPid") == Some(pid.to_string())
            && proc_status(child, "State").is_some_and(|state| state.starts_with('Z'))
    };
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.map(Pid::from_raw).filter(|child| is_zombie_of(*child)).count()
}

/// What the open descriptors of a process lead to, in the order of their numbers.
pub(super) fn descriptors(pid: Pid) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut numbers: Vec<i32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let link = |fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok(); // may be closed meanwhile
    numbers.into_iter().filter_map(|fd| Some(link(fd)?.to_string_lossy().into_owned())).collect()
}
