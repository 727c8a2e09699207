//! The way in: settings to a running pool. The one place that knows both master and worker.

use std::any::Any;
use std::error;
use std::fmt;
use std::hash::Hash;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use uring_ring::{Features, Unavailable};

use crate::app::{Handler, service};
use crate::config::{Accept, Address, Checked, ConfigError, PoolConfig, WorkerConfig, WorkerCount};
use crate::guard::{
    ClientTable, PLACES_MAX, Quota, RateTable, Verdict, quota_fields, write_verdict_fields,
};
use crate::http::{IntoResponse, Response, Status as StatusCode};
use crate::master::balance::Balancer;
use crate::master::{self, MasterError, PoolHandle, Start, Surroundings};
use crate::process::Status;
use crate::process::activation::{self, ActivationError};
use crate::process::channel::{ChannelError, Limit, Message};
use crate::process::clock::{Moment, monotonic_nanos};
use crate::process::cpus::Cpus;
use crate::process::inherit::Inheritance;
use crate::process::listen::{ListenError, Listeners};
use crate::process::log_file::{LogFile, LogFileError};
use crate::process::pid_file::{PidFile, PidFileError};
use crate::process::privileges::{self, PrivilegeError};
use crate::process::scoreboard::{PAGES, SHARED_WORDS, Scoreboard};
use crate::process::seat::Seat;
use crate::worker::rt::{self, Stream};
use crate::worker::{self, ConnMeta, Server, Shared};

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
    balancer: Option<Box<dyn Balancer>>,
    handle: PoolHandle,
    hooks: Hooks,
}

/// What the program around the pool wants to be asked, or told.
struct Hooks {
    ready: Box<dyn FnMut(&Ready<'_>)>,
    reload: Option<Box<dyn FnMut() -> Reloaded>>,
    message: Box<dyn FnMut(usize, Value)>,
}

/// The settings for new workers, or why there are none.
type Reloaded = std::result::Result<Reload, Box<dyn error::Error>>;

impl Pool {
    /// A pool that will listen on an address such as `127.0.0.1:8080`, `[::1]:0` or `unix:/path`;
    /// see [`Address`] for all forms. Nothing is bound yet.
    ///
    /// # Errors
    ///
    /// The text is no address.
    pub fn bind(address: &str) -> Result<Pool> {
        let listen = vec![address.parse().map_err(ConfigError::from)?];
        Pool::new(PoolConfig { listen, ..PoolConfig::default() }, WorkerConfig::default())
    }

    /// A pool with these settings.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn new(config: PoolConfig, worker: WorkerConfig) -> Result<Pool> {
        let hooks = Hooks {
            ready: Box::new(|_| {}),
            reload: None,
            message: Box::new(|worker, payload| {
                log::warn!("nobody listens to worker {worker}'s message {payload}");
            }),
        };
        let handle = PoolHandle::new().map_err(Error::Handle)?;
        Ok(Pool { config, worker, balancer: None, handle, hooks })
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

    /// How connections reach the workers.
    pub fn accept(mut self, accept: Accept) -> Pool {
        self.config.accept = accept;
        self
    }

    /// Picks the worker for each connection in [`Accept::Dispatch`], instead of what
    /// [`PoolConfig::balance`] names.
    pub fn balancer(mut self, balancer: impl Balancer + 'static) -> Pool {
        self.balancer = Some(Box::new(balancer));
        self
    }

