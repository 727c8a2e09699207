//! The simulated kernel itself: what it promises to the tests that stand on it.

#![cfg(feature = "sim")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use uring_ring::sim::{Client, Fault, Faults, Leaks, Plan, Rng, World};
use uring_ring::{
    Address, Arrival, Completion, Errno, GroupId, Op, OpId, Outcome, Ring, SendBuffer,
};

const EBADF: i32 = 9;
const EISCONN: i32 = 106;

/// A server that does everything right: it answers with what it gets, whatever goes wrong.
/// Model for those that are tested on a simulated ring.
struct Echo {
    ring: Ring<Tag>,
    world: World,
    group: GroupId,
    listener: OwnedFd,
    conns: BTreeMap<u32, Conn>,
    next_conn: u32,
    log: Vec<(Tag, bool, Summary)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Tag {
    Accept,
    Recv(u32),
    Send(u32),
    Cancel(u32),
    Close(u32),
}

/// A connection with more unsent bytes stops receiving.
const QUEUE_BYTES_MAX: usize = 100;

#[expect(clippy::struct_excessive_bools, reason = "what is under way, independently")]
struct Conn {
    fd: Option<OwnedFd>,
    receiving: Option<OpId>,
    cancelling: bool,
    sending: bool,
    peer_ended: bool,
    failed: bool,
    closed: bool,
    multishot: bool,
    queue: Vec<u8>,
}

impl Echo {
    fn new(plan: Plan) -> Echo {
        let (mut ring, world) = Ring::simulated(plan);
        let group = ring.add_buffers(4, 64).unwrap();
        let listener = world.listener();
        ring.push(
            Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true },
            Tag::Accept,
        );
        let (conns, log) = (BTreeMap::new(), Vec::new());
        Echo { ring, world, group, listener, conns, next_conn: 0, log }
    }

    /// One turn of its loop; says whether anything was complete.
    fn turn(&mut self, wait: Option<Duration>) -> bool {
        self.ring.turn(wait).unwrap();
        let mut any = false;
        while let Some(completion) = self.ring.poll_completion() {
            any = true;
            self.on_completion(completion);
        }
        any
    }

    fn on_completion(&mut self, Completion { tag, outcome, more }: Completion<Tag>) {
        self.log.push((tag, more, summary(&outcome)));
        match (tag, outcome) {
            (Tag::Accept, Outcome::Accepted(accepted)) => {
                if !more {
                    self.ring.push(
                        Op::Accept { fd: self.listener.as_raw_fd(), multishot: true, wait: true },
                        Tag::Accept,
                    );
                }
                let Ok(fd) = accepted else { return };
                let id = self.next_conn;
                self.next_conn += 1;
                let conn = Conn {
                    fd: Some(fd),
                    receiving: None,
                    cancelling: false,
                    sending: false,
                    peer_ended: false,
                    failed: false,
                    closed: false,
                    multishot: !id.is_multiple_of(3),
                    queue: Vec::new(),
                };
                self.conns.insert(id, conn);
                self.go_on(id);
            }
            (Tag::Recv(id), Outcome::Received(received)) => {
                let conn = self.conns.get_mut(&id).expect("a receive joins its connection");
                conn.receiving = conn.receiving.filter(|_| more);
                match received {
                    Ok(Some(lease)) => conn.queue.extend_from_slice(&lease),
                    Ok(None) => conn.peer_ended = true,
                    // Each lease goes back at once; and what was cancelled can be armed again.
                    Err(Errno::NO_BUFFERS | Errno::CANCELED) => {}
                    Err(_) => conn.failed = true,
                }
                self.go_on(id);
            }
            (Tag::Send(id), Outcome::Sent { buffer, result }) => {
                let conn = self.conns.get_mut(&id).expect("a send joins its connection");
                conn.sending = false;
                match result {
                    Ok(count) => {
                        let rest = buffer.into_head().split_off(count);
                        conn.queue.splice(..0, rest);
                    }
                    Err(_) => conn.failed = true,
                }
                self.go_on(id);
            }
            (Tag::Cancel(id), Outcome::Cancelled(Ok(()) | Err(Errno::NOT_FOUND))) => {
                self.conns.get_mut(&id).expect("a cancel joins its connection").cancelling = false;
                self.go_on(id);
            }
            (Tag::Close(id), Outcome::Closed(Ok(()))) => {
                self.conns.get_mut(&id).expect("a close joins its connection").closed = true;
                self.go_on(id);
            }
            other => panic!("{other:?}"),
        }
    }

