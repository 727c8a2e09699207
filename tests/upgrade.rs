//! Binary upgrades: another master takes over, and no client notices.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::load::Load;
use common::observer::{Observer, assert_none_forgotten};
use common::{Client, MODES, Server, children, embedded};
use common::{
    eventually, foster_parent, freeze, is_asleep, is_frozen, is_running, kill_hard, thaw,
};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

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
        let watch = PidFileWatch::begin(&pid_file);
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
        watch.end();
        load.end().assert_flawless(mode);
        assert_none_forgotten(&server, mode);
        assert_eq!(idle.get("/plaintext").status(), 200, "{mode}: it was handed over each time");
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait();
        assert!(status.success(), "{mode}: {log}");
        assert!(TcpStream::connect(address).is_err(), "{mode}: somebody still listens");
        assert!(!pid_file.exists(), "{mode}");
    }
}

/// Somebody who looks for the master all the time.
struct PidFileWatch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl PidFileWatch {
    fn begin(path: &Path) -> PidFileWatch {
        let (path, is_over) = (path.to_owned(), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let named = || -> i32 {
                let text = fs::read_to_string(&path).expect("the file is there all the time");
                text.trim().parse().expect("and whole")
            };
            while !ends.load(Ordering::Relaxed) {
                let pid = named();
                let is_there = kill(Pid::from_raw(pid), None).is_ok();
                assert!(is_there || named() != pid, "{pid} is nobody");
                thread::sleep(Duration::from_micros(200)); // others need the processor, too
            }
        });
        PidFileWatch { is_over, thread }
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
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
    for mode in MODES {
        let mut gated = Gated::start(mode);
        let workers = gated.server.workers();
        let load = Load::start(gated.server.address(), 4, 2);
        load.wait_for_answers(50);
        kill_hard(gated.begin_upgrade());
        gated.server.wait_for_log("the upgrade failed, and this master goes on");
        gated.configure("");
        load.wait_for_answers(100);
        load.end().assert_flawless(mode);
        let mut left = gated.server.workers();
        left.sort_unstable();
        assert_eq!(left, workers, "{mode}");
    }
}

#[test]
fn whoever_hangs_after_an_upgrade_that_failed_is_replaced() {
    foster_parent();
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken");
    let flags = ["--workers", "2", "--hang-timeout-ms", "1000", "--broken-if"];
    let mut server = embedded::start(&[&flags[..], &[broken.to_str().unwrap(), "all"]].concat());
    fs::write(&broken, "").unwrap(); // so that the new master has no workers, and doesn't take over
    server.signal(Signal::SIGUSR2);
    let line = server.wait_for_log("upgrading: the new master has pid ");
    kill_hard(line.rsplit_once(' ').unwrap().1.parse().unwrap());
    server.wait_for_log("the upgrade failed, and this master goes on");
    fs::remove_file(&broken).unwrap();
    server.connect().say("GET /busy HTTP/1.1\r\nHost: t\r\n\r\n");
    server.wait_for_log("hangs: its loop has not turned");
    eventually("two workers serve", || server.status()["active_workers"] == 2);
}

/// Whoever comes before a new master has taken over is the old one's, which may have to go on after all.
#[test]
fn workers_of_a_new_master_take_nobody_before_it_has_taken_over() {
    for mode in MODES {
        let mut gated = Gated::start(mode);
        let watch = PidFileWatch::begin(&gated.path("pid"));
        let mut frozen = gated.server.workers(); // the new master will be a child, too
        frozen.push(gated.server.pid());
        let new = gated.begin_upgrade();
        frozen.iter().for_each(|pid| freeze(*pid));
        drop(gated.open_gate(""));
        let mut new_workers = Vec::new();
        eventually("the workers of the new master wait for something", || {
            new_workers = children(new);
            new_workers.len() == 2 && new_workers.iter().all(|pid| is_asleep_in_its_ring(*pid))
        });
        let mut clients: Vec<Client> = (0..8).map(|_| gated.server.connect()).collect();
        new_workers.iter().for_each(|pid| freeze(*pid));
        kill_hard(new);
        frozen.iter().for_each(|pid| thaw(*pid));
        gated.server.wait_for_log("the upgrade failed, and this master goes on");
        for client in &mut clients {
            assert_eq!(client.get("/plaintext").status(), 200, "{mode}");
        }
        new_workers.iter().for_each(|pid| kill_hard(*pid));
        gated.configure("");
        watch.end();
        gated.assert_whole();
    }
}

