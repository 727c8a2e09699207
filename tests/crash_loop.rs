//! Workers that can't start, again and again: nobody else pays for it.

mod common;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use common::load::Load;
use common::{Server, embedded, eventually, in_every_mode, kill_hard, processor_ticks};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// A file whose being there makes factories panic.
struct Trouble(TempDir);

impl Trouble {
    fn new() -> Trouble {
        Trouble(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("broken")
    }

    fn begin(&self) {
        fs::write(self.path(), "").unwrap();
    }

    fn end(&self) {
        fs::remove_file(self.path()).unwrap();
    }

    /// A program whose factories panic while there is trouble: those of all workers, or of one.
    fn start(&self, mode: &str, whose: &str) -> Server {
        let path = self.path();
        embedded::start(&["--accept", mode, "--broken-if", path.to_str().unwrap(), whose])
    }
}

fn restarts(server: &Server, worker: usize) -> u64 {
    server.status()["workers"][worker]["restarts"].as_u64().unwrap()
}

#[test]
fn a_worker_that_cannot_start_busies_no_core_and_another_serves_its_clients() {
    in_every_mode(|mode| {
        let trouble = Trouble::new();
        let mut server = trouble.start(mode, "1");
        let healthy = server.status()["workers"][0]["pid"].as_i64().unwrap() as i32;
        let victim = server.status()["workers"][1]["pid"].as_i64().unwrap() as i32;
        trouble.begin();
        let began = Instant::now();
        kill_hard(victim);
        let mut log = server.read_log_up_to("failed 6 times in a row before it was ready: ");
        let meanwhile = match mode {
            "dispatch" => "others serve all clients meanwhile",
            _ => "worker 0 serves its clients meanwhile",
        };
        assert!(log.last().unwrap().ends_with(meanwhile), "{log:?}");
        log.extend(server.read_log_up_to("panicked (exit code 101); restarting in "));
        let log = log.join("\n");
        assert!(log.contains("worker 1 panicked: the database is not there"), "{log}");
        // All that come are served, wherever the kernel sends them.
        let load = Load::start(server.address(), 4, 4);
        load.wait_for_answers(200);
        load.end().assert_flawless(mode);
        // Its starts cost next to nothing: they are few, and ever fewer.
        let ticks = || processor_ticks(server.pid());
        let (before, restarts_before) = (ticks(), restarts(&server, 1));
        thread::sleep(Duration::from_secs(2)); // what is measured
        let used = Duration::from_millis(10 * (ticks() - before));
        assert!(used < Duration::from_millis(500), "{mode}: {used:?} of two seconds");
        assert!(restarts(&server, 1) - restarts_before <= 2, "{mode}");
        let most = 8 + began.elapsed().as_secs() / 3;
        assert!(restarts(&server, 1) <= most, "{mode}: {} restarts", restarts(&server, 1));
        assert_eq!(server.status()["workers"][0]["pid"], healthy, "{mode}: nothing happened to it");
        // When it can start again, it gets its clients back.
        trouble.end();
        eventually("all is well again", || server.status()["active_workers"] == 2);
        let load = Load::start(server.address(), 4, 4);
        let mut seen = [false; 2];
        eventually("both serve", || {
            let worker = server.connect().get("/worker").body().parse::<usize>().unwrap();
            seen[worker] = true;
            seen == [true; 2]
        });
        load.end().assert_flawless(mode);
    });
}

#[test]
fn a_reload_whose_workers_cannot_start_changes_nothing() {
    in_every_mode(|mode| {
        let trouble = Trouble::new();
        let mut server = trouble.start(mode, "all");
        let workers = server.workers();
        let load = Load::start(server.address(), 4, 2);
        load.wait_for_answers(50);
        trouble.begin();
        for signal in [Signal::SIGHUP, Signal::SIGUSR1] {
            server.signal(signal);
            let line = server.wait_for_log("the reload failed, and the old workers serve on: ");
            assert!(line.ends_with("a new one panicked (exit code 101)"), "{line}");
        }
        load.wait_for_answers(50);
        trouble.end();
        eventually("the others have gone", || {
            let mut left = server.workers();
            left.sort_unstable();
            left == workers
        });
        server.signal(Signal::SIGHUP);
        server.wait_for_log("reloaded: 2 new workers serve");
        load.wait_for_answers(50);
        load.end().assert_flawless(mode);
    });
}

#[test]
fn a_pool_none_of_whose_workers_can_start_ends_soon() {
    let trouble = Trouble::new();
    trouble.begin();
    let path = trouble.path();
    let mut command = std::process::Command::new(embedded::program());
    command.args(["--listen", "127.0.0.1:0", "--broken-if", path.to_str().unwrap(), "all"]);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("panicked (exit code 101) before the pool was ready; giving up"), "{log}");
    assert!(log.contains("the pool cannot start: worker "), "{log}");
    assert!(output.stdout.is_empty(), "it never was ready");
}
