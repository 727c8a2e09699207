//! Futures of time, and those that take none.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::runtime::Runtime;

/// Waits for `duration`, counted from when it is first polled; for ever when that is later than
/// the clock can tell.
///
/// # Panics
///
/// When polled outside of a worker.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { state: State::New(duration) }
}

/// The future of [`sleep`]. Dropping it costs nothing later.
#[must_use = "a sleep that isn't awaited doesn't wait"]
pub struct Sleep {
    state: State,
}

enum State {
    New(Duration),
    Set { runtime: Rc<Runtime>, key: (Instant, u64) },
    Over,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::New(duration) => {
                let runtime = Runtime::current();
                let Some(at) = runtime.now().checked_add(*duration) else {
                    return Poll::Pending;
                };
                let key = runtime.set_alarm(at, context.waker().clone());
                self.state = State::Set { runtime, key };
                Poll::Pending
            }
            State::Set { runtime, key } if runtime.update_alarm(*key, context.waker()) => {
                Poll::Pending
            }
            _ => {
                self.state = State::Over;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let State::Set { runtime, key } = &self.state {
            runtime.clear_alarm(*key);
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::New(_) => "Sleep(new)",
            State::Set { .. } => "Sleep(waiting)",
            State::Over => "Sleep(over)",
        })
    }
}

/// Waits for `future`, for at most `duration`. When the time is up, the future is dropped.
///
/// # Errors
///
/// [`Elapsed`] when the time was up first.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut alarm) = (pin!(future), pin!(sleep(duration)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => alarm.as_mut().poll(context).map(|()| Err(Elapsed)),
    })
    .await
}

/// The output of a future that is ready when it is polled once. One that isn't is dropped.
///
/// ```
/// use uring_pool::rt;
///
/// assert_eq!(rt::now_or_never(async { 7 }), Some(7));
/// assert_eq!(rt::now_or_never(std::future::pending::<()>()), None);
/// ```
pub fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The time of a [`timeout`] was up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was up")
    }
}

impl std::error::Error for Elapsed {}
