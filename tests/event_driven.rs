//! Applications that own the loop: every request is answered, in whatever order and however they
//! wait. The program is `examples/event_driven.rs`.

mod common;

use std::fs;
use std::mem;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use common::load::Load;
use common::{Client, Server, embedded, eventually, in_every_mode};
use nix::sys::signal::Signal;

/// How it waits for something to do.
const WAYS: [&str; 3] = ["poll", "descriptor", "turn"];

fn start(flags: &[&str]) -> Server {
    embedded::start_example("event_driven", &[&["--udp", "127.0.0.1:0"], flags].concat())
}

fn wait_for_waiting(server: &Server, count: usize) {
    let mut client = server.connect();
    eventually("so many wait", || client.get("/waiting").body() == format!("{count} wait\n"));
}

#[test]
fn answers_may_come_in_any_order() {
    for way in WAYS {
        let server = start(&["--wait", way]);
        let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.say("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
            wait_for_waiting(&server, number + 1);
        }
        let told = server
            .connect()
            .ask("POST /tell HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(told.body(), "told 5\n", "{way}");
        for client in &mut clients {
            assert_eq!(client.hear().body(), "hello", "{way}");
            assert_eq!(client.get("/worker").body(), "0", "{way}: the connection goes on");
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    for way in WAYS {
        let server = start(&["--wait", way]);
        let mut client = server.connect();
        let later = "GET /later HTTP/1.1\r\nHost: t\r\n\r\n";
        let echo = |text: &str| {
            let length = text.len();
            format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{text}")
        };
        client.say(format!("{}{later}{}{}", echo("first"), echo("third"), echo("fourth")));
        for body in ["first", "now\n", "third", "fourth"] {
            assert_eq!(client.hear().body(), body, "{way}");
        }
    }
}

#[test]
fn a_ticket_that_is_dropped_answers_500_and_costs_no_more() {
    let mut server = start(&[]);
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/forget").status(), 500);
        server.wait_for_log("a ticket was dropped unanswered");
    }
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn a_client_that_goes_before_its_answer_harms_nobody() {
    let server = start(&[]);
    for _ in 0..20 {
        let mut gone = server.connect();
        gone.say("GET /next HTTP/1.1\r\nHost: t\r\n\r\nrubbish that resets when it is closed");
        wait_for_waiting(&server, 1);
        let mut stays = server.connect();
        stays.say("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
        wait_for_waiting(&server, 2);
        drop(gone);
        // Whether it is known already that one has gone or not, the other one is answered.
        server.connect().ask("POST /tell HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(stays.hear().body(), "hi");
    }
    eventually("those who went are forgotten", || server.status()["active_connections"] == 1);
}

#[test]
fn bodies_come_whole_or_are_refused() {
    let server = start(&[]);
    let body = "x".repeat(300_000);
    let mut client = server.connect();
    let head = format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    assert_eq!(client.ask(&(head + &body)).body(), body);
    let chunked = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(client.ask(&format!("{chunked}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).body(), "abcde");
    let large = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\n\r\n";
    assert_eq!(client.ask(large).status(), 413);
}

/// Without any time-out, a wake-up that is lost would be the end.
#[test]
fn nobody_sleeps_through_a_request() {
    for way in ["descriptor", "turn"] {
        let server = start(&["--wait", way]);
        let mut client = server.connect();
        for round in 0..5_000 {
            let text = round.to_string();
            let length = text.len();
            let request =
                format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{text}");
            assert_eq!(client.ask(&request).body(), text, "{way}");
        }
        for _ in 0..200 {
            assert_eq!(server.connect().get("/").status(), 200, "{way}: a connection each");
        }
        let load = Load::start(server.address(), 6, 2);
        load.wait_for_answers(3_000);
        load.end().assert_flawless(way);
    }
}

#[test]
fn its_own_descriptors_and_times_wake_it_too() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = embedded::start_example("event_driven", &["--udp", &port.to_string()]);
    let mut client = server.connect();
    assert_eq!(client.get("/later").body(), "now\n");
    client.say("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_for_waiting(&server, 1);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"by datagram", port).unwrap();
    assert_eq!(client.hear().body(), "by datagram");
}

#[test]
fn reloads_lose_nothing_under_load() {
    for way in WAYS {
        in_every_mode(|mode| {
            let mut server = start(&["--wait", way, "--workers", "2", "--accept", mode]);
            let mut idle = server.connect();
            assert_eq!(idle.get("/").status(), 200);
            let load = Load::start(server.address(), 3, 1);
            load.wait_for_answers(50);
            for _ in 0..3 {
                let before = server.workers();
                server.signal(Signal::SIGHUP);
                server.wait_for_log("reloaded: 2 new workers serve");
                eventually("the old workers have gone", || {
                    server.workers().iter().all(|pid| !before.contains(pid))
                });
                load.wait_for_answers(50);
            }
            load.end().assert_flawless(&format!("{way}, {mode}"));
            assert_eq!(idle.get("/").status(), 200, "{way}, {mode}: it was handed over");
        });
    }
}

#[test]
fn a_stop_waits_for_tickets_and_tells_the_application() {
    for way in WAYS {
        let server = start(&["--wait", way]);
        let mut waiting = server.connect();
        waiting.say("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
        wait_for_waiting(&server, 1);
        let mut later = server.connect();
        later.say("GET /later HTTP/1.1\r\nHost: t\r\n\r\n");
        // On one connection, the second is read when the first is answered.
        let mut echo = server.connect();
        assert_eq!(echo.get("/worker").status(), 200);
        eventually("it has come", || server.status()["workers"][0]["connections"] == 4);
        server.signal(Signal::SIGTERM);
        let answer = waiting.hear();
        assert_eq!(answer.body(), "the server stops\n", "{way}");
        assert_eq!(answer.header("Connection"), Some("close"), "{way}");
        assert_eq!(later.hear().body(), "now\n", "{way}");
        let (status, log) = server.wait();
        assert!(status.success(), "{way}: {log}");
    }
}

/// Context switches of a process so far: how often it woke up.
fn switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
    counts.map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn who_has_nothing_to_do_never_wakes_up() {
    for way in WAYS {
        let server = start(&["--wait", way]);
        let mut kept = server.connect();
        assert_eq!(kept.get("/").status(), 200);
        let [worker] = server.workers()[..] else { panic!("one worker") };
        let mut before = switches(worker);
        // As `an_idle_server_never_wakes_up`: what goes off once may, what ticks does in every window.
        let is_quiet = |_| {
            thread::sleep(Duration::from_secs(3));
            let after = switches(worker);
            mem::replace(&mut before, after) == after
        };
        assert!((0..6).any(is_quiet), "{way}");
        assert_eq!(kept.get("/").status(), 200, "{way}");
    }
}
