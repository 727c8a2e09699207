//! All that `serve` needs to know, from a file and flags, and as a file again. Serves nothing.

use std::env;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uring_pool::Mask;
use uring_pool::app::coding::Coding;
use uring_pool::app::files::{CacheLimits, CacheRule};
use uring_pool::config::{
    AccessLog, Buffers, ConfigError, Limits, PoolConfig, Proxies, RateLimit, Recycle, Timeouts,
    WorkerConfig,
};

use super::file::Document;
use super::flags::Flags;
use super::units::{bytes_text, time_text};
use super::{EX_CONFIG, EX_NOINPUT, EX_USAGE, Failure};

/// Names features of the kernel to do without, to try the fallbacks.
const MASK_VARIABLE: &str = "URING_POOL_MASK";

/// What to serve, and how. Every value is within its range.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Settings {
    pub(super) pool: PoolConfig,
    pub(super) worker: WorkerConfig,
    pub(super) site: SiteSettings,
    /// Whether the log tells details.
    pub(super) debug: bool,
}

/// What to answer with.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct SiteSettings {
    /// The directory whose files are served.
    pub(super) root: Option<PathBuf>,
    /// Whether the demo's endpoints come before the files.
    pub(super) demo: bool,
    pub(super) files: FileSettings,
    pub(super) compression: CompressionSettings,
}

/// What is compressed of what isn't a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CompressionSettings {
    pub(super) enabled: bool,
    pub(super) codings: Vec<Coding>,
    pub(super) bytes_min: u64,
    pub(super) types: Vec<String>,
}

impl Default for CompressionSettings {
    fn default() -> CompressionSettings {
        let types = ["text/", "application/json", "application/javascript", "image/svg+xml"];
        CompressionSettings {
            enabled: false,
            codings: Coding::ALL.to_vec(),
            bytes_min: 1024,
            types: types.map(str::to_owned).to_vec(),
        }
    }
}

/// The features of the kernel that the environment says to do without.
///
/// # Errors
///
/// There is no feature of that name.
pub(super) fn feature_mask() -> Result<Mask, Failure> {
    let names = env::var(MASK_VARIABLE).unwrap_or_default();
    let wrong = |error| Failure::new(EX_USAGE, format_args!("{MASK_VARIABLE}: {error}"));
    names.parse().map_err(wrong)
}

/// How files are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FileSettings {
    pub(super) index: Vec<String>,
    pub(super) listing: bool,
    pub(super) precompressed: Vec<Coding>,
    pub(super) cache_control: Vec<CacheRule>,
    pub(super) downloads: Vec<String>,
    pub(super) cache: CacheLimits,
}

impl Default for FileSettings {
    fn default() -> FileSettings {
        FileSettings {
            index: vec!["index.html".to_owned()],
            listing: false,
            precompressed: Coding::ALL.to_vec(),
            cache_control: Vec::new(),
            downloads: Vec::new(),
            cache: CacheLimits::default(),
        }
    }
}

impl FileSettings {
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: &dyn Display, range: &str| {
            let (value, range) = (value.to_string(), range.to_owned());
            Err(ConfigError::OutOfRange { key, value, range })
        };
        for name in &self.index {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                return refuse("site.index", &quoted(name), "names of files, such as index.html");
            }
        }
        for pattern in &self.downloads {
            if pattern.is_empty() || pattern.contains(char::is_control) {
                return refuse("site.downloads", &quoted(pattern), "patterns such as *.iso");
            }
        }
        let CacheLimits { bytes_max, file_bytes_max, fresh } = self.cache;
        if file_bytes_max > FILE_BYTES_MAX {
            return refuse("site.cache_file_bytes_max", &file_bytes_max, "at most 64 MiB");
        }
        if bytes_max > 0 && file_bytes_max > bytes_max as u64 {
            let range = "at most site.cache_bytes_max, or a file would push out all others";
            return refuse("site.cache_file_bytes_max", &file_bytes_max, range);
        }
        if fresh > FRESH_MAX {
            return refuse("site.cache_fresh", &time_text(fresh), "at most 1h");
        }
        Ok(())
    }
}

/// A file is read in one go when it is cached, and copied nowhere: as much as is sent in a second
/// by a worker that does nothing else would be too much.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What was served for so long without a look at the disk is a surprise.
const FRESH_MAX: Duration = Duration::from_secs(3600);

