//! Why a pool could not run, in words for whoever started it.

use std::fmt;
use std::io;

use uring_ring::Unavailable;

use super::end::End;

/// `EX_SOFTWARE` and `EX_OSERR` of sysexits.h.
const EXIT_SOFTWARE: u8 = 70;
const EXIT_SYSTEM: u8 = 71;

/// Why a pool could not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum MasterError {
    /// The master can't have a ring.
    Ring(Unavailable),
    /// The kernel refused something that nothing works without.
    System {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
    /// A worker ended before the pool was ready, and would again.
    CannotStart {
        /// Its place in the pool.
        worker: usize,
        /// How it ended the last time.
        cause: String,
        /// The code that it left with, or one for a bug.
        exit_code: u8,
    },
}

impl MasterError {
    pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> MasterError {
        move |error| MasterError::System { doing, error }
    }

    pub(super) fn cannot_start(worker: usize, end: End) -> MasterError {
        let exit_code = match end {
            End::Exited { code } => u8::try_from(code).ok().filter(|code| *code != 0),
            End::NotForked(_) | End::NoPage => Some(EXIT_SYSTEM),
            End::Killed { .. } | End::Lost => None,
        };
        let exit_code = exit_code.unwrap_or(EXIT_SOFTWARE);
        MasterError::CannotStart { worker, cause: end.to_string(), exit_code }
    }

    /// The code that the program should end with.
    pub fn exit_code(&self) -> u8 {
        match self {
            MasterError::Ring(_) | MasterError::System { .. } => EXIT_SYSTEM,
            MasterError::CannotStart { exit_code, .. } => *exit_code,
        }
    }

    /// A name for programs, which stays the same whatever the words become.
    pub fn code(&self) -> &'static str {
        match self {
            MasterError::Ring(_) => "RING_UNAVAILABLE",
            MasterError::System { .. } => "WORKER_POOL_ERROR",
            MasterError::CannotStart { .. } => "WORKER_CANNOT_START",
        }
    }
}

impl fmt::Display for MasterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MasterError::Ring(reason) => reason.fmt(f),
            MasterError::System { doing, error } => write!(f, "cannot {doing}: {error}"),
            MasterError::CannotStart { worker, cause, .. } => {
                write!(f, "the pool cannot start: worker {worker} {cause}")
            }
        }
    }
}

impl std::error::Error for MasterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MasterError::Ring(reason) => Some(reason),
            MasterError::System { error, .. } => Some(error),
            MasterError::CannotStart { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::EXIT_CANNOT_START;

    #[test]
    fn the_program_ends_with_the_workers_code_where_there_is_one() {
        let code = |end| MasterError::cannot_start(0, end).exit_code();
        assert_eq!(code(End::Exited { code: EXIT_CANNOT_START }), 69);
        assert_eq!(code(End::Exited { code: 101 }), 101);
        assert_eq!(code(End::Exited { code: 0 }), EXIT_SOFTWARE, "never a success");
        assert_eq!(code(End::Killed { signal: 9, core_dumped: false }), EXIT_SOFTWARE);
    }

    #[test]
    fn the_words_name_the_worker_and_its_end() {
        let error = MasterError::cannot_start(3, End::Exited { code: 101 });
        assert_eq!(error.to_string(), "the pool cannot start: worker 3 panicked (exit code 101)");
    }
}
