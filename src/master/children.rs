//! The processes of the workers: who is alive, under which pid, behind which lines. Decides
//! nothing; leaves nobody behind.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::end::End;
use crate::process::channel::Limit;
use crate::process::outbox::Outbox;
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
    /// Lines from processes that have ended, but which something still holds open.
    estates: BTreeMap<Life, OwnedFd>,
}

/// A worker process, as the master has it.
pub(super) struct Child {
    pub(super) pid: Pid,
    /// The master's end of the line for messages.
    pub(super) channel: OwnedFd,
    /// As it was told when it was forked.
    pub(super) limit: Limit,
    /// What is to go there.
    pub(super) outbox: Outbox,
    /// The master's end of the line for descriptors.
    pub(super) passing: OwnedFd,
    /// And the worker's, as long as it lives: what it doesn't take can be taken back.
    pub(super) passing_far: Option<OwnedFd>,
    pub(super) page: &'static WorkerPage,
    /// Connections that the page showed as closed before this process.
    pub(super) closed_before: u64,
    /// How and when it ended. It was collected, so its pid may be somebody else's.
    pub(super) end: Option<(End, Instant)>,
    /// Nothing tells when it ends but a signal that may be about anybody.
    pub(super) is_unwatched: bool,
    /// Everything that it said has been read.
    pub(super) is_heard: bool,
    /// Everything that it handed over has been received.
    pub(super) is_emptied: bool,
    /// What it hands over has to wait.
    pub(super) is_parked: bool,
}

/// How long to wait for the last words of a process that has ended: the lines to it end with it,
/// unless it has left them to children of its own.
const ESTATE_GRACE: Duration = Duration::from_secs(1);

impl Child {
    /// Connections that it has open, or had when it ended.
    pub(super) fn connections(&self) -> u64 {
        self.page.traffic.connections.read()
    }
}

impl Children {
    pub(super) fn insert(&mut self, life: Life, child: Child) {
        let replaced = self.living.insert(life, child);
        assert!(replaced.is_none(), "{life:?} lives already");
    }

    pub(super) fn get(&self, life: Life) -> Option<&Child> {
        self.living.get(&life)
    }

    pub(super) fn get_mut(&mut self, life: Life) -> Option<&mut Child> {
        self.living.get_mut(&life)
    }

    /// A process that has ended, and whose lines have been read to their ends.
    pub(super) fn ended(&self, now: Instant) -> Option<(Life, End)> {
        self.living.iter().find_map(|(life, child)| {
            let (end, at) = child.end?;
            let is_settled = child.is_heard && child.is_emptied;
            let is_over = is_settled || (at + ESTATE_GRACE <= now && !child.is_parked);
            is_over.then_some((*life, end))
        })
    }

