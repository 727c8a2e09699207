//! Each operation against the real kernel, with what it promises.

mod common;

use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Seek, SeekFrom, Write, pipe};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, ResolveFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use common::{
    accepted, assert_quiet, connection, features, next, next_by_tag, promises, read, received,
    ring, ring_of, ring_with_buffers, sent,
};
use uring_ring::{Address, Completion, Errno, Op, Outcome, Ring, SendBuffer, Setup};

// Waiting elsewhere.

fn is_readable(notice: &EventFd, within: Duration) -> bool {
    let mut polled = [PollFd::new(notice.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::try_from(within).unwrap()).unwrap() == 1
}

/// A ring that writes this eventfd.
fn ring_with_notice() -> (Ring<u32>, EventFd) {
    let mut ring =
        Ring::new(Setup { entries: 64, restricted: true, features: features() }).unwrap();
    let notice = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap();
    ring.notify(notice.as_fd()).unwrap();
    ring.enable().unwrap();
    (ring, notice)
}

#[test]
fn an_eventfd_tells_that_a_turn_would_find_something() {
    let (mut ring, notice) = ring_with_notice();
    let (reader, mut writer) = pipe().unwrap();
    for round in 0..3 {
        ring.push(read_of(&reader), round);
        ring.turn(Some(Duration::ZERO)).unwrap();
        let _nothing = notice.read(); // what the turn before has found
        assert!(!is_readable(&notice, Duration::ZERO), "nothing has come");
        writer.write_all(b"x").unwrap();
        assert!(is_readable(&notice, Duration::from_secs(10)));
        assert!(ring.poll_completion().is_none(), "it takes a turn");
        notice.read().unwrap();
        assert!(!is_readable(&notice, Duration::ZERO), "reading takes it back");
        ring.turn(Some(Duration::ZERO)).unwrap();
        let Some(Completion { outcome: Outcome::Read { buffer, result }, .. }) =
            ring.poll_completion()
        else {
            panic!("what was told of is there");
        };
        assert_eq!((buffer.as_slice(), result), (&b"x"[..], Ok(1)));
    }
}

/// As it says: read the eventfd, turn once more, and only then wait.
#[test]
fn who_waits_for_the_eventfd_misses_nothing() {
    const BYTES: usize = 5_000;
    let (mut ring, notice) = ring_with_notice();
    let (reader, mut writer) = pipe().unwrap();
    let elsewhere = thread::spawn(move || {
        for number in 0..BYTES {
            writer.write_all(b"x").unwrap();
            if number % 3 == 0 {
                thread::yield_now();
            }
        }
        writer // open until all is read
    });
    ring.push(read_of(&reader), 0);
    let mut heard = 0;
    while heard < BYTES {
        let _may_be_unwritten = notice.read();
        ring.turn(Some(Duration::ZERO)).unwrap();
        let mut is_news = false;
        while let Some(Completion { outcome: Outcome::Read { result, .. }, .. }) =
            ring.poll_completion()
        {
            heard += result.unwrap();
            ring.push(read_of(&reader), 0);
            is_news = true;
        }
        assert!(is_news || is_readable(&notice, Duration::from_secs(10)), "after {heard}");
    }
    elsewhere.join().unwrap();
}

fn read_of(reader: &PipeReader) -> Op {
    Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(16) }
}

// Accept.

#[test]
fn an_accept_stays_armed_and_completes_for_each_connection() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients = vec![TcpStream::connect(address).unwrap()]; // one waits already
    ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, 1);
    for round in 0..5_u8 {
        let completion = next(&mut ring);
        assert!(completion.more);
        let server = accepted(completion);
        let flags = FdFlag::from_bits_retain(fcntl(&server, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));

        clients[usize::from(round)].write_all(&[round]).unwrap();
        let mut byte = [0];
        TcpStream::from(server).read_exact(&mut byte).unwrap();
        assert_eq!(byte, [round]);
        clients.push(TcpStream::connect(address).unwrap());
    }
}

#[test]
fn a_one_shot_accept_takes_one_connection_and_leaves_the_others() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let clients = [(); 3].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    for client in &clients {
        ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: false, wait: true }, 1);
        let completion = next(&mut ring);
        assert!(!completion.more);
        let server = accepted(completion);
        let flags = FdFlag::from_bits_retain(fcntl(&server, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        let peer = TcpStream::from(server).peer_addr().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_quiet(&mut ring);
    }
}

#[test]
fn a_cancelled_accept_leaves_the_queue_to_its_successor() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let accept = ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, 1);
    assert_quiet(&mut ring);
    ring.push(Op::Cancel { target: accept }, 2);
    let [accept, cancel] = next_by_tag(&mut ring, 2).try_into().unwrap();
    assert!(matches!(accept.outcome, Outcome::Accepted(Err(Errno::CANCELED))), "{accept:?}");
    assert!(matches!(cancel.outcome, Outcome::Cancelled(Ok(()))), "{cancel:?}");

    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_quiet(&mut ring);
    ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, 3);
    let successor = next(&mut ring);
    assert_eq!(successor.tag, 3);
    accepted(successor);
}

