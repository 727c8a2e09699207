//! Connections that change their protocol, over real sockets: with `examples/upgrade.rs`.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use common::{PATIENCE, Server, embedded, eventually};
use nix::sys::signal::Signal;

const OFFER: &str = "GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

fn server() -> Server {
    let mut command = Command::new(embedded::example("upgrade"));
    command.arg("127.0.0.1:0").env_remove("URING_POOL_MASK");
    Server::of(command)
}

fn address(server: &Server) -> SocketAddr {
    let (_, address) = server.line.rsplit_once(' ').unwrap();
    address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/').parse().unwrap()
}

/// Offers the echo, with more right behind; returns the head of the answer.
fn offer(stream: &mut TcpStream, more: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{OFFER}{more}").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn hear(stream: &mut TcpStream, count: usize) -> String {
    let mut heard = vec![0; count];
    stream.read_exact(&mut heard).unwrap();
    String::from_utf8(heard).unwrap()
}

#[test]
fn what_is_said_comes_back_and_http_stays_http() {
    let server = server();
    let mut stream = TcpStream::connect(address(&server)).unwrap();
    let head = offer(&mut stream, "early");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: upgrade\r\n") && head.contains("\r\nUpgrade: echo\r\n"));
    assert!(!head.contains("Content-Length") && !head.contains("Transfer-Encoding"), "{head}");
    assert_eq!(hear(&mut stream, 5), "early");
    for word in ["one", "two", "GET / HTTP/1.1\r\n\r\n"] {
        stream.write_all(word.as_bytes()).unwrap();
        assert_eq!(hear(&mut stream, word.len()), word);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0, "its end is the other's end");

    let mut client = common::Client::connect(address(&server));
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.header("Upgrade")), (426, Some("echo")));
    assert_eq!(client.get("/again").status(), 426);
}

#[test]
fn many_megabytes_go_both_ways_at_once_and_in_order() {
    let server = server();
    const LENGTH: usize = 32 << 20;
    let mut stream = TcpStream::connect(address(&server)).unwrap();
    offer(&mut stream, "");
    let byte = |at: usize| (at % 251) as u8;
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        for begin in (0..LENGTH).step_by(1 << 16) {
            let piece: Vec<u8> = (begin..begin + (1 << 16)).map(byte).collect();
            writer.write_all(&piece).unwrap();
        }
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let (mut at, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        assert!(buffer[..count].iter().zip(at..).all(|(got, at)| *got == byte(at)), "at {at}");
        at += count;
    }
    assert_eq!(at, LENGTH);
    writing.join().unwrap();
}

#[test]
fn whoever_reads_nothing_is_not_read_from() {
    let server = server();
    let mut stream = TcpStream::connect(address(&server)).unwrap();
    offer(&mut stream, "");
    stream.set_nonblocking(true).unwrap();
    let (piece, mut said, mut refusals) = (vec![b'x'; 1 << 16], 0_usize, 0);
    eventually("the window closes", || {
        match stream.write(&piece) {
            Ok(count) => (said, refusals) = (said + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => refusals += 1,
            Err(error) => panic!("{error}"),
        }
        refusals > 200 // for as many milliseconds
    });
    // What the kernel buffers on both ways, and 200 KiB.
    assert!(said < 64 << 20, "{said} bytes");
    stream.set_nonblocking(false).unwrap();
    let mut rest = vec![0; said];
    stream.read_exact(&mut rest).unwrap();
    assert!(rest.iter().all(|byte| *byte == b'x'));
}

#[test]
fn at_a_stop_and_at_a_reload_everybody_hears_a_goodbye() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let server = server();
        let mut streams: Vec<TcpStream> =
            (0..10).map(|_| TcpStream::connect(address(&server)).unwrap()).collect();
        streams.iter_mut().for_each(|stream| {
            offer(stream, "hello");
            assert_eq!(hear(stream, 5), "hello");
        });
        server.signal(signal);
        for mut stream in streams {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "goodbye\n", "{signal}");
        }
        if signal == Signal::SIGTERM {
            assert!(server.wait().0.success());
        }
    }
}
