//! Reloads and recycling: no client notices, and no figure goes back.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::load::Load;
use common::observer::Observer;
use common::{Client, MODES, PATIENCE, Server, eventually, freeze, is_frozen, thaw};
use nix::sys::signal::Signal;

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

/// A worker that computes for long neither accepts nor ends, and is told of connections all the same.
#[test]
fn new_workers_serve_at_once_beside_an_old_one_that_is_busy() {
    for mode in MODES {
        let mut server = Server::start(&["--workers", "1", "--accept", mode]);
        let old = server.workers()[0];
        freeze(old);
        server.signal(Signal::SIGHUP);
        server.wait_for_log("reloaded: 1 new workers serve");
        for _ in 0..20 {
            assert_eq!(server.connect().get("/plaintext").status(), 200, "{mode}");
        }
        assert!(is_frozen(old), "{mode}: nobody waited for it");
        thaw(old);
        eventually("it has left", || !server.workers().contains(&old));
        for _ in 0..20 {
            assert_eq!(server.connect().get("/plaintext").status(), 200, "{mode}: alone now");
        }
    }
}

/// A Unix socket is one for all workers.
#[test]
fn a_busy_worker_keeps_no_client_of_a_unix_socket_waiting() {
    let directory = tempfile::tempdir().unwrap();
    for mode in MODES {
        let path = directory.path().join(mode);
        let listen = format!("unix:{}", path.display());
        let workers = ["--workers", "3", "--accept", mode];
        let server = Server::start(&[&["--listen", &listen][..], &workers].concat());
        for worker in server.workers() {
            freeze(worker);
            (0..20).for_each(|_| ask_unix(&path));
            assert!(is_frozen(worker), "{mode}: nobody waited for it");
            thaw(worker);
        }
    }
}

fn ask_unix(path: &Path) {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET /plaintext HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
