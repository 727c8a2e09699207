//! Writes responses: head, framing, and bodies that come in pieces. Decides nothing about the
//! connection but whether its framing lets it stay.

use std::mem;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::output::Output;
use super::{Env, Exchange};
use crate::app::guarded;
use crate::guard::Answered;
use crate::http::body::{Chunks, Kind};
use crate::http::{ContentType, Response, Status};
use crate::proto::h1::{
    CHUNK_END, CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE, EncodeError, LAST_CHUNK,
    TRANSFER_ENCODING_CHUNKED, Version, body_allowed, content_length_allowed, encode_chunk,
    encode_chunk_head, encode_content_length, encode_field, encode_status_line,
};

/// Bodies up to this size are copied behind their head. Beyond it a second vector in sendmsg(2)
/// costs less than the copy.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// How often a stream is polled before others have their turn: more than a full output takes.
const POLLS_MAX: usize = 64;

/// Fields that the server writes itself.
const OWN_FIELDS: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

// The field lines of common types.
const PLAIN: &[u8] = b"Content-Type: text/plain\r\n";
const TEXT: &[u8] = b"Content-Type: text/plain; charset=utf-8\r\n";
const HTML: &[u8] = b"Content-Type: text/html; charset=utf-8\r\n";
const JSON: &[u8] = b"Content-Type: application/json\r\n";

/// A response's body that is still to come.
pub(super) struct Download {
    /// There until it is dropped.
    chunks: Option<Chunks>,
    framing: Framing,
    /// The stream had nothing, and hasn't asked to be polled again.
    is_asleep: bool,
    /// The output was given a chunk without its end.
    is_in_chunk: bool,
    /// Bytes that were written of it.
    sent: u64,
}

/// How the end of a response's body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// By a count of bytes left.
    Length(u64),
    Chunked,
    /// By closing: the only way in HTTP/1.0 when the length isn't known.
    Close,
}

pub(super) enum Pumped {
    /// The stream has nothing now, or the output is full.
    Waiting,
    Finished,
    /// The stream failed, or broke its word about the length.
    Failed,
}

/// Writes a response to the output; its body, too, unless that is a stream.
pub(super) fn write(
    response: Response,
    exchange: &mut Exchange,
    output: &mut Output,
    env: &mut Env<'_>,
) -> Option<Download> {
    let Response { status, content_type, fields, body } = response;
    let framing = match body.len() {
        Some(length) => Framing::Length(length),
        None if exchange.version == Version::Http11 => Framing::Chunked,
        None => Framing::Close,
    };
    if framing == Framing::Close {
        exchange.keep_alive = false;
    }
    let date = env.date;
    let own_fields = &env.guard.fields;
    let head = output.head(env.pools);
    let begin = head.len();
    let mut encode = || -> Result<(), EncodeError> {
        if status == Status::OK {
            head.extend_from_slice(date.ok_and_date());
        } else {
            encode_status_line(head, status.code())?;
            head.extend_from_slice(date.line());
        }
        match content_type {
            ContentType::Unknown => {}
            ContentType::Plain => head.extend_from_slice(PLAIN),
            ContentType::Text => head.extend_from_slice(TEXT),
            ContentType::Html => head.extend_from_slice(HTML),
            ContentType::Json => head.extend_from_slice(JSON),
        }
        for (name, value) in fields.iter().flat_map(|fields| fields.iter()) {
            if !OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                encode_field(head, name.as_bytes(), value.as_bytes())?;
            }
        }
        head.extend_from_slice(own_fields);
        match framing {
            Framing::Length(_) if !content_length_allowed(status.code()) => {}
            Framing::Length(0) if !body_allowed(status.code()) => {}
            Framing::Length(length) => encode_content_length(head, length),
            Framing::Chunked if body_allowed(status.code()) => {
                head.extend_from_slice(TRANSFER_ENCODING_CHUNKED);
            }
            Framing::Chunked | Framing::Close => {}
        }
        match (exchange.keep_alive, exchange.version) {
            (false, _) => head.extend_from_slice(CONNECTION_CLOSE),
            (true, Version::Http10) => head.extend_from_slice(CONNECTION_KEEP_ALIVE),
            (true, Version::Http11) => {}
        }
        head.extend_from_slice(b"\r\n");
        Ok(())
    };
    if let Err(error) = encode() {
        log::error!("a handler's response is invalid: {error}");
        head.truncate(begin);
        return write(Response::plain(Status::INTERNAL_SERVER_ERROR), exchange, output, env);
    }
    env.figures.on_response(status.code());
    let is_silent = exchange.is_head || !body_allowed(status.code());
    env.guard.answered = Answered {
        status: status.code(),
        body_bytes: body.len().filter(|_| !is_silent).unwrap_or(0),
    };
    match body.0 {
        Kind::Stream { chunks, .. } => {
            let (is_asleep, is_in_chunk) = (false, false);
            let download =
                Download { chunks: Some(chunks), framing, is_asleep, is_in_chunk, sent: 0 };
            return (!is_silent).then_some(download);
        }
        _ if is_silent => {}
        Kind::Empty => {}
        Kind::Owned(bytes) if bytes.len() <= COPY_BYTES_MAX => head.extend_from_slice(&bytes),
        Kind::Owned(bytes) => output.set_body(Bytes::from(bytes)),
        Kind::Static(bytes) if bytes.len() <= COPY_BYTES_MAX => head.extend_from_slice(bytes),
        Kind::Static(bytes) => output.set_body(Bytes::from_static(bytes)),
        Kind::Bytes(bytes) if bytes.len() <= COPY_BYTES_MAX => head.extend_from_slice(&bytes),
        Kind::Bytes(bytes) => output.set_body(bytes),
    }
    None
}

