//! Chunked bodies: every cut, every limit, every fault.

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::ChunkError::{self, *};
use super::super::{ChunkedDecoder, LAST_CHUNK, Step, encode_chunk};

/// What is left of a body that came in pieces ending at `cuts`: its payload, and how long it was.
/// `None` if it didn't end.
fn decode(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
    let (mut decoder, mut payload, mut at) = (ChunkedDecoder::default(), Vec::new(), 0);
    for cut in cuts {
        loop {
            match decoder.decode(&bytes[at..cut])? {
                Step::Data { data, used } => {
                    assert!(!data.is_empty() && bytes[at..at + used].ends_with(data));
                    payload.extend_from_slice(data);
                    at += used;
                }
                Step::More => {
                    assert!(!decoder.is_ended());
                    at = cut;
                    break;
                }
                Step::End { used } => {
                    assert!(decoder.is_ended());
                    assert_eq!(decoder.decode(b"next"), Ok(Step::End { used: 0 }));
                    return Ok(Some((payload, at + used)));
                }
            }
        }
    }
    Ok(None)
}

fn decode_whole(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
    decode(bytes, [bytes.len()])
}

/// Bodies, and their payload.
const BODIES: &[(&[u8], &[u8])] = &[
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\r\nhello\r\n1\r\n \r\n00005\r\nworld\r\n000\r\n\r\n", b"hello world"),
    (b"a\r\n0123456789\r\nA\r\n\r\n0\r\n\r\nabc\r\n0\r\n\r\n", b"0123456789\r\n0\r\n\r\nabc"),
    (b"1;a\r\nx\r\n1;a=b;c=\"d e\xff\"\r\ny\r\n1 \t; a\r\nz\r\n0;a = \"\\\"\" ;b\r\n\r\n", b"xyz"),
    (b"1\r\nx\r\n0\r\nA: b\r\nC-D:\r\nE:\t\xff \r\n\r\n", b"x"),
    (b"0000000000000001\r\nx\r\n0000000000000000\r\n\r\n", b"x"),
];

#[test]
fn every_cut_gives_the_same_payload() {
    for (body, payload) in BODIES {
        let expected = Ok(Some((payload.to_vec(), body.len())));
        let bytes = [body, &b"GET / HTTP/1.1\r\n"[..]].concat();
        assert_eq!(decode_whole(&bytes), expected);
        assert_eq!(decode(&bytes, 0..=bytes.len()), expected);
        assert_eq!(decode(body, 0..body.len()), Ok(None), "an end before the last byte");
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                assert_eq!(decode(&bytes, [first, second, bytes.len()]), expected);
            }
        }
    }
}

#[test]
fn faults_9112_7_1() {
    for (body, error) in [
        (&b"\r\n"[..], SizeInvalid),
        (b"x\r\n", SizeInvalid),
        (b"-1\r\n", SizeInvalid),
        (b"+1\r\n", SizeInvalid),
        (b" 1\r\n", SizeInvalid),
        (b"0x1\r\n", SizeInvalid),
        (b"1_0\r\n", SizeInvalid),
        (b"1 \r\n", ExtensionInvalid),
        (b"1 1\r\n", ExtensionInvalid),
        (b"1;\r\n", ExtensionInvalid),
        (b"1;a;\r\n", ExtensionInvalid),
        (b"1;a=\r\n", ExtensionInvalid),
        (b"1;a=;b\r\n", ExtensionInvalid),
        (b"1;a b\r\n", ExtensionInvalid),
        (b"1;a=b c\r\n", ExtensionInvalid),
        (b"1;a=\"b\r\n", ExtensionInvalid),
        (b"1;a=\"b\\\"\r\n", ExtensionInvalid),
        (b"1;a=\"b\"c\r\n", ExtensionInvalid),
        (b"1;a=b=c\r\n", ExtensionInvalid),
        (b"1;a,b\r\n", ExtensionInvalid),
        (b"1;a \r\n", ExtensionInvalid),
        (b"1,a\r\n", SizeInvalid),
        (b"1\n", SizeInvalid),
        (b";a\r\n", SizeInvalid),
        (b"\0", SizeInvalid),
        (b"10000000000000000\r\n", SizeTooLong),
        (b"00000000000000001\r\n", SizeTooLong),
        (b"1\rx", BareCr),
        (b"1\r\r\n", BareCr),
        (b"1;a\n", ExtensionInvalid),
        (b"1;a\0\r\n", ExtensionInvalid),
        (b"1;\"a\nb\"\r\n", ExtensionInvalid),
        (b"1;a\rb\r\n", BareCr),
        (b"1\r\nxy\r\n", DataTooLong),
        (b"1\r\nx\n", DataTooLong),
        (b"1\r\nx0\r\n", DataTooLong),
        (b"1\r\nx\rx", BareCr),
        (b"1\r\nx\r\n\r\n", SizeInvalid),
        (b"0\r\n\n", TrailerInvalid),
        (b"0\r\n\rx", BareCr),
        (b"0\r\nA: b\n\r\n", TrailerInvalid),
        (b"0\r\nA: b\rc\r\n", BareCr),
        (b"0\r\nA: b\0\r\n", TrailerInvalid),
        (b"0\r\nA : b\r\n", TrailerInvalid),
        (b"0\r\n: b\r\n", TrailerInvalid),
        (b"0\r\nA\r\n", TrailerInvalid),
        (b"0\r\nA: b\r\n c\r\n", TrailerInvalid),
        (b"0\r\n A: b\r\n", TrailerInvalid),
        (b"0\r\nGET / HTTP/1.1\r\n", TrailerInvalid),
    ] {
        let text = String::from_utf8_lossy(body);
        assert_eq!(decode_whole(body), Err(error), "{text:?}");
        assert_eq!(decode(body, 0..=body.len()), Err(error), "{text:?}");
        assert_eq!(error.status(), 400);
    }
}

