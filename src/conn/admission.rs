//! What a request has to pass before its handler is called, and a connection before its first
//! request: the PROXY header, the client's quota, the worker's memory, the connection's own share.

use std::mem;
use std::time::{Duration, Instant};

use super::download::Download;
use super::{Connection, Ending, Env, Exchange, Phase, Record, respond};
use crate::figures::{Fault, Parked};
use crate::guard::Answered;
use crate::http::{Request, Response, Status, household};
use crate::proto::h1::Version;
use crate::proto::proxy::{ProxyHeader, parse_proxy_header};

/// In seconds: when somebody may come back who was refused because memory was short.
const RETRY_AFTER: &str = "1";

impl Exchange {
    /// The last one of its connection, so far.
    pub(super) fn new(version: Version) -> Exchange {
        Exchange { version, is_head: false, keep_alive: false, is_uploading: false }
    }
}

impl Connection {
    /// Keeps a record of it from here on.
    pub(crate) fn set_record(&mut self, record: Box<Record>) {
        let is_new = matches!(self.phase, Phase::Idle) && !self.is_proven;
        if is_new && record.client.speaks_proxy() {
            self.phase = Phase::Proxy;
        }
        self.record = Some(record);
    }

    /// Since when nothing has happened, if it could be closed for somebody else's sake: it is
    /// between two requests, or has sent nothing so far.
    pub(crate) fn idle_since(
        &self,
        head_timeout: Duration,
        idle_timeout: Duration,
    ) -> Option<Instant> {
        let is_idle = matches!(self.phase, Phase::Idle | Phase::Proxy)
            && self.input.is_empty()
            && !self.output.is_busy();
        let timeout =
            if self.requests == 0 && !self.is_proven { head_timeout } else { idle_timeout };
        self.phase_deadline.filter(|_| is_idle)?.checked_sub(timeout)
    }

    /// Ends it, for the sake of another one.
    pub(crate) fn make_room(&mut self, env: &Env<'_>) {
        self.give_up(Fault::MadeRoom, env);
    }

    /// The client that it counts for, once that is known; none for those who speak for others.
    pub(crate) fn client_to_count(&self) -> Option<u64> {
        let client = &self.record.as_ref()?.client;
        let is_known = !matches!(self.phase, Phase::Proxy) && !client.is_trusted();
        if is_known { household(client.source()) } else { None }
    }

    /// Ends it, as its client has enough of them.
    pub(crate) fn turn_client_away(&mut self, env: &Env<'_>) {
        self.give_up(Fault::TooManyConnections, env);
    }

