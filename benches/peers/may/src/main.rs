//! may_minihttp with one worker, set up as its author does for benchmarks.
//!
//! Answers `/plaintext`, `/json`, `/body/10240` and `/body/102400` with Content-Type,
//! Content-Length, Date and its own `Server: M`. What it lacks of a complete server:
//! `Connection: close` (the connection stays open), 405 and 400 answers, TCP_NODELAY, limits,
//! time-outs; and a response that doesn't fit the socket waits for the client's next request.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::{env, io};

use bytes::BufMut;
use may_minihttp::{HttpServer, HttpService, Request, Response};
use serde::Serialize;

static BODY: LazyLock<String> = LazyLock::new(|| "x".repeat(102_400));

#[derive(Serialize)]
struct Message {
    message: &'static str,
}

#[derive(Clone)]
struct Answers;

impl HttpService for Answers {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        match request.path() {
            "/plaintext" => response.header("Content-Type: text/plain").body("Hello, World!"),
            "/json" => {
                response.header("Content-Type: application/json");
                let message = Message { message: "Hello, World!" };
                serde_json::to_writer(response.body_mut().writer(), &message)?;
            }
            "/body/10240" => response.header("Content-Type: text/plain").body(&BODY[..10_240]),
            "/body/102400" => response.header("Content-Type: text/plain").body(&BODY),
            _ => drop(response.status_code(404, "Not Found")),
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let address = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => "127.0.0.1:0",
        ["--listen", address] => address,
        _ => panic!("peer-may [--listen ADDR:PORT]"),
    };
    // It doesn't tell which port the kernel chose, so have one chosen first.
    let address = TcpListener::bind(address)?.local_addr()?;
    may::config().set_workers(1).set_pool_capacity(4096).set_stack_size(0x1000);
    let server = HttpServer(Answers).start(address)?;
    println!("listening on {address}");
    server.join().map_err(|_| io::Error::other("the accept loop ended"))
}
