//! One TCP socket for each worker, all on the same port. Knows no Unix sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind as bind_to, getsockname, setsockopt,
    socket, sockopt,
};

use super::error::Reason;
use crate::process::sys;

/// How often a taken port is tried at most, and how long to wait before the next time: together 1.5 s.
/// A process that used a ring frees its sockets late, so a quick restart finds its own port taken.
pub(super) const TRIES_MAX: usize = 31;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Binds `workers` sockets to `address`; for port 0 the kernel chooses one for
/// all. Returns the address that they have. A port that is taken is tried so many times.
pub(super) fn bind(
    address: SocketAddr,
    workers: usize,
    tries: usize,
) -> Result<(SocketAddr, Vec<OwnedFd>), Reason> {
    if address.port() != 0 {
        claim(address, tries)?;
    }
    bind_all(address, workers).map_err(|error| Reason::of(&error))
}

/// Finds out whether the port is free. `SO_REUSEPORT` alone would not: it lets us join the sockets
/// of any other process of this user, and take half of its connections.
fn claim(address: SocketAddr, tries: usize) -> Result<(), Reason> {
    for _ in 1..tries {
        match Reason::checked(bound(address, false)) {
            Err(Reason::InUse) => thread::sleep(TRY_AGAIN_AFTER),
            other => return other.map(drop),
        }
    }
    Reason::checked(bound(address, false)).map(drop)
}

/// Binds `count` more sockets to an address that this pool listens on.
pub(super) fn bind_more(address: SocketAddr, count: usize) -> Result<Vec<OwnedFd>, Reason> {
    Reason::checked(bind_all(address, count)).map(|(_, sockets)| sockets)
}

/// Lets connections come to these sockets.
pub(super) fn listen(sockets: &[OwnedFd], backlog: u32) -> Result<(), Reason> {
    let mut sockets = sockets.iter();
    Reason::checked(sockets.try_for_each(|socket| sys::listen(socket.as_fd(), backlog)))
}

/// `workers` sockets on one address, whoever else is there. Bound ones keep it; the kernel sends
/// connections only to those that listen.
pub(super) fn bind_all(
    mut address: SocketAddr,
    workers: usize,
) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = bound(address, true)?;
        address.set_port(port_of(&socket)?);
        sockets.push(socket);
    }
    Ok((address, sockets))
}

fn bound(address: SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?; // [::] leaves 0.0.0.0 to others
    }
    setsockopt(&socket, sockopt::ReuseAddr, &true)?; // connections of before may be in TIME_WAIT
    setsockopt(&socket, sockopt::ReusePort, &reuse_port)?;
    set_for_accepted(&socket)?;
    bind_to(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

/// What the kernel takes of a response ahead of its sending. Without a bound it takes up to
/// `net.ipv4.tcp_wmem`, 4 MiB for each client that doesn't read. What is on its way comes on top of
/// this, so that no path is too long or too fast for it.
pub(crate) const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Sets what connections inherit that are accepted at this socket.
pub(in crate::process) fn set_for_accepted(socket: &OwnedFd) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    sys::set_unsent_bytes_max(socket.as_fd(), UNSENT_BYTES_MAX)
}

fn port_of(socket: &OwnedFd) -> io::Result<u16> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let port = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => v4.port(),
        (_, Some(v6)) => v6.port(),
        _ => unreachable!("a TCP socket has an IP address"),
    };
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    /// As [`super::bind`], and listens.
    fn bind(
        address: SocketAddr,
        workers: usize,
        backlog: u32,
        tries: usize,
    ) -> Result<(SocketAddr, Vec<OwnedFd>), Reason> {
        let (address, sockets) = super::bind(address, workers, tries)?;
        listen(&sockets, backlog)?;
        Ok((address, sockets))
    }

    fn any_port() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn workers_share_one_port_and_every_connection_reaches_one_of_them() {
        let (address, sockets) = bind(any_port(), 4, 16, TRIES_MAX).unwrap();
        assert_eq!(sockets.len(), 4);
        assert_ne!(address.port(), 0);
        let clients: Vec<TcpStream> =
            (0..16).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut accepted = 0;
        for socket in sockets {
            let listener = TcpListener::from(socket);
            listener.set_nonblocking(true).unwrap();
            while let Ok((connection, _)) = listener.accept() {
                assert!(getsockopt(&connection, sockopt::TcpNoDelay).unwrap());
                assert!(sent_ahead(connection) < 1 << 20, "the kernel takes no more");
                accepted += 1;
            }
        }
        assert_eq!(accepted, clients.len());
    }

    /// What can be written before somebody reads.
    fn sent_ahead(mut connection: TcpStream) -> usize {
        connection.set_nonblocking(true).unwrap();
        let piece = vec![0; 1 << 16];
        let counts = std::iter::from_fn(|| connection.write(&piece).ok());
        counts.sum()
    }

    #[test]
    fn a_shut_door_lets_in_who_had_come_and_nobody_else() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let (address, sockets) = bind(any.parse().unwrap(), 1, 16, TRIES_MAX).unwrap();
            let mut early = TcpStream::connect(address).unwrap();
            sys::attach_door(sockets[0].as_fd()).unwrap();
            let within = Duration::from_millis(100);
            let late = TcpStream::connect_timeout(&address, within).unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut, "neither let in nor refused");
            let listener = TcpListener::from(sockets.into_iter().next().unwrap());
            let (mut connection, _) = listener.accept().unwrap();
            early.write_all(b"hello").unwrap();
            let mut heard = [0; 5];
            connection.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"hello");
            listener.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(listener);
            let late = TcpStream::connect(address).unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn a_port_that_another_pool_of_this_user_has_is_taken() {
        let (address, _sockets) = bind(any_port(), 2, 16, TRIES_MAX).unwrap();
        let before = Instant::now();
        assert_eq!(bind(address, 2, 16, TRIES_MAX).unwrap_err(), Reason::InUse);
        assert!(before.elapsed() >= Duration::from_millis(1500), "it was given time to get free");
    }

    #[test]
    fn a_port_that_gets_free_meanwhile_is_bound() {
        let listener = TcpListener::bind(any_port()).unwrap();
        let address = listener.local_addr().unwrap();
        let owner = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            drop(listener);
        });
        assert!(bind(address, 1, 16, TRIES_MAX).is_ok());
        owner.join().unwrap();
    }

    #[test]
    fn connections_in_time_wait_dont_matter() {
        let (address, sockets) = bind(any_port(), 1, 16, TRIES_MAX).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        for socket in sockets {
            drop(TcpListener::from(socket).accept().unwrap()); // closes first: TIME_WAIT is ours
        }
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        assert!(bind(address, 1, 16, TRIES_MAX).is_ok());
    }

    #[test]
    fn all_ipv6_addresses_leave_the_ipv4_ones_to_others() {
        let leaves_it = |_| {
            let (address, _sockets) = bind("[::]:0".parse().unwrap(), 1, 16, TRIES_MAX).unwrap();
            TcpListener::bind(("127.0.0.1", address.port())).is_ok()
        };
        if TcpListener::bind("[::1]:0").is_ok() {
            assert!((0..20).any(leaves_it), "somebody else may have some of these ports");
        }
    }

    #[test]
    fn an_address_of_another_machine_is_not_here() {
        let elsewhere = "192.0.2.1:8080".parse().unwrap(); // TEST-NET-1
        assert_eq!(bind(elsewhere, 1, 16, TRIES_MAX).unwrap_err(), Reason::NotHere);
    }
}
