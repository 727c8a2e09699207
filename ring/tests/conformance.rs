//! The simulated kernel behaves as the real one: each scenario plays once on a simulated ring
//! without faults and once on a real one, and what can be seen is the same, on both ends.

#![cfg(feature = "sim")]

mod common;

use std::fmt::Write as _;
use std::io::{ErrorKind, IoSlice, IoSliceMut, PipeWriter, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, setsockopt, socket, socketpair, sockopt,
};

use uring_ring::sim::{Client, Faults, Plan, World};
use uring_ring::{
    Address, Completion, Errno, GroupId, Lease, Op, OpId, Outcome, Ring, SendBuffer, Setup,
};

/// Everything on a loopback happens well within it.
const SETTLED: Duration = Duration::from_millis(15);

/// An address, and what takes the next connection that was made to it.
type Service = (Rc<Address>, Box<dyn FnMut() -> Box<dyn Peer>>);

/// Who makes the other ends of descriptors.
trait Net {
    fn listener(&mut self) -> OwnedFd;
    fn connect(&mut self, listener: &OwnedFd) -> Box<dyn Peer>;
    fn socket(&mut self) -> OwnedFd;
    /// Where somebody listens, and who takes the oldest connection there.
    fn service(&mut self) -> Service;
    fn nowhere(&mut self) -> Rc<Address>;
    fn pipe(&mut self) -> (OwnedFd, Box<dyn Feed>);
    fn channel(&mut self) -> (OwnedFd, Box<dyn Master>);
}

/// The other end of a connection.
trait Peer {
    fn write(&mut self, bytes: &[u8]);
    fn shutdown_write(&mut self);
    fn close(&mut self);
    fn reset(&mut self);
    /// All that has come, and whether there may be more.
    fn look(&mut self) -> (Vec<u8>, &'static str);
}

/// The writing end of a pipe.
trait Feed {
    fn feed(&mut self, bytes: &[u8]);
    fn end(&mut self);
}

/// The other end of a channel over which descriptors pass.
trait Master {
    fn pass(&mut self, text: &str, count: usize) -> Vec<Box<dyn Peer>>;
    /// The messages that have come, and how many descriptors with them.
    fn take(&mut self) -> (Vec<String>, usize);
    fn end(&mut self);
}

struct Real;

struct RealPeer {
    stream: Option<TcpStream>,
    saw: &'static str,
}

struct RealFeed(Option<PipeWriter>);

struct RealMaster(Option<OwnedFd>);

impl Net for Real {
    fn listener(&mut self) -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    fn connect(&mut self, listener: &OwnedFd) -> Box<dyn Peer> {
        let listener = TcpListener::from(listener.try_clone().unwrap());
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        Box::new(RealPeer { stream: Some(stream), saw: "open" })
    }

    fn socket(&mut self) -> OwnedFd {
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
    }

    fn service(&mut self) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().into();
        let take = move || -> Box<dyn Peer> {
            let stream = listener.accept().unwrap().0;
            stream.set_nonblocking(true).unwrap();
            Box::new(RealPeer { stream: Some(stream), saw: "open" })
        };
        (Rc::new(address), Box::new(take))
    }

    fn nowhere(&mut self) -> Rc<Address> {
        let (address, _) = self.service();
        address
    }

    fn pipe(&mut self) -> (OwnedFd, Box<dyn Feed>) {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader.into(), Box::new(RealFeed(Some(writer))))
    }

    fn channel(&mut self) -> (OwnedFd, Box<dyn Master>) {
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let (ours, theirs) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        (theirs, Box::new(RealMaster(Some(ours))))
    }
}

impl Peer for RealPeer {
    fn write(&mut self, bytes: &[u8]) {
        _ = self.stream.as_ref().unwrap().write_all(bytes);
    }

    fn shutdown_write(&mut self) {
        self.stream.as_ref().unwrap().shutdown(Shutdown::Write).unwrap();
    }

    fn close(&mut self) {
        self.stream = None;
    }

    fn reset(&mut self) {
        let stream = self.stream.take().unwrap();
        setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
    }

    fn look(&mut self) -> (Vec<u8>, &'static str) {
        let mut got = Vec::new();
        let Some(stream) = &mut self.stream else { return (got, "closed") };
        match stream.read_to_end(&mut got) {
            Ok(_) if self.saw == "open" => self.saw = "end",
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                self.saw = "reset";
            }
        }
        (got, self.saw)
    }
}

impl Feed for RealFeed {
    fn feed(&mut self, bytes: &[u8]) {
        self.0.as_ref().unwrap().write_all(bytes).unwrap();
    }

    fn end(&mut self) {
        self.0 = None;
    }
}

