//! Descriptors in messages, against the real kernel: what arrives, what is cut, and that nothing
//! stays open that nobody owns. The counts are those of the whole process, so that the tests here
//! take turns.

mod common;

use std::fs;
use std::io::{PipeReader, Read, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, setsockopt, shutdown, socketpair, sockopt,
};

use common::{assert_quiet, next, next_by_tag, ring};
use uring_ring::{Arrival, Completion, Errno, FDS_MAX, Op, Outcome, Ring, Setup};

/// More than any message here has.
const ROOM: usize = 64;

/// One test at a time; and in the end of it as many descriptors as in the beginning.
struct Alone {
    before: usize,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

fn alone() -> Alone {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Alone { before: open_fds(), _turn: turn }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(open_fds(), self.before, "descriptors leak");
        }
    }
}

fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn channel() -> (OwnedFd, OwnedFd) {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

/// As many pipes: their readers, and their writers to be passed.
fn pipes(count: usize) -> (Vec<PipeReader>, Vec<OwnedFd>) {
    (0..count).map(|_| pipe().unwrap()).map(|(reader, writer)| (reader, writer.into())).unzip()
}

fn send(channel: &OwnedFd, text: &str, fds: Vec<OwnedFd>, wait: bool) -> Op {
    Op::SendFds { fd: channel.as_raw_fd(), payload: text.into(), fds, wait }
}

fn receive(channel: &OwnedFd, fds_max: usize, wait: bool) -> Op {
    let payload = Vec::with_capacity(ROOM);
    Op::RecvFds { fd: channel.as_raw_fd(), payload, fds_max, wait }
}

type Sent = (String, Vec<OwnedFd>, Result<(), Errno>);

fn sent(completion: Completion<u32>) -> Sent {
    assert!(!completion.more);
    match completion.outcome {
        Outcome::SentFds { payload, fds, result } => {
            (String::from_utf8(payload).unwrap(), fds, result)
        }
        other => panic!("no message sent but {other:?}"),
    }
}

type Received = (String, Vec<OwnedFd>, Result<Arrival, Errno>);

fn received(completion: Completion<u32>) -> Received {
    assert!(!completion.more);
    match completion.outcome {
        Outcome::ReceivedFds { payload, fds, result } => {
            (String::from_utf8(payload).unwrap(), fds, result)
        }
        other => panic!("no message received but {other:?}"),
    }
}

fn send_now(ring: &mut Ring<u32>, channel: &OwnedFd, text: &str, fds: Vec<OwnedFd>) -> Sent {
    ring.push(send(channel, text, fds, false), 0);
    sent(next(ring))
}

fn receive_now(ring: &mut Ring<u32>, channel: &OwnedFd, fds_max: usize) -> Received {
    ring.push(receive(channel, fds_max, false), 0);
    received(next(ring))
}

/// Each of `writers` is the other end of the reader in its place, and no more than that is open.
fn assert_work(readers: Vec<PipeReader>, writers: Vec<OwnedFd>) {
    assert_eq!(readers.len(), writers.len());
    for (mut reader, (writer, number)) in readers.into_iter().zip(writers.into_iter().zip(0..)) {
        nix::unistd::write(&writer, &[number]).unwrap();
        drop(writer);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, [number]);
    }
}

fn is_close_on_exec(fd: impl AsFd) -> bool {
    let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
    flags.contains(FdFlag::FD_CLOEXEC)
}

// What arrives.

#[test]
fn a_batch_of_any_size_arrives_whole_and_each_of_it_works() {
    let _alone = alone();
    for count in [1, 2, 3, FDS_MAX] {
        for room in [count, FDS_MAX] {
            let (mut ring, (ours, theirs)) = (ring(), channel());
            let (readers, writers) = pipes(count);
            let (payload, given_back, result) = send_now(&mut ring, &ours, "a batch", writers);
            assert_eq!((payload.as_str(), result), ("a batch", Ok(())));
            assert_eq!(given_back.len(), count);
            drop(given_back); // the message has copies

            let (payload, writers, result) = receive_now(&mut ring, &theirs, room);
            assert_eq!((payload.as_str(), result), ("a batch", Ok(Arrival::Whole)));
            assert!(writers.iter().all(is_close_on_exec));
            assert_work(readers, writers);
        }
    }
}

