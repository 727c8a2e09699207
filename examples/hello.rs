//! The smallest server. `cargo run --release --example hello`, then `curl 127.0.0.1:8080/you`.

use uring_pool::{Pool, Request, Response};

fn main() -> uring_pool::Result<()> {
    Pool::bind("127.0.0.1:8080")?
        .serve(|_worker| async |req: &Request| Response::text(format!("hello {}", req.path())))
}