impl Master for RealMaster {
    fn pass(&mut self, text: &str, count: usize) -> Vec<Box<dyn Peer>> {
        let (servers, peers): (Vec<OwnedFd>, Vec<Box<dyn Peer>>) = (0..count)
            .map(|_| {
                let listener = Real.listener();
                let peer = Real.connect(&listener);
                (TcpListener::from(listener).accept().unwrap().0.into(), peer)
            })
            .unzip();
        let numbers: Vec<RawFd> = servers.iter().map(AsRawFd::as_raw_fd).collect();
        let (rights, text) =
            ([ControlMessage::ScmRights(&numbers)], [IoSlice::new(text.as_bytes())]);
        let ours = self.0.as_ref().unwrap().as_raw_fd();
        sendmsg::<()>(ours, &text, &rights, MsgFlags::empty(), None).unwrap();
        peers
    }

    fn take(&mut self) -> (Vec<String>, usize) {
        let (mut texts, mut passed) = (Vec::new(), 0);
        loop {
            let (mut text, mut control) = ([0; 64], nix::cmsg_space!([RawFd; 8]));
            let mut parts = [IoSliceMut::new(&mut text)];
            let ours = self.0.as_ref().unwrap().as_raw_fd();
            let flags = MsgFlags::MSG_DONTWAIT;
            let Ok(message) = recvmsg::<()>(ours, &mut parts, Some(&mut control), flags) else {
                return (texts, passed);
            };
            for rights in message.cmsgs().unwrap() {
                let ControlMessageOwned::ScmRights(numbers) = rights else { panic!("{rights:?}") };
                passed += numbers.len();
                numbers.into_iter().for_each(|number| nix::unistd::close(number).unwrap());
            }
            let count = message.bytes;
            texts.push(String::from_utf8_lossy(&text[..count]).into_owned());
        }
    }

    fn end(&mut self) {
        self.0 = None;
    }
}

struct SimPeer {
    client: Client,
    saw: &'static str,
}

struct SimFeed(World, RawFd);

struct SimMaster {
    world: World,
    fd: RawFd,
    seen: usize,
}

impl Net for World {
    fn listener(&mut self) -> OwnedFd {
        World::listener(self)
    }

    fn connect(&mut self, listener: &OwnedFd) -> Box<dyn Peer> {
        Box::new(SimPeer { client: World::connect(self, listener), saw: "open" })
    }

    fn socket(&mut self) -> OwnedFd {
        World::socket(self)
    }

    fn service(&mut self) -> Service {
        let address = Rc::new(Address::from(SocketAddr::from(([192, 0, 2, 1], 80))));
        self.listen_at(&address);
        let (world, peer) = (self.clone(), Rc::clone(&address));
        let take = move || -> Box<dyn Peer> {
            let client = world.take_connection(&peer).unwrap();
            Box::new(SimPeer { client, saw: "open" })
        };
        (address, Box::new(take))
    }

    fn nowhere(&mut self) -> Rc<Address> {
        Rc::new(Address::from(SocketAddr::from(([192, 0, 2, 2], 80))))
    }

    fn pipe(&mut self) -> (OwnedFd, Box<dyn Feed>) {
        let fd = self.readable();
        let number = fd.as_raw_fd();
        (fd, Box::new(SimFeed(self.clone(), number)))
    }

    fn channel(&mut self) -> (OwnedFd, Box<dyn Master>) {
        let channel = self.readable();
        let fd = channel.as_raw_fd();
        (channel, Box::new(SimMaster { world: self.clone(), fd, seen: 0 }))
    }
}

impl Peer for SimPeer {
    fn write(&mut self, bytes: &[u8]) {
        self.client.write(bytes);
    }

    fn shutdown_write(&mut self) {
        self.client.shutdown_write();
    }

    fn close(&mut self) {
        self.saw = "closed";
        self.client.close();
    }

    fn reset(&mut self) {
        self.saw = "closed";
        self.client.reset();
    }

    fn look(&mut self) -> (Vec<u8>, &'static str) {
        let got = self.client.read();
        if self.saw == "open" {
            self.saw = match (self.client.saw_reset(), self.client.saw_end()) {
                (true, _) => "reset",
                (false, true) => "end",
                (false, false) => "open",
            };
        }
        (got, self.saw)
    }
}

impl Feed for SimFeed {
    fn feed(&mut self, bytes: &[u8]) {
        self.0.feed(&self.1, bytes);
    }

    fn end(&mut self) {
        self.0.end(&self.1);
    }
}

impl Master for SimMaster {
    fn pass(&mut self, text: &str, count: usize) -> Vec<Box<dyn Peer>> {
        let clients = self.world.pass(&self.fd, text.as_bytes(), count).into_iter();
        clients
            .map(|client| -> Box<dyn Peer> { Box::new(SimPeer { client, saw: "open" }) })
            .collect()
    }

    fn take(&mut self) -> (Vec<String>, usize) {
        let texts = self.world.written(&self.fd);
        let before = std::mem::replace(&mut self.seen, self.world.passed(&self.fd));
        let texts = texts.iter().map(|text| String::from_utf8_lossy(text).into_owned());
        (texts.collect(), self.seen - before)
    }

