//! The log on standard error: a time, a level where it matters, a sentence. Chooses no format for
//! machines; those read the status document.

use std::env;
use std::io::Write;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Names the least important level that is shown: off, error, warn, info (the default), debug, trace.
const LEVEL_VARIABLE: &str = "URING_POOL_LOG";

struct Stderr;

/// Sends the library's log to standard error.
pub(super) fn install() {
    set_debug(false);
    log::set_logger(&Stderr).expect("no other logger was set before");
}

/// Shows details, or doesn't, unless the environment says otherwise.
pub(super) fn set_debug(is_wanted: bool) {
    let level = env::var(LEVEL_VARIABLE).ok().and_then(|level| level.parse().ok());
    let default = if is_wanted { LevelFilter::Debug } else { LevelFilter::Info };
    log::set_max_level(level.unwrap_or(default));
}

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        // One write a line, so that lines of several processes don't mix.
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        let line = format!("{time} [{}] {level}{}\n", std::process::id(), record.args());
        let _ = std::io::stderr().write_all(line.as_bytes()); // nowhere left to complain
    }

    fn flush(&self) {}
}
