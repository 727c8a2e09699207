//! Operations that futures send their worker's ring on, and what else of the worker they may know:
//! the time. Knows no worker and no handler.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::CString;
use std::future::Future;
use std::os::fd::{OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use slab::Slab;
use uring_ring::{Errno, GroupId, Op, OpId, Outcome, SendBuffer};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Errands>>> = const { RefCell::new(None) };
}

/// One worker's errands.
pub(crate) struct Errands {
    now: Cell<Instant>,
    unix_seconds: Cell<u64>,
    /// Not pushed yet.
    asked: RefCell<VecDeque<(usize, Op)>>,
    slots: RefCell<Slab<Slot>>,
    cache: Cell<CacheCounts>,
}

/// How often a cache had what was asked for, since it was last looked at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct CacheCounts {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

enum Slot {
    /// Nobody has asked for the outcome yet, or this one is to be woken.
    Waiting {
        waker: Option<Waker>,
        pushed: Option<OpId>,
    },
    Done(Outcome),
    /// Nobody will ask: what the outcome owns is dropped when it comes.
    Abandoned,
}

impl Errands {
    pub(crate) fn new(now: Instant) -> Rc<Errands> {
        Rc::new(Errands {
            now: Cell::new(now),
            unix_seconds: Cell::new(0),
            asked: RefCell::default(),
            slots: RefCell::default(),
            cache: Cell::default(),
        })
    }

    /// Makes them those of this thread, until others are. It is `now`, and so many seconds since
    /// 1970.
    pub(crate) fn enter(self: &Rc<Self>, now: Instant, unix_seconds: u64) {
        self.now.set(now);
        self.unix_seconds.set(unix_seconds);
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            if !current.as_ref().is_some_and(|current| Rc::ptr_eq(current, self)) {
                *current = Some(Rc::clone(self));
            }
        });
    }

    /// The next operation to be pushed, and the number that its outcome has to come under.
    pub(crate) fn poll(&self) -> Option<(usize, Op)> {
        self.asked.borrow_mut().pop_front()
    }

    /// One was pushed, as this.
    pub(crate) fn on_pushed(&self, number: usize, id: OpId) {
        if let Some(Slot::Waiting { pushed, .. }) = self.slots.borrow_mut().get_mut(number) {
            *pushed = Some(id);
        }
    }

    /// The outcome of one.
    pub(crate) fn handle_outcome(&self, number: usize, outcome: Outcome) {
        let mut slots = self.slots.borrow_mut();
        let unheard = match std::mem::replace(&mut slots[number], Slot::Done(outcome)) {
            Slot::Waiting { waker, .. } => {
                drop(slots); // a waker may do as it likes
                if let Some(waker) = waker {
                    waker.wake();
                }
                None
            }
            Slot::Abandoned => Some(slots.remove(number)),
            Slot::Done(_) => unreachable!("an operation completes once"),
        };
        drop(unheard);
    }

    /// Takes the counts since the last call.
    pub(crate) fn take_cache_counts(&self) -> CacheCounts {
        self.cache.take()
    }

    fn ask(self: Rc<Self>, op: Op) -> Errand {
        let slot = Slot::Waiting { waker: None, pushed: None };
        let number = self.slots.borrow_mut().insert(slot);
        self.asked.borrow_mut().push_back((number, op));
        Errand { errands: self, number }
    }

    /// Receives once, as [`Op::Recv`].
    pub(crate) fn receive(self: &Rc<Self>, fd: RawFd, group: GroupId) -> Errand {
        Rc::clone(self).ask(Op::Recv { fd, group, multishot: false })
    }

    /// Sends all of it, as [`Op::Send`].
    pub(crate) fn send(self: &Rc<Self>, fd: RawFd, buffer: SendBuffer) -> Errand {
        Rc::clone(self).ask(Op::Send { fd, buffer })
    }

    /// Closes a socket, whatever is in flight on it.
    pub(crate) fn close(self: &Rc<Self>, fd: OwnedFd) {
        drop(Rc::clone(self).ask(Op::Close { fd, cancel: true }));
    }
}

/// The errands of this thread.
fn current<T>(then: impl FnOnce(&Rc<Errands>) -> T) -> T {
    CURRENT.with(|current| {
        then(
            current.borrow().as_ref().expect("files are served inside of a worker: by its handler"),
        )
    })
}

/// The turn's time.
pub(crate) fn now() -> Instant {
    current(|errands| errands.now.get())
}

/// The same in seconds since 1970, as the Date of a response says it.
pub(crate) fn unix_seconds() -> u64 {
    current(|errands| errands.unix_seconds.get())
}

/// Counts whether a cache had what was asked for.
pub(crate) fn count_cache(is_hit: bool) {
    current(|errands| {
        let CacheCounts { hits, misses } = errands.cache.get();
        let (hit, miss) = (u64::from(is_hit), u64::from(!is_hit));
        errands.cache.set(CacheCounts { hits: hits + hit, misses: misses + miss });
    });
}