    /// Calls this in the master when all workers accept connections.
    pub fn on_ready(mut self, on_ready: impl FnMut(&Ready<'_>) + 'static) -> Pool {
        self.hooks.ready = Box::new(on_ready);
        self
    }

    /// Asks this in the master for the settings of new workers when the pool is told to reload
    /// (`SIGHUP`, `SIGUSR1`): a pair of them, or a [`Reload`] that has more to tell. An error changes
    /// nothing but the log. Without it, new workers have the settings of the old ones.
    pub fn on_reload<R: Into<Reload>>(
        mut self,
        mut on_reload: impl FnMut() -> std::result::Result<R, Box<dyn error::Error>> + 'static,
    ) -> Pool {
        self.hooks.reload = Some(Box::new(move || on_reload().map(Into::into)));
        self
    }

    /// Calls this in the master with each message that a worker [sends](Worker::send), and the
    /// worker's number.
    pub fn on_message(mut self, on_message: impl FnMut(usize, Value) + 'static) -> Pool {
        self.hooks.message = Box::new(on_message);
        self
    }

    /// A handle to steer the pool by while it serves.
    pub fn handle(&self) -> PoolHandle {
        self.handle.clone()
    }

    /// Binds, forks the workers and serves until the pool is told to stop (`SIGTERM`, `SIGINT`,
    /// `SIGQUIT`, [`PoolHandle::stop`]).
    ///
    /// `factory` runs in each worker, after the fork: open databases there, not before.
    ///
    /// # Errors
    ///
    /// Whatever keeps the pool from starting, in words for whoever started it.
    pub fn serve<H, F>(self, factory: F) -> Result<()>
    where
        F: Fn(&Worker) -> H,
        H: Handler,
    {
        self.run(|place, about| {
            let Place { seat, worker, shared } = place;
            worker::run(seat, worker, shared, || service(factory(about)))
        })
    }

    /// As [`serve`](Pool::serve), with workers whose loops are the application's own: it asks the
    /// [`Server`] for requests, and answers them when it likes.
    ///
    /// `application` runs in each worker, after the fork, and until [`Server::turn`] says that it is
    /// over. One that ends before, or fails, is started anew in another process, like a worker that
    /// has died.
    ///
    /// # Errors
    ///
    /// Whatever keeps the pool from starting, in words for whoever started it.
    pub fn drive<A>(self, application: A) -> Result<()>
    where
        A: Fn(&Worker, &mut Server) -> std::result::Result<(), Box<dyn error::Error>>,
    {
        self.run(|place, about| {
            let Place { seat, worker, shared } = place;
            worker::drive(seat, worker, shared, |server| application(about, server))
        })
    }

    /// As [`serve`](Pool::serve), for protocols of one's own: each connection goes to the handler as
    /// it is, with what is known of it, and is closed when the handler drops its stream.
    ///
    /// ```no_run
    /// use uring_pool::{ConnMeta, Pool, Stream};
    ///
    /// # fn main() -> uring_pool::Result<()> {
    /// Pool::bind("127.0.0.1:7000")?.serve_connections(|_worker| {
    ///     async |mut stream: Stream, _: ConnMeta| {
    ///         let mut line = Vec::new();
    ///         while stream.read_until(b'\n', &mut line, 4096).await? > 0 {
    ///             stream.write_all(&line).await?;
    ///             line.clear();
    ///         }
    ///         Ok(())
    ///     }
    /// })
    /// # }
    /// ```
    ///
    /// A connection counts as open until its handler returns. An error ends it, and so does a panic,
    /// which costs that connection alone. `limits.connections_max`, `connections_per_client`,
    /// `accepts_per_turn` and `timeouts.connection` hold; what limits requests doesn't. A worker that
    /// drains waits for its handlers, up to `stop_timeout`: those that wait for their peers should do
    /// so by [`rt::until_draining`].
    ///
    /// # Errors
    ///
    /// Whatever keeps the pool from starting, in words for whoever started it; also settings that
    /// only make sense for HTTP: the PROXY protocol, the access log, a rate limit.
    pub fn serve_connections<H, F>(self, factory: F) -> Result<()>
    where
        F: Fn(&Worker) -> H,
        H: AsyncFn(Stream, ConnMeta) -> io::Result<()> + 'static,
    {
        check_for_connections(&self.worker)?;
        self.run(|place, about| {
            let Place { seat, worker, shared } = place;
            worker::connect(seat, worker, shared, || worker::server(factory(about)))
        })
    }

    /// Starts everything; `work` is what each worker does, which ends with its exit status.
    fn run(self, work: impl Fn(Place<'_>, &Worker) -> i32) -> Result<()> {
        let config = self.config.validate()?;
        let worker = self.worker.validate()?;
        try_log(&worker)?;
        privileges::raise_limits(config.descriptors_max, config.core_bytes_max)?;
        let features = Features::probe(config.mask)?;
        let workers = Cpus::detect().worker_count(config.workers);
        privileges::check_descriptors(&config, workers)?;
        let inheritance = Inheritance::take().map_err(Error::Inheritance)?;
        let (listeners, memory) = if let Some(left) = &inheritance {
            let memory = left.scoreboard.try_clone().map_err(Error::Inheritance)?;
            (left.listeners.renewed(&config, workers)?, Some(memory))
        } else {
            let activated = activation::take_inherited()?;
            (Listeners::activated(activated).renewed(&config, workers)?, None)
        };
        let old_master = inheritance;
        let pid_file = match (&config.pid_file, &old_master) {
            (Some(path), None) => Some(PidFile::create(path, None)?),
            _ => None, // the old master has it until this one is ready
        };
        let (scoreboard, memory) = scoreboard(memory).map_err(Error::Scoreboard)?;
        let shared = shared(scoreboard);
        let start = Start {
            features,
            listeners,
            scoreboard,
            memory,
            old_master,
            pid_file,
            handle: self.handle,
            balancer: self.balancer,
            config: config.clone(),
        };
        let mut program = Program {
            hooks: self.hooks,
            work,
            shared,
            features,
            config,
            current: WorkerSettings { worker, app: None },
            next: None,
        };
        master::run(start, &mut program)?;
        Ok(())
    }
}

/// Refuses what bare connections can't keep.
fn check_for_connections(worker: &WorkerConfig) -> std::result::Result<(), ConfigError> {
    let is_set = [
        ("proxies.protocol", worker.proxies.protocol),
        ("access_log.path", worker.access_log.path.is_some()),
        ("rate_limit.enabled", worker.rate_limit.enabled),
    ];
    match is_set.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(ConfigError::OutOfRange {
            key,
            value: "set".to_owned(),
            range: "unset, as connections are served bare and not as HTTP".to_owned(),
        }),
        None => Ok(()),
    }
}

/// Whether the access log can be opened: now, when there is somebody to tell.
fn try_log(worker: &WorkerConfig) -> std::result::Result<(), LogFileError> {
    worker.access_log.path.as_deref().map_or(Ok(()), |path| LogFile::open(path).map(drop))
}

/// The figures of the pool that goes on here, or new ones.
fn scoreboard(memory: Option<OwnedFd>) -> io::Result<(Scoreboard, OwnedFd)> {
    if let Some(memory) = memory {
        match Scoreboard::inherit(&memory) {
            Ok(scoreboard) => return Ok((scoreboard, memory)),
            Err(error) => log::warn!("the figures begin anew: the old ones can't be read: {error}"),
        }
    }
    Scoreboard::create(Moment::now())
}

/// What the workers of all masters that share this memory have in common.
fn shared(scoreboard: Scoreboard) -> Shared {
    const {
        assert!(RateTable::WORDS + ClientTable::WORDS <= SHARED_WORDS && PAGES <= PLACES_MAX);
    }
    let (rates, rest) = scoreboard.words().split_at(RateTable::WORDS);
    let seed = scoreboard.seed();
    let clients = ClientTable::new(&rest[..ClientTable::WORDS], seed);
    Shared { scoreboard, rates: RateTable::new(rates, seed), clients }
}

/// The program around the pool, as the master calls it.
struct Program<F> {
    hooks: Hooks,
    work: F,
    shared: Shared,
    features: Features,
    /// As given; what is in use, the master knows.
    config: Checked<PoolConfig>,
    current: WorkerSettings,
    /// What was read last, while it isn't sure that it will be in use.
    next: Option<Next>,
}

/// What a reload is to bring.
struct Next {
    settings: WorkerSettings,
    on_success: Option<Box<dyn FnOnce()>>,
}

/// Where a worker works, and how.
struct Place<'a> {
    seat: Seat,
    worker: &'a Checked<WorkerConfig>,
    shared: Shared,
}

/// What a worker is like.
struct WorkerSettings {
    worker: Checked<WorkerConfig>,
    app: Option<Rc<dyn Any>>,
}

impl<F: Fn(Place<'_>, &Worker) -> i32> Surroundings for Program<F> {
    fn work(&self, seat: Seat, is_next: bool) -> i32 {
        let next = self.next.as_ref().filter(|_| is_next);
        let settings = next.map_or(&self.current, |next| &next.settings);
        // As long as the process lives: a worker may keep what it finds there.
        let app = settings.app.clone().map(|app| &**Box::leak(Box::new(app)));
        let about = Worker {
            id: seat.worker_id,
            core: seat.core,
            scoreboard: self.shared.scoreboard,
            rates: self.shared.rates,
            limit: seat.limit,
            app,
        };
        (self.work)(Place { seat, worker: &settings.worker, shared: self.shared }, &about)
    }

    fn on_ready(&mut self, ready: &master::Ready<'_>) {
        let master::Ready { addresses, workers, accept } = *ready;
        let features = self.features;
        (self.hooks.ready)(&Ready { addresses, workers, accept, features });
    }

    fn read_settings(&mut self) -> std::result::Result<Checked<PoolConfig>, String> {
        if let Some(on_reload) = &mut self.hooks.reload {
            let Reload { pool, worker, app, on_success } =
                on_reload().map_err(|error| error.to_string())?;
            let config = pool.validate().map_err(|error| error.to_string())?;
            let worker = worker.validate().map_err(|error| error.to_string())?;
            try_log(&worker).map_err(|error| error.to_string())?;
            self.next = Some(Next { settings: WorkerSettings { worker, app }, on_success });
            return Ok(config);
        }
        Ok(self.config.clone())
    }

    fn settle_settings(&mut self, are_new: bool) {
        if let Some(Next { settings, on_success }) = self.next.take().filter(|_| are_new) {
            self.current = settings;
            on_success.into_iter().for_each(|call| call());
        }
    }

    fn on_message(&mut self, worker: usize, payload: Value) {
        (self.hooks.message)(worker, payload);
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

/// What new workers are like, for [`Pool::on_reload`].
pub struct Reload {
    pool: PoolConfig,
    worker: WorkerConfig,
    app: Option<Rc<dyn Any>>,
    on_success: Option<Box<dyn FnOnce()>>,
}

impl Reload {
    /// These settings.
    pub fn new(pool: PoolConfig, worker: WorkerConfig) -> Reload {
        Reload { pool, worker, app: None, on_success: None }
    }

    /// And something of the embedder's own, which new workers find by [`Worker::reloaded`]: what it
    /// read from the same file, for example, and no worker shall see before the reload succeeds.
    #[must_use]
    pub fn with(self, app: impl Any) -> Reload {
        Reload { app: Some(Rc::new(app)), ..self }
    }

    /// And calls this in the master when the reload has succeeded: for what the embedder sets in that
    /// process, and what a reload that fails must not change.
    #[must_use]
    pub fn on_success(self, call: impl FnOnce() + 'static) -> Reload {
        Reload { on_success: Some(Box::new(call)), ..self }
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reload { pool, worker, .. } = self;
        f.debug_struct("Reload").field("pool", pool).field("worker", worker).finish_non_exhaustive()
    }
}

impl From<(PoolConfig, WorkerConfig)> for Reload {
    fn from((pool, worker): (PoolConfig, WorkerConfig)) -> Reload {
        Reload::new(pool, worker)
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
    /// How connections reach them; not [`Accept::Steered`] where the kernel doesn't allow it.
    pub accept: Accept,
    /// Features of the kernel that are in use.
    pub features: Features,
}

/// The worker that a handler is made for.
#[derive(Clone, Copy, Debug)]
pub struct Worker {
    id: usize,
    core: Option<usize>,
    scoreboard: Scoreboard,
    rates: RateTable,
    limit: Limit,
    app: Option<&'static dyn Any>,
}

impl Worker {
    /// What the last reload that succeeded brought [along](Reload::with); none before the first one.
    pub fn reloaded<T: 'static>(&self) -> Option<&'static T> {
        self.app?.downcast_ref()
    }

    /// Its place in the pool, from 0. A successor has the same.
    pub fn id(&self) -> usize {
        self.id
    }

    /// The core that it is pinned to.
    pub fn core(&self) -> Option<usize> {
        self.core
    }

    /// Sends a message to the master, which hears it by [`Pool::on_message`]. To be called in the
    /// worker's own thread: in its factory, its handlers, and what they spawn.
    ///
    /// # Errors
    ///
    /// It is longer than [`PoolConfig::message_bytes_max`], or too many wait already, since the
    /// master doesn't read: it was stopped, or its callback takes its time.
    pub fn send(&self, payload: Value) -> std::result::Result<(), MessageError> {
        let message = Message::User { payload };
        self.limit.encode(&message).map_err(MessageError)?;
        let Message::User { payload } = message else { unreachable!("just made") };
        rt::send_message(payload).map_err(|_| MessageError(ChannelError::Backlog))
    }

    /// Calls this in the worker's thread with each message that the master sends
    /// ([`PoolHandle::send`]), instead of what was set before. To be called there, too.
    pub fn on_message(&self, listener: impl FnMut(Value) + 'static) {
        rt::on_message(listener);
    }

    /// A limit of one's own: how often something may happen, by keys of one's own, over all workers
    /// of the pool together. Limiters of the same name and the same numbers are one.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use uring_pool::{IntoResponse, Pool, Request, Response};
    ///
    /// # fn main() -> uring_pool::Result<()> {
    /// Pool::bind("127.0.0.1:8080")?.serve(|worker| {
    ///     let logins = worker.rate_limiter("login", 5, Duration::from_secs(60));
    ///     async move |request: &Request| {
    ///         let user = request.query().unwrap_or_default();
    ///         match logins.ask(user) {
    ///             Ok(_) => Response::text("welcome"),
    ///             Err(limited) => limited.into_response(),
    ///         }
    ///     }
    /// })
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// With no request, or a window beyond a second to a day.
    pub fn rate_limiter(&self, name: &str, requests: u32, window: Duration) -> RateLimiter {
        assert!(requests > 0, "a limit of no requests forbids everything");
        let windows = Duration::from_secs(1)..=Duration::from_secs(86_400);
        assert!(windows.contains(&window), "a window lasts from a second to a day");
        let quota = Quota::new(requests, window);
        RateLimiter { table: self.rates, quota, name: name.to_owned() }
    }

    /// The numbers of the whole pool, read from shared memory: cheap, and never waits.
    pub fn pool_status(&self) -> Status {
        self.scoreboard.status(Moment::now())
    }
}

/// Limits how often something happens, over all workers of a pool; see [`Worker::rate_limiter`].
///
/// It is exact, and its memory is bounded: 458,752 keys at a time, all limiters together. Beyond that
/// the key that is limited least is forgotten.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    table: RateTable,
    quota: Quota,
    name: String,
}

impl RateLimiter {
    /// Whether it may happen once more for this key, which counts if so; and how often it may after
    /// that.
    ///
    /// # Errors
    ///
    /// It may not now.
    pub fn ask(&self, key: impl Hash) -> std::result::Result<u32, RateLimited> {
        let verdict = self.table.ask(&self.quota, (&self.name, key), monotonic_nanos());
        let limited = RateLimited { quota: self.quota, verdict };
        if verdict.is_allowed { Ok(verdict.remaining) } else { Err(limited) }
    }
}

/// Something has happened too often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimited {
    quota: Quota,
    verdict: Verdict,
}

impl RateLimited {
    /// When it may happen again.
    pub fn retry_after(&self) -> Duration {
        Duration::from_micros(self.verdict.retry_after)
    }
}

/// 429 with Retry-After, `RateLimit` and `X-RateLimit-*`.
impl IntoResponse for RateLimited {
    fn into_response(self) -> Response {
        let mut lines = quota_fields(&self.quota).into_bytes();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        write_verdict_fields(&self.verdict, now, &mut lines);
        let lines = String::from_utf8(lines).expect("it is ASCII");
        let fields = lines.lines().filter_map(|line| line.split_once(": "));
        fields.fold(Response::plain(StatusCode::TOO_MANY_REQUESTS), |response, (name, value)| {
            response.with_header(name.to_owned(), value.to_owned())
        })
    }
}

/// A message that can't be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageError(ChannelError);

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message can't be sent: {}", self.0)
    }
}

