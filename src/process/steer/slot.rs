//! What one slot shows of itself to the program that chooses, and to whoever else looks. Memory
//! that the kernel, the master and the workers share; each value has one writer.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A worker's place: socket `j` of every group. On a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Connections that were sent here; written by the programs alone.
    assigned: AtomicU64,
    /// Of these, what the worker has accepted; written by the worker alone.
    taken: AtomicU64,
    /// What the worker has open; written by the worker alone.
    open: AtomicU64,
    /// Not zero: choose another one; written by the master alone.
    away: AtomicU64,
}

const _: () = assert!(size_of::<Slot>() == 64);

/// Where the program finds the values.
impl Slot {
    pub(super) const ASSIGNED: i16 = offset_of!(Slot, assigned) as i16;
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

    /// The worker has accepted `count` more connections from its sockets.
    #[inline]
    pub(crate) fn take(&self, count: u64) {
        let taken = self.taken.load(Relaxed).wrapping_add(count);
        self.taken.store(taken, Relaxed); // one writer: no bus lock, as `fetch_add` would take
    }

    /// Whether new connections shall go elsewhere, as long as there is an elsewhere.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.away.store(u64::from(is_away), Relaxed);
    }

    /// Connections that were sent here and not accepted yet: in the handshake, in the queue, or
    /// given up meanwhile.
    pub(crate) fn pending(&self) -> u64 {
        self.assigned().saturating_sub(self.taken.load(Relaxed))
    }

    /// Takes what is pending for accepted, and so forgets handshakes that never came to their end.
    /// For the worker, or for the master while there is no worker.
    pub(crate) fn forgive_pending(&self) {
        self.taken.store(self.assigned(), Relaxed);
    }

    /// Connections that were ever sent here.
    pub(crate) fn assigned(&self) -> u64 {
        self.assigned.load(Relaxed)
    }
}
