//! Stopping, crashing, being orphaned: what the clients of a pool see of it.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{
    Client, MODES, PATIENCE, Server, eventually, freeze, is_asleep, is_running, kill_hard, thaw,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const UPLOAD: &str = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello";

/// Each test of this file with the newest kernel features, and without any.
fn with_and_without_features(test: impl Fn(&dyn Fn(&[&str]) -> Server)) {
    test(&|flags| Server::start(flags));
    test(&|flags| Server::start_with(flags, &[("URING_POOL_MASK", "all")]));
}

#[test]
fn a_graceful_stop_answers_what_has_begun() {
    with_and_without_features(|start| {
        let server = start(&["--workers", "2"]);
        let address = server.address();
        let mut uploading = server.connect();
        uploading.say(UPLOAD);
        let mut idle = server.connect();
        assert_eq!(idle.get("/plaintext").status(), 200);
        server.signal(Signal::SIGTERM);
        assert!(idle.is_closed_by_server());
        uploading.say("world");
        let answer = uploading.hear();
        assert_eq!((answer.status(), answer.body()), (200, "helloworld"));
        assert_eq!(answer.header("Connection"), Some("close"));
        drop(uploading);
        let (status, log) = server.wait();
        assert!(status.success(), "{status}: {log}");
        assert!(TcpStream::connect(address).is_err(), "somebody still listens");
    });
}

/// Whoever isn't alone at a socket is told of a client first, and takes it then.
#[test]
fn a_stop_answers_who_came_before_to_a_socket_of_all_workers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sock");
    with_and_without_features(|start| {
        let listen = format!("unix:{}", path.display());
        let mut server = start(&["--workers", "2", "--listen", &listen]);
        let workers = server.workers();
        workers.iter().for_each(|worker| freeze(*worker));
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"GET /plaintext HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        server.signal(Signal::SIGTERM);
        server.wait_for_log("SIGTERM: stopping");
        workers.iter().for_each(|worker| thaw(*worker));
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(server.wait().0.success());
    });
}

/// Each worker finds its clients and its order to stop at the same time, whether it has just begun or
/// has served before, and whatever it waits for a client with.
#[test]
fn a_stop_answers_everybody_who_came_before() {
    const CLIENTS: usize = 12;
    for has_served in [false, true] {
        with_and_without_features(|start| {
            let mut server = start(&["--workers", "2"]);
            let workers = server.workers();
            if has_served {
                (0..CLIENTS).for_each(|_| {
                    assert_eq!(server.connect().get("/plaintext").status(), 200);
                });
            }
            workers.iter().for_each(|worker| freeze(*worker));
            let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
            for client in &mut clients {
                client.say("GET /plaintext HTTP/1.1\r\nHost: t\r\n\r\n");
            }
            server.signal(Signal::SIGTERM);
            server.wait_for_log("SIGTERM: stopping");
            workers.iter().for_each(|worker| thaw(*worker));
            for client in &mut clients {
                assert_eq!(client.hear().body(), "Hello, World!");
            }
            drop(clients);
            assert!(server.wait().0.success());
        });
    }
}

/// Where the master accepts, clients come to it and the order to stop does at the same time.
#[test]
fn a_stop_serves_who_waits_in_the_master() {
    const CLIENTS: usize = 12;
    let ask = |server: &Server| {
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
        let request = "GET /plaintext HTTP/1.1\r\nHost: t\r\n\r\n";
        clients.iter_mut().for_each(|client| client.say(request));
        clients
    };
    for balance in ["least-connections", "sticky"] {
        with_and_without_features(|start| {
            let flags = ["--workers", "2", "--accept", "dispatch", "--balance", balance];
            let server = start(&flags);
            let (master, workers) = (server.pid(), server.workers());
            let before = sockets(master);
            // Some are with the workers already, who haven't taken them.
            workers.iter().for_each(|worker| freeze(*worker));
            let mut clients = ask(&server);
            eventually("they are passed on", || sockets(master) == before + CLIENTS);
            freeze(master);
            clients.extend(ask(&server));
            server.signal(Signal::SIGTERM);
            workers.iter().for_each(|worker| thaw(*worker));
            thaw(master);
            for client in &mut clients {
                assert_eq!(client.hear().body(), "Hello, World!", "{balance}");
            }
            drop(clients);
            let (status, log) = server.wait();
            assert!(status.success(), "{log}");
        });
    }
}

