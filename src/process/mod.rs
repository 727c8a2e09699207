//! What master and worker share: sockets, signals, the channel, the scoreboard, the seat that a
//! worker takes. Decides nothing about either, and runs no loop.

#[cfg_attr(not(test), expect(dead_code, reason = "not wired into master and worker yet"))]
pub(crate) mod activation;
pub(crate) mod channel;
pub(crate) mod cpus;
pub(crate) mod listen;
#[cfg_attr(not(test), expect(dead_code, reason = "not wired into master and worker yet"))]
pub(crate) mod notify;
#[cfg_attr(not(test), expect(dead_code, reason = "not wired into master and worker yet"))]
pub(crate) mod pid_file;
#[cfg_attr(not(test), expect(dead_code, reason = "not wired into master and worker yet"))]
pub(crate) mod privileges;
pub(crate) mod scoreboard;
pub(crate) mod seat;
pub(crate) mod signals;
pub(crate) mod status;
pub(crate) mod sys;

pub use listen::ListenError;
pub use scoreboard::State;
pub use status::{Status, WorkerStatus};

/// A worker leaves with this code when it could not start and another try would end the same way;
/// it has logged why. `EX_UNAVAILABLE` of sysexits.h.
pub(crate) const EXIT_CANNOT_START: i32 = 69;

/// A worker leaves with this code when it panicked, as std does it for a main thread.
pub(crate) const EXIT_PANIC: i32 = 101;
