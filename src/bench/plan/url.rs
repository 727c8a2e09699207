//! `http://host:port/path?query`, as people type it, and where it leads. Resolves no names.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::units::Malformed;

/// What can't stand in a request-target as it is: spaces, quotes and what isn't ASCII. All else
/// is sent as it was typed.
const TARGET: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`');

/// An `http` URL, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// Name or address, IPv6 in brackets.
    pub(super) host: String,
    /// 80 unless given.
    pub(super) port: u16,
    /// Path and query, as on the request line.
    pub(super) target: String,
    /// `user:password`, decoded.
    pub(super) userinfo: Option<String>,
}

impl Url {
    /// As in a Host field: the port only where it isn't the scheme's.
    pub(super) fn authority(&self) -> String {
        match self.port {
            80 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.target)
    }
}

impl FromStr for Url {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Url, Malformed> {
        let refusal = |why: &str| Malformed(format!("`{text}` is no URL to ask: {why}"));
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(refusal("TLS isn't there yet; use http://"));
            }
            Some((scheme, _)) if !scheme.contains(['/', '?', '#']) => {
                return Err(refusal("only http:// is there"));
            }
            _ => text, // as curl has it
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, authority),
        };
        let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
            let Some((address, port)) = rest.split_once(']') else {
                return Err(refusal("a `[` without its `]`"));
            };
            if address.parse::<Ipv6Addr>().is_err() {
                return Err(refusal("no IPv6 address is in the brackets"));
            }
            (format!("[{address}]"), port)
        } else {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (host.to_owned(), port)
        };
        if host.is_empty() {
            return Err(refusal("it has no host"));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if !host.starts_with('[') && !host.chars().all(is_name) {
            return Err(refusal("its host has characters that no host has"));
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => 80,
            Some("") => 80,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                let port = digits.parse().ok().filter(|port| *port > 0);
                port.ok_or_else(|| refusal("ports go from 1 to 65535"))?
            }
            _ => return Err(refusal("its port is no number")),
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{}", utf8_percent_encode(target, TARGET));
        let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        let userinfo = userinfo.map(|userinfo| decode(userinfo).into_owned());
        Ok(Url { host, port, target, userinfo })
    }
}

/// Connect elsewhere than the URL says, as curl has it: `HOST1:PORT1:HOST2:PORT2`. Empty parts
/// stand for any, or for the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectTo {
    from: (Option<String>, Option<u16>),
    to: (Option<String>, Option<u16>),
}

impl ConnectTo {
    /// Where to connect for this host and port, if this says anything about them.
    pub(super) fn route(&self, host: &str, port: u16) -> Option<(String, u16)> {
        let (from_host, from_port) = &self.from;
        let applies = from_host.as_ref().is_none_or(|from| from.eq_ignore_ascii_case(host))
            && from_port.is_none_or(|from| from == port);
        let (to_host, to_port) = &self.to;
        applies.then(|| (to_host.clone().unwrap_or_else(|| host.into()), to_port.unwrap_or(port)))
    }
}

impl FromStr for ConnectTo {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<ConnectTo, Malformed> {
        let refusal = || Malformed(format!("`{text}` is not HOST1:PORT1:HOST2:PORT2"));
        let parts = split(text);
        let [from_host, from_port, to_host, to_port] = parts.as_slice() else {
            return Err(refusal());
        };
        let host = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let port = |text: &str| match text {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| refusal()),
        };
        Ok(ConnectTo {
            from: (host(from_host), port(from_port)?),
            to: (host(to_host), port(to_port)?),
        })
    }
}

/// An address for a name, as curl has it: `HOST:PORT:ADDRESS`; `*` is any host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolve {
    host: String,
    port: u16,
    address: String,
}

impl Resolve {
    /// The address for this host and port, if this has one.
    pub(super) fn address(&self, host: &str, port: u16) -> Option<&str> {
        let applies = self.host == "*" || self.host.eq_ignore_ascii_case(host);
        (applies && self.port == port).then_some(&self.address)
    }
}

impl FromStr for Resolve {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Resolve, Malformed> {
        let refusal = || Malformed(format!("`{text}` is not HOST:PORT:ADDRESS"));
        let mut parts = text.splitn(3, ':');
        let (host, port, address) = (parts.next(), parts.next(), parts.next());
        let (Some(host), Some(port), Some(address)) = (host, port, address) else {
            return Err(refusal());
        };
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        let address: std::net::IpAddr = bare.parse().map_err(|_| refusal())?;
        let address = match address {
            std::net::IpAddr::V6(address) => format!("[{address}]"),
            std::net::IpAddr::V4(address) => address.to_string(),
        };
        Ok(Resolve { host: host.into(), port: port.parse().map_err(|_| refusal())?, address })
    }
}

/// At colons, but not at those within brackets.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        c == ':' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_understood_as_people_type_them() {
        for (text, authority, target) in [
            ("http://127.0.0.1:8080/a?b=c", "127.0.0.1:8080", "/a?b=c"),
            ("HTTP://example.com", "example.com", "/"),
            ("localhost:8080", "localhost:8080", "/"),
            ("localhost/x", "localhost", "/x"),
            ("http://[::1]:80/", "[::1]", "/"),
            ("http://h:81?q=a b#fragment", "h:81", "/?q=a%20b"),
            ("http://h/ä%20", "h", "/%C3%A4%20"),
            ("http://h:/", "h", "/"),
            ("h/?u=http://other/", "h", "/?u=http://other/"),
        ] {
            let url: Url = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                (url.authority().as_str(), url.target.as_str()),
                (authority, target),
                "{text}"
            );
            assert_eq!(url.to_string().parse(), Ok(url), "{text}");
        }
        let url: Url = "http://me:p%40ss@h/".parse().unwrap();
        assert_eq!((url.userinfo.as_deref(), url.host.as_str()), (Some("me:p@ss"), "h"));
    }

    #[test]
    fn what_is_none_says_why() {
        for (text, why) in [
            ("https://h/", "TLS"),
            ("ftp://h/", "only http"),
            ("http://", "no host"),
            ("", "no host"),
            ("http://:80/", "no host"),
            ("http://h:0/", "1 to 65535"),
            ("http://h:65536/", "1 to 65535"),
            ("http://h:x/", "no number"),
            ("http://[::1/", "without its"),
            ("http://[h]/", "no IPv6"),
            ("http://[::1]x/", "no number"),
            ("http://a b/", "characters"),
        ] {
            let refusal = text.parse::<Url>().unwrap_err().to_string();
            assert!(refusal.contains(why) && refusal.contains(&format!("`{text}`")), "{refusal}");
        }
    }

    #[test]
    fn connections_can_be_led_elsewhere() {
        let to: ConnectTo = "h:80:127.0.0.1:8080".parse().unwrap();
        assert_eq!(to.route("H", 80), Some(("127.0.0.1".into(), 8080)));
        assert_eq!(to.route("h", 81), None);
        let any: ConnectTo = "::[::1]:".parse().unwrap();
        assert_eq!(any.route("x", 7), Some(("[::1]".into(), 7)));
        assert!("h:80".parse::<ConnectTo>().is_err() && "h:x:h:1".parse::<ConnectTo>().is_err());
        let resolve: Resolve = "h:80:::1".parse().unwrap();
        assert_eq!((resolve.address("h", 80), resolve.address("h", 81)), (Some("[::1]"), None));
        assert_eq!("*:80:1.2.3.4".parse::<Resolve>().unwrap().address("x", 80), Some("1.2.3.4"));
        assert!("h:80:name".parse::<Resolve>().is_err());
    }
}
