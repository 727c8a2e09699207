//! Bodies of responses: bytes of whoever owns them, parts of files, or a stream. Knows no framing,
//! and reads nothing itself.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use super::upgrade::Switch;

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
    Pieces(Box<Pieces>),
    Stream(Box<Streamed>),
    /// No body, but another protocol.
    Switch(Box<Switch>),
}

/// Parts whose lengths are known, one after the other.
#[derive(Default)]
pub(crate) struct Pieces {
    pub(crate) length: u64,
    pub(crate) list: VecDeque<Piece>,
}

/// A part of a body.
pub(crate) enum Piece {
    Bytes(Bytes),
    /// `length` bytes from `offset` on; not zero.
    File {
        file: Rc<OwnedFd>,
        offset: u64,
        length: u64,
    },
}

impl Piece {
    /// Part of a file.
    pub(crate) fn of(file: Rc<OwnedFd>, range: &Range<u64>) -> Piece {
        let length = range.end.saturating_sub(range.start);
        Piece::File { file, offset: range.start, length }
    }
}

impl Pieces {
    /// Adds a part at the end, unless it is empty.
    pub(crate) fn push(&mut self, piece: Piece) {
        let length = match &piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File { length, .. } => *length,
        };
        if length > 0 {
            self.length += length;
            self.list.push_back(piece);
        }
    }
}

/// A body that its stream alone knows.
pub(crate) struct Streamed {
    pub(crate) frames: Frames,
    /// Known beforehand: sent with Content-Length, else chunked.
    pub(crate) length: Option<u64>,
    /// What is sent when there was nothing to send for so long.
    pub(crate) idle: Option<(Duration, &'static [u8])>,
}

pub(crate) type Frames = Pin<Box<dyn Stream<Item = io::Result<Frame>>>>;

/// What the stream of a body gives, see [`Body::frames`].
#[derive(Debug)]
pub enum Frame {
    /// Bytes of the body. None at all ask whoever holds some back (a compressor, say) to let them
    /// go: a flush.
    Data(Bytes),
    /// Fields that follow the body (RFC 9110 section 6.5). The last frame. They are sent where the
    /// framing has a place for them: behind chunks, that is to HTTP/1.1 clients and without a
    /// length; dropped elsewhere.
    Trailers(Vec<(Cow<'static, str>, Cow<'static, str>)>),
}

impl Body {
    /// No bytes.
    pub const fn empty() -> Body {
        Body(Kind::Empty)
    }

    /// Bytes that come later, of a length that nobody knows yet. An error ends the connection in
    /// the middle of the body, so that the client notices.
    pub fn stream(chunks: impl Stream<Item = io::Result<Bytes>> + 'static) -> Body {
        Body::streamed(Box::pin(Data(Box::pin(chunks))), None)
    }

    /// Bytes that come later, `length` in total. A stream that gives less or more is an error.
    pub fn sized_stream(
        length: u64,
        chunks: impl Stream<Item = io::Result<Bytes>> + 'static,
    ) -> Body {
        Body::streamed(Box::pin(Data(Box::pin(chunks))), Some(length))
    }

    /// As [`stream`](Body::stream), with flushes and trailers.
    pub fn frames(frames: impl Stream<Item = io::Result<Frame>> + 'static) -> Body {
        Body::streamed(Box::pin(frames), None)
    }

    /// Chunks that an iterator makes as fast as the client takes them.
    ///
    /// ```
    /// use uring_pool::{Body, Response};
    ///
    /// let lines = Body::chunks((0..1000).map(|n| format!("{n}\n")));
    /// let response = Response::text(lines);
    /// ```
    pub fn chunks<I>(chunks: I) -> Body
    where
        I: IntoIterator<Item: Into<Bytes>, IntoIter: 'static>,
    {
        Body::streamed(Box::pin(Chunks(chunks.into_iter())), None)
    }

    pub(crate) fn streamed(frames: Frames, length: Option<u64>) -> Body {
        Body(Kind::Stream(Box::new(Streamed { frames, length, idle: None })))
    }

    /// A part of a file, sent from the page cache as the client takes it. What isn't there is read
    /// through the worker's ring, with at most 128 KiB in memory. The file's position isn't touched. A file that turns out to be
    /// shorter ends the connection in the middle of the body.
    ///
    /// ```no_run
    /// use std::fs::File;
    /// use uring_pool::{Body, Response};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let file = File::open("/var/log/syslog")?;
    /// let length = file.metadata()?.len();
    /// let tail = Response::text(Body::file(file, length.saturating_sub(1 << 20)..length));
    /// # Ok(())
    /// # }
    /// ```
    pub fn file(file: File, range: Range<u64>) -> Body {
        Body::part_of(Rc::new(file.into()), range)
    }

    /// A part of a file that others may read as well.
    pub(crate) fn part_of(file: Rc<OwnedFd>, range: Range<u64>) -> Body {
        let mut pieces = Pieces::default();
        pieces.push(Piece::of(file, &range));
        Body::from(pieces)
    }

    /// A length alone, for responses to HEAD: nothing would follow.
    pub(crate) fn of_length(length: u64) -> Body {
        Body::from(Pieces { length, list: VecDeque::new() })
    }

    /// Its length in bytes, unless only its end will tell.
    pub fn len(&self) -> Option<u64> {
        match &self.0 {
            Kind::Empty | Kind::Switch(_) => Some(0),
            Kind::Static(bytes) => Some(bytes.len() as u64),
            Kind::Bytes(bytes) => Some(bytes.len() as u64),
            Kind::Owned(bytes) => Some(bytes.len() as u64),
            Kind::Pieces(pieces) => Some(pieces.length),
            Kind::Stream(stream) => stream.length,
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

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Body {
        Body(Kind::Pieces(Box::new(pieces)))
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

/// A stream of bytes as frames.
struct Data<S>(Pin<Box<S>>);

impl<S: Stream<Item = io::Result<Bytes>>> Stream for Data<S> {
    type Item = io::Result<Frame>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame>>> {
        self.0.as_mut().poll_next(context).map(|next| Some(next?.map(Frame::Data)))
    }
}

/// An iterator as frames.
struct Chunks<I>(I);

impl<I> Unpin for Chunks<I> {}

impl<I: Iterator<Item: Into<Bytes>>> Stream for Chunks<I> {
    type Item = io::Result<Frame>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame>>> {
        Poll::Ready(self.0.next().map(|chunk| Ok(Frame::Data(chunk.into()))))
    }
}
