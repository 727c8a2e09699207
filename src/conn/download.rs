//! A response's body that is still to come: from a stream, or piece by piece from memory and files.
//! Reads no file; it tells what is to be read.

use std::fs;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::env::{Env, Window};
use super::output::Output;
use super::respond::COPY_BYTES_MAX;
use crate::app::guarded;
use crate::http::Frame;
use crate::http::body::{Frames, Piece, Pieces, Streamed};
use crate::proto::h1::{
    CHUNK_END, EncodeError, LAST_CHUNK, encode_chunk, encode_chunk_head, encode_field,
};

/// Less of a file than this is read and copied: sendfile(2) costs more than the copies.
const SEND_FILE_BYTES_MIN: u64 = 16 * 1024;

/// How often a stream is polled before others have their turn: more than a full output takes.
const POLLS_MAX: usize = 64;

/// A response's body that is still to come.
pub(super) struct Download {
    source: Source,
    framing: Framing,
    /// The output was given a chunk without its end.
    is_in_chunk: bool,
    /// Bytes that were written of it.
    sent: u64,
}

enum Source {
    Stream {
        /// There until it is dropped.
        frames: Option<Frames>,
        /// It had nothing, and hasn't asked to be polled again.
        is_asleep: bool,
        idle: Option<(Duration, &'static [u8])>,
    },
    Pieces {
        pieces: Pieces,
        /// Counts the memory that is read into, from the first read on.
        window: Option<Window>,
        is_reading: bool,
        /// What comes next isn't in the page cache.
        is_cold: bool,
    },
}

/// How the end of a response's body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// By a count of bytes left.
    Length(u64),
    Chunked,
    /// By closing: the only way in HTTP/1.0 when the length isn't known.
    Close,
}

/// A part of a file to be read behind what a buffer holds.
#[derive(Debug)]
pub(crate) struct FileRead {
    pub(crate) file: Rc<OwnedFd>,
    pub(crate) offset: u64,
    pub(crate) buffer: Vec<u8>,
    /// Not zero, and there is room.
    pub(crate) count: u32,
}

/// A part of a file to be sent behind a head, without being read.
pub(crate) struct FileSend {
    head: Vec<u8>,
    head_sent: usize,
    file: Rc<OwnedFd>,
    offset: u64,
    left: u64,
}

impl FileSend {
    /// What of the head is still to be sent.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head[self.head_sent..]
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where the file's next byte lies.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the file that are still to be sent.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// So many bytes went out, of the head and then of the file.
    pub(crate) fn advance(&mut self, count: usize) {
        let of_head = count.min(self.head().len());
        self.head_sent += of_head;
        self.offset += (count - of_head) as u64;
        self.left -= (count - of_head) as u64;
    }
}

impl std::fmt::Debug for FileSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileSend({} and {} bytes)", self.head().len(), self.left)
    }
}

pub(super) enum Pumped {
    /// There is nothing now, or the output is full.
    Waiting,
    Finished,
    /// The source failed, or broke its word about the length.
    Failed,
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Source::Stream { frames, .. } = &mut self.source {
            let frames = frames.take();
            guarded("dropping a response's stream", || drop(frames));
        }
    }
}

impl Download {
    pub(super) fn of_stream(stream: Streamed, framing: Framing) -> Download {
        let Streamed { frames, idle, .. } = stream;
        let source = Source::Stream { frames: Some(frames), is_asleep: false, idle };
        Download { source, framing, is_in_chunk: false, sent: 0 }
    }

    pub(super) fn of_pieces(pieces: Pieces) -> Download {
        let framing = Framing::Length(pieces.length);
        let source = Source::Pieces { pieces, window: None, is_reading: false, is_cold: false };
        Download { source, framing, is_in_chunk: false, sent: 0 }
    }

    /// The stream asked to be polled again.
    pub(super) fn handle_wake(&mut self) {
        if let Source::Stream { is_asleep, .. } = &mut self.source {
            *is_asleep = false;
        }
    }

    /// For how long it may have nothing to send before [`write_idle`](Download::write_idle).
    pub(super) fn idle(&self) -> Option<Duration> {
        match &self.source {
            Source::Stream { idle, .. } => idle.map(|(after, _)| after),
            Source::Pieces { .. } => None,
        }
    }

    /// Shows the peer that the response goes on.
    pub(super) fn write_idle(&mut self, output: &mut Output, env: &mut Env<'_>) {
        if let Source::Stream { idle: Some((_, bytes)), .. } = self.source
            && !self.is_in_chunk
            && !output.is_full()
        {
            self.write_chunk(Bytes::from_static(bytes), output, env);
        }
    }

