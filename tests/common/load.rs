//! Load that checks what it gets: clients that keep their connections and clients that open one a
//! request, each with a body of its own, so that an answer for somebody else is noticed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{PATIENCE, eventually};

/// What can go wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Failure {
    /// Nobody listened.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed instead of an answer, or within it.
    Cut,
    /// An answer, but not the right one.
    Wrong,
    /// No answer in time.
    Late,
}

/// Clients at work.
pub(crate) struct Load {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    is_over: AtomicBool,
    connections: AtomicU64,
    answers: AtomicU64,
    failures: Mutex<BTreeMap<Failure, Vec<String>>>,
}

/// What the clients saw.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Connections that were established.
    pub(crate) connections: u64,
    /// Right answers.
    pub(crate) answers: u64,
    /// Each failure in words.
    pub(crate) failures: BTreeMap<Failure, Vec<String>>,
}

impl Outcome {
    pub(crate) fn count(&self, failure: Failure) -> usize {
        self.failures.get(&failure).map_or(0, Vec::len)
    }

    /// Everything that was asked was answered, on a connection that stayed as long as wanted.
    pub(crate) fn assert_flawless(&self, what: &str) {
        assert!(self.failures.is_empty(), "{what}: {self:?}");
        assert!(self.answers > 0, "{what}: nothing was answered");
    }
}

impl Load {
    /// Starts so many clients that keep their connection and so many that don't.
    pub(crate) fn start(address: SocketAddr, keeping: usize, churning: usize) -> Load {
        let tally = Arc::new(Tally::default());
        let client = |number, keeps| {
            let tally = Arc::clone(&tally);
            thread::spawn(move || tally.run_client(address, number, keeps))
        };
        let keeping_clients = (0..keeping).map(|number| client(number, true));
        let churning_clients = (keeping..keeping + churning).map(|number| client(number, false));
        let clients = keeping_clients.chain(churning_clients).collect();
        Load { tally, clients }
    }

    pub(crate) fn answers(&self) -> u64 {
        self.tally.answers.load(Ordering::Relaxed)
    }

    /// Waits for so many answers more.
    pub(crate) fn wait_for_answers(&self, count: u64) {
        let before = self.answers();
        eventually("the load goes on", || {
            self.answers() >= before + count || self.clients.iter().all(JoinHandle::is_finished)
        });
    }

    /// Ends the load, and says how it was.
    pub(crate) fn end(self) -> Outcome {
        self.tally.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        Outcome {
            connections: self.tally.connections.load(Ordering::Relaxed),
            answers: self.tally.answers.load(Ordering::Relaxed),
            failures: std::mem::take(&mut self.tally.failures.lock().unwrap()),
        }
    }
}

impl Tally {
    /// Asks until it is over. Whose connection fails has failed a request, and opens another one.
    fn run_client(&self, address: SocketAddr, number: usize, keeps: bool) {
        let mut kept: Option<TcpStream> = None;
        for round in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            match self.ask(address, &mut kept, &format!("{number}/{round}"), keeps) {
                Ok(()) => _ = self.answers.fetch_add(1, Ordering::Relaxed),
                Err((failure, words)) => {
                    kept = None;
                    let words = format!("request {number}/{round}: {words}");
                    self.failures.lock().unwrap().entry(failure).or_default().push(words);
                }
            }
        }
    }

    fn ask(
        &self,
        address: SocketAddr,
        kept: &mut Option<TcpStream>,
        text: &str,
        keeps: bool,
    ) -> Result<(), (Failure, String)> {
        let mut stream = if let Some(stream) = kept.take() {
            stream
        } else {
            let stream = connect(address)?;
            self.connections.fetch_add(1, Ordering::Relaxed);
            stream
        };
        exchange(&mut stream, text, keeps)?;
        *kept = keeps.then_some(stream);
        Ok(())
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream, (Failure, String)> {
    let stream = TcpStream::connect(address).map_err(|error| failure_of("connect", &error))?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    Ok(stream)
}

/// One request of its own kind, and its answer to the last byte; to the end of the connection if
/// it isn't kept.
fn exchange(stream: &mut TcpStream, text: &str, keeps: bool) -> Result<(), (Failure, String)> {
    let mut request = String::new();
    let close = if keeps { "" } else { "Connection: close\r\n" };
    let length = text.len();
    write!(
        request,
        "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n{close}\r\n{text}"
    )
    .unwrap();
    stream.write_all(request.as_bytes()).map_err(|error| failure_of("write", &error))?;
    let mut heard = Vec::new();
    let end = format!("\r\n\r\n{text}");
    let mut buffer = [0; 2048];
    while !keeps || !heard.ends_with(end.as_bytes()) {
        match stream.read(&mut buffer).map_err(|error| failure_of("read", &error))? {
            0 => break,
            count => heard.extend_from_slice(&buffer[..count]),
        }
    }
    let answer = String::from_utf8_lossy(&heard);
    let is_right = answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&end);
    let says_close = answer.contains("\r\nConnection: close\r\n");
    if heard.is_empty() {
        Err((Failure::Cut, "closed instead of an answer".to_owned()))
    } else if is_right && says_close != keeps {
        Ok(())
    } else {
        let kind = if answer.starts_with("HTTP/1.1 200 OK\r\n") && !is_right {
            Failure::Cut
        } else {
            Failure::Wrong
        };
        Err((kind, answer.into_owned()))
    }
}

fn failure_of(doing: &str, error: &io::Error) -> (Failure, String) {
    let failure = match error.kind() {
        ErrorKind::ConnectionRefused => Failure::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Failure::Reset,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Late,
        _ => Failure::Wrong,
    };
    (failure, format!("{doing}: {error}"))
}

/// How long new connections took to be answered, opened at an even pace whatever became of the
/// others: an open loop, so that one that waits hides none that would have.
pub(crate) fn latencies(address: SocketAddr, count: u32, every: Duration) -> Vec<Duration> {
    let begin = Instant::now();
    let clients: Vec<_> = (0..count)
        .map(|number| {
            thread::sleep((begin + every * number).saturating_duration_since(Instant::now()));
            thread::spawn(move || {
                let opened = Instant::now();
                let mut stream = connect(address).unwrap();
                exchange(&mut stream, &format!("latency/{number}"), false).unwrap();
                opened.elapsed()
            })
        })
        .collect();
    let mut took: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    took.sort();
    took
}

/// The smallest of sorted values that `percent` of them don't exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}
