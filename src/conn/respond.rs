//! Writes the heads of responses, and bodies that are there. Decides nothing about the connection
//! but whether its framing lets it stay.

use std::mem;

use bytes::Bytes;

use super::download::{Download, Framing};
use super::output::Output;
use super::{Env, Exchange};
use crate::guard::Answered;
use crate::http::body::Kind;
use crate::http::{Body, ContentType, Response, ResponseField, Status};
use crate::proto::h1::{
    CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE, EncodeError, TRANSFER_ENCODING_CHUNKED, Version,
    body_allowed, content_length_allowed, encode_content_length_value, encode_field,
    encode_status_line,
};

/// Bodies up to this size are copied behind their head. Beyond it a second vector in sendmsg(2)
/// costs less than the copy.
pub(super) const COPY_BYTES_MAX: usize = 4 * 1024;

/// Fields that the server writes itself.
const OWN_FIELDS: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

/// Appends Content-Type, and the name of Content-Length if its value follows: both in one copy, of
/// a length that the compiler knows.
#[inline(always)]
fn encode_type(head: &mut Vec<u8>, content_type: ContentType, is_length_next: bool) {
    macro_rules! append {
        ($line:literal) => {
            if is_length_next {
                head.extend_from_slice(concat!($line, "Content-Length: ").as_bytes());
            } else {
                head.extend_from_slice($line.as_bytes());
            }
        };
    }
    match content_type {
        ContentType::Unknown => append!(""),
        ContentType::Plain => append!("Content-Type: text/plain\r\n"),
        ContentType::Text => append!("Content-Type: text/plain; charset=utf-8\r\n"),
        ContentType::Html => append!("Content-Type: text/html; charset=utf-8\r\n"),
        ContentType::Json => append!("Content-Type: application/json\r\n"),
    }
}

/// Appends what the handler named, but for what the server writes itself.
#[inline(never)]
fn encode_fields(head: &mut Vec<u8>, fields: &[ResponseField]) -> Result<(), EncodeError> {
    for (name, value) in fields {
        if !OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            encode_field(head, name.as_bytes(), value.as_bytes())?;
        }
    }
    Ok(())
}

/// Writes a response to the output; its body, too, unless that comes later.
#[inline]
pub(super) fn write(
    response: Response,
    exchange: &mut Exchange,
    output: &mut Output,
    env: &mut Env<'_>,
) -> Option<Box<Download>> {
    if response.status == Status::RESET_CONTENT && !matches!(response.body.0, Kind::Empty) {
        return write_reset(response, exchange, output, env);
    }
    let Response { status, content_type, fields, ready, body } = response;
    // Most are a 200, which may have everything.
    let is_ok = status == Status::OK;
    let framing = match body.len() {
        Some(length) => Framing::Length(length),
        None if exchange.version == Version::Http11 => Framing::Chunked,
        None => Framing::Close,
    };
    let may_have_body = is_ok || body_allowed(status.code());
    let is_silent = exchange.is_head || !may_have_body;
    let tells_length = is_ok
        || content_length_allowed(status.code())
            && (may_have_body || framing != Framing::Length(0));
    if framing == Framing::Close && !is_silent {
        exchange.keep_alive = false;
    }
    let date = env.date;
    let own_fields = &env.guard.fields;
    let head = output.head(env.pools);
    let begin = head.len();
    let mut encode = || -> Result<(), EncodeError> {
        if is_ok {
            head.extend_from_slice(date.ok_and_date());
        } else {
            encode_status_line(head, status.code())?;
            head.extend_from_slice(date.line());
        }
        match framing {
            Framing::Length(length) if tells_length => {
                encode_type(head, content_type, true);
                encode_content_length_value(head, length);
            }
            Framing::Length(_) | Framing::Chunked | Framing::Close => {
                encode_type(head, content_type, false);
            }
        }
        if let Some(ready) = &ready {
            head.extend_from_slice(ready.lines());
        }
        if let Some(fields) = &fields {
            encode_fields(head, fields)?;
        }
        if !own_fields.is_empty() {
            head.extend_from_slice(own_fields);
        }
        if framing == Framing::Chunked && may_have_body {
            head.extend_from_slice(TRANSFER_ENCODING_CHUNKED);
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
        head.truncate(begin);
        return write_failure(error, exchange, output, env);
    }
    // A constant class costs less than the division that others take.
    env.figures.on_response(if is_ok { Status::OK.code() } else { status.code() });
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
        kind if is_silent => drop(kind),
        Kind::Switch(_) => unreachable!("taken out before, see `tunnel`"),
        Kind::Pieces(pieces) => return Some(Box::new(Download::of_pieces(*pieces))),
        // Nothing to drop in these two, which the compiler would find out for each response.
        Kind::Empty => mem::forget(body),
        Kind::Static(bytes) if bytes.len() <= COPY_BYTES_MAX => {
            head.extend_from_slice(bytes);
            mem::forget(body);
        }
        Kind::Owned(bytes) if bytes.len() <= COPY_BYTES_MAX => head.extend_from_slice(&bytes),
        Kind::Owned(bytes) => output.set_body(Bytes::from(bytes)),
        Kind::Static(bytes) => output.set_body(Bytes::from_static(bytes)),
        Kind::Bytes(bytes) if bytes.len() <= COPY_BYTES_MAX => head.extend_from_slice(&bytes),
        Kind::Bytes(bytes) => output.set_body(bytes),
    }
    None
}

/// Writes what takes the place of a response that can't be written.
#[cold]
#[inline(never)]
fn write_failure(
    error: EncodeError,
    exchange: &mut Exchange,
    output: &mut Output,
    env: &mut Env<'_>,
) -> Option<Box<Download>> {
    log::error!("a handler's response is invalid: {error}");
    write(Response::plain(Status::INTERNAL_SERVER_ERROR), exchange, output, env)
}

/// Writes a 205 without its body: the framing has to say that there is none (RFC 9110 section
/// 15.3.6).
#[cold]
#[inline(never)]
fn write_reset(
    response: Response,
    exchange: &mut Exchange,
    output: &mut Output,
    env: &mut Env<'_>,
) -> Option<Box<Download>> {
    let Response { status, content_type, fields, ready, body } = response;
    if let Kind::Stream(stream) = body.0 {
        drop(Download::of_stream(*stream, Framing::Length(0))); // with care
    }
    let response = Response { status, content_type, fields, ready, body: Body::empty() };
    write(response, exchange, output, env)
}
