//! What the kernel's errors mean for a request or a connection.

use uring_ring::Errno;

use crate::bench::record::Fault;

/// What an error of an open connection means.
pub(super) fn fault_of(errno: Errno) -> Fault {
    match errno.raw() {
        libc::ECONNRESET | libc::EPIPE => Fault::Reset,
        libc::ETIMEDOUT => Fault::Timeout,
        libc::EHOSTUNREACH | libc::ENETUNREACH => Fault::Unreachable,
        _ => Fault::Other,
    }
}

/// What an error of a connection that is being opened means.
pub(super) fn connect_fault(errno: Errno) -> Fault {
    match errno.raw() {
        libc::ECONNREFUSED | libc::ENOENT => Fault::Refused,
        libc::EHOSTUNREACH | libc::ENETUNREACH => Fault::Unreachable,
        libc::ETIMEDOUT => Fault::ConnectTimeout,
        libc::EADDRNOTAVAIL | libc::EADDRINUSE => Fault::NoPort,
        libc::EMFILE | libc::ENFILE => Fault::NoDescriptor,
        libc::ECONNRESET => Fault::Reset,
        _ => Fault::Other,
    }
}
