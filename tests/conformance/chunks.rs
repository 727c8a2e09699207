//! The chunked coding: sizes, extensions, ends, trailers.

use super::{Case, case, raw};

macro_rules! post {
    ($body:literal) => {
        concat!("POST /inspect HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n", $body)
    };
}

macro_rules! post_raw {
    ($body:literal) => {
        concat!("POST /inspect HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", $body)
    };
}

pub(crate) const CASES: &[Case] = &[
    case("9112 7.1", "no chunk", post!("0\n\n"), "200 +").with(&[r#""body_bytes":0"#]),
    case("9112 7.1", "one chunk", post!("5\nhello\n0\n\n"), "200 +").with(&[r#""body":"hello""#]),
    case("9112 7.1", "three chunks", post!("1\na\n2\nbc\n3\ndef\n0\n\n"), "200 +")
        .with(&[r#""body":"abcdef""#]),
    case("9112 7.1", "sizes in both cases", post!("a\n0123456789\nA\n0123456789\n0\n\n"), "200 +")
        .with(&[r#""body_bytes":20"#]),
    case("9112 7.1", "leading zeros", post!("0005\nhello\n000\n\n"), "200 +"),
    case("9112 7.1", "a size of 16 digits", post!("0000000000000001\nx\n0\n\n"), "200 +"),
    case("9112 7.1", "a size of 17 digits", post!("00000000000000001\nx\n0\n\n"), "400 ."),
    case("9112 7.1", "a size of 2^64", post!("10000000000000000\nx\n0\n\n"), "400 ."),
    case(
        "9112 7.1",
        "a size that overflows to a small one",
        post!("10000000000000005\nhello\n0\n\n"),
        "400 .",
    ),
    case("9112 7.1", "line ends in a chunk", post!("4\n\n\n\n0\n\n"), "200 +")
        .with(&[r#""body_bytes":4"#]),
    case("9112 7.1", "a last chunk inside of a chunk", post!("5\n0\n\n\n0\n\n"), "200 +"),
    case(
        "9112 7.1",
        "another request behind",
        "POST /inspect HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n1\nx\n0\n\nGET /nothing HTTP/1.1\nHost: h\n\n",
        "200 404 +",
    ),
    case("9112 7.1", "an empty size", post!("\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "no hexadecimal digit", post!("g\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a sign", post!("+5\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a negative size", post!("-5\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "0x", post!("0x5\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "an underscore", post!("1_0\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a fraction", post!("5.0\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a comma", post!("5,5\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a space before the size", post!(" 5\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a space behind the size", post!("5 \nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a tab behind the size", post!("5\t\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "two sizes", post!("5 5\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "NUL in a size", post!("5\0\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a line end before the size", post!("\n5\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a chunk longer than its size", post!("5\nhello!\n0\n\n"), "400 ."),
    case("9112 7.1", "a chunk much longer than its size", post!("2\nhello\n0\n\n"), "400 ."),
    case("9112 7.1", "a chunk shorter than its size", post!("6\nhello\n0\n\n\n"), "400 ."),
    case("9112 7.1", "no line end behind a chunk", post!("5\nhello0\n\n"), "400 ."),
    raw("9112 7.1", "a bare LF behind a size", post_raw!("5\nhello\r\n0\r\n\r\n"), "400 ."),
    raw("9112 7.1", "a bare LF behind a chunk", post_raw!("5\r\nhello\n0\r\n\r\n"), "400 ."),
    raw("9112 7.1", "a bare LF behind the last size", post_raw!("5\r\nhello\r\n0\n\r\n"), "400 ."),
    raw("9112 7.1", "a bare LF at the end", post_raw!("5\r\nhello\r\n0\r\n\n"), "400 ."),
    raw("9112 7.1", "bare LFs all over", post_raw!("5\nhello\n0\n\n"), "400 ."),
    raw("9112 7.1", "a bare CR behind a size", post_raw!("5\rhello\r\n0\r\n\r\n"), "400 ."),
    raw("9112 7.1", "a bare CR behind a chunk", post_raw!("5\r\nhello\r0\r\n\r\n"), "400 ."),
    raw("9112 7.1", "CR CR LF behind a size", post_raw!("5\r\r\nhello\r\n0\r\n\r\n"), "400 ."),
    raw("9112 7.1", "CR CR LF behind a chunk", post_raw!("5\r\nhello\r\r\n0\r\n\r\n"), "400 ."),
    raw("9112 7.1", "LF CR behind a chunk", post_raw!("5\r\nhello\n\r0\r\n\r\n"), "400 ."),
    case("9112 7.1", "garbage behind the last size", post!("0x\n\n"), "400 ."),
    case("9112 7.1.1", "an extension", post!("5;a=b\nhello\n0\n\n"), "200 +")
        .with(&[r#""body":"hello""#]),
    case("9112 7.1.1", "an extension without a value", post!("5;a\nhello\n0\n\n"), "200 +"),
    case("9112 7.1.1", "two extensions", post!("5;a=b;c=d\nhello\n0\n\n"), "200 +"),
    case("9112 7.1.1", "a quoted value", post!("5;a=\"b c;d\"\nhello\n0\n\n"), "200 +"),
    case("9112 7.1.1", "whitespace before an extension", post!("5 ;a\nhello\n0\n\n"), "200 +"),
    case("9112 7.1.1", "an extension of the last chunk", post!("5\nhello\n0;a=b\n\n"), "200 +"),
    raw(
        "9112 7.1.1",
        "a bare LF in an extension",
        post_raw!("5;a\nb\r\nhello\r\n0\r\n\r\n"),
        "400 .",
    ),
    raw(
        "9112 7.1.1",
        "a bare LF that ends an extension",
        post_raw!("5;a\nhello\r\n0\r\n\r\n"),
        "400 .",
    ),
    raw(
        "9112 7.1.1",
        "a bare CR in an extension",
        post_raw!("5;a\rb\r\nhello\r\n0\r\n\r\n"),
        "400 .",
    ),
    case("9112 7.1.1", "a line end in quotes", post!("5;a=\"\n\"\nhello\n0\n\n"), "400 ."),
    case("9112 7.1.1", "NUL in an extension", post!("5;a\0\nhello\n0\n\n"), "400 ."),
    case("9112 7.1.1", "an extension without a name", post!("5;\nhello\n0\n\n"), "400 ."),
    case(
        "9112 7.1.1",
        "an extension with nothing behind its equals sign",
        post!("5;a=\nhello\n0\n\n"),
        "400 .",
    ),
    case("9112 7.1.1", "an escaped quote", post!("5;a=\"\\\"\"\nhello\n0\n\n"), "200 +"),
    case("9112 7.1.1", "a quote that isn't closed", post!("5;a=\"b\nhello\n0\n\n"), "400 ."),
    case("9112 7.1.1", "an extension of two words", post!("5;a b\nhello\n0\n\n"), "400 ."),
    case("9112 7.1.1", "no semicolon", post!("5 a=b\nhello\n0\n\n"), "400 ."),
    case("9112 7.1.2", "a trailer", post!("1\nx\n0\nA: b\n\n"), "200 +")
        .with(&[r#""trailers":[["A","b"]]"#]),
    case("9112 7.1.2", "two trailers", post!("0\nA: \t b \nc:\n\n"), "200 +")
        .with(&[r#""trailers":[["A","b"],["c",""]]"#]),
    case("9110 6.5.1", "a trailer is no field of the head", post!("0\nX-Admin: yes\n\n"), "200 +")
        .with(&[r#""headers":[["Host","h"],["Transfer-Encoding","chunked"]]"#]),
    case(
        "9110 6.5.1",
        "a trailer frames nothing",
        post!("1\nx\n0\nContent-Length: 50\n\n"),
        "200 +",
    ),
    case(
        "9110 6.5.1",
        "a trailer closes nothing",
        post!("1\nx\n0\nConnection: close\n\n"),
        "200 +",
    ),
    case("9112 7.1.2", "a folded trailer", post!("0\nA: b\n c\n\n"), "400 ."),
    case("9112 7.1.2", "a trailer without a colon", post!("0\nA\n\n"), "400 ."),
    case("9112 7.1.2", "a trailer with a space before its colon", post!("0\nA : b\n\n"), "400 ."),
    case("9112 7.1.2", "a trailer without a name", post!("0\n: b\n\n"), "400 ."),
    case("9112 7.1.2", "NUL in a trailer", post!("0\nA: \0\n\n"), "400 ."),
    raw("9112 7.1.2", "a bare LF in a trailer", post_raw!("0\r\nA: b\n\r\n"), "400 ."),
    raw("9112 7.1.2", "a bare CR in a trailer", post_raw!("0\r\nA: b\rc\r\n\r\n"), "400 ."),
    case(
        "9112 7.1.2",
        "a request instead of a trailer",
        post!("0\nGET /evil HTTP/1.1\nHost: h\n\n"),
        "400 .",
    ),
    case("9110 15.5.14", "a chunk over the limit", post!("fffffff\nhello"), "413 ."),
    case("9110 15.5.14", "a chunk of 2^64 - 1", post!("ffffffffffffffff\nhello"), "413 ."),
];
