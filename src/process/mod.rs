//! What master and worker share: sockets, signals, the channel, the scoreboard, the seat that a
//! worker takes. Decides nothing about either, and runs no loop.

pub(crate) mod accept;
pub(crate) mod activation;
pub(crate) mod channel;
pub(crate) mod clock;
pub(crate) mod cpus;
pub(crate) mod inherit;
mod last_words;
pub(crate) mod listen;
pub(crate) mod log_file;
pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod outbox;
pub(crate) mod parcel;
pub(crate) mod pid_file;
pub(crate) mod privileges;
pub(crate) mod scoreboard;
pub(crate) mod seat;
pub(crate) mod signals;
pub(crate) mod status;
pub(crate) mod steer;
pub(crate) mod sys;
pub(crate) mod system;

pub use activation::ActivationError;
pub use listen::ListenError;
pub(crate) use listen::UNSENT_BYTES_MAX;
pub use log_file::LogFileError;
pub use pid_file::PidFileError;
pub use privileges::PrivilegeError;
pub use scoreboard::State;
pub use status::{Errors, Status, WorkerStatus};
pub(crate) use sys::{set_unsent_bytes_max, untaken_bytes};

/// A worker leaves with this code when it could not start and another try would end the same way;
/// it has logged why. `EX_UNAVAILABLE` of sysexits.h.
pub(crate) const EXIT_CANNOT_START: i32 = 69;

/// A worker leaves with this code when it panicked, as std does it for a main thread.
pub(crate) const EXIT_PANIC: i32 = 101;
