//! A request's body on its way from the connection that receives it to the handler that asks for
//! it. Knows no sockets; whoever waits is woken, nobody is polled.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::{fmt, io, mem};

use bytes::Bytes;
use futures_core::Stream;

use super::BodyError;
use crate::proto::h1::{BodyDecoder, Framing, Step};

/// Bytes of a body that are received ahead of a handler that streams it and has asked for more:
/// what one turn brings, so that a handler that keeps up never stops the receiving.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Bytes of a body in all.
    pub(crate) bytes_max: u64,
    /// Bytes of a body that a handler collects.
    pub(crate) collected_bytes_max: usize,
}

/// A body that is still coming, or has come and waits to be taken. The connection has one end of
/// it, and the request and its streams the other.
pub(crate) struct Inlet {
    state: RefCell<State>,
    /// The connection polls, and looks afterwards what it has been asked for.
    is_attended: Cell<bool>,
}

struct State {
    decoder: BodyDecoder,
    /// Decoded, and not taken yet.
    ready: Vec<u8>,
    /// Bytes that may still come.
    room: u64,
    collected_bytes_max: usize,
    progress: Progress,
    wish: Wish,
    /// Whoever waits for what it wished for.
    reader: Option<Waker>,
    /// To be woken when somebody asks whom the connection doesn't poll.
    connection: Option<Waker>,
    /// The client sends nothing before a 100 asks for it.
    owes_continue: bool,
    /// Bytes were handed out.
    is_touched: bool,
    /// The request is over.
    is_abandoned: bool,
}

enum Progress {
    /// More is to come.
    Open,
    /// The last byte has come.
    Ended,
    Failed(BodyError),
}

/// What the handler has asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Nothing,
    /// Whatever comes next.
    Some,
    /// All of it, up to this many bytes.
    All(usize),
}

impl Inlet {
    /// The inlet of a body that is delimited like this and that nothing has come of.
    pub(crate) fn new(framing: Framing, limits: BodyLimits, expects_continue: bool) -> Rc<Inlet> {
        Rc::new(Inlet {
            state: RefCell::new(State {
                decoder: BodyDecoder::new(framing),
                ready: Vec::new(),
                room: limits.bytes_max,
                collected_bytes_max: limits.collected_bytes_max,
                progress: Progress::Open,
                wish: Wish::Nothing,
                reader: None,
                connection: None,
                owes_continue: expects_continue,
                is_touched: false,
                is_abandoned: false,
            }),
            is_attended: Cell::new(false),
        })
    }

    /// Takes what the peer sent, and returns how many of the bytes belong to the body: fewer than
    /// all where it ends.
    ///
    /// # Errors
    ///
    /// The body is malformed, or larger than the limit. The reader hears the same.
    pub(crate) fn feed(&self, bytes: &[u8]) -> Result<usize, BodyError> {
        let result = self.state.borrow_mut().feed(bytes);
        match &result {
            Ok(_) => self.wake_if_satisfied(),
            Err(error) => self.fail(error.clone()),
        }
        result
    }

    /// No more will come, and that is why. Whatever hasn't been taken is lost.
    pub(crate) fn fail(&self, error: BodyError) {
        let mut state = self.state.borrow_mut();
        if let Progress::Open = state.progress {
            state.progress = Progress::Failed(error);
            state.ready = Vec::new();
        }
        drop(state);
        self.wake_if_satisfied();
    }

    /// The request is over. The rest, which may have `bytes_max` bytes, is decoded to find its end,
    /// and dropped.
    pub(crate) fn abandon(&self, bytes_max: u64) {
        let mut state = self.state.borrow_mut();
        state.is_abandoned = true;
        state.room = bytes_max;
        state.ready = Vec::new();
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Sets who is to be woken when the handler asks for more.
    pub(crate) fn attach(&self, connection: Waker) {
        self.state.borrow_mut().connection = Some(connection);
    }

    /// The connection polls whoever may ask, and looks here afterwards; or doesn't any more.
    pub(crate) fn set_attended(&self, is_attended: bool) {
        self.is_attended.set(is_attended);
    }

    /// Whether the last byte has come.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state.borrow().progress, Progress::Ended)
    }

    /// Bytes that have come and weren't taken.
    pub(crate) fn held_bytes(&self) -> usize {
        self.state.borrow().ready.capacity()
    }

