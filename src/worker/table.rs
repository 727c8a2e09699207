//! Connections by id. An id has a generation, so that what names a closed connection matches none.

use slab::Slab;

/// Names one connection of this worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ConnId {
    index: u32,
    generation: u32,
}

const _: () = assert!(size_of::<ConnId>() == 8);

impl ConnId {
    /// The id as a number, for an atomic cell.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_bits(bits: u64) -> ConnId {
        ConnId { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// Things with ids, each of its own generation.
pub(super) struct Table<T> {
    slab: Slab<(u32, T)>,
    next_generation: u32,
}

impl<T> Table<T> {
    pub(super) fn new() -> Table<T> {
        Table { slab: Slab::new(), next_generation: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn insert(&mut self, value: T) -> ConnId {
        self.next_generation = self.next_generation.wrapping_add(1);
        let index = self.slab.insert((self.next_generation, value));
        ConnId {
            index: u32::try_from(index).expect("fewer connections than descriptors"),
            generation: self.next_generation,
        }
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&T> {
        let (generation, value) = self.slab.get(id.index as usize)?;
        (*generation == id.generation).then_some(value)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        let (generation, value) = self.slab.get_mut(id.index as usize)?;
        (*generation == id.generation).then_some(value)
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<T> {
        self.get(id)?;
        Some(self.slab.remove(id.index as usize).1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.slab.iter().map(|(index, (generation, value))| {
            (ConnId { index: index as u32, generation: *generation }, value)
        })
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_past_matches_nothing() {
        let mut table = Table::new();
        let first = table.insert("first");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(ConnId::from_bits(second.to_bits())), Some(&"second"));
        assert_eq!(table.ids(), [second]);
    }
}
