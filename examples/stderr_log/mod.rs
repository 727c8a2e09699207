//! A log on standard error, for examples that are run to be watched.

use std::io::{self, Write};

struct StderrLog;

/// Writes all but details there, each line with the process it is of.
pub(crate) fn begin() {
    log::set_logger(&StderrLog).expect("no other logger was set before");
    log::set_max_level(log::LevelFilter::Info);
}

impl log::Log for StderrLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // In one write, as others write there, too.
        let line = format!("[{}] {}: {}\n", std::process::id(), record.level(), record.args());
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
