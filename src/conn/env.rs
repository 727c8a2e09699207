//! What a connection borrows from its worker for the length of one call: settings, the time,
//! memory. Owns nothing of any connection.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use super::DRAIN_GRACE;
use crate::app::Service;
use crate::figures::Figures;
use crate::guard::Guard;
use crate::http::{BodyLimits, RequestPool};
use crate::proto::h1::HeadLimits;

/// Limits and timeouts of every connection.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) head: HeadLimits,
    pub(crate) body: BodyLimits,
    /// From a head's first byte (or the accepting) to its last.
    pub(crate) head_timeout: Duration,
    /// Between requests.
    pub(crate) idle_timeout: Duration,
    /// Between two arrivals of a body.
    pub(crate) body_timeout: Duration,
    /// Between two signs that the peer reads.
    pub(crate) write_timeout: Duration,
    /// From a request's head to the begin of its response. Counts where there is a record.
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) requests_per_connection: u32,
    /// Bytes a second; zero is no minimum.
    pub(crate) receive_rate_min: u32,
    pub(crate) send_rate_min: u32,
    /// Whether responses tell the request's id. Counts where there is a record.
    pub(crate) has_request_id: bool,
}

/// A worker's surroundings, as a connection may use them.
pub(crate) struct Env<'a> {
    pub(crate) now: Instant,
    /// The same in nanoseconds, as the figures have it.
    pub(crate) nanos: u64,
    pub(crate) settings: &'a Settings,
    pub(crate) service: &'a dyn Service,
    /// Wakes this connection.
    pub(crate) waker: &'a Waker,
    pub(crate) date: &'a DateField,
    pub(crate) pools: &'a mut Pools,
    pub(crate) guard: &'a mut Guard,
    pub(crate) figures: &'a Figures,
    pub(crate) draining: Draining,
}

/// Whether, and how, a worker leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Draining {
    No,
    /// Nobody takes over: answers say `Connection: close`.
    Closing,
    /// Somebody takes over what idles.
    HandingOver,
}

impl Settings {
    /// Settings that allow much, of the time and of everything else.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Settings {
        Settings::generous(HeadLimits::default(), Duration::from_secs(60))
    }

    /// Every timeout is `timeout`, and there are no further limits.
    pub(crate) fn generous(head: HeadLimits, timeout: Duration) -> Settings {
        Settings {
            head,
            body: BodyLimits { bytes_max: 1 << 20, collected_bytes_max: 1 << 20 },
            head_timeout: timeout,
            idle_timeout: timeout,
            body_timeout: timeout,
            write_timeout: timeout,
            request_timeout: None,
            requests_per_connection: u32::MAX,
            receive_rate_min: 0,
            send_rate_min: 0,
            has_request_id: false,
        }
    }

    /// How long the peer may take to take so many bytes.
    #[inline]
    fn time_to_send(&self, bytes: usize) -> Duration {
        /// What a socket takes at once from anybody who has read what came before, so that nearly
        /// all sends have one deadline, and no alarm before it: `net.ipv4.tcp_wmem` begins with it.
        const SMALL_BYTES: usize = 16 * 1024;
        if bytes <= SMALL_BYTES { self.write_timeout } else { self.time_to_send_much(bytes) }
    }

    fn time_to_send_much(&self, bytes: usize) -> Duration {
        /// On top of what the rate says: a fast path may have a short break.
        const PAUSE: Duration = Duration::from_secs(5);
        let at_rate = time_at(bytes, self.send_rate_min).map(|time| time + PAUSE);
        at_rate.map_or(self.write_timeout, |time| time.min(self.write_timeout))
    }

    /// How much longer a body may take for these bytes of it.
    pub(super) fn time_for_received(&self, bytes: usize) -> Duration {
        time_at(bytes, self.receive_rate_min).unwrap_or(self.body_timeout)
    }
}

/// The time that bytes take at a rate, unless that is zero.
fn time_at(bytes: usize, rate: u32) -> Option<Duration> {
    let micros = (bytes as u64).saturating_mul(1_000_000).checked_div(rate.into())?;
    Some(Duration::from_micros(micros))
}

impl Env<'_> {
    /// Whether the worker leaves.
    pub(super) fn is_leaving(&self) -> bool {
        self.draining != Draining::No
    }

    /// When a send of so many bytes that begins now has taken too long.
    #[inline]
    pub(super) fn send_deadline(&self, bytes: usize) -> Instant {
        self.now + self.settings.time_to_send(bytes)
    }

    /// How long a connection may wait for its next request.
    #[inline]
    pub(crate) fn idle_timeout(&self) -> Duration {
        match self.draining {
            Draining::Closing => DRAIN_GRACE,
            Draining::No | Draining::HandingOver => self.settings.idle_timeout,
        }
    }
}

/// Memory that connections pass on to each other.
#[derive(Default, Debug)]
pub(crate) struct Pools {
    pub(crate) requests: RequestPool,
    buffers: Vec<Vec<u8>>,
    /// Of [`Pools::LARGE_BYTES`] each.
    large_buffers: Vec<Vec<u8>>,
    /// Bytes that windows may take now.
    windows: Rc<Cell<usize>>,
}

/// A connection's right to memory for a part of a file, until it is dropped.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    windows: Rc<Cell<usize>>,
}

impl Window {
    /// Bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.windows.set(self.windows.get() - self.size);
    }
}

