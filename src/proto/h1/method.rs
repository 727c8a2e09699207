//! Methods and versions of the request line. Decides nothing about what they allow.

/// A request's method (RFC 9110 section 9, RFC 5789 for PATCH). Case matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`: answered as GET, without the body.
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`: the target is an authority, and a 2xx turns the connection into a tunnel.
    Connect,
    /// `TRACE`
    Trace,
    /// `OPTIONS`: the only one whose target may be `*`.
    Options,
    /// `PATCH`
    Patch,
    /// Any other token; its text is [`Head::method_text`](super::Head::method_text).
    Extension,
}

impl Method {
    /// The method that `token` names.
    #[inline]
    pub fn of(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Extension,
        }
    }
}

/// The protocol version of a request (RFC 9112 section 2.3).
///
/// There is no third: `HTTP/1.2` and above were never defined, and are refused with 505 rather
/// than guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `HTTP/1.0`: closes unless asked to stay, knows no chunks, no Expect and no Upgrade.
    Http10,
    /// `HTTP/1.1`: stays unless asked to close.
    Http11,
}
