//! The end of a worker, for those who would wait beyond it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::runtime::Runtime;

/// Whether this worker was told to stop, or to leave for a successor.
///
/// # Panics
///
/// Outside of a worker.
pub fn is_draining() -> bool {
    Runtime::current().is_draining()
}

/// Waits until this worker is told to stop, or to leave for a successor. What is still open
/// `stop_timeout` later is cut off.
///
/// # Panics
///
/// When polled outside of a worker.
pub fn draining() -> Draining {
    Draining { waiting: None }
}

/// Waits for `future`, but not while the worker drains: then it is dropped, and the result is `None`.
/// For streams of events, and connections that wait for their peers.
///
/// ```no_run
/// # use uring_pool::{Stream, rt};
/// # async fn serve(stream: &mut Stream) -> std::io::Result<()> {
/// let mut buffer = [0; 1024];
/// while let Some(count) = rt::until_draining(stream.read(&mut buffer)).await {
///     let count = count?;
///     if count == 0 {
///         break;
///     }
///     stream.write_all(&buffer[..count]).await?;
/// }
/// # Ok(())
/// # }
/// ```
pub async fn until_draining<F: Future>(future: F) -> Option<F::Output> {
    let (mut future, mut drain) = (pin!(future), pin!(draining()));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => drain.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// The future of [`draining`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Draining {
    waiting: Option<(Rc<Runtime>, u64)>,
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let runtime = Runtime::current();
        if runtime.is_draining() {
            return Poll::Ready(());
        }
        let number = self.waiting.take().map(|(_, number)| number);
        let number = runtime.await_drain(number, context.waker().clone());
        self.waiting = Some((runtime, number));
        Poll::Pending
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if let Some((runtime, number)) = &self.waiting {
            runtime.forget_drain(*number);
        }
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Draining")
    }
}
