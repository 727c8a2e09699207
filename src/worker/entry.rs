//! One connection with its socket and what is in flight on it. Closing is a join: the entry goes
//! when every operation on it is complete.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use uring_ring::{Errno, GroupId, Op, OpId, Ring, SendBuffer};

use super::Tag;
use super::table::ConnId;
use crate::conn::{BODY_BYTES_PER_SEND, Connection, Env, FileRead, FileSend, Outgoing};
use crate::process::{UNSENT_BYTES_MAX, set_unsent_bytes_max, untaken_bytes};

/// What is sent of a file before others have their turn, by one sendfile(2).
const FILE_BYTES_PER_TURN: u64 = 2 * 1024 * 1024;

/// When so much went out in a turn, the files that are still to come get as little as slow readers
/// have: whoever asks for something small waits for all of them.
const TURN_BYTES_AMPLE: u64 = 8 * 1024 * 1024;

/// What the kernel takes of a file ahead of a reader that is fast: the more, the less often it asks.
const FAST_UNSENT_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// A reader is fast from this rate on, in bytes a second.
const FAST_RATE: u64 = 8 * 1024 * 1024;

/// A connection of this worker.
pub(super) struct Entry {
    pub(super) connection: Connection,
    pub(super) receive: Receive,
    pub(super) sending: bool,
    /// A part of a file is being read for it.
    pub(super) reading: bool,
    /// The close is complete.
    pub(super) closed: bool,
    /// When the last alarm set for it goes off.
    pub(super) alarm: Option<Instant>,
    /// Memory that it held when it was last looked at.
    pub(super) held_bytes: u32,
    /// It counts for its client, where that is limited.
    pub(super) is_counted: bool,
    /// Gone once it has moved into the operation that closes it.
    socket: Option<OwnedFd>,
    /// What is sent of a file without the ring, while it waits.
    file: Option<Box<WaitingFile>>,
    /// The socket takes as much of a file as that of a fast reader.
    is_fast: bool,
    /// The number under which the master passed it; zero when it was accepted here.
    passed_as: u64,
}

/// What is left of a file when the socket takes no more of it.
struct WaitingFile {
    send: Box<FileSend>,
    since: Instant,
    /// What the peer hadn't taken when it had shown for the last time that it reads.
    untaken_bytes: usize,
}

/// What receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receive {
    /// Nothing: the socket's buffer fills, and then the peer has to wait.
    Off,
    Once(OpId),
    Armed(OpId),
    /// Asked to end; it may still deliver.
    Ending,
}

