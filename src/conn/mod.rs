//! One HTTP/1 connection as a state machine: facts in, actions out. No ring, no socket, no clock.
//!
//! ```text
//! handle_bytes, handle_end, handle_sent, handle_wake, handle_timeout, handle_drain ─▶ Connection
//!                                        poll_action, poll_timeout, wants_input ◀─ Connection
//! ```
//!
//! After every fact the caller polls all actions, then asks what to wait for. Requests are
//! answered in order: while one is being handled, those behind it wait in `input`. A body is
//! received as far as its handler asks for it (`upload`).

#![expect(
    clippy::inline_always,
    reason = "the way from a request to its answer: 100 instructions each, by the bench `instructions`"
)]

mod admission;
mod download;
mod env;
mod output;
mod record;
mod respond;
#[cfg(test)]
mod tests;
mod tunnel;
mod upload;

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Context;
use std::time::{Duration, Instant};

use crate::app::{Progress, Task};
use crate::figures::{Fault, Parked};
use crate::http::body::Kind;
use crate::http::interim;
use crate::http::{BodyError, Inlet, Request, Response, Status};
use crate::proto::h1::{HeadError, HeadParser, Method, Version};

pub(crate) use crate::http::BodyLimits;
use admission::refusal;
use download::{Download, Pumped};
pub(crate) use download::{FileRead, FileSend};
pub(crate) use env::{DateField, Draining, Env, Pools, Settings};
use output::Output;
pub(crate) use output::{BODY_BYTES_PER_SEND, Outgoing};
pub(crate) use record::Record;
use tunnel::Tunnel;

/// Bytes of later requests kept while an earlier one is handled. As much as a head may take: a
/// client that pipelines more than this has to wait for answers.
const INPUT_AHEAD_MAX: usize = 16 * 1024;

/// How long a closing connection is read from, and how much, before it is closed for good: what
/// arrives after close(2) resets the connection, and the reset may overtake the last response.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// How long an idle connection of a draining worker may still bring a request that its client
/// sent before it could know: a few round trips on one continent.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_millis(200);

/// What the caller has to do. Two words, so that it travels in registers.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send what [`take_outgoing`](Connection::take_outgoing) gives, then call `handle_sent`. There is
    /// one at a time.
    Send,
    /// Read this, then call `handle_read`. There is one at a time, and no send beside it.
    Read(Box<FileRead>),
    /// Send this head and then this part of a file, then call `handle_file_sent`; also when the file
    /// isn't in memory. As a `Send`, it is the only one.
    SendFile(Box<FileSend>),
    /// Tell the peer that nothing more will come, and go on reading.
    ShutdownWrite,
    /// Close so that the peer sees that something is missing. Nothing follows.
    Abort,
    /// Close. Nothing follows.
    Close,
}

/// A connection between an accepted socket and the handler.
pub(crate) struct Connection {
    phase: Phase,
    parser: HeadParser,
    /// Arrived and not used yet: a part of a head, or requests that wait for their turn.
    input: Vec<u8>,
    output: Output,
    /// When the phase has lasted too long. An idle one's is set when all is sent: until then the
    /// time is that of the send.
    phase_deadline: Option<Instant>,
    /// When the send in flight has taken too long.
    send_deadline: Option<Instant>,
    /// The body of the request that is being handled, unless all of it has come: its bytes are the
    /// next to arrive.
    upload: Option<Rc<Inlet>>,
    /// The peer has sent its last byte.
    peer_ended: bool,
    /// See [`is_proven`](Connection::is_proven).
    is_proven: bool,
    /// Where the figures keep the line of a request that waits.
    parked: Parked,
    /// Requests so far.
    requests: u32,
    /// There where anything asks for it: the access log, limits by client.
    record: Option<Box<Record>>,
    socket: RawFd,
}

// An idle connection is little more than this.
const _: () = assert!(size_of::<Connection>() <= 216);