    fn go_on(&mut self, id: u32) {
        let conn = self.conns.get_mut(&id).unwrap();
        let Some(fd) = conn.fd.as_ref().map(AsRawFd::as_raw_fd) else {
            if conn.closed && conn.receiving.is_none() && !conn.cancelling && !conn.sending {
                self.conns.remove(&id);
            }
            return;
        };
        if !conn.sending && !conn.queue.is_empty() && !conn.failed {
            conn.sending = true;
            let buffer = std::mem::take(&mut conn.queue).into();
            self.ring.push(Op::Send { fd, buffer }, Tag::Send(id));
        }
        if conn.failed || (conn.peer_ended && !conn.sending) {
            let fd = conn.fd.take().unwrap();
            self.ring.push(Op::Close { fd, cancel: true }, Tag::Close(id));
        } else if conn.queue.len() > QUEUE_BYTES_MAX {
            if let Some(target) = conn.receiving
                && !conn.cancelling
            {
                conn.cancelling = true;
                self.ring.push(Op::Cancel { target }, Tag::Cancel(id));
            }
        } else if conn.receiving.is_none() && !conn.cancelling && !conn.peer_ended {
            let (group, multishot) = (self.group, conn.multishot);
            conn.receiving = Some(self.ring.push(Op::Recv { fd, group, multishot }, Tag::Recv(id)));
        }
    }
}

type Summary = (Result<usize, Errno>, Vec<u8>);

/// What can be compared of an outcome: its result, and its bytes. A descriptor's number is the
/// process's affair.
fn summary(outcome: &Outcome) -> Summary {
    let none = Vec::new;
    match outcome {
        Outcome::Accepted(result) => (result.as_ref().map_or_else(|e| Err(*e), |_| Ok(0)), none()),
        Outcome::Received(Ok(Some(lease))) => (Ok(lease.len()), lease.to_vec()),
        Outcome::Received(Ok(None)) => (Ok(0), none()),
        Outcome::Received(Err(errno)) => (Err(*errno), none()),
        Outcome::Sent { result, .. } | Outcome::Read { result, .. } => (*result, none()),
        Outcome::Connected(result) | Outcome::Closed(result) | Outcome::Cancelled(result) => {
            (result.map(|()| 0), none())
        }
        Outcome::Written { .. }
        | Outcome::SentFds { .. }
        | Outcome::ReceivedFds { .. }
        | Outcome::ReadAt { .. }
        | Outcome::Writable(_)
        | Outcome::Opened(_) => unreachable!("an echo server has no files and passes nothing"),
        Outcome::Watched(result) => (result.map(|()| 0), none()),
        Outcome::ChildEnded(result) => (result.map(|_| 0), none()),
    }
}

/// One client's part: what it will write, and what came back.
struct Talk {
    client: Client,
    left: Vec<u8>,
    wrote: Vec<u8>,
    got: Vec<u8>,
    shut: bool,
}

/// So many seeds; fewer where each instruction is checked.
fn seeds(count: u64) -> std::ops::Range<u64> {
    0..if cfg!(miri) { count.div_ceil(100) } else { count }
}

/// Five clients talk to the echo server; their choices are random, too.
fn run(plan: Plan) -> Echo {
    let mut rng = Rng::new(plan.seed ^ 0xc11e);
    let mut server = Echo::new(plan);
    let mut talks = Vec::new();
    let mut patience = 10_000;
    while talks.len() < 5 || talks.iter().any(|talk: &Talk| !talk.client.is_closed()) {
        patience -= 1;
        assert!(patience > 0, "no end in sight: {plan:?}");
        if talks.len() < 5 && rng.chance(500) {
            let left = (0..rng.below(600)).map(|_| rng.bits() as u8).collect();
            let client = server.world.connect(&server.listener);
            client.set_window(1 + rng.below(200));
            talks.push(Talk { client, left, wrote: Vec::new(), got: Vec::new(), shut: false });
        }
        for talk in &mut talks {
            if rng.chance(500) {
                let count = rng.below(talk.left.len() + 1);
                talk.client.write(&talk.left[..count]);
                talk.wrote.extend(talk.left.drain(..count));
            }
            if talk.left.is_empty() && !talk.shut {
                talk.client.shutdown_write();
                talk.shut = true;
            }
            if rng.chance(500) {
                talk.got.extend(talk.client.read());
            }
        }
        server.turn(Some(Duration::from_millis(1)));
    }
    for talk in &mut talks {
        talk.got.extend(talk.client.read());
        if talk.client.saw_reset() {
            assert!(talk.wrote.starts_with(&talk.got), "{plan:?}");
        } else {
            assert!(talk.wrote == talk.got, "{plan:?}");
        }
    }
    while server.turn(Some(Duration::ZERO)) || server.world.in_flight() > 1 {
        patience -= 1;
        assert!(patience > 0, "something stays in flight: {plan:?}");
    }
    assert!(server.conns.is_empty(), "{plan:?}");
    // The accept is all that is left.
    assert_eq!(server.world.leaks(), Leaks { operations: 1, ..Leaks::NONE }, "{plan:?}");
    server
}

