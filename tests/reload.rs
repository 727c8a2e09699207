//! Reloads and recycling: no client notices, and no figure goes back.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::load::Load;
use common::observer::{Observer, assert_none_forgotten};
use common::{
    Client, MODES, PATIENCE, Server, eventually, freeze, is_frozen, kill_hard, program, thaw,
};
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
        assert_none_forgotten(&server, mode);
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

fn twenty_workers_recycled(mask: &str) {
    unnoticed(&["--recycle-requests", "400"], mask, |server, _, mode| {
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
fn no_client_notices_twenty_workers_recycled() {
    twenty_workers_recycled("");
}

#[test]
fn no_client_notices_twenty_workers_recycled_on_an_old_kernel() {
    twenty_workers_recycled("all");
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

/// Once nobody else is left of earlier reloads; and waits for its successor.
fn kill_the_only_worker(server: &Server) {
    eventually("there is one worker", || server.workers().len() == 1);
    let old = server.workers()[0];
    kill_hard(old);
    eventually("there is another one", || matches!(server.workers()[..], [new] if new != old));
}

#[test]
fn files_are_served_however_often_the_server_is_reloaded() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "content").unwrap();
    let root = directory.path().to_str().unwrap();
    for mode in MODES {
        let mut server = Server::start(&["--workers", "1", "--accept", mode, "--root", root]);
        for round in 0..4 {
            let answer = server.connect().get("/f");
            assert_eq!((answer.status(), answer.body()), (200, "content"), "{mode}, round {round}");
            server.signal(Signal::SIGHUP);
            server.wait_for_log("reloaded: 1 new workers serve");
        }
        // Nor does anything that the master has closed or opened meanwhile get into a worker.
        kill_the_only_worker(&server);
        assert_eq!(server.connect().get("/f").body(), "content", "{mode}");
        let links = open_in(server.workers()[0]);
        let roots = links.iter().filter(|link| link.as_str() == root).count();
        assert_eq!(roots, 2, "{mode}: what it started with, and the last: {links:?}");
    }
}

fn open_in(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

#[test]
fn settings_of_a_reload_that_fails_are_nobodys() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["old", "new"] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("f"), name).unwrap();
    }
    let configure = |root: &str, more: &str| {
        let root = path(root);
        let text = format!("workers = 1\n{more}\n[site]\nroot = {root:?}\n");
        fs::write(path("conf"), text).unwrap();
    };
    configure("old", "listen = [\"127.0.0.1:0\"]");
    let conf = path("conf");
    let mut command = program();
    command.arg("serve").arg("-c").arg(&conf);
    let mut server = Server::of(command);
    let content = |server: &Server| server.connect().get("/f").body().to_owned();
    assert_eq!(content(&server), "old");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    configure("new", &format!("listen = [\"127.0.0.1:0\", \"{address}\"]"));
    server.signal(Signal::SIGHUP);
    server.wait_for_log("nothing changes");
    kill_the_only_worker(&server);
    assert_eq!(content(&server), "old", "the settings in use are those of before");

    // Nor are those that are bad when a reload is under way.
    configure("new", "listen = [\"127.0.0.1:0\"]");
    server.signal(Signal::SIGHUP);
    server.wait_for_log("reloading: starting 1 new workers");
    fs::write(&conf, "nonsense").unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_for_log("reloaded: 1 new workers serve");
    server.wait_for_log("nothing changes");
    kill_the_only_worker(&server);
    assert_eq!(content(&server), "new");
}