#[test]
fn what_was_sent_comes_back_usable() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    let (readers, writers) = pipes(2);
    let numbers: Vec<RawFd> = writers.iter().map(AsRawFd::as_raw_fd).collect();
    let (_, given_back, _) = send_now(&mut ring, &ours, "x", writers);
    assert_eq!(given_back.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), numbers);
    drop(theirs); // and with it the message and its copies
    assert_work(readers, given_back);
}

#[test]
fn batches_keep_their_order_whether_sent_together_or_one_by_one() {
    let _alone = alone();
    for together in [false, true] {
        let (mut ring, (ours, theirs)) = (ring(), channel());
        for number in 0..5_u32 {
            let (_, writers) = pipes(number as usize + 1);
            ring.push(send(&ours, &number.to_string(), writers, false), number);
            if !together {
                assert_eq!(sent(next(&mut ring)).2, Ok(()));
            }
        }
        if together {
            next_by_tag(&mut ring, 5);
        }
        for number in 0..5_u32 {
            let (payload, fds, _) = receive_now(&mut ring, &theirs, FDS_MAX);
            assert_eq!((payload, fds.len()), (number.to_string(), number as usize + 1));
        }
    }
}

#[test]
fn a_receive_waits_for_its_message_or_says_that_there_is_none() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    let (payload, fds, result) = receive_now(&mut ring, &theirs, 1);
    assert_eq!((payload.as_str(), fds.len(), result), ("", 0, Err(Errno::AGAIN)));

    ring.push(receive(&theirs, 1, true), 1);
    assert_quiet(&mut ring);
    let (readers, writers) = pipes(1);
    ring.push(send(&ours, "late", writers, false), 2);
    let [receive, send] = next_by_tag(&mut ring, 2).try_into().unwrap();
    drop(sent(send));
    let (payload, writers, result) = received(receive);
    assert_eq!((payload.as_str(), result), ("late", Ok(Arrival::Whole)));
    assert_work(readers, writers);
}

#[test]
fn a_message_without_descriptors_is_one_all_the_same() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    nix::unistd::write(&ours, b"words").unwrap();
    let (payload, fds, result) = receive_now(&mut ring, &theirs, 1);
    assert_eq!((payload.as_str(), fds.len(), result), ("words", 0, Ok(Arrival::Whole)));
}

#[test]
fn the_end_comes_after_the_last_message() {
    let _alone = alone();
    for wait in [false, true] {
        let (mut ring, (ours, theirs)) = (ring(), channel());
        let (readers, writers) = pipes(1);
        drop(send_now(&mut ring, &ours, "last", writers));
        drop(ours);
        let (payload, writers, result) = receive_now(&mut ring, &theirs, 1);
        assert_eq!((payload.as_str(), result), ("last", Ok(Arrival::Whole)));
        assert_work(readers, writers);
        for _ in 0..2 {
            ring.push(receive(&theirs, 1, wait), 1);
            let (payload, fds, result) = received(next(&mut ring));
            assert_eq!((payload.as_str(), fds.len(), result), ("", 0, Ok(Arrival::End)));
        }
    }
}

#[test]
fn the_end_wakes_who_waits() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    ring.push(receive(&theirs, 1, true), 1);
    assert_quiet(&mut ring);
    drop(ours);
    assert_eq!(received(next(&mut ring)).2, Ok(Arrival::End));
}

#[test]
fn a_peer_that_closes_with_messages_unread_is_an_error_once_and_then_the_end() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    let (_, writers) = pipes(1);
    drop(send_now(&mut ring, &ours, "unread", writers));
    drop(theirs);
    let results = [(); 2].map(|()| receive_now(&mut ring, &ours, 1).2);
    assert_eq!(results, [Err(Errno::RESET), Ok(Arrival::End)]);
}