#[test]
fn a_correct_server_stays_correct_under_every_fault() {
    for fault in Fault::EACH {
        // So often that little else happens; but a reset or a refusal each time leaves nothing.
        let per_mille = if fault == Fault::Reset { 50 } else { 700 };
        for seed in seeds(100) {
            run(Plan { seed, faults: Faults::NONE.with(fault, per_mille) });
        }
    }
    for seed in seeds(1000) {
        run(Plan { seed, faults: Faults::ALL });
    }
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn ten_thousand_seeds_take_seconds() {
    let started = std::time::Instant::now();
    let mut completions = 0;
    for seed in seeds(10_000) {
        completions += run(Plan { seed, faults: Faults::ALL }).log.len();
    }
    let took = started.elapsed();
    println!("{completions} completions in {took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let log = |seed| run(Plan { seed, faults: Faults::ALL }).log;
    for seed in seeds(50) {
        let _descriptors_are_numbered_differently = std::fs::File::open("/dev/null").unwrap();
        let first = log(seed);
        let elsewhere = std::thread::spawn(move || log(seed)).join().unwrap();
        assert_eq!(first, elsewhere);
        assert_ne!(first, log(seed + 1));
    }
}

#[test]
fn each_fault_occurs_alone_when_asked_for_and_never_without() {
    let occurs = |faults| {
        let mut counts = [0; Fault::EACH.len()];
        for seed in seeds(100) {
            let server = run(Plan { seed, faults });
            for fault in Fault::EACH {
                counts[fault as usize] += server.world.injected(fault);
            }
        }
        counts
    };
    assert_eq!(occurs(Faults::NONE), [0; Fault::EACH.len()]);
    assert!(occurs(Faults::ALL).iter().all(|&count| count > 0));
    for fault in Fault::EACH {
        let counts = occurs(Faults::NONE.with(fault, 20));
        for other in Fault::EACH {
            assert_eq!(counts[other as usize] > 0, other == fault, "{other:?} for {fault:?}");
        }
    }
}

// Single faults, seen from the outside.

/// A ring with a connection, for one fault that happens each time.
fn always(fault: Fault) -> (Ring<u8>, GroupId, OwnedFd, Client) {
    of(Plan { seed: 3, faults: Faults::NONE.with(fault, 1000) })
}

fn of(plan: Plan) -> (Ring<u8>, GroupId, OwnedFd, Client) {
    let (mut ring, world) = Ring::simulated(plan);
    let group = ring.add_buffers(4, 64).unwrap();
    let (server, client) = world.connection();
    (ring, group, server, client)
}

fn calm() -> (Ring<u8>, GroupId, OwnedFd, Client) {
    of(Plan { seed: 0, faults: Faults::NONE })
}

/// All that completes without further ado.
fn settle(ring: &mut Ring<u8>) -> Vec<Completion<u8>> {
    let mut completions = Vec::new();
    loop {
        ring.turn(Some(Duration::from_millis(1))).unwrap();
        let before = completions.len();
        completions.extend(std::iter::from_fn(|| ring.poll_completion()));
        if completions.len() == before {
            return completions;
        }
    }
}

fn send(fd: RawFd, bytes: &[u8]) -> Op {
    Op::Send { fd, buffer: bytes.to_vec().into() }
}

#[test]
fn a_short_send_sends_a_part_and_says_so() {
    let (mut ring, _, server, client) = always(Fault::ShortSend);
    let mut buffer = SendBuffer::with_body(b"0123".to_vec(), "456789".into());
    while buffer.left() > 0 {
        let left = buffer.left();
        ring.push(Op::Send { fd: server.as_raw_fd(), buffer }, 1);
        let [completion] = settle(&mut ring).try_into().unwrap();
        let Outcome::Sent { buffer: mut back, result } = completion.outcome else { panic!() };
        let count = result.unwrap();
        assert!((1..left.max(2)).contains(&count), "{count} of {left}");
        back.advance(count);
        buffer = back;
    }
    assert_eq!(client.read(), b"0123456789");
}

#[test]
fn a_reset_shows_on_both_ends() {
    let (mut ring, _, server, client) = always(Fault::Reset);
    ring.push(send(server.as_raw_fd(), b"x"), 1);
    ring.push(send(server.as_raw_fd(), b"y"), 2);
    let [first, second] = settle(&mut ring).try_into().unwrap();
    assert!(matches!(first.outcome, Outcome::Sent { result: Err(Errno::RESET), .. }));
    assert!(matches!(second.outcome, Outcome::Sent { result: Err(Errno::BROKEN_PIPE), .. }));
    assert!(client.saw_reset() && client.read().is_empty());
}

#[test]
fn running_out_of_buffers_and_descriptors_leaves_what_waits() {
    let faults = Faults::NONE.with(Fault::NoBuffers, 500).with(Fault::NoDescriptors, 500);
    let (mut failed, mut got) = ([0; 2], [0; 2]);
    for seed in 0..50 {
        let (mut ring, world) = Ring::simulated(Plan { seed, faults });
        let group = ring.add_buffers(4, 64).unwrap();
        let listener = world.listener();
        let client = world.connect(&listener);
        client.write(b"x");
        let server = loop {
            ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, 1);
            let completion = settle(&mut ring).remove(0);
            match completion.outcome {
                Outcome::Accepted(Ok(fd)) => break fd,
                Outcome::Accepted(Err(Errno::PROCESS_FILES)) => failed[0] += 1,
                other => panic!("{other:?}"),
            }
            assert_eq!((completion.more, world.queued(&listener)), (false, 1));
        };
        got[0] += 1;
        loop {
            ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 2);
            let completion = settle(&mut ring).pop().unwrap();
            match completion.outcome {
                Outcome::Received(Ok(Some(lease))) => break assert_eq!(&lease[..], b"x"),
                Outcome::Received(Err(Errno::NO_BUFFERS)) => failed[1] += 1,
                other => panic!("{other:?}"),
            }
            assert_eq!((completion.more, client.backlog()), (false, 1));
        }
        got[1] += 1;
    }
    assert_eq!(got, [50, 50]);
    assert!(failed.iter().all(|&count| count > 10), "{failed:?}");
}