// Connect.

fn tcp_socket() -> OwnedFd {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

fn connected(completion: &Completion<u32>) -> Result<(), Errno> {
    assert!(!completion.more);
    match completion.outcome {
        Outcome::Connected(result) => result,
        ref other => panic!("no connection but {other:?}"),
    }
}

#[test]
fn a_socket_connects_over_tcp_and_in_the_file_system_and_carries_bytes() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = Rc::new(Address::from(listener.local_addr().unwrap()));
    let sockets = [(); 3].map(|()| tcp_socket());
    for (tag, socket) in (0..).zip(&sockets) {
        ring.push(Op::Connect { fd: socket.as_raw_fd(), peer: Rc::clone(&peer) }, tag);
    }
    for completion in next_by_tag(&mut ring, 3) {
        assert_eq!(connected(&completion), Ok(()));
    }
    let buffer = b"hello".to_vec().into();
    ring.push(Op::Send { fd: sockets[0].as_raw_fd(), buffer }, 9);
    assert_eq!(sent(next(&mut ring)), 5);
    let mut got = [0; 5];
    listener.accept().unwrap().0.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");

    let directory = std::env::temp_dir().join(format!("uring-ring-connect-{}", std::process::id()));
    let named = UnixListener::bind(&directory).unwrap();
    let unix = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let peer = Rc::new(Address::unix(&directory).unwrap());
    ring.push(Op::Connect { fd: unix.as_raw_fd(), peer }, 1);
    let completion = next(&mut ring);
    std::fs::remove_file(&directory).unwrap();
    assert_eq!(connected(&completion), Ok(()));
    drop(named);
}

#[test]
fn a_connection_that_nobody_takes_is_refused() {
    let mut ring = ring();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = tcp_socket();
    ring.push(Op::Connect { fd: socket.as_raw_fd(), peer: Rc::new(free.into()) }, 1);
    assert_eq!(connected(&next(&mut ring)), Err(Errno::REFUSED));
}

#[test]
fn an_accept_that_does_not_wait_takes_what_is_there_and_ends() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let accept = |multishot| Op::Accept { fd: listener.as_raw_fd(), multishot, wait: false };
    for waiting in 0..5 {
        let address = listener.local_addr().unwrap();
        let _clients: Vec<_> = (0..waiting).map(|_| TcpStream::connect(address).unwrap()).collect();
        ring.push(accept(true), waiting);
        for _ in 0..waiting {
            let completion = next(&mut ring);
            assert!(completion.more);
            accepted(completion);
        }
        for multishot in [true, false] {
            if !multishot {
                ring.push(accept(false), waiting);
            }
            let end = next(&mut ring);
            assert!(matches!(end.outcome, Outcome::Accepted(Err(Errno::AGAIN))), "{end:?}");
            assert!(!end.more);
        }
        assert_quiet(&mut ring);
        assert_eq!(ring.in_flight(), 0);
    }
}

#[test]
fn a_watch_tells_of_each_connection_that_a_busy_ring_was_told_of_first() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = listener.as_raw_fd();
    let (mut busy, mut watchers) = (ring(), [ring(), ring()]);
    busy.push(Op::Accept { fd, multishot: true, wait: true }, 1);
    assert_quiet(&mut busy); // and it won't enter the kernel again until the end
    for watcher in &mut watchers {
        watcher.push(Op::Watch { fd }, 2);
        assert_quiet(watcher);
    }
    for _ in 0..5 {
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let told = watchers.each_mut().map(next);
        assert!(
            told.iter().all(|told| told.more && matches!(told.outcome, Outcome::Watched(Ok(()))))
        );
        let [first, second] = &mut watchers;
        first.push(Op::Accept { fd, multishot: false, wait: false }, 3);
        accepted(next(first));
        second.push(Op::Accept { fd, multishot: true, wait: false }, 3);
        let nobody = next(second).outcome;
        assert!(matches!(nobody, Outcome::Accepted(Err(Errno::AGAIN))), "{nobody:?}");
    }
    assert_quiet(&mut busy);
}

// Recv.

#[test]
fn a_one_shot_receive_completes_once() {
    let (mut ring, group) = ring_with_buffers(4, 64);
    let (server, mut client) = connection();
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: false }, 1);
    client.write_all(b"first").unwrap();
    let completion = next(&mut ring);
    assert!(!completion.more);
    assert_eq!(received(&completion), b"first");
    client.write_all(b"second").unwrap();
    assert_quiet(&mut ring);
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_multishot_receive_completes_for_each_arrival_until_the_stream_ends() {
    let (mut ring, group) = ring_with_buffers(4, 64);
    let (server, mut client) = connection();
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    for round in 0..20_u8 {
        client.write_all(&[round; 3]).unwrap();
        let completion = next(&mut ring);
        assert!(completion.more);
        assert_eq!(received(&completion), [round; 3]);
    }
    client.shutdown(Shutdown::Write).unwrap();
    let end = next(&mut ring);
    assert!(!end.more);
    assert!(matches!(end.outcome, Outcome::Received(Ok(None))), "{end:?}");
    assert_eq!((ring.in_flight(), ring.leased(group)), (0, 0));
}

