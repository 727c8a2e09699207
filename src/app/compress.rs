//! Compresses what handlers answer, for clients that want it. Leaves alone what has a coding, parts,
//! and files (which have their own, see [`files`](super::files)).

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use super::Handler;
use super::coding::{Coding, negotiate};
use crate::http::body::{Body, Frame, Frames, Kind};
use crate::http::{Request, Response, Status};

/// What is compressed at once: a few milliseconds' work. More is compressed as it is sent, so that
/// others have their turn.
const AT_ONCE_BYTES_MAX: usize = 64 * 1024;

// Levels for what is compressed once and sent once: each takes about 10 ms a MiB.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// 256 KiB: it bounds the memory of a response that is being compressed.
const BROTLI_WINDOW_BITS: u32 = 18;

/// What brotli gathers before it writes.
const BROTLI_BUFFER_BYTES: usize = 4096;

/// A handler whose responses are compressed.
///
/// ```no_run
/// use uring_pool::app::compress::Compress;
/// use uring_pool::{Pool, Request, Response};
///
/// fn main() -> uring_pool::Result<()> {
///     Pool::bind("127.0.0.1:8080")?.serve(|_worker| {
///         Compress::new(async |_: &Request| Response::html("<p>hello</p>".repeat(1000)))
///     })
/// }
/// ```
///
/// A stream is flushed whenever its handler has nothing more to give now, or gives an empty chunk.
/// A strong `ETag` becomes a weak one, as the bytes are no longer those that it was made for.
#[derive(Debug)]
pub struct Compress<H> {
    handler: H,
    codings: Vec<Coding>,
    bytes_min: u64,
    types: Vec<String>,
}

impl<H> Compress<H> {
    /// With all codings, for text of 1 KiB and more.
    pub fn new(handler: H) -> Compress<H> {
        let types = [
            "text/",
            "application/json",
            "application/javascript",
            "application/xml",
            "application/wasm",
            "image/svg+xml",
        ];
        Compress {
            handler,
            codings: Coding::ALL.to_vec(),
            bytes_min: 1024,
            types: types.map(str::to_owned).to_vec(),
        }
    }

    /// Which codings; among those that a client likes equally, the first is taken.
    #[must_use]
    pub fn with_codings(self, codings: Vec<Coding>) -> Compress<H> {
        Compress { codings, ..self }
    }

    /// Bytes of a body that is worth it; one of unknown length always is.
    #[must_use]
    pub fn with_bytes_min(self, bytes_min: u64) -> Compress<H> {
        Compress { bytes_min, ..self }
    }

    /// Which types: `text/html`, or with a slash at the end all of a kind. `text/event-stream` never
    /// is: its comments aren't the handler's.
    #[must_use]
    pub fn with_types(self, types: Vec<String>) -> Compress<H> {
        Compress { types, ..self }
    }

    fn is_worth_it(&self, response: &Response) -> bool {
        let is_large = match &response.body.0 {
            Kind::Empty | Kind::Pieces(_) | Kind::Switch(_) => false,
            Kind::Stream(stream) if stream.idle.is_some() => false,
            Kind::Stream(stream) => stream.length.is_none_or(|length| length >= self.bytes_min),
            _ => response.body.len() >= Some(self.bytes_min),
        };
        let status = response.status();
        is_large
            && response.ready.is_none()
            && !matches!(status, Status::PARTIAL_CONTENT | Status::NOT_MODIFIED)
            && status != Status::NO_CONTENT
            && response.field("Content-Encoding").is_none()
            && response.field("Content-Range").is_none()
            && !response.field("Cache-Control").is_some_and(|it| it.contains("no-transform"))
            && response.content_type().is_some_and(|it| self.is_listed(it))
    }

    fn is_listed(&self, content_type: &str) -> bool {
        let name = content_type.split(';').next().unwrap_or_default().trim();
        self.types.iter().any(|listed| match listed.strip_suffix('/') {
            Some(kind) => name.split('/').next().is_some_and(|of| of.eq_ignore_ascii_case(kind)),
            None => name.eq_ignore_ascii_case(listed),
        })
    }
}

