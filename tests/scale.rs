//! More and fewer workers at run time, by the configuration or by a handle: no client notices.

mod common;

use std::fs;

use common::load::Load;
use common::observer::{Observer, assert_none_forgotten};
use common::{Client, MODES, Server, children, embedded, eventually, foster_parent, kill_hard};
use nix::sys::signal::Signal;

fn await_workers(server: &Server, count: usize, mode: &str) {
    eventually("the old workers have gone", || server.workers().len() == count);
    let status = server.status();
    assert_eq!(status["total_workers"], count, "{mode}");
    eventually("each serves", || server.status()["active_workers"] == count);
}

fn scale_by_file(mask: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edge.toml");
    for mode in MODES {
        let write = |workers: usize| fs::write(&file, format!("workers = {workers}\n")).unwrap();
        write(2);
        let flags = ["-c", file.to_str().unwrap(), "--accept", mode];
        let mut server = Server::start_with(&flags, &[("URING_POOL_MASK", mask)]);
        let observer = Observer::start(server.address());
        let load = Load::start(server.address(), 6, 3);
        load.wait_for_answers(50);
        let mut idle = Client::connect(server.address());
        assert_eq!(idle.get("/plaintext").status(), 200);
        for workers in [4, 1, 3, 2] {
            write(workers);
            server.signal(Signal::SIGHUP);
            server.wait_for_log(&format!("reloaded: {workers} new workers serve"));
            await_workers(&server, workers, mode);
            load.wait_for_answers(50);
        }
        // What is wrong changes nothing.
        fs::write(&file, "workers = 5000\n").unwrap();
        server.signal(Signal::SIGHUP);
        let line = server.wait_for_log("the settings can't be used, and nothing changes: ");
        assert!(line.contains("5000") && line.contains("1024"), "{line}");
        await_workers(&server, 2, mode);
        load.wait_for_answers(50);
        assert_eq!(idle.get("/plaintext").status(), 200, "{mode}: it was handed over each time");
        observer.end();
        load.end().assert_flawless(mode);
        assert_none_forgotten(&server, mode);
    }
}

#[test]
fn no_client_notices_another_number_of_workers() {
    scale_by_file("");
}

#[test]
fn no_client_notices_another_number_of_workers_on_an_old_kernel() {
    scale_by_file("all");
}

#[test]
fn no_client_notices_that_a_handle_scales() {
    for mode in MODES {
        for scaled in [5, 1] {
            let to = scaled.to_string();
            let mut server = embedded::start(&["--accept", mode, "--scale-to", &to]);
            let load = Load::start(server.address(), 4, 3);
            load.wait_for_answers(50);
            server.signal(Signal::SIGWINCH);
            server.wait_for_log(&format!("reloaded: {scaled} new workers serve"));
            await_workers(&server, scaled, mode);
            load.wait_for_answers(50);
            // A reload asks the configuration again.
            server.signal(Signal::SIGHUP);
            server.wait_for_log("reloaded: 2 new workers serve");
            await_workers(&server, 2, mode);
            load.wait_for_answers(50);
            load.end().assert_flawless(mode);
        }
    }
}

/// Whichever of the two masters is asked, whoever serves in the end has the number.
#[test]
fn a_number_of_workers_that_is_wished_for_during_an_upgrade_is_not_forgotten() {
    foster_parent();
    for mode in MODES {
        let mut server = embedded::start(&["--accept", mode, "--scale-to", "5"]);
        let mut waiting = server.connect(); // so that the old master stays for a while
        waiting.say("GET /wait HTTP/1.1\r\nHost: t\r\n\r\n");
        server.signal(Signal::SIGUSR2);
        let line = server.wait_for_log("upgrading: the new master has pid ");
        let new = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        server.signal(Signal::SIGWINCH);
        server.wait_for_log("reloaded: 5 new workers serve");
        eventually("the new master has five workers", || children(new).len() == 5);
        kill_hard(server.pid());
        assert!(!server.child.wait().unwrap().success());
        server.succeed(new);
        await_workers(&server, 5, mode);
    }
}

/// New sockets share the port with those that serve: the kernel must send nobody there before somebody
/// is sure to serve them.
#[test]
fn no_client_notices_workers_that_were_to_be_added_and_fail() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken");
    for mode in MODES {
        // The last of the new workers breaks, when most of the others are ready.
        let flags = ["--accept", mode, "--scale-to", "6", "--broken-if", broken.to_str().unwrap()];
        let mut server = embedded::start(&[&flags[..], &["5"]].concat());
        let load = Load::start(server.address(), 2, 6);
        load.wait_for_answers(50);
        fs::write(&broken, "").unwrap();
        for _ in 0..5 {
            server.signal(Signal::SIGWINCH);
            server.wait_for_log("the reload failed, and the old workers serve on");
            load.wait_for_answers(20);
        }
        await_workers(&server, 2, mode);
        fs::remove_file(&broken).unwrap();
        server.signal(Signal::SIGWINCH);
        server.wait_for_log("reloaded: 6 new workers serve");
        await_workers(&server, 6, mode);
        load.wait_for_answers(100);
        load.end().assert_flawless(mode);
        // And each of them has what it needs to serve.
        let total = |id: usize| server.status()["workers"][id]["total_connections"].as_u64();
        eventually("each gets connections", || (0..6).all(|id| total(id) > Some(0)));
    }
}
