//! The flags of `serve` and `check`, as clap reads them. What isn't given isn't set, so that a
//! file's value stands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use uring_pool::app::coding::Coding;
use uring_pool::app::files::CacheRule;
use uring_pool::config::{
    Accept, Address, Balance, ConfigError, LogFormat, TrustedPeers, WorkerConfig, WorkerCount,
};

use super::identity::identity;
use super::settings::Settings;
use super::units;

#[derive(Args, Clone, Default)]
pub(super) struct Flags {
    /// Take settings from this TOML file; flags override it
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    // Not documentation comments: brackets and colons would be links there.
    #[arg(help = "Where to listen: 127.0.0.1:8080 (the default), [::1]:8080, :8080, unix:/path; \
                  repeatable")]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Vec<Address>,
    /// Worker processes: a number, or `auto` for one a core (the default)
    #[arg(long, value_name = "N")]
    pub(super) workers: Option<WorkerCount>,
    /// Serve the files of this directory
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// A file that stands for its directory (default: index.html); repeatable
    #[arg(long, value_name = "NAME")]
    pub(super) index: Vec<String>,
    /// Answer with a list of what is in a directory that has no such file
    #[arg(long)]
    pub(super) listing: bool,
    /// Precompressed files to look for beside the others: br, zstd, gzip (all by default) or none
    #[arg(long, value_name = "CODING,…", value_delimiter = ',')]
    pub(super) precompressed: Vec<String>,
    /// What Cache-Control says for some files, such as `*.css: max-age=3600`; repeatable
    #[arg(long, value_name = "PATTERN: VALUE")]
    pub(super) cache_control: Vec<CacheRule>,
    /// Files that clients are to save, such as `*.iso`; repeatable
    #[arg(long, value_name = "PATTERN")]
    pub(super) download: Vec<String>,
    /// Memory for small files, of each worker; 0 keeps none (default: 50MiB)
    #[arg(long, value_name = "SIZE", value_parser = units::bytes::<usize>)]
    pub(super) cache_size: Option<usize>,
    /// Compress what isn't a file, for clients that want it
    #[arg(long)]
    pub(super) compress: bool,
    /// Serve the demo's endpoints, too (without a root they are all there is)
    #[arg(long)]
    pub(super) demo: bool,
    /// How connections reach the workers: shared (the default), dispatch or steered
    #[arg(long, value_name = "MODE")]
    pub(super) accept: Option<Accept>,
    /// Who gets a dispatched connection: least-connections (the default), round-robin, weighted,
    /// sticky or p2c
    #[arg(long, value_name = "BALANCE")]
    pub(super) balance: Option<Balance>,
    /// Shares of the workers for `--balance weighted` (default: 1 each)
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    pub(super) weights: Vec<u32>,
    /// Connections that may wait in the master while all workers are full, in dispatch mode (default: 1000)
    #[arg(long, value_name = "N")]
    pub(super) queue_max: Option<usize>,
    /// How long such a connection waits before it is answered with 503 (default: 10s)
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(super) queue_timeout: Option<Duration>,
    /// Connections of one worker (default: as many as descriptors allow)
    #[arg(long, value_name = "N")]
    pub(super) connections_max: Option<u32>,
    /// Connections from one client, over all workers (default: no limit)
    #[arg(long, value_name = "N")]
    pub(super) connections_per_client: Option<u32>,
    /// Requests of one client in a `--rate-window`; more are answered with 429 (default: no limit)
    #[arg(long, value_name = "N")]
    pub(super) rate_limit: Option<u32>,
    /// How long a window is (default: 60s)
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(super) rate_window: Option<Duration>,
    /// Believe what this network's proxies say about their clients: 10.0.0.0/8, or `unix`; repeatable
    #[arg(long, value_name = "NETWORK")]
    pub(super) trusted: Vec<String>,
    /// Trusted proxies begin each connection with a PROXY protocol header
    #[arg(long)]
    pub(super) proxy_protocol: bool,
    /// Append a line for each answer to this file, or to standard output (`-`) (default: none)
    #[arg(long, value_name = "FILE")]
    pub(super) access_log: Option<PathBuf>,
    /// How: combined (the default) or json
    #[arg(long, value_name = "FORMAT")]
    pub(super) access_log_format: Option<LogFormat>,
    /// How long open connections may take at a graceful stop (default: 30s)
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(super) stop_timeout: Option<Duration>,
    /// How long one turn of a worker's loop may last before the worker is replaced (default: 30s)
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(super) hang_timeout: Option<Duration>,
    /// Replace a worker after so many requests (default: never)
    #[arg(long, value_name = "N")]
    pub(super) recycle_requests: Option<u64>,
    /// Replace a worker after so long (default: never)
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(super) recycle_lifetime: Option<Duration>,
    /// Replace a worker that occupies so much memory (default: never)
    #[arg(long, value_name = "SIZE", value_parser = units::bytes::<u64>)]
    pub(super) recycle_memory: Option<u64>,
    /// Write the master's process id to this file (default: none)
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Run the workers as this user, a name or a number (default: as the master)
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// And as this group (default: the user's own)
    #[arg(long, value_name = "GROUP")]
    pub(super) group: Option<String>,
    /// Log why requests are refused, and other details
    #[arg(long)]
    pub(super) debug: bool,
}

