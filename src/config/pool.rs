//! Settings of the pool as a whole: where it listens, how many workers, how long it is patient.
//! Nothing of what a worker does with a connection.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use uring_ring::Mask;

use super::checked::within;
use super::{Accept, Address, Balance, Checked, ConfigError};

/// More workers than any machine has cores; each costs a process, a ring and a page.
pub const WORKERS_MAX: usize = 1024;

/// listen(2) takes more, but the kernel cuts it at `net.core.somaxconn` (4096 by default).
const BACKLOG_MAX: u32 = 65_535;

/// Each connection in the queue costs the master a descriptor.
const QUEUE_MAX: usize = 65_536;

/// Finer shares than a thousandth make no difference that one could measure.
const WEIGHT_MAX: u32 = 1000;

/// Settings of the pool; [`validate`](PoolConfig::validate) makes them usable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Where to listen: at least one address, each once. Default: `127.0.0.1:8080`.
    pub listen: Vec<Address>,
    /// How many worker processes. Default: [`WorkerCount::Auto`].
    pub workers: WorkerCount,
    /// Connections that may wait to be accepted, for each worker: 1 to 65535, cut by the kernel at
    /// `net.core.somaxconn`. Default: 1024.
    pub backlog: u32,
    /// How long a worker may take to get ready: 100 ms to 10 min. Default: 10 s.
    pub ready_timeout: Duration,
    /// How long open connections may take at a graceful stop: up to a day. Default: 30 s.
    pub stop_timeout: Duration,
    /// How long a worker that failed twice in a row waits for its successor; doubles with each
    /// further failure, up to 10 s. 1 ms to 10 s. Default: 100 ms.
    pub restart_delay: Duration,
    /// Whether a worker that ends is replaced. Default: yes. Otherwise the pool ends with its last
    /// worker.
    pub restart: bool,
    /// How long one turn of a worker's loop may last before the worker is held to hang, and is
    /// replaced: 100 ms to an hour. Default: 30 s.
    pub hang_timeout: Duration,
    /// How long the master of a new binary may take to get ready (`SIGUSR2`): 1 s to an hour.
    /// Default: 60 s.
    pub upgrade_timeout: Duration,
    /// How connections reach the workers. Default: [`Accept::Shared`].
    pub accept: Accept,
    /// Who gets a connection in [`Accept::Dispatch`]. Default: [`Balance::LeastConnections`].
    pub balance: Balance,
    /// Shares of the workers, in their order, for [`Balance::Weighted`]: 1 to 1000 each. Workers
    /// without one have 1. Default: none.
    pub weights: Vec<u32>,
    /// Connections that may wait in the master while every worker has as many as it may, in
    /// [`Accept::Dispatch`]: 1 to 65536. More are answered with 503. Default: 1000.
    pub queue_max: usize,
    /// How long such a connection waits before it is answered with 503: 10 ms to 10 min.
    /// Default: 10 s.
    pub queue_timeout: Duration,
    /// Bytes of a message between master and worker: 1 KiB to 128 KiB, which a packet of a Unix
    /// socket carries with the kernel's defaults. Default: 64 KiB.
    pub message_bytes_max: usize,
    /// Whom the workers run as, once they have what needs more rights. Default: as the master.
    pub identity: Option<Identity>,
    /// Whether workers and what they start can never gain rights (`PR_SET_NO_NEW_PRIVS`).
    /// Default: yes.
    pub no_new_privs: bool,
    /// The limit of descriptors to set before anything else (`RLIMIT_NOFILE`). Default: as it is.
    pub descriptors_max: Option<u64>,
    /// The limit of a core dump's bytes (`RLIMIT_CORE`). Default: as it is.
    pub core_bytes_max: Option<u64>,
    /// A file that has the master's process id while the pool serves. Default: none.
    pub pid_file: Option<PathBuf>,
    /// Features of the kernel to do without. Default: none.
    pub mask: Mask,
}

/// A user and a group, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group; workers have no supplementary ones.
    pub gid: u32,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig {
            listen: vec![Address::Tcp(([127, 0, 0, 1], 8080).into())],
            workers: WorkerCount::Auto,
            backlog: 1024,
            ready_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(30),
            restart_delay: Duration::from_millis(100),
            restart: true,
            hang_timeout: Duration::from_secs(30),
            upgrade_timeout: Duration::from_secs(60),
            accept: Accept::Shared,
            balance: Balance::LeastConnections,
            weights: Vec::new(),
            queue_max: 1000,
            queue_timeout: Duration::from_secs(10),
            message_bytes_max: 64 << 10,
            identity: None,
            no_new_privs: true,
            descriptors_max: None,
            core_bytes_max: None,
            pid_file: None,
            mask: Mask::NONE,
        }
    }
}

