//! Bodies of responses: bytes of whoever owns them, or a stream of them. Knows no framing.

use std::fmt;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;

/// The body of a response.
#[derive(Default)]
pub struct Body(pub(crate) Kind);

#[derive(Default)]
pub(crate) enum Kind {
    #[default]
    Empty,
    Static(&'static [u8]),
    /// Shared: never copied when it is large.
    Bytes(Bytes),
    Owned(Vec<u8>),
    Stream {
        chunks: Chunks,
        /// Known beforehand: sent with Content-Length, else chunked.
        length: Option<u64>,
    },
}

pub(crate) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>>>>;

impl Body {
    /// No bytes.
    pub const fn empty() -> Body {
        Body(Kind::Empty)
    }

    /// Bytes that come later, of a length that nobody knows yet. An error ends the connection in
    /// the middle of the body, so that the client notices.
    pub fn stream(chunks: impl Stream<Item = io::Result<Bytes>> + 'static) -> Body {
        Body(Kind::Stream { chunks: Box::pin(chunks), length: None })
    }

    /// Bytes that come later, `length` in total. A stream that gives less or more is an error.
    pub fn sized_stream(
        length: u64,
        chunks: impl Stream<Item = io::Result<Bytes>> + 'static,
    ) -> Body {
        Body(Kind::Stream { chunks: Box::pin(chunks), length: Some(length) })
    }

    /// Its length in bytes, unless only its end will tell.
    pub fn len(&self) -> Option<u64> {
        match &self.0 {
            Kind::Empty => Some(0),
            Kind::Static(bytes) => Some(bytes.len() as u64),
            Kind::Bytes(bytes) => Some(bytes.len() as u64),
            Kind::Owned(bytes) => Some(bytes.len() as u64),
            Kind::Stream { length, .. } => *length,
        }
    }

    /// Whether it is known to hold no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Body::from(text.as_bytes())
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Body {
        Body(Kind::Static(bytes))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body(Kind::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body(Kind::Owned(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::from(text.into_bytes())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            Some(length) => write!(f, "Body({length} bytes)"),
            None => f.write_str("Body(a stream)"),
        }
    }
}
