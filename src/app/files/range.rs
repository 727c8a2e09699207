//! Byte ranges (RFC 9110 section 14): which bytes a Range field asks for. Knows no files.

use std::ops::Range;

/// Ranges that a field may have. Whoever asks for more gets the whole.
const RANGES_MAX: usize = 64;

/// Two ranges with a smaller gap are one: the head of a part takes about as much.
const GAP_BYTES_MAX: u64 = 80;

/// What a Range field asks of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ranges {
    /// The whole: the field is malformed, of another unit, or excessive, and thus ignored.
    Whole,
    /// These bytes, none of the ranges empty, no two of them overlapping: at least one.
    Parts(Vec<Range<u64>>),
    /// Nothing that there is (416).
    Unsatisfiable,
}

/// What `field`, the value of Range, asks of a file of `length` bytes.
///
/// Ranges stay in the order of the field, unless some overlap or nearly touch: then all are
/// sorted and these are joined (RFC 9110 section 14.2 has both). A field that isn't valid is
/// ignored as a whole.
pub(crate) fn parse(field: &[u8], length: u64) -> Ranges {
    let Some(set) = field
        .split_at_checked(6)
        .filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))
        .map(|(_, set)| set)
    else {
        return Ranges::Whole;
    };
    let mut parts: Vec<Range<u64>> = Vec::new();
    let mut count = 0;
    for spec in set.split(|byte| *byte == b',').map(trim) {
        if spec.is_empty() {
            continue; // RFC 9110 section 5.6.1.2
        }
        count += 1;
        match parse_spec(spec, length) {
            Some(range) if count <= RANGES_MAX => {
                if !range.is_empty() {
                    parts.push(range);
                }
            }
            _ => return Ranges::Whole,
        }
    }
    if count == 0 {
        return Ranges::Whole;
    }
    if parts.is_empty() {
        // The last bytes of nothing are nothing, which no Content-Range can say.
        let is_suffix = length == 0 && set.split(|byte| *byte == b',').map(trim).any(is_last_bytes);
        return if is_suffix { Ranges::Whole } else { Ranges::Unsatisfiable };
    }
    Ranges::Parts(join(parts))
}

/// Whether the spec asks for some last bytes: `-5`, and not `-0`.
fn is_last_bytes(spec: &[u8]) -> bool {
    spec.strip_prefix(b"-").and_then(number).is_some_and(|count| count > 0)
}

/// The bytes of `first-last`, `first-` or `-count`; an empty range where there are none.
fn parse_spec(spec: &[u8], length: u64) -> Option<Range<u64>> {
    let dash = memchr::memchr(b'-', spec)?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    match (first, last) {
        ([], count) => Some(length.saturating_sub(number(count)?)..length),
        (first, []) => Some(number(first)?.min(length)..length),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None; // RFC 9110 section 14.1.1
            }
            Some(first.min(length)..last.saturating_add(1).min(length))
        }
    }
}

/// Digits alone. More than there can be is as much as there can be.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