    /// Writes what is there, until there is nothing now or the output is full.
    pub(super) fn pump(&mut self, output: &mut Output, env: &mut Env<'_>) -> Pumped {
        for _ in 0..POLLS_MAX {
            if let Source::Pieces { pieces, .. } = &self.source
                && pieces.list.is_empty()
            {
                return self.finish::<&str, &str>(&[], output, env); // its end leaves with the rest
            }
            if output.is_full() {
                return Pumped::Waiting;
            }
            if mem::take(&mut self.is_in_chunk) {
                output.head(env.pools).extend_from_slice(CHUNK_END);
            }
            let frame = match &mut self.source {
                Source::Stream { is_asleep: true, .. } => return Pumped::Waiting,
                Source::Stream { frames, is_asleep, .. } => {
                    let mut context = Context::from_waker(env.waker);
                    let frames = frames.as_mut().expect("there until it is dropped");
                    let poll = || frames.as_mut().poll_next(&mut context);
                    match guarded("a response's stream", poll) {
                        None => return Pumped::Failed,
                        Some(Poll::Pending) => {
                            *is_asleep = true;
                            return Pumped::Waiting;
                        }
                        Some(Poll::Ready(frame)) => frame.transpose(),
                    }
                }
                Source::Pieces { pieces, .. } => match pieces.list.pop_front() {
                    Some(Piece::Bytes(bytes)) => Ok(Some(Frame::Data(bytes))),
                    Some(file) => {
                        pieces.list.push_front(file); // see `poll_read`
                        return Pumped::Waiting;
                    }
                    None => unreachable!("looked at above"),
                },
            };
            match frame {
                Ok(Some(Frame::Data(chunk))) => {
                    if !self.write_chunk(chunk, output, env) {
                        log::error!("a response's stream gave more than its length");
                        return Pumped::Failed;
                    }
                }
                Ok(Some(Frame::Trailers(fields))) => return self.finish(&fields, output, env),
                Ok(None) => return self.finish::<&str, &str>(&[], output, env),
                Err(error) => {
                    log::error!("a response's stream failed: {error}");
                    return Pumped::Failed;
                }
            }
        }
        env.waker.wake_by_ref(); // others first
        if let Source::Stream { is_asleep, .. } = &mut self.source {
            *is_asleep = true;
        }
        Pumped::Waiting
    }

    /// What to send of a file in place, without reading it.
    pub(super) fn poll_send(&mut self, output: &mut Output) -> Option<Box<FileSend>> {
        let Source::Pieces { pieces, is_reading: false, is_cold: false, .. } = &self.source else {
            return None;
        };
        let Some(Piece::File { file, offset, length }) = pieces.list.front() else { return None };
        if *length < SEND_FILE_BYTES_MIN || !output.is_free() {
            return None;
        }
        Some(Box::new(FileSend {
            head: output.begin_file(),
            head_sent: 0,
            file: Rc::clone(file),
            offset: *offset,
            left: *length,
        }))
    }

    /// What was to be sent has been, or what is left isn't in the page cache and has to be read.
    pub(super) fn handle_file_sent(
        &mut self,
        send: FileSend,
        output: &mut Output,
        env: &mut Env<'_>,
    ) {
        let Source::Pieces { pieces, is_cold, .. } = &mut self.source else {
            unreachable!("a stream sends no file")
        };
        let Some(Piece::File { offset, length, .. }) = pieces.list.front_mut() else {
            unreachable!("the file that was sent from comes first")
        };
        self.sent += send.offset - *offset;
        if let Framing::Length(left) = &mut self.framing {
            *left -= send.offset - *offset;
        }
        (*offset, *length) = (send.offset, send.left);
        *is_cold = send.left > 0;
        if send.left == 0 {
            pieces.list.pop_front();
        }
        let mut head = send.head;
        head.drain(..send.head_sent);
        output.end_file();
        if head.is_empty() {
            env.pools.give_back_buffer(head);
        } else {
            output.give_head(head);
        }
    }

    /// What to read next. It goes behind whatever waits in the output, so that it leaves in the
    /// same send; one window at a time, so that a peer that doesn't read holds no more.
    pub(super) fn poll_read(&mut self, output: &mut Output, env: &mut Env<'_>) -> Option<FileRead> {
        let Source::Pieces { pieces, window, is_reading, .. } = &mut self.source else {
            return None;
        };
        let Some(Piece::File { file, offset, length }) = pieces.list.front() else { return None };
        if *is_reading || !output.is_free() {
            return None;
        }
        let window = window.get_or_insert_with(|| env.pools.open_window());
        let count = (*length).min(window.size() as u64) as u32;
        let buffer = output.take_head(count as usize, env.pools);
        *is_reading = true;
        let file = Rc::clone(file);
        Some(FileRead { file, offset: *offset, buffer, count })
    }

