//! What waits to be sent, and that one send at a time is in flight. Knows no HTTP.

use std::mem;
use std::num::NonZeroU64;

use bytes::Bytes;

use super::Pools;

/// Written bytes that may wait before no further request is begun.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most of a shared body that one send takes, so that the write timeout sees progress: with
/// 30 s, a peer has to read 9 KB/s.
pub(crate) const BODY_BYTES_PER_SEND: usize = 256 * 1024;

/// Bytes for one send: written ones, then shared ones.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) head: Vec<u8>,
    /// Never empty.
    pub(crate) body: Option<Bytes>,
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// Responses on their way out, in order. Small ones gather in `head` while a send is in flight.
#[derive(Default, Debug)]
pub(super) struct Output {
    head: Vec<u8>,
    /// Follows `head`; nothing can be written behind it until it has been given out. Never empty.
    body: Option<Bytes>,
    /// Whose ends lie in `head` and `body`; begun, too, while the first is still to be written.
    waiting: Batch,
    /// Whose ends lie in the send that is in flight.
    in_flight: Option<Batch>,
    /// Bytes of memory that it has.
    in_flight_bytes: u32,
    /// A file is being sent behind what waited, and nothing else may be.
    is_sending_file: bool,
}

/// Responses whose ends leave in one send, and when the first of their requests had come.
///
/// In one word, since every connection has two: 16 bits for the number, which 64 KiB of responses
/// with a Date don't exceed, and 48 bits of a clock in units of 16 ns, which goes round in 52 days.
#[derive(Clone, Copy, Debug)]
struct Batch(NonZeroU64);

impl Batch {
    const COUNT: u64 = 0xffff;
    /// The lowest bit of the clock, always set: the clock is as coarse as 32 ns.
    const TICK: NonZeroU64 = NonZeroU64::new(1 << 16).unwrap();

    #[inline]
    fn begin(nanos: u64) -> Batch {
        Batch(Batch::TICK | ((nanos << 12) & !Batch::COUNT))
    }

    #[inline]
    fn count(self) -> u64 {
        self.0.get() & Batch::COUNT
    }

    /// Nanoseconds since it began.
    #[inline]
    fn age(self, nanos: u64) -> u64 {
        let now = Batch::begin(nanos).0.get();
        now.wrapping_sub(self.without_count().0.get()) >> 12
    }

    #[inline]
    fn with_one_more(self) -> Batch {
        debug_assert!(self.count() < Batch::COUNT, "more than there is room for in the output");
        Batch(self.0.saturating_add(1))
    }

    #[inline]
    fn without_count(self) -> Batch {
        Batch(Batch::TICK | (self.0.get() & !Batch::COUNT))
    }
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::begin(0)
    }
}

impl Output {
    /// A request has come, in order. Unless its response joins others that wait, its time begins.
    #[inline]
    pub(super) fn begin_response(&mut self, nanos: u64) {
        if self.waiting.count() == 0 {
            self.waiting = Batch::begin(nanos);
        }
    }

    /// The response is written to its end.
    #[inline]
    pub(super) fn end_response(&mut self) {
        self.waiting = self.waiting.with_one_more();
    }

    /// Where the next bytes are written.
    pub(super) fn head(&mut self, pools: &mut Pools) -> &mut Vec<u8> {
        assert!(self.body.is_none(), "a body is still to come before this");
        if self.head.capacity() == 0 {
            self.head = pools.take_buffer();
        }
        &mut self.head
    }

    /// Whether a part of a file may be read behind what waits: nothing is in flight, so that the
    /// peer has taken the part before, and there is no body to come first.
    pub(super) fn is_free(&self) -> bool {
        self.in_flight.is_none()
            && !self.is_sending_file
            && self.body.is_none()
            && self.head.len() < HEAD_BYTES_MAX
    }

    /// Takes what waits out, to be sent with a file behind it.
    pub(super) fn begin_file(&mut self) -> Vec<u8> {
        self.is_sending_file = true;
        mem::take(&mut self.head)
    }

    /// Something else may be sent.
    pub(super) fn end_file(&mut self) {
        self.is_sending_file = false;
    }

    /// Unless more waits, all that was ended has left: how many responses, and how long ago the
    /// first began.
    pub(super) fn finish_file(&mut self, nanos: u64) -> (u64, u64) {
        if self.is_busy() {
            return (0, 0);
        }
        let later = self.waiting.without_count();
        let sent = mem::replace(&mut self.waiting, later);
        (sent.count(), sent.age(nanos))
    }