#[test]
fn sending_to_a_peer_that_is_gone_is_an_error_and_no_signal_and_gives_all_back() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    drop(theirs);
    let (readers, writers) = pipes(2);
    let (payload, writers, result) = send_now(&mut ring, &ours, "x", writers);
    assert_eq!((payload.as_str(), result), ("x", Err(Errno::BROKEN_PIPE)));
    assert_work(readers, writers);
}

#[test]
#[should_panic(expected = "1 to 253 descriptors")]
fn more_descriptors_than_a_message_carries_are_a_mistake() {
    let _alone = alone();
    let (mut ring, (ours, _theirs)) = (ring(), channel());
    let fds = (0..=FDS_MAX).map(|_| ours.try_clone().unwrap()).collect();
    ring.push(send(&ours, "x", fds, false), 0);
}

#[test]
#[should_panic(expected = "has a payload")]
fn an_empty_message_is_a_mistake() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    ring.push(send(&ours, "", vec![theirs], false), 0);
}

// What is cut.

#[test]
fn descriptors_beyond_the_room_are_cut_and_closed() {
    let _alone = alone();
    for (count, room) in [(2, 1), (3, 1), (3, 2), (4, 3), (FDS_MAX, 1), (FDS_MAX, FDS_MAX - 1)] {
        let (mut ring, (ours, theirs)) = (ring(), channel());
        let (mut readers, writers) = pipes(count);
        drop(send_now(&mut ring, &ours, "cut", writers));
        let (payload, writers, result) = receive_now(&mut ring, &theirs, room);
        let cut = Arrival::Cut { payload: false, fds: true };
        assert_eq!((payload.as_str(), writers.len(), result), ("cut", room, Ok(cut)));
        for mut reader in readers.split_off(room) {
            assert_eq!(reader.read(&mut [0]).unwrap(), 0); // nobody has its writer
        }
        assert_work(readers, writers);
    }
}

#[test]
fn a_payload_beyond_the_room_is_cut_and_lost() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    let (readers, writers) = pipes(1);
    drop(send_now(&mut ring, &ours, &"long".repeat(ROOM), writers));
    drop(send_now(&mut ring, &ours, "next", vec![ours.try_clone().unwrap()]));
    let payload = Vec::with_capacity(6);
    assert_eq!(payload.capacity(), 6);
    ring.push(Op::RecvFds { fd: theirs.as_raw_fd(), payload, fds_max: 1, wait: false }, 1);
    let (payload, writers, result) = received(next(&mut ring));
    let cut = Arrival::Cut { payload: true, fds: false };
    assert_eq!((payload.as_str(), result), ("longlo", Ok(cut)));
    assert_work(readers, writers);
    assert_eq!(receive_now(&mut ring, &theirs, 1).0, "next");
}

/// Who asks for more control data than descriptors (which only other users of the socket can) gets
/// it beside them; what is a descriptor in there must be closed all the same.
#[test]
fn other_control_data_is_passed_over_and_its_descriptors_are_closed() {
    const SO_PASSPIDFD: libc::c_int = 76; // 6.5
    let _alone = alone();
    for (creds, pidfd) in [(true, false), (false, true), (true, true)] {
        for (count, room) in [(1, 20), (2, 20), (3, 20), (3, 3), (3, 1), (10, 10), (11, 11)] {
            let (mut ring, (ours, theirs)) = (ring(), channel());
            setsockopt(&theirs, sockopt::PassCred, &creds).unwrap();
            if pidfd && !set_flag(theirs.as_fd(), SO_PASSPIDFD) {
                continue; // an older kernel
            }
            let (readers, writers) = pipes(count);
            drop(send_now(&mut ring, &ours, "more", writers));
            let before = open_fds();
            let (payload, writers, result) = receive_now(&mut ring, &theirs, room);
            assert_eq!(payload, "more");
            assert_eq!(open_fds() - before, writers.len(), "all that is open is ours");
            if room == 20 {
                assert_eq!(result, Ok(Arrival::Whole));
                assert_work(readers, writers);
            } else {
                assert_eq!(result, Ok(Arrival::Cut { payload: false, fds: true }));
            }
        }
    }
}

