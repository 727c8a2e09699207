//! How many connections each client has open, over all workers: each shows what it has in a table that
//! all share, and adds up what the others show. Without a lock, and what a worker leaves behind that
//! dies doesn't count. Maps no memory, and knows no processes but by their place.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Where all that is shown of one client lies: eight cache lines in a row, so that a client may have
/// connections to as many workers as most machines have. What finds no place isn't shown, and limits
/// its client in that worker alone.
const BUCKET_WORDS: usize = 64;

/// A power of two: 2,048 x 64 = 131,072 pairs of a client and a worker in a MiB.
const BUCKETS: usize = 1 << 11;

/// A word has the number of connections in its low bits, above it the place of the worker that wrote
/// it, and above that what tells clients of a bucket apart: two are taken for one with a probability
/// of 63 in 2^32.
const COUNT_BITS: u32 = 20;
const PLACE_BITS: u32 = 12;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Workers' processes that there may be at a time.
pub(crate) const PLACES_MAX: usize = 1 << PLACE_BITS;

/// What the workers of a pool show. A handle: copies name the same memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientTable {
    words: &'static [AtomicU64],
    /// Keeps strangers from choosing their bucket.
    seed: u64,
}

impl ClientTable {
    /// How many zeroed words it takes.
    pub(crate) const WORDS: usize = BUCKETS * BUCKET_WORDS;

    pub(crate) fn new(words: &'static [AtomicU64], seed: u64) -> ClientTable {
        let buckets = words.len() / BUCKET_WORDS;
        assert!(words.len().is_multiple_of(BUCKET_WORDS) && buckets.is_power_of_two());
        ClientTable { words, seed }
    }

    /// Shows that the worker at `place`, which alone writes what is shown of it, has so many
    /// connections of a client's, and then looks how many the others have: of two that do this at
    /// the same time, one at least sees the other. `is_held` tells whether there is a worker at a
    /// place.
    pub(crate) fn show(
        &self,
        place: usize,
        client: u64,
        count: u32,
        is_held: impl Fn(usize) -> bool,
    ) -> u32 {
        let (bucket, tag) = self.find(client);
        let own = tag | (place as u64) << COUNT_BITS;
        let word = if count == 0 { 0 } else { own | u64::from(count).min(COUNT_MAX) };
        let mut shown = bucket.iter().find(|it| it.load(Relaxed) & !COUNT_MAX == own);
        if shown.is_none() && word != 0 {
            shown = bucket.iter().find(|it| {
                let seen = it.load(Relaxed);
                let is_free = seen == 0 || !is_held(place_of(seen));
                is_free && it.compare_exchange(seen, word, SeqCst, Relaxed).is_ok()
            });
        }
        if let Some(shown) = shown {
            shown.store(word, SeqCst);
        }
        let seen = bucket.iter().map(|it| it.load(SeqCst));
        let others = seen.filter(|seen| {
            seen >> (PLACE_BITS + COUNT_BITS) == tag >> (PLACE_BITS + COUNT_BITS)
                && *seen != 0
                && place_of(*seen) != place
                && is_held(place_of(*seen))
        });
        others.fold(0, |sum, seen| sum.saturating_add((seen & COUNT_MAX) as u32))
    }

    /// Takes back what is shown of a place, by whoever had it before.
    pub(crate) fn forget(&self, place: usize) {
        for word in self.words {
            let seen = word.load(Relaxed);
            if seen != 0 && place_of(seen) == place {
                word.store(0, SeqCst);
            }
        }
    }

    fn find(&self, client: u64) -> (&'static [AtomicU64], u64) {
        let mut hasher = DefaultHasher::new();
        (self.seed, client).hash(&mut hasher);
        let hash = hasher.finish();
        let at = (hash as usize & (self.words.len() / BUCKET_WORDS - 1)) * BUCKET_WORDS;
        let tag = hash >> (PLACE_BITS + COUNT_BITS) << (PLACE_BITS + COUNT_BITS);
        (&self.words[at..at + BUCKET_WORDS], tag)
    }
}

fn place_of(word: u64) -> usize {
    (word >> COUNT_BITS) as usize & (PLACES_MAX - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;

    fn table(buckets: usize) -> ClientTable {
        let words: Vec<AtomicU64> =
            (0..buckets * BUCKET_WORDS).map(|_| AtomicU64::new(0)).collect();
        ClientTable::new(words.leak(), 7)
    }

    #[test]
    fn each_worker_sees_what_the_others_have_and_nothing_of_the_dead() {
        let table = table(4);
        let all = |_| true;
        assert_eq!(table.show(1, 5, 2, all), 0);
        assert_eq!(table.show(2, 5, 1, all), 2);
        assert_eq!(table.show(3, 5, 1, all), 3);
        assert_eq!(table.show(3, 6, 1, all), 0, "another client");
        assert_eq!(table.show(1, 5, 3, all), 2);
        assert_eq!(table.show(2, 5, 1, |place| place != 1), 1, "the first one has died");
        table.forget(1); // and has a successor
        assert_eq!(table.show(2, 5, 0, all), 1);
        assert_eq!(table.show(3, 5, 0, all), 0);
        table.show(3, 6, 0, all);
        assert!(table.words.iter().all(|word| word.load(Relaxed) == 0), "nothing is left behind");
    }

    #[test]
    fn a_full_bucket_takes_what_the_dead_have_left() {
        let table = table(1);
        for place in 0..BUCKET_WORDS {
            table.show(place, 1, 1, |_| true);
        }
        assert_eq!(table.show(70, 2, 1, |_| true), 0);
        assert_eq!(table.show(71, 2, 1, |_| true), 0, "neither is shown");
        assert_eq!(table.show(70, 2, 1, |place| place != 9), 0);
        assert_eq!(table.show(71, 2, 1, |place| place != 9), 1);
    }

    #[test]
    fn in_parallel_never_more_are_open_than_may_be_and_none_is_left() {
        const CLIENTS: u64 = 5;
        const MOST: u32 = 3;
        let table = table(1);
        let open = [const { AtomicU32::new(0) }; CLIENTS as usize];
        let admitted = AtomicU32::new(0);
        thread::scope(|scope| {
            for place in 0..4 {
                let (open, admitted) = (&open, &admitted);
                scope.spawn(move || {
                    let mut own = BTreeMap::<u64, u32>::new();
                    for turn in 0..20_000_u64 {
                        let client = (turn * 7 + place as u64) % CLIENTS;
                        let count = own.entry(client).or_default();
                        *count += 1;
                        if *count + table.show(place, client, *count, |_| true) <= MOST {
                            let now = open[client as usize].fetch_add(1, SeqCst) + 1;
                            assert!(now <= MOST, "{now} connections");
                            admitted.fetch_add(1, SeqCst);
                            open[client as usize].fetch_sub(1, SeqCst);
                        }
                        *count -= 1;
                        table.show(place, client, *count, |_| true);
                    }
                });
            }
        });
        assert!(admitted.into_inner() > 1000);
        assert!(table.words.iter().all(|word| word.load(Relaxed) == 0));
    }
}