#[test]
fn a_receive_longer_than_a_buffer_comes_in_several() {
    let (mut ring, group) = ring_with_buffers(8, 4);
    let (server, mut client) = connection();
    client.write_all(b"abcdefghij").unwrap();
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    let parts: Vec<_> = (0..3).map(|_| next(&mut ring)).collect();
    let parts: Vec<&[u8]> = parts.iter().map(received).collect();
    assert_eq!(parts, [b"abcd".as_slice(), b"efgh", b"ij"]);
}

#[test]
fn running_out_of_buffers_ends_a_receive_and_loses_nothing() {
    let (mut ring, group) = ring_with_buffers(2, 4);
    let (server, mut client) = connection();
    client.write_all(b"0123456789abcdefgh").unwrap();
    let (mut got, mut leases) = (Vec::new(), Vec::new());
    let mut ran_out = 0;
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    while got.len() < 18 {
        let completion = next(&mut ring);
        if let Outcome::Received(Err(errno)) = completion.outcome {
            assert_eq!((errno, completion.more), (Errno::NO_BUFFERS, false));
            assert_eq!(ring.leased(group), 2);
            ran_out += 1;
            leases.clear();
            ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
        } else {
            got.extend_from_slice(received(&completion));
            leases.push(completion);
        }
    }
    assert_eq!((got.as_slice(), ran_out), (b"0123456789abcdefgh".as_slice(), 2));
}

#[test]
fn groups_give_buffers_of_their_own_sizes() {
    let mut ring = Ring::new(Setup { entries: 8, restricted: true, features: features() }).unwrap();
    let groups = [4, 8, 16].map(|size| ring.add_buffers(2, size).unwrap());
    ring.enable().unwrap();
    let (server, mut client) = connection();
    client.write_all(&[7; 100]).unwrap();
    for (group, size) in groups.into_iter().zip([4, 8, 16]) {
        ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: false }, size);
        let completion = next(&mut ring);
        assert_eq!(received(&completion).len(), size as usize);
        assert_eq!(groups.map(|g| ring.leased(g)), groups.map(|g| u16::from(g == group)));
    }
}

#[test]
fn a_buffer_goes_round_many_times_with_the_right_bytes_in_it() {
    let (mut ring, group) = ring_with_buffers(2, 8);
    let (server, mut client) = connection();
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    for round in 0..70_000_u64 {
        client.write_all(&round.to_le_bytes()).unwrap(); // the ring's 16-bit tail wraps once
        let completion = next(&mut ring);
        assert_eq!(received(&completion), round.to_le_bytes());
    }
}

#[test]
fn a_reset_by_the_peer_is_an_error_once() {
    let (mut ring, group) = ring_with_buffers(2, 8);
    let (server, client) = connection();
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    assert_quiet(&mut ring);
    (&server_side(&server)).write_all(b"unread by the client").unwrap();
    drop(client);
    let completion = next(&mut ring);
    assert!(!completion.more);
    assert!(matches!(completion.outcome, Outcome::Received(Err(Errno::RESET))), "{completion:?}");
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 2);
    assert!(matches!(next(&mut ring).outcome, Outcome::Received(Ok(None))));
}

fn server_side(server: &OwnedFd) -> TcpStream {
    server.try_clone().unwrap().into()
}

// Send.

#[test]
fn a_send_of_each_shape_arrives_whole_and_gives_its_buffer_back() {
    let mut ring = ring();
    let (server, mut client) = connection();
    let body = || Bytes::from_static(b"body");
    let half_gone = {
        let mut buffer = SendBuffer::with_body(b"head".to_vec(), body());
        buffer.advance(6);
        buffer
    };
    for (buffer, expected) in [
        (SendBuffer::new(b"head".to_vec()), "head"),
        (SendBuffer::with_body(Vec::new(), body()), "body"),
        (SendBuffer::with_body(b"head".to_vec(), body()), "headbody"),
        (half_gone, "dy"),
    ] {
        ring.push(Op::Send { fd: server.as_raw_fd(), buffer }, 1);
        let Outcome::Sent { mut buffer, result } = next(&mut ring).outcome else { panic!() };
        assert_eq!(result, Ok(expected.len()));
        assert_eq!(buffer.left(), expected.len());
        buffer.advance(expected.len());
        assert_eq!(buffer.left(), 0);
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, expected.as_bytes());
    }
}

#[test]
fn a_large_send_to_a_slow_reader_completes_once_and_whole() {
    let mut ring = ring();
    for head_len in [0, 1 << 20] {
        let (server, mut client) = connection();
        let whole: Vec<u8> = (0..8_u32 << 20).map(|n| (n % 251) as u8).collect();
        let buffer = SendBuffer::with_body(
            whole[..head_len].to_vec(),
            Bytes::copy_from_slice(&whole[head_len..]),
        );
        ring.push(Op::Send { fd: server.as_raw_fd(), buffer }, 1);
        ring.turn(Some(Duration::ZERO)).unwrap();
        assert!(ring.poll_completion().is_none(), "the socket took it all at once");
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            let mut part = vec![0; 1 << 18];
            while got.len() < 8 << 20 {
                let count = client.read(&mut part).unwrap();
                got.extend_from_slice(&part[..count]);
                thread::sleep(Duration::from_millis(1));
            }
            got
        });
        assert_eq!(sent(next(&mut ring)), whole.len());
        assert!(reader.join().unwrap() == whole);
    }
}

