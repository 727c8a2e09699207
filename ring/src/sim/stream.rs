//! A simulated TCP connection, both ends of it and the wire between them. Knows no operations
//! and no chance: it is told how much arrives.

use std::collections::VecDeque;
use std::mem;
use std::net::Shutdown;

use crate::errno::Errno;

/// What a client takes in before it reads. A real path has the sender's buffer, too.
pub(super) const WINDOW_BYTES: usize = 256 * 1024;

/// What a receive would find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    Nothing,
    Bytes,
    End,
    Error(Errno),
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "two independent ends, each with two halves")]
pub(super) struct Stream {
    /// Written by the client, not yet arrived; then perhaps the end (FIN).
    wire: VecDeque<u8>,
    wire_ends: bool,
    /// The answer (RST) to bytes that reached a closed client is on its way.
    wire_resets: bool,

    /// Arrived at the server, not yet received; then perhaps the end.
    arrived: VecDeque<u8>,
    ended: bool,
    /// What broke the connection, until an operation has been told of it.
    error: Option<Errno>,
    dead: bool,
    read_shut: bool,
    write_shut: bool,
    /// The server has no descriptor and no operation of it any more.
    released: bool,

    /// Sent by the server, not yet read by the client.
    inbox: Vec<u8>,
    window: usize,
    client_closed: bool,
    saw_end: bool,
    saw_reset: bool,
}

impl Default for Stream {
    fn default() -> Stream {
        Stream {
            wire: VecDeque::new(),
            wire_ends: false,
            wire_resets: false,
            arrived: VecDeque::new(),
            ended: false,
            error: None,
            dead: false,
            read_shut: false,
            write_shut: false,
            released: false,
            inbox: Vec::new(),
            window: WINDOW_BYTES,
            client_closed: false,
            saw_end: false,
            saw_reset: false,
        }
    }
}

/// The client's end.
impl Stream {
    pub(super) fn client_writes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.client_closed || self.saw_reset || self.wire_ends {
        } else if self.released {
            self.reset_client(); // nobody is there any more: TCP answers with a reset
        } else {
            self.wire.extend(bytes);
        }
    }

    pub(super) fn client_reads(&mut self) -> Vec<u8> {
        mem::take(&mut self.inbox)
    }

    pub(super) fn client_shuts_write(&mut self) {
        self.wire_ends = true;
    }

    /// Closing with bytes unread is a reset, as TCP has it.
    pub(super) fn client_closes(&mut self) {
        if self.client_closed {
        } else if self.inbox.is_empty() {
            self.client_closed = true;
            self.wire_ends = true;
        } else {
            self.client_resets();
        }
    }

    pub(super) fn client_resets(&mut self) {
        self.client_closed = true;
        self.inbox.clear();
        self.break_off();
    }

    pub(super) fn set_window(&mut self, bytes: usize) {
        self.window = bytes;
    }

    pub(super) fn saw_end(&self) -> bool {
        self.saw_end
    }

    pub(super) fn saw_reset(&self) -> bool {
        self.saw_reset
    }

    /// Bytes that the client wrote and the server has not received.
    pub(super) fn backlog(&self) -> usize {
        self.wire.len() + self.arrived.len()
    }

    fn reset_client(&mut self) {
        if !self.client_closed {
            self.saw_reset = true;
            self.inbox.clear(); // what it hasn't read yet is lost, and that is the point
        }
    }
}

/// The wire.
impl Stream {
    pub(super) fn on_wire(&self) -> usize {
        self.wire.len()
    }

    pub(super) fn in_transit(&self) -> bool {
        let end_on_its_way = self.wire_ends && !self.ended;
        !self.dead
            && !self.released
            && (!self.wire.is_empty() || end_on_its_way || self.wire_resets)
    }

    /// Moves `count` bytes to the server, and what follows the last of them.
    pub(super) fn arrive(&mut self, count: usize) {
        self.arrived.extend(self.wire.drain(..count));
        if self.wire.is_empty() && self.wire_ends {
            self.ended = true;
        }
        if self.wire.is_empty() && self.wire_resets {
            self.break_off();
        }
    }

    /// The connection is lost, for both ends.
    pub(super) fn die(&mut self) {
        self.reset_client();
        self.break_off();
    }

    /// The server's socket gets a reset: once an error (which, once the end has been seen, is
    /// that of a pipe), then nothing. What arrived before stays readable.
    fn break_off(&mut self) {
        self.wire.clear();
        if !self.dead {
            self.dead = true;
            self.error = Some(if self.ended { Errno::BROKEN_PIPE } else { Errno::RESET });
        }
    }
}

