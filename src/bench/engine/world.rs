//! The time and the sockets of a loader. Opens no connection.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno as NixErrno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use uring_ring::{Address, Errno};

use super::errors::connect_fault;
use crate::bench::record::Fault;

/// The time and the sockets of a loader: real, or simulated for tests.
pub(super) trait World {
    /// Nanoseconds since the run began.
    fn now(&mut self) -> u64;
    /// Makes the socket of a connection.
    fn socket(&mut self, peer: &Address, connection: usize) -> Result<OwnedFd, Fault>;
}

/// The real clock, and sockets of the kernel.
pub(super) struct Sockets {
    pub(super) epoch: Instant,
    /// Where connections come from, in turn; if empty, the kernel chooses.
    pub(super) sources: Vec<IpAddr>,
    /// More than one request goes over a connection.
    pub(super) keeps: bool,
}

impl World for Sockets {
    #[inline]
    fn now(&mut self) -> u64 {
        Instant::now().saturating_duration_since(self.epoch).as_nanos() as u64
    }

    fn socket(&mut self, peer: &Address, connection: usize) -> Result<OwnedFd, Fault> {
        let fault = |errno: NixErrno| connect_fault(Errno::new(errno as i32));
        let (family, is_net) = match peer.family() {
            libc::AF_UNIX => (AddressFamily::Unix, false),
            libc::AF_INET => (AddressFamily::Inet, true),
            _ => (AddressFamily::Inet6, true),
        };
        let socket =
            socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(fault)?;
        if is_net && self.keeps {
            // Else a request may wait for the acknowledgement of the one before.
            setsockopt(&socket, sockopt::TcpNoDelay, &true).map_err(fault)?;
        }
        if is_net && !self.sources.is_empty() {
            // The port is chosen when the peer is known, so that each peer has all ports.
            let _before_4_2 = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
            let source = self.sources[connection % self.sources.len()];
            let source = SockaddrStorage::from(SocketAddr::new(source, 0));
            bind(socket.as_raw_fd(), &source).map_err(fault)?;
        }
        Ok(socket)
    }
}