fn trim(text: &[u8]) -> &[u8] {
    let is_ows = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = text.iter().position(|byte| !is_ows(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_ows(byte)).map_or(begin, |at| at + 1);
    &text[begin..end]
}

fn join(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    let are_apart = |pair: &[Range<u64>]| pair[1].start > pair[0].end.saturating_add(GAP_BYTES_MAX);
    if sorted.windows(2).all(are_apart) {
        return parts;
    }
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for part in sorted {
        match joined.last_mut() {
            Some(last) if part.start <= last.end.saturating_add(GAP_BYTES_MAX) => {
                last.end = last.end.max(part.end);
            }
            _ => joined.push(part),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(field: &str, length: u64) -> Vec<(u64, u64)> {
        match parse(field.as_bytes(), length) {
            Ranges::Parts(parts) => parts.iter().map(|part| (part.start, part.end)).collect(),
            other => panic!("{field}: {other:?}"),
        }
    }

    #[test]
    fn ranges_are_those_of_the_rfc() {
        // RFC 9110 section 14.1.2, of a representation of 10,000 bytes.
        assert_eq!(parts("bytes=0-499", 10_000), [(0, 500)]);
        assert_eq!(parts("bytes=500-999", 10_000), [(500, 1000)]);
        assert_eq!(parts("bytes=-500", 10_000), [(9_500, 10_000)]);
        assert_eq!(parts("bytes=9500-", 10_000), [(9_500, 10_000)]);
        assert_eq!(parts("bytes=0-0,-1", 10_000), [(0, 1), (9_999, 10_000)]);
        assert_eq!(parts("bytes= 0-999, 4500-5499, -1000", 10_000).len(), 3);
        assert_eq!(parts("bytes=500-600,601-999", 10_000), [(500, 1000)]);
        assert_eq!(parts("bytes=500-700,601-999", 10_000), [(500, 1000)]);
        assert_eq!(parts("BYTES=0-0", 1), [(0, 1)]);
        assert_eq!(parts("bytes=,0-0,,", 1), [(0, 1)]);
        assert_eq!(parts("bytes=0-99999999999999999999999", 5), [(0, 5)]);
        assert_eq!(parts("bytes=-99999999999999999999999", 5), [(0, 5)]);
        assert_eq!(parts("bytes=9-9,0-0", 1000), [(0, 10)], "they nearly touch");
        assert_eq!(parts("bytes=900-909,0-9", 1000), [(900, 910), (0, 10)], "in that order");
        assert_eq!(parts("bytes=0-0,5000-", 1000), [(0, 1)], "one that isn't there is left out");
    }

    #[test]
    fn what_is_not_there_is_unsatisfiable() {
        for (field, length) in [
            ("bytes=5-", 5),
            ("bytes=5-9,7-8", 5),
            ("bytes=-0", 5),
            ("bytes=0-", 0),
            ("bytes=-0", 0),
        ] {
            assert_eq!(parse(field.as_bytes(), length), Ranges::Unsatisfiable, "{field}");
        }
        assert_eq!(parse(b"bytes=-5", 0), Ranges::Whole);
    }

    #[test]
    fn what_is_no_range_is_ignored() {
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1-0",
            "bytes=0-1,x",
            "bytes=0--1",
            "bytes=+1-2",
            "bytes=1 - 2",
            "bytes=0x1-2",
            "items=0-1",
            "bytes 0-1",
            "bytes=0-1-2",
            "bytes=--5",
        ] {
            assert_eq!(parse(field.as_bytes(), 100), Ranges::Whole, "{field}");
        }
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!(parts(&many(RANGES_MAX), 10), [(0, 1)]);
        assert_eq!(parse(many(RANGES_MAX + 1).as_bytes(), 10), Ranges::Whole);
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_file_and_apart(field in "(bytes=)?[-0-9, x]{0,40}", length in 0_u64..2000) {
            check(field.as_bytes(), length);
        }

        #[test]
        fn any_bytes_are_answered(field in proptest::collection::vec(any::<u8>(), 0..60), length: u64) {
            check(&field, length);
            check(&[b"bytes=".as_slice(), &field].concat(), length);
        }

        #[test]
        fn every_byte_asked_for_is_in_a_part(
            specs in proptest::collection::vec((0_u64..500, 0_u64..100), 1..20),
            length in 1_u64..600,
        ) {
            let texts: Vec<String> =
                specs.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let parsed = parse(format!("bytes={}", texts.join(",")).as_bytes(), length);
            let parts = match parsed {
                Ranges::Parts(parts) => parts,
                Ranges::Unsatisfiable => Vec::new(),
                Ranges::Whole => panic!("it is valid"),
            };
            for (first, more) in specs {
                for byte in (first..=first + more).take_while(|byte| *byte < length) {
                    prop_assert!(parts.iter().any(|part| part.contains(&byte)), "{byte}");
                }
            }
        }
    }

    fn check(field: &[u8], length: u64) {
        let Ranges::Parts(parts) = parse(field, length) else { return };
        assert!(!parts.is_empty() && parts.len() <= RANGES_MAX);
        assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
        let mut sorted = parts.clone();
        sorted.sort_by_key(|part| part.start);
        assert!(sorted.windows(2).all(|pair| pair[0].end < pair[1].start));
        let total: u64 = parts.iter().map(|part| part.end - part.start).sum();
        assert!(total <= length, "never more than the file");
    }
}
