//! Request heads: whole or in pieces they mean the same, and what is accepted keeps its promises.

#![no_main]

use libfuzzer_sys::fuzz_target;
use uring_pool::proto::h1::{HeadLimits, HeadParser, Version, parse_head};

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let limits = HeadLimits { head_bytes_max: 2048, target_bytes_max: 256, fields_max: 16 };
    let mut fields = Vec::new();
    let whole = parse_head(bytes, &limits, &mut fields);

    let step = usize::from(step).max(1);
    let (mut parser, mut piecewise, mut in_pieces) = (HeadParser::default(), Vec::new(), Ok(None));
    for end in (0..=bytes.len()).step_by(step).chain([bytes.len()]) {
        in_pieces = parser.parse(&bytes[..end], &limits, &mut piecewise);
        if !matches!(in_pieces, Ok(None)) {
            break;
        }
    }
    match (&whole, &in_pieces) {
        // When a fault is seen, and which limit is exceeded first, depends on what has arrived.
        (Err(_) | Ok(None), Err(_) | Ok(None)) => {}
        _ => assert_eq!(whole, in_pieces),
    }
    let Ok(Some(head)) = whole else { return };
    assert_eq!(fields, piecewise);

    assert!(head.len <= bytes.len() && bytes[..head.len].ends_with(b"\r\n\r\n"));
    let target = head.target.of(bytes);
    assert!(target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
    assert!(head.version == Version::Http10 || head.host.is_some());
    for field in &fields {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        assert!(!name.is_empty() && !name.contains(&b':') && name.is_ascii());
        assert!(value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)));
        assert_eq!(value, value.trim_ascii());
    }
    let count = |name: &str| {
        let is_name = |field: &&_| -> bool {
            let field: &uring_pool::proto::h1::Field = field;
            field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes())
        };
        fields.iter().filter(is_name).count()
    };
    assert!(count("host") <= 1);
    assert!(count("content-length") + count("transfer-encoding") <= 1);
});