    fn end(&mut self) {
        self.world.end(&self.fd);
    }
}

type Tag = &'static str;

/// A server on one of the rings, and a log of all that was seen.
struct Stage {
    ring: Ring<Tag>,
    /// How long nothing comes when all is quiet, by the real clock.
    settled: Duration,
    net: Box<dyn Net>,
    /// Two buffers of four bytes.
    group: GroupId,
    log: String,
    accepted: Vec<OwnedFd>,
    leases: Vec<Lease>,
}

impl Stage {
    fn real() -> Stage {
        let setup = Setup { entries: 64, restricted: true, features: common::features() };
        Stage::on(Ring::new(setup).unwrap(), Box::new(Real), SETTLED)
    }

    fn simulated() -> Stage {
        let (ring, world) = Ring::simulated(Plan { seed: 0, faults: Faults::NONE });
        Stage::on(ring, Box::new(world), Duration::ZERO)
    }

    fn on(mut ring: Ring<Tag>, net: Box<dyn Net>, settled: Duration) -> Stage {
        let group = ring.add_buffers(2, 4).unwrap();
        ring.enable().unwrap();
        let (accepted, leases) = (Vec::new(), Vec::new());
        Stage { ring, settled, net, group, log: String::new(), accepted, leases }
    }

    /// A connection that is accepted already: both of its ends.
    fn connection(&mut self) -> (OwnedFd, Box<dyn Peer>) {
        let listener = self.net.listener();
        let peer = self.net.connect(&listener);
        let accept = self
            .ring
            .push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, "accept");
        self.settle();
        self.ring.push(Op::Cancel { target: accept }, "cancel");
        self.settle();
        (self.accepted.remove(0), peer)
    }

    fn push(&mut self, op: Op, tag: Tag) -> OpId {
        self.ring.push(op, tag)
    }

    fn recv(&mut self, fd: RawFd, multishot: bool) -> OpId {
        let group = self.group;
        self.push(Op::Recv { fd, group, multishot }, "recv")
    }

    fn send(&mut self, fd: RawFd, text: &str) -> OpId {
        self.push(Op::Send { fd, buffer: text.as_bytes().to_vec().into() }, "send")
    }

    fn read(&mut self, fd: RawFd, capacity: usize) -> OpId {
        self.push(Op::Read { fd, buffer: Vec::with_capacity(capacity) }, "read")
    }

    fn write(&mut self, fd: RawFd, text: &str) -> OpId {
        self.push(Op::Write { fd, buffer: text.into() }, "write")
    }

    fn send_fds(&mut self, fd: RawFd, text: &str, fds: Vec<OwnedFd>) -> OpId {
        self.push(Op::SendFds { fd, payload: text.into(), fds, wait: false }, "send fds")
    }

    /// With room for 8 bytes.
    fn recv_fds(&mut self, fd: RawFd, fds_max: usize, wait: bool) -> OpId {
        let payload = Vec::with_capacity(8);
        self.push(Op::RecvFds { fd, payload, fds_max, wait }, "recv fds")
    }

    fn close(&mut self, fd: OwnedFd, cancel: bool) -> OpId {
        self.push(Op::Close { fd, cancel }, "close")
    }

    /// Turns until nothing comes any more, and logs what came. The order is the kernel's own
    /// affair, but for completions of the same kind.
    fn settle(&mut self) {
        let mut lines = Vec::new();
        let mut quiet_since = Instant::now();
        loop {
            self.ring.turn(Some(SETTLED)).unwrap();
            let before = lines.len();
            while let Some(completion) = self.ring.poll_completion() {
                lines.push(self.describe(completion));
            }
            if lines.len() > before {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= self.settled {
                break; // and not because a signal cut the turn short
            }
        }
        lines.sort_by_key(|(tag, _)| *tag);
        for (tag, line) in lines {
            writeln!(self.log, "{tag}: {line}").unwrap();
        }
        writeln!(self.log, "in flight: {}", self.ring.in_flight()).unwrap();
    }

    fn describe(&mut self, completion: Completion<Tag>) -> (Tag, String) {
        let what = match completion.outcome {
            Outcome::Accepted(Ok(fd)) => {
                self.accepted.push(fd);
                "a connection".to_owned()
            }
            Outcome::Received(Ok(Some(lease))) => {
                let text = String::from_utf8_lossy(&lease).into_owned();
                self.leases.push(lease);
                text
            }
            Outcome::Received(Ok(None)) => "end".to_owned(),
            Outcome::Sent { result: Ok(count), buffer } if count < buffer.left() => "part".into(),
            Outcome::Sent { result: Ok(count), .. }
            | Outcome::Written { result: Ok(count), .. } => format!("{count} bytes"),
            Outcome::Opened(Ok(_)) => "opened".to_owned(),
            Outcome::Writable(Ok(())) => "writable".to_owned(),
            Outcome::Read { buffer, result: Ok(count) }
            | Outcome::ReadAt { buffer, result: Ok(count) } => {
                format!("{count} bytes: {}", String::from_utf8_lossy(&buffer))
            }
            Outcome::SentFds { result: Ok(()), fds, .. } => format!("{} descriptors", fds.len()),
            Outcome::ReceivedFds { payload, fds, result: Ok(arrival) } => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                let count = fds.len();
                self.accepted.extend(fds);
                format!("{text:?} and {count} descriptors: {arrival:?}")
            }
            Outcome::ChildEnded(Ok(status)) => status.to_string(),
            Outcome::Watched(Ok(())) => "somebody waits".to_owned(),
            Outcome::Connected(Ok(())) | Outcome::Closed(Ok(())) | Outcome::Cancelled(Ok(())) => {
                "done".to_owned()
            }
            Outcome::Accepted(Err(errno))
            | Outcome::Watched(Err(errno))
            | Outcome::Connected(Err(errno))
            | Outcome::Received(Err(errno))
            | Outcome::Sent { result: Err(errno), .. }
            | Outcome::Opened(Err(errno))
            | Outcome::Writable(Err(errno))
            | Outcome::Read { result: Err(errno), .. }
            | Outcome::ReadAt { result: Err(errno), .. }
            | Outcome::Written { result: Err(errno), .. }
            | Outcome::SentFds { result: Err(errno), .. }
            | Outcome::ReceivedFds { result: Err(errno), .. }
            | Outcome::Closed(Err(errno))
            | Outcome::Cancelled(Err(errno))
            | Outcome::ChildEnded(Err(errno)) => errno.to_string(),
        };
        (completion.tag, if completion.more { format!("{what}, and more") } else { what })
    }

    /// Logs what a client sees by now.
    fn look(&mut self, peer: &mut Box<dyn Peer>) {
        let (got, saw) = peer.look();
        match got.len() {
            0..100 => writeln!(self.log, "client: {:?}, {saw}", String::from_utf8_lossy(&got)),
            count => writeln!(self.log, "client: {count} bytes, {saw}"),
        }
        .unwrap();
    }
}

