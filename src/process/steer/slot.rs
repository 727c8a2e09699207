//! What one slot shows of itself to the program that chooses, and to whoever else looks. Memory
//! that the kernel, the master and the workers share; each value has one writer.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A worker's place: socket `j` of every group. On a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Connections that were sent here; written by the programs alone.
    assigned: AtomicU64,
    /// When the last one was, in nanoseconds of `CLOCK_MONOTONIC`; written by the programs alone.
    assigned_at: AtomicU64,
    /// Of these, what the worker has accepted; written by the worker, or by the master while there
    /// is no worker.
    taken: AtomicU64,
    /// What the worker has open; likewise.
    open: AtomicU64,
    /// Not zero: choose another one; written by the master alone.
    away: AtomicU64,
}

const _: () = assert!(size_of::<Slot>() == 64);

/// Where the program finds the values.
impl Slot {
    pub(super) const ASSIGNED: i16 = offset_of!(Slot, assigned) as i16;
    pub(super) const ASSIGNED_AT: i16 = offset_of!(Slot, assigned_at) as i16;
    pub(super) const TAKEN: i16 = offset_of!(Slot, taken) as i16;
    pub(super) const OPEN: i16 = offset_of!(Slot, open) as i16;
    pub(super) const AWAY: i16 = offset_of!(Slot, away) as i16;
}

impl Slot {
    /// The worker has `open` connections.
    #[inline]
    pub(crate) fn show(&self, open: u64) {
        self.open.store(open, Relaxed);
    }

    /// The worker has accepted `count` more.
    #[inline]
    pub(super) fn take(&self, count: u64) {
        let taken = self.taken.load(Relaxed).wrapping_add(count);
        self.taken.store(taken, Relaxed); // one writer: no bus lock, as `fetch_add` would take
    }

    /// Whether new connections shall go elsewhere, as long as there is an elsewhere.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.away.store(u64::from(is_away), Relaxed);
    }

    /// Connections that were sent here and not accepted yet: in the handshake, in the queue, or
    /// given up meanwhile.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> u64 {
        self.assigned().saturating_sub(self.taken.load(Relaxed))
    }

    /// Takes what is pending for accepted: it died with a worker, or the queue is known to be empty.
    #[cfg(test)]
    pub(crate) fn forgive_pending(&self) {
        self.taken.store(self.assigned(), Relaxed);
    }

    /// Connections that were ever sent here.
    pub(crate) fn assigned(&self) -> u64 {
        self.assigned.load(Relaxed)
    }
}

/// The count that a worker keeps of what it takes from its slot.
///
/// Not everything that is sent to a slot arrives there (a full queue drops it, a client gives up
/// its handshake, a SYN cookie's answer is sent anew), and not everything that arrives was sent
/// (some comes by hash). So this gives up waiting for what was sent a while ago.
pub(crate) struct Taker {
    slot: &'static Slot,
    /// What had been sent at `since`.
    sent: u64,
    since: Instant,
}

/// How long a connection may take from its SYN to the worker, which accepts all the time. A second
/// is more than any healthy handshake has.
const ARRIVES_WITHIN: Duration = Duration::from_secs(1);

impl Taker {
    /// For a worker that begins: what waits for its slot already is its own to accept.
    pub(crate) fn new(slot: &'static Slot, now: Instant) -> Taker {
        Taker { slot, sent: 0, since: now }
    }

    /// The worker has `open` connections.
    #[inline]
    pub(crate) fn show(&self, open: u64) {
        self.slot.show(open);
    }

    /// The worker has accepted `count` more connections.
    #[inline]
    pub(crate) fn on_accept(&mut self, count: u64, now: Instant) {
        self.slot.take(count);
        if now.duration_since(self.since) >= ARRIVES_WITHIN {
            let (taken, assigned) = (&self.slot.taken, self.slot.assigned());
            taken.store(taken.load(Relaxed).clamp(self.sent, assigned), Relaxed);
            (self.sent, self.since) = (assigned, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A slot whose `assigned` a test may set, as the programs do.
    fn slot() -> &'static Slot {
        Box::leak(Box::new(Slot {
            assigned: AtomicU64::new(0),
            assigned_at: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            open: AtomicU64::new(0),
            away: AtomicU64::new(0),
        }))
    }

    #[test]
    fn what_didnt_arrive_in_a_second_is_not_waited_for() {
        let (slot, start) = (slot(), Instant::now());
        let mut taker = Taker::new(slot, start);
        slot.assigned.store(5, Relaxed);
        taker.on_accept(3, start + SECOND / 2);
        assert_eq!(slot.pending(), 2);
        taker.on_accept(0, start + SECOND); // now it notes that five were sent
        assert_eq!(slot.pending(), 2);
        slot.assigned.store(7, Relaxed);
        taker.on_accept(1, start + SECOND * 3 / 2);
        assert_eq!(slot.pending(), 3);
        taker.on_accept(0, start + SECOND * 2);
        assert_eq!(slot.pending(), 2, "of the five nothing will come any more");
    }

    #[test]
    fn what_came_by_hash_is_no_credit_for_long() {
        let (slot, start) = (slot(), Instant::now());
        let mut taker = Taker::new(slot, start);
        taker.on_accept(4, start);
        slot.assigned.store(1, Relaxed);
        assert_eq!(slot.pending(), 0);
        taker.on_accept(1, start + SECOND);
        slot.assigned.store(2, Relaxed);
        assert_eq!(slot.pending(), 1);
    }

    #[test]
    fn a_successor_takes_over_what_waits() {
        let (slot, start) = (slot(), Instant::now());
        slot.assigned.store(9, Relaxed);
        let mut taker = Taker::new(slot, start);
        taker.on_accept(7, start);
        assert_eq!(slot.pending(), 2);
        taker.on_accept(0, start + SECOND);
        taker.on_accept(0, start + SECOND * 2);
        assert_eq!(slot.pending(), 0, "these died with their clients");
    }
}
