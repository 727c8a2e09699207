//! Bare connections: each is a task of its handler's. Knows no protocol.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::thread;
use std::time::{Duration, Instant};

use uring_ring::GroupId;

use super::Worker;
use super::gate::Newcomer;
use super::rt::{self, ByteCounts, Origin, Stream};
use crate::app::{Progress, Service};
use crate::errands::Errands;
use crate::figures::Fault;
use crate::http::{Request, local_of, peer_of};
use crate::process::scoreboard::WorkerPage;

/// What is known of a connection besides its bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnMeta {
    /// The address at the other end; `None` when that is a Unix socket, or has gone already.
    pub peer: Option<SocketAddr>,
    /// Our own address, to which the peer has connected; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// The worker's place in the pool, from 0.
    pub worker_id: usize,
    /// When the worker took it.
    pub accepted_at: Instant,
}

type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// A handler of connections, behind a type that doesn't show which one it is.
pub(crate) trait Serve {
    fn serve(&self, stream: Stream, meta: ConnMeta) -> Serving;
}

/// The server of one handler.
pub(crate) fn server<H>(handler: H) -> Box<dyn Serve>
where
    H: AsyncFn(Stream, ConnMeta) -> io::Result<()> + 'static,
{
    Box::new(Handler(Rc::new(handler)))
}

struct Handler<H>(Rc<H>);

impl<H> Serve for Handler<H>
where
    H: AsyncFn(Stream, ConnMeta) -> io::Result<()> + 'static,
{
    fn serve(&self, stream: Stream, meta: ConnMeta) -> Serving {
        let handler = Rc::clone(&self.0);
        Box::pin(async move {
            if let Err(error) = handler(stream, meta).await {
                log::debug!("a connection ended: {error}");
            }
        })
    }
}

/// The service of a worker that has no requests.
pub(super) struct NoRequests;

impl Service for NoRequests {
    fn call(&self, _: Request, _: &mut Context<'_>) -> Progress {
        unreachable!("no connection of this worker is taken for HTTP")
    }
}

/// The connections of one worker.
pub(super) struct Connections {
    server: Box<dyn Serve>,
    worker_id: usize,
    buffers: GroupId,
    errands: Rc<Errands>,
    page: &'static WorkerPage,
    /// How old one may become.
    timeout: Option<Duration>,
    pub(super) tally: Rc<Tally>,
}

/// What the ends of connections leave to be counted.
#[derive(Default)]
pub(super) struct Tally {
    open: Cell<usize>,
    /// The client that each counted for, if it did.
    ended: RefCell<Vec<Option<u64>>>,
    bytes: Rc<ByteCounts>,
}

impl Tally {
    /// How many are open: their handlers haven't returned.
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// The clients of those that have ended since the last call, where they counted for any.
    fn take_ended(&self) -> Vec<Option<u64>> {
        self.ended.take()
    }

    /// Bytes received and sent since the last call.
    fn take_bytes(&self) -> (u64, u64) {
        (self.bytes.received.take(), self.bytes.sent.take())
    }
}

impl Connections {
    fn stream(&self, Newcomer { socket, passed_as, .. }: Newcomer) -> Stream {
        let origin = Origin {
            errands: Rc::clone(&self.errands),
            buffers: self.buffers,
            counts: Rc::clone(&self.tally.bytes),
            page: self.page,
            passed_as,
        };
        Stream::new(socket, origin)
    }

    /// The task of a new connection, which counts for this client.
    fn begin(&self, newcomer: Newcomer, client: Option<u64>, now: Instant) -> Serving {
        let fd = newcomer.socket.as_raw_fd();
        let meta = ConnMeta {
            peer: peer_of(fd),
            local: local_of(fd),
            worker_id: self.worker_id,
            accepted_at: now,
        };
        let (page, tally, timeout) = (self.page, Rc::clone(&self.tally), self.timeout);
        tally.open.set(tally.open.get() + 1);
        let open = Open { page, tally, client };
        let serving = self.server.serve(self.stream(newcomer), meta);
        Box::pin(async move {
            let _open = open;
            match timeout {
                Some(timeout) => {
                    if rt::timeout(timeout, serving).await.is_err() {
                        log::debug!("a connection ended: it had become {timeout:?} old");
                    }
                }
                None => serving.await,
            }
        })
    }
}

impl Worker {
    /// Serves connections by this from now on, and none by HTTP.
    pub(super) fn serve_bare(&mut self, server: Box<dyn Serve>) {
        self.bare = Some(Connections {
            server,
            worker_id: self.id,
            buffers: self.buffers,
            errands: Rc::clone(&self.errands),
            page: self.page,
            timeout: self.gate.connection_timeout(),
            tally: Rc::new(Tally::default()),
        });
    }

    /// A connection for a handler that knows what to do with it.
    pub(super) fn on_bare_connection(&mut self, newcomer: Newcomer) {
        let Some(bare) = &self.bare else { return };
        let client = self.gate.client_to_count(peer_of(newcomer.socket.as_raw_fd()));
        if let Some(client) = client
            && !self.gate.count(client)
        {
            self.gate.discount(client);
            self.around.figures.on_fault(Fault::TooManyConnections);
            self.around.traffic.closed += 1;
            return drop(bare.stream(newcomer));
        }
        let task = bare.begin(newcomer, client, self.around.now);
        self.runtime.start(task);
    }

    /// Counts what bare connections have done since.
    pub(super) fn on_bare_ends(&mut self) {
        let Some(bare) = &self.bare else { return };
        let (received, sent) = bare.tally.take_bytes();
        self.around.traffic.bytes_received += received;
        self.around.traffic.bytes_sent += sent;
        let closed = self.around.traffic.closed;
        for client in bare.tally.take_ended() {
            client.into_iter().for_each(|client| self.gate.discount(client));
            self.gate.on_removed();
            self.around.traffic.closed += 1;
        }
        if self.around.traffic.closed > closed {
            let connections = self.connections();
            self.acceptor.arm(&mut self.ring, connections);
        }
    }
}

/// A connection whose handler hasn't returned.
struct Open {
    page: &'static WorkerPage,
    tally: Rc<Tally>,
    client: Option<u64>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if thread::panicking() {
            self.page.figures.on_fault(Fault::Panicked);
        }
        self.tally.open.set(self.tally.open.get() - 1);
        self.tally.ended.borrow_mut().push(self.client);
    }
}
