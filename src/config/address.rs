//! Where to listen, from text and back. Binds nothing; asks the resolver only for names.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `sun_path` has 108 bytes, the last of them a zero (unix(7)).
pub const UNIX_PATH_BYTES_MAX: usize = 108 - 1;

/// An address to listen on.
///
/// ```text
/// 127.0.0.1:8080    [::1]:8080    localhost:8080    unix:/run/app.sock
/// :8080             every IPv4 address of this machine; every IPv6 one is [::]:8080
/// /run/app.sock     a path alone is a Unix socket too
/// 127.0.0.1:0       any free port
/// ```
///
/// A name is resolved once, while it is parsed, and stands for its first IPv4 address; for its
/// first IPv6 address when it has no other. What `Display` writes can be parsed again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// An IPv4 or IPv6 address and port; port 0 is any free one.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether the path fits a socket address; one made without parsing may not.
    pub(super) fn check(&self) -> Result<(), AddressError> {
        match self {
            Address::Unix(path) => check_path(path),
            Address::Tcp(_) => Ok(()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(path) = text.strip_prefix("unix:").or(text.starts_with('/').then_some(text)) {
            check_path(Path::new(path))?;
            return Ok(Address::Unix(path.into()));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if let Ok(address) = authority.parse() {
            return Ok(Address::Tcp(address));
        }
        let error = |fault| AddressError { text: text.to_owned(), fault };
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| error(Fault::NoPort))?;
        let port = parse_port(port).ok_or_else(|| error(Fault::Port))?;
        match host {
            "" => Ok(Address::Tcp((Ipv4Addr::UNSPECIFIED, port).into())),
            _ if host.contains(':') && !host.starts_with('[') => Err(error(Fault::NoBrackets)),
            _ if is_name(host) => resolve(host, port).map(Address::Tcp).map_err(error),
            _ => Err(error(Fault::Host)),
        }
    }
}

impl fmt::Display for Address {
    /// As a client would name it: `http://127.0.0.1:8080`, or `unix:/run/app.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "http://{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Text that is no address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressError {
    text: String,
    fault: Fault,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Fault {
    NoPort,
    Port,
    NoBrackets,
    Host,
    Unresolved(String),
    NoPath,
    LongPath,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no address to listen on: ", self.text)?;
        match &self.fault {
            Fault::NoPort => f.write_str("it has no port (write host:port, :port or unix:/path)"),
            Fault::Port => f.write_str("its port must be a number from 0 to 65535"),
            Fault::NoBrackets => f.write_str("an IPv6 address needs brackets, as in [::1]:8080"),
            Fault::Host => f.write_str("its host is neither an IP address nor a name"),
            Fault::Unresolved(why) => write!(f, "its name can't be resolved ({why})"),
            Fault::NoPath => f.write_str("it has no path (write unix:/path)"),
            Fault::LongPath => {
                write!(f, "a socket's path has at most {UNIX_PATH_BYTES_MAX} bytes")
            }
        }
    }
}

impl std::error::Error for AddressError {}

fn check_path(path: &Path) -> Result<(), AddressError> {
    let fault = match path.as_os_str().as_bytes().len() {
        0 => Fault::NoPath,
        1..=UNIX_PATH_BYTES_MAX => return Ok(()),
        _ => Fault::LongPath,
    };
    Err(AddressError { text: format!("unix:{}", path.display()), fault })
}

/// Digits alone: `u16::from_str` would take a sign.
fn parse_port(port: &str) -> Option<u16> {
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())?
}

fn is_name(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Fault> {
    let unresolved = |error: std::io::Error| Fault::Unresolved(error.to_string());
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unresolved)?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| Fault::Unresolved("it has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match text.parse::<Address>() {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_documented_form_is_understood_and_reads_itself_again() {
        for (text, url) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
            (":8080", "http://0.0.0.0:8080"),
            ("[::]:8080", "http://[::]:8080"),
            ("127.0.0.1:0", "http://127.0.0.1:0"),
            ("localhost:8080", "http://127.0.0.1:8080"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("/run/app.sock", "unix:/run/app.sock"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ] {
            assert_eq!(parsed(text), url, "{text}");
            assert_eq!(parsed(url), url, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, why) in [
            ("", "no port"),
            ("8080", "no port"),
            ("localhost", "no port"),
            ("localhost:", "number from 0 to 65535"),
            ("localhost:+80", "number from 0 to 65535"),
            ("localhost:65536", "number from 0 to 65535"),
            ("127.0.0.1:http", "number from 0 to 65535"),
            ("::1:8080", "needs brackets"),
            ("[::1:8080", "neither an IP address nor a name"),
            ("two words:80", "neither an IP address nor a name"),
            ("https://127.0.0.1:80", "needs brackets"),
            ("no-such-name.invalid:80", "can't be resolved"),
            ("unix:", "no path"),
        ] {
            let error = parsed(text);
            assert!(error.contains(why) && error.contains(&format!("`{text}`")), "{text}: {error}");
        }
    }

    #[test]
    fn a_path_may_just_fit() {
        let fits = format!("/{}", "x".repeat(UNIX_PATH_BYTES_MAX - 1));
        assert!(fits.parse::<Address>().is_ok());
        assert!(parsed(&format!("{fits}x")).contains("at most 107 bytes"));
    }
}