#[test]
fn a_multishot_that_ends_early_does_so_with_a_success() {
    let (mut ring, group, server, client) = always(Fault::EarlyEnd);
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    client.write(b"x");
    let [completion] = settle(&mut ring).try_into().unwrap();
    assert!(matches!(completion.outcome, Outcome::Received(Ok(Some(_)))), "{completion:?}");
    assert!(!completion.more);
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_late_completion_comes_turns_after_what_it_tells_of() {
    let (mut ring, _, server, client) = always(Fault::Late);
    ring.push(send(server.as_raw_fd(), b"x"), 1);
    ring.turn(Some(Duration::ZERO)).unwrap();
    assert!(ring.poll_completion().is_none());
    assert_eq!(client.read(), b"x");
    assert!((0..10).any(|_| {
        ring.turn(Some(Duration::ZERO)).unwrap();
        ring.poll_completion().is_some()
    }));
}

#[test]
fn completions_change_places_but_for_those_of_one_stream() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let faults = Faults::NONE.with(Fault::Reordered, 500).with(Fault::Late, 300);
        let (mut ring, world) = Ring::simulated(Plan { seed, faults });
        let group = ring.add_buffers(16, 1).unwrap();
        let pairs = [world.connection(), world.connection()];
        for (tag, (server, client)) in (1..).zip(&pairs) {
            ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, tag);
            client.write(b"012345");
        }
        let mut order = Vec::new();
        let mut seen = [Vec::new(), Vec::new()];
        for completion in settle(&mut ring) {
            let Outcome::Received(Ok(Some(lease))) = completion.outcome else { panic!() };
            order.push(completion.tag);
            seen[usize::from(completion.tag) - 1].push(lease[0]);
        }
        assert_eq!(seen, [b"012345", b"012345"]);
        orders.insert(order);
    }
    assert!(orders.len() > 20, "{}", orders.len());
}

