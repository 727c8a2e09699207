//! Too much of something: connections, descriptors, messages. Who can't be served yet waits, who
//! can't be served at all is told so, and nobody spins.

mod common;

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Answer, Client, MODES, Server, embedded, eventually, freeze, processor_ticks};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const REQUEST: &str = "GET /plaintext HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

fn go_on(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
}

/// Processor time that these processes use in a second.
fn used_in_a_second(pids: &[i32]) -> Duration {
    let ticks = || pids.iter().map(|pid| processor_ticks(*pid)).sum::<u64>();
    let before = ticks();
    thread::sleep(Duration::from_secs(1)); // what is measured
    Duration::from_millis(10 * (ticks() - before))
}

/// So many clients that have connected and asked.
fn ask_all(server: &Server, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.say(REQUEST));
    clients
}

fn assert_all_answered(clients: Vec<Client>, what: &str) {
    for (number, mut client) in clients.into_iter().enumerate() {
        let answer = client.hear();
        assert_eq!(answer.status(), 200, "{what}: client {number}");
    }
}

/// Of a process that runs.
fn limit_descriptors(pid: i32, descriptors: u32) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--nofile={descriptors}:{descriptors}")]);
    assert!(command.status().unwrap().success());
}

fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert_eq!(answer.header("Connection"), Some("close"));
}

/// Whoever works doesn't have to make room for others, however long it takes.
fn begin_upload(client: &mut Client) {
    let fields = "Host: t\r\nContent-Length: 5\r\nExpect: 100-continue";
    client.say(format!("POST /echo HTTP/1.1\r\n{fields}\r\n\r\n"));
    assert_eq!(client.hear_head(), "HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn who_finds_the_queue_full_or_waits_too_long_is_told_to_come_back() {
    for mask in ["", "all"] {
        let server = Server::start_with(
            &[
                "--workers=2",
                "--accept=dispatch",
                "--connections-max=2",
                "--queue-max=3",
                "--queue-timeout=1s",
            ],
            &[("URING_POOL_MASK", mask)],
        );
        let mut open: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        assert_eq!(open[0].get("/plaintext").status(), 200);
        open[1..].iter_mut().for_each(begin_upload);
        let begun = Instant::now();
        let mut waiting = ask_all(&server, 3);
        eventually("they wait", || {
            let status = serde_json::from_str::<Value>(open[0].get("/status").body());
            status.unwrap()["queue_size"] == 3
        });
        let mut refused = server.connect();
        refused.say(REQUEST);
        assert_refused(&refused.hear());
        assert!(refused.is_closed_by_server());
        assert!(begun.elapsed() < Duration::from_secs(1), "the machine is too slow for this test");
        // Room for one, and the one that came first gets it.
        drop(open.pop());
        assert_eq!(waiting.remove(0).hear().status(), 200);
        // Its connection is closed with the answer, so there is room for the next one, and so on.
        assert_all_answered(waiting, "there was room");
        // Now nobody leaves.
        open.push(server.connect());
        [0, 3].iter().for_each(|at| begin_upload(&mut open[*at]));
        let since = Instant::now();
        let mut late = server.connect();
        late.say(REQUEST);
        assert_refused(&late.hear());
        assert!(since.elapsed() >= Duration::from_secs(1), "it had its time");
        assert!(late.is_closed_by_server());
        open[0].say("hello");
        assert_eq!(open[0].hear().body(), "hello");
        let status: Value = serde_json::from_str(open[0].get("/status").body()).unwrap();
        assert_eq!((&status["refused"], &status["queue_size"]), (&2.into(), &0.into()), "{status}");
    }
}

#[test]
fn a_master_accepts_what_it_has_descriptors_for_and_goes_on_when_it_has_more() {
    // It bounds itself by what it has at the start; the last is less then than it needs later.
    for (descriptors, later) in [(340, None), (64, None), (340, Some(64))] {
        for mask in ["", "all"] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("edge.toml");
            fs::write(&file, format!("descriptors_max = {descriptors}\n")).unwrap();
            let flags = ["-c", file.to_str().unwrap(), "--workers", "2", "--accept", "dispatch"];
            let mut server = Server::start_with(&flags, &[("URING_POOL_MASK", mask)]);
            let workers = server.workers();
            workers.iter().for_each(|pid| freeze(*pid));
            if let Some(descriptors) = later {
                limit_descriptors(server.pid(), descriptors);
            }
            let clients = ask_all(&server, 300);
            if later.is_some() {
                server.wait_for_log("cannot accept a connection: Too many open files");
            }
            let used = used_in_a_second(&[server.pid()]);
            assert!(used < Duration::from_millis(300), "it spins: {used:?} of a second");
            workers.iter().for_each(|pid| go_on(*pid));
            assert_all_answered(clients, mask);
            let status = server.status();
            assert_eq!((&status["refused"], &status["dispatched"]), (&0.into(), &301.into()));
        }
    }
}