enum Phase {
    /// A header of the PROXY protocol is to come first.
    Proxy,
    /// Between requests.
    Idle,
    /// Some of a head is in `input`.
    Head,
    /// The handler waits for something.
    Handling { task: Task, exchange: Exchange },
    /// The response's body comes in pieces.
    Streaming { download: Box<Download>, exchange: Exchange },
    /// It isn't HTTP any more.
    Tunnel(Box<Tunnel>),
    /// The request was answered, and the rest of its body is thrown away.
    Discarding,
    /// The last response is on its way.
    Closing(Ending),
    /// The last response was sent, and what still comes is thrown away.
    Lingering { discarded: usize },
    /// Over. `told`: the action `Close` was given out.
    Closed { told: bool },
}

/// How a connection ends once its last response is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Close,
    /// The peer may still be sending: see [`LINGER`].
    Linger,
    /// The last response is cut off, and only a reset can tell.
    Abort,
}

/// What a response must know of its request.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    version: Version,
    is_head: bool,
    keep_alive: bool,
    /// Its body hadn't come to its end when the handler was called.
    is_uploading: bool,
}

impl Connection {
    /// A connection that another process has served before. It idles, until `deadline`.
    pub(crate) fn resumed(socket: RawFd, deadline: Instant) -> Connection {
        Connection { is_proven: true, ..Connection::new(socket, deadline) }
    }

    /// A new connection, which has until `deadline` to bring the head of its first request.
    /// `socket` is only for the handler's question who the peer is.
    pub(crate) fn new(socket: RawFd, deadline: Instant) -> Connection {
        Connection {
            phase: Phase::Idle,
            parser: HeadParser::default(),
            input: Vec::new(),
            output: Output::default(),
            phase_deadline: Some(deadline),
            send_deadline: None,
            upload: None,
            peer_ended: false,
            is_proven: false,
            parked: Parked::NONE,
            requests: 0,
            record: None,
            socket,
        }
    }

