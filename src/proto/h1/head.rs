//! HTTP/1 request heads. Knows no sockets, no clock, no bodies.

use std::mem::MaybeUninit;

use super::fields::Directives;
use super::limits::EMPTY_LINES_MAX;
use super::target::Target;
use super::{
    FIELDS_MAX, Field, Framing, HeadError, HeadLimits, METHOD_BYTES_MAX, Method, Span, TargetForm,
    Version, fault, parser,
};

/// A request head whose every promise was checked: what it says about the connection, and where
/// its parts lie. Spans count from the first byte given to the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method (RFC 9112 section 3.1).
    pub method: Method,
    /// The method as sent, at most [`METHOD_BYTES_MAX`] bytes.
    pub method_text: Span,
    /// The protocol version of the client.
    pub version: Version,
    /// The request-target as sent (RFC 9112 section 3.2): visible ASCII without `#`.
    pub target: Span,
    /// In which form it was sent.
    pub target_form: TargetForm,
    /// Begins with `/` in origin and absolute form; is `*` in asterisk form, and empty in authority
    /// form. Neither percent-decoded nor free of dot segments.
    pub path: Span,
    /// What follows the first `?`, which may be nothing.
    pub query: Option<Span>,
    /// The host asked for, with its port if one was given: of the target if that has one, which
    /// then overrides Host (RFC 9112 section 3.2.2), else of Host. May be empty; `None` only in
    /// HTTP/1.0.
    pub host: Option<Span>,
    /// How the body that follows is delimited (RFC 9112 section 6.3).
    pub framing: Framing,
    /// Whether the client lets the connection serve another request (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for a 100 before it sends the body (RFC 9110 section 10.1.1).
    pub expect_continue: bool,
    /// Whether Connection has `upgrade` and there is an Upgrade field, whose values are for the
    /// caller to read (RFC 9110 section 7.8).
    pub upgrade: bool,
    /// Bytes from the first to the empty line's LF, skipped empty lines before it included.
    pub len: usize,
}

/// Parses the request head that `bytes` begin with (RFC 9112 sections 2 to 6).
///
/// `Ok(None)`: no end of the head yet, and nothing wrong so far; call again with the same bytes and
/// more. A caller that gets bytes in pieces wants [`HeadParser`](super::HeadParser), which doesn't
/// begin anew with each piece.
///
/// `fields` is cleared and filled in the order of the wire; nothing is allocated if its capacity
/// suffices. Its content means something only where a head is returned.
///
/// ```
/// # use uring_pool::proto::h1::{HeadLimits, Method, parse_head};
/// let bytes = b"GET /hello?to=you HTTP/1.1\r\nHost: example.org\r\n\r\n";
/// let mut fields = Vec::with_capacity(16);
/// let head = parse_head(bytes, &HeadLimits::default(), &mut fields)?.unwrap();
/// assert_eq!(head.method, Method::Get);
/// assert_eq!(head.path.of(bytes), b"/hello");
/// assert_eq!(fields[0].value.of(bytes), b"example.org");
/// # Ok::<(), uring_pool::proto::h1::HeadError>(())
/// ```
pub fn parse_head(
    bytes: &[u8],
    limits: &HeadLimits,
    fields: &mut Vec<Field>,
) -> Result<Option<Head>, HeadError> {
    fields.clear();
    let window = &bytes[..bytes.len().min(limits.head_bytes_max.into())];
    let start = skip_empty_lines(window)?;

    let mut headers = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let headers = &mut headers[..FIELDS_MAX.min(limits.fields_max.into())];
    let mut request = httparse::Request::new(&mut []);
    let status = match request.parse_with_uninit_headers(&window[start..], headers) {
        Ok(status) => status,
        Err(error) => match fault::name(&window[start..], error) {
            Some(fault) => return Err(fault),
            None => httparse::Status::Partial,
        },
    };
    let line = match (request.method, request.path) {
        (Some(method), Some(target)) => match RequestLine::parse(window, method, target, *limits) {
            Ok(line) => Some(line),
            Err(_) if fault::may_become_preface(&window[start..]) => None,
            Err(fault) => return Err(fault),
        },
        _ => None,
    };
    let (httparse::Status::Complete(len), Some(line), Some(minor)) =
        (status, line, request.version)
    else {
        parser::check_unfinished(window, request.version.is_some(), *limits)?;
        return Ok(None);
    };
    let head = &window[..start + len];
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let directives = read_fields(head, request.headers, fields)?;

    directives.check_host(version)?;
    let framing = directives.framing(version)?;
    Ok(Some(Head {
        method: line.method,
        method_text: line.method_text,
        version,
        target: line.target_text,
        target_form: line.target.form,
        path: line.target.path,
        query: line.target.query,
        host: line.target.authority.or(directives.host),
        framing,
        keep_alive: directives.keep_alive(version),
        expect_continue: directives.expect_continue(version, framing)?,
        upgrade: directives.upgrade(version),
        len: head.len(),
    }))
}

/// The request line but for its version (RFC 9112 section 3).
struct RequestLine {
    method: Method,
    method_text: Span,
    target: Target,
    target_text: Span,
}

impl RequestLine {
    #[inline]
    fn parse(
        head: &[u8],
        method: &str,
        target: &str,
        limits: HeadLimits,
    ) -> Result<Self, HeadError> {
        if method.len() > METHOD_BYTES_MAX {
            return Err(HeadError::MethodTooLong);
        }
        if target.len() > limits.target_bytes_max.into() {
            return Err(HeadError::TargetTooLong);
        }
        let method_text = Span::between(head, method.as_bytes());
        let target_text = Span::between(head, target.as_bytes());
        let method = Method::of(method.as_bytes());
        let target = Target::parse(head, target_text, method)?;
        Ok(Self { method, method_text, target, target_text })
    }
}

/// Fills `fields`, and reads those that steer the connection.
///
/// httparse also takes a lone LF for the end of a line; here every line must end in CRLF.
#[inline]
fn read_fields<'a>(
    head: &'a [u8],
    headers: &[httparse::Header<'a>],
    fields: &mut Vec<Field>,
) -> Result<Directives<'a>, HeadError> {
    let mut directives = Directives::default();
    fields.reserve(headers.len());
    for header in headers {
        let name = Span::between(head, header.name.as_bytes());
        let value = Span::between(head, header.value);
        if head[name.start() - 2] != b'\r' {
            return Err(HeadError::BareLf);
        }
        directives.note(header.name.as_bytes(), header.value, value)?;
        fields.push(Field { name, value });
    }
    if head.ends_with(b"\r\n\r\n") { Ok(directives) } else { Err(HeadError::BareLf) }
}

/// Length of the empty lines that `bytes` begin with (RFC 9112 section 2.2).
#[inline]
pub(super) fn skip_empty_lines(bytes: &[u8]) -> Result<usize, HeadError> {
    let mut len = 0;
    while let Some(b'\r' | b'\n') = bytes.get(len) {
        match bytes[len..] {
            [b'\n', ..] => return Err(HeadError::BareLf),
            [b'\r'] => break,
            [b'\r', b'\n', ..] if len == 2 * EMPTY_LINES_MAX => {
                return Err(HeadError::EmptyLinesTooMany);
            }
            [b'\r', b'\n', ..] => len += 2,
            _ => return Err(HeadError::BareCr),
        }
    }
    Ok(len)
}
