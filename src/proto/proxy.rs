//! The PROXY protocol, versions 1 and 2: how a balancer tells whose connection it passes on, before
//! the first byte of that. By <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.
//!
//! Strict and bounded: whoever is believed has to speak clearly. Knows no sockets, and not whom to
//! believe.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, its CRLF included (section 2.1).
pub const V1_BYTES_MAX: usize = 107;

/// The longest header of version 2 that is taken: all addresses, and TLVs of two large certificate
/// names. The protocol would allow 64 KiB.
pub const V2_BYTES_MAX: usize = 4096;

const V1_BEGIN: &[u8] = b"PROXY ";
const V2_BEGIN: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHeader {
    /// The balancer speaks for itself, to see whether we live.
    Local,
    /// Somebody's connection; of whom, and to whom, only if it was TCP.
    Proxied(Option<Route>),
}

/// The ends of the connection that the balancer has accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The client's.
    pub source: SocketAddr,
    /// The one that the client wanted.
    pub destination: SocketAddr,
}

/// Why bytes begin with no header that is taken. The balancer's fault, or there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProxyError {
    /// The bytes begin something else.
    NoHeader,
    /// A line of version 1 without an end in [`V1_BYTES_MAX`] bytes.
    LineTooLong,
    /// A line of version 1 that isn't `PROXY TCP4|TCP6 source destination port port`.
    LineMalformed,
    /// A version other than 2 behind the signature of version 2.
    VersionUnknown,
    /// Neither `LOCAL` nor `PROXY`.
    CommandUnknown,
    /// An address family or a transport that can't be on the other side of a stream.
    FamilyUnknown,
    /// Longer than [`V2_BYTES_MAX`], or shorter than its addresses.
    LengthInvalid,
    /// What follows the addresses isn't made of whole TLVs.
    TlvMalformed,
    /// The header was changed on its way.
    ChecksumWrong,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyError::NoHeader => "no PROXY protocol header",
            ProxyError::LineTooLong => "a PROXY line without an end",
            ProxyError::LineMalformed => "a malformed PROXY line",
            ProxyError::VersionUnknown => "a PROXY header of an unknown version",
            ProxyError::CommandUnknown => "a PROXY header with an unknown command",
            ProxyError::FamilyUnknown => "a PROXY header with a family that is no stream's",
            ProxyError::LengthInvalid => "a PROXY header of an impossible length",
            ProxyError::TlvMalformed => "a PROXY header with malformed TLVs",
            ProxyError::ChecksumWrong => "a PROXY header with a wrong checksum",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Parses the header that `bytes` begin with, and tells its length. `Ok(None)`: its end hasn't come,
/// and nothing is wrong so far; call again with the same bytes and more.
///
/// ```
/// # use uring_pool::proto::proxy::{ProxyHeader, parse_proxy_header};
/// let bytes = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n";
/// let (header, len) = parse_proxy_header(bytes)?.unwrap();
/// let ProxyHeader::Proxied(Some(route)) = header else { panic!() };
/// assert_eq!(route.source.to_string(), "192.0.2.1:56324");
/// assert!(bytes[len..].starts_with(b"GET"));
/// # Ok::<(), uring_pool::proto::proxy::ProxyError>(())
/// ```
///
/// # Errors
///
/// What is wrong. Nothing that follows can be trusted to be anything.
pub fn parse_proxy_header(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => parse_v1(bytes),
        Some(b'\r') => parse_v2(bytes),
        Some(_) => Err(ProxyError::NoHeader),
    }
}

/// Whether `bytes` begin with `begin`; `None` while they may come to.
fn begins(bytes: &[u8], begin: &[u8]) -> Option<bool> {
    let len = bytes.len().min(begin.len());
    if bytes[..len] != begin[..len] {
        return Some(false);
    }
    (len == begin.len()).then_some(true)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    match begins(bytes, V1_BEGIN) {
        None => return Ok(None),
        Some(false) => return Err(ProxyError::NoHeader),
        Some(true) => {}
    }
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        // A lone CR or LF won't become better.
        let text = window.strip_suffix(b"\r").unwrap_or(window);
        return if text.iter().any(|byte| !matches!(byte, b' '..=b'~')) {
            Err(ProxyError::LineMalformed)
        } else if window.len() == V1_BYTES_MAX {
            Err(ProxyError::LineTooLong)
        } else {
            Ok(None)
        };
    };
    let line = std::str::from_utf8(&window[V1_BEGIN.len()..end]);
    let line = line.map_err(|_| ProxyError::LineMalformed)?;
    let header = parse_line(line).ok_or(ProxyError::LineMalformed)?;
    Ok(Some((header, end + 2)))
}

