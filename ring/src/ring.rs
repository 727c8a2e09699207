//! The ring: operations in, completions out. Owns whatever the kernel borrows.

use std::fmt;
use std::io;
use std::mem;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::buffers::{BufferRing, GroupId};
use crate::kernel::{Cqe, Kernel};
use crate::op::{Op, Outcome};
use crate::probe::{Features, Unavailable};
use crate::residency::Residency;
use crate::scratch::Scratch;
use crate::slots::{OpId, Slots};

/// An io_uring whose operations are tagged by the caller's own `T`. It belongs to the process that
/// made it; a forked child can only drop it.
///
/// A turn of a loop built on it: read the completions with [`poll_completion`], push what
/// follows from them, then [`turn`], which is the only place that waits.
///
/// [`poll_completion`]: Ring::poll_completion
/// [`turn`]: Ring::turn
pub struct Ring<T: Copy> {
    backend: Backend,
    slots: Slots<InFlight<T>>,
    groups: Vec<Rc<BufferRing>>,
    /// Completions that the last turn found and that have not been read.
    ready: usize,
    turns: u64,
    residency: Residency,
}

/// One operation's answer.
#[derive(Debug)]
pub struct Completion<T> {
    /// As given to [`Ring::push`].
    pub tag: T,
    /// What became of the operation.
    pub outcome: Outcome,
    /// The operation stays armed and will complete again.
    pub more: bool,
}

struct InFlight<T> {
    tag: T,
    op: Op,
    scratch: Option<Box<Scratch>>,
}

enum Backend {
    Kernel(Box<Kernel>),
    #[cfg(feature = "sim")]
    Sim(crate::sim::Sim),
}

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Entries of the submission queue, a power of two; the completion queue has four times as
    /// many. More can be in flight: a full queue is submitted, then filled again.
    pub entries: u32,
    /// Let the kernel refuse every operation that [`Op`] doesn't have, for good.
    pub restricted: bool,
    /// What the kernel can do, from [`Features::probe`].
    pub features: Features,
}

impl<T: Copy> Ring<T> {
    /// Makes a ring. Nothing runs until [`enable`] is called; a process can make its rings while
    /// it is privileged, and use them afterwards.
    ///
    /// # Errors
    ///
    /// Why no ring can be made here.
    ///
    /// [`enable`]: Ring::enable
    pub fn new(setup: Setup) -> Result<Ring<T>, Unavailable> {
        let kernel = Kernel::new(setup.entries, setup.features)
            .and_then(|kernel| {
                if setup.restricted {
                    kernel.restrict()?;
                }
                Ok(kernel)
            })
            .map_err(|error| Unavailable::explain(&error))?;
        Ok(Ring::on(Backend::Kernel(Box::new(kernel)), setup.entries as usize))
    }

    /// Makes a ring on a simulated kernel, and the handle by which a test plays the world.
    #[cfg(feature = "sim")]
    pub fn simulated(plan: crate::sim::Plan) -> (Ring<T>, crate::sim::World) {
        let (sim, world) = crate::sim::Sim::new(plan);
        (Ring::on(Backend::Sim(sim), 16), world)
    }

    fn on(backend: Backend, capacity: usize) -> Ring<T> {
        Ring {
            backend,
            slots: Slots::with_capacity(capacity),
            groups: Vec::new(),
            ready: 0,
            turns: 0,
            residency: Residency::new(),
        }
    }

    /// Starts the ring: only this thread may use it from here on.
    ///
    /// # Errors
    ///
    /// As `io_uring_register(2)` has them for `IORING_REGISTER_ENABLE_RINGS`.
    pub fn enable(&self) -> io::Result<()> {
        match &self.backend {
            Backend::Kernel(kernel) => kernel.enable(),
            #[cfg(feature = "sim")]
            Backend::Sim(_) => Ok(()),
        }
    }

