//! Tasks beside the requests.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::runtime::Runtime;

/// Runs `future` on this worker, independent of the request that spawned it. It ends with the
/// worker at the latest: a draining worker doesn't wait for it.
///
/// # Panics
///
/// Outside of a worker.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    let slot = Rc::new(RefCell::new(Slot { output: None, waiting: None }));
    let writer = Writer(Rc::clone(&slot));
    Runtime::current().spawn(Box::pin(async move {
        let output = future.await;
        writer.0.borrow_mut().output = Some(output);
    }));
    JoinHandle { slot }
}

/// The task's end of a slot: gone when the task is over, or has panicked.
struct Writer<T>(Rc<RefCell<Slot<T>>>);

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.borrow_mut().waiting.take() {
            waiting.wake();
        }
    }
}

/// Waits for a spawned task's output. Dropping it lets the task run on.
///
/// `None` when the task panicked.
pub struct JoinHandle<T> {
    slot: Rc<RefCell<Slot<T>>>,
}

struct Slot<T> {
    output: Option<T>,
    waiting: Option<Waker>,
}

impl<T> Future for JoinHandle<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let task_is_gone = Rc::strong_count(&self.slot) == 1;
        let mut slot = self.slot.borrow_mut();
        match slot.output.take() {
            Some(output) => Poll::Ready(Some(output)),
            None if task_is_gone => Poll::Ready(None),
            None => {
                slot.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinHandle")
    }
}
