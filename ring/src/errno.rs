//! The kernel's error numbers as values. The one place where a result is negated.

use std::fmt;
use std::io;

/// An error number of the kernel, such as `ECONNRESET` (errno(3)).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// Wraps a positive errno value, for example `libc::EPIPE`.
    pub const fn new(errno: i32) -> Errno {
        assert!(errno > 0, "errno values are positive");
        Errno(errno)
    }

    /// The positive number, as in errno(3).
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The operation was cancelled before it did anything.
    pub const CANCELED: Errno = Errno(libc::ECANCELED);
    /// Nothing to cancel: the operation is unknown or already complete.
    pub const NOT_FOUND: Errno = Errno(libc::ENOENT);
    /// The buffer group ran out of buffers; what arrived stays in the socket.
    pub const NO_BUFFERS: Errno = Errno(libc::ENOBUFS);
    /// The process has no descriptor left (`RLIMIT_NOFILE`).
    pub const PROCESS_FILES: Errno = Errno(libc::EMFILE);
    /// Now is not possible without waiting, and waiting was not asked for.
    pub const AGAIN: Errno = Errno(libc::EAGAIN);
    /// The peer reset the connection.
    pub const RESET: Errno = Errno(libc::ECONNRESET);
    /// Nobody listens there.
    pub const REFUSED: Errno = Errno(libc::ECONNREFUSED);
    /// The peer won't read any more.
    pub const BROKEN_PIPE: Errno = Errno(libc::EPIPE);

    /// Splits a completion's result: zero and above is a count, below is a negated errno.
    pub(crate) fn check(result: i32) -> Result<usize, Errno> {
        usize::try_from(result).map_err(|_| Errno(-result))
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from(*self).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn a_negative_result_is_the_errno_negated() {
        assert_eq!(Errno::check(-104), Err(Errno::RESET)); // ECONNRESET is 104 on Linux
        assert_eq!(Errno::check(0), Ok(0));
        assert_eq!(Errno::check(i32::MAX), Ok(0x7fff_ffff));
    }
}
