//! What a worker remembers of files: least recently used goes first, within a number of bytes.
//! Reads nothing, and has no clock.

use std::collections::HashMap;
use std::rc::Rc;

use slab::Slab;

/// Values by name, of a bounded weight in total.
#[derive(Debug)]
pub(super) struct Cache<V> {
    by_name: HashMap<Rc<str>, usize>,
    entries: Slab<Entry<V>>,
    /// The most and the least recently used; neither when empty.
    newest: Option<usize>,
    oldest: Option<usize>,
    weight: usize,
    weight_max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    name: Rc<str>,
    value: Rc<V>,
    weight: usize,
    newer: Option<usize>,
    older: Option<usize>,
}

/// What an entry takes beside its name and what its value says: tables, fields, allocations.
const ENTRY_BYTES: usize = 1024;

impl<V> Cache<V> {
    pub(super) fn new(weight_max: usize) -> Cache<V> {
        Cache {
            by_name: HashMap::new(),
            entries: Slab::new(),
            newest: None,
            oldest: None,
            weight: 0,
            weight_max,
        }
    }

    /// The value of this name, which is the most recently used from now on.
    pub(super) fn find(&mut self, name: &str) -> Option<&Rc<V>> {
        let at = *self.by_name.get(name)?;
        if self.newest != Some(at) {
            self.unlink(at);
            self.link(at);
        }
        Some(&self.entries[at].value)
    }

    /// Adds or replaces a value that takes so many bytes. One that is too heavy is forgotten.
    pub(super) fn insert(&mut self, name: &str, value: Rc<V>, bytes: usize) {
        self.remove(name);
        let weight = bytes + name.len() + ENTRY_BYTES;
        if weight > self.weight_max {
            return;
        }
        self.make_room(weight);
        let name: Rc<str> = name.into();
        let entry = Entry { name: Rc::clone(&name), value, weight, newer: None, older: None };
        let at = self.entries.insert(entry);
        self.by_name.insert(name, at);
        self.weight += weight;
        self.link(at);
    }

    /// The value of this name takes so many bytes more, if it is still this one. Returns whether
    /// it is, and still has a place.
    pub(super) fn add_weight(&mut self, name: &str, value: &Rc<V>, bytes: usize) -> bool {
        let Some(&at) = self.by_name.get(name) else { return false };
        let entry = &self.entries[at];
        if !Rc::ptr_eq(&entry.value, value) || entry.weight + bytes > self.weight_max {
            return false;
        }
        self.unlink(at);
        self.link(at); // the last to go
        self.make_room(bytes);
        self.entries[at].weight += bytes;
        self.weight += bytes;
        true
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(at) = self.by_name.remove(name) {
            self.unlink(at);
            self.weight -= self.entries.remove(at).weight;
        }
    }

    fn make_room(&mut self, weight: usize) {
        while self.weight + weight > self.weight_max
            && let Some(oldest) = self.oldest
        {
            let name = Rc::clone(&self.entries[oldest].name);
            self.remove(&name);
        }
    }

    fn link(&mut self, at: usize) {
        (self.entries[at].newer, self.entries[at].older) = (None, self.newest);
        match self.newest {
            Some(newest) => self.entries[newest].newer = Some(at),
            None => self.oldest = Some(at),
        }
        self.newest = Some(at);
    }

    fn unlink(&mut self, at: usize) {
        let Entry { newer, older, .. } = self.entries[at];
        match newer {
            Some(newer) => self.entries[newer].older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.entries[older].newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 10 * ENTRY_BYTES;

    #[test]
    fn what_was_used_last_stays() {
        let mut cache = Cache::new(3 * (ENTRY_BYTES + 10));
        for name in ["a", "b", "c"] {
            cache.insert(name, Rc::new(name), 0);
        }
        assert!(cache.find("a").is_some());
        cache.insert("d", Rc::new("d"), 0);
        assert_eq!(cache.find("b"), None);
        assert!(["a", "c", "d"].into_iter().all(|name| cache.find(name).is_some()));
        let a = Rc::clone(cache.find("a").unwrap());
        assert!(cache.add_weight("a", &a, ENTRY_BYTES));
        assert!(cache.find("c").is_none() && cache.find("a").is_some());
        assert!(!cache.add_weight("a", &Rc::new("a"), 1), "it is another one");
        assert!(!cache.add_weight("a", &a, 1 << 20), "there is no room for that");
        cache.insert("huge", Rc::new("huge"), 1 << 20);
        assert!(cache.find("huge").is_none() && cache.find("a").is_some());
    }

    proptest! {
        /// Compared with a list that does the same slowly.
        #[test]
        fn it_behaves_as_a_list(steps in proptest::collection::vec((0_u8..3, 0_u8..20, 0_usize..3000), 0..300)) {
            let mut cache = Cache::new(MAX);
            let mut list: Vec<(String, usize)> = Vec::new(); // the oldest first
            for (kind, number, bytes) in steps {
                let name = number.to_string();
                match kind {
                    0 => {
                        cache.insert(&name, Rc::new(bytes), bytes);
                        list.retain(|(other, _)| *other != name);
                        let weight = bytes + name.len() + ENTRY_BYTES;
                        if weight <= MAX {
                            while list.iter().map(|(_, weight)| weight).sum::<usize>() + weight > MAX {
                                list.remove(0);
                            }
                            list.push((name, weight));
                        }
                    }
                    1 => {
                        let position = list.iter().position(|(other, _)| *other == name);
                        prop_assert_eq!(cache.find(&name).is_some(), position.is_some());
                        if let Some(position) = position {
                            let entry = list.remove(position);
                            list.push(entry);
                        }
                    }
                    _ => {
                        cache.remove(&name);
                        list.retain(|(other, _)| *other != name);
                    }
                }
                prop_assert_eq!(cache.weight, list.iter().map(|(_, weight)| weight).sum::<usize>());
                prop_assert_eq!(cache.entries.len(), list.len());
                prop_assert_eq!(cache.by_name.len(), list.len());
            }
        }
    }
}
