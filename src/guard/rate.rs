//! How often somebody may ask: the generic cell rate algorithm (ITU-T I.371) over a table that all
//! workers share. Exact, bounded, and without a lock for those who are known. Maps no memory and
//! reads no clock.
//!
//! A client's whole state is one number: the time at which it would have used up nothing (TAT,
//! the theoretical arrival time). A request moves it one interval on; it may not lie further ahead
//! than a whole window. So a word holds a client, and one compare-and-swap is the decision.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Words of a set: one cache line. The first is the lock of whoever adds a client, the others are
/// clients.
const SET_WORDS: usize = 8;

/// Sets, a power of two: 65,536 x 7 = 458,752 clients at a time in 4 MiB, of which only what is
/// used is ever touched.
const SETS: usize = 1 << 16;

/// The low bits of a word are the TAT in microseconds, modulo 2^42: it goes round in 51 days. The
/// high ones tell clients of a set apart; two are taken for one with a probability of 7 in 2^22.
const TAT_BITS: u32 = 42;
const TAT_MASK: u64 = (1 << TAT_BITS) - 1;

/// A TAT that seems to lie further ahead than this lies behind: no window is longer than a day
/// (2^36.3 us), and the clocks of two turns differ by less than that.
const AHEAD_MAX: u64 = 1 << 38;

/// A lock is held for some dozen instructions. One that is still the same after so many
/// yields is of a process that has ended, or was stopped, in between: it is taken over.
const YIELDS_MAX: u32 = 1000;

/// How often somebody may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quota {
    pub(crate) requests: u32,
    pub(crate) window: Duration,
    /// Microseconds in which one request is regained, at least one.
    interval: u64,
    /// Tells it from other quotas.
    salt: u64,
}

impl Quota {
    /// `requests` from 1 on, in a window of up to a day.
    pub(crate) fn new(requests: u32, window: Duration) -> Quota {
        let micros = window.as_micros() as u64;
        let interval = micros.div_ceil(u64::from(requests)).max(1);
        Quota { requests, window, interval, salt: interval << 32 ^ u64::from(requests) }
    }

    /// How far ahead a TAT may lie.
    fn reach(&self) -> u64 {
        self.interval * u64::from(self.requests)
    }
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) is_allowed: bool,
    /// How many more are allowed now.
    pub(crate) remaining: u32,
    /// Microseconds until all are allowed again.
    pub(crate) reset: u64,
    /// Microseconds until one is allowed again; zero while one is.
    pub(crate) retry_after: u64,
}

impl Verdict {
    /// `ahead`: how far the TAT lies ahead, in microseconds, without a refused request.
    fn of(quota: &Quota, is_allowed: bool, ahead: u64) -> Verdict {
        let left = quota.reach().saturating_sub(ahead);
        let missing = quota.interval.saturating_sub(left);
        Verdict {
            is_allowed,
            remaining: (left / quota.interval) as u32,
            reset: ahead,
            retry_after: missing,
        }
    }
}

/// The clients that have asked, of all quotas. A handle: copies name the same memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateTable {
    words: &'static [AtomicU64],
    /// Keeps strangers from choosing their set.
    seed: u64,
}

impl RateTable {
    /// How many zeroed words it takes, in a row that starts at a cache line.
    pub(crate) const WORDS: usize = SETS * SET_WORDS;

    pub(crate) fn new(words: &'static [AtomicU64], seed: u64) -> RateTable {
        assert!(
            words.len().is_multiple_of(SET_WORDS) && (words.len() / SET_WORDS).is_power_of_two()
        );
        RateTable { words, seed }
    }

    /// Somebody asks, at `nanos` of the monotonic clock.
    pub(crate) fn ask(&self, quota: &Quota, key: impl Hash, nanos: u64) -> Verdict {
        let mut hasher = DefaultHasher::new();
        (self.seed ^ quota.salt, key).hash(&mut hasher);
        let hash = hasher.finish();
        let sets = self.words.len() / SET_WORDS;
        let at = (hash as usize & (sets - 1)) * SET_WORDS;
        let set = Set { lock: &self.words[at], clients: &self.words[at + 1..at + SET_WORDS] };
        // Never zero, which is an empty place.
        set.ask(quota, (hash >> TAT_BITS).max(1) << TAT_BITS, nanos / 1000)
    }
}