fn assert_same(scenario: fn(&mut Stage)) {
    let [real, simulated] = [Stage::real(), Stage::simulated()].map(|mut stage| {
        scenario(&mut stage);
        stage.log
    });
    for (simulated_line, real_line) in simulated.lines().zip(real.lines()) {
        assert_eq!(simulated_line, real_line, "\n\nreal:\n{real}\nsimulated:\n{simulated}");
    }
    assert_eq!(simulated, real);
}

#[test]
fn accepting() {
    assert_same(|stage| {
        let listener = stage.net.listener();
        let fd = listener.as_raw_fd();
        let _early: Vec<_> = (0..3).map(|_| stage.net.connect(&listener)).collect();
        stage.settle();
        let accept = stage.push(Op::Accept { fd, multishot: true, wait: true }, "accept");
        stage.settle();
        let _late = stage.net.connect(&listener);
        stage.settle();
        stage.push(Op::Cancel { target: accept }, "cancel");
        let mut after = stage.net.connect(&listener);
        stage.settle();
        stage.push(Op::Cancel { target: accept }, "cancel again");
        stage.settle();
        stage.push(Op::Accept { fd, multishot: true, wait: true }, "accept again");
        stage.settle();
        stage.look(&mut after);
        let mut queued = stage.net.connect(&listener);
        let mut gone = stage.net.connect(&listener);
        gone.close();
        stage.settle();
        stage.close(listener, true);
        stage.settle();
        stage.look(&mut queued);
        for accepted in mem::take(&mut stage.accepted) {
            stage.close(accepted, false);
        }
        stage.settle();
        stage.look(&mut queued);
    });
}

#[test]
fn accepting_one_at_a_time() {
    assert_same(|stage| {
        let listener = stage.net.listener();
        let fd = listener.as_raw_fd();
        let _early: Vec<_> = (0..2).map(|_| stage.net.connect(&listener)).collect();
        for _ in 0..3 {
            stage.push(Op::Accept { fd, multishot: false, wait: true }, "accept");
            stage.settle();
        }
        let _late: Vec<_> = (0..2).map(|_| stage.net.connect(&listener)).collect();
        stage.settle();
        let accept = stage.push(Op::Accept { fd, multishot: false, wait: true }, "accept");
        stage.settle();
        stage.push(Op::Cancel { target: accept }, "stale");
        let accept = stage.push(Op::Accept { fd, multishot: false, wait: true }, "accept");
        stage.settle();
        stage.push(Op::Cancel { target: accept }, "cancel");
        stage.settle();
    });
}