#[test]
fn a_send_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
    let broken_pipe = SigSet::from(Signal::SIGPIPE);
    broken_pipe.thread_block().unwrap(); // so that the signal would stay to be seen
    let signals = SignalFd::with_flags(&broken_pipe, SfdFlags::SFD_NONBLOCK).unwrap();

    let (reader, mut writer) = pipe().unwrap();
    drop(reader);
    assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(signals.read_signal().unwrap().is_some(), "this test can see the signal");

    let mut ring = ring();
    for body in ["", "body"] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let buffer = SendBuffer::with_body(b"head".to_vec(), body.into());
        ring.push(Op::Send { fd: ours.as_raw_fd(), buffer }, 1);
        let outcome = next(&mut ring).outcome;
        assert!(
            matches!(outcome, Outcome::Sent { result: Err(Errno::BROKEN_PIPE), .. }),
            "{outcome:?}"
        );
        assert!(signals.read_signal().unwrap().is_none());
    }
}

// Read.

#[test]
fn a_read_waits_fills_at_most_its_capacity_and_gets_nothing_at_the_end() {
    let mut ring = ring();
    let (reader, mut writer) = pipe().unwrap();
    let read_into = |buffer| Op::Read { fd: reader.as_raw_fd(), buffer };
    let mut buffer = Vec::with_capacity(4);
    buffer.extend_from_slice(b"old");
    ring.push(read_into(buffer), 1);
    assert_quiet(&mut ring);
    writer.write_all(b"abcdef").unwrap();
    assert_eq!(read(next(&mut ring)), b"abcd");
    ring.push(read_into(Vec::with_capacity(4)), 1);
    assert_eq!(read(next(&mut ring)), b"ef");
    drop(writer);
    ring.push(read_into(Vec::with_capacity(4)), 1);
    assert_eq!(read(next(&mut ring)), b"");
}

#[test]
fn a_read_of_a_file_goes_on_from_its_position() {
    let mut ring = ring();
    let mut file = File::from(memfd_create("read", MFdFlags::empty()).unwrap());
    file.write_all(b"skipped, then read").unwrap();
    file.seek(SeekFrom::Start(9)).unwrap();
    for expected in ["then ", "read", ""] {
        ring.push(Op::Read { fd: file.as_raw_fd(), buffer: Vec::with_capacity(5) }, 1);
        assert_eq!(read(next(&mut ring)), expected.as_bytes());
    }
}

#[test]
fn a_read_of_an_eventfd_takes_its_count() {
    let mut ring = ring();
    let event = EventFd::from_value(0).unwrap();
    ring.push(Op::Read { fd: event.as_fd().as_raw_fd(), buffer: Vec::with_capacity(8) }, 1);
    assert_quiet(&mut ring);
    event.write(5).unwrap();
    assert_eq!(read(next(&mut ring)), 5_u64.to_ne_bytes());
}

#[test]
fn a_read_of_what_is_no_descriptor_gives_the_buffer_back() {
    let mut ring = ring();
    ring.push(Op::Read { fd: i32::MAX, buffer: vec![1; 4] }, 1);
    let Outcome::Read { buffer, result } = next(&mut ring).outcome else { panic!() };
    assert_eq!(result, Err(Errno::new(nix::errno::Errno::EBADF as i32)));
    assert_eq!((buffer.len(), buffer.capacity()), (0, 4));
}

// ReadAt.

#[test]
fn a_read_at_a_place_adds_to_the_buffer_and_leaves_the_position_alone() {
    let mut ring = ring();
    let mut file = File::from(memfd_create("read-at", MFdFlags::empty()).unwrap());
    file.write_all(b"0123456789").unwrap();
    let file = Rc::new(OwnedFd::from(file));
    for (offset, count, expected) in
        [(0, 4, "head:0123"), (7, 8, "head:789"), (10, 1, "head:"), (1 << 40, 1, "head:")]
    {
        let mut buffer = Vec::with_capacity(16);
        buffer.extend_from_slice(b"head:");
        ring.push(Op::ReadAt { file: Rc::clone(&file), offset, buffer, count }, 1);
        let Outcome::ReadAt { buffer, result } = next(&mut ring).outcome else { panic!() };
        assert_eq!((buffer.as_slice(), result), (expected.as_bytes(), Ok(expected.len() - 5)));
    }
    assert_eq!(Rc::strong_count(&file), 1, "what is complete holds nothing");
}

