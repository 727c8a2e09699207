//! The CPU time of a process and all its descendants: also of those that are born or die meanwhile.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::parse::{self, Stat};

/// What a tree of processes has used since it was first looked at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Use {
    /// Nanoseconds on a core, of all.
    pub(super) cpu: u64,
    /// Of the thread that has used most.
    pub(super) busiest: u64,
    /// Processes that are alive.
    pub(super) processes: u64,
    /// Processes that have died since.
    pub(super) died: u64,
}

/// A process, its descendants, and what was seen of them.
#[derive(Debug)]
pub(super) struct Tree {
    root: u32,
    tick_nanos: u64,
    processes: HashMap<Id, Process>,
    /// CPU time of processes that are gone.
    gone: u64,
    died: u64,
    is_new: bool,
}

/// A pid, and when it began: pids are used again.
type Id = (u32, u64);

/// A process as last seen.
#[derive(Debug)]
struct Process {
    parent: u32,
    tasks: HashMap<u32, Task>,
    /// Of threads that have ended.
    ended: u64,
    reaped_at_begin: u64,
    reaped: u64,
    /// What dead children had been seen to use, with what these had reaped.
    seen_of_dead: u64,
}

#[derive(Clone, Copy, Debug)]
struct Task {
    at_begin: u64,
    cpu: u64,
}

impl Process {
    fn used(&self) -> u64 {
        self.ended + self.tasks.values().map(|task| task.cpu - task.at_begin).sum::<u64>()
    }

    /// What children used after they were last seen: the kernel tells it in clock ticks when they
    /// have been waited for.
    fn unseen(&self) -> u64 {
        (self.reaped - self.reaped_at_begin).saturating_sub(self.seen_of_dead)
    }
}

impl Tree {
    /// The tree below and including `root`. `tick_nanos` is the length of a clock tick.
    pub(super) fn new(root: u32, tick_nanos: u64) -> Tree {
        Tree { root, tick_nanos, processes: HashMap::new(), gone: 0, died: 0, is_new: true }
    }

    /// Looks at all processes again.
    pub(super) fn read(&mut self, proc: &Path) -> Use {
        let alive = descendants(proc, self.root);
        let now: HashMap<Id, u32> =
            alive.iter().map(|(pid, stat)| ((*pid, stat.started), *pid)).collect();
        let dead: Vec<Id> =
            self.processes.keys().filter(|id| !now.contains_key(*id)).copied().collect();
        // All of them first: what is known of a parent that died as well is older than its children.
        let dead: Vec<Process> = dead.iter().filter_map(|id| self.processes.remove(id)).collect();
        for process in dead {
            self.gone += process.used() + process.unseen();
            self.died += 1;
            let parent = self.processes.iter_mut().find(|((pid, _), _)| *pid == process.parent);
            if let Some((_, parent)) = parent {
                // The kernel tells the parent of all that its child ever used, and had reaped.
                let ever = process.tasks.values().map(|task| task.cpu).sum::<u64>();
                parent.seen_of_dead += ever + process.ended + process.reaped;
            }
        }
        for (pid, stat) in alive {
            self.look(proc, pid, &stat);
        }
        self.is_new = false;
        let processes = self.processes.values();
        let cpu = self.gone + processes.clone().map(|it| it.used() + it.unseen()).sum::<u64>();
        let tasks = processes.flat_map(|process| process.tasks.values());
        Use {
            cpu,
            busiest: tasks.map(|task| task.cpu - task.at_begin).max().unwrap_or(0),
            processes: self.processes.len() as u64,
            died: self.died,
        }
    }

    fn look(&mut self, proc: &Path, pid: u32, stat: &Stat) {
        let reaped = stat.reaped_ticks * self.tick_nanos;
        let process = self.processes.entry((pid, stat.started)).or_insert_with(|| Process {
            parent: stat.parent,
            tasks: HashMap::new(),
            ended: 0,
            reaped_at_begin: if self.is_new { reaped } else { 0 },
            reaped,
            seen_of_dead: 0,
        });
        process.parent = stat.parent;
        process.reaped = reaped.max(process.reaped_at_begin);
        let alive: HashMap<u32, u64> = tasks(proc, pid).collect();
        process.tasks.retain(|tid, task| {
            let is_alive = alive.contains_key(tid);
            process.ended += if is_alive { 0 } else { task.cpu - task.at_begin };
            is_alive
        });
        for (tid, cpu) in alive {
            // Whoever was there when it began has used some before; who came later, nothing.
            let at_begin = if self.is_new { cpu } else { 0 };
            let task = process.tasks.entry(tid).or_insert(Task { at_begin, cpu });
            task.cpu = cpu.max(task.cpu);
        }
    }
}

/// Threads of a process, with their CPU time.
fn tasks(proc: &Path, pid: u32) -> impl Iterator<Item = (u32, u64)> {
    let directory = proc.join(pid.to_string()).join("task");
    fs::read_dir(directory).into_iter().flatten().flatten().filter_map(|entry| {
        let tid = entry.file_name().to_str()?.parse().ok()?;
        let (cpu, _) = parse::schedstat(&fs::read_to_string(entry.path().join("schedstat")).ok()?)?;
        Some((tid, cpu))
    })
}

