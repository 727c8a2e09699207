//! The endpoints of `uring-pool serve` without a document root: something to look at, to curl and
//! to measure. Knows no files.

use std::borrow::Cow;
use std::cell::OnceCell;

use bytes::Bytes;
use serde::Serialize;

use super::Handler;
use crate::http::{Body, ContentType, Method, Request, Response, Status};

/// The embedded welcome page.
const WELCOME: &str = include_str!("welcome.html");

/// The largest body that `/body/N` gives: enough for any benchmark, harmless to allocate once.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The demo: `/`, `/plaintext`, `/json`, `/echo`, `/body/N`, `/healthz`, `/status` and `/metrics`.
pub struct Demo {
    status: Box<dyn Fn() -> Response>,
    metrics: Option<Box<dyn Fn() -> Response>>,
    /// Made when it is first asked for.
    body: OnceCell<Bytes>,
}

impl Demo {
    /// A demo whose `/status` is what `status` makes of the server's numbers.
    pub fn new(status: impl Fn() -> Response + 'static) -> Demo {
        Demo { status: Box::new(status), metrics: None, body: OnceCell::new() }
    }

    /// With `/metrics`, which is what `metrics` makes of the same numbers.
    #[must_use]
    pub fn with_metrics(mut self, metrics: impl Fn() -> Response + 'static) -> Demo {
        self.metrics = Some(Box::new(metrics));
        self
    }

    /// The answer, unless the path is none of the demo's.
    #[inline]
    pub fn answer(&self, request: &Request) -> Option<Response> {
        let path = request.path();
        let (is_allowed, allow) = match path {
            "/echo" => (request.method() == Method::Post, "POST"),
            _ => (matches!(request.method(), Method::Get | Method::Head), "GET, HEAD"),
        };
        let response = match path {
            "/plaintext" => Response::typed("Hello, World!", ContentType::Plain),
            "/json" => Response::json(&Greeting { message: "Hello, World!" }),
            "/" => Response::html(WELCOME),
            "/healthz" => Response::text("ok\n"),
            "/status" => (self.status)().with_header("Cache-Control", "no-store"),
            "/metrics" => (self.metrics.as_ref()?)().with_header("Cache-Control", "no-store"),
            "/echo" => echo(request),
            _ => Response::new(self.body(path)?).with_content_type("application/octet-stream"),
        };
        if is_allowed {
            Some(response)
        } else {
            Some(Response::plain(Status::METHOD_NOT_ALLOWED).with_header("Allow", allow))
        }
    }

    /// The first N bytes of the body, for `/body/N`.
    fn body(&self, path: &str) -> Option<Bytes> {
        let length: usize = path.strip_prefix("/body/")?.parse().ok()?;
        let body = || self.body.get_or_init(|| vec![b'x'; BODY_BYTES_MAX].into());
        (length <= BODY_BYTES_MAX).then(|| body().slice(..length))
    }
}

impl Handler for Demo {
    async fn handle(&self, request: &Request) -> Response {
        self.answer(request).unwrap_or_else(|| Response::plain(Status::NOT_FOUND))
    }
}

impl std::fmt::Debug for Demo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Demo")
    }
}

#[derive(Serialize)]
struct Greeting {
    message: &'static str,
}

/// The body as it comes, with its type.
fn echo(request: &Request) -> Response {
    let content_type = request.header_text("content-type");
    let content_type = content_type
        .map_or(Cow::Borrowed("application/octet-stream"), |it| Cow::Owned(it.to_owned()));
    let body = match request.body_len() {
        Some(length) => Body::sized_stream(length, request.body_stream()),
        None => Body::stream(request.body_stream()),
    };
    Response::new(body).with_content_type(content_type)
}
