//! What holds for any bytes at all.

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{Framing, Head, Version, fault, is_field_name, is_field_value};
use super::pieces::parse_in_pieces;
use super::{ACCEPTED, Field, parse};

/// One way to spoil a head.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    /// A line of one head, put before a line of another.
    Splice(Index, Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(&b"\r\n\r\n\r\n :;,?#/*[]@\t\0\x7f\x8009aAhHtTeE"[..]),
    ];
    prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        (any::<Index>(), byte).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::Remove),
        any::<(Index, Index, Index)>().prop_map(|(a, b, c)| Mutation::Splice(a, b, c)),
    ]
}

fn mutated_head() -> impl Strategy<Value = Vec<u8>> {
    let mutations = prop::collection::vec(mutation(), 0..4);
    (prop::sample::select(ACCEPTED), mutations).prop_map(|(head, mutations)| {
        let mut bytes = head.to_vec();
        for mutation in mutations {
            mutation.apply(&mut bytes);
        }
        bytes
    })
}

impl Mutation {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), byte),
            Self::Replace(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            Self::Remove(at) if !bytes.is_empty() => drop(bytes.remove(at.index(bytes.len()))),
            Self::Splice(head, from, to) => {
                let lines: Vec<_> =
                    head.get(ACCEPTED).split_inclusive(|&byte| byte == b'\n').collect();
                let line = from.get(&lines).to_vec();
                let line_starts: Vec<_> =
                    (0..=bytes.len()).filter(|&at| at == 0 || bytes[at - 1] == b'\n').collect();
                let at = *to.get(&line_starts);
                bytes.splice(at..at, line);
            }
            Self::Replace(..) | Self::Remove(..) => {}
        }
    }
}

/// Checks an accepted head against the plainest reading of its bytes.
fn check_sound(bytes: &[u8], head: &Head, fields: &[Field]) {
    let text = &bytes[..head.len];
    assert!(text.ends_with(b"\r\n\r\n"));
    for (at, &byte) in text.iter().enumerate() {
        assert_eq!(byte == b'\n', at > 0 && text[at - 1] == b'\r', "CR and LF come in pairs");
        assert!(byte >= b' ' || b"\r\n\t".contains(&byte), "control byte {byte:#x}");
    }

    let mut rebuilt = text[..head.method_text.start()].to_vec();
    assert!(matches!(rebuilt.as_slice(), b"" | b"\r\n" | b"\r\n\r\n"));
    let minor: &[u8] = if head.version == Version::Http11 { b"1" } else { b"0" };
    let line = [head.method_text.of(text), b" ", head.target.of(text), b" HTTP/1.", minor].concat();
    rebuilt.extend_from_slice(&line);
    for field in fields {
        let (name, value) = (field.name.of(text), field.value.of(text));
        assert!(is_field_name(name) && is_field_value(value) && value == value.trim_ascii());
        let gap = [b"\r\n", &text[field.name.start()..field.value.end()]].concat();
        rebuilt.extend_from_slice(&gap);
        let end = text[field.value.end()..].iter().position(|&byte| byte == b'\r').unwrap();
        rebuilt.extend_from_slice(&text[field.value.end()..][..end]);
        let colon = &text[field.name.end()..field.value.start()];
        assert!(colon.starts_with(b":") && colon[1..].trim_ascii().is_empty());
    }
    rebuilt.extend_from_slice(b"\r\n\r\n");
    assert_eq!(rebuilt, text, "every byte belongs to the request line or to a field");

    let values = |name: &str| -> Vec<&[u8]> {
        let is_named = |field: &&Field| field.name.of(text).eq_ignore_ascii_case(name.as_bytes());
        fields.iter().filter(is_named).map(|field| field.value.of(text)).collect()
    };
    assert!(values("host").len() == 1 || head.version == Version::Http10);
    match (values("content-length").as_slice(), values("transfer-encoding").as_slice()) {
        ([], []) => assert_eq!(head.framing, Framing::None),
        ([digits], []) => {
            let length = str::from_utf8(digits).unwrap().parse().unwrap();
            assert_eq!(head.framing, Framing::Length(length));
        }
        ([], [codings]) => {
            assert!(codings.eq_ignore_ascii_case(b"chunked"));
            assert_eq!((head.framing, head.version), (Framing::Chunked, Version::Http11));
        }
        both => panic!("accepted {both:?}"),
    }
}

/// Checks all that must hold of any bytes, cut anywhere.
fn check(bytes: &[u8], cuts: &[Index]) {
    let whole = parse_in_pieces(bytes, [bytes.len()]);
    if let Ok(Some((head, fields))) = &whole {
        check_sound(bytes, head, fields);
        assert_eq!(parse(bytes), whole);
    }
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    if whole.is_ok() {
        assert_eq!(parse_in_pieces(bytes, cuts), whole);
    } else {
        // Cuts may delay a refusal until the head's end, and show another one of two faults.
        cuts.push(bytes.len() + 4);
        let ended = [bytes, b"\r\n\r\n"].concat();
        assert!(parse_in_pieces(&ended, cuts).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes(bytes: Vec<u8>, cuts: [Index; 3]) {
        check(&bytes, &cuts);
    }

    #[test]
    fn spoiled_heads(bytes in mutated_head(), cuts: [Index; 3]) {
        check(&bytes, &cuts);
    }

    #[test]
    fn whatever_httparse_refuses_has_a_name(bytes in mutated_head()) {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let start = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        if httparse::Request::new(&mut headers).parse(&bytes[start..]).is_err() {
            prop_assert!(fault::first_fault(&bytes[start..]).is_some());
        }
    }
}
