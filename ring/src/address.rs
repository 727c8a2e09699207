//! Where a socket connects to, in the kernel's form. Resolves no names, opens no sockets.

use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

/// What precedes the path in a `sockaddr_un`: the family.
const FAMILY_BYTES: usize = size_of::<libc::sa_family_t>();
/// `sun_path`, unix(7).
const PATH_BYTES_MAX: usize = 108;

/// An address that a socket can connect to: IPv4, IPv6 or a Unix socket's path.
///
/// ```
/// use uring_ring::Address;
///
/// let web = Address::from("127.0.0.1:80".parse::<std::net::SocketAddr>().unwrap());
/// let local = Address::unix("/run/app.sock").unwrap();
/// assert_ne!(web, local);
/// assert_eq!(local.to_string(), "unix:/run/app.sock");
/// assert_eq!(Address::unix("x".repeat(109)), None);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// A `sockaddr`: the kernel copies it, so it needs no alignment.
    bytes: [u8; FAMILY_BYTES + PATH_BYTES_MAX],
    len: u8,
}

impl Address {
    /// The Unix socket at `path`; `None` when the path is empty, has a NUL, or is longer than
    /// the 107 bytes that such an address has room for. One that starts with `@` is an abstract
    /// name, without a file (unix(7)).
    pub fn unix(path: impl AsRef<OsStr>) -> Option<Address> {
        let path = path.as_ref().as_bytes();
        if path.is_empty() || path.len() >= PATH_BYTES_MAX || path.contains(&0) {
            return None;
        }
        let mut address = Address::of(libc::AF_UNIX);
        address.add(path);
        match path {
            [b'@', ..] => address.bytes[FAMILY_BYTES] = 0,
            _ => address.add(&[0]),
        }
        Some(address)
    }

    /// `AF_INET`, `AF_INET6` or `AF_UNIX`: what kind of socket connects there.
    pub fn family(&self) -> i32 {
        i32::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]]))
    }

    /// The `sockaddr`.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn of(family: i32) -> Address {
        let mut address = Address { bytes: [0; _], len: 0 };
        let family = libc::sa_family_t::try_from(family).expect("families are small numbers");
        address.add(&family.to_ne_bytes());
        address
    }

    fn add(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }
}

impl From<SocketAddr> for Address {
    fn from(peer: SocketAddr) -> Address {
        match peer {
            SocketAddr::V4(peer) => {
                let mut address = Address::of(libc::AF_INET);
                address.add(&peer.port().to_be_bytes());
                address.add(&peer.ip().octets());
                address.add(&[0; 8]); // sin_zero
                address
            }
            SocketAddr::V6(peer) => {
                let mut address = Address::of(libc::AF_INET6);
                address.add(&peer.port().to_be_bytes());
                address.add(&peer.flowinfo().to_ne_bytes());
                address.add(&peer.ip().octets());
                address.add(&peer.scope_id().to_ne_bytes());
                address
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = &self.as_bytes()[FAMILY_BYTES..];
        match (self.family(), rest) {
            (libc::AF_INET, [high, low, ip @ ..]) => {
                let ip: [u8; 4] = ip[..4].try_into().expect("4 bytes of address");
                let ip = std::net::Ipv4Addr::from(ip);
                write!(f, "{ip}:{}", u16::from_be_bytes([*high, *low]))
            }
            (libc::AF_INET6, [high, low, _, _, _, _, ip @ ..]) => {
                let ip: [u8; 16] = ip[..16].try_into().expect("16 bytes of address");
                let ip = std::net::Ipv6Addr::from(ip);
                write!(f, "[{ip}]:{}", u16::from_be_bytes([*high, *low]))
            }
            (_, [0, name @ ..]) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
            (_, path) => {
                let path = path.strip_suffix(&[0]).unwrap_or(path);
                write!(f, "unix:{}", String::from_utf8_lossy(path))
            }
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_long_as_the_kernel_has_them() {
        for (text, family, length) in [
            ("127.0.0.1:80", libc::AF_INET, size_of::<libc::sockaddr_in>()),
            ("[fe80::1]:8080", libc::AF_INET6, size_of::<libc::sockaddr_in6>()),
        ] {
            let address = Address::from(text.parse::<SocketAddr>().unwrap());
            assert_eq!((address.family(), address.as_bytes().len()), (family, length));
            assert_eq!(address.to_string(), text);
        }
        let longest = "x".repeat(107);
        let address = Address::unix(&longest).unwrap();
        assert_eq!(address.as_bytes().len(), size_of::<libc::sockaddr_un>());
        assert_eq!(address.to_string(), format!("unix:{longest}"));
    }

    #[test]
    fn an_abstract_name_has_no_end_but_its_length() {
        let address = Address::unix("@name").unwrap();
        assert_eq!(address.as_bytes()[FAMILY_BYTES..], *b"\0name");
        assert_eq!(address.to_string(), "unix:@name");
        for path in ["", "a\0b"] {
            assert_eq!(Address::unix(path), None);
        }
    }
}
