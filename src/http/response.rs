//! Responses: a status, fields, a body. Framing and connection fields are the server's to add.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use serde::Serialize;

use super::{Body, Status, disposition};
use crate::proto::h1::{EncodeError, encode_field};

/// A response, built by a handler.
///
/// ```
/// use uring_pool::{Response, Status};
///
/// let hello = Response::text("hello");
/// let gone = Response::text("gone").with_status(Status::new(410));
/// let data = Response::json(&["a", "b"]).with_header("Cache-Control", "no-store");
/// ```
///
/// Content-Length, Transfer-Encoding, Connection and Date are written by the server. A field whose
/// name or value isn't valid (RFC 9110 section 5) makes the response a 500, with an error in the log.
#[derive(Debug)]
pub struct Response {
    pub(crate) status: Status,
    pub(crate) content_type: ContentType,
    /// Fields that the handler named itself; boxed, since most responses have none and every one
    /// is moved some times on its way out.
    #[expect(clippy::box_collection, reason = "a word instead of three")]
    pub(crate) fields: Option<Box<Vec<ResponseField>>>,
    /// Fields that were written before, and come first.
    pub(crate) ready: Option<Rc<ReadyFields>>,
    pub(crate) body: Body,
}

/// Field lines as they are sent, for responses that repeat.
#[derive(Debug)]
pub(crate) struct ReadyFields(Vec<u8>);

impl ReadyFields {
    /// Writes the lines of these fields.
    ///
    /// # Errors
    ///
    /// A name or value isn't valid.
    pub(crate) fn encode<'a>(
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<ReadyFields, EncodeError> {
        let mut lines = Vec::with_capacity(256);
        for (name, value) in fields {
            encode_field(&mut lines, name.as_bytes(), value.as_bytes())?;
        }
        lines.shrink_to_fit();
        Ok(ReadyFields(lines))
    }

    pub(crate) fn lines(&self) -> &[u8] {
        &self.0
    }
}

/// A name and a value.
pub(crate) type ResponseField = (Cow<'static, str>, Cow<'static, str>);

impl Response {
    /// 200 with `body`, and no Content-Type.
    pub fn new(body: impl Into<Body>) -> Response {
        Response {
            status: Status::OK,
            content_type: ContentType::Unknown,
            fields: None,
            ready: None,
            body: body.into(),
        }
    }

    /// 200 with fields that were written before.
    pub(crate) fn ready(body: impl Into<Body>, fields: Rc<ReadyFields>) -> Response {
        Response { ready: Some(fields), ..Response::new(body) }
    }

    /// 200 with `text/plain; charset=utf-8`.
    pub fn text(text: impl Into<Body>) -> Response {
        Response::typed(text, ContentType::Text)
    }

    /// 200 with `text/html; charset=utf-8`.
    pub fn html(html: impl Into<Body>) -> Response {
        Response::typed(html, ContentType::Html)
    }

