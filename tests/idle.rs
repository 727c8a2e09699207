//! What a server costs that has nothing to do.

mod common;

use std::fs;
use std::mem;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::{Client, Server, eventually};

/// Context switches of a process so far: how often it woke up.
fn switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
    counts.map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap()).sum()
}

/// Private memory of a process, in bytes.
fn memory(pid: i32) -> i64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    let kib: i64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[test]
fn an_idle_server_never_wakes_up() {
    for mask in ["", "all"] {
        let server = Server::start_with(&["--workers", "2"], &[("URING_POOL_MASK", mask)]);
        // It has served, and keeps a connection: what that leaves behind mustn't tick either.
        let mut kept = server.connect();
        assert_eq!(kept.get("/plaintext").status(), 200);
        let mut processes = server.workers();
        processes.push(server.pid());
        // Starting takes a while after the line that says that all are ready.
        let mut before: Vec<u64> = Vec::new();
        eventually("all are asleep", || {
            let last =
                mem::replace(&mut before, processes.iter().map(|&pid| switches(pid)).collect());
            thread::sleep(Duration::from_millis(200));
            before == last
        });
        // The time is what is measured here: 10 s are the promise, 5 are enough to break it.
        thread::sleep(Duration::from_secs(5));
        let after: Vec<u64> = processes.iter().map(|&pid| switches(pid)).collect();
        assert_eq!(before, after, "mask `{mask}`");
    }
}

#[test]
fn an_idle_connection_takes_at_most_400_bytes() {
    // Below the limit of 20,000 descriptors that some machines have.
    const CONNECTIONS: usize = 10_000;
    const WARM_UP: usize = 500;
    let server = Server::start(&["--workers", "1"]);
    let [worker] = server.workers()[..] else { panic!("one worker") };
    let address = server.address();
    let connect = |_| {
        let mut client = Client::connect(address);
        assert_eq!(client.get("/plaintext").status(), 200);
        client
    };
    let _warm: Vec<Client> = (0..WARM_UP).map(connect).collect();
    let before = memory(worker);
    let idle: Vec<Client> = (0..CONNECTIONS).map(connect).collect();
    let each = (memory(worker) - before) / CONNECTIONS as i64;
    println!("{each} bytes of user memory an idle connection");
    assert_eq!(server.status()["active_connections"], WARM_UP + CONNECTIONS + 1);
    drop(idle);
    assert!(each <= 400, "{each} bytes an idle connection");
    assert!(TcpStream::connect(address).is_ok());
}
