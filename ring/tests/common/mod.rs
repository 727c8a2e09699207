//! What the tests against the real kernel share.

#![allow(dead_code, reason = "each test file uses its part")]

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use uring_ring::{Completion, Features, GroupId, Mask, Op, Outcome, Ring, Setup};

/// Longer than anything here takes, so that a lost completion fails its test.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn features() -> Features {
    features_without("")
}

pub(crate) fn features_without(mask: &str) -> Features {
    Features::probe(mask.parse::<Mask>().unwrap()).unwrap()
}

/// A restricted ring without buffers.
pub(crate) fn ring() -> Ring<u32> {
    ring_of(64, features())
}

pub(crate) fn ring_of(entries: u32, features: Features) -> Ring<u32> {
    let ring = Ring::new(Setup { entries, restricted: true, features }).unwrap();
    ring.enable().unwrap();
    ring
}

/// A restricted ring with one group of `count` buffers of `size` bytes.
pub(crate) fn ring_with_buffers(count: u16, size: u32) -> (Ring<u32>, GroupId) {
    let mut ring =
        Ring::new(Setup { entries: 64, restricted: true, features: features() }).unwrap();
    let group = ring.add_buffers(count, size).unwrap();
    ring.enable().unwrap();
    (ring, group)
}

/// The next completion, whichever turn it takes.
pub(crate) fn next(ring: &mut Ring<u32>) -> Completion<u32> {
    let started = Instant::now();
    loop {
        if let Some(completion) = ring.poll_completion() {
            return completion;
        }
        let left = PATIENCE.checked_sub(started.elapsed()).expect("a completion in time");
        ring.turn(Some(left)).unwrap();
    }
}

/// The next `count` completions, in the order of their tags.
pub(crate) fn next_by_tag(ring: &mut Ring<u32>, count: usize) -> Vec<Completion<u32>> {
    let mut completions: Vec<_> = (0..count).map(|_| next(ring)).collect();
    completions.sort_by_key(|completion| completion.tag);
    completions
}

/// Nothing completes, though the kernel gets its chance.
pub(crate) fn assert_quiet(ring: &mut Ring<u32>) {
    ring.turn(Some(Duration::from_millis(20))).unwrap();
    let completion = ring.poll_completion();
    assert!(completion.is_none(), "{completion:?}");
}

/// A connection over the loopback: the server's descriptor and the client.
pub(crate) fn connection() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0.into(), client)
}

pub(crate) fn accepted(completion: Completion<u32>) -> OwnedFd {
    match completion.outcome {
        Outcome::Accepted(Ok(fd)) => fd,
        other => panic!("no connection but {other:?}"),
    }
}

pub(crate) fn received(completion: &Completion<u32>) -> &[u8] {
    match &completion.outcome {
        Outcome::Received(Ok(Some(lease))) => lease,
        other => panic!("no bytes but {other:?}"),
    }
}

pub(crate) fn sent(completion: Completion<u32>) -> usize {
    match completion.outcome {
        Outcome::Sent { result: Ok(count), .. } => count,
        other => panic!("nothing sent but {other:?}"),
    }
}

pub(crate) fn read(completion: Completion<u32>) -> Vec<u8> {
    match completion.outcome {
        Outcome::Read { buffer, result } => {
            assert_eq!(result, Ok(buffer.len()));
            buffer
        }
        other => panic!("nothing read but {other:?}"),
    }
}

pub(crate) fn child_ended(completion: Completion<u32>) -> ExitStatus {
    match completion.outcome {
        Outcome::ChildEnded(Ok(status)) => status,
        other => panic!("no child but {other:?}"),
    }
}

/// Starts a child that std does not wait for; the ring does.
pub(crate) fn child(script: &str) -> i32 {
    Command::new("sh").args(["-c", script]).spawn().unwrap().id() as i32
}

/// The promises of a ring that optional features could break; the tests make them with every
/// feature and without.
pub(crate) mod promises {
    use std::os::unix::process::ExitStatusExt;

    use uring_ring::Errno;

    use super::*;

