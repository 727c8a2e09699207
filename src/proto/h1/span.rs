//! Where a part of a head lies in its bytes. Holds no bytes and borrows none.

use std::fmt;

/// A part of a head's bytes, as offsets from where the head began.
///
/// Offsets instead of slices: the head can move to another buffer with its spans still true, and a
/// span costs 4 bytes instead of 16. `u16` suffices because
/// [`HeadLimits::head_bytes_max`](super::HeadLimits::head_bytes_max) is one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Start in the low half, end in the high one: a span moves as one register. Two `u16`, stored
    /// one by one and loaded together, stall the load; perf showed it after each call.
    halves: u32,
}

impl Span {
    /// The span of `start..end`, in bytes from the head's begin.
    ///
    /// # Panics
    ///
    /// If `start` lies behind `end`, or `end` beyond `u16::MAX`: no head is that long.
    #[inline]
    pub fn new(start: usize, end: usize) -> Self {
        assert!(start <= end, "a span ends before it starts");
        assert!(end <= 0xffff, "no head is longer than 65,535 bytes");
        Self::pack(start, end)
    }

    /// The bytes of this span. `head` begins where the bytes given to the parser began.
    ///
    /// # Panics
    ///
    /// If `head` is shorter than the head that was parsed.
    #[inline]
    pub fn of<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.start()..self.end()]
    }

    /// Offset of the first byte.
    #[inline]
    pub fn start(&self) -> usize {
        (self.halves & 0xffff) as usize
    }

    /// Offset behind the last byte.
    #[inline]
    pub fn end(&self) -> usize {
        (self.halves >> 16) as usize
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end() - self.start()
    }

    /// Whether it holds no bytes at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start() == self.end()
    }

    #[inline]
    fn pack(start: usize, end: usize) -> Self {
        Self { halves: start as u32 | (end as u32) << 16 }
    }

    /// Where `part`, a piece of `whole`, lies in it.
    #[inline]
    pub(super) fn between(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        debug_assert!(start + part.len() <= whole.len(), "part isn't a piece of whole");
        Self::pack(start, start + part.len())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.start()..self.end()).fmt(f)
    }
}

/// One field line (RFC 9112 section 5): the name as sent, the value without the whitespace around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// A token; compare it without regard to case.
    pub name: Span,
    /// May be empty, and may hold bytes above 0x7f (obs-text), but no control byte other than HTAB.
    pub value: Span,
}

const _: () = assert!(size_of::<Field>() == 8);
