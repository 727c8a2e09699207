//! Why a request head is refused: always the peer's fault. Faults of ours have no place here.

use std::fmt;

/// The fault of a request head, by its exact name.
///
/// After any of them the connection must be closed: where the next request begins is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeadError {
    /// The first byte is that of a TLS handshake: the peer took a plain port for a TLS one.
    TlsHandshake,
    /// The HTTP/2 connection preface (RFC 9113 section 3.4), with prior knowledge that we lack.
    Http2Preface,
    /// More empty lines before the request line than are skipped (RFC 9112 section 2.2).
    EmptyLinesTooMany,
    /// The method isn't a token followed by one space (RFC 9112 section 3.1).
    MethodInvalid,
    /// The method has more than [`METHOD_BYTES_MAX`](super::METHOD_BYTES_MAX) bytes.
    MethodTooLong,
    /// The request-target is in no form that its method allows (RFC 9112 section 3.2).
    TargetInvalid,
    /// The request-target has more bytes than the limit.
    TargetTooLong,
    /// The request line doesn't end in `HTTP/` DIGIT `.` DIGIT (RFC 9112 section 2.3).
    VersionInvalid,
    /// A version other than 1.0 and 1.1.
    VersionUnsupported,
    /// A CR that no LF follows (RFC 9112 section 2.2).
    BareCr,
    /// A LF that no CR precedes. RFC 9112 section 2.2 lets us accept it; proxies disagree on it.
    BareLf,
    /// A line that continues the one before (RFC 9112 section 5.2).
    ObsFold,
    /// A field name isn't a token directly followed by a colon (RFC 9112 section 5.1).
    FieldNameInvalid,
    /// A control byte in a field value (RFC 9110 section 5.5).
    FieldValueInvalid,
    /// More field lines than the limit.
    TooManyFields,
    /// No end of the head within the limit of bytes.
    TooLarge,
    /// HTTP/1.1 without Host (RFC 9112 section 3.2).
    HostMissing,
    /// More than one Host (RFC 9112 section 3.2).
    HostDuplicate,
    /// Host isn't `uri-host [ ":" port ]` (RFC 9110 section 7.2).
    HostInvalid,
    /// Content-Length isn't digits alone, or no `u64` (RFC 9110 section 8.6).
    ContentLengthInvalid,
    /// More than one Content-Length, be they equal. RFC 9110 section 8.6 lets us accept that.
    ContentLengthDuplicate,
    /// Both ways to delimit the body at once (RFC 9112 section 6.1).
    ContentLengthAndTransferEncoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncodingInHttp10,
    /// Several Transfer-Encoding fields, a coding behind `chunked`, or no list of codings at all.
    TransferEncodingInvalid,
    /// The last coding isn't `chunked`, so the body has no end (RFC 9112 section 6.3).
    TransferEncodingNotChunked,
    /// A coding before `chunked` that we don't know (RFC 9112 section 6.1).
    TransferEncodingUnsupported,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    ExpectationUnknown,
}

impl HeadError {
    /// The status code that answers it (RFC 9110 section 15).
    pub fn status(self) -> u16 {
        match self {
            Self::TlsHandshake
            | Self::EmptyLinesTooMany
            | Self::MethodInvalid
            | Self::TargetInvalid
            | Self::VersionInvalid
            | Self::BareCr
            | Self::BareLf
            | Self::ObsFold
            | Self::FieldNameInvalid
            | Self::FieldValueInvalid
            | Self::HostMissing
            | Self::HostDuplicate
            | Self::HostInvalid
            | Self::ContentLengthInvalid
            | Self::ContentLengthDuplicate
            | Self::ContentLengthAndTransferEncoding
            | Self::TransferEncodingInHttp10
            | Self::TransferEncodingInvalid
            | Self::TransferEncodingNotChunked => 400,
            Self::TargetTooLong => 414,
            Self::ExpectationUnknown => 417,
            Self::TooManyFields | Self::TooLarge => 431,
            Self::MethodTooLong | Self::TransferEncodingUnsupported => 501,
            Self::Http2Preface | Self::VersionUnsupported => 505,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsHandshake => "a TLS handshake on a plain-text port",
            Self::Http2Preface => "an HTTP/2 preface where HTTP/1 is spoken",
            Self::EmptyLinesTooMany => "too many empty lines before the request line",
            Self::MethodInvalid => "the method is not a token",
            Self::MethodTooLong => "the method is too long",
            Self::TargetInvalid => "the request target is invalid",
            Self::TargetTooLong => "the request target is too long",
            Self::VersionInvalid => "the request line does not end in an HTTP version",
            Self::VersionUnsupported => "an HTTP version other than 1.0 and 1.1",
            Self::BareCr => "a carriage return without a line feed",
            Self::BareLf => "a line feed without a carriage return",
            Self::ObsFold => "a field value folded over several lines",
            Self::FieldNameInvalid => "a field name is not a token followed by a colon",
            Self::FieldValueInvalid => "a control byte in a field value",
            Self::TooManyFields => "too many fields",
            Self::TooLarge => "the request head is too large",
            Self::HostMissing => "no Host",
            Self::HostDuplicate => "more than one Host",
            Self::HostInvalid => "Host is not a host with an optional port",
            Self::ContentLengthInvalid => "Content-Length is not a number",
            Self::ContentLengthDuplicate => "more than one Content-Length",
            Self::ContentLengthAndTransferEncoding => "both Content-Length and Transfer-Encoding",
            Self::TransferEncodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::TransferEncodingInvalid => "Transfer-Encoding is malformed or repeated",
            Self::TransferEncodingNotChunked => "the last transfer coding is not chunked",
            Self::TransferEncodingUnsupported => "an unknown transfer coding",
            Self::ExpectationUnknown => "an expectation other than 100-continue",
        })
    }
}

impl std::error::Error for HeadError {}