    pub(crate) fn a_child_that_exits_is_reaped_with_its_code(features: Features) {
        let mut ring = ring_of(8, features);
        ring.push(Op::WaitChild { pid: child("exit 7") }, 1);
        assert_eq!(child_ended(next(&mut ring)).code(), Some(7));
    }

    pub(crate) fn a_killed_child_is_reaped_with_its_signal(features: Features) {
        let mut ring = ring_of(8, features);
        ring.push(Op::WaitChild { pid: child("kill -9 $$") }, 1);
        let status = child_ended(next(&mut ring));
        assert_eq!((status.signal(), status.code()), (Some(9), None));
    }

    pub(crate) fn a_child_that_ended_before_is_reaped_at_once_and_only_once(features: Features) {
        let mut ring = ring_of(8, features);
        let pid = child("exit 3");
        while !is_zombie(pid) {
            std::thread::sleep(Duration::from_millis(1));
        }
        ring.push(Op::WaitChild { pid }, 1);
        assert_eq!(child_ended(next(&mut ring)).code(), Some(3));
        ring.push(Op::WaitChild { pid }, 2);
        let outcome = next(&mut ring).outcome;
        let no_child = Errno::new(nix::errno::Errno::ECHILD as i32);
        assert!(matches!(outcome, Outcome::ChildEnded(Err(e)) if e == no_child), "{outcome:?}");
    }

    pub(crate) fn children_are_told_apart(features: Features) {
        let mut ring = ring_of(8, features);
        for code in 0..5 {
            ring.push(Op::WaitChild { pid: child(&format!("exit {code}")) }, code);
        }
        for (code, completion) in (0..5).zip(next_by_tag(&mut ring, 5)) {
            assert_eq!(child_ended(completion).code(), Some(code));
        }
    }

    pub(crate) fn a_cancelled_wait_leaves_the_child_to_the_next(features: Features) {
        let mut ring = ring_of(8, features);
        let pid = child("exec sleep 600"); // until it is killed
        let id = ring.push(Op::WaitChild { pid }, 1);
        ring.push(Op::Cancel { target: id }, 2);
        let [wait, cancel] = next_by_tag(&mut ring, 2).try_into().unwrap();
        assert!(matches!(wait.outcome, Outcome::ChildEnded(Err(Errno::CANCELED))), "{wait:?}");
        assert!(matches!(cancel.outcome, Outcome::Cancelled(Ok(()))), "{cancel:?}");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        ring.push(Op::WaitChild { pid }, 3);
        child_ended(next(&mut ring));
    }

    pub(crate) fn a_turn_keeps_its_deadline(features: Features) {
        let mut ring = ring_of(8, features);
        let (reader, _writer) = std::io::pipe().unwrap();
        ring.push(Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(1) }, 1);
        for wait in [0, 1, 30] {
            let wait = Duration::from_millis(wait);
            let (started, turns) = (Instant::now(), ring.turns());
            loop {
                let left = wait.saturating_sub(started.elapsed());
                ring.turn(Some(left)).unwrap();
                assert!(ring.poll_completion().is_none());
                if started.elapsed() >= wait {
                    break;
                }
            }
            let took = started.elapsed();
            assert!(took < wait + Duration::from_secs(1), "{took:?} for {wait:?}");
            assert_few(ring.turns() - turns);
        }
    }

    pub(crate) fn a_turn_without_deadline_waits_for_a_completion(features: Features) {
        for wait in [None, Some(Duration::MAX)] {
            let mut ring = ring_of(8, features);
            let (reader, writer) = std::io::pipe().unwrap();
            ring.push(Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(1) }, 1);
            let waker = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                std::io::Write::write_all(&mut &writer, b"!").unwrap();
            });
            let completion = loop {
                ring.turn(wait).unwrap();
                if let Some(completion) = ring.poll_completion() {
                    break completion;
                }
            };
            assert_eq!(read(completion), b"!");
            waker.join().unwrap();
            assert_few(ring.turns());
        }
    }

    /// One turn, and one for each signal: for a child of a test on another thread, say.
    fn assert_few(turns: u64) {
        assert!(turns < 50, "{turns} turns instead of waiting");
    }

    fn is_zombie(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('Z')
    }
}