impl Drop for Download {
    fn drop(&mut self) {
        let chunks = self.chunks.take();
        guarded("dropping a response's stream", || drop(chunks));
    }
}

impl Download {
    /// The stream asked to be polled again.
    pub(super) fn handle_wake(&mut self) {
        self.is_asleep = false;
    }

    /// Polls the stream and writes what it gives, until it waits or the output is full.
    pub(super) fn pump(&mut self, output: &mut Output, env: &mut Env<'_>) -> Pumped {
        for _ in 0..POLLS_MAX {
            if output.is_full() {
                return Pumped::Waiting;
            }
            if mem::take(&mut self.is_in_chunk) {
                output.head(env.pools).extend_from_slice(CHUNK_END);
            }
            if self.is_asleep {
                return Pumped::Waiting;
            }
            let mut context = Context::from_waker(env.waker);
            let chunks = self.chunks.as_mut().expect("there until it is dropped");
            let next = guarded("a response's stream", || chunks.as_mut().poll_next(&mut context));
            match next {
                None => return Pumped::Failed,
                Some(Poll::Pending) => self.is_asleep = true,
                Some(Poll::Ready(Some(Ok(chunk)))) => {
                    if !self.write_chunk(chunk, output, env) {
                        log::error!("a response's stream gave more than its length");
                        return Pumped::Failed;
                    }
                }
                Some(Poll::Ready(None)) => return self.finish(output, env),
                Some(Poll::Ready(Some(Err(error)))) => {
                    log::error!("a response's stream failed: {error}");
                    return Pumped::Failed;
                }
            }
        }
        env.waker.wake_by_ref(); // others first
        self.is_asleep = true;
        Pumped::Waiting
    }

    /// Bytes so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the peer can tell from the bytes alone that some are missing.
    pub(super) fn is_delimited(&self) -> bool {
        self.framing != Framing::Close
    }

    /// Whether the chunk fits the promised length.
    fn write_chunk(&mut self, chunk: Bytes, output: &mut Output, env: &mut Env<'_>) -> bool {
        let is_small = chunk.len() <= COPY_BYTES_MAX;
        self.sent += chunk.len() as u64;
        match &mut self.framing {
            _ if chunk.is_empty() => return true,
            Framing::Chunked if is_small => {
                encode_chunk(output.head(env.pools), &chunk);
                return true;
            }
            Framing::Chunked => {
                encode_chunk_head(output.head(env.pools), chunk.len());
                output.set_body(chunk);
                self.is_in_chunk = true;
                return true;
            }
            Framing::Length(left) => match left.checked_sub(chunk.len() as u64) {
                Some(now_left) => *left = now_left,
                None => return false,
            },
            Framing::Close => {}
        }
        if is_small {
            output.head(env.pools).extend_from_slice(&chunk);
        } else {
            output.set_body(chunk);
        }
        true
    }

    fn finish(&mut self, output: &mut Output, env: &mut Env<'_>) -> Pumped {
        match self.framing {
            Framing::Chunked => output.head(env.pools).extend_from_slice(LAST_CHUNK),
            Framing::Length(0) | Framing::Close => {}
            Framing::Length(left) => {
                log::error!("a response's stream ended {left} bytes short of its length");
                return Pumped::Failed;
            }
        }
        Pumped::Finished
    }
}
