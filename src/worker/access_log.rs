//! Lines of the access log to their file, through the ring: one write at a time, never waited for.
//! Formats nothing, and keeps no line beyond the bound of its [`Lines`].

use std::mem;
use std::time::{Duration, Instant};

use uring_ring::{Errno, Op, OpId, Ring};

use super::Tag;
use crate::guard::{LINE_BYTES_MAX, Lines};
use crate::process::log_file::LogFile;

/// So much is written without waiting for more.
const WRITE_BYTES: usize = 32 << 10;

/// How soon a file that has no room (a full pipe that doesn't wait) is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How long a worker that ends waits for a file that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file, and the write that is in flight.
pub(super) struct AccessLog {
    file: LogFile,
    flush: Duration,
    /// The memory of the next write.
    spare: Vec<u8>,
    in_flight: Option<OpId>,
    /// When the oldest line that waits has waited enough.
    flush_at: Option<Instant>,
    /// What couldn't be written, and when to try again.
    refused: Option<(Vec<u8>, Instant)>,
    /// The last write ended within a line.
    is_torn: bool,
    /// The last write failed: that was said once.
    is_failing: bool,
    /// The path leads elsewhere.
    was_replaced: bool,
    /// When the worker gives up on what waits, since it ends.
    give_up_at: Option<Instant>,
}

impl AccessLog {
    pub(super) fn new(file: LogFile, flush: Duration, buffer_bytes: usize) -> AccessLog {
        AccessLog {
            file,
            flush,
            spare: Vec::with_capacity(buffer_bytes), // untouched memory costs nothing
            in_flight: None,
            flush_at: None,
            refused: None,
            is_torn: false,
            is_failing: false,
            was_replaced: false,
            give_up_at: None,
        }
    }

    /// About once a second: whether the file was renamed or removed.
    pub(super) fn look_for_replacement(&mut self) {
        self.was_replaced = self.was_replaced || self.file.was_replaced();
    }

    /// Writes what is due.
    pub(super) fn handle_time(&mut self, lines: &mut Lines, now: Instant, ring: &mut Ring<Tag>) {
        if self.in_flight.is_some() {
            return;
        }
        if mem::take(&mut self.was_replaced) {
            self.reopen();
        }
        if let Some((buffer, _)) = self.refused.take_if(|(_, at)| *at <= now) {
            return self.write(buffer, ring);
        }
        if self.refused.is_some() || lines.len() == 0 {
            return;
        }
        let flush_at = *self.flush_at.get_or_insert(now + self.flush);
        // A pipe takes so much at once or not at all, and keeps it together.
        let (enough, bytes_max) = if self.file.is_regular() {
            (WRITE_BYTES, usize::MAX)
        } else {
            (LINE_BYTES_MAX, LINE_BYTES_MAX)
        };
        if lines.len() < enough && now < flush_at && self.give_up_at.is_none() {
            return;
        }
        self.flush_at = None;
        let mut buffer = mem::take(&mut self.spare);
        lines.take(bytes_max, &mut buffer);
        if mem::take(&mut self.is_torn) {
            buffer.insert(0, b'\n');
        }
        self.write(buffer, ring);
    }

    fn write(&mut self, buffer: Vec<u8>, ring: &mut Ring<Tag>) {
        let op = Op::Write { fd: self.file.descriptor(), buffer };
        self.in_flight = Some(ring.push(op, Tag::Logged));
    }

    /// A write is complete.
    pub(super) fn on_written(
        &mut self,
        mut buffer: Vec<u8>,
        result: Result<usize, Errno>,
        lines: &mut Lines,
        now: Instant,
        ring: &mut Ring<Tag>,
    ) {
        self.in_flight = None;
        match result {
            Ok(count) if count > 0 && count < buffer.len() => {
                self.is_torn = buffer[count - 1] != b'\n';
                buffer.drain(..count);
                return self.write(buffer, ring);
            }
            Ok(count) if count > 0 => {
                self.is_failing = false;
                self.is_torn = false;
                lines.on_written(&[]);
            }
            Err(Errno::AGAIN) => {
                self.refused = Some((buffer, now + RETRY));
                return;
            }
            Ok(_) | Err(_) => {
                let why = result.err().map_or("nothing was taken".into(), |e| e.to_string());
                let level = if self.is_failing { log::Level::Debug } else { log::Level::Warn };
                let path = self.file.path().display();
                log::log!(level, "lines of the access log {path} are lost: {why}");
                self.is_failing = true;
                lines.on_written(&buffer);
            }
        }
        buffer.clear();
        self.spare = buffer;
        self.handle_time(lines, now, ring);
    }

    fn reopen(&mut self) {
        match LogFile::open(self.file.path()) {
            Ok(file) => (self.file, self.is_torn) = (file, false),
            Err(error) => {
                let level = if self.is_failing { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "{error}; going on with the old one");
                self.is_failing = true;
            }
        }
    }

    /// The worker has nothing else to do before it ends: whether this has nothing to do, either.
    pub(super) fn finish(&mut self, lines: &mut Lines, now: Instant, ring: &mut Ring<Tag>) -> bool {
        let give_up_at = *self.give_up_at.get_or_insert(now + PATIENCE);
        self.handle_time(lines, now, ring);
        if self.in_flight.is_none() && self.refused.is_none() && lines.len() == 0 {
            return true;
        }
        if now >= give_up_at
            && let Some(target) = self.in_flight
        {
            ring.push(Op::Cancel { target }, Tag::Cancel);
        }
        now >= give_up_at
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let retry_at = self.refused.as_ref().map(|(_, at)| *at);
        let due = if self.in_flight.is_some() { None } else { retry_at.or(self.flush_at) };
        [due, self.give_up_at].into_iter().flatten().min()
    }
}
