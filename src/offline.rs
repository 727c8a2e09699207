//! A connection without a socket: bytes in, bytes out, as fast as they can be handled. For
//! benches and fuzzers; no promise is made about it.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use crate::app::files::range::{Ranges, parse};
use crate::app::{Handler, Service, service};
use crate::conn::{
    Action, BodyLimits, Connection, DateField, Draining, Env, FileRead, Pools, Settings,
};
use crate::figures::Figures;
use crate::proto::h1::HeadLimits;

/// A client and a server that share a thread.
pub struct Conversation {
    connection: Connection,
    service: Box<dyn Service>,
    settings: Settings,
    pools: Pools,
    figures: Box<Figures>,
    date: DateField,
    now: Instant,
    is_closed: bool,
}

impl Conversation {
    /// A fresh connection to this handler.
    pub fn new(handler: impl Handler) -> Conversation {
        let minute = Duration::from_secs(60);
        let settings = Settings {
            head: HeadLimits::default(),
            body: BodyLimits { bytes_max: 1 << 20, collected_bytes_max: 1 << 20 },
            head_timeout: minute,
            idle_timeout: minute,
            body_timeout: minute,
            write_timeout: minute,
        };
        let now = Instant::now();
        Conversation {
            connection: Connection::new(-1, now + settings.head_timeout),
            service: service(handler),
            settings,
            pools: Pools::default(),
            figures: Box::new(Figures::new()),
            date: DateField::new(now, SystemTime::UNIX_EPOCH),
            now,
            is_closed: false,
        }
    }

    /// The client says something, and reads what the server answers at once: appended to `heard`.
    pub fn say(&mut self, bytes: &[u8], heard: &mut Vec<u8>) {
        let mut env = Env {
            now: self.now,
            nanos: 0,
            settings: &self.settings,
            service: &*self.service,
            waker: Waker::noop(),
            date: &self.date,
            pools: &mut self.pools,
            figures: &self.figures,
            draining: Draining::No,
        };
        self.connection.handle_bytes(bytes, &mut env);
        while let Some(action) = self.connection.poll_action(&mut env) {
            match action {
                Action::Send(outgoing) => {
                    heard.extend_from_slice(&outgoing.head);
                    heard.extend_from_slice(&outgoing.body);
                    self.connection.handle_sent(outgoing.head, &mut env);
                }
                Action::Read(read) => {
                    let (buffer, result) = run(read);
                    self.connection.handle_read(buffer, result, &mut env);
                }
                Action::SendFile(send) => self.connection.handle_file_sent(*send, &mut env), // read it
                Action::ShutdownWrite => {}
                Action::Abort | Action::Close => self.is_closed = true,
            }
        }
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.is_closed
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
