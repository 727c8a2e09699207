//! Where a request's body ends (RFC 9112 section 6.3). Reads no bytes of the body itself.

use super::class::is_field_name;
use super::{HeadError, Version};

/// How the body of a request is delimited. A request body never lasts until the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body: the next request follows the head.
    None,
    /// Content-Length said so; may be 0.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

impl Framing {
    /// Whether at least one byte belongs to the body, if only the last chunk's.
    pub fn has_body(self) -> bool {
        !matches!(self, Self::None | Self::Length(0))
    }

    /// The framing that the two fields declare, `None` where a field is absent.
    #[inline]
    pub(super) fn declared(
        version: Version,
        content_length: Option<&[u8]>,
        transfer_encoding: Option<&[u8]>,
    ) -> Result<Self, HeadError> {
        match (content_length, transfer_encoding) {
            (None, None) => Ok(Self::None),
            (Some(digits), None) => {
                parse_length(digits).map(Self::Length).ok_or(HeadError::ContentLengthInvalid)
            }
            (Some(_), Some(_)) => Err(HeadError::ContentLengthAndTransferEncoding),
            (None, Some(_)) if version == Version::Http10 => {
                Err(HeadError::TransferEncodingInHttp10)
            }
            (None, Some(codings)) => check_codings(codings).map(|()| Self::Chunked),
        }
    }
}

/// `1*DIGIT` that fits a `u64`: no sign, no list, no space (RFC 9110 section 8.6).
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |length, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        length.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Accepts `chunked` alone; names what is wrong with all the rest.
fn check_codings(codings: &[u8]) -> Result<(), HeadError> {
    if codings.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let (mut chunked_before, mut chunked_last) = (false, false);
    for coding in codings.split(|&byte| byte == b',') {
        let name = coding.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let is_chunked = name.eq_ignore_ascii_case(b"chunked");
        let has_parameters = name.len() != coding.trim_ascii().len();
        if !is_field_name(name) || (is_chunked && has_parameters) {
            return Err(HeadError::TransferEncodingInvalid);
        }
        chunked_before |= chunked_last;
        chunked_last = is_chunked;
    }
    match (chunked_before, chunked_last) {
        (true, _) => Err(HeadError::TransferEncodingInvalid),
        (false, true) => Err(HeadError::TransferEncodingUnsupported),
        (false, false) => Err(HeadError::TransferEncodingNotChunked),
    }
}
