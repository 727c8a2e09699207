//! The program as a child process, and a client that says exactly what it is told. Waits for facts
//! (a line, an end, an answer), never for a time to pass.

#![allow(dead_code)] // each test file uses its part

pub(crate) mod embedded;
pub(crate) mod load;
pub(crate) mod observer;

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running `uring-pool serve`. Killed with its workers when it is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// What it said when it was ready.
    pub(crate) line: String,
    /// The master that has taken over from it.
    successor: Option<i32>,
    /// Read as it is written, so that nobody ever waits for a reader.
    log: Receiver<String>,
    /// Where its configuration lies, if it is this process that wrote it.
    directory: Option<TempDir>,
}

/// How connections reach the workers: `--accept`.
pub(crate) const MODES: [&str; 3] = ["shared", "dispatch", "steered"];

/// Tests every mode, all at once: for tests that mostly wait.
pub(crate) fn in_every_mode(test: impl Fn(&'static str) + Sync) {
    thread::scope(|scope| {
        for mode in MODES {
            scope.spawn(|| test(mode));
        }
    });
}

impl Server {
    /// Starts it on a free port of loopback, and waits until it is ready.
    pub(crate) fn start(flags: &[&str]) -> Server {
        Server::start_with(flags, &[])
    }

    /// With these variables, but for those without a value.
    pub(crate) fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Server {
        let has_address = flags.contains(&"--listen");
        let default = if has_address { &[][..] } else { &["--listen", "127.0.0.1:0"][..] };
        let mut command = program();
        let variables = variables.iter().copied().filter(|(_, value)| !value.is_empty());
        command.arg("serve").args(default).args(flags).envs(variables);
        Server::of(command)
    }

    /// Starts it with this configuration, on a free port of loopback.
    pub(crate) fn configured(text: &str, flags: &[&str]) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edge.toml");
        fs::write(&path, text).unwrap();
        let mut server = Server::start(&[&["-c", path.to_str().unwrap()], flags].concat());
        server.directory = Some(directory);
        server
    }

    /// Starts this program, which says a line when it is ready.
    pub(crate) fn of(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, log) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let Some(line) = lines.find(|line| line.contains(" serves ")) else {
            let reason: Vec<String> = log.iter().collect();
            panic!("the server did not start: {}", reason.join("\n"));
        };
        Server { child, line, successor: None, log, directory: None }
    }

    /// The master's.
    pub(crate) fn pid(&self) -> i32 {
        self.successor.unwrap_or(self.child.id() as i32)
    }

    /// Has the master replaced by one of another binary (`SIGUSR2`), and waits until the old one has
    /// gone. Only in a process that is a [`foster_parent`].
    pub(crate) fn upgrade(&mut self) {
        let old = self.pid();
        self.signal(Signal::SIGUSR2);
        let line = self.wait_for_log("upgrading: the new master has pid ");
        let (_, new) = line.rsplit_once(' ').unwrap();
        self.wait_for_log("upgraded: the new master serves");
        let status = self.wait_for_end();
        assert!(status.success(), "the old master ({old}): {status}");
        self.succeed(new.parse().unwrap());
    }

    /// This process is the master from now on.
    pub(crate) fn succeed(&mut self, pid: i32) {
        self.successor = Some(pid);
    }

    /// Waits for the end of the master.
    fn wait_for_end(&mut self) -> ExitStatus {
        let Some(pid) = self.successor else { return self.child.wait().unwrap() };
        match waitpid(Pid::from_raw(pid), None).unwrap() {
            WaitStatus::Exited(_, code) => ExitStatus::from_raw(code << 8),
            WaitStatus::Signaled(_, signal, _) => ExitStatus::from_raw(signal as i32),
            other => panic!("{other:?} is no end"),
        }
    }

    /// The first TCP address that it says it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        let (_, rest) = self.line.split_once("http://").expect("a TCP address");
        let end = rest.find([',', ' ']).unwrap();
        rest[..end].parse().unwrap()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// The pool's own numbers.
    pub(crate) fn status(&self) -> serde_json::Value {
        let answer =
            self.connect().ask("GET /status HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        serde_json::from_str(answer.body()).unwrap()
    }

    /// Process ids of the workers, by the kernel's word.
    pub(crate) fn workers(&self) -> Vec<i32> {
        children(self.pid())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Reads the log up to a line with this text, and returns the line.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        self.read_log_up_to(text).pop().expect("the line that was found")
    }

    /// Reads the log up to a line with this text.
    pub(crate) fn read_log_up_to(&mut self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(text)) {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => seen.push(line),
                Err(error) => panic!("no `{text}` in the log ({error}):\n{}", seen.join("\n")),
            }
        }
        seen
    }

    /// What was logged since it was last read.
    pub(crate) fn log(&self) -> String {
        self.log.try_iter().collect::<Vec<_>>().join("\n")
    }

    /// Waits until it has ended, and returns how, with the rest of its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let log: Vec<String> = self.log.iter().collect();
        (self.wait_for_end(), log.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let workers = self.workers();
        if let Some(pid) = self.successor {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(pid), None);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for worker in workers {
            let _ = kill(Pid::from_raw(worker), Signal::SIGKILL);
        }
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// Makes this process the parent of what its children leave behind, as the master of an upgrade is.
pub(crate) fn foster_parent() {
    prctl::set_child_subreaper(true).unwrap();
}

/// Sends SIGKILL.
pub(crate) fn kill_hard(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Numbers at random, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    /// With a seed that differs from run to run, and is printed; `TEST_SEED` sets it.
    pub(crate) fn new() -> Random {
        let given = std::env::var("TEST_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        println!("TEST_SEED={seed}");
        Random(seed | 1)
    }

    /// A number below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % count
    }
}

/// Processor time that a process has used so far, in ticks of a hundredth of a second.
pub(crate) fn processor_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(") ") else { return 0 };
    // utime and stime, and those of children that were waited for: 14 to 17 of proc(5).
    rest.split_whitespace().skip(11).take(4).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// The program, unstarted.
pub(crate) fn program() -> Command {
    of_this_kernel(Command::new(env!("CARGO_BIN_EXE_uring-pool")))
}

/// With all features of this kernel, but for those that `TEST_MASK` takes away from every test that
/// doesn't say it itself.
fn of_this_kernel(mut command: Command) -> Command {
    command.env_remove("URING_POOL_LOG").env_remove("URING_POOL_MASK");
    if let Ok(mask) = std::env::var("TEST_MASK") {
        command.env("URING_POOL_MASK", mask);
    }
    command
}

/// Child processes of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The parent of a process.
pub(crate) fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "in vain: {what}");
        thread::sleep(Duration::from_millis(1)); // for whoever has to make it hold
    }
}

