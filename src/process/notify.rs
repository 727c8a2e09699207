//! `sd_notify(3)`: tells the service manager how things stand, and how often it wants to hear.
//! Waits for nobody, and nothing that goes wrong here goes wrong for the caller.

use std::env;
use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What there is to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice<'a> {
    /// Started, or done with reloading.
    Ready,
    /// Reloading since a time of [`monotonic`]; [`Notice::Ready`] ends it.
    Reloading(Duration),
    /// About to end.
    Stopping,
    /// Alive: due at least every [`Notifier::watchdog`].
    Watchdog,
    /// A line for people, which `systemctl status` shows.
    Status(&'a str),
    /// This process is the service's from now on.
    MainPid(u32),
}

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. Without them there is nobody to
    /// tell, which is fine.
    pub(crate) fn from_environment() -> Notifier {
        let [micros, pid] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(|name| env::var(name).ok());
        Notifier {
            manager: env::var_os("NOTIFY_SOCKET").and_then(|name| manager(&name)),
            watchdog: watchdog(micros.as_deref(), pid.as_deref(), process::id()),
        }
    }

    /// How often to send [`Notice::Watchdog`]: half of the time after which the manager would
    /// kill this process. None when it doesn't watch, or nobody is there to hear.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.manager.is_some())
    }

    /// Tells all of this in one message. What can't be delivered at once is lost.
    pub(crate) fn tell(&self, notices: &[Notice<'_>]) {
        let Some((socket, address)) = &self.manager else { return };
        let message = message(notices);
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            log::debug!("cannot tell the service manager {message:?}: {error}");
        }
    }
}

/// The time of `CLOCK_MONOTONIC`, as [`Notice::Reloading`] needs it; an `Instant` keeps it to
/// itself.
pub(crate) fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).expect("every Linux has this clock")
}

fn manager(name: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let open = || -> io::Result<(UnixDatagram, SocketAddr)> {
        let address = address(name)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok((socket, address))
    };
    let complain = |error: &io::Error| log::debug!("NOTIFY_SOCKET is of no use: {error}");
    open().inspect_err(complain).ok()
}

/// `/path`, or `@name` for one without a file.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an @name")),
    }
}

/// Half of the manager's patience, when it is this process that it watches.
fn watchdog(micros: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own_pid)) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    Some(Duration::from_micros(micros) / 2).filter(|interval| !interval.is_zero())
}

fn message(notices: &[Notice<'_>]) -> String {
    let mut message = String::new();
    for notice in notices {
        writeln!(message, "{notice}").expect("a String takes everything");
    }
    message
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Ready => f.write_str("READY=1"),
            Notice::Reloading(since) => {
                write!(f, "RELOADING=1\nMONOTONIC_USEC={}", since.as_micros())
            }
            Notice::Stopping => f.write_str("STOPPING=1"),
            Notice::Watchdog => f.write_str("WATCHDOG=1"),
            // A line end would begin the next variable.
            Notice::Status(text) => write!(f, "STATUS={}", text.replace(['\n', '\0'], " ")),
            Notice::MainPid(pid) => write!(f, "MAINPID={pid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::time::Instant;

    fn notifier(name: impl Into<OsString>) -> Notifier {
        Notifier { manager: manager(&name.into()), watchdog: Some(Duration::from_secs(1)) }
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_with_a_file_hears_it_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&path);
        notifier.tell(&[Notice::Ready, Notice::Status("4 workers\nREADY=0")]);
        assert_eq!(heard(&manager), "READY=1\nSTATUS=4 workers READY=0\n");
        notifier.tell(&[Notice::Reloading(Duration::from_millis(1500))]);
        assert_eq!(heard(&manager), "RELOADING=1\nMONOTONIC_USEC=1500000\n");
        notifier.tell(&[Notice::MainPid(7), Notice::Watchdog, Notice::Stopping]);
        assert_eq!(heard(&manager), "MAINPID=7\nWATCHDOG=1\nSTOPPING=1\n");
        assert_eq!(notifier.watchdog(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_manager_without_a_file_hears_it_too() {
        let name = format!("uring-pool-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        notifier(format!("@{name}")).tell(&[Notice::Ready]);
        assert_eq!(heard(&manager), "READY=1\n");
    }

    #[test]
    fn one_that_does_not_listen_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&path);
        let before = Instant::now();
        for _ in 0..10_000 {
            notifier.tell(&[Notice::Watchdog]); // more than any queue holds
        }
        drop(manager);
        notifier.tell(&[Notice::Stopping]);
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        for name in ["", "relative", "vsock:2:1234", "/nowhere/at/all"] {
            notifier(name).tell(&[Notice::Ready]);
        }
        let nobody = Notifier { manager: None, watchdog: Some(Duration::from_secs(1)) };
        nobody.tell(&[Notice::Ready]);
        assert_eq!(nobody.watchdog(), None);
        assert!(address(OsStr::new(&format!("/{}", "x".repeat(200)))).is_err());
    }

    #[test]
    fn the_watchdog_is_ours_when_it_names_us_or_nobody() {
        let second = Some(Duration::from_secs(1));
        for (micros, pid, interval) in [
            (Some("2000000"), None, second),
            (Some("2000000"), Some("7"), second),
            (Some("2000000"), Some("8"), None),
            (Some("2000000"), Some("me"), None),
            (Some("0"), None, None),
            (Some("-5"), None, None),
            (Some("soon"), None, None),
            (None, Some("7"), None),
            (None, None, None),
        ] {
            assert_eq!(watchdog(micros, pid, 7), interval, "{micros:?} {pid:?}");
        }
    }

    #[test]
    fn whatever_the_environment_says_is_no_error() {
        Notifier::from_environment().tell(&[Notice::Status("testing")]);
    }

    #[test]
    fn monotonic_time_goes_on() {
        let before = monotonic();
        assert!(before > Duration::ZERO && monotonic() >= before);
    }
}
