//! Where connections go: names to addresses, one try each before the load begins. Sends no request.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use uring_ring::{Address, Errno};

use super::super::plan::{Plan, Reach};
use super::super::record::Fault;
use super::errors::connect_fault;

/// Long enough for any server that will take load.
const PATIENCE: Duration = Duration::from_secs(10);

/// A place that can't be reached at all, so that no load was begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreachable {
    place: String,
    fault: Fault,
    reason: String,
}

impl Unreachable {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// Nobody listens there now; somebody may later.
    pub fn is_refusal(&self) -> bool {
        self.fault == Fault::Refused
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unreachable { place, reason, .. } = self;
        match self.fault {
            Fault::Dns => write!(f, "the name in {place} has no address: {reason}"),
            Fault::Refused => write!(f, "nobody listens at {place}: {reason}"),
            _ => write!(f, "cannot connect to {place}: {reason}"),
        }
    }
}

impl std::error::Error for Unreachable {}

impl Plan {
    /// Tries once whether all that it leads to take connections.
    ///
    /// # Errors
    ///
    /// The first place that doesn't, and why.
    pub fn reach(&self) -> Result<(), Unreachable> {
        find(self).map(drop)
    }
}

/// The address of each of the plan's authorities: the first of its name that takes a connection.
pub(super) fn find(plan: &Plan) -> Result<Vec<Address>, Unreachable> {
    plan.authorities.iter().map(|authority| find_one(&authority.reach, &plan.sources)).collect()
}

fn find_one(reach: &Reach, sources: &[IpAddr]) -> Result<Address, Unreachable> {
    let failure = |fault, reason: &dyn fmt::Display| Unreachable {
        place: reach.to_string(),
        fault,
        reason: reason.to_string(),
    };
    let refused = |error: &io::Error| {
        let fault = match error.raw_os_error() {
            Some(errno) => connect_fault(Errno::new(errno)),
            None if error.kind() == io::ErrorKind::TimedOut => Fault::ConnectTimeout,
            None => Fault::Other,
        };
        failure(fault, error)
    };
    match reach {
        Reach::Unix(path) => {
            let Some(address) = Address::unix(path) else {
                return Err(failure(Fault::Other, &"a Unix socket's path has 1 to 107 bytes"));
            };
            match path.to_str().and_then(|path| path.strip_prefix('@')) {
                Some(name) => {
                    let name = UnixAddr::from_abstract_name(name);
                    let stream = name.and_then(|name| UnixStream::connect_addr(&name));
                    drop(stream.map_err(|error| refused(&error))?);
                }
                None => drop(UnixStream::connect(path).map_err(|error| refused(&error))?),
            }
            Ok(address)
        }
        Reach::Net(host, port) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let addresses: Vec<SocketAddr> = (bare, *port)
                .to_socket_addrs()
                .map_err(|error| failure(Fault::Dns, &error))?
                .filter(|address| sources.iter().all(|it| it.is_ipv4() == address.is_ipv4()))
                .collect();
            let mut last = match sources {
                [] => failure(Fault::Dns, &"there is none"),
                _ => failure(Fault::Other, &"it has no address of --source's kind (IPv4 or IPv6)"),
            };
            for address in addresses {
                match TcpStream::connect_timeout(&address, PATIENCE) {
                    Ok(_) => return Ok(address.into()),
                    Err(error) => last = refused(&error),
                }
            }
            Err(last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_listens_is_found_and_what_does_not_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = find_one(&Reach::Net("127.0.0.1".into(), port), &[]).unwrap();
        assert_eq!(found.to_string(), format!("127.0.0.1:{port}"));
        let other = find_one(&Reach::Net("127.0.0.1".into(), port), &["::1".parse().unwrap()]);
        assert!(other.unwrap_err().to_string().contains("--source"));
        drop(listener);
        let gone = find_one(&Reach::Net("127.0.0.1".into(), port), &[]).unwrap_err();
        assert_eq!(gone.fault(), Fault::Refused);
        assert!(gone.to_string().starts_with("nobody listens at 127.0.0.1:"), "{gone}");
        let unknown = find_one(&Reach::Net("nowhere.invalid".into(), 80), &[]).unwrap_err();
        assert_eq!(unknown.fault(), Fault::Dns);
        assert!(unknown.to_string().contains("nowhere.invalid:80"), "{unknown}");
        let missing = find_one(&Reach::Unix("/nowhere/socket".into()), &[]).unwrap_err();
        assert_eq!(missing.fault(), Fault::Refused);
        let nobody = find_one(&Reach::Unix("@nobody listens here".into()), &[]).unwrap_err();
        assert_eq!(nobody.fault(), Fault::Refused);
    }
}