#[test]
fn accepting_without_waiting() {
    assert_same(|stage| {
        let listener = stage.net.listener();
        let fd = listener.as_raw_fd();
        for multishot in [true, false] {
            stage.push(Op::Accept { fd, multishot, wait: false }, "nobody");
            stage.settle();
            let _early: Vec<_> = (0..3).map(|_| stage.net.connect(&listener)).collect();
            stage.settle();
            for _ in 0..4 {
                stage.push(Op::Accept { fd, multishot, wait: false }, "accept");
                stage.settle();
            }
        }
        let _late = stage.net.connect(&listener);
        stage.settle();
    });
}

#[test]
fn watching_a_listener() {
    assert_same(|stage| {
        let listener = stage.net.listener();
        let fd = listener.as_raw_fd();
        let _early: Vec<_> = (0..2).map(|_| stage.net.connect(&listener)).collect();
        stage.settle();
        let watch = stage.push(Op::Watch { fd }, "watch");
        stage.settle();
        stage.settle(); // what was told isn't told again
        let _more = stage.net.connect(&listener);
        stage.settle();
        stage.push(Op::Accept { fd, multishot: true, wait: false }, "accept");
        stage.settle();
        let _last = stage.net.connect(&listener);
        stage.settle();
        stage.push(Op::Accept { fd, multishot: false, wait: false }, "accept");
        stage.settle();
        stage.push(Op::Cancel { target: watch }, "cancel");
        stage.settle();
        let _unseen = stage.net.connect(&listener);
        stage.settle();
    });
}

#[test]
fn a_listener_that_closes_resets_who_waits() {
    assert_same(|stage| {
        let listener = stage.net.listener();
        let mut waiting = stage.net.connect(&listener);
        waiting.write(b"hello");
        stage.close(listener, false);
        stage.settle();
        stage.look(&mut waiting);
    });
}

#[test]
fn connecting() {
    assert_same(|stage| {
        let (peer, mut take) = stage.net.service();
        let (first, second) = (stage.net.socket(), stage.net.socket());
        for socket in [&first, &second] {
            let fd = socket.as_raw_fd();
            stage.push(Op::Connect { fd, peer: Rc::clone(&peer) }, "connect");
        }
        stage.settle();
        let mut clients = [take(), take()];
        for (socket, client) in [first, second].into_iter().zip(&mut clients) {
            let fd = socket.as_raw_fd();
            stage.recv(fd, true);
            stage.send(fd, "ask");
            stage.settle();
            stage.look(client);
            client.write(b"abc");
            stage.settle();
            stage.leases.clear();
            stage.push(Op::Connect { fd, peer: Rc::clone(&peer) }, "connect again");
            stage.settle();
            stage.close(socket, true);
            stage.settle();
            stage.look(client);
        }

        let nowhere = stage.net.nowhere();
        let socket = stage.net.socket();
        let fd = socket.as_raw_fd();
        for _ in 0..2 {
            stage.push(Op::Connect { fd, peer: Rc::clone(&nowhere) }, "connect");
            stage.settle();
        }
        stage.push(Op::Connect { fd, peer: Rc::clone(&peer) }, "connect");
        stage.settle();
        let mut client = take();
        stage.close(socket, false);
        stage.settle();
        stage.look(&mut client);
    });
}

#[test]
fn echoing_in_one_shots() {
    assert_same(|stage| {
        let (server, mut peer) = stage.connection();
        let fd = server.as_raw_fd();
        for text in ["a", "bc", "def"] {
            stage.recv(fd, false);
            stage.settle();
            peer.write(text.as_bytes());
            stage.settle();
            stage.leases.clear();
            stage.send(fd, text);
            stage.settle();
            stage.look(&mut peer);
        }
        peer.shutdown_write();
        stage.recv(fd, false);
        stage.settle();
        stage.send(fd, "bye");
        stage.settle();
        stage.close(server, true);
        stage.settle();
        stage.look(&mut peer);
    });
}

#[test]
fn receiving_until_buffers_run_out() {
    assert_same(|stage| {
        let (server, mut peer) = stage.connection();
        let fd = server.as_raw_fd();
        stage.recv(fd, true);
        peer.write(b"0123456789abcdefgh");
        stage.settle();
        stage.recv(fd, true); // at once: no buffer yet
        stage.settle();
        stage.leases.clear();
        stage.recv(fd, true);
        stage.settle();
        stage.leases.clear();
        stage.recv(fd, true);
        stage.settle();
        peer.write(b"ijklmn"); // more than the one buffer that is left
        stage.settle();
        stage.recv(fd, false);
        peer.shutdown_write();
        stage.settle();
        stage.leases.clear();
        stage.recv(fd, false);
        stage.settle();
        stage.leases.clear();
        stage.recv(fd, true);
        stage.settle();
    });
}

