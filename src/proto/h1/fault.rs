//! Names what is wrong with a head that httparse refused. Never runs for a valid one.
//!
//! httparse says which part it was in; this walks the head a second time, slowly, for the exact
//! name: a folded line, a lone CR and a space before a colon are one error there.

use super::HeadError;
use super::class::{self, TARGET, TOKEN, VALUE};

/// The HTTP/2 connection preface, up to its version (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// The first fault of `head`, which begins with its request line. `None` where the bytes that
/// follow decide which one it is: so a fault has one name, however its bytes arrive.
#[cold]
pub(super) fn name(head: &[u8], error: httparse::Error) -> Option<HeadError> {
    match (error, first_fault(head)) {
        (httparse::Error::TooManyHeaders, _) => Some(HeadError::TooManyFields),
        (_, Some(fault)) => Some(fault),
        (httparse::Error::HeaderName, None) => Some(HeadError::FieldNameInvalid),
        (httparse::Error::HeaderValue, None) => Some(HeadError::FieldValueInvalid),
        (httparse::Error::NewLine, None) => Some(HeadError::BareCr),
        (httparse::Error::Version | httparse::Error::Status, None) => None,
        (httparse::Error::Token, None) => Some(HeadError::TargetInvalid),
    }
}

/// Whether `head`, whose target is invalid, is the begin of an HTTP/2 preface.
#[cold]
pub(super) fn may_become_preface(head: &[u8]) -> bool {
    PREFACE.starts_with(head)
}

/// `None` if no fault is found before the head or its bytes end.
pub(super) fn first_fault(head: &[u8]) -> Option<HeadError> {
    let mut rest = match request_line_fault(head) {
        Ok(rest) => rest,
        Err(fault) => return fault,
    };
    let mut is_first = true;
    while !rest.is_empty() && !rest.starts_with(b"\r\n") {
        rest = match field_fault(rest, is_first) {
            Ok(rest) => rest,
            Err(fault) => return fault,
        };
        is_first = false;
    }
    None
}

/// What follows a faultless line, or its fault, which is `None` where the bytes end too early.
type LineResult<'a> = Result<&'a [u8], Option<HeadError>>;

fn request_line_fault(head: &[u8]) -> LineResult<'_> {
    if head.first() == Some(&0x16) {
        return Err(Some(HeadError::TlsHandshake));
    }
    if head.starts_with(PREFACE) {
        return Err(Some(HeadError::Http2Preface));
    }
    let rest = skip(head, TOKEN, b' ', HeadError::MethodInvalid)?;
    let is_http_0_9 = rest[class::run_len(rest, TARGET)..].starts_with(b"\r\n");
    if is_http_0_9 && !rest.starts_with(b"\r") {
        return Err(Some(HeadError::VersionInvalid));
    }
    let rest = skip(rest, TARGET, b' ', HeadError::TargetInvalid)?;
    let version_len = rest.iter().position(|byte| b"\r\n".contains(byte)).unwrap_or(rest.len());
    let (version, rest) = rest.split_at(version_len);
    match version {
        _ if rest.is_empty() && may_become_version(version) => Err(None),
        b"HTTP/1.0" | b"HTTP/1.1" => line_end(rest),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Some(HeadError::VersionUnsupported))
        }
        _ => Err(Some(HeadError::VersionInvalid)),
    }
}

/// Whether `text` begins like `HTTP/` DIGIT `.` DIGIT, and goes no further.
fn may_become_version(text: &[u8]) -> bool {
    let is_like = |(byte, like): (&u8, &u8)| match like {
        b'0' => byte.is_ascii_digit(),
        like => byte == like,
    };
    text.len() <= b"HTTP/0.0".len() && text.iter().zip(b"HTTP/0.0").all(is_like)
}

fn field_fault(line: &[u8], is_first: bool) -> LineResult<'_> {
    if !is_first && matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Some(HeadError::ObsFold));
    }
    let rest = skip(line, TOKEN, b':', HeadError::FieldNameInvalid)?;
    let value_len = class::run_len(rest, VALUE);
    match rest.get(value_len) {
        Some(b'\r' | b'\n') => line_end(&rest[value_len..]),
        Some(_) => Err(Some(HeadError::FieldValueInvalid)),
        None => Err(None),
    }
}

/// What follows `delimiter`, before which there must be one byte of `class` or more.
fn skip(bytes: &[u8], class: u8, delimiter: u8, fault: HeadError) -> LineResult<'_> {
    let len = class::run_len(bytes, class);
    match bytes.get(len) {
        None => Err(None),
        Some(&byte) if byte == delimiter && len > 0 => Ok(&bytes[len + 1..]),
        Some(b'\r' | b'\n') => Err(line_end(&bytes[len..]).err().flatten().or(Some(fault))),
        Some(_) => Err(Some(fault)),
    }
}

/// What follows the CRLF that `bytes` begin with.
fn line_end(bytes: &[u8]) -> LineResult<'_> {
    match bytes {
        [b'\r', b'\n', rest @ ..] => Ok(rest),
        [b'\n', ..] => Err(Some(HeadError::BareLf)),
        [b'\r', _, ..] => Err(Some(HeadError::BareCr)),
        _ => Err(None),
    }
}
