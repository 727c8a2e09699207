//! Binary upgrades: another master takes over, and no client notices.

mod common;

use std::fs;
use std::net::TcpStream;

use common::load::Load;
use common::observer::Observer;
use common::{
    Client, MODES, Server, eventually, foster_parent, freeze, is_frozen, is_running, kill_hard,
    thaw,
};
use nix::sys::signal::Signal;

fn three_upgrades_under_load(mask: &str) {
    foster_parent();
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("pid");
    for mode in MODES {
        let flags = ["--workers", "2", "--accept", mode, "--pid-file", pid_file.to_str().unwrap()];
        let mut server = Server::start_with(&flags, &[("URING_POOL_MASK", mask)]);
        let address = server.address();
        let named = || fs::read_to_string(&pid_file).unwrap();
        assert_eq!(named(), format!("{}\n", server.pid()));
        let observer = Observer::start(address);
        let load = Load::start(address, 6, 2);
        load.wait_for_answers(100);
        let mut idle = Client::connect(address);
        assert_eq!(idle.get("/plaintext").status(), 200);
        for round in 1..=3 {
            let old = server.pid();
            let old_workers = server.workers();
            server.upgrade();
            assert_ne!(server.pid(), old, "{mode}");
            assert_eq!(named(), format!("{}\n", server.pid()), "{mode}");
            assert!(!old_workers.iter().any(|pid| is_running(*pid)), "{mode}");
            assert_eq!(server.workers().len(), 2, "{mode}");
            assert_eq!(server.status()["upgrades"], round, "{mode}");
            load.wait_for_answers(100);
        }
        // The successor can do all that the first master could.
        server.signal(Signal::SIGHUP);
        server.wait_for_log("reloaded: 2 new workers serve");
        load.wait_for_answers(100);
        observer.end();
        load.end().assert_flawless(mode);
        assert_eq!(idle.get("/plaintext").status(), 200, "{mode}: it was handed over each time");
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait();
        assert!(status.success(), "{mode}: {log}");
        assert!(TcpStream::connect(address).is_err(), "{mode}: somebody still listens");
        assert!(!pid_file.exists(), "{mode}");
    }
}

#[test]
fn no_client_notices_three_upgrades() {
    three_upgrades_under_load("");
}

#[test]
fn no_client_notices_three_upgrades_on_an_old_kernel() {
    three_upgrades_under_load("all");
}

#[test]
fn a_request_under_way_is_finished_by_the_old_master() {
    foster_parent();
    for mode in MODES {
        let mut server = Server::start(&["--workers", "2", "--accept", mode]);
        let mut uploading = server.connect();
        uploading.say("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello");
        eventually("the upload is being served", || server.status()["total_requests"] != 1);
        server.signal(Signal::SIGUSR2);
        server.wait_for_log("upgraded: the new master serves");
        assert_eq!(server.connect().get("/plaintext").status(), 200, "{mode}");
        uploading.say("world");
        assert_eq!(uploading.hear().body(), "helloworld", "{mode}");
        // Now it idles, and is handed over.
        let old = server.pid();
        let status = server.child.wait().unwrap();
        assert!(status.success(), "{mode}: {old} {status}");
        assert_eq!(uploading.get("/plaintext").status(), 200, "{mode}");
        let new = server.status()["workers"][0]["pid"].as_i64().unwrap() as i32;
        server.succeed(common::parent(new));
    }
}

#[test]
fn a_new_master_that_dies_changes_nothing() {
    foster_parent();
    for mode in MODES {
        let mut server = Server::start(&["--workers", "2", "--accept", mode]);
        let workers = server.workers();
        let load = Load::start(server.address(), 4, 2);
        load.wait_for_answers(50);
        server.signal(Signal::SIGUSR2);
        let line = server.wait_for_log("upgrading: the new master has pid ");
        let new: i32 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        kill_hard(new);
        server.wait_for_log("the upgrade failed, and this master goes on");
        load.wait_for_answers(100);
        load.end().assert_flawless(mode);
        let mut left = server.workers();
        left.sort_unstable();
        assert_eq!(left, workers, "{mode}");
    }
}

#[test]
fn a_new_master_serves_at_once_beside_an_old_worker_that_is_busy() {
    foster_parent();
    for mode in MODES {
        let mut server = Server::start(&["--workers", "1", "--accept", mode]);
        let busy = server.workers()[0];
        freeze(busy);
        server.signal(Signal::SIGUSR2);
        let line = server.wait_for_log("upgrading: the new master has pid ");
        let (_, new) = line.rsplit_once(' ').unwrap();
        server.wait_for_log("upgraded: the new master serves");
        for _ in 0..20 {
            assert_eq!(server.connect().get("/plaintext").status(), 200, "{mode}");
        }
        assert!(is_frozen(busy), "{mode}: nobody waited for it");
        thaw(busy);
        assert!(server.child.wait().unwrap().success(), "{mode}");
        server.succeed(new.parse().unwrap());
        for _ in 0..20 {
            assert_eq!(server.connect().get("/plaintext").status(), 200, "{mode}: alone now");
        }
    }
}