    /// The path of the file that comes next, as far as the kernel knows it.
    #[cold]
    pub(super) fn file_name(&self) -> String {
        let Source::Pieces { pieces, .. } = &self.source else { return "a stream".to_owned() };
        let Some(Piece::File { file, .. }) = pieces.list.front() else {
            return "a file".to_owned();
        };
        let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        link.map_or_else(|_| "a file".to_owned(), |path| path.display().to_string())
    }

    /// The buffer of a read is back, with so many bytes more, or none at the end of the file.
    /// Returns whether the body can go on.
    pub(super) fn handle_read(&mut self, buffer: Vec<u8>, count: u64, output: &mut Output) -> bool {
        output.give_head(buffer);
        let Source::Pieces { pieces, is_reading, is_cold, .. } = &mut self.source else {
            unreachable!("a stream reads nothing")
        };
        (*is_reading, *is_cold) = (false, false); // more was read ahead
        let Some(Piece::File { offset, length, .. }) = pieces.list.front_mut() else {
            unreachable!("the file that was read from comes first")
        };
        self.sent += count;
        *offset += count;
        *length -= count;
        let is_over = *length == 0;
        if is_over {
            pieces.list.pop_front();
        }
        if let Framing::Length(left) = &mut self.framing {
            *left -= count;
        }
        count > 0
    }

    /// Bytes so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the peer can tell from the bytes alone that some are missing.
    pub(super) fn is_delimited(&self) -> bool {
        self.framing != Framing::Close
    }

    /// Whether the chunk fits the promised length.
    fn write_chunk(&mut self, chunk: Bytes, output: &mut Output, env: &mut Env<'_>) -> bool {
        let is_small = chunk.len() <= COPY_BYTES_MAX;
        self.sent += chunk.len() as u64;
        match &mut self.framing {
            _ if chunk.is_empty() => return true,
            Framing::Chunked if is_small => {
                encode_chunk(output.head(env.pools), &chunk);
                return true;
            }
            Framing::Chunked => {
                encode_chunk_head(output.head(env.pools), chunk.len());
                output.set_body(chunk);
                self.is_in_chunk = true;
                return true;
            }
            Framing::Length(left) => match left.checked_sub(chunk.len() as u64) {
                Some(now_left) => *left = now_left,
                None => return false,
            },
            Framing::Close => {}
        }
        if is_small {
            output.head(env.pools).extend_from_slice(&chunk);
        } else {
            output.set_body(chunk);
        }
        true
    }

    fn finish<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        trailers: &[(N, V)],
        output: &mut Output,
        env: &mut Env<'_>,
    ) -> Pumped {
        match self.framing {
            Framing::Chunked if trailers.is_empty() => {
                output.head(env.pools).extend_from_slice(LAST_CHUNK);
            }
            Framing::Chunked => {
                let head = output.head(env.pools);
                if let Err(error) = encode_trailers(head, trailers) {
                    log::error!("a response's trailer is invalid: {error}");
                    return Pumped::Failed;
                }
            }
            Framing::Length(0) | Framing::Close => {}
            Framing::Length(left) => {
                log::error!("a response's stream ended {left} bytes short of its length");
                return Pumped::Failed;
            }
        }
        Pumped::Finished
    }
}

/// The last chunk and the fields behind it (RFC 9112 section 7.1.2), or nothing.
fn encode_trailers<N: AsRef<str>, V: AsRef<str>>(
    head: &mut Vec<u8>,
    trailers: &[(N, V)],
) -> Result<(), EncodeError> {
    /// Fields that say where messages end, or to whom they go (RFC 9110 section 6.5.1).
    const NEVER: [&str; 8] = [
        "transfer-encoding",
        "content-length",
        "connection",
        "host",
        "trailer",
        "content-encoding",
        "content-type",
        "content-range",
    ];
    let begin = head.len();
    head.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        let (name, value) = (name.as_ref(), value.as_ref());
        let encoded = if NEVER.iter().any(|never| never.eq_ignore_ascii_case(name)) {
            Err(EncodeError::FieldInvalid)
        } else {
            encode_field(head, name.as_bytes(), value.as_bytes())
        };
        if let Err(error) = encoded {
            head.truncate(begin);
            return Err(error);
        }
    }
    head.extend_from_slice(b"\r\n");
    Ok(())
}