/// The server's end.
impl Stream {
    pub(super) fn arrival(&self) -> Arrival {
        if !self.arrived.is_empty() {
            Arrival::Bytes
        } else if self.ended {
            Arrival::End
        } else if let Some(errno) = self.error {
            Arrival::Error(errno)
        } else if self.read_shut || self.dead {
            Arrival::End
        } else {
            Arrival::Nothing
        }
    }

    pub(super) fn arrived(&mut self) -> &[u8] {
        self.arrived.make_contiguous()
    }

    pub(super) fn receive(&mut self, count: usize) {
        self.arrived.drain(..count);
    }

    pub(super) fn error_was_told(&mut self) {
        self.error = None;
    }

    /// How many bytes a send could put on its way now: all of them to a peer that is gone.
    pub(super) fn room(&self) -> usize {
        if self.client_closed { usize::MAX } else { self.window.saturating_sub(self.inbox.len()) }
    }

    /// Why nothing can be sent any more. The first to ask after a reset hears of it.
    pub(super) fn send_error(&mut self) -> Option<Errno> {
        (self.dead || self.write_shut).then(|| self.error.take().unwrap_or(Errno::BROKEN_PIPE))
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.client_closed {
            self.wire_resets |= !bytes.is_empty(); // accepted all the same: nobody knows yet
        } else {
            self.inbox.extend_from_slice(bytes);
        }
    }

    pub(super) fn shutdown(&mut self, how: Shutdown) -> Result<(), Errno> {
        if self.dead {
            return Err(Errno::new(libc::ENOTCONN));
        }
        if how != Shutdown::Write {
            self.read_shut = true;
        }
        if how != Shutdown::Read {
            self.write_shut = true;
            self.saw_end = true;
        }
        Ok(())
    }

    /// The last reference is gone. Bytes that nobody received make it a reset, and what the
    /// client has not read by then is lost; otherwise it is an orderly end.
    pub(super) fn release(&mut self) {
        if mem::replace(&mut self.released, true) {
            return;
        }
        if self.backlog() > 0 {
            self.reset_client();
        } else if !self.dead {
            self.saw_end = true;
        }
        self.wire.clear();
        self.arrived.clear();
    }

    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    /// Its listener went away before it was accepted.
    pub(super) fn refuse(&mut self) {
        self.released = true;
        self.reset_client();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unread_byte_turns_the_close_into_a_reset_that_loses_the_answer() {
        for arrives in [0, 1] {
            let mut stream = Stream::default();
            stream.client_writes(b"x");
            stream.arrive(arrives);
            stream.send(b"answer");
            stream.release();
            assert!(stream.saw_reset() && !stream.saw_end());
            assert_eq!(stream.client_reads(), b"");
        }
    }

    #[test]
    fn a_drained_connection_ends_in_order() {
        let mut stream = Stream::default();
        stream.send(b"answer");
        stream.release();
        assert!(stream.saw_end() && !stream.saw_reset());
        assert_eq!(stream.client_reads(), b"answer");
    }

    #[test]
    fn writing_to_a_server_that_is_gone_loses_what_was_not_read() {
        let mut stream = Stream::default();
        stream.send(b"answer");
        stream.release();
        stream.client_writes(b"more");
        assert!(stream.saw_reset());
        assert_eq!(stream.client_reads(), b"");
    }

    #[test]
    fn the_first_send_to_a_closed_client_succeeds_and_the_next_does_not() {
        let mut stream = Stream::default();
        stream.client_closes();
        stream.arrive(0);
        assert_eq!(stream.send_error(), None);
        stream.send(b"a");
        stream.arrive(0);
        assert_eq!(stream.send_error(), Some(Errno::BROKEN_PIPE));
        assert_eq!(stream.arrival(), Arrival::End);
    }

    #[test]
    fn after_a_reset_what_arrived_comes_first_then_one_error_then_the_end() {
        let mut stream = Stream::default();
        stream.client_writes(b"ab");
        stream.arrive(1);
        stream.client_resets();
        assert_eq!(stream.arrived(), b"a");
        stream.receive(1);
        assert_eq!(stream.arrival(), Arrival::Error(Errno::RESET));
        stream.error_was_told();
        assert_eq!(stream.arrival(), Arrival::End);
        assert_eq!(stream.send_error(), Some(Errno::BROKEN_PIPE));
    }
}