struct Set {
    lock: &'static AtomicU64,
    clients: &'static [AtomicU64],
}

impl Set {
    fn ask(&self, quota: &Quota, tag: u64, now: u64) -> Verdict {
        loop {
            let Some((place, word)) = self.find(tag) else {
                if self.add(tag, now + quota.interval, now) {
                    return Verdict::of(quota, true, quota.interval);
                }
                continue; // somebody was faster
            };
            let ahead = ahead(word, now);
            let next = ahead + quota.interval;
            if next > quota.reach() {
                return Verdict::of(quota, false, ahead);
            }
            let changed = tag | ((now + next) & TAT_MASK);
            if place.compare_exchange(word, changed, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Verdict::of(quota, true, next);
            }
        }
    }

    fn find(&self, tag: u64) -> Option<(&'static AtomicU64, u64)> {
        let words = self.clients.iter().map(|place| (place, place.load(Ordering::Acquire)));
        words.into_iter().find(|(_, word)| word & !TAT_MASK == tag)
    }

    /// Adds a client whose TAT is `tat`, unless it is there by now. When there is no room, the one
    /// that is limited least is forgotten: one that has regained everything loses nothing by it.
    fn add(&self, tag: u64, tat: u64, now: u64) -> bool {
        let key = self.acquire(now);
        let is_new = self.find(tag).is_none();
        if is_new {
            self.replace_least(tag | (tat & TAT_MASK), now);
        }
        // Fails when it was taken over.
        let _ = self.lock.compare_exchange(key, 0, Ordering::Release, Ordering::Relaxed);
        is_new
    }

