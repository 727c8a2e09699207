//! A request: its parsed head, in one box that is used again and again, and the way to its body.
//! Reads no sockets, but for the peer's address when a handler asks for it.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::client::{Client, Origin, Scheme, peer_of};
use super::inlet::{BodyStream, Inlet};
use super::{BodyError, Multipart, Response, Upgrade, form, interim};
use crate::guard::{IdKind, MadeId, RequestId, is_usable_id};
use crate::proto::forwarded::Resolved;
use crate::proto::h1::{Field, Framing, Head, Method, Span, Version, is_authority};

/// A request, whose body may still be on its way.
///
/// The handler is called when the head is there. The body is received as far as it is asked for,
/// whole ([`bytes`](Request::bytes), [`text`](Request::text), [`json`](Request::json),
/// [`form`](Request::form)) or in pieces ([`chunk`](Request::chunk),
/// [`body_stream`](Request::body_stream)); what isn't asked for stays in the socket, and the client
/// has to wait. What a handler leaves is thrown away if it is short, else the connection closes
/// after the response.
///
/// ```
/// use uring_pool::{BodyError, Request, Response};
///
/// async fn shout(request: &Request) -> Result<Response, BodyError> {
///     Ok(Response::text(request.text().await?.to_uppercase()))
/// }
/// ```
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
    /// `None` where there is no body.
    inlet: Option<Rc<Inlet>>,
    /// The handler's answer, on its way to the connection: it travels here, since a request is one
    /// pointer and a response is eight.
    response: Option<Response>,
    /// The connection. Open for as long as the request lives, since the connection owns both;
    /// unless it is [`lent`](Parts::lent).
    socket: RawFd,
    /// What the connection keeps for as long as it waits for the answer to a request that somebody
    /// else owns.
    lent: Option<Weak<dyn Any>>,
    /// Whose connection it is, where anything asks for that.
    client: Option<Rc<Client>>,
    id: MadeId,
}

impl Request {
    /// The method.
    pub fn method(&self) -> Method {
        self.parts.head.method
    }

    /// The method as sent, for those without a variant of their own.
    pub fn method_text(&self) -> &str {
        self.text_of(self.parts.head.method_text)
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
        self.parts.head.host.map(|host| self.text_of(host))
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
            .map(|field| (self.text_of(field.name), field.value.of(&self.parts.head_bytes)))
    }

