//! What master and worker say to each other, and how: one JSON message in one packet of a
//! `SOCK_SEQPACKET` pair, length-checked both ways. Reads and writes no socket.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Deserialize, Serialize};

/// The longest message. What is said today takes under 100 bytes, and the kernel would carry about
/// 200 KiB (`net.core.wmem_default`).
pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;

/// Something to say, in either direction.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Message {
    /// Worker to master: it accepts connections from here on.
    WorkerReady { worker_id: usize, pid: u32 },
    /// Master to worker: finish what is open, and end within this time.
    Shutdown { deadline_ms: u64 },
}

/// Two ends of a new channel. When one end's process ends, the other reads an end of file.
///
/// # Errors
///
/// No descriptor left.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// The packet that carries `message`.
///
/// # Errors
///
/// It would be too long.
pub(crate) fn encode(message: &Message) -> Result<Vec<u8>, ChannelError> {
    let packet = serde_json::to_vec(message).expect("messages have string keys");
    check_length(&packet)?;
    Ok(packet)
}

/// The message of a packet, read into a [`read_buffer`].
///
/// # Errors
///
/// It is too long, or no message that is known.
pub(crate) fn decode(packet: &[u8]) -> Result<Message, ChannelError> {
    check_length(packet)?;
    serde_json::from_slice(packet).map_err(|error| ChannelError::Malformed(error.to_string()))
}

/// Room for any message and one byte more: a packet that fills it was cut, and is too long.
pub(crate) fn read_buffer() -> Vec<u8> {
    Vec::with_capacity(MESSAGE_BYTES_MAX + 1)
}

fn check_length(packet: &[u8]) -> Result<(), ChannelError> {
    if packet.len() > MESSAGE_BYTES_MAX { Err(ChannelError::TooLong) } else { Ok(()) }
}

/// A packet that carries no message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ChannelError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    TooLong,
    /// No JSON, no known type, or fields that don't fit; says which.
    Malformed(String),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelError::TooLong => write!(f, "a message has at most {MESSAGE_BYTES_MAX} bytes"),
            ChannelError::Malformed(why) => write!(f, "no message: {why}"),
        }
    }
}

impl std::error::Error for ChannelError {}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{MsgFlags, recv, send};
    use std::os::fd::AsRawFd;

    #[test]
    fn messages_are_spelled_like_this_and_read_themselves() {
        for (message, json) in [
            (
                Message::WorkerReady { worker_id: 1, pid: 42 },
                r#"{"type":"worker_ready","worker_id":1,"pid":42}"#,
            ),
            (
                Message::Shutdown { deadline_ms: 30_000 },
                r#"{"type":"shutdown","deadline_ms":30000}"#,
            ),
        ] {
            let packet = encode(&message).unwrap();
            assert_eq!(std::str::from_utf8(&packet), Ok(json));
            assert_eq!(decode(&packet), Ok(message));
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
            let error = decode(packet).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn every_cut_of_a_message_is_malformed() {
        let packet = encode(&Message::WorkerReady { worker_id: 0, pid: 1 }).unwrap();
        for cut in 0..packet.len() {
            assert!(matches!(decode(&packet[..cut]), Err(ChannelError::Malformed(_))), "{cut}");
        }
    }

    #[test]
    fn a_packet_longer_than_the_buffer_is_known_to_be_too_long() {
        let (ours, theirs) = pair().unwrap();
        let long =
            format!(r#"{{"type":"shutdown","deadline_ms":1{}}}"#, " ".repeat(MESSAGE_BYTES_MAX));
        send(ours.as_raw_fd(), long.as_bytes(), MsgFlags::empty()).unwrap();
        let mut buffer = vec![0; read_buffer().capacity()];
        let count = recv(theirs.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        assert_eq!(decode(&buffer[..count]), Err(ChannelError::TooLong));
    }
}
