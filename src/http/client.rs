//! Who asks: the peer of the connection, and, where trusted proxies tell, the client behind it.
//! Knows no requests; asks the kernel once a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;

use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};

use crate::config::{ForwardedHeader, Proxies};
use crate::proto::forwarded::{self, Resolved};
use crate::proto::proxy::Route;

/// Where a request comes from, as far as it can be believed: what a peer says that isn't trusted
/// (`proxies.trusted`) counts for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Origin<'a> {
    /// The client's address; `None` when it came by a Unix socket, or nobody knows.
    pub address: Option<IpAddr>,
    /// How the client asked.
    pub scheme: Scheme,
    /// The host that the client asked for: a trusted proxy's word, else the request's own.
    pub host: Option<&'a str>,
}

/// How a client asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// By TLS, which a proxy has ended.
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// The address at the other end of a socket; `None` when it is a Unix socket, or has gone.
pub(crate) fn peer_of(socket: RawFd) -> Option<SocketAddr> {
    address(&getpeername(socket).ok()?)
}

/// Our own address of a connection; `None` when that is a Unix socket.
pub(crate) fn local_of(socket: RawFd) -> Option<SocketAddr> {
    address(&getsockname(socket).ok()?)
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Who has connected; or on whose behalf, if a PROXY header told.
    source: Option<IpAddr>,
    proxies: Rc<Proxies>,
    /// Whether `source` may speak for others.
    is_trusted: bool,
}

impl Client {
    /// The peer of a connection.
    pub(crate) fn new(peer: Option<SocketAddr>, proxies: &Rc<Proxies>) -> Client {
        let source = peer.map(|peer| peer.ip().to_canonical());
        let is_trusted = proxies.trusted.contains(source);
        Client { source, proxies: Rc::clone(proxies), is_trusted }
    }

    /// Whether the connection has to begin with a PROXY header.
    pub(crate) fn speaks_proxy(&self) -> bool {
        self.is_trusted && self.proxies.protocol
    }

    /// The same connection, on behalf of somebody.
    pub(crate) fn on_behalf_of(&self, route: Option<Route>) -> Client {
        let source = route.map(|route| route.source.ip().to_canonical());
        // One whom nobody knows is not trusted, be it by whatever name.
        let is_trusted = source.is_some() && self.proxies.trusted.contains(source);
        Client { source, proxies: Rc::clone(&self.proxies), is_trusted }
    }

    /// Whose connection it is, whatever its requests tell.
    pub(crate) fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Whether it may speak for others.
    pub(crate) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Where a request with these fields comes from. `values` gives the values of all fields of a
    /// name, in order.
    pub(crate) fn resolve<'a, V>(&self, values: impl Fn(&'static str) -> V) -> Resolved<'a>
    where
        V: DoubleEndedIterator<Item = &'a [u8]>,
    {
        let source = self.source;
        if !self.is_trusted {
            return Resolved { address: source, ..Resolved::default() };
        }
        let is_trusted = |address| self.proxies.trusted.contains(address);
        match self.proxies.header {
            ForwardedHeader::None => Resolved { address: source, ..Resolved::default() },
            ForwardedHeader::Forwarded => {
                forwarded::follow_forwarded(source, values("forwarded"), is_trusted)
            }
            ForwardedHeader::XForwardedFor => Resolved {
                address: forwarded::follow_x_forwarded_for(
                    source,
                    values("x-forwarded-for"),
                    is_trusted,
                ),
                is_https: values("x-forwarded-proto")
                    .next_back()
                    .and_then(forwarded::last_value)
                    .and_then(forwarded::is_https),
                host: values("x-forwarded-host").next_back().and_then(forwarded::last_value),
            },
        }
    }
}

/// What counts as one client: an IPv4 address, or the first 64 bits of an IPv6 one, which is what
/// one household has. `None` is everybody who has no address.
pub(crate) fn household(address: Option<IpAddr>) -> Option<u64> {
    Some(match address?.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 | 1 << 63, // no IPv4 address; 8000::/1 is unused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: ForwardedHeader) -> Rc<Proxies> {
        let mut proxies = Proxies { header, protocol: true, ..Proxies::default() };
        proxies.trusted.add("10.0.0.0/8").unwrap();
        Rc::new(proxies)
    }

    fn client(peer: &str, header: ForwardedHeader) -> Client {
        Client::new(Some(SocketAddr::new(peer.parse().unwrap(), 1)), &proxies(header))
    }

    fn address_of(client: &Client, fields: &[(&str, &'static str)]) -> String {
        let values = |wanted: &'static str| {
            let values = fields.iter().filter(move |(name, _)| *name == wanted);
            values.map(|(_, value)| value.as_bytes())
        };
        client.resolve(values).address.map_or("-".to_owned(), |address| address.to_string())
    }

    #[test]
    fn only_the_configured_field_of_a_trusted_peer_is_believed() {
        let fields = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.2")];
        for (peer, header, address) in [
            ("10.0.0.1", ForwardedHeader::XForwardedFor, "192.0.2.1"),
            ("::ffff:10.0.0.1", ForwardedHeader::XForwardedFor, "192.0.2.1"),
            ("10.0.0.1", ForwardedHeader::Forwarded, "192.0.2.2"),
            ("10.0.0.1", ForwardedHeader::None, "10.0.0.1"),
            ("9.9.9.9", ForwardedHeader::XForwardedFor, "9.9.9.9"),
        ] {
            assert_eq!(address_of(&client(peer, header), &fields), address);
        }
    }

    #[test]
    fn whoever_a_proxy_header_names_is_believed_no_more_than_that_one_deserves() {
        let fields = [("x-forwarded-for", "192.0.2.1")];
        let balancer = client("10.0.0.1", ForwardedHeader::XForwardedFor);
        assert!(balancer.speaks_proxy());
        let route = |source: &str| {
            let destination = "10.0.0.1:80".parse().unwrap();
            Some(Route { source: source.parse().unwrap(), destination })
        };
        let stranger = balancer.on_behalf_of(route("6.6.6.6:1"));
        assert_eq!(address_of(&stranger, &fields), "6.6.6.6");
        let proxy = balancer.on_behalf_of(route("10.0.0.2:1"));
        assert_eq!(address_of(&proxy, &fields), "192.0.2.1");
        assert_eq!(address_of(&balancer.on_behalf_of(None), &fields), "-");
    }

    #[test]
    fn a_household_is_one_client() {
        let of = |text: &str| household(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8::1"), of("2001:db8:0:0:ffff::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("::1"), of("0.0.0.0"));
    }
}