impl<H: Handler> Handler for Compress<H> {
    async fn handle(&self, request: &Request) -> Response {
        let response = self.handler.handle(request).await;
        if !self.is_worth_it(&response) {
            return response;
        }
        let is_asked = |(name, _): &(&str, &[u8])| name.eq_ignore_ascii_case("accept-encoding");
        let accepted: Vec<&[u8]> =
            request.headers().filter(is_asked).map(|(_, value)| value).collect();
        let coding = negotiate(&accepted.into_iter(), self.codings.iter().copied());
        let response = response.with_header("Vary", "Accept-Encoding");
        match coding {
            Some(coding) => compress(response, coding),
            None => response,
        }
    }
}

fn compress(mut response: Response, coding: Coding) -> Response {
    let body = match mem::take(&mut response.body).0 {
        Kind::Stream(stream) => Encoded::of(stream.frames, coding),
        kind => {
            let bytes = match kind {
                Kind::Owned(bytes) => Bytes::from(bytes),
                Kind::Static(bytes) => Bytes::from_static(bytes),
                Kind::Bytes(bytes) => bytes,
                Kind::Empty | Kind::Pieces(_) | Kind::Stream(_) | Kind::Switch(_) => {
                    unreachable!("it is not worth it")
                }
            };
            if bytes.len() > AT_ONCE_BYTES_MAX {
                Encoded::of(Box::pin(Slices(bytes)), coding)
            } else {
                match encode(&bytes, coding) {
                    Ok(encoded) if encoded.len() < bytes.len() => Ok(Body::from(encoded)),
                    _ => {
                        response.body = Body::from(bytes);
                        return response;
                    }
                }
            }
        }
    };
    match body {
        Ok(body) => {
            response.body = body;
            response.weaken_etag();
            response.with_header("Content-Encoding", coding.name())
        }
        Err(error) => {
            log::error!("cannot compress a response: {error}");
            Response::plain(Status::INTERNAL_SERVER_ERROR)
        }
    }
}

/// All of it at once.
fn encode(bytes: &[u8], coding: Coding) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::new(coding)?;
    encoder.write(bytes)?;
    encoder.finish()
}

/// Bytes in slices that take a moment each.
struct Slices(Bytes);

impl Stream for Slices {
    type Item = io::Result<Frame>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame>>> {
        let length = self.0.len().min(AT_ONCE_BYTES_MAX);
        let slice = self.0.split_to(length);
        Poll::Ready((length > 0).then_some(Ok(Frame::Data(slice))))
    }
}

/// A stream of frames on its way through an encoder.
struct Encoded {
    frames: Frames,
    encoder: Option<Encoder>,
    /// The encoder holds something back.
    owes_flush: bool,
    trailers: Option<Frame>,
}

impl Encoded {
    fn of(frames: Frames, coding: Coding) -> io::Result<Body> {
        let encoder = Some(Encoder::new(coding)?);
        Ok(Body::frames(Encoded { frames, encoder, owes_flush: false, trailers: None }))
    }

    fn finish(&mut self) -> Option<io::Result<Frame>> {
        match self.encoder.take() {
            Some(encoder) => Some(encoder.finish().map(|bytes| Frame::Data(bytes.into()))),
            None => self.trailers.take().map(Ok),
        }
    }
}

