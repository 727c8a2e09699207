//! The program as a child process, and a client that says exactly what it is told. Waits for facts
//! (a line, an end, an answer), never for a time to pass.

#![allow(dead_code)] // each test file uses its part

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running `uring-pool serve`. Killed with its workers when it is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// What it said when it was ready.
    pub(crate) line: String,
    log: BufReader<ChildStderr>,
}

impl Server {
    /// Starts it on a free port of loopback, and waits until it is ready.
    pub(crate) fn start(flags: &[&str]) -> Server {
        Server::start_with(flags, &[])
    }

    pub(crate) fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Server {
        let has_address = flags.contains(&"--listen");
        let default = if has_address { &[][..] } else { &["--listen", "127.0.0.1:0"][..] };
        let mut child = program()
            .arg("serve")
            .args(default)
            .args(flags)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        if line.is_empty() {
            let mut reason = String::new();
            log.read_to_string(&mut reason).unwrap();
            panic!("the server did not start: {reason}");
        }
        Server { child, line, log }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
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

    /// Reads the log up to a line with this text.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.lines().last().is_some_and(|line| line.contains(text)) {
            assert!(self.log.read_line(&mut seen).unwrap() > 0, "no `{text}` in the log:\n{seen}");
        }
        seen.lines().last().unwrap().to_owned()
    }

    /// Waits until it has ended, and returns how, with the rest of its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let workers = self.workers();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for worker in workers {
            let _ = kill(Pid::from_raw(worker), Signal::SIGKILL);
        }
    }
}

/// The program, unstarted.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uring-pool"));
    command.env_remove("URING_POOL_MASK").env_remove("URING_POOL_LOG");
    command
}

/// Child processes of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "in vain: {what}");
        std::thread::yield_now();
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
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, heard: Vec::new() }
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
            Err(error) => panic!("cannot read from the server: {error}"),
        };
        self.heard.extend_from_slice(&buffer[..count]);
        count
    }
}
