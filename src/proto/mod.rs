//! Wire formats, sans-io: bytes in, values out, and back. Knows no sockets, no clock, no handlers.
//!
//! Nothing here imports the rest of the crate, so every format can be tested, fuzzed and measured
//! alone.

#![forbid(unsafe_code)]

pub mod forwarded;
pub mod h1;
pub mod multipart;
pub mod proxy;
