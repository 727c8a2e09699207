//! Settings of the pool as a whole: where it listens, how many workers, how long it is patient.
//! Nothing of what a worker does with a connection.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use uring_ring::Mask;

use super::checked::within;
use super::{Address, Checked, ConfigError};

/// More workers than any machine has cores; each costs a process, a ring and a page.
pub const WORKERS_MAX: usize = 1024;

/// listen(2) takes more, but the kernel cuts it at `net.core.somaxconn` (4096 by default).
const BACKLOG_MAX: u32 = 65_535;

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
    /// Features of the kernel to do without. Default: none.
    pub mask: Mask,
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