    /// Adds `count` (a power of two, at most [`BUFFERS_MAX`]) buffers of `size` bytes for
    /// receiving. Before [`enable`](Ring::enable) only when the ring is restricted.
    ///
    /// # Errors
    ///
    /// As `io_uring_register(2)` has them for `IORING_REGISTER_PBUF_RING`.
    ///
    /// [`BUFFERS_MAX`]: crate::BUFFERS_MAX
    pub fn add_buffers(&mut self, count: u16, size: u32) -> io::Result<GroupId> {
        let group = GroupId(self.groups.len() as u16);
        let ring = Rc::new(BufferRing::new(count, size));
        match &mut self.backend {
            Backend::Kernel(kernel) => kernel.add_buffers(&ring, group)?,
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.add_buffers(Rc::clone(&ring)),
        }
        self.groups.push(ring);
        Ok(group)
    }

    /// Makes an eventfd(2) readable whenever a turn would find something new, for those who wait
    /// elsewhere than in [`turn`](Ring::turn). Before [`enable`](Ring::enable) when the ring is
    /// restricted.
    ///
    /// Whoever is about to wait reads the eventfd, and turns once more without waiting: that finds
    /// what came before the reading. (The ring's own descriptor can't be waited for: the kernel
    /// doesn't wake its watchers for work that it has deferred to a turn; seen on 6.18.)
    ///
    /// # Errors
    ///
    /// As `io_uring_register(2)` has them for `IORING_REGISTER_EVENTFD`.
    pub fn notify(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        match &mut self.backend {
            Backend::Kernel(kernel) => kernel.notify(eventfd),
            #[cfg(feature = "sim")]
            Backend::Sim(_) => Ok(()), // nobody waits for it
        }
    }

    /// Starts an operation with the next turn (or before, when the queue is full). Never waits
    /// for completions, and never reads them.
    pub fn push(&mut self, op: Op, tag: T) -> OpId {
        let unheard = self.slots.stale_id();
        let id = self.slots.insert(InFlight { tag, op, scratch: None });
        let slot = self.slots.get_mut(id).expect("just inserted");
        match &mut self.backend {
            Backend::Kernel(kernel) => slot.scratch = kernel.push(id, &mut slot.op, unheard),
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.push(id, &mut slot.op),
        }
        id
    }

    /// Submits what was pushed and waits until something is complete, for at most `wait`
    /// (`None`: as long as it takes; zero: not at all). Doesn't wait while completions of an
    /// earlier turn are unread. A signal cuts the waiting short, even one that is ignored.
    ///
    /// # Errors
    ///
    /// Only when the ring itself is unusable; see `io_uring_enter(2)`.
    pub fn turn(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.turns += 1;
        self.ready = match &mut self.backend {
            Backend::Kernel(kernel) => kernel.turn(wait)?,
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.turn(wait),
        };
        Ok(())
    }

    /// The next completion that the last turn found. What completes after that turn waits for
    /// the next one, so a loop over this ends.
    #[inline]
    pub fn poll_completion(&mut self) -> Option<Completion<T>> {
        while self.ready > 0 {
            self.ready -= 1;
            let cqe = match &mut self.backend {
                Backend::Kernel(kernel) => kernel.poll(),
                #[cfg(feature = "sim")]
                Backend::Sim(sim) => sim.poll(),
            }?;
            if let Some(completion) = self.complete(cqe) {
                return Some(completion);
            }
        }
        None
    }

    /// Finds the operation of a completion; one that nobody waits for is dropped.
    fn complete(&mut self, cqe: Cqe) -> Option<Completion<T>> {
        let id = OpId::from_user_data(cqe.user_data);
        if cqe.more() {
            let armed = self.slots.get_mut(id)?;
            let outcome = Outcome::of_armed(&armed.op, cqe, &self.groups);
            return Some(Completion { tag: armed.tag, outcome, more: true });
        }
        #[cfg(feature = "sim")]
        if let Backend::Sim(sim) = &mut self.backend
            && let Some(slot) = self.slots.get_mut(id)
        {
            sim.deliver(&mut slot.op, &mut slot.scratch);
        }
        let InFlight { tag, op, scratch } = self.slots.remove(id)?;
        let outcome = Outcome::of(op, scratch, cqe, &self.groups);
        Some(Completion { tag, outcome, more: false })
    }

    /// Ends one or both directions of a socket at once, without the ring: shutdown(2) never
    /// blocks, and as a ring operation it would take a detour through a kernel thread.
    ///
    /// # Errors
    ///
    /// As shutdown(2), mostly that the peer is gone already.
    pub fn shutdown(&mut self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
        match &mut self.backend {
            Backend::Kernel(_) => crate::kernel::shutdown(fd, how),
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.shutdown(fd, how),
        }
    }

