//! `uring-pool bench` against servers that do what they are told: stall, lie, break off.

#![cfg(feature = "bench")]
#![expect(clippy::cast_precision_loss, reason = "times are below 2^53 nanoseconds")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use common::{Server, program};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server of one thread a connection. `answer` gets each request's number on its connection; what
/// it returns is sent, and `None` closes.
fn server(answer: impl Fn(&str, usize) -> Option<String> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(&stream, &*answer));
        }
    });
    address
}

fn serve(stream: &TcpStream, answer: &dyn Fn(&str, usize) -> Option<String>) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    for number in 0.. {
        let mut head = String::new();
        loop {
            match reader.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) if head.ends_with("\r\n\r\n") => break,
                Ok(_) => {}
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        head.push_str(&String::from_utf8_lossy(&body));
        let Some(response) = answer(&head, number) else { return };
        if (&*stream).write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn bench(arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("bench").args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it and reads its JSON; the exit status must be one of these.
fn json(statuses: &[i32], arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["-o", "json"]].concat());
    let code = output.status.code().unwrap();
    assert!(statuses.contains(&code), "{code}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a JSON document")
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

/// The server answers at once, but for a pause that begins a second after its first request.
fn stalling(pause: Duration) -> SocketAddr {
    let first: OnceLock<Instant> = OnceLock::new();
    server(move |_, _| {
        let first = *first.get_or_init(Instant::now);
        let (from, to) = (first + Duration::from_secs(1), first + Duration::from_secs(1) + pause);
        let now = Instant::now();
        if (from..to).contains(&now) {
            thread::sleep(to - now);
        }
        Some(OK.to_owned())
    })
}

/// What people waited is what the arithmetic says: those due in a pause wait for its end.
#[test]
fn a_stall_is_told_as_long_as_it_was() {
    // Of 4,000 requests 1,000 are due in the pause, and wait from 0 to 1 s, evenly.
    // Of 5,000 requests 2,500 are due in it, and wait from 0 to 2.5 s.
    let cases = [(1.0, 4, [600.0, 960.0]), (2.5, 5, [2000.0, 2450.0])];
    for (pause, seconds, expected) in cases {
        // A machine that is busy with other things delays everything: the best of three is the
        // program's own.
        let mut errors = Vec::new();
        for _ in 0..3 {
            let address = stalling(Duration::from_secs_f64(pause));
            let time = format!("{seconds}s");
            let flags = ["-R", "1000", "-c", "32", "-z", &time, "--warmup", "0s", &url(address)];
            let run = json(&[0, 98], &flags);
            assert_eq!(run["counts"]["offered"], 1000 * seconds);
            assert_eq!(run["counts"]["failed"], 0);
            let response = &run["latency"]["response"];
            let error = ["p90", "p99"].iter().zip(expected).map(|(name, expected)| {
                let got = response[name].as_u64().unwrap() as f64 / 1e6;
                (got / expected - 1.0).abs()
            });
            errors.push(error.fold(0.0, f64::max));
            if errors.last().unwrap() <= &0.05 {
                break;
            }
        }
        let best = errors.iter().copied().fold(f64::MAX, f64::min);
        assert!(best <= 0.05, "{pause} s of {seconds} s: off by {errors:?}");
    }
}

/// Independent books: the server serves one request at a time, at 80 % of what it can do, and notes
/// when each answer left. Requests carry their number, so that arithmetic says when each was due.
/// What it took from then on is what the generator must have measured.
#[test]
fn what_people_waited_is_what_the_server_noted() {
    const RATE: u32 = 100;
    const SECONDS: u32 = 12;
    // Eight milliseconds on average: nine of ten take 4, each tenth 44, which others wait for.
    let service = |number: u32| Duration::from_millis(if number % 10 == 9 { 44 } else { 4 });
    let due = |number: u32| Duration::from_secs(1) * number / RATE;
    let count = RATE * SECONDS;
    let directory = tempfile::tempdir().unwrap();
    let rows = directory.path().join("numbers.csv");
    let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    std::fs::write(&rows, format!("number\n{}\n", numbers.join("\n"))).unwrap();
    let mut errors = Vec::new();
    for _ in 0..3 {
        type Note = (u32, Instant, Instant);
        let notes: Arc<Mutex<Vec<Note>>> = Arc::default();
        let (copy, turn) = (Arc::clone(&notes), Mutex::new(()));
        let address = server(move |head, _| {
            let came = Instant::now();
            let number = head.strip_prefix("GET /")?.split_once(' ')?.0.parse().ok()?;
            let mine = turn.lock().unwrap();
            thread::sleep(service(number));
            let left = Instant::now();
            drop(mine);
            copy.lock().unwrap().push((number, came, left));
            Some(OK.to_owned())
        });
        let (rate, time) = (RATE.to_string(), format!("{SECONDS}s"));
        let flags = ["-R", &rate, "-c", "64", "-t", "1", "-z", &time, "--warmup", "0s", "--csv"];
        let url = format!("http://{address}/{{number}}");
        let run = json(&[0, 98], &[&flags[..], &[rows.to_str().unwrap(), &url]].concat());
        assert_eq!(run["counts"]["ok"], count);
        let notes = std::mem::take(&mut *notes.lock().unwrap());
        // The clock began when the request that was least late was due.
        let begins = notes.iter().filter_map(|(number, came, _)| came.checked_sub(due(*number)));
        let begin = begins.min().unwrap();
        let mut took: Vec<Duration> =
            notes.iter().map(|(number, _, left)| *left - (begin + due(*number))).collect();
        took.sort_unstable();
        let error = [("p50", 50), ("p99", 99)].map(|(name, part)| {
            let by_server = took[(took.len() * part).div_ceil(100) - 1].as_nanos() as f64;
            let told = run["latency"]["response"][name].as_u64().unwrap() as f64;
            println!("{name}: noted {:.3} ms, told {:.3} ms", by_server / 1e6, told / 1e6);
            (told / by_server - 1.0).abs()
        });
        errors.push(error[0].max(error[1]));
        if errors.last().unwrap() <= &0.02 {
            break;
        }
    }
    let best = errors.iter().copied().fold(f64::MAX, f64::min);
    assert!(best <= 0.02, "off by {errors:?}");
}

/// A server that is never done answering is told as censored, not left out.
#[test]
fn what_has_no_answer_at_the_end_is_kept_as_unfinished() {
    let address = server(|_, _| {
        thread::park();
        None
    });
    let flags = ["-R", "100", "-c", "4", "-z", "1s", "--drain", "100ms", &url(address)];
    let run = json(&[3], &flags);
    assert_eq!(run["counts"]["offered"], 100);
    assert_eq!((&run["counts"]["sent"], &run["counts"]["ok"]), (&4.into(), &0.into()));
    assert_eq!(run["counts"]["unfinished"], 100);
}

#[test]
fn each_failure_of_a_target_has_its_name_and_status_three() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = bench(&["-z", "1s", &url(gone)]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains(&format!("nobody listens at {gone}")), "{output:?}");

    let output = bench(&["-z", "1s", "http://nowhere.invalid/"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("nowhere.invalid"), "{output:?}");

    type Answers = fn(&str, usize) -> Option<String>;
    let cases: [(&str, &[&str], Answers); 9] = [
        ("status", &[], |_, _| Some("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".into())),
        ("status", &["--expect", "201"], |_, _| Some(OK.into())),
        ("body", &["--expect", "200,bytes=13"], |_, _| Some(OK.into())),
        ("closed", &[], |_, _| None),
        ("cut_short", &[], |_, _| None), // by a server of its own
        ("reset", &[], |_, _| None),     // likewise
        ("malformed", &[], |_, _| Some("SSH-2.0-server\r\n".into())),
        ("malformed", &[], |_, _| Some(format!("{OK}more"))),
        ("timeout", &["--timeout", "100ms"], |_, _| {
            thread::sleep(Duration::from_millis(400));
            Some(OK.into())
        }),
    ];
    for (fault, flags, answer) in cases {
        let address = match fault {
            "cut_short" => cutting(),
            "reset" => resetting(),
            _ => server(answer),
        };
        let url = url(address);
        let all = [&["-c", "2", "-n", "6", "--drain", "2s"], flags, &[&url]].concat();
        let run = json(&[3], &all);
        let counts = &run["counts"];
        // Bytes that nobody asked for are the connection's fault, all else is a request's.
        let of = |what: &str| counts[what][fault].as_u64().unwrap_or(0);
        assert!(of("faults") + of("connect_faults") > 0, "{fault}: {counts}");
        let ok = counts["ok"].as_u64().unwrap();
        let failed = counts["failed"].as_u64().unwrap();
        let offered = counts["offered"].as_u64().unwrap();
        let unfinished = counts["unfinished"].as_u64().unwrap();
        assert_eq!(ok + failed + unfinished, offered, "{fault}: {counts}");
    }
}

/// A server that closes with the request unread, which TCP tells by a reset.
fn resetting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || stream.peek(&mut [0]));
        }
    });
    address
}

