//! A protocol of one's own on bare connections: a key-value store that Redis's clients talk to, in
//! its line form. Each worker has a store of its own, which is why there is one.
//!
//! ```sh
//! cargo run --release --example raw_socket
//! printf 'PING\r\nSET name uring\r\nGET name\r\nQUIT\r\n' | nc 127.0.0.1 6379
//! ```

mod stderr_log;

use std::cell::RefCell;
use std::collections::HashMap;
use std::env;
use std::io::{self, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use uring_pool::config::{PoolConfig, WorkerConfig, WorkerCount};
use uring_pool::{ConnMeta, Pool, Stream, Worker, rt};

/// Longer lines end the connection.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How long a client that idles has before it is told that the server stops.
const DRAIN_GRACE: Duration = Duration::from_millis(200);

fn main() -> uring_pool::Result<()> {
    stderr_log::begin();
    let listen = vec!["127.0.0.1:6379".parse().expect("an address")];
    let workers = WorkerCount::Fixed(1);
    let mut config = PoolConfig { listen, workers, ..PoolConfig::default() };
    let mut worker = WorkerConfig::default();
    let mut flags = env::args().skip(1);
    while let Some(flag) = flags.next() {
        let value = flags.next().expect("a value follows");
        let number = || value.parse::<u32>().expect("a number");
        match flag.as_str() {
            "--listen" => config.listen = vec![value.parse().expect("an address")],
            "--accept" => config.accept = value.parse().expect("a mode"),
            "--workers" => config.workers = value.parse().expect("a number"),
            "--stop-timeout-ms" => config.stop_timeout = Duration::from_millis(number().into()),
            "--connections-max" => worker.limits.connections_max = Some(number()),
            "--connections-per-client" => worker.limits.connections_per_client = Some(number()),
            "--connection-timeout-ms" => {
                worker.timeouts.connection = Some(Duration::from_millis(number().into()));
            }
            "--rate-limit" => worker.rate_limit.enabled = number() > 0,
            other => panic!("{other} is no flag of this program"),
        }
    }
    Pool::new(config, worker)?
        .on_ready(|ready| {
            println!("it serves {} with {} workers", ready.addresses[0], ready.workers);
        })
        .serve_connections(|worker| {
            let (worker, store) = (*worker, Rc::new(Store::default()));
            async move |stream: Stream, meta: ConnMeta| {
                let store = Rc::clone(&store);
                Session { worker, store, meta }.run(stream).await
            }
        })
}

type Store = RefCell<HashMap<String, String>>;

struct Session {
    worker: Worker,
    store: Rc<Store>,
    meta: ConnMeta,
}

impl Session {
    async fn run(&self, mut stream: Stream) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = stream.read_until(b'\n', &mut line, LINE_BYTES_MAX);
            let count = if let Some(count) = rt::until_draining(read).await {
                count?
            } else {
                // What was sent before its client could know is answered.
                let read = stream.read_until(b'\n', &mut line, LINE_BYTES_MAX);
                match rt::timeout(DRAIN_GRACE, read).await {
                    Ok(count) => count?,
                    Err(_) => return stream.write_all(b"-ERR the server stops\r\n").await,
                }
            };
            if count == 0 {
                return stream.write_all(b"+BYE\r\n").await; // the client may still read
            }
            let text = String::from_utf8_lossy(&line);
            let mut words = text.split_whitespace();
            let answer = match (words.next(), words.next(), words.next()) {
                (None, ..) => continue,
                (Some("PING"), None, _) => "+PONG\r\n".to_owned(),
                (Some("SET"), Some(key), Some(value)) => {
                    self.store.borrow_mut().insert(key.to_owned(), value.to_owned());
                    "+OK\r\n".to_owned()
                }
                (Some("GET"), Some(key), _) => match self.store.borrow().get(key) {
                    Some(value) => format!("${}\r\n{value}\r\n", value.len()),
                    None => "$-1\r\n".to_owned(),
                },
                (Some("WORKER"), ..) => format!(":{}\r\n", self.meta.worker_id),
                (Some("WHO"), ..) => format!("+{:?} {:?}\r\n", self.meta.peer, self.meta.local),
                (Some("CONNECTIONS"), ..) => {
                    format!(":{}\r\n", self.worker.pool_status().active_connections)
                }
                (Some("STATUS"), ..) => {
                    let status = serde_json::to_string(&self.worker.pool_status())?;
                    format!("{status}\r\n")
                }
                // As many bytes as one likes, each after the other.
                (Some("FILL"), Some(count), _) => {
                    let count = count.parse().unwrap_or(0);
                    stream.write_bytes(vec![b'.'; count].into()).await?;
                    "\r\n".to_owned()
                }
                // Thinks for so long, whatever the pool wants.
                (Some("SLEEP"), Some(millis), _) => {
                    rt::sleep(Duration::from_millis(millis.parse().unwrap_or(0))).await;
                    "+OK\r\n".to_owned()
                }
                (Some("PANIC"), ..) => panic!("as it was told to"),
                // The rest of it is done by a thread, with a socket of the standard library.
                (Some("THREAD"), ..) => {
                    let (socket, unread) = stream.into_socket().await?;
                    let mut socket = TcpStream::from(socket);
                    thread::spawn(move || {
                        socket.write_all(b"+THREAD\r\n").and_then(|()| socket.write_all(&unread))
                    });
                    return Ok(());
                }
                (Some("QUIT"), ..) => return stream.write_all(b"+OK\r\n").await,
                (Some(other), ..) => format!("-ERR unknown command {other}\r\n"),
            };
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}
