//! Why a load can't be planned, in words for whoever typed it.

use std::fmt;

/// Flags that don't fit, or a file that says nothing usable: what, where, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanError(String);

impl PlanError {
    pub(super) fn new(words: &str) -> PlanError {
        PlanError(words.to_owned())
    }

    pub(super) fn flag(flag: &str, value: &str, why: &str) -> PlanError {
        PlanError(format!("{flag} {value}: {why}"))
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PlanError {}