#[test]
fn a_read_at_a_place_that_fails_gives_the_buffer_back() {
    let mut ring = ring();
    let file = File::options().write(true).open("/dev/null").unwrap();
    let buffer = Vec::with_capacity(4);
    ring.push(Op::ReadAt { file: Rc::new(file.into()), offset: 1, buffer, count: 4 }, 1);
    let Outcome::ReadAt { buffer, result } = next(&mut ring).outcome else { panic!() };
    assert_eq!((buffer.len(), buffer.capacity()), (0, 4));
    assert_eq!(result, Err(Errno::new(nix::errno::Errno::EBADF as i32)));
}

#[test]
#[should_panic(expected = "no room for 5 bytes")]
fn a_read_at_a_place_needs_room_behind_what_the_buffer_holds() {
    let file = Rc::new(File::open("/dev/null").unwrap().into());
    let mut buffer = Vec::with_capacity(8);
    buffer.extend_from_slice(b"held");
    ring().push(Op::ReadAt { file, offset: 0, buffer, count: 5 }, 1);
}

// Open.

#[test]
fn an_open_finds_what_lies_beneath_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("root")).unwrap();
    std::fs::write(directory.path().join("root/file"), "inside").unwrap();
    std::fs::write(directory.path().join("secret"), "outside").unwrap();
    let root = Rc::new(OwnedFd::from(File::open(directory.path().join("root")).unwrap()));
    let mut ring = ring();
    let mut open = |path: &str| {
        let op = Op::Open {
            directory: Rc::clone(&root),
            path: CString::new(path).unwrap(),
            flags: OFlag::O_RDONLY.bits(),
            resolve: ResolveFlag::RESOLVE_BENEATH.bits(),
        };
        ring.push(op, 1);
        let Outcome::Opened(result) = next(&mut ring).outcome else { panic!() };
        result
    };
    let file = open("file").unwrap();
    let flags = FdFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFD).unwrap());
    assert!(flags.contains(FdFlag::FD_CLOEXEC));
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).unwrap();
    assert_eq!(text, "inside");
    for (path, errno) in [("none", libc::ENOENT), ("../secret", libc::EXDEV)] {
        assert_eq!(open(path).unwrap_err(), Errno::new(errno), "{path}");
    }
}

// Close.

#[test]
fn a_close_with_cancel_ends_the_receive_and_the_peer_sees_the_end_at_once() {
    let (mut ring, group) = ring_with_buffers(2, 8);
    for multishot in [false, true] {
        let (server, mut client) = connection();
        ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot }, 1);
        assert_quiet(&mut ring);
        ring.push(Op::Close { fd: server, cancel: true }, 2);
        let [recv, close] = next_by_tag(&mut ring, 2).try_into().unwrap();
        assert!(matches!(recv.outcome, Outcome::Received(Err(Errno::CANCELED))), "{recv:?}");
        assert!(!recv.more);
        assert!(matches!(close.outcome, Outcome::Closed(Ok(()))), "{close:?}");
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(ring.in_flight(), 0);
    }
}

#[test]
fn a_close_with_cancel_and_nothing_armed_just_closes() {
    let mut ring = ring();
    let (server, mut client) = connection();
    ring.push(Op::Close { fd: server, cancel: true }, 1);
    assert!(matches!(next(&mut ring).outcome, Outcome::Closed(Ok(()))));
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_quiet(&mut ring);
}

/// Not a promise but a trap of the kernel's, and the reason for `cancel`.
#[test]
fn a_close_without_cancel_keeps_the_connection_open_while_a_receive_is_armed() {
    let (mut ring, group) = ring_with_buffers(2, 8);
    let (server, mut client) = connection();
    let recv = ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    ring.push(Op::Close { fd: server, cancel: false }, 2);
    assert!(matches!(next(&mut ring).outcome, Outcome::Closed(Ok(()))));
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    ring.push(Op::Cancel { target: recv }, 3);
    next_by_tag(&mut ring, 2);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn closes_across_the_edge_of_a_full_queue_still_cancel_first() {
    for (entries, before) in [1, 2, 4].into_iter().flat_map(|n| (0..8).map(move |b| (n, b))) {
        for enabled_late in [false, true] {
            let setup = Setup { entries, restricted: true, features: features() };
            let mut ring = Ring::new(setup).unwrap();
            let group = ring.add_buffers(2, 8).unwrap();
            let (reader, _writer) = pipe().unwrap();
            let (server, mut client) = connection();
            if !enabled_late {
                ring.enable().unwrap();
            }
            ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
            if !enabled_late {
                assert_quiet(&mut ring);
            }
            for _ in 0..before {
                ring.push(Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(1) }, 0);
            }
            ring.push(Op::Close { fd: server, cancel: true }, 2);
            if enabled_late {
                ring.enable().unwrap();
            }
            let [recv, close] = next_by_tag(&mut ring, 2).try_into().unwrap();
            assert!(matches!(recv.outcome, Outcome::Received(Err(Errno::CANCELED))), "{recv:?}");
            assert!(matches!(close.outcome, Outcome::Closed(Ok(()))), "{close:?}");
            client.set_nonblocking(true).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            assert_eq!(ring.in_flight(), before);
        }
    }
}

