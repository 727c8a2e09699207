//! Whole workers: on a simulated kernel by the thousand, and on the real one for what only that
//! can tell.

mod bare;
mod hot_path;
mod simulation;

use std::time::Duration;

use crate::conn::{BodyLimits, Settings};

fn settings() -> Settings {
    Settings {
        body: BodyLimits { bytes_max: 100_000, collected_bytes_max: 100_000 },
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        body_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(30),
        ..Settings::for_tests()
    }
}