impl Stream for Encoded {
    type Item = io::Result<Frame>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame>>> {
        let this = &mut *self;
        loop {
            let Some(encoder) = &mut this.encoder else { return Poll::Ready(this.finish()) };
            let (written, is_due) = match this.frames.as_mut().poll_next(context) {
                Poll::Pending if !this.owes_flush => return Poll::Pending,
                Poll::Pending => (Ok(()), true),
                Poll::Ready(None) => return Poll::Ready(this.finish()),
                Poll::Ready(Some(Ok(Frame::Data(bytes)))) if bytes.is_empty() => (Ok(()), true),
                Poll::Ready(Some(Ok(Frame::Data(bytes)))) => {
                    this.owes_flush = true;
                    (encoder.write(&bytes), false)
                }
                Poll::Ready(Some(Ok(trailers))) => {
                    this.trailers = Some(trailers);
                    return Poll::Ready(this.finish());
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            };
            let flushed =
                if is_due && mem::take(&mut this.owes_flush) { encoder.flush() } else { Ok(()) };
            match written.and(flushed).map(|()| encoder.take()) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::Data(bytes.into())))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

/// An encoder that writes to memory.
struct Encoder {
    encoder: Kinds,
    sink: Sink,
}

enum Kinds {
    Gzip(flate2::write::GzEncoder<Sink>),
    Brotli(Box<brotli::CompressorWriter<Sink>>),
    Zstd(zstd::stream::write::Encoder<'static, Sink>),
}

/// Where encoders write to: they own it, and we take from it.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Encoder> {
        let sink = Sink::default();
        let into = sink.clone();
        let encoder = match coding {
            Coding::Gzip => Kinds::Gzip(flate2::write::GzEncoder::new(
                into,
                flate2::Compression::new(GZIP_LEVEL),
            )),
            Coding::Brotli => Kinds::Brotli(Box::new(brotli::CompressorWriter::new(
                into,
                BROTLI_BUFFER_BYTES,
                BROTLI_QUALITY,
                BROTLI_WINDOW_BITS,
            ))),
            Coding::Zstd => Kinds::Zstd(zstd::stream::write::Encoder::new(into, ZSTD_LEVEL)?),
        };
        Ok(Encoder { encoder, sink })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.encoder {
            Kinds::Gzip(encoder) => encoder,
            Kinds::Brotli(encoder) => encoder,
            Kinds::Zstd(encoder) => encoder,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer().write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }

    /// What has come out since the last call.
    fn take(&mut self) -> Vec<u8> {
        self.sink.0.take()
    }

    /// Ends it; returns what comes last.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self.encoder {
            Kinds::Gzip(encoder) => drop(encoder.finish()?),
            Kinds::Brotli(encoder) => drop(encoder.into_inner()),
            Kinds::Zstd(encoder) => drop(encoder.finish()?),
        }
        Ok(self.sink.0.take())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::task::Waker;

    use super::*;

    fn decode(bytes: &[u8], coding: Coding) -> Vec<u8> {
        let mut decoded = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut decoded),
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut decoded),
            Coding::Zstd => {
                zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut decoded)
            }
        }
        .unwrap();
        decoded
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let text = "the same again and again, ".repeat(2000);
        for coding in Coding::ALL {
            for length in [0, 1, 1000, text.len()] {
                let encoded = encode(&text.as_bytes()[..length], coding).unwrap();
                assert_eq!(decode(&encoded, coding), text.as_bytes()[..length], "{coding}");
            }
            assert!(encode(text.as_bytes(), coding).unwrap().len() < text.len() / 20, "{coding}");
        }
    }

    /// Gives what there is, and waits where there is none: twice, as it is polled again after a flush.
    struct Halting(Vec<Option<&'static str>>);

    impl Stream for Halting {
        type Item = io::Result<Frame>;

        fn poll_next(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            match self.0.remove(0) {
                Some(text) => Poll::Ready(Some(Ok(Frame::Data(text.into())))),
                None => Poll::Pending,
            }
        }
    }

    #[test]
    fn a_stream_that_halts_or_asks_for_it_is_flushed() {
        for coding in Coding::ALL {
            let given = vec![
                Some("one "),
                Some("two "),
                None,
                None,
                Some("three "),
                Some(""),
                Some("four"),
            ];
            let body = Encoded::of(Box::pin(Halting(given)), coding).unwrap();
            let Kind::Stream(mut stream) = body.0 else { panic!() };
            let mut context = Context::from_waker(Waker::noop());
            let (mut bytes, mut seen) = (Vec::new(), Vec::new());
            loop {
                match stream.frames.as_mut().poll_next(&mut context) {
                    Poll::Ready(Some(Ok(Frame::Data(more)))) => bytes.extend_from_slice(&more),
                    Poll::Ready(None) => break,
                    Poll::Pending => seen.push(partly_decoded(&bytes, coding)),
                    other @ Poll::Ready(_) => panic!("{other:?}"),
                }
            }
            assert_eq!(seen, ["one two "], "{coding}");
            assert_eq!(decode(&bytes, coding), b"one two three four");
        }
    }

    /// What a client can read that has got so much.
    fn partly_decoded(bytes: &[u8], coding: Coding) -> String {
        let mut text = [0; 100];
        let mut decoder: Box<dyn Read> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        };
        let mut length = 0;
        while let Ok(count @ 1..) = decoder.read(&mut text[length..]) {
            length += count;
        }
        String::from_utf8_lossy(&text[..length]).into_owned()
    }
}