    /// Puts a client into the place of the one that is limited least.
    fn replace_least(&self, client: u64, now: u64) {
        loop {
            let words = self.clients.iter().map(|place| (place, place.load(Ordering::Acquire)));
            let (place, word) =
                words.min_by_key(|(_, word)| ahead(*word, now)).expect("a set has places");
            // Fails when that one has just asked.
            if place.compare_exchange(word, client, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Locks the set against others that add, so that no client is added twice. Returns what
    /// unlocks it.
    fn acquire(&self, now: u64) -> u64 {
        let key = u64::from(process::id()) << 32 | (now & 0xffff_ffff) | 1;
        let (mut seen, mut yields) = (0, 0);
        loop {
            let wanted = if yields > YIELDS_MAX { seen } else { 0 };
            match self.lock.compare_exchange(wanted, key, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return key,
                Err(held) if held == seen => yields += 1,
                Err(held) => (seen, yields) = (held, 0),
            }
            thread::yield_now();
        }
    }
}

/// How far a client's TAT lies ahead of `now`, in microseconds.
fn ahead(word: u64, now: u64) -> u64 {
    let ahead = word.wrapping_sub(now) & TAT_MASK;
    if word != 0 && ahead <= AHEAD_MAX { ahead } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn table(sets: usize) -> RateTable {
        let words: Vec<AtomicU64> = (0..sets * SET_WORDS).map(|_| AtomicU64::new(0)).collect();
        RateTable::new(words.leak(), 7)
    }

    fn quota(requests: u32, seconds: u64) -> Quota {
        Quota::new(requests, Duration::from_secs(seconds))
    }

    #[test]
    fn a_quiet_client_has_all_its_requests_at_once_and_regains_them_one_by_one() {
        let (table, quota) = (table(4), quota(3, 60));
        let ask = |second: u64| table.ask(&quota, "a", (1000 + second) * SECOND);
        for remaining in [2, 1, 0] {
            let verdict = ask(0);
            assert!(verdict.is_allowed);
            assert_eq!(verdict.remaining, remaining);
            assert_eq!(verdict.reset, 20_000_000 * (3 - u64::from(remaining)));
        }
        let refused = ask(5);
        assert!(!refused.is_allowed);
        assert_eq!((refused.remaining, refused.retry_after), (0, 15_000_000));
        assert_eq!(ask(19).retry_after, 1_000_000, "a refusal costs nothing");
        assert!(ask(20).is_allowed && !ask(20).is_allowed && ask(40).is_allowed);
        assert_eq!(ask(400).remaining, 2);
        assert!(table.ask(&quota, "b", 1000 * SECOND).is_allowed, "each for itself");
    }

    #[test]
    fn the_clock_of_51_days_goes_round_unnoticed() {
        let quota = quota(2, 60);
        let round = (1_u64 << TAT_BITS) * 1000;
        for begin in [0, 1, round - 30 * SECOND, round - 1, round, 3 * round - 10 * SECOND] {
            let table = table(1);
            let ask = |second: u64| table.ask(&quota, 1, begin + second * SECOND).is_allowed;
            assert!(ask(0) && ask(0) && !ask(0) && !ask(29) && ask(31) && !ask(31), "{begin}");
        }
    }

    #[test]
    fn a_clock_that_lags_behind_another_worker_s_gives_nothing_away() {
        let (table, quota) = (table(1), quota(2, 60));
        let late = 100 * SECOND;
        assert!(table.ask(&quota, 1, late).is_allowed && table.ask(&quota, 1, late).is_allowed);
        assert!(!table.ask(&quota, 1, late - SECOND).is_allowed);
    }

    #[test]
    fn a_full_set_forgets_who_is_limited_least() {
        let (table, quota) = (table(1), quota(10, 100));
        for client in 0..7 {
            (0..=client).for_each(|_| assert!(table.ask(&quota, client, SECOND).is_allowed));
        }
        assert!(table.ask(&quota, 7, SECOND).is_allowed); // in the place of 0, which had asked once
        assert_eq!(table.ask(&quota, 6, SECOND).remaining, 2);
        assert_eq!(table.ask(&quota, 0, SECOND).remaining, 9);
    }

    #[test]
    fn in_parallel_exactly_as_many_are_allowed_as_there_are() {
        // Seven clients in one set of seven: every place is fought for.
        const CLIENTS: u32 = 7;
        for requests in [1, 2, 50] {
            for round in 0..200 {
                let (table, quota) = (table(1), quota(requests, 86_400));
                let allowed = [const { AtomicU32::new(0) }; CLIENTS as usize];
                thread::scope(|scope| {
                    for number in 0..4_u32 {
                        let allowed = &allowed;
                        scope.spawn(move || {
                            for turn in 0..CLIENTS * requests {
                                let client = (turn + number) % CLIENTS;
                                let key = (round, client);
                                if table.ask(&quota, key, 5 * SECOND).is_allowed {
                                    allowed[client as usize].fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        });
                    }
                });
                let allowed = allowed.map(AtomicU32::into_inner);
                assert_eq!(allowed, [requests; CLIENTS as usize], "round {round}");
            }
        }
    }

    #[test]
    fn the_lock_of_a_dead_process_is_taken_over() {
        let (table, quota) = (table(1), quota(1, 60));
        table.words[0].store(u64::MAX, Ordering::Relaxed);
        assert!(
            table.ask(&quota, 1, SECOND).is_allowed && !table.ask(&quota, 1, SECOND).is_allowed
        );
        assert_eq!(table.words[0].load(Ordering::Relaxed), 0);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_the_burst_and_what_was_regained(
            requests in 1_u32..20,
            window in 1_u64..100,
            pauses in prop::collection::vec(0_u64..10_000, 1..300),
        ) {
            let (table, quota) = (table(1), quota(requests, window));
            let (mut now, mut allowed) = (SECOND, Vec::new());
            for pause in pauses {
                now += pause * 1_000_000;
                if table.ask(&quota, 1, now).is_allowed {
                    allowed.push(now);
                }
            }
            for (first, begin) in allowed.iter().enumerate() {
                for (last, end) in allowed.iter().enumerate().skip(first) {
                    let regained = (end - begin) / 1000 / quota.interval;
                    prop_assert!((last - first) as u64 <= u64::from(requests) + regained);
                }
            }
        }
    }
}
