//! Reloads: other settings, checked before anything changes, and in effect once the workers that have
//! them serve. Decides no more than whether settings can change; starts nobody.

use std::time::Instant;

use super::Master;
use super::balance;
use super::dispatch::Balancing;
use super::pool::{Event, Pool, Rules, Wanted};
use crate::config::{Accept, Checked, PoolConfig, WorkerCount};
use crate::process::channel::Limit;
use crate::process::listen::Listeners;
use crate::process::notify::{self, Notice as Word};
use crate::process::pid_file::PidFile;
use crate::process::privileges::{self, Limits};

/// What workers have that shall take over.
pub(super) struct Next {
    pub(super) config: Checked<PoolConfig>,
    pub(super) listeners: Listeners,
    /// The limits of this process, which they inherit, as they were.
    pub(super) limits: Limits,
}

/// Settings with which a master begins, and ends.
///
/// # Errors
///
/// The name of one that is another one now, and why that can't be.
fn check_change(is: &PoolConfig, wanted: &PoolConfig, are_activated: bool) -> Result<(), String> {
    // Whole: of a new setting somebody has to say whether it can change.
    let PoolConfig {
        accept,
        mask,
        listen,
        backlog,
        // In effect as soon as the new workers serve: `Master::settle_reload`.
        balance: _,
        weights: _,
        queue_max: _,
        queue_timeout: _,
        stop_timeout: _,
        restart_delay: _,
        restart: _,
        hang_timeout: _,
        upgrade_timeout: _,
        pid_file: _,
        // And for those workers: `Master::try_fork`, `Event::Reload`.
        workers: _,
        ready_timeout: _,
        message_bytes_max: _,
        identity: _,
        no_new_privs: _,
        descriptors_max: _,
        core_bytes_max: _,
    } = wanted;
    let other = "stop and start, or upgrade";
    let manager = "the service manager has bound the sockets";
    for (key, has_changed, why) in [
        ("accept", *accept != is.accept, other),
        ("mask", *mask != is.mask, other),
        ("listen", *listen != is.listen && are_activated, manager),
        ("backlog", *backlog != is.backlog && are_activated, manager),
    ] {
        if has_changed {
            return Err(format!("`{key}` can't change by a reload: {why}"));
        }
    }
    Ok(())
}

