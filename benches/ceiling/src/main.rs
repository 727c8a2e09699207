//! The yardstick: an HTTP server that does nothing but move bytes, on the bare ring.
//!
//! It counts blank lines in what it receives and answers each with a prepared response.
//! A real server is measured as a share of it: the difference is the server's own work.
//!
//! What it deliberately doesn't do: look at method, path or headers; refuse anything;
//! read request bodies; time out; cap connections; shut down gracefully. Don't expose it.

mod ring;

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::SystemTime;
use std::{env, io, process};

const USAGE: &str =
    "ceiling [--listen ADDR:PORT] [--body plaintext|json|BYTES] [--buffers N] [--churn]

  --listen   where to listen; port 0 lets the kernel choose (127.0.0.1:0)
  --body     what to answer with; a number means that many bytes (plaintext)
  --buffers  receive buffers of 2 KiB, a power of two up to 32768 (1024)
  --churn    one request a connection: answer with `Connection: close`, then close";

fn main() {
    let mut listen = "127.0.0.1:0".to_owned();
    let (mut body, mut buffers, mut churn) = ("plaintext".to_owned(), 1024, false);
    let mut args = env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| usage());
        match flag.as_str() {
            "--listen" => listen = value(),
            "--body" => body = value(),
            "--buffers" => buffers = value().parse().unwrap_or_else(|_| usage()),
            "--churn" => churn = true,
            _ => usage(),
        }
    }
    if !u16::is_power_of_two(buffers) {
        usage()
    }
    let (content_type, body) = match body.as_str() {
        "plaintext" => ("text/plain", b"Hello, World!".to_vec()),
        "json" => ("application/json", br#"{"message":"Hello, World!"}"#.to_vec()),
        bytes => ("text/plain", vec![b'x'; bytes.parse().unwrap_or_else(|_| usage())]),
    };
    let connection = if churn { "Connection: close\r\n" } else { "" };
    let served = listener(&listen).and_then(|listener| {
        println!("listening on {}", listener.local_addr()?);
        ring::serve(&listener, Sheet::new(content_type, connection, &body), buffers, churn)
    });
    if let Err(error) = served {
        eprintln!("ceiling: {error}");
        process::exit(1);
    }
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    process::exit(2);
}

/// Accepted sockets inherit TCP_NODELAY, so it is set once, here.
fn listener(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    let (fd, on) = (listener.as_raw_fd(), 1);
    // SAFETY: `fd` is an open socket, and the option's value is an int that outlives the call.
    // Listening again only lengthens the queue, so that 1,024 clients can connect at once.
    let failed = unsafe {
        let value = (&raw const on).cast();
        let length = size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, value, length) != 0
            || libc::listen(fd, 4096) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(listener) }
}

/// The response, prepared many times in a row: `n` answers leave as one send of a prefix.
struct Sheet {
    bytes: Vec<u8>,
    response_len: usize,
    date_at: usize,
}

impl Sheet {
    /// Enough for the requests of 32 bytes that fit one receive buffer ...
    const COPIES_MAX: usize = 64;
    /// ... but a sheet of large bodies stays within a core's cache.
    const BYTES_MAX: usize = 128 << 10;

    fn new(content_type: &str, connection: &str, body: &[u8]) -> Self {
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{connection}Date: ",
            body.len()
        )
        .into_bytes();
        let date_at = response.len();
        response.extend(httpdate::fmt_http_date(SystemTime::now()).as_bytes());
        response.extend(b"\r\n\r\n");
        response.extend(body);
        let response_len = response.len();
        let copies = (Self::BYTES_MAX / response_len).clamp(1, Self::COPIES_MAX);
        Self { bytes: response.repeat(copies), response_len, date_at }
    }

    fn copies(&self) -> usize {
        self.bytes.len() / self.response_len
    }

    /// Writes the current date in place. A response that the kernel is still copying may leave
    /// with a date of both seconds; a real server can't afford that, a yardstick can.
    fn refresh_date(&mut self) {
        let date = httpdate::fmt_http_date(SystemTime::now());
        for response in self.bytes.chunks_exact_mut(self.response_len) {
            response[self.date_at..][..date.len()].copy_from_slice(date.as_bytes());
        }
    }
}
