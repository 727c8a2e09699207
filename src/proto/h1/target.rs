//! The four forms of a request-target (RFC 9112 section 3.2). Decodes and normalises nothing.

use super::authority::{self, Port};
use super::class::{self, PATH, TARGET};
use super::{HeadError, Method, Span};

/// In which form a request-target came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`, as sent to proxies; every server must take it.
    Absolute,
    /// `host:port`, of CONNECT only.
    Authority,
    /// `*`, of OPTIONS only: the server as a whole.
    Asterisk,
}

/// The parts of a request-target.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) form: TargetForm,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    pub(super) authority: Option<Span>,
}

impl Target {
    /// Takes apart what lies at `span` of `head`.
    #[inline]
    pub(super) fn parse(head: &[u8], span: Span, method: Method) -> Result<Self, HeadError> {
        if head[span.start()] == b'/' && method != Method::Connect {
            let (path, query) = split_query(head, span)?;
            return Ok(Self { form: TargetForm::Origin, path, query, authority: None });
        }
        match method {
            Method::Connect => Self::authority(head, span),
            Method::Options if span.of(head) == b"*" => Ok(Self::asterisk(span)),
            _ => Self::absolute(head, span),
        }
    }

    /// RFC 9112 section 3.2.3; RFC 9110 section 9.3.6 demands the port.
    fn authority(head: &[u8], span: Span) -> Result<Self, HeadError> {
        match authority::parse(span.of(head)) {
            Some(Port::Given) => Ok(Self {
                form: TargetForm::Authority,
                path: Span::new(span.end(), span.end()),
                query: None,
                authority: Some(span),
            }),
            _ => Err(HeadError::TargetInvalid),
        }
    }

    /// RFC 9112 section 3.2.4.
    fn asterisk(span: Span) -> Self {
        Self { form: TargetForm::Asterisk, path: span, query: None, authority: None }
    }

    /// RFC 9112 section 3.2.2, for `http` and `https` alone: we serve no other scheme.
    fn absolute(head: &[u8], span: Span) -> Result<Self, HeadError> {
        let scheme_len = scheme_len(span.of(head)).ok_or(HeadError::TargetInvalid)?;
        let host_start = span.start() + scheme_len;
        let rest = &head[host_start..span.end()];
        let host_len = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
        let host_end = host_start + host_len;
        if authority::parse(&rest[..host_len]).is_none() {
            return Err(HeadError::TargetInvalid);
        }
        let (mut path, query) = split_query(head, Span::new(host_end, span.end()))?;
        if path.is_empty() {
            // An empty path means `/` (RFC 9110 section 4.2.3): the last one of `://` will do.
            path = Span::new(host_start - 1, host_start);
        }
        let authority = Some(Span::new(host_start, host_end));
        Ok(Self { form: TargetForm::Absolute, path, query, authority })
    }
}

/// Length of `http://` or `https://`.
fn scheme_len(target: &[u8]) -> Option<usize> {
    let starts_with = |scheme: &[u8]| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    ["http://", "https://"].iter().find(|s| starts_with(s.as_bytes())).map(|s| s.len())
}

/// Path and query of `span`, every byte of it checked. The query is what follows the first `?`.
#[inline]
fn split_query(head: &[u8], span: Span) -> Result<(Span, Option<Span>), HeadError> {
    let text = span.of(head);
    let path_len = class::run_len(text, PATH);
    if path_len == text.len() {
        return Ok((span, None));
    }
    if class::run_len(&text[path_len..], TARGET) < text.len() - path_len {
        return Err(HeadError::TargetInvalid);
    }
    let mark = span.start() + path_len;
    Ok((Span::new(span.start(), mark), Some(Span::new(mark + 1, span.end()))))
}
