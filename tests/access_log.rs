//! A line for each answer, whatever becomes of the file; and no request that waits for one.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Server, eventually};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

fn server(path: &Path, workers: usize, format: &str, more: &str) -> Server {
    Server::configured(
        &format!(
            "workers = {workers}\n[access_log]\npath = \"{}\"\nformat = \"{format}\"\n\
             flush = \"10ms\"\n{more}",
            path.display()
        ),
        &[],
    )
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The lines once there are so many; none of them broken.
fn lines(path: &Path, count: usize) -> Vec<Value> {
    let mut lines = Vec::new();
    eventually("the log has its lines", || {
        let text = read(path);
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        lines = whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        lines.len() >= count
    });
    assert_eq!(lines.len(), count);
    lines
}

fn counts(server: &Server) -> (u64, u64) {
    let status = server.status();
    let count = |key: &str| status[key].as_u64().unwrap();
    (count("access_log_lines"), count("access_log_dropped"))
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    (directory, path)
}

#[test]
fn every_answer_has_its_line_with_all_that_there_is_to_tell() {
    let (_directory, path) = directory();
    let server = server(&path, 1, "json", "request_id_header = true\n");
    let mut client = server.connect();
    let answer = client.ask(
        "GET /plaintext?a=b HTTP/1.1\r\nHost: a.example:80\r\nUser-Agent: me/1\r\n\
         Referer: http://b.example/\r\n\r\n",
    );
    let id = answer.header("X-Request-Id").unwrap().to_owned();
    assert_eq!(client.get("/nothing").status(), 404);
    client.say("HEAD /plaintext HTTP/1.1\r\nHost: t\r\n\r\n");
    client.hear_head();
    assert_eq!(client.ask("RUBBISH\r\n\r\n").status(), 400);
    let lines = lines(&path, 4);
    let line = &lines[0];
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!((&line["method"], &line["target"]), (&"GET".into(), &"/plaintext?a=b".into()));
    assert_eq!((&line["version"], &line["host"]), (&"1.1".into(), &"a.example:80".into()));
    assert_eq!(
        (&line["referer"], &line["user_agent"]),
        (&"http://b.example/".into(), &"me/1".into())
    );
    assert_eq!(
        (&line["status"], &line["bytes"], &line["complete"]),
        (&200.into(), &13.into(), &true.into())
    );
    assert_eq!(line["id"], id);
    assert!(
        line["duration_ms"].as_f64().is_some() && line["time"].as_str().unwrap().ends_with('Z')
    );
    let brief: Vec<_> = lines[1..].iter().map(|line| (&line["status"], &line["bytes"])).collect();
    assert_eq!(
        (brief[0].0, brief[1], brief[2].0),
        (&404.into(), (&200.into(), &0.into()), &400.into())
    );
    assert_eq!(lines[3].get("method"), None, "it was no request");
    assert_ne!(lines[0]["id"], lines[1]["id"]);
}

#[test]
fn an_id_is_taken_from_a_trusted_proxy_alone() {
    for (trusted, is_taken) in [("[\"127.0.0.1\"]", true), ("[]", false)] {
        let (_directory, path) = directory();
        let more = format!("request_id_header = true\n[proxies]\ntrusted = {trusted}\n");
        let server = server(&path, 1, "json", &more);
        for (id, is_fine) in [("abc-123", true), ("a\\\"b", false)] {
            let request = format!("GET / HTTP/1.1\r\nHost: t\r\nX-Request-Id: {id}\r\n\r\n");
            let answer = server.connect().ask(&request);
            let told = answer.header("X-Request-Id").unwrap();
            assert_eq!(told == id, is_taken && is_fine, "{trusted}: {told}");
            assert!(
                told == id || (told.len() == 32 && told.bytes().all(|b| b.is_ascii_hexdigit()))
            );
        }
        assert_eq!(lines(&path, 2).len(), 2);
    }
}

#[test]
fn no_client_writes_a_line_of_its_own() {
    for format in ["json", "combined"] {
        let (_directory, path) = directory();
        let server = server(&path, 1, format, "");
        let answer = server.connect().ask(
            "GET /%0a\"x\\ HTTP/1.1\r\nHost: t\r\n\
             User-Agent: \" 200 1 \"-\" \"\\\u{1b}[2J\t\u{2028}\r\n\r\n"
                .replace('\u{1b}', "")
                .as_str(),
        );
        assert!(answer.status() < 500);
        eventually("it is there", || read(&path).ends_with('\n'));
        let text = read(&path);
        assert_eq!(text.lines().count(), 1);
        let inner = &text[..text.len() - 1];
        assert!(!inner.chars().any(|c| c.is_control() || c == '\u{2028}'), "{text:?}");
        if format == "combined" {
            assert_eq!(inner.matches('"').count(), 6, "{text}");
        } else {
            serde_json::from_str::<Value>(inner).unwrap();
        }
    }
}

#[test]
fn pipelined_requests_and_workers_share_the_file_line_by_line() {
    let (_directory, path) = directory();
    let server = server(&path, 2, "json", "");
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for n in 0..200 {
        for client in &mut clients {
            client.say(format!("GET /body/{n} HTTP/1.1\r\nHost: t\r\n\r\n"));
        }
    }
    for client in &mut clients {
        (0..200).for_each(|n| assert_eq!(client.hear().body.len(), n));
    }
    let lines = lines(&path, 800);
    for n in 0..200_u64 {
        let same = lines.iter().filter(|line| line["bytes"] == n).count();
        assert_eq!(same, 4, "{n}");
    }
}

#[test]
fn a_response_that_is_cut_off_says_so() {
    let (_directory, path) = directory();
    let server = server(&path, 1, "json", "");
    let mut client = server.connect();
    for _ in 0..20 {
        client.say("GET /body/1000000 HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    client.hear_head();
    drop(client);
    eventually("it is logged", || read(&path).contains("\"complete\":false"));
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let mut server = server(Path::new("/dev/full"), 1, "json", "");
    let mut client = server.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/plaintext").status(), 200);
    }
    server.wait_for_log("lines of the access log /dev/full are lost: No space left");
    eventually("they are counted", || counts(&server).1 >= 100);
    assert_eq!(counts(&server).0, 0);
    let metrics = client.get("/metrics");
    let dropped =
        metrics.body().lines().find(|l| l.starts_with("uring_pool_access_log_dropped_total"));
    assert!(dropped.is_some_and(|line| !line.ends_with(" 0")), "{dropped:?}");
    server.signal(Signal::SIGTERM);
    assert!(server.wait().0.success());
}

/// Mounts a file system of 64 KiB at the directory, for itself and what it becomes: the server.
const WITH_SMALL_DISK: &str = r#"mount -t tmpfs -o size=64k none "$0" && exec "$@""#;

#[test]
fn a_disk_that_gets_full_and_has_room_again_costs_the_lines_between() {
    let (directory, path) = directory();
    let (disk, file) = (directory.path().to_str().unwrap(), path.to_str().unwrap());
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    let probe = command.args([WITH_SMALL_DISK, disk, "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return println!("skipped: nothing can be mounted here");
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", WITH_SMALL_DISK, disk]);
    command.arg(common::program().get_program());
    command.args(["serve", "--demo", "--listen", "127.0.0.1:0", "--workers", "1"]);
    command.args(["--access-log", file, "--access-log-format", "json"]);
    command.env_remove("URING_POOL_MASK").env_remove("URING_POOL_LOG");
    let mut server = Server::of(command);
    let mut client = server.connect();
    let mut asked = 0;
    eventually("the disk is full", || {
        (0..200).for_each(|_| assert_eq!(client.get("/plaintext").status(), 200));
        asked += 200;
        counts(&server).1 > 0
    });
    server.wait_for_log("No space left");
    // Somebody makes room, as seen from outside of its mounts.
    let inside = format!("/proc/{}/root{file}", server.pid());
    let before = fs::read_to_string(&inside).unwrap();
    assert!(before.len() <= 64 << 10 && before.lines().count() > 10);
    fs::write(&inside, "").unwrap();
    let (written, _) = counts(&server);
    eventually("it goes on", || {
        assert_eq!(client.get("/plaintext").status(), 200);
        counts(&server).0 > written
    });
    // Of what was begun before, at most one line is cut; the others are whole.
    let after = fs::read_to_string(&inside).unwrap();
    let whole = |line: &&str| serde_json::from_str::<Value>(line.trim_matches('\0')).is_ok();
    let lines = after.lines().count();
    assert!(after.lines().filter(whole).count() + 1 >= lines, "{after}");
    let (written, dropped) = counts(&server);
    assert!(written + dropped >= asked, "{written} and {dropped} of {asked}");
}

#[test]
fn a_pipe_that_nobody_reads_costs_lines_and_nothing_else() {
    let (_directory, path) = directory();
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let server = server(&path, 1, "json", "buffer_bytes = \"16KiB\"\n");
    let mut client = server.connect();
    // More than a pipe holds (64 KiB), and the buffer behind it.
    for _ in 0..2000 {
        assert_eq!(client.get("/plaintext").status(), 200);
    }
    eventually("some are dropped", || counts(&server).1 > 100);
    drop(client);
    server.signal(Signal::SIGTERM);
    assert!(server.wait().0.success(), "it doesn't wait for a reader");
}

#[test]
fn a_log_that_is_rotated_goes_on_in_a_new_file_and_loses_no_line() {
    let (directory, path) = directory();
    let old = directory.path().join("access.log.1");
    let server = server(&path, 2, "json", "");
    for _ in 0..10 {
        assert_eq!(server.connect().get("/plaintext").status(), 200);
    }
    lines(&path, 10);
    fs::rename(&path, &old).unwrap();
    let mut asked = 10;
    // Both workers look at their file about once a second while they work.
    eventually("the new file is used", || {
        asked += 1;
        assert_eq!(server.connect().get("/plaintext").status(), 200);
        read(&path).lines().count() > 5
    });
    eventually("every line is somewhere", || {
        read(&path).lines().count() + read(&old).lines().count() == asked
    });
}

#[test]
fn a_reload_opens_the_file_anew_and_one_that_cannot_be_opened_changes_nothing() {
    let (directory, path) = directory();
    let config = directory.path().join("edge.toml");
    let write = |path: &Path| {
        let log = format!("[access_log]\npath = \"{}\"\nflush = \"10ms\"\n", path.display());
        fs::write(&config, format!("workers = 1\n{log}")).unwrap();
    };
    write(&path);
    let mut server = Server::start(&["-c", config.to_str().unwrap()]);
    assert_eq!(server.connect().get("/plaintext").status(), 200);
    eventually("it is logged", || read(&path).lines().count() == 1);
    let other = directory.path().join("other.log");
    write(&other);
    server.signal(Signal::SIGHUP);
    eventually("the other file is used", || {
        assert_eq!(server.connect().get("/plaintext").status(), 200);
        read(&other).lines().count() > 0
    });
    write(Path::new("/no/such/directory/log"));
    server.signal(Signal::SIGHUP);
    server.wait_for_log("the access log /no/such/directory/log can't be opened");
    assert_eq!(server.connect().get("/plaintext").status(), 200);
}

#[test]
fn a_log_that_cannot_be_opened_is_refused_before_anything_is_bound() {
    let output = common::program()
        .args(["serve", "--listen", "127.0.0.1:0", "--access-log", "/no/such/directory/log"])
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(73), "{words}");
    assert!(
        words.contains("/no/such/directory/log") && words.contains("access_log.path"),
        "{words}"
    );
}
