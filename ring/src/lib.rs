//! A typed, safe io_uring. Operations go in, completions come out; callers never see a submission
//! entry, a `user_data` word or an `unsafe`. Knows no HTTP, no processes, no timers.
//!
//! # Who owns what
//!
//! The kernel borrows memory for as long as an operation is in flight. So an [`Op`] *owns* what
//! it names: buffers and descriptors move into the ring with [`Ring::push`] and come back in the
//! [`Outcome`]. Receive buffers belong to the ring (in groups that the kernel picks from) and are
//! read through a [`Lease`], which gives the buffer back when it is dropped. Dropping the ring
//! joins what is still in flight.
//!
//! Each operation carries a tag, a small `Copy` value of the caller's own type, that says what
//! its completion means. Ids of operations have generations: what names an operation that is
//! complete matches nothing.
//!
//! # Example
//!
//! ```
//! use std::os::fd::AsRawFd;
//! use uring_ring::{Features, Mask, Op, Outcome, Ring, Setup};
//!
//! #[derive(Clone, Copy, PartialEq, Debug)]
//! enum Tag { Greeting }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let features = Features::probe(Mask::NONE)?;
//! let mut ring = Ring::new(Setup { entries: 8, restricted: true, features })?;
//! ring.enable()?;
//!
//! let (reader, writer) = std::io::pipe()?;
//! std::io::Write::write_all(&mut &writer, b"hello")?;
//! ring.push(Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(16) }, Tag::Greeting);
//! ring.turn(None)?;
//! let completion = ring.poll_completion().unwrap();
//! assert_eq!(completion.tag, Tag::Greeting);
//! let Outcome::Read { buffer, .. } = completion.outcome else { unreachable!() };
//! assert_eq!(buffer, b"hello");
//! # Ok(())
//! # }
//! ```

#![allow(unsafe_code)] // this crate is one of the two rooms for it; each block has its proof

mod address;
mod buffers;
mod errno;
mod kernel;
mod op;
mod passing;
mod probe;
mod residency;
mod ring;
mod scratch;
mod send;
#[cfg(feature = "sim")]
pub mod sim;
mod slots;

pub use address::Address;
pub use buffers::{BUFFERS_MAX, GroupId, Lease};
pub use errno::Errno;
pub use op::{Op, Outcome};
pub use passing::{Arrival, FDS_MAX};
pub use probe::{Features, KERNEL_MIN, Mask, Unavailable, UnknownFeature};
pub use ring::{Completion, Ring, Setup};
pub use send::SendBuffer;
pub use slots::OpId;