impl Settings {
    /// The defaults, over them what the file sets, over that what the flags set. May be called
    /// again: the file is read anew.
    ///
    /// # Errors
    ///
    /// The file can't be read or understood, or a value is out of range.
    pub(super) fn read(flags: &Flags) -> Result<Settings, Failure> {
        let mut settings = Settings::default();
        if let Some(path) = &flags.config {
            settings.read_file(path)?;
        }
        let usage = |error: ConfigError| Failure::new(EX_USAGE, error);
        flags.apply(&mut settings).map_err(usage)?;
        settings.check().map_err(usage)?;
        settings.site.demo |= settings.site.root.is_none();
        settings.pool.mask = feature_mask()?;
        Ok(settings)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), Failure> {
        let name = path.display();
        let text = fs::read(path).map_err(|error| {
            Failure::new(EX_NOINPUT, format_args!("cannot read the configuration {name}: {error}"))
        })?;
        let wrong = |error: &dyn Display| Failure::new(EX_CONFIG, format_args!("{name}: {error}"));
        let text = String::from_utf8(text).map_err(|error| wrong(&error.utf8_error()))?;
        let file: Document = text.parse().map_err(|error| wrong(&error))?;
        file.apply(self).map_err(|error| wrong(&error))?;
        self.check().map_err(|error| wrong(&error))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.pool.clone().validate()?;
        self.worker.clone().validate()?;
        self.site.files.check()?;
        if self.site.compression.enabled && !cfg!(feature = "compression") {
            return Err(ConfigError::OutOfRange {
                key: "compression.enabled",
                value: "true".to_owned(),
                range: "false in a program that was built without the feature `compression`".into(),
            });
        }
        Ok(())
    }
}

impl Display for Settings {
    /// As a file that sets the same. Ids stand for users and groups; the mask of kernel features
    /// has no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole, here and below: a new setting must not be forgotten.
        let PoolConfig {
            listen,
            workers,
            backlog,
            ready_timeout,
            stop_timeout,
            restart_delay,
            restart,
            hang_timeout,
            upgrade_timeout,
            accept,
            balance,
            weights,
            queue_max,
            queue_timeout,
            message_bytes_max,
            identity,
            no_new_privs,
            descriptors_max,
            core_bytes_max,
            pid_file,
            mask: _,
        } = &self.pool;
        line(f, "listen", list(listen))?;
        line(f, "workers", quoted(workers))?;
        line(f, "backlog", backlog)?;
        line(f, "accept", quoted(accept))?;
        line(f, "balance", quoted(balance))?;
        line(f, "weights", format_args!("{weights:?}"))?;
        line(f, "queue_max", queue_max)?;
        line(f, "queue_timeout", time(queue_timeout))?;
        line(f, "ready_timeout", time(ready_timeout))?;
        line(f, "stop_timeout", time(stop_timeout))?;
        line(f, "hang_timeout", time(hang_timeout))?;
        line(f, "upgrade_timeout", time(upgrade_timeout))?;
        line(f, "restart", restart)?;
        line(f, "restart_delay", time(restart_delay))?;
        line(f, "message_bytes_max", bytes(*message_bytes_max as u64))?;
        optional(f, "user", identity.map(|identity| identity.uid))?;
        optional(f, "group", identity.map(|identity| identity.gid))?;
        line(f, "no_new_privs", no_new_privs)?;
        optional(f, "descriptors_max", *descriptors_max)?;
        optional(f, "core_bytes_max", core_bytes_max.map(bytes))?;
        optional(f, "pid_file", pid_file.as_deref().map(path))?;
        line(f, "debug", self.debug)?;

        let SiteSettings { root, demo, files, compression } = &self.site;
        writeln!(f, "\n[site]")?;
        optional(f, "root", root.as_deref().map(path))?;
        line(f, "demo", demo)?;
        let FileSettings { index, listing, precompressed, cache_control, downloads, cache } = files;
        let CacheLimits { bytes_max, file_bytes_max, fresh } = cache;
        line(f, "index", list(index))?;
        line(f, "listing", listing)?;
        line(f, "precompressed", list(precompressed))?;
        line(f, "cache_control", list(cache_control))?;
        line(f, "downloads", list(downloads))?;
        line(f, "cache_bytes_max", bytes(*bytes_max as u64))?;
        line(f, "cache_file_bytes_max", bytes(*file_bytes_max))?;
        line(f, "cache_fresh", time(fresh))?;
        let CompressionSettings { enabled, codings, bytes_min, types } = compression;
        writeln!(f, "\n[compression]")?;
        line(f, "enabled", enabled)?;
        line(f, "codings", list(codings))?;
        line(f, "bytes_min", bytes(*bytes_min))?;
        line(f, "types", list(types))?;