    /// Sends `head`, then bytes of a file, as far as the socket takes them at once, and without
    /// the ring: sendfile(2) spares both copies of the file's bytes, and as a ring operation
    /// (`IORING_OP_SPLICE`) it would always take a detour through a kernel thread. Returns how many
    /// bytes went out in all; fewer than there are means that [`Op::WaitWritable`] is next, or that
    /// the file ends there.
    ///
    /// sendfile(2) has no flag not to wait for the socket, so that has `O_NONBLOCK` meanwhile, and not
    /// longer: an operation that begins on such a socket fails instead of waiting. It waits for a disk when
    /// the bytes aren't in the page cache: see [`resident_bytes`](Ring::resident_bytes).
    ///
    /// # Errors
    ///
    /// As send(2) and sendfile(2) have them, but for `EAGAIN` behind the head; `EAGAIN` itself says
    /// that nothing was taken.
    pub fn send_file(
        &mut self,
        socket: BorrowedFd<'_>,
        head: &[u8],
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> io::Result<usize> {
        match &mut self.backend {
            Backend::Kernel(_) => crate::kernel::send_file(socket, head, file, offset, count),
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.send_file(socket, head, file, offset, count),
        }
    }

    /// How many of these bytes of a file lie in the page cache, from the first one on, as far as
    /// samples tell: the last byte of every 128 KiB, which is what the kernel reads ahead at once.
    /// What was found there is taken to be there for another 100 ms.
    pub fn resident_bytes(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
        now: Instant,
    ) -> usize {
        match &mut self.backend {
            Backend::Kernel(_) => self.residency.count(file, offset, count, now),
            #[cfg(feature = "sim")]
            Backend::Sim(sim) => sim.resident_bytes(count),
        }
    }

    /// Whether the last turn found completions that have not been read.
    pub fn has_ready(&self) -> bool {
        self.ready > 0
    }

    /// Whether something was pushed that the kernel hasn't seen: the next turn hands it over.
    pub fn has_queued(&mut self) -> bool {
        match &mut self.backend {
            Backend::Kernel(kernel) => kernel.has_queued(),
            #[cfg(feature = "sim")]
            Backend::Sim(_) => false, // it sees everything at once
        }
    }

    /// Operations that have not had their last completion.
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// Buffers of the group that are out on lease.
    pub fn leased(&self, group: GroupId) -> u16 {
        self.groups[usize::from(group.0)].leased()
    }

    /// How often [`turn`](Ring::turn) has been called: one enter each.
    pub fn turns(&self) -> u64 {
        self.turns
    }
}

impl<T: Copy> Drop for Ring<T> {
    /// Joins what is in flight, so that the kernel no longer writes to memory that goes away.
    /// Descriptors that come to light by that are closed. Only when an operation can't be joined
    /// (see `join`) does what it may still bring stay open, as its memory stays allocated.
    fn drop(&mut self) {
        if self.slots.len() > 0 && !self.join() {
            mem::forget(mem::replace(&mut self.slots, Slots::with_capacity(0)));
            mem::forget(mem::take(&mut self.groups));
        }
    }
}

impl<T: Copy> Ring<T> {
    /// Cancels everything and waits for its end; false when memory has to stay where it is.
    fn join(&mut self) -> bool {
        /// Cancellation is prompt. An operation that outlasts this many turns of a millisecond
        /// (a read from a dead disk, say) keeps its memory for good.
        const TURNS_MAX: usize = 100;
        match &mut self.backend {
            Backend::Kernel(kernel) if kernel.is_inherited() => return false, // nothing is ours
            Backend::Kernel(kernel) => {
                let unheard = self.slots.stale_id();
                kernel.cancel_each(self.slots.ids(), unheard);
            }
            #[cfg(feature = "sim")]
            Backend::Sim(_) => return true,
        }
        for _ in 0..TURNS_MAX {
            while self.poll_completion().is_some() {}
            if self.slots.len() == 0 {
                return true;
            }
            match self.turn(Some(Duration::from_millis(1))) {
                Ok(()) => {}
                // Never enabled: the kernel has seen none of it.
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

impl<T: Copy> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.slots.len()).finish_non_exhaustive()
    }
}