#[test]
fn bytes_arrive_in_pieces_down_to_single_ones() {
    let (mut ring, group, server, client) = always(Fault::Split);
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    client.write(&[9; 2000]);
    let mut lengths = Vec::new();
    while lengths.iter().sum::<usize>() < 2000 {
        ring.turn(None).unwrap();
        while let Some(completion) = ring.poll_completion() {
            match completion.outcome {
                Outcome::Received(Ok(Some(lease))) => lengths.push(lease.len()),
                Outcome::Received(Err(Errno::NO_BUFFERS)) => {
                    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(lengths.contains(&1) && lengths.iter().any(|&length| length > 8), "{lengths:?}");
}

#[test]
fn in_a_cancel_race_both_complete_and_either_wins() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let faults = Faults::NONE.with(Fault::CancelRace, 700).with(Fault::Reordered, 300);
        let (mut ring, group, server, client) = of(Plan { seed, faults });
        let fd = server.as_raw_fd();
        let target = ring.push(Op::Recv { fd, group, multishot: seed % 2 == 0 }, 1);
        assert!(settle(&mut ring).is_empty());
        client.write(&[1; 3][..(seed % 3) as usize]);
        ring.push(Op::Cancel { target }, 2);
        let completions = settle(&mut ring);
        assert_eq!(ring.in_flight(), 0);
        assert!(!completions.last().unwrap().more);
        let outcomes: Vec<_> = completions
            .iter()
            .map(|c| (c.tag, c.more, summary(&c.outcome).0.map_err(Errno::raw)))
            .collect();
        seen.insert(outcomes);
    }
    assert!(seen.len() >= 6, "{seen:#?}");
}

// What holds without faults.

#[test]
fn two_sends_in_flight_on_one_socket_are_reordered() {
    let (mut ring, _, server, client) = calm();
    client.set_window(4);
    ring.push(send(server.as_raw_fd(), b"aaaaaaaa"), 1);
    ring.push(send(server.as_raw_fd(), b"bbbbbbbb"), 2);
    let mut got = Vec::new();
    while ring.in_flight() > 0 {
        settle(&mut ring);
        got.extend(client.read());
    }
    assert_eq!(got, b"aaaabbbbbbbbaaaa");
}

#[test]
fn a_client_that_does_not_read_stalls_the_send() {
    let (mut ring, _, server, client) = calm();
    client.set_window(10);
    ring.push(send(server.as_raw_fd(), &[1; 25]), 1);
    for length in [10, 10] {
        assert!(settle(&mut ring).is_empty());
        assert_eq!(client.read().len(), length);
    }
    assert_eq!(settle(&mut ring).len(), 1);
    assert_eq!(client.read().len(), 5);
}

#[test]
fn a_turn_that_would_wait_for_ever_returns_and_says_so() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let readable = world.readable();
    ring.push(Op::Read { fd: readable.as_raw_fd(), buffer: Vec::with_capacity(8) }, 1);
    ring.turn(None).unwrap();
    assert!(world.is_stuck());
    assert_eq!(world.idle_turns(), 1);
    world.feed(&readable, b"go");
    ring.turn(None).unwrap();
    assert!(!world.is_stuck());
    assert!(ring.poll_completion().is_some());
}

#[test]
fn time_passes_only_while_a_turn_waits_or_by_hand() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let started = world.now();
    let elapsed = || world.now() - started;
    ring.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(elapsed(), Duration::ZERO);
    ring.turn(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(elapsed(), Duration::from_secs(5));
    world.advance(Duration::from_secs(1));
    assert_eq!(elapsed(), Duration::from_secs(6));

    let readable = world.readable();
    world.feed(&readable, b"at once");
    ring.push(Op::Read { fd: readable.as_raw_fd(), buffer: Vec::with_capacity(8) }, 1);
    ring.turn(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(elapsed(), Duration::from_secs(6));
}

#[test]
fn a_waiting_turn_goes_on_until_late_things_come() {
    for wait in [None, Some(Duration::from_secs(1))] {
        let (mut ring, _, server, _client) = always(Fault::Late);
        ring.push(send(server.as_raw_fd(), b"x"), 1);
        ring.turn(wait).unwrap();
        assert!(ring.poll_completion().is_some());
    }
}

#[test]
fn a_message_is_read_alone_and_the_end_after_the_last() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let readable = world.readable();
    world.feed(&readable, b"one");
    world.feed(&readable, b"two and more");
    world.end(&readable);
    let mut got = Vec::new();
    for _ in 0..5 {
        let buffer = Vec::with_capacity(8);
        ring.push(Op::Read { fd: readable.as_raw_fd(), buffer }, 1);
        let [completion] = settle(&mut ring).try_into().unwrap();
        let Outcome::Read { buffer, result } = completion.outcome else { panic!() };
        assert_eq!(result, Ok(buffer.len()));
        got.push(buffer);
    }
    assert_eq!(got, [b"one".as_slice(), b"two and ", b"more", b"", b""]);
}

fn recv_fds(channel: &OwnedFd, fds_max: usize) -> Op {
    let payload = Vec::with_capacity(8);
    Op::RecvFds { fd: channel.as_raw_fd(), payload, fds_max, wait: true }
}

fn received_fds(completion: Completion<u8>) -> (Vec<u8>, Vec<OwnedFd>, Result<Arrival, Errno>) {
    match completion.outcome {
        Outcome::ReceivedFds { payload, fds, result } => (payload, fds, result),
        other => panic!("no message but {other:?}"),
    }
}

#[test]
fn passed_connections_are_connections_like_others() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let channel = world.readable();
    ring.push(recv_fds(&channel, 3), 1);
    assert_eq!(settle(&mut ring).len(), 0);
    let clients = world.pass(&channel, b"batch", 3);
    clients[1].write(b"early"); // before anybody has it
    assert_eq!(world.leaks(), Leaks { operations: 1, ..Leaks::NONE });

    let [message] = settle(&mut ring).try_into().unwrap();
    let (payload, fds, result) = received_fds(message);
    assert_eq!((payload.as_slice(), result), (b"batch".as_slice(), Ok(Arrival::Whole)));
    assert_eq!(world.leaks(), Leaks { connections: 3, ..Leaks::NONE });
    let buffer = Vec::with_capacity(8);
    ring.push(Op::Read { fd: fds[1].as_raw_fd(), buffer }, 2);
    for (fd, answer) in fds.into_iter().zip(["a", "b", "c"]) {
        ring.push(send(fd.as_raw_fd(), answer.as_bytes()), 3);
        ring.push(Op::Close { fd, cancel: true }, 4);
    }
    let early = settle(&mut ring).remove(0);
    assert!(matches!(early.outcome, Outcome::Read { buffer, .. } if buffer == b"early"));
    assert_eq!([0, 1, 2].map(|n: usize| clients[n].read()), [b"a", b"b", b"c"]);
    assert!(clients.iter().all(Client::saw_end));
    assert_eq!(world.leaks(), Leaks::NONE);
}