/// How many a process has open.
fn sockets(pid: i32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn a_stop_answers_whom_nobody_can_serve() {
    with_and_without_features(|start| {
        let flags = ["--workers", "1", "--accept", "dispatch", "--connections-max", "1"];
        let server = start(&flags);
        let mut uploading = server.connect();
        uploading.say(UPLOAD.replace("\r\n\r\nhello", "\r\nExpect: 100-continue\r\n\r\n"));
        assert_eq!(uploading.hear_head(), "HTTP/1.1 100 Continue\r\n\r\n");
        freeze(server.pid());
        let mut waiting: Vec<Client> = (0..5).map(|_| server.connect()).collect();
        for client in &mut waiting {
            client.say("GET /plaintext HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        server.signal(Signal::SIGTERM);
        thaw(server.pid());
        for client in &mut waiting {
            let answer = client.hear();
            assert_eq!((answer.status(), answer.header("Retry-After")), (503, Some("1")));
        }
        uploading.say("helloworld");
        assert_eq!(uploading.hear().body(), "helloworld");
        assert!(server.wait().0.success());
    });
}

/// Nobody would accept them for as long as that takes.
#[test]
fn who_comes_while_a_stop_finishes_what_is_open_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for mode in MODES {
        let path = directory.path().join(mode);
        let listen = format!("unix:{}", path.display());
        let addresses = ["--listen", "127.0.0.1:0", "--listen", &listen];
        let server =
            Server::start(&[&addresses[..], &["--workers", "2", "--accept", mode]].concat());
        let mut uploading = server.connect();
        uploading.say(UPLOAD);
        eventually("the upload is accepted", || {
            server.status()["bytes_received"].as_u64().unwrap() >= UPLOAD.len() as u64
        });
        server.signal(Signal::SIGTERM);
        eventually("nobody listens", || TcpStream::connect(server.address()).is_err());
        assert!(UnixStream::connect(&path).is_err(), "{mode}");
        uploading.say("world");
        assert_eq!(uploading.hear().body(), "helloworld", "{mode}");
        let (status, log) = server.wait();
        assert!(status.success(), "{mode}: {log}");
    }
}

/// A connection that a leaving worker has given back is on its way to the next one.
#[test]
fn a_stop_loses_no_request_of_a_connection_that_changes_workers() {
    for mode in MODES {
        let mut server = Server::start(&["--workers", "1", "--accept", mode]);
        let (master, old) = (server.pid(), server.workers()[0]);
        let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/plaintext").status(), 200, "{mode}");
        }
        freeze(old);
        server.signal(Signal::SIGHUP);
        server.wait_for_log("reloaded: 1 new workers serve");
        eventually("it has told the old one", || is_asleep(master));
        freeze(master);
        thaw(old);
        eventually("it has handed them over", || !is_running(old));
        for client in &mut clients {
            client.say("GET /plaintext HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        server.signal(Signal::SIGTERM);
        thaw(master);
        for client in &mut clients {
            let status = client.hear().status();
            assert!(matches!(status, 200 | 503), "{mode}: {status}");
        }
        drop(clients);
        assert!(server.wait().0.success(), "{mode}");
    }
}

#[test]
fn a_request_that_races_with_the_stop_is_still_answered() {
    let server = Server::start(&["--workers", "1"]);
    let mut idle = server.connect();
    assert_eq!(idle.get("/plaintext").status(), 200);
    server.signal(Signal::SIGINT);
    // Within the grace of a draining connection, however the two race.
    let answer = idle.get("/plaintext");
    assert_eq!(answer.status(), 200);
    drop(idle);
    assert!(server.wait().0.success());
}

#[test]
fn a_second_signal_stops_at_once() {
    with_and_without_features(|start| {
        let mut server = start(&["--workers", "2"]);
        let mut uploading = server.connect();
        uploading.say(UPLOAD); // which would keep it for its 30 s
        // Not in a queue, where it would be answered by the master in the end.
        eventually("it is being served", || server.status()["active_connections"] == 2);
        server.signal(Signal::SIGTERM);
        server.wait_for_log("stopping");
        server.signal(Signal::SIGTERM);
        assert!(uploading.is_closed_by_server());
        server.wait();
    });
}

#[test]
fn a_killed_worker_is_replaced_and_its_queue_served() {
    with_and_without_features(|start| {
        let mut server = start(&["--workers", "1"]);
        let [victim] = server.workers()[..] else { panic!("one worker") };
        // Stopped, it accepts nothing: this connection waits in its queue.
        freeze(victim);
        let mut waiting = server.connect();
        waiting.say("GET /plaintext HTTP/1.1\r\nHost: t\r\n\r\n");
        kill_hard(victim);
        assert_eq!(waiting.hear().body(), "Hello, World!");
        let line = server.wait_for_log("SIGKILL");
        assert!(line.contains(&victim.to_string()), "{line}");
        let [successor] = server.workers()[..] else { panic!("one worker again") };
        assert_ne!(successor, victim);
        assert_eq!(server.status()["workers"][0]["restarts"], 1);
    });
}

#[test]
fn killing_workers_under_load_costs_only_their_own_connections() {
    let server = Server::start(&["--workers", "2"]);
    let address = server.address();
    let stop = Arc::new(AtomicBool::new(false));
    let (answered, cut) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    const CLIENTS: u64 = 4;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (stop, answered, cut) = (stop.clone(), answered.clone(), cut.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // A connection is never refused, whoever is dead.
                    let mut client = Client::connect(address);
                    for _ in 0..20 {
                        let Some(answer) = client.try_get("/plaintext") else {
                            cut.fetch_add(1, Ordering::Relaxed);
                            break;
                        };
                        assert_eq!(answer.body(), "Hello, World!");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    const KILLS: u64 = 6;
    for round in 0..KILLS {
        let before = answered.load(Ordering::Relaxed);
        eventually("the load goes on", || answered.load(Ordering::Relaxed) > before + 200);
        let workers = server.workers();
        kill_hard(workers[round as usize % workers.len()]);
        eventually("the successor is there", || server.workers().len() == 2);
    }
    let before = answered.load(Ordering::Relaxed);
    eventually("all is well again", || answered.load(Ordering::Relaxed) > before + 200);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap(); // a refused connection or a wrong answer fails here
    }
    let cut = cut.load(Ordering::Relaxed);
    assert!(cut <= KILLS * CLIENTS, "{cut} connections were cut by {KILLS} kills");
}

#[test]
fn workers_of_a_killed_master_finish_and_go() {
    for mode in MODES {
        with_and_without_features(|start| {
            let server = start(&["--workers", "2", "--accept", mode]);
            let address = server.address();
            let workers = server.workers();
            assert_eq!(workers.len(), 2);
            let mut uploading = server.connect();
            uploading.say(UPLOAD);
            let mut idle = server.connect();
            assert_eq!(idle.get("/plaintext").status(), 200);
            // Wait until the upload is being served, so that it has begun before the master goes.
            eventually("the upload is accepted", || {
                server.status()["bytes_received"].as_u64().unwrap() >= UPLOAD.len() as u64
            });
            kill_hard(server.pid());
            assert!(idle.is_closed_by_server(), "{mode}");
            uploading.say("world");
            assert_eq!(uploading.hear().body(), "helloworld", "{mode}");
            drop(uploading);
            eventually("the workers are gone", || !workers.iter().any(|pid| is_running(*pid)));
            eventually("the port is free", || TcpListener::bind(address).is_ok());
        });
    }
}

#[test]
fn workers_of_another_user_go_with_a_killed_master() {
    // A change of credentials makes the kernel forget whom to tell of the master's death.
    for mode in MODES {
        let server = Server::start(&["--workers", "2", "--accept", mode, "--user", "65534"]);
        let workers = server.workers();
        workers.iter().for_each(|pid| freeze(*pid)); // the channel's end is no news to them now
        kill_hard(server.pid());
        for pid in workers.iter().map(|pid| Pid::from_raw(*pid)) {
            kill(pid, Signal::SIGCONT).unwrap();
        }
        eventually("the workers are gone", || !workers.iter().any(|pid| is_running(*pid)));
    }
}

#[test]
fn a_worker_holds_only_what_is_its_own() {
    let server =
        Server::start(&["--workers", "2", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    for worker in server.workers() {
        let mut kinds: Vec<String> = fs::read_dir(format!("/proc/{worker}/fd"))
            .unwrap()
            .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
            .filter(|target| target.starts_with("socket:") || target.starts_with("anon_inode:"))
            .map(|target| if target.starts_with("socket:") { "socket".to_owned() } else { target })
            .collect();
        kinds.sort();
        let own = ["[eventfd]", "[eventfd]", "[io_uring]", "[signalfd]"]
            .map(|own| format!("anon_inode:{own}"));
        // Its bell and the master's, ring and signals; two listeners and two lines to the master.
        assert_eq!(kinds, [&own[..], &["socket"; 4].map(str::to_owned)].concat());
    }
}

/// The master has descriptors for so many clients and no more; others wait in the kernel's queue.
#[test]
fn a_master_that_was_full_serves_again() {
    let program = env!("CARGO_BIN_EXE_uring-pool");
    let script = format!(
        "ulimit -n 100; exec {program} serve --listen 127.0.0.1:0 --workers 1 --accept dispatch \
         --connections-max 1"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let server = Server::of(command);
    let master = server.pid();
    let open = || fs::read_dir(format!("/proc/{master}/fd")).unwrap().count();
    let before = open();
    let mut first = server.connect();
    assert_eq!(first.get("/plaintext").status(), 200);
    for _ in 0..3 {
        let waiting: Vec<_> = (0..80).map(|_| server.connect()).collect();
        eventually("the master is full", || open() >= before + 40);
        drop((mem::replace(&mut first, server.connect()), waiting));
        assert_eq!(first.get("/plaintext").status(), 200);
    }
}
