//! Rights: how a worker gives them up once it has its rings, and limits that the master sets.
//! Decides on no identity.

use std::fmt;
use std::io;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::kill;
use nix::unistd::{
    Gid, Uid, getpid, getppid, getresgid, getresuid, setgroups, setresgid, setresuid,
};

use super::signals::MASTERS_END;
use crate::config::{Accept, Address, Identity, PoolConfig};

/// Makes this process somebody else's for good, without supplementary groups, and asks again to be
/// told by [`MASTERS_END`] when its parent dies, which the change undoes (`PR_SET_PDEATHSIG`).
///
/// Only for a process with one thread: others' credentials change too, by signals.
///
/// # Errors
///
/// The rights for it are missing, or the process could become what it was: it must end then.
pub(crate) fn drop_to(identity: Identity) -> Result<(), PrivilegeError> {
    let parent = getppid();
    let refused = |errno| PrivilegeError::Refused { identity, errno };
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let was_it_before = is(uid, gid);
    let error = |errno| PrivilegeError::System { doing: "give up capabilities", errno };
    prctl::set_keepcaps(false).map_err(error)?; // root's go with the change
    match setgroups(&[gid]) {
        Err(Errno::EPERM) if was_it_before => {} // started as that user, who can't leave groups
        other => other.map_err(refused)?,
    }
    setresgid(gid, gid, gid).map_err(refused)?;
    setresuid(uid, uid, uid).map_err(refused)?;
    if !is(uid, gid) || (!uid.is_root() && can_be_root()) {
        return Err(PrivilegeError::CanReturn { identity });
    }
    let system = |errno| PrivilegeError::System { doing: "watch over its master", errno };
    prctl::set_pdeathsig(MASTERS_END).map_err(system)?;
    if getppid() != parent {
        kill(getpid(), MASTERS_END).map_err(system)?; // it died before that: as if it had told
    }
    Ok(())
}

/// Whether all three of each are these.
fn is(uid: Uid, gid: Gid) -> bool {
    let is_user = getresuid().is_ok_and(|now| [now.real, now.effective, now.saved] == [uid; 3]);
    let is_group = getresgid().is_ok_and(|now| [now.real, now.effective, now.saved] == [gid; 3]);
    is_user && is_group
}

/// Tried, since capabilities may have been kept that no id tells of.
fn can_be_root() -> bool {
    let (root, keep) = (Uid::from_raw(0), Uid::from_raw(u32::MAX));
    setresuid(keep, root, keep).is_ok()
}

/// Makes sure that this process, and whatever it starts, never gains rights: set-user-id programs
/// give none any more.
///
/// # Errors
///
/// None that the kernel documents.
pub(crate) fn no_new_privs() -> Result<(), PrivilegeError> {
    let error = |errno| PrivilegeError::System { doing: "renounce new rights", errno };
    prctl::set_no_new_privs().map_err(error)
}

/// Lets this process dump a core although it has changed its user (`PR_SET_DUMPABLE`).
/// Other processes of that user may then trace it, too.
///
/// # Errors
///
/// None that the kernel documents.
pub(crate) fn allow_core_dumps() -> Result<(), PrivilegeError> {
    let error = |errno| PrivilegeError::System { doing: "allow core dumps", errno };
    prctl::set_dumpable(true).map_err(error)
}

/// Sets the limits of descriptors and of a core dump's bytes, for this process and its children;
/// [`u64::MAX`] is none. What may not be exceeded (the hard limit) is raised if need be, but never
/// lowered.
///
/// # Errors
///
/// The hard limit would have to be raised without the right to, or is bounded by the kernel.
pub(crate) fn raise_limits(
    descriptors_max: Option<u64>,
    core_bytes_max: Option<u64>,
) -> Result<(), PrivilegeError> {
    for (key, resource, wanted) in [
        ("descriptors_max", Resource::RLIMIT_NOFILE, descriptors_max),
        ("core_bytes_max", Resource::RLIMIT_CORE, core_bytes_max),
    ] {
        let Some(wanted) = wanted else { continue };
        let set = |(_, hard): (u64, u64)| {
            let error = |errno| PrivilegeError::Limit { key, wanted, hard, errno };
            setrlimit(resource, wanted, hard.max(wanted)).map_err(error)
        };
        let error = |errno| PrivilegeError::System { doing: "read its limits", errno };
        getrlimit(resource).map_err(error).and_then(set)?;
    }
    Ok(())
}