#[test]
fn out_of_descriptors_a_message_arrives_without_some_and_their_clients_see_it() {
    let plan = Plan { seed: 3, faults: Faults::NONE.with(Fault::NoDescriptors, 1000) };
    let (mut ring, world) = Ring::<u8>::simulated(plan);
    let channel = world.readable();
    for count in 1..8 {
        let clients = world.pass(&channel, b"batch", count);
        ring.push(recv_fds(&channel, count), 1);
        let [message] = settle(&mut ring).try_into().unwrap();
        let (payload, fds, result) = received_fds(message);
        let cut = Arrival::Cut { payload: false, fds: true };
        assert_eq!((payload.as_slice(), result), (b"batch".as_slice(), Ok(cut)));
        assert!(fds.len() < count);
        let (came, lost) = clients.split_at(fds.len());
        assert!(!came.iter().any(Client::is_closed) && lost.iter().all(Client::is_closed));
        for fd in fds {
            ring.push(Op::Close { fd, cancel: false }, 2);
        }
        settle(&mut ring);
    }
    assert_eq!((world.injected(Fault::NoDescriptors), world.leaks()), (7, Leaks::NONE));
}

#[test]
fn what_the_server_passes_and_writes_is_kept_and_counted() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let (channel, event) = (world.readable(), world.readable());
    let copies = |count: usize| (0..count).map(|_| event.try_clone().unwrap()).collect();
    for (payload, fds) in [(b"one".to_vec(), copies(1)), (b"three".to_vec(), copies(3))] {
        ring.push(Op::SendFds { fd: channel.as_raw_fd(), payload, fds, wait: false }, 1);
    }
    ring.push(Op::Write { fd: event.as_raw_fd(), buffer: vec![1; 8] }, 2);
    let [one, three, written] = settle(&mut ring).try_into().unwrap();
    for (completion, count) in [(one, 1), (three, 3)] {
        let Outcome::SentFds { fds, result: Ok(()), .. } = completion.outcome else { panic!() };
        assert_eq!(fds.len(), count);
    }
    assert!(matches!(written.outcome, Outcome::Written { result: Ok(8), .. }), "{written:?}");
    assert_eq!((world.passed(&channel), world.passed(&event)), (4, 0));
    assert_eq!(world.written(&channel), [b"one".as_slice(), b"three"]);
    assert_eq!((world.written(&channel).len(), world.written(&event)), (0, vec![vec![1; 8]]));
}

