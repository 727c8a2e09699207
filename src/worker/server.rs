//! A worker whose loop the application owns: the same turns as the pool's own, one at a time.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd;

use super::{Turn, Worker};
use crate::app::{Inbox, Ticket};
use crate::conn::Draining;
use crate::http::Request;

/// Rounds of a turn in which nothing for the application came, but one thing followed from another
/// (a send was complete at once, say). Then it has its turn anyway.
const ROUNDS_MAX: usize = 4;

/// A worker of [`Pool::drive`](crate::Pool::drive): the application asks it for requests, and
/// answers them when it likes.
///
/// An application that has nothing else to wait for lets [`turn`](Server::turn) wait:
///
/// ```no_run
/// use uring_pool::{Pool, Response};
///
/// # fn main() -> uring_pool::Result<()> {
/// Pool::bind("127.0.0.1:8080")?.drive(|_worker, server| {
///     while server.turn(None)? {
///         while let Some((request, ticket)) = server.next_request() {
///             ticket.respond(Response::text(format!("hello {}", request.path())));
///         }
///     }
///     Ok(())
/// })
/// # }
/// ```
///
/// One that waits elsewhere, in poll(2), epoll, or the reactor of a runtime, waits there for the
/// server's descriptor (`AsFd`) to become readable, at most for [`next_timeout`](Server::next_timeout),
/// and calls `turn(Some(Duration::ZERO))` after that: `examples/event_driven.rs` shows one with other
/// descriptors beside it. Its first turn comes before it waits. The descriptor becomes readable as
/// well when a ticket was answered, so whoever answers may leave it to whoever waits to call `turn`.
/// It mustn't be read from.
///
/// The worker is ready when `turn` is called for the first time, and the pool's hang detection
/// watches it while it is in a turn.
pub struct Server {
    pub(super) worker: Worker,
    inbox: Rc<Inbox>,
    /// An eventfd, which the ring writes.
    notice: Arc<OwnedFd>,
    is_over: bool,
}

impl Server {
    /// The ring of this worker writes `notice`, an eventfd that isn't waited for when it is read.
    pub(super) fn new(worker: Worker, inbox: Rc<Inbox>, notice: OwnedFd) -> Server {
        Server { worker, inbox, notice: Arc::new(notice), is_over: false }
    }

    /// Sends what was answered, and takes in what has come; waits until something has, for at most
    /// `timeout` (`None`: as long as it takes; zero: not at all), and not at all while a request
    /// waits to be taken. There may be no request after it.
    ///
    /// Returns whether there is more to do. `false` says that the worker was told to stop or to
    /// leave for a successor, and has finished what it had (all tickets are answered), or ran out of
    /// time for it (`stop_timeout`): the application ends then.
    ///
    /// # Errors
    ///
    /// The worker's ring, or its line to the master, broke. It can't go on.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.turn_by(Instant::now, timeout)
    }

    /// The same by any clock.
    pub(super) fn turn_by(
        &mut self,
        clock: impl Fn() -> Instant,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        if self.is_over {
            return Ok(false);
        }
        if !self.worker.queue.is_empty() && !self.work(&clock)? {
            return Ok(false);
        }
        let wait = if self.has_request() { Some(Duration::ZERO) } else { timeout };
        self.worker.rest(clock(), wait)?;
        for _ in 0..ROUNDS_MAX {
            if !self.work(&clock)? {
                return Ok(false);
            }
            // Nothing waits for a later turn: the application may sleep before that.
            if !self.worker.ring.has_queued() {
                break;
            }
            self.worker.ring.turn(Some(Duration::ZERO))?;
            if self.has_request() || !self.worker.ring.has_ready() {
                break;
            }
        }
        self.settle_notice()?;
        Ok(true)
    }

    /// Has the descriptor tell only what is new from now on, if anybody looks at it and nothing else
    /// is left to do.
    fn settle_notice(&mut self) -> io::Result<()> {
        let Worker { queue, ring, .. } = &mut self.worker;
        if queue.echo().is_some() && queue.is_empty() && !ring.has_ready() {
            // `EAGAIN` when it told nothing.
            let _ = unistd::read(&*self.notice, &mut [0; size_of::<u64>()]);
            ring.turn(Some(Duration::ZERO))?; // what has come before that, and writes it again
        }
        Ok(())
    }

    fn work(&mut self, clock: impl Fn() -> Instant) -> io::Result<bool> {
        self.is_over = self.worker.work(clock)? == Turn::Stopped;
        Ok(!self.is_over)
    }

    /// Whether a request waits to be taken.
    pub fn has_request(&self) -> bool {
        self.inbox.has_request()
    }

    /// The next request, which is the application's now, and the ticket to answer it by.
    ///
    /// Its body has come whole, of up to `limits.collected_bytes_max` bytes (a larger one was
    /// answered with 413 already), so that what reads it is ready at once:
    ///
    /// ```no_run
    /// # use uring_pool::{Request, rt};
    /// # fn example(request: &Request) {
    /// let body = rt::now_or_never(request.text()).expect("it is there");
    /// # }
    /// ```
    pub fn next_request(&mut self) -> Option<(Request, Ticket)> {
        self.inbox.take()
    }

    /// How long from now on it can do without a [`turn`](Server::turn) unless its descriptor becomes
    /// readable: zero when there is something to do already, `None` for as long as one likes. To be
    /// asked last, before waiting.
    pub fn next_timeout(&mut self) -> Option<Duration> {
        let has_work = self.is_over || self.has_request() || !self.worker.queue.is_empty();
        if has_work { Some(Duration::ZERO) } else { self.worker.wait(Instant::now()) }
    }

    /// Whether the worker was told to stop, or to leave for a successor: no connections come any
    /// more, and what is open is finished. A good time to answer tickets that were kept for long.
    pub fn is_draining(&self) -> bool {
        self.worker.lifecycle.draining() != Draining::No
    }

    /// Runs an application up to the end of its worker.
    pub(super) fn run(
        &mut self,
        application: impl FnOnce(&mut Server) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        application(self)?;
        if !self.is_over && !self.is_draining() {
            return Err("it ended, although the worker was not told to stop".into());
        }
        while self.turn(None)? {
            while self.next_request().is_some() {} // nobody answers any more
        }
        Ok(())
    }
}

/// Readable when there is something to do.
impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.worker.queue.set_echo(&self.notice);
        self.notice.as_fd()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("worker_id", &self.worker.id)
            .field("connections", &self.worker.connections())
            .field("is_draining", &self.is_draining())
            .finish_non_exhaustive()
    }
}
