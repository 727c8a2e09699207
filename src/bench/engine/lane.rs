//! One thread's connections to one place: what is due there, and who could send it. Sends nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;

use super::super::plan::{Choice, Dish, Menu};
use super::super::render::Rendered;
use super::super::schedule::Schedule;
use super::conn::Asked;

/// Requests up to so many bytes in all are copied for each thread, so that threads don't share
/// their reference counts; more than that would push other things out of the cache.
const COPY_BYTES_MAX: usize = 1 << 20;

pub(super) struct Lane {
    /// None in a closed loop.
    pub(super) schedule: Option<Schedule>,
    /// Connections that could take a request, the longest idle first, so that all get their turn.
    pub(super) idle: VecDeque<u32>,
    pub(super) menu: LocalMenu,
}

/// The requests of one place, and which is next.
pub(super) struct LocalMenu {
    pub(super) requests: Arc<[Rendered]>,
    choice: Choice,
    /// Of each dish: its weight with all before it, and which of its requests is next.
    cursors: Vec<(u64, u32)>,
    rng: Rng,
    /// Many times the request, where there is only one: a pipelined batch is a part of it.
    repeated: Option<Bytes>,
}

impl LocalMenu {
    /// For one of `threads` threads: each begins at another row of data.
    pub(super) fn new(
        menu: &Menu,
        thread: usize,
        threads: usize,
        seed: u64,
        depth: u32,
    ) -> LocalMenu {
        let bytes: usize = menu.requests.iter().map(|it| it.keep.len() + it.close.len()).sum();
        let requests = if bytes <= COPY_BYTES_MAX {
            let copy = |it: &Rendered| Rendered {
                keep: Bytes::copy_from_slice(&it.keep),
                close: Bytes::copy_from_slice(&it.close),
                ..*it
            };
            menu.requests.iter().map(copy).collect()
        } else {
            Arc::clone(&menu.requests)
        };
        let mut weight = 0;
        let cursors = match &menu.choice {
            Choice::Weighted(dishes) => dishes
                .iter()
                .map(|dish| {
                    weight += u64::from(dish.weight);
                    (weight, (u64::from(dish.count) * thread as u64 / threads as u64) as u32)
                })
                .collect(),
            Choice::Listed(_) => Vec::new(),
        };
        let repeated = match &requests[..] {
            [only] if depth > 1 => {
                let times = (COPY_BYTES_MAX / only.keep.len()).min(depth as usize);
                Some(only.keep.repeat(times).into())
            }
            _ => None,
        };
        let rng = Rng::with_seed(seed ^ (thread as u64 + 1).rotate_left(32));
        LocalMenu { requests, choice: menu.choice.clone(), cursors, rng, repeated }
    }

    /// The next request: the one of a list that has this index, or any of the others.
    #[inline]
    pub(super) fn pick(&mut self, index: usize) -> u32 {
        match &self.choice {
            Choice::Weighted(dishes) => match &dishes[..] {
                [Dish { first, count: 1, .. }] => *first,
                dishes => {
                    let dish = match self.cursors.last() {
                        Some((all, _)) if dishes.len() > 1 => {
                            let place = self.rng.u64(..*all);
                            self.cursors.partition_point(|(weight, _)| *weight <= place)
                        }
                        _ => 0,
                    };
                    let cursor = &mut self.cursors[dish].1;
                    let row = *cursor;
                    *cursor = if row + 1 >= dishes[dish].count { 0 } else { row + 1 };
                    dishes[dish].first + row
                }
            },
            Choice::Listed(order) => order[index],
        }
    }

    /// There is one request alone, and batches of it are prepared.
    #[inline]
    pub(super) fn has_one(&self) -> bool {
        self.repeated.is_some()
    }

    /// The bytes of these requests; `is_last`: the last one of them says that it is.
    pub(super) fn join(&self, batch: &[Asked], is_last: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for asked in batch {
            for _ in 0..asked.count {
                bytes.extend_from_slice(&self.requests[asked.request as usize].keep);
            }
        }
        if let Some(last) = batch.last().filter(|_| is_last) {
            let last = &self.requests[last.request as usize];
            bytes.truncate(bytes.len() - last.keep.len());
            bytes.extend_from_slice(&last.close);
        }
        bytes
    }

    /// `count` times the only request, if there is only one and so many were prepared.
    #[inline]
    pub(super) fn batch(&self, count: usize) -> Option<Bytes> {
        let bytes = self.requests[0].keep.len() * count;
        let repeated = self.repeated.as_ref()?;
        (bytes <= repeated.len()).then(|| repeated.slice(..bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn menu(choice: Choice, count: u32) -> Menu {
        let request = |n: u32| Rendered {
            keep: Bytes::from(format!("{n}")),
            close: Bytes::new(),
            target: 0,
            is_head: false,
        };
        Menu { requests: (0..count).map(request).collect(), choice }
    }

    #[test]
    fn requests_are_picked_by_weight_and_rows_one_after_another() {
        let dishes =
            vec![Dish { weight: 3, first: 0, count: 1 }, Dish { weight: 1, first: 1, count: 3 }];
        let mut menu = LocalMenu::new(&menu(Choice::Weighted(dishes), 4), 1, 2, 7, 1);
        let picks: Vec<u32> = (0..4000).map(|_| menu.pick(0)).collect();
        let first = picks.iter().filter(|pick| **pick == 0).count();
        assert!(first.abs_diff(3000) < 150, "{first}");
        let rows: Vec<u32> = picks.into_iter().filter(|pick| *pick > 0).take(5).collect();
        assert_eq!(rows, [2, 3, 1, 2, 3], "the second of two threads begins in the middle");
    }

    #[test]
    fn a_list_is_picked_by_its_index_and_one_request_is_prepared_in_batches() {
        let mut listed = LocalMenu::new(&menu(Choice::Listed([1, 0].into()), 2), 0, 1, 7, 4);
        assert_eq!((listed.pick(0), listed.pick(1)), (1, 0));
        assert_eq!(listed.batch(2), None);
        let dishes = vec![Dish { weight: 1, first: 0, count: 1 }];
        let only = LocalMenu::new(&menu(Choice::Weighted(dishes), 1), 0, 1, 7, 4);
        assert_eq!(only.batch(3).as_deref(), Some(&b"000"[..]));
        assert_eq!(only.batch(5), None);
    }
}
