//! What is refused, and by which name. Each table is one part of a head, with the sections of
//! RFC 9110 and RFC 9112 that its cases come from.

use super::super::HeadError::{self, *};
use super::super::METHOD_BYTES_MAX;
use super::{ACCEPTED, HeadLimits, parse};

#[track_caller]
fn refuse(bytes: &[u8], error: HeadError) {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(parse(bytes).map(|head| head.is_some()), Err(error), "{text:?}");
}

/// Refuses request lines that a valid rest follows.
fn refuse_lines(cases: &[(&str, HeadError)]) {
    for &(line, error) in cases {
        refuse(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), error);
    }
}

/// Refuses field lines that follow a valid request line and Host.
fn refuse_fields(cases: &[(&str, HeadError)]) {
    for &(lines, error) in cases {
        refuse(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").as_bytes(), error);
    }
}

#[test]
fn other_protocols_by_their_first_bytes() {
    refuse(b"\x16\x03\x01", TlsHandshake);
    refuse(b"\x16", TlsHandshake);
    refuse(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http2Preface);
    refuse(b"PRI * HTTP/2.0\r\n", Http2Preface);
    refuse(b"\x80\x2e\x01", MethodInvalid); // SSL 2
    refuse(b"\0", MethodInvalid);
    refuse(b"{\"json\":1}", MethodInvalid);
    refuse(b"<xml>", MethodInvalid);
}

#[test]
fn methods_9112_3_1() {
    refuse_lines(&[
        (" GET / HTTP/1.1", MethodInvalid),
        ("\tGET / HTTP/1.1", MethodInvalid),
        ("G(T / HTTP/1.1", MethodInvalid),
        ("G\x7fT / HTTP/1.1", MethodInvalid),
        ("G\u{e9}T / HTTP/1.1", MethodInvalid),
        ("GET\t/ HTTP/1.1", MethodInvalid),
        ("GET", MethodInvalid),
        ("GET:", MethodInvalid),
    ]);
    let long = "A".repeat(METHOD_BYTES_MAX + 1);
    refuse_lines(&[(&format!("{long} / HTTP/1.1"), MethodTooLong)]);
    refuse(long.as_bytes(), MethodTooLong);
}

#[test]
fn targets_9112_3_2() {
    refuse_lines(&[
        ("GET  / HTTP/1.1", TargetInvalid),
        ("GET  HTTP/1.1", TargetInvalid),
        ("GET \t/ HTTP/1.1", TargetInvalid),
        ("GET /\t HTTP/1.1", TargetInvalid),
        ("GET /\x01 HTTP/1.1", TargetInvalid),
        ("GET /\x7f HTTP/1.1", TargetInvalid),
        ("GET /\u{e9} HTTP/1.1", TargetInvalid),
        ("GET /a#b HTTP/1.1", TargetInvalid),
        ("GET /a?b#c HTTP/1.1", TargetInvalid),
        ("GET http://a/#c HTTP/1.1", TargetInvalid),
        ("GET a HTTP/1.1", TargetInvalid),
        ("GET a/b HTTP/1.1", TargetInvalid),
        ("GET ?a HTTP/1.1", TargetInvalid),
        ("GET * HTTP/1.1", TargetInvalid),
        ("OPTIONS ** HTTP/1.1", TargetInvalid),
        ("OPTIONS *?a HTTP/1.1", TargetInvalid),
        ("GET a:80 HTTP/1.1", TargetInvalid),
        ("GET http:/a HTTP/1.1", TargetInvalid),
        ("GET http:// HTTP/1.1", TargetInvalid),
        ("GET http:///a HTTP/1.1", TargetInvalid),
        ("GET http://:80/ HTTP/1.1", TargetInvalid),
        ("GET http://a:b/ HTTP/1.1", TargetInvalid),
        ("GET http://a,b/ HTTP/1.1", TargetInvalid),
        ("GET http://user@a/ HTTP/1.1", TargetInvalid),
        ("GET http://[::1/ HTTP/1.1", TargetInvalid),
        ("GET ftp://a/ HTTP/1.1", TargetInvalid),
        ("CONNECT / HTTP/1.1", TargetInvalid),
        ("CONNECT a HTTP/1.1", TargetInvalid),
        ("CONNECT a: HTTP/1.1", TargetInvalid),
        ("CONNECT http://a:80/ HTTP/1.1", TargetInvalid),
        ("CONNECT user@a:80 HTTP/1.1", TargetInvalid),
    ]);
    refuse(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", TargetInvalid);
    let long = "a".repeat(HeadLimits::default().target_bytes_max.into());
    refuse_lines(&[(&format!("GET /{long} HTTP/1.1"), TargetTooLong)]);
    refuse(format!("GET /{long} HTTP/1.1").as_bytes(), TargetTooLong);
    refuse(format!("GET /{long}{long}").as_bytes(), TargetTooLong);
}

#[test]
fn versions_9112_2_3() {
    refuse_lines(&[
        ("GET /", VersionInvalid), // HTTP/0.9
        ("GET / ", VersionInvalid),
        ("GET / http/1.1", VersionInvalid),
        ("GET / HTTP/1", VersionInvalid),
        ("GET / HTTP/1.1 ", VersionInvalid),
        ("GET /  HTTP/1.1", VersionInvalid),
        ("GET / x HTTP/1.1", VersionInvalid),
        ("GET / HTTP/1.10", VersionInvalid),
        ("GET / HTTP/11", VersionInvalid),
        ("GET / HTTP/1.x", VersionInvalid),
        ("GET / HTTPS/1.1", VersionInvalid),
        ("GET / ICY/1.1", VersionInvalid),
        ("GET / HTTP/0.9", VersionUnsupported),
        ("GET / HTTP/1.2", VersionUnsupported),
        ("GET / HTTP/2.0", VersionUnsupported),
        ("GET / HTTP/3.0", VersionUnsupported),
    ]);
}

#[test]
fn line_ends_9112_2_2() {
    for (bytes, error) in [
        (&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n", BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\nB:\nC: d\r\n\r\n", BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLf),
        (b"GET / HTTP/1.1\nHost: a\n\n", BareLf),
        (b"GET / HTTP/1.0\n\r\n", BareLf),
        (b"GET / HTTP/1.0\r\n\n", BareLf),
        (b"GET /\nHost: a\r\n\r\n", BareLf),
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\rB: c\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\nB: \rc\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\nB\r: c\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\rx", BareCr),
        (b"GET\r / HTTP/1.1\r\nHost: a\r\n\r\n", BareCr),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLf),
        (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLf),
        (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareCr),
        (b"\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareCr),
        (b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", EmptyLinesTooMany),
    ] {
        refuse(bytes, error);
    }
}

#[test]
fn field_lines_9112_5() {
    refuse_fields(&[
        ("A: b\r\n c", ObsFold), // 5.2
        ("A: b\r\n\tc: d", ObsFold),
        ("A: b\r\n ", ObsFold),
        ("A : b", FieldNameInvalid), // 5.1
        ("A\t: b", FieldNameInvalid),
        ("A b: c", FieldNameInvalid),
        (": b", FieldNameInvalid),
        ("A", FieldNameInvalid),
        ("A b", FieldNameInvalid),
        ("A\0: b", FieldNameInvalid),
        ("A(: b", FieldNameInvalid),
        ("\"A\": b", FieldNameInvalid),
        ("\u{e9}: b", FieldNameInvalid),
        ("GET / HTTP/1.1", FieldNameInvalid),
        ("A: \0", FieldValueInvalid), // 9110 5.5
        ("A: b\0c", FieldValueInvalid),
        ("A: \x01", FieldValueInvalid),
        ("A: b\x0bc", FieldValueInvalid),
        ("A: b\x0c", FieldValueInvalid),
        ("A: \x1b[2J", FieldValueInvalid),
        ("A: \x7f", FieldValueInvalid),
    ]);
    refuse(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", FieldNameInvalid); // 2.2
    refuse(b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", FieldNameInvalid);
}

#[test]
fn hosts_9112_3_2() {
    for (lines, error) in [
        ("", HostMissing),
        ("Hosts: a\r\n", HostMissing),
        ("Host: a\r\nHost: a\r\n", HostDuplicate),
        ("Host: a\r\nHOST:\r\n", HostDuplicate),
        ("Host: a, b\r\n", HostInvalid),
        ("Host: a,b\r\n", HostInvalid),
        ("Host: a b\r\n", HostInvalid),
        ("Host: a:b\r\n", HostInvalid),
        ("Host: a:65536\r\n", HostInvalid),
        ("Host: a:-1\r\n", HostInvalid),
        ("Host: a:80:80\r\n", HostInvalid),
        ("Host: :80\r\n", HostInvalid),
        ("Host: a@b\r\n", HostInvalid),
        ("Host: http://a\r\n", HostInvalid),
        ("Host: a/b\r\n", HostInvalid),
        ("Host: a?b\r\n", HostInvalid),
        ("Host: a#b\r\n", HostInvalid),
        ("Host: a\\b\r\n", HostInvalid),
        ("Host: [::1\r\n", HostInvalid),
        ("Host: ::1\r\n", HostInvalid),
        ("Host: [a]\r\n", HostInvalid),
        ("Host: [::1]a\r\n", HostInvalid),
        ("Host: \u{e9}\r\n", HostInvalid),
        ("Host: %zz\r\n", HostInvalid),
    ] {
        refuse(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes(), error);
    }
    refuse(b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", HostDuplicate);
    refuse(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", HostInvalid);
    refuse(b"GET http://a/ HTTP/1.1\r\n\r\n", HostMissing);
    refuse(b"GET http://a/ HTTP/1.1\r\nHost: b c\r\n\r\n", HostInvalid);
}

#[test]
fn content_lengths_9110_8_6() {
    refuse_fields(&[
        ("Content-Length:", ContentLengthInvalid),
        ("Content-Length: +5", ContentLengthInvalid),
        ("Content-Length: -5", ContentLengthInvalid),
        ("Content-Length: 5 5", ContentLengthInvalid),
        ("Content-Length: 5,5", ContentLengthInvalid),
        ("Content-Length: 5, 6", ContentLengthInvalid),
        ("Content-Length: ,5", ContentLengthInvalid),
        ("Content-Length: 0x5", ContentLengthInvalid),
        ("Content-Length: 5.0", ContentLengthInvalid),
        ("Content-Length: 1e3", ContentLengthInvalid),
        ("Content-Length: \"5\"", ContentLengthInvalid),
        ("Content-Length: \u{665}", ContentLengthInvalid),
        ("Content-Length: 18446744073709551616", ContentLengthInvalid),
        ("Content-Length: 99999999999999999999", ContentLengthInvalid),
        ("Content-Length: 5\r\nContent-Length: 5", ContentLengthDuplicate),
        ("Content-Length: 5\r\ncontent-length: 6", ContentLengthDuplicate),
    ]);
}

#[test]
fn transfer_encodings_9112_6_1() {
    refuse_fields(&[
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", ContentLengthAndTransferEncoding),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", ContentLengthAndTransferEncoding),
        ("Content-Length: x\r\nTransfer-Encoding: y", ContentLengthAndTransferEncoding),
        ("Transfer-Encoding: gzip, chunked", TransferEncodingUnsupported),
        ("Transfer-Encoding: gzip;q=1,x,chunked", TransferEncodingUnsupported),
        ("Transfer-Encoding: identity", TransferEncodingNotChunked),
        ("Transfer-Encoding: gzip", TransferEncodingNotChunked),
        ("Transfer-Encoding: chunked, gzip", TransferEncodingInvalid),
        ("Transfer-Encoding: xchunked", TransferEncodingNotChunked),
        ("Transfer-Encoding: chunkedx", TransferEncodingNotChunked),
        ("Transfer-Encoding:", TransferEncodingInvalid),
        ("Transfer-Encoding: ,", TransferEncodingInvalid),
        ("Transfer-Encoding: chunked,", TransferEncodingInvalid),
        ("Transfer-Encoding: , chunked", TransferEncodingInvalid),
        ("Transfer-Encoding: chunked, chunked", TransferEncodingInvalid),
        ("Transfer-Encoding: chunked;a=b", TransferEncodingInvalid),
        ("Transfer-Encoding: chunked;", TransferEncodingInvalid),
        ("Transfer-Encoding: \"chunked\"", TransferEncodingInvalid),
        ("Transfer-Encoding: chun ked", TransferEncodingInvalid),
        ("Transfer-Encoding: \u{e9}chunked", TransferEncodingInvalid),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", TransferEncodingInvalid),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", TransferEncodingInvalid),
        ("Transfer-Encoding: \x0bchunked", FieldValueInvalid),
        ("Transfer-Encoding : chunked", FieldNameInvalid),
        ("Transfer-Encoding:\r\n chunked", ObsFold),
    ]);
    refuse(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", TransferEncodingInHttp10);
}

#[test]
fn expectations_9110_10_1_1() {
    refuse_fields(&[
        ("Expect: 200-ok", ExpectationUnknown),
        ("Expect: 100-continue, x", ExpectationUnknown),
        ("Expect: x\r\nExpect: 100-continue", ExpectationUnknown),
        ("Expect: 100-continue;a=b\r\nContent-Length: 1", ExpectationUnknown),
    ]);
}

#[test]
fn heads_without_an_end_9110_5_4() {
    let endless = b"GET / HTTP/1.1\r\nHost: a\r\nA: ".to_vec();
    let size = usize::from(HeadLimits::default().head_bytes_max);
    refuse(&[&endless[..], &vec![b'a'; size]].concat(), TooLarge);
    let lines = b"GET / HTTP/1.1\r\n".to_vec();
    refuse(&[&lines[..], &b"a: b\r\n".repeat(101)].concat(), TooManyFields);
}

#[test]
fn no_control_byte_anywhere() {
    for head in ACCEPTED {
        for at in 0..head.len() {
            for byte in [0, b'\r', b'\n', 0x0b, 0x0c, 0x1b, 0x7f] {
                let bytes = [&head[..at], &[byte], &head[at..]].concat();
                if !bytes.starts_with(head) {
                    let head = parse(&bytes);
                    assert!(head.is_err(), "{byte:#x} at {at}: {head:?}");
                }
            }
        }
    }
}

#[test]
fn each_error_has_a_status_and_one_line_of_text() {
    for (error, status) in [
        (BareLf, 400),
        (HostMissing, 400),
        (TlsHandshake, 400),
        (TargetTooLong, 414),
        (ExpectationUnknown, 417),
        (TooLarge, 431),
        (TooManyFields, 431),
        (MethodTooLong, 501),
        (TransferEncodingUnsupported, 501),
        (VersionUnsupported, 505),
        (Http2Preface, 505),
    ] {
        assert_eq!(error.status(), status);
        let text = error.to_string();
        assert!(text.len() > 5 && !text.contains('\n') && !text.ends_with('.'), "{text}");
    }
}
