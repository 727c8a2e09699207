//! The proof that settings were checked. Can't be made but by a `validate`, nor changed after it.

use std::fmt::Debug;
use std::ops::{Deref, RangeInclusive};

use super::ConfigError;

/// Settings that have passed their checks; reads like the settings themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checked<T>(T);

impl<T> Checked<T> {
    /// Only for the end of a `validate`.
    pub(super) fn by_validation(settings: T) -> Checked<T> {
        Checked(settings)
    }

    /// Gives the settings back, to be changed and checked again.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Checked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Whether `value` lies in `range`; numbers and durations both read well by their `Debug`.
pub(super) fn within<V: PartialOrd + Copy + Debug>(
    key: &'static str,
    value: V,
    range: RangeInclusive<V>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let range = format!("from {:?} to {:?}", range.start(), range.end());
    Err(ConfigError::OutOfRange { key, value: format!("{value:?}"), range })
}
