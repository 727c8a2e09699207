//! The flags of `serve` and `check`, as clap reads them. What isn't given isn't set, so that a
//! file's value stands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use uring_pool::app::coding::Coding;
use uring_pool::app::files::CacheRule;
use uring_pool::config::{Accept, Address, Balance, ConfigError, WorkerConfig, WorkerCount};

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
        let Settings { pool, worker: WorkerConfig { limits, recycle, .. }, site } = settings;
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