#[test]
fn a_close_with_cancel_ends_all_that_waits() {
    let (mut ring, group) = ring_with_buffers(2, 8);
    let (server, mut client) = connection();
    ring.push(Op::Send { fd: server.as_raw_fd(), buffer: vec![1; 32 << 20].into() }, 1);
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 2);
    assert_quiet(&mut ring);
    ring.push(Op::Close { fd: server, cancel: true }, 3);
    let [send, recv, close] = next_by_tag(&mut ring, 3).try_into().unwrap();
    assert!(matches!(recv.outcome, Outcome::Received(Err(Errno::CANCELED))), "{recv:?}");
    let part = sent(send); // what went out before is told, not the cancellation
    assert!(part > 0 && part < 32 << 20, "{part}");
    assert!(matches!(close.outcome, Outcome::Closed(Ok(()))), "{close:?}");
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), part);
}

// Write.

fn write(fd: &impl AsRawFd, bytes: &[u8]) -> Op {
    Op::Write { fd: fd.as_raw_fd(), buffer: bytes.to_vec() }
}

fn written(completion: Completion<u32>) -> (Vec<u8>, Result<usize, Errno>) {
    match completion.outcome {
        Outcome::Written { buffer, result } => (buffer, result),
        other => panic!("nothing written but {other:?}"),
    }
}

/// A pipe without room for another byte.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while (&writer).write(&[0; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

#[test]
fn a_write_to_an_eventfd_wakes_who_reads_it() {
    let mut ring = ring();
    let event = EventFd::new().unwrap();
    let fd = event.as_fd().as_raw_fd();
    ring.push(Op::Read { fd, buffer: Vec::with_capacity(8) }, 1);
    assert_quiet(&mut ring);
    ring.push(write(&fd, &3_u64.to_ne_bytes()), 2);
    let [woken, wrote] = next_by_tag(&mut ring, 2).try_into().unwrap();
    assert_eq!(read(woken), 3_u64.to_ne_bytes());
    assert_eq!(written(wrote), (3_u64.to_ne_bytes().to_vec(), Ok(8)));
}

#[test]
fn writes_to_a_pipe_come_out_in_order_and_a_full_one_takes_a_part() {
    let mut ring = ring();
    let (mut reader, writer) = pipe().unwrap();
    for text in ["one ", "", "two"] {
        ring.push(write(&writer, text.as_bytes()), 1);
        assert_eq!(written(next(&mut ring)), (text.as_bytes().to_vec(), Ok(text.len())));
    }
    let mut got = [0; 7];
    reader.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"one two");

    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    ring.push(write(&writer, &vec![7; 1 << 20]), 1);
    let (buffer, result) = written(next(&mut ring));
    assert_eq!(buffer.len(), 1 << 20);
    assert!(result.is_ok_and(|count| count > 0 && count < 1 << 20), "{result:?}");
}

#[test]
fn a_write_to_a_pipe_that_nobody_reads_is_an_error_also_for_one_that_waits() {
    let mut ring = ring();
    let (reader, writer) = full_pipe();
    ring.push(write(&writer, b"x"), 1);
    assert_quiet(&mut ring);
    drop(reader);
    for _ in 0..2 {
        assert_eq!(written(next(&mut ring)), (b"x".to_vec(), Err(Errno::BROKEN_PIPE)));
        ring.push(write(&writer, b"x"), 1);
    }
}

#[test]
fn a_write_to_a_full_pipe_waits_and_can_be_cancelled() {
    let mut ring = ring();
    let (mut reader, writer) = full_pipe();
    let target = ring.push(write(&writer, b"never"), 1);
    assert_quiet(&mut ring);
    ring.push(Op::Cancel { target }, 2);
    let [wrote, _] = next_by_tag(&mut ring, 2).try_into().unwrap();
    assert_eq!(written(wrote), (b"never".to_vec(), Err(Errno::CANCELED)));
    drop(writer);
    let mut whole = Vec::new();
    reader.read_to_end(&mut whole).unwrap();
    assert!(whole.iter().all(|&byte| byte == 0));
}

#[test]
fn a_write_to_a_file_goes_on_from_its_position() {
    let mut ring = ring();
    let mut file = File::from(memfd_create(c"file", MFdFlags::empty()).unwrap());
    file.write_all(b"0123456789").unwrap();
    file.seek(SeekFrom::Start(3)).unwrap();
    for text in [b"ab", b"cd"] {
        ring.push(write(&file, text), 1);
        assert_eq!(written(next(&mut ring)), (text.to_vec(), Ok(2)));
    }
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut whole = String::new();
    file.read_to_string(&mut whole).unwrap();
    assert_eq!(whole, "012abcd789");
}

// SendFds and RecvFds: see passing.rs.

// Cancel, and ids.

