//! What proxies say about the client behind them: `X-Forwarded-For` and its kin, and `Forwarded`
//! (RFC 7239). Whom to believe is the caller's to say; nothing here is true by itself.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// How many proxies of a chain are followed, from the last one back.
pub const HOPS_MAX: usize = 16;

/// What a chain of trusted proxies says about the client.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Resolved<'a> {
    /// The first address, from the last proxy back, that isn't trusted itself.
    pub address: Option<IpAddr>,
    /// Whether the client came by TLS.
    pub is_https: Option<bool>,
    /// The host that the client asked for. Not checked.
    pub host: Option<&'a str>,
}

/// Follows `X-Forwarded-For`, whose `lines` come in the order of the wire, back from `peer`, which is
/// trusted. Stops at the first address that isn't, or at what is no address.
pub fn follow_x_forwarded_for<'a>(
    peer: Option<IpAddr>,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    is_trusted: impl Fn(Option<IpAddr>) -> bool,
) -> Option<IpAddr> {
    let nodes = lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    let mut address = peer;
    for node in nodes.take(HOPS_MAX) {
        if !is_trusted(address) {
            break;
        }
        match std::str::from_utf8(node).ok().and_then(|text| parse_node(text.trim_ascii())) {
            Some(next) => address = Some(next),
            None => break,
        }
    }
    address
}

/// The last of a list's values, which is the word of the nearest proxy: for `X-Forwarded-Proto` and
/// `X-Forwarded-Host`.
pub fn last_value(line: &[u8]) -> Option<&str> {
    let last = line.rsplit(|byte| *byte == b',').next()?.trim_ascii();
    std::str::from_utf8(last).ok().filter(|text| !text.is_empty())
}

/// Whether a scheme is `https`; `None` when it is neither that nor `http`.
pub fn is_https(scheme: &str) -> Option<bool> {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("https") => Some(true),
        _ if scheme.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    }
}

/// Follows `Forwarded`, as [`follow_x_forwarded_for`] does; a line that isn't well-formed makes
/// nobody believed beyond `peer`. Scheme and host are those of the element that named the client.
pub fn follow_forwarded<'a>(
    peer: Option<IpAddr>,
    lines: impl Iterator<Item = &'a [u8]>,
    is_trusted: impl Fn(Option<IpAddr>) -> bool,
) -> Resolved<'a> {
    let nobody = Resolved { address: peer, ..Resolved::default() };
    // The last elements of the wire, in a ring.
    let (mut elements, mut count) = ([Element::default(); HOPS_MAX], 0);
    for line in lines {
        let Ok(mut rest) = std::str::from_utf8(line) else { return nobody };
        loop {
            let Some((element, behind)) = parse_element(rest) else { return nobody };
            elements[count % HOPS_MAX] = element;
            count += 1;
            match behind {
                Some(behind) => rest = behind,
                None => break,
            }
        }
    }
    let mut resolved = nobody;
    for number in (count.saturating_sub(HOPS_MAX)..count).rev() {
        if !is_trusted(resolved.address) {
            break;
        }
        let Element { node, proto, host } = elements[number % HOPS_MAX];
        (resolved.is_https, resolved.host) = (proto.and_then(is_https), host);
        match node.and_then(parse_node) {
            Some(next) => resolved.address = Some(next),
            None => break,
        }
    }
    resolved
}

/// What one proxy says.
#[derive(Clone, Copy, Default)]
struct Element<'a> {
    node: Option<&'a str>,
    proto: Option<&'a str>,
    host: Option<&'a str>,
}

/// The element that `text` begins with, and what follows its comma. `None` when it is malformed, or
/// says something twice.
fn parse_element(text: &str) -> Option<(Element<'_>, Option<&str>)> {
    let mut element = Element::default();
    let mut rest = text;
    loop {
        rest = rest.trim_ascii_start();
        let name_len = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if name_len > 0 {
            let (name, behind) = rest.split_at(name_len);
            let (value, behind) = parse_value(behind.strip_prefix('=')?)?;
            let place = match name {
                _ if name.eq_ignore_ascii_case("for") => Some(&mut element.node),
                _ if name.eq_ignore_ascii_case("proto") => Some(&mut element.proto),
                _ if name.eq_ignore_ascii_case("host") => Some(&mut element.host),
                _ => None,
            };
            if let Some(place) = place
                && place.replace(value).is_some()
            {
                return None;
            }
            rest = behind;
        }
        rest = rest.trim_ascii_start();
        match rest.bytes().next() {
            None => return Some((element, None)),
            Some(b',') => return Some((element, Some(&rest[1..]))),
            Some(b';') => rest = &rest[1..],
            Some(_) => return None,
        }
    }
}

