//! Request bodies of any size: what they cost the server, and what becomes of them.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;

use common::{PATIENCE, Server, eventually};

const MIB: usize = 1 << 20;

/// The most that a process has had in memory so far, in bytes.
fn peak(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A server that takes bodies of any size.
fn server() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.toml");
    fs::write(&path, "workers = 1\n[limits]\nbody_bytes_max = \"100GiB\"\n").unwrap();
    let server = Server::start(&["-c", path.to_str().unwrap()]);
    (directory, server)
}

#[test]
fn a_large_body_goes_in_and_out_in_constant_memory() {
    let (_directory, server) = server();
    let worker = server.workers()[0];
    assert_eq!(server.connect().get("/plaintext").status(), 200);
    let before = peak(worker);
    let (length, piece) = (256 * MIB, vec![b'x'; MIB]);
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        let head = format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
        writer.write_all(head.as_bytes()).unwrap();
        (0..length / MIB).for_each(|_| writer.write_all(&piece).unwrap());
    });
    let (mut reader, mut heard, mut buffer) = (stream, 0, vec![0; MIB]);
    while heard < length {
        let count = reader.read(&mut buffer).unwrap();
        assert!(count > 0, "the connection ended after {heard} bytes");
        assert!(heard == 0 || buffer[..count].iter().all(|&byte| byte == b'x'));
        heard += count;
    }
    writing.join().unwrap();
    let grown = peak(worker) - before;
    assert!(grown < 8 * MIB, "{grown} bytes more for a body of {length}");
}

#[test]
fn a_client_waits_for_whoever_does_not_read_its_echo() {
    let (_directory, server) = server();
    let worker = server.workers()[0];
    assert_eq!(server.connect().get("/plaintext").status(), 200);
    let before = peak(worker);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let head = format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", 1_u64 << 35);
    stream.write_all(head.as_bytes()).unwrap();
    let (piece, mut said, mut refusals) = (vec![b'x'; MIB], 0, 0);
    // Nothing is read here: both sockets fill, then the server stops receiving.
    eventually("its window closes", || {
        match stream.write(&piece) {
            Ok(count) => (said, refusals) = (said + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => refusals += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(said < 512 * MIB, "it takes everything");
        refusals > 200
    });
    assert!(
        peak(worker) - before < 8 * MIB,
        "{} bytes for what nobody reads",
        peak(worker) - before
    );
}

#[test]
fn a_form_with_a_file_is_taken_apart() {
    let server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    let file = "f".repeat(300_000);
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--b\r\nContent-Disposition: \
         form-data; name=\"file\"; filename=\"x/y.txt\"\r\nContent-Type: text/plain\r\n\r\n{file}\r\n--b--\r\n"
    );
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: t\r\nContent-Type: multipart/form-data; boundary=b\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..2 {
        let answer = client.ask(&format!("{head}{body}"));
        let parts: serde_json::Value = serde_json::from_str(answer.body()).unwrap();
        assert_eq!(parts[0]["name"], "a");
        assert_eq!(parts[0]["bytes"], 1);
        assert_eq!(parts[1]["file_name"], "y.txt");
        assert_eq!(parts[1]["content_type"], "text/plain");
        assert_eq!(parts[1]["bytes"], 300_000);
        assert_eq!(parts.as_array().unwrap().len(), 2);
    }
    let cut = client.ask(&format!("{}{}", head.replace("boundary=b", "boundary=c"), body));
    assert_eq!(cut.status(), 400, "{}", cut.body());
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    client
        .say("POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.hear_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.say("hello");
    assert_eq!(client.hear().body(), "hello");

    // Nobody wants this body: there is no 100, and the connection ends.
    client
        .say("POST /none HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let answer = client.hear();
    assert_eq!((answer.status(), answer.header("Connection")), (404, Some("close")));
    assert!(client.is_closed_by_server());
}

#[test]
fn a_refusal_is_read_by_a_client_that_goes_on_sending() {
    let server = Server::start(&["--workers", "1"]);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /inspect HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; 512 * 1024]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 Content Too Large\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nContent Too Large"), "{answer}");
}
