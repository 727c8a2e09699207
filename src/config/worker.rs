//! Settings of a worker: how much a connection may cost, and how long it may take.
//! Nothing of the pool around it.

use std::time::Duration;

use super::checked::within;
use super::{AccessLog, Checked, ConfigError, Proxies, RateLimit};

/// The parser keeps this many at most on its stack.
const FIELDS_MAX: u16 = 100;

/// Settings of every worker; [`validate`](WorkerConfig::validate) makes them usable.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WorkerConfig {
    /// How much there may be of something.
    pub limits: Limits,
    /// How long something may take.
    pub timeouts: Timeouts,
    /// Memory that the kernel receives into.
    pub buffers: Buffers,
    /// When a worker is replaced although nothing is wrong.
    pub recycle: Recycle,
    /// How often a client may ask.
    pub rate_limit: RateLimit,
    /// Whom to believe about the clients behind them.
    pub proxies: Proxies,
    /// A line for each answer.
    pub access_log: AccessLog,
    /// Whether responses tell the request's id, in `X-Request-Id`. Default: no.
    pub request_id_header: bool,
}

/// When a worker is replaced by a fresh one although nothing is wrong; clients don't notice. Each
/// worker's share of a limit is drawn between nine tenths and all of it, so that they don't go at
/// once. Default: never.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Recycle {
    /// After so many requests, at least 1.
    pub requests: Option<u64>,
    /// After so long: 1 s to a year.
    pub lifetime: Option<Duration>,
    /// When it occupies so many bytes of memory (its resident set), at least 1 MiB; looked at once
    /// a second while it is busy.
    pub memory_bytes: Option<u64>,
}

/// How much there may be of something. What exceeds it is refused, never cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a request's head, from its first byte to the empty line: 1 KiB to 64 KiB less one.
    /// Default: 16 KiB, four times what the cookies of a large site take.
    pub head_bytes_max: u16,
    /// Bytes of a request's target, 64 to 64 KiB less one; the head's limit counts as well.
    /// Default: 8 KiB (RFC 9112 section 3 recommends 8,000 for the whole line).
    pub target_bytes_max: u16,
    /// Header fields of a request, 1 to 100. Default: 100, as Apache's.
    pub fields_max: u16,
    /// Bytes of a request's body, collected or streamed: up to 1 PiB; 0 allows none.
    /// Default: 10 MiB.
    pub body_bytes_max: u64,
    /// Bytes of a request's body that a handler collects in memory: up to 4 GiB less one.
    /// Default: 10 MiB.
    pub collected_bytes_max: usize,
    /// Connections of one worker, 1 to 1,048,576 (`fs.nr_open`). Beyond it, the one that has idled
    /// longest is closed for the new one; if none idles, the new one waits. Default: `None`, as
    /// many as the limit of descriptors allows.
    pub connections_max: Option<u32>,
    /// Connections from one client (as [`RateLimit`] has it), over all workers, 1 to 1,048,576. More are
    /// closed at once; trusted proxies may have as many as they like. Default: `None`, no limit.
    pub connections_per_client: Option<u32>,
    /// Requests of one connection, at least 1; the answer to the last one says `Connection: close`.
    /// 1 switches keep-alive off. Default: 1,000,000.
    pub requests_per_connection: u32,
    /// Bytes that the connections of one worker may hold in memory together, at least 1 MiB. While
    /// they hold more, requests are answered with 503. Default: 512 MiB.
    pub memory_bytes_max: u64,
    /// New connections that a worker takes in one turn of its loop, 1 to 1,048,576, before it looks
    /// after the others. Default: 256.
    pub accepts_per_turn: u32,
    /// Bytes a second at which a body has to arrive, on average since it began and beyond the first
    /// `timeouts.body`: up to 1 GiB; 0 is no minimum. Default: 250.
    pub receive_rate_min: u32,
    /// Bytes a second at which a response has to be taken, on average over each send and beyond 5 s:
    /// up to 1 GiB; 0 is no minimum. Default: 250.
    pub send_rate_min: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes_max: 16 << 10,
            target_bytes_max: 8 << 10,
            fields_max: 100,
            body_bytes_max: 10 << 20,
            collected_bytes_max: 10 << 20,
            connections_max: None,
            connections_per_client: None,
            requests_per_connection: 1_000_000,
            memory_bytes_max: 512 << 20,
            accepts_per_turn: 256,
            receive_rate_min: 250,
            send_rate_min: 250,
        }
    }
}

