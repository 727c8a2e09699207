//! A connection through events in any order: what it says is always whole responses, and after its
//! end nothing.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use uring_pool::offline::Conversation;
use uring_pool::{Body, BodyError, Request, Response, Upgraded};

#[derive(Arbitrary, Debug)]
enum Event<'a> {
    /// Any bytes.
    Write(&'a [u8]),
    /// Something that is nearly a request.
    Request {
        kind: u8,
        framing: Framing,
        close: bool,
        expect: bool,
    },
    /// A piece of a body in chunks, or its end.
    Chunk(&'a [u8]),
    Read,
    Pass(u8),
    End,
    Drain,
    Sever,
}

#[derive(Arbitrary, Debug)]
enum Framing {
    None,
    Length(u8),
    Long,
    Chunked,
}

const PATHS: [&str; 7] = ["all", "pieces", "echo", "none", "never", "form", "switch"];

impl Event<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Event::Write(bytes) => bytes.to_vec(),
            Event::Request { kind, framing, close, expect } => {
                let path = PATHS[usize::from(*kind) % PATHS.len()];
                let method = ["POST", "GET", "HEAD"][usize::from(*kind) / PATHS.len() % 3];
                let mut head = format!("{method} /{path} HTTP/1.1\r\nHost: h\r\n");
                match framing {
                    Framing::None => {}
                    Framing::Length(length) => head += &format!("Content-Length: {length}\r\n"),
                    Framing::Long => head += "Content-Length: 500000\r\n",
                    Framing::Chunked => head += "Transfer-Encoding: chunked\r\n",
                }
                head += if *close { "Connection: close\r\n" } else { "" };
                head += if *expect { "Expect: 100-continue\r\n" } else { "" };
                head +=
                    if path == "switch" { "Connection: upgrade\r\nUpgrade: not\r\n" } else { "" };
                head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n";
                head.into_bytes()
            }
            Event::Chunk(bytes) => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(bytes);
                chunk.extend_from_slice(b"\r\n");
                chunk
            }
            _ => Vec::new(),
        }
    }
}

/// Says what it hears, in other words.
async fn invert(stream: Upgraded) {
    while let Ok(Some(piece)) = stream.chunk().await {
        let not: Vec<u8> = piece.iter().map(|byte| !byte).collect();
        if stream.write_all(&not).await.is_err() || (stream.is_stopping() && not.len() > 2) {
            return;
        }
        if not.ends_with(b"end") {
            let _ = stream.shutdown().await;
        }
    }
}

async fn answer(request: &Request) -> Result<Response, BodyError> {
    Ok(match request.path() {
        "/all" => Response::new(request.bytes().await?),
        "/pieces" => {
            let mut size = 0;
            while let Some(chunk) = request.chunk().await? {
                assert!(!chunk.is_empty());
                size += chunk.len();
            }
            Response::text(format!("{size} {:?}", request.trailers().await?))
        }
        "/echo" => Response::new(Body::stream(request.body_stream())),
        "/form" => {
            let mut form = request.multipart()?;
            let mut parts = 0;
            while let Some(mut part) = form.next_part().await? {
                part.bytes().await?;
                parts += 1;
            }
            Response::text(parts.to_string())
        }
        "/switch" => match request.upgrade("NOT") {
            Some(upgrade) => {
                request.trailers().await?; // its body is in the way
                upgrade.accept(invert)
            }
            None => Response::text("no offer"),
        },
        "/never" => std::future::pending().await,
        _ => Response::text("none"),
    })
}

fuzz_target!(|events: Vec<Event<'_>>| {
    let mut talk = Conversation::new(answer);
    let mut heard = Vec::new();
    for event in &events {
        let was_closed = talk.is_closed();
        let before = heard.len();
        match event {
            Event::Write(_) | Event::Request { .. } | Event::Chunk(_) => {
                talk.write(&event.bytes());
            }
            Event::Read => talk.read(&mut heard),
            Event::Pass(seconds) => talk.pass(Duration::from_secs((*seconds).into())),
            Event::End => talk.end(),
            Event::Drain => talk.drain(),
            Event::Sever => talk.sever(),
        }
        assert!(!was_closed || heard.len() == before || matches!(event, Event::Read));
    }
    talk.read(&mut heard);
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1.1 "));
    let closing = heard.windows(19).filter(|at| at == b"\r\nConnection: close").count();
    assert!(closing <= 1 + events.len(), "{closing} last responses");
});
