//! Workers that serve by blocking calls, or don't: what the master is tested with.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockaddrLike, SockaddrStorage, getsockname, recv, send,
};

use crate::process::channel::{Limit, Message};
use crate::process::scoreboard::State;
use crate::process::seat::Seat;

/// A worker that answers `id pid` to whoever asks, and drains when it is told to.
pub(super) fn polite(seat: Seat) -> i32 {
    say_ready(&seat);
    let mut waiting: Vec<OwnedFd> = seat.listeners;
    waiting.extend([seat.channel, seat.signals]);
    loop {
        let mut polled: Vec<PollFd<'_>> =
            waiting.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue, // by what tells of the master's end
            result => result.unwrap(),
        };
        let readable = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let at = polled.iter().position(readable).unwrap();
        match waiting.len() - at {
            2 => {
                if let Some(code) = on_channel(&waiting[at], seat.limit) {
                    return code;
                }
            }
            1 => {
                log::info!("worker {} was stopped by a signal", seat.worker_id);
                return 0;
            }
            _ => serve_one(waiting[at].try_clone().unwrap(), seat.worker_id),
        }
    }
}

fn serve_one(listener: OwnedFd, worker_id: usize) {
    let address: SockaddrStorage = getsockname(listener.as_raw_fd()).unwrap();
    // Without waiting: another worker, or a successor, may be quicker.
    let connection: io::Result<OwnedFd> = if address.family() == Some(AddressFamily::Unix) {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true).unwrap();
        listener.accept().map(|(connection, _)| connection.into())
    } else {
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(true).unwrap();
        listener.accept().map(|(connection, _)| connection.into())
    };
    let Ok(connection) = connection else { return };
    let mut connection = File::from(connection);
    connection.read_exact(&mut [0; 4]).unwrap();
    write!(connection, "{worker_id} {}", process::id()).unwrap();
}

/// The exit code, if it was told to end.
fn on_channel(channel: &OwnedFd, limit: Limit) -> Option<i32> {
    let mut packet = vec![0; limit.0 + 1];
    let count = recv(channel.as_raw_fd(), &mut packet, MsgFlags::empty()).unwrap();
    match limit.decode(&packet[..count]) {
        Ok(Message::Shutdown { deadline_ms } | Message::Reload { deadline_ms }) => {
            log::info!("a worker was told to stop within {deadline_ms} ms");
            Some(0)
        }
        Ok(Message::Alone | Message::Listening) => None, // it always looks
        _ if count == 0 => Some(0),                      // the master is gone
        other => panic!("{other:?}"),
    }
}

pub(super) fn say_ready(seat: &Seat) {
    let ready = Message::WorkerReady {
        worker_id: seat.worker_id,
        pid: process::id(),
        connections_max: 100,
    };
    let packet = seat.limit.encode(&ready).unwrap();
    send(seat.channel.as_raw_fd(), &packet, MsgFlags::empty()).unwrap();
    seat.page.set_state(State::Ready);
}

/// A worker that gets ready and then hears nothing.
#[expect(clippy::needless_pass_by_value, reason = "it keeps its seat, as every worker")]
pub(super) fn stubborn(seat: Seat) -> i32 {
    say_ready(&seat);
    sleep_forever()
}

pub(super) fn sleep_forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
