//! The access log's lines of one worker, on their way to the file: bounded, and never in the way of
//! a request. Writes to no file itself.

use std::mem;
use std::time::SystemTime;

use super::line::{self, Line, Stamp};
use crate::config::LogFormat;

/// Lines that wait.
#[derive(Debug)]
pub(crate) struct Lines {
    format: LogFormat,
    stamp: Stamp,
    /// Whole lines.
    waiting: Vec<u8>,
    bytes_max: usize,
    /// Bytes that were taken out and aren't written yet.
    bytes_out: usize,
    /// So far.
    written: u64,
    dropped: u64,
}

impl Lines {
    /// Lines of up to `bytes_max` bytes together.
    pub(crate) fn new(format: LogFormat, bytes_max: usize, time: SystemTime) -> Lines {
        let mut stamp = Stamp::default();
        stamp.set(time);
        let waiting = Vec::new();
        Lines { format, stamp, waiting, bytes_max, bytes_out: 0, written: 0, dropped: 0 }
    }

    /// Another second has begun.
    pub(crate) fn set_time(&mut self, time: SystemTime) {
        self.stamp.set(time);
    }

    /// Begins a line, for [`end`](Lines::end) later.
    pub(crate) fn begin(&self, line: &Line<'_>, out: &mut Vec<u8>) {
        line.begin(self.format, &self.stamp, out);
    }

    /// Ends a line, and lets it wait; or drops it, when too much waits already.
    pub(crate) fn end(&mut self, begun: &[u8], nanos: u64, is_complete: bool) {
        /// Whatever [`line::end`] appends.
        const END_BYTES_MAX: usize = 80;
        let held = self.waiting.len() + self.bytes_out;
        if held + begun.len() + END_BYTES_MAX > self.bytes_max {
            self.dropped += 1;
            return;
        }
        self.waiting.extend_from_slice(begun);
        line::end(self.format, nanos, is_complete, &mut self.waiting);
        self.written += 1;
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes whole lines of up to `bytes_max` bytes out, into an empty buffer.
    pub(crate) fn take(&mut self, bytes_max: usize, into: &mut Vec<u8>) {
        debug_assert!(into.is_empty() && self.bytes_out == 0, "one write at a time");
        if self.waiting.len() <= bytes_max {
            mem::swap(&mut self.waiting, into);
        } else {
            let end = memchr::memrchr(b'\n', &self.waiting[..bytes_max]).map_or(0, |at| at + 1);
            into.extend_from_slice(&self.waiting[..end]);
            self.waiting.drain(..end);
        }
        self.bytes_out = into.len();
    }

    /// What was taken out has been written, but for these lines, which are lost.
    pub(crate) fn on_written(&mut self, lost: &[u8]) {
        self.bytes_out = 0;
        let lines = memchr::memchr_iter(b'\n', lost).count() as u64;
        self.written -= lines;
        self.dropped += lines;
    }

    /// Lines so far that were, or will be, written; and those that were dropped.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.written, self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line<'_> = Line { client: None, request: None, status: 400, bytes: 0 };

    fn add(lines: &mut Lines) {
        let mut begun = Vec::new();
        lines.begin(&LINE, &mut begun);
        lines.end(&begun, 0, true);
    }

    #[test]
    fn more_than_fits_is_dropped_and_counted_until_there_is_room() {
        let mut lines = Lines::new(LogFormat::Json, 16 << 10, SystemTime::UNIX_EPOCH);
        (0..1000).for_each(|_| add(&mut lines));
        let (written, dropped) = lines.counts();
        assert!(written > 100 && written + dropped == 1000 && lines.len() <= 16 << 10);
        let mut out = Vec::new();
        lines.take(usize::MAX, &mut out);
        assert_eq!(memchr::memchr_iter(b'\n', &out).count() as u64, written);
        add(&mut lines);
        assert_eq!(lines.counts().1, dropped + 1, "what is being written counts as well");
        lines.on_written(&[]);
        add(&mut lines);
        assert_eq!(lines.counts(), (written + 1, dropped + 1));
    }

    #[test]
    fn pieces_are_whole_lines_and_lost_ones_are_counted() {
        let mut lines = Lines::new(LogFormat::Combined, 64 << 10, SystemTime::UNIX_EPOCH);
        (0..200).for_each(|_| add(&mut lines));
        let mut taken = 0;
        while lines.len() > 0 {
            let mut piece = Vec::new();
            lines.take(line::LINE_BYTES_MAX, &mut piece);
            assert!(piece.ends_with(b"\n") && piece.len() <= line::LINE_BYTES_MAX);
            taken += memchr::memchr_iter(b'\n', &piece).count();
            lines.on_written(if taken > 100 { &piece } else { &[] });
        }
        assert_eq!(taken, 200);
        let (written, dropped) = lines.counts();
        assert!(written <= 100 && written + dropped == 200);
    }
}
