//! Several requests on a connection, and how it ends.

use super::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "9112 9.3.2",
        "two requests",
        "GET /plaintext HTTP/1.1\nHost: h\n\nGET /nothing HTTP/1.1\nHost: h\n\n",
        "200 404 +",
    ),
    case(
        "9112 9.3.2",
        "five requests in order",
        "GET /healthz HTTP/1.1\nHost: h\n\nGET /1 HTTP/1.1\nHost: h\n\nPOST /echo HTTP/1.1\nHost: h\nContent-Length: 1\n\nxPUT /plaintext HTTP/1.1\nHost: h\n\nOPTIONS * HTTP/1.1\nHost: h\n\n",
        "200 404 200 405 204 +",
    ),
    case(
        "9112 9.3.2",
        "chunks, then a length, then none",
        "POST /inspect HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n1\na\n0\n\nPOST /inspect HTTP/1.1\nHost: h\nContent-Length: 1\n\nbGET /nothing HTTP/1.1\nHost: h\n\n",
        "200 200 404 +",
    ),
    case(
        "9112 9.3",
        "nothing is served behind close",
        "GET /plaintext HTTP/1.1\nHost: h\nConnection: close\n\nGET /nothing HTTP/1.1\nHost: h\n\n",
        "200 .",
    ),
    case(
        "9112 9.3",
        "nothing is served behind HTTP/1.0",
        "GET /plaintext HTTP/1.0\n\nGET /nothing HTTP/1.1\nHost: h\n\n",
        "200 .",
    ),
    case(
        "9112 9.3",
        "a request of 1.0 between those of 1.1",
        "GET /plaintext HTTP/1.1\nHost: h\n\nGET /healthz HTTP/1.0\nConnection: keep-alive\n\nGET /nothing HTTP/1.1\nHost: h\n\n",
        "200 200 404 +",
    ),
    case(
        "9112 2.2",
        "nothing is served behind a refusal",
        "GET / HTTP/1.1\nHost: h\nA : b\n\nGET /plaintext HTTP/1.1\nHost: h\n\n",
        "400 .",
    ),
    case(
        "9112 2.2",
        "what came before a refusal is answered",
        "GET /plaintext HTTP/1.1\nHost: h\n\nGET / HTTP/1.1\n\nGET /healthz HTTP/1.1\nHost: h\n\n",
        "200 400 .",
    ),
    case(
        "9112 9.6",
        "close with a body",
        "POST /inspect HTTP/1.1\nHost: h\nConnection: close\nContent-Length: 5\n\nhello",
        "200 .",
    )
    .with(&[r#""body":"hello""#]),
    case(
        "9112 9.6",
        "close with a body that nobody reads",
        "POST /nothing HTTP/1.1\nHost: h\nConnection: close\nContent-Length: 5\n\nhello",
        "404 .",
    ),
    case(
        "9112 9.6",
        "close with a body, and more behind",
        "POST /nothing HTTP/1.1\nHost: h\nConnection: close\nContent-Length: 5\n\nhelloGET / HTTP/1.1\nHost: h\n\n",
        "404 .",
    ),
    case(
        "9112 11.2",
        "CL.TE",
        "POST /inspect HTTP/1.1\nHost: h\nContent-Length: 6\nTransfer-Encoding: chunked\n\n0\n\nG",
        "400 .",
    ),
    case(
        "9112 11.2",
        "TE.CL",
        "POST /inspect HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\nContent-Length: 4\n\n5c\nGPOST / HTTP/1.1\n\n0\n\n",
        "400 .",
    ),
    case(
        "9112 11.2",
        "TE.TE with a space",
        "POST /inspect HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\nTransfer-Encoding : x\n\n0\n\n",
        "400 .",
    ),
    case(
        "9112 11.2",
        "TE.TE with a tab in the value",
        "POST /inspect HTTP/1.1\nHost: h\nTransfer-Encoding:\tchunked\n\n0\n\n",
        "200 +",
    ),
    case(
        "9112 11.2",
        "TE.TE with a fold",
        "POST /inspect HTTP/1.1\nHost: h\nX: y\n Transfer-Encoding: chunked\n\n0\n\n",
        "400 .",
    ),
    case(
        "9112 11.2",
        "TE.TE with a line end inside",
        "POST /inspect HTTP/1.1\nHost: h\nTransfer-Encoding\n: chunked\n\n0\n\n",
        "400 .",
    ),
    case(
        "9112 11.2",
        "a length in a second field of another case",
        "POST /inspect HTTP/1.1\nHost: h\nContent-Length: 0\ncontent-length: 35\n\nGET /evil HTTP/1.1\nHost: h\n\n",
        "400 .",
    ),
    case(
        "9112 11.2",
        "a body of GET is no request",
        "GET /plaintext HTTP/1.1\nHost: h\nContent-Length: 31\n\nGET /evil HTTP/1.1\nHost: h\n\n",
        "200 +",
    ),
    case(
        "9112 11.2",
        "0.CL",
        "GET /plaintext HTTP/1.1\nHost: h\nContent-Length: 0\n\nGET /nothing HTTP/1.1\nHost: h\n\n",
        "200 404 +",
    ),
    case(
        "9112 11.2",
        "an extension that hides a request",
        "POST /inspect HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n1;\"\nx\n0\n\n",
        "400 .",
    ),
    case(
        "9112 11.1",
        "nothing is reflected into a field",
        "GET /inspect?a=%0d%0aSet-Cookie:%20b HTTP/1.1\nHost: h\n\n",
        "200 +",
    ),
];