/// Whether a process is there and not a zombie.
pub(crate) fn is_running(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// Stops a process, and waits until it has stopped.
pub(crate) fn freeze(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    eventually("it has stopped", || state(pid) == Some('T'));
}

/// Lets a stopped process go on.
pub(crate) fn thaw(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
}

/// Whether a process is stopped.
pub(crate) fn is_frozen(pid: i32) -> bool {
    state(pid) == Some('T')
}

/// Whether a process waits for something.
pub(crate) fn is_asleep(pid: i32) -> bool {
    state(pid) == Some('S')
}

/// As proc(5) has it: R, S, D, T, Z.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// One connection to the server.
pub(crate) struct Client {
    stream: TcpStream,
    heard: Vec<u8>,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn body(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Client::of(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn of(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, heard: Vec::new() }
    }

    /// Connects from another address of loopback, as another client.
    pub(crate) fn connect_from(source: [u8; 4], address: SocketAddr) -> Client {
        use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
        use std::os::fd::AsRawFd;
        let SocketAddr::V4(address) = address else { panic!("loopback is IPv4") };
        let (family, kind) = (AddressFamily::Inet, SockType::Stream);
        let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let [a, b, c, d] = source;
        socket::bind(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
        socket::connect(socket.as_raw_fd(), &SockaddrIn::from(address)).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, heard: Vec::new() }
    }

    /// Says something, if the other side still listens.
    pub(crate) fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn ask(&mut self, request: &str) -> Answer {
        self.say(request);
        self.hear()
    }

    /// Asks for a path, and keeps the connection.
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"))
    }

    /// The next response; to a HEAD with `hear_head`.
    pub(crate) fn hear(&mut self) -> Answer {
        self.try_hear().expect("the connection ended before the answer did")
    }

    /// Asks for a path; `None` when the connection breaks before the answer is whole.
    pub(crate) fn try_get(&mut self, path: &str) -> Option<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n");
        self.stream.write_all(request.as_bytes()).ok()?;
        self.try_hear()
    }

    fn try_hear(&mut self) -> Option<Answer> {
        let head = self.try_hear_head()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .unwrap_or_else(|| panic!("no length: {head}"));
        let length = length.parse().unwrap();
        while self.heard.len() < length {
            if self.fill() == 0 {
                return None;
            }
        }
        let body = self.heard.drain(..length).collect();
        Some(Answer { head, body })
    }

    pub(crate) fn hear_head(&mut self) -> String {
        self.try_hear_head().expect("the connection ended before the head did")
    }

    fn try_hear_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.heard.windows(4).position(|at| at == b"\r\n\r\n") {
                let head = self.heard.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if self.fill() == 0 {
                return None;
            }
        }
    }

    /// The body that follows this head.
    pub(crate) fn hear_body(&mut self, head: &str) -> Vec<u8> {
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.expect("a length").parse().unwrap();
        while self.heard.len() < length {
            assert!(self.fill() > 0, "the connection ended before the body did");
        }
        self.heard.drain(..length).collect()
    }

    /// How many bytes come up to the end of the connection.
    pub(crate) fn count_rest(&mut self) -> u64 {
        let mut count = 0;
        loop {
            count += std::mem::take(&mut self.heard).len() as u64;
            if self.fill() == 0 {
                return count;
            }
        }
    }

    /// Everything up to the end of the connection.
    pub(crate) fn hear_all(&mut self) -> String {
        while self.fill() > 0 {}
        String::from_utf8(std::mem::take(&mut self.heard)).unwrap()
    }

    /// Whether the server closes the connection, saying nothing more.
    pub(crate) fn is_closed_by_server(&mut self) -> bool {
        self.heard.is_empty() && self.fill() == 0
    }

    /// Bytes that came with one read; none at the end or after a reset.
    fn fill(&mut self) -> usize {
        let mut buffer = [0; 8 * 1024];
        let count = match self.stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return self.fill(),
            Err(error) => panic!("cannot read from the server: {error}"),
        };
        self.heard.extend_from_slice(&buffer[..count]);
        count
    }
}
