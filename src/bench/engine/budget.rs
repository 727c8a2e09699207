//! Whether this machine has descriptors and ports for so many connections, before one is opened.

use std::fs;
use std::net::{IpAddr, UdpSocket};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the program needs beside its connections.
const OTHER_DESCRIPTORS: u64 = 128;
/// The kernel's default, where it doesn't say (ip(7), `ip_local_port_range`).
const PORTS: u64 = 28_232;

/// Raises the limit of descriptors to what connections need, as far as that may be.
///
/// # Errors
///
/// In words, when it is not enough.
pub(super) fn descriptors(connections: u64) -> Result<(), String> {
    let needed = connections + OTHER_DESCRIPTORS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        let most = hard.saturating_sub(OTHER_DESCRIPTORS);
        return Err(format!(
            "{connections} connections need {needed} descriptors, and this process may have {hard}: \
             use -c {most} or less, or raise the limit (`ulimit -Hn`)"
        ));
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard)
        .map_err(|error| format!("cannot raise the limit of descriptors to {needed}: {error}"))
}

/// Checks that each source address has a port for each of its connections to one place.
///
/// # Errors
///
/// In words, with the addresses that would be enough.
pub(super) fn ports(connections: u64, sources: u64) -> Result<(), String> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    enough(connections, sources.max(1), range.as_deref().and_then(count).unwrap_or(PORTS))
}

/// Checks that connections can come from these addresses.
///
/// # Errors
///
/// In words, which one isn't this machine's.
pub(super) fn sources(sources: &[IpAddr]) -> Result<(), String> {
    match sources.iter().find_map(|source| UdpSocket::bind((*source, 0)).err().zip(Some(source))) {
        None => Ok(()),
        Some((error, source)) => Err(format!(
            "--source {source}: connections can't come from there ({error}); this machine's own are \
             127.0.0.0/8 and those of `ip address`"
        )),
    }
}

fn enough(connections: u64, sources: u64, ports: u64) -> Result<(), String> {
    if connections <= sources * ports {
        return Ok(());
    }
    let last = 1 + connections.div_ceil(ports);
    Err(format!(
        "{connections} connections to one place need more than the {ports} ports that {sources} \
         source address{} has: add addresses, for this machine's own 127.0.0.0/8 as in --source \
         127.0.0.2-127.0.{}.{}",
        if sources == 1 { "" } else { "es" },
        last >> 8,
        last & 255
    ))
}

/// `32768 60999`: first and last.
fn count(range: &str) -> Option<u64> {
    let mut ports = range.split_whitespace().map(str::parse::<u64>);
    let (first, last) = (ports.next()?.ok()?, ports.next()?.ok()?);
    (last + 1).checked_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_for_each_source() {
        assert_eq!(count("32768\t60999\n"), Some(28_232));
        assert_eq!(enough(28_232, 1, 28_232), Ok(()));
        let refusal = enough(100_000, 1, 28_232).unwrap_err();
        assert!(refusal.contains("--source 127.0.0.2-127.0.0.5"), "{refusal}");
        assert_eq!(enough(100_000, 4, 28_232), Ok(()));
    }

    #[test]
    fn an_address_of_another_machine_is_no_source() {
        let addresses = |texts: [&str; 2]| texts.map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!(sources(&addresses(["127.0.0.2", "127.0.0.64"])), Ok(()));
        let refusal = sources(&addresses(["127.0.0.2", "192.0.2.1"])).unwrap_err();
        assert!(refusal.contains("--source 192.0.2.1"), "{refusal}");
    }

    #[test]
    fn descriptors_are_enough_or_the_words_say_how_many_are() {
        assert_eq!(descriptors(1), Ok(()));
        let refusal = descriptors(1 << 40).unwrap_err();
        assert!(refusal.contains("use -c ") && refusal.contains("ulimit"), "{refusal}");
    }
}
