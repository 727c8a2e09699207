//! A request: its parsed head and its collected body, in one box that is used again and again.
//! Reads no sockets, but for the peer's address when a handler asks for it.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use nix::sys::socket::{SockaddrStorage, getpeername};

use super::Response;
use crate::proto::h1::{Field, Head, Method, Span, Version};

/// A request with its whole body.
///
/// Moves cheaply (it is one pointer). Handlers get it by reference; the memory serves the next
/// request afterwards.
pub struct Request {
    parts: Box<Parts>,
}

struct Parts {
    head: Head,
    /// The bytes that the head's spans lie in.
    head_bytes: Vec<u8>,
    /// The request-target once more, as text: what handlers ask for first, and often.
    target: String,
    fields: Vec<Field>,
    body: Vec<u8>,
    /// The handler's answer, on its way to the connection: it travels here, since a request is one
    /// pointer and a response is eight.
    response: Option<Response>,
    /// The connection. Open for as long as the request lives, since the connection owns both.
    socket: RawFd,
}

impl Request {
    /// The method.
    pub fn method(&self) -> Method {
        self.parts.head.method
    }

    /// The method as sent, for those without a variant of their own.
    pub fn method_text(&self) -> &str {
        self.text(self.parts.head.method_text)
    }

    /// The protocol version of the client.
    pub fn version(&self) -> Version {
        self.parts.head.version
    }

    /// The path: begins with `/` (`*` for `OPTIONS *`). Neither percent-decoded nor normalised.
    pub fn path(&self) -> &str {
        self.target_part(self.parts.head.path)
    }

    /// What follows the first `?`, without it.
    pub fn query(&self) -> Option<&str> {
        self.parts.head.query.map(|query| self.target_part(query))
    }

    /// The host (and port) that the client asked for; `None` only in HTTP/1.0.
    pub fn host(&self) -> Option<&str> {
        self.parts.head.host.map(|host| self.text(host))
    }

    /// The value of the first field of this name, without regard to case. Fields can hold any
    /// bytes but control characters.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All fields, in the order and spelling of the wire.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.parts
            .fields
            .iter()
            .map(|field| (self.text(field.name), field.value.of(&self.parts.head_bytes)))
    }

    /// The body; empty when there is none.
    pub fn body(&self) -> &[u8] {
        &self.parts.body
    }

    /// The client's address; `None` when it came by a Unix socket, or has gone.
    pub fn peer(&self) -> Option<SocketAddr> {
        let address: SockaddrStorage = getpeername(self.parts.socket).ok()?;
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
    }

    pub(crate) fn head(&self) -> &Head {
        &self.parts.head
    }

    /// The head from its method on, and how many bytes of that are `METHOD target`.
    #[inline]
    pub(crate) fn line(&self) -> (&[u8], usize) {
        let Head { method_text, target, .. } = &self.parts.head;
        let start = method_text.start();
        (&self.parts.head_bytes[start..], target.end() - start)
    }

    /// Lays the answer in.
    pub(crate) fn set_response(&mut self, response: Response) {
        self.parts.response = Some(response);
    }

    /// Takes the answer out.
    pub(crate) fn take_response(&mut self) -> Option<Response> {
        self.parts.response.take()
    }

    pub(crate) fn body_mut(&mut self) -> &mut Vec<u8> {
        &mut self.parts.body
    }

    /// A part of the head that lies within the target, or is the path that a target without one
    /// (`http://host`) stands for.
    fn target_part(&self, part: Span) -> &str {
        let start = part.start().wrapping_sub(self.parts.head.target.start());
        self.parts.target.get(start..start + part.len()).unwrap_or_else(|| self.text(part))
    }

    /// What the parser calls text is ASCII.
    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(span.of(&self.parts.head_bytes)).expect("checked by the parser")
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {}, ", self.method_text(), self.path())?;
        write!(f, "{} fields, {} bytes)", self.parts.fields.len(), self.parts.body.len())
    }
}

/// Requests that are not in use, with the memory that they have grown, and where a head's fields
/// are parsed to.
#[derive(Debug, Default)]
pub(crate) struct RequestPool {
    spare: Vec<Request>,
    /// The parser's target; swapped into the request once its head is whole.
    pub(crate) fields: Vec<Field>,
}