/// A server that closes in the middle of each answer.
fn cutting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut head = [0; 512];
                let _ = (&stream).read(&mut head);
                let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
            });
        }
    });
    address
}

#[test]
fn wrong_use_is_status_two_and_says_what_would_be_right() {
    for (flags, words) in [
        (&["http://h/", "-d", "10s"][..], "-z 10s"),
        (&["https://h/"], "TLS"),
        (&["http://h:0/"], "1 to 65535"),
        (&[], "no URL"),
        (&["http://h/", "-R", "fast"], "50k"),
        (&["http://h/", "-c", "0"], "-c 0"),
        (&["http://h/", "--stages", "10"], "10s:1k"),
        (&["http://h/", "--think", "1s", "-R", "5"], "--session"),
        (&["http://h/", "-R", "5", "--session", "3", "--no-keepalive"], "--requests-per-conn"),
        (&["http://h/", "-R", "5", "--session", "3", "--requests-per-conn", "4"], "multiple"),
        (&["http://h/", "--colour"], "--colour"),
        (&["http://127.0.0.1/", "-c", "1000000"], "ulimit"),
        (&["http://127.0.0.1/", "--source", "192.0.2.1"], "--source 192.0.2.1"),
        (&["http://127.0.0.1/", "-R", "0"], "-R 0"),
        (&["http://127.0.0.1/", "-z", "1s", "--warmup", "1s"], "--warmup"),
    ] {
        let output = bench(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {output:?}");
        assert!(text(&output.stderr).contains(words), "{flags:?}: {}", text(&output.stderr));
    }
}

/// Each third answer is wrong: whoever says how many may be is asked, and nobody else.
#[test]
fn a_condition_about_failures_decides_instead_of_status_three() {
    let address = server(|_, number| {
        let status = if number % 3 == 2 { "500 No" } else { "200 OK" };
        Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
    });
    let url = url(address);
    let ends = |conditions: &[&str]| {
        bench(&[&["-c", "2", "-n", "3000"], conditions, &[&url]].concat()).status.code()
    };
    assert_eq!(ends(&[]), Some(3));
    assert_eq!(ends(&["--assert", "rate>0"]), Some(3), "it says nothing of failures");
    // A machine that is busy with other things makes a run invalid, too.
    assert!(matches!(ends(&["--assert", "failed<50%"]), Some(0 | 98)));
    assert!(matches!(ends(&["--assert", "failed<1%"]), Some(99 | 98)));
}

#[test]
fn the_server_behind_an_address_is_found_and_measured() {
    let server = Server::start(&["--workers", "2"]);
    let url = format!("http://{}/plaintext", server.address());
    let run = json(&[0, 98], &["-c", "2", "-z", "500ms", &url]);
    let found = &run["measured"]["server"];
    assert_eq!(found["pid"], server.pid(), "{found}");
    assert_eq!(found["processes"], 3, "a master with two workers: {found}");
}

/// Each target has percentiles of its own.
#[test]
fn a_slow_target_is_told_from_a_fast_one() {
    let address = server(|head, _| {
        if head.starts_with("GET /slow") {
            thread::sleep(Duration::from_millis(20));
        }
        Some(OK.into())
    });
    let [fast, slow] = ["fast", "slow"].map(|name| format!("http://{address}/{name}"));
    let run = json(&[0, 98], &["-c", "8", "-n", "400", &fast, &slow]);
    let p50 = |target: usize| run["targets"][target]["response"]["p50"].as_u64().unwrap();
    assert!(p50(1) >= 20_000_000 && p50(0) < p50(1), "{} and {} ns", p50(0), p50(1));
}

#[test]
fn every_shape_of_load_gets_its_answers() {
    let server = Server::start(&["--workers", "1"]);
    let url = format!("http://{}/plaintext", server.address());
    let shapes: [(&[&str], u64); 13] = [
        (&["-c", "4", "-n", "1000"], 1000),
        (&["-c", "4", "-n", "1000", "-P", "16"], 1000),
        (&["-c", "4", "-n", "200", "--no-keepalive"], 200),
        (&["-c", "4", "-n", "200", "--requests-per-conn", "7"], 200),
        (&["-c", "4", "-n", "40", "--think", "5ms"], 40),
        (&["-c", "4", "-n", "100", "-R", "1000", "--arrival", "poisson"], 100),
        (&["-c", "4", "-n", "100", "-R", "1000", "--arrival", "burst:20"], 100),
        (&["-c", "4", "-n", "100", "-R", "500", "--no-keepalive"], 100),
        (&["-c", "8", "-n", "100", "-R", "1000", "--session", "5", "--think", "1ms"], 100),
        (&["-c", "8", "-n", "96", "-R", "1000", "--session", "3", "--requests-per-conn", "3"], 96),
        (&["-c", "8", "-n", "96", "-R", "1000", "--session", "3", "--requests-per-conn", "6"], 96),
        (&["-c", "4", "-R", "500", "-P", "4", "-z", "200ms", "--max-inflight", "3"], 100),
        (&["-c", "3", "-z", "300ms", "--stages", "100ms:1k,100ms:1k..3k"], 300),
    ];
    for (flags, requests) in shapes {
        let run = json(&[0, 98], &[flags, &["--expect", "200,bytes=13", &url]].concat());
        let counts = &run["counts"];
        assert_eq!(counts["failed"], 0, "{flags:?}: {counts}");
        // A busy machine may not get to the last ones before the time is up; they aren't forgotten.
        let of = |what: &str| counts[what].as_u64().unwrap();
        assert_eq!(of("ok") + of("unfinished"), requests, "{flags:?}: {counts}");
        assert!(of("unfinished") == 0 || flags.contains(&"-z"), "{flags:?}: {counts}");
    }
}

/// Nobody waits for requests that can never be sent, though no time was said.
#[test]
fn a_number_of_requests_ends_when_nobody_listens_any_more() {
    for more in [&[][..], &["-R", "1000"]] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            // The look whether somebody listens, and one connection with five answers.
            drop(listener.accept());
            let (stream, _) = listener.accept().unwrap();
            drop(listener);
            serve(&stream, &|_, number| (number < 5).then(|| OK.to_owned()));
        });
        let flags = ["-c", "1", "-n", "1000", "--timeout", "300ms", &url(address)];
        let run = json(&[3], &[&flags[..], more].concat());
        assert_eq!(run["counts"]["ok"], 5, "{more:?}: {}", run["counts"]);
        assert!(run["counts"]["connect_faults"]["refused"].as_u64() > Some(0), "{more:?}");
    }
}