/// What follows `PROXY `.
fn parse_line(line: &str) -> Option<ProxyHeader> {
    if line.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
        return None;
    }
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(ProxyHeader::Proxied(None)); // the rest of the line is to be ignored
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(ProxyHeader::Proxied(Some(Route {
        source: (source, source_port).into(),
        destination: (destination, destination_port).into(),
    })))
}

/// Decimal, without a sign or leading zeroes.
fn port(text: &str) -> Option<u16> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok())?
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    match begins(bytes, V2_BEGIN) {
        None => return Ok(None),
        Some(false) => return Err(ProxyError::NoHeader),
        Some(true) => {}
    }
    // Each byte is judged as soon as it is there.
    let is_local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(other) if other >> 4 == 2 => return Err(ProxyError::CommandUnknown),
        Some(_) => return Err(ProxyError::VersionUnknown),
    };
    let addresses_len = match bytes.get(13) {
        None => return Ok(None),
        Some(_) if is_local => 0, // whatever it says is to be ignored
        Some(0x00) => 0,          // unspecified
        Some(0x11) => 12,         // TCP over IPv4
        Some(0x21) => 36,         // TCP over IPv6
        Some(0x31) => 216,        // a Unix stream
        Some(_) => return Err(ProxyError::FamilyUnknown),
    };
    let Some(length) = bytes.get(14..V2_FIXED_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let len = V2_FIXED_BYTES + length;
    if len > V2_BYTES_MAX || length < addresses_len {
        return Err(ProxyError::LengthInvalid);
    }
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    let addresses = &header[V2_FIXED_BYTES..];
    if is_local {
        return Ok(Some((ProxyHeader::Local, len)));
    }
    check_tlvs(header, V2_FIXED_BYTES + addresses_len, bytes[13] == 0x00)?;
    let route = match addresses_len {
        12 => Some(Route {
            source: (array::<4>(addresses, 0), number(addresses, 8)).into(),
            destination: (array::<4>(addresses, 4), number(addresses, 10)).into(),
        }),
        36 => Some(Route {
            source: (array::<16>(addresses, 0), number(addresses, 32)).into(),
            destination: (array::<16>(addresses, 16), number(addresses, 34)).into(),
        }),
        _ => None,
    };
    Ok(Some((ProxyHeader::Proxied(route), len)))
}

/// `N` bytes that were checked to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of this length")
}

fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

/// Checks what follows the addresses (section 2.2.1 and later): types, lengths, values, and over it
/// all perhaps a checksum. An unspecified family says nothing about what follows, TLVs or not.
fn check_tlvs(header: &[u8], begin: usize, is_unspecified: bool) -> Result<(), ProxyError> {
    const CRC32C: u8 = 0x03;
    let mut at = begin;
    while at < header.len() && !is_unspecified {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else {
            return Err(ProxyError::TlvMalformed);
        };
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes([high, low]));
        if end > header.len() || (kind == CRC32C && end - value != 4) {
            return Err(ProxyError::TlvMalformed);
        }
        if kind == CRC32C {
            let claimed = u32::from_be_bytes(array(header, value));
            let zeroed = header[..value].iter().chain(&[0; 4]).chain(&header[end..]);
            if crc32c(zeroed) != claimed {
                return Err(ProxyError::ChecksumWrong);
            }
        }
        at = end;
    }
    Ok(())
}

