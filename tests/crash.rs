//! Workers that are killed: what is lost, which is only what they were serving, and what isn't.

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;

use common::load::{Failure, Load};
use common::observer::Observer;
use common::{MODES, Random, Server, embedded, eventually, kill_hard};
use serde_json::Value;

const WORKERS: usize = 8;
const KILLS: usize = 50;

fn fifty_kills_under_load(mask: &str) {
    let mut random = Random::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edge.toml");
    std::fs::write(&file, "restart_delay = \"1ms\"\n").unwrap(); // there is much to be got through
    for mode in MODES {
        let asking = Cell::new(1_u64);
        let workers = WORKERS.to_string();
        let flags = ["-c", file.to_str().unwrap(), "--workers", &workers, "--accept", mode];
        let server = Server::start_with(&flags, &[("URING_POOL_MASK", mask)]);
        let observer = Observer::start_patient(server.address());
        let load = Load::start(server.address(), 12, 4);
        load.wait_for_answers(100);
        let mut killed = BTreeSet::new();
        while killed.len() < KILLS {
            load.wait_for_answers(20);
            let mut alive = Vec::new();
            eventually("nearly all workers are there", || {
                alive = server.workers().into_iter().filter(|pid| !killed.contains(pid)).collect();
                alive.len() >= WORKERS - 1
            });
            let victim = alive[random.below(alive.len())];
            kill_hard(victim);
            killed.insert(victim);
        }
        let mut client = server.connect();
        let mut ask = || {
            let mut answer = client.try_get("/status");
            while answer.is_none() {
                client = server.connect();
                asking.update(|connections| connections + 1);
                answer = client.try_get("/status");
            }
            serde_json::from_str::<Value>(answer.unwrap().body()).unwrap()
        };
        eventually("all workers serve again", || {
            let status = ask();
            let each = status["workers"].as_array().unwrap().iter();
            let restarts: u64 = each.map(|worker| worker["restarts"].as_u64().unwrap()).sum();
            restarts == KILLS as u64 && status["active_workers"] == WORKERS
        });
        load.wait_for_answers(100);
        let outcome = load.end();
        let made = outcome.connections + observer.end();
        let mut status = ask();
        if mode == "dispatch" {
            // Every connection that was made comes to the master, which gives each to a worker.
            eventually("no connection waits any more", || {
                status = ask();
                let counts = ["dispatched", "total_connections"].map(|key| status[key].as_u64());
                counts == [Some(made + asking.get()); 2]
            });
        }
        let connections = made + asking.get();

        let log = server.log();
        let told = log.matches(" was killed by SIGKILL; restarting ").count();
        assert_eq!(told, KILLS, "{mode}: {log}");
        let count = |key: &str| status[key].as_u64().unwrap();
        let (cut, reset) = (outcome.count(Failure::Cut), outcome.count(Failure::Reset));
        println!(
            "{mode}: {} answers on {connections} connections; {cut} requests were cut and {reset} \
             reset, of {} connections that the victims had open",
            outcome.answers,
            count("lost_connections"),
        );
        for failure in [Failure::Refused, Failure::Wrong, Failure::Late] {
            assert_eq!(outcome.count(failure), 0, "{mode}: {outcome:?}");
        }
        if mode == "dispatch" {
            // No more failed than were with the victims.
            assert_eq!((count("refused"), count("queue_size")), (0, 0), "{status}");
            assert!((cut + reset) as u64 <= count("lost_connections"), "{status}\n{outcome:?}");
        }
    }
}

#[test]
fn fifty_kills_cost_only_what_the_victims_served() {
    fifty_kills_under_load("");
}

#[test]
fn fifty_kills_cost_only_what_the_victims_served_on_an_old_kernel() {
    fifty_kills_under_load("all");
}

#[test]
fn the_log_has_what_a_victim_was_doing() {
    for mode in MODES {
        let mut server = embedded::start(&["--accept", mode]);
        let mut waiting = [0, 1].map(|_| server.connect());
        for (number, client) in waiting.iter_mut().enumerate() {
            client.say(format!("PUT /wait/{number}?now HTTP/1.1\r\nHost: t\r\n\r\n"));
        }
        let mut asked = 0;
        eventually("both wait", || {
            asked += 1;
            server.status()["total_requests"] == 2 + asked
        });
        let victims = server.workers();
        victims.iter().for_each(|pid| kill_hard(*pid));
        let mut log = Vec::new();
        for _ in &victims {
            log.extend(server.read_log_up_to("was killed by SIGKILL; restarting at once"));
        }
        for number in 0..2 {
            let words = format!(") was waiting PUT /wait/{number}?now for ");
            let about: Vec<_> = log.iter().filter(|line| line.contains(&words)).collect();
            let [line] = about[..] else { panic!("{mode}: {log:?}") };
            assert!(victims.iter().any(|pid| line.contains(&pid.to_string())), "{line}");
            assert!(line.ends_with("ms") || line.ends_with('s'), "its age: {line}");
        }
        for client in &mut waiting {
            assert!(client.is_closed_by_server(), "{mode}");
        }
    }
}
