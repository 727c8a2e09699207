//! The endpoints of `uring-pool serve` without a document root: something to look at, to curl and
//! to measure. Knows no files.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::Handler;
use crate::http::{Method, Request, Response, Status};

/// The embedded welcome page.
const WELCOME: &str = include_str!("welcome.html");

/// The largest body that `/body/N` gives: enough for any benchmark, harmless to allocate once.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The demo: `/`, `/plaintext`, `/json`, `/echo`, `/body/N`, `/healthz` and `/status`.
pub struct Demo {
    status: Box<dyn Fn() -> Response>,
    body: Bytes,
}

impl Demo {
    /// A demo whose `/status` is what `status` makes of the server's numbers.
    pub fn new(status: impl Fn() -> Response + 'static) -> Demo {
        Demo { status: Box::new(status), body: Bytes::from(vec![b'x'; BODY_BYTES_MAX]) }
    }

    /// The answer, unless the path is none of the demo's.
    pub fn answer(&self, request: &Request) -> Option<Response> {
        let path = request.path();
        let allowed: &[Method] = match path {
            "/echo" => &[Method::Post],
            _ => &[Method::Get, Method::Head],
        };
        let response = match path {
            "/plaintext" => Response::text("Hello, World!"),
            "/json" => Response::json(&Greeting { message: "Hello, World!" }),
            "/" => Response::html(WELCOME),
            "/healthz" => Response::text("ok\n"),
            "/status" => (self.status)().with_header("Cache-Control", "no-store"),
            "/echo" => echo(request),
            _ => Response::new(self.body(path)?).with_content_type("application/octet-stream"),
        };
        Some(if allowed.contains(&request.method()) {
            response
        } else {
            let allow = if path == "/echo" { "POST" } else { "GET, HEAD" };
            Response::plain(Status::METHOD_NOT_ALLOWED).with_header("Allow", allow)
        })
    }

    /// The first N bytes of the body, for `/body/N`.
    fn body(&self, path: &str) -> Option<Bytes> {
        let length: usize = path.strip_prefix("/body/")?.parse().ok()?;
        (length <= BODY_BYTES_MAX).then(|| self.body.slice(..length))
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

/// The body as it came, with its type.
fn echo(request: &Request) -> Response {
    let content_type = request.header("content-type").and_then(|it| std::str::from_utf8(it).ok());
    let content_type = content_type
        .map_or(Cow::Borrowed("application/octet-stream"), |it| Cow::Owned(it.to_owned()));
    Response::new(request.body().to_vec()).with_content_type(content_type)
}