impl Master<'_> {
    /// Finds the settings of new workers, and the sockets that they need. What is wrong with them
    /// changes nothing.
    pub(super) fn prepare_reload(&mut self, wanted: Wanted) -> Event {
        self.release_dead();
        self.notifier.tell(&[Word::Reloading(notify::monotonic()), Word::Status("reloading")]);
        match self.try_prepare(wanted) {
            Ok(next) => {
                let workers = next.listeners.workers();
                let ready_timeout = next.config.ready_timeout;
                self.next = Some(next);
                Event::Reload { workers, ready_timeout }
            }
            Err(reason) => {
                log::error!("the settings can't be used, and nothing changes: {reason}");
                self.drop_reload();
                Event::ReloadRefused
            }
        }
    }

    fn try_prepare(&mut self, Wanted { reads, workers }: Wanted) -> Result<Next, String> {
        let mut config = self.config.clone();
        if reads {
            config = self.foreign.watch(|| self.around.read_settings())?;
        }
        if let Some(workers) = workers {
            let mut scaled = config.into_inner();
            scaled.workers = match workers {
                0 => WorkerCount::Auto,
                count => WorkerCount::Fixed(count),
            };
            config = scaled.validate().map_err(|error| error.to_string())?;
        }
        check_change(&self.config, &config, self.listeners.are_activated())?;
        let workers = self.cpus.worker_count(config.workers);
        let has_other_file = config.pid_file != self.config.pid_file && self.is_in_charge;
        if let Some(path) = config.pid_file.as_deref().filter(|_| has_other_file) {
            PidFile::check(path).map_err(|error| error.to_string())?;
        }
        let limits = Limits::now().map_err(|error| error.to_string())?;
        let prepared = self.prepare_listeners(&config, workers);
        match prepared {
            Ok(listeners) => Ok(Next { config, listeners, limits }),
            Err(reason) => {
                limits.restore();
                Err(reason)
            }
        }
    }

    /// Sets the limits that are others now, and binds what is new.
    fn prepare_listeners(
        &self,
        config: &Checked<PoolConfig>,
        workers: usize,
    ) -> Result<Listeners, String> {
        // What isn't set stays as it is, as does what somebody has set from outside.
        let is = &self.config;
        let descriptors_max = config.descriptors_max.filter(|it| is.descriptors_max != Some(*it));
        let core_bytes_max = config.core_bytes_max.filter(|it| is.core_bytes_max != Some(*it));
        privileges::raise_limits(descriptors_max, core_bytes_max)
            .and_then(|()| privileges::check_descriptors(config, workers))
            .map_err(|error| error.to_string())?;
        self.listeners.renewed(config, workers).map_err(|error| error.to_string())
    }

    pub(super) fn settle_reload(&mut self, pool: &mut Pool, now: Instant) {
        self.foreign.watch(|| self.around.settle_settings(true));
        self.end_reload();
        let Some(Next { config, listeners, .. }) = self.next.take() else { return };
        let is_elsewhere = listeners.addresses() != self.listeners.addresses();
        let before = std::mem::replace(&mut self.config, config);
        self.listeners = listeners;
        self.limit = Limit(self.config.message_bytes_max);
        self.configure_dispatching(&before);
        pool.set_rules(Rules::of(&self.config));
        self.watch.set_timeout(self.config.hang_timeout, now);
        self.scoreboard.pool().reloads.add_among_others(1);
        if !self.is_in_charge {
            return; // what else there is to do is done once it is
        }
        if let Err(error) = self.listen() {
            log::error!("cannot listen on what is new: {error}");
        }
        if self.accept == Accept::Dispatch && is_elsewhere {
            match self.listeners.all() {
                Ok(sockets) => self.dispatching.listen(sockets, &mut self.ring),
                Err(error) => log::error!("cannot listen on what is new: {error}"),
            }
        }
        self.steer_what_is_new();
        if self.config.pid_file != before.pid_file {
            self.write_pid_file(None);
        }
        self.scoreboard.pool().workers.set(self.listeners.workers() as u64);
    }

    fn configure_dispatching(&mut self, before: &PoolConfig) {
        let (is, was) = (&self.config, before);
        let balancing = if (is.balance, &is.weights) == (was.balance, &was.weights) {
            Balancing::AsBefore
        } else if self.has_own_balancer || is.balance == was.balance {
            Balancing::Anew
        } else {
            Balancing::By(balance::of(is.balance, self.scoreboard.seed()))
        };
        self.dispatching.configure(is, balancing);
    }

    fn steer_what_is_new(&mut self) {
        let Some(steering) = &mut self.steering else { return };
        if self.claim.is_some() {
            return; // all of it is to be steered soon
        }
        for group in self.listeners.groups() {
            if let Err(error) = steering.attach(&group) {
                log::warn!("connections to new sockets go by their hash, not by load: {error}");
            }
        }
    }

    pub(super) fn drop_reload(&mut self) {
        if let Some(next) = self.next.take() {
            next.limits.restore();
        }
        self.foreign.watch(|| self.around.settle_settings(false));
        self.end_reload();
    }

    fn end_reload(&self) {
        self.notifier.tell(&[Word::Ready, Word::Status("serving")]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uring_ring::Mask;

    #[test]
    fn what_cant_change_is_named_and_all_else_can() {
        let is = PoolConfig::default();
        let check = |are_activated, change: fn(&mut PoolConfig)| {
            let mut wanted = is.clone();
            change(&mut wanted);
            check_change(&is, &wanted, are_activated).err()
        };
        let words =
            |key| Some(format!("`{key}` can't change by a reload: stop and start, or upgrade"));
        assert_eq!(check(false, |it| it.accept = Accept::Dispatch), words("accept"));
        assert_eq!(check(false, |it| it.mask = Mask::ALL), words("mask"));
        let bound = |key| {
            let why = "the service manager has bound the sockets";
            Some(format!("`{key}` can't change by a reload: {why}"))
        };
        assert_eq!(check(true, |it| it.backlog += 1), bound("backlog"));
        assert_eq!(check(false, |it| it.backlog += 1), None);
        assert_eq!(check(true, |it| it.listen.clear()), bound("listen"));
        assert_eq!(check(false, |it| it.listen.clear()), None);
        assert_eq!(check(true, |it| it.queue_max += 1), None);
    }
}