/// The last answers belong to the time that a number of requests takes: else its rate is that of
/// sending.
#[test]
fn so_many_requests_take_until_the_last_answer() {
    let address = server(|_, _| {
        thread::sleep(Duration::from_millis(50));
        Some(OK.into())
    });
    for flags in [&["-c", "8", "-n", "8"][..], &["-c", "8", "-n", "8", "-R", "100k"]] {
        let run = json(&[0, 98], &[flags, &["-t", "1", &url(address)]].concat());
        let rate = run["rate"].as_f64().unwrap();
        assert!(rate > 0.0 && rate <= 8.0 / 0.05, "{flags:?}: {rate} a second");
    }
}

/// Whoever stops the generator sees that in its lag, not in the server's times: also where each
/// request opens a connection.
#[test]
fn a_generator_that_was_stopped_says_so() {
    let server = Server::start(&["--workers", "1"]);
    let url = format!("http://{}/plaintext", server.address());
    for more in [&[][..], &["--no-keepalive"]] {
        let mut command = program();
        command.args(["bench", "-R", "200", "-c", "8", "-z", "3s", "-o", "json", "--no-tui", &url]);
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The first line of progress: the load is under way.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.next().is_some());
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        thread::sleep(Duration::from_millis(500));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
        thread::spawn(move || lines.for_each(drop));
        let output = child.wait_with_output().unwrap();
        let run: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
        let lag = run["latency"]["lag"]["max"].as_u64().unwrap();
        assert!(lag >= 400_000_000, "{more:?}: {lag} ns");
        assert_ne!(run["verdict"]["status"], "VALID", "{more:?}: {}", run["verdict"]);
    }
}