    /// Takes what waits out, in a buffer with room for `count` bytes behind it. Until it is
    /// [given back](Output::give_head), nothing may be written here.
    pub(super) fn take_head(&mut self, count: usize, pools: &mut Pools) -> Vec<u8> {
        let head = mem::take(&mut self.head);
        let room = head.len() + count;
        if head.capacity() >= room {
            return head;
        }
        let mut buffer = pools.take_large_buffer(room);
        buffer.extend_from_slice(&head);
        pools.give_back_buffer(head);
        buffer
    }

    /// Gives back what was taken out, with more behind it.
    pub(super) fn give_head(&mut self, head: Vec<u8>) {
        assert!(self.head.is_empty(), "what was written meanwhile would be lost");
        self.head = head;
    }

    /// Lets shared bytes follow what was written.
    pub(super) fn set_body(&mut self, body: Bytes) {
        assert!(self.body.is_none(), "one body at a time");
        self.body = Some(body).filter(|body| !body.is_empty());
    }

    /// Whether anything more has to wait until some of it is sent.
    pub(super) fn is_full(&self) -> bool {
        self.body.is_some() || self.head.len() >= HEAD_BYTES_MAX
    }

    /// Bytes of memory that wait here. Shared ones are somebody else's, too.
    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        let own = self.body.as_ref().filter(|body| body.is_unique());
        let body = own.map_or(0, Bytes::len);
        self.head.capacity() + body + self.in_flight_bytes as usize
    }

    /// Whether something waits or is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
            || self.is_sending_file
            || !self.head.is_empty()
            || self.body.is_some()
    }

    /// Whether something waits that can be sent: nothing is in flight.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        let waits = !self.head.is_empty() || self.body.is_some();
        waits && self.in_flight.is_none() && !self.is_sending_file
    }

    /// Gives out what waits.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Outgoing {
        debug_assert!(self.is_ready(), "two sends at once may be reordered");
        let head = mem::take(&mut self.head);
        self.in_flight_bytes = u32::try_from(head.capacity()).unwrap_or(u32::MAX);
        let later = self.waiting.without_count();
        let mut ended = mem::replace(&mut self.waiting, later);
        let mut body = self.body.take();
        if let Some(whole) = &mut body
            && whole.len() > BODY_BYTES_PER_SEND
        {
            self.body = Some(whole.split_off(BODY_BYTES_PER_SEND));
            (ended, self.waiting) = (later, ended); // the ends are still to come
        }
        self.in_flight = Some(ended);
        Outgoing { head, body }
    }

    /// The send is over: how many responses ended with it, and how long ago the first began.
    #[inline]
    pub(super) fn finish(&mut self, nanos: u64) -> (u64, u64) {
        let sent = self.in_flight.take().expect("a send was in flight");
        self.in_flight_bytes = 0;
        (sent.count(), sent.age(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_and_knows_its_age_even_when_its_clock_goes_round() {
        for begin in [0, 1, 31, 32, 1_000_000, u64::MAX >> 12, u64::MAX >> 8] {
            for age in [0, 1, 100, 3_600_000_000_000] {
                let mut batch = Batch::begin(begin);
                assert_eq!(batch.count(), 0);
                for _ in 0..1200 {
                    batch = batch.with_one_more();
                }
                assert_eq!(batch.count(), 1200);
                assert!(batch.age(begin + age).abs_diff(age) < 32, "{begin} {age}");
                assert_eq!(batch.without_count().count(), 0);
                assert_eq!(batch.without_count().age(begin + age), batch.age(begin + age));
            }
        }
    }

    #[test]
    fn a_body_in_several_sends_ends_with_the_last() {
        let mut output = Output::default();
        output.begin_response(1_024);
        output.set_body(vec![0; 2 * BODY_BYTES_PER_SEND + 1].into());
        output.end_response();
        for (count, nanos) in [(0, 2_048), (0, 3_072), (1, 4_096)] {
            assert!(output.is_ready());
            assert!(output.take().len() > 0 && !output.is_ready());
            assert_eq!(output.finish(nanos), (count, nanos - 1_024));
        }
        assert!(!output.is_busy());
    }
}
