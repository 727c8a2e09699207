//! A connection that has changed to another protocol: bytes both ways, until whoever has accepted that
//! is done. Knows no protocol.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

use super::{Connection, Ending, Env, Exchange, Phase};
use crate::app::guarded;
use crate::figures::Fault;
use crate::http::body::Kind;
use crate::http::{Pipe, Request, Response, Status};
use crate::proto::h1::CONNECTION_UPGRADE;

/// What is served instead of requests.
pub(super) struct Tunnel {
    /// There until it is dropped.
    task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    pipe: Rc<Pipe>,
    /// The connection's, always the same, so that the pipe knows it.
    waker: Waker,
    /// The peer was told that nothing more will come.
    has_shut: bool,
    /// When something went either way.
    active_at: Instant,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let task = self.task.take();
        guarded("dropping an upgraded connection's future", || drop(task));
        self.pipe.close();
    }
}

impl Tunnel {
    pub(super) fn wants_input(&self) -> bool {
        self.pipe.has_room()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.pipe.held_bytes()
    }

    /// Whether the peer is to be told that nothing more will come. True once.
    pub(super) fn poll_shutdown(&mut self) -> bool {
        !self.has_shut && self.pipe.is_shut() && {
            self.has_shut = !self.pipe.has_written();
            self.has_shut
        }
    }
}

impl Connection {
    /// Answers with a change of the protocol, if that is still possible.
    #[cold]
    pub(super) fn begin_tunnel(
        &mut self,
        request: Request,
        mut response: Response,
        mut exchange: Exchange,
        env: &mut Env<'_>,
    ) {
        let Kind::Switch(switch) = mem::take(&mut response.body).0 else {
            unreachable!("looked at by the caller");
        };
        let is_offered = request.head().upgrade;
        env.pools.requests.give_back(request);
        let reason = if !is_offered {
            "its request offers none"
        } else if response.status() != Status::SWITCHING_PROTOCOLS {
            "its response has another status"
        } else if self.upload.is_some() {
            "the body of its request isn't read to its end"
        } else if !response.has_valid_fields() {
            "a field of its response has an invalid name or value"
        } else {
            ""
        };
        if !reason.is_empty() {
            log::error!("an upgrade can't be accepted: {reason}");
            guarded("dropping an upgrade", || drop(switch));
            let response = Response::plain(Status::INTERNAL_SERVER_ERROR);
            return self.answer(response, exchange, env);
        }
        exchange.keep_alive = true; // what `Connection: close` would be about is over
        let fields = match &mut self.record {
            Some(record) => &mut record.fields,
            None => &mut env.guard.fields,
        };
        fields.extend_from_slice(CONNECTION_UPGRADE);
        self.write(response, &mut exchange, env);
        env.guard.fields.clear();
        self.finish_exchange(exchange, env);
        let waker = env.waker.clone();
        switch.pipe.attach(waker.clone(), env.settings.idle_timeout);
        if env.is_leaving() {
            switch.pipe.stop();
        }
        let (task, pipe) = (Some(switch.task), switch.pipe);
        let tunnel = Tunnel { task, pipe, waker, has_shut: false, active_at: env.now };
        self.phase = Phase::Tunnel(Box::new(tunnel));
        self.drive_tunnel(env);
    }

    /// Hands over what has arrived.
    #[cold]
    pub(super) fn receive_tunnel(&mut self, bytes: &[u8], env: &mut Env<'_>) {
        let Phase::Tunnel(tunnel) = &mut self.phase else { return };
        if !bytes.is_empty() {
            tunnel.active_at = env.now;
            tunnel.pipe.feed(bytes);
        }
        if self.peer_ended {
            tunnel.pipe.end();
        }
        self.drive_tunnel(env);
    }

    /// What was written has been sent.
    #[cold]
    pub(super) fn on_tunnel_sent(&mut self, env: &mut Env<'_>) {
        let Phase::Tunnel(tunnel) = &mut self.phase else { return };
        tunnel.active_at = env.now;
        tunnel.pipe.on_sent();
        self.drive_tunnel(env);
    }

    /// The worker is about to leave, whoever takes over what idles.
    pub(crate) fn handle_leaving(&mut self, env: &mut Env<'_>) {
        let Phase::Tunnel(tunnel) = &mut self.phase else { return };
        tunnel.pipe.stop();
        self.drive_tunnel(env);
    }

    /// Polls who has the stream, and takes what it wrote.
    #[cold]
    pub(super) fn drive_tunnel(&mut self, env: &mut Env<'_>) {
        let Phase::Tunnel(tunnel) = &mut self.phase else { return };
        loop {
            let task = tunnel.task.as_mut().expect("there until it is dropped");
            tunnel.pipe.set_attended(true);
            let mut context = Context::from_waker(&tunnel.waker);
            let polled = guarded("an upgraded connection", || task.as_mut().poll(&mut context));
            tunnel.pipe.set_attended(false);
            let Some(polled) = polled else {
                env.figures.on_fault(Fault::Panicked);
                return self.begin_close(Ending::Abort);
            };
            if polled.is_ready() {
                tunnel.pipe.take_written(self.output.head(env.pools));
                return self.begin_close(Ending::Linger);
            }
            let may_write = self.output.is_free();
            if !may_write || !tunnel.pipe.take_written(self.output.head(env.pools)) {
                break;
            }
        }
        let idle = tunnel.pipe.idle_timeout();
        self.phase_deadline = idle.map(|idle| tunnel.active_at + idle);
    }
}
