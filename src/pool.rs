//! The way in: settings to a running pool. The one place that knows both master and worker.

use std::error;
use std::fmt;
use std::io;
use std::time::SystemTime;

use uring_ring::{Features, Unavailable};

use crate::app::{Handler, service};
use crate::config::{Address, ConfigError, PoolConfig, WorkerConfig, WorkerCount};
use crate::master::{self, MasterError};
use crate::process::Status;
use crate::process::clock::monotonic_nanos;
use crate::process::cpus::Cpus;
use crate::process::listen::{ListenError, Listeners};
use crate::process::scoreboard::Scoreboard;
use crate::process::seat::Seat;
use crate::worker;

/// A pool of worker processes that is about to be started.
///
/// ```no_run
/// use std::cell::Cell;
/// use uring_pool::{Pool, Request};
///
/// # fn main() -> uring_pool::Result<()> {
/// Pool::bind("127.0.0.1:8080")?.workers(2)?.serve(|worker| {
///     let (id, visits) = (worker.id(), Cell::new(0)); // this worker's own
///     async move |_: &Request| {
///         visits.set(visits.get() + 1);
///         format!("visit {} to worker {id}\n", visits.get())
///     }
/// })
/// # }
/// ```
#[must_use = "a pool does nothing until it serves"]
pub struct Pool {
    config: PoolConfig,
    worker: WorkerConfig,
    on_ready: Box<dyn FnMut(&Ready<'_>)>,
}

impl Pool {
    /// A pool that will listen on an address such as `127.0.0.1:8080`, `[::1]:0` or `unix:/path`;
    /// see [`Address`] for all forms. Nothing is bound yet.
    ///
    /// # Errors
    ///
    /// The text is no address.
    pub fn bind(address: &str) -> Result<Pool> {
        let listen = vec![address.parse().map_err(ConfigError::from)?];
        Ok(Pool::new(PoolConfig { listen, ..PoolConfig::default() }, WorkerConfig::default()))
    }

    /// A pool with these settings.
    pub fn new(config: PoolConfig, worker: WorkerConfig) -> Pool {
        Pool { config, worker, on_ready: Box::new(|_| {}) }
    }

    /// How many workers: 1 to 1024, or 0 for one a core.
    ///
    /// # Errors
    ///
    /// More than that.
    pub fn workers(mut self, count: usize) -> Result<Pool> {
        self.config.workers = match count {
            0 => WorkerCount::Auto,
            count => WorkerCount::Fixed(count),
        };
        self.config = self.config.validate()?.into_inner();
        Ok(self)
    }

    /// Calls this in the master when all workers accept connections.
    pub fn on_ready(mut self, on_ready: impl FnMut(&Ready<'_>) + 'static) -> Pool {
        self.on_ready = Box::new(on_ready);
        self
    }

    /// Binds, forks the workers and serves until the pool is told to stop (`SIGTERM`, `SIGINT`).
    ///
    /// `factory` runs in each worker, after the fork: open databases there, not before.
    ///
    /// # Errors
    ///
    /// Whatever keeps the pool from starting, in words for whoever started it.
    pub fn serve<H, F>(mut self, factory: F) -> Result<()>
    where
        F: Fn(&Worker) -> H,
        H: Handler,
    {
        let pool = self.config.validate()?;
        let config = self.worker.validate()?;
        let features = Features::probe(pool.mask)?;
        let workers = Cpus::detect().worker_count(pool.workers);
        let listeners = Listeners::bind(&pool, workers)?;
        let (scoreboard, _memory) =
            Scoreboard::create(workers, SystemTime::now()).map_err(Error::Scoreboard)?;
        let run = |seat: Seat| {
            let about = Worker { id: seat.worker_id, core: seat.core, scoreboard };
            worker::run(seat, &config, || service(factory(&about)))
        };
        let mut on_ready = |ready: &master::Ready<'_>| {
            let addresses = ready.addresses;
            (self.on_ready)(&Ready { addresses, workers: ready.workers, features });
        };
        master::run(&pool, features, listeners, scoreboard, &run, &mut on_ready)?;
        Ok(())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pool { config, worker, .. } = self;
        f.debug_struct("Pool")
            .field("config", config)
            .field("worker", worker)
            .finish_non_exhaustive()
    }
}

/// What there is to tell when all workers are ready.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ready<'a> {
    /// Where the pool listens, with the ports that it really has.
    pub addresses: &'a [Address],
    /// How many workers serve.
    pub workers: usize,
    /// Features of the kernel that are in use.
    pub features: Features,
}

/// The worker that a handler is made for.
#[derive(Clone, Copy, Debug)]
pub struct Worker {
    id: usize,
    core: Option<usize>,
    scoreboard: Scoreboard,
}

impl Worker {
    /// Its place in the pool, from 0. A successor has the same.
    pub fn id(&self) -> usize {
        self.id
    }

    /// The core that it is pinned to.
    pub fn core(&self) -> Option<usize> {
        self.core
    }

    /// The numbers of the whole pool, read from shared memory: cheap, and never waits.
    pub fn pool_status(&self) -> Status {
        self.scoreboard.status(SystemTime::now(), monotonic_nanos())
    }
}

/// What a pool returns when it ends.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a pool can't run. Written for people, also by `Debug`, so that it reads well when `main`
/// returns it.
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong.
    Config(ConfigError),
    /// The kernel has no rings for us.
    Ring(Unavailable),
    /// An address can't be listened on.
    Listen(ListenError),
    /// No memory to share with the workers.
    Scoreboard(io::Error),
    /// The master or a worker couldn't start.
    Master(MasterError),
}

impl Error {
    /// A name for programs, which stays the same whatever the words become.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Config(error) => error.code(),
            Error::Ring(_) => "RING_UNAVAILABLE",
            Error::Listen(error) => error.code(),
            Error::Scoreboard(_) => "NO_SHARED_MEMORY",
            Error::Master(error) => error.code(),
        }
    }
}

impl Error {
    /// The exit status that a program should end with, by sysexits.h.
    pub fn exit_code(&self) -> u8 {
        const EX_USAGE: u8 = 64;
        const EX_UNAVAILABLE: u8 = 69;
        const EX_OSERR: u8 = 71;
        match self {
            Error::Config(_) => EX_USAGE,
            Error::Ring(_) | Error::Listen(_) => EX_UNAVAILABLE,
            Error::Scoreboard(_) => EX_OSERR,
            Error::Master(error) => error.exit_code(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(error) => error.fmt(f),
            Error::Ring(error) => error.fmt(f),
            Error::Listen(error) => error.fmt(f),
            Error::Scoreboard(error) => write!(f, "no memory for the scoreboard: {error}"),
            Error::Master(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Config(error) => Some(error),
            Error::Ring(error) => Some(error),
            Error::Listen(error) => Some(error),
            Error::Scoreboard(error) => Some(error),
            Error::Master(error) => Some(error),
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Error {
        Error::Config(error)
    }
}

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Error {
        Error::Ring(error)
    }
}

impl From<ListenError> for Error {
    fn from(error: ListenError) -> Error {
        Error::Listen(error)
    }
}

impl From<MasterError> for Error {
    fn from(error: MasterError) -> Error {
        Error::Master(error)
    }
}