impl PoolConfig {
    /// The longest wait before a worker is started again.
    pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(10);

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first setting that can't be used.
    pub fn validate(self) -> Result<Checked<PoolConfig>, ConfigError> {
        let millis = Duration::from_millis;
        let secs = Duration::from_secs;
        self.check_listen()?;
        if let WorkerCount::Fixed(count) = self.workers {
            within("workers", count, 1..=WORKERS_MAX)?;
        }
        within("backlog", self.backlog, 1..=BACKLOG_MAX)?;
        within("ready_timeout", self.ready_timeout, millis(100)..=secs(600))?;
        within("stop_timeout", self.stop_timeout, secs(0)..=secs(86_400))?;
        within("restart_delay", self.restart_delay, millis(1)..=PoolConfig::RESTART_DELAY_MAX)?;
        within("hang_timeout", self.hang_timeout, millis(100)..=secs(3600))?;
        within("upgrade_timeout", self.upgrade_timeout, secs(1)..=secs(3600))?;
        self.weights.iter().try_for_each(|weight| within("weights", *weight, 1..=WEIGHT_MAX))?;
        within("queue_max", self.queue_max, 1..=QUEUE_MAX)?;
        within("queue_timeout", self.queue_timeout, millis(10)..=secs(600))?;
        within("message_bytes_max", self.message_bytes_max, 1 << 10..=128 << 10)?;
        if let Some(descriptors) = self.descriptors_max {
            within("descriptors_max", descriptors, 32..=1 << 20)?;
        }
        Ok(Checked::by_validation(self))
    }

    fn check_listen(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        for (index, address) in self.listen.iter().enumerate() {
            address.check()?;
            let any_port = matches!(address, Address::Tcp(tcp) if tcp.port() == 0);
            if !any_port && self.listen[..index].contains(address) {
                return Err(ConfigError::RepeatedAddress(address.clone()));
            }
        }
        Ok(())
    }
}

/// How many workers a pool has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerCount {
    /// One for each core that this process may use.
    Auto,
    /// 1 to 1024.
    Fixed(usize),
}

impl FromStr for WorkerCount {
    type Err = ConfigError;

    /// A number, or `auto`, for which 0 stands as well.
    fn from_str(text: &str) -> Result<WorkerCount, ConfigError> {
        match (text, text.parse()) {
            ("auto", _) | (_, Ok(0)) => Ok(WorkerCount::Auto),
            (_, Ok(count @ 1..=WORKERS_MAX)) => Ok(WorkerCount::Fixed(count)),
            _ => Err(ConfigError::OutOfRange {
                key: "workers",
                value: text.to_owned(),
                range: format!("`auto`, or from 1 to {WORKERS_MAX}"),
            }),
        }
    }
}

impl fmt::Display for WorkerCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerCount::Auto => f.write_str("auto"),
            WorkerCount::Fixed(count) => count.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl Fn(&mut PoolConfig)) -> String {
        let mut config = PoolConfig::default();
        change(&mut config);
        config.validate().expect_err("out of range").to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(PoolConfig::default().validate().is_ok());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_key_and_range() {
        assert_eq!(
            refusal(|c| c.workers = WorkerCount::Fixed(2000)),
            "`workers` is 2000: it must be from 1 to 1024"
        );
        assert_eq!(refusal(|c| c.backlog = 0), "`backlog` is 0: it must be from 1 to 65535");
        assert_eq!(
            refusal(|c| c.ready_timeout = Duration::from_millis(5)),
            "`ready_timeout` is 5ms: it must be from 100ms to 600s"
        );
        assert!(refusal(|c| c.stop_timeout = Duration::MAX).contains("`stop_timeout`"));
        assert!(refusal(|c| c.restart_delay = Duration::ZERO).contains("from 1ms to 10s"));
        assert!(refusal(|c| c.hang_timeout = Duration::ZERO).contains("from 100ms to 3600s"));
        assert!(refusal(|c| c.upgrade_timeout = Duration::ZERO).contains("from 1s to 3600s"));
        assert!(refusal(|c| c.weights = vec![1, 0]).contains("`weights` is 0"));
        assert!(refusal(|c| c.queue_max = 0).contains("`queue_max` is 0"));
        assert!(refusal(|c| c.queue_timeout = Duration::ZERO).contains("from 10ms to 600s"));
        assert!(refusal(|c| c.message_bytes_max = 1000).contains("from 1024 to 131072"));
        assert!(refusal(|c| c.descriptors_max = Some(3)).contains("`descriptors_max` is 3"));
    }

    #[test]
    fn addresses_are_there_and_each_once_but_for_free_ports() {
        assert!(refusal(|c| c.listen.clear()).contains("`listen` is empty"));
        assert!(refusal(|c| c.listen.push(c.listen[0].clone())).contains("more than once"));
        assert!(refusal(|c| c.listen = vec![Address::Unix("".into())]).contains("no path"));
        let free: Address = "127.0.0.1:0".parse().unwrap();
        let config = PoolConfig { listen: vec![free.clone(), free], ..PoolConfig::default() };
        assert!(config.validate().is_ok());
    }

    #[test]
    fn a_count_of_workers_is_a_number_or_auto() {
        assert_eq!("auto".parse(), Ok(WorkerCount::Auto));
        assert_eq!("0".parse(), Ok(WorkerCount::Auto));
        assert_eq!("1024".parse(), Ok(WorkerCount::Fixed(1024)));
        for text in ["1025", "-1", "", "many"] {
            assert!(text.parse::<WorkerCount>().unwrap_err().to_string().contains("`auto`"));
        }
    }
}
