//! Response heads and chunks, appended to a buffer. Chooses no field and no framing.
//!
//! No formatting machinery, and no allocation while the buffer has room. A value that could begin
//! a line of its own is refused, whoever it came from: responses can't be split.

use std::fmt;

use super::class::{is_field_name, is_field_value};
use super::status;

/// The interim response that invites a body (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Ends a chunk's payload.
pub const CHUNK_END: &[u8; 2] = b"\r\n";
/// Ends a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The field line of a response that is the last one.
pub const CONNECTION_CLOSE: &[u8] = b"Connection: close\r\n";
/// The field line of a response that changes the protocol (RFC 9110 section 7.8).
pub const CONNECTION_UPGRADE: &[u8] = b"Connection: upgrade\r\n";
/// The field line that tells an HTTP/1.0 client that its wish was granted.
pub const CONNECTION_KEEP_ALIVE: &[u8] = b"Connection: keep-alive\r\n";
/// The field line of a body in chunks; never for an HTTP/1.0 client.
pub const TRANSFER_ENCODING_CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

/// Appends the status line (RFC 9112 section 4). It says HTTP/1.1 whatever the client speaks, as
/// RFC 9110 section 2.5 wants: it tells what we can.
///
/// A status that isn't registered gets an empty reason.
#[inline]
pub fn encode_status_line(out: &mut Vec<u8>, status: u16) -> Result<(), EncodeError> {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return Ok(());
    }
    if let Some(line) = status::line(status) {
        out.extend_from_slice(line);
        return Ok(());
    }
    if !(100..600).contains(&status) {
        return Err(EncodeError::StatusInvalid);
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.extend_from_slice(b" \r\n");
    Ok(())
}

/// Appends a field line (RFC 9112 section 5), or nothing if name or value aren't valid.
#[inline]
pub fn encode_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), EncodeError> {
    if !is_field_name(name) || !is_field_value(value) {
        return Err(EncodeError::FieldInvalid);
    }
    out.reserve(name.len() + ": ".len() + value.len() + "\r\n".len());
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends the value of Content-Length and the end of its line; what stands before it is the same for
/// many responses. See [`content_length_allowed`](super::content_length_allowed).
#[inline]
pub fn encode_content_length_value(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a chunk's size line; `length` bytes of payload and [`CHUNK_END`] must follow.
///
/// # Panics
///
/// If `length` is 0: that would end the body.
#[inline]
pub fn encode_chunk_head(out: &mut Vec<u8>, length: usize) {
    assert!(length > 0, "an empty chunk ends the body");
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
    for index in (0..digits).rev() {
        out.push(b"0123456789abcdef"[length >> (4 * index) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends `payload` as one chunk, or nothing if it is empty.
pub fn encode_chunk(out: &mut Vec<u8>, payload: &[u8]) {
    if !payload.is_empty() {
        encode_chunk_head(out, payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(CHUNK_END);
    }
}

/// Why a part of a response wasn't written: always the fault of who made the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncodeError {
    /// A status outside of 100 to 599 (RFC 9110 section 15).
    StatusInvalid,
    /// A name that is no token, or a control byte in a value (RFC 9110 sections 5.1 and 5.5).
    FieldInvalid,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StatusInvalid => "a response's status is not between 100 and 599",
            Self::FieldInvalid => "a response's field has an invalid name or value",
        })
    }
}

impl std::error::Error for EncodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn status_lines() {
        for (status, line) in [
            (200, "HTTP/1.1 200 OK\r\n"),
            (404, "HTTP/1.1 404 Not Found\r\n"),
            (100, "HTTP/1.1 100 Continue\r\n"),
            (299, "HTTP/1.1 299 \r\n"),
            (599, "HTTP/1.1 599 \r\n"),
        ] {
            assert_eq!(encoded(|out| encode_status_line(out, status).unwrap()), line);
        }
        for status in [0, 42, 99, 600, 999, u16::MAX] {
            let mut out = Vec::new();
            assert_eq!(encode_status_line(&mut out, status), Err(EncodeError::StatusInvalid));
            assert_eq!(out, b"");
        }
    }

    #[test]
    fn fields() {
        let line = encoded(|out| encode_field(out, b"Server", b"uring-pool").unwrap());
        assert_eq!(line, "Server: uring-pool\r\n");
        assert_eq!(encoded(|out| encode_field(out, b"x", b"").unwrap()), "x: \r\n");
        assert_eq!(encoded(|out| encode_field(out, b"x", b"a\tb c").unwrap()), "x: a\tb c\r\n");
    }

    #[test]
    fn no_byte_in_any_place_of_a_field_starts_another_line() {
        for byte in (0..0x20).chain([0x7f]) {
            for (name, value) in [
                (vec![byte], vec![]),
                (vec![b'a', byte], vec![]),
                (vec![byte, b'a'], vec![]),
                (vec![b'a'], vec![byte]),
                (vec![b'a'], vec![b'a', byte]),
                (vec![b'a'], vec![byte, b'a']),
                (vec![b'a'], [vec![b'a'; 40], vec![byte], vec![b'a'; 40]].concat()),
            ] {
                let mut out = Vec::new();
                let is_tab_in_value = byte == b'\t' && name == b"a";
                assert_eq!(encode_field(&mut out, &name, &value).is_ok(), is_tab_in_value);
                assert_eq!(out.is_empty(), !is_tab_in_value);
            }
        }
        for name in [&b""[..], b" ", b"a b", b"a:", b"(", b"\xc3\xa9"] {
            assert_eq!(encode_field(&mut Vec::new(), name, b""), Err(EncodeError::FieldInvalid));
        }
    }

    #[test]
    fn content_lengths() {
        for length in [0, 1, 9, 10, 12_345, u64::MAX] {
            let expected = format!("{length}\r\n");
            assert_eq!(encoded(|out| encode_content_length_value(out, length)), expected);
        }
    }

    #[test]
    fn chunk_heads() {
        for length in [1, 9, 15, 16, 255, 256, 4096, 0xdead_beef, usize::MAX] {
            let expected = format!("{length:x}\r\n");
            assert_eq!(encoded(|out| encode_chunk_head(out, length)), expected);
        }
    }

    #[test]
    #[should_panic(expected = "an empty chunk ends the body")]
    fn an_empty_chunk_is_a_mistake_of_ours() {
        encode_chunk_head(&mut Vec::new(), 0);
    }

    #[test]
    fn an_empty_payload_is_no_chunk() {
        assert_eq!(encoded(|out| encode_chunk(out, b"")), "");
        assert_eq!(encoded(|out| encode_chunk(out, b"hello")), "5\r\nhello\r\n");
    }
}
