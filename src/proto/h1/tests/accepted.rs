//! What an accepted head says.

use super::super::{
    FIELDS_MAX, Framing, HeadError, HeadLimits, Method, TargetForm, Version, parse_head,
};
use super::{ACCEPTED, head_of, parse};

/// The head of a GET with Host and these field lines.
#[track_caller]
fn with(version: &str, lines: &str) -> super::Head {
    head_of(&format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"))
}

#[test]
fn a_head_ends_where_its_bytes_do_whatever_follows() {
    for head in ACCEPTED {
        let (parsed, fields) = parse(head).unwrap().unwrap();
        assert_eq!(parsed.len, head.len());
        let followed = [head, &b"GET /next HTTP/1.1\r\n"[..]].concat();
        assert_eq!(parse(&followed).unwrap().unwrap(), (parsed, fields));
    }
}

#[test]
fn methods() {
    for (text, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("TRACE", Method::Trace),
        ("PATCH", Method::Patch),
        ("get", Method::Extension),
        ("GETS", Method::Extension),
        ("PROPFIND", Method::Extension),
        ("!#$%&'*+-.^_`|~09azAZ", Method::Extension),
        ("A23456789012345678901234567890ab", Method::Extension),
    ] {
        let bytes = format!("{text} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = head_of(&bytes);
        assert_eq!(head.method, method);
        assert_eq!(head.method_text.of(bytes.as_bytes()), text.as_bytes());
    }
}

#[test]
fn targets() {
    let (origin, absolute) = (TargetForm::Origin, TargetForm::Absolute);
    for (line, form, path, query, host) in [
        ("GET /", origin, "/", None, "h"),
        ("GET /a/../b;c=%00", origin, "/a/../b;c=%00", None, "h"),
        ("GET /a?", origin, "/a", Some(""), "h"),
        ("GET /a?b?c=/d", origin, "/a", Some("b?c=/d"), "h"),
        ("GET //x", origin, "//x", None, "h"),
        ("OPTIONS /a", origin, "/a", None, "h"),
        ("GET http://a", absolute, "/", None, "a"),
        ("GET http://a/", absolute, "/", None, "a"),
        ("GET http://a?b", absolute, "/", Some("b"), "a"),
        ("GET http://a/b?c/d?e", absolute, "/b", Some("c/d?e"), "a"),
        ("GET HTTPS://a:1/b", absolute, "/b", None, "a:1"),
        ("GET http://[::1]:80/b", absolute, "/b", None, "[::1]:80"),
        ("OPTIONS http://a", absolute, "/", None, "a"),
        ("OPTIONS *", TargetForm::Asterisk, "*", None, "h"),
        ("CONNECT a:443", TargetForm::Authority, "", None, "a:443"),
        ("CONNECT [::1]:443", TargetForm::Authority, "", None, "[::1]:443"),
    ] {
        let text = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        let (bytes, head) = (text.as_bytes(), head_of(&text));
        assert_eq!(head.target.of(bytes), line.split_once(' ').unwrap().1.as_bytes());
        assert_eq!(head.target_form, form, "{line}");
        assert_eq!(head.path.of(bytes), path.as_bytes(), "{line}");
        assert_eq!(head.query.map(|span| span.of(bytes)), query.map(str::as_bytes), "{line}");
        assert_eq!(head.host.unwrap().of(bytes), host.as_bytes(), "{line}");
    }
}

#[test]
fn only_http_1_0_may_lack_a_host() {
    let head = head_of("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((head.version, head.host), (Version::Http10, None));
    let text = "GET / HTTP/1.0\r\nHOST:\t a:80 \t\r\n\r\n";
    assert_eq!(head_of(text).host.unwrap().of(text.as_bytes()), b"a:80");
}

#[test]
fn field_values_lose_the_whitespace_around_them_and_no_more() {
    let bytes =
        b"GET / HTTP/1.1\r\nHost: a\r\nA:b\r\nc: \t d  e\t\r\nF:\r\ng:  \r\nA: \xff\r\n\r\n";
    let (_, fields) = parse(bytes).unwrap().unwrap();
    let fields: Vec<_> = fields.iter().map(|f| (f.name.of(bytes), f.value.of(bytes))).collect();
    let expected: [(&[u8], &[u8]); 6] =
        [(b"Host", b"a"), (b"A", b"b"), (b"c", b"d  e"), (b"F", b""), (b"g", b""), (b"A", b"\xff")];
    assert_eq!(fields, expected);
}

#[test]
fn framing_by_the_two_fields() {
    for (lines, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("content-length:\t5 \r\n", Framing::Length(5)),
        ("Content-Length: 0000000000000000000000005\r\n", Framing::Length(5)),
        ("Content-Length: 18446744073709551615\r\n", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("TRANSFER-ENCODING: ChUnKeD \r\n", Framing::Chunked),
        ("Content-Lengths: 5\r\nX-Content-Length: 6\r\n", Framing::None),
    ] {
        assert_eq!(with("1.1", lines).framing, framing, "{lines}");
    }
}

#[test]
fn keep_alive_by_version_and_connection() {
    for (version, lines, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: CLOSE\r\n", false),
        ("1.1", "Connection: x, ,close ,\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed, not-close, \"close\"\r\n", true),
        ("1.1", "Proxy-Connection: close\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: x,keep-alive\r\n", true),
        ("1.0", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.0", "Keep-Alive: timeout=5\r\n", false),
    ] {
        assert_eq!(with(version, lines).keep_alive, keep_alive, "{version} {lines}");
    }
}

#[test]
fn upgrade_needs_both_fields_and_http_1_1() {
    for (version, lines, upgrade) in [
        ("1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n", true),
        ("1.1", "Upgrade: a/1\r\nConnection: x\r\nConnection: UPGRADE\r\n", true),
        ("1.1", "Connection: upgrade\r\n", false),
        ("1.1", "Upgrade: websocket\r\n", false),
        ("1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", false),
    ] {
        assert_eq!(with(version, lines).upgrade, upgrade, "{version} {lines}");
    }
}

#[test]
fn a_client_waits_for_100_only_with_a_body_to_send() {
    for (version, lines, expect_continue) in [
        ("1.1", "Expect: 100-continue\r\nContent-Length: 1\r\n", true),
        ("1.1", "Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n", true),
        ("1.1", "Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 1\r\n", true),
        ("1.1", "Expect:\r\nContent-Length: 1\r\n", false),
        ("1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false),
        ("1.1", "Expect: 100-continue\r\n", false),
        ("1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n", false),
        ("1.0", "Expect: a miracle\r\nContent-Length: 1\r\n", false),
    ] {
        assert_eq!(with(version, lines).expect_continue, expect_continue, "{version} {lines}");
    }
}

#[test]
fn each_limit_holds_to_the_byte() {
    let bytes = b"\r\nGET /12345 HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
    let exact = HeadLimits {
        head_bytes_max: bytes.len() as u16,
        target_bytes_max: b"/12345".len() as u16,
        fields_max: 2,
    };
    let parse_within = |limits: HeadLimits| {
        parse_head(bytes, &limits, &mut Vec::new()).map(|head| head.unwrap().len)
    };
    assert_eq!(parse_within(exact), Ok(bytes.len()));
    for (limits, error) in [
        (HeadLimits { head_bytes_max: exact.head_bytes_max - 1, ..exact }, HeadError::TooLarge),
        (HeadLimits { target_bytes_max: 5, ..exact }, HeadError::TargetTooLong),
        (HeadLimits { fields_max: 1, ..exact }, HeadError::TooManyFields),
        (HeadLimits { head_bytes_max: 0, ..exact }, HeadError::TooLarge),
    ] {
        assert_eq!(parse_within(limits), Err(error), "{limits:?}");
    }
}

#[test]
fn no_configuration_lifts_the_bound_of_fields() {
    let limits =
        HeadLimits { fields_max: u16::MAX, head_bytes_max: u16::MAX, ..Default::default() };
    for (count, expected) in [(FIELDS_MAX, Ok(())), (FIELDS_MAX + 1, Err(HeadError::TooManyFields))]
    {
        let lines = "Host: a\r\n".to_owned() + &"a: b\r\n".repeat(count - 1);
        let bytes = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        let mut fields = Vec::new();
        let result = parse_head(bytes.as_bytes(), &limits, &mut fields);
        assert_eq!(result.map(|head| assert!(head.is_some())), expected);
    }
}

#[test]
fn the_largest_head_has_spans_up_to_its_end() {
    let limits = HeadLimits { head_bytes_max: u16::MAX, ..Default::default() };
    let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let filler = "x".repeat(usize::from(u16::MAX) - start.len() - 4);
    let bytes = format!("{start}{filler}\r\n\r\n");
    let mut fields = Vec::new();
    let head = parse_head(bytes.as_bytes(), &limits, &mut fields).unwrap().unwrap();
    assert_eq!(head.len, usize::from(u16::MAX));
    assert_eq!(fields[1].value.of(bytes.as_bytes()), filler.as_bytes());
}

#[test]
fn fields_are_written_where_there_is_room() {
    let mut fields = Vec::with_capacity(8);
    let (buffer, capacity) = (fields.as_ptr(), fields.capacity());
    for head in ACCEPTED {
        parse_head(head, &HeadLimits::default(), &mut fields).unwrap();
        assert_eq!((fields.as_ptr(), fields.capacity()), (buffer, capacity));
    }
}