/// Opens a file below a directory; see [`Op::Open`]. Begins at once.
pub(crate) fn open(
    directory: &Rc<OwnedFd>,
    path: CString,
    flags: i32,
    resolve: u64,
) -> impl Future<Output = Result<OwnedFd, Errno>> + use<> {
    let op = Op::Open { directory: Rc::clone(directory), path, flags, resolve };
    let errand = current(Rc::clone).ask(op);
    async {
        match errand.await {
            Outcome::Opened(result) => result,
            other => unreachable!("an open completed as {other:?}"),
        }
    }
}

/// Reads a part of a file behind what the buffer holds; see [`Op::ReadAt`]. Begins at once.
pub(crate) fn read_at(
    file: &Rc<OwnedFd>,
    offset: u64,
    buffer: Vec<u8>,
    count: u32,
) -> impl Future<Output = (Vec<u8>, Result<usize, Errno>)> + use<> {
    let op = Op::ReadAt { file: Rc::clone(file), offset, buffer, count };
    let errand = current(Rc::clone).ask(op);
    async {
        match errand.await {
            Outcome::ReadAt { buffer, result } => (buffer, result),
            other => unreachable!("a read completed as {other:?}"),
        }
    }
}

/// An operation under way. Dropping it lets it run on, and drops what it brings.
pub(crate) struct Errand {
    errands: Rc<Errands>,
    number: usize,
}

impl Errand {
    /// Has a receive end soon; its outcome comes all the same.
    pub(crate) fn cancel(&self) {
        let slots = self.errands.slots.borrow();
        let target = match slots[self.number] {
            Slot::Waiting { pushed: Some(target), .. } => target,
            Slot::Waiting { pushed: None, .. } => {
                drop(slots);
                self.errands.asked.borrow_mut().retain(|(number, _)| *number != self.number);
                let outcome = Outcome::Received(Err(Errno::CANCELED));
                return self.errands.handle_outcome(self.number, outcome);
            }
            Slot::Done(_) | Slot::Abandoned => return,
        };
        drop(slots);
        drop(Rc::clone(&self.errands).ask(Op::Cancel { target }));
    }
}

impl Future for Errand {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut slots = self.errands.slots.borrow_mut();
        match std::mem::replace(&mut slots[self.number], Slot::Abandoned) {
            Slot::Done(outcome) => Poll::Ready(outcome), // `drop` removes the slot
            Slot::Waiting { pushed, .. } => {
                let waker = Some(context.waker().clone());
                slots[self.number] = Slot::Waiting { waker, pushed };
                Poll::Pending
            }
            Slot::Abandoned => unreachable!("polled after it was ready"),
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        let mut slots = self.errands.slots.borrow_mut();
        let unheard = match &mut slots[self.number] {
            waiting @ Slot::Waiting { .. } => {
                *waiting = Slot::Abandoned;
                None
            }
            Slot::Done(_) | Slot::Abandoned => Some(slots.remove(self.number)),
        };
        drop(slots); // closing a descriptor is nobody else's business
        drop(unheard);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::task::Waker;

    use super::*;

    fn entered() -> (Rc<Errands>, Rc<OwnedFd>) {
        let errands = Errands::new(Instant::now());
        errands.enter(Instant::now(), 7);
        (errands, Rc::new(File::open("/").unwrap().into()))
    }

    #[test]
    fn what_was_asked_for_is_answered_to_who_asked() {
        let (errands, directory) = entered();
        let [first, second] = [c"a", c"b"].map(|path| open(&directory, path.into(), 0, 0));
        let (mut first, mut second) = (Box::pin(first), Box::pin(second));
        let (number, Op::Open { path, .. }) = errands.poll().unwrap() else { panic!() };
        assert_eq!(path.as_c_str(), c"a");
        let (other, _) = errands.poll().unwrap();
        assert!(errands.poll().is_none());
        let mut context = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut context).is_pending());
        errands.handle_outcome(other, Outcome::Opened(Err(Errno::AGAIN)));
        assert!(first.as_mut().poll(&mut context).is_pending());
        let Poll::Ready(Err(Errno::AGAIN)) = second.as_mut().poll(&mut context) else { panic!() };
        errands.handle_outcome(number, Outcome::Opened(Err(Errno::NOT_FOUND)));
        assert!(first.as_mut().poll(&mut context).is_ready());
        drop((first, second));
        assert!(errands.slots.borrow().is_empty());
        assert_eq!(unix_seconds(), 7);
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_closed_when_it_comes() {
        let (errands, directory) = entered();
        drop(open(&directory, c"a".into(), 0, 0));
        let (number, _) = errands.poll().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        errands.handle_outcome(number, Outcome::Opened(Ok(writer.into())));
        assert!(errands.slots.borrow().is_empty());
        assert_eq!(std::io::Read::read(&mut &reader, &mut [0]).unwrap(), 0, "it is closed");
    }

    #[test]
    fn counts_are_taken_once() {
        let (errands, _) = entered();
        [true, true, false].into_iter().for_each(count_cache);
        assert_eq!(errands.take_cache_counts(), CacheCounts { hits: 2, misses: 1 });
        assert_eq!(errands.take_cache_counts(), CacheCounts::default());
    }
}
