//! What a worker is doing, for whoever finds it dead or deaf: the request lines of its unfinished
//! requests. Costs a ready handler a copy of its line and some stores.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Counter;

/// The handler that is polled in place has slot 0, waiting ones have the others.
const SLOTS: usize = 32;

/// What is kept of a request line: most paths, and a slot of 136 bytes.
const TEXT_WORDS: usize = 15;
const TEXT_BYTES: usize = TEXT_WORDS * size_of::<u64>();

/// The unfinished requests of one worker. All zeroes is an empty one.
pub(crate) struct BlackBox {
    /// The number plus one of the slot whose handler is being polled; zero while none is.
    running: Counter,
    /// A bit for each slot of a waiting request.
    waiting: Counter,
    /// Waiting requests that found no slot.
    more: Counter,
    slots: [Slot; SLOTS],
}

struct Slot {
    /// When the handler was called, in nanoseconds of the monotonic clock.
    began: Counter,
    /// Bytes of the line, though only the first are kept.
    len: Counter,
    text: [AtomicU64; TEXT_WORDS],
}

/// Where a waiting request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Parked(u8);

impl Parked {
    /// Nowhere: no request waits.
    pub(crate) const NONE: Parked = Parked(0);
    /// Among those that found no slot.
    const MORE: Parked = Parked(SLOTS as u8);

    #[inline]
    pub(crate) fn is_some(self) -> bool {
        self != Parked::NONE
    }
}

/// A request without a whole response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InFlight {
    /// The begin of its request line, escaped so that it fits into a line of a log.
    pub(crate) method_and_target: String,
    /// Since its handler was called.
    pub(crate) age: Duration,
    /// Its handler, or the stream of its response, is being polled: whoever hangs, hangs there.
    pub(crate) is_running: bool,
}

/// The requests without a whole response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unfinished {
    pub(crate) requests: Vec<InFlight>,
    /// Waiting ones of which no more is known.
    pub(crate) more: u64,
}

impl BlackBox {
    pub(crate) const fn new() -> BlackBox {
        BlackBox {
            running: Counter::new(),
            waiting: Counter::new(),
            more: Counter::new(),
            slots: [const { Slot::new() }; SLOTS],
        }
    }

    /// A handler is about to be called for the request whose line is the first `len` of `bytes`.
    /// The copy is cheapest where at least 7 bytes follow the line, as in a whole head.
    #[inline(always)]
    pub(crate) fn begin(&self, bytes: &[u8], len: usize, now: u64) {
        let slot = &self.slots[0];
        let words = len.min(TEXT_BYTES).div_ceil(size_of::<u64>());
        let (whole, rest) = bytes.as_chunks();
        let count = words.min(whole.len());
        for number in 0..count {
            slot.text[number].store(u64::from_ne_bytes(whole[number]), Relaxed);
        }
        if whole.len() < words {
            let mut bytes = [0; size_of::<u64>()];
            bytes[..rest.len()].copy_from_slice(rest);
            slot.text[whole.len()].store(u64::from_ne_bytes(bytes), Relaxed);
        }
        slot.len.set(len as u64);
        slot.began.set(now);
        self.running.set(1);
    }

    /// A waiting request's handler is about to be polled again.
    pub(crate) fn resume(&self, parked: Parked) {
        self.running.set(u64::from(parked.0) + 1);
    }

    /// The handler has returned.
    #[inline]
    pub(crate) fn pause(&self) {
        self.running.set(0);
    }

    /// The request that began last has to wait.
    pub(crate) fn park(&self) -> Parked {
        let waiting = self.waiting.read();
        let free = (waiting | 1).trailing_ones() as usize;
        let Some(slot) = self.slots.get(free) else {
            self.more.add(1);
            return Parked::MORE;
        };
        let begun = &self.slots[0];
        for (to, from) in slot.text.iter().zip(&begun.text) {
            to.store(from.load(Relaxed), Relaxed);
        }
        slot.len.set(begun.len.read());
        slot.began.set(begun.began.read());
        self.waiting.set(waiting | 1 << free);
        Parked(free as u8)
    }

    /// A waiting request is over.
    pub(crate) fn release(&self, parked: Parked) {
        match parked {
            Parked::NONE => {}
            Parked::MORE => self.more.set(self.more.read().saturating_sub(1)),
            Parked(slot) => self.waiting.set(self.waiting.read() & !(1 << slot)),
        }
    }

    /// Forgets everything: another process begins.
    pub(crate) fn clear(&self) {
        [&self.running, &self.waiting, &self.more].into_iter().for_each(|it| it.set(0));
    }