    /// When to ask for those who have [`ended`](Children::ended) without an event.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let heard = self.living.values().filter(|child| !child.is_parked);
        let ends = heard.filter_map(|child| child.end);
        ends.map(|(_, at)| at + ESTATE_GRACE).min()
    }

    /// Keeps listening to what an ended process has left behind.
    pub(super) fn keep_estate(&mut self, life: Life, channel: OwnedFd) {
        self.estates.insert(life, channel);
    }

    pub(super) fn has_estates(&self) -> bool {
        !self.estates.is_empty()
    }

    /// What is kept of an ended process.
    pub(super) fn estate(&self, life: Life) -> Option<RawFd> {
        self.estates.get(&life).map(AsRawFd::as_raw_fd)
    }

    /// Nothing is left of it any more.
    pub(super) fn take_estate(&mut self, life: Life) -> Option<OwnedFd> {
        self.estates.remove(&life)
    }

    /// Those whose parcels had to wait, and need no longer.
    pub(super) fn unpark(&mut self, now: Instant) -> Vec<(Life, RawFd)> {
        let parked = self.living.iter_mut().filter(|(_, child)| child.is_parked);
        let unparked = parked.map(|(life, child)| {
            child.hear(false, now);
            (*life, child.passing.as_raw_fd())
        });
        unparked.collect()
    }

    /// Takes out a process.
    pub(super) fn remove(&mut self, life: Life) -> Option<Child> {
        self.living.remove(&life)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Life, &Child)> {
        self.living.iter().map(|(life, child)| (*life, child))
    }

    /// Sends a signal to a worker, if it is there.
    pub(super) fn signal(&self, life: Life, signal: Signal) {
        if let Some(child) = self.get(life).filter(|child| child.end.is_none()) {
            let _gone_already = kill(child.pid, signal);
        }
    }

    /// Those of whose ends nobody tells.
    pub(super) fn unwatched(&self) -> Vec<(Life, Pid)> {
        let unwatched = |child: &&Child| child.is_unwatched && child.end.is_none();
        let living = self.living.iter().filter(|(_, child)| unwatched(child));
        living.map(|(life, child)| (*life, child.pid)).collect()
    }

    pub(super) fn pid_of(&self, life: Life) -> Option<Pid> {
        self.get(life).map(|child| child.pid)
    }

    /// The number of every descriptor.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let lines = |child: &Child| {
            let far = child.passing_far.as_ref().map(AsRawFd::as_raw_fd);
            [child.channel.as_raw_fd(), child.passing.as_raw_fd()].into_iter().chain(far)
        };
        let estates = self.estates.values().map(AsRawFd::as_raw_fd);
        self.living.values().flat_map(lines).chain(estates)
    }
}

impl Child {
    /// It handed something over. What else it has left behind, it has time for anew.
    pub(super) fn hear(&mut self, is_parked: bool, now: Instant) {
        self.is_parked = is_parked;
        if let Some((_, at)) = &mut self.end {
            *at = now;
        }
    }
}

impl Drop for Children {
    /// A master that leaves in any other way than by the pool's verdict leaves no worker behind.
    fn drop(&mut self) {
        let left = || self.living.values().filter(|child| child.end.is_none());
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
    use crate::process::clock::Moment;
    use crate::process::scoreboard::Scoreboard;
    use crate::process::sys::{self, Fork};

    fn child(pid: Pid) -> Child {
        let (passing, passing_far) = channel::pair().unwrap();
        let page =
            Scoreboard::create(Moment::default()).unwrap().0.claim(0, Moment::default()).unwrap();
        let channel = channel::pair().unwrap().0;
        Child {
            pid,
            channel,
            limit: Limit(1024),
            outbox: Outbox::default(),
            passing,
            passing_far: Some(passing_far),
            page,
            closed_before: 0,
            end: None,
            is_unwatched: false,
            is_heard: false,
            is_emptied: false,
            is_parked: false,
        }
    }

    #[test]
    fn what_arrives_late_from_a_predecessor_matches_nobody() {
        let mut children = Children::default();
        // No process has this pid, so dropping the table kills nobody.
        let pid = Pid::from_raw(i32::MAX);
        let [first, second] = [1, 2].map(|number| Life { worker: 1, number });
        children.insert(first, child(pid));
        assert!(children.get(first).is_some());
        assert!(children.remove(first).is_some());
        children.insert(second, child(pid));
        assert!(children.get(first).is_none());
        assert!(children.remove(first).is_none());
    }

    #[test]
    fn who_has_ended_is_heard_out_but_not_for_ever() {
        let (now, end) = (Instant::now(), End::Exited { code: 0 });
        let life = Life { worker: 0, number: 1 };
        let mut children = Children::default();
        children.insert(life, child(Pid::from_raw(i32::MAX)));
        assert_eq!((children.ended(now), children.poll_timeout()), (None, None));
        children.get_mut(life).unwrap().end = Some((end, now));
        assert_eq!(children.ended(now), None);
        assert_eq!(children.poll_timeout(), Some(now + ESTATE_GRACE));
        assert_eq!(children.ended(now + ESTATE_GRACE), Some((life, end)));
        let child = children.get_mut(life).unwrap();
        (child.is_heard, child.is_emptied) = (true, true);
        assert_eq!(children.ended(now), Some((life, end)));
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
