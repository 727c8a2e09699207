//! The master's promises, kept by real processes; each with every feature of the kernel, and again
//! with those of the oldest one.

mod ease;
mod restart;
mod server;
mod start;
mod stop;
mod workers;

use std::time::Duration;

use uring_ring::{Features, Mask};

use crate::config::PoolConfig;

/// Runs a promise on this kernel, and on it as if it were the oldest.
fn with_each_kernel(promise: impl Fn(Features)) {
    for mask in [Mask::NONE, Mask::ALL] {
        promise(Features::probe(mask).expect("these tests need io_uring"));
    }
}

/// The default, but on any free port.
fn config() -> PoolConfig {
    PoolConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..PoolConfig::default() }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