#[test]
fn arming_without_a_buffer() {
    assert_same(|stage| {
        let (server, mut peer) = stage.connection();
        let fd = server.as_raw_fd();
        stage.recv(fd, true);
        peer.write(b"12345678");
        stage.settle();
        stage.log.push_str("both buffers are out, nothing has arrived\n");
        for multishot in [false, true] {
            stage.recv(fd, multishot);
            stage.settle();
        }
        peer.shutdown_write(); // ends the armed one of the first arming
        stage.settle();
    });
}

#[test]
fn ending() {
    assert_same(|stage| {
        for multishot in [false, true] {
            for armed_before in [false, true] {
                let (server, mut peer) = stage.connection();
                let fd = server.as_raw_fd();
                if armed_before {
                    stage.recv(fd, multishot);
                }
                stage.settle();
                peer.write(b"xy");
                peer.shutdown_write();
                stage.settle();
                for _ in 0..2 {
                    stage.recv(fd, multishot);
                    stage.settle();
                }
                stage.leases.clear();
                stage.close(server, true);
                stage.settle();
                stage.look(&mut peer);
            }
        }
    });
}

#[test]
fn closing_with_and_without_cancel() {
    assert_same(|stage| {
        for multishot in [false, true] {
            for cancel in [false, true] {
                let (server, mut peer) = stage.connection();
                let recv = stage.recv(server.as_raw_fd(), multishot);
                stage.settle();
                stage.close(server, cancel);
                stage.settle();
                stage.look(&mut peer);
                peer.write(b"z");
                stage.settle();
                stage.look(&mut peer);
                stage.leases.clear();
                stage.push(Op::Cancel { target: recv }, "cancel");
                stage.settle();
                stage.look(&mut peer);
            }
        }
    });
}

#[test]
fn receiving_and_closing_in_the_same_turn() {
    assert_same(|stage| {
        for (cancel, multishot) in [(true, true), (true, false), (false, false)] {
            let (server, mut peer) = stage.connection();
            peer.write(b"ab");
            stage.settle();
            stage.recv(server.as_raw_fd(), multishot);
            stage.send(server.as_raw_fd(), "last");
            stage.close(server, cancel);
            stage.settle();
            stage.leases.clear();
            stage.look(&mut peer);
        }
    });
}

#[test]
fn closing_with_bytes_unread() {
    assert_same(|stage| {
        let (server, mut peer) = stage.connection();
        peer.write(b"unread");
        stage.settle();
        stage.close(server, true);
        stage.settle();
        stage.look(&mut peer);
    });
}

#[test]
fn a_client_that_writes_after_the_close() {
    assert_same(|stage| {
        let (server, mut peer) = stage.connection();
        stage.send(server.as_raw_fd(), "answer");
        stage.close(server, true);
        stage.settle();
        stage.look(&mut peer);
        peer.write(b"more");
        stage.settle();
        // The real client has seen the end already and gets its reset by its next write.
    });
}

#[test]
fn sending_to_a_client_that_closed() {
    assert_same(|stage| {
        let (server, mut peer) = stage.connection();
        let fd = server.as_raw_fd();
        peer.close();
        stage.settle();
        for text in ["first", "second", "third"] {
            stage.send(fd, text);
            stage.settle();
        }
        for _ in 0..2 {
            stage.recv(fd, true);
            stage.settle();
        }
        stage.close(server, true);
        stage.settle();
    });
}

#[test]
fn a_client_that_resets() {
    assert_same(|stage| {
        for sends_first in [false, true] {
            for unread in ["", "ab"] {
                let (server, mut peer) = stage.connection();
                let fd = server.as_raw_fd();
                peer.write(unread.as_bytes());
                stage.settle();
                peer.reset();
                stage.settle();
                for round in 0..3 {
                    if sends_first == (round % 2 == 0) {
                        stage.send(fd, "text");
                    } else {
                        stage.recv(fd, true);
                    }
                    stage.settle();
                }
                stage.leases.clear();
                stage.close(server, true);
                stage.settle();
            }
        }
    });
}

#[test]
fn a_client_that_resets_while_a_receive_is_armed() {
    assert_same(|stage| {
        for unread_by_client in ["", "unread"] {
            let (server, mut peer) = stage.connection();
            let fd = server.as_raw_fd();
            stage.recv(fd, true);
            stage.settle();
            if unread_by_client.is_empty() {
                peer.reset();
            } else {
                stage.send(fd, unread_by_client);
                stage.settle();
                peer.close(); // with bytes unread: a reset
            }
            stage.settle();
            stage.close(server, true);
            stage.settle();
        }
    });
}