/// Whether it has a ring, and waits.
fn is_asleep_in_its_ring(pid: i32) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let has_ring = links.into_iter().any(|link| link.ends_with("anon_inode:[io_uring]"));
    has_ring && is_asleep(pid)
}

/// A server with a configuration file that a new master reads when the test wants it to: until
/// then, it is a FIFO that nobody writes to.
struct Gated {
    server: Server,
    directory: TempDir,
    mode: &'static str,
}

impl Gated {
    fn start(mode: &'static str) -> Gated {
        Gated::start_with(mode, "")
    }

    fn start_with(mode: &'static str, extra: &str) -> Gated {
        foster_parent();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("conf"), settings(&directory, mode, extra)).unwrap();
        let mut command = common::program();
        command.arg("serve").arg("-c").arg(directory.path().join("conf"));
        Gated { server: Server::of(command), directory, mode }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a new master, which waits for its settings. Returns its pid.
    fn begin_upgrade(&mut self) -> i32 {
        let conf = self.path("conf");
        fs::remove_file(&conf).unwrap();
        mkfifo(&conf, Mode::S_IRWXU).unwrap();
        self.server.signal(Signal::SIGUSR2);
        let line = self.server.wait_for_log("upgrading: the new master has pid ");
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Lets it have them, with something more.
    fn open_gate(&self, extra: &str) -> File {
        let mut gate = File::options().write(true).open(self.path("conf")).unwrap();
        gate.write_all(settings(&self.directory, self.mode, extra).as_bytes()).unwrap();
        gate
    }

    /// From now on the file is one again, with something more.
    fn configure(&self, extra: &str) {
        let new = self.path("conf.new");
        fs::write(&new, settings(&self.directory, self.mode, extra)).unwrap();
        fs::rename(new, self.path("conf")).unwrap();
    }

    fn pid_file(&self) -> String {
        fs::read_to_string(self.path("pid")).unwrap().trim().to_owned()
    }

    fn says_hello_by_unix_socket(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.path("sock")) else { return false };
        let request = b"GET /plaintext HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(request).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200 OK\r\n")
    }

    /// This master serves, as if nothing had been.
    fn assert_whole(&mut self) {
        let mode = self.mode;
        assert!(self.says_hello_by_unix_socket(), "{mode}");
        assert_eq!(self.pid_file(), self.server.pid().to_string(), "{mode}");
        let both_serve = || self.server.status()["active_workers"] == 2;
        eventually("both workers serve", both_serve);
        // Whoever is restarted gets its share of connections, and the other one its own.
        let dead = self.server.workers()[0];
        kill_hard(dead);
        eventually("it is restarted", || {
            let workers = self.server.workers();
            workers.len() == 2 && !workers.contains(&dead)
        });
        eventually("both workers serve", both_serve);
        let totals = |status: serde_json::Value| {
            [0, 1].map(|id| status["workers"][id]["total_connections"].as_u64().unwrap())
        };
        let before = totals(self.server.status());
        let mut open = Vec::new();
        eventually("each gets connections", || {
            open.push(self.server.connect());
            let now = totals(self.server.status());
            (0..2).all(|id| now[id] > before[id] + 5)
        });
        assert!(open.len() < 200, "{mode}: one of them gets hardly any");
    }
}

/// The settings, as a file.
fn settings(directory: &TempDir, mode: &str, extra: &str) -> String {
    let [sock, pid] = ["sock", "pid"].map(|name| directory.path().join(name));
    let (sock, pid) = (sock.display(), pid.display());
    let extra = if extra.is_empty() { "workers = 2" } else { extra };
    format!(
        "listen = [\"127.0.0.1:0\", \"unix:{sock}\"]\npid_file = \"{pid}\"\naccept = \"{mode}\"\n\
         stop_timeout = \"15s\"\n{extra}\n"
    )
}

