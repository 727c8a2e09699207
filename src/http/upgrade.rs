//! A connection that changes to another protocol (RFC 9110 section 7.8): the offer, the acceptance, and
//! the bytes both ways afterwards. Knows no sockets; whoever waits is woken.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{fmt, io, mem};

use bytes::{Buf, Bytes, BytesMut};

use super::body::Kind;
use super::{Body, Response, Status};

/// Bytes that are received ahead of whoever reads the stream: as much as of a body.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes that may be written ahead of the connection; as many again wait for the socket.
const WRITTEN_BYTES_MAX: usize = 64 * 1024;

/// Memory that is kept each way while nothing goes it.
const SPARE_BYTES_MAX: usize = 4 * 1024;

/// A client's offer to change to a protocol, from [`Request::upgrade`](super::Request::upgrade).
///
/// Whoever doesn't take it answers as ever, and the connection stays HTTP.
#[derive(Debug)]
pub struct Upgrade {
    protocol: String,
}

impl Upgrade {
    /// The offer to change to this protocol, as the client spells it.
    pub(crate) fn new(protocol: &str) -> Upgrade {
        Upgrade { protocol: protocol.to_owned() }
    }

    /// The protocol, as the client spells it.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Accepts: the response to return is a 101, and behind it `serve` has the connection, until its
    /// future ends. More fields can be added to the response, as a WebSocket needs it.
    ///
    /// The future is the connection's own: it is dropped when that breaks, and a panic ends the
    /// connection with a reset.
    ///
    /// A request with a body has to be read to its end before, or the response is a 500.
    ///
    /// ```
    /// use uring_pool::{Request, Response, Status, Upgraded};
    ///
    /// async fn handle(request: &Request) -> Response {
    ///     let Some(upgrade) = request.upgrade("echo") else {
    ///         return Response::plain(Status::new(426)).with_header("Upgrade", "echo");
    ///     };
    ///     upgrade.accept(async |stream: Upgraded| {
    ///         while let Ok(Some(piece)) = stream.chunk().await {
    ///             if stream.write_all(&piece).await.is_err() {
    ///                 break;
    ///             }
    ///         }
    ///     })
    /// }
    /// ```
    #[must_use = "it is a response"]
    pub fn accept<F>(self, serve: F) -> Response
    where
        F: AsyncFnOnce(Upgraded) + 'static,
    {
        let pipe = Rc::new(Pipe::default());
        let stream = Upgraded { pipe: Rc::clone(&pipe) };
        let task = Box::pin(async move { serve(stream).await });
        let body = Body(Kind::Switch(Box::new(Switch { task, pipe })));
        let response = Response::new(body).with_status(Status::SWITCHING_PROTOCOLS);
        response.with_header("Upgrade", self.protocol)
    }
}

/// What follows a 101.
pub(crate) struct Switch {
    pub(crate) task: Pin<Box<dyn Future<Output = ()>>>,
    pub(crate) pipe: Rc<Pipe>,
}

/// A connection that isn't HTTP any more: bytes both ways, in order. What the client sent right behind
/// its request comes first.
///
/// Up to 64 KiB are received ahead of who reads; then the client has to wait. Up to 128 KiB are taken
/// ahead of a client that doesn't read; then writing waits, and after `timeouts.write` without progress
/// the connection ends. When nothing has gone either way for `timeouts.idle`, it ends, too
/// ([`set_idle_timeout`](Upgraded::set_idle_timeout)). Ends drop the future that has the stream.
///
/// Copies are the same stream. One task may wait to read, and one to write, at a time.
#[derive(Clone)]
pub struct Upgraded {
    pipe: Rc<Pipe>,
}

