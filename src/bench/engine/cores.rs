//! Which cores the load threads run on: those that the server doesn't. Pins nothing itself.

use std::fs;

use super::super::plan::Pin;

/// Where threads go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seats {
    /// One a thread; `None` leaves it to the scheduler.
    pub(super) cores: Vec<Option<usize>>,
    /// A thread that looks at the clock takes no time from the server.
    pub(super) may_spin: bool,
}

/// Chooses seats. `mine` are the cores of our affinity mask, `theirs` those that the server is bound
/// to, if it is on this machine and bound to some of ours.
pub(super) fn choose(
    pin: &Pin,
    threads: Option<usize>,
    mine: &[usize],
    server: &Server,
    connections: usize,
) -> Seats {
    if let Pin::Cores(cores) = pin {
        let count = threads.unwrap_or(cores.len()).clamp(1, connections);
        let seats: Vec<Option<usize>> = (0..count).map(|i| Some(cores[i % cores.len()])).collect();
        let shares =
            |core: &usize| matches!(server, Server::Bound(theirs) if theirs.contains(core));
        return Seats { may_spin: !cores.iter().any(shares) && count <= cores.len(), cores: seats };
    }
    let spare: Vec<usize> = match server {
        Server::Elsewhere => mine.to_vec(),
        Server::Bound(theirs) => {
            mine.iter().copied().filter(|core| !theirs.contains(core)).collect()
        }
        Server::Roaming => Vec::new(),
    };
    let room = match spare.len() {
        // It may be anywhere: leave it half of the cores.
        0 => (mine.len() / 2).max(1),
        spare => spare,
    };
    let count = threads.unwrap_or(room).clamp(1, connections);
    let may_spin = count <= spare.len() || (*server == Server::Roaming && count < mine.len());
    let is_pinned = *pin == Pin::Auto && !spare.is_empty() && count <= spare.len();
    let seat = |thread: usize| is_pinned.then(|| spare[thread]);
    Seats { cores: (0..count).map(seat).collect(), may_spin }
}

/// Where the server runs, as far as this machine knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Server {
    /// On another machine.
    Elsewhere,
    /// Here, on these cores alone.
    Bound(Vec<usize>),
    /// Here, on any.
    Roaming,
}

impl Server {
    /// Looks at the processes of a server on this machine.
    pub(super) fn local(pids: &[u32], mine: &[usize]) -> Server {
        let mut theirs = Vec::new();
        for pid in pids {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                let allowed = status.lines().find_map(|it| it.strip_prefix("Cpus_allowed_list:"));
                let cores = parse(allowed.unwrap_or_default());
                if mine.iter().all(|core| cores.contains(core)) {
                    // A master that only waits, for example: what is bound tells more.
                    continue;
                }
                theirs.extend(cores);
            }
        }
        theirs.sort_unstable();
        theirs.dedup();
        if theirs.is_empty() { Server::Roaming } else { Server::Bound(theirs) }
    }
}

/// `0-3,7`, as in /proc/PID/status (proc(5)).
fn parse(cores: &str) -> Vec<usize> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    };
    cores.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_go_where_the_server_is_not() {
        let seats = |pin: &Pin, threads, server: &Server| {
            let Seats { cores, may_spin } = choose(pin, threads, &[0, 1, 2, 3], server, 64);
            (cores, may_spin)
        };
        let bound = Server::Bound(vec![0, 1]);
        assert_eq!(seats(&Pin::Auto, None, &bound), (vec![Some(2), Some(3)], true));
        assert_eq!(seats(&Pin::Auto, Some(1), &bound), (vec![Some(2)], true));
        assert_eq!(seats(&Pin::Auto, Some(3), &bound), (vec![None; 3], false));
        assert_eq!(seats(&Pin::Auto, None, &Server::Roaming), (vec![None; 2], true));
        assert_eq!(seats(&Pin::Auto, None, &Server::Elsewhere).0.len(), 4);
        assert_eq!(seats(&Pin::None, None, &bound), (vec![None; 2], true));
        let everywhere = Server::Bound(vec![0, 1, 2, 3]);
        assert_eq!(seats(&Pin::Auto, None, &everywhere), (vec![None; 2], false));
        assert_eq!(seats(&Pin::Cores(vec![1]), None, &bound), (vec![Some(1)], false));
        assert_eq!(seats(&Pin::Cores(vec![3]), None, &bound), (vec![Some(3)], true));
        let few = choose(&Pin::Auto, Some(4), &[0, 1], &Server::Elsewhere, 1);
        assert_eq!(few.cores.len(), 1, "no more threads than connections");
    }

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse("").len(), 0);
        let mine: Vec<usize> =
            core_affinity::get_core_ids().unwrap().into_iter().map(|core| core.id).collect();
        assert_eq!(Server::local(&[std::process::id()], &mine), Server::Roaming);
    }
}