    /// Bytes arrived.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8], env: &mut Env<'_>) {
        if self.input.is_empty() {
            let used = self.advance(bytes, env);
            if used < bytes.len() {
                self.input = env.pools.take_buffer();
                self.input.extend_from_slice(&bytes[used..]);
            }
        } else {
            self.input.extend_from_slice(bytes);
            self.advance_input(env);
        }
    }

    /// The peer has sent its last byte. It may still read.
    pub(crate) fn handle_end(&mut self, env: &mut Env<'_>) {
        self.peer_ended = true;
        if let Some(upload) = &self.upload {
            upload.fail(BodyError::CutOff);
        }
        if matches!(self.phase, Phase::Handling { .. } | Phase::Streaming { .. }) {
            self.phase_deadline = self.patience(env);
        }
        self.advance_input(env);
    }

    /// What the last `Send` gave out has been sent; here is the memory of its head.
    pub(crate) fn handle_sent(&mut self, head: Vec<u8>, env: &mut Env<'_>) {
        let (responses, nanos) = self.output.finish(env.nanos);
        self.on_responses(responses, nanos, env);
        self.send_deadline = None;
        env.pools.give_back_buffer(head);
        match self.phase {
            Phase::Streaming { .. } => {
                self.attend_upload();
                self.pump(env);
                self.follow_upload(env);
            }
            Phase::Idle => self.phase_deadline = Some(env.now + env.idle_timeout()),
            Phase::Tunnel(_) => self.on_tunnel_sent(env),
            _ => {}
        }
        if !self.input.is_empty() || self.peer_ended {
            self.advance_input(env);
        }
    }

    /// So many responses are sent to their ends, and took so long.
    #[inline]
    fn on_responses(&mut self, responses: u64, nanos: u64, env: &mut Env<'_>) {
        if responses > 0 {
            env.figures.durations.record(nanos, responses);
            if let Some(record) = &mut self.record {
                record.on_sent(responses, env);
            }
        }
    }

    /// What the last `SendFile` asked for, advanced by what was sent of it: all, or as much as was in
    /// memory.
    pub(crate) fn handle_file_sent(&mut self, send: FileSend, env: &mut Env<'_>) {
        let Phase::Streaming { download, .. } = &mut self.phase else { return }; // it is over
        self.send_deadline = None;
        download.handle_file_sent(send, &mut self.output, env);
        self.pump(env);
        let (responses, nanos) = self.output.finish_file(env.nanos);
        self.on_responses(responses, nanos, env);
        if matches!(self.phase, Phase::Idle) {
            self.phase_deadline = Some(env.now + env.idle_timeout());
        }
        self.advance_input(env);
    }

    /// What the last `Read` asked for: its buffer, longer by the count, or why there is nothing.
    pub(crate) fn handle_read(
        &mut self,
        buffer: Vec<u8>,
        result: Result<usize, io::Error>,
        env: &mut Env<'_>,
    ) {
        let Phase::Streaming { download, .. } = &mut self.phase else {
            return env.pools.give_back_buffer(buffer); // it is over
        };
        match &result {
            Ok(0) => log::error!("{} became shorter while it was sent", download.file_name()),
            Ok(_) => {}
            Err(error) => {
                log::error!("cannot read {}, which is being sent: {error}", download.file_name());
            }
        }
        let count = result.unwrap_or(0) as u64;
        if download.handle_read(buffer, count, &mut self.output) {
            self.pump(env);
        } else {
            env.figures.on_fault(Fault::CutOff);
            self.begin_close(Ending::Close);
        }
        self.advance_input(env);
    }

    /// A part of the last `Send` went out, so the peer does read.
    pub(crate) fn handle_send_progress(&mut self, env: &Env<'_>) {
        self.send_deadline = Some(env.now + env.settings.write_timeout);
    }

    /// The handler, or the stream of its response, asked to be polled again.
    pub(crate) fn handle_wake(&mut self, env: &mut Env<'_>) {
        match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Handling { task, exchange } => {
                env.figures.black_box.resume(self.parked);
                self.attend_upload();
                let progress = task.poll(&mut Context::from_waker(env.waker));
                env.figures.black_box.pause();
                self.follow(progress, exchange, env);
                self.follow_upload(env);
                self.advance_input(env);
            }
            Phase::Streaming { mut download, exchange } => {
                download.handle_wake();
                self.phase = Phase::Streaming { download, exchange };
                self.attend_upload();
                self.pump(env);
                self.follow_upload(env);
                self.advance_input(env);
            }
            Phase::Tunnel(tunnel) => {
                self.phase = Phase::Tunnel(tunnel);
                self.drive_tunnel(env);
            }
            phase => self.phase = phase, // woken for a request that is over
        }
    }

    /// The time of [`poll_timeout`](Connection::poll_timeout) may have come.
    pub(crate) fn handle_timeout(&mut self, env: &mut Env<'_>) {
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= env.now);
        if is_over(self.send_deadline) {
            self.give_up(Fault::WriteTimeout, env); // the peer doesn't read: no way to tell it
        } else if self.request_deadline().is_some_and(|at| at <= env.now) {
            self.give_up_on_handler(env);
        } else if self.send_deadline.is_none() && is_over(self.phase_deadline) {
            let late = Status::REQUEST_TIMEOUT;
            match self.phase {
                Phase::Head => {
                    self.note_rubbish(env);
                    let is_head = is_head(&self.input);
                    self.refuse(late, Fault::HeadTimeout, is_head, env);
                }
                Phase::Idle if env.draining != Draining::Closing => {
                    self.give_up(Fault::IdleTimeout, env);
                }
                Phase::Handling { .. } | Phase::Streaming { .. } if self.waits_for_upload() => {
                    self.fail_upload(BodyError::TimedOut, env);
                }
                Phase::Streaming { .. } if !self.peer_ended => self.show_life(env),
                Phase::Handling { .. } | Phase::Streaming { .. } => {
                    self.give_up(Fault::WriteTimeout, env);
                }
                Phase::Discarding => self.give_up(Fault::BodyTimeout, env),
                Phase::Proxy => self.give_up(Fault::HeadTimeout, env),
                Phase::Tunnel(_) => self.give_up(Fault::IdleTimeout, env),
                _ => self.fail(),
            }
        }
    }

    /// The worker is about to stop. What has begun is finished; a request that is on its way
    /// already, and comes by this time, still gets its answer.
    pub(crate) fn handle_drain(&mut self, until: Instant) {
        if matches!(self.phase, Phase::Idle) {
            self.phase_deadline = self.phase_deadline.map(|deadline| deadline.min(until));
        }
    }

    /// Whether another process could go on with the socket, and the client not notice: nothing has
    /// begun, and nothing is left to send.
    pub(crate) fn may_move(&self) -> bool {
        matches!(self.phase, Phase::Idle)
            && self.input.is_empty()
            && !self.output.is_busy()
            && !self.peer_ended
    }

    /// The socket is broken.
    pub(crate) fn handle_failure(&mut self, env: &Env<'_>) {
        self.give_up(Fault::Broken, env);
    }

    fn give_up(&mut self, fault: Fault, env: &Env<'_>) {
        env.figures.on_fault(fault);
        self.fail();
    }

    fn fail(&mut self) {
        self.phase = Phase::Closed { told: false };
        self.send_deadline = None;
        self.phase_deadline = None;
        self.drop_upload();
    }

    /// What to do next; to be asked until there is nothing.
    #[inline(always)]
    pub(crate) fn poll_action(&mut self, env: &mut Env<'_>) -> Option<Action> {
        match self.phase {
            Phase::Idle | Phase::Head | Phase::Handling { .. } => {
                self.output.is_ready().then_some(Action::Send)
            }
            _ => self.poll_other_action(env),
        }
    }

    /// The bytes of a `Send`.
    #[inline(always)]
    pub(crate) fn take_outgoing(&mut self, env: &Env<'_>) -> Outgoing {
        let outgoing = self.output.take();
        self.send_deadline = Some(env.send_deadline(outgoing.len()));
        outgoing
    }

    #[inline(never)]
    fn poll_other_action(&mut self, env: &mut Env<'_>) -> Option<Action> {
        if let Phase::Closed { told } = &mut self.phase {
            env.figures.black_box.release(mem::replace(&mut self.parked, Parked::NONE));
            if let Some(record) = &mut self.record {
                record.close(env);
            }
            return (!mem::replace(told, true)).then_some(Action::Close);
        }
        if let Phase::Streaming { download, .. } = &mut self.phase {
            if let Some(send) = download.poll_send(&mut self.output) {
                self.send_deadline = Some(env.now + env.settings.write_timeout);
                return Some(Action::SendFile(send));
            }
            if let Some(read) = download.poll_read(&mut self.output, env) {
                return Some(Action::Read(Box::new(read)));
            }
        }
        if self.output.is_ready() {
            return Some(Action::Send);
        }
        let ending = match &mut self.phase {
            Phase::Closing(ending) => *ending,
            Phase::Tunnel(tunnel) if !self.output.is_busy() => {
                return tunnel.poll_shutdown().then_some(Action::ShutdownWrite);
            }
            _ => return None,
        };
        env.figures.black_box.release(mem::replace(&mut self.parked, Parked::NONE));
        if self.output.is_busy() {
            return None;
        }
        if ending == Ending::Linger && !self.peer_ended {
            self.phase = Phase::Lingering { discarded: 0 };
            self.phase_deadline = Some(env.now + LINGER);
            return Some(Action::ShutdownWrite);
        }
        if let Some(record) = &mut self.record {
            record.close(env);
        }
        self.phase = Phase::Closed { told: true };
        Some(if ending == Ending::Abort { Action::Abort } else { Action::Close })
    }

    /// When to call [`handle_timeout`](Connection::handle_timeout), unless something happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.send_deadline.or(self.phase_deadline);
        match self.request_deadline() {
            Some(other) => Some(deadline.map_or(other, |deadline| deadline.min(other))),
            None => deadline,
        }
    }

    /// Whether anything that arrives now is of use. While it isn't, the socket's window closes and
    /// the peer has to wait.
    pub(crate) fn wants_input(&self) -> bool {
        !self.peer_ended
            && match &self.phase {
                Phase::Idle | Phase::Head if !self.output.is_full() => true,
                Phase::Proxy | Phase::Discarding | Phase::Lingering { .. } => true,
                Phase::Closing(_) | Phase::Closed { .. } => false,
                Phase::Tunnel(tunnel) => tunnel.wants_input(),
                _ => match &self.upload {
                    Some(upload) => upload.is_wanted(),
                    None => self.input.len() < INPUT_AHEAD_MAX,
                },
            }
    }

    /// Whether the connection has shown that it stays: it kept on after an answer, or brings a
    /// body in pieces.
    pub(crate) fn is_proven(&self) -> bool {
        self.is_proven
    }

    fn advance_input(&mut self, env: &mut Env<'_>) {
        let mut input = mem::take(&mut self.input);
        let used = self.advance(&input, env);
        input.drain(..used);
        if input.is_empty() {
            env.pools.give_back_buffer(input);
        } else {
            self.input = input;
        }
    }

    /// Goes as far as `bytes` allow, and returns how many of them are done with.
    fn advance(&mut self, bytes: &[u8], env: &mut Env<'_>) -> usize {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match &mut self.phase {
                Phase::Proxy => match self.receive_proxy_header(rest, env) {
                    Some(step) => used += step,
                    None => break,
                },
                Phase::Idle | Phase::Head if self.output.is_full() => return used,
                Phase::Idle | Phase::Head | Phase::Discarding if rest.is_empty() => break,
                // Left over from a body with a line end too many (RFC 9112 section 2.2).
                Phase::Idle | Phase::Head if rest.starts_with(b"\r\n") => {
                    used += 2;
                    self.parser = HeadParser::default();
                    self.phase = Phase::Idle;
                }
                Phase::Idle | Phase::Head => match self.parse(rest, env) {
                    Ok(Some(request)) => {
                        used += request.head().len;
                        if request.head().framing.has_body() {
                            used += self.begin_upload(request, &bytes[used..], env);
                        } else {
                            self.on_request(request, env);
                        }
                    }
                    Ok(None) => {
                        if matches!(self.phase, Phase::Idle) {
                            self.phase = Phase::Head;
                            self.phase_deadline = Some(env.now + env.settings.head_timeout);
                        }
                        break;
                    }
                    Err(error) => {
                        log::debug!("refused a request: {error}");
                        let fault = Fault::of_refusal(error.status());
                        let is_head = is_head(rest);
                        self.note_rubbish(env);
                        self.refuse(Status::new(error.status()), fault, is_head, env);
                    }
                },
                Phase::Handling { .. } | Phase::Streaming { .. } => {
                    match self.receive_upload(rest, env) {
                        0 => return used,
                        step => used += step,
                    }
                }
                Phase::Discarding => used += self.discard_upload(rest, env),
                Phase::Tunnel(_) => {
                    self.receive_tunnel(rest, env);
                    return bytes.len();
                }
                Phase::Lingering { discarded } => {
                    *discarded += rest.len();
                    if *discarded > LINGER_BYTES_MAX || self.peer_ended {
                        self.phase = Phase::Closed { told: false };
                    }
                    return bytes.len();
                }
                Phase::Closing(ending) => {
                    // It was told that nothing would follow, and it isn't so: what is left unread
                    // would make the close a reset, which may overtake the response.
                    if *ending == Ending::Close && !rest.is_empty() {
                        *ending = Ending::Linger;
                    }
                    return bytes.len();
                }
                Phase::Closed { .. } => return bytes.len(),
            }
        }
        if self.peer_ended {
            self.begin_close(Ending::Close); // a request that is cut off will never be whole
        }
        used
    }

    /// The request whose head `bytes` begin with, once the head is whole.
    fn parse(&mut self, bytes: &[u8], env: &mut Env<'_>) -> Result<Option<Request>, HeadError> {
        let requests = &mut env.pools.requests;
        if matches!(self.phase, Phase::Idle)
            && let Some(request) = requests.take_repeated(bytes, self.socket)
        {
            return Ok(Some(request));
        }
        let head = self.parser.parse(bytes, &env.settings.head, &mut requests.fields)?;
        Ok(head.map(|head| requests.take(head, &bytes[..head.len], self.socket)))
    }

    /// A request without a body has come.
    #[inline(never)]
    fn on_request(&mut self, mut request: Request, env: &mut Env<'_>) {
        let (exchange, refusal) = self.begin_exchange(&mut request, env);
        if let Some((status, fault)) = refusal {
            return self.turn_away(request, status, fault, exchange, env);
        }
        if matches!(request.head().method, Method::Connect | Method::Trace) {
            return self.refuse(Status::NOT_IMPLEMENTED, Fault::Malformed, false, env);
        }
        self.call(request, exchange, env);
    }

    /// What its response must know of a request, and whether it has to be refused.
    #[inline(always)]
    fn begin_exchange(
        &mut self,
        request: &mut Request,
        env: &mut Env<'_>,
    ) -> (Exchange, Option<(Status, Fault)>) {
        env.figures.requests.add(1);
        self.output.begin_response(env.nanos);
        self.requests += 1;
        request.set_id(env.guard.ids.next());
        let refusal = self.admit(request, env);
        let head = request.head();
        let exchange = Exchange {
            is_head: head.method == Method::Head,
            keep_alive: head.keep_alive,
            ..Exchange::new(head.version)
        };
        (exchange, refusal)
    }

    #[inline(always)]
    fn call(&mut self, request: Request, exchange: Exchange, env: &mut Env<'_>) {
        let (head, len) = request.line();
        env.figures.black_box.begin(head, len, env.nanos);
        let progress = env.service.call(request, &mut Context::from_waker(env.waker));
        env.figures.black_box.pause();
        self.follow(progress, exchange, env);
    }

    #[inline(always)]
    fn follow(&mut self, progress: Progress, exchange: Exchange, env: &mut Env<'_>) {
        if interim::is_pending() {
            self.output.head(env.pools).extend_from_slice(&interim::take());
        }
        match progress {
            Progress::Answered(mut request) => {
                let response = request.take_response().expect("laid in by the service");
                if matches!(response.body.0, Kind::Switch(_)) {
                    return self.begin_tunnel(request, response, exchange, env);
                }
                env.pools.requests.give_back(request);
                self.answer(response, exchange, env);
            }
            Progress::Responded(response) => self.answer(*response, exchange, env),
            Progress::Panicked => {
                env.figures.on_fault(Fault::Panicked);
                self.answer(Response::plain(Status::INTERNAL_SERVER_ERROR), exchange, env);
            }
            Progress::Waiting(task) => {
                self.park(env);
                self.phase = Phase::Handling { task, exchange };
                self.phase_deadline = self.patience(env);
            }
        }
    }

    #[inline(always)]
    fn answer(&mut self, response: Response, mut exchange: Exchange, env: &mut Env<'_>) {
        exchange.keep_alive &= env.draining != Draining::Closing && self.may_go_on(env);
        if exchange.is_uploading {
            exchange.keep_alive &= self.may_outlive_upload(&response, env);
        }
        match self.write(response, &mut exchange, env) {
            None => self.finish_exchange(exchange, env),
            Some(download) => {
                self.park(env);
                self.phase = Phase::Streaming { download, exchange };
                self.phase_deadline = self.patience(env);
                self.pump(env);
            }
        }
    }

    /// How long a handler or a stream may wait. That is its own business, unless the peer has
    /// closed its side: most of those that do are gone, and nothing else will tell.
    fn patience(&self, env: &Env<'_>) -> Option<Instant> {
        let idle = match &self.phase {
            Phase::Streaming { download, .. } if !self.peer_ended => download.idle(),
            _ => None,
        };
        let time = if self.peer_ended { Some(env.settings.write_timeout) } else { idle };
        time.map(|time| env.now + time)
    }

    /// A stream has had nothing to send for so long that its peer may wonder.
    fn show_life(&mut self, env: &mut Env<'_>) {
        if let Phase::Streaming { download, .. } = &mut self.phase {
            download.write_idle(&mut self.output, env);
        }
        self.phase_deadline = self.patience(env);
    }

    /// Moves what the response's stream has into the output, as far as there is room.
    fn pump(&mut self, env: &mut Env<'_>) {
        let Phase::Streaming { download, exchange } = &mut self.phase else { return };
        let exchange = *exchange;
        env.figures.black_box.resume(self.parked);
        let pumped = download.pump(&mut self.output, env);
        if let Some(record) = &mut self.record {
            record.on_body(download.sent());
        }
        env.figures.black_box.pause();
        match pumped {
            Pumped::Waiting => {
                if !self.waits_for_upload() {
                    self.phase_deadline = self.patience(env);
                }
            }
            Pumped::Finished => self.finish_exchange(exchange, env),
            // What was promised can't be kept. Where the framing shows that, an end tells the peer.
            Pumped::Failed => {
                let ending = if download.is_delimited() { Ending::Close } else { Ending::Abort };
                env.figures.on_fault(Fault::CutOff);
                self.begin_close(ending);
            }
        }
    }

    /// The request whose handler was called last, or is polled again, is one that waits.
    fn park(&mut self, env: &Env<'_>) {
        if !self.parked.is_some() {
            self.parked = env.figures.black_box.park();
        }
    }

    #[inline(always)]
    fn finish_exchange(&mut self, exchange: Exchange, env: &mut Env<'_>) {
        self.output.end_response();
        if let Some(record) = &mut self.record {
            record.end(env);
        }
        if self.parked.is_some() {
            env.figures.black_box.release(mem::replace(&mut self.parked, Parked::NONE));
        }
        if exchange.is_uploading && self.upload.is_some() {
            self.finish_upload(exchange, env);
        } else if exchange.keep_alive {
            self.is_proven = true;
            if !matches!(self.phase, Phase::Idle) {
                self.phase = Phase::Idle;
            }
        } else {
            // A client that is told to go may have sent more before it hears of it.
            let is_told_to = env.draining == Draining::Closing || !self.may_go_on(env);
            self.begin_close(if is_told_to { Ending::Linger } else { Ending::Close });
        }
    }

    /// Answers what can't be a request of ours, and closes: what follows it has no known begin.
    fn refuse(&mut self, status: Status, fault: Fault, is_head: bool, env: &mut Env<'_>) {
        env.figures.on_fault(fault);
        if matches!(self.phase, Phase::Head | Phase::Idle) {
            self.output.begin_response(env.nanos);
        }
        let mut exchange = Exchange { is_head, ..Exchange::new(Version::Http11) };
        self.write(refusal(status, fault), &mut exchange, env);
        self.output.end_response();
        if let Some(record) = &mut self.record {
            record.end(env);
        }
        self.begin_close(Ending::Linger);
    }

    fn begin_close(&mut self, ending: Ending) {
        self.phase = Phase::Closing(ending);
        self.phase_deadline = None;
        self.drop_upload();
    }
}

/// Whether what can't be understood began as a request for a head alone.
fn is_head(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}
