//! A connection's bytes, through the ring. Whatever the kernel borrows is the ring's: dropping a
//! future loses nothing, the next call goes on where it left off.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use bytes::Bytes;
use nix::sys::socket;
use uring_ring::{Errno, GroupId, Outcome, SendBuffer};

use crate::errands::{Errand, Errands};
use crate::process::scoreboard::WorkerPage;

/// An open connection, which [`Pool::serve_connections`](crate::Pool::serve_connections) gives to
/// its handler. Dropping it closes the connection: what was read and not asked for is lost, and so
/// is what a write that wasn't awaited has not sent yet.
///
/// An idle one holds no buffer.
pub struct Stream {
    reader: Reader,
    writer: Writer,
}

/// The half of a [`Stream`] that reads.
pub struct Reader {
    socket: Rc<Socket>,
    /// Under way: what nobody waited for to the end.
    reading: Option<Errand>,
    /// Received, and not read yet, from `at` on.
    rest: Vec<u8>,
    at: usize,
}

/// The half of a [`Stream`] that writes.
pub struct Writer {
    socket: Rc<Socket>,
    /// Likewise.
    writing: Option<Errand>,
    /// To be written after that.
    next: VecDeque<SendBuffer>,
    /// Memory for what is copied.
    spare: Vec<u8>,
}

/// What both halves share.
struct Socket {
    fd: Option<OwnedFd>,
    origin: Origin,
}

/// What a stream knows of its worker.
pub(in crate::worker) struct Origin {
    pub(in crate::worker) errands: Rc<Errands>,
    pub(in crate::worker) buffers: GroupId,
    pub(in crate::worker) counts: Rc<ByteCounts>,
    pub(in crate::worker) page: &'static WorkerPage,
    /// The number under which the master passed it; zero when it was accepted here.
    pub(in crate::worker) passed_as: u64,
}

/// Bytes of all streams of a worker.
#[derive(Default)]
pub(in crate::worker) struct ByteCounts {
    pub(in crate::worker) received: Cell<u64>,
    pub(in crate::worker) sent: Cell<u64>,
}

impl Stream {
    pub(in crate::worker) fn new(fd: OwnedFd, origin: Origin) -> Stream {
        let socket = Rc::new(Socket { fd: Some(fd), origin });
        let writer = Writer {
            socket: Rc::clone(&socket),
            writing: None,
            next: VecDeque::new(),
            spare: Vec::new(),
        };
        Stream { reader: Reader { socket, reading: None, rest: Vec::new(), at: 0 }, writer }
    }

    /// See [`Reader::read`].
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).await
    }

    /// See [`Reader::read_until`].
    ///
    /// # Errors
    ///
    /// The connection broke, or nothing ends there.
    pub async fn read_until(
        &mut self,
        end: u8,
        bytes: &mut Vec<u8>,
        bytes_max: usize,
    ) -> io::Result<usize> {
        self.reader.read_until(end, bytes, bytes_max).await
    }

    /// See [`Writer::write_all`].
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// See [`Writer::write_bytes`].
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn write_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.writer.write_bytes(bytes).await
    }

    /// See [`Writer::shutdown`].
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }

    /// Both halves, for futures that read and write at once.
    pub fn split(&mut self) -> (&mut Reader, &mut Writer) {
        (&mut self.reader, &mut self.writer)
    }

    /// Both halves, for tasks of their own. The connection is closed when both are dropped.
    pub fn into_split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// The socket itself, once nothing of it is in the ring any more, and what was received and not
    /// read. `std::net::TcpStream::from` takes it (or the Unix one); it waits when it is read.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn into_socket(self) -> io::Result<(OwnedFd, Vec<u8>)> {
        let Stream { mut reader, mut writer } = self;
        writer.flush().await?;
        drop(writer);
        if let Some(reading) = reader.reading.take() {
            reading.cancel();
            // It may have received before it heard of that. An error, whoever reads next will see.
            if let Outcome::Received(Ok(Some(lease))) = reading.await {
                reader.keep(&lease);
            }
        }
        let rest = reader.rest.split_off(reader.at);
        let socket = Rc::into_inner(reader.socket).expect("both halves were here");
        Ok((socket.into_fd(), rest))
    }
}

