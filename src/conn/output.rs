//! What waits to be sent, and that one send at a time is in flight. Knows no HTTP.

use std::mem;

use bytes::Bytes;

use super::Pools;

/// Written bytes that may wait before no further request is begun.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most of a shared body that one send takes, so that the write timeout sees progress: with
/// 30 s, a peer has to read 9 KB/s.
const BODY_BYTES_PER_SEND: usize = 256 * 1024;

/// Bytes for one send: written ones, then shared ones.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
}

/// Responses on their way out, in order. Small ones gather in `head` while a send is in flight.
#[derive(Default, Debug)]
pub(super) struct Output {
    head: Vec<u8>,
    /// Follows `head`; nothing can be written behind it until it has been given out.
    body: Bytes,
    /// Follows `body`: what ends a chunk.
    after_body: Option<&'static [u8; 2]>,
    in_flight: bool,
}

impl Output {
    /// Where the next bytes are written.
    pub(super) fn head(&mut self, pools: &mut Pools) -> &mut Vec<u8> {
        assert!(self.body.is_empty(), "a body is still to come before this");
        if self.head.capacity() == 0 {
            self.head = pools.take_buffer();
        }
        &mut self.head
    }

    /// Lets shared bytes follow what was written, and `after` them.
    pub(super) fn set_body(&mut self, body: Bytes, after: Option<&'static [u8; 2]>) {
        assert!(self.body.is_empty(), "one body at a time");
        self.body = body;
        self.after_body = after;
    }

    /// Whether anything more has to wait until some of it is sent.
    pub(super) fn is_full(&self) -> bool {
        !self.body.is_empty() || self.head.len() >= HEAD_BYTES_MAX
    }

    /// Whether something waits or is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight || !self.head.is_empty() || !self.body.is_empty()
    }

    /// Gives out what waits, unless a send is in flight.
    pub(super) fn poll(&mut self, pools: &mut Pools) -> Option<Outgoing> {
        if self.in_flight || (self.head.is_empty() && self.body.is_empty()) {
            return None;
        }
        self.in_flight = true;
        let head = mem::take(&mut self.head);
        let body = self.body.split_to(self.body.len().min(BODY_BYTES_PER_SEND));
        if self.body.is_empty()
            && let Some(after) = self.after_body.take()
        {
            self.head(pools).extend_from_slice(after);
        }
        Some(Outgoing { head, body })
    }

    /// The send is over.
    pub(super) fn finish(&mut self) {
        assert!(self.in_flight, "nothing was in flight");
        self.in_flight = false;
    }
}