#[test]
fn shutting_down() {
    assert_same(|stage| {
        let (server, mut peer) = stage.connection();
        let fd = server.as_raw_fd();
        stage.recv(fd, true);
        stage.send(fd, "last");
        stage.settle();
        stage.ring.shutdown(server.as_fd(), Shutdown::Write).unwrap();
        stage.settle();
        stage.look(&mut peer);
        stage.send(fd, "too late");
        peer.write(b"yes");
        stage.settle();
        stage.ring.shutdown(server.as_fd(), Shutdown::Read).unwrap();
        stage.settle();
        stage.close(server, true);
        stage.settle();
        stage.look(&mut peer);
    });
}

#[test]
fn a_send_that_waits_for_a_slow_reader() {
    assert_same(|stage| {
        const WHOLE: usize = 32 << 20;
        let (server, mut peer) = stage.connection();
        let body = vec![b'x'; WHOLE].into();
        let buffer = SendBuffer::with_body(b"head".to_vec(), body);
        stage.push(Op::Send { fd: server.as_raw_fd(), buffer }, "send");
        stage.settle();
        let mut left = WHOLE + 4;
        while left > 0 {
            let (got, saw) = peer.look();
            assert_eq!(saw, "open");
            left -= got.len();
            stage.ring.turn(Some(Duration::from_millis(1))).unwrap();
        }
        stage.settle();
    });
}

#[test]
fn a_send_that_waits_and_is_cancelled_or_closed() {
    assert_same(|stage| {
        for ends_by in ["cancel", "close", "peer"] {
            let (server, mut peer) = stage.connection();
            let buffer = vec![b'x'; 32 << 20].into();
            let send = stage.push(Op::Send { fd: server.as_raw_fd(), buffer }, "send");
            stage.settle();
            match ends_by {
                "cancel" => _ = stage.push(Op::Cancel { target: send }, "cancel"),
                "close" => _ = stage.close(server.try_clone().unwrap(), false),
                _ => peer.reset(),
            }
            stage.settle();
            if ends_by == "peer" {
                stage.send(server.as_raw_fd(), "next");
                stage.settle();
            }
            stage.close(server, true);
            stage.settle();
        }
    });
}

#[test]
fn reading() {
    assert_same(|stage| {
        let (reader, mut writer) = stage.net.pipe();
        let fd = reader.as_raw_fd();
        let read = stage.read(fd, 8);
        stage.settle();
        writer.feed(b"one");
        stage.settle();
        writer.feed(b"longer than that");
        for _ in 0..3 {
            stage.read(fd, 8);
            stage.settle();
        }
        stage.push(Op::Cancel { target: read }, "stale");
        stage.settle();
        writer.feed(b"rest");
        writer.end();
        for _ in 0..3 {
            stage.read(fd, 8);
            stage.settle();
        }
        let (server, mut peer) = stage.connection();
        stage.read(server.as_raw_fd(), 8);
        peer.write(b"of a socket");
        stage.settle();
        stage.read(server.as_raw_fd(), 8);
        stage.settle();
    });
}

#[test]
fn receiving_what_is_passed() {
    assert_same(|stage| {
        let (channel, mut master) = stage.net.channel();
        let fd = channel.as_raw_fd();
        stage.recv_fds(fd, 3, true);
        stage.settle();
        let mut peers = master.pass("two", 2);
        stage.settle();
        for (server, peer) in mem::take(&mut stage.accepted).into_iter().zip(&mut peers) {
            let number = server.as_raw_fd();
            peer.write(b"ask");
            stage.recv(number, false);
            stage.settle();
            stage.leases.clear();
            stage.send(number, "answer");
            stage.close(server, false);
            stage.settle();
            stage.look(peer);
        }

        stage.recv_fds(fd, 1, false); // there is none
        stage.settle();
        let _queued = [master.pass("first", 1), master.pass("second", 2)];
        for _ in 0..3 {
            stage.recv_fds(fd, 2, false);
            stage.settle();
        }

        let mut peers = master.pass("too long", 3);
        stage.recv_fds(fd, 2, true);
        stage.settle();
        peers.iter_mut().for_each(|peer| stage.look(peer));
        let _peers = master.pass("much too long", 1);
        stage.recv_fds(fd, 1, true);
        stage.settle();

        let target = stage.recv_fds(fd, 1, true);
        stage.settle();
        stage.push(Op::Cancel { target }, "cancel");
        stage.settle();
        let mut peers = master.pass("read", 1);
        stage.read(fd, 8); // has no room for descriptors
        stage.settle();
        stage.look(&mut peers[0]);

        let _peers = master.pass("last", 1);
        master.end();
        for wait in [true, true, false] {
            stage.recv_fds(fd, 1, wait);
            stage.settle();
        }
    });
}

