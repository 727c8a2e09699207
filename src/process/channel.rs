//! What master and worker say to each other, and how: one JSON message in one packet of a
//! `SOCK_SEQPACKET` pair, length-checked both ways. Reads and writes no socket.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Deserialize, Serialize};

/// Something to say, in either direction.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Message {
    /// Worker to master: it can serve from here on, at most so many connections.
    WorkerReady { worker_id: usize, pid: u32, connections_max: usize },
    /// Worker to master: its last words, what it has done.
    WorkerMetrics { worker_id: usize, total_requests: u64, total_connections: u64 },
    /// Worker to master, when the master waits for room: so many are open now.
    ConnectionClosed { worker_id: usize, open: usize },
    /// Worker to master: it has had its share, or was told to end by somebody else, and wants a
    /// successor.
    RecycleDue { reason: RecycleReason },
    /// Worker to master: it has let go of its listeners.
    AcceptStopped,
    /// Worker to master: it had no descriptor left for these connections.
    NotTaken { first: u64, count: usize },
    /// Worker to master: the whole pool should be reloaded. Master to worker: a successor serves,
    /// so hand over what idles, finish what is open, and end within this time.
    Reload { deadline_ms: u64 },
    /// Master to worker: finish what is open, and end within this time.
    Shutdown { deadline_ms: u64 },
    /// Master to worker: whoever had its place has let go of its listeners.
    Alone,
    /// Master to worker: all of its listeners listen now, and are its to accept from.
    Listening,
    /// Master to worker: the listeners that came later have another owner again.
    ListenersBack,
    /// Master to worker: connections wait in the master, as no worker has room for them. For as long as
    /// the page says so, who is full makes some.
    RoomWanted,
    /// Old master to new master, whose workers are ready: everything is its own from now on.
    TakeOver,
    /// Old master to new master: somebody asked the old one for a reload, with settings that are read
    /// anew or without, and with so many workers or as many as the settings say.
    Renew { reads: bool, workers: Option<usize> },
    /// New master to old master: it has taken over.
    TakenOver,
    /// The embedder's own, in either direction.
    User { payload: serde_json::Value },
}

/// Why a worker wants a successor.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RecycleReason {
    Requests,
    Lifetime,
    Memory,
    Signal,
}

impl fmt::Display for RecycleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecycleReason::Requests => "has served its share of requests",
            RecycleReason::Lifetime => "has served its time",
            RecycleReason::Memory => "takes more memory than it should",
            RecycleReason::Signal => "was told to end by a signal",
        })
    }
}

/// How long a message may be: `message_bytes_max` of the configuration, for both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limit(pub(crate) usize);

/// Two ends of a new channel. When one end's process ends, the other reads an end of file.
///
/// # Errors
///
/// No descriptor left.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

impl Limit {
    /// The packet that carries `message`.
    ///
    /// # Errors
    ///
    /// It would be too long.
    pub(crate) fn encode(self, message: &Message) -> Result<Vec<u8>, ChannelError> {
        let packet = serde_json::to_vec(message).expect("messages have string keys");
        self.check(&packet)?;
        Ok(packet)
    }

    /// The message of a packet, read into a [`read_buffer`](Limit::read_buffer).
    ///
    /// # Errors
    ///
    /// It is too long, or no message that is known.
    pub(crate) fn decode(self, packet: &[u8]) -> Result<Message, ChannelError> {
        self.check(packet)?;
        serde_json::from_slice(packet).map_err(|error| ChannelError::Malformed(error.to_string()))
    }

    /// Room for any message and one byte more: a packet that fills it was cut, and is too long.
    pub(crate) fn read_buffer(self) -> Vec<u8> {
        Vec::with_capacity(self.0 + 1)
    }

    fn check(self, packet: &[u8]) -> Result<(), ChannelError> {
        if packet.len() > self.0 { Err(ChannelError::TooLong(self)) } else { Ok(()) }
    }
}

/// A packet that carries no message, or a message that isn't sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ChannelError {
    /// Longer than allowed.
    TooLong(Limit),
    /// No JSON, no known type, or fields that don't fit; says which.
    Malformed(String),
    /// Too many wait to be sent.
    Backlog,
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelError::TooLong(Limit(bytes)) => {
                write!(f, "it is longer than {bytes} bytes (`message_bytes_max`)")
            }
            ChannelError::Malformed(why) => write!(f, "it is no message: {why}"),
            ChannelError::Backlog => f.write_str("too many wait to be read at the other end"),
        }
    }
}

impl std::error::Error for ChannelError {}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{MsgFlags, recv, send};
    use std::os::fd::AsRawFd;

    const LIMIT: Limit = Limit(1024);

    #[test]
    fn messages_are_spelled_like_this_and_read_themselves() {
        for (message, json) in [
            (
                Message::WorkerReady { worker_id: 1, pid: 42, connections_max: 960 },
                r#"{"type":"worker_ready","worker_id":1,"pid":42,"connections_max":960}"#,
            ),
            (
                Message::RecycleDue { reason: RecycleReason::Memory },
                r#"{"type":"recycle_due","reason":"memory"}"#,
            ),
            (
                Message::Renew { reads: true, workers: None },
                r#"{"type":"renew","reads":true,"workers":null}"#,
            ),
            (
                Message::User { payload: serde_json::json!({"answer": 42}) },
                r#"{"type":"user","payload":{"answer":42}}"#,
            ),
            (
                Message::Shutdown { deadline_ms: 30_000 },
                r#"{"type":"shutdown","deadline_ms":30000}"#,
            ),
        ] {
            let packet = LIMIT.encode(&message).unwrap();
            assert_eq!(std::str::from_utf8(&packet), Ok(json));
            assert_eq!(LIMIT.decode(&packet), Ok(message));
        }
    }

    #[test]
    fn what_is_no_message_says_why() {
        for (packet, why) in [
            (&b""[..], "EOF"),
            (b"shutdown", "expected value"),
            (br#"{"type":"dance"}"#, "unknown variant `dance`"),
            (br#"{"type":"shutdown"}"#, "missing field `deadline_ms`"),
            (br#"{"type":"shutdown","deadline_ms":-1}"#, "invalid value"),
            (b"\xff\xfe", "expected value"),
        ] {
            let error = LIMIT.decode(packet).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn every_cut_of_a_message_is_malformed() {
        let packet = LIMIT
            .encode(&Message::WorkerReady { worker_id: 0, pid: 1, connections_max: 1 })
            .unwrap();
        for cut in 0..packet.len() {
            assert!(
                matches!(LIMIT.decode(&packet[..cut]), Err(ChannelError::Malformed(_))),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_packet_longer_than_the_buffer_is_known_to_be_too_long() {
        let (ours, theirs) = pair().unwrap();
        let long = format!(r#"{{"type":"shutdown","deadline_ms":1{}}}"#, " ".repeat(LIMIT.0));
        send(ours.as_raw_fd(), long.as_bytes(), MsgFlags::empty()).unwrap();
        let mut buffer = vec![0; LIMIT.read_buffer().capacity()];
        let count = recv(theirs.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        assert_eq!(LIMIT.decode(&buffer[..count]), Err(ChannelError::TooLong(LIMIT)));
    }
}
