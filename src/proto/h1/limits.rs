//! What a request head may cost. Decides nothing by itself.

/// The most field lines that any head can have: 100, as Apache's `LimitRequestFields` and twice
/// what browsers behind a chain of proxies send. 100 x 32 bytes of tokens lie on the stack during
/// a parse, untouched but for those used.
pub const FIELDS_MAX: usize = 100;

/// The longest method: twice `BASELINE-CONTROL`, whose 16 bytes are the most in IANA's registry.
pub const METHOD_BYTES_MAX: usize = 32;

/// Empty lines skipped before a request line: RFC 9112 section 2.2 wants at least one, for clients
/// that end a body with a CRLF too many; one more for luck. The rest is an attempt to waste time.
pub(super) const EMPTY_LINES_MAX: usize = 2;

/// Limits of a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first to the empty line's LF, both included. Beyond it: 431.
    ///
    /// 16 KiB: four times what cookies of a large site take, half of what nginx takes in total (`large_client_header_buffers`).
    pub head_bytes_max: u16,
    /// Bytes of the request-target. Beyond it: 414.
    ///
    /// 8 KiB: RFC 9112 section 3 recommends at least 8,000 bytes for a whole request line.
    pub target_bytes_max: u16,
    /// Field lines, at most [`FIELDS_MAX`] whatever is said here. Beyond it: 431.
    pub fields_max: u16,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            target_bytes_max: 8 * 1024,
            fields_max: FIELDS_MAX as u16,
        }
    }
}
