//! Why connections can't be steered, and what whoever runs the program can do about it.

use std::fmt;
use std::io;

use crate::process::sys::Refusal;

/// Connections can't be steered; the kernel goes on spreading them by their hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SteerError {
    /// This process may not.
    NotPermitted,
    /// The kernel was built without what it takes.
    NotHere,
    /// A socket belongs to another `Steering`, perhaps another process's.
    Taken,
    /// The kernel's verifier didn't like the program: our mistake, or the kernel's.
    Refused { errno: i32, log: String },
    /// Something else.
    Other { step: Step, errno: i32 },
}

/// What was being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    MapSlots,
    MapSockets,
    Load,
    Identify,
    Place,
    Attach,
}

/// The last lines of the verifier's log say what it is about.
const LOG_LINES: usize = 3;

impl Step {
    pub(super) fn failed(self, error: &io::Error) -> SteerError {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        match (errno, self) {
            (libc::EPERM | libc::EACCES, _) => SteerError::NotPermitted,
            (libc::ENOSYS, _) | (libc::EINVAL, Step::MapSlots | Step::MapSockets) => {
                SteerError::NotHere
            }
            (libc::EBUSY, Step::Place) => SteerError::Taken,
            (errno, step) => SteerError::Other { step, errno },
        }
    }
}

impl From<Refusal> for SteerError {
    fn from(Refusal { error, log }: Refusal) -> SteerError {
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("processed ")).collect();
        if lines.is_empty() {
            return Step::Load.failed(&error);
        }
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        SteerError::Refused { errno, log: tail.join("; ") }
    }
}

impl fmt::Display for SteerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot steer connections: ")?;
        match self {
            SteerError::NotPermitted => f.write_str(
                "this needs the capability CAP_BPF, and not just in a user namespace \
                 (root has it; systemd: AmbientCapabilities=CAP_BPF; containers: --cap-add BPF)",
            ),
            SteerError::NotHere => {
                f.write_str("this kernel has no eBPF (built without CONFIG_BPF_SYSCALL)")
            }
            SteerError::Taken => f.write_str("another process steers these sockets"),
            SteerError::Refused { errno, log } => {
                let error = io::Error::from_raw_os_error(*errno);
                write!(f, "the kernel refused the program: {error}: {log}")
            }
            SteerError::Other { step, errno } => {
                let what = match step {
                    Step::MapSlots => "make the table of slots",
                    Step::MapSockets => "make the table of sockets",
                    Step::Load => "load the program",
                    Step::Identify => "tell the sockets apart",
                    Step::Place => "put the sockets into their table",
                    Step::Attach => "attach the program",
                };
                write!(f, "cannot {what}: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for SteerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_becomes_words_that_help() {
        for (step, errno, words) in [
            (Step::MapSlots, libc::EPERM, "needs the capability CAP_BPF"),
            (Step::Load, libc::EPERM, "needs the capability CAP_BPF"),
            (Step::MapSlots, libc::ENOSYS, "no eBPF"),
            (Step::MapSockets, libc::EINVAL, "no eBPF"),
            (Step::Place, libc::EBUSY, "another process steers"),
            (Step::Place, libc::EINVAL, "cannot put the sockets into their table: Invalid"),
            (Step::Attach, libc::ENOMEM, "cannot attach the program: Cannot allocate memory"),
        ] {
            let error = step.failed(&io::Error::from_raw_os_error(errno)).to_string();
            assert!(error.starts_with("cannot steer connections: "), "{error}");
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn of_the_log_the_end_is_told() {
        let log = "0: (95) exit\n1\n2\nR0 !read_ok\nprocessed 1 insns (limit 1000000)\n".to_owned();
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let told = SteerError::from(Refusal { error, log }).to_string();
        assert!(told.ends_with("Permission denied (os error 13): 1; 2; R0 !read_ok"), "{told}");
    }
}
