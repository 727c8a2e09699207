//! What can be set, checked once: whoever holds a [`Checked`] value never checks again.
//! Reads no flags, no files and no environment; binds nothing.

mod accept;
mod address;
mod checked;
mod error;
mod guard;
mod network;
mod pool;
mod worker;

pub use accept::{Accept, Balance};
pub use address::{Address, AddressError, UNIX_PATH_BYTES_MAX};
pub use checked::Checked;
pub use error::ConfigError;
pub use guard::{AccessLog, ForwardedHeader, LogFormat, Proxies, RateLimit};
pub use network::{Network, TrustedPeers};
pub use pool::{Identity, PoolConfig, WORKERS_MAX, WorkerCount};
pub use worker::{Buffers, Limits, Recycle, Timeouts, WorkerConfig};