impl Entry {
    pub(super) fn new(socket: OwnedFd, connection: Connection, passed_as: u64) -> Entry {
        Entry {
            connection,
            receive: Receive::Off,
            sending: false,
            reading: false,
            closed: false,
            alarm: None,
            held_bytes: 0,
            is_counted: false,
            socket: Some(socket),
            file: None,
            is_fast: false,
            passed_as,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.socket.is_none()
    }

    pub(super) fn may_remove(&self) -> bool {
        self.closed && !self.sending && !self.reading && self.receive == Receive::Off
    }

    pub(super) fn send(&mut self, id: ConnId, buffer: SendBuffer, ring: &mut Ring<Tag>) {
        assert!(!self.sending, "two sends at once may be reordered");
        let Some(socket) = &self.socket else { return };
        set_fast(&mut self.is_fast, false, socket);
        self.sending = true;
        ring.push(Op::Send { fd: socket.as_raw_fd(), buffer }, Tag::Send(id));
    }

    /// Sends a part of a file, as far as it goes now, in a turn that has sent so many bytes to all;
    /// returns how many bytes went out.
    pub(super) fn send_file(
        &mut self,
        id: ConnId,
        send: Box<FileSend>,
        turn_bytes: u64,
        ring: &mut Ring<Tag>,
        env: &mut Env<'_>,
    ) -> u64 {
        assert!(!self.sending, "two sends at once may be reordered");
        self.advance_file(id, send, 0, turn_bytes, ring, env)
    }

    /// Goes on with it, once the socket takes more.
    pub(super) fn resume_file(
        &mut self,
        id: ConnId,
        turn_bytes: u64,
        ring: &mut Ring<Tag>,
        env: &mut Env<'_>,
    ) -> u64 {
        self.look_at_reader(env);
        let (Some(socket), Some(waiting)) = (&self.socket, self.file.take()) else { return 0 };
        let WaitingFile { send, since, untaken_bytes } = *waiting;
        let is_fast = reads_fast(env.now - since, unsent_bytes_max(self.is_fast));
        set_fast(&mut self.is_fast, is_fast, socket);
        self.advance_file(id, send, untaken_bytes, turn_bytes, ring, env)
    }

    fn advance_file(
        &mut self,
        id: ConnId,
        mut send: Box<FileSend>,
        mut untaken_bytes: usize,
        turn_bytes: u64,
        ring: &mut Ring<Tag>,
        env: &mut Env<'_>,
    ) -> u64 {
        let Some(socket) = &self.socket else { return 0 };
        let is_ample = turn_bytes >= TURN_BYTES_AMPLE;
        let most = if is_ample { UNSENT_BYTES_MAX.into() } else { FILE_BYTES_PER_TURN };
        let count = send.left().min(most) as usize;
        let (file, offset) = (send.file(), send.offset());
        let result = match ring.resident_bytes(file, offset, count, env.now) {
            0 => Ok(0),
            count => ring.send_file(socket.as_fd(), send.head(), file, offset, count),
        };
        let is_over = matches!(result, Ok(0)); // what is left has to be read, or isn't there
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.connection.handle_failure(env);
                return 0;
            }
        };
        send.advance(bytes);
        if is_over || send.left() == 0 {
            self.connection.handle_file_sent(*send, env);
        } else {
            if bytes > 0 {
                self.connection.handle_send_progress(env);
                untaken_bytes = untaken_bytes_of(socket);
            }
            self.sending = true;
            ring.push(Op::WaitWritable { fd: socket.as_raw_fd() }, Tag::Writable(id));
            self.file = Some(Box::new(WaitingFile { send, since: env.now, untaken_bytes }));
        }
        bytes as u64
    }

    /// Tells the connection when the peer goes on to take a file, of which the kernel may have much more than
    /// a slow one takes in its time.
    pub(super) fn look_at_reader(&mut self, env: &Env<'_>) {
        let (Some(socket), Some(waiting)) = (&self.socket, &mut self.file) else { return };
        let untaken_bytes = untaken_bytes_of(socket);
        if waiting.untaken_bytes.saturating_sub(untaken_bytes) >= BODY_BYTES_PER_SEND {
            waiting.untaken_bytes = untaken_bytes;
            self.connection.handle_send_progress(env);
        }
    }

    pub(super) fn read(&mut self, id: ConnId, read: FileRead, ring: &mut Ring<Tag>) {
        let FileRead { file, offset, buffer, count } = read;
        self.reading = true;
        ring.push(Op::ReadAt { file, offset, buffer, count }, Tag::Read(id));
    }

    pub(super) fn shutdown_write(&mut self, ring: &mut Ring<Tag>) {
        if let Some(socket) = &self.socket {
            // Fails when the peer has gone, which the next receive tells as well.
            let _ = ring.shutdown(socket.as_fd(), Shutdown::Write);
        }
    }

    /// Closes so that the peer can't take it for an end in good order: by a reset.
    pub(super) fn begin_abort(&mut self, id: ConnId, ring: &mut Ring<Tag>) {
        if let Some(socket) = &self.socket {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            // Fails for what is no TCP socket, and then there is no reset to be had.
            let _ = setsockopt(socket, Linger, &at_once);
        }
        self.close(id, ring);
    }

    /// Closes. The peer has to hear of it even while the master holds a copy of the socket: of those
    /// that it passed after the number `released`.
    pub(super) fn begin_close(&mut self, id: ConnId, released: u64, ring: &mut Ring<Tag>) {
        if self.passed_as > released
            && let Some(socket) = &self.socket
        {
            // Fails when the peer has gone, and then there is nobody to tell.
            let _ = ring.shutdown(socket.as_fd(), Shutdown::Both);
        }
        self.close(id, ring);
    }

    fn close(&mut self, id: ConnId, ring: &mut Ring<Tag>) {
        let Some(fd) = self.socket.take() else { return };
        let cancel = self.sending || self.receive != Receive::Off;
        ring.push(Op::Close { fd, cancel }, Tag::Close(id));
    }

    /// Starts or ends receiving, as the connection wants it. A new connection receives once: many
    /// bring one request, and have nothing to cancel then. One that stays is armed for good.
    pub(super) fn update_receive(&mut self, id: ConnId, group: GroupId, ring: &mut Ring<Tag>) {
        let Some(socket) = &self.socket else { return };
        self.receive = match (self.receive, self.connection.wants_input()) {
            (Receive::Off, true) => {
                let multishot = self.connection.is_proven();
                let op = Op::Recv { fd: socket.as_raw_fd(), group, multishot };
                let armed = ring.push(op, Tag::Receive(id));
                if multishot { Receive::Armed(armed) } else { Receive::Once(armed) }
            }
            (Receive::Armed(target), false) => {
                ring.push(Op::Cancel { target }, Tag::Cancel);
                Receive::Ending
            }
            (receive, _) => receive,
        };
    }

    /// Ends receiving, also what was to go on. Returns whether it has ended.
    pub(super) fn end_receive(&mut self, ring: &mut Ring<Tag>) -> bool {
        if let Some(socket) = &self.socket {
            set_fast(&mut self.is_fast, false, socket); // for its next owner
        }
        if let Receive::Armed(target) | Receive::Once(target) = self.receive {
            ring.push(Op::Cancel { target }, Tag::Cancel);
            self.receive = Receive::Ending;
        }
        self.receive == Receive::Off
    }

    /// The socket alone, when nothing is in flight on it.
    pub(super) fn into_socket(self) -> Option<OwnedFd> {
        assert!(self.receive == Receive::Off && !self.sending, "something is in flight");
        self.socket
    }

    /// Receiving ended, but not because of the peer; or the socket is broken.
    pub(super) fn on_receive_error(&mut self, errno: Errno, env: &Env<'_>) {
        match errno {
            // The buffers come back within the turn that lent them, so receiving can go on.
            Errno::NO_BUFFERS | Errno::CANCELED => {}
            _ => self.connection.handle_failure(env),
        }
    }
}