impl Upgraded {
    /// Reads what has arrived into `buffer`, which isn't empty; waits until something has. Zero bytes
    /// are the end: the client sends no more.
    ///
    /// # Errors
    ///
    /// The connection is over, which a copy outside of its own future can see.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, buffer)).await
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    ///
    /// As [`read`](Upgraded::read); `UnexpectedEof` when the end comes before.
    pub async fn read_exact(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read(buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }

    /// All that has arrived, without a copy; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`read`](Upgraded::read).
    pub async fn chunk(&self) -> io::Result<Option<Bytes>> {
        poll_fn(|context| {
            self.pipe
                .poll_arrived(context, |arrived| arrived.split().freeze())
                .map_ok(|chunk| Some(chunk).filter(|chunk| !chunk.is_empty()))
        })
        .await
    }

    /// Writes some of `bytes`, waits while there is no room; returns how many. They leave by
    /// themselves.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` after [`shutdown`](Upgraded::shutdown), or when the connection is over.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_write(context, bytes)).await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`write`](Upgraded::write).
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write(bytes).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Waits until the kernel has taken all that was written.
    ///
    /// # Errors
    ///
    /// As [`write`](Upgraded::write).
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Ends this side, behind what was written. The client may still send.
    ///
    /// # Errors
    ///
    /// The connection is over.
    pub async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_shutdown(context)).await
    }

    /// Waits until the worker is about to leave, at a stop, a reload or an upgrade. What goes on is
    /// cut off after `stop_timeout`, so this is the time to say goodbye.
    pub async fn stopping(&self) {
        poll_fn(|context| self.poll_stopping(context)).await;
    }

    /// Whether the worker is about to leave.
    pub fn is_stopping(&self) -> bool {
        self.pipe.state.borrow().is_stopping
    }

    /// For how long nothing may go either way, `None` for ever; `timeouts.idle` if it isn't set. A
    /// client that has vanished without a word is noticed by nothing else, unless something is
    /// sent to it.
    pub fn set_idle_timeout(&self, timeout: Option<Duration>) {
        self.pipe.state.borrow_mut().idle_timeout = timeout;
        self.pipe.tell_connection();
    }

    /// As [`read`](Upgraded::read), for those who write futures.
    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.pipe.poll_arrived(context, |arrived| {
            let count = arrived.len().min(buffer.len());
            arrived.copy_to_slice(&mut buffer[..count]);
            count
        })
    }

    /// As [`write`](Upgraded::write), for those who write futures.
    pub fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pipe.poll_write(context, bytes)
    }

    /// As [`flush`](Upgraded::flush), for those who write futures.
    pub fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.pipe.state.borrow_mut();
        if state.is_over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.written.is_empty() && !state.is_sending {
            return Poll::Ready(Ok(()));
        }
        remember(&mut state.writer, context);
        Poll::Pending
    }

    /// As [`shutdown`](Upgraded::shutdown), for those who write futures.
    pub fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !mem::replace(&mut self.pipe.state.borrow_mut().is_shut, true) {
            self.pipe.tell_connection();
        }
        self.poll_flush(context)
    }

    /// As [`stopping`](Upgraded::stopping), for those who write futures.
    pub fn poll_stopping(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.pipe.state.borrow_mut();
        if state.is_stopping {
            return Poll::Ready(());
        }
        remember(&mut state.stopper, context);
        Poll::Pending
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgraded")
    }
}

/// What lies between a connection and the future that has its stream.
#[derive(Default)]
pub(crate) struct Pipe {
    state: RefCell<State>,
    /// The connection polls, and looks afterwards what there is to do.
    is_attended: Cell<bool>,
}

#[derive(Default)]
struct State {
    arrived: BytesMut,
    written: Vec<u8>,
    /// Something of what was written is on its way.
    is_sending: bool,
    /// The client sends no more.
    has_ended: bool,
    /// No more is written.
    is_shut: bool,
    /// The connection is gone.
    is_over: bool,
    is_stopping: bool,
    idle_timeout: Option<Duration>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    stopper: Option<Waker>,
    /// To be woken when somebody does something whom the connection doesn't poll.
    connection: Option<Waker>,
}

impl Pipe {
    /// The connection, which may have to be told of something, and may idle for so long.
    pub(crate) fn attach(&self, connection: Waker, idle_timeout: Duration) {
        let mut state = self.state.borrow_mut();
        (state.connection, state.idle_timeout) = (Some(connection), Some(idle_timeout));
    }

    /// While it is attended, nobody wakes the connection.
    pub(crate) fn set_attended(&self, is_attended: bool) {
        self.is_attended.set(is_attended);
    }

    /// These bytes arrived.
    pub(crate) fn feed(&self, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.arrived.extend_from_slice(bytes);
        wake(state, |state| &mut state.reader);
    }

