//! The simulated kernel: files, armed operations, completions and virtual time. Knows no slots
//! and no tags; it answers in completion entries, as the real one does.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::plan::{Fault, Plan, Rng};
use super::stream::{Arrival, Stream};
use crate::address::Address;
use crate::buffers::{BufferRing, GroupId};
use crate::errno::Errno;
use crate::kernel::Cqe;
use crate::passing;

// Completion flags, io_uring_enter(2).
const CQE_BUFFER: u32 = 1 << 0;
const CQE_MORE: u32 = 1 << 1;
const CQE_BUFFER_SHIFT: u32 = 16;

/// What a step of a waiting turn takes: about the round trip of a local network.
const TICK: Duration = Duration::from_micros(50);

/// A late completion comes at most this many ticks after its cause.
const LATE_TICKS_MAX: usize = 8;

pub(super) type Shared = Rc<RefCell<Machine>>;

/// Index of a file; never reused, and independent of the descriptor's number, so that a run
/// doesn't depend on what else the process has open.
pub(super) type FileId = usize;

/// What a submission entry asks for.
#[derive(Debug)]
pub(super) enum Request {
    On { fd: RawFd, work: Work },
    Close { fd: RawFd, cancel: bool },
    Cancel { target: u64 },
    WaitChild { pid: i32 },
    Open { path: Vec<u8> },
}

/// What an operation armed on a file has to do.
#[derive(Debug)]
pub(super) enum Work {
    Accept {
        multishot: bool,
        wait: bool,
    },
    /// Connections that have come, when that was told last.
    Watch {
        seen: u64,
    },
    Connect {
        peer: Address,
    },
    Recv {
        group: GroupId,
        multishot: bool,
    },
    Send {
        bytes: Vec<u8>,
        sent: usize,
    },
    Read {
        capacity: usize,
    },
    ReadAt {
        offset: u64,
        count: usize,
    },
    /// A write, or a message that passes descriptors.
    Write {
        bytes: Vec<u8>,
        passes: Vec<RawFd>,
    },
    RecvFds {
        capacity: usize,
        fds_max: usize,
        wait: bool,
    },
    WaitWritable,
}

#[derive(Debug)]
struct Armed {
    user_data: u64,
    work: Work,
    /// Not tried yet: some errors show at once, though nothing has arrived.
    fresh: bool,
}

#[derive(Debug)]
enum Kind {
    Listener {
        queue: VecDeque<FileId>,
        arrivals: u64,
    },
    /// A stream before it is connected.
    Socket,
    Stream(Stream),
    Readable(Readable),
    File(Rc<[u8]>),
}

#[derive(Debug, Default)]
struct Readable {
    messages: VecDeque<Message>,
    ended: bool,
    /// It is a socket, so that it can be sent to.
    is_line: bool,
    /// What the server wrote, one by one, and how many descriptors it passed.
    written: Vec<Vec<u8>>,
    passed: usize,
}

#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    /// They get descriptors when they are received.
    connections: Vec<FileId>,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    /// The server has its descriptor.
    open: bool,
    armed: Vec<Armed>,
}

/// A file lives while it has a descriptor, an operation, or a place in an accept queue or message.
impl Node {
    fn is_unused(&self) -> bool {
        !self.open && self.armed.is_empty()
    }
}

/// What a completion brings beside its entry.
#[derive(Debug)]
pub(super) enum Payload {
    None,
    Descriptor(OwnedFd),
    Bytes(Vec<u8>),
    Message { bytes: Vec<u8>, fds: Vec<OwnedFd>, arrival: passing::Arrival },
    Exit(ExitStatus),
    Closed,
}

#[derive(Debug)]
pub(super) struct Posted {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
    pub(super) payload: Payload,
    lane: Lane,
    due: u64,
}

impl Posted {
    pub(super) fn cqe(&self) -> Cqe {
        Cqe { user_data: self.user_data, result: self.result, flags: self.flags }
    }
}

/// Completions of one lane keep their order, whatever happens to others: what a file gave, and
/// what one operation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    File(FileId),
    Operation(u64),
}

struct Group {
    ring: Rc<BufferRing>,
    /// The kernel's place in the ring: what was taken so far.
    head: u16,
}

pub(super) struct Machine {
    plan: Plan,
    rng: Rng,
    injected: [u64; Fault::EACH.len()],

    started: Instant,
    elapsed: Duration,
    tick: u64,
    idle_turns: u64,
    stuck: bool,

    /// Every descriptor is a copy of this one: harmless to drop, and never two at a time.
    blank: File,
    nodes: Vec<Node>,
    /// Those that can still do something, in order of their making.
    alive: Vec<FileId>,
    /// Looked up, never walked: numbers differ between runs.
    fds: BTreeMap<RawFd, FileId>,
    groups: Vec<Group>,
    /// What an open finds.
    names: BTreeMap<Vec<u8>, Rc<[u8]>>,

    submitted: VecDeque<(u64, Request)>,
    homes: BTreeMap<u64, FileId>,
    /// Who can be connected to, and the connections that nobody has taken there.
    peers: Vec<(Address, VecDeque<FileId>)>,
    waiting: Vec<(i32, u64)>,
    zombies: BTreeMap<i32, ExitStatus>,
    in_flight: usize,