impl Pools {
    /// Buffers kept: what a busy turn has in flight. Beyond it they go back to the allocator.
    const BUFFERS_MAX: usize = 256;
    /// A small response with its head. Larger ones grow it.
    const BUFFER_BYTES: usize = 1024;
    /// A buffer that has grown beyond this isn't kept: 256 of them are 16 MiB.
    const BUFFER_BYTES_KEPT: usize = 64 * 1024;

    /// What is read of a file at once: fewer enters than with half of it, and it stays in the
    /// second-level cache between being read and being sent.
    const WINDOW_BYTES: usize = 128 * 1024;
    /// What is read at once when all connections together have taken [`Self::WINDOWS_BYTES_MAX`].
    const WINDOW_BYTES_MIN: usize = 16 * 1024;
    /// 256 connections with a full window. Beyond it, each costs the smallest.
    const WINDOWS_BYTES_MAX: usize = 32 * 1024 * 1024;
    /// A window behind the head of a response.
    const LARGE_BYTES: usize = Self::WINDOW_BYTES + 4 * 1024;
    /// 2 MiB of them.
    const LARGE_BUFFERS_MAX: usize = 16;

    /// A window for a connection that begins to send a file.
    pub(super) fn open_window(&mut self) -> Window {
        let taken = self.windows.get();
        let is_much = taken + Self::WINDOW_BYTES > Self::WINDOWS_BYTES_MAX;
        let size = if is_much { Self::WINDOW_BYTES_MIN } else { Self::WINDOW_BYTES };
        self.windows.set(taken + size);
        Window { size, windows: Rc::clone(&self.windows) }
    }

    /// An empty buffer with room for `bytes`.
    pub(super) fn take_large_buffer(&mut self, bytes: usize) -> Vec<u8> {
        if bytes > Self::LARGE_BYTES || bytes <= Self::LARGE_BYTES / 4 {
            return Vec::with_capacity(bytes);
        }
        self.large_buffers.pop().unwrap_or_else(|| Vec::with_capacity(Self::LARGE_BYTES))
    }

    /// An empty buffer with some capacity.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(Self::BUFFER_BYTES))
    }

    pub(crate) fn give_back_buffer(&mut self, mut buffer: Vec<u8>) {
        // The usual first; what has no capacity was never taken.
        let (list, kept_max) = match buffer.capacity() {
            1..=Self::BUFFER_BYTES_KEPT => (&mut self.buffers, Self::BUFFERS_MAX),
            Self::LARGE_BYTES => (&mut self.large_buffers, Self::LARGE_BUFFERS_MAX),
            _ => return,
        };
        if list.len() < kept_max {
            buffer.clear();
            list.push(buffer);
        }
    }
}

/// The status line of success.
const OK_LINE: &[u8] = b"HTTP/1.1 200 OK\r\n";

/// The Date field of this second, ready to be copied.
#[derive(Debug)]
pub(crate) struct DateField {
    /// The status line that most responses have, and the Date field.
    ok_and_date: Vec<u8>,
    /// From when on it is another second.
    stale_at: Instant,
    /// This second, since 1970.
    unix_seconds: u64,
}

impl DateField {
    /// The field for a worker that starts `now`, at the wall clock's `time`.
    pub(crate) fn new(now: Instant, time: SystemTime) -> DateField {
        let mut date = DateField { ok_and_date: Vec::new(), stale_at: now, unix_seconds: 0 };
        date.write(now, time);
        date
    }

    /// Brings it up to date, and tells whether another second has begun. The wall clock is read
    /// at most once a second.
    pub(crate) fn refresh(&mut self, now: Instant, time: impl FnOnce() -> SystemTime) -> bool {
        let is_stale = now >= self.stale_at;
        if is_stale {
            self.write(now, time());
        }
        is_stale
    }

    fn write(&mut self, now: Instant, time: SystemTime) {
        self.ok_and_date.clear();
        self.ok_and_date.extend_from_slice(OK_LINE);
        self.ok_and_date.extend_from_slice(b"Date: ");
        self.ok_and_date.extend_from_slice(httpdate::fmt_http_date(time).as_bytes());
        self.ok_and_date.extend_from_slice(b"\r\n");
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let left = 1_000_000_000 - since_epoch.subsec_nanos();
        self.stale_at = now + Duration::from_nanos(left.into());
        self.unix_seconds = since_epoch.as_secs();
    }

    /// The second that it shows, since 1970.
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.unix_seconds
    }

    /// The whole field line.
    pub(crate) fn line(&self) -> &[u8] {
        &self.ok_and_date[OK_LINE.len()..]
    }

    /// The status line of a 200, and the Date field: how most responses begin, for a whole second.
    pub(crate) fn ok_and_date(&self) -> &[u8] {
        &self.ok_and_date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_changes_with_the_second_and_not_before() {
        let start = Instant::now();
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_600);
        let mut date = DateField::new(start, time);
        assert_eq!(date.line(), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        assert!(!date.refresh(start + Duration::from_millis(399), || unreachable!("same second")));
        let later = Duration::from_millis(400);
        assert!(date.refresh(start + later, || time + later));
        assert_eq!(date.unix_seconds(), 784_111_778);
        assert_eq!(date.line(), b"Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
    }

    #[test]
    fn memory_comes_back_empty_and_only_in_useful_sizes() {
        let mut pools = Pools::default();
        let mut buffer = pools.take_buffer();
        buffer.extend_from_slice(b"old");
        pools.give_back_buffer(buffer);
        assert!(pools.take_buffer().is_empty());
        pools.give_back_buffer(Vec::new());
        pools.give_back_buffer(Vec::with_capacity(1 << 20));
        assert!(pools.buffers.is_empty());
    }
}
