//! Steers new TCP connections: for each, the kernel runs a small program that picks the less
//! loaded of two random workers. Accepts nothing, and knows no worker but by its slot.
//!
//! Needs `CAP_BPF` once, in the master; children need no right to show their load.

mod assembly;
mod error;
mod program;
mod slot;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
#[cfg(test)]
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::sys::{self, SocketMap};

pub(crate) use error::SteerError;
use error::Step;
pub(crate) use slot::{Slot, Taker};

/// The kernel lets go of a detached program, and of its sockets, after a grace period of RCU: some
/// 16 ms. This many tries of this length are a quarter of a second.
const RELEASE_TRIES: u32 = 50;
const RELEASE_AFTER: Duration = Duration::from_millis(5);

/// The slots, and the tables of sockets between which the programs choose. What is attached goes
/// on without this, as long as its sockets are open.
pub(crate) struct Steering {
    map: OwnedFd,
    slots: &'static [Slot],
    groups: Vec<SocketMap>,
}

impl Steering {
    /// Makes the slots, for up to `slots_max` sockets a group, and tries whether a program loads.
    /// The slots stay mapped as long as the process lives, and its children have them too.
    ///
    /// # Errors
    ///
    /// No right to, a kernel that can't, no memory, no descriptor.
    pub(crate) fn new(slots_max: usize) -> Result<Steering, SteerError> {
        let (map, slots) =
            sys::share_slots(slots_max).map_err(|error| Step::MapSlots.failed(&error))?;
        let steering = Steering { map, slots, groups: Vec::new() };
        steering.load(slots_max, &steering.socket_map()?)?;
        Ok(steering)
    }

    /// Steers the connections of a group: all sockets of one address, which listen already, in the
    /// order of their slots. Again for the same group, with more, fewer or other sockets: from then
    /// on for these. Meanwhile connections may go by their hash; none is lost.
    ///
    /// # Errors
    ///
    /// As for [`Steering::new`]; or a socket doesn't listen, or is another `Steering`'s. The group
    /// may then have fewer sockets to choose from; the rest goes by hash.
    ///
    /// # Panics
    ///
    /// There are no sockets, or more than slots.
    pub(crate) fn attach(&mut self, group: &[BorrowedFd<'_>]) -> Result<(), SteerError> {
        assert!(!group.is_empty() && group.len() <= self.slots.len(), "a slot for each socket");
        let cookies = group
            .iter()
            .map(|socket| sys::socket_cookie(*socket))
            .collect::<io::Result<Vec<u64>>>()
            .map_err(|error| Step::Identify.failed(&error))?;
        let group_at = match self.find(&cookies) {
            Some(known) => known,
            None => self.add_group()?,
        };
        let sockets = &self.groups[group_at];
        place(group, &cookies, sockets, self.slots.len())
            .map_err(|error| Step::Place.failed(&error))?;
        let program = self.load(group.len(), sockets)?;
        sys::attach_program(group[0], program.as_fd()).map_err(|error| Step::Attach.failed(&error))
    }

    /// As [`attach`](Steering::attach), also when another master has steered these sockets so far,
    /// which it does no longer then. False when the kernel hasn't let go of them yet: this is to be
    /// tried again (see [`Claim`]).
    ///
    /// # Errors
    ///
    /// As for `attach`.
    ///
    /// # Panics
    ///
    /// As for `attach`.
    pub(crate) fn try_take_over(&mut self, group: &[BorrowedFd<'_>]) -> Result<bool, SteerError> {
        match self.attach(group) {
            Err(SteerError::Taken) => {
                let _nothing_attached = sys::detach_program(group[0]);
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Lets another `Steering` have the sockets, until this one [takes over](Steering::try_take_over)
    /// again. What is attached goes on.
    pub(crate) fn let_go(&mut self) {
        self.groups.clear();
    }

    /// The slot of socket `j` of every group.
    pub(crate) fn slot(&self, j: usize) -> &'static Slot {
        &self.slots[j]
    }

    /// All slots, used or not.
    pub(crate) fn slots(&self) -> &'static [Slot] {
        self.slots
    }

    /// The number of every descriptor.
    #[cfg(test)]
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let maps = self.groups.iter().map(AsFd::as_fd);
        maps.chain([self.map.as_fd()]).map(|map| map.as_raw_fd())
    }

    /// The group that has one of these sockets.
    fn find(&self, cookies: &[u64]) -> Option<usize> {
        let holds = |sockets: &SocketMap| {
            let mut held = (0..self.slots.len()).filter_map(|at| sockets.read(at));
            held.any(|cookie| cookies.contains(&cookie))
        };
        self.groups.iter().position(holds)
    }

    fn add_group(&mut self) -> Result<usize, SteerError> {
        self.groups.push(self.socket_map()?);
        Ok(self.groups.len() - 1)
    }

    fn socket_map(&self) -> Result<SocketMap, SteerError> {
        SocketMap::new(self.slots.len()).map_err(|error| Step::MapSockets.failed(&error))
    }

    fn load(&self, count: usize, sockets: &SocketMap) -> Result<OwnedFd, SteerError> {
        let count = i32::try_from(count).expect("the kernel made as many slots");
        let program = program::choose(count, self.map.as_fd(), sockets.as_fd());
        Ok(sys::load_reuseport_program(&program)?)
    }
}

/// How often, and when, taking over is tried while the kernel holds on to what another master had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    tries: u32,
    /// When to try again.
    pub(crate) at: Instant,
}

impl Claim {
    /// The first try is due.
    pub(crate) fn begin(now: Instant) -> Claim {
        Claim { tries: RELEASE_TRIES, at: now }
    }

    /// A try was in vain: the next one, unless there have been enough.
    pub(crate) fn next(self, now: Instant) -> Option<Claim> {
        let tries = self.tries.checked_sub(1)?;
        Some(Claim { tries, at: now + RELEASE_AFTER })
    }
}

/// Makes `sockets` hold this group and nothing else. A socket has one place at a time, so that
/// what is not in its place goes first.
fn place(
    group: &[BorrowedFd<'_>],
    cookies: &[u64],
    sockets: &SocketMap,
    places: usize,
) -> io::Result<()> {
    for at in 0..places {
        let is = sockets.read(at);
        if is.is_some() && is != cookies.get(at).copied() {
            sockets.clear(at)?;
        }
    }
    for (at, (socket, cookie)) in group.iter().zip(cookies).enumerate() {
        if sockets.read(at) != Some(*cookie) {
            sockets.put(at, *socket)?;
        }
    }
    Ok(())
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("slots", &self.slots.len())
            .field("groups", &self.groups.len())
            .finish_non_exhaustive()
    }
}
