//! A connection without a socket: bytes in, bytes out, as fast as they can be handled. For
//! benches and fuzzers; no promise is made about it.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use crate::app::files::range::{Ranges, parse};
use crate::app::{Handler, Service, service};
use crate::config::LogFormat;
use crate::conn::{
    Action, Connection, DateField, Draining, Env, FileRead, Outgoing, Pools, Record, Settings,
};
use crate::figures::Figures;
use crate::guard::{Guard, Lines, Quota, Rate, RateTable};
use crate::http::Client;
use crate::proto::h1::HeadLimits;

/// A client and a server that share a thread, and a clock of their own.
pub struct Conversation {
    connection: Connection,
    service: Box<dyn Service>,
    settings: Settings,
    pools: Pools,
    guard: Guard,
    figures: Box<Figures>,
    date: DateField,
    now: Instant,
    wakes: Arc<Wakes>,
    waker: Waker,
    draining: Draining,
    /// Given out to be sent, and not read by the client yet.
    unread: Option<Outgoing>,
    is_closed: bool,
    /// Lends its memory to lines of the access log.
    written: Vec<u8>,
}

/// Whether somebody asked to be polled.
#[derive(Default)]
struct Wakes(AtomicBool);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Conversation {
    /// A fresh connection to this handler.
    pub fn new(handler: impl Handler) -> Conversation {
        let minute = Duration::from_secs(60);
        let settings = Settings::generous(HeadLimits::default(), minute);
        let (now, wakes) = (Instant::now(), Arc::<Wakes>::default());
        Conversation {
            connection: Connection::new(-1, now + settings.head_timeout),
            service: service(handler),
            settings,
            pools: Pools::default(),
            guard: Guard::new(0),
            figures: Box::new(Figures::new()),
            date: DateField::new(now, SystemTime::UNIX_EPOCH),
            now,
            waker: Waker::from(Arc::clone(&wakes)),
            wakes,
            draining: Draining::No,
            unread: None,
            is_closed: false,
            written: Vec::new(),
        }
    }

    /// The same with a guard: lines of a JSON access log (which go nowhere), a limit of a client's
    /// rate, ids in the responses.
    pub fn guarded(handler: impl Handler, has_log: bool, has_rate: bool) -> Conversation {
        let mut conversation = Conversation::new(handler);
        let guard = &mut conversation.guard;
        if has_log {
            guard.lines = Some(Lines::new(LogFormat::Json, 1 << 20, SystemTime::UNIX_EPOCH));
        }
        if has_rate {
            let words: Vec<AtomicU64> = (0..1 << 12).map(|_| AtomicU64::new(0)).collect();
            let quota = Quota::new(1_000_000, Duration::from_secs(86_400));
            guard.rate = Some(Rate::new(RateTable::new(words.leak(), 0), quota, true));
        }
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        let client = Client::new(Some(client), &Rc::default());
        conversation.connection.set_record(Record::new(client, None));
        conversation
    }

    /// The client says something, and reads what the server answers at once: appended to `heard`.
    pub fn say(&mut self, bytes: &[u8], heard: &mut Vec<u8>) {
        self.write(bytes);
        self.read(heard);
        /// What a worker writes at once.
        const WRITE_BYTES: usize = 32 << 10;
        if let Some(lines) = self.guard.lines.as_mut().filter(|lines| lines.len() > WRITE_BYTES) {
            lines.take(usize::MAX, &mut self.written);
            self.written.clear();
            lines.on_written(&[]);
        }
    }

    /// The client says something and reads nothing. The bytes are handed over as a socket does it:
    /// none when the server doesn't receive. Returns whether it did.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        let wants_input = !self.is_closed && self.connection.wants_input();
        if wants_input {
            self.tell(|connection, env| connection.handle_bytes(bytes, env));
        }
        wants_input
    }

    /// The client reads all that it can.
    pub fn read(&mut self, heard: &mut Vec<u8>) {
        while let Some(Outgoing { head, body }) = self.unread.take() {
            heard.extend_from_slice(&head);
            heard.extend_from_slice(body.as_deref().unwrap_or_default());
            self.tell(|connection, env| connection.handle_sent(head, env));
        }
    }

    /// The client says that it has said all.
    pub fn end(&mut self) {
        self.tell(Connection::handle_end);
    }

    /// The connection breaks.
    pub fn sever(&mut self) {
        self.tell(|connection, env| connection.handle_failure(env));
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        if !self.is_closed && self.connection.poll_timeout().is_some_and(|at| at <= self.now) {
            self.tell(Connection::handle_timeout);
        }
    }

    /// The server begins to stop.
    pub fn drain(&mut self) {
        self.draining = Draining::Closing;
        self.tell(|connection, env| {
            connection.handle_drain(env.now);
            connection.handle_leaving(env);
        });
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn tell(&mut self, fact: impl FnOnce(&mut Connection, &mut Env<'_>)) {
        if self.is_closed {
            return;
        }
        let mut env = Env {
            now: self.now,
            nanos: 0,
            settings: &self.settings,
            service: &*self.service,
            waker: &self.waker,
            date: &self.date,
            pools: &mut self.pools,
            guard: &mut self.guard,
            figures: &self.figures,
            draining: self.draining,
        };
        fact(&mut self.connection, &mut env);
        loop {
            while let Some(action) = self.connection.poll_action(&mut env) {
                assert!(!self.is_closed, "nothing follows a close");
                match action {
                    Action::Send => {
                        let outgoing = self.connection.take_outgoing(&env);
                        assert!(self.unread.is_none(), "one send at a time");
                        self.unread = Some(outgoing);
                    }
                    Action::Read(read) => {
                        let (buffer, result) = run(*read);
                        self.connection.handle_read(buffer, result, &mut env);
                    }
                    // Nothing of it is in the page cache, so that it is read.
                    Action::SendFile(send) => self.connection.handle_file_sent(*send, &mut env),
                    Action::ShutdownWrite => {}
                    Action::Abort | Action::Close => self.is_closed = true,
                }
            }
            if !self.wakes.0.load(Ordering::Relaxed) {
                break;
            }
            self.wakes.0.store(false, Ordering::Relaxed);
            self.connection.handle_wake(&mut env);
        }
    }
}

/// Reads a part of a file, and waits for it.
pub(crate) fn run(
    FileRead { file, offset, mut buffer, count }: FileRead,
) -> (Vec<u8>, io::Result<usize>) {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count as usize];
        let count = File::from(file.try_clone()?).read_at(&mut bytes, offset)?;
        bytes.truncate(count);
        Ok(bytes)
    };
    let result = read().map(|bytes| {
        buffer.extend_from_slice(&bytes);
        bytes.len()
    });
    (buffer, result)
}

/// The parts that a Range field asks for of a file of this length; none where that is the whole, or
/// nothing that there is.
pub fn ranges(field: &[u8], length: u64) -> Vec<Range<u64>> {
    match parse(field, length) {
        Ranges::Parts(parts) => parts,
        Ranges::Whole | Ranges::Unsatisfiable => Vec::new(),
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conversation")
    }
}