impl error::Error for MessageError {}

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
    /// What another master left to this one can't be used.
    Inheritance(io::Error),
    /// No descriptor for a handle.
    Handle(io::Error),
    /// What the service manager has bound can't be used.
    Activation(ActivationError),
    /// The file with the master's process id can't be written.
    PidFile(PidFileError),
    /// A limit can't be set.
    Privileges(PrivilegeError),
    /// The access log can't be opened.
    AccessLog(LogFileError),
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
            Error::Inheritance(_) => "UPGRADE_ERROR",
            Error::Handle(_) => "WORKER_POOL_ERROR",
            Error::Activation(error) => error.code(),
            Error::PidFile(error) => error.code(),
            Error::Privileges(error) => error.code(),
            Error::AccessLog(error) => error.code(),
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
        const EX_CANTCREAT: u8 = 73;
        const EX_NOPERM: u8 = 77;
        match self {
            Error::Config(_) => EX_USAGE,
            Error::Ring(_) | Error::Listen(_) | Error::Activation(_) => EX_UNAVAILABLE,
            Error::PidFile(_) | Error::AccessLog(_) => EX_CANTCREAT,
            Error::Privileges(PrivilegeError::TooFewDescriptors { .. })
            | Error::Scoreboard(_)
            | Error::Inheritance(_)
            | Error::Handle(_) => EX_OSERR,
            Error::Privileges(_) => EX_NOPERM,
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
            Error::Inheritance(error) => {
                write!(f, "what the old master left can't be used: {error}")
            }
            Error::Activation(error) => error.fmt(f),
            Error::PidFile(error) => error.fmt(f),
            Error::Privileges(error) => error.fmt(f),
            Error::AccessLog(error) => error.fmt(f),
            Error::Handle(error) => write!(f, "no descriptor for the pool's handle: {error}"),
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
            Error::Scoreboard(error) | Error::Inheritance(error) | Error::Handle(error) => {
                Some(error)
            }
            Error::Activation(error) => Some(error),
            Error::PidFile(error) => Some(error),
            Error::Privileges(error) => Some(error),
            Error::AccessLog(error) => Some(error),
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

impl From<ActivationError> for Error {
    fn from(error: ActivationError) -> Error {
        Error::Activation(error)
    }
}

impl From<PidFileError> for Error {
    fn from(error: PidFileError) -> Error {
        Error::PidFile(error)
    }
}

impl From<PrivilegeError> for Error {
    fn from(error: PrivilegeError) -> Error {
        Error::Privileges(error)
    }
}

impl From<LogFileError> for Error {
    fn from(error: LogFileError) -> Error {
        Error::AccessLog(error)
    }
}

impl From<MasterError> for Error {
    fn from(error: MasterError) -> Error {
        Error::Master(error)
    }
}
