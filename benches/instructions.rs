//! Instructions per request, counted by valgrind: the same on every run, whatever else the machine
//! does. A change that costs more than its limit fails.
//!
//! `cargo bench --bench instructions` counts every case; it needs valgrind on the path.

use std::env;
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};

use uring_pool::offline::Conversation;
use uring_pool::proto::h1::{HeadLimits, HeadParser};
use uring_pool::{Request, Response};

const WRK: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const BROWSER: &[u8] = b"GET /articles/2024/io-uring?page=2&sort=new HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

/// As short as [`WRK`], to be answered in turn with another: no head repeats the one before.
const OTHER: &[u8] = b"GET /plaintexu HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

const OTHER_BROWSER: &[u8] = b"GET /articles/2024/io-urinh?page=2&sort=new HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

/// A name, a limit of instructions a round, and what to run for so many rounds.
type Case = (&'static str, u64, fn(u64));

/// What is counted, and how many instructions it may take: the count when the limit was set, and
/// 5 % for other versions of the compiler.
const CASES: [Case; 11] = [
    ("parse a short head", 1300, |rounds| parse(WRK, rounds)),
    ("parse a browser's head", 3600, |rounds| parse(BROWSER, rounds)),
    ("answer a short request", 2600, |rounds| answer(&[WRK, OTHER], rounds)),
    ("answer it when it repeats", 1200, |rounds| answer(&[WRK], rounds)),
    ("answer a browser's request", 4800, |rounds| answer(&[BROWSER, OTHER_BROWSER], rounds)),
    ("answer 16 pipelined requests", 11900, |rounds| answer(&[&WRK.repeat(16)], rounds)),
    ("short, with a record", 2900, |rounds| guarded(&[WRK, OTHER], false, false, rounds)),
    ("short, and the access log", 5500, |rounds| guarded(&[WRK, OTHER], true, false, rounds)),
    ("short, and a rate limit", 3800, |rounds| guarded(&[WRK, OTHER], false, true, rounds)),
    ("short, and both", 6400, |rounds| guarded(&[WRK, OTHER], true, true, rounds)),
    ("browser's, and both", 10500, |rounds| {
        guarded(&[BROWSER, OTHER_BROWSER], true, true, rounds);
    }),
];

fn parse(head: &[u8], rounds: u64) {
    let (limits, mut fields) = (HeadLimits::default(), Vec::with_capacity(32));
    let mut parser = HeadParser::default();
    for _ in 0..rounds {
        black_box(parser.parse(black_box(head), &limits, &mut fields).unwrap().unwrap());
    }
}

/// Answers `rounds` requests, these in turn.
fn answer(requests: &[&[u8]], rounds: u64) {
    converse(Conversation::new(hello), requests, rounds);
}

/// The same with what costs something for each request: the access log, a limit of the client's rate.
fn guarded(requests: &[&[u8]], has_log: bool, has_rate: bool, rounds: u64) {
    converse(Conversation::guarded(hello, has_log, has_rate), requests, rounds);
}

async fn hello(_: &Request) -> Response {
    Response::text("Hello, World!")
}

fn converse(mut conversation: Conversation, requests: &[&[u8]], rounds: u64) {
    let mut heard = Vec::with_capacity(4096);
    for (_, request) in (0..rounds).zip(requests.iter().cycle()) {
        heard.clear();
        conversation.say(black_box(request), &mut heard);
        black_box(&heard);
    }
    assert!(heard.ends_with(b"\r\n\r\nHello, World!"));
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    match (arguments.next(), arguments.next()) {
        (Some(case), Some(rounds)) => {
            let (_, _, run) = CASES[case.parse::<usize>().unwrap()];
            run(rounds.parse().unwrap());
            ExitCode::SUCCESS
        }
        _ => count_all(),
    }
}

/// Runs every case under valgrind, and compares with its limit.
fn count_all() -> ExitCode {
    /// Enough for pools to have grown; the difference of two runs leaves their start out.
    const ROUNDS: u64 = 1000;
    let mut is_fine = true;
    for (number, (name, limit, _)) in CASES.iter().enumerate() {
        let count = |rounds| count(number, rounds);
        let each = (count(2 * ROUNDS) - count(ROUNDS)).div_ceil(ROUNDS);
        let verdict = if each <= *limit { "ok" } else { "TOO MANY" };
        println!("{name:30} {each:6} instructions, limit {limit:6}: {verdict}");
        is_fine &= each <= *limit;
    }
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Instructions of a whole run of a case.
fn count(case: usize, rounds: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().unwrap())
        .args([case.to_string(), rounds.to_string()])
        .stdout(Stdio::null())
        .output()
        .expect("valgrind runs (Debian: apt-get install valgrind)");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    let (_, collected) = report.split_once("Collected : ").expect("callgrind reports a count");
    collected.split_whitespace().next().unwrap().parse().unwrap()
}