#[test]
fn a_dropped_ring_closes_what_was_passed_to_it_and_not_read() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let channel = world.readable();
    ring.push(recv_fds(&channel, 2), 1);
    let clients = world.pass(&channel, b"batch", 2);
    ring.turn(Some(Duration::ZERO)).unwrap(); // received, but nobody looks
    ring.push(recv_fds(&channel, 2), 2);
    ring.turn(Some(Duration::ZERO)).unwrap();
    assert!(!clients[0].is_closed());
    drop(ring);
    assert!(clients.iter().all(Client::saw_end));
    assert_eq!(world.leaks(), Leaks::NONE);
}

#[test]
fn in_a_cancel_race_a_message_arrives_or_stays() {
    for seed in 0..20 {
        let plan = Plan { seed, faults: Faults::NONE.with(Fault::CancelRace, 500) };
        let (mut ring, world) = Ring::<u8>::simulated(plan);
        let channel = world.readable();
        let target = ring.push(recv_fds(&channel, 1), 1);
        ring.turn(Some(Duration::ZERO)).unwrap();
        let client = world.pass(&channel, b"batch", 1).remove(0);
        ring.push(Op::Cancel { target }, 2);
        let (mut fds, mut completions) = (Vec::new(), settle(&mut ring));
        completions.sort_by_key(|completion| completion.tag);
        let (_, first, result) = received_fds(completions.remove(0));
        if result == Err(Errno::CANCELED) {
            ring.push(recv_fds(&channel, 1), 3);
            fds.extend(received_fds(settle(&mut ring).remove(0)).1);
        }
        fds.extend(first);
        assert_eq!(fds.len(), 1, "seed {seed}");
        assert!(!client.is_closed());
    }
}

#[test]
fn a_child_is_waited_for_before_and_after_its_end() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let [exit_7, kill_9] = [7 << 8, 9].map(ExitStatus::from_raw);
    world.end_child(1, exit_7);
    ring.push(Op::WaitChild { pid: 1 }, 1);
    ring.push(Op::WaitChild { pid: 2 }, 2);
    let [first] = settle(&mut ring).try_into().unwrap();
    assert!(matches!(first.outcome, Outcome::ChildEnded(Ok(status)) if status == exit_7));
    world.end_child(2, kill_9);
    let [second] = settle(&mut ring).try_into().unwrap();
    assert!(matches!(second.outcome, Outcome::ChildEnded(Ok(status)) if status == kill_9));
}

#[test]
fn a_descriptor_is_dead_once_it_is_closed() {
    let (mut ring, group, server, _client) = calm();
    let fd = server.as_raw_fd();
    ring.push(Op::Close { fd: server, cancel: true }, 1);
    ring.push(Op::Recv { fd, group, multishot: true }, 2);
    ring.push(send(fd, b"x"), 3);
    let [_, recv, sent] = settle(&mut ring).try_into().unwrap();
    let dead = Errno::new(EBADF);
    assert!(matches!(recv.outcome, Outcome::Received(Err(e)) if e == dead), "{recv:?}");
    assert!(matches!(sent.outcome, Outcome::Sent { result: Err(e), .. } if e == dead), "{sent:?}");
}

#[test]
fn a_socket_connects_where_somebody_listens_and_is_refused_elsewhere() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 1, faults: Faults::NONE });
    let group = ring.add_buffers(2, 64).unwrap();
    let peer: Rc<Address> = Rc::new("192.0.2.1:80".parse::<SocketAddr>().unwrap().into());
    let socket = world.socket();
    let connect = || Op::Connect { fd: socket.as_raw_fd(), peer: Rc::clone(&peer) };
    ring.push(send(socket.as_raw_fd(), b"too early"), 1);
    ring.push(connect(), 2);
    world.listen_at(&peer);
    let results = settle(&mut ring);
    assert!(
        matches!(results[0].outcome, Outcome::Sent { result: Err(Errno::BROKEN_PIPE), .. }),
        "{results:?}"
    );
    assert!(matches!(results[1].outcome, Outcome::Connected(Ok(()))), "{results:?}");

    let client = world.take_connection(&peer).unwrap();
    assert!(world.take_connection(&peer).is_none());
    ring.push(send(socket.as_raw_fd(), b"hello"), 3);
    ring.push(Op::Recv { fd: socket.as_raw_fd(), group, multishot: true }, 4);
    client.write(b"hi");
    settle(&mut ring);
    assert_eq!(client.read(), b"hello");
    assert_eq!(client.backlog(), 0);

    world.refuse_at(&peer);
    let other = world.socket();
    ring.push(Op::Connect { fd: other.as_raw_fd(), peer: Rc::clone(&peer) }, 5);
    ring.push(connect(), 6);
    let results = settle(&mut ring);
    assert!(matches!(results[0].outcome, Outcome::Connected(Err(Errno::REFUSED))), "{results:?}");
    let Outcome::Connected(Err(already)) = results[1].outcome else { panic!("{results:?}") };
    assert_eq!(already.raw(), EISCONN);
}