    /// 200 with the value as `application/json`, or 500 when it can't be serialised (a map whose
    /// keys aren't strings, say), with an error in the log.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Response {
        match serde_json::to_vec(value) {
            Ok(json) => Response::typed(json, ContentType::Json),
            Err(error) => {
                log::error!("a handler's value has no JSON: {error}");
                Response::plain(Status::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// A status without a body.
    pub fn empty(status: Status) -> Response {
        Response::new(Body::empty()).with_status(status)
    }

    /// A status with its own name as the text.
    pub fn plain(status: Status) -> Response {
        Response::text(crate::proto::h1::reason(status.code()).unwrap_or("")).with_status(status)
    }

    #[inline]
    pub(crate) fn typed(body: impl Into<Body>, content_type: ContentType) -> Response {
        Response { content_type, ..Response::new(body) }
    }

    /// Sets the status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Response {
        self.status = status;
        self
    }

    /// Sets Content-Type.
    #[must_use]
    pub fn with_content_type(mut self, content_type: impl Into<Cow<'static, str>>) -> Response {
        let content_type = content_type.into();
        if let Some(fields) = &mut self.fields {
            fields.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
        }
        self.content_type = ContentType::Unknown;
        if content_type == "text/plain" {
            self.content_type = ContentType::Plain;
        } else {
            self.push("Content-Type".into(), content_type);
        }
        self
    }

    /// Adds a field; those that the server writes itself are left out of the response, and there
    /// is one Content-Type.
    #[must_use]
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Response {
        let name = name.into();
        if name.eq_ignore_ascii_case("content-type") {
            return self.with_content_type(value);
        }
        self.push(name, value.into());
        self
    }

    fn push(&mut self, name: Cow<'static, str>, value: Cow<'static, str>) {
        self.fields.get_or_insert_default().push((name, value));
    }

    /// Has the client save the response under this name instead of showing it (RFC 6266). Any text
    /// is a name: what isn't ASCII is sent as RFC 8187 has it, and slashes become `_`.
    #[must_use]
    pub fn with_download_name(self, name: impl AsRef<str>) -> Response {
        self.with_header("Content-Disposition", disposition::attachment(name.as_ref()))
    }

    /// The value of the first field of this name that was set, without regard to case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter().flat_map(|fields| fields.iter());
        let (_, value) = fields.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// What the body is, if that is said.
    pub fn content_type(&self) -> Option<&str> {
        match self.content_type {
            ContentType::Unknown => self.field("Content-Type"),
            ContentType::Plain => Some("text/plain"),
            ContentType::Text => Some("text/plain; charset=utf-8"),
            ContentType::Html => Some("text/html; charset=utf-8"),
            ContentType::Json => Some("application/json"),
        }
    }

    /// The bytes aren't those that a strong `ETag` was made for (RFC 9110 section 8.8.1).
    #[cfg(feature = "compression")]
    pub(crate) fn weaken_etag(&mut self) {
        let fields = self.fields.iter_mut().flat_map(|fields| fields.iter_mut());
        for (_, value) in fields.filter(|(name, _)| name.eq_ignore_ascii_case("etag")) {
            if !value.starts_with("W/") {
                *value = format!("W/{value}").into();
            }
        }
    }

    /// Whether every field that was named has a valid name and value.
    pub(crate) fn has_valid_fields(&self) -> bool {
        let mut scratch = Vec::new();
        let mut fields = self.fields.iter().flat_map(|fields| fields.iter());
        fields.all(|(name, value)| {
            encode_field(&mut scratch, name.as_bytes(), value.as_bytes()).is_ok()
        })
    }

    /// Its status.
    pub fn status(&self) -> Status {
        self.status
    }
}

/// What a body is, if it is something common; other types are a field like any other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ContentType {
    /// None of these, or said by a field.
    Unknown,
    /// `text/plain`, which leaves the charset to the reader.
    Plain,
    Text,
    Html,
    Json,
}

/// What a handler may return.
pub trait IntoResponse {
    /// Makes it a response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for Bytes {
    fn into_response(self) -> Response {
        Response::new(self).with_content_type("application/octet-stream")
    }
}

/// Without a body.
impl IntoResponse for Status {
    fn into_response(self) -> Response {
        Response::empty(self)
    }
}

impl<T: IntoResponse> IntoResponse for (Status, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_content_type_and_it_is_the_last() {
        let response = Response::text("x")
            .with_header("content-type", "a/b")
            .with_content_type("c/d")
            .with_header("X-A", "1");
        assert!(matches!(response.content_type, ContentType::Unknown));
        let fields = response.fields.unwrap();
        assert_eq!(*fields, [("Content-Type".into(), "c/d".into()), ("X-A".into(), "1".into())]);
        assert!(Response::json("x").with_content_type("text/plain").fields.is_none());
        assert!(size_of::<Response>() <= 64, "{} bytes", size_of::<Response>());
    }
}