#[test]
fn requests_arrive_as_flags_say() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&seen);
    let address = server(move |head, _| {
        copy.lock().unwrap().push(head.to_owned());
        Some(OK.into())
    });
    let target = format!("http://{address}/p?q=1");
    let flags = ["-n", "1", "-c", "1", "-H", "X-A: b", "-d", "a=b", "-u", "me:pw", "-A", "x"];
    json(&[0, 98], &[&flags[..], &[&target]].concat());
    let head = seen.lock().unwrap().remove(0);
    assert_eq!(
        head,
        format!(
            "POST /p?q=1 HTTP/1.1\r\nHost: {address}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\
             Authorization: Basic bWU6cHc=\r\nUser-Agent: x\r\nX-A: b\r\n\r\na=b"
        )
    );
}

#[test]
fn unix_sockets_and_other_sources_reach_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let unix = Server::start(&["--workers", "1", "--listen", &format!("unix:{}", path.display())]);
    let flags = ["-n", "10", "-c", "2", "--unix-socket", path.to_str().unwrap()];
    let run = json(&[0, 98], &[&flags[..], &["http://local/plaintext"]].concat());
    assert_eq!(run["counts"]["ok"], 10);
    drop(unix);

    let sources = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let copy = Arc::clone(&sources);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            copy.lock().unwrap().insert(stream.peer_addr().unwrap().ip().to_string());
            thread::spawn(move || serve(&stream, &|_, _| Some(OK.into())));
        }
    });
    let flags = ["-n", "30", "-c", "6", "-t", "1", "--source", "127.0.0.2-127.0.0.4"];
    let run = json(&[0, 98], &[&flags[..], &[&url(address)]].concat());
    assert_eq!(run["counts"]["ok"], 30);
    let sources = sources.lock().unwrap();
    for source in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
        assert!(sources.contains(source), "{sources:?}");
    }
}

