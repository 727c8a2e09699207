//! Heads that come in pieces mean what they mean in one.

use super::super::{Field, Head, HeadError, HeadLimits, HeadParser};
use super::{ACCEPTED, parse};

/// Parses `bytes` of which the first `cuts[0]` are seen first, then the first `cuts[1]`, and so on.
pub(super) fn parse_in_pieces(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Option<(Head, Vec<Field>)>, HeadError> {
    let (mut parser, mut fields) = (HeadParser::default(), Vec::new());
    for cut in cuts {
        if let Some(head) = parser.parse(&bytes[..cut], &HeadLimits::default(), &mut fields)? {
            assert_eq!(parser, HeadParser::default(), "ready for the next head");
            return Ok(Some((head, fields)));
        }
    }
    Ok(None)
}

#[test]
fn every_cut_gives_the_same_head() {
    for bytes in ACCEPTED {
        let whole = parse(bytes);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                assert_eq!(parse_in_pieces(bytes, [first, second, bytes.len()]), whole);
            }
        }
    }
}

#[test]
fn byte_by_byte_gives_the_same_head() {
    for bytes in ACCEPTED {
        assert_eq!(parse_in_pieces(bytes, 0..=bytes.len()), parse(bytes));
        assert_eq!(parse_in_pieces(bytes, 0..bytes.len()), Ok(None), "an end before its last byte");
    }
}

#[test]
fn a_parser_goes_on_with_the_next_head() {
    let (mut parser, mut fields) = (HeadParser::default(), Vec::new());
    let (first, second) = (ACCEPTED[0], ACCEPTED[4]);
    let stream = [first, second].concat();
    let mut begin = 0;
    let mut lens = Vec::new();
    for end in 0..=stream.len() {
        let bytes = &stream[begin..end];
        if let Some(head) = parser.parse(bytes, &HeadLimits::default(), &mut fields).unwrap() {
            begin += head.len;
            lens.push(head.len);
        }
    }
    assert_eq!(lens, [first.len(), second.len()]);
}

/// Feeds byte by byte, and says after how many it was refused.
fn refused_after(bytes: &[u8]) -> (usize, HeadError) {
    let (mut parser, mut fields) = (HeadParser::default(), Vec::new());
    for end in 1..=bytes.len() {
        match parser.parse(&bytes[..end], &HeadLimits::default(), &mut fields) {
            Ok(None) => {}
            Ok(Some(head)) => panic!("accepted: {head:?}"),
            Err(error) => return (end, error),
        }
    }
    panic!("not refused: {:?}", String::from_utf8_lossy(bytes));
}

#[test]
fn garbage_is_refused_before_the_end_of_the_head() {
    use HeadError::*;
    for (bytes, after, error) in [
        (&b"\x16\x03\x01\x02\x00\x01"[..], 1, TlsHandshake),
        (b"\0", 1, MethodInvalid),
        (b" GET", 1, MethodInvalid),
        (b"\nGET", 1, BareLf),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 16, Http2Preface),
        (b"GET / HTTP/1.1\nHost: a", 15, BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\nB: c", 24, BareLf),
        (b"GET /#a HTTP/1.1\r\nHost: a", 18, TargetInvalid),
        (b"GET / HTTP/3.0\r\nHost: a", 16, VersionUnsupported),
        (b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n", 6, EmptyLinesTooMany),
        (&[b'A'; 64], 33, MethodTooLong),
    ] {
        assert_eq!(refused_after(bytes), (after, error), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn heads_without_an_end_are_refused_at_the_limit() {
    let limits = HeadLimits::default();
    let (head_max, target_max) =
        (usize::from(limits.head_bytes_max), usize::from(limits.target_bytes_max));

    let start = b"GET / HTTP/1.1\r\nHost: a\r\nA: ";
    let endless = [&start[..], &vec![b'a'; head_max]].concat();
    assert_eq!(refused_after(&endless), (head_max, HeadError::TooLarge));

    let lines = b"GET / HTTP/1.1\r\n".to_vec();
    let endless = [&lines[..], &b"a: b\r\n".repeat(head_max)].concat();
    assert_eq!(refused_after(&endless), (head_max, HeadError::TooLarge));

    let start = b"GET /".to_vec();
    let endless = [&start[..], &vec![b'a'; head_max]].concat();
    let (after, error) = refused_after(&endless);
    assert_eq!(error, HeadError::TargetTooLong);
    assert!(after <= target_max + "GET  HTTP/1.1\r\n".len(), "{after}");
}
