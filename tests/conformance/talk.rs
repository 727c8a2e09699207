//! A client that says a case piece by piece, each once the server has taken the one before, and
//! then finds out whether the connection still serves.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::PATIENCE;

/// Follows each case: answered when the connection stays, never when it doesn't.
const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n";

/// The answer to the probe ends with this.
const PROBED: &str = "\r\n\r\nok\n";

/// Where the server is.
pub(crate) enum Site {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What was heard of a case.
pub(crate) struct Outcome {
    /// Responses to the case itself.
    responses: Vec<String>,
    /// The probe behind it was answered.
    pub(crate) stays: bool,
}

impl Outcome {
    /// Of final responses: whether there is a 100 before depends on when the body came.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = u16> {
        self.responses.iter().map(|response| status(response)).filter(|status| *status >= 200)
    }

    pub(crate) fn last(&self) -> &str {
        self.responses.last().map_or("", String::as_str)
    }
}

impl Site {
    /// Says the pieces and the probe, and hears everything up to the end of the connection.
    pub(crate) fn talk(&self, pieces: &[&[u8]]) -> Outcome {
        let mut stream = match self {
            Site::Tcp(address) => Stream::Tcp(TcpStream::connect(address).unwrap()),
            Site::Unix(path) => Stream::Unix(connect(path)),
        };
        let whole = pieces.concat();
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            stream.say(piece);
            stream.wait_until_taken();
        }
        stream.say(PROBE);
        let heard = stream.hear_all();
        split(&heard, &whole)
    }
}

/// Connects; again while the queue of the listener is full.
fn connect(path: &PathBuf) -> UnixStream {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < give_up => {
                thread::yield_now();
            }
            Err(error) => panic!("cannot connect: {error}"),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Fails when the server has closed, which what is heard tells.
    fn say(&mut self, bytes: &[u8]) {
        let _ = match self {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        };
    }

    /// Waits until the server has received everything: the kernel counts for a Unix socket what the
    /// other end hasn't read (unix(7)). What the server will never read, having closed or being
    /// busy with something else, is waited for a moment.
    fn wait_until_taken(&self) {
        let Stream::Unix(stream) = self else { return };
        let give_up = Instant::now() + Duration::from_millis(20);
        while Instant::now() < give_up && nothing_left(stream) == Some(false) {
            thread::yield_now();
        }
    }

    fn hear_all(&mut self) -> String {
        let mut heard = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = match self {
                Stream::Tcp(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.read(&mut buffer)
                }
                Stream::Unix(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.read(&mut buffer)
                }
            };
            match count {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}, after {}", String::from_utf8_lossy(&heard)),
            }
        }
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// Whether the peer has read all; `None` when nobody can tell.
#[expect(unsafe_code, reason = "no crate here has this ioctl, and no other call tells")]
fn nothing_left(stream: &UnixStream) -> Option<bool> {
    let mut left: libc::c_int = 0;
    // SAFETY: the descriptor is open, and TIOCOUTQ writes one int to where `left` is.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
    (result == 0).then_some(left == 0)
}

/// The responses in what was heard; `sent` tells which of them have no body.
fn split(heard: &str, sent: &[u8]) -> Outcome {
    let mut is_head = sent.trim_ascii_start().starts_with(b"HEAD ");
    let (mut responses, mut rest) = (Vec::new(), heard);
    while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        let is_bodiless = is_head || matches!(status(head), 100..=199 | 204 | 304);
        let length = match (field("transfer-encoding"), field("content-length")) {
            _ if is_bodiless => 0,
            (Some(_), _) => behind.find("0\r\n\r\n").map_or(behind.len(), |at| at + 5),
            (None, Some(length)) => length.parse::<usize>().unwrap().min(behind.len()),
            (None, None) => behind.len(),
        };
        is_head &= status(head) < 200;
        let (response, next) = rest.split_at(head.len() + 4 + length);
        responses.push(response.to_owned());
        rest = next;
    }
    assert!(rest.is_empty(), "what is this? {rest:?} in {heard:?}");
    let stays = responses.pop_if(|last| last.ends_with(PROBED)).is_some();
    Outcome { responses, stays }
}

fn status(response: &str) -> u16 {
    let is_ours = response.starts_with("HTTP/1.1 ") && response.as_bytes().get(12) == Some(&b' ');
    assert!(is_ours, "not the begin of a response: {response:?}");
    response[9..12].parse().unwrap()
}
