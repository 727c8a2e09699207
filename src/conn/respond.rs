//! Writes the heads of responses, and bodies that are there. Decides nothing about the connection
//! but whether its framing lets it stay.

use bytes::Bytes;

use super::download::{Download, Framing};
use super::output::Output;
use super::{Env, Exchange};
use crate::guard::Answered;
use crate::http::body::Kind;
use crate::http::{Body, ContentType, Response, Status};
use crate::proto::h1::{
    CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE, EncodeError, TRANSFER_ENCODING_CHUNKED, Version,
    body_allowed, content_length_allowed, encode_content_length, encode_field, encode_status_line,
};

/// Bodies up to this size are copied behind their head. Beyond it a second vector in sendmsg(2)
/// costs less than the copy.
pub(super) const COPY_BYTES_MAX: usize = 4 * 1024;

/// Fields that the server writes itself.
const OWN_FIELDS: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

// The field lines of common types.
const PLAIN: &[u8] = b"Content-Type: text/plain\r\n";
const TEXT: &[u8] = b"Content-Type: text/plain; charset=utf-8\r\n";
const HTML: &[u8] = b"Content-Type: text/html; charset=utf-8\r\n";
const JSON: &[u8] = b"Content-Type: application/json\r\n";

/// No body: of a 205 the framing has to say so (RFC 9110 section 15.3.6).
#[cold]
fn without(body: Body) -> Body {
    if let Kind::Stream(stream) = body.0 {
        drop(Download::of_stream(*stream, Framing::Length(0))); // with care
    }
    Body::empty()
}

/// Writes a response to the output; its body, too, unless that comes later.
pub(super) fn write(
    response: Response,
    exchange: &mut Exchange,
    output: &mut Output,
    env: &mut Env<'_>,
) -> Option<Box<Download>> {
    let Response { status, content_type, fields, ready, mut body } = response;
    if status == Status::RESET_CONTENT {
        body = without(body);
    }
    let framing = match body.len() {
        Some(length) => Framing::Length(length),
        None if exchange.version == Version::Http11 => Framing::Chunked,
        None => Framing::Close,
    };
    let is_silent = exchange.is_head || !body_allowed(status.code());
    if framing == Framing::Close && !is_silent {
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
        if let Some(ready) = &ready {
            head.extend_from_slice(ready.lines());
        }
        for (name, value) in fields.iter().flat_map(|fields| fields.iter()) {
            if !OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                encode_field(head, name.as_bytes(), value.as_bytes())?;
            }
        }
        if !own_fields.is_empty() {
            head.extend_from_slice(own_fields);
        }
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
    if env.guard.lines.is_some() {
        let body_bytes = body.len().filter(|_| !is_silent).unwrap_or(0);
        env.guard.answered = Answered { status: status.code(), body_bytes };
    }
    match body.0 {
        // Where it is silent, too: a stream is dropped with care.
        Kind::Stream(stream) => {
            let download = Download::of_stream(*stream, framing);
            return (!is_silent).then(|| Box::new(download));
        }
        _ if is_silent => {}
        Kind::Switch(_) => unreachable!("taken out before, see `tunnel`"),
        Kind::Pieces(pieces) => return Some(Box::new(Download::of_pieces(*pieces))),
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