#[test]
fn a_pool_grows_and_shrinks_as_often_as_one_likes() {
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("conf");
    let configure = |workers: usize| {
        let text =
            format!("listen = [\"127.0.0.1:0\"]\naccept = \"steered\"\nworkers = {workers}\n");
        fs::write(&conf, text).unwrap();
    };
    configure(1);
    let mut command = program();
    command.arg("serve").arg("-c").arg(&conf);
    let mut server = Server::of(command);
    for workers in [40, 1, 40, 1] {
        configure(workers);
        server.signal(Signal::SIGHUP);
        server.wait_for_log(&format!("reloaded: {workers} new workers serve"));
        let status = server.status();
        assert_eq!(status["active_workers"], workers);
        eventually("nobody else is left", || server.workers().len() == workers);
    }
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

/// Few descriptors, hundreds of clients, and users whose descriptors under way are counted.
#[test]
fn every_idle_connection_outlives_a_reload_however_few_descriptors_there_are() {
    let is_root = nix::unistd::geteuid().is_root();
    for user in [None, Some("nobody")].iter().take(1 + usize::from(is_root)) {
        for mode in MODES {
            let program = env!("CARGO_BIN_EXE_uring-pool");
            let user = user.map(|user| format!("--user {user}")).unwrap_or_default();
            let script = format!(
                "ulimit -n 200; exec {program} serve --listen 127.0.0.1:0 --workers 3 \
                 --queue-max 1 --accept {mode} {user}"
            );
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            let mut server = Server::of(command);
            let mut idle: Vec<Client> = Vec::new();
            for _ in 0..240 {
                idle.push(server.connect());
                assert_eq!(idle.last_mut().unwrap().get("/plaintext").status(), 200, "{mode}");
            }
            server.signal(Signal::SIGHUP);
            server.wait_for_log("reloaded: 3 new workers serve");
            for client in &mut idle {
                assert_eq!(client.get("/plaintext").status(), 200, "{mode}{user}");
            }
        }
    }
}

#[test]
fn a_port_that_is_taken_fails_a_reload_and_stalls_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pool.toml");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(&file, "listen = [\"127.0.0.1:0\"]\nworkers = 1\naccept = \"dispatch\"\n")
        .unwrap();
    let mut command = common::program();
    command.args(["serve", "-c", file.to_str().unwrap()]);
    let mut server = Server::of(command);
    let listen = format!("listen = [\"127.0.0.1:0\", \"{}\"]\n", taken.local_addr().unwrap());
    std::fs::write(&file, format!("{listen}workers = 1\naccept = \"dispatch\"\n")).unwrap();
    let quickest = (0..3).map(|_| {
        let begin = Instant::now();
        server.signal(Signal::SIGHUP);
        server.wait_for_log("nothing changes");
        begin.elapsed()
    });
    let quickest = quickest.min().unwrap(); // the machine may be busy, but hardly each time
    assert!(quickest < Duration::from_millis(1500), "the master slept: {quickest:?}");
    assert_eq!(server.connect().get("/plaintext").status(), 200);
}

/// A server whose configuration the test writes.
struct Configured {
    server: Server,
    directory: tempfile::TempDir,
    mode: &'static str,
}