#[expect(unsafe_code, reason = "nix has no name for this option")]
fn set_flag(fd: BorrowedFd<'_>, option: libc::c_int) -> bool {
    let on: libc::c_int = 1;
    let bytes = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer and length are those of `on`.
    let result = unsafe {
        let on = (&raw const on).cast();
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, on, bytes)
    };
    result == 0
}

// Back-pressure.

/// Sends batches of one until the peer's queue is full; gives back how many went, and what didn't.
fn fill(ring: &mut Ring<u32>, channel: &OwnedFd) -> (usize, Sent) {
    for count in 0.. {
        let back = send_now(ring, channel, &count.to_string(), vec![channel.try_clone().unwrap()]);
        if back.2.is_err() {
            return (count, back);
        }
    }
    unreachable!("a queue has an end");
}

#[test]
fn a_full_queue_refuses_at_once_and_gives_everything_back() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    let (count, (payload, fds, result)) = fill(&mut ring, &ours);
    assert_eq!((payload, fds.len(), result), (count.to_string(), 1, Err(Errno::AGAIN)));
    for number in 0..count {
        assert_eq!(receive_now(&mut ring, &theirs, 1).0, number.to_string());
    }
    assert_eq!(send_now(&mut ring, &ours, "room again", fds).2, Ok(()));
}

#[test]
fn a_send_that_waits_goes_out_when_the_peer_reads() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    let (count, (_, fds, _)) = fill(&mut ring, &ours);
    ring.push(send(&ours, "patient", fds, true), 7);
    assert_quiet(&mut ring);
    let mut read = 0;
    ring.push(receive(&theirs, 1, false), 8);
    let mut waits = true;
    while read <= count {
        let completion = next(&mut ring);
        if completion.tag == 7 {
            assert_eq!(sent(completion).2, Ok(()));
            waits = false;
            continue;
        }
        let (payload, fds, _) = received(completion);
        let expected = if read == count { "patient".to_owned() } else { read.to_string() };
        assert_eq!((payload, fds.len()), (expected, 1));
        read += 1;
        ring.push(receive(&theirs, 1, true), 8);
    }
    assert!(!waits);
}

/// In the ring, `O_NONBLOCK` doesn't say what it says to sendmsg(2) and recvmsg(2).
#[test]
fn a_non_blocking_socket_waits_all_the_same() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    for end in [&ours, &theirs] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    ring.push(receive(&theirs, 1, true), 1);
    assert_quiet(&mut ring);
    let (readers, writers) = pipes(1);
    ring.push(send(&ours, "x", writers, false), 2);
    let [receive, send] = next_by_tag(&mut ring, 2).try_into().unwrap();
    drop(sent(send));
    assert_work(readers, received(receive).1);
    let (_, (_, fds, _)) = fill(&mut ring, &ours);
    ring.push(self::send(&ours, "x", fds, true), 1);
    assert_quiet(&mut ring);
}

// Two who read, and cancelling.

#[test]
fn a_message_goes_to_one_reader_only() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    let also_theirs = theirs.try_clone().unwrap();
    let (readers, writers) = pipes(1);
    drop(send_now(&mut ring, &ours, "once", writers));
    let (payload, writers, _) = receive_now(&mut ring, &also_theirs, 1);
    assert_eq!(payload, "once");
    assert_eq!(receive_now(&mut ring, &theirs, 1).2, Err(Errno::AGAIN));
    assert_work(readers, writers);

    // Beside one that waits, too, and whichever wins: the other gets nothing.
    let (readers, writers) = pipes(1);
    ring.push(receive(&theirs, 1, true), 1);
    assert_quiet(&mut ring);
    ring.push(send(&ours, "again", writers, false), 0);
    ring.push(receive(&also_theirs, 1, false), 2);
    let mut got = Vec::new();
    for completion in next_by_tag(&mut ring, 2) {
        match completion.tag {
            0 => drop(sent(completion)),
            _ => got.push(received(completion)),
        }
    }
    ring.turn(Some(Duration::from_millis(20))).unwrap();
    got.extend(ring.poll_completion().map(received));
    let (mut whole, others): (Vec<_>, Vec<_>) =
        got.into_iter().partition(|(_, _, result)| *result == Ok(Arrival::Whole));
    assert!(others.iter().all(|(_, fds, result)| fds.is_empty() && *result == Err(Errno::AGAIN)));
    assert_eq!(whole.len(), 1);
    assert_work(readers, whole.remove(0).1);
}

