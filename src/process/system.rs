//! What this machine offers to a pool: found out by trying, not by names of versions. Changes
//! nothing, and leaves nothing behind.

use std::fmt::Display;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::utsname::uname;
use nix::unistd::geteuid;
use uring_ring::{Arrival, Features, Mask, Op, Outcome, Ring, Setup, Unavailable};

use super::channel;
use super::cpus::Cpus;
use super::listen::try_port_sharing;
use super::steer::Steering;
use crate::config::{Accept, WorkerCount};

/// Files that container engines leave in their containers.
const CONTAINER_MARKS: [(&str, &str); 2] =
    [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];

/// What this machine, or this container, offers.
///
/// ```
/// use uring_pool::system::Info;
/// use uring_pool::Mask;
///
/// let info = Info::detect(Mask::NONE);
/// println!("{} workers on {} cores, {}", info.workers, info.cores, info.recommended());
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Info {
    /// The kernel's release, as uname(2) calls it.
    pub kernel: String,
    /// Optional features of its rings, or why there are no rings.
    pub rings: Result<Features, Unavailable>,
    /// Cores of the affinity mask; as many as are assumed where they can't be counted.
    pub cores: usize,
    /// Cores' worth of CPU time that control groups grant, rounded up.
    pub quota: Option<usize>,
    /// Workers that a pool has by default.
    pub workers: usize,
    /// The container engine, if this is a container whose engine shows itself.
    pub container: Option<String>,
    /// Descriptors that a process may have open: now, and after raising it.
    pub descriptors: (u64, u64),
    /// Bytes that this user may lock in memory: rings count. None where there is no limit, as for
    /// root.
    pub locked_memory: Option<u64>,
    /// Whether several sockets can listen on one port (`SO_REUSEPORT`, socket(7)), or why not.
    pub reuseport: Result<(), String>,
    /// Whether a descriptor can be passed through a ring (`SCM_RIGHTS`, unix(7)), or why not.
    pub descriptor_passing: Result<(), String>,
    /// Whether the kernel may send connections by load ([`Accept::Steered`]), or why not.
    pub steering: Result<(), String>,
}

impl Info {
    /// Looks and tries. Features in `mask` count as absent.
    pub fn detect(mask: Mask) -> Info {
        let cpus = Cpus::detect();
        let rings = Features::probe(mask);
        let descriptor_passing = match &rings {
            Ok(features) => pass_a_descriptor(*features).map_err(words),
            Err(_) => Err("there is no ring to try it with".to_owned()),
        };
        Info {
            kernel: uname()
                .map_or_else(|_| "unknown".into(), |names| names.release().display().to_string()),
            rings,
            cores: cpus.cores(),
            quota: cpus.quota(),
            workers: cpus.worker_count(WorkerCount::Auto),
            container: container(),
            descriptors: getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default(),
            locked_memory: locked_memory_max(),
            reuseport: try_port_sharing().map_err(words),
            descriptor_passing,
            steering: Steering::new(2).map(drop).map_err(words),
        }
    }

    /// How connections should reach the workers here: by load where the kernel may do it and there
    /// is more than one worker, else by hash. [`Accept::Dispatch`] is for who wants more than that: a
    /// balancer of one's own, sticky clients, a queue.
    pub fn recommended(&self) -> Accept {
        if self.steering.is_ok() && self.workers > 1 { Accept::Steered } else { Accept::Shared }
    }

    /// Whether a pool can serve here at all.
    pub fn is_usable(&self) -> bool {
        self.rings.is_ok() && self.reuseport.is_ok()
    }
}

fn words(error: impl Display) -> String {
    error.to_string()
}

/// There and back again in one process.
fn pass_a_descriptor(features: Features) -> io::Result<()> {
    let mut ring = Ring::new(Setup { entries: 8, restricted: true, features })
        .map_err(|error| io::Error::other(error.to_string()))?;
    ring.enable()?;
    let (near, far) = channel::pair()?;
    let some = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.into();
    let payload = vec![b'!'];
    ring.push(Op::SendFds { fd: near.as_raw_fd(), payload, fds: vec![some], wait: false }, ());
    ring.turn(None)?;
    let payload = Vec::with_capacity(1);
    ring.push(Op::RecvFds { fd: far.as_raw_fd(), payload, fds_max: 1, wait: false }, ());
    ring.turn(None)?;
    while let Some(completion) = ring.poll_completion() {
        match completion.outcome {
            Outcome::SentFds { result, .. } => result?,
            Outcome::ReceivedFds { fds, result, .. } => {
                let is_whole = matches!(result?, Arrival::Whole) && fds.len() == 1;
                return if is_whole { Ok(()) } else { Err(io::Error::other("it got lost")) };
            }
            _ => {}
        }
    }
    Err(io::Error::other("it did not arrive"))
}

fn locked_memory_max() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY && !geteuid().is_root()).then_some(soft)
}

fn container() -> Option<String> {
    if let Ok(name) = fs::read_to_string("/run/systemd/container") {
        return Some(name.trim().to_owned());
    }
    if let Some((_, name)) = CONTAINER_MARKS.iter().find(|(mark, _)| Path::new(mark).exists()) {
        return Some((*name).to_owned());
    }
    let environment = fs::read("/proc/1/environ").ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let name = variables.find_map(|variable| variable.strip_prefix(b"container="))?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_run_on_can_serve() {
        let info = Info::detect(Mask::NONE);
        assert!(info.is_usable(), "{info:?}");
        assert_eq!(info.descriptor_passing, Ok(()));
        assert!((1..=info.cores).contains(&info.workers));
        assert!(info.descriptors.0 <= info.descriptors.1);
    }

    #[test]
    fn who_may_steer_several_workers_should() {
        let mut info = Info::detect(Mask::ALL);
        (info.steering, info.workers) = (Ok(()), 2);
        assert_eq!(info.recommended(), Accept::Steered);
        info.workers = 1;
        assert_eq!(info.recommended(), Accept::Shared);
        (info.steering, info.workers) = (Err("no".into()), 2);
        assert_eq!(info.recommended(), Accept::Shared);
    }
}
