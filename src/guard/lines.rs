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
    count_out: u64,
    /// Not told yet.
    written: u64,
    dropped: u64,
}

impl Lines {
    /// Lines of up to `bytes_max` bytes together.
    pub(crate) fn new(format: LogFormat, bytes_max: usize, time: SystemTime) -> Lines {
        let mut stamp = Stamp::default();
        stamp.set(time);
        let waiting = Vec::with_capacity(bytes_max); // untouched memory costs nothing
        Lines {
            format,
            stamp,
            waiting,
            bytes_max,
            bytes_out: 0,
            count_out: 0,
            written: 0,
            dropped: 0,
        }
    }

    /// Another second has begun.
    pub(crate) fn set_time(&mut self, time: SystemTime) {
        self.stamp.set(time);
    }

    /// Begins a line, for [`end`](Lines::end) later.
    pub(crate) fn begin(&self, line: &Line<'_>, out: &mut Vec<u8>) {
        line.begin(self.format, &self.stamp, out);
    }

    /// Appends a begun line, with the response's status and the bytes of its body.
    pub(crate) fn middle(&self, begun: &[u8], status: u16, bytes: u64, out: &mut Vec<u8>) {
        line::middle(self.format, begun, status, bytes, out);
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
        self.count_out = memchr::memchr_iter(b'\n', into).count() as u64;
    }

    /// What was taken out has been written, but for these lines, which are lost.
    pub(crate) fn on_written(&mut self, lost: &[u8]) {
        self.bytes_out = 0;
        let lost = memchr::memchr_iter(b'\n', lost).count() as u64;
        self.written += mem::take(&mut self.count_out).saturating_sub(lost);
        self.dropped += lost;
    }

    /// Lines that were given to be written, and those that were dropped, since this was last asked.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (mem::take(&mut self.written), mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line<'_> = Line { client: None, request: None };

    fn add(lines: &mut Lines) {
        let mut begun = Vec::new();
        lines.begin(&LINE, &mut begun);
        lines.end(&begun, 0, true);
    }

    #[test]
    fn more_than_fits_is_dropped_and_counted_until_there_is_room() {
        let mut lines = Lines::new(LogFormat::Json, 16 << 10, SystemTime::UNIX_EPOCH);
        (0..1000).for_each(|_| add(&mut lines));
        let (written, dropped) = lines.take_counts();
        assert!(written == 0 && (100..1000).contains(&dropped) && lines.len() <= 16 << 10);
        let mut out = Vec::new();
        lines.take(usize::MAX, &mut out);
        let fitting = memchr::memchr_iter(b'\n', &out).count() as u64;
        assert_eq!(fitting + dropped, 1000);
        add(&mut lines);
        assert_eq!(lines.take_counts(), (0, 1), "what is being written takes room as well");
        lines.on_written(&[]);
        add(&mut lines);
        assert_eq!(lines.take_counts(), (fitting, 0));
        assert!(lines.len() > 0);
    }

    #[test]
    fn pieces_are_whole_lines_and_lost_ones_are_counted() {
        let mut lines = Lines::new(LogFormat::Combined, 64 << 10, SystemTime::UNIX_EPOCH);
        (0..200).for_each(|_| add(&mut lines));
        let (mut taken, mut lost) = (0, 0);
        while lines.len() > 0 {
            let mut piece = Vec::new();
            lines.take(line::LINE_BYTES_MAX, &mut piece);
            assert!(piece.ends_with(b"\n") && piece.len() <= line::LINE_BYTES_MAX);
            let count = memchr::memchr_iter(b'\n', &piece).count() as u64;
            let is_lost = taken > 100;
            (taken, lost) = (taken + count, lost + if is_lost { count } else { 0 });
            lines.on_written(if is_lost { &piece } else { &[] });
        }
        assert_eq!(lines.take_counts(), (200 - lost, lost));
        assert!(taken == 200 && lost > 0);
    }
}
