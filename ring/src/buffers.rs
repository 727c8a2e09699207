//! Provided-buffer rings: memory that the kernel picks receive buffers from, and the lease by
//! which a picked buffer is read and goes back. Knows nothing of what the bytes mean.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Names a buffer group of one ring, from [`Ring::add_buffers`](crate::Ring::add_buffers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupId(pub(crate) u16);

/// The kernel's bound on a buffer ring (`io_uring_register_buf_ring(3)`).
pub const BUFFERS_MAX: u16 = 1 << 15;

/// io_uring requires the ring's own memory to start on a page.
const PAGE: usize = 4096;

/// One group: `count` buffers of `size` bytes in one block, and the ring that offers them.
pub(crate) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    block: NonNull<u8>,
    count: u16,
    size: u32,
    /// What we have offered so far, modulo 2^16; the kernel reads its copy in the ring.
    tail: Cell<u16>,
    /// Leases not yet given back.
    leased: Cell<u16>,
}

impl BufferRing {
    /// Allocates the group and offers every buffer. `count` is a power of two.
    pub(crate) fn new(count: u16, size: u32) -> BufferRing {
        assert!(count.is_power_of_two() && count <= BUFFERS_MAX, "{count} is no ring size");
        assert!(size > 0, "a buffer holds at least a byte");
        let ring = BufferRing {
            entries: allocate(entries_layout(count)).cast(),
            block: allocate(block_layout(count, size)),
            count,
            size,
            tail: Cell::new(0),
            leased: Cell::new(count),
        };
        (0..count).for_each(|buffer| ring.give_back(buffer));
        ring
    }

    /// Where the kernel finds the ring.
    pub(crate) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn leased(&self) -> u16 {
        self.leased.get()
    }

    fn buffer(&self, buffer: u16) -> NonNull<u8> {
        assert!(buffer < self.count, "buffer {buffer} of {}", self.count);
        // SAFETY: the block holds `count` buffers of `size` bytes, and `buffer` is one of them.
        unsafe { self.block.add(usize::from(buffer) * self.size as usize) }
    }

    /// Offers a buffer to the kernel (again).
    fn give_back(&self, buffer: u16) {
        let tail = self.tail.get();
        // SAFETY: the index is masked to the ring. The kernel reads entries below the tail only,
        // at most `count` of them, and each buffer is offered once at a time, so the entry at the
        // tail is ours. Field writes leave the word that holds the tail itself alone.
        let entry = unsafe { self.entries.add(usize::from(tail & (self.count - 1))).as_mut() };
        entry.set_addr(self.buffer(buffer).as_ptr() as u64);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.tail.set(tail.wrapping_add(1));
        self.leased.set(self.leased.get() - 1);
        // SAFETY: `entries` points to the first entry of a live, zeroed ring, whose reserved
        // word is the tail: aligned, and shared with the kernel as an atomic.
        let shared =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        shared.store(self.tail.get(), Ordering::Release); // the entry first, then its announcement
    }

    /// The simulated kernel's side: takes the oldest offered buffer at `head` and fills it.
    #[cfg(feature = "sim")]
    pub(crate) fn fill(&self, head: u16, bytes: &[u8]) -> Option<(u16, usize)> {
        if head == self.tail.get() {
            return None;
        }
        // SAFETY: `head` is below the tail, so the entry was written by `give_back`.
        let buffer =
            unsafe { self.entries.add(usize::from(head & (self.count - 1))).as_ref() }.bid();
        let count = bytes.len().min(self.size as usize);
        // SAFETY: an offered buffer has no lease, so nobody reads it; `count` fits its size.
        unsafe { self.buffer(buffer).copy_from_nonoverlapping(NonNull::from(bytes).cast(), count) };
        Some((buffer, count))
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts. The kernel no longer uses them: the
        // ring that registered them is gone or has joined its operations (see `Ring::drop`).
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
            dealloc(self.block.as_ptr(), block_layout(self.count, self.size));
        }
    }
}

fn entries_layout(count: u16) -> Layout {
    let bytes = usize::from(count) * size_of::<BufRingEntry>();
    Layout::from_size_align(bytes, PAGE).expect("a buffer ring fits the address space")
}

fn block_layout(count: u16, size: u32) -> Layout {
    let bytes = usize::from(count) * size as usize;
    Layout::from_size_align(bytes, PAGE).expect("a buffer block fits the address space")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: neither layout is of size zero: `count` and `size` are at least one.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

/// A received buffer, on loan: reads as a slice, goes back to its group on drop.
pub struct Lease {
    ring: Rc<BufferRing>,
    buffer: u16,
    len: u32,
}

impl Lease {
    pub(crate) fn new(ring: &Rc<BufferRing>, buffer: u16, len: usize) -> Lease {
        assert!(len <= ring.size as usize, "received more than a buffer holds");
        ring.leased.set(ring.leased.get() + 1);
        Lease { ring: Rc::clone(ring), buffer, len: len as u32 }
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel handed this buffer out and won't touch it until `give_back`, which
        // only our drop calls; `len` bytes of it are initialised (all are: the block was zeroed).
        unsafe {
            NonNull::slice_from_raw_parts(self.ring.buffer(self.buffer), self.len as usize).as_ref()
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ring.give_back(self.buffer);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("buffer", &self.buffer)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
