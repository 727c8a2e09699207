//! What is kept of a connection beyond serving it, where anything asks for that: whose it is, and its
//! lines for the access log until their responses are sent. An idle one holds no buffer.

use std::mem;
use std::rc::Rc;
use std::time::Instant;

use super::{Env, Pools};
use crate::guard::{Line, RequestPart};
use crate::http::{Client, Request};
use crate::proto::h1::Version;

/// What a line says when its client went before there was a status; as nginx has it.
const CLIENT_GONE: u16 = 499;

/// A connection's record.
pub(crate) struct Record {
    pub(super) client: Rc<Client>,
    /// When the next answer is to be the last, whatever the client wants.
    pub(super) retire_at: Option<Instant>,
    /// When the handler that waits has taken too long.
    pub(super) request_deadline: Option<Instant>,
    /// Field lines for the response that is to come.
    pub(super) fields: Vec<u8>,
    /// The line of the request that has come last, up to its status.
    draft: Vec<u8>,
    /// When that one came, if its response isn't written yet.
    began: Option<u64>,
    /// Of the response, once its head is written.
    status: Option<u16>,
    body_bytes: u64,
    /// Lines whose responses wait to be sent, each behind an [`Header`].
    lines: Vec<u8>,
}

/// How the parts of `lines` begin: when the request came, and bytes of the line.
type Header = [u8; 10];

impl Record {
    pub(crate) fn new(client: Client, retire_at: Option<Instant>) -> Box<Record> {
        Box::new(Record {
            client: Rc::new(client),
            retire_at,
            request_deadline: None,
            fields: Vec::new(),
            draft: Vec::new(),
            began: None,
            status: None,
            body_bytes: 0,
            lines: Vec::new(),
        })
    }

    /// A request has come; `None`: something that is none.
    pub(super) fn begin(&mut self, request: Option<&Request>, env: &mut Env<'_>) {
        let Some(lines) = &env.guard.lines else { return };
        if self.draft.capacity() == 0 {
            self.draft = env.pools.take_buffer();
        }
        self.draft.clear();
        self.began = Some(env.nanos);
        (self.status, self.body_bytes) = (None, 0);
        let client = match request {
            Some(request) => request.client_address(),
            None => self.client.source(),
        };
        let part = request.map(|request| RequestPart {
            method: request.method_text(),
            target: request.target(),
            version: match request.version() {
                Version::Http10 => "1.0",
                Version::Http11 => "1.1",
            },
            host: request.host(),
            referer: request.raw_header(b"referer").filter(|it| !it.is_empty()),
            user_agent: request.raw_header(b"user-agent").filter(|it| !it.is_empty()),
            id: request.id(),
        });
        lines.begin(&Line { client, request: part }, &mut self.draft);
    }

    /// The head of the response is written.
    pub(super) fn on_head(&mut self, status: u16, body_bytes: u64) {
        (self.status, self.body_bytes) = (Some(status), body_bytes);
    }

    /// So much of a streamed body is written.
    pub(super) fn on_body(&mut self, body_bytes: u64) {
        self.body_bytes = body_bytes;
    }

    /// The response is written: once it is sent, its line may go.
    pub(super) fn end(&mut self, env: &mut Env<'_>) {
        let Some(lines) = &env.guard.lines else { return };
        let began = self.began.take().unwrap_or(env.nanos);
        if self.lines.capacity() == 0 {
            self.lines = env.pools.take_buffer();
        }
        let at = self.lines.len();
        self.lines.extend_from_slice(&Header::default());
        let status = self.status.unwrap_or(CLIENT_GONE);
        lines.middle(&self.draft, status, self.body_bytes, &mut self.lines);
        let len = self.lines.len() - at - size_of::<Header>();
        self.lines[at..at + 8].copy_from_slice(&began.to_ne_bytes());
        self.lines[at + 8..at + size_of::<Header>()].copy_from_slice(&(len as u16).to_ne_bytes());
        give_back(&mut self.draft, env.pools);
    }

    /// The first `responses` of those that wait are sent.
    pub(super) fn on_sent(&mut self, responses: u64, env: &mut Env<'_>) {
        self.finish(responses, true, env);
    }

    /// The connection is over: what isn't sent won't be.
    pub(super) fn close(&mut self, env: &mut Env<'_>) {
        if self.began.is_some() {
            self.end(env);
        }
        self.finish(u64::MAX, false, env);
    }

    fn finish(&mut self, count: u64, is_complete: bool, env: &mut Env<'_>) {
        let Some(lines) = &mut env.guard.lines else { return };
        let mut at = 0;
        for _ in 0..count {
            let Some((header, rest)) = self.lines[at..].split_first_chunk::<8>() else { break };
            let (len, rest) = rest.split_first_chunk::<2>().expect("a header is written whole");
            let len = usize::from(u16::from_ne_bytes(*len));
            let nanos = env.nanos.saturating_sub(u64::from_ne_bytes(*header));
            lines.end(&rest[..len], nanos, is_complete);
            at += size_of::<Header>() + len;
        }
        if at == self.lines.len() {
            give_back(&mut self.lines, env.pools);
        } else {
            self.lines.drain(..at);
        }
    }

    /// Bytes that it holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.fields.capacity() + self.draft.capacity() + self.lines.capacity()
    }
}

fn give_back(buffer: &mut Vec<u8>, pools: &mut Pools) {
    if buffer.capacity() > 0 {
        pools.give_back_buffer(mem::take(buffer));
    }
}