    /// Sends an interim response 103 (RFC 8297) with these fields right away, so that the client can
    /// load what the final response will need while that is being made. Clients of HTTP/1.0 don't
    /// get it; a field that isn't valid makes it be left out, with an error in the log.
    ///
    /// ```
    /// # use uring_pool::Request;
    /// # async fn page(request: &Request) {
    /// request.early_hints([("Link", "</style.css>; rel=preload; as=style")]);
    /// # }
    /// ```
    pub fn early_hints<'a>(&self, fields: impl IntoIterator<Item = (&'a str, &'a str)>) {
        if self.parts.lent.is_some() {
            log::error!("only handlers can send early hints: these are left out");
        } else if self.version() == Version::Http11
            && let Err(error) = interim::push(fields)
        {
            log::error!("a handler's early hints are invalid: {error}");
        }
    }

    /// The value of the first field of this name, as text; `None` also when it is no text.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        self.header(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Content-Length: the bytes of the body, 0 where there is none; `None` when only its end will
    /// tell.
    pub fn body_len(&self) -> Option<u64> {
        match self.parts.head.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        }
    }

    /// The whole body, of up to `limits.collected_bytes_max` bytes; empty where there is none. Ready
    /// at once when it came with the head.
    ///
    /// # Errors
    ///
    /// It is too large, comes too slowly, is malformed or cut off, or was read before.
    pub async fn bytes(&self) -> Result<Bytes, BodyError> {
        self.collect(None).await
    }

    /// The whole body, of up to `bytes_max` bytes, which may be more or less than the setting.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Request::bytes).
    pub async fn bytes_up_to(&self, bytes_max: usize) -> Result<Bytes, BodyError> {
        self.collect(Some(bytes_max)).await
    }

    /// The whole body as text.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Request::bytes); or it isn't UTF-8.
    pub async fn text(&self) -> Result<String, BodyError> {
        let text = String::from_utf8(self.bytes().await?.into());
        text.map_err(|error| BodyError::Invalid(error.utf8_error().to_string()))
    }

    /// The body as JSON, which its Content-Type has to be: `application/json`, or something with
    /// `+json`. (A page of another site can't send that without being asked first.)
    ///
    /// ```
    /// use uring_pool::{BodyError, Request, Response};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Note {
    ///     text: String,
    /// }
    ///
    /// async fn add(request: &Request) -> Result<Response, BodyError> {
    ///     let note: Note = request.json().await?;
    ///     Ok(Response::text(note.text))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`bytes`](Request::bytes); or it is no JSON, or not that of a `T`.
    pub async fn json<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        let media_type = self.media_type();
        if !media_type.eq_ignore_ascii_case("application/json")
            && !media_type.to_ascii_lowercase().ends_with("+json")
        {
            return Err(BodyError::WrongType { expected: "application/json" });
        }
        let body = self.bytes().await?;
        serde_json::from_slice(&body).map_err(|error| BodyError::Invalid(error.to_string()))
    }

    /// The body as the fields of an HTML form, `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Request::bytes); or it is no form, or not that of a `T`.
    pub async fn form<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        let expected = "application/x-www-form-urlencoded";
        if !self.media_type().eq_ignore_ascii_case(expected) {
            return Err(BodyError::WrongType { expected });
        }
        let body = self.bytes().await?;
        form::from_bytes(&body).map_err(|error| BodyError::Invalid(error.to_string()))
    }

    /// The next piece of the body: whatever has come. `None` at its end.
    ///
    /// Nothing is received between two calls but what was under way, so a slow handler slows the
    /// client down, and a body of any size goes through in constant memory.
    ///
    /// # Errors
    ///
    /// It is too large, comes too slowly, is malformed or cut off.
    pub async fn chunk(&self) -> Result<Option<Bytes>, BodyError> {
        let body = self.body_stream();
        poll_fn(|context| body.poll_chunk(context)).await.transpose()
    }

    /// The body as a stream that isn't bound to the request: for a response that is made of it, or
    /// a task of its own. It ends with the response at the latest.
    ///
    /// ```
    /// use uring_pool::{Body, Request, Response};
    ///
    /// async fn echo(request: &Request) -> Response {
    ///     Response::new(Body::stream(request.body_stream()))
    /// }
    /// ```
    pub fn body_stream(&self) -> BodyStream {
        BodyStream::new(self.parts.inlet.clone())
    }

    /// The parts of a form with files, `multipart/form-data`.
    ///
    /// # Errors
    ///
    /// It isn't one, by its Content-Type.
    pub fn multipart(&self) -> Result<Multipart, BodyError> {
        let collected_bytes_max =
            self.parts.inlet.as_ref().map_or(0, |inlet| inlet.collected_max());
        let content_type = self.header_text("content-type").unwrap_or_default();
        Multipart::new(content_type, self.body_stream(), collected_bytes_max)
            .ok_or(BodyError::WrongType { expected: "multipart/form-data" })
    }

    /// The trailers that followed a body in chunks (RFC 9110 section 6.5), names as sent. Reads the
    /// rest of the body, if there is any, and drops it. Never take a trailer for a header: whoever
    /// forwarded the request may not have looked at it.
    ///
    /// # Errors
    ///
    /// As [`chunk`](Request::chunk).
    pub async fn trailers(&self) -> Result<Vec<(String, Vec<u8>)>, BodyError> {
        let Some(inlet) = &self.parts.inlet else { return Ok(Vec::new()) };
        poll_fn(|context| inlet.poll_end(context)).await?;
        Ok(inlet.trailers())
    }

    /// The client's offer to change to this protocol, whose name counts without regard to case; none
    /// unless the client has made it, by HTTP/1.1 and with `upgrade` in Connection (RFC 9110
    /// section 7.8). [`Upgrade::accept`] takes it.
    pub fn upgrade(&self, protocol: &str) -> Option<Upgrade> {
        self.upgrades().find(|it| it.eq_ignore_ascii_case(protocol)).map(Upgrade::new)
    }

    /// The protocols that the client would change to, best first, such as `websocket` (RFC 9110
    /// section 7.8). None unless Connection says so as well.
    pub fn upgrades(&self) -> impl Iterator<Item = &str> {
        let is_offered = self.parts.head.upgrade;
        self.headers()
            .filter(move |(name, _)| is_offered && name.eq_ignore_ascii_case("upgrade"))
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(','))
            .map(str::trim_ascii)
            .filter(|protocol| !protocol.is_empty())
    }

    /// The pairs of the query, decoded: `+` is a space, and what isn't UTF-8 becomes U+FFFD.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form::pairs(self.query().unwrap_or_default().as_bytes())
    }

    /// The cookies, in the order of the wire (RFC 6265 section 4.2). What is no pair, or no text,
    /// is left out.
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers()
            .filter(|(name, _)| name.eq_ignore_ascii_case("cookie"))
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.trim_ascii(), value.trim_ascii()))
    }

    /// The value of the first cookie of this name.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Content-Type without its parameters.
    fn media_type(&self) -> &str {
        let content_type = self.header_text("content-type").unwrap_or_default();
        content_type.split(';').next().unwrap_or_default().trim_ascii()
    }

    async fn collect(&self, bytes_max: Option<usize>) -> Result<Bytes, BodyError> {
        let Some(inlet) = &self.parts.inlet else { return Ok(Bytes::new()) };
        poll_fn(|context| inlet.poll_all(bytes_max, context)).await
    }

    /// The address at the other end of the connection, be it a proxy's; `None` when that is a Unix
    /// socket, or has gone. (Nor does a request whose [`Ticket`](crate::Ticket) is used up know it.) Who is behind a trusted proxy, [`client_address`](Request::client_address)
    /// tells.
    pub fn peer(&self) -> Option<SocketAddr> {
        let has_gone = self.parts.lent.as_ref().is_some_and(|lent| lent.strong_count() == 0);
        if has_gone { None } else { peer_of(self.parts.socket) }
    }

    /// The client's address, also behind proxies that are trusted (`proxies.trusted`), which tell it
    /// by the PROXY protocol or a header field.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.resolve().address
    }

    /// How the client asked, as far as trusted proxies tell.
    pub fn scheme(&self) -> Scheme {
        self.origin().scheme
    }

    /// Where the request comes from: as trusted proxies tell, and as it says itself.
    pub fn origin(&self) -> Origin<'_> {
        let Resolved { address, is_https, host } = self.resolve();
        let scheme = if is_https == Some(true) { Scheme::Https } else { Scheme::Http };
        Origin {
            address,
            scheme,
            host: host.filter(|it| is_authority(it.as_bytes())).or(self.host()),
        }
    }

    /// The request's id: that of a trusted proxy (`X-Request-Id`), else one that was made here and
    /// that no other request has.
    pub fn id(&self) -> RequestId<'_> {
        let is_trusted = self.parts.client.as_ref().is_some_and(|client| client.is_trusted());
        let given = || self.header("x-request-id").filter(|id| is_usable_id(id));
        let given = if is_trusted { given() } else { None };
        let given = given.and_then(|id| std::str::from_utf8(id).ok());
        RequestId(given.map_or(IdKind::Made(self.parts.id), IdKind::Given))
    }

    fn resolve(&self) -> Resolved<'_> {
        let Some(client) = &self.parts.client else {
            let address = self.peer().map(|peer| peer.ip().to_canonical());
            return Resolved { address, ..Resolved::default() };
        };
        client.resolve(|wanted| {
            let fields = self.parts.fields.iter();
            let named =
                fields.filter(move |field| self.text_of(field.name).eq_ignore_ascii_case(wanted));
            named.map(|field| field.value.of(&self.parts.head_bytes))
        })
    }

    /// As [`header`](Request::header), for those who ask for each request.
    pub(crate) fn raw_header(&self, name: &[u8]) -> Option<&[u8]> {
        let bytes = &self.parts.head_bytes;
        let is_named = |field: &&Field| {
            field.name.len() == name.len() && field.name.of(bytes).eq_ignore_ascii_case(name)
        };
        self.parts.fields.iter().find(is_named).map(|field| field.value.of(bytes))
    }

    /// The target as sent.
    pub(crate) fn target(&self) -> &str {
        &self.parts.target
    }

    /// What it is called, unless a proxy has a name for it.
    #[inline]
    pub(crate) fn set_id(&mut self, id: MadeId) {
        self.parts.id = id;
    }

    /// Whose it is.
    pub(crate) fn set_client(&mut self, client: Rc<Client>) {
        self.parts.client = Some(client);
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

    /// Waits until the whole body is there, and leaves it there.
    pub(crate) async fn arrive(&self) -> Result<(), BodyError> {
        let Some(inlet) = &self.parts.inlet else { return Ok(()) };
        poll_fn(|context| inlet.poll_whole(None, context)).await
    }

    /// Somebody owns it whose connection may close; that keeps what this refers to until it is
    /// answered.
    pub(crate) fn set_lent(&mut self, lent: Weak<dyn Any>) {
        self.parts.lent = Some(lent);
    }

    /// Lays the answer in.
    pub(crate) fn set_response(&mut self, response: Response) {
        self.parts.response = Some(response);
    }

    /// Takes the answer out.
    pub(crate) fn take_response(&mut self) -> Option<Response> {
        self.parts.response.take()
    }

    /// Lays the way to its body in.
    pub(crate) fn set_inlet(&mut self, inlet: Rc<Inlet>) {
        self.parts.inlet = Some(inlet);
    }

    /// A part of the head that lies within the target, or is the path that a target without one
    /// (`http://host`) stands for.
    fn target_part(&self, part: Span) -> &str {
        let start = part.start().wrapping_sub(self.parts.head.target.start());
        self.parts.target.get(start..start + part.len()).unwrap_or_else(|| self.text_of(part))
    }

    /// What the parser calls text is ASCII.
    fn text_of(&self, span: Span) -> &str {
        std::str::from_utf8(span.of(&self.parts.head_bytes)).expect("checked by the parser")
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {}, ", self.method_text(), self.path())?;
        write!(f, "{} fields, ", self.parts.fields.len())?;
        match self.body_len() {
            Some(length) => write!(f, "{length} bytes)"),
            None => f.write_str("in chunks)"),
        }
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

    /// A request of this head, whose fields were parsed into [`fields`](RequestPool::fields).
    pub(crate) fn take(&mut self, head: Head, head_bytes: &[u8], socket: RawFd) -> Request {
        let mut request = self.spare.pop().unwrap_or_else(|| Request {
            parts: Box::new(Parts {
                head,
                head_bytes: Vec::new(),
                target: String::new(),
                fields: Vec::with_capacity(16), // what a browser sends
                inlet: None,
                response: None,
                socket,
                lent: None,
                client: None,
                id: MadeId::default(),
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
    #[expect(clippy::inline_always, reason = "34 instructions of each request, else")]
    #[inline(always)]
    pub(crate) fn give_back(&mut self, mut request: Request) {
        if self.spare.len() < Self::SPARE_MAX {
            request.parts.inlet = None;
            request.parts.client = None;
            self.spare.push(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BodyLimits;
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
        let limits = BodyLimits { bytes_max: 9, collected_bytes_max: 9 };
        let inlet = Inlet::new(Framing::Length(4), limits, false);
        inlet.feed(b"body").unwrap();
        first.set_inlet(inlet);
        pool.give_back(first);

        let second = request(&mut pool, b"GET / HTTP/1.1\r\nHost: b\r\n\r\n");
        assert_eq!((second.path(), second.query(), second.host()), ("/", None, Some("b")));
        assert_eq!(second.header("x-secret"), None);
        assert_eq!(second.headers().count(), 1);
        assert!(second.parts.inlet.is_none());
        assert_eq!(second.peer(), None);
        let (head, len) = second.line();
        assert_eq!(&head[..len], b"GET /");
    }

    #[test]
    fn only_a_whole_and_equal_head_is_a_repetition() {
        let mut pool = RequestPool::default();
        let head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
        assert!(pool.take_repeated(head, 1).is_none());
        let first = request(&mut pool, head);
        pool.give_back(first);
        for cut in 0..head.len() {
            assert!(pool.take_repeated(&head[..cut], 1).is_none());
            let mut changed = head.to_vec();
            changed[cut] ^= 1;
            assert!(pool.take_repeated(&changed, 1).is_none());
        }
        let again = pool.take_repeated(&[&head[..], b"y"].concat(), 1).unwrap();
        assert_eq!((again.path(), again.head().len), ("/a", head.len()));
    }

    #[test]
    fn a_header_is_found_without_regard_to_case() {
        let mut pool = RequestPool::default();
        let request = request(&mut pool, b"GET / HTTP/1.1\r\nhOST: b\r\nx-A: 1\r\nX-a: 2\r\n\r\n");
        assert_eq!(request.header("Host"), Some(&b"b"[..]));
        assert_eq!(request.header("X-A"), Some(&b"1"[..]));
    }
}
