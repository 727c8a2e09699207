//! The pool's listening sockets. The master binds them all before it forks and keeps them open,
//! so that what queues up for a dead worker waits for its successor. Accepts nothing.

mod error;
mod tcp;
mod unix;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::config::{Accept, Address, Checked, PoolConfig};
use crate::process::accept::Company;
use crate::process::activation::Inherited;
use crate::process::sys;

pub use error::ListenError;
pub(crate) use tcp::UNSENT_BYTES_MAX;
pub(super) use tcp::set_for_accepted;
use unix::SocketFile;

/// Every listening socket of a pool. Socket files are removed when the last of its users is
/// dropped, by the process that bound them alone.
#[derive(Clone, Default)]
pub(crate) struct Listeners {
    entries: Vec<Entry>,
    workers: usize,
    /// Workers that can't serve theirs, and who does.
    adopters: BTreeMap<usize, usize>,
    /// Somebody else has bound them, instead of what the settings say.
    are_activated: bool,
}

/// One address.
#[derive(Clone)]
struct Entry {
    /// As configured.
    wanted: Address,
    /// With the port that the kernel chose.
    bound: Address,
    sockets: Sockets,
}

#[derive(Clone)]
enum Sockets {
    /// TCP: one for each worker, between which the kernel spreads the connections. When there are
    /// more than workers, some workers have several: a socket that has been listening is kept, for
    /// the sake of what is queued there.
    PerWorker(Vec<Rc<OwnedFd>>),
    /// One for all: Unix sockets, as the kernel doesn't spread connections over several, and those
    /// that somebody else has bound for us. The file goes first: while the socket is open, no other
    /// file gets its inode number.
    Common(Option<Rc<SocketFile>>, Rc<OwnedFd>),
}

/// A socket of a worker's.
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    /// Its number among those of its address, when there are several.
    pub(crate) slot: Option<usize>,
    pub(crate) company: Company,
}

/// An address with its descriptors, as one process tells another.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Handed {
    wanted: String,
    bound: String,
    is_common: bool,
    is_activated: bool,
    descriptors: Vec<RawFd>,
}

/// Whether several sockets can listen on one port: tried with two on loopback.
///
/// # Errors
///
/// Why not, in the kernel's words.
pub(crate) fn try_port_sharing() -> io::Result<()> {
    tcp::bind_all((Ipv4Addr::LOCALHOST, 0).into(), 2).map(drop)
}

impl Listeners {
    /// Binds every configured address for `workers` workers, and listens on it.
    ///
    /// # Errors
    ///
    /// As [`renewed`](Listeners::renewed).
    #[cfg(test)]
    pub(crate) fn bind(
        config: &Checked<PoolConfig>,
        workers: usize,
    ) -> Result<Listeners, ListenError> {
        Listeners::default().renewed(config, workers)
    }

    /// The sockets for these settings: those that are there already, and new ones for what is new.
    /// What the settings don't have any more goes when the last of its users is dropped. New TCP
    /// sockets of a pool that serves already are bound, but don't [listen](Listeners::listen):
    /// nobody may ever serve them.
    ///
    /// # Errors
    ///
    /// The first address that can't be bound, and why; these listeners stay as they are. A pool that
    /// begins gives a port that is taken a second and a half to get free: a process that used a ring
    /// frees its sockets a little after its end. One that serves has no time for that.
    pub(crate) fn renewed(
        &self,
        config: &Checked<PoolConfig>,
        workers: usize,
    ) -> Result<Listeners, ListenError> {
        if self.are_activated {
            return Ok(Listeners { workers, adopters: BTreeMap::new(), ..self.clone() });
        }
        let sockets = if config.accept == Accept::Dispatch { 1 } else { workers };
        let begins = self.entries.is_empty();
        let tries = if begins { tcp::TRIES_MAX } else { 1 };
        let mut known = self.entries.clone();
        let mut entries = Vec::new();
        for address in &config.listen {
            let error = |reason| ListenError::new(address, reason);
            let same = known.iter().position(|entry| entry.wanted == *address);
            let entry = match (same.map(|at| known.remove(at)), address) {
                (Some(mut entry), _) => {
                    if let (Sockets::PerWorker(there), Address::Tcp(bound)) =
                        (&mut entry.sockets, &entry.bound)
                    {
                        let missing = sockets.saturating_sub(there.len());
                        let more = tcp::bind_more(*bound, missing).map_err(error)?;
                        there.extend(more.into_iter().map(Rc::new));
                    }
                    entry
                }
                (None, Address::Tcp(tcp)) => {
                    let (bound, sockets) = tcp::bind(*tcp, sockets, tries).map_err(error)?;
                    if begins {
                        tcp::listen(&sockets, config.backlog).map_err(error)?;
                    }
                    let sockets = sockets.into_iter().map(Rc::new).collect();
                    Entry {
                        wanted: address.clone(),
                        bound: Address::Tcp(bound),
                        sockets: Sockets::PerWorker(sockets),
                    }
                }
                (None, Address::Unix(path)) => {
                    let (socket, file) = unix::bind(path, config.backlog).map_err(error)?;
                    let sockets = Sockets::Common(Some(Rc::new(file)), Rc::new(socket));
                    Entry { wanted: address.clone(), bound: address.clone(), sockets }
                }
            };
            entries.push(entry);
        }
        Ok(Listeners { entries, workers, ..Listeners::default() })
    }