    posted: Vec<Posted>,
    queue: VecDeque<Posted>,
}

/// The ring's side.
impl Machine {
    pub(super) fn new(plan: Plan) -> Shared {
        Rc::new(RefCell::new(Machine {
            plan,
            rng: Rng::new(plan.seed),
            injected: [0; Fault::EACH.len()],
            started: Instant::now(),
            elapsed: Duration::ZERO,
            tick: 0,
            idle_turns: 0,
            stuck: false,
            blank: File::open("/dev/null").expect("/dev/null opens"),
            nodes: Vec::new(),
            alive: Vec::new(),
            fds: BTreeMap::new(),
            groups: Vec::new(),
            names: BTreeMap::new(),
            submitted: VecDeque::new(),
            homes: BTreeMap::new(),
            peers: Vec::new(),
            waiting: Vec::new(),
            zombies: BTreeMap::new(),
            in_flight: 0,
            posted: Vec::new(),
            queue: VecDeque::new(),
        }))
    }

    pub(super) fn submit(&mut self, user_data: u64, request: Request) {
        self.in_flight += 1;
        self.submitted.push_back((user_data, request));
    }

    /// Runs until there is a completion, the time is up, or nothing can happen any more.
    pub(super) fn turn(&mut self, wait: Option<Duration>) -> usize {
        self.stuck = false;
        let deadline = wait.map(|wait| self.elapsed.saturating_add(wait));
        loop {
            self.step();
            if !self.queue.is_empty() || deadline.is_some_and(|end| self.elapsed >= end) {
                return self.queue.len();
            }
            if self.can_go_on() {
                let next = self.elapsed + TICK;
                self.elapsed = deadline.map_or(next, |end| next.min(end));
            } else if let Some(end) = deadline {
                self.elapsed = end;
                return 0;
            } else {
                self.idle_turns += 1;
                self.stuck = true;
                return 0;
            }
        }
    }

    pub(super) fn poll(&mut self) -> Option<Posted> {
        let posted = self.queue.pop_front()?;
        self.in_flight -= usize::from(posted.flags & CQE_MORE == 0);
        Some(posted)
    }

    pub(super) fn add_group(&mut self, ring: Rc<BufferRing>) {
        self.groups.push(Group { ring, head: 0 });
    }

    pub(super) fn shutdown(&mut self, fd: RawFd, how: Shutdown) -> Result<(), Errno> {
        match self.fds.get(&fd).map(|&at| &mut self.nodes[at].kind) {
            Some(Kind::Stream(stream)) => stream.shutdown(how),
            Some(_) => Err(Errno::new(libc::ENOTSOCK)),
            None => Err(Errno::new(libc::EBADF)),
        }
    }

    /// The ring is gone. What was pushed still runs, as in a real ring's drop; then nothing is in
    /// flight any more, and nobody will read a completion.
    pub(super) fn abandon(&mut self) {
        while let Some((user_data, request)) = self.submitted.pop_front() {
            self.issue(user_data, request);
        }
        self.homes.clear();
        self.waiting.clear();
        self.in_flight = 0;
        for posted in self.posted.drain(..).chain(self.queue.drain(..)).collect::<Vec<_>>() {
            match &posted.payload {
                Payload::Descriptor(fd) => self.forget_fd(fd.as_raw_fd()),
                Payload::Message { fds, .. } => {
                    fds.iter().for_each(|fd| self.forget_fd(fd.as_raw_fd()));
                }
                _ => {}
            }
        }
        for at in self.alive.clone() {
            self.nodes[at].armed.clear();
            self.release_if_unused(at);
        }
    }
}

/// The world's side.
impl Machine {
    pub(super) fn add_listener(&mut self) -> OwnedFd {
        let at = self.add(Kind::Listener { queue: VecDeque::new(), arrivals: 0 });
        self.open(at).expect("a descriptor for a listener")
    }

    pub(super) fn add_readable(&mut self, is_line: bool) -> OwnedFd {
        let at = self.add(Kind::Readable(Readable { is_line, ..Readable::default() }));
        self.open(at).expect("a descriptor for a readable file")
    }

    pub(super) fn add_file(&mut self, name: Option<&str>, bytes: &[u8]) -> OwnedFd {
        let bytes: Rc<[u8]> = bytes.into();
        if let Some(name) = name {
            self.names.insert(name.into(), Rc::clone(&bytes));
        }
        let at = self.add(Kind::File(bytes));
        self.open(at).expect("a descriptor for a file")
    }

    /// A connection that waits to be accepted; refused when nobody listens there any more.
    pub(super) fn connect(&mut self, listener: RawFd) -> FileId {
        let at = self.add(Kind::Stream(Stream::default()));
        match self.fds.get(&listener).map(|&on| &mut self.nodes[on].kind) {
            Some(Kind::Listener { queue, arrivals }) => {
                queue.push_back(at);
                *arrivals += 1;
            }
            _ => self.refuse(at),
        }
        at
    }

    pub(super) fn add_connection(&mut self) -> (OwnedFd, FileId) {
        let at = self.add(Kind::Stream(Stream::default()));
        (self.open(at).expect("a descriptor for a connection"), at)
    }

