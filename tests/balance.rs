//! Who gets which connection, over real processes.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;

use common::load::Load;
use common::{Client, Server, embedded, eventually, kill_hard, program};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use nix::unistd::Uid;
use serde_json::Value;

const WORKERS: usize = 4;

/// On a machine that has other things to do a worker may not take a connection in time, and
/// another one gets it: once in so many times all goes as it should.
const TRIES: u32 = 5;

fn start(balance: &str, more: &[&str]) -> Server {
    let flags = ["--workers", "4", "--accept", "dispatch", "--balance", balance];
    embedded::start(&[&flags[..], more].concat())
}

/// The worker that serves a client.
fn worker_of(client: &mut Client) -> usize {
    client.get("/worker").body().parse().unwrap()
}

/// So many clients that stay, by the worker that each has.
fn settle(server: &Server, count: usize) -> BTreeMap<usize, Vec<Client>> {
    let mut by_worker: BTreeMap<usize, Vec<Client>> = BTreeMap::new();
    for mut client in (0..count).map(|_| server.connect()).collect::<Vec<_>>() {
        by_worker.entry(worker_of(&mut client)).or_default().push(client);
    }
    by_worker
}

fn counts(by_worker: &BTreeMap<usize, Vec<Client>>) -> Vec<usize> {
    by_worker.values().map(Vec::len).collect()
}

#[test]
fn round_robin_is_even() {
    let is_even = |_| counts(&settle(&start("round-robin", &[]), 40)) == [10; WORKERS];
    assert!((0..TRIES).any(is_even));
}

#[test]
fn each_gets_as_much_as_its_weight_says() {
    let weights = ["--weights", "5,2,2,1"];
    let is_fair = |_| counts(&settle(&start("weighted", &weights), 40)) == [20, 8, 8, 4];
    assert!((0..TRIES).any(is_fair));
}

#[test]
fn whoever_has_the_fewest_connections_gets_the_next() {
    let is_true = |_| {
        let server = start("least-connections", &[]);
        let mut clients = settle(&server, 40);
        if counts(&clients) != [10; WORKERS] {
            return false;
        }
        // Seven of one worker's leave: the next seven go there.
        clients.get_mut(&2).unwrap().truncate(3);
        let asking = &mut clients.get_mut(&0).unwrap()[0];
        let mut open = || {
            let status: Value = serde_json::from_str(asking.get("/status").body()).unwrap();
            let workers = status["workers"].as_array().unwrap().iter();
            workers.map(|worker| worker["connections"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        eventually("they have left", || open() == [10, 10, 3, 10]);
        let next = settle(&server, 7);
        next.keys().eq([&2]) && open() == [10; WORKERS]
    };
    assert!((0..TRIES).any(is_true));
}

#[test]
fn the_less_loaded_of_two_is_nearly_as_even() {
    let is_nearly = |_| {
        let counts = counts(&settle(&start("p2c", &[]), 200));
        counts.len() == WORKERS && counts.iter().all(|count| (35..=65).contains(count))
    };
    assert!((0..TRIES).any(is_nearly));
}

/// A connection from an address of loopback.
fn connect_from(address: Ipv4Addr, to: SocketAddr) -> Client {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddrV4::new(address, 0))).unwrap();
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    Client::of(TcpStream::from(socket))
}

#[test]
fn sticky_clients_stay_and_a_worker_that_is_lost_moves_only_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let trouble = directory.path().join("broken");
    let mut server = start("sticky", &["--broken-if", trouble.to_str().unwrap(), "2"]);
    let ask_all = |server: &Server| -> Vec<usize> {
        let client = |number| connect_from(Ipv4Addr::new(127, 0, 1, number), server.address());
        (1..=80).map(|number| worker_of(&mut client(number))).collect()
    };
    let before = ask_all(&server);
    assert_eq!(ask_all(&server), before);
    for worker in 0..WORKERS {
        assert!(before.contains(&worker), "80 clients go to all workers: {before:?}");
    }
    fs::write(&trouble, "").unwrap();
    let victim = server.status()["workers"][2]["pid"].as_i64().unwrap() as i32;
    kill_hard(victim);
    server.wait_for_log(&format!("(pid {victim}) was killed by SIGKILL"));
    let meanwhile = ask_all(&server);
    for (number, (then, now)) in before.iter().zip(&meanwhile).enumerate() {
        assert_eq!(then != now, *then == 2, "client {number} went from {then} to {now}");
    }
    fs::remove_file(&trouble).unwrap();
    eventually("it is back", || server.status()["active_workers"] == WORKERS);
    assert_eq!(ask_all(&server), before, "and so are its clients");
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.wait_for_log("reloaded: 4 new workers serve");
    assert_eq!(ask_all(&server), before, "a reload moves nobody");
}

#[test]
fn steered_mode_without_the_right_to_says_so_and_serves() {
    let mut command = program();
    if Uid::effective().is_root() {
        let whole = command;
        command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(whole.get_program());
    }
    command.args(["serve", "--listen", "127.0.0.1:0", "--workers", "2", "--accept", "steered"]);
    let mut server = Server::of(command);
    let line = server.wait_for_log("connections go to workers by their hash, not by load: ");
    assert!(line.contains("CAP_BPF"), "it says what is missing: {line}");
    assert!(server.line.contains("(shared; "), "{}", server.line);
    assert_eq!(server.status()["architecture"], "shared");
    let load = Load::start(server.address(), 4, 4);
    load.wait_for_answers(100);
    kill_hard(server.workers()[0]);
    server.wait_for_log("was killed by SIGKILL; restarting at once");
    eventually("it is replaced", || server.status()["workers"][0]["restarts"] != 0);
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.wait_for_log("reloaded: 2 new workers serve");
    load.wait_for_answers(100);
    load.end();
}
