//! The input side of a connection while a request is handled: its body, as far as the handler asks
//! for it. Decodes nothing itself.

use std::rc::Rc;

use super::{Connection, Ending, Env, Exchange, Phase};
use crate::figures::Fault;
use crate::http::body::Kind;
use crate::http::{BodyError, Inlet, Request, Response, Status};
use crate::proto::h1::{CONTINUE, Framing, Method};

/// What is left of a body that nobody wants is received up to this length, so that the connection
/// can go on: less than the handshakes of a new one would cost. Beyond it, the connection closes.
const DISCARDED_BYTES_MAX: u64 = 64 * 1024;

impl Connection {
    /// Calls the handler of a request with a body, of which `rest` may hold the begin; returns how
    /// much of that is the body's.
    #[cold]
    pub(super) fn begin_upload(
        &mut self,
        mut request: Request,
        rest: &[u8],
        env: &mut Env<'_>,
    ) -> usize {
        let (mut exchange, refusal) = self.begin_exchange(&mut request, env);
        if let Some((status, fault)) = refusal {
            self.turn_away(request, status, fault, exchange, env);
            return 0;
        }
        let head = request.head();
        if matches!(head.method, Method::Connect | Method::Trace) {
            self.refuse(Status::NOT_IMPLEMENTED, Fault::Malformed, false, env);
            return 0;
        }
        if let Framing::Length(length) = head.framing
            && length > env.settings.body.bytes_max
        {
            self.refuse(Status::CONTENT_TOO_LARGE, Fault::TooLarge, exchange.is_head, env);
            return 0;
        }
        let inlet = Inlet::new(head.framing, env.settings.body, head.expect_continue);
        let used = match inlet.feed(rest) {
            Ok(used) => used,
            Err(error) => {
                self.refuse(error.status(), fault_of(&error), exchange.is_head, env);
                return 0;
            }
        };
        if inlet.is_open() {
            if self.peer_ended {
                self.begin_close(Ending::Close); // it will never be whole
                return used;
            }
            self.is_proven = true;
            exchange.is_uploading = true;
            inlet.attach(env.waker.clone());
            self.upload = Some(Rc::clone(&inlet));
        }
        request.set_inlet(inlet);
        self.attend_upload();
        self.call(request, exchange, env);
        self.follow_upload(env);
        used
    }

    /// Whoever may ask for more of the body is about to be polled; [`follow_upload`] afterwards.
    ///
    /// [`follow_upload`]: Connection::follow_upload
    #[cold]
    pub(super) fn attend_upload(&self) {
        if let Some(upload) = &self.upload {
            upload.set_attended(true);
        }
    }

    /// Does what the handler asked for while it was polled.
    #[cold]
    pub(super) fn follow_upload(&mut self, env: &mut Env<'_>) {
        let Some(upload) = &self.upload else { return };
        upload.set_attended(false);
        if !upload.is_open() {
            return;
        }
        match self.phase {
            // Behind the begin of the final response it would be too late for an interim one.
            Phase::Handling { .. } if upload.take_continue() => {
                self.output.head(env.pools).extend_from_slice(CONTINUE);
            }
            Phase::Handling { .. } | Phase::Streaming { .. } => {}
            _ => return,
        }
        let deadline = || env.now + env.settings.body_timeout;
        self.phase_deadline =
            upload.is_wanted().then(|| self.phase_deadline.unwrap_or_else(deadline));
    }

    /// Takes what belongs to the body of the request that is being handled; returns how much of
    /// `bytes` that is.
    #[cold]
    pub(super) fn receive_upload(&mut self, bytes: &[u8], env: &Env<'_>) -> usize {
        let Some(upload) = &self.upload else { return 0 };
        if !upload.is_open() || bytes.is_empty() {
            return bytes.len(); // what follows a broken body has no meaning
        }
        match upload.feed(bytes) {
            Ok(used) if upload.is_ended() => {
                self.upload = None;
                self.phase_deadline = self.patience(env);
                used
            }
            Ok(used) => {
                let is_wanted = upload.is_wanted();
                // What is left of the time, and what these bytes have earned.
                let body_timeout = env.settings.body_timeout;
                let left = self.phase_deadline.map_or(body_timeout, |at| at - env.now);
                let time = left.saturating_add(env.settings.time_for_received(used));
                self.phase_deadline = is_wanted.then(|| env.now + time.min(body_timeout));
                used
            }
            Err(error) => {
                self.fail_upload(error, env);
                bytes.len()
            }
        }
    }

    /// Whether the time that passes is that of the peer, which has to send more of the body.
    pub(super) fn waits_for_upload(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.is_wanted())
    }

    /// Tells the handler that it won't have the body.
    #[cold]
    pub(super) fn fail_upload(&mut self, error: BodyError, env: &Env<'_>) {
        let Some(upload) = &self.upload else { return };
        env.figures.on_fault(fault_of(&error));
        upload.fail(error);
        self.phase_deadline = self.patience(env);
    }

    /// Whether the connection can go on behind this response, although its request's body hasn't
    /// come to its end.
    #[cold]
    pub(super) fn may_outlive_upload(&mut self, response: &Response, env: &mut Env<'_>) -> bool {
        let Some(upload) = &self.upload else { return true };
        let is_held = Rc::strong_count(upload) > 1;
        if is_held && matches!(response.body.0, Kind::Stream { .. }) {
            // What the response is made of is still to be sent by the client.
            if upload.is_open() && upload.take_early_continue() {
                self.output.head(env.pools).extend_from_slice(CONTINUE);
            }
            return upload.is_open();
        }
        upload.is_short(DISCARDED_BYTES_MAX)
    }

    /// The response is written, and the body hasn't come to its end.
    #[cold]
    pub(super) fn finish_upload(&mut self, exchange: Exchange, env: &Env<'_>) {
        let Some(upload) = &self.upload else { return };
        if exchange.keep_alive && upload.is_short(DISCARDED_BYTES_MAX) {
            upload.abandon(DISCARDED_BYTES_MAX);
            self.phase = Phase::Discarding;
            self.phase_deadline = Some(env.now + env.settings.body_timeout);
        } else {
            self.begin_close(Ending::Linger);
        }
    }

    /// Throws away what belongs to the body of a request that is over; returns how much of `bytes`
    /// that is.
    #[cold]
    pub(super) fn discard_upload(&mut self, bytes: &[u8], env: &Env<'_>) -> usize {
        let upload = self.upload.as_ref().expect("there until its end");
        match upload.feed(bytes) {
            Ok(used) => {
                if upload.is_ended() {
                    self.upload = None;
                    self.phase = Phase::Idle;
                    self.phase_deadline = Some(env.now + env.idle_timeout());
                }
                used
            }
            Err(error) => {
                env.figures.on_fault(fault_of(&error));
                self.begin_close(Ending::Linger);
                bytes.len()
            }
        }
    }

    /// Whoever still waits for the body waits in vain.
    pub(super) fn drop_upload(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.fail(BodyError::CutOff);
        }
    }
}

fn fault_of(error: &BodyError) -> Fault {
    match error {
        BodyError::TooLarge => Fault::TooLarge,
        BodyError::TimedOut => Fault::BodyTimeout,
        _ => Fault::Malformed,
    }
}