    /// No more will arrive.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.has_ended = true;
        wake(state, |state| &mut state.reader);
    }

    /// Whether more may arrive.
    pub(crate) fn has_room(&self) -> bool {
        self.state.borrow().arrived.len() < AHEAD_BYTES_MAX
    }

    /// Takes what was written, to be sent; returns whether somebody waited for room.
    pub(crate) fn take_written(&self, out: &mut Vec<u8>) -> bool {
        let mut state = self.state.borrow_mut();
        if state.written.is_empty() {
            return false;
        }
        if out.is_empty() && state.written.len() > SPARE_BYTES_MAX {
            mem::swap(out, &mut state.written);
        } else {
            out.append(&mut state.written);
        }
        if state.written.capacity() > SPARE_BYTES_MAX {
            state.written = Vec::new();
        }
        state.is_sending = true;
        let has_waited = state.writer.is_some();
        wake(state, |state| &mut state.writer);
        has_waited
    }

    /// Whether something was written and not taken.
    pub(crate) fn has_written(&self) -> bool {
        !self.state.borrow().written.is_empty()
    }

    /// What was taken has been sent; returns whether somebody waits to go on writing.
    pub(crate) fn on_sent(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.is_sending = false;
        let has_waited = state.writer.is_some();
        wake(state, |state| &mut state.writer);
        has_waited
    }

    /// Whether this side is to end behind what was sent.
    pub(crate) fn is_shut(&self) -> bool {
        self.state.borrow().is_shut
    }

    /// The worker is about to leave.
    pub(crate) fn stop(&self) {
        let mut state = self.state.borrow_mut();
        state.is_stopping = true;
        wake(state, |state| &mut state.stopper);
    }

    /// For how long nothing may happen.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.state.borrow().idle_timeout
    }

    /// The connection is over.
    pub(crate) fn close(&self) {
        let mut state = self.state.borrow_mut();
        (state.is_over, state.connection) = (true, None);
        (state.arrived, state.written) = (BytesMut::new(), Vec::new());
        let wakers = [state.reader.take(), state.writer.take(), state.stopper.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Bytes of memory that it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        let state = self.state.borrow();
        state.arrived.capacity() + state.written.capacity()
    }

    /// Takes something out of what has arrived, which is nothing only at the end.
    fn poll_arrived<T>(
        &self,
        context: &mut Context<'_>,
        take: impl FnOnce(&mut BytesMut) -> T,
    ) -> Poll<io::Result<T>> {
        let mut state = self.state.borrow_mut();
        if state.is_over {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        if state.arrived.is_empty() && !state.has_ended {
            remember(&mut state.reader, context);
            return Poll::Pending;
        }
        let was_full = state.arrived.len() >= AHEAD_BYTES_MAX;
        let taken = take(&mut state.arrived);
        if state.arrived.is_empty() && state.arrived.capacity() > SPARE_BYTES_MAX {
            state.arrived = BytesMut::new();
        }
        let has_room = was_full && state.arrived.len() < AHEAD_BYTES_MAX;
        drop(state);
        if has_room {
            self.tell_connection();
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        if state.is_over || state.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let was_empty = state.written.is_empty();
        let count = bytes.len().min(WRITTEN_BYTES_MAX - state.written.len());
        if count == 0 && !bytes.is_empty() {
            remember(&mut state.writer, context);
            return Poll::Pending;
        }
        state.written.extend_from_slice(&bytes[..count]);
        drop(state);
        if was_empty {
            self.tell_connection();
        }
        Poll::Ready(Ok(count))
    }

    /// Has the connection look, unless it does anyway.
    fn tell_connection(&self) {
        if !self.is_attended.get() {
            let connection = self.state.borrow().connection.clone();
            connection.into_iter().for_each(Waker::wake);
        }
    }
}

fn remember(waker: &mut Option<Waker>, context: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(context.waker()),
        None => *waker = Some(context.waker().clone()),
    }
}

/// Wakes who waits, outside of the borrow: a waker may be anybody's code. Not the connection, which
/// polls after all that it does here.
fn wake(
    mut state: std::cell::RefMut<'_, State>,
    which: impl FnOnce(&mut State) -> &mut Option<Waker>,
) {
    let waker = which(&mut state).take();
    let is_other = |waker: &Waker| {
        state.connection.as_ref().is_none_or(|connection| !connection.will_wake(waker))
    };
    let other = waker.filter(is_other);
    drop(state);
    other.into_iter().for_each(Waker::wake);
}
