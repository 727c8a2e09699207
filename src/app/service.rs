//! A handler with its futures, behind a type that doesn't show which handler it is: so that
//! connections and workers are compiled once. Knows no connections.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Handler;
use crate::http::{Request, Response};

/// How far a handler came in one poll.
pub(crate) enum Progress {
    /// The request with its response.
    Answered(Request),
    /// A response to a request that somebody else owns.
    Responded(Box<Response>),
    /// It panicked, and its request is lost.
    Panicked,
    /// It will wake the context's waker.
    Waiting(Task),
}

/// Runs handlers.
pub(crate) trait Service {
    /// Starts a handler and polls it once, in a place that is used again when it is ready.
    fn call(&self, request: Request, context: &mut Context<'_>) -> Progress;
}

/// A handler that waits. Dropping it cancels the handler.
pub(crate) struct Task(Option<Pin<Box<dyn Resume>>>);

impl Drop for Task {
    fn drop(&mut self) {
        let future = self.0.take();
        guarded("dropping a handler's future", || drop(future));
    }
}

impl Task {
    pub(crate) fn poll(mut self, context: &mut Context<'_>) -> Progress {
        let future = self.0.as_mut().expect("there until it is dropped");
        match guarded("a handler", || future.as_mut().resume(context)) {
            Some(Poll::Ready(progress)) => progress,
            Some(Poll::Pending) => Progress::Waiting(self),
            None => Progress::Panicked,
        }
    }
}

/// The service of one handler.
pub(crate) fn service(handler: impl Handler) -> Box<dyn Service> {
    let handler = Rc::new(handler);
    in_place(move |mut request: Request| {
        let handler = Rc::clone(&handler);
        async move {
            let response = handler.handle(&request).await;
            request.set_response(response);
            request
        }
    })
}

/// The service that starts such a future for each request.
pub(super) fn in_place<S, F>(start: S) -> Box<dyn Service>
where
    S: Fn(Request) -> F + 'static,
    F: Future<Output: Into<Progress>> + 'static,
{
    Box::new(InPlace { start, place: RefCell::new(None) })
}

impl From<Request> for Progress {
    fn from(request: Request) -> Progress {
        Progress::Answered(request)
    }
}

impl From<Box<Response>> for Progress {
    fn from(response: Box<Response>) -> Progress {
        Progress::Responded(response)
    }
}

/// Starts futures of one type `F`, each in the same place for as long as they are ready at once.
struct InPlace<S, F> {
    start: S,
    place: RefCell<Option<Pin<Box<Option<F>>>>>,
}

impl<S, F> Service for InPlace<S, F>
where
    S: Fn(Request) -> F,
    F: Future<Output: Into<Progress>> + 'static,
{
    fn call(&self, request: Request, context: &mut Context<'_>) -> Progress {
        let mut place = self.place.take().unwrap_or_else(|| Box::pin(None));
        let polled = guarded("a handler", || {
            place.set(Some((self.start)(request)));
            let polled = poll_started(place.as_mut(), context);
            if polled.is_ready() {
                place.set(None); // which drops what the handler holds
            }
            polled
        });
        match polled {
            Some(Poll::Ready(output)) => {
                self.place.replace(Some(place));
                output.into()
            }
            Some(Poll::Pending) => Progress::Waiting(Task(Some(place))),
            None => {
                drop(Task(Some(place))); // guarded, too
                Progress::Panicked
            }
        }
    }
}

/// A future in a place that may be empty.
trait Resume {
    fn resume(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Progress>;
}

impl<F: Future<Output: Into<Progress>>> Resume for Option<F> {
    fn resume(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Progress> {
        poll_started(self, context).map(Into::into)
    }
}

#[inline]
fn poll_started<F: Future>(
    place: Pin<&mut Option<F>>,
    context: &mut Context<'_>,
) -> Poll<F::Output> {
    place.as_pin_mut().expect("a started future lies in its place").poll(context)
}

/// Runs code of a handler's author: `None` when it panicked, which the log tells of `what`.
pub(crate) fn guarded<T>(what: &str, run: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(run));
    result.inspect_err(|panic| log::error!("{what} panicked: {}", message(&**panic))).ok()
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}