impl Flags {
    /// Sets what was given, over what is there.
    ///
    /// # Errors
    ///
    /// The user or the group is unknown.
    pub(super) fn apply(&self, settings: &mut Settings) -> Result<(), ConfigError> {
        fn set<T: Copy>(place: &mut T, flag: Option<T>) {
            *place = flag.unwrap_or(*place);
        }
        fn set_list<T: Clone>(place: &mut Vec<T>, flags: &[T]) {
            if !flags.is_empty() {
                *place = flags.to_vec();
            }
        }
        fn coding(name: &str) -> Result<Coding, ConfigError> {
            name.parse().map_err(|_| ConfigError::OutOfRange {
                key: "site.precompressed",
                value: name.to_owned(),
                range: "br, zstd, gzip or none".to_owned(),
            })
        }
        let Settings { pool, worker, site, debug } = settings;
        let WorkerConfig { limits, recycle, rate_limit, proxies, access_log, .. } = worker;
        if !self.listen.is_empty() {
            pool.listen.clone_from(&self.listen);
        }
        if !self.weights.is_empty() {
            pool.weights.clone_from(&self.weights);
        }
        set(&mut pool.workers, self.workers);
        set(&mut pool.accept, self.accept);
        set(&mut pool.balance, self.balance);
        set(&mut pool.queue_max, self.queue_max);
        set(&mut pool.queue_timeout, self.queue_timeout);
        set(&mut pool.stop_timeout, self.stop_timeout);
        set(&mut pool.hang_timeout, self.hang_timeout);
        pool.pid_file = self.pid_file.clone().or(pool.pid_file.take());
        pool.identity = identity(self.user.as_deref(), self.group.as_deref(), pool.identity)?;
        limits.connections_max = self.connections_max.or(limits.connections_max);
        limits.connections_per_client =
            self.connections_per_client.or(limits.connections_per_client);
        rate_limit.enabled |= self.rate_limit.is_some();
        set(&mut rate_limit.requests, self.rate_limit);
        set(&mut rate_limit.window, self.rate_window);
        if !self.trusted.is_empty() {
            proxies.trusted = TrustedPeers::default();
            self.trusted.iter().try_for_each(|peers| proxies.trusted.add(peers))?;
        }
        proxies.protocol |= self.proxy_protocol;
        access_log.path = self.access_log.clone().or(access_log.path.take());
        set(&mut access_log.format, self.access_log_format);
        *debug |= self.debug;
        recycle.requests = self.recycle_requests.or(recycle.requests);
        recycle.lifetime = self.recycle_lifetime.or(recycle.lifetime);
        recycle.memory_bytes = self.recycle_memory.or(recycle.memory_bytes);
        site.root = self.root.clone().or(site.root.take());
        site.demo |= self.demo;
        site.compression.enabled |= self.compress;
        let files = &mut site.files;
        set_list(&mut files.index, &self.index);
        set_list(&mut files.cache_control, &self.cache_control);
        set_list(&mut files.downloads, &self.download);
        files.listing |= self.listing;
        set(&mut files.cache.bytes_max, self.cache_size);
        if let Some(bytes) = self.cache_size {
            // A flag alone must not be wrong because of a default.
            files.cache.file_bytes_max = files.cache.file_bytes_max.min(bytes as u64);
        }
        if self.precompressed == ["none"] {
            files.precompressed.clear();
        } else {
            let codings = self.precompressed.iter().map(|name| coding(name));
            set_list(&mut files.precompressed, &codings.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(())
    }
}
