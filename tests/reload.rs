//! Reloads and recycling: no client notices, and no figure goes back.

mod common;

use common::load::Load;
use common::observer::Observer;
use common::{Client, MODES, Server, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Does something to a server under load in every mode, with all features or none; nobody may notice.
fn unnoticed(flags: &[&str], mask: &str, event: impl Fn(&mut Server, &Load, &str)) {
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

#[test]
fn no_client_notices_a_worker_that_somebody_told_to_end() {
    unnoticed(&[], "", |server, _, mode| {
        let before = server.workers();
        kill(Pid::from_raw(before[0]), Signal::SIGTERM).unwrap();
        server.wait_for_log("was told to end by a signal: starting a successor");
        eventually("it has gone", || {
            let now = server.workers();
            now.len() == 2 && !now.contains(&before[0])
        });
        assert!(server.workers().contains(&before[1]), "{mode}: the other one stays");
    });
}
