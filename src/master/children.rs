//! The processes of the workers: who is alive, under which pid, behind which lines. Decides
//! nothing; leaves nobody behind.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::process::scoreboard::WorkerPage;

/// Names one process in a worker's place. A successor has another number, so what arrives late
/// from a predecessor matches nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Life {
    pub(super) worker: usize,
    pub(super) number: u32,
}

/// Every worker process that there is.
#[derive(Default)]
pub(super) struct Children {
    living: BTreeMap<Life, Child>,
}

/// A worker process, as the master has it.
pub(super) struct Child {
    pub(super) pid: Pid,
    /// The master's end of the line for messages.
    pub(super) channel: OwnedFd,
    /// The master's end of the line for descriptors, and the worker's: what the worker doesn't
    /// take can be taken back.
    pub(super) passing: OwnedFd,
    pub(super) passing_far: OwnedFd,
    pub(super) page: &'static WorkerPage,
    /// Connections that the page showed as closed before this process.
    pub(super) closed_before: u64,
    /// It has ended and was collected: its pid may be somebody else's.
    pub(super) is_reaped: bool,
}

impl Children {
    pub(super) fn insert(&mut self, life: Life, child: Child) {
        let replaced = self.living.insert(life, child);
        assert!(replaced.is_none(), "{life:?} lives already");
    }

    pub(super) fn get(&self, life: Life) -> Option<&Child> {
        self.living.get(&life)
    }

    /// A process has ended, and was collected. It stays until it is [`bury`](Children::bury)-ed.
    pub(super) fn on_reaped(&mut self, life: Life) {
        if let Some(child) = self.living.get_mut(&life) {
            child.is_reaped = true;
        }
    }

    /// Takes out a process that has ended.
    pub(super) fn bury(&mut self) -> Option<(Life, Child)> {
        let life = *self.living.iter().find(|(_, child)| child.is_reaped)?.0;
        self.living.remove_entry(&life)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Life, &Child)> {
        self.living.iter().map(|(life, child)| (*life, child))
    }

    /// Sends a signal to a worker, if it is there.
    pub(super) fn signal(&self, life: Life, signal: Signal) {
        if let Some(child) = self.get(life).filter(|child| !child.is_reaped) {
            let _gone_already = kill(child.pid, signal);
        }
    }

    pub(super) fn pid_of(&self, life: Life) -> Option<Pid> {
        self.get(life).map(|child| child.pid)
    }

    /// The number of every descriptor.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let lines = |child: &Child| {
            [&child.channel, &child.passing, &child.passing_far].map(AsRawFd::as_raw_fd)
        };
        self.living.values().flat_map(lines)
    }
}

impl Drop for Children {
    /// A master that leaves in any other way than by the pool's verdict leaves no worker behind.
    fn drop(&mut self) {
        let left = || self.living.values().filter(|child| !child.is_reaped);
        for child in left() {
            let _gone_already = kill(child.pid, Signal::SIGKILL);
        }
        for child in left() {
            let _reaped = waitpid(child.pid, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::channel;
    use crate::process::scoreboard::Scoreboard;
    use crate::process::sys::{self, Fork};
    use std::time::UNIX_EPOCH;

    fn child(pid: Pid) -> Child {
        let (passing, passing_far) = channel::pair().unwrap();
        let page = Scoreboard::create(1, UNIX_EPOCH).unwrap().0.claim(0, UNIX_EPOCH).unwrap();
        let channel = channel::pair().unwrap().0;
        Child { pid, channel, passing, passing_far, page, closed_before: 0, is_reaped: false }
    }

    #[test]
    fn what_arrives_late_from_a_predecessor_matches_nobody() {
        let mut children = Children::default();
        // No process has this pid, so dropping the table kills nobody.
        let pid = Pid::from_raw(i32::MAX);
        let [first, second] = [1, 2].map(|number| Life { worker: 1, number });
        children.insert(first, child(pid));
        assert!(children.get(first).is_some());
        children.on_reaped(first);
        assert_eq!(children.bury().map(|(life, _)| life), Some(first));
        assert!(children.bury().is_none());
        children.insert(second, child(pid));
        assert!(children.get(first).is_none());
        children.on_reaped(first);
        assert!(children.bury().is_none());
    }

    #[test]
    fn nobody_outlives_the_table() {
        let Fork::Parent { child: pid } = sys::fork().unwrap() else {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(3600));
            }
        };
        let mut children = Children::default();
        children.insert(Life { worker: 0, number: 1 }, child(pid));
        drop(children);
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH), "killed and collected");
    }
}
