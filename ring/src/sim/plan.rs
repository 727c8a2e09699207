//! What a simulation may do to its server: a seed, and how often each fault occurs.

/// Everything that a simulated run depends on: the same plan and the same calls give the same
/// completions. Print it when a test fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Decides every random choice of the run.
    pub seed: u64,
    /// What goes wrong, and how often.
    pub faults: Faults,
}

/// Something that real kernels and networks do to a server, though rarely in its tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A send ends with a part of its bytes, in spite of `MSG_WAITALL`.
    ShortSend,
    /// A connection dies: `ECONNRESET` in a receive, `ECONNRESET` or `EPIPE` in a send.
    Reset,
    /// A receive ends with `ENOBUFS` although its group has buffers; what arrived stays.
    NoBuffers,
    /// An accept ends with `EMFILE`; whoever waits in its queue stays there. A message arrives
    /// without some of its descriptors, which are closed.
    NoDescriptors,
    /// A multishot operation ends with a success that announces no further one.
    EarlyEnd,
    /// A completion comes some turns after what it tells of.
    Late,
    /// Completions of independent operations change places.
    Reordered,
    /// Bytes of a client arrive in pieces, down to single ones; a file gives a part of what it has.
    Split,
    /// A cancellation and its target cross: either may seem to have won.
    CancelRace,
}

impl Fault {
    /// Each of them.
    pub const EACH: [Fault; 9] = [
        Fault::ShortSend,
        Fault::Reset,
        Fault::NoBuffers,
        Fault::NoDescriptors,
        Fault::EarlyEnd,
        Fault::Late,
        Fault::Reordered,
        Fault::Split,
        Fault::CancelRace,
    ];
}

/// How often each [`Fault`] occurs, per mille of its opportunities.
///
/// ```
/// use uring_ring::sim::{Fault, Faults};
///
/// const CALM_BUT_SPLIT: Faults = Faults::NONE.with(Fault::Split, 500);
/// assert_eq!(CALM_BUT_SPLIT.per_mille(Fault::Split), 500);
/// assert_eq!(CALM_BUT_SPLIT.per_mille(Fault::Reset), 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults([u16; Fault::EACH.len()]);

impl Faults {
    /// A world where everything works at once.
    pub const NONE: Faults = Faults([0; Fault::EACH.len()]);

    /// Everything goes wrong now and then; a run of some hundred operations sees most of it, and
    /// most of its connections survive.
    pub const ALL: Faults = Faults::NONE
        .with(Fault::ShortSend, 100)
        .with(Fault::Reset, 10)
        .with(Fault::NoBuffers, 50)
        .with(Fault::NoDescriptors, 50)
        .with(Fault::EarlyEnd, 100)
        .with(Fault::Late, 150)
        .with(Fault::Reordered, 200)
        .with(Fault::Split, 500)
        .with(Fault::CancelRace, 200);

    /// The same, but for one fault. A thousand is every time: a server need not get anywhere then.
    #[must_use]
    pub const fn with(mut self, fault: Fault, per_mille: u16) -> Faults {
        assert!(per_mille <= 1000, "a probability is at most 1000 per mille");
        self.0[fault as usize] = per_mille;
        self
    }

    /// How often `fault` occurs.
    pub const fn per_mille(self, fault: Fault) -> u16 {
        self.0[fault as usize]
    }
}

/// A small generator of reproducible choices (splitmix64). Tests may use it for theirs.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts the sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// True so many times in a thousand. Asking for never costs no bits, so that a plan without
    /// faults doesn't depend on its seed.
    pub fn chance(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < usize::from(per_mille)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut rng = Rng::new(7);
        let mut seen = [0; 10];
        (0..1000).for_each(|_| seen[rng.below(10)] += 1);
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
        assert!((0..100).all(|_| !rng.chance(0) && rng.chance(1000)));
    }

    #[test]
    fn every_fault_has_its_own_place() {
        for (index, fault) in Fault::EACH.into_iter().enumerate() {
            assert_eq!(fault as usize, index);
            let only = Faults::NONE.with(fault, 1);
            assert!(Fault::EACH.iter().all(|&f| only.per_mille(f) == u16::from(f == fault)));
        }
    }
}
