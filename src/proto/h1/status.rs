//! Status codes: their lines, and what they allow. Chooses none.

/// One list for the reason phrases and for the whole status lines, both made when compiling.
macro_rules! registry {
    ($($code:literal $reason:literal)+) => {
        /// The reason phrase of a status code in the IANA registry (RFC 9110 section 15).
        pub fn reason(status: u16) -> Option<&'static str> {
            match status {
                $($code => Some($reason),)+
                _ => None,
            }
        }

        /// The status line of a registered code, CRLF included.
        pub(super) fn line(status: u16) -> Option<&'static [u8]> {
            match status {
                $($code => Some(concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n").as_bytes()),)+
                _ => None,
            }
        }

        #[cfg(test)]
        const REGISTERED: &[u16] = &[$($code),+];
    };
}

registry! {
    100 "Continue"
    101 "Switching Protocols"
    102 "Processing"
    103 "Early Hints"
    200 "OK"
    201 "Created"
    202 "Accepted"
    203 "Non-Authoritative Information"
    204 "No Content"
    205 "Reset Content"
    206 "Partial Content"
    207 "Multi-Status"
    208 "Already Reported"
    226 "IM Used"
    300 "Multiple Choices"
    301 "Moved Permanently"
    302 "Found"
    303 "See Other"
    304 "Not Modified"
    305 "Use Proxy"
    307 "Temporary Redirect"
    308 "Permanent Redirect"
    400 "Bad Request"
    401 "Unauthorized"
    402 "Payment Required"
    403 "Forbidden"
    404 "Not Found"
    405 "Method Not Allowed"
    406 "Not Acceptable"
    407 "Proxy Authentication Required"
    408 "Request Timeout"
    409 "Conflict"
    410 "Gone"
    411 "Length Required"
    412 "Precondition Failed"
    413 "Content Too Large"
    414 "URI Too Long"
    415 "Unsupported Media Type"
    416 "Range Not Satisfiable"
    417 "Expectation Failed"
    421 "Misdirected Request"
    422 "Unprocessable Content"
    423 "Locked"
    424 "Failed Dependency"
    425 "Too Early"
    426 "Upgrade Required"
    428 "Precondition Required"
    429 "Too Many Requests"
    431 "Request Header Fields Too Large"
    451 "Unavailable For Legal Reasons"
    500 "Internal Server Error"
    501 "Not Implemented"
    502 "Bad Gateway"
    503 "Service Unavailable"
    504 "Gateway Timeout"
    505 "HTTP Version Not Supported"
    506 "Variant Also Negotiates"
    507 "Insufficient Storage"
    508 "Loop Detected"
    510 "Not Extended"
    511 "Network Authentication Required"
}

/// Whether a response with this status can have a body (RFC 9112 section 6.3): not 1xx, 204, 304.
/// One to HEAD has none either, whatever its status.
#[inline]
pub fn body_allowed(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

/// Whether Content-Length may stand in a response with this status (RFC 9110 section 8.6): not in
/// 1xx and 204, but in 304, where it is what a 200 would have had.
#[inline]
pub fn content_length_allowed(status: u16) -> bool {
    !matches!(status, 100..=199 | 204)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registered_status_has_its_line() {
        for &status in REGISTERED {
            let expected = format!("HTTP/1.1 {status} {}\r\n", reason(status).unwrap());
            assert_eq!(line(status), Some(expected.as_bytes()));
        }
        assert_eq!((reason(299), line(299)), (None, None));
    }

    #[test]
    fn bodies_and_lengths_by_status() {
        for (status, body, length) in [
            (100, false, false),
            (101, false, false),
            (200, true, true),
            (204, false, false),
            (205, true, true),
            (304, false, true),
            (404, true, true),
        ] {
            assert_eq!(body_allowed(status), body, "{status}");
            assert_eq!(content_length_allowed(status), length, "{status}");
        }
    }
}