/// A second ring stands for the master, which takes back what a dead worker left.
#[test]
fn what_is_queued_outlives_the_ring_that_waited_for_it() {
    let _alone = alone();
    let (ours, theirs) = channel();
    let kept = theirs.try_clone().unwrap();
    let mut worker = ring();
    worker.push(receive(&theirs, 1, true), 1);
    assert_quiet(&mut worker);
    drop((worker, theirs));
    let mut master = ring();
    let (readers, writers) = pipes(1);
    drop(send_now(&mut master, &ours, "orphan", writers));
    let (payload, writers, _) = receive_now(&mut master, &kept, 1);
    assert_eq!(payload, "orphan");
    assert_work(readers, writers);
    assert_eq!(receive_now(&mut master, &kept, 1).2, Err(Errno::AGAIN));
}

#[test]
fn a_cancelled_receive_takes_no_message_and_a_cancelled_send_gives_all_back() {
    let _alone = alone();
    let (mut ring, (ours, theirs)) = (ring(), channel());
    let target = ring.push(receive(&theirs, 1, true), 1);
    assert_quiet(&mut ring);
    ring.push(Op::Cancel { target }, 2);
    let [receive, cancel] = next_by_tag(&mut ring, 2).try_into().unwrap();
    let (payload, fds, result) = received(receive);
    assert_eq!((payload.as_str(), fds.len(), result), ("", 0, Err(Errno::CANCELED)));
    assert!(matches!(cancel.outcome, Outcome::Cancelled(Ok(()))), "{cancel:?}");

    let (count, (_, fds, _)) = fill(&mut ring, &ours);
    let target = ring.push(send(&ours, "too late", fds, true), 1);
    assert_quiet(&mut ring);
    ring.push(Op::Cancel { target }, 2);
    let [send, cancel] = next_by_tag(&mut ring, 2).try_into().unwrap();
    let (payload, fds, result) = sent(send);
    assert_eq!((payload.as_str(), fds.len(), result), ("too late", 1, Err(Errno::CANCELED)));
    assert!(matches!(cancel.outcome, Outcome::Cancelled(Ok(()))), "{cancel:?}");
    for number in 0..count {
        assert_eq!(receive_now(&mut ring, &theirs, 1).0, number.to_string());
    }
    assert_eq!(receive_now(&mut ring, &theirs, 1).2, Err(Errno::AGAIN));
}

// The end of a ring.

#[test]
fn a_dropped_ring_closes_what_it_received_and_gives_up_what_it_waited_for() {
    let _alone = alone();
    for complete in [false, true] {
        let mut ring = ring();
        let (ours, theirs) = channel();
        let (full, _unread) = channel();
        let (_, (_, fds, _)) = fill(&mut ring, &full);
        ring.push(send(&full, "waits", fds, true), 1);
        for _ in 0..3 {
            ring.push(receive(&theirs, FDS_MAX, true), 2);
        }
        assert_quiet(&mut ring);
        let (readers, writers) = pipes(3);
        if complete {
            ring.push(send(&ours, "unread", writers, false), 3);
            ring.turn(None).unwrap(); // both complete, and nobody looks
        } else {
            drop(writers);
        }
        drop(ring);
        for mut reader in readers {
            assert_eq!(reader.read(&mut [0]).unwrap(), 0); // nobody has its writer
        }
        shutdown(full.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    }
}

#[test]
fn a_ring_that_was_never_enabled_gives_back_what_was_to_be_passed() {
    let _alone = alone();
    let setup = Setup { entries: 8, restricted: true, features: common::features() };
    let mut ring = Ring::new(setup).unwrap();
    let (ours, theirs) = channel();
    let (mut readers, writers) = pipes(1);
    ring.push(send(&ours, "never", writers, false), 1);
    ring.push(receive(&theirs, 1, true), 2);
    drop(ring);
    assert_eq!(readers[0].read(&mut [0]).unwrap(), 0);
}
