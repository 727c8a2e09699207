//! Bodies that are larger than anything that holds them: memory stays as it is, however long they last.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use common::{Client, PATIENCE, Server, eventually};
use nix::sys::socket::{setsockopt, sockopt};

/// Of each body. `LARGE_GIB=10` makes it 10 GiB.
fn length() -> u64 {
    let gib: Option<u64> = std::env::var("LARGE_GIB").ok().map(|text| text.parse().unwrap());
    gib.map_or(256 << 20, |gib| gib << 30)
}

/// What the worker may grow by meanwhile: its pools, and what one connection may hold.
const GROWTH_MAX: u64 = 2 << 20;

/// Bytes of memory of a process's own.
fn memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Looks at the worker's memory with every piece; tells the most of it.
struct Watch {
    worker: i32,
    most: u64,
    next: u64,
}

impl Watch {
    fn new(worker: i32) -> Watch {
        Watch { worker, most: 0, next: 0 }
    }

    fn look(&mut self, at: u64) {
        if at >= self.next {
            self.most = self.most.max(memory(self.worker));
            self.next = at + (16 << 20);
        }
    }
}

fn server(more: &[&str]) -> Server {
    let text = "workers = 1\n[limits]\nbody_bytes_max = \"100GiB\"\n";
    let server = Server::configured(text, &[&["--demo"], more].concat());
    assert_eq!(server.connect().get("/plaintext").status(), 200);
    server
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn a_body_that_is_taken_and_one_that_goes_through_cost_no_more_than_a_small_one() {
    let server = server(&[]);
    let (worker, length) = (server.workers()[0], length());
    let before = memory(worker);
    for (path, is_echoed) in [("/upload", false), ("/echo", true)] {
        let mut stream = connect(&server);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let writing = thread::spawn(move || {
            let (piece, mut sent) = (vec![b'x'; 1 << 20], 0);
            while sent < length {
                stream.write_all(&piece).unwrap();
                sent += piece.len() as u64;
            }
        });
        let (mut watch, mut read, mut end) = (Watch::new(worker), 0, Vec::new());
        let mut buffer = vec![0; 1 << 20];
        if is_echoed {
            while let count @ 1.. = reader.read(&mut buffer).unwrap() {
                read += count as u64;
                watch.look(read);
            }
            assert!((length..length + 1000).contains(&read), "{read} bytes");
        } else {
            while !writing.is_finished() {
                watch.most = watch.most.max(memory(worker));
                thread::yield_now();
            }
            reader.read_to_end(&mut end).unwrap();
            let end = String::from_utf8(end).unwrap();
            assert!(end.ends_with(&format!("\r\n\r\n{length}")), "{end}");
        }
        writing.join().unwrap();
        let grown = watch.most.saturating_sub(before);
        println!("{path}: {length} bytes, +{} KiB", grown / 1024);
        assert!(grown < GROWTH_MAX, "{path}: {grown} bytes more");
    }
    eventually("nothing is held", || server.status()["memory_held"].as_u64().unwrap() < 64 << 10);
}

#[test]
fn a_file_costs_no_more_than_its_window_whoever_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let length = length();
    // A hole has no blocks to be read, and no pages before it is.
    fs::File::create(directory.path().join("hole")).unwrap().set_len(length).unwrap();
    let server = server(&["--root", directory.path().to_str().unwrap()]);
    let worker = server.workers()[0];
    let before = memory(worker);
    let mut stream = connect(&server);
    let get = "GET /hole HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    stream.write_all(get.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (mut watch, mut heard, mut buffer) = (Watch::new(worker), 0, vec![0; 1 << 20]);
    while let count @ 1.. = stream.read(&mut buffer).unwrap() {
        heard += count as u64;
        watch.look(heard);
    }
    assert!((length..length + 1000).contains(&heard), "{heard} bytes");
    let grown = watch.most.saturating_sub(before);
    println!("a file: {length} bytes, +{} KiB", grown / 1024);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");

    // Those that hardly read.
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.say(get));
    eventually("all are served", || server.status()["active_connections"].as_u64() >= Some(51));
    let grown = memory(worker).saturating_sub(before);
    assert!(grown < GROWTH_MAX + 50 * (140 << 10), "{grown} bytes more");
}

/// More than all buffers on the way take.
const FILE_BYTES: u64 = 64 << 20;

/// A client that has asked for a file and something else behind it, has got these bytes of the file, and
/// reads no more.
fn stop_reading(server: &Server, bytes: u64) -> TcpStream {
    let mut stream = connect(server);
    stream.write_all(b"GET /file HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let (mut heard, mut buffer) = (0, vec![0; 64 << 10]);
    while heard < bytes / 2 {
        heard += stream.read(&mut buffer).unwrap() as u64;
    }
    let later = "GET /plaintext HTTP/1.1\r\nHost: t\r\n\r\n";
    stream.write_all(later.as_bytes()).unwrap(); // and whoever sends must not wait from now on
    while heard < bytes {
        heard += stream.read(&mut buffer).unwrap() as u64;
    }
    stream
}

#[test]
fn nobody_waits_for_whoever_asks_for_more_and_reads_no_more() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), vec![b'f'; FILE_BYTES as usize]).unwrap();
    let server = server(&["--root", directory.path().to_str().unwrap()]);
    let clients: Vec<TcpStream> =
        (1..=4).map(|number| stop_reading(&server, number * (4 << 20))).collect();
    for _ in 0..20 {
        assert_eq!(server.connect().get("/plaintext").status(), 200);
    }
    for mut stream in clients {
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"Hello, World!"), "the later answer comes behind the file");
    }
}

/// The kernel takes much ahead of whoever is fast, and asks for more when half of that is gone.
#[test]
fn a_fast_reader_may_become_a_slow_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), vec![b'f'; FILE_BYTES as usize]).unwrap();
    let text = "workers = 1\n[timeouts]\nwrite = \"2s\"\n";
    let server = Server::configured(text, &["--root", directory.path().to_str().unwrap()]);
    let mut stream = connect(&server);
    setsockopt(&stream, sockopt::RcvBuf, &(64 << 10)).unwrap();
    stream.write_all(b"GET /file HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let mut buffer = vec![0; 64 << 10];
    let mut hear = |bytes: u64, pause: Duration| {
        let mut heard = 0;
        while heard < bytes {
            let count = stream.read(&mut buffer).expect("nobody cuts it off");
            assert!(count > 0, "the end after {heard} of {bytes} bytes");
            heard += count as u64;
            thread::sleep(pause * count as u32 / 65536);
        }
    };
    hear(FILE_BYTES / 2, Duration::ZERO);
    hear(4 << 20, Duration::from_millis(150)); // more than three times as fast as a reader has to be
}
