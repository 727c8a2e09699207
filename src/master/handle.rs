//! The embedder's hand on a running pool, from any thread of the master's process. Carries wishes
//! to the master's loop; fulfils none itself.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::unistd;
use serde_json::Value;

use crate::config::{ConfigError, WorkerCount};
use crate::process::clock::Moment;
use crate::process::scoreboard::Scoreboard;
use crate::process::{Status, WorkerStatus};

/// Steers a pool that serves, from another thread or from a callback of the pool's own.
///
/// It acts in the master's process: a copy that a worker inherits has no master to talk to.
///
/// ```no_run
/// use uring_pool::{Pool, Request};
///
/// # fn main() -> uring_pool::Result<()> {
/// const SIGWINCH: i32 = 28;
/// let pool = Pool::bind("127.0.0.1:8080")?;
/// let handle = pool.handle();
/// pool.on_ready(move |_| handle.on_signal(SIGWINCH, |_| println!("resized")).unwrap())
///     .serve(|_| async |_: &Request| "hello")
/// # }
/// ```
#[derive(Clone)]
pub struct PoolHandle {
    shared: Arc<Shared>,
}

struct Shared {
    /// An eventfd, readable when there are wishes.
    bell: OwnedFd,
    wishes: Mutex<Vec<Wish>>,
    scoreboard: OnceLock<Scoreboard>,
    is_running: AtomicBool,
    is_shutdown_requested: AtomicBool,
    is_reload_requested: AtomicBool,
}

/// Something that the master shall do.
pub(super) enum Wish {
    Stop,
    Reload,
    Scale(usize),
    /// To one worker, or to all.
    Send(Option<usize>, Value),
    OnSignal(Signal, Option<OnSignal>),
}

/// What is called with the number of a signal.
pub(super) type OnSignal = Box<dyn FnMut(i32) + Send>;

impl PoolHandle {
    pub(crate) fn new() -> io::Result<PoolHandle> {
        let shared = Shared {
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?.into(),
            wishes: Mutex::default(),
            scoreboard: OnceLock::new(),
            is_running: AtomicBool::new(false),
            is_shutdown_requested: AtomicBool::new(false),
            is_reload_requested: AtomicBool::new(false),
        };
        Ok(PoolHandle { shared: Arc::new(shared) })
    }

    /// Stops the pool: what is open is finished, as after `SIGTERM`. Asked a second time, at once.
    pub fn stop(&self) {
        self.wish(Wish::Stop);
    }

    /// Replaces all workers, as `SIGHUP` does.
    pub fn reload(&self) {
        self.wish(Wish::Reload);
    }

    /// Has so many workers from now on; 0 is one a core. All of them are new ones, who take over
    /// once they are ready. A later reload asks the configuration again.
    ///
    /// # Errors
    ///
    /// More than 1024.
    pub fn scale(&self, workers: usize) -> Result<(), ConfigError> {
        if let WorkerCount::Fixed(_) = workers.to_string().parse()? {
            self.wish(Wish::Scale(workers));
        } else {
            self.wish(Wish::Scale(0));
        }
        Ok(())
    }

    /// The numbers of the whole pool; none before it serves.
    pub fn status(&self) -> Option<Status> {
        Some(self.shared.scoreboard.get()?.status(Moment::now()))
    }

    /// What each worker does; empty before the pool serves.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.status().map(|status| status.workers).unwrap_or_default()
    }

    /// Whether the pool serves.
    pub fn is_running(&self) -> bool {
        self.shared.is_running.load(Relaxed)
    }

    /// Whether somebody has asked the pool to stop, by a signal or by a handle.
    pub fn is_shutdown_requested(&self) -> bool {
        self.shared.is_shutdown_requested.load(Relaxed)
    }

    /// Whether a reload was asked for that has not ended yet.
    pub fn is_reload_requested(&self) -> bool {
        self.shared.is_reload_requested.load(Relaxed)
    }

    /// Sends a message to a worker, which hears it by [`Worker::on_message`]; to all without one.
    /// Messages arrive in order. When more than a MiB of them waits for a worker, which must hang
    /// then, further ones to it are dropped; the log says so, and [`Status::dropped_messages`] counts.
    ///
    /// [`Worker::on_message`]: crate::Worker::on_message
    pub fn send(&self, worker: Option<usize>, payload: Value) {
        self.wish(Wish::Send(worker, payload));
    }

    /// Calls `handler` in the master with each such signal, instead of what the pool would do about
    /// it. It is called in the master's loop, so it may allocate and log, but should be quick.
    ///
    /// # Errors
    ///
    /// No signal of this number, or one that nobody can catch.
    pub fn on_signal(
        &self,
        signal: i32,
        handler: impl FnMut(i32) + Send + 'static,
    ) -> io::Result<()> {
        let signal = catchable(signal)?;
        self.wish(Wish::OnSignal(signal, Some(Box::new(handler))));
        Ok(())
    }

    /// Forgets what [`on_signal`](PoolHandle::on_signal) has set for this signal.
    ///
    /// # Errors
    ///
    /// As for `on_signal`.
    pub fn ignore_signal(&self, signal: i32) -> io::Result<()> {
        self.wish(Wish::OnSignal(catchable(signal)?, None));
        Ok(())
    }

    fn wish(&self, wish: Wish) {
        self.shared.wishes.lock().unwrap_or_else(PoisonError::into_inner).push(wish);
        // Fails only when it has rung 2^64 - 1 times unheard.
        let _ = unistd::write(&self.shared.bell, &1_u64.to_ne_bytes());
    }

    pub(super) fn bell(&self) -> RawFd {
        self.shared.bell.as_raw_fd()
    }

    pub(super) fn take_wishes(&self) -> Vec<Wish> {
        mem::take(&mut *self.shared.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn show(&self, scoreboard: Scoreboard) {
        let _the_same = self.shared.scoreboard.set(scoreboard);
    }

    pub(super) fn set_running(&self, is_running: bool) {
        self.shared.is_running.store(is_running, Relaxed);
    }

    pub(super) fn set_shutdown_requested(&self) {
        self.shared.is_shutdown_requested.store(true, Relaxed);
    }

    pub(super) fn set_reload_requested(&self, is_requested: bool) {
        self.shared.is_reload_requested.store(is_requested, Relaxed);
    }
}

impl fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolHandle").field("is_running", &self.is_running()).finish_non_exhaustive()
    }
}

fn catchable(signal: i32) -> io::Result<Signal> {
    let signal = Signal::try_from(signal)?;
    match signal {
        // How children end and stop is the pool's own business; faults can't be deferred.
        Signal::SIGKILL
        | Signal::SIGSTOP
        | Signal::SIGCHLD
        | Signal::SIGSEGV
        | Signal::SIGBUS
        | Signal::SIGFPE
        | Signal::SIGILL => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        _ => Ok(signal),
    }
}
