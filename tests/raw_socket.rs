//! Bare connections, in every accept mode: counted, limited, drained. The program is
//! `examples/raw_socket.rs`.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use common::{PATIENCE, Server, embedded, eventually, in_every_mode};
use nix::sys::signal::Signal;

fn start(flags: &[&str]) -> Server {
    embedded::start_example("raw_socket", flags)
}

/// Somebody who speaks in lines.
struct Talker {
    stream: BufReader<TcpStream>,
}

impl Talker {
    fn connect(address: SocketAddr) -> Talker {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Talker { stream: BufReader::new(stream) }
    }

    fn say(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// A line; empty at the end, be it by a reset.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(_) => line.trim_end().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => String::new(),
            Err(error) => panic!("{error}"),
        }
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }
}

#[test]
fn everybody_is_served_in_every_mode() {
    in_every_mode(|mode| {
        let server = start(&["--workers", "2", "--accept", mode]);
        let address = server.address();
        thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    for round in 0..20 {
                        let mut talker = Talker::connect(address);
                        assert_eq!(talker.ask("PING"), "+PONG", "{mode}");
                        let (key, value) = (format!("{number}"), format!("{number}/{round}"));
                        assert_eq!(talker.ask(&format!("SET {key} {value}")), "+OK", "{mode}");
                        talker.say(&format!("GET {key}"));
                        assert_eq!(talker.hear(), format!("${}", value.len()), "{mode}");
                        assert_eq!(talker.hear(), value, "{mode}");
                        let ours = talker.stream.get_ref().local_addr().unwrap();
                        let who = format!("+Some({ours}) Some({address})");
                        assert_eq!(talker.ask("WHO"), who, "{mode}");
                        assert_eq!(talker.ask("QUIT"), "+OK", "{mode}");
                        assert_eq!(talker.hear(), "", "{mode}: closed, also where passed on");
                    }
                });
            }
        });
        let mut last = Talker::connect(address);
        eventually("only one is open", || last.ask("CONNECTIONS") == ":1");
        let status: serde_json::Value = serde_json::from_str(&last.ask("STATUS")).unwrap();
        assert_eq!(status["total_connections"], 161, "{mode}: {status}");
        assert!(status["bytes_received"].as_u64().unwrap() > 160 * 20, "{mode}: {status}");
        assert!(status["bytes_sent"].as_u64().unwrap() > 160 * 20, "{mode}: {status}");
    });
}

#[test]
fn commands_may_come_in_pieces_and_in_heaps() {
    let server = start(&[]);
    let mut talker = Talker::connect(server.address());
    for byte in b"PING\r\n" {
        talker.stream.get_mut().write_all(&[*byte]).unwrap();
    }
    assert_eq!(talker.hear(), "+PONG");
    talker.stream.get_mut().write_all("PING\r\n".repeat(5_000).as_bytes()).unwrap();
    for _ in 0..5_000 {
        assert_eq!(talker.hear(), "+PONG");
    }
    talker.say("FILL 5000000");
    assert_eq!(talker.hear().len(), 5_000_000);
    talker.say(&"x".repeat(70_000));
    assert_eq!(talker.hear(), "", "a line that is too long ends it");
}

#[test]
fn a_client_that_has_closed_its_side_still_reads() {
    in_every_mode(|mode| {
        let server = start(&["--accept", mode]);
        let mut talker = Talker::connect(server.address());
        talker.say("SLEEP 50");
        talker.say("PING");
        talker.stream.get_ref().shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        talker.stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "+OK\r\n+PONG\r\n+BYE\r\n", "{mode}");
    });
}

#[test]
fn a_panic_costs_one_connection() {
    let mut server = start(&[]);
    let worker = server.workers();
    let mut other = Talker::connect(server.address());
    assert_eq!(other.ask("PING"), "+PONG");
    for _ in 0..3 {
        let mut talker = Talker::connect(server.address());
        assert_eq!(talker.ask("PANIC"), "");
        server.wait_for_log("a task panicked: as it was told to");
    }
    assert_eq!(other.ask("CONNECTIONS"), ":1");
    assert_eq!(server.workers(), worker);
}