#[test]
fn the_end_of_a_channel_and_what_is_left_in_it() {
    assert_same(|stage| {
        let (channel, mut master) = stage.net.channel();
        stage.recv_fds(channel.as_raw_fd(), 1, true);
        stage.settle();
        master.end();
        stage.settle();

        let (channel, mut master) = stage.net.channel();
        let mut peers = master.pass("unread", 2);
        stage.recv_fds(channel.as_raw_fd(), 2, true);
        let mut more = master.pass("unread", 2);
        stage.settle();
        stage.close(channel, true);
        stage.settle();
        peers.iter_mut().chain(&mut more).for_each(|peer| stage.look(peer));
        stage.accepted.clear();

        let (channel, _master) = stage.net.channel();
        stage.recv_fds(channel.as_raw_fd(), 2, true);
        stage.settle();
        stage.close(channel, true);
        stage.settle();
    });
}

#[test]
fn passing_and_writing() {
    assert_same(|stage| {
        let (channel, mut master) = stage.net.channel();
        let fd = channel.as_raw_fd();
        stage.write(fd, "words");
        stage.settle();
        let fds = (0..3).map(|_| channel.try_clone().unwrap()).collect();
        stage.send_fds(fd, "three", fds);
        stage.settle();
        let told = format!("master: {:?}\n", master.take());
        stage.log.push_str(&told);
        master.end();
        stage.write(fd, "words");
        stage.send_fds(fd, "one", vec![channel.try_clone().unwrap()]);
        stage.settle();

        let (server, mut peer) = stage.connection();
        stage.write(server.as_raw_fd(), "to a socket");
        stage.settle();
        stage.look(&mut peer);
        let listener = stage.net.listener();
        for fd in [listener.as_raw_fd(), -1] {
            stage.write(fd, "x");
            stage.send_fds(fd, "x", vec![channel.try_clone().unwrap()]);
            stage.recv_fds(fd, 1, true);
            stage.settle();
        }
    });
}

#[test]
fn cancelling_each_operation() {
    assert_same(|stage| {
        let (server, _peer) = stage.connection();
        let (reader, _writer) = stage.net.pipe();
        let listener = stage.net.listener();
        let child = common::child("exec sleep 600");
        let armed = [
            stage.push(
                Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true },
                "accept",
            ),
            stage.push(Op::Watch { fd: listener.as_raw_fd() }, "watch"),
            stage.recv(server.as_raw_fd(), false),
            stage.recv(server.as_raw_fd(), true),
            stage.read(reader.as_raw_fd(), 8),
            stage.push(Op::WaitChild { pid: child }, "child"),
        ];
        stage.settle();
        for _ in 0..2 {
            for target in armed {
                stage.push(Op::Cancel { target }, "cancel");
                stage.settle();
            }
        }
        let pid = nix::unistd::Pid::from_raw(child);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(pid, None).unwrap();
    });
}

#[test]
fn misusing_descriptors() {
    assert_same(|stage| {
        let (server, _peer) = stage.connection();
        let (reader, _writer) = stage.net.pipe();
        let listener = stage.net.listener();
        let (socket, (peer, _take)) = (stage.net.socket(), stage.net.service());
        let sockets = [&server, &reader, &listener].map(AsRawFd::as_raw_fd);
        for fd in [-1, 1 << 30].into_iter().chain(sockets) {
            let operations = [
                stage.push(Op::Connect { fd, peer: Rc::clone(&peer) }, "connect"),
                stage.push(Op::Accept { fd, multishot: true, wait: true }, "accept"),
                stage.recv(fd, false),
                stage.recv(fd, true),
                stage.send(fd, ""),
                stage.send(fd, "x"),
                stage.read(fd, 1),
            ];
            stage.settle();
            for target in operations {
                stage.push(Op::Cancel { target }, "cancel");
                stage.settle();
            }
        }
        let fd = socket.as_raw_fd();
        stage.push(Op::Accept { fd, multishot: true, wait: true }, "accept");
        stage.recv(fd, false);
        stage.recv(fd, true);
        stage.send(fd, "x");
        stage.read(fd, 1);
        stage.settle();
    });
}

#[test]
fn a_buffer_group_that_is_not_there() {
    assert_same(|stage| {
        let (mut other, _) = Ring::<Tag>::simulated(Plan { seed: 0, faults: Faults::NONE });
        let groups = [4, 4].map(|size| other.add_buffers(2, size).unwrap());
        let (server, _peer) = stage.connection();
        for multishot in [false, true] {
            let op = Op::Recv { fd: server.as_raw_fd(), group: groups[1], multishot };
            stage.push(op, "recv");
            stage.settle();
        }
    });
}

/// The one place where the simulation is crueller than the loopback, which lets a client read what
/// had reached it before the reset. A real network may not.
#[test]
fn an_answer_that_a_reset_overtakes_is_lost_in_the_simulation() {
    let mut stage = Stage::simulated();
    let (server, mut peer) = stage.connection();
    peer.write(b"unread");
    stage.send(server.as_raw_fd(), "answer");
    stage.close(server, true);
    stage.settle();
    assert_eq!(peer.look(), (Vec::new(), "reset"));
    assert_eq!(Errno::RESET.raw(), 104);
}
