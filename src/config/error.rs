//! Settings that can't be used, in words for whoever wrote them.

use std::fmt;

use super::{Address, AddressError};

/// A setting that can't be used. Found before anything is bound or forked.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value outside its range.
    OutOfRange {
        /// The setting, as a configuration file spells it.
        key: &'static str,
        /// What was set.
        value: String,
        /// What could have been set.
        range: String,
    },
    /// Text that is no address to listen on.
    Address(AddressError),
    /// Nowhere to listen.
    NoAddress,
    /// The same address twice.
    RepeatedAddress(Address),
}

impl ConfigError {
    /// A name for programs, which stays the same whatever the words become.
    pub fn code(&self) -> &'static str {
        match self {
            ConfigError::OutOfRange { .. } => "CONFIG_OUT_OF_RANGE",
            ConfigError::Address(_) => "CONFIG_ADDRESS",
            ConfigError::NoAddress => "CONFIG_NO_ADDRESS",
            ConfigError::RepeatedAddress(_) => "CONFIG_REPEATED_ADDRESS",
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::OutOfRange { key, value, range } => {
                write!(f, "`{key}` is {value}: it must be {range}")
            }
            ConfigError::Address(error) => error.fmt(f),
            ConfigError::NoAddress => {
                f.write_str("`listen` is empty: give at least one address, such as 127.0.0.1:8080")
            }
            ConfigError::RepeatedAddress(address) => {
                write!(f, "`listen` names {address} more than once")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<AddressError> for ConfigError {
    fn from(error: AddressError) -> ConfigError {
        ConfigError::Address(error)
    }
}
