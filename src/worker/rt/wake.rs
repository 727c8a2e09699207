//! Wakers of connections and of spawned tasks, and the queue that they end up in. Any thread may
//! wake; the worker's own need no system call.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::thread::{self, ThreadId};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd;

use super::super::table::ConnId;

/// Who asked to be polled again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::worker) enum Woken {
    Connection(ConnId),
    /// A spawned task, by its number.
    Task(u64),
}

/// What was woken since the last turn.
pub(in crate::worker) struct WakeQueue {
    worker: ThreadId,
    woken: Mutex<Vec<Woken>>,
    is_empty: AtomicBool,
    /// Written by other threads only: the worker looks into the queue before it waits.
    bell: OwnedFd,
    /// An eventfd that the worker's own thread writes, if it waits elsewhere.
    echo: OnceLock<Arc<OwnedFd>>,
}

impl WakeQueue {
    /// A queue of the current thread. `bell` is an eventfd.
    pub(in crate::worker) fn new(bell: OwnedFd) -> Arc<WakeQueue> {
        Arc::new(WakeQueue {
            worker: thread::current().id(),
            woken: Mutex::default(),
            is_empty: AtomicBool::new(true),
            bell,
            echo: OnceLock::new(),
        })
    }

    /// A bell.
    pub(in crate::worker) fn bell_descriptor() -> io::Result<OwnedFd> {
        Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?.into())
    }

    /// Readable after another thread woke something.
    pub(in crate::worker) fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// From now on the worker's own thread writes to this eventfd when it wakes something.
    pub(in crate::worker) fn set_echo(&self, eventfd: &Arc<OwnedFd>) {
        self.echo.get_or_init(|| Arc::clone(eventfd));
    }

    /// What the worker's own thread writes to.
    pub(in crate::worker) fn echo(&self) -> Option<&OwnedFd> {
        self.echo.get().map(|echo| &**echo)
    }

    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Acquire)
    }

    /// Moves all that was woken into `woken`, which is empty and lends its memory.
    pub(in crate::worker) fn take(&self, woken: &mut Vec<Woken>) {
        let mut queue = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_empty.store(true, Ordering::Release);
        mem::swap(&mut *queue, woken);
    }

    pub(super) fn push(&self, woken: Woken) {
        let mut queue = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.last() == Some(&woken) {
            return;
        }
        queue.push(woken);
        let was_empty = self.is_empty.swap(false, Ordering::AcqRel);
        drop(queue);
        if !was_empty {
            return;
        }
        let is_elsewhere = thread::current().id() != self.worker;
        if let Some(bell) = if is_elsewhere { Some(&self.bell) } else { self.echo() } {
            // Fails only when 2^64 - 1 wake-ups are unread, and then the bell has rung already.
            let _ = unistd::write(bell, &1_u64.to_ne_bytes());
        }
    }
}

/// Lends wakers to connections, the same one again for as long as no handler keeps a clone: a
/// handler that is ready at once costs no allocation.
pub(in crate::worker) struct ConnWakers {
    queue: Arc<WakeQueue>,
    spare: Arc<ConnWaker>,
    waker: Waker,
}

impl ConnWakers {
    /// References to a spare that nobody else has: ours, and the one inside `waker`.
    const OWN_REFERENCES: usize = 2;

    pub(in crate::worker) fn new(queue: Arc<WakeQueue>) -> ConnWakers {
        let id = AtomicU64::new(0);
        let spare = Arc::new(ConnWaker { queue: Arc::clone(&queue), id });
        ConnWakers { queue, waker: Waker::from(Arc::clone(&spare)), spare }
    }

    /// A waker of the connection `id`, valid as such until the next call unless it is cloned.
    pub(in crate::worker) fn lend(&mut self, id: ConnId) -> &Waker {
        if Arc::strong_count(&self.spare) > Self::OWN_REFERENCES {
            *self = ConnWakers::new(Arc::clone(&self.queue));
        }
        // Whoever dropped the last clone, in another thread, has read the id before.
        fence(Ordering::Acquire);
        self.spare.id.store(id.to_bits(), Ordering::Relaxed);
        &self.waker
    }
}

struct ConnWaker {
    queue: Arc<WakeQueue>,
    id: AtomicU64,
}

impl Wake for ConnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let id = ConnId::from_bits(self.id.load(Ordering::Relaxed));
        self.queue.push(Woken::Connection(id));
    }
}

pub(super) struct TaskWaker {
    pub(super) queue: Arc<WakeQueue>,
    pub(super) task: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue.push(Woken::Task(self.task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Arc<WakeQueue> {
        WakeQueue::new(WakeQueue::bell_descriptor().unwrap())
    }

    #[test]
    fn a_waker_that_was_kept_still_wakes_its_own_connection() {
        let queue = queue();
        let mut wakers = ConnWakers::new(Arc::clone(&queue));
        let (first, second) = (ConnId::from_bits(1), ConnId::from_bits(2));
        let kept = wakers.lend(first).clone();
        wakers.lend(second).wake_by_ref();
        kept.wake();
        let mut woken = Vec::new();
        queue.take(&mut woken);
        assert_eq!(woken, [Woken::Connection(second), Woken::Connection(first)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_waker_that_nobody_kept_is_lent_again() {
        let mut wakers = ConnWakers::new(queue());
        let first = wakers.lend(ConnId::from_bits(1)).data();
        assert_eq!(wakers.lend(ConnId::from_bits(2)).data(), first);
    }

    #[test]
    fn another_thread_rings_the_bell_once() {
        let queue = queue();
        let elsewhere = Arc::clone(&queue);
        thread::spawn(move || {
            elsewhere.push(Woken::Task(1));
            elsewhere.push(Woken::Task(2));
        })
        .join()
        .unwrap();
        let mut rings = [0; 8];
        unistd::read(&queue.bell, &mut rings).unwrap();
        assert_eq!(u64::from_ne_bytes(rings), 1);
    }
}
