//! Why an address can't be listened on, and what whoever runs the program can do about it.

use std::fmt;
use std::io;

use crate::config::Address;

/// An address that can't be listened on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenError {
    address: Address,
    reason: Reason,
}

/// Why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// Another process listens there.
    InUse,
    /// The port, or the socket's directory, needs more rights.
    NotPermitted,
    /// No interface of this machine has the address.
    NotHere,
    /// The machine has no such kind of address; IPv6 may be disabled.
    NoFamily,
    /// The directory of the socket doesn't exist.
    NoDirectory,
    /// Something else than a socket is there, and is left alone.
    NoSocketFile,
    /// No descriptor left.
    Descriptors,
    /// Something else.
    Other(i32),
}

impl Reason {
    pub(super) fn of(error: &io::Error) -> Reason {
        match error.raw_os_error().unwrap_or(libc::EIO) {
            libc::EADDRINUSE => Reason::InUse,
            libc::EACCES | libc::EPERM => Reason::NotPermitted,
            libc::EADDRNOTAVAIL => Reason::NotHere,
            libc::EAFNOSUPPORT => Reason::NoFamily,
            libc::ENOENT | libc::ENOTDIR => Reason::NoDirectory,
            libc::EMFILE | libc::ENFILE => Reason::Descriptors,
            errno => Reason::Other(errno),
        }
    }

    pub(super) fn checked<T>(result: io::Result<T>) -> Result<T, Reason> {
        result.map_err(|error| Reason::of(&error))
    }
}

impl ListenError {
    pub(super) fn new(address: &Address, reason: Reason) -> ListenError {
        ListenError { address: address.clone(), reason }
    }

    /// A name for programs, which stays the same whatever the words become.
    pub fn code(&self) -> &'static str {
        match self.reason {
            Reason::InUse => "LISTEN_ADDRESS_IN_USE",
            Reason::NotPermitted => "LISTEN_NOT_PERMITTED",
            Reason::NotHere | Reason::NoFamily => "LISTEN_ADDRESS_NOT_HERE",
            Reason::NoDirectory | Reason::NoSocketFile => "LISTEN_PATH",
            Reason::Descriptors => "LISTEN_NO_DESCRIPTOR",
            Reason::Other(_) => "LISTEN_ERROR",
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenError { address, reason } = self;
        write!(f, "cannot listen on {address}: ")?;
        match (reason, address) {
            (Reason::InUse, Address::Tcp(tcp)) => {
                let port = tcp.port();
                write!(f, "another process does (`ss -ltnp 'sport = {port}'` shows which)")
            }
            (Reason::InUse, Address::Unix(_)) => {
                f.write_str("another process does (`ss -lxp` shows which)")
            }
            (Reason::NotPermitted, Address::Tcp(tcp)) => write!(
                f,
                "port {} needs the capability CAP_NET_BIND_SERVICE \
                 (or lower the sysctl net.ipv4.ip_unprivileged_port_start)",
                tcp.port(),
            ),
            (Reason::NotPermitted, Address::Unix(_)) => {
                f.write_str("its directory is not writable by this user")
            }
            (Reason::NotHere, _) => f.write_str(
                "no interface of this machine has this address (`ip address` lists them)",
            ),
            (Reason::NoFamily, _) => {
                f.write_str("this machine has no addresses of this kind (is IPv6 disabled?)")
            }
            (Reason::NoDirectory, _) => f.write_str("its directory does not exist"),
            (Reason::NoSocketFile, _) => {
                f.write_str("a file that is no socket is there; it was left alone")
            }
            (Reason::Descriptors, _) => {
                f.write_str("no file descriptor left: raise the limit (`ulimit -n`)")
            }
            (Reason::Other(errno), _) => io::Error::from_raw_os_error(*errno).fmt(f),
        }
    }
}

impl std::error::Error for ListenError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_becomes_words_that_help() {
        let tcp: Address = "127.0.0.1:80".parse().unwrap();
        let unix: Address = "unix:/run/app.sock".parse().unwrap();
        for (address, errno, words) in [
            (&tcp, libc::EADDRINUSE, "`ss -ltnp 'sport = 80'`"),
            (&unix, libc::EADDRINUSE, "`ss -lxp`"),
            (&tcp, libc::EACCES, "port 80 needs the capability CAP_NET_BIND_SERVICE"),
            (&unix, libc::EACCES, "not writable"),
            (&tcp, libc::EADDRNOTAVAIL, "no interface"),
            (&tcp, libc::EAFNOSUPPORT, "IPv6"),
            (&unix, libc::ENOENT, "does not exist"),
            (&tcp, libc::EMFILE, "ulimit -n"),
            (&tcp, libc::EIO, "os error 5"),
        ] {
            let reason = Reason::of(&io::Error::from_raw_os_error(errno));
            let error = ListenError::new(address, reason).to_string();
            assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
            assert!(error.contains(words), "{error}");
        }
    }
}
