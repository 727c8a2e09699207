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
use crate::http::{Request, Response, Status};

/// A response, and the request that it answers, whose memory serves the next one.
pub(crate) struct Answer {
    /// Lost when its handler panicked.
    pub(crate) request: Option<Request>,
    pub(crate) response: Response,
}

/// How far a handler came in one poll.
pub(crate) enum Progress {
    Answered(Answer),
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
        match poll_guarded(|| future.as_mut().resume(context)) {
            Poll::Ready(answer) => Progress::Answered(answer),
            Poll::Pending => Progress::Waiting(self),
        }
    }
}

/// The service of one handler.
pub(crate) fn service(handler: impl Handler) -> Box<dyn Service> {
    let handler = Rc::new(handler);
    let start = move |request: Request| {
        let handler = Rc::clone(&handler);
        async move {
            let response = handler.handle(&request).await;
            Answer { request: Some(request), response }
        }
    };
    Box::new(InPlace { start, place: RefCell::new(None) })
}

/// Starts futures of one type `F`, each in the same place for as long as they are ready at once.
struct InPlace<S, F> {
    start: S,
    place: RefCell<Option<Pin<Box<Option<F>>>>>,
}

impl<S, F> Service for InPlace<S, F>
where
    S: Fn(Request) -> F,
    F: Future<Output = Answer> + 'static,
{
    fn call(&self, request: Request, context: &mut Context<'_>) -> Progress {
        let mut place = self.place.take().unwrap_or_else(|| Box::pin(None));
        let polled = poll_guarded(|| {
            place.set(Some((self.start)(request)));
            place.as_mut().resume(context)
        });
        match polled {
            Poll::Ready(answer) => {
                if guarded("dropping a handler's future", || place.set(None)).is_some() {
                    self.place.replace(Some(place));
                }
                Progress::Answered(answer)
            }
            Poll::Pending => Progress::Waiting(Task(Some(place))),
        }
    }
}

/// A future in a place that may be empty.
trait Resume {
    fn resume(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer>;
}

impl<F: Future<Output = Answer>> Resume for Option<F> {
    fn resume(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        self.as_pin_mut().expect("a started future lies in its place").poll(context)
    }
}

/// Turns a panic into a 500. What panicked is never polled again.
fn poll_guarded(poll: impl FnOnce() -> Poll<Answer>) -> Poll<Answer> {
    guarded("a handler", poll).unwrap_or_else(|| {
        let response = Response::plain(Status::INTERNAL_SERVER_ERROR);
        Poll::Ready(Answer { request: None, response })
    })
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