#[test]
fn limits_hold() {
    in_every_mode(|mode| {
        let server = start(&["--accept", mode, "--connections-per-client", "3"]);
        let address = server.address();
        let mut open: Vec<Talker> = (0..3).map(|_| Talker::connect(address)).collect();
        open.iter_mut().for_each(|talker| assert_eq!(talker.ask("PING"), "+PONG", "{mode}"));
        assert_eq!(Talker::connect(address).hear(), "", "{mode}: one too many");
        assert_eq!(open[0].ask("QUIT"), "+OK");
        assert_eq!(open[0].hear(), "", "{mode}");
        eventually("there is room again", || open[1].ask("CONNECTIONS") == ":2");
        assert_eq!(Talker::connect(address).ask("PING"), "+PONG", "{mode}");
    });
    let server = start(&["--connections-max", "2"]);
    let mut open: Vec<Talker> = (0..2).map(|_| Talker::connect(server.address())).collect();
    open.iter_mut().for_each(|talker| assert_eq!(talker.ask("PING"), "+PONG"));
    let mut waits = Talker::connect(server.address());
    waits.say("PING");
    assert_eq!(open[0].ask("QUIT"), "+OK");
    assert_eq!(waits.hear(), "+PONG", "it came in when somebody had gone");
    let server = start(&["--connection-timeout-ms", "300"]);
    assert_eq!(Talker::connect(server.address()).hear(), "", "it has become too old");
}

#[test]
fn settings_that_cannot_hold_are_refused() {
    let mut command = std::process::Command::new(embedded::example("raw_socket"));
    let output = command.args(["--listen", "127.0.0.1:0", "--rate-limit", "1"]).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("rate_limit.enabled"), "{error}");
}

#[test]
fn a_socket_can_be_had_for_oneself() {
    in_every_mode(|mode| {
        let server = start(&["--accept", mode]);
        for _ in 0..20 {
            let mut talker = Talker::connect(server.address());
            assert_eq!(talker.ask("PING"), "+PONG", "{mode}");
            talker.say("THREAD\r\nunread");
            assert_eq!(talker.hear(), "+THREAD", "{mode}");
            assert_eq!(talker.hear(), "unread", "{mode}: nothing is lost");
            assert_eq!(talker.hear(), "", "{mode}");
        }
    });
}

#[test]
fn a_stop_waits_for_those_who_work_and_not_for_those_who_idle() {
    in_every_mode(|mode| {
        let server = start(&["--accept", mode]);
        let mut idle = Talker::connect(server.address());
        assert_eq!(idle.ask("PING"), "+PONG");
        let mut works = Talker::connect(server.address());
        works.say("SLEEP 500");
        eventually("both are open", || idle.ask("CONNECTIONS") == ":2");
        server.signal(Signal::SIGTERM);
        assert_eq!(idle.hear(), "-ERR the server stops", "{mode}");
        assert_eq!(idle.hear(), "", "{mode}");
        assert_eq!(works.hear(), "+OK", "{mode}");
        assert_eq!(works.hear(), "-ERR the server stops", "{mode}");
        let (status, log) = server.wait();
        assert!(status.success(), "{mode}: {log}");
    });
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let server = start(&["--stop-timeout-ms", "300"]);
    let mut works = Talker::connect(server.address());
    assert_eq!(works.ask("PING"), "+PONG");
    works.say("SLEEP 3600000");
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    assert_eq!(works.hear(), "");
}

#[test]
fn reloads_lose_nothing_under_load() {
    in_every_mode(|mode| {
        let mut server = start(&["--workers", "2", "--accept", mode]);
        let address = server.address();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let talkers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut answers = 0;
                        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                            let mut talker = Talker::connect(address);
                            talker.say("PING");
                            // Whoever idles when its worker leaves is told; but each has its answer.
                            match talker.hear().as_str() {
                                "+PONG" | "-ERR the server stops" => answers += 1,
                                other => panic!("{mode}: `{other}` after {answers} answers"),
                            }
                        }
                        answers
                    })
                })
                .collect();
            for _ in 0..3 {
                server.signal(Signal::SIGHUP);
                server.wait_for_log("reloaded: 2 new workers serve");
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            let answers: Vec<u64> = talkers.into_iter().map(|it| it.join().unwrap()).collect();
            assert!(answers.iter().all(|count| *count > 0), "{mode}: {answers:?}");
        });
    });
}
