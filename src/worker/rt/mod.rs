//! Async tools for handlers, driven by the worker that they run in: time and tasks. No threads:
//! what is spawned here runs between the requests of this worker.
//!
//! ```no_run
//! use std::time::Duration;
//! use uring_pool::{Request, Response, rt};
//!
//! async fn patient(_: &Request) -> Response {
//!     rt::sleep(Duration::from_millis(20)).await;
//!     Response::text("worth the wait")
//! }
//! ```

mod message;
mod runtime;
mod sleep;
mod spawn;
mod wake;

pub use sleep::{Elapsed, Sleep, now_or_never, sleep, timeout};
pub use spawn::{JoinHandle, spawn};

pub(crate) use message::{on_message, send_message};
pub(super) use runtime::Runtime;
pub(super) use wake::{ConnWakers, WakeQueue, Woken};