/// A token, or a quoted string without escapes: no address, scheme or host needs one.
fn parse_value(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, behind) = quoted.split_once('"')?;
        return (!value.contains('\\')).then_some((value, behind));
    }
    let len = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
    (len > 0).then(|| text.split_at(len))
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// An address, with or without a port (RFC 7239 section 6); what is `unknown` or obfuscated is none.
fn parse_node(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().map(Some).expect("an address")
    }

    /// 10.0.0.0/8 is ours.
    fn is_ours(address: Option<IpAddr>) -> bool {
        matches!(address, Some(IpAddr::V4(v4)) if v4.octets()[0] == 10)
    }

    #[test]
    fn a_chain_is_followed_back_to_the_first_stranger_whoever_claims_more() {
        for (lines, client) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1 , 10.0.0.2"], "192.0.2.1"),
            (&["192.0.2.1", "10.0.0.3,10.0.0.2"], "192.0.2.1"),
            (&["10.0.0.3"], "10.0.0.3"),
            (&["192.0.2.1, unknown"], "10.0.0.1"),
            (&["192.0.2.1, "], "10.0.0.1"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["2001:db8::17"], "2001:db8::17"),
            (&["[2001:db8::17]:4711"], "2001:db8::17"),
            (&["[2001:db8::17]"], "2001:db8::17"),
        ] {
            let lines = lines.iter().map(|line| line.as_bytes());
            assert_eq!(follow_x_forwarded_for(ip("10.0.0.1"), lines, is_ours), ip(client));
        }
        let lines = [&b"192.0.2.1"[..]];
        let stranger = follow_x_forwarded_for(ip("9.9.9.9"), lines.into_iter(), is_ours);
        assert_eq!(stranger, ip("9.9.9.9"));
        let endless = "10.0.0.1,".repeat(1000) + "10.0.0.2";
        let lines = [endless.as_bytes()].into_iter();
        assert_eq!(follow_x_forwarded_for(ip("10.0.0.1"), lines, is_ours), ip("10.0.0.1"));
    }

    #[test]
    fn forwarded_is_read_by_its_grammar_or_not_at_all() {
        let peer = "10.0.0.1";
        for (lines, client, secure, host) in [
            (&[][..], peer, None, None),
            (&["for=192.0.2.43"], "192.0.2.43", None, None),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17", None, None),
            (
                &["for=192.0.2.60;proto=HTTPS;by=203.0.113.43;host=a.example"],
                "192.0.2.60",
                Some(true),
                Some("a.example"),
            ),
            (&["for=192.0.2.43, for=10.0.0.9;proto=http"], "192.0.2.43", None, None),
            (
                &["for=6.6.6.6;proto=https, for=192.0.2.1;proto=http"],
                "192.0.2.1",
                Some(false),
                None,
            ),
            (&["for=192.0.2.43;proto=https", "for=10.0.0.9"], "192.0.2.43", Some(true), None),
            (&["for=unknown;proto=https"], peer, Some(true), None),
            (&["for=_hidden"], peer, None, None),
            (&["host=\"a.example:80\""], peer, None, Some("a.example:80")),
            (&["for=192.0.2.43;for=192.0.2.44"], peer, None, None),
            (&["for=\"192.0.2.43"], peer, None, None),
            (&["for"], peer, None, None),
            (&["for =192.0.2.43"], peer, None, None),
            (&["for=192.0.2.43 x"], peer, None, None),
            (&["for=\"192.0.2.4\\3\""], peer, None, None),
        ] {
            let lines_of = lines.iter().map(|line| line.as_bytes());
            let resolved = follow_forwarded(ip(peer), lines_of, is_ours);
            let expected = Resolved { address: ip(client), is_https: secure, host };
            assert_eq!(resolved, expected, "{lines:?}");
        }
    }

    #[test]
    fn the_nearest_proxy_has_the_last_word() {
        assert_eq!(last_value(b"http, https "), Some("https"));
        assert_eq!(last_value(b"a.example"), Some("a.example"));
        assert_eq!((last_value(b"https,"), last_value(b"\xff")), (None, None));
        assert_eq!(
            (is_https("HTTPS"), is_https("http"), is_https("ftp")),
            (Some(true), Some(false), None)
        );
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_writes_makes_it_somebody_else(
            noise in "[-0-9a-fForpt=;,.:\\[\\]\" ]{0,80}",
        ) {
            // The proxy at 10.0.0.1 has added the client's true address behind the noise.
            let line = format!("{noise}, 192.0.2.1");
            let lines = [line.as_bytes()].into_iter();
            prop_assert_eq!(follow_x_forwarded_for(ip("10.0.0.1"), lines, is_ours), ip("192.0.2.1"));
            let line = format!("{noise}, for=192.0.2.1");
            let found = follow_forwarded(ip("10.0.0.1"), [line.as_bytes()].into_iter(), is_ours);
            // An open quote swallows the proxy's own words: then nobody is believed.
            prop_assert!([ip("192.0.2.1"), ip("10.0.0.1")].contains(&found.address));
        }
    }
}