#[test]
fn an_upgrade_that_fails_by_itself_leaves_everything_as_it_was() {
    for mode in MODES {
        let mut gated = Gated::start(mode);
        for _ in 0..3 {
            let new = gated.begin_upgrade();
            drop(gated.open_gate("workers = 2\nweights = [0]")); // refused when it is read
            gated.server.wait_for_log("the upgrade failed, and this master goes on");
            assert!(!is_running(new));
        }
        // One that gets further: it has inherited the sockets.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        gated.begin_upgrade();
        let text = settings(&gated.directory, mode, "");
        let extra = format!("\", \"{}\"]\npid_file", taken.local_addr().unwrap());
        let text = text.replace("\"]\npid_file", &extra);
        fs::write(gated.path("conf"), text).unwrap();
        gated.server.wait_for_log("the upgrade failed, and this master goes on");
        gated.configure("");
        gated.assert_whole();
    }
}

#[test]
fn a_new_master_that_is_late_is_gone_before_there_is_another_one() {
    let mut gated = Gated::start_with("shared", "workers = 2\nupgrade_timeout = \"1s\"");
    let late = gated.begin_upgrade();
    gated.server.signal(Signal::SIGUSR2);
    gated.server.wait_for_log("SIGUSR2: ignored, as another change is under way");
    gated.server.wait_for_log("the upgrade failed, and this master goes on");
    gated.configure("");
    eventually("it is gone", || !is_running(late));
    gated.server.signal(Signal::SIGHUP);
    gated.server.wait_for_log("reloaded: 2 new workers serve");
    gated.server.upgrade();
    assert_eq!(gated.pid_file(), gated.server.pid().to_string());
    assert!(gated.says_hello_by_unix_socket());
    gated.assert_whole();
}

#[test]
fn a_stop_during_an_upgrade_leaves_nobody_behind() {
    let mut gated = Gated::start("shared");
    let address = gated.server.address();
    let new = gated.begin_upgrade();
    gated.server.signal(Signal::SIGTERM);
    gated.server.wait_for_log("SIGTERM: stopping");
    let Gated { server, directory, .. } = gated;
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    assert!(!is_running(new));
    assert!(TcpStream::connect(address).is_err(), "somebody still listens");
    assert!(["sock", "pid"].iter().all(|name| !directory.path().join(name).exists()));
}

#[test]
fn a_reload_during_an_upgrade_is_done_by_the_new_master() {
    for mode in MODES {
        let mut gated = Gated::start(mode);
        let new = gated.begin_upgrade();
        gated.server.signal(Signal::SIGHUP);
        let gate = gated.open_gate("");
        gated.configure("workers = 3");
        drop(gate);
        gated.server.wait_for_log("upgraded: the new master serves");
        gated.server.wait_for_log("reloaded: 3 new workers serve");
        assert!(gated.server.child.wait().unwrap().success(), "{mode}");
        gated.server.succeed(new);
        eventually("three workers serve", || gated.server.workers().len() == 3);
        let status = gated.server.status();
        let counts = ["total_workers", "upgrades", "reloads"].map(|key| status[key].as_u64());
        assert_eq!(counts, [3, 1, 1].map(Some), "{mode}: {status}");
    }
}

#[test]
fn an_old_master_that_is_killed_leaves_everything_to_the_new_one() {
    for mode in MODES {
        let mut gated = Gated::start(mode);
        let old_workers = gated.server.workers();
        let new = gated.begin_upgrade();
        kill_hard(gated.server.pid());
        assert!(!gated.server.child.wait().unwrap().success());
        drop(gated.open_gate(""));
        gated.server.wait_for_log("has gone");
        gated.server.succeed(new);
        gated.configure("");
        eventually("it has taken over", || gated.pid_file() == new.to_string());
        eventually("the old workers have gone", || !old_workers.iter().any(|pid| is_running(*pid)));
        assert_eq!(gated.server.status()["upgrades"], 1, "{mode}");
        gated.assert_whole();
    }
}