        self.write_worker(f)
    }
}

impl Settings {
    fn write_worker(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WorkerConfig {
            limits,
            timeouts,
            buffers,
            recycle,
            rate_limit,
            proxies,
            access_log,
            request_id_header,
        } = &self.worker;
        let Limits {
            head_bytes_max,
            target_bytes_max,
            fields_max,
            body_bytes_max,
            collected_bytes_max,
            connections_max,
            connections_per_client,
            requests_per_connection,
            memory_bytes_max,
            accepts_per_turn,
            receive_rate_min,
            send_rate_min,
        } = limits;
        writeln!(f, "\n[limits]")?;
        line(f, "head_bytes_max", bytes(u64::from(*head_bytes_max)))?;
        line(f, "target_bytes_max", bytes(u64::from(*target_bytes_max)))?;
        line(f, "fields_max", fields_max)?;
        line(f, "body_bytes_max", bytes(*body_bytes_max))?;
        line(f, "collected_bytes_max", bytes(*collected_bytes_max as u64))?;
        optional(f, "connections_max", *connections_max)?;
        optional(f, "connections_per_client", *connections_per_client)?;
        line(f, "requests_per_connection", requests_per_connection)?;
        line(f, "memory_bytes_max", bytes(*memory_bytes_max))?;
        line(f, "accepts_per_turn", accepts_per_turn)?;
        line(f, "receive_rate_min", bytes(u64::from(*receive_rate_min)))?;
        line(f, "send_rate_min", bytes(u64::from(*send_rate_min)))?;

        let Timeouts { head, idle, body, write, request, connection } = timeouts;
        writeln!(f, "\n[timeouts]")?;
        line(f, "head", time(head))?;
        line(f, "idle", time(idle))?;
        line(f, "body", time(body))?;
        line(f, "write", time(write))?;
        optional(f, "request", request.as_ref().map(time))?;
        optional(f, "connection", connection.as_ref().map(time))?;

        let Buffers { count, size } = buffers;
        writeln!(f, "\n[buffers]")?;
        line(f, "count", count)?;
        line(f, "size", bytes(u64::from(*size)))?;

        let Recycle { requests, lifetime, memory_bytes } = recycle;
        writeln!(f, "\n[recycle]")?;
        optional(f, "requests", *requests)?;
        optional(f, "lifetime", lifetime.as_ref().map(time))?;
        optional(f, "memory_bytes", memory_bytes.map(bytes))?;

        let RateLimit { enabled, requests, window, headers } = rate_limit;
        writeln!(f, "\n[rate_limit]")?;
        line(f, "enabled", enabled)?;
        line(f, "requests", requests)?;
        line(f, "window", time(window))?;
        line(f, "headers", headers)?;

        let Proxies { trusted, protocol, header } = proxies;
        let trusted: Vec<String> = trusted.names().map(quoted).collect();
        writeln!(f, "\n[proxies]")?;
        line(f, "trusted", format_args!("[{}]", trusted.join(", ")))?;
        line(f, "protocol", protocol)?;
        line(f, "header", quoted(header))?;

        let AccessLog { path: file, format, buffer_bytes, flush } = access_log;
        writeln!(f, "\n[access_log]")?;
        optional(f, "path", file.as_deref().map(path))?;
        line(f, "format", quoted(format))?;
        line(f, "buffer_bytes", bytes(*buffer_bytes as u64))?;
        line(f, "flush", time(flush))?;
        line(f, "request_id_header", request_id_header)
    }
}

fn line(f: &mut fmt::Formatter<'_>, key: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "{key} = {value}")
}

fn optional(f: &mut fmt::Formatter<'_>, key: &str, value: Option<impl Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| line(f, key, value))
}

/// A basic string of TOML, whose escapes are those of JSON.
fn quoted(value: impl Display) -> String {
    serde_json::Value::from(value.to_string()).to_string()
}

fn list(values: &[impl Display]) -> String {
    let values: Vec<String> = values.iter().map(quoted).collect();
    format!("[{}]", values.join(", "))
}

fn time(time: &Duration) -> String {
    quoted(time_text(*time))
}

fn bytes(bytes: u64) -> String {
    quoted(bytes_text(bytes))
}

fn path(path: &Path) -> String {
    quoted(path.display())
}