impl RequestPool {
    /// Idle requests kept. Handlers that are ready at once need one; waiting ones come in bursts.
    const SPARE_MAX: usize = 32;
    /// A body's memory beyond this goes back to the allocator.
    const BODY_BYTES_KEPT: usize = 64 * 1024;

    /// A request of this head, whose fields were parsed into [`fields`](RequestPool::fields).
    pub(crate) fn take(&mut self, head: Head, head_bytes: &[u8], socket: RawFd) -> Request {
        let mut request = self.spare.pop().unwrap_or_else(|| Request {
            parts: Box::new(Parts {
                head,
                head_bytes: Vec::new(),
                target: String::new(),
                fields: Vec::with_capacity(16), // what a browser sends
                body: Vec::new(),
                response: None,
                socket,
            }),
        });
        let parts = &mut *request.parts;
        parts.head = head;
        parts.head_bytes.clear();
        parts.head_bytes.extend_from_slice(head_bytes);
        parts.target.clear();
        let target = head.target.of(&parts.head_bytes);
        parts.target.push_str(std::str::from_utf8(target).expect("checked by the parser"));
        std::mem::swap(&mut parts.fields, &mut self.fields);
        parts.socket = socket;
        request
    }

    /// The request whose head `bytes` begin with, if it is the one that was given back last:
    /// clients that poll, or pipeline, repeat themselves, and what a head means depends on
    /// nothing but its bytes.
    #[inline]
    pub(crate) fn take_repeated(&mut self, bytes: &[u8], socket: RawFd) -> Option<Request> {
        let last = self.spare.last()?;
        if !bytes.starts_with(&last.parts.head_bytes) {
            return None;
        }
        let mut request = self.spare.pop()?;
        request.parts.socket = socket;
        Some(request)
    }

    /// Takes a request back.
    pub(crate) fn give_back(&mut self, mut request: Request) {
        if self.spare.len() < Self::SPARE_MAX {
            request.parts.body.clear();
            request.parts.body.shrink_to(Self::BODY_BYTES_KEPT);
            self.spare.push(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::h1::{HeadLimits, parse_head};

    fn request(pool: &mut RequestPool, bytes: &[u8]) -> Request {
        let head = parse_head(bytes, &HeadLimits::default(), &mut pool.fields).unwrap().unwrap();
        pool.take(head, &bytes[..head.len], -1)
    }

    #[test]
    fn a_used_request_shows_nothing_of_the_one_before() {
        let mut pool = RequestPool::default();
        let mut first =
            request(&mut pool, b"POST /long/path?q=1 HTTP/1.1\r\nHost: a\r\nX-Secret: s\r\n\r\n");
        first.body_mut().extend_from_slice(b"body");
        pool.give_back(first);

        let second = request(&mut pool, b"GET / HTTP/1.1\r\nHost: b\r\n\r\n");
        assert_eq!((second.path(), second.query(), second.host()), ("/", None, Some("b")));
        assert_eq!(second.header("x-secret"), None);
        assert_eq!(second.headers().count(), 1);
        assert_eq!(second.body(), b"");
        assert_eq!(second.peer(), None);
        let (head, len) = second.line();
        assert_eq!(&head[..len], b"GET /");
    }

    #[test]
    fn only_a_whole_and_equal_head_is_a_repetition() {
        let mut pool = RequestPool::default();
        let head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
        assert!(pool.take_repeated(head, 1).is_none());
        let mut first = request(&mut pool, head);
        first.body_mut().push(b'x');
        pool.give_back(first);
        for cut in 0..head.len() {
            assert!(pool.take_repeated(&head[..cut], 1).is_none());
            let mut changed = head.to_vec();
            changed[cut] ^= 1;
            assert!(pool.take_repeated(&changed, 1).is_none());
        }
        let again = pool.take_repeated(&[&head[..], b"y"].concat(), 1).unwrap();
        assert_eq!((again.path(), again.body(), again.head().len), ("/a", &b""[..], head.len()));
    }

    #[test]
    fn a_header_is_found_without_regard_to_case() {
        let mut pool = RequestPool::default();
        let request = request(&mut pool, b"GET / HTTP/1.1\r\nhOST: b\r\nx-A: 1\r\nX-a: 2\r\n\r\n");
        assert_eq!(request.header("Host"), Some(&b"b"[..]));
        assert_eq!(request.header("X-A"), Some(&b"1"[..]));
    }
}
