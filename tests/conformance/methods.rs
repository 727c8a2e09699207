//! Methods, and the responses that they have.

use super::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("9110 9.3.1", "GET", "GET /plaintext HTTP/1.1\nHost: h\n\n", "200 +"),
    case("9110 9.3.2", "HEAD", "HEAD /plaintext HTTP/1.1\nHost: h\n\n", "200 +")
        .with(&["\r\nContent-Length: 13\r\n"]),
    case("9110 9.3.2", "HEAD of what isn't there", "HEAD /nothing HTTP/1.1\nHost: h\n\n", "404 +"),
    case("9110 9.3.2", "HEAD of a megabyte", "HEAD /body/1000000 HTTP/1.1\nHost: h\n\n", "200 +")
        .with(&["\r\nContent-Length: 1000000\r\n"]),
    case(
        "9110 9.3.2",
        "HEAD that is refused has no body",
        "HEAD / HTTP/1.1\nHost: h\nHost: h\n\n",
        "400 .",
    ),
    case(
        "9110 9.3.2",
        "HEAD of an unknown version has no body",
        "HEAD / HTTP/1.7\nHost: h\n\n",
        "505 .",
    ),
    case(
        "9110 9.3.2",
        "HEAD with a body",
        "HEAD /inspect HTTP/1.1\nHost: h\nContent-Length: 2\n\nhi",
        "200 +",
    ),
    case(
        "9110 9.3.2",
        "HEAD in lower case is another method",
        "head /plaintext HTTP/1.1\nHost: h\n\n",
        "405 +",
    ),
    case("9110 9.3.3", "POST", "POST /echo HTTP/1.1\nHost: h\nContent-Length: 2\n\nhi", "200 +")
        .with(&["\r\nContent-Length: 2\r\n", "\r\n\r\nhi"]),
    case(
        "9110 9.3.3",
        "POST in chunks",
        "POST /echo HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n2\nhi\n0\n\n",
        "200 +",
    )
    .with(&["\r\nTransfer-Encoding: chunked\r\n"]),
    case("9110 9.3.4", "PUT", "PUT /inspect HTTP/1.1\nHost: h\nContent-Length: 2\n\nhi", "200 +"),
    case("9110 9.3.5", "DELETE", "DELETE /inspect HTTP/1.1\nHost: h\n\n", "200 +")
        .with(&[r#""method":"DELETE""#]),
    case("5789 2", "PATCH", "PATCH /inspect HTTP/1.1\nHost: h\nContent-Length: 2\n\nhi", "200 +")
        .with(&[r#""method":"PATCH""#]),
    case("9110 9.3.6", "CONNECT", "CONNECT h:443 HTTP/1.1\nHost: h:443\n\n", "501 ."),
    case(
        "9110 9.3.6",
        "CONNECT, and bytes for the tunnel",
        "CONNECT h:443 HTTP/1.1\nHost: h:443\n\n\u{16}\u{3}\u{1}",
        "501 .",
    ),
    case("9110 9.3.7", "OPTIONS", "OPTIONS /plaintext HTTP/1.1\nHost: h\n\n", "204 +")
        .with(&["\r\nAllow: GET, HEAD, OPTIONS\r\n"]),
    case(
        "9110 9.3.8",
        "TRACE isn't served",
        "TRACE /plaintext HTTP/1.1\nHost: h\nCookie: secret\n\n",
        "501 .",
    ),
    case(
        "9110 9.3.8",
        "TRACE with a body",
        "TRACE / HTTP/1.1\nHost: h\nContent-Length: 2\n\nhi",
        "501 .",
    ),
    case("9110 9.1", "an unknown method", "BREW /inspect HTTP/1.1\nHost: h\n\n", "200 +")
        .with(&[r#""method":"BREW""#]),
    case(
        "9110 9.1",
        "an unknown method where it isn't allowed",
        "BREW /plaintext HTTP/1.1\nHost: h\n\n",
        "405 +",
    )
    .with(&["\r\nAllow: "]),
    case("9110 9.1", "methods are case-sensitive", "get /plaintext HTTP/1.1\nHost: h\n\n", "405 +"),
    case(
        "9110 9.1",
        "every tchar",
        "!#$%&'*+-.^_`|~09azAZ /inspect HTTP/1.1\nHost: h\n\n",
        "200 +",
    ),
    case(
        "9110 9.1",
        "a method of 32 bytes",
        "A2345678901234567890123456789012 /inspect HTTP/1.1\nHost: h\n\n",
        "200 +",
    ),
    case(
        "9110 15.6.2",
        "a method of 33 bytes",
        "A23456789012345678901234567890123 /inspect HTTP/1.1\nHost: h\n\n",
        "501 .",
    ),
    case("9110 9.1", "a colon in a method", "GE:T / HTTP/1.1\nHost: h\n\n", "400 ."),
    case("9110 9.1", "a slash in a method", "GE/T / HTTP/1.1\nHost: h\n\n", "400 ."),
    case("9110 9.1", "brackets around a method", "[GET] / HTTP/1.1\nHost: h\n\n", "400 ."),
    case("9110 9.1", "quotes around a method", "\"GET\" / HTTP/1.1\nHost: h\n\n", "400 ."),
    case("9110 9.1", "a byte above 0x7f in a method", "G\u{c8}T / HTTP/1.1\nHost: h\n\n", "400 ."),
    case("9110 9.1", "NUL in a method", "G\0T / HTTP/1.1\nHost: h\n\n", "400 ."),
    case("9110 15.5.6", "405 tells what is allowed", "GET /echo HTTP/1.1\nHost: h\n\n", "405 +")
        .with(&["\r\nAllow: POST, OPTIONS\r\n"]),
    case("9110 6.6.1", "a response has a Date", "GET /plaintext HTTP/1.1\nHost: h\n\n", "200 +")
        .with(&["\r\nDate: ", " GMT\r\n"]),
    case("9110 6.6.1", "a refusal has a Date", "GET / HTTP/1.1\n\n", "400 .").with(&[
        "\r\nDate: ",
        "\r\nConnection: close\r\n",
        "\r\n\r\nBad Request",
    ]),
];