impl Configured {
    fn start(mode: &'static str, extra: &str) -> Configured {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("conf");
        write_settings(&conf, mode, extra);
        let mut command = program();
        command.arg("serve").arg("-c").arg(conf);
        Configured { server: Server::of(command), directory, mode }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn signal(&self, extra: &str) {
        write_settings(&self.directory.path().join("conf"), self.mode, extra);
        self.server.signal(Signal::SIGHUP);
    }

    fn reload(&mut self, extra: &str) {
        self.signal(extra);
        self.server.wait_for_log("reloaded: ");
    }

    /// Why not.
    fn refuse(&mut self, extra: &str) -> String {
        self.signal(extra);
        self.server.wait_for_log("the settings can't be used, and nothing changes: ")
    }
}

fn write_settings(conf: &Path, mode: &str, extra: &str) {
    let text = format!("listen = [\"127.0.0.1:0\"]\naccept = \"{mode}\"\n{extra}\n");
    fs::write(conf, text).unwrap();
}

#[test]
fn what_a_reload_cant_change_it_names() {
    let mut it = Configured::start("shared", "workers = 1");
    it.mode = "dispatch";
    assert!(it.refuse("workers = 1").contains("`accept` can't change by a reload"));
    it.mode = "shared";
    let line = it.refuse("workers = 1024\ndescriptors_max = 200");
    assert!(line.contains("200"), "{line}");
    assert_eq!(
        soft_limit(it.server.pid(), "Max open files"),
        soft_limit(own_pid(), "Max open files")
    );
    let line = it.refuse("workers = 1\npid_file = \"/no/such/directory/pid\"");
    assert!(line.contains("/no/such/directory/pid"), "{line}");
    assert_eq!(it.server.connect().get("/plaintext").status(), 200);
}

fn own_pid() -> i32 {
    std::process::id() as i32
}

/// As the kernel shows it.
fn soft_limit(pid: i32, name: &str) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_reload_that_fails_does_not_even_change_what_is_logged() {
    let mut it = Configured::start("shared", "workers = 1");
    let rubbish = |it: &Configured| {
        let mut client = it.server.connect();
        client.say("rubbish\r\n\r\n");
        assert_eq!(client.hear_head().lines().next(), Some("HTTP/1.1 400 Bad Request"));
    };
    for failing in ["pid_file = \"/no/such/directory/pid\"", "queue_max = 0"] {
        it.refuse(&format!("workers = 1\ndebug = true\n{failing}"));
        rubbish(&it);
        it.signal("workers = 1");
        let log = it.server.read_log_up_to("reloaded: ").join("\n");
        assert!(!log.contains("debug: "), "{log}");
    }
    it.reload("workers = 1\ndebug = true");
    rubbish(&it);
    it.server.wait_for_log("debug: refused a request: "); // says a worker
    it.signal("workers = 1");
    it.server.wait_for_log("debug: Received"); // says the master
    it.server.wait_for_log("reloaded: ");
    eventually("the old worker has gone", || it.server.workers().len() == 1);
    rubbish(&it);
    it.signal("workers = 1");
    let log = it.server.read_log_up_to("reloaded: ").join("\n");
    assert!(!log.contains("debug: "), "{log}");
}

/// Old workers may have something to do for long, but nobody who comes there is theirs.
#[test]
fn an_address_that_a_reload_drops_lets_nobody_in_who_would_wait_in_vain() {
    for mode in MODES {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("conf");
        let configure = |listen: &str| {
            let text = format!("listen = [{listen}]\naccept = \"{mode}\"\nworkers = 2\n");
            fs::write(&conf, text).unwrap();
        };
        configure("\"127.0.0.1:0\", \"127.0.0.2:0\"");
        let mut command = program();
        command.arg("serve").arg("-c").arg(&conf);
        let mut server = Server::of(command);
        let (_, other) = server.line.split_once("http://127.0.0.2:").unwrap();
        let port = other.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        let dropped = format!("127.0.0.2:{port}").parse().unwrap();
        let mut uploading = Client::connect(dropped);
        uploading.say(
            "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        );
        assert_eq!(uploading.hear_head(), "HTTP/1.1 100 Continue\r\n\r\n");
        configure("\"127.0.0.1:0\"");
        server.signal(Signal::SIGHUP);
        server.wait_for_log("reloaded: 2 new workers serve");
        eventually("nobody listens there", || TcpStream::connect(dropped).is_err());
        assert_eq!(server.connect().get("/plaintext").status(), 200, "{mode}");
        uploading.say("hello");
        assert_eq!(uploading.hear().body(), "hello", "{mode}");
    }
}

#[test]
fn limits_and_the_pid_file_are_as_the_last_reload_said() {
    for mode in MODES {
        let mut it = Configured::start(mode, "workers = 2");
        let [first, second] = ["first", "second"].map(|name| it.path(name));
        let named = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let own = Some(it.server.pid().to_string());
        let extra = "workers = 2\ndescriptors_max = 900\ncore_bytes_max = 4096";
        it.reload(&format!("{extra}\npid_file = {first:?}"));
        eventually("the old workers have gone", || it.server.workers().len() == 2);
        for pid in it.server.workers().into_iter().chain([it.server.pid()]) {
            assert_eq!(soft_limit(pid, "Max open files"), "900", "{mode}");
            assert_eq!(soft_limit(pid, "Max core file size"), "4096", "{mode}");
        }
        assert_eq!(named(&first), own, "{mode}");
        it.reload(&format!("{extra}\npid_file = {second:?}"));
        assert_eq!((named(&first), named(&second)), (None, own.clone()), "{mode}");
        // The same file by another name.
        let directory = it.path("");
        it.reload(&format!("{extra}\npid_file = \"{directory}/./second\""));
        assert_eq!(named(&second), own, "{mode}");
        it.reload(extra);
        assert_eq!(named(&second), None, "{mode}");
    }
}

#[test]
fn the_queue_is_as_long_and_as_patient_as_the_last_reload_said() {
    let limits = "workers = 1\nqueue_timeout = \"10m\"\n[limits]\nconnections_max = 1";
    let mut it = Configured::start("dispatch", limits);
    let [worker] = it.server.workers()[..] else { panic!("one worker") };
    let mut open = it.server.connect();
    assert_eq!(open.get("/plaintext").status(), 200);
    let mut waiting = [0, 1].map(|_| it.server.connect());
    for client in &mut waiting {
        client.say("GET /plaintext HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    eventually("they wait", || {
        let status: serde_json::Value = serde_json::from_str(open.get("/status").body()).unwrap();
        status["queue_size"] == 2
    });
    // The successor has room for one of them, and the old one keeps what it has.
    freeze(worker);
    it.reload(&limits.replace("10m", "10ms"));
    let heard = waiting.each_mut().map(|client| client.hear().status());
    assert_eq!(heard, [200, 503]);
    thaw(worker);
}

#[test]
fn a_reload_changes_who_gets_connections() {
    let mut it = Configured::start("dispatch", "workers = 2\nbalance = \"round-robin\"");
    let shares = |it: &Configured| {
        let before = it.server.status();
        let _open: Vec<Client> = (0..30).map(|_| it.server.connect()).collect();
        let total = |status: &serde_json::Value, id: usize| {
            status["workers"][id]["total_connections"].as_u64().unwrap()
        };
        let mut shares = [0, 0];
        eventually("all are taken", || {
            let after = it.server.status();
            shares = [0, 1].map(|id| total(&after, id) - total(&before, id));
            shares.iter().sum::<u64>() >= 30
        });
        shares
    };
    let [one, other] = shares(&it);
    assert!(one.abs_diff(other) <= 4, "{one} {other}");
    it.reload("workers = 2\nbalance = \"weighted\"\nweights = [1, 9]");
    let [one, other] = shares(&it);
    assert!(other > 5 * one, "{one} {other}");
    it.reload("workers = 2\nbalance = \"weighted\"\nweights = [9, 1]");
    let [one, other] = shares(&it);
    assert!(one > 5 * other, "{one} {other}");
}

/// How many connections may wait at a socket whose worker accepts none.
#[test]
fn the_backlog_is_as_the_last_reload_said() {
    let mut it = Configured::start("shared", "workers = 1\nbacklog = 2");
    let room = |it: &Configured| {
        let [worker] = it.server.workers()[..] else { panic!("one worker") };
        freeze(worker);
        let connect =
            || TcpStream::connect_timeout(&it.server.address(), Duration::from_millis(200));
        let waiting = (0..20).map_while(|_| connect().ok()).count();
        thaw(worker);
        waiting
    };
    assert!(room(&it) < 10);
    it.reload("workers = 1\nbacklog = 100");
    eventually("the old one has gone", || it.server.workers().len() == 1);
    assert_eq!(room(&it), 20);
    it.reload("workers = 1\nbacklog = 2");
    eventually("the old one has gone", || it.server.workers().len() == 1);
    assert!(room(&it) < 10);
}
