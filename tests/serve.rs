//! What `uring-pool serve` answers, as a client sees it.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use common::{Client, Server, program};

#[test]
fn the_demo_answers_all_that_it_offers() {
    let server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    let plaintext = client.get("/plaintext");
    assert_eq!(plaintext.status(), 200);
    assert_eq!(plaintext.body(), "Hello, World!");
    assert_eq!(plaintext.header("Content-Type"), Some("text/plain"));
    assert!(plaintext.header("Date").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(client.get("/json").body(), r#"{"message":"Hello, World!"}"#);
    assert_eq!(client.get("/healthz").status(), 200);
    assert!(client.get("/").body().contains("<!doctype html>"));
    assert_eq!(client.get("/body/100000").body.len(), 100_000);
    assert_eq!(client.get("/nothing").status(), 404);
    let echo = client.ask("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(echo.body(), "hello");
    let wrong = client.get("/echo");
    assert_eq!((wrong.status(), wrong.header("Allow")), (405, Some("POST, OPTIONS")));
    let status = server.status();
    assert_eq!(status["total_workers"], 1);
    assert_eq!(status["active_connections"], 2);
    assert!(status["total_requests"].as_u64().unwrap() >= 8);
    assert_eq!(status["failed_requests"], 2);
    assert_eq!(status["responses"][3], 2);
    assert!(status["workers"][0]["memory_usage"].as_u64().unwrap() > 0);
    assert!(status["p99_request_duration_ms"].as_f64().unwrap() > 0.0);
    let metrics = client.get("/metrics");
    assert_eq!(metrics.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.body().contains("\nuring_pool_responses_total{class=\"4xx\"} 2\n"));
}

#[test]
fn the_line_says_where_and_how_many() {
    let server =
        Server::start(&["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--workers", "2"]);
    let line = &server.line;
    assert!(line.starts_with("uring-pool serves http://127.0.0.1:"), "{line}");
    assert!(line.contains(", http://[::1]:") && line.contains(" with 2 workers"), "{line}");
    assert!(line.contains("kernel features: "), "{line}");
    let v6 = line.split("http://").nth(2).unwrap().split(' ').next().unwrap();
    assert_eq!(Client::connect(v6.parse().unwrap()).get("/plaintext").status(), 200);
}

#[test]
fn a_unix_socket_serves_and_its_file_goes_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listen = format!("unix:{}", path.display());
    let server = Server::start(&["--listen", &listen, "--workers", "2"]);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /plaintext HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("Hello, World!"));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, _) = server.wait();
    assert!(status.success() && !path.exists());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for n in 0..100 {
        client.say(format!("GET /body/{n} HTTP/1.1\r\nHost: t\r\n\r\n"));
    }
    for n in 0..100 {
        assert_eq!(client.hear().body.len(), n);
    }
}

#[test]
fn a_body_larger_than_every_buffer_comes_back_whole() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    client.say(format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.say(&body);
    assert!(client.hear().body == body, "the echo differs");
}

#[test]
fn a_refused_request_costs_its_connection_alone() {
    let server = Server::start(&["--workers", "1"]);
    let mut good = server.connect();
    assert_eq!(good.get("/plaintext").status(), 200);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        ("\x16\x03\x01\x02\x00", 400),
    ] {
        let mut bad = server.connect();
        bad.say(request);
        bad.say("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let heard = bad.hear_all();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {heard}");
        assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{request:?}: {heard}");
        assert!(heard.contains("\r\nConnection: close\r\n"), "{request:?}: {heard}");
    }
    assert_eq!(good.get("/plaintext").status(), 200);
}

#[test]
fn a_root_serves_its_files_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("docs")).unwrap();
    fs::write(directory.path().join("secret"), "secret").unwrap();
    fs::write(root.join("index.html"), "<p>home</p>").unwrap();
    fs::write(root.join("docs/index.html"), "<p>docs</p>").unwrap();
    fs::write(root.join("a b.txt"), "text").unwrap();
    fs::write(root.join(".env"), "PASSWORD=x").unwrap();
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 253) as u8).collect();
    fs::write(root.join("large.bin"), &large).unwrap();
    std::os::unix::fs::symlink("../secret", root.join("way-out")).unwrap();
    std::os::unix::fs::symlink("docs", root.join("inside")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();

    let server = Server::start(&["--root", root.to_str().unwrap()]);
    let mut client = server.connect();
    let home = client.get("/");
    assert_eq!((home.status(), home.body()), (200, "<p>home</p>"));
    assert_eq!(home.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(client.get("/docs/").body(), "<p>docs</p>");
    assert_eq!(client.get("/inside/").body(), "<p>docs</p>");
    let moved = client.get("/docs?q=1");
    assert_eq!((moved.status(), moved.header("Location")), (301, Some("/docs/?q=1")));
    assert_eq!(client.get("/a%20b.txt").body(), "text");
    assert!(client.get("/large.bin").body == large);
    client.say("HEAD /large.bin HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(client.hear_head().contains("Content-Length: 1000000\r\n"));
    for path in [
        "/none",
        "/../secret",
        "/%2e%2e/secret",
        "/docs/../../secret",
        "/way-out",
        "/.env",
        "/fifo",
        "/docs%2findex.html",
        "/a%20b.txt/",
        "/plaintext",
        "/%00",
    ] {
        assert_eq!(client.get(path).status(), 404, "{path}");
    }
    let post = client.ask("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((post.status(), post.header("Allow")), (405, Some("GET, HEAD")));

    let both = Server::start(&["--root", root.to_str().unwrap(), "--demo"]);
    assert_eq!(both.connect().get("/plaintext").body(), "Hello, World!");
    assert_eq!(both.connect().get("/docs/").body(), "<p>docs</p>");
}

/// What the program says and returns when it can't start.
fn failure(flags: &[&str]) -> (i32, String) {
    let output = program().arg("serve").args(flags).output().unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_keeps_it_from_starting_is_said_with_a_way_out() {
    let server = Server::start(&[]);
    let taken = server.address().to_string();
    for (flags, code, words) in [
        (
            &["--listen", taken.as_str()][..],
            69,
            &["cannot listen", "another process", "ss -ltnp"][..],
        ),
        (&["--listen", "192.0.2.1:80"], 69, &["cannot listen on http://192.0.2.1:80"]),
        (&["--listen", "nonsense"], 64, &["nonsense", "no port"]),
        (&["--workers", "5000"], 64, &["5000", "1024"]),
        (&["--root", "/nowhere/at/all"], 66, &["cannot serve /nowhere/at/all", "No such file"]),
        (&["--listen", "unix:/nowhere/socket"], 69, &["unix:/nowhere/socket"]),
    ] {
        let (status, said) = failure(flags);
        assert_eq!(status, code, "{flags:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{flags:?}: no `{word}` in {said}");
        }
    }
    let mut masked = program();
    masked.args(["serve", "--listen", "127.0.0.1:0"]).env("URING_POOL_MASK", "x");
    let output = masked.output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`x` is no kernel feature"));
}