    /// Whether more is to come.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state.borrow().progress, Progress::Open)
    }

    /// Whether more is to come and somebody has asked for it.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = self.state.borrow();
        matches!(state.progress, Progress::Open)
            && match state.wish {
                Wish::Nothing => false,
                Wish::Some => state.ready.len() < AHEAD_BYTES_MAX,
                Wish::All(bytes_max) => state.ready.len() <= bytes_max,
            }
    }

    /// Whether the client has to be told to send the body, now that somebody wants it. True once.
    pub(crate) fn take_continue(&self) -> bool {
        self.is_wanted() && mem::take(&mut self.state.borrow_mut().owes_continue)
    }

    /// Whether the client waits for a 100, which is sent although nobody has asked for the body
    /// yet. True once.
    pub(crate) fn take_early_continue(&self) -> bool {
        mem::take(&mut self.state.borrow_mut().owes_continue)
    }

    /// Whether the rest can be read and thrown away, being short.
    pub(crate) fn is_short(&self, bytes_max: u64) -> bool {
        let state = self.state.borrow();
        matches!(state.progress, Progress::Open)
            && !state.owes_continue
            && state.decoder.announced() <= bytes_max
    }

    /// Bytes that may be collected of it.
    pub(crate) fn collected_max(&self) -> usize {
        self.state.borrow().collected_bytes_max
    }

    /// The next piece: whatever there is. `None` at the end.
    pub(crate) fn poll_chunk(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut state = self.state.borrow_mut();
        if state.is_abandoned {
            return Poll::Ready(Some(Err(BodyError::CutOff)));
        }
        if !state.ready.is_empty() {
            state.wish = Wish::Nothing;
            state.is_touched = true;
            return Poll::Ready(Some(Ok(Bytes::from(mem::take(&mut state.ready)))));
        }
        match &state.progress {
            Progress::Ended => Poll::Ready(None),
            Progress::Failed(error) => Poll::Ready(Some(Err(error.clone()))),
            Progress::Open => {
                drop(state);
                self.ask(Wish::Some, context);
                Poll::Pending
            }
        }
    }

    /// The whole body, once it is there.
    pub(crate) fn poll_all(
        &self,
        bytes_max: Option<usize>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Bytes, BodyError>> {
        self.poll_whole(bytes_max, context).map_ok(|()| {
            let mut state = self.state.borrow_mut();
            state.is_touched = true;
            Bytes::from(mem::take(&mut state.ready))
        })
    }

    /// Waits until the whole body is there to be taken.
    pub(crate) fn poll_whole(
        &self,
        bytes_max: Option<usize>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), BodyError>> {
        let state = self.state.borrow();
        let bytes_max = bytes_max.unwrap_or(state.collected_bytes_max);
        if state.is_touched || state.is_abandoned {
            return Poll::Ready(Err(BodyError::Taken));
        }
        let there_will_be = (state.ready.len() as u64).saturating_add(state.decoder.announced());
        match &state.progress {
            Progress::Failed(error) => Poll::Ready(Err(error.clone())),
            _ if there_will_be > bytes_max as u64 => Poll::Ready(Err(BodyError::TooLarge)),
            Progress::Ended => Poll::Ready(Ok(())),
            Progress::Open => {
                drop(state);
                self.ask(Wish::All(bytes_max), context);
                Poll::Pending
            }
        }
    }

    /// Waits for the end of the body, and for nothing in it.
    pub(crate) fn poll_end(&self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            match self.poll_chunk(context) {
                Poll::Ready(Some(Ok(_dropped))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Trailers that have come, as text and bytes.
    pub(crate) fn trailers(&self) -> Vec<(String, Vec<u8>)> {
        match &self.state.borrow().decoder {
            BodyDecoder::Length(_) => Vec::new(),
            BodyDecoder::Chunked(decoder) => decoder
                .trailers()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec()))
                .collect(),
        }
    }

    fn ask(&self, wish: Wish, context: &mut Context<'_>) {
        let mut state = self.state.borrow_mut();
        let is_new = mem::replace(&mut state.wish, wish) != wish;
        match &mut state.reader {
            Some(reader) => reader.clone_from(context.waker()),
            reader => *reader = Some(context.waker().clone()),
        }
        let connection = state.connection.clone().filter(|_| is_new && !self.is_attended.get());
        drop(state);
        connection.into_iter().for_each(Waker::wake);
    }

    /// Wakes who waits, outside of the borrow: a waker may be anybody's code.
    fn wake_if_satisfied(&self) {
        let mut state = self.state.borrow_mut();
        let is_satisfied = match (&state.progress, state.wish) {
            (Progress::Ended | Progress::Failed(_), _) => true,
            (Progress::Open, Wish::Nothing) => false,
            (Progress::Open, Wish::Some) => !state.ready.is_empty(),
            (Progress::Open, Wish::All(bytes_max)) => state.ready.len() > bytes_max,
        };
        let reader = if is_satisfied { state.reader.take() } else { None };
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn feed(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        let mut used = 0;
        self.owes_continue &= bytes.is_empty(); // what waits for a 100 sends nothing
        loop {
            match self.decoder.decode(&bytes[used..]) {
                Ok(Step::Data { data, used: step }) => {
                    used += step;
                    let room = self.room.checked_sub(data.len() as u64);
                    self.room = room.ok_or(BodyError::TooLarge)?;
                    if !self.is_abandoned {
                        self.ready.extend_from_slice(data);
                    }
                }
                Ok(Step::More) => {
                    let fits = self.decoder.announced() <= self.room;
                    return if fits { Ok(bytes.len()) } else { Err(BodyError::TooLarge) };
                }
                Ok(Step::End { used: step }) => {
                    self.progress = Progress::Ended;
                    return Ok(used + step);
                }
                Err(error) => {
                    log::debug!("refused a request's body: {error}");
                    return Err(BodyError::Malformed);
                }
            }
        }
    }
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state.borrow().progress {
            Progress::Open => "Inlet(open)",
            Progress::Ended => "Inlet(ended)",
            Progress::Failed(_) => "Inlet(failed)",
        })
    }
}

/// The bytes of a request's body as they come, from [`Request::body_stream`](super::Request::body_stream).
///
/// It isn't bound to the request, so that a response's body can be made of it. Nothing is received
/// that it isn't asked for.
#[derive(Debug)]
pub struct BodyStream {
    inlet: Option<Rc<Inlet>>,
}

impl BodyStream {
    /// The stream of this body; of no bytes where there is none.
    pub(crate) fn new(inlet: Option<Rc<Inlet>>) -> BodyStream {
        BodyStream { inlet }
    }

    /// The next piece, `None` at the end.
    pub(crate) fn poll_chunk(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.inlet.as_ref().map_or(Poll::Ready(None), |inlet| inlet.poll_chunk(context))
    }
}

/// Its errors hold a [`BodyError`].
impl Stream for BodyStream {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.poll_chunk(cx).map(|next| next.map(|piece| piece.map_err(io::Error::other)))
    }
}