#[test]
fn a_stale_id_cancels_nothing_even_when_its_slot_is_taken_again() {
    let mut ring = ring();
    let (reader, mut writer) = pipe().unwrap();
    let read_one = || Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(1) };
    writer.write_all(b"1").unwrap();
    let stale = ring.push(read_one(), 1);
    assert_eq!(read(next(&mut ring)), b"1");
    let fresh = ring.push(read_one(), 2);
    assert_ne!(stale, fresh);
    ring.push(Op::Cancel { target: stale }, 3);
    let cancel = next(&mut ring);
    assert!(matches!(cancel.outcome, Outcome::Cancelled(Err(Errno::NOT_FOUND))), "{cancel:?}");
    assert_quiet(&mut ring);
    writer.write_all(b"2").unwrap();
    let completion = next(&mut ring);
    assert_eq!(completion.tag, 2);
    assert_eq!(read(completion), b"2");
}

#[test]
fn a_cancelled_multishot_receive_ends_and_both_complete() {
    let (mut ring, group) = ring_with_buffers(2, 8);
    let (server, mut client) = connection();
    let recv = ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    client.write_all(b"x").unwrap();
    assert!(next(&mut ring).more);
    ring.push(Op::Cancel { target: recv }, 2);
    let [recv, cancel] = next_by_tag(&mut ring, 2).try_into().unwrap();
    assert!(matches!(recv.outcome, Outcome::Received(Err(Errno::CANCELED))), "{recv:?}");
    assert!(matches!(cancel.outcome, Outcome::Cancelled(Ok(()))), "{cancel:?}");

    client.write_all(b"y").unwrap(); // what comes now stays in the socket
    assert_quiet(&mut ring);
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: false }, 3);
    assert_eq!(received(&next(&mut ring)), b"y");
}

// WaitChild, and turns: with fallbacks, so that their promises are made in `common`.

#[test]
fn a_child_that_exits_is_reaped_with_its_code() {
    promises::a_child_that_exits_is_reaped_with_its_code(features());
}

#[test]
fn a_turn_keeps_its_deadline() {
    promises::a_turn_keeps_its_deadline(features());
}

// The queues.

#[test]
fn far_more_operations_than_the_queue_has_entries_complete_in_order() {
    for entries in [1, 2, 8, 64] {
        let count = entries * 40; // the completion queue overflows, too
        let mut ring = ring_of(entries, features());
        let (reader, mut writer) = pipe().unwrap();
        let whole: Vec<u8> = (0..count).map(|n| (n % 251) as u8).collect();
        writer.write_all(&whole).unwrap();
        for tag in 0..count {
            ring.push(Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(1) }, tag);
        }
        assert_eq!(ring.in_flight(), count as usize);
        for tag in 0..count {
            let completion = next(&mut ring);
            assert_eq!(completion.tag, tag);
            assert_eq!(read(completion), [whole[tag as usize]]);
        }
        assert_eq!(ring.in_flight(), 0);
    }
}

#[test]
fn completions_that_overflow_their_queue_are_not_lost() {
    let mut ring = ring_of(1, features()); // four completions fit
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, 1);
    let mut clients: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut servers = Vec::new();
    while servers.len() < clients.len() {
        let completion = next(&mut ring);
        if !completion.more {
            ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, 1); // overflow ends a multishot
        }
        servers.push(TcpStream::from(accepted(completion)));
    }
    for (client, server) in clients.iter_mut().zip(&mut servers) {
        let [ours, theirs] = [server.peer_addr().unwrap(), client.local_addr().unwrap()];
        assert_eq!(ours, theirs); // each once, in order
    }
}

#[test]
fn a_turn_does_not_wait_while_completions_are_unread() {
    let mut ring = ring();
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"x").unwrap();
    ring.push(Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(1) }, 1);
    ring.turn(None).unwrap();
    ring.turn(None).unwrap(); // would hang if it waited
    assert_eq!(read(ring.poll_completion().unwrap()), b"x");
}

#[test]
fn what_completes_after_a_turn_waits_for_the_next() {
    let mut ring = ring_of(1, features());
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&[0; 8]).unwrap();
    let read_one = || Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(1) };
    ring.push(read_one(), 1);
    ring.turn(None).unwrap();
    let mut count = 0;
    while ring.poll_completion().is_some() {
        count += 1;
        ring.push(read_one(), 2); // the second is submitted by this, and completes
        ring.push(read_one(), 3);
    }
    assert_eq!(count, 1);
    next_by_tag(&mut ring, 2);
}

#[test]
fn nothing_runs_before_the_ring_is_enabled() {
    let mut ring = Ring::new(Setup { entries: 8, restricted: true, features: features() }).unwrap();
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"x").unwrap();
    ring.push(Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(1) }, 1);
    assert!(ring.turn(Some(Duration::ZERO)).is_err());
    ring.enable().unwrap();
    assert_eq!(read(next(&mut ring)), b"x");
}

