//! Workers that hang, stopped by somebody or busy with something: they are replaced in time, and
//! the others' clients don't notice.

mod common;

use std::time::{Duration, Instant};

use common::load::{latencies, percentile};
use common::{MODES, Server, embedded, eventually, freeze, is_running, kill_hard, processor_ticks};

/// How long a worker may hang, and how much later than that its end may be.
const HANG_TIMEOUT: Duration = Duration::from_millis(1500);
const SLACK: Duration = Duration::from_secs(5);

/// New connections, and the time between them: all of them come while the worker hangs.
const CLIENTS: u32 = 300;
const PACE: Duration = Duration::from_millis(3);

/// Below this a latency says more about the machine than about the server. Three times as much is
/// less than what a connection takes that is tried with the worker that hangs, and taken back.
const FLOOR: Duration = Duration::from_millis(3);

/// The machine has other things to do: once in so many times it must go well.
const TRIES: u32 = 4;

/// Waits until a worker has been replaced that has hung since then.
fn await_successor(server: &Server, victim: i32, since: Instant, mode: &str) {
    eventually("a successor", || {
        let workers = server.workers();
        workers.len() == 2 && !workers.contains(&victim)
    });
    let took = since.elapsed();
    assert!(took >= HANG_TIMEOUT, "{mode}: it had its time, but {took:?}");
    assert!(took <= HANG_TIMEOUT + SLACK, "{mode}: {took:?}");
    eventually("it serves", || server.status()["active_workers"] == 2);
}

fn stopped_workers(mask: &str) {
    for mode in MODES {
        let flags = ["--workers", "2", "--accept", mode, "--hang-timeout", "1500ms"];
        let mut server = Server::start_with(&flags, &[("URING_POOL_MASK", mask)]);
        let goes_well = |_| {
            let normal = percentile(&latencies(server.address(), CLIENTS, PACE), 99);
            let victim = server.workers()[0];
            let since = Instant::now();
            freeze(victim);
            let meanwhile = percentile(&latencies(server.address(), CLIENTS, PACE), 99);
            await_successor(&server, victim, since, mode);
            println!("{mode} {mask}: p99 {normal:.1?}, {meanwhile:.1?} while one was stopped");
            let line = server.wait_for_log("hangs: somebody stopped it (SIGSTOP) ");
            assert!(line.contains(&format!("(pid {victim})")), "{line}");
            server.wait_for_log("was killed by SIGKILL; restarting ");
            mode == "shared" || meanwhile <= normal.max(FLOOR) * 3
        };
        assert!((0..TRIES).any(goes_well), "{mode}: others' clients notice");
    }
}

#[test]
fn a_stopped_worker_is_replaced_and_others_clients_dont_notice() {
    stopped_workers("");
}

#[test]
fn a_stopped_worker_is_replaced_and_others_clients_dont_notice_on_an_old_kernel() {
    stopped_workers("all");
}

#[test]
fn a_busy_worker_says_where_and_is_replaced() {
    for mode in MODES {
        let mut server = embedded::start(&["--accept", mode, "--hang-timeout-ms", "1500"]);
        let mut busy = server.connect();
        let since = Instant::now();
        let ticks = || server.workers().into_iter().map(processor_ticks).sum::<u64>();
        let before = ticks();
        busy.say("GET /busy?since=ever HTTP/1.1\r\nHost: t\r\n\r\n");
        eventually("it is busy", || ticks() >= before + 5);
        let meanwhile = latencies(server.address(), CLIENTS, PACE);
        let line = server.wait_for_log("hangs: its loop has not turned for ");
        let victim = line.split("(pid ").nth(1).unwrap().split(')').next().unwrap();
        await_successor(&server, victim.parse().unwrap(), since, mode);
        let log = server.read_log_up_to("was killed by SIGKILL; restarting at once").join("\n");
        assert!(log.contains("was running GET /busy?since=ever for "), "{mode}: {log}");
        assert!(log.contains("misbehaving::count_to_infinity"), "{mode}: {log}");
        assert!(busy.is_closed_by_server(), "{mode}");
        println!("{mode}: p99 {:.1?} while one was busy", percentile(&meanwhile, 99));
    }
}

/// Nobody watches it any more, and it reads neither its channel nor its signals.
#[test]
fn who_hangs_when_its_master_dies_ends_after_the_stop_timeout() {
    for mode in MODES {
        let server = embedded::start(&["--accept", mode, "--stop-timeout-ms", "1500"]);
        let workers = server.workers();
        let ticks = |pid: &i32| processor_ticks(*pid);
        let before: u64 = workers.iter().map(ticks).sum();
        let mut busy = server.connect();
        busy.say("GET /busy HTTP/1.1\r\nHost: t\r\n\r\n");
        eventually("one of them spins", || workers.iter().map(ticks).sum::<u64>() > before + 20);
        let since = Instant::now();
        kill_hard(server.pid());
        eventually("the workers are gone", || !workers.iter().any(|pid| is_running(*pid)));
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(1500), "{mode}: it had its time, but {took:?}");
        assert!(busy.is_closed_by_server(), "{mode}");
    }
}
