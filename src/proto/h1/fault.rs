//! Names what is wrong with a head that httparse refused. Never runs for a valid one.
//!
//! httparse says which part it was in; this walks the head a second time, slowly, for the exact
//! name: a folded line, a lone CR and a space before a colon are one error there.

use super::HeadError;
use super::class::{self, TARGET, TOKEN, VALUE};

/// The first fault of `head`, which begins with its request line.
#[cold]
pub(super) fn name(head: &[u8], error: httparse::Error) -> HeadError {
    match (error, first_fault(head)) {
        (httparse::Error::TooManyHeaders, _) => HeadError::TooManyFields,
        (_, Some(fault)) => fault,
        (httparse::Error::HeaderName, None) => HeadError::FieldNameInvalid,
        (httparse::Error::HeaderValue, None) => HeadError::FieldValueInvalid,
        (httparse::Error::NewLine, None) => HeadError::BareCr,
        (httparse::Error::Version | httparse::Error::Status, None) => HeadError::VersionInvalid,
        (httparse::Error::Token, None) => HeadError::TargetInvalid,
    }
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
    if head.starts_with(b"PRI * HTTP/2") {
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
        b"HTTP/1.0" | b"HTTP/1.1" => line_end(rest),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Some(HeadError::VersionUnsupported))
        }
        _ => Err(Some(HeadError::VersionInvalid)),
    }
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
