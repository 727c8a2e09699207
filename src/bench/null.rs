//! A server that does nothing but answer: the other side when the generator itself is measured.
//! Parses no requests: each blank line is the end of one.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use uring_ring::{Features, GroupId, Mask, Op, Outcome, Ring, SendBuffer, Setup};

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
/// Answers that leave with one send at most.
const BATCH_MAX: usize = 64;
const BUFFERS: u16 = 256;
const BUFFER_BYTES: u32 = 4096;
/// How often the server looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// A server on a thread of its own. Ends when it is dropped.
pub struct NullServer {
    address: SocketAddr,
    other_core: Option<usize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl NullServer {
    /// Starts it on a free port of 127.0.0.1, pinned to the first core that this process may use.
    ///
    /// # Errors
    ///
    /// No port, thread or ring can be had.
    pub fn start() -> io::Result<NullServer> {
        let mut cores = core_affinity::get_core_ids().into_iter().flatten();
        let (core, other_core) = (cores.next(), cores.next().map(|core| core.id));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        setsockopt(&listener, sockopt::TcpNoDelay, &true)?; // for all that it accepts
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("null-server".into()).spawn(move || {
            core.map(core_affinity::set_for_current);
            serve(&listener, &is_stopped)
        })?;
        Ok(NullServer { address, other_core, stop, thread: Some(thread) })
    }

    /// A core that it leaves to others, if there is one.
    pub fn other_core(&self) -> Option<usize> {
        self.other_core
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _its_end_is_enough = thread.join();
        }
    }
}

impl fmt::Debug for NullServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NullServer").field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
enum Tag {
    Accept,
    Receive(usize),
    Send(usize),
    Close,
}

#[derive(Debug)]
struct Conn {
    socket: OwnedFd,
    /// How much of a blank line the last bytes ended with.
    matched: u8,
    owed: usize,
    sending: bool,
}

fn serve(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    let features = Features::probe(Mask::NONE).map_err(io::Error::other)?;
    let setup = Setup { entries: 1024, restricted: false, features };
    let mut ring: Ring<Tag> = Ring::new(setup).map_err(io::Error::other)?;
    ring.enable()?;
    let group = ring.add_buffers(BUFFERS, BUFFER_BYTES)?;
    let sheet = Bytes::from(RESPONSE.repeat(BATCH_MAX));
    let mut conns: Vec<Option<Conn>> = Vec::new();
    ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, Tag::Accept);
    while !stop.load(Ordering::Relaxed) {
        ring.turn(Some(LOOK))?;
        while let Some(completion) = ring.poll_completion() {
            match (completion.tag, completion.outcome) {
                (Tag::Accept, Outcome::Accepted(Ok(socket))) => {
                    let fd = socket.as_raw_fd();
                    let number = fd.cast_unsigned() as usize;
                    if conns.len() <= number {
                        conns.resize_with(number + 1, || None);
                    }
                    conns[number] = Some(Conn { socket, matched: 0, owed: 0, sending: false });
                    receive(&mut ring, group, number);
                }
                (Tag::Receive(number), Outcome::Received(Ok(Some(bytes)))) => {
                    let Some(conn) = &mut conns[number] else { continue };
                    conn.owed += requests(&mut conn.matched, &bytes);
                    answer(&mut ring, conn, number, &sheet);
                    if !completion.more {
                        receive(&mut ring, group, number);
                    }
                }
                (Tag::Receive(number), Outcome::Received(end)) => match end {
                    Err(uring_ring::Errno::NO_BUFFERS) => receive(&mut ring, group, number),
                    _ => {
                        if let Some(conn) = conns[number].take() {
                            ring.push(Op::Close { fd: conn.socket, cancel: true }, Tag::Close);
                        }
                    }
                },
                (Tag::Send(number), _) => {
                    let Some(conn) = &mut conns[number] else { continue };
                    conn.sending = false;
                    answer(&mut ring, conn, number, &sheet);
                }
                (Tag::Accept, _) => {
                    let op = Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true };
                    ring.push(op, Tag::Accept);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn receive(ring: &mut Ring<Tag>, group: GroupId, number: usize) {
    let op = Op::Recv { fd: number as i32, group, multishot: true };
    ring.push(op, Tag::Receive(number));
}

fn answer(ring: &mut Ring<Tag>, conn: &mut Conn, number: usize, sheet: &Bytes) {
    if conn.sending || conn.owed == 0 {
        return;
    }
    let count = conn.owed.min(BATCH_MAX);
    conn.owed -= count;
    conn.sending = true;
    let buffer = SendBuffer::with_body(Vec::new(), sheet.slice(..count * RESPONSE.len()));
    ring.push(Op::Send { fd: conn.socket.as_raw_fd(), buffer }, Tag::Send(number));
}

/// Counts blank lines.
fn requests(matched: &mut u8, bytes: &[u8]) -> usize {
    let mut count = 0;
    for byte in bytes {
        *matched = match (*matched, byte) {
            (0 | 2, b'\r') | (1 | 3, b'\n') => *matched + 1,
            (_, b'\r') => 1,
            _ => 0,
        };
        if *matched == 4 {
            (*matched, count) = (0, count + 1);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn it_answers_each_blank_line() {
        let server = NullServer::start().unwrap();
        let mut client = TcpStream::connect(server.address()).unwrap();
        for part in [&b"GET / HTTP/1.1\r\n\r"[..], b"\nGET / HTTP/1.1\r\n\r\n"] {
            client.write_all(part).unwrap();
        }
        let mut got = vec![0; 2 * RESPONSE.len()];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, RESPONSE.repeat(2));
    }
}