#[test]
fn workers_out_of_descriptors_wait_for_some() {
    for mode in MODES {
        let mut server = embedded::start(&["--accept", mode, "--descriptors-max", "64"]);
        let workers = server.workers();
        // Handlers have taken nearly all that there are.
        let mut hoarding = Vec::new();
        while hoarding.len() < 2 {
            let mut client = server.connect();
            let worker = client.get("/worker").body().to_owned();
            if hoarding.iter().all(|(other, _)| *other != worker) {
                assert_eq!(client.get("/hoard").status(), 200);
                hoarding.push((worker, client));
            }
        }
        let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.say("GET /plaintext HTTP/1.1\r\nHost: t\r\n\r\n"); // and it stays
        }
        server.wait_for_log(match mode {
            "dispatch" => "no descriptor was left for ",
            _ => "cannot accept a connection: Too many open files",
        });
        let all = [&workers[..], &[server.pid()]].concat();
        let used = used_in_a_second(&all);
        assert!(used < Duration::from_millis(300), "{mode}: {used:?} of a second");
        for (_, mut client) in hoarding {
            assert_eq!(client.get("/release").status(), 200);
        }
        assert_all_answered(clients, mode);
        let status = server.status();
        assert_eq!(status["refused"], 0, "{mode}");
        let failed = status["errors"]["failed_accepts"].as_u64().unwrap();
        assert_eq!(failed > 0, mode != "dispatch", "{mode}: {failed}");
        assert!(failed < 500, "{mode}: {failed}");
    }
}

#[test]
fn a_worker_that_reads_nothing_keeps_nobody_waiting_and_loses_nothing() {
    // Far more than fits into its channel, while the other one serves.
    for mask in ["", "all"] {
        let flags = ["--workers", "2", "--accept", "dispatch", "--balance", "round-robin"];
        let server = Server::start_with(&flags, &[("URING_POOL_MASK", mask)]);
        let [stopped, _] = server.workers()[..] else { panic!("two workers") };
        freeze(stopped);
        let clients = ask_all(&server, 1500);
        assert_all_answered(clients, mask);
        go_on(stopped);
        assert_all_answered(ask_all(&server, 100), mask);
        let status = server.status();
        assert_eq!((&status["refused"], &status["dispatched"]), (&0.into(), &1601.into()));
        assert_eq!(status["total_connections"], 1601);
    }
}

/// The memory that a process occupies, in KiB.
fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn messages_to_a_worker_that_reads_none_wait_in_order_and_not_without_bound() {
    for (count, all_arrive) in [("5000", true), ("100000", false)] {
        let mut server = embedded::start(&["--workers", "1", "--tell", count]);
        let mut client = server.connect();
        assert_eq!(client.get("/heard").body(), "0 in order");
        let [worker] = server.workers()[..] else { panic!("one worker") };
        freeze(worker);
        let before = resident_kib(server.pid());
        server.signal(Signal::SIGWINCH);
        if !all_arrive {
            server.wait_for_log("reads none of its messages: dropping new ones");
        }
        let used = used_in_a_second(&[server.pid()]);
        assert!(used < Duration::from_millis(700), "it spins: {used:?} of a second");
        let grown = resident_kib(server.pid()).saturating_sub(before);
        assert!(all_arrive || grown < 64 << 10, "{grown} KiB more");
        go_on(worker);
        let sent: u64 = count.parse().unwrap();
        eventually("all has been heard", || {
            let status: Value = serde_json::from_str(client.get("/status").body()).unwrap();
            let dropped = status["dropped_messages"].as_u64().unwrap();
            assert_eq!(dropped == 0, all_arrive, "{dropped}");
            client.get("/heard").body() == format!("{} in order", sent - dropped)
        });
    }
}
