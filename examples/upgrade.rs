//! A protocol of one's own on a connection that begins as HTTP: what is said comes back, and at a stop
//! everybody hears a goodbye. A WebSocket begins the same way.
//!
//! ```sh
//! cargo run --release --example upgrade
//! printf 'GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello\n' |
//!     nc 127.0.0.1 8080
//! ```

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use uring_pool::{Pool, Request, Response, Status, Upgraded};

fn main() -> uring_pool::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    Pool::bind(&address)?
        .workers(2)?
        .on_ready(|ready| println!("the echo serves {}", ready.addresses[0]))
        .serve(|_worker| {
            async |request: &Request| match request.upgrade("echo") {
                Some(upgrade) => upgrade.accept(async |stream: Upgraded| {
                    // An error means that the other side is gone.
                    let _ = echo(&stream).await;
                }),
                None => Response::plain(Status::new(426)).with_header("Upgrade", "echo"),
            }
        })
}

async fn echo(stream: &Upgraded) -> io::Result<()> {
    while let Some(piece) = next(stream).await? {
        stream.write_all(&piece).await?;
    }
    if stream.is_stopping() {
        stream.write_all(b"goodbye\n").await?;
    }
    Ok(()) // what was written is sent, then the connection is closed
}

/// What comes next; nothing at the end, or when the worker is about to leave.
async fn next(stream: &Upgraded) -> io::Result<Option<Bytes>> {
    let (mut chunk, mut stopping) = (pin!(stream.chunk()), pin!(stream.stopping()));
    poll_fn(|context| match chunk.as_mut().poll(context) {
        Poll::Pending => stopping.as_mut().poll(context).map(|()| Ok(None)),
        ready @ Poll::Ready(_) => ready,
    })
    .await
}