/// What the kernel takes of a response ahead of its sending.
fn unsent_bytes_max(is_fast: bool) -> u32 {
    if is_fast { FAST_UNSENT_BYTES_MAX } else { UNSENT_BYTES_MAX }
}

/// Bounds it otherwise, unless it `is` so.
fn set_fast(is: &mut bool, wanted: bool, socket: &OwnedFd) {
    if *is != wanted {
        // Fails for what is no TCP socket, which takes no more than a packet or two.
        let _ = set_unsent_bytes_max(socket.as_fd(), unsent_bytes_max(wanted));
        *is = wanted;
    }
}

/// Fails for no socket of ours.
fn untaken_bytes_of(socket: &OwnedFd) -> usize {
    untaken_bytes(socket.as_fd()).unwrap_or(0)
}

/// Whether a reader is fast who made room within this time: half of the bound, as the kernel has it.
fn reads_fast(waited: Duration, unsent_bytes_max: u32) -> bool {
    let taken = u128::from(unsent_bytes_max / 2);
    taken * 1_000_000_000 >= u128::from(FAST_RATE) * waited.as_nanos()
}

impl From<Outgoing> for SendBuffer {
    fn from(Outgoing { head, body }: Outgoing) -> SendBuffer {
        match body {
            Some(body) => SendBuffer::with_body(head, body),
            None => SendBuffer::new(head),
        }
    }
}