impl Reader {
    /// Reads what is there, or waits for it; returns how many bytes came. None at the end: the peer
    /// sends no more, but may still read.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || (self.unread().is_empty() && self.receive().await? == 0) {
            return Ok(0);
        }
        let count = buffer.len().min(self.unread().len());
        buffer[..count].copy_from_slice(&self.unread()[..count]);
        self.consume(count);
        Ok(count)
    }

    /// Reads up to and with the byte `end`, and puts it behind what `bytes` hold; returns how many
    /// came. Without an `end` at the end where the peer's last bytes have none. If the future is
    /// dropped, what it has read so far stays in `bytes`.
    ///
    /// # Errors
    ///
    /// The connection broke; or `bytes` would hold more than `bytes_max`
    /// ([`InvalidData`](io::ErrorKind::InvalidData)).
    pub async fn read_until(
        &mut self,
        end: u8,
        bytes: &mut Vec<u8>,
        bytes_max: usize,
    ) -> io::Result<usize> {
        let begin = bytes.len();
        loop {
            if self.unread().is_empty() && self.receive().await? == 0 {
                return Ok(bytes.len() - begin);
            }
            let found = memchr::memchr(end, self.unread()).map(|at| at + 1);
            let count = found.unwrap_or(self.unread().len());
            if bytes.len() + count > bytes_max {
                let why = format!("more than {bytes_max} bytes, and no end");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            bytes.extend_from_slice(&self.unread()[..count]);
            self.consume(count);
            if found.is_some() {
                return Ok(bytes.len() - begin);
            }
        }
    }

    fn unread(&self) -> &[u8] {
        &self.rest[self.at..]
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        if self.at == self.rest.len() {
            (self.rest, self.at) = (Vec::new(), 0); // one that idles holds no memory
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let received = &self.socket.origin.counts.received;
        received.set(received.get() + bytes.len() as u64);
    }

    /// Waits for bytes, and puts them behind those that are unread; returns how many came.
    async fn receive(&mut self) -> io::Result<usize> {
        loop {
            let Socket { origin, .. } = &*self.socket;
            let reading = self
                .reading
                .get_or_insert_with(|| origin.errands.receive(self.socket.raw(), origin.buffers));
            let outcome = reading.await;
            self.reading = None;
            match outcome {
                Outcome::Received(Ok(Some(lease))) => {
                    self.keep(&lease);
                    return Ok(lease.len());
                }
                Outcome::Received(Ok(None)) => return Ok(0),
                // They come back within the turn that lent them.
                Outcome::Received(Err(Errno::NO_BUFFERS)) => {}
                Outcome::Received(Err(errno)) => return Err(errno.into()),
                other => unreachable!("a receive completed as {other:?}"),
            }
        }
    }
}

impl Writer {
    /// Writes all of it, which is copied. If the future is dropped, the kernel goes on with what it has
    /// of it, and the rest is written with the next write that is awaited, be it of nothing, and before
    /// that.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut copy = std::mem::take(&mut self.spare);
        copy.extend_from_slice(bytes);
        self.write(SendBuffer::from(copy)).await
    }

    /// As [`write_all`](Writer::write_all), without a copy.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn write_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.write(SendBuffer::with_body(Vec::new(), bytes)).await
    }

    /// Tells the peer that nothing more will come. Reading goes on.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.flush().await?;
        socket::shutdown(self.socket.raw(), socket::Shutdown::Write).map_err(io::Error::from)
    }

    async fn write(&mut self, buffer: SendBuffer) -> io::Result<()> {
        if buffer.left() > 0 {
            self.next.push_back(buffer); // before anything is waited for, or it could get lost
        }
        self.flush().await
    }

    /// Waits for the end of all writes, also of those that nobody waited for.
    async fn flush(&mut self) -> io::Result<()> {
        loop {
            let Some(writing) = &mut self.writing else {
                let Some(next) = self.next.pop_front() else { return Ok(()) };
                self.writing = Some(self.socket.send(next));
                continue;
            };
            let outcome = writing.await;
            self.writing = None;
            let Outcome::Sent { mut buffer, result } = outcome else {
                unreachable!("a send completed as {outcome:?}");
            };
            let sent = result.inspect_err(|_| self.next.clear())?;
            let counts = &self.socket.origin.counts;
            counts.sent.set(counts.sent.get() + sent as u64);
            buffer.advance(sent);
            match (sent, buffer.left()) {
                (_, 0) => self.keep(buffer.into_head()),
                (0, _) => return Err(io::ErrorKind::WriteZero.into()),
                _ => self.writing = Some(self.socket.send(buffer)),
            }
        }
    }

    /// Keeps memory for the next write, unless it is much.
    fn keep(&mut self, mut spare: Vec<u8>) {
        const KEPT_MAX: usize = 4 * 1024;
        spare.clear();
        if spare.capacity() <= KEPT_MAX {
            self.spare = spare;
        }
    }
}

impl Socket {
    fn raw(&self) -> RawFd {
        self.fd.as_ref().expect("there until it is dropped").as_raw_fd()
    }

    fn send(&self, buffer: SendBuffer) -> Errand {
        self.origin.errands.send(self.raw(), buffer)
    }

    fn into_fd(mut self) -> OwnedFd {
        self.fd.take().expect("there until it is dropped")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        let Origin { page, passed_as, errands, .. } = &self.origin;
        // The peer has to hear of it even while the master holds a copy.
        if *passed_as > page.orders.released.read() {
            // Fails when the peer has gone, and then there is nobody to tell.
            let _ = socket::shutdown(fd.as_raw_fd(), socket::Shutdown::Both);
        }
        errands.close(fd);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.reader.socket.raw()).finish()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.socket.raw()).finish()
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Writer").field(&self.socket.raw()).finish()
    }
}