/// The pids of a process and its descendants, if it is alive.
pub fn family(pid: u32) -> Vec<u32> {
    descendants(Path::new("/proc"), pid).into_iter().map(|(pid, _)| pid).collect()
}

/// A process and its descendants, if it is alive.
fn descendants(proc: &Path, root: u32) -> Vec<(u32, Stat)> {
    let all = fs::read_dir(proc).into_iter().flatten().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, parse::stat(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
    });
    let mut others: Vec<(u32, Stat)> = all.collect();
    let mut found: Vec<(u32, Stat)> = others.extract_if(.., |(pid, _)| *pid == root).collect();
    let mut next = 0;
    while let Some((parent, _)) = found.get(next) {
        let parent = *parent;
        found.extend(others.extract_if(.., |(_, stat)| stat.parent == parent));
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A /proc of our own.
    struct Proc(TempDir);

    impl Proc {
        fn new() -> Proc {
            Proc(TempDir::new().unwrap())
        }

        fn set(&self, pid: u32, parent: u32, reaped_ticks: u64, tasks: &[(u32, u64)]) {
            let directory = self.0.path().join(pid.to_string());
            let _ = fs::remove_dir_all(&directory);
            let fields = "0 0 0 0 0 0 0 0 0 0 0".to_owned(); // 5 to 15
            let stat = format!("{pid} (s) S {parent} {fields} {reaped_ticks} 0 0 0 0 0 {pid}00 0");
            for (tid, cpu) in tasks {
                let task = directory.join("task").join(tid.to_string());
                fs::create_dir_all(&task).unwrap();
                fs::write(task.join("schedstat"), format!("{cpu} 0 1\n")).unwrap();
            }
            fs::write(directory.join("stat"), stat).unwrap();
        }

        fn end(&self, pid: u32) {
            fs::remove_dir_all(self.0.path().join(pid.to_string())).unwrap();
        }

        fn path(&self) -> &Path {
            self.0.path()
        }
    }

    const TICK: u64 = 1_000;

    #[test]
    fn all_descendants_count_from_the_first_look_on() {
        let proc = Proc::new();
        proc.set(10, 1, 500, &[(10, 5_000)]);
        proc.set(11, 10, 0, &[(11, 7_000), (111, 100)]);
        proc.set(12, 11, 0, &[(12, 50)]);
        proc.set(99, 1, 0, &[(99, 1)]);
        let mut tree = Tree::new(10, TICK);
        let first = tree.read(proc.path());
        assert_eq!((first.cpu, first.processes), (0, 3));
        proc.set(10, 1, 500, &[(10, 5_010)]);
        proc.set(11, 10, 0, &[(11, 7_100), (111, 100)]);
        proc.set(12, 11, 0, &[(12, 1_050)]);
        proc.set(99, 1, 0, &[(99, 1_000_000)]);
        assert_eq!(
            tree.read(proc.path()),
            Use { cpu: 1_110, busiest: 1_000, processes: 3, died: 0 }
        );
    }

    #[test]
    fn threads_and_processes_that_end_are_not_lost() {
        let proc = Proc::new();
        proc.set(10, 1, 0, &[(10, 0)]);
        proc.set(11, 10, 0, &[(11, 0), (111, 0)]);
        let mut tree = Tree::new(10, TICK);
        tree.read(proc.path());
        proc.set(11, 10, 0, &[(11, 3_000), (111, 2_000)]);
        assert_eq!(tree.read(proc.path()).cpu, 5_000);
        proc.set(11, 10, 0, &[(11, 3_000)]); // a thread ends
        assert_eq!(tree.read(proc.path()).cpu, 5_000);
        proc.end(11); // the process does, having used 9 ticks in all
        proc.set(10, 1, 9, &[(10, 0)]);
        let seen = tree.read(proc.path());
        assert_eq!((seen.cpu, seen.died, seen.processes), (9_000, 1, 1));
        proc.set(12, 10, 0, &[(12, 400)]); // its successor counts from its birth on
        assert_eq!(tree.read(proc.path()).cpu, 9_400);
        proc.end(12);
        proc.end(10);
        assert_eq!(tree.read(proc.path()), Use { cpu: 9_400, busiest: 0, processes: 0, died: 3 });
    }

    #[test]
    fn one_that_lived_between_two_looks_counts() {
        let proc = Proc::new();
        proc.set(10, 1, 100, &[(10, 0)]);
        let mut tree = Tree::new(10, TICK);
        tree.read(proc.path());
        proc.set(10, 1, 107, &[(10, 0)]);
        assert_eq!(tree.read(proc.path()).cpu, 7_000);
    }

    #[test]
    fn a_real_process_has_used_what_it_says() {
        let mut tree = Tree::new(std::process::id(), 10_000_000);
        let proc = Path::new("/proc");
        tree.read(proc);
        let mut sum = 0_u64;
        let used = std::iter::from_fn(|| {
            (0..1_000_000_u64).for_each(|number| sum = std::hint::black_box(sum ^ number));
            Some(tree.read(proc))
        });
        let used = used.take(10_000).find(|used| used.cpu > 2_000_000);
        assert!(used.is_some_and(|used| used.busiest > 0 && used.processes >= 1), "it burns CPU");
    }
}
