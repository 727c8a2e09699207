//! Reloads and recycling: no client notices, and no figure goes back.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use common::load::Load;
use common::{Client, MODES, Server, eventually, foster_parent};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Values of `/status` that may go down: what there is now, rates and quantiles.
const NO_COUNTERS: [&str; 18] = [
    "active_workers",
    "alive_workers",
    "requests_per_second",
    "avg_request_duration_ms",
    "min_request_duration_ms",
    "p50_request_duration_ms",
    "p90_request_duration_ms",
    "p99_request_duration_ms",
    "p999_request_duration_ms",
    "active_connections",
    "queue_size",
    "pid",
    "core",
    "connections",
    "idle_time",
    "memory_usage",
    "loop_delay_ms",
    "uptime",
];

/// Reads `/status` over and over, on one connection, and compares each counter to what it was.
struct Observer {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Observer {
    fn start(address: SocketAddr) -> Observer {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut client = Client::connect(address);
            let mut last = BTreeMap::new();
            while !ends.load(Ordering::Relaxed) {
                let status = serde_json::from_str(client.get("/status").body()).unwrap();
                let mut now = BTreeMap::new();
                collect("", &status, &mut now);
                for (key, before) in &last {
                    let after: f64 = now.get(key).copied().unwrap_or_default();
                    assert!(after >= *before, "{key} went from {before} to {after}: {status}");
                }
                last = now;
            }
        });
        Observer { is_over, thread }
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Every counter below a value, by its path.
fn collect(path: &str, value: &Value, counters: &mut BTreeMap<String, f64>) {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !NO_COUNTERS.contains(&key.as_str()) && !key.ends_with("_at"))
            .for_each(|(key, value)| collect(&format!("{path}/{key}"), value, counters)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, value)| collect(&format!("{path}/{at}"), value, counters)),
        Value::Number(number) => _ = counters.insert(path.to_owned(), number.as_f64().unwrap()),
        _ => {}
    }
}

/// Does something to a server under load in every mode, with all features or none; nobody may notice.
fn unnoticed(flags: &[&str], mask: &str, event: impl Fn(&mut Server, &Load, &str)) {
    foster_parent();
    for mode in MODES {
        let flags = [&["--workers", "2", "--accept", mode], flags].concat();
        let mut server = Server::start_with(&flags, &[("URING_POOL_MASK", mask)]);
        let observer = Observer::start(server.address());
        let load = Load::start(server.address(), 6, 2);
        load.wait_for_answers(100);
        event(&mut server, &load, mode);
        load.wait_for_answers(100);
        observer.end();
        let outcome = load.end();
        outcome.assert_flawless(mode);
        // Six kept ones, and one for each answer of the others.
        let status = server.status();
        assert_eq!(status["errors"]["malformed"], 0, "{mode}: {status}");
        println!("{mode}: {} answers on {} connections", outcome.answers, outcome.connections);
    }
}

fn reload(server: &mut Server, load: &Load, mode: &str) {
    let address = server.address();
    let mut idle = Client::connect(address);
    assert_eq!(idle.get("/plaintext").status(), 200);
    for round in 1..=10 {
        let before = server.workers();
        server.signal(if round % 2 == 0 { Signal::SIGHUP } else { Signal::SIGUSR1 });
        server.wait_for_log("reloaded: 2 new workers serve");
        eventually("the old workers have gone", || {
            server.workers().iter().all(|pid| !before.contains(pid))
        });
        load.wait_for_answers(50);
    }
    assert_eq!(idle.get("/plaintext").status(), 200, "{mode}: it was handed over ten times");
    let status = server.status();
    assert_eq!(status["reloads"], 10, "{mode}");
    assert!(status["handed_over"].as_u64().unwrap() >= 10, "{mode}: {status}");
}

#[test]
fn no_client_notices_ten_reloads() {
    unnoticed(&[], "", reload);
}

#[test]
fn no_client_notices_ten_reloads_on_an_old_kernel() {
    unnoticed(&[], "all", reload);
}

#[test]
fn no_client_notices_twenty_workers_recycled() {
    unnoticed(&["--recycle-requests", "400"], "", |server, _, mode| {
        let restarts = || {
            let status = server.status();
            let workers = status["workers"].as_array().unwrap();
            workers.iter().map(|worker| worker["restarts"].as_u64().unwrap()).sum::<u64>()
        };
        eventually("twenty workers are recycled", || restarts() >= 20);
        assert!(!server.log().contains("serves on"), "{mode}");
    });
}
