//! What comes bit by bit over real sockets: compressed bodies, decoded again, and server-sent events.

#![cfg(feature = "compression")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use common::{Client, PATIENCE, Server, embedded};

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

/// A connection whose responses are read chunk by chunk.
struct Talk(BufReader<TcpStream>);

impl Talk {
    fn connect(address: SocketAddr) -> Talk {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Talk(BufReader::new(stream))
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    fn hear_line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn hear_head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.hear_line();
            assert!(!line.is_empty(), "the connection ended in {head}");
            head.push_str(&line);
        }
        head
    }

    /// The next chunk; none at the end.
    fn hear_chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.hear_line();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).unwrap();
        assert!(chunk.ends_with(b"\r\n"));
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }
}

/// Decodes as far as the bytes go that have come.
enum Decoder {
    Gzip(flate2::write::GzDecoder<Vec<u8>>),
    Brotli(Box<brotli::DecompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl Decoder {
    fn new(coding: &str) -> Decoder {
        match coding {
            "gzip" => Decoder::Gzip(flate2::write::GzDecoder::new(Vec::new())),
            "br" => Decoder::Brotli(Box::new(brotli::DecompressorWriter::new(Vec::new(), 4096))),
            "zstd" => Decoder::Zstd(zstd::stream::write::Decoder::new(Vec::new()).unwrap()),
            other => panic!("{other} is no coding"),
        }
    }

    /// Takes more; returns everything so far.
    fn feed(&mut self, bytes: &[u8]) -> &[u8] {
        match self {
            Decoder::Gzip(decoder) => {
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref()
            }
            Decoder::Brotli(decoder) => {
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref()
            }
            Decoder::Zstd(decoder) => {
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref()
            }
        }
    }
}

fn server(more: &[&str]) -> Server {
    Server::start(&[&["--workers", "1", "--demo", "--compress"], more].concat())
}

/// Words that don't repeat too regularly.
fn text(length: usize) -> String {
    let words = (0_u64..).map(|n| format!("{:x} ", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40));
    let mut text: String = words.take(length / 2 + 1).collect();
    text.truncate(length);
    text
}

fn post(coding: &str, content_type: &str, body: &str) -> String {
    format!(
        "POST /echo HTTP/1.1\r\nHost: t\r\nAccept-Encoding: {coding}\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn what_is_compressed_is_the_same_afterwards_and_less_before() {
    let server = server(&[]);
    for coding in CODINGS {
        for length in [1024, 20_000, 64 * 1024, 100_000, 900_000] {
            let text = text(length);
            let mut talk = Talk::connect(server.address());
            talk.say(post(coding, "text/plain", &text));
            let head = talk.hear_head();
            assert!(head.contains(&format!("\r\nContent-Encoding: {coding}\r\n")), "{head}");
            assert!(head.contains("\r\nVary: Accept-Encoding\r\n"), "{head}");
            let mut body = Vec::new();
            match head.lines().find_map(|line| line.strip_prefix("Content-Length: ")) {
                Some(count) => {
                    body.resize(count.parse().unwrap(), 0);
                    talk.0.read_exact(&mut body).unwrap();
                }
                None => {
                    while let Some(chunk) = talk.hear_chunk() {
                        body.extend_from_slice(&chunk);
                    }
                }
            }
            assert!(body.len() < length, "{coding}: {} of {length} bytes", body.len());
            let mut decoder = Decoder::new(coding);
            assert!(decoder.feed(&body) == text.as_bytes(), "{coding}, {length} bytes");
        }
    }
}

#[test]
fn a_stream_is_flushed_when_its_handler_has_no_more_for_now() {
    let server = server(&[]);
    for coding in CODINGS {
        let mut talk = Talk::connect(server.address());
        talk.say(format!(
            "POST /echo HTTP/1.1\r\nHost: t\r\nAccept-Encoding: {coding}\r\n\
             Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        let (mut decoder, mut whole, mut head) = (Decoder::new(coding), String::new(), None);
        for number in 0..10 {
            let word = format!("word {number}, ");
            talk.say(format!("{:x}\r\n{word}\r\n", word.len()));
            whole += &word;
            head.get_or_insert_with(|| talk.hear_head());
            // Nothing more is said until this much has come back.
            while decoder.feed(&[]) != whole.as_bytes() {
                let chunk = talk.hear_chunk().expect("it goes on");
                decoder.feed(&chunk);
            }
        }
        talk.say("0\r\n\r\n");
        while let Some(chunk) = talk.hear_chunk() {
            decoder.feed(&chunk);
        }
        assert_eq!(decoder.feed(&[]), whole.as_bytes(), "{coding}");
        let head = head.unwrap();
        assert!(head.contains(&format!("\r\nContent-Encoding: {coding}\r\n")), "{head}");
    }
}

#[test]
fn what_is_small_or_a_part_or_no_text_or_not_asked_for_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let long = text(20_000);
    std::fs::write(directory.path().join("a.txt"), &long).unwrap();
    let server = server(&["--root", directory.path().to_str().unwrap()]);
    let mut client: Client = server.connect();
    for coding in CODINGS {
        for request in [
            post(coding, "text/plain", &text(1023)),
            post(coding, "application/octet-stream", &long),
            post(coding, "image/png", &long),
            post(&format!("{coding};q=0"), "text/plain", &long),
            post("identity", "text/plain", &long),
            format!(
                "GET /a.txt HTTP/1.1\r\nHost: t\r\nRange: bytes=10-9999\r\n\
                 Accept-Encoding: {coding}\r\n\r\n"
            ),
        ] {
            let answer = client.ask(&request);
            assert_eq!(answer.header("Content-Encoding"), None, "{request:.200}");
            assert!(long.as_bytes()[..answer.body.len()] == answer.body || answer.status() == 206);
        }
        let part = client.ask(&format!(
            "GET /a.txt HTTP/1.1\r\nHost: t\r\nRange: bytes=10-9999\r\nAccept-Encoding: {coding}\r\n\r\n"
        ));
        assert_eq!((part.status(), part.body()), (206, &long[10..10_000]));
    }
}

#[test]
fn events_arrive_one_by_one() {
    let mut command = Command::new(embedded::example("events"));
    command.arg("127.0.0.1:0").env_remove("URING_POOL_MASK");
    let server = Server::of(command);
    let (_, address) = server.line.rsplit_once(' ').unwrap();
    let address = address.strip_prefix("http://").unwrap_or(address).parse().unwrap();
    let mut listeners: Vec<Talk> = (0..3).map(|_| Talk::connect(address)).collect();
    for listener in &mut listeners {
        listener.say("GET /events HTTP/1.1\r\nHost: t\r\n\r\n");
        let head = listener.hear_head();
        assert!(head.contains("\r\nContent-Type: text/event-stream\r\n"), "{head}");
    }
    let mut speaker = Client::connect(address);
    for said in ["one", "two\nlines", "three"] {
        let answer = speaker.ask(&format!(
            "POST /say HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{said}",
            said.len()
        ));
        assert_eq!(answer.body(), "3 heard it\n");
        // The next one isn't said before all have heard this one.
        let data = said.replace('\n', "\ndata: ");
        for listener in &mut listeners {
            let event = String::from_utf8(listener.hear_chunk().unwrap()).unwrap();
            assert_eq!(event, format!("data: {data}\n\n"));
        }
    }
    drop(listeners);
    common::eventually("it sees that nobody listens", || {
        let answer = speaker.ask("POST /say HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n?");
        answer.body() == "0 heard it\n"
    });
}
