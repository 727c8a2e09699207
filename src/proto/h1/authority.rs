//! `uri-host [ ":" port ]`, as in Host and in request-targets. Resolves nothing, knows no userinfo.

use std::net::Ipv6Addr;

use super::class::{self, REG_NAME};

/// What an authority says beyond its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// No colon, or nothing behind it.
    Default,
    /// A number up to 65535.
    Given,
}

/// Whether `text` is a host with an optional port, as Host may name it.
pub fn is_authority(text: &[u8]) -> bool {
    parse(text).is_some()
}

/// The port of `text`, which must be a host with an optional port (RFC 3986 section 3.2, and
/// RFC 9110 section 4.2.4 against userinfo), else `None`. Refused though the grammar has them: an
/// empty host, a comma, a port above 65535 or with more than 5 digits, `IPvFuture`.
#[inline]
pub(super) fn parse(text: &[u8]) -> Option<Port> {
    let host_len =
        if text.first() == Some(&b'[') { ip_literal_len(text)? } else { reg_name_len(text) };
    match &text[host_len..] {
        _ if host_len == 0 => None,
        [] | b":" => Some(Port::Default),
        [b':', digits @ ..] if is_port(digits) => Some(Port::Given),
        _ => None,
    }
}

/// Length of the registered name or IPv4 address that `text` begins with.
#[inline]
fn reg_name_len(text: &[u8]) -> usize {
    let mut len = class::run_len(text, REG_NAME);
    while is_percent_encoded(&text[len..]) {
        len += 3;
        len += class::run_len(&text[len..], REG_NAME);
    }
    len
}

#[inline]
fn is_percent_encoded(text: &[u8]) -> bool {
    matches!(text, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

/// Length of the `[…]` that `text` begins with, if an IPv6 address is inside.
#[cold]
fn ip_literal_len(text: &[u8]) -> Option<usize> {
    let close = text.iter().position(|&byte| byte == b']')?;
    let address = str::from_utf8(&text[1..close]).ok()?;
    address.parse::<Ipv6Addr>().ok()?;
    Some(close + 1)
}

/// Whether `digits` are a number up to 65535: of 5 digits, what sorts before it is less.
#[inline]
fn is_port(digits: &[u8]) -> bool {
    let fits = digits.len() < 5 || (digits.len() == 5 && digits <= b"65535".as_slice());
    fits && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_port() {
        for (text, port) in [
            ("a", Port::Default),
            ("example.org", Port::Default),
            ("example.org:", Port::Default),
            ("example.org:80", Port::Given),
            ("example.org:65535", Port::Given),
            ("127.0.0.1:8080", Port::Given),
            ("[::1]", Port::Default),
            ("[2001:db8::1]:443", Port::Given),
            ("[::ffff:1.2.3.4]:1", Port::Given),
            ("under_score.~tilde", Port::Default),
            ("caf%C3%A9.example", Port::Default),
            ("a!$&'()*+;=b", Port::Default),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(port), "{text}");
        }
    }

    #[test]
    fn no_hosts() {
        for text in [
            "",
            ":",
            ":80",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:99999999999",
            "a:-1",
            "a:+1",
            "a: 80",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a@b",
            "user:pass@host",
            "a\\b",
            "a\"b",
            "<a>",
            "caf\u{e9}",
            "%",
            "%4",
            "%4g",
            "[",
            "]",
            "[]",
            "[::1",
            "::1",
            "[::1]]",
            "[::1]80",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "[::g]",
            "a[::1]",
            "[::1]a",
            "[[::1]]",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