#[test]
fn a_new_master_serves_at_once_beside_a_busy_worker_of_one_that_was_killed() {
    foster_parent();
    for mode in MODES {
        let mut server = Server::start(&["--workers", "1", "--accept", mode]);
        let busy = server.workers()[0];
        freeze(busy);
        server.signal(Signal::SIGUSR2);
        let line = server.wait_for_log("upgrading: the new master has pid ");
        let (_, new) = line.rsplit_once(' ').unwrap();
        server.wait_for_log("upgraded: the new master serves");
        kill_hard(server.pid());
        assert!(!server.child.wait().unwrap().success());
        server.wait_for_log("has gone");
        server.succeed(new.parse().unwrap());
        for _ in 0..20 {
            assert_eq!(server.connect().get("/plaintext").status(), 200, "{mode}");
        }
        assert!(is_frozen(busy), "{mode}: nobody waited for it");
        thaw(busy);
        eventually("it has gone, too", || !is_running(busy));
        for _ in 0..20 {
            assert_eq!(server.connect().get("/plaintext").status(), 200, "{mode}: alone now");
        }
    }
}

#[test]
fn a_new_master_that_dies_while_the_old_one_ends_is_replaced_by_that() {
    for mode in MODES {
        let mut gated = Gated::start(mode);
        let old = gated.server.pid();
        let mut uploading = gated.server.connect();
        uploading.say("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello");
        let is_served = |server: &Server| server.status()["active_connections"] == 2;
        eventually("the upload is being served", || is_served(&gated.server));
        let new = gated.begin_upgrade();
        drop(gated.open_gate(""));
        gated.server.wait_for_log("upgraded: the new master serves");
        assert_eq!(gated.pid_file(), new.to_string(), "{mode}");
        let orphans = children(new);
        kill_hard(new);
        gated.server.wait_for_log("this one serves again");
        gated.configure("");
        uploading.say("world");
        assert_eq!(uploading.hear().body(), "helloworld", "{mode}");
        eventually("its workers have gone", || !orphans.iter().any(|pid| is_running(*pid)));
        eventually("ours serve", || gated.pid_file() == old.to_string());
        eventually("and nobody else", || gated.server.workers().len() == 2);
        gated.assert_whole();
        gated.server.signal(Signal::SIGTERM);
        let (status, log) = gated.server.wait();
        assert!(status.success(), "{mode}: {log}");
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

/// Also when all workers of the old one have: it may still have connections to pass on.
#[test]
fn a_new_master_that_dies_before_the_old_one_has_ended_is_replaced() {
    foster_parent();
    for mode in MODES {
        let mut server = Server::start(&["--workers", "2", "--accept", mode]);
        let address = server.address();
        // More than fit into the socket between the masters.
        let mut idle: Vec<Client> = (0..400).map(|_| server.connect()).collect();
        idle.iter_mut().for_each(|client| assert_eq!(client.get("/plaintext").status(), 200));
        let old_workers = server.workers();
        server.signal(Signal::SIGUSR2);
        let line = server.wait_for_log("upgrading: the new master has pid ");
        let new: i32 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        server.wait_for_log("upgraded: the new master serves");
        freeze(new);
        eventually("the old workers have gone", || !old_workers.iter().any(|pid| is_running(*pid)));
        kill_hard(new);
        eventually("it is replaced, or nobody listens", || {
            let has_ended = server.child.try_wait().unwrap();
            assert!(has_ended.is_none_or(|status| status.success()), "{mode}");
            let log = server.log();
            has_ended.is_some() || log.contains("this one serves again")
        });
        if server.child.try_wait().unwrap().is_none() {
            println!("{mode}: replaced");
            eventually("new workers serve", || server.workers().len() == 2);
            assert_eq!(Client::connect(address).get("/plaintext").status(), 200, "{mode}");
        }
    }
}
