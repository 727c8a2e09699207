//! Handlers, how they are run, and the apps that come with the server. Knows no connections.

pub mod coding;
#[cfg(feature = "compression")]
pub mod compress;
pub mod demo;
pub mod files;
mod inbox;
mod service;

use std::future::Future;

use crate::http::{IntoResponse, Request, Response};

pub(crate) use inbox::Inbox;
pub use inbox::Ticket;
pub(crate) use service::{Progress, Service, Task, guarded, service};

/// Answers requests. Lives in one worker and never moves to another thread, so its state may be
/// `!Send`: an `Rc`, a `RefCell`, a connection of the worker's own.
///
/// Any `async` closure of a request is a handler:
///
/// ```
/// use std::cell::Cell;
/// use uring_pool::{Handler, Request, Response};
///
/// fn counting() -> impl Handler {
///     let visits = Cell::new(0);
///     async move |request: &Request| {
///         visits.set(visits.get() + 1);
///         Response::text(format!("visit {} to {}", visits.get(), request.path()))
///     }
/// }
/// ```
///
/// A handler that is ready when it is first polled costs no allocation. One that waits keeps its
/// connection waiting, and no other. When the connection breaks, its future is dropped; when the
/// client has only closed its own side, after `timeouts.write`. A panic answers 500 and costs that
/// request alone.
pub trait Handler: 'static {
    /// Answers one request.
    fn handle(&self, request: &Request) -> impl Future<Output = Response>;
}

impl<F, R> Handler for F
where
    F: AsyncFn(&Request) -> R + 'static,
    R: IntoResponse,
{
    async fn handle(&self, request: &Request) -> Response {
        self(request).await.into_response()
    }
}
