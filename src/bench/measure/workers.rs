//! How many requests each worker of the server got, asked of the server's own `/status`: only of a
//! server that was named to be measured and is this project's.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::parse;

/// How long the server may take to tell: it may be overloaded.
const PATIENCE: Duration = Duration::from_secs(1);
/// Its document has 400 bytes for each worker.
const DOCUMENT_MAX: u64 = 1 << 20;

/// Requests of each worker before the run.
#[derive(Clone, Debug)]
pub struct Workers {
    address: SocketAddr,
    before: BTreeMap<u64, u64>,
}

impl Workers {
    /// Asks the server at `address`, if the process `pid` is a server of this project.
    pub fn begin(pid: u32, address: SocketAddr) -> Option<Workers> {
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        if !program.file_name()?.to_str()?.starts_with("uring-pool") {
            return None;
        }
        Some(Workers { address, before: ask(address)?.into_iter().collect() })
    }

    /// Requests of each worker since; of new ones since their birth.
    pub fn end(self) -> Option<Vec<u64>> {
        let now = ask(self.address)?;
        let since = |(id, requests)| {
            u64::saturating_sub(requests, self.before.get(&id).copied().unwrap_or(0))
        };
        Some(now.into_iter().map(since).collect())
    }
}

fn ask(address: SocketAddr) -> Option<Vec<(u64, u64)>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(DOCUMENT_MAX).read_to_string(&mut answer).ok()?;
    let (head, document) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then(|| parse::workers(document))?
}