#[test]
fn the_largest_chunk_is_counted_without_overflow() {
    let mut decoder = ChunkedDecoder::default();
    let input = b"ffffffffffffffff\r\nxyz";
    assert_eq!(decoder.decode(input), Ok(Step::Data { data: b"xyz", used: input.len() }));
    assert_eq!(decoder.decode(b"more"), Ok(Step::Data { data: b"more", used: 4 }));
}

#[test]
fn extensions_have_a_budget_a_line_and_a_body() {
    let chunk = |bytes: usize| format!("1;{}\r\nx\r\n", "a".repeat(bytes - 1)).into_bytes();
    let body = |chunks: &[Vec<u8>]| [&chunks.concat()[..], LAST_CHUNK].concat();
    assert!(decode_whole(&body(&[chunk(1024)])).is_ok());
    assert_eq!(decode_whole(&body(&[chunk(1025)])), Err(ExtensionsTooLarge));
    let spaces = [&b"1"[..], &[b' '; 1025], b";a\r\nx\r\n"].concat();
    assert_eq!(decode_whole(&body(&[spaces])), Err(ExtensionsTooLarge));

    let full = vec![chunk(1024); 16];
    assert!(decode_whole(&body(&full)).is_ok());
    let beyond = [&full[..], &[chunk(1)]].concat();
    assert_eq!(decode_whole(&body(&beyond)), Err(ExtensionsTooLarge));
}

#[test]
fn trailers_have_a_budget_of_lines_and_bytes() {
    let body = |trailers: &str| format!("0\r\n{trailers}\r\n").into_bytes();
    assert!(decode_whole(&body(&"a: b\r\n".repeat(32))).is_ok());
    assert_eq!(decode_whole(&body(&"a: b\r\n".repeat(33))), Err(TrailersTooMany));
    let long = |bytes: usize| format!("a:{}\r\n", "b".repeat(bytes - 3));
    assert!(decode_whole(&body(&long(4096))).is_ok());
    assert_eq!(decode_whole(&body(&long(4097))), Err(TrailersTooLarge));
    assert_eq!(decode_whole(&body(&long(1000).repeat(5))), Err(TrailersTooLarge));
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..10),
        cuts: [Index; 8],
        next: Vec<u8>,
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            encode_chunk(&mut bytes, chunk);
        }
        bytes.extend_from_slice(LAST_CHUNK);
        let body_len = bytes.len();
        bytes.extend_from_slice(&next);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        prop_assert_eq!(decode(&bytes, cuts), Ok(Some((chunks.concat(), body_len))));
    }

    #[test]
    fn any_bytes_cut_anywhere(
        bytes in prop::collection::vec(
            prop::sample::select(&b"\r\n\r\n\r\n01aF; \t:x\0\xff"[..]), 0..40),
        cut: Index,
    ) {
        let cut = cut.index(bytes.len() + 1);
        prop_assert_eq!(decode(&bytes, [cut, bytes.len()]), decode_whole(&bytes));
    }
}