/// As many as a process may have descriptors for, up to 15,000.
#[test]
fn many_thousand_connections_are_held_and_used() {
    use nix::sys::resource::{Resource, getrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let count = hard.saturating_sub(2000).min(15_000).to_string();
    let server = Server::start(&["--workers", "1"]);
    let url = format!("http://{}/plaintext", server.address());
    let flags = ["-c", &count, "-n", &count, "-t", "1", "--drain", "20s", &url];
    let run = json(&[0, 98], &flags);
    assert_eq!(run["counts"]["connects"].to_string(), count);
    assert_eq!(run["counts"]["ok"].to_string(), count);
}

#[test]
fn an_interrupted_load_tells_what_it_has() {
    let address = server(|_, _| Some(OK.into()));
    let mut command = program();
    command.args(["bench", "-c", "1", "-z", "600s", "-o", "json", "--no-tui", &url(address)]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first line of progress: the load is under way.
    let mut child = child;
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.next().is_some());
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    thread::spawn(move || lines.for_each(drop));
    let output = child.wait_with_output().unwrap();
    let run: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    assert!(run["counts"]["ok"].as_u64().unwrap() > 0);
    assert!(output.status.code().is_some(), "{:?}", output.status);
}

#[test]
fn a_search_finds_a_rate_and_two_servers_are_told_apart() {
    let address = server(|_, _| {
        thread::sleep(Duration::from_millis(2));
        Some(OK.into())
    });
    let flags = ["search", "--slo", "p99<1h", "-c", "2", "-z", "300ms"];
    let output = bench(&[&flags[..], &[&url(address)]].concat());
    let told = text(&output.stdout);
    // Whether it holds is the machine's affair; that it says so or why not is ours.
    match output.status.code() {
        Some(0) => {
            assert!(told.contains("/s with p99<1h: it held") && told.contains("did not"), "{told}");
        }
        Some(98) => {
            let why = text(&output.stderr);
            let is_told = why.contains("no rate was found") || why.contains("is not known: at");
            assert!(is_told, "{output:?}");
        }
        _ => panic!("{output:?}"),
    }

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let serve = format!("{} serve --workers 1 --listen {free}", env!("CARGO_BIN_EXE_uring-pool"));
    // Commands are a shell's: with variables, several of them.
    let again = format!("cd / && NAME=value {serve}");
    let flags = ["ab", "--a", &serve, "--b", &again, "--rounds", "2", "-z", "200ms", "-c", "2"];
    let output = bench(&[&flags[..], &[&format!("http://{free}/plaintext")]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = text(&output.stdout);
    assert_eq!(told.lines().filter(|line| line.contains("requests/s, p50")).count(), 8, "{told}");
    assert!(told.contains("B / A") && TcpStream::connect(free).is_err(), "{told}");
    let flags = ["ab", "--a", "echo no luck >&2; false", "--b", "false", "-z", "200ms", &url(free)];
    let output = bench(&flags);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("exit status: 1") && told.contains("no luck"), "{told}");
}

/// Whoever interrupts a comparison leaves no server behind.
#[test]
fn an_interrupted_comparison_stops_its_servers() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let serve = format!("{} serve --workers 1 --listen {free}", env!("CARGO_BIN_EXE_uring-pool"));
    let mut command = program();
    command.args(["bench", "ab", "--a", &serve, "--b", &serve, "-z", "600s", "-c", "2"]);
    command.arg(format!("http://{free}/plaintext")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let begun = Instant::now();
    while TcpStream::connect(free).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "no server was started");
        thread::sleep(Duration::from_millis(10));
    }
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(98), "{output:?}");
    assert!(text(&output.stderr).contains("interrupted"), "{output:?}");
    assert!(TcpStream::connect(free).is_err(), "a server was left behind");
}

