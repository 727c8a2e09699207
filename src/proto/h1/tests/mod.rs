//! Promises of the whole protocol, swept over inputs. What one file promises is tested in it.

mod accepted;
mod bodies;
mod pieces;
mod random;
mod refused;

use super::{Field, Head, HeadError, HeadLimits, parse_head};

/// Heads of every kind that must be accepted, each of them followed by nothing.
const ACCEPTED: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"HEAD /?a=b&c=%20d HTTP/1.1\r\nhost:a\r\nAccept: */*\r\nX-Empty:\r\nX-Blank: \t \r\n\r\n",
    b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
    b"PUT /a/b HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"DELETE http://example.org:80/x?y HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
    b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"\r\n\r\nX-METHOD! /{|}\"<>^` HTTP/1.1\r\nHost: a\r\nX: \x80\xff \t obs-text\r\n\r\n",
];

/// The head that `bytes` begin with, and its fields, within the default limits.
fn parse(bytes: &[u8]) -> Result<Option<(Head, Vec<Field>)>, HeadError> {
    let mut fields = Vec::new();
    let head = parse_head(bytes, &HeadLimits::default(), &mut fields)?;
    Ok(head.map(|head| (head, fields)))
}

/// The head of a text that must be one.
#[track_caller]
fn head_of(text: &str) -> Head {
    let (head, _) = parse(text.as_bytes()).expect("refused").expect("incomplete");
    head
}
