//! The pool's listening sockets. The master binds them all before it forks and keeps them open,
//! so that what queues up for a dead worker waits for its successor. Accepts nothing.

mod error;
mod tcp;
mod unix;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::config::{Address, Checked, PoolConfig};

pub use error::ListenError;
use unix::SocketFile;

/// Every listening socket of a pool. Socket files are removed when this is dropped, by the
/// process that bound them alone.
pub(crate) struct Listeners {
    /// As bound: with the ports that the kernel chose.
    addresses: Vec<Address>,
    sockets: Vec<Sockets>,
    workers: usize,
}

/// The sockets of one address.
enum Sockets {
    /// TCP: one for each worker, between which the kernel spreads the connections by their hash.
    PerWorker(Vec<OwnedFd>),
    /// Unix: one for all, as the kernel doesn't spread connections over several. The file goes
    /// first: while the socket is open, no other file gets its inode number.
    Common(#[expect(dead_code, reason = "removes the file on drop")] SocketFile, OwnedFd),
}

impl Listeners {
    /// Binds every configured address for `workers` workers, and listens.
    ///
    /// # Errors
    ///
    /// The first address that can't be bound, and why. A port that is taken is tried for about a
    /// second and a half: a process that used a ring frees its sockets a little after its end.
    pub(crate) fn bind(
        config: &Checked<PoolConfig>,
        workers: usize,
    ) -> Result<Listeners, ListenError> {
        let mut listeners = Listeners { addresses: Vec::new(), sockets: Vec::new(), workers };
        for address in &config.listen {
            let error = |reason| ListenError::new(address, reason);
            let (address, sockets) = match address {
                Address::Tcp(tcp) => {
                    let (bound, sockets) =
                        tcp::bind(*tcp, workers, config.backlog).map_err(error)?;
                    (Address::Tcp(bound), Sockets::PerWorker(sockets))
                }
                Address::Unix(path) => {
                    let (socket, file) = unix::bind(path, config.backlog).map_err(error)?;
                    (address.clone(), Sockets::Common(file, socket))
                }
            };
            listeners.addresses.push(address);
            listeners.sockets.push(sockets);
        }
        Ok(listeners)
    }

    /// The addresses in the order of the configuration, with the ports that they really have.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// How many workers these are for.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// Copies of a worker's descriptors, one for each address.
    ///
    /// # Errors
    ///
    /// No descriptor left.
    pub(crate) fn of_worker(&self, worker: usize) -> io::Result<Vec<OwnedFd>> {
        self.sockets
            .iter()
            .map(|sockets| match sockets {
                Sockets::PerWorker(sockets) => sockets[worker].as_fd().try_clone_to_owned(),
                Sockets::Common(_, socket) => socket.as_fd().try_clone_to_owned(),
            })
            .collect()
    }

    /// The number of every descriptor.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.sockets
            .iter()
            .flat_map(|sockets| match sockets {
                Sockets::PerWorker(sockets) => sockets.as_slice(),
                Sockets::Common(_, socket) => std::slice::from_ref(socket),
            })
            .map(AsRawFd::as_raw_fd)
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners")
            .field("addresses", &self.addresses)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
