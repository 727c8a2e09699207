//! Networks by address and prefix (CIDR, RFC 4632), and lists of them. Asks no resolver.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::ConfigError;

/// Addresses that begin alike: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.
///
/// IPv4 addresses that a dual-stack socket shows as `::ffff:10.1.2.3` belong to the networks of IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Network {
    /// IPv4 ones mapped, so that there is one way to compare.
    base: u128,
    /// Bits of `base` that count, of 128.
    prefix: u8,
}

/// An IPv4 address has so many bits less than an IPv6 one.
const V4_OFFSET: u8 = 96;

impl Network {
    /// Whether the address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        (bits(address) ^ self.base) & mask(self.prefix) == 0
    }
}

/// The address as 128 bits, IPv4 ones mapped (RFC 4291 section 2.5.5.2).
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = ConfigError;

    /// Reads `address/prefix`, or an address. No bit behind the prefix may be set: who wrote
    /// `10.1.2.3/8` may have meant something else.
    fn from_str(text: &str) -> Result<Network, ConfigError> {
        let wrong = |range: &str| ConfigError::OutOfRange {
            key: "proxies.trusted",
            value: text.to_owned(),
            range: range.to_owned(),
        };
        const FORMS: &str = "a network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7, or `unix`";
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| wrong(FORMS))?;
        let (most, offset) = if address.is_ipv4() { (32, V4_OFFSET) } else { (128, 0) };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| wrong(FORMS))?
            }
            Some(_) => return Err(wrong(FORMS)),
        };
        let network = Network { base: bits(address), prefix: prefix + offset };
        if network.base & !mask(network.prefix) != 0 {
            return Err(wrong("a network without bits behind its prefix"));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from_bits(self.base);
        match address.to_ipv4_mapped() {
            Some(v4) if self.prefix >= V4_OFFSET => write!(f, "{v4}/{}", self.prefix - V4_OFFSET),
            _ => write!(f, "{address}/{}", self.prefix),
        }
    }
}

/// Whom to believe what they say about others: networks, and perhaps whoever comes by a Unix socket.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TrustedPeers {
    /// Those of TCP.
    pub networks: Vec<Network>,
    /// Those of Unix sockets, which are guarded by the rights of the socket's file.
    pub unix: bool,
}

impl TrustedPeers {
    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether this peer is trusted; `None` is one without an address, by a Unix socket.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(address) => self.networks.iter().any(|network| network.contains(address)),
            None => self.unix,
        }
    }

    /// Adds what a line of a configuration names: a network, or `unix`.
    ///
    /// # Errors
    ///
    /// It is neither.
    pub fn add(&mut self, text: &str) -> Result<(), ConfigError> {
        match text {
            "unix" => self.unix = true,
            network => self.networks.push(network.parse()?),
        }
        Ok(())
    }

    /// What [`add`](TrustedPeers::add) reads.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let unix = self.unix.then(|| "unix".to_owned());
        self.networks.iter().map(Network::to_string).chain(unix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::10.1.1.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
        ] {
            assert!(contains(network, inside), "{inside} in {network}");
            assert!(!contains(network, outside), "{outside} not in {network}");
        }
        assert!(contains("::/0", "8.8.8.8") && contains("::/0", "fe80::1"));
    }

    #[test]
    fn what_is_written_reads_itself_again_and_the_rest_says_why() {
        for text in ["10.0.0.0/8", "192.0.2.7/32", "0.0.0.0/0", "2001:db8::/32", "::1/128", "::/0"]
        {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for text in ["", "10", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "::/129", "a/8", "::1/"]
        {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.0/8") && error.contains("`proxies.trusted`"), "{error}");
        }
        let error = "10.1.2.3/8".parse::<Network>().unwrap_err().to_string();
        assert!(error.contains("behind its prefix"), "{error}");
    }

    #[test]
    fn peers_without_an_address_are_trusted_by_name_alone() {
        let mut trusted = TrustedPeers::default();
        assert!(trusted.is_empty() && !trusted.contains(None));
        trusted.add("127.0.0.0/8").unwrap();
        assert!(!trusted.contains(None) && trusted.contains(Some([127, 0, 0, 9].into())));
        trusted.add("unix").unwrap();
        assert!(trusted.contains(None));
        assert_eq!(trusted.names().collect::<Vec<_>>(), ["127.0.0.0/8", "unix"]);
        assert!(trusted.add("elsewhere").is_err());
    }
}
