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

mod drain;
mod message;
mod runtime;
mod sleep;
mod spawn;
mod stream;
mod wake;

pub use drain::{Draining, draining, is_draining, until_draining};
pub use sleep::{Elapsed, Sleep, now_or_never, sleep, timeout};
pub use spawn::{JoinHandle, spawn};
pub use stream::{Reader, Stream, Writer};

pub(crate) use message::{on_message, send_message};
pub(super) use runtime::Runtime;
pub(super) use stream::{ByteCounts, Origin};
pub(super) use wake::{ConnWakers, WakeQueue, Woken};
