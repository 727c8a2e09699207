//! Server-sent events (the WHATWG HTML standard, section 9.2): what an event looks like on the wire.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use super::body::Kind;
use super::{Body, ContentType, Frame, Response};

/// How long a stream of events may be silent before a comment is sent: proxies give up on
/// connections that are silent for a minute, some for half of one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment, which clients ignore.
const COMMENT: &[u8] = b":\n\n";

/// A server-sent event.
///
/// ```
/// use std::time::Duration;
/// use uring_pool::Event;
///
/// let event = Event::new("two\nlines").with_id("7").with_name("update");
/// let pause = Event::retry(Duration::from_secs(5));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event(String);

impl Event {
    /// An event with this data; each of its lines is sent as one.
    pub fn new(data: impl AsRef<str>) -> Event {
        let mut event = Event(String::with_capacity(data.as_ref().len() + 16));
        for line in lines(data.as_ref()) {
            event.field("data", line);
        }
        event
    }

    /// Tells the client how long to wait before it connects again.
    pub fn retry(time: Duration) -> Event {
        Event(format!("retry: {}\n", time.as_millis()))
    }

    /// What the client sends as `Last-Event-ID` when it connects again. Line ends and NUL, which an
    /// id can't have, are left out.
    #[must_use]
    pub fn with_id(mut self, id: impl AsRef<str>) -> Event {
        self.field("id", &one_line(id.as_ref()));
        self
    }

    /// The name that listeners listen to; without one, `message`. Line ends are left out.
    #[must_use]
    pub fn with_name(mut self, name: impl AsRef<str>) -> Event {
        self.field("event", &one_line(name.as_ref()));
        self
    }

    fn field(&mut self, name: &str, value: &str) {
        writeln!(self.0, "{name}: {value}").expect("a string takes everything");
    }

    /// With the empty line that dispatches it.
    fn into_bytes(mut self) -> Bytes {
        self.0.push('\n');
        self.0.into()
    }
}

impl<T: Into<String>> From<T> for Event {
    fn from(data: T) -> Event {
        Event::new(data.into())
    }
}

/// Lines, which end as the standard has it: by CR LF, LF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else { return rest.take() };
        let length = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + length..]);
        Some(&text[..end])
    })
}

fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\r', '\n', '\0']) {
        text.replace(['\r', '\n', '\0'], "").into()
    } else {
        text.into()
    }
}

impl Response {
    /// Server-sent events, each sent as soon as the stream gives it, and a comment after 15 s of
    /// silence.
    ///
    /// The stream is dropped when the client has gone, which shows at the latest when a comment
    /// can't be sent. To go on where a client has left off, look at its `Last-Event-ID`.
    ///
    /// ```
    /// use uring_pool::{Event, Request, Response};
    /// # use futures_core::Stream;
    ///
    /// fn news(ticks: impl Stream<Item = u64> + 'static) -> Response {
    ///     # struct Map<S>(std::pin::Pin<Box<S>>);
    ///     # impl<S: Stream<Item = u64>> Stream for Map<S> {
    ///     #     type Item = Event;
    ///     #     fn poll_next(
    ///     #         mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>
    ///     #     ) -> std::task::Poll<Option<Event>> {
    ///     #         self.0.as_mut().poll_next(cx).map(|n| n.map(|n| Event::new(n.to_string())))
    ///     #     }
    ///     # }
    ///     # let events = Map(Box::pin(ticks));
    ///     Response::events(events)
    /// }
    /// ```
    pub fn events<E: Into<Event>>(events: impl Stream<Item = E> + 'static) -> Response {
        let mut body = Body::frames(Events(Box::pin(events)));
        if let Kind::Stream(stream) = &mut body.0 {
            stream.idle = Some((KEEP_ALIVE, COMMENT));
        }
        Response::typed(body, ContentType::Unknown)
            .with_content_type("text/event-stream")
            .with_header("Cache-Control", "no-store")
    }
}

struct Events<S>(Pin<Box<S>>);

impl<E: Into<Event>, S: Stream<Item = E>> Stream for Events<S> {
    type Item = io::Result<Frame>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame>>> {
        let next = self.0.as_mut().poll_next(context);
        next.map(|event| Some(Ok(Frame::Data(event?.into().into_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(event: Event) -> String {
        String::from_utf8(event.into_bytes().to_vec()).unwrap()
    }

    #[test]
    fn an_event_is_its_lines_and_an_empty_one() {
        assert_eq!(sent(Event::new("hello")), "data: hello\n\n");
        assert_eq!(
            sent(Event::from("a\nb\r\nc\rd\n")),
            "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"
        );
        assert_eq!(sent(Event::new("")), "data: \n\n");
        assert_eq!(sent(Event::retry(Duration::from_secs(5))), "retry: 5000\n\n");
        assert_eq!(
            sent(Event::new("x").with_id("1").with_name("tick")),
            "data: x\nid: 1\nevent: tick\n\n"
        );
    }

    #[test]
    fn no_text_makes_a_field_of_its_own() {
        let event =
            Event::new("x\n\nevent: y\r\rid: z").with_id("1\ndata: y\0").with_name("a\r\nretry: 1");
        for line in sent(event).trim_end().lines() {
            let (name, _) = line.split_once(": ").unwrap();
            assert!(["data", "id", "event"].contains(&name), "{line}");
        }
        assert_eq!(sent(Event::new("x").with_id("1\n2\0")), "data: x\nid: 12\n\n");
    }
}
