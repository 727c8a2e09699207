//! hyper's HTTP/1 on one thread, set up as fast as it is known to go: a current-thread runtime,
//! one SO_REUSEPORT listener, TCP_NODELAY, pipelined responses flattened into one write.
//! (mimalloc was tried and gained nothing.)
//!
//! Answers `/plaintext`, `/json`, `/body/10240`, `/body/102400` and `POST /echo`, with the
//! headers that all compared servers send: Content-Type, Content-Length, Date (hyper's own).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::{env, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpSocket;

static BODY: [u8; 102_400] = [b'x'; 102_400];

#[derive(Serialize)]
struct Message {
    message: &'static str,
}

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let address = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => "127.0.0.1:0",
        ["--listen", address] => address,
        _ => panic!("peer-hyper [--listen ADDR:PORT]"),
    };
    let address = address.parse().expect("an address and a port");
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(serve(address))
}

async fn serve(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    let listener = socket.listen(4096)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.pipeline_flush(true).writev(false);
            // A client that goes away ends its connection with an error; nothing to do about it.
            let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let (content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/plaintext") => (TEXT, Bytes::from_static(b"Hello, World!")),
        (&Method::GET, "/json") => {
            let message = Message { message: "Hello, World!" };
            (JSON, serde_json::to_vec(&message).expect("a string serialises").into())
        }
        (&Method::GET, "/body/10240") => (TEXT, Bytes::from_static(&BODY[..10_240])),
        (&Method::GET, "/body/102400") => (TEXT, Bytes::from_static(&BODY)),
        (&Method::POST, "/echo") => match request.into_body().collect().await {
            Ok(body) => (TEXT, body.to_bytes()),
            Err(_) => return Ok(status(StatusCode::BAD_REQUEST)),
        },
        _ => return Ok(status(StatusCode::NOT_FOUND)),
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
