//! Content codings, and which one a client wants (RFC 9110 section 12.5.3). Compresses nothing.

use std::fmt;

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coding {
    /// Brotli, RFC 7932.
    Brotli,
    /// Zstandard, RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// From the one that is preferred to the one that is understood by most.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// As Content-Encoding spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What the name of a file has at its end that was compressed so.
    pub const fn extension(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }

    fn is_named(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name().as_bytes())
            || (self == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Coding {
    type Err = UnknownCoding;

    fn from_str(name: &str) -> Result<Coding, UnknownCoding> {
        let known = Coding::ALL.into_iter().find(|coding| coding.name() == name);
        known.ok_or_else(|| UnknownCoding(name.to_owned()))
    }
}

/// A name that is no [`Coding`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownCoding(String);

impl fmt::Display for UnknownCoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no content coding: use br, zstd or gzip", self.0)
    }
}

impl std::error::Error for UnknownCoding {}

/// Which of the `offered` codings the values of Accept-Encoding want most: the one of the greatest
/// weight, of several such the first that is offered. None when the client would rather have it
/// plain, or says nothing at all.
pub(crate) fn negotiate<'a>(
    values: &(impl Iterator<Item = &'a [u8]> + Clone),
    offered: impl IntoIterator<Item = Coding>,
) -> Option<Coding> {
    let members = || values.clone().flat_map(|value| value.split(|byte| *byte == b','));
    let weight_of = |is_meant: &dyn Fn(&[u8]) -> bool| {
        let weights = members().filter_map(weighted).filter(|(name, _)| is_meant(name));
        weights.map(|(_, weight)| weight).last()
    };
    let any = weight_of(&|name| name == b"*");
    let mut best = None;
    // Without a word about it, plain is as good as nothing: whoever accepts a coding wants it.
    let mut most =
        weight_of(&|name| name.eq_ignore_ascii_case(b"identity")).unwrap_or(0).max(1) - 1;
    for coding in offered {
        let weight = weight_of(&|name| coding.is_named(name)).or(any).unwrap_or(0);
        if weight > most {
            (best, most) = (Some(coding), weight);
        }
    }
    best
}

/// The name and the weight in thousandths of a member such as `gzip;q=0.5`; none of what isn't one.
fn weighted(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.splitn(2, |byte| *byte == b';');
    let name = parts.next()?.trim_ascii();
    let Some(parameter) = parts.next() else { return Some((name, 1000)) };
    let [b'q' | b'Q', b'=', weight @ ..] = parameter.trim_ascii() else { return None };
    let (one, digits) = match weight {
        [b'0'] | [b'0', b'.'] => return Some((name, 0)),
        [b'1'] | [b'1', b'.'] => return Some((name, 1000)),
        [b'0', b'.', digits @ ..] => (false, digits),
        [b'1', b'.', digits @ ..] => (true, digits),
        _ => return None,
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| digits.get(at).map_or(0, |digit| u16::from(digit - b'0'));
    let thousandths = digit(0) * 100 + digit(1) * 10 + digit(2);
    match (one, thousandths) {
        (true, 0) => Some((name, 1000)),
        (true, _) => None,
        (false, weight) => Some((name, weight)),
    }
}

#[cfg(test)]
mod tests {
    use super::Coding::{Brotli, Gzip, Zstd};
    use super::*;

    fn chosen(values: &[&str]) -> Option<Coding> {
        negotiate(&values.iter().map(|value| value.as_bytes()), Coding::ALL)
    }

    #[test]
    fn the_greatest_weight_wins_then_our_order() {
        for (value, coding) in [
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip, deflate, zstd", Some(Zstd)),
            ("gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("GZIP", Some(Gzip)),
            ("gzip;q=1.0, br;q=0.5", Some(Gzip)),
            ("gzip;q=0.001", Some(Gzip)),
            ("gzip; q=0.5 , zstd ;q=0.6", Some(Zstd)),
            ("gzip;q=0", None),
            ("gzip;q=0.000, br;q=0.", None),
            ("*", Some(Brotli)),
            ("*;q=0", None),
            ("br;q=0, *", Some(Zstd)),
            ("gzip, *;q=0", Some(Gzip)),
            ("identity", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity;q=0, gzip;q=0.1", Some(Gzip)),
            ("deflate", None),
            ("", None),
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip;level=5", None),
            ("gzip;q=-1", None),
            ("gzip;q=1.001", None),
        ] {
            assert_eq!(chosen(&[value]), coding, "{value}");
        }
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&["gzip;q=0.1", "zstd;q=0.2"]), Some(Zstd), "two lines are one list");
        let offered = [Gzip, Brotli];
        assert_eq!(negotiate(&[b"br, gzip".as_slice()].into_iter(), offered), Some(Gzip));
    }

    #[test]
    fn names_are_those_of_the_registry() {
        for coding in Coding::ALL {
            assert_eq!(coding.name().parse(), Ok(coding));
        }
        assert!("deflate".parse::<Coding>().unwrap_err().to_string().contains("br, zstd or gzip"));
    }
}
