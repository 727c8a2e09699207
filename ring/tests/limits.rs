//! What happens at the limit of descriptors. Each test runs itself again in a process that has
//! few, so that the others keep theirs.

mod common;

use std::env;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use common::{accepted, assert_quiet, child, features_without, next, ring, ring_of};
use uring_ring::{Arrival, Errno, Features, Mask, Op, Outcome, Unavailable};

const DESCRIPTORS_MAX: &str = "64";
const MARK: &str = "URING_RING_TEST_IS_LIMITED";

/// Runs `test` in a process of its own under the limit; true in there.
fn is_limited(test: &str) -> bool {
    if env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -n "$0" && exec "$@""#, DESCRIPTORS_MAX])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
    false
}

/// Takes every descriptor that is left, but for `spare`.
fn use_up(spare: usize) -> Vec<File> {
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken.truncate(taken.len() - spare);
    taken
}

#[test]
fn an_accept_out_of_descriptors_ends_and_the_queue_keeps_the_connections() {
    if !is_limited("an_accept_out_of_descriptors_ends_and_the_queue_keeps_the_connections") {
        return;
    }
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accept = || Op::Accept { fd: listener.as_raw_fd(), multishot: true, wait: true };

    ring.push(accept(), 1);
    assert_quiet(&mut ring);
    let taken = use_up(3);
    let _clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let first = next(&mut ring);
    assert!(first.more);
    let _first = accepted(first);
    let ended = next(&mut ring);
    assert!(!ended.more);
    assert!(matches!(ended.outcome, Outcome::Accepted(Err(Errno::PROCESS_FILES))), "{ended:?}");

    // Armed again too early, it fails at once, even though it holds no connection yet.
    ring.push(accept(), 2);
    let ended = next(&mut ring);
    assert!(matches!(ended.outcome, Outcome::Accepted(Err(Errno::PROCESS_FILES))), "{ended:?}");
    assert!(!ended.more);

    drop(taken);
    ring.push(accept(), 3);
    let second = next(&mut ring);
    assert_eq!((second.tag, second.more), (3, true));
    accepted(second);
    assert_quiet(&mut ring);
}

#[test]
fn descriptors_that_do_not_fit_are_cut_and_the_rest_arrives() {
    if !is_limited("descriptors_that_do_not_fit_are_cut_and_the_rest_arrives") {
        return;
    }
    let mut ring = ring();
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    let (ours, theirs) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let room = |fds_max| Op::RecvFds {
        fd: theirs.as_raw_fd(),
        payload: Vec::with_capacity(8),
        fds_max,
        wait: false,
    };
    for spare in [0, 1, 4, 10] {
        let fds = (0..10).map(|_| ours.try_clone().unwrap()).collect();
        let payload = b"batch".to_vec();
        ring.push(Op::SendFds { fd: ours.as_raw_fd(), payload, fds, wait: false }, 1);
        drop(next(&mut ring));

        let taken = use_up(spare);
        ring.push(room(10), 2);
        let Outcome::ReceivedFds { payload, fds, result } = next(&mut ring).outcome else {
            panic!("no message")
        };
        drop(taken);
        assert_eq!((payload.as_slice(), fds.len()), (b"batch".as_slice(), spare));
        let cut = Arrival::Cut { payload: false, fds: true };
        assert_eq!(result, Ok(if spare == 10 { Arrival::Whole } else { cut }));
        drop(fds);

        ring.push(room(10), 3); // and what was cut is lost
        let again = next(&mut ring).outcome;
        let nothing = matches!(again, Outcome::ReceivedFds { result: Err(Errno::AGAIN), .. });
        assert!(nothing, "{again:?}");
    }
}

#[test]
fn a_wait_without_a_descriptor_for_it_says_so_and_can_be_tried_again() {
    if !is_limited("a_wait_without_a_descriptor_for_it_says_so_and_can_be_tried_again") {
        return;
    }
    let mut ring = ring_of(8, features_without("waitid"));
    let pid = child("exit 5");
    let taken = use_up(0);
    ring.push(Op::WaitChild { pid }, 1);
    let outcome = next(&mut ring).outcome;
    assert!(matches!(outcome, Outcome::ChildEnded(Err(Errno::PROCESS_FILES))), "{outcome:?}");
    drop(taken);
    ring.push(Op::WaitChild { pid }, 2);
    assert_eq!(common::child_ended(next(&mut ring)).code(), Some(5));
}

#[test]
fn a_ring_without_a_descriptor_for_it_says_so() {
    if !is_limited("a_ring_without_a_descriptor_for_it_says_so") {
        return;
    }
    let _taken = use_up(0);
    assert_eq!(Features::probe(Mask::NONE), Err(Unavailable::Descriptors));
}