    pub(super) fn add_socket(&mut self) -> OwnedFd {
        let at = self.add(Kind::Socket);
        self.open(at).expect("a descriptor for a socket")
    }

    pub(super) fn listen_at(&mut self, peer: &Address) {
        if self.peer(peer).is_none() {
            self.peers.push((peer.clone(), VecDeque::new()));
        }
    }

    pub(super) fn refuse_at(&mut self, peer: &Address) {
        self.peers.retain(|(address, _)| address != peer);
    }

    pub(super) fn take_connection(&mut self, peer: &Address) -> Option<FileId> {
        self.peer(peer)?.pop_front()
    }

    fn peer(&mut self, peer: &Address) -> Option<&mut VecDeque<FileId>> {
        self.peers.iter_mut().find(|(address, _)| address == peer).map(|(_, queue)| queue)
    }

    pub(super) fn queued(&self, listener: RawFd) -> usize {
        match self.fds.get(&listener).map(|&at| &self.nodes[at].kind) {
            Some(Kind::Listener { queue, .. }) => queue.len(),
            _ => 0,
        }
    }

    pub(super) fn stream(&mut self, at: FileId) -> &mut Stream {
        match &mut self.nodes[at].kind {
            Kind::Stream(stream) => stream,
            other => unreachable!("a client of {other:?}"),
        }
    }

    /// Adds a message for the readers of `fd`; `None` says that there will be no more.
    pub(super) fn feed(&mut self, fd: RawFd, message: Option<&[u8]>) {
        let readable =
            self.readable(fd).expect("only what is a readable, and still is, can be fed");
        match message {
            Some(bytes) => readable
                .messages
                .push_back(Message { bytes: bytes.to_vec(), connections: Vec::new() }),
            None => readable.ended = true,
        }
    }

    /// Feeds a message that brings new connections.
    pub(super) fn pass(&mut self, fd: RawFd, bytes: &[u8], count: usize) -> Vec<FileId> {
        self.feed(fd, Some(bytes));
        let connections: Vec<FileId> =
            (0..count).map(|_| self.add(Kind::Stream(Stream::default()))).collect();
        let messages = &mut self.readable(fd).expect("just fed").messages;
        messages.back_mut().expect("just fed").connections.clone_from(&connections);
        connections
    }

    pub(super) fn passed(&self, fd: RawFd) -> usize {
        match self.fds.get(&fd).map(|&at| &self.nodes[at].kind) {
            Some(Kind::Readable(readable)) => readable.passed,
            _ => 0,
        }
    }

    pub(super) fn take_written(&mut self, fd: RawFd) -> Vec<Vec<u8>> {
        self.readable(fd).map_or_else(Vec::new, |readable| std::mem::take(&mut readable.written))
    }

    fn readable(&mut self, fd: RawFd) -> Option<&mut Readable> {
        match self.fds.get(&fd).map(|&at| &mut self.nodes[at].kind) {
            Some(Kind::Readable(readable)) => Some(readable),
            _ => None,
        }
    }