#[test]
fn a_shutdown_needs_a_connection() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let (server, client) = world.connection();
    ring.shutdown(server.as_fd(), std::net::Shutdown::Write).unwrap();
    assert!(client.saw_end());
    client.reset();
    assert!(ring.shutdown(server.as_fd(), std::net::Shutdown::Both).is_err());
    assert!(ring.shutdown(world.listener().as_fd(), std::net::Shutdown::Both).is_err());
}

#[test]
fn what_a_server_still_holds_is_counted() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let group = ring.add_buffers(4, 64).unwrap();
    let (server, client) = world.connection();
    client.write(b"x");
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    let lease = settle(&mut ring);
    assert_eq!(world.leaks(), Leaks { operations: 1, buffers: 1, connections: 1 });
    drop(lease);
    ring.push(Op::Close { fd: server, cancel: true }, 2);
    settle(&mut ring);
    assert_eq!(world.leaks(), Leaks::NONE);
}

#[test]
fn a_dropped_ring_ends_what_is_in_flight_and_runs_what_was_pushed() {
    let (mut ring, world) = Ring::<u8>::simulated(Plan { seed: 0, faults: Faults::NONE });
    let group = ring.add_buffers(4, 64).unwrap();
    let listener = world.listener();
    let (armed, armed_client) = world.connection();
    let (pushed, pushed_client) = world.connection();
    ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, 1);
    ring.push(Op::Recv { fd: armed.as_raw_fd(), group, multishot: true }, 2);
    let accepted_client = world.connect(&listener);
    armed_client.write(b"kept");
    ring.turn(Some(Duration::ZERO)).unwrap();
    let mut read: Vec<_> = std::iter::from_fn(|| ring.poll_completion()).collect();
    world.connect(&listener); // closes again
    ring.turn(Some(Duration::ZERO)).unwrap(); // accepted, but nobody reads it
    ring.push(Op::Close { fd: armed, cancel: false }, 3);
    ring.push(send(pushed.as_raw_fd(), b"last words"), 4);
    ring.push(Op::Close { fd: pushed, cancel: false }, 5);
    drop(ring);
    assert_eq!(pushed_client.read(), b"last words");
    assert!(pushed_client.saw_end() && armed_client.saw_end());
    assert!(!accepted_client.is_closed()); // its descriptor is still in `read`
    assert_eq!(world.in_flight(), 0);
    let Outcome::Received(Ok(Some(lease))) = read.pop().unwrap().outcome else { panic!() };
    assert_eq!(&lease[..], b"kept");
}

#[test]
fn a_file_is_read_at_its_places_and_opened_by_its_name() {
    for seed in 0..100 {
        let (mut ring, world) =
            Ring::<u32>::simulated(Plan { seed, faults: Faults::NONE.with(Fault::Split, 500) });
        let directory = Rc::new(world.file(None, b""));
        drop(world.file(Some("name"), b"0123456789"));
        let open = |path: &str| Op::Open {
            directory: Rc::clone(&directory),
            path: CString::new(path).unwrap(),
            flags: 0,
            resolve: 0,
        };
        ring.push(open("none"), 1);
        ring.turn(None).unwrap();
        let Outcome::Opened(Err(Errno::NOT_FOUND)) = ring.poll_completion().unwrap().outcome else {
            panic!("there is no such file")
        };
        ring.push(open("name"), 1);
        ring.turn(None).unwrap();
        let Outcome::Opened(Ok(file)) = ring.poll_completion().unwrap().outcome else {
            panic!("there is one")
        };
        let file = Rc::new(file);
        let mut buffer = Vec::with_capacity(16);
        while buffer.len() < 10 {
            let (file, offset) = (Rc::clone(&file), buffer.len() as u64);
            ring.push(Op::ReadAt { file, offset, buffer, count: 6 }, 1);
            ring.turn(None).unwrap();
            let Outcome::ReadAt { buffer: read, result } = ring.poll_completion().unwrap().outcome
            else {
                panic!("a read was asked for")
            };
            assert!((1..=6).contains(&result.unwrap()));
            buffer = read;
        }
        assert_eq!(buffer, b"0123456789");
    }
}
