//! How many workers this machine, or this container, has use for, and on which cores.
//! Starts and pins nothing.

use std::fs;
use std::path::Path;

use crate::config::{WORKERS_MAX, WorkerCount};

/// Workers where the cores can't be counted.
const CORES_FALLBACK: usize = 4;

/// What this process may compute with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cpus {
    /// Cores of the affinity mask, by number.
    cores: Vec<usize>,
    /// CPU time that control groups grant, in cores, rounded up.
    quota: Option<usize>,
}

impl Cpus {
    /// Asks the scheduler and the control groups.
    pub(crate) fn detect() -> Cpus {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        Cpus {
            cores: cores.into_iter().map(|core| core.id).collect(),
            quota: quota(|path| fs::read_to_string(path).ok()),
        }
    }

    /// How many cores the affinity mask has; [`CORES_FALLBACK`] where they can't be counted.
    pub(crate) fn cores(&self) -> usize {
        if self.cores.is_empty() { CORES_FALLBACK } else { self.cores.len() }
    }

    /// CPU time that control groups grant, in cores.
    pub(crate) fn quota(&self) -> Option<usize> {
        self.quota
    }

    /// How many workers to start.
    pub(crate) fn worker_count(&self, wanted: WorkerCount) -> usize {
        match wanted {
            WorkerCount::Fixed(count) => count,
            WorkerCount::Auto => self.available().clamp(1, WORKERS_MAX),
        }
    }

    /// The core to pin a worker to. None under a quota of fewer cores than the mask has: it limits
    /// time, not place, and every container of the machine would crowd on the same first cores.
    pub(crate) fn core_of(&self, worker: usize) -> Option<usize> {
        if self.cores.is_empty() || self.available() < self.cores.len() {
            return None;
        }
        Some(self.cores[worker % self.cores.len()])
    }

    fn available(&self) -> usize {
        self.quota.map_or(self.cores(), |quota| quota.min(self.cores()))
    }
}

/// The smallest quota of this process's control groups and all their ancestors.
fn quota(read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    groups
        .lines()
        .filter_map(parse_group)
        .flat_map(|(version, path)| path.ancestors().map(move |group| (version, group)))
        .filter_map(|(version, group)| version.quota(group, &read))
        .min()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Where distributions mount the hierarchy that limits CPU time.
    fn mounts(self) -> [&'static str; 2] {
        match self {
            Version::One => ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"],
            Version::Two => ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
        }
    }

    fn quota(self, group: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
        let group = group.strip_prefix("/").unwrap_or(group);
        self.mounts().into_iter().find_map(|mount| {
            let file = |name: &str| read(&Path::new(mount).join(group).join(name));
            match self {
                Version::One => parse_v1(&file("cpu.cfs_quota_us")?, &file("cpu.cfs_period_us")?),
                Version::Two => parse_v2(&file("cpu.max")?),
            }
        })
    }
}

/// A line of /proc/self/cgroup (cgroups(7)): `3:cpu,cpuacct:/path`, or `0::/path` for version 2.
fn parse_group(line: &str) -> Option<(Version, &Path)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let version = match controllers {
        "" => Version::Two,
        _ if controllers.split(',').any(|name| name == "cpu") => Version::One,
        _ => return None,
    };
    Some((version, Path::new(path)))
}

/// `150000 100000`: microseconds of CPU time in each period; `max` instead is no limit.
fn parse_v2(cpu_max: &str) -> Option<usize> {
    let (quota, period) = cpu_max.trim().split_once(' ')?;
    cores(quota, period)
}

/// The same in two files; a quota of -1 is no limit.
fn parse_v1(quota: &str, period: &str) -> Option<usize> {
    cores(quota.trim(), period.trim())
}

/// Rounded up: half a core still needs a worker.
fn cores(quota: &str, period: &str) -> Option<usize> {
    let quota: usize = quota.parse().ok()?;
    let period: usize = period.parse().ok()?;
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota_with(files: &[(&str, &str)]) -> Option<usize> {
        quota(|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn a_quota_is_rounded_up_and_none_is_none() {
        for (cpu_max, cores) in [
            ("max 100000\n", None),
            ("100000 100000\n", Some(1)),
            ("150000 100000\n", Some(2)),
            ("1000 100000\n", Some(1)),
            ("800000 100000\n", Some(8)),
            ("100000 0\n", None),
            ("", None),
        ] {
            assert_eq!(parse_v2(cpu_max), cores, "{cpu_max:?}");
        }
        assert_eq!(parse_v1("-1\n", "100000\n"), None);
        assert_eq!(parse_v1("250000\n", "100000\n"), Some(3));
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let files = [
            ("/proc/self/cgroup", "0::/pod/app\n"),
            ("/sys/fs/cgroup/pod/app/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/pod/cpu.max", "300000 100000\n"),
        ];
        assert_eq!(quota_with(&files), Some(3));
    }

    #[test]
    fn a_container_finds_its_own_group_at_the_root_of_the_mount() {
        let files = [
            (
                "/proc/self/cgroup",
                "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
            ),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota_with(&files), Some(2));
    }

    #[test]
    fn no_control_groups_are_no_quota() {
        assert_eq!(quota_with(&[]), None);
        assert_eq!(quota_with(&[("/proc/self/cgroup", "9:name=systemd:/\nbanana\n")]), None);
    }

    #[test]
    fn workers_are_as_many_as_mask_and_quota_allow() {
        let cpus = |cores: &[usize], quota| Cpus { cores: cores.to_vec(), quota };
        assert_eq!(cpus(&[0, 1, 2, 3], None).worker_count(WorkerCount::Auto), 4);
        assert_eq!(cpus(&[0, 1, 2, 3], Some(2)).worker_count(WorkerCount::Auto), 2);
        assert_eq!(cpus(&[5], Some(2)).worker_count(WorkerCount::Auto), 1);
        assert_eq!(cpus(&[], None).worker_count(WorkerCount::Auto), CORES_FALLBACK);
        assert_eq!(cpus(&[0, 1], None).worker_count(WorkerCount::Fixed(7)), 7);
        assert_eq!(cpus(&vec![0; 5000], None).worker_count(WorkerCount::Auto), WORKERS_MAX);
    }

    #[test]
    fn workers_go_round_the_cores_of_the_mask_unless_time_is_limited() {
        let cpus = Cpus { cores: vec![2, 5], quota: None };
        assert_eq!([0, 1, 2].map(|worker| cpus.core_of(worker)), [Some(2), Some(5), Some(2)]);
        let quota = Cpus { cores: vec![0, 1, 2, 3], quota: Some(2) };
        assert_eq!(quota.core_of(0), None);
        assert_eq!(Cpus { cores: vec![], quota: None }.core_of(0), None);
    }

    #[test]
    fn this_machine_has_cores() {
        let cpus = Cpus::detect();
        assert!(cpus.worker_count(WorkerCount::Auto) >= 1);
        assert!(!cpus.cores.is_empty());
    }
}
