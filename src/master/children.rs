//! The processes in the workers' places: who is alive, under which pid, behind which channel.
//! Decides nothing; leaves nobody behind.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::process::scoreboard::WorkerPage;

/// Names one process in a worker's place. A successor has another number, so what arrives late
/// from a predecessor matches nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Life {
    pub(super) worker: usize,
    pub(super) number: u32,
}

/// A place for each worker, with a process or without.
pub(super) struct Children {
    places: Vec<Place>,
}

#[derive(Default)]
struct Place {
    /// Processes so far.
    lives: u32,
    child: Option<Child>,
    /// The last process, for the log.
    pid: Option<Pid>,
}

struct Child {
    pid: Pid,
    /// The master's end.
    channel: OwnedFd,
    page: &'static WorkerPage,
}

impl Children {
    pub(super) fn new(workers: usize) -> Children {
        Children { places: (0..workers).map(|_| Place::default()).collect() }
    }

    pub(super) fn insert(
        &mut self,
        worker: usize,
        pid: Pid,
        channel: OwnedFd,
        page: &'static WorkerPage,
    ) -> Life {
        let place = &mut self.places[worker];
        assert!(place.child.is_none(), "worker {worker} is there already");
        place.lives += 1;
        place.pid = Some(pid);
        place.child = Some(Child { pid, channel, page });
        Life { worker, number: place.lives }
    }

    /// The channel of the process with this life, if it still is the one.
    pub(super) fn channel_of(&self, life: Life) -> Option<RawFd> {
        let place = &self.places[life.worker];
        let child = place.child.as_ref().filter(|_| place.lives == life.number)?;
        Some(child.channel.as_raw_fd())
    }

    /// The process in a worker's place, and its channel.
    pub(super) fn current(&self, worker: usize) -> Option<(Life, RawFd)> {
        let place = &self.places[worker];
        let child = place.child.as_ref()?;
        Some((Life { worker, number: place.lives }, child.channel.as_raw_fd()))
    }

    /// Takes out a process that has been reaped; gives its channel back.
    pub(super) fn remove(&mut self, life: Life) -> Option<(OwnedFd, &'static WorkerPage)> {
        self.channel_of(life)?;
        self.places[life.worker].child.take().map(|child| (child.channel, child.page))
    }

    /// Ends a worker by force, if it is there. A process in the table isn't reaped, so its pid is
    /// nobody else's.
    pub(super) fn kill(&self, worker: usize) {
        if let Some(child) = &self.places[worker].child {
            let _gone_already = kill(child.pid, Signal::SIGKILL);
        }
    }

    /// The pid of a worker's last process.
    pub(super) fn last_pid(&self, worker: usize) -> Option<Pid> {
        self.places[worker].pid
    }

    /// The place has no process, not even a past one to speak of.
    pub(super) fn forget_pid(&mut self, worker: usize) {
        self.places[worker].pid = None;
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = RawFd> {
        self.places.iter().filter_map(|place| Some(place.child.as_ref()?.channel.as_raw_fd()))
    }
}

impl Drop for Children {
    /// A master that leaves in any other way than by the pool's verdict leaves no worker behind.
    fn drop(&mut self) {
        let left = || self.places.iter().filter_map(|place| place.child.as_ref());
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

    fn page() -> &'static WorkerPage {
        Scoreboard::create(1, UNIX_EPOCH).unwrap().0.claim(0, UNIX_EPOCH).unwrap()
    }

    #[test]
    fn what_arrives_late_from_a_predecessor_matches_nobody() {
        let mut children = Children::new(2);
        // No process has this pid, so dropping the table kills nobody.
        let pid = Pid::from_raw(i32::MAX);
        let first = children.insert(1, pid, channel::pair().unwrap().0, page());
        assert!(children.channel_of(first).is_some());
        assert!(children.remove(first).is_some());
        assert!(children.remove(first).is_none());
        let second = children.insert(1, pid, channel::pair().unwrap().0, page());
        assert_eq!(children.channel_of(first), None);
        assert!(children.remove(first).is_none());
        assert_eq!(children.current(1).map(|(life, _)| life), Some(second));
        assert_eq!(children.current(0), None);
    }

    #[test]
    fn nobody_outlives_the_table() {
        let Fork::Parent { child } = sys::fork().unwrap() else {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(3600));
            }
        };
        let mut children = Children::new(1);
        children.insert(0, child, channel::pair().unwrap().0, page());
        drop(children);
        assert_eq!(kill(child, None), Err(nix::errno::Errno::ESRCH), "killed and collected");
    }
}
