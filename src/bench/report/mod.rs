//! A summary for its readers: text for a terminal, CSV, Markdown, an HDR interval log, one HTML page.
//! Writes strings; computes nothing that isn't in the summary.

mod chart;
mod csv;
mod hlog;
mod html;
mod markdown;
#[cfg(test)]
mod tests;
mod text;
pub(super) mod units;

pub use csv::csv;
pub use hlog::hlog;
pub use html::html;
pub use markdown::markdown;
pub use text::{changes, checks, sparkline, text};
pub use units::{rate, time};

use super::summary::{Limiter, Load, Setup, Summary};

/// The load in a few words: `64 connections, 1 thread, closed loop`.
pub(super) fn load_words(setup: &Setup) -> String {
    let many = |count: u64, name: &str| {
        format!("{} {name}{}", units::count(count), if count == 1 { "" } else { "s" })
    };
    let load = match &setup.load {
        Load::Closed => "closed loop".to_owned(),
        Load::Open { rate, arrival, is_steady: true } => {
            format!("{}/s {arrival}", units::rate(*rate))
        }
        Load::Open { rate, arrival, is_steady: false } => {
            format!("{}/s on average, {arrival}", units::rate(*rate))
        }
    };
    let mut words = vec![many(setup.connections, "connection")];
    if setup.threads > 0 {
        words.push(many(setup.threads, "thread")); // before a run begins, they aren't known
    }
    words.push(load);
    if setup.pipeline > 1 {
        words.push(format!("{} pipelined", setup.pipeline));
    }
    if let Some(count) = setup.session {
        words.push(format!("sessions of {}", many(count, "request")));
    }
    if setup.think > 0 {
        words.push(format!("{} of thinking", units::time(setup.think)));
    }
    match setup.requests_per_connection {
        Some(1) => words.push("a connection for each request".to_owned()),
        Some(count) => words.push(format!("a connection for {}", many(count, "request"))),
        None => {}
    }
    if let Some(rate) = setup.connection_rate {
        words.push(format!("{}/s opened at most", units::rate(rate)));
    }
    words.join(", ")
}

/// The targets in a few words.
pub(super) fn target_words(setup: &Setup) -> String {
    match &setup.targets[..] {
        [] => "several generators' targets".to_owned(),
        [one] => one.clone(),
        [first, more @ ..] => format!("{first} and {} more", more.len()),
    }
}

/// What limited the run, as the end of a sentence.
fn limiter_words(summary: &Summary) -> String {
    match summary.verdict.limiter {
        Limiter::Unknown => {
            "what limited it is not known".to_owned()
                + if summary.measured.server.is_none() {
                    " (--server-pid would tell more)"
                } else {
                    ""
                }
        }
        Limiter::Failure => "nothing was answered".to_owned(),
        limiter => format!("limited by {}", limiter.text()),
    }
}

/// The warm-up in words, if any was dropped.
fn warmup_words(summary: &Summary) -> Option<String> {
    let window = &summary.window;
    (window.from > 0).then(|| {
        let median = window
            .warmup_p50
            .map_or(String::new(), |nanos| format!(", p50 {}", units::time(nanos)));
        format!(
            "{} of warm-up left out ({} answers{median})",
            units::seconds(window.from),
            units::count(window.warmup_answers)
        )
    })
}