    /// Sockets that somebody else has bound, if any, each for all workers.
    pub(crate) fn activated(sockets: Vec<Inherited>) -> Listeners {
        let entry = |Inherited { address, socket, name }: Inherited| {
            let name = name.map(|name| format!(", named {name}")).unwrap_or_default();
            log::info!("the service manager has bound {address}{name}");
            let sockets = Sockets::Common(None, Rc::new(socket));
            Entry { wanted: address.clone(), bound: address, sockets }
        };
        let entries: Vec<Entry> = sockets.into_iter().map(entry).collect();
        Listeners { are_activated: !entries.is_empty(), entries, ..Listeners::default() }
    }

    /// Takes over what another process has [`handed`](Listeners::hand) to this one. Socket files stay
    /// that one's until this one [owns](Listeners::own_files) them.
    ///
    /// # Errors
    ///
    /// That isn't here.
    pub(crate) fn inherit(handed: Vec<Handed>) -> io::Result<Listeners> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let mut entries = Vec::new();
        let are_activated = handed.iter().any(|handed| handed.is_activated);
        for Handed { wanted, bound, is_common, descriptors, .. } in handed {
            let wanted: Address = wanted.parse().map_err(|_| malformed())?;
            let bound: Address = bound.parse().map_err(|_| malformed())?;
            let taken = descriptors.into_iter().map(|fd| sys::take_descriptor(fd).map(Rc::new));
            let mut taken = taken.collect::<io::Result<Vec<_>>>()?;
            let sockets = match &bound {
                Address::Unix(path) if is_common && !are_activated => {
                    let file = SocketFile::of_another(path).ok().map(Rc::new);
                    Sockets::Common(file, taken.pop().ok_or_else(malformed)?)
                }
                _ if is_common => Sockets::Common(None, taken.pop().ok_or_else(malformed)?),
                _ => Sockets::PerWorker(taken),
            };
            entries.push(Entry { wanted, bound, sockets });
        }
        Ok(Listeners { entries, are_activated, ..Listeners::default() })
    }

    /// Tells another process what there is, with a descriptor's number there for each one here.
    pub(crate) fn hand(
        &self,
        mut number: impl FnMut(BorrowedFd<'_>) -> io::Result<RawFd>,
    ) -> io::Result<Vec<Handed>> {
        let entries = self.entries.iter();
        let handed = entries.map(|entry| {
            let descriptors = entry.sockets.iter().map(|socket| number(socket.as_fd()));
            Ok(Handed {
                wanted: entry.wanted.to_string(),
                bound: entry.bound.to_string(),
                is_common: matches!(entry.sockets, Sockets::Common(..)),
                is_activated: self.are_activated,
                descriptors: descriptors.collect::<io::Result<_>>()?,
            })
        });
        handed.collect()
    }

    /// These, but for sockets whose file somebody has removed: others are bound in their stead.
    ///
    /// # Errors
    ///
    /// As for [`renewed`](Listeners::renewed).
    pub(crate) fn repaired(&self, config: &Checked<PoolConfig>) -> Result<Listeners, ListenError> {
        let mut left = self.clone();
        left.entries.retain(|entry| match &entry.sockets {
            Sockets::Common(Some(file), _) => file.is_there(),
            _ => true,
        });
        let adopters = self.adopters.clone();
        Ok(Listeners { adopters, ..left.renewed(config, self.workers)? })
    }

    /// Lets connections come to all of these, `backlog` of which may wait at each. A socket that
    /// somebody else has bound for us has his backlog. Whether any didn't listen before.
    ///
    /// # Errors
    ///
    /// Somebody else listens there, who came in between.
    pub(crate) fn listen(&self, backlog: u32) -> io::Result<()> {
        if self.are_activated {
            return Ok(());
        }
        for socket in self.sockets() {
            sys::listen(socket.as_fd(), backlog)?;
        }
        Ok(())
    }

    /// The socket files are removed by this process, and by no other.
    pub(crate) fn own_files(&self) {
        for entry in &self.entries {
            if let Sockets::Common(Some(file), _) = &entry.sockets {
                file.own();
            }
        }
    }

    /// Leaves the socket files to whoever inherits them.
    pub(crate) fn leave_files(&self) {
        for entry in &self.entries {
            if let Sockets::Common(Some(file), _) = &entry.sockets {
                file.leave();
            }
        }
    }

    /// The addresses in the order of the configuration, with the ports that they really have.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.entries.iter().map(|entry| entry.bound.clone()).collect()
    }

    /// Whether somebody else has bound them.
    pub(crate) fn are_activated(&self) -> bool {
        self.are_activated
    }

    /// How many workers these are for.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// Copies of a worker's descriptors: its own, and those of workers whose clients it serves.
    ///
    /// # Errors
    ///
    /// No descriptor left.
    pub(crate) fn of_worker(&self, worker: usize) -> io::Result<Vec<Listener>> {
        let wards = self.adopters.iter().filter(|(_, by)| **by == worker).map(|(ward, _)| *ward);
        let mut served = vec![worker];
        served.extend(wards);
        let mut listeners = Vec::new();
        for entry in &self.entries {
            match &entry.sockets {
                Sockets::PerWorker(sockets) => {
                    for (slot, socket) in sockets.iter().enumerate() {
                        let owner = slot % self.workers;
                        if served.contains(&owner) {
                            let socket = socket.as_fd().try_clone_to_owned()?;
                            let is_own = owner == worker;
                            let company = if is_own { Company::Leaving } else { Company::Owner };
                            listeners.push(Listener { socket, slot: Some(slot), company });
                        }
                    }
                }
                Sockets::Common(_, socket) => {
                    let socket = socket.as_fd().try_clone_to_owned()?;
                    let is_only = self.workers == 1;
                    let company = if is_only { Company::Leaving } else { Company::Workers };
                    listeners.push(Listener { socket, slot: None, company });
                }
            }
        }
        Ok(listeners)
    }

    /// From now on `by` serves the clients of `worker`, too. Returns what it has to accept from.
    ///
    /// # Errors
    ///
    /// No descriptor left.
    pub(crate) fn adopt(&mut self, worker: usize, by: usize) -> io::Result<Vec<OwnedFd>> {
        self.adopters.insert(worker, by);
        let own = self.entries.iter().filter_map(|entry| match &entry.sockets {
            Sockets::PerWorker(sockets) => Some(sockets),
            Sockets::Common(..) => None, // every worker has these
        });
        let own = own.flat_map(|sockets| sockets.iter().enumerate());
        let own = own.filter(|(slot, _)| slot % self.workers == worker);
        own.map(|(_, socket)| socket.as_fd().try_clone_to_owned()).collect()
    }

    /// The worker serves its clients itself again. Returns who did meanwhile.
    pub(crate) fn take_back(&mut self, worker: usize) -> Option<usize> {
        self.adopters.remove(&worker)
    }

    /// Slots of a worker, where there are several sockets for an address; none of one that is too many.
    pub(crate) fn slots_of(&self, worker: usize) -> impl Iterator<Item = usize> {
        let count = self.groups().map(|group| group.len()).max().unwrap_or(0);
        let count = if worker < self.workers { count } else { 0 };
        (worker..count).step_by(self.workers.max(1))
    }

    /// The sockets between which the kernel chooses, by address.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Vec<BorrowedFd<'_>>> {
        self.entries.iter().filter_map(|entry| match &entry.sockets {
            Sockets::PerWorker(sockets) => {
                Some(sockets.iter().map(|socket| socket.as_fd()).collect())
            }
            Sockets::Common(..) => None,
        })
    }

    /// Copies of all descriptors.
    ///
    /// # Errors
    ///
    /// No descriptor left.
    pub(crate) fn all(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets().map(|socket| socket.as_fd().try_clone_to_owned()).collect()
    }

    /// Lets nobody knock any more at TCP sockets, which are about to be closed for good: whoever comes between
    /// the last look and the close would be reset.
    pub(crate) fn shut_door(&self) {
        for entry in self.entries.iter().filter(|entry| matches!(entry.bound, Address::Tcp(_))) {
            for socket in entry.sockets.iter() {
                // Fails where somebody forbids filters. Then there is that moment, as ever.
                let _ = sys::attach_door(socket.as_fd());
            }
        }
    }

    /// The number of every descriptor.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.sockets().map(AsRawFd::as_raw_fd)
    }

    fn sockets(&self) -> impl Iterator<Item = &OwnedFd> {
        self.entries.iter().flat_map(|entry| entry.sockets.iter())
    }
}

impl Sockets {
    fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        match self {
            Sockets::PerWorker(sockets) => sockets.as_slice(),
            Sockets::Common(_, socket) => std::slice::from_ref(socket),
        }
        .iter()
        .map(Rc::as_ref)
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners")
            .field("addresses", &self.addresses())
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
