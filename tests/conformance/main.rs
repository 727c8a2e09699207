//! HTTP/1.1 to the letter: cases by section of RFC 9110 and 9112, as data, over real sockets against
//! the real program. Each is sent whole, in two pieces at every place where it can be cut, and byte
//! by byte; the answers are the same every time.

#[path = "../common/mod.rs"]
mod common;

mod bodies;
mod chunks;
mod connections;
mod fields;
mod lines;
mod methods;
mod talk;
mod targets;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::Server;
use talk::{Outcome, Site};

/// What a client sends, and what it hears.
struct Case {
    /// The section that says so: `9112 3.2.1`.
    section: &'static str,
    what: &'static str,
    /// Each line end is sent as CR LF, unless the case `is_raw`.
    sent: &'static str,
    is_raw: bool,
    /// The statuses of the final responses, in order, then what becomes of the connection: `+` when
    /// it serves another request, `.` when the server closes it, and nothing that follows the case
    /// is answered.
    heard: &'static str,
    /// What stands in the last response.
    with: &'static [&'static str],
}

const fn case(
    section: &'static str,
    what: &'static str,
    sent: &'static str,
    heard: &'static str,
) -> Case {
    Case { section, what, sent, is_raw: false, heard, with: &[] }
}

const fn raw(
    section: &'static str,
    what: &'static str,
    sent: &'static str,
    heard: &'static str,
) -> Case {
    Case { is_raw: true, ..case(section, what, sent, heard) }
}

impl Case {
    const fn with(self, with: &'static [&'static str]) -> Case {
        Case { with, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let text = if self.is_raw { self.sent.to_owned() } else { self.sent.replace('\n', "\r\n") };
        // Bytes that are no text stand in the tables as U+0080 to U+00FF.
        text.chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect()
    }

    /// Checks what was heard; `how` tells in which pieces the case was sent.
    fn judge(&self, outcome: &Outcome, how: &str) -> Result<(), String> {
        let Case { section, what, .. } = self;
        let mut heard: Vec<String> = outcome.statuses().map(|status| status.to_string()).collect();
        let end = if outcome.stays { "+" } else { "." };
        heard.push(end.to_owned());
        let (heard, text) = (heard.join(" "), outcome.last());
        let missing = self.with.iter().find(|with| !text.contains(**with));
        if heard == self.heard && missing.is_none() {
            return Ok(());
        }
        let missing = missing.map(|with| format!(" without `{with}`")).unwrap_or_default();
        let wanted = self.heard;
        Err(format!("{section} {what}, {how}: `{heard}`{missing} instead of `{wanted}`:\n{text}"))
    }
}

const TABLES: [&[Case]; 7] = [
    lines::CASES,
    targets::CASES,
    fields::CASES,
    bodies::CASES,
    chunks::CASES,
    methods::CASES,
    connections::CASES,
];

fn cases() -> impl Iterator<Item = &'static Case> {
    TABLES.into_iter().flatten()
}

/// Runs `check` for every case on a few threads, and tells all that failed.
fn check_all(check: impl Fn(&Case) -> Result<(), String> + Sync) {
    let (cases, next): (Vec<_>, _) = (cases().collect(), AtomicUsize::new(0));
    let failures: Vec<String> = thread::scope(|scope| {
        let work = || {
            let mine = || cases.get(next.fetch_add(1, Ordering::Relaxed)).copied();
            std::iter::from_fn(mine).filter_map(|case| check(case).err()).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn there_are_many_cases_and_each_names_its_section() {
    assert!(cases().count() >= 250, "{} cases", cases().count());
    let names: BTreeSet<_> = cases().map(|case| (case.section, case.what)).collect();
    assert_eq!(names.len(), cases().count(), "a case is named twice");
    for case in cases() {
        let (rfc, section) = case.section.split_once(' ').expect("an RFC and a section");
        assert!(rfc.len() == 4 && rfc.bytes().all(|byte| byte.is_ascii_digit()), "{rfc}");
        assert!(section.split('.').all(|part| part.parse::<u8>().is_ok()), "{section}");
        assert!(case.heard.ends_with(['+', '.']), "{}", case.what);
    }
}

#[test]
fn each_case_over_tcp() {
    let server = Server::start(&["--workers", "1"]);
    let site = Site::Tcp(server.address());
    check_all(|case| case.judge(&site.talk(&[&case.bytes()]), "whole, over TCP"));
}

#[test]
fn each_case_at_every_split() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _server =
        Server::start(&["--listen", &format!("unix:{}", path.display()), "--workers", "1"]);
    let site = Site::Unix(path);
    check_all(|case| {
        let bytes = case.bytes();
        for cut in 0..=bytes.len() {
            let (begin, end) = bytes.split_at(cut);
            case.judge(&site.talk(&[begin, end]), &format!("cut at {cut}"))?;
        }
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        case.judge(&site.talk(&pieces), "byte by byte")
    });
}
