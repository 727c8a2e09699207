//! An application that owns the loop: requests and its own datagrams, in one poll(2).
//!
//! Who asks for `/next` waits for a line, which comes by UDP or by `POST /tell`; whoever came last is
//! answered first, to show that tickets may be used in any order.
//!
//! ```sh
//! cargo run --release --example event_driven
//! curl 127.0.0.1:8080/next & curl 127.0.0.1:8080/next &
//! echo hello > /dev/udp/127.0.0.1/8125     # or: curl -d hello 127.0.0.1:8080/tell
//! ```

mod stderr_log;

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use uring_pool::config::{PoolConfig, WorkerConfig, WorkerCount};
use uring_pool::{Pool, Request, Response, Server, Status, Ticket, Worker, rt};

/// How long `/later` takes.
const LATER: Duration = Duration::from_millis(200);

fn main() -> uring_pool::Result<()> {
    stderr_log::begin();
    let mut config = PoolConfig { workers: WorkerCount::Fixed(1), ..PoolConfig::default() };
    let (mut udp, mut wait) = ("127.0.0.1:8125".to_owned(), "poll".to_owned());
    let mut flags = env::args().skip(1);
    while let Some(flag) = flags.next() {
        let value = flags.next().expect("a value follows");
        match flag.as_str() {
            "--listen" => config.listen = vec![value.parse().expect("an address")],
            "--accept" => config.accept = value.parse().expect("a mode"),
            "--workers" => config.workers = value.parse().expect("a number"),
            "--stop-timeout-ms" => {
                config.stop_timeout = Duration::from_millis(value.parse().expect("milliseconds"));
            }
            // Where lines come from; with port 0, several workers may each have one.
            "--udp" => udp = value,
            // `poll`: in poll(2), as it should be; `descriptor`: likewise, but for the descriptor
            // alone, whatever the time; `turn`: in the turn, deaf to datagrams.
            "--wait" => wait = value,
            other => panic!("{other} is no flag of this program"),
        }
    }
    Pool::new(config, WorkerConfig::default())?
        .on_ready(|ready| {
            println!("it serves {} with {} workers", ready.addresses[0], ready.workers);
        })
        .drive(move |worker, server| {
            let socket = UdpSocket::bind(&udp)?;
            socket.set_nonblocking(true)?;
            let mut app = App { worker, waiting: Vec::new(), later: VecDeque::new() };
            app.run(server, &socket, &wait)
        })
}

/// What a worker knows.
struct App<'a> {
    worker: &'a Worker,
    /// Who waits for a line.
    waiting: Vec<Ticket>,
    /// Who is answered when.
    later: VecDeque<(Instant, Ticket)>,
}

impl App<'_> {
    fn run(
        &mut self,
        server: &mut Server,
        socket: &UdpSocket,
        wait: &str,
    ) -> Result<(), Box<dyn Error>> {
        let mut pause = Some(Duration::ZERO);
        while server.turn(pause)? {
            while let Some((request, ticket)) = server.next_request() {
                self.on_request(&request, ticket);
            }
            self.on_datagrams(socket)?;
            self.on_time(Instant::now());
            if server.is_draining() {
                self.tell("the server stops\n"); // nobody has to wait for that
            }
            let due =
                self.later.front().map(|(at, _)| at.saturating_duration_since(Instant::now()));
            match wait {
                "turn" => pause = due,
                "poll" => {
                    let timeout = server.next_timeout().into_iter().chain(due).min();
                    wait_for(server, socket, timeout)?;
                }
                _ => wait_for(server, socket, due)?,
            }
        }
        Ok(())
    }

    fn on_request(&mut self, request: &Request, ticket: Ticket) {
        match request.path() {
            "/next" => self.waiting.push(ticket),
            "/tell" => {
                let line = rt::now_or_never(request.text()).expect("it has come whole");
                match line {
                    Ok(line) => {
                        let count = self.tell(&line);
                        ticket.respond(format!("told {count}\n"));
                    }
                    Err(error) => ticket.respond(error),
                }
            }
            "/later" => self.later.push_back((Instant::now() + LATER, ticket)),
            "/forget" => drop(ticket), // answers 500
            "/waiting" => {
                self.waiting.retain(Ticket::is_wanted);
                ticket.respond(format!("{} wait\n", self.waiting.len()));
            }
            "/echo" => {
                let body = rt::now_or_never(request.bytes()).expect("it has come whole");
                ticket.respond(body);
            }
            "/peer" => ticket.respond(format!("{:?}\n", request.peer())),
            "/status" => ticket.respond(Response::json(&self.worker.pool_status())),
            "/worker" => ticket.respond(self.worker.id().to_string()),
            "/" => ticket.respond(format!("hello from worker {}\n", self.worker.id())),
            _ => ticket.respond(Status::NOT_FOUND),
        }
    }

    /// Answers all who wait, and says how many those were.
    fn tell(&mut self, line: &str) -> usize {
        let waiting = self.waiting.drain(..).rev().filter(Ticket::is_wanted);
        waiting.map(|ticket| ticket.respond(line.to_owned())).count()
    }

    fn on_datagrams(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            match socket.recv(&mut buffer) {
                Ok(count) => {
                    self.tell(&String::from_utf8_lossy(&buffer[..count]));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn on_time(&mut self, now: Instant) {
        while self.later.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, ticket)) = self.later.pop_front()
        {
            ticket.respond("now\n");
        }
    }
}

/// Sleeps until there is something to do, at most so long.
fn wait_for(server: &Server, socket: &UdpSocket, timeout: Option<Duration>) -> nix::Result<()> {
    // Upwards: whoever wakes too early turns for nothing.
    let millis = timeout.map(|timeout| timeout.as_nanos().div_ceil(1_000_000));
    let timeout = millis.map_or(PollTimeout::NONE, |millis| {
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    });
    let mut descriptors =
        [server.as_fd(), socket.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut descriptors, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}