    /// What is unfinished at `now`, in nanoseconds of the monotonic clock.
    pub(crate) fn read(&self, now: u64) -> Unfinished {
        let (running, waiting) = (self.running.read(), self.waiting.read());
        let requests = (0_u64..).zip(&self.slots).filter_map(|(number, slot)| {
            let is_running = running == number + 1;
            let is_waiting = number > 0 && waiting >> number & 1 == 1;
            (is_running || is_waiting).then(|| slot.read(now, is_running))
        });
        Unfinished { requests: requests.collect(), more: self.more.read() }
    }
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            began: Counter::new(),
            len: Counter::new(),
            text: [const { AtomicU64::new(0) }; TEXT_WORDS],
        }
    }

    fn read(&self, now: u64, is_running: bool) -> InFlight {
        let len = self.len.read() as usize;
        let words = self.text.iter().map(|word| word.load(Relaxed).to_ne_bytes());
        let bytes: Vec<u8> = words.flatten().take(len).collect();
        let mut method_and_target = bytes.escape_ascii().to_string();
        if len > TEXT_BYTES {
            write!(method_and_target, "... ({len} bytes)").expect("a string takes everything");
        }
        let age = Duration::from_nanos(now.saturating_sub(self.began.read()));
        InFlight { method_and_target, age, is_running }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(black_box: &BlackBox, line: &str, now: u64) {
        let head = format!("{line} HTTP/1.1\r\n");
        black_box.begin(head.as_bytes(), line.len(), now);
    }

    fn lines(black_box: &BlackBox) -> Vec<String> {
        black_box.read(0).requests.into_iter().map(|request| request.method_and_target).collect()
    }

    #[test]
    fn what_runs_is_shown_while_it_runs() {
        let black_box = BlackBox::new();
        begin(&black_box, "GET /a", 1_000);
        let shown = black_box.read(1_500);
        let request = InFlight {
            method_and_target: "GET /a".to_owned(),
            age: Duration::from_nanos(500),
            is_running: true,
        };
        assert_eq!(shown, Unfinished { requests: vec![request], more: 0 });
        black_box.pause();
        assert_eq!(black_box.read(2_000).requests, []);
    }

    #[test]
    fn lines_of_every_length_are_kept_up_to_their_bound() {
        let black_box = BlackBox::new();
        for len in 0..300 {
            let line: String = ('a'..='z').cycle().take(len).collect();
            let cut = if len > TEXT_BYTES { format!("... ({len} bytes)") } else { String::new() };
            let wanted = [format!("{}{cut}", &line[..len.min(TEXT_BYTES)])];
            begin(&black_box, &line, 0);
            assert_eq!(lines(&black_box), wanted);
            black_box.begin(line.as_bytes(), len, 0); // nothing follows it
            assert_eq!(lines(&black_box), wanted);
        }
    }

    #[test]
    fn bytes_that_would_break_a_log_are_escaped() {
        let black_box = BlackBox::new();
        black_box.begin(b"GET /\xff\n\x1b", 8, 0);
        assert_eq!(lines(&black_box), [r"GET /\xff\n\x1b"]);
    }

    #[test]
    fn waiting_requests_keep_their_line_while_others_run() {
        let black_box = BlackBox::new();
        begin(&black_box, "GET /slow", 0);
        let slow = black_box.park();
        black_box.pause();
        begin(&black_box, "GET /fast", 0);
        assert_eq!(lines(&black_box), ["GET /fast", "GET /slow"]);
        black_box.pause();
        assert_eq!(lines(&black_box), ["GET /slow"]);
        black_box.resume(slow);
        assert!(black_box.read(0).requests[0].is_running);
        black_box.pause();
        black_box.release(slow);
        assert_eq!(lines(&black_box), [""; 0]);
    }

    #[test]
    fn more_than_there_is_room_for_are_only_counted() {
        let black_box = BlackBox::new();
        let mut parked: Vec<Parked> = (0..SLOTS + 9)
            .map(|number| {
                begin(&black_box, &format!("GET /{number}"), 0);
                let parked = black_box.park();
                black_box.pause();
                parked
            })
            .collect();
        let shown = black_box.read(0);
        assert_eq!((shown.requests.len(), shown.more), (SLOTS - 1, 10));
        black_box.resume(Parked::MORE);
        assert!(black_box.read(0).requests.iter().all(|request| !request.is_running));
        black_box.pause();
        black_box.release(parked.remove(3));
        begin(&black_box, "GET /late", 0);
        parked.push(black_box.park());
        black_box.pause();
        assert!(lines(&black_box).contains(&"GET /late".to_owned()), "a free slot is used again");
        parked.into_iter().for_each(|parked| black_box.release(parked));
        assert_eq!(black_box.read(0), Unfinished { requests: vec![], more: 0 });
    }

    #[test]
    fn a_cleared_one_is_empty() {
        let black_box = BlackBox::new();
        begin(&black_box, "GET /a", 0);
        black_box.park();
        black_box.clear();
        assert_eq!(black_box.read(0), Unfinished { requests: vec![], more: 0 });
    }
}