/// How long something may take: 100 ms to a day each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// From the first byte of a head to its last. Default: 10 s.
    pub head: Duration,
    /// Between two requests of a connection, or two signs of life of one that has changed its protocol.
    /// Default: 75 s, as nginx's.
    pub idle: Duration,
    /// Between two arrivals of a body's bytes. Default: 30 s.
    pub body: Duration,
    /// For each 256 KiB of a response to be taken by the peer: with the default of 30 s, it has to
    /// read 9 KB/s. Also for a handler whose client has closed its side already.
    pub write: Duration,
    /// From a request's head to the begin of its response; then the handler is dropped, and the
    /// answer is 503. Default: `None`, a handler takes the time that it takes.
    pub request: Option<Duration>,
    /// How old a connection may become: beyond it, the next answer says `Connection: close`.
    /// Default: `None`, no limit.
    pub connection: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            request: None,
            connection: None,
        }
    }
}

/// Memory that the kernel receives into, shared by the connections of a worker. It is borrowed
/// between an arrival and its handling, so a few hundred serve thousands of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffers {
    /// How many: a power of two from 8 to 32768. Default: 256; many more only miss the cache.
    pub count: u16,
    /// Bytes of each, 512 to 1 MiB. Default: 2048, which holds nearly every head.
    pub size: u32,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers { count: 256, size: 2048 }
    }
}

impl WorkerConfig {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first setting that can't be used.
    pub fn validate(self) -> Result<Checked<WorkerConfig>, ConfigError> {
        self.limits.check()?;
        self.timeouts.check()?;
        self.buffers.check()?;
        self.recycle.check()?;
        self.rate_limit.check()?;
        self.proxies.check()?;
        self.access_log.check()?;
        Ok(Checked::by_validation(self))
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        within("limits.head_bytes_max", self.head_bytes_max, 1 << 10..=u16::MAX)?;
        within("limits.fields_max", self.fields_max, 1..=FIELDS_MAX)?;
        within("limits.target_bytes_max", self.target_bytes_max, 64..=u16::MAX)?;
        within("limits.body_bytes_max", self.body_bytes_max, 0..=1 << 50)?;
        within("limits.collected_bytes_max", self.collected_bytes_max, 0..=u32::MAX as usize)?;
        if let Some(count) = self.connections_max {
            within("limits.connections_max", count, 1..=1 << 20)?;
        }
        if let Some(count) = self.connections_per_client {
            within("limits.connections_per_client", count, 1..=1 << 20)?;
        }
        within("limits.requests_per_connection", self.requests_per_connection, 1..=u32::MAX)?;
        within("limits.memory_bytes_max", self.memory_bytes_max, 1 << 20..=u64::MAX)?;
        within("limits.accepts_per_turn", self.accepts_per_turn, 1..=1 << 20)?;
        within("limits.receive_rate_min", self.receive_rate_min, 0..=1 << 30)?;
        within("limits.send_rate_min", self.send_rate_min, 0..=1 << 30)
    }
}

impl Recycle {
    fn check(&self) -> Result<(), ConfigError> {
        let year = Duration::from_secs(366 * 86_400);
        if let Some(requests) = self.requests {
            within("recycle.requests", requests, 1..=u64::MAX)?;
        }
        if let Some(lifetime) = self.lifetime {
            within("recycle.lifetime", lifetime, Duration::from_secs(1)..=year)?;
        }
        match self.memory_bytes {
            Some(bytes) => within("recycle.memory_bytes", bytes, 1 << 20..=u64::MAX),
            None => Ok(()),
        }
    }
}

impl Timeouts {
    fn check(&self) -> Result<(), ConfigError> {
        let range = Duration::from_millis(100)..=Duration::from_secs(86_400);
        within("timeouts.head", self.head, range.clone())?;
        within("timeouts.idle", self.idle, range.clone())?;
        within("timeouts.body", self.body, range.clone())?;
        within("timeouts.write", self.write, range.clone())?;
        if let Some(time) = self.request {
            within("timeouts.request", time, range.clone())?;
        }
        match self.connection {
            Some(time) => within("timeouts.connection", time, range),
            None => Ok(()),
        }
    }
}