/// The limits that [`raise_limits`] sets, as they were.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits([(Resource, (u64, u64)); 2]);

impl Limits {
    /// # Errors
    ///
    /// None that the kernel documents.
    pub(crate) fn now() -> Result<Limits, PrivilegeError> {
        let error = |errno| PrivilegeError::System { doing: "read its limits", errno };
        let read = |resource| Ok((resource, getrlimit(resource).map_err(error)?));
        Ok(Limits([read(Resource::RLIMIT_NOFILE)?, read(Resource::RLIMIT_CORE)?]))
    }

    /// Sets them as they were, which is allowed to whoever has set others.
    pub(crate) fn restore(self) {
        for (resource, (soft, hard)) in self.0 {
            if let Err(errno) = setrlimit(resource, soft, hard) {
                log::warn!(
                    "{resource:?} stays as the settings that came to nothing had it: {errno}"
                );
            }
        }
    }
}

/// Descriptors that the master has for each worker: two lines to it, and the far end of one; under a
/// mask, or before Linux 6.7, one to wait for its end.
const DESCRIPTORS_PER_WORKER: u64 = 4;
/// And for itself: streams, ring, signals, bells, the scoreboard, what a fork and a log take, and what
/// the program around the pool has open.
const DESCRIPTORS_OF_MASTER: u64 = 20;

/// Finds out whether the master may open what it needs for so many workers, and as many successors
/// beside them at a reload.
///
/// # Errors
///
/// It may not.
pub(crate) fn check_descriptors(config: &PoolConfig, workers: usize) -> Result<(), PrivilegeError> {
    let error = |errno| PrivilegeError::System { doing: "read its limits", errno };
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(error)?;
    let is_shared = config.accept != Accept::Dispatch;
    let tcp = config.listen.iter().filter(|it| matches!(it, Address::Tcp(_))).count() as u64;
    let (sockets, workers) = (if is_shared { tcp } else { 0 }, workers as u64);
    let needed = DESCRIPTORS_OF_MASTER
        + config.listen.len() as u64
        + workers * (2 * DESCRIPTORS_PER_WORKER + sockets);
    if needed > limit {
        return Err(PrivilegeError::TooFewDescriptors { workers, needed, limit });
    }
    Ok(())
}

/// Rights that could not be given up, or limits that could not be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PrivilegeError {
    /// This process may not become that user or group.
    Refused {
        /// Whom it should run as.
        identity: Identity,
        /// The kernel's answer.
        errno: Errno,
    },
    /// It has become that user, and could still become root.
    CanReturn {
        /// Whom it should run as.
        identity: Identity,
    },
    /// A limit can't be raised so far.
    Limit {
        /// The setting.
        key: &'static str,
        /// What it asks for.
        wanted: u64,
        /// The hard limit as it is.
        hard: u64,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The limit of descriptors is too low for so many workers.
    TooFewDescriptors {
        /// How many there should be.
        workers: u64,
        /// Descriptors that the master needs for them.
        needed: u64,
        /// The soft limit as it is.
        limit: u64,
    },
    /// The kernel refused something that it always allows.
    System {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl PrivilegeError {
    /// A name for programs, which stays the same whatever the words become.
    pub fn code(&self) -> &'static str {
        match self {
            PrivilegeError::Refused { .. } => "PRIVILEGES_REFUSED",
            PrivilegeError::CanReturn { .. } => "PRIVILEGES_KEPT",
            PrivilegeError::Limit { .. } => "LIMIT_REFUSED",
            PrivilegeError::TooFewDescriptors { .. } => "TOO_FEW_DESCRIPTORS",
            PrivilegeError::System { .. } => "PRIVILEGES_ERROR",
        }
    }
}

impl fmt::Display for PrivilegeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrivilegeError::Refused { identity: Identity { uid, gid }, errno: Errno::EPERM } => {
                write!(
                    f,
                    "cannot run as user {uid} and group {gid}: that needs the capabilities \
                     CAP_SETUID and CAP_SETGID (start as root, or leave out `user` and `group`)"
                )
            }
            PrivilegeError::Refused { identity: Identity { uid, gid }, errno } => {
                write!(f, "cannot run as user {uid} and group {gid}: {}", errno.desc())
            }
            PrivilegeError::CanReturn { identity: Identity { uid, .. } } => write!(
                f,
                "user {uid} could become root again, by a capability that was kept: start as \
                 root without securebits, or as that user without CAP_SETUID"
            ),
            PrivilegeError::Limit { key, wanted, hard, errno: Errno::EPERM } => write!(
                f,
                "`{key}` is {wanted}, but at most {hard} are allowed here: raising that needs the \
                 capability CAP_SYS_RESOURCE{}",
                match *key {
                    "descriptors_max" => {
                        " and no more than the sysctl fs.nr_open (in a unit: LimitNOFILE=)"
                    }
                    _ => " (in a unit: LimitCORE=)",
                }
            ),
            PrivilegeError::Limit { key, wanted, errno, .. } => {
                write!(f, "`{key}` cannot be {wanted}: {}", errno.desc())
            }
            PrivilegeError::TooFewDescriptors { workers, needed, limit } => write!(
                f,
                "{workers} workers take {needed} descriptors in the master, and its limit is \
                 {limit}: raise it (`descriptors_max`, `ulimit -n`, in a unit LimitNOFILE=), or \
                 have fewer workers"
            ),
            PrivilegeError::System { doing, errno } => {
                write!(f, "cannot {doing}: {}", io::Error::from(*errno))
            }
        }
    }
}

