//! The configuration file: TOML to settings, key by key. Checks no ranges and knows no flags.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use uring_pool::app::coding::Coding;
use uring_pool::app::files::CacheRule;
use uring_pool::config::{
    Accept, Address, Balance, ConfigError, ForwardedHeader, LogFormat, TrustedPeers, WorkerCount,
};

use super::identity::identity;
use super::settings::Settings;
use super::units;

/// What a file sets. Each key is the one that [`ConfigError`] names, and all may be left out.
#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Document {
    listen: Option<Vec<Of<Plain<Address>>>>,
    workers: Option<Of<Plain<WorkerCount>>>,
    backlog: Option<Of<Count<u32>>>,
    accept: Option<Of<Plain<Accept>>>,
    balance: Option<Of<Plain<Balance>>>,
    weights: Option<Vec<Of<Count<u32>>>>,
    queue_max: Option<Of<Count<usize>>>,
    queue_timeout: Option<Of<Time>>,
    ready_timeout: Option<Of<Time>>,
    stop_timeout: Option<Of<Time>>,
    hang_timeout: Option<Of<Time>>,
    upgrade_timeout: Option<Of<Time>>,
    restart: Option<bool>,
    restart_delay: Option<Of<Time>>,
    message_bytes_max: Option<Of<Bytes<usize>>>,
    user: Option<Of<Plain<String>>>,
    group: Option<Of<Plain<String>>>,
    no_new_privs: Option<bool>,
    descriptors_max: Option<Of<Count<u64>>>,
    core_bytes_max: Option<Of<Bytes<u64>>>,
    pid_file: Option<PathBuf>,
    debug: Option<bool>,
    site: Site,
    compression: Compression,
    limits: Limits,
    timeouts: Timeouts,
    buffers: Buffers,
    recycle: Recycle,
    rate_limit: RateLimit,
    proxies: Proxies,
    access_log: AccessLog,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Site {
    root: Option<PathBuf>,
    demo: Option<bool>,
    index: Option<Vec<String>>,
    listing: Option<bool>,
    precompressed: Option<Vec<Of<Plain<Coding>>>>,
    cache_control: Option<Vec<Of<Plain<CacheRule>>>>,
    downloads: Option<Vec<String>>,
    cache_bytes_max: Option<Of<Bytes<usize>>>,
    cache_file_bytes_max: Option<Of<Bytes<u64>>>,
    cache_fresh: Option<Of<Time>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Compression {
    enabled: Option<bool>,
    codings: Option<Vec<Of<Plain<Coding>>>>,
    bytes_min: Option<Of<Bytes<u64>>>,
    types: Option<Vec<String>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    head_bytes_max: Option<Of<Bytes<u16>>>,
    target_bytes_max: Option<Of<Bytes<u16>>>,
    fields_max: Option<Of<Count<u16>>>,
    body_bytes_max: Option<Of<Bytes<u64>>>,
    collected_bytes_max: Option<Of<Bytes<usize>>>,
    connections_max: Option<Of<Count<u32>>>,
    connections_per_client: Option<Of<Count<u32>>>,
    requests_per_connection: Option<Of<Count<u32>>>,
    memory_bytes_max: Option<Of<Bytes<u64>>>,
    accepts_per_turn: Option<Of<Count<u32>>>,
    receive_rate_min: Option<Of<Bytes<u32>>>,
    send_rate_min: Option<Of<Bytes<u32>>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Timeouts {
    head: Option<Of<Time>>,
    idle: Option<Of<Time>>,
    body: Option<Of<Time>>,
    write: Option<Of<Time>>,
    request: Option<Of<Time>>,
    connection: Option<Of<Time>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Buffers {
    count: Option<Of<Count<u16>>>,
    size: Option<Of<Bytes<u32>>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Recycle {
    requests: Option<Of<Count<u64>>>,
    lifetime: Option<Of<Time>>,
    memory_bytes: Option<Of<Bytes<u64>>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct RateLimit {
    enabled: Option<bool>,
    requests: Option<Of<Count<u32>>>,
    window: Option<Of<Time>>,
    headers: Option<bool>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Proxies {
    trusted: Option<Vec<String>>,
    protocol: Option<bool>,
    header: Option<Of<Plain<ForwardedHeader>>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct AccessLog {
    path: Option<PathBuf>,
    format: Option<Of<Plain<LogFormat>>>,
    buffer_bytes: Option<Of<Bytes<usize>>>,
    flush: Option<Of<Time>>,
    request_id_header: Option<bool>,
}

impl FromStr for Document {
    type Err = basic_toml::Error;

    /// Reads TOML; the error names key, value, line and what would be right.
    fn from_str(text: &str) -> Result<Document, basic_toml::Error> {
        basic_toml::from_str(text)
    }
}

impl Document {
    /// Sets what the file sets, over what is there.
    ///
    /// # Errors
    ///
    /// The user or the group is unknown.
    pub(super) fn apply(self, settings: &mut Settings) -> Result<(), ConfigError> {
        let pool = &mut settings.pool;
        if let Some(listen) = self.listen {
            pool.listen = listen.into_iter().map(|address| address.0).collect();
        }
        if let Some(weights) = self.weights {
            pool.weights = weights.into_iter().map(|weight| weight.0).collect();
        }
        let (user, group) = (self.user.map(|user| user.0), self.group.map(|group| group.0));
        pool.identity = identity(user.as_deref(), group.as_deref(), pool.identity)?;
        set(&mut pool.workers, self.workers);
        set(&mut pool.backlog, self.backlog);
        set(&mut pool.accept, self.accept);
        set(&mut pool.balance, self.balance);
        set(&mut pool.queue_max, self.queue_max);
        set(&mut pool.queue_timeout, self.queue_timeout);
        set(&mut pool.ready_timeout, self.ready_timeout);
        set(&mut pool.stop_timeout, self.stop_timeout);
        set(&mut pool.hang_timeout, self.hang_timeout);
        set(&mut pool.upgrade_timeout, self.upgrade_timeout);
        pool.restart = self.restart.unwrap_or(pool.restart);
        set(&mut pool.restart_delay, self.restart_delay);
        set(&mut pool.message_bytes_max, self.message_bytes_max);
        pool.no_new_privs = self.no_new_privs.unwrap_or(pool.no_new_privs);
        set_optional(&mut pool.descriptors_max, self.descriptors_max);
        set_optional(&mut pool.core_bytes_max, self.core_bytes_max);
        pool.pid_file = self.pid_file.or(pool.pid_file.take());
        settings.debug = self.debug.unwrap_or(settings.debug);

        let site = &mut settings.site;
        site.root = self.site.root.or(site.root.take());
        site.demo = self.site.demo.unwrap_or(site.demo);
        let files = &mut site.files;
        files.index = self.site.index.unwrap_or(std::mem::take(&mut files.index));
        files.listing = self.site.listing.unwrap_or(files.listing);
        files.downloads = self.site.downloads.unwrap_or(std::mem::take(&mut files.downloads));
        if let Some(codings) = self.site.precompressed {
            files.precompressed = codings.into_iter().map(|coding| coding.0).collect();
        }
        if let Some(rules) = self.site.cache_control {
            files.cache_control = rules.into_iter().map(|rule| rule.0).collect();
        }
        set(&mut files.cache.bytes_max, self.site.cache_bytes_max);
        set(&mut files.cache.file_bytes_max, self.site.cache_file_bytes_max);
        set(&mut files.cache.fresh, self.site.cache_fresh);
        let compression = &mut site.compression;
        compression.enabled = self.compression.enabled.unwrap_or(compression.enabled);
        if let Some(codings) = self.compression.codings {
            compression.codings = codings.into_iter().map(|coding| coding.0).collect();
        }
        set(&mut compression.bytes_min, self.compression.bytes_min);
        let types = self.compression.types;
        compression.types = types.unwrap_or(std::mem::take(&mut compression.types));

        let worker = &mut settings.worker;
        set(&mut worker.limits.head_bytes_max, self.limits.head_bytes_max);
        set(&mut worker.limits.target_bytes_max, self.limits.target_bytes_max);
        set(&mut worker.limits.fields_max, self.limits.fields_max);
        set(&mut worker.limits.body_bytes_max, self.limits.body_bytes_max);
        set(&mut worker.limits.collected_bytes_max, self.limits.collected_bytes_max);
        set_optional(&mut worker.limits.connections_max, self.limits.connections_max);
        set_optional(&mut worker.limits.connections_per_client, self.limits.connections_per_client);
        set(&mut worker.limits.requests_per_connection, self.limits.requests_per_connection);
        set(&mut worker.limits.memory_bytes_max, self.limits.memory_bytes_max);
        set(&mut worker.limits.accepts_per_turn, self.limits.accepts_per_turn);
        set(&mut worker.limits.receive_rate_min, self.limits.receive_rate_min);
        set(&mut worker.limits.send_rate_min, self.limits.send_rate_min);
        set(&mut worker.timeouts.head, self.timeouts.head);
        set(&mut worker.timeouts.idle, self.timeouts.idle);
        set(&mut worker.timeouts.body, self.timeouts.body);
        set(&mut worker.timeouts.write, self.timeouts.write);
        set_optional(&mut worker.timeouts.request, self.timeouts.request);
        set_optional(&mut worker.timeouts.connection, self.timeouts.connection);
        set(&mut worker.buffers.count, self.buffers.count);
        set(&mut worker.buffers.size, self.buffers.size);
        set_optional(&mut worker.recycle.requests, self.recycle.requests);
        set_optional(&mut worker.recycle.lifetime, self.recycle.lifetime);
        set_optional(&mut worker.recycle.memory_bytes, self.recycle.memory_bytes);

        let rate = &mut worker.rate_limit;
        rate.enabled = self.rate_limit.enabled.unwrap_or(rate.enabled);
        set(&mut rate.requests, self.rate_limit.requests);
        set(&mut rate.window, self.rate_limit.window);
        rate.headers = self.rate_limit.headers.unwrap_or(rate.headers);

        let proxies = &mut worker.proxies;
        if let Some(trusted) = self.proxies.trusted {
            proxies.trusted = TrustedPeers::default();
            trusted.iter().try_for_each(|peers| proxies.trusted.add(peers))?;
        }
        proxies.protocol = self.proxies.protocol.unwrap_or(proxies.protocol);
        set(&mut proxies.header, self.proxies.header);

        let log = &mut worker.access_log;
        log.path = self.access_log.path.or(log.path.take());
        set(&mut log.format, self.access_log.format);
        set(&mut log.buffer_bytes, self.access_log.buffer_bytes);
        set(&mut log.flush, self.access_log.flush);
        let header = &mut worker.request_id_header;
        *header = self.access_log.request_id_header.unwrap_or(*header);
        Ok(())
    }
}

fn set<R: Read>(place: &mut R::Value, value: Option<Of<R>>) {
    if let Some(value) = value {
        *place = value.0;
    }
}

fn set_optional<R: Read>(place: &mut Option<R::Value>, value: Option<Of<R>>) {
    if let Some(value) = value {
        *place = Some(value.0);
    }
}

/// A value that is written as text, or as a number for which its digits stand.
struct Of<R: Read>(R::Value);

/// How text becomes a value.
trait Read {
    type Value;
    fn read(text: &str) -> Result<Self::Value, String>;
}

struct Plain<T>(PhantomData<T>);
struct Count<T>(PhantomData<T>);
struct Bytes<T>(PhantomData<T>);
struct Time;

impl<T: FromStr<Err: fmt::Display>> Read for Plain<T> {
    type Value = T;

    fn read(text: &str) -> Result<T, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }
}

impl<T: TryFrom<u64>> Read for Count<T> {
    type Value = T;

    fn read(text: &str) -> Result<T, String> {
        units::count(text)
    }
}

impl<T: TryFrom<u64>> Read for Bytes<T> {
    type Value = T;

    fn read(text: &str) -> Result<T, String> {
        units::bytes(text)
    }
}

impl Read for Time {
    type Value = Duration;

    fn read(text: &str) -> Result<Duration, String> {
        units::time(text)
    }
}

impl<'de, R: Read> Deserialize<'de> for Of<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Of<R>, D::Error> {
        struct Reader<R>(PhantomData<R>);

        impl<R: Read> Visitor<'_> for Reader<R> {
            type Value = Of<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a whole number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Of<R>, E> {
                R::read(text).map(Of).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Of<R>, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Reader(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uring_pool::config::{Identity, PoolConfig, WorkerConfig};

    const EXAMPLE: &str = include_str!("../../examples/edge.toml");

    fn settings(text: &str) -> Settings {
        let mut settings = Settings::default();
        text.parse::<Document>().unwrap().apply(&mut settings).unwrap();
        settings
    }

    fn refusal(text: &str) -> String {
        text.parse::<Document>().err().expect("something wrong").to_string()
    }

    /// The example with every key set, to what its comment says.
    fn uncommented() -> String {
        let line = |line: &str| {
            line.strip_prefix('#')
                .filter(|key| key.starts_with(|c: char| c.is_ascii_lowercase()))
                .map_or(line.to_owned(), str::to_owned)
        };
        EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_sets_nothing_as_it_stands() {
        assert_eq!(settings(EXAMPLE), Settings::default());
    }

    #[test]
    fn the_example_tells_the_defaults_but_where_it_says_that_there_is_none() {
        let mut example = settings(&uncommented());
        let Settings { pool, worker, site, .. } = &mut example;
        assert_eq!(pool.weights.as_slice(), [2, 1]);
        assert_eq!(pool.identity, Some(Identity { uid: 65_534, gid: 65_534 }));
        assert_eq!((pool.descriptors_max, pool.core_bytes_max), (Some(65_536), Some(0)));
        assert_eq!(pool.pid_file.take(), Some("/run/uring-pool.pid".into()));
        assert_eq!(site.root.take(), Some("/var/www".into()));
        let rules: Vec<String> =
            site.files.cache_control.drain(..).map(|r| r.to_string()).collect();
        assert_eq!(rules, ["/assets/*: public, max-age=31536000, immutable", "*: max-age=60"]);
        assert_eq!(std::mem::take(&mut site.files.downloads), ["/downloads/*", "*.iso"]);
        assert_eq!(worker.limits.connections_max, Some(10_000));
        assert_eq!(worker.recycle.requests, Some(1_000_000));
        assert_eq!(worker.recycle.lifetime, Some(Duration::from_secs(86_400)));
        assert_eq!(worker.recycle.memory_bytes, Some(512 << 20));
        let without = EXAMPLE.lines().filter(|line| line.contains("; no default")).count();
        assert_eq!(without, 17, "as many as there are keys above and below");
        pool.weights.clear();
        (pool.identity, pool.descriptors_max, pool.core_bytes_max) = (None, None, None);
        assert_eq!(worker.limits.connections_per_client.take(), Some(100));
        assert_eq!(worker.timeouts.request.take(), Some(Duration::from_secs(30)));
        assert_eq!(worker.timeouts.connection.take(), Some(Duration::from_secs(3600)));
        let log = worker.access_log.path.take();
        assert_eq!(log, Some("/var/log/uring-pool/access.log".into()));
        worker.limits.connections_max = None;
        worker.recycle = uring_pool::config::Recycle::default();
        assert_eq!(example, Settings::default());
    }

    #[test]
    fn the_example_has_every_key() {
        let example = uncommented();
        for table in [
            "",
            "site",
            "compression",
            "limits",
            "timeouts",
            "buffers",
            "recycle",
            "rate_limit",
            "proxies",
            "access_log",
        ] {
            let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
            let refusal = refusal(&format!("{header}none = 1"));
            let (_, keys) = refusal.split_once("expected").expect("the keys that there are");
            for key in keys.split('`').skip(1).step_by(2).filter(|key| *key != table) {
                let set = |line: &str| line.starts_with(&format!("{key} = "));
                let is_table = example.contains(&format!("\n[{key}]\n"));
                assert!(is_table || example.lines().any(set), "{key} of [{table}]");
            }
        }
    }

    #[test]
    fn settings_are_written_as_a_file_that_sets_the_same() {
        let changed = settings(
            r#"
            listen = ["[::1]:80", "unix:/run/a \"b\".sock"]
            workers = 3
            backlog = 7
            accept = "dispatch"
            balance = "p2c"
            weights = [3, 2]
            queue_max = 5
            queue_timeout = "1s 500ms"
            ready_timeout = "11s"
            stop_timeout = "0s"
            hang_timeout = "1h"
            upgrade_timeout = "2m"
            restart = false
            restart_delay = "5ms"
            message_bytes_max = 2000
            user = "root"
            group = 3
            no_new_privs = false
            descriptors_max = 100
            core_bytes_max = "unlimited"
            pid_file = "pid"
            debug = true
            [site]
            root = "."
            demo = true
            index = ["a.html", "b.html"]
            listing = true
            precompressed = ["gzip"]
            cache_control = ["*.css: max-age=\"1\""]
            downloads = ["*.pdf"]
            cache_bytes_max = "1MiB"
            cache_file_bytes_max = 1000
            cache_fresh = "2s"
            [compression]
            enabled = true
            codings = ["zstd"]
            bytes_min = 5
            types = ["text/"]
            [limits]
            head_bytes_max = "8KiB"
            target_bytes_max = "1KiB"
            fields_max = 9
            body_bytes_max = 0
            collected_bytes_max = "1KiB"
            connections_max = 10
            connections_per_client = 5
            requests_per_connection = 1
            memory_bytes_max = "2MiB"
            accepts_per_turn = 3
            receive_rate_min = 0
            send_rate_min = "1KiB"
            [timeouts]
            head = "1s"
            idle = "2s"
            body = "3s"
            write = "4s"
            request = "5s"
            connection = "6m"
            [buffers]
            count = 8
            size = "4KiB"
            [recycle]
            requests = 1
            lifetime = "1d"
            memory_bytes = "1GiB"
            [rate_limit]
            enabled = true
            requests = 7
            window = "8s"
            headers = false
            [proxies]
            trusted = ["10.0.0.0/8", "::1", "unix"]
            protocol = true
            header = "forwarded"
            [access_log]
            path = "-"
            format = "json"
            buffer_bytes = "32KiB"
            flush = "50ms"
            request_id_header = true
            "#,
        );
        assert_eq!(settings(&changed.to_string()), changed);
        assert_eq!(changed.pool.identity, Some(Identity { uid: 0, gid: 3 }));
        assert_eq!(changed.pool.core_bytes_max, Some(u64::MAX));
        let Settings { pool, worker, .. } = settings("");
        assert_eq!((pool, worker), (PoolConfig::default(), WorkerConfig::default()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key_and_line() {
        for (text, words) in [
            ("lisen = []", &["unknown field `lisen`", "`listen`"][..]),
            ("[limits]\nhead = 1", &["unknown field `head`", "key `limits`", "`head_bytes_max`"]),
            ("listen = [\"8080\"]", &["`8080` is no address", "`listen`", "line 1"]),
            ("listen = \"127.0.0.1:80\"", &["a sequence", "`listen`"]),
            ("workers = -1", &["`workers` is -1", "`auto`"]),
            ("accept = \"central\"", &["`accept` is central", "shared, or dispatch"]),
            ("stop_timeout = 30", &["`30` is no time such as 30s", "`stop_timeout`"]),
            ("restart = \"yes\"", &["a boolean", "`restart`"]),
            ("\n[buffers]\nsize = \"2K\"", &["`2K` is no size", "`buffers.size`", "line 3"]),
            ("[limits]\nhead_bytes_max = 65536", &["more than 65535", "`limits.head_bytes_max`"]),
            ("[proxies]\nheader = \"via\"", &["`proxies.header` is via", "x-forwarded-for or"]),
            ("[access_log]\nformat = 1", &["`access_log.format` is 1", "combined or json"]),
            ("[rate_limit]\nrequests = -1", &["no whole number", "`rate_limit.requests`"]),
            ("backlog = 1.5", &["`1.5`", "whole number", "`backlog`"]),
            ("backlog = 1\nbacklog = 2", &["duplicate key: `backlog`"]),
            ("backlog", &["line 1"]),
            ("[site]\nprecompressed = [\"lzma\"]", &["`lzma`", "br, zstd or gzip"]),
            ("[site]\ncache_control = [\"*.css\"]", &["`*.css` is no rule such as"]),
        ] {
            let refusal = refusal(text);
            for word in words {
                assert!(refusal.contains(word), "{text}: no {word} in: {refusal}");
            }
        }
    }
}
