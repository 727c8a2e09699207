//! The endpoints of `uring-pool serve` without a document root: something to look at, to curl and
//! to measure. Knows no files.

use std::borrow::Cow;
use std::cell::OnceCell;

use bytes::Bytes;
use serde::Serialize;

use super::Handler;
use crate::http::{
    Body, BodyError, ContentType, IntoResponse, Method, Request, Response, Status, Version,
};

/// The embedded welcome page.
const WELCOME: &str = include_str!("welcome.html");

/// The largest body that `/body/N` gives: enough for any benchmark, harmless to allocate once.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Bodies up to this size are collected to be echoed, so that what is wrong with one is known before
/// the answer begins. Larger ones are streamed.
const ECHO_COLLECTED_BYTES_MAX: u64 = 64 * 1024;

/// The demo: `/`, `/plaintext`, `/json`, `/echo`, `/inspect`, `/upload`, `/body/N`, `/healthz`,
/// `/status` and `/metrics`.
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
    pub async fn answer(&self, request: &Request) -> Option<Response> {
        let path = request.path();
        let allow = match path {
            "/echo" | "/upload" => "POST, OPTIONS",
            "/inspect" | "*" => "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        };
        let is_allowed = match request.method() {
            Method::Get | Method::Head => !matches!(path, "/echo" | "/upload"),
            Method::Post => matches!(path, "/echo" | "/upload" | "/inspect"),
            _ => path == "/inspect",
        };
        if request.method() == Method::Options || !is_allowed {
            if !self.exists(path) {
                return None;
            }
            let status = match request.method() {
                Method::Options => Response::empty(Status::NO_CONTENT),
                _ => Response::plain(Status::METHOD_NOT_ALLOWED),
            };
            return Some(status.with_header("Allow", allow));
        }
        Some(match path {
            "/plaintext" => Response::typed("Hello, World!", ContentType::Plain),
            "/json" => Response::json(&Greeting { message: "Hello, World!" }),
            "/" => Response::html(WELCOME),
            "/healthz" => Response::text("ok\n"),
            "/status" => (self.status)().with_header("Cache-Control", "no-store"),
            "/metrics" => (self.metrics.as_ref()?)().with_header("Cache-Control", "no-store"),
            "/echo" => echo(request).await.into_response(),
            "/inspect" => inspect(request).await.into_response(),
            "/upload" => upload(request).await.into_response(),
            _ => Response::new(self.body(path)?).with_content_type("application/octet-stream"),
        })
    }

    fn exists(&self, path: &str) -> bool {
        match path {
            "/" | "/plaintext" | "/json" | "/healthz" | "/status" | "/echo" | "/inspect"
            | "/upload" | "*" => true,
            "/metrics" => self.metrics.is_some(),
            _ => self.body(path).is_some(),
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
        self.answer(request).await.unwrap_or_else(|| Response::plain(Status::NOT_FOUND))
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
async fn echo(request: &Request) -> Result<Response, BodyError> {
    let content_type = request.header_text("content-type");
    let content_type = content_type
        .map_or(Cow::Borrowed("application/octet-stream"), |it| Cow::Owned(it.to_owned()));
    let body = match request.body_len() {
        Some(length) if length <= ECHO_COLLECTED_BYTES_MAX => Body::from(request.bytes().await?),
        Some(length) => Body::sized_stream(length, request.body_stream()),
        None => Body::stream(request.body_stream()),
    };
    Ok(Response::new(body).with_content_type(content_type))
}

/// A request as the server understood it.
#[derive(Serialize)]
struct Inspection<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    version: &'static str,
    host: Option<&'a str>,
    upgrades: Vec<&'a str>,
    headers: Vec<(&'a str, Cow<'a, str>)>,
    body_bytes: usize,
    body: Cow<'a, str>,
    trailers: Vec<(String, String)>,
}

/// The request as the server understood it, its body as text.
async fn inspect(request: &Request) -> Result<Response, BodyError> {
    let lossy = String::from_utf8_lossy;
    let body = request.bytes().await?;
    let trailers = request.trailers().await?;
    Ok(Response::json(&Inspection {
        method: request.method_text(),
        path: request.path(),
        query: request.query(),
        version: if request.version() == Version::Http10 { "1.0" } else { "1.1" },
        host: request.host(),
        upgrades: request.upgrades().collect(),
        headers: request.headers().map(|(name, value)| (name, lossy(value))).collect(),
        body_bytes: body.len(),
        body: lossy(&body),
        trailers: trailers.into_iter().map(|(name, it)| (name, lossy(&it).into_owned())).collect(),
    }))
}

/// A part of a form, as it came.
#[derive(Serialize)]
struct Upload {
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
    bytes: u64,
}

/// Takes a form with files apart, or counts what is no form; both in constant memory.
async fn upload(request: &Request) -> Result<Response, BodyError> {
    let mut uploads = Vec::new();
    let Ok(mut form) = request.multipart() else {
        let mut bytes = 0;
        while let Some(chunk) = request.chunk().await? {
            bytes += chunk.len() as u64;
        }
        return Ok(Response::json(&bytes));
    };
    while let Some(mut part) = form.next_part().await? {
        let name = part.name().to_owned();
        let file_name = part.file_name().map(str::to_owned);
        let content_type = part.content_type().map(str::to_owned);
        let bytes = if file_name.is_some() {
            part.into_temp_file().await?.len()
        } else {
            part.bytes().await?.len() as u64
        };
        uploads.push(Upload { name, file_name, content_type, bytes });
    }
    Ok(Response::json(&uploads))
}
