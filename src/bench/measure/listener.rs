//! The process that serves an address on this machine, found as `ss -lp` does: the kernel's tables
//! of sockets name inodes, and processes hold these as descriptors. Only where this user may look.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use uring_ring::Address;

use super::parse;

/// The first process of the tree that listens at `address`. `None` if it is not known for sure:
/// it is on another machine, in another namespace, another user's, or several that aren't related;
/// or this process descends from it, so that its CPU time would be ours.
pub fn listener(address: &Address) -> Option<u32> {
    let proc = Path::new("/proc");
    let inodes = listening(proc, &address.to_string());
    if inodes.is_empty() {
        return None;
    }
    let first = first_of(&parents(proc), &holders(proc, &inodes))?;
    let parents = parents(proc);
    let mut own = Some(std::process::id());
    while let Some(pid) = own {
        if pid == first {
            return None;
        }
        own = parents.get(&pid).copied();
    }
    Some(first)
}

/// Inodes of sockets that take connections to an address.
fn listening(proc: &Path, address: &str) -> HashSet<u64> {
    let table = |name: &str| fs::read_to_string(proc.join("self/net").join(name));
    if let Ok(address) = address.parse::<SocketAddr>() {
        let tables = ["tcp", "tcp6"].into_iter().filter_map(|name| table(name).ok());
        let lines = tables.flat_map(|it| parse::tcp_listeners(&it));
        return lines.filter(|(at, _)| takes(*at, address)).map(|(_, inode)| inode).collect();
    }
    let path = address.strip_prefix("unix:").unwrap_or(address);
    parse::unix_listeners(&table("unix").unwrap_or_default(), path).collect()
}

/// A listener at `at` takes connections to `address`.
fn takes(at: SocketAddr, address: SocketAddr) -> bool {
    let any = match at.ip() {
        IpAddr::V4(ip) => ip == Ipv4Addr::UNSPECIFIED && address.is_ipv4(),
        IpAddr::V6(ip) => ip == Ipv6Addr::UNSPECIFIED,
    };
    at.port() == address.port() && (any || at.ip().to_canonical() == address.ip().to_canonical())
}

fn numbers(directory: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Processes that hold one of these sockets.
fn holders(proc: &Path, inodes: &HashSet<u64>) -> HashSet<u32> {
    let holds = |pid: &u32| {
        let descriptors = proc.join(pid.to_string()).join("fd");
        numbers(&descriptors).any(|fd| {
            let target = fs::read_link(descriptors.join(fd.to_string())).unwrap_or_default();
            let inode = target.to_str().and_then(|it| it.strip_prefix("socket:["));
            let inode = inode.and_then(|it| it.trim_end_matches(']').parse().ok());
            inode.is_some_and(|inode| inodes.contains(&inode))
        })
    };
    numbers(proc).filter(holds).collect()
}

/// The parent of each process.
fn parents(proc: &Path) -> HashMap<u32, u32> {
    let parent = |pid: u32| {
        let text = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
        Some((pid, parse::stat(&text)?.parent))
    };
    numbers(proc).filter_map(parent).collect()
}

/// The one of the holders that all others descend from; or the parent of all those that have no
/// other holder above them, as with workers that each have a listener of their own.
fn first_of(parents: &HashMap<u32, u32>, holders: &HashSet<u32>) -> Option<u32> {
    let parent = |pid: &u32| parents.get(pid).copied();
    let mut tops: Vec<u32> = holders
        .iter()
        .filter(|pid| parent(pid).is_none_or(|parent| !holders.contains(&parent)))
        .copied()
        .collect();
    tops.sort_unstable();
    match tops[..] {
        [only] => Some(only),
        [first, ..] => {
            let shared = parent(&first).filter(|it| *it > 1)?;
            tops.iter().all(|top| parent(top) == Some(shared)).then_some(shared)
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_is_that_above_all_holders() {
        let parents = HashMap::from([(10, 1), (11, 10), (12, 10), (13, 11), (20, 1)]);
        let first = |holders: &[u32]| first_of(&parents, &holders.iter().copied().collect());
        assert_eq!(first(&[10, 11, 12]), Some(10), "a master with its workers");
        assert_eq!(first(&[11, 12]), Some(10), "workers alone: their master");
        assert_eq!(first(&[12]), Some(12));
        assert_eq!(first(&[10, 20]), None, "two servers at one port");
        assert_eq!(first(&[]), None);
    }

    #[test]
    fn a_wildcard_takes_what_comes_to_its_port() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(takes(at("0.0.0.0:80"), at("127.0.0.1:80")));
        assert!(takes(at("[::]:80"), at("127.0.0.1:80")));
        assert!(takes(at("[::]:80"), at("[::1]:80")));
        assert!(takes(at("127.0.0.1:80"), at("127.0.0.1:80")));
        assert!(!takes(at("127.0.0.2:80"), at("127.0.0.1:80")));
        assert!(!takes(at("0.0.0.0:80"), at("[::1]:80")));
        assert!(!takes(at("0.0.0.0:81"), at("127.0.0.1:80")));
    }

    #[test]
    fn a_listener_of_this_process_is_seen_and_left_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proc = Path::new("/proc");
        let inodes = listening(proc, &address.to_string());
        assert_eq!(inodes.len(), 1);
        assert!(holders(proc, &inodes).contains(&std::process::id()));
        assert_eq!(super::listener(&address.into()), None, "its CPU time is ours");
    }
}
