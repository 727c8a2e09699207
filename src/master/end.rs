//! How a worker's process ended, in a form that the pool can decide on. Waits for nothing.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use uring_ring::Errno;

use crate::process::{EXIT_CANNOT_START, EXIT_PANIC};

/// How a worker's process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// By itself.
    Exited { code: i32 },
    /// By a signal.
    Killed { signal: i32, core_dumped: bool },
    /// Someone else in this process collected it, or it can't be waited for.
    Lost,
    /// There was none: the fork failed.
    NotForked(Errno),
    /// There was none: every page of the scoreboard is a living process's.
    NoPage,
}

impl End {
    /// By `SIGKILL`, which no fault of its own brings about.
    pub(super) fn is_sigkill(self) -> bool {
        matches!(self, End::Killed { signal: libc::SIGKILL, .. })
    }

    /// The worker ended as it was told to.
    pub(super) fn is_clean(self) -> bool {
        self == End::Exited { code: 0 }
    }

    /// The worker said that another try would end the same way.
    pub(super) fn is_final(self) -> bool {
        self == End::Exited { code: EXIT_CANNOT_START }
    }
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> End {
        match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited { code },
            (_, Some(signal)) => End::Killed { signal, core_dumped: status.core_dumped() },
            _ => unreachable!("a process that ended has exited or was killed"),
        }
    }
}

impl From<io::Error> for End {
    /// Why a fork, or what it takes, failed.
    fn from(error: io::Error) -> End {
        End::NotForked(Errno::new(error.raw_os_error().unwrap_or(libc::EAGAIN)))
    }
}

impl fmt::Display for End {
    /// What is said of the worker.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            End::Exited { code: EXIT_PANIC } => write!(f, "panicked (exit code {EXIT_PANIC})"),
            End::Exited { code: EXIT_CANNOT_START } => {
                write!(f, "cannot start (exit code {EXIT_CANNOT_START})")
            }
            End::Exited { code } => write!(f, "exited with code {code}"),
            End::Killed { signal, core_dumped } => {
                match Signal::try_from(signal) {
                    Ok(signal) => write!(f, "was killed by {signal}")?,
                    Err(_) => write!(f, "was killed by signal {signal}")?, // a real-time one
                }
                f.write_str(if core_dumped { " (core dumped)" } else { "" })
            }
            End::Lost => f.write_str("ended, and nobody knows how"),
            End::NotForked(errno) => write!(f, "could not be forked: {errno}"),
            End::NoPage => f.write_str(
                "was not forked: too many processes of earlier workers still finish what is open",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_words() {
        // The raw status of wait(2): the code times 256, or the signal, plus 128 for a core.
        for (raw, words) in [
            (0, "exited with code 0"),
            (3 << 8, "exited with code 3"),
            (101 << 8, "panicked (exit code 101)"),
            (69 << 8, "cannot start (exit code 69)"),
            (libc::SIGKILL, "was killed by SIGKILL"),
            (libc::SIGSEGV | 0x80, "was killed by SIGSEGV (core dumped)"),
            (34, "was killed by signal 34"),
        ] {
            assert_eq!(End::from(ExitStatus::from_raw(raw)).to_string(), words);
        }
        assert!(
            End::NotForked(Errno::new(libc::EAGAIN)).to_string().contains("could not be forked")
        );
    }

    #[test]
    fn only_code_zero_is_clean_and_only_one_code_is_final() {
        let ends = [0, 1, 69, 101].map(|code| End::Exited { code });
        assert_eq!(ends.map(End::is_clean), [true, false, false, false]);
        assert_eq!(ends.map(End::is_final), [false, false, true, false]);
        assert!(!End::Killed { signal: 9, core_dumped: false }.is_clean());
    }
}