    pub(super) fn end_child(&mut self, pid: i32, status: ExitStatus) {
        match self.waiting.iter().position(|&(waited, _)| waited == pid) {
            Some(position) => {
                let (_, user_data) = self.waiting.remove(position);
                self.post(Lane::Operation(user_data), user_data, Ok(0), Payload::Exit(status));
            }
            None => _ = self.zombies.insert(pid, status),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.started + self.elapsed
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.elapsed += time;
    }

    pub(super) fn idle_turns(&self) -> u64 {
        self.idle_turns
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    pub(super) fn injected(&self, fault: Fault) -> u64 {
        self.injected[fault as usize]
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn leased(&self) -> usize {
        self.groups.iter().map(|group| usize::from(group.ring.leased())).sum()
    }

    pub(super) fn open_connections(&self) -> usize {
        let open =
            |&&at: &&FileId| self.nodes[at].open && matches!(self.nodes[at].kind, Kind::Stream(_));
        self.alive.iter().filter(open).count()
    }
}

/// Time.
impl Machine {
    fn step(&mut self) {
        self.tick += 1;
        for index in 0..self.alive.len() {
            self.arrive(self.alive[index]);
        }
        while let Some((user_data, request)) = self.submitted.pop_front() {
            self.issue(user_data, request);
        }
        for index in 0..self.alive.len() {
            self.progress(self.alive[index]);
        }
        let Machine { alive, nodes, .. } = self;
        alive.retain(|&at| match &nodes[at].kind {
            Kind::Stream(stream) => !stream.is_released(),
            Kind::Listener { .. } | Kind::Socket | Kind::Readable(_) | Kind::File(_) => {
                !nodes[at].is_unused()
            }
        });
        self.publish();
    }

    /// Something will happen without anybody's doing.
    fn can_go_on(&self) -> bool {
        !self.posted.is_empty()
            || self.alive.iter().any(|&at| match &self.nodes[at].kind {
                Kind::Stream(stream) => stream.in_transit(),
                Kind::Listener { .. } | Kind::Socket | Kind::Readable(_) | Kind::File(_) => false,
            })
    }

    /// Lets bytes of a client arrive: all of them, or some.
    fn arrive(&mut self, at: FileId) {
        let Kind::Stream(stream) = &self.nodes[at].kind else { return };
        if !stream.in_transit() {
            return;
        }
        let on_wire = stream.on_wire();
        if on_wire > 0 && self.chance(Fault::Reset) {
            return self.stream(at).die();
        }
        let mut count = on_wire;
        if on_wire > 1 && self.chance(Fault::Split) {
            // Half of the pieces are tiny, where parsers break; the others get long requests on.
            let most = if self.rng.below(2) == 0 { on_wire.min(8) } else { on_wire };
            count = 1 + self.rng.below(most);
        }
        self.stream(at).arrive(count);
    }

    /// Moves the completions that are due to where the ring reads them.
    fn publish(&mut self) {
        let tick = self.tick;
        if self.posted.iter().all(|posted| posted.due > tick) {
            return;
        }
        for posted in std::mem::take(&mut self.posted) {
            if posted.due > tick {
                self.posted.push(posted);
                continue;
            }
            let mut place = self.queue.len();
            while place > 0
                && self.queue[place - 1].lane != posted.lane
                && self.chance(Fault::Reordered)
            {
                place -= 1;
            }
            self.queue.insert(place, posted);
        }
    }

    fn chance(&mut self, fault: Fault) -> bool {
        let happens = self.rng.chance(self.plan.faults.per_mille(fault));
        self.injected[fault as usize] += u64::from(happens);
        happens
    }
}

/// Files.
impl Machine {
    fn add(&mut self, kind: Kind) -> FileId {
        let at = self.nodes.len();
        self.nodes.push(Node { kind, open: false, armed: Vec::new() });
        self.alive.push(at);
        at
    }

    fn open(&mut self, at: FileId) -> io::Result<OwnedFd> {
        let fd = OwnedFd::from(self.blank.try_clone()?);
        // A number that comes again was dropped meanwhile, which is close(2) without the ring.
        self.forget_fd(fd.as_raw_fd());
        self.fds.insert(fd.as_raw_fd(), at);
        self.nodes[at].open = true;
        Ok(fd)
    }

    /// close(2): operations in flight keep the file itself.
    fn forget_fd(&mut self, fd: RawFd) {
        if let Some(at) = self.fds.remove(&fd) {
            self.nodes[at].open = false;
            self.release_if_unused(at);
        }
    }

    fn release_if_unused(&mut self, at: FileId) {
        if !self.nodes[at].is_unused() {
            return;
        }
        match &mut self.nodes[at].kind {
            Kind::Stream(stream) => stream.release(),
            Kind::Listener { queue, .. } => {
                for waiting in std::mem::take(queue) {
                    self.refuse(waiting);
                }
            }
            Kind::Readable(readable) => {
                for message in std::mem::take(&mut readable.messages) {
                    self.lose(message.connections);
                }
            }
            Kind::Socket | Kind::File(_) => {}
        }
    }

    /// Closes connections that were on their way to the server.
    fn lose(&mut self, connections: Vec<FileId>) {
        connections.into_iter().for_each(|at| self.stream(at).release());
    }

    fn refuse(&mut self, at: FileId) {
        self.stream(at).refuse();
    }
}

/// Operations.
impl Machine {
    fn issue(&mut self, user_data: u64, request: Request) {
        let own = Lane::Operation(user_data);
        match request {
            Request::On { fd, work } => self.arm(user_data, fd, work),
            Request::Close { fd, cancel } => {
                if let Some(&at) = self.fds.get(&fd) {
                    while cancel && !self.nodes[at].armed.is_empty() {
                        self.cancel_one(at, 0);
                    }
                }
                self.forget_fd(fd); // a file that we didn't make is closed all the same
                self.post(own, user_data, Ok(0), Payload::Closed);
            }
            Request::Cancel { target } => {
                let result = self.cancel(target);
                self.post(own, user_data, result.map(|()| 0), Payload::None);
            }
            Request::Open { path } => {
                let bytes = self.names.get(&path).cloned();
                let opened = match bytes {
                    None => Err(Errno::new(libc::ENOENT)),
                    Some(_) if self.chance(Fault::NoDescriptors) => Err(Errno::PROCESS_FILES),
                    Some(bytes) => {
                        let at = self.add(Kind::File(bytes));
                        self.open(at).map_err(|_| Errno::PROCESS_FILES)
                    }
                };
                match opened {
                    Ok(fd) => self.post(own, user_data, Ok(0), Payload::Descriptor(fd)),
                    Err(errno) => self.post(own, user_data, Err(errno), Payload::None),
                }
            }
            Request::WaitChild { pid } => match self.zombies.remove(&pid) {
                Some(status) => self.post(own, user_data, Ok(0), Payload::Exit(status)),
                None => self.waiting.push((pid, user_data)),
            },
        }
    }

    fn arm(&mut self, user_data: u64, fd: RawFd, mut work: Work) {
        let refusal = match self.fds.get(&fd).map(|&at| &self.nodes[at].kind) {
            None => Some(libc::EBADF),
            Some(Kind::File(bytes)) => match work {
                Work::ReadAt { offset, count } => {
                    let bytes = Rc::clone(bytes);
                    return self.read_at(user_data, &bytes, offset, count);
                }
                _ => Some(libc::EINVAL),
            },
            Some(_) if matches!(work, Work::ReadAt { .. }) => Some(libc::ESPIPE),
            Some(Kind::Listener { .. }) => match work {
                Work::Accept { .. } | Work::Watch { .. } => None,
                Work::Recv { .. } | Work::Read { .. } | Work::RecvFds { .. } => {
                    Some(libc::ENOTCONN)
                }
                Work::Connect { .. } => Some(libc::EISCONN), // as Linux says it
                _ => Some(libc::EPIPE),
            },
            Some(Kind::Socket) => match work {
                Work::Connect { peer } => return self.connect_to(user_data, fd, &peer),
                Work::Accept { .. } => Some(libc::EINVAL),
                Work::Recv { .. } | Work::Read { .. } | Work::RecvFds { .. } => {
                    Some(libc::ENOTCONN)
                }
                _ => Some(libc::EPIPE),
            },
            Some(Kind::Stream(_)) => match work {
                Work::Accept { .. } | Work::Watch { .. } => Some(libc::EINVAL),
                Work::Connect { .. } => Some(libc::EISCONN),
                // TCP would lose the descriptors without a word; here that is told.
                Work::RecvFds { .. } => Some(libc::EOPNOTSUPP),
                Work::Write { ref passes, .. } if !passes.is_empty() => Some(libc::EOPNOTSUPP),
                Work::Write { bytes, .. } => {
                    work = Work::Send { bytes, sent: 0 };
                    None
                }
                _ => None,
            },
            Some(Kind::Readable(Readable { is_line, .. })) => match work {
                Work::Send { bytes, .. } if *is_line => {
                    return self.write(user_data, fd, bytes, &[]);
                }
                Work::Accept { .. }
                | Work::Connect { .. }
                | Work::Watch { .. }
                | Work::Recv { .. }
                | Work::Send { .. } => Some(libc::ENOTSOCK),
                Work::Write { bytes, passes } => return self.write(user_data, fd, bytes, &passes),
                _ => None,
            },
        };
        if let Some(errno) = refusal {
            let errno = Errno::new(errno);
            return self.post(Lane::Operation(user_data), user_data, Err(errno), Payload::None);
        }
        let at = self.fds[&fd];
        self.nodes[at].armed.push(Armed { user_data, work, fresh: true });
        self.homes.insert(user_data, at);
        self.progress(at);
    }

    /// Whoever listens there has the connection before the answer is read.
    fn connect_to(&mut self, user_data: u64, fd: RawFd, peer: &Address) {
        let at = self.fds[&fd];
        let result = match self.peer(peer) {
            Some(queue) => {
                queue.push_back(at);
                self.nodes[at].kind = Kind::Stream(Stream::default());
                Ok(0)
            }
            None => Err(Errno::REFUSED),
        };
        self.post(Lane::Operation(user_data), user_data, result, Payload::None);
    }

    /// There is always room, until the end.
    fn write(&mut self, user_data: u64, fd: RawFd, bytes: Vec<u8>, passes: &[RawFd]) {
        let readable = self.readable(fd).expect("its kind is known");
        let result = if readable.ended { Err(Errno::BROKEN_PIPE) } else { Ok(bytes.len()) };
        if result.is_ok() {
            readable.written.push(bytes);
            readable.passed += passes.len();
            // They stay open in other hands, whatever becomes of these numbers.
            for passed in passes {
                self.fds.remove(passed);
            }
        }
        self.post(Lane::Operation(user_data), user_data, result, Payload::None);
    }

    /// What a file has there, or a part of it: a kernel that has to fetch the rest may return what
    /// it has.
    fn read_at(&mut self, user_data: u64, bytes: &[u8], offset: u64, count: usize) {
        let from = bytes.len().min(offset as usize);
        let mut bytes = &bytes[from..][..count.min(bytes.len() - from)];
        if bytes.len() > 1 && self.chance(Fault::Split) {
            bytes = &bytes[..=self.rng.below(bytes.len() - 1)];
        }
        let own = Lane::Operation(user_data);
        self.post(own, user_data, Ok(bytes.len()), Payload::Bytes(bytes.to_vec()));
    }

    /// Does what can be done now on a file; what can't stays armed.
    fn progress(&mut self, at: FileId) {
        if self.nodes[at].armed.is_empty() {
            return;
        }
        self.tell_watchers(at);
        while self.accept_one(at)
            || self.receive_one(at)
            || self.send_one(at)
            || self.tell_writable(at)
        {}
        self.nodes[at].armed.iter_mut().for_each(|armed| armed.fresh = false);
        self.release_if_unused(at);
    }

    fn accept_one(&mut self, at: FileId) -> bool {
        let Node { kind: Kind::Listener { queue, .. }, armed, .. } = &self.nodes[at] else {
            return false;
        };
        let accepts = |armed: &Armed| matches!(armed.work, Work::Accept { .. });
        let Some(position) = armed.iter().position(accepts) else { return false };
        let (first, waiting) = (&armed[position], queue.front().copied());
        let user_data = first.user_data;
        let Work::Accept { multishot, wait } = first.work else { unreachable!() };
        if first.fresh || waiting.is_some() {
            self.nodes[at].armed[position].fresh = false;
            if self.chance(Fault::NoDescriptors) {
                self.finish(at, position, Err(Errno::PROCESS_FILES), Payload::None);
                return true;
            }
        }
        let Some(connection) = waiting else {
            if !wait {
                self.finish(at, position, Err(Errno::AGAIN), Payload::None);
            }
            return !wait;
        };
        match self.open(connection) {
            Ok(fd) => {
                let Kind::Listener { queue, .. } = &mut self.nodes[at].kind else { unreachable!() };
                queue.pop_front();
                let result = fd.as_raw_fd();
                let payload = Payload::Descriptor(fd);
                if multishot {
                    let flags = self.stays_armed(at, position);
                    self.post_flagged(Lane::File(at), user_data, result, flags, payload);
                } else {
                    self.finish(at, position, Ok(result.unsigned_abs() as usize), payload);
                }
            }
            Err(_) => self.finish(at, position, Err(Errno::PROCESS_FILES), Payload::None),
        }
        true
    }

    /// Tells whoever watches a listener that somebody waits there, once for each arrival.
    fn tell_watchers(&mut self, at: FileId) {
        for position in (0..self.nodes[at].armed.len()).rev() {
            let Node { kind: Kind::Listener { queue, arrivals }, armed, .. } = &mut self.nodes[at]
            else {
                return;
            };
            let Armed { user_data, work: Work::Watch { seen }, fresh } = &mut armed[position]
            else {
                continue;
            };
            let is_news = *fresh || *seen < *arrivals;
            *seen = *arrivals;
            if is_news && !queue.is_empty() {
                let user_data = *user_data;
                let flags = self.stays_armed(at, position);
                self.post_flagged(
                    Lane::File(at),
                    user_data,
                    libc::POLLIN.into(),
                    flags,
                    Payload::None,
                );
            }
        }
    }

    /// One step of a receive or read: of the first, or else of one that has not been tried.
    fn receive_one(&mut self, at: FileId) -> bool {
        let Node { kind, armed, .. } = &self.nodes[at];
        let arrival = match kind {
            Kind::Listener { .. } | Kind::Socket | Kind::File(_) => return false,
            Kind::Stream(stream) => stream.arrival(),
            Kind::Readable(readable) if !readable.messages.is_empty() => Arrival::Bytes,
            Kind::Readable(readable) if readable.ended => Arrival::End,
            Kind::Readable(_) => Arrival::Nothing,
        };
        let receives = |armed: &Armed| {
            matches!(armed.work, Work::Recv { .. } | Work::Read { .. } | Work::RecvFds { .. })
        };
        let may = |armed: &Armed| receives(armed) && (armed.fresh || arrival != Arrival::Nothing);
        let Some(position) = armed.iter().position(may) else { return false };
        self.nodes[at].armed[position].fresh = false;
        match self.nodes[at].armed[position].work {
            Work::Recv { group, multishot } => {
                self.receive_into_group(at, position, arrival, group, multishot);
            }
            Work::Read { capacity } => self.read(at, position, arrival, capacity),
            Work::RecvFds { wait: false, .. } if arrival == Arrival::Nothing => {
                self.finish(at, position, Err(Errno::AGAIN), Payload::None);
            }
            Work::RecvFds { capacity, fds_max, .. } => {
                self.receive_fds(at, position, arrival, capacity, fds_max);
            }
            Work::Accept { .. }
            | Work::Connect { .. }
            | Work::Watch { .. }
            | Work::Send { .. }
            | Work::Write { .. }
            | Work::WaitWritable
            | Work::ReadAt { .. } => unreachable!("none of them receives"),
        }
        true
    }

    /// The kernel picks its buffer first, so that without one there is no end and no error either.
    fn receive_into_group(
        &mut self,
        at: FileId,
        position: usize,
        arrival: Arrival,
        group: GroupId,
        multishot: bool,
    ) {
        let offers = |group: &Group| group.ring.fill(group.head, &[]).is_some();
        let offered = self.groups.get(usize::from(group.0)).is_some_and(offers);
        if !offered || (arrival == Arrival::Bytes && self.chance(Fault::NoBuffers)) {
            return self.finish(at, position, Err(Errno::NO_BUFFERS), Payload::None);
        }
        if arrival != Arrival::Bytes {
            return self.finish_without_bytes(at, position, arrival, Payload::None);
        }
        let group = &mut self.groups[usize::from(group.0)];
        let Node { kind: Kind::Stream(stream), armed, .. } = &mut self.nodes[at] else {
            unreachable!("only streams are received from")
        };
        let (buffer, count) = group.ring.fill(group.head, stream.arrived()).expect("just offered");
        group.head = group.head.wrapping_add(1);
        stream.receive(count);
        let user_data = armed[position].user_data;
        let mut flags = CQE_BUFFER | u32::from(buffer) << CQE_BUFFER_SHIFT;
        if multishot {
            flags |= self.stays_armed(at, position);
        } else {
            self.disarm(at, position);
        }
        self.post_flagged(Lane::File(at), user_data, count as i32, flags, Payload::None);
    }

    fn read(&mut self, at: FileId, position: usize, arrival: Arrival, capacity: usize) {
        let bytes = match &mut self.nodes[at].kind {
            _ if arrival != Arrival::Bytes => {
                let payload = Payload::Bytes(Vec::new());
                return self.finish_without_bytes(at, position, arrival, payload);
            }
            Kind::Stream(stream) => {
                let count = capacity.min(stream.arrived().len());
                let bytes = stream.arrived()[..count].to_vec();
                stream.receive(count);
                bytes
            }
            Kind::Readable(Readable { messages, .. }) => {
                let Message { mut bytes, connections } =
                    messages.pop_front().expect("something to read");
                if bytes.len() > capacity {
                    let bytes = bytes.split_off(capacity);
                    messages.push_front(Message { bytes, connections: Vec::new() });
                }
                self.lose(connections); // a read has no room for descriptors
                bytes
            }
            Kind::Listener { .. } | Kind::Socket | Kind::File(_) => {
                unreachable!("nothing arrives there")
            }
        };
        self.finish(at, position, Ok(bytes.len()), Payload::Bytes(bytes));
    }

    /// One message, with descriptors for as many of its connections as there is room for.
    fn receive_fds(
        &mut self,
        at: FileId,
        position: usize,
        arrival: Arrival,
        capacity: usize,
        fds_max: usize,
    ) {
        let Kind::Readable(Readable { messages, .. }) = &mut self.nodes[at].kind else {
            unreachable!("only a readable brings descriptors")
        };
        let Some(Message { mut bytes, mut connections }) = messages.pop_front() else {
            return self.finish_without_bytes(at, position, arrival, Payload::None);
        };
        let (bytes_sent, fds_sent) = (bytes.len(), connections.len());
        bytes.truncate(capacity);
        let mut room = fds_max.min(fds_sent);
        if room > 0 && self.chance(Fault::NoDescriptors) {
            room = self.rng.below(room);
        }
        self.lose(connections.split_off(room));
        let mut fds = Vec::new();
        for connection in connections {
            match self.open(connection) {
                Ok(fd) => fds.push(fd),
                Err(_) => self.lose(vec![connection]),
            }
        }
        let (payload, some_fds) = (bytes.len() < bytes_sent, fds.len() < fds_sent);
        let arrival = if payload || some_fds {
            passing::Arrival::Cut { payload, fds: some_fds }
        } else if bytes.is_empty() && fds.is_empty() {
            passing::Arrival::End
        } else {
            passing::Arrival::Whole
        };
        let count = bytes.len();
        self.finish(at, position, Ok(count), Payload::Message { bytes, fds, arrival });
    }

    fn finish_without_bytes(
        &mut self,
        at: FileId,
        position: usize,
        arrival: Arrival,
        payload: Payload,
    ) {
        match arrival {
            Arrival::End => self.finish(at, position, Ok(0), payload),
            Arrival::Error(errno) => {
                self.stream(at).error_was_told();
                self.finish(at, position, Err(errno), payload);
            }
            Arrival::Nothing | Arrival::Bytes => {} // it stays armed
        }
    }

    /// Sends without an operation what a stream has room for, or a part of it.
    pub(super) fn send_file(
        &mut self,
        socket: RawFd,
        head: &[u8],
        file: RawFd,
        offset: u64,
        count: usize,
    ) -> Result<usize, Errno> {
        let Some(Kind::File(bytes)) = self.fds.get(&file).map(|&at| &self.nodes[at].kind) else {
            return Err(Errno::new(libc::EINVAL));
        };
        let from = bytes.len().min(offset as usize);
        let part = &bytes[from..][..count.min(bytes.len() - from)];
        let bytes = [head, part].concat();
        let at = *self.fds.get(&socket).ok_or(Errno::new(libc::EBADF))?;
        let Kind::Stream(stream) = &mut self.nodes[at].kind else {
            return Err(Errno::new(libc::EINVAL));
        };
        if let Some(errno) = stream.send_error() {
            return Err(errno);
        }
        let mut room = stream.room().min(bytes.len());
        if room > 1 && self.chance(Fault::ShortSend) {
            room = 1 + self.rng.below(room - 1);
        }
        if room == 0 {
            return Err(Errno::AGAIN);
        }
        self.stream(at).send(&bytes[..room]);
        Ok(room)
    }

    /// Files are in memory, unless the kernel has to fetch them now and then.
    pub(super) fn resident_bytes(&mut self, count: usize) -> usize {
        if self.chance(Fault::Split) { self.rng.below(count) } else { count }
    }

    fn tell_writable(&mut self, at: FileId) -> bool {
        let Node { kind: Kind::Stream(stream), armed, .. } = &mut self.nodes[at] else {
            return false;
        };
        let waits = |armed: &Armed| matches!(armed.work, Work::WaitWritable);
        let Some(position) = armed.iter().position(waits) else { return false };
        let is_writable = stream.room() > 0 || stream.send_error().is_some();
        if is_writable {
            let user_data = self.disarm(at, position);
            self.post(Lane::Operation(user_data), user_data, Ok(4), Payload::None);
        }
        is_writable
    }

    /// One step of the newest armed send: the kernel wakes the last who waits first, which is how
    /// two sends on one socket come to be reordered.
    fn send_one(&mut self, at: FileId) -> bool {
        let Node { kind: Kind::Stream(stream), armed, .. } = &mut self.nodes[at] else {
            return false;
        };
        let sends = |armed: &Armed| matches!(armed.work, Work::Send { .. });
        let Some(position) = armed.iter().rposition(sends) else { return false };
        let Work::Send { bytes, sent } = &armed[position].work else { unreachable!() };
        let (sent, left) = (*sent, bytes.len() - *sent);
        if let Some(errno) = stream.send_error() {
            self.finish_send(at, position, sent, Some(errno));
            return true;
        }
        let room = stream.room().min(left);
        if room == 0 && left > 0 {
            return false;
        }
        if left > 0 && self.chance(Fault::Reset) {
            self.stream(at).die();
            return true;
        }
        let mut count = room;
        let short = left > 1 && self.chance(Fault::ShortSend);
        if short {
            count = 1 + self.rng.below(room.min(left - 1));
        }
        let Node { kind: Kind::Stream(stream), armed, .. } = &mut self.nodes[at] else {
            unreachable!()
        };
        let Work::Send { bytes, sent } = &mut armed[position].work else { unreachable!() };
        stream.send(&bytes[*sent..*sent + count]);
        *sent += count;
        let (sent, done) = (*sent, *sent == bytes.len());
        if done || short {
            self.finish_send(at, position, sent, None);
        }
        done || short
    }

    /// A send that got somewhere tells how far; why it stopped, the next one hears.
    fn finish_send(&mut self, at: FileId, position: usize, sent: usize, errno: Option<Errno>) {
        let result = match errno {
            Some(errno) if sent == 0 => Err(errno),
            _ => Ok(sent),
        };
        let user_data = self.disarm(at, position);
        self.post(Lane::Operation(user_data), user_data, result, Payload::None);
    }

    /// Cancels an operation by its id. Each of the two completes.
    fn cancel(&mut self, target: u64) -> Result<(), Errno> {
        if let Some(position) = self.waiting.iter().position(|&(_, waiting)| waiting == target) {
            self.waiting.remove(position);
            self.post(Lane::Operation(target), target, Err(Errno::CANCELED), Payload::None);
            return Ok(());
        }
        let Some(&at) = self.homes.get(&target) else { return Err(Errno::NOT_FOUND) };
        let armed = &self.nodes[at].armed;
        let position = armed.iter().position(|armed| armed.user_data == target);
        let raced = self.cancel_one(at, position.expect("an operation is at home"));
        self.release_if_unused(at);
        if raced && self.rng.below(2) == 0 { Err(Errno::NOT_FOUND) } else { Ok(()) }
    }

    /// Cancels what is armed at `position`. In a race it gets its last chance to complete, and
    /// what was on the wire arrives in time for it.
    fn cancel_one(&mut self, at: FileId, mut position: usize) -> bool {
        let raced = self.chance(Fault::CancelRace);
        if raced {
            let target = self.nodes[at].armed[position].user_data;
            if let Kind::Stream(stream) = &mut self.nodes[at].kind
                && stream.in_transit()
            {
                stream.arrive(stream.on_wire());
            }
            while self.accept_one(at) || self.receive_one(at) || self.send_one(at) {}
            let still = self.nodes[at].armed.iter().position(|armed| armed.user_data == target);
            let Some(still) = still else { return true };
            position = still;
        }
        match self.nodes[at].armed[position].work {
            Work::Send { sent, .. } => {
                self.finish_send(at, position, sent, Some(Errno::CANCELED));
            }
            _ => self.finish(at, position, Err(Errno::CANCELED), Payload::None),
        }
        raced
    }

    /// The last completion of an operation armed on a file.
    fn finish(
        &mut self,
        at: FileId,
        position: usize,
        result: Result<usize, Errno>,
        payload: Payload,
    ) {
        let user_data = self.disarm(at, position);
        self.post(Lane::File(at), user_data, result, payload);
    }

    /// Whether a multishot operation goes on after a success, as its completion says it.
    fn stays_armed(&mut self, at: FileId, position: usize) -> u32 {
        if self.chance(Fault::EarlyEnd) {
            self.disarm(at, position);
            return 0;
        }
        CQE_MORE
    }

    fn disarm(&mut self, at: FileId, position: usize) -> u64 {
        let user_data = self.nodes[at].armed.remove(position).user_data;
        self.homes.remove(&user_data);
        user_data
    }

    fn post(&mut self, lane: Lane, user_data: u64, result: Result<usize, Errno>, payload: Payload) {
        let result = result.map_or_else(|errno| -errno.raw(), |count| count as i32);
        self.post_flagged(lane, user_data, result, 0, payload);
    }

    fn post_flagged(
        &mut self,
        lane: Lane,
        user_data: u64,
        result: i32,
        flags: u32,
        payload: Payload,
    ) {
        let mut due = self.tick;
        if self.chance(Fault::Late) {
            due += 1 + self.rng.below(LATE_TICKS_MAX) as u64;
        }
        let same_lane = self.posted.iter().filter(|posted| posted.lane == lane);
        let due = same_lane.map(|posted| posted.due).fold(due, u64::max);
        self.posted.push(Posted { user_data, result, flags, payload, lane, due });
    }
}