/// The CRC of Castagnoli (RFC 9260 appendix A), bit by bit: once a connection, on some bytes.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let carry = crc & 1;
            (crc >> 1) ^ (0x82f6_3b78 * carry)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&V2_BEGIN[..], &[command, family], &length, rest].concat()
    }

    const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];

    fn route(source: &str, destination: &str) -> ProxyHeader {
        let route =
            Route { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
        ProxyHeader::Proxied(Some(route))
    }

    /// Headers that are right, and what they say.
    fn right() -> Vec<(Vec<u8>, ProxyHeader)> {
        let v4 = route("192.0.2.1:56324", "198.51.100.1:443");
        let mut tcp6 = [0; 36];
        (tcp6[15], tcp6[31], tcp6[33], tcp6[35]) = (1, 2, 80, 81);
        let mut checked = v2(0x21, 0x11, &[&TCP4[..], &[3, 0, 4, 0, 0, 0, 0]].concat());
        let crc = crc32c(checked.iter()).to_be_bytes();
        let at = checked.len() - 4;
        checked[at..].copy_from_slice(&crc);
        vec![
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), v4),
            (
                b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n".to_vec(),
                route("[2001:db8::1]:1", "[::1]:65535"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), ProxyHeader::Proxied(None)),
            (b"PROXY UNKNOWN ffff:f a b 0 0\r\n".to_vec(), ProxyHeader::Proxied(None)),
            (v2(0x21, 0x11, &TCP4), v4),
            (v2(0x21, 0x11, &[&TCP4[..], &[1, 0, 2, b'h', b'2', 4, 0, 0]].concat()), v4),
            (checked, v4),
            (v2(0x21, 0x21, &tcp6), route("[::1]:80", "[::2]:81")),
            (v2(0x21, 0x31, &[0; 216]), ProxyHeader::Proxied(None)),
            (v2(0x21, 0x00, &[1, 2, 3]), ProxyHeader::Proxied(None)),
            (v2(0x20, 0x00, &[]), ProxyHeader::Local),
            (v2(0x20, 0x11, &TCP4), ProxyHeader::Local),
        ]
    }

    #[test]
    fn a_right_header_is_understood_at_every_split_point() {
        for (bytes, header) in right() {
            for cut in 0..bytes.len() {
                assert_eq!(parse_proxy_header(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
            }
            let with_more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse_proxy_header(&with_more), Ok(Some((header, bytes.len()))));
        }
    }

    #[test]
    fn a_wrong_header_is_refused_with_its_name_and_never_taken_for_a_part_of_a_right_one() {
        use ProxyError::{
            ChecksumWrong, CommandUnknown, FamilyUnknown, LengthInvalid, LineMalformed,
            LineTooLong, NoHeader, TlvMalformed, VersionUnknown,
        };
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat();
        let bad_crc = v2(0x21, 0x11, &[&TCP4[..], &[3, 0, 4, 1, 2, 3, 4]].concat());
        for (bytes, error) in [
            (&b"GET / HTTP/1.1\r\n"[..], NoHeader),
            (b"POST / HTTP/1.1\r\n", NoHeader),
            (b"PROXYTCP4 ", NoHeader),
            (b"proxy TCP4 ", NoHeader),
            (b"\r\nGET / ", NoHeader),
            (b"\r\n\r\n\0\r\nQUIT\r", NoHeader),
            (&long, LineTooLong),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n", LineMalformed),
            (b"PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n", LineMalformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n", LineMalformed),
            (b"PROXY TCP4 192.0.2.01 198.51.100.1 56324 443\r\n", LineMalformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n", LineMalformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n", LineMalformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n", LineMalformed),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", LineMalformed),
            (b"PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n", LineMalformed),
            (b"PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n", LineMalformed),
            (b"PROXY UNKNOWN\n", LineMalformed),
            (b"PROXY UNKNOWN\rx", LineMalformed),
            (b"PROXY UNKNOWN \xff\r\n", LineMalformed),
            (&v2(0x11, 0x11, &TCP4), VersionUnknown),
            (&v2(0x22, 0x11, &TCP4), CommandUnknown),
            (&v2(0x21, 0x12, &TCP4), FamilyUnknown),
            (&v2(0x21, 0x41, &TCP4), FamilyUnknown),
            (&v2(0x21, 0x11, &TCP4[..11]), LengthInvalid),
            (&v2(0x21, 0x11, &[0; V2_BYTES_MAX]), LengthInvalid),
            (&v2(0x21, 0x11, &[&TCP4[..], &[1, 0]].concat()), TlvMalformed),
            (&v2(0x21, 0x11, &[&TCP4[..], &[1, 0, 3, 0, 0]].concat()), TlvMalformed),
            (&v2(0x21, 0x11, &[&TCP4[..], &[3, 0, 3, 0, 0, 0]].concat()), TlvMalformed),
            (&bad_crc, ChecksumWrong),
        ] {
            assert_eq!(parse_proxy_header(bytes), Err(error), "{bytes:?}");
            for cut in 0..bytes.len() {
                let part = parse_proxy_header(&bytes[..cut]);
                assert!(part == Ok(None) || part == Err(error), "{cut} of {bytes:?}: {part:?}");
            }
        }
    }

    #[test]
    fn the_checksum_is_castagnoli_s() {
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn whatever_comes_it_is_bounded_and_more_of_it_changes_no_verdict(
            begin in 0..14_usize,
            noise in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let right = right();
            let begin = right.get(begin).map_or(&b""[..], |(bytes, _)| &bytes[..bytes.len() / 2]);
            let bytes = [begin, &noise].concat();
            let mut verdict = None;
            for cut in 0..=bytes.len() {
                let now = parse_proxy_header(&bytes[..cut]);
                match verdict {
                    None if now != Ok(None) => verdict = Some(now),
                    None => {}
                    Some(before) => prop_assert_eq!(now, before),
                }
            }
        }
    }
}