#[test]
fn nobody_notices_a_reload_and_whoever_does_is_counted() {
    let server = Server::start(&["--workers", "2"]);
    let url = format!("http://{}/plaintext", server.address());
    let pid = server.pid().to_string();
    let flags =
        ["lifecycle", "--server-pid", &pid, "--events", "reload", "--late", "10s", "-z", "3s"];
    let output = bench(&[&flags[..], &["-R", "200", "-c", "8", &url]].concat());
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(told.contains("reload (SIGHUP)") && told.contains("nobody noticed"), "{told}");
}

/// Memory doesn't grow with the run: a backlog, and ten times the requests, take no more.
#[test]
fn memory_stays_the_same_however_long_it_takes() {
    let server = Server::start(&["--workers", "1"]);
    let url = format!("http://{}/plaintext", server.address());
    let peak = |flags: &[&str]| -> u64 {
        // The shell tells the peak of its child before it ends.
        let mut child: std::process::Child = {
            let mut command: Command = program();
            command.arg("bench").args(flags).arg(&url).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        let mut peak = 0;
        while child.try_wait().unwrap().is_none() {
            let path = format!("/proc/{}/status", child.id());
            let status = std::fs::read_to_string(path).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|it| it.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or(0));
            thread::sleep(Duration::from_millis(5));
        }
        peak
    };
    let short = peak(&["-c", "16", "-z", "1s"]);
    // Ten million requests due in a few seconds, most of which never leave.
    let long = peak(&["-c", "16", "-z", "4s", "-R", "2M", "--drain", "0s"]);
    assert!(long < short + 16 * 1024, "{short} KiB, then {long} KiB");
}
