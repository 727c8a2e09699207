//! Field lines: names, values, whitespace, what they steer.

use super::{Case, case, raw};

pub(crate) const CASES: &[Case] = &[
    case("9112 5", "names keep their case", "GET /inspect HTTP/1.1\nHOST: h\nx-A: b\n\n", "200 +")
        .with(&[r#"[["HOST","h"],["x-A","b"]]"#]),
    case(
        "9112 5",
        "no whitespace behind the colon",
        "GET /inspect HTTP/1.1\nHost:h\nA:b\n\n",
        "200 +",
    )
    .with(&[r#"["A","b"]"#]),
    case(
        "9112 5",
        "much whitespace",
        "GET /inspect HTTP/1.1\nHost: \t h \t \nA:  \tb  \n\n",
        "200 +",
    )
    .with(&[r#"["A","b"]"#, r#""host":"h""#]),
    case("9112 5", "an empty value", "GET /inspect HTTP/1.1\nHost: h\nA:\nB:  \n\n", "200 +")
        .with(&[r#"["A",""],["B",""]"#]),
    case("9112 5", "colons in a value", "GET /inspect HTTP/1.1\nHost: h\nA: b:c::d\n\n", "200 +")
        .with(&[r#"["A","b:c::d"]"#]),
    case("9112 5", "a tab in a value", "GET /inspect HTTP/1.1\nHost: h\nA: b\tc\n\n", "200 +")
        .with(&[r#"["A","b\tc"]"#]),
    case("9112 5.1", "a space before the colon", "GET / HTTP/1.1\nHost: h\nA : b\n\n", "400 ."),
    case("9112 5.1", "a tab before the colon", "GET / HTTP/1.1\nHost: h\nA\t: b\n\n", "400 ."),
    case("9112 5.1", "a space before the colon of Host", "GET / HTTP/1.1\nHost : h\n\n", "400 ."),
    case(
        "9112 5.1",
        "a space before the colon of Content-Length",
        "POST / HTTP/1.1\nHost: h\nContent-Length : 3\n\nabc",
        "400 .",
    ),
    case(
        "9112 5.1",
        "a space before the colon of Transfer-Encoding",
        "POST / HTTP/1.1\nHost: h\nTransfer-Encoding : chunked\n\n0\n\n",
        "400 .",
    ),
    case("9112 5.2", "a folded value", "GET / HTTP/1.1\nHost: h\nA: b\n c\n\n", "400 ."),
    case(
        "9112 5.2",
        "a value folded with a tab",
        "GET / HTTP/1.1\nHost: h\nA: b\n\tc\n\n",
        "400 .",
    ),
    case("9112 5.2", "a folded Host", "GET / HTTP/1.1\nHost: h\n i\n\n", "400 ."),
    case(
        "9112 5.2",
        "a folded Transfer-Encoding",
        "POST / HTTP/1.1\nHost: h\nTransfer-Encoding:\n chunked\n\n0\n\n",
        "400 .",
    ),
    case("9112 5.2", "a fold of nothing", "GET / HTTP/1.1\nHost: h\nA: b\n \n\n", "400 ."),
    case("9110 5.1", "an empty name", "GET / HTTP/1.1\nHost: h\n: b\n\n", "400 ."),
    case("9110 5.1", "no colon", "GET / HTTP/1.1\nHost: h\nA b\n\n", "400 ."),
    case("9110 5.1", "a name alone", "GET / HTTP/1.1\nHost: h\nA\n\n", "400 ."),
    case("9110 5.1", "a space in a name", "GET / HTTP/1.1\nHost: h\nA b: c\n\n", "400 ."),
    case(
        "9110 5.1",
        "every tchar in a name",
        "GET /inspect HTTP/1.1\nHost: h\n!#$%&'*+-.^_`|~09azAZ: b\n\n",
        "200 +",
    )
    .with(&["!#$%&'*+-.^_`|~09azAZ"]),
    case("9110 5.6.2", "a parenthesis in a name", "GET / HTTP/1.1\nHost: h\nA(: b\n\n", "400 ."),
    case("9110 5.6.2", "a slash in a name", "GET / HTTP/1.1\nHost: h\nA/B: c\n\n", "400 ."),
    case("9110 5.6.2", "quotes in a name", "GET / HTTP/1.1\nHost: h\n\"A\": b\n\n", "400 ."),
    case("9110 5.6.2", "brackets in a name", "GET / HTTP/1.1\nHost: h\nA[]: b\n\n", "400 ."),
    case("9110 5.6.2", "braces in a name", "GET / HTTP/1.1\nHost: h\n{A}: b\n\n", "400 ."),
    case("9110 5.6.2", "an at sign in a name", "GET / HTTP/1.1\nHost: h\nA@B: c\n\n", "400 ."),
    case("9110 5.6.2", "a comma in a name", "GET / HTTP/1.1\nHost: h\nA,B: c\n\n", "400 ."),
    case("9110 5.6.2", "an equals sign in a name", "GET / HTTP/1.1\nHost: h\nA=B: c\n\n", "400 ."),
    case("9110 5.6.2", "a backslash in a name", "GET / HTTP/1.1\nHost: h\nA\\B: c\n\n", "400 ."),
    case("9110 5.6.2", "a semicolon in a name", "GET / HTTP/1.1\nHost: h\nA;B: c\n\n", "400 ."),
    case(
        "9110 5.6.2",
        "a byte above 0x7f in a name",
        "GET / HTTP/1.1\nHost: h\n\u{e9}: b\n\n",
        "400 .",
    ),
    case("9110 5.6.2", "NUL in a name", "GET / HTTP/1.1\nHost: h\nA\0: b\n\n", "400 ."),
    case("9110 5.6.2", "DEL in a name", "GET / HTTP/1.1\nHost: h\nA\u{7f}: b\n\n", "400 ."),
    case("9110 5.5", "NUL in a value", "GET / HTTP/1.1\nHost: h\nA: b\0c\n\n", "400 ."),
    case("9110 5.5", "NUL before a value", "GET / HTTP/1.1\nHost: h\nA: \0b\n\n", "400 ."),
    case("9110 5.5", "NUL behind a value", "GET / HTTP/1.1\nHost: h\nA: b\0\n\n", "400 ."),
    case("9110 5.5", "SOH in a value", "GET / HTTP/1.1\nHost: h\nA: \u{1}\n\n", "400 ."),
    case("9110 5.5", "a bell in a value", "GET / HTTP/1.1\nHost: h\nA: \u{7}\n\n", "400 ."),
    case("9110 5.5", "a backspace in a value", "GET / HTTP/1.1\nHost: h\nA: b\u{8}\n\n", "400 ."),
    case(
        "9110 5.5",
        "a vertical tab in a value",
        "GET / HTTP/1.1\nHost: h\nA: b\u{b}c\n\n",
        "400 .",
    ),
    case("9110 5.5", "a form feed in a value", "GET / HTTP/1.1\nHost: h\nA: b\u{c}c\n\n", "400 ."),
    case(
        "9110 5.5",
        "an escape character in a value",
        "GET / HTTP/1.1\nHost: h\nA: \u{1b}[2J\n\n",
        "400 .",
    ),
    case("9110 5.5", "DEL in a value", "GET / HTTP/1.1\nHost: h\nA: \u{7f}\n\n", "400 ."),
    case(
        "9110 5.5",
        "bytes above 0x7f in a value",
        "GET /inspect HTTP/1.1\nHost: h\nA: caf\u{c3}\u{a9}\n\n",
        "200 +",
    ),
    raw(
        "9110 5.5",
        "LF LF in a value",
        "GET / HTTP/1.1\r\nHost: h\r\nA: b\n\nGET /x HTTP/1.1\r\n\r\n",
        "400 .",
    ),
    case("9110 5.3", "a name twice", "GET /inspect HTTP/1.1\nHost: h\nA: b\nA: c\n\n", "200 +")
        .with(&[r#"["A","b"],["A","c"]"#]),
    case(
        "9112 9.6",
        "Connection: close",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: close\n\n",
        "200 .",
    )
    .with(&["\r\nConnection: close\r\n"]),
    case(
        "9112 9.6",
        "close in upper case",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: CLOSE\n\n",
        "200 .",
    ),
    case(
        "9112 9.6",
        "close in a list",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: x, close ,y\n\n",
        "200 .",
    ),
    case(
        "9112 9.6",
        "close in a second field",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: x\nConnection: close\n\n",
        "200 .",
    ),
    case(
        "9112 9.6",
        "keep-alive and close",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: keep-alive, close\n\n",
        "200 .",
    ),
    case(
        "9112 9.3",
        "nothing but what looks like close",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: closed\n\n",
        "200 +",
    ),
    case(
        "9112 9.3",
        "keep-alive",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: keep-alive\n\n",
        "200 +",
    ),
    case("9112 9.3", "HTTP/1.0", "GET /plaintext HTTP/1.0\nHost: h\n\n", "200 ."),
    case(
        "9112 9.3",
        "HTTP/1.0 with keep-alive",
        "GET /plaintext HTTP/1.0\nHost: h\nConnection: Keep-Alive\n\n",
        "200 +",
    )
    .with(&["\r\nConnection: keep-alive\r\n"]),
    case(
        "9112 9.3",
        "HTTP/1.0 with keep-alive and close",
        "GET /plaintext HTTP/1.0\nConnection: keep-alive, close\n\n",
        "200 .",
    ),
    case(
        "9110 7.6.1",
        "Connection can't name Host away",
        "GET /inspect HTTP/1.1\nHost: h\nConnection: host\n\n",
        "200 +",
    )
    .with(&[r#""host":"h""#]),
    case(
        "9110 7.6.1",
        "an empty Connection",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection:\n\n",
        "200 +",
    ),
    case(
        "9110 7.6.1",
        "Connection of commas",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: ,, ,\n\n",
        "200 +",
    ),
    case(
        "9110 10.1.1",
        "an unknown expectation",
        "GET / HTTP/1.1\nHost: h\nExpect: a-miracle\n\n",
        "417 .",
    ),
    case(
        "9110 10.1.1",
        "100-continue with a parameter",
        "POST /inspect HTTP/1.1\nHost: h\nExpect: 100-continue;a\nContent-Length: 1\n\nx",
        "417 .",
    ),
    case(
        "9110 10.1.1",
        "100-continue and more",
        "POST /inspect HTTP/1.1\nHost: h\nExpect: 100-continue, b\nContent-Length: 1\n\nx",
        "417 .",
    ),
    case(
        "9110 10.1.1",
        "100-continue",
        "POST /inspect HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 1\n\nx",
        "200 +",
    )
    .with(&[r#""body":"x""#]),
    case(
        "9110 10.1.1",
        "100-continue in upper case",
        "POST /inspect HTTP/1.1\nHost: h\nExpect: 100-CONTINUE\nContent-Length: 1\n\nx",
        "200 +",
    ),
    case(
        "9110 10.1.1",
        "100-continue without a body",
        "GET /inspect HTTP/1.1\nHost: h\nExpect: 100-continue\n\n",
        "200 +",
    ),
    case(
        "9110 10.1.1",
        "an expectation in HTTP/1.0",
        "GET /inspect HTTP/1.0\nExpect: a-miracle\nConnection: keep-alive\n\n",
        "200 +",
    ),
    case(
        "9110 7.8",
        "an upgrade that nobody offers",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: h2c\n\n",
        "200 +",
    ),
    case(
        "9110 7.8",
        "an upgrade with a body",
        "POST /inspect HTTP/1.1\nHost: h\nConnection: upgrade\nUpgrade: a\nContent-Length: 1\n\nx",
        "200 +",
    )
    .with(&[r#""upgrades":["a"]"#, r#""body":"x""#]),
    case(
        "9110 7.8",
        "Upgrade that Connection doesn't name",
        "GET /inspect HTTP/1.1\nHost: h\nUpgrade: a\n\n",
        "200 +",
    )
    .with(&[r#""upgrades":[]"#]),
    case(
        "9110 7.8",
        "a list of protocols",
        "GET /inspect HTTP/1.1\nHost: h\nConnection: x, Upgrade\nUpgrade: a/1, ,b\nupgrade: c\n\n",
        "200 +",
    )
    .with(&[r#""upgrades":["a/1","b","c"]"#]),
    case(
        "9110 10.1.4",
        "TE is a wish",
        "GET /plaintext HTTP/1.1\nHost: h\nTE: trailers, gzip\nConnection: TE\n\n",
        "200 +",
    ),
    case(
        "9110 12.5.1",
        "any Accept",
        "GET /plaintext HTTP/1.1\nHost: h\nAccept: image/png\n\n",
        "200 +",
    ),
];
