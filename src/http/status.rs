//! Status codes. The reason phrases belong to the wire format.

/// The status code of a response (RFC 9110 section 15): 200 to 599. Interim responses (1xx) are
/// the server's own affair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Status(u16);

impl Status {
    /// 101: by accepting an [`Upgrade`](super::Upgrade) only.
    pub(crate) const SWITCHING_PROTOCOLS: Status = Status(101);
    /// 200
    pub const OK: Status = Status(200);
    /// 204: no body.
    pub const NO_CONTENT: Status = Status(204);
    /// 205: no body either.
    pub const RESET_CONTENT: Status = Status(205);
    /// 206: a part of what was asked for.
    pub const PARTIAL_CONTENT: Status = Status(206);
    /// 301
    pub const MOVED_PERMANENTLY: Status = Status(301);
    /// 304: no body.
    pub const NOT_MODIFIED: Status = Status(304);
    /// 308: like 301, and the method stays.
    pub const PERMANENT_REDIRECT: Status = Status(308);
    /// 400
    pub const BAD_REQUEST: Status = Status(400);
    /// 403
    pub const FORBIDDEN: Status = Status(403);
    /// 404
    pub const NOT_FOUND: Status = Status(404);
    /// 405: the response names what is allowed in `Allow`.
    pub const METHOD_NOT_ALLOWED: Status = Status(405);
    /// 408
    pub const REQUEST_TIMEOUT: Status = Status(408);
    /// 412
    pub const PRECONDITION_FAILED: Status = Status(412);
    /// 413
    pub const CONTENT_TOO_LARGE: Status = Status(413);
    /// 415
    pub const UNSUPPORTED_MEDIA_TYPE: Status = Status(415);
    /// 416
    pub const RANGE_NOT_SATISFIABLE: Status = Status(416);
    /// 429
    pub const TOO_MANY_REQUESTS: Status = Status(429);
    /// 500
    pub const INTERNAL_SERVER_ERROR: Status = Status(500);
    /// 501
    pub const NOT_IMPLEMENTED: Status = Status(501);
    /// 503
    pub const SERVICE_UNAVAILABLE: Status = Status(503);

    /// The status with this code.
    ///
    /// # Panics
    ///
    /// Outside 200 to 599: no handler can mean that.
    pub const fn new(code: u16) -> Status {
        assert!(code >= 200 && code <= 599, "a final status lies between 200 and 599");
        Status(code)
    }

    /// The three digits.
    pub const fn code(self) -> u16 {
        self.0
    }
}
