//! What this kernel can do beyond the minimum, and a mask to pretend that it can't.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use io_uring::{IoUring, Probe, opcode};

/// The oldest kernel with everything that has no fallback: 6.1 brought `DEFER_TASKRUN`.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// Optional abilities of the kernel; each has a fallback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Waiting for a child through the ring (6.7). Else: by polling a pidfd.
    pub waitid: bool,
    /// Waiting without being booked as I/O wait (6.15). Else: an idle process shows as iowait.
    pub no_iowait: bool,
}

impl Features {
    /// Asks the kernel, by a small ring that is closed again, and takes away what `mask` names.
    ///
    /// # Errors
    ///
    /// Why rings can't be made here, in words for the person who runs the program.
    pub fn probe(mask: Mask) -> Result<Features, Unavailable> {
        let uring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(1)
            .map_err(|error| Unavailable::explain(&error))?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe).map_err(|e| Unavailable::explain(&e))?;
        Ok(Features {
            waitid: probe.is_supported(opcode::WaitId::CODE) && !mask.waitid,
            no_iowait: uring.params().is_feature_no_iowait() && !mask.no_iowait,
        })
    }
}

impl fmt::Display for Features {
    /// The names of those that are there, as a mask spells them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [("waitid", self.waitid), ("no_iowait", self.no_iowait)];
        let there: Vec<&str> = names.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        f.write_str(if there.is_empty() { "none" } else { "" })?;
        f.write_str(&there.join(","))
    }
}

/// Features to do without, so that each fallback can be tested on a new kernel.
///
/// ```
/// let mask: uring_ring::Mask = "waitid,no_iowait".parse().unwrap();
/// assert_eq!(mask, uring_ring::Mask::ALL);
/// assert!("wait_id".parse::<uring_ring::Mask>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mask {
    waitid: bool,
    no_iowait: bool,
}

impl Mask {
    /// Nothing masked: what the kernel has is used.
    pub const NONE: Mask = Mask { waitid: false, no_iowait: false };
    /// As on the oldest supported kernel.
    pub const ALL: Mask = Mask { waitid: true, no_iowait: true };
}

impl FromStr for Mask {
    type Err = UnknownFeature;

    /// Names separated by commas, or `all`.
    fn from_str(names: &str) -> Result<Mask, UnknownFeature> {
        let mut mask = Mask::NONE;
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "all" => mask = Mask::ALL,
                "waitid" => mask.waitid = true,
                "no_iowait" => mask.no_iowait = true,
                _ => return Err(UnknownFeature(name.to_owned())),
            }
        }
        Ok(mask)
    }
}

/// A name that a [`Mask`] doesn't know.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownFeature(String);

impl fmt::Display for UnknownFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no kernel feature: use waitid, no_iowait or all", self.0)
    }
}

impl std::error::Error for UnknownFeature {}

/// Why no ring can be made here.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// `kernel.io_uring_disabled` forbids it: 1 to the unprivileged, 2 to all.
    BySysctl(u8),
    /// A seccomp filter (of a container, mostly) refuses the system call.
    BySeccomp,
    /// The kernel doesn't know what is needed at least.
    KernelTooOld {
        /// As uname(2) calls it.
        release: String,
    },
    /// Locked memory is used up (`RLIMIT_MEMLOCK`, counted per user).
    Memlock,
    /// No descriptor left.
    Descriptors,
    /// Something else.
    Other(i32),
}

impl Unavailable {
    /// Finds out what a failed setup means.
    pub(crate) fn explain(error: &io::Error) -> Unavailable {
        match error.raw_os_error().unwrap_or(libc::EIO) {
            libc::EPERM | libc::EACCES => match disabled_by_sysctl() {
                0 => Unavailable::BySeccomp,
                level => Unavailable::BySysctl(level),
            },
            errno @ (libc::ENOSYS | libc::EINVAL) => match kernel_release() {
                Some((_, version)) if version >= KERNEL_MIN && errno == libc::ENOSYS => {
                    Unavailable::BySeccomp
                }
                Some((_, version)) if version >= KERNEL_MIN => Unavailable::Other(errno),
                Some((release, _)) => Unavailable::KernelTooOld { release },
                None => Unavailable::KernelTooOld { release: "unknown".into() },
            },
            libc::ENOMEM => Unavailable::Memlock,
            libc::EMFILE | libc::ENFILE => Unavailable::Descriptors,
            errno => Unavailable::Other(errno),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = KERNEL_MIN;
        match self {
            Unavailable::BySysctl(1) => f.write_str(
                "io_uring is disabled for unprivileged users (sysctl kernel.io_uring_disabled is 1): \
                 join the group in kernel.io_uring_group, or run `sysctl -w kernel.io_uring_disabled=0`",
            ),
            Unavailable::BySysctl(level) => write!(
                f,
                "io_uring is disabled (sysctl kernel.io_uring_disabled is {level}): \
                 run `sysctl -w kernel.io_uring_disabled=0`",
            ),
            Unavailable::BySeccomp => f.write_str(
                "a seccomp filter forbids io_uring: in a container, allow io_uring_setup, \
                 io_uring_enter and io_uring_register in its seccomp profile",
            ),
            Unavailable::KernelTooOld { release } => write!(
                f,
                "this kernel is too old: it is {release}, and Linux {major}.{minor} is the oldest that works",
            ),
            Unavailable::Memlock => f.write_str(
                "no memory for a ring: the limit of locked memory is used up (`ulimit -l`, counted \
                 over all processes of this user); raise LimitMEMLOCK in the service, or use fewer workers",
            ),
            Unavailable::Descriptors => f.write_str(
                "no file descriptor left for a ring: raise the limit (`ulimit -n`)",
            ),
            Unavailable::Other(errno) => {
                write!(f, "cannot make a ring: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for Unavailable {}

fn disabled_by_sysctl() -> u8 {
    // Absent before 6.6, where nothing could disable it.
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|level| level.trim().parse().ok())
        .unwrap_or(0)
}

fn kernel_release() -> Option<(String, (u32, u32))> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().to_owned();
    let version = parse_version(&release)?;
    Some((release, version))
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(parse_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_version("5.15.0"), Some((5, 15)));
        assert_eq!(parse_version("6.18-rc1"), Some((6, 18)));
        assert_eq!(parse_version("banana"), None);
    }

    #[test]
    fn every_reason_says_what_to_do_or_why_not() {
        for reason in [
            Unavailable::BySysctl(1),
            Unavailable::BySysctl(2),
            Unavailable::BySeccomp,
            Unavailable::KernelTooOld { release: "5.10.0".into() },
            Unavailable::Memlock,
            Unavailable::Descriptors,
            Unavailable::Other(libc::EIO),
        ] {
            assert!(reason.to_string().len() > 20, "{reason:?}");
        }
    }

    #[test]
    fn errors_of_setup_are_told_apart() {
        let explain = |errno| Unavailable::explain(&io::Error::from_raw_os_error(errno));
        assert_eq!(explain(libc::ENOMEM), Unavailable::Memlock);
        assert_eq!(explain(libc::EMFILE), Unavailable::Descriptors);
        assert_eq!(explain(libc::EIO), Unavailable::Other(libc::EIO));
        // Tests run on a kernel that is new enough, which must not be called too old.
        assert_eq!(explain(libc::ENOSYS), Unavailable::BySeccomp);
        assert_eq!(explain(libc::EINVAL), Unavailable::Other(libc::EINVAL));
    }
}