#[test]
fn a_restricted_ring_refuses_no_operation_that_there_is() {
    let (mut ring, group) = ring_with_buffers(2, 8);
    let (server, mut client) = connection();
    let (reader, mut writer) = pipe().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"x").unwrap();
    writer.write_all(b"x").unwrap();
    let (fd, spare) = (server.as_raw_fd(), server.try_clone().unwrap());
    let (channel, other) = UnixStream::pair().unwrap();
    let stale = ring.push(Op::Close { fd: spare, cancel: false }, 0);
    next(&mut ring);
    let operations = [
        Op::Watch { fd: listener.as_raw_fd() },
        Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true },
        Op::Accept { fd: listener.as_raw_fd(), multishot: false, wait: false },
        Op::Recv { fd, group, multishot: false },
        Op::Recv { fd, group, multishot: true },
        Op::Send { fd, buffer: b"one".to_vec().into() },
        Op::Send { fd, buffer: SendBuffer::with_body(b"two".to_vec(), "parts".into()) },
        Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(8) },
        Op::Write { fd: writer.as_raw_fd(), buffer: b"y".to_vec() },
        Op::SendFds {
            fd: channel.as_raw_fd(),
            payload: b"z".to_vec(),
            fds: vec![server.try_clone().unwrap()],
            wait: true,
        },
        Op::RecvFds {
            fd: other.as_raw_fd(),
            payload: Vec::with_capacity(8),
            fds_max: 1,
            wait: true,
        },
        Op::Cancel { target: stale },
        Op::WaitChild { pid: common::child("exit 0") },
        Op::Close { fd: server, cancel: true },
    ];
    let refused = Errno::new(nix::errno::Errno::EACCES as i32); // what restrictions answer
    let count = operations.len();
    for (operation, tag) in operations.into_iter().zip(0..) {
        ring.push(operation, tag);
    }
    for Completion { tag, outcome, .. } in next_by_tag(&mut ring, count) {
        let (Outcome::Accepted(Err(errno))
        | Outcome::Watched(Err(errno))
        | Outcome::Received(Err(errno))
        | Outcome::Sent { result: Err(errno), .. }
        | Outcome::Read { result: Err(errno), .. }
        | Outcome::Written { result: Err(errno), .. }
        | Outcome::SentFds { result: Err(errno), .. }
        | Outcome::ReceivedFds { result: Err(errno), .. }
        | Outcome::Closed(Err(errno))
        | Outcome::Cancelled(Err(errno))
        | Outcome::ChildEnded(Err(errno))) = outcome
        else {
            continue;
        };
        assert_ne!(errno, refused, "operation {tag}");
    }
}

// Without the ring.

#[test]
fn a_shutdown_ends_the_direction_that_it_names() {
    let (mut ring, group) = ring_with_buffers(2, 8);
    let (server, mut client) = connection();
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    ring.shutdown(server.as_fd(), Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    client.write_all(b"still").unwrap();
    assert_eq!(received(&next(&mut ring)), b"still");
    ring.shutdown(server.as_fd(), Shutdown::Read).unwrap();
    assert!(matches!(next(&mut ring).outcome, Outcome::Received(Ok(None))));
}

// The end of a ring.

#[test]
fn a_dropped_ring_ends_its_operations_and_gives_back_what_they_owned() {
    struct Owned(Arc<AtomicBool>);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &[3; 4096]
        }
    }
    impl Drop for Owned {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let (mut ring, group) = ring_with_buffers(2, 8);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, mut client) = connection();
    let (mut reader, mut writer) = pipe().unwrap();
    ring.push(Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true }, 1);
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 2);
    ring.push(Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(64) }, 3);

    // Sends that wait for their peers, and own bodies that tell when they are dropped.
    let waiting_sends = [(); 2].map(|()| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        while (&ours).write(&[0; 4096]).is_ok() {}
        ours.set_nonblocking(false).unwrap();
        let given_back = Arc::new(AtomicBool::new(false));
        let body = Bytes::from_owner(Owned(Arc::clone(&given_back)));
        let buffer = SendBuffer::with_body(b"head".to_vec(), body);
        ring.push(Op::Send { fd: ours.as_raw_fd(), buffer }, 4);
        (given_back, ours, theirs)
    });
    assert_quiet(&mut ring);

    // One connection is accepted but not read; one close is queued but not submitted.
    let mut waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ring.turn(None).unwrap();
    ring.push(Op::Close { fd: server, cancel: false }, 5);
    assert_eq!(ring.in_flight(), 6);
    drop(ring);

    assert!(waiting_sends.iter().all(|(given_back, ..)| given_back.load(Ordering::Relaxed)));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(waiting.read(&mut [0]).unwrap(), 0);
    writer.write_all(b"nobody takes this away").unwrap();
    drop(writer);
    let mut left = String::new();
    reader.read_to_string(&mut left).unwrap();
    assert_eq!(left, "nobody takes this away");
}

#[test]
fn a_lease_outlives_its_ring() {
    let (mut ring, group) = ring_with_buffers(2, 8);
    let (server, mut client) = connection();
    client.write_all(b"lasting").unwrap();
    ring.push(Op::Recv { fd: server.as_raw_fd(), group, multishot: true }, 1);
    let completion = next(&mut ring);
    drop(ring);
    client.write_all(b"ignored").unwrap();
    assert_eq!(received(&completion), b"lasting");
}

#[test]
fn a_ring_that_was_never_enabled_gives_back_what_was_pushed() {
    let mut ring = Ring::new(Setup { entries: 8, restricted: true, features: features() }).unwrap();
    let (server, mut client) = connection();
    ring.push(Op::Close { fd: server, cancel: true }, 1);
    drop(ring);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}
