//! One example of each fault, in words: what a count alone doesn't say.

use super::super::record::Fault;

/// The first of each.
#[derive(Clone, Default, Debug)]
pub(super) struct Examples([Option<String>; Fault::ALL.len()]);

impl Examples {
    /// Notes what happened, if it is the first of its kind.
    #[inline]
    pub(super) fn note(&mut self, fault: Fault, words: impl FnOnce() -> String) {
        self.0[fault as usize].get_or_insert_with(words);
    }

    /// Takes those that this doesn't have.
    pub(super) fn add(&mut self, other: Examples) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            if mine.is_none() {
                *mine = theirs;
            }
        }
    }

    pub(super) fn into_list(self) -> Vec<(Fault, String)> {
        Fault::ALL.into_iter().zip(self.0).filter_map(|(f, words)| Some((f, words?))).collect()
    }
}