impl std::error::Error for PrivilegeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::sys::{Fork, fork};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::getgroups;
    use std::process::Command;
    use std::{env, fs, panic};

    const SOMEBODY: Identity = Identity { uid: 12_345, gid: 23_456 };

    /// Set for a process that may change for good.
    const CHILD: &str = "URING_POOL_TEST_CHILD";

    /// Runs assertions in a process of their own, which may change for good.
    fn in_a_child(assertions: impl FnOnce() + panic::UnwindSafe) {
        match fork().unwrap() {
            Fork::Child => crate::process::sys::exit_at_once(i32::from(
                panic::catch_unwind(assertions).is_err(),
            )),
            Fork::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
            }
        }
    }

    /// Whether this test has root's rights; says so when it doesn't.
    fn is_root() -> bool {
        let is_root = getresuid().unwrap().effective.is_root();
        if !is_root {
            eprintln!("not root: only the refusal is tested");
        }
        is_root
    }

    #[test]
    fn a_worker_becomes_somebody_for_good() {
        in_a_child(|| {
            if !is_root() {
                let errno = Errno::EPERM;
                let refused = PrivilegeError::Refused { identity: SOMEBODY, errno };
                assert_eq!(drop_to(SOMEBODY), Err(refused));
                assert!(refused.to_string().contains("CAP_SETUID"));
                return;
            }
            drop_to(SOMEBODY).unwrap();
            let (uid, gid) = (Uid::from_raw(SOMEBODY.uid), Gid::from_raw(SOMEBODY.gid));
            assert!(is(uid, gid));
            assert_eq!(getgroups(), Ok(vec![gid]));
            let root = Uid::from_raw(0);
            assert_eq!(setresuid(root, root, root), Err(Errno::EPERM));
            drop_to(SOMEBODY).expect("it is that already");
            let other = Identity { uid: 1, gid: 1 };
            assert!(matches!(drop_to(other), Err(PrivilegeError::Refused { .. })));
            assert!(is(uid, gid), "as before");
        });
    }

    #[test]
    fn the_wish_to_die_with_the_master_outlives_the_change() {
        in_a_child(|| {
            if !is_root() {
                return;
            }
            prctl::set_pdeathsig(MASTERS_END).unwrap();
            let keep = Uid::from_raw(u32::MAX);
            setresuid(keep, Uid::from_raw(SOMEBODY.uid), Uid::from_raw(0)).unwrap();
            assert_eq!(prctl::get_pdeathsig(), Ok(None), "a change alone clears it");
            setresuid(keep, Uid::from_raw(0), keep).unwrap();

            prctl::set_pdeathsig(MASTERS_END).unwrap();
            drop_to(SOMEBODY).unwrap();
            assert_eq!(prctl::get_pdeathsig(), Ok(Some(MASTERS_END)));
        });
    }

    #[test]
    fn no_capability_outlives_the_change() {
        in_a_child(|| {
            if !is_root() {
                return;
            }
            prctl::set_keepcaps(true).unwrap();
            drop_to(SOMEBODY).unwrap();
            let status = fs::read_to_string("/proc/self/status").unwrap();
            for set in ["CapPrm", "CapEff", "CapAmb"] {
                assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
            }
        });
    }

    #[test]
    fn root_may_stay_root() {
        in_a_child(|| {
            if is_root() {
                drop_to(Identity { uid: 0, gid: 0 }).unwrap();
                assert!(can_be_root());
            }
        });
    }

    #[test]
    #[ignore = "runs in the child of the next, which has securebits"]
    fn somebody_who_keeps_capabilities() {
        if env::var_os(CHILD).is_none() {
            return; // this process runs other tests
        }
        assert_eq!(drop_to(SOMEBODY), Err(PrivilegeError::CanReturn { identity: SOMEBODY }));
    }

    #[test]
    fn capabilities_that_cannot_be_given_up_are_found_out() {
        let test = "process::privileges::tests::somebody_who_keeps_capabilities";
        let keeping = Command::new("setpriv")
            .arg("--securebits=+no_setuid_fixup")
            .arg(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored"])
            .env(CHILD, "1")
            .output();
        match keeping {
            Ok(output) if is_root() => {
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
            }
            _ => eprintln!("not tested: it needs root, and setpriv of util-linux"),
        }
        let words = PrivilegeError::CanReturn { identity: SOMEBODY }.to_string();
        assert!(words.starts_with("user 12345 could become root again"), "{words}");
    }

    #[test]
    fn core_dumps_can_be_had_after_the_change() {
        in_a_child(|| {
            if !is_root() {
                return;
            }
            drop_to(SOMEBODY).unwrap();
            assert_eq!(prctl::get_dumpable(), Ok(false), "the change forbids them");
            allow_core_dumps().unwrap();
            assert_eq!(prctl::get_dumpable(), Ok(true));
        });
    }

    #[test]
    fn new_rights_are_renounced() {
        in_a_child(|| {
            no_new_privs().unwrap();
            assert_eq!(prctl::get_no_new_privs(), Ok(true));
        });
    }

    #[test]
    fn limits_are_set_and_the_hard_ones_never_lowered() {
        in_a_child(|| {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            raise_limits(Some(64), Some(0)).unwrap();
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((64, hard)));
            assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap().0, 0);
            raise_limits(Some(hard), None).unwrap();
            raise_limits(None, None).unwrap();
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
        });
    }

    #[test]
    fn without_rights_a_hard_limit_is_not_raised_and_the_words_say_how_to() {
        in_a_child(|| {
            let (core, files) = (Resource::RLIMIT_CORE, Resource::RLIMIT_NOFILE);
            setrlimit(files, 64, 64).unwrap();
            setrlimit(core, 0, 0).unwrap();
            if is_root() {
                drop_to(SOMEBODY).unwrap();
            }
            let error = raise_limits(Some(65), None).unwrap_err();
            let words = error.to_string();
            assert!(words.starts_with("`descriptors_max` is 65, but at most 64"), "{words}");
            assert!(
                words.contains("CAP_SYS_RESOURCE") && words.contains("LimitNOFILE="),
                "{words}"
            );
            assert_eq!(error.code(), "LIMIT_REFUSED");
            let words = raise_limits(None, Some(1)).unwrap_err().to_string();
            assert!(words.contains("`core_bytes_max` is 1") && words.contains("LimitCORE="));
            assert_eq!(getrlimit(files), Ok((64, 64)));
        });
    }

    #[test]
    fn root_raises_hard_limits_up_to_the_kernels_own() {
        in_a_child(|| {
            setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
            let raised = raise_limits(Some(128), Some(u64::MAX));
            if is_root() && raised.is_ok() {
                assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((128, 128)));
                let words = raise_limits(Some(u64::MAX), None).unwrap_err().to_string();
                assert!(words.contains("fs.nr_open"), "{words}");
            } else {
                assert!(matches!(raised, Err(PrivilegeError::Limit { .. })), "no such capability");
            }
        });
    }

    #[test]
    fn more_workers_than_there_are_descriptors_for_are_refused_with_the_figure() {
        let config = |accept| PoolConfig { accept, ..PoolConfig::default() };
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let fitting =
            ((limit - DESCRIPTORS_OF_MASTER - 1) / (2 * DESCRIPTORS_PER_WORKER + 1)) as usize;
        assert_eq!(check_descriptors(&config(Accept::Shared), fitting), Ok(()));
        let refused = check_descriptors(&config(Accept::Shared), fitting + 1).unwrap_err();
        assert!(refused.to_string().contains(&format!("its limit is {limit}")), "{refused}");
        assert_eq!(refused.code(), "TOO_FEW_DESCRIPTORS");
        let dispatch = check_descriptors(&config(Accept::Dispatch), fitting + 1);
        assert_eq!(dispatch, Ok(()), "it has one socket for all");
    }
}
