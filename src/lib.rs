//! An io_uring-native, pre-fork HTTP server engine for Linux (6.1 and later).
//!
//! A master process binds the sockets and forks one worker a core; each worker is pinned and
//! drives its own completion loop. Handlers are `async` and need no runtime; each worker has its
//! own, made after the fork, so their state may be `!Send`.
//!
//! ```no_run
//! use uring_pool::{Pool, Request, Response};
//!
//! fn main() -> uring_pool::Result<()> {
//!     Pool::bind("127.0.0.1:8080")?
//!         .serve(|_worker| async |req: &Request| Response::text(format!("hello {}", req.path())))
//! }
//! ```
//!
//! # Where things are
//!
//! - [`Pool`] starts it all; [`config`] has what can be set.
//! - [`Handler`] answers a [`Request`] with a [`Response`]; [`app`] has some that are ready.
//! - [`balance`] picks the worker for a connection, where the master accepts.
//! - [`system`] says what this machine offers to a pool.
//! - [`Server`] and [`Ticket`] are for applications that own the loop ([`Pool::drive`]), [`Stream`] for
//!   bare connections ([`Pool::serve_connections`]).
//! - [`rt`] is for handlers that wait: sleep, time-outs, tasks.
//!
//! ARCHITECTURE.md in the repository tells how the parts fit.

pub mod app;
#[cfg(feature = "bench")]
#[doc(hidden)] // the program's own
pub mod bench;
pub mod config;
mod conn;
mod errands;
mod figures;
mod guard;
mod http;
mod master;
#[doc(hidden)] // for benches and fuzzers
pub mod offline;
mod pool;
mod process;
#[doc(hidden)] // likewise
pub mod proto;
mod worker;

pub use app::{Handler, Ticket};
pub use guard::RequestId;
pub use http::{
    Body, BodyError, BodyStream, Event, Frame, IntoResponse, Method, Multipart, Origin, Part,
    Request, Response, Scheme, Status, TempFile, Upgrade, Upgraded, Version,
};
pub use master::{MasterError, PoolHandle, balance};
pub use pool::{
    Error, MessageError, Pool, RateLimited, RateLimiter, Ready, Reload, Result, Worker,
};
pub use process::{
    ActivationError, Errors as PoolErrors, ListenError, LogFileError, PidFileError, PrivilegeError,
    State, Status as PoolStatus, WorkerStatus,
};
pub use uring_ring::{Features, Mask, Unavailable};
pub use worker::rt::Stream;
pub use worker::{ConnMeta, Server, rt};

/// What the machine offers.
pub mod system {
    pub use crate::process::system::Info;
}
