//! A pool that is process 1, as in a container without an init of its own.

mod common;

use std::process::Command;

use common::{Server, eventually, is_running, kill_hard};
use nix::sys::signal::Signal;

/// A server in a namespace of process ids of its own, and its id out here.
fn contained() -> (Server, i32) {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare.args([env!("CARGO_BIN_EXE_uring-pool"), "serve", "--listen", "127.0.0.1:0"]);
    let server = Server::of(unshare);
    let [master] = server.workers()[..] else { panic!("unshare has one child") };
    (server, master)
}

#[test]
fn whoever_loses_his_parent_in_the_container_is_collected() {
    let (server, master) = contained();
    let target = format!("--target={master}");
    let orphan = ["--user", "--preserve-credentials", "--pid", "sh", "-c", "sleep 600 & :"];
    let status = Command::new("nsenter").arg(target).args(orphan).status().unwrap();
    assert!(status.success());
    let is_sleep = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
    };
    let mut sleeping = None;
    eventually("the orphan is the master's", || {
        sleeping = common::children(master).into_iter().find(is_sleep);
        sleeping.is_some()
    });
    let orphan = sleeping.unwrap();
    kill_hard(orphan);
    eventually("it is collected", || !std::path::Path::new(&format!("/proc/{orphan}")).exists());
    assert_eq!(server.connect().get("/plaintext").status(), 200);
}

#[test]
fn process_one_stops_as_any_other() {
    let (server, master) = contained();
    let workers = common::children(master);
    assert_eq!(server.connect().get("/plaintext").status(), 200);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(master), Signal::SIGTERM).unwrap();
    let (status, log) = server.wait();
    assert!(status.success(), "{status}: {log}");
    assert!(!workers.into_iter().any(is_running));
}
