//! Generation-checked slots for operations in flight, and the only packer of `user_data`.
//! Knows nothing of what an operation is.

use slab::Slab;

/// Names one operation in flight: a slot and the generation that it had then.
///
/// An id outlives its operation harmlessly: once the operation is complete, its id is stale and
/// matches nothing, even when the slot has been taken again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OpId {
    index: u32,
    generation: u32,
}

const _: () = assert!(size_of::<OpId>() == size_of::<u64>());

impl OpId {
    pub(crate) fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_user_data(user_data: u64) -> OpId {
        OpId { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

/// What is in flight, by [`OpId`].
pub(crate) struct Slots<S> {
    slab: Slab<Slot<S>>,
    /// Counts insertions, so that two that share an index never share a generation
    /// (but for one wrap in 2^32 insertions).
    next_generation: u32,
}

struct Slot<S> {
    generation: u32,
    value: S,
}

impl<S> Slots<S> {
    pub(crate) fn with_capacity(capacity: usize) -> Slots<S> {
        Slots { slab: Slab::with_capacity(capacity), next_generation: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Stores a value; where it lies doesn't move the heap memory that it owns.
    pub(crate) fn insert(&mut self, value: S) -> OpId {
        let generation = self.generation();
        let index = self.slab.insert(Slot { generation, value });
        OpId { index: u32::try_from(index).expect("2^32 operations in flight"), generation }
    }

    /// An id that never matches: for a completion that nobody waits for.
    pub(crate) fn stale_id(&mut self) -> OpId {
        OpId { index: self.slab.vacant_key() as u32, generation: self.generation() }
    }

    /// The id of each.
    pub(crate) fn ids(&self) -> impl Iterator<Item = OpId> {
        let id = |(index, slot): (usize, &Slot<S>)| OpId {
            index: index as u32,
            generation: slot.generation,
        };
        self.slab.iter().map(id)
    }

    pub(crate) fn get_mut(&mut self, id: OpId) -> Option<&mut S> {
        let slot = self.slab.get_mut(id.index as usize)?;
        (slot.generation == id.generation).then_some(&mut slot.value)
    }

    pub(crate) fn remove(&mut self, id: OpId) -> Option<S> {
        self.get_mut(id)?;
        Some(self.slab.remove(id.index as usize).value)
    }

    fn generation(&mut self) -> u32 {
        self.next_generation = self.next_generation.wrapping_add(1);
        self.next_generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_is_a_miss_even_when_its_slot_is_taken_again() {
        let mut slots = Slots::with_capacity(1);
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(first.index, second.index);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
    }

    #[test]
    fn an_id_for_nobody_never_matches() {
        let mut slots = Slots::with_capacity(1);
        let nobody = slots.stale_id();
        assert_eq!(slots.get_mut(nobody), None);
        let next = slots.insert(());
        assert_eq!(nobody.index, next.index);
        assert_eq!(slots.get_mut(nobody), None);
    }

    #[test]
    fn user_data_survives_the_round_trip() {
        for id in [
            OpId { index: 0, generation: 0 },
            OpId { index: u32::MAX, generation: 1 },
            OpId { index: 7, generation: u32::MAX },
        ] {
            assert_eq!(OpId::from_user_data(id.to_user_data()), id);
        }
    }
}
