//! Somebody who looks at the figures all the time, and notices when one goes back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::{Client, Server, eventually};

/// Values of `/status` that may go down: what there is now, rates and quantiles.
const NO_COUNTERS: [&str; 21] = [
    "memory_held",
    "cache_hit_rate",
    "total_workers",
    "active_workers",
    "alive_workers",
    "requests_per_second",
    "avg_request_duration_ms",
    "min_request_duration_ms",
    "p50_request_duration_ms",
    "p90_request_duration_ms",
    "p99_request_duration_ms",
    "p999_request_duration_ms",
    "active_connections",
    "queue_size",
    "pid",
    "core",
    "connections",
    "idle_time",
    "memory_usage",
    "loop_delay_ms",
    "uptime",
];

/// Reads `/status` over and over, on one connection, and compares each counter to what it was.
pub(crate) struct Observer {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Observer {
    /// One whose connection lasts.
    pub(crate) fn start(address: SocketAddr) -> Observer {
        Observer::with(address, 1)
    }

    /// One that comes back when its worker dies.
    pub(crate) fn start_patient(address: SocketAddr) -> Observer {
        Observer::with(address, u64::MAX)
    }

    fn with(address: SocketAddr, connections_max: u64) -> Observer {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut client = Client::connect(address);
            let mut connections = 1;
            let mut last: BTreeMap<String, f64> = BTreeMap::new();
            while !ends.load(Ordering::Relaxed) {
                let Some(answer) = client.try_get("/status") else {
                    assert!(connections < connections_max, "the observer was cut off");
                    client = Client::connect(address);
                    connections += 1;
                    continue;
                };
                let status = serde_json::from_str(answer.body()).unwrap();
                let mut now = BTreeMap::new();
                collect("", &status, &mut now);
                for (key, before) in &last {
                    let after: f64 = match now.get(key) {
                        Some(after) => *after,
                        None if key.starts_with("/workers/") => continue, // of one that was dropped
                        None => panic!("{key} has gone: {status}"),
                    };
                    assert!(after >= *before, "{key} went from {before} to {after}: {status}");
                }
                last.extend(now);
            }
            connections
        });
        Observer { is_over, thread }
    }

    /// Returns how many connections it has made.
    pub(crate) fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Waits until all connections that were ever opened are closed or open, and none is forgotten: when
/// nobody comes or goes.
pub(crate) fn assert_none_forgotten(server: &Server, what: &str) {
    let mut last = Value::Null;
    let mut asking = server.connect();
    eventually(&format!("{what}: every connection is accounted for"), || {
        last = serde_json::from_str(asking.get("/status").body()).unwrap();
        let count = |key: &str| last[key].as_u64().unwrap();
        count("total_connections") == count("closed_connections") + count("active_connections")
    });
    assert_eq!(last["lost_connections"], 0, "{what}: {last}");
}

/// Every counter below a value, by its path.
fn collect(path: &str, value: &Value, counters: &mut BTreeMap<String, f64>) {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !NO_COUNTERS.contains(&key.as_str()) && !key.ends_with("_at"))
            .for_each(|(key, value)| collect(&format!("{path}/{key}"), value, counters)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, value)| collect(&format!("{path}/{at}"), value, counters)),
        Value::Number(number) => _ = counters.insert(path.to_owned(), number.as_f64().unwrap()),
        _ => {}
    }
}