    /// Bytes of memory that it holds beyond itself.
    #[inline]
    pub(crate) fn held_bytes(&self) -> u32 {
        let mut bytes = self.input.capacity() + self.output.held_bytes();
        if let Some(upload) = &self.upload {
            bytes += upload.held_bytes();
        }
        if let Phase::Tunnel(tunnel) = &self.phase {
            bytes += tunnel.held_bytes();
        }
        if let Some(record) = &self.record {
            bytes += record.held_bytes();
        }
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// Takes the header that a trusted proxy begins with; returns its length, `None` while there is
    /// no more to take.
    pub(super) fn receive_proxy_header(&mut self, bytes: &[u8], env: &Env<'_>) -> Option<usize> {
        match parse_proxy_header(bytes) {
            Ok(None) => None,
            Ok(Some((header, len))) => {
                if let (ProxyHeader::Proxied(route), Some(record)) = (header, &mut self.record) {
                    record.client = record.client.on_behalf_of(route).into();
                }
                self.phase = Phase::Idle;
                Some(len)
            }
            Err(error) => {
                // No answer: it may not even be HTTP that was meant to follow.
                log::debug!("refused a connection of a trusted proxy's: {error}");
                self.give_up(Fault::Malformed, env);
                Some(bytes.len())
            }
        }
    }

    /// Whether a request has to be refused, with which status and as what. Prepares what its
    /// response tells of it.
    #[inline(always)]
    pub(super) fn admit(
        &mut self,
        request: &mut Request,
        env: &mut Env<'_>,
    ) -> Option<(Status, Fault)> {
        let refusal = if self.record.is_some() { self.admit_client(request, env) } else { None };
        if refusal.is_none() && env.guard.memory.is_short() {
            return Some((Status::SERVICE_UNAVAILABLE, Fault::OutOfMemory));
        }
        refusal
    }

    fn admit_client(
        &mut self,
        request: &mut Request,
        env: &mut Env<'_>,
    ) -> Option<(Status, Fault)> {
        let record = self.record.as_mut().expect("just seen");
        request.set_client(record.client.clone());
        record.request_deadline = env.settings.request_timeout.map(|timeout| env.now + timeout);
        record.begin(Some(request), env);
        if env.settings.has_request_id || env.guard.rate.is_some() {
            record.fields = env.pools.take_buffer();
        }
        if env.settings.has_request_id {
            record.fields.extend_from_slice(b"X-Request-Id: ");
            request.id().write_to(&mut record.fields);
            record.fields.extend_from_slice(b"\r\n");
        }
        let rate = env.guard.rate.as_ref()?;
        // Who has no address comes by a Unix socket, which has its own guard.
        let client = household(request.client_address())?;
        let verdict = rate.table.ask(&rate.quota, client, env.nanos);
        if rate.has_headers || !verdict.is_allowed {
            rate.write_fields(&verdict, env.date.unix_seconds(), &mut record.fields);
        }
        (!verdict.is_allowed).then_some((Status::TOO_MANY_REQUESTS, Fault::RateLimited))
    }

    /// Something has come that is no request.
    pub(super) fn note_rubbish(&mut self, env: &mut Env<'_>) {
        if let Some(record) = &mut self.record {
            record.begin(None, env);
        }
    }

    /// Answers a request without its handler. The connection may go on, unless a body follows.
    #[cold]
    pub(super) fn turn_away(
        &mut self,
        request: Request,
        status: Status,
        fault: Fault,
        exchange: Exchange,
        env: &mut Env<'_>,
    ) {
        if request.head().framing.has_body() {
            return self.refuse(status, fault, exchange.is_head, env);
        }
        env.pools.requests.give_back(request);
        env.figures.on_fault(fault);
        self.answer(refusal(status, fault), exchange, env);
    }

    /// Writes a response, with the fields that were prepared for it.
    #[inline(always)]
    pub(super) fn write(
        &mut self,
        response: Response,
        exchange: &mut Exchange,
        env: &mut Env<'_>,
    ) -> Option<Box<Download>> {
        if self.record.is_none() {
            return respond::write(response, exchange, &mut self.output, env);
        }
        self.write_with_fields(response, exchange, env)
    }

    #[inline(never)]
    fn write_with_fields(
        &mut self,
        response: Response,
        exchange: &mut Exchange,
        env: &mut Env<'_>,
    ) -> Option<Box<Download>> {
        if let Some(record) = &mut self.record {
            mem::swap(&mut record.fields, &mut env.guard.fields);
            record.request_deadline = None;
        }
        let download = respond::write(response, exchange, &mut self.output, env);
        env.guard.fields.clear();
        if let Some(record) = &mut self.record {
            env.pools.give_back_buffer(mem::take(&mut env.guard.fields));
            let Answered { status, body_bytes } = env.guard.answered;
            record.on_head(status, body_bytes);
        }
        download
    }

    /// Whether the connection may bring another request.
    #[inline(always)]
    pub(super) fn may_go_on(&self, env: &Env<'_>) -> bool {
        let retire_at = self.record.as_ref().and_then(|record| record.retire_at);
        self.requests < env.settings.requests_per_connection
            && retire_at.is_none_or(|at| env.now < at)
    }

    /// When the handler that waits has taken too long.
    pub(super) fn request_deadline(&self) -> Option<Instant> {
        let deadline = self.record.as_ref()?.request_deadline?;
        matches!(self.phase, Phase::Handling { .. }).then_some(deadline)
    }

    /// The handler has taken too long: drops it, and answers for it.
    #[cold]
    pub(super) fn give_up_on_handler(&mut self, env: &mut Env<'_>) {
        let Phase::Handling { task, exchange } = mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        drop(task);
        env.figures.on_fault(Fault::RequestTimeout);
        env.figures.black_box.release(mem::replace(&mut self.parked, Parked::NONE));
        let mut exchange = Exchange { keep_alive: false, ..exchange };
        self.write(Response::plain(Status::SERVICE_UNAVAILABLE), &mut exchange, env);
        self.output.end_response();
        if let Some(record) = &mut self.record {
            record.end(env);
        }
        self.begin_close(Ending::Linger);
    }
}

/// What a client is told that is turned away.
#[cold]
pub(super) fn refusal(status: Status, fault: Fault) -> Response {
    let response = Response::plain(status);
    match fault {
        Fault::OutOfMemory => response.with_header("Retry-After", RETRY_AFTER),
        _ => response,
    }
}
