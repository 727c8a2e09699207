//! A ring and fork(2): the child has a copy, which it can drop and nothing else.

mod common;

use std::io::{Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{connection, next, read, ring};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use uring_ring::Op;

#[test]
fn a_forked_child_drops_its_copy_without_harm_to_either() {
    let (mut ring, idle) = (ring(), ring());
    let (reader, mut writer) = pipe().unwrap();
    let (server, mut client) = connection();
    ring.push(Op::Read { fd: reader.as_raw_fd(), buffer: Vec::with_capacity(8) }, 1);
    ring.turn(Some(Duration::ZERO)).unwrap();
    ring.push(Op::Close { fd: server, cancel: true }, 2);

    // SAFETY: the child drops two values, which takes no lock that another thread may hold, and
    // ends without running anything else.
    #[expect(unsafe_code, reason = "there is no other way to fork")]
    let forked = unsafe { fork() }.unwrap();
    let ForkResult::Parent { child } = forked else {
        drop((ring, idle));
        raise(Signal::SIGKILL).unwrap();
        unreachable!("killed")
    };
    let killed = WaitStatus::Signaled(child, Signal::SIGKILL, false);
    assert_eq!(waitpid(child, None).unwrap(), killed);

    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(client.read(&mut [0]).is_err()); // not closed: the parent has not turned yet
    assert_eq!(next(&mut ring).tag, 2);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    writer.write_all(b"parent").unwrap();
    assert_eq!(read(next(&mut ring)), b"parent");
}
