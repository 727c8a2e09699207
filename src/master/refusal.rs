//! Clients that no worker has room for: each gets a real answer before its connection ends. Knows
//! no workers.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use uring_ring::{Errno, Op, Ring};

use super::Tag;

/// What they hear. Whoever comes back after a second finds what has happened meanwhile.
const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 20\r\n\
    Retry-After: 1\r\n\
    Connection: close\r\n\
    \r\n\
    Service Unavailable\n";

/// How long a refused client is read from before its connection is closed for good: what arrives
/// after close(2) resets the connection, and the reset may overtake the answer.
const LINGER: Duration = Duration::from_secs(1);

/// Requests are read in pieces of this size, and thrown away.
const PIECE_BYTES: usize = 2048;

/// Clients on their way out.
#[derive(Default)]
pub(super) struct Refusals {
    clients: BTreeMap<u64, Client>,
    last: u64,
}

struct Client {
    socket: OwnedFd,
    until: Instant,
}

impl Refusals {
    /// Answers a client, and begins to end its connection.
    pub(super) fn begin(&mut self, socket: OwnedFd, now: Instant, ring: &mut Ring<Tag>) {
        self.last += 1;
        let op = Op::Send { fd: socket.as_raw_fd(), buffer: ANSWER.to_vec().into() };
        ring.push(op, Tag::RefusalSent(self.last));
        self.clients.insert(self.last, Client { socket, until: now + LINGER });
    }

    pub(super) fn on_sent(&mut self, id: u64, result: Result<usize, Errno>, ring: &mut Ring<Tag>) {
        let Some(client) = self.clients.get(&id) else { return };
        if result.is_err() {
            return self.close(id, ring);
        }
        // Fails when the client has gone, which the next read tells as well.
        let _ = ring.shutdown(client.socket.as_fd(), Shutdown::Write);
        self.read(id, ring);
    }

    pub(super) fn on_read(&mut self, id: u64, result: Result<usize, Errno>, ring: &mut Ring<Tag>) {
        match result {
            Ok(1..) => self.read(id, ring),
            Ok(0) | Err(_) => self.close(id, ring),
        }
    }

    /// Closes those who have had their time.
    pub(super) fn handle_timeout(&mut self, now: Instant, ring: &mut Ring<Tag>) {
        while let Some((id, _)) = self.clients.first_key_value().filter(|(_, c)| c.until <= now) {
            self.close(*id, ring);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.clients.first_key_value().map(|(_, client)| client.until)
    }

    /// Clients whose connections have not ended yet.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    fn read(&self, id: u64, ring: &mut Ring<Tag>) {
        let Some(client) = self.clients.get(&id) else { return };
        let buffer = Vec::with_capacity(PIECE_BYTES);
        ring.push(Op::Read { fd: client.socket.as_raw_fd(), buffer }, Tag::RefusalRead(id));
    }

    fn close(&mut self, id: u64, ring: &mut Ring<Tag>) {
        if let Some(Client { socket, .. }) = self.clients.remove(&id) {
            ring.push(Op::Close { fd: socket, cancel: true }, Tag::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ANSWER;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