impl Buffers {
    fn check(self) -> Result<(), ConfigError> {
        let Buffers { count, size } = self;
        if !(count.is_power_of_two() && (8..=1 << 15).contains(&count)) {
            return Err(ConfigError::OutOfRange {
                key: "buffers.count",
                value: count.to_string(),
                range: "a power of two from 8 to 32768".to_owned(),
            });
        }
        within("buffers.size", size, 512..=1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl Fn(&mut WorkerConfig)) -> String {
        let mut config = WorkerConfig::default();
        change(&mut config);
        config.validate().expect_err("out of range").to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_read_as_they_were_written() {
        let config = WorkerConfig::default().validate().unwrap();
        assert_eq!(config.limits.head_bytes_max, 16_384);
        assert_eq!(config.into_inner(), WorkerConfig::default());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_key_and_range() {
        assert_eq!(
            refusal(|c| c.limits.head_bytes_max = 100),
            "`limits.head_bytes_max` is 100: it must be from 1024 to 65535"
        );
        assert_eq!(
            refusal(|c| c.timeouts.head = Duration::ZERO),
            "`timeouts.head` is 0ns: it must be from 100ms to 86400s"
        );
        assert_eq!(
            refusal(|c| c.buffers.count = 100),
            "`buffers.count` is 100: it must be a power of two from 8 to 32768"
        );
        assert!(refusal(|c| c.limits.fields_max = 0).contains("`limits.fields_max` is 0"));
        assert!(
            refusal(|c| c.limits.body_bytes_max = u64::MAX).contains("`limits.body_bytes_max`")
        );
        let collected = refusal(|c| c.limits.collected_bytes_max = usize::MAX);
        assert!(collected.contains("`limits.collected_bytes_max`"));
        assert!(refusal(|c| c.limits.connections_max = Some(0)).contains("from 1 to 1048576"));
        assert!(refusal(|c| c.timeouts.idle = Duration::MAX).contains("`timeouts.idle`"));
        assert!(refusal(|c| c.timeouts.body = Duration::ZERO).contains("`timeouts.body`"));
        assert!(refusal(|c| c.timeouts.write = Duration::ZERO).contains("`timeouts.write`"));
        assert!(
            refusal(|c| c.timeouts.request = Some(Duration::ZERO)).contains("`timeouts.request`")
        );
        assert!(refusal(|c| c.timeouts.connection = Some(Duration::MAX)).contains("from 100ms"));
        assert!(refusal(|c| c.limits.target_bytes_max = 9).contains("`limits.target_bytes_max`"));
        assert!(refusal(|c| c.limits.connections_per_client = Some(0)).contains("from 1 to"));
        assert!(refusal(|c| c.limits.requests_per_connection = 0).contains("from 1 to"));
        assert!(refusal(|c| c.limits.memory_bytes_max = 9).contains("from 1048576"));
        assert!(refusal(|c| c.limits.accepts_per_turn = 0).contains("`limits.accepts_per_turn`"));
        assert!(refusal(|c| c.limits.receive_rate_min = u32::MAX).contains("from 0 to"));
        assert!(refusal(|c| c.limits.send_rate_min = u32::MAX).contains("from 0 to"));
        assert!(refusal(|c| c.rate_limit.requests = 0).contains("`rate_limit.requests` is 0"));
        assert!(refusal(|c| c.rate_limit.window = Duration::ZERO).contains("from 1s to 86400s"));
        assert!(refusal(|c| c.proxies.protocol = true).contains("with `proxies.trusted`"));
        assert!(refusal(|c| c.access_log.buffer_bytes = 1).contains("`access_log.buffer_bytes`"));
        assert!(refusal(|c| c.access_log.flush = Duration::ZERO).contains("from 10ms to 60s"));
        assert!(refusal(|c| c.buffers.size = 100).contains("`buffers.size`"));
        assert!(refusal(|c| c.recycle.requests = Some(0)).contains("`recycle.requests` is 0"));
        assert!(refusal(|c| c.recycle.memory_bytes = Some(5)).contains("`recycle.memory_bytes`"));
        assert!(refusal(|c| c.recycle.lifetime = Some(Duration::ZERO)).contains("from 1s"));
    }
}
