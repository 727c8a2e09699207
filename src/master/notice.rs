//! What the master tells its operator: each sentence and its level, in one place. Logs nothing itself.

use std::fmt;
use std::time::Duration;

use log::Level;

use uring_ring::Errno;

use super::end::End;
use super::watch::Hang;
use crate::process::channel::RecycleReason;

/// What happened to one worker; reads on from "worker 0 (pid 123) ".
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Ready,
    NotReady {
        after: Duration,
    },
    Unreachable {
        after: Duration,
    },
    Ended {
        end: End,
        next: Next,
    },
    /// It should have left by now.
    Late,
    Hangs {
        hang: Hang,
        lasting: Duration,
    },
    /// It fails before it gets ready, again and again.
    Looping {
        failures: u32,
        clients: Clients,
    },
    Recycled {
        reason: RecycleReason,
    },
    NotRecycled {
        cause: Cause,
    },
}

/// Who has the clients of a worker that doesn't start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clients {
    /// Those at its sockets.
    LentTo { worker: usize },
    /// The master gives it none.
    OfOthers,
    /// Nobody is ready.
    OfNobody,
}

/// Why a change came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    Ended(End),
    NotReady {
        within: Duration,
    },
    /// It couldn't even begin.
    System(Errno),
    /// With this master, which is process 1, the whole container would end.
    IsInit,
}

/// What follows from a worker's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Restart {
        after: Duration,
    },
    /// The pool stops anyway.
    Nothing,
    /// The pool can't start without it.
    GiveUp,
}

/// What happened to the pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    Stopping {
        signal: &'static str,
        within: Duration,
    },
    Killing {
        left: usize,
        why: Hurry,
    },
    Ignored {
        signal: &'static str,
        why: Busy,
    },
    /// The new master serves, and the old one ends anyway.
    StopsAlready {
        signal: &'static str,
    },
    Reloading {
        workers: usize,
    },
    Reloaded {
        workers: usize,
    },
    ReloadFailed {
        cause: Cause,
    },
    Upgraded {
        within: Duration,
    },
    UpgradeFailed {
        cause: Cause,
    },
    /// After it had taken over.
    NewMasterLost {
        end: End,
        is_replaced: bool,
    },
}

/// Why the master can't do what it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Busy {
    Starting,
    Changing,
    Stopping,
}

/// Why the master won't wait any longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hurry {
    SecondSignal,
    Deadline,
}

impl Fate {
    pub(super) fn level(&self) -> Level {
        match self {
            Fate::Ready => Level::Debug,
            Fate::Recycled { .. } => Level::Info,
            Fate::Ended { end, next: Next::Nothing } if end.is_clean() => Level::Debug,
            Fate::Ended { next: Next::GiveUp, .. } => Level::Error,
            _ => Level::Warn,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Ready => f.write_str("is ready"),
            Fate::NotReady { after } => write!(f, "was not ready within {after:?}: killing it"),
            Fate::Unreachable { after } => {
                write!(f, "lives on {after:?} after it closed its channel: killing it")
            }
            Fate::Ended { end, next } => write!(f, "{end}{next}"),
            Fate::Late => f.write_str("has not finished within its time: killing it"),
            Fate::Hangs { hang: Hang::Busy, lasting } => {
                write!(f, "hangs: its loop has not turned for {lasting:.1?}: killing it")
            }
            Fate::Hangs { hang: Hang::Stopped, lasting } => {
                write!(f, "hangs: somebody stopped it (SIGSTOP) {lasting:.1?} ago: killing it")
            }
            Fate::Looping { failures, clients } => {
                write!(f, "failed {failures} times in a row before it was ready: ")?;
                match clients {
                    Clients::LentTo { worker } => {
                        write!(f, "worker {worker} serves its clients meanwhile")
                    }
                    Clients::OfOthers => f.write_str("others serve all clients meanwhile"),
                    Clients::OfNobody => f.write_str("no other one could serve its clients"),
                }
            }
            Fate::Recycled { reason } => write!(f, "{reason}: starting a successor"),
            Fate::NotRecycled { cause } => write!(f, "serves on: its successor {cause}"),
        }
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Next::Restart { after: Duration::ZERO } => f.write_str("; restarting at once"),
            Next::Restart { after } => write!(f, "; restarting in {after:.0?}"),
            Next::Nothing => Ok(()),
            Next::GiveUp => f.write_str(" before the pool was ready; giving up"),
        }
    }
}

impl fmt::Display for Cause {
    /// What is said of whoever should have got ready.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Ended(end) => end.fmt(f),
            Cause::NotReady { within } => write!(f, "was not ready within {within:?}"),
            Cause::System(errno) => write!(f, "could not be started: {errno}"),
            Cause::IsInit => f.write_str(
                "was not started: this one is process 1, with which the container would end",
            ),
        }
    }
}

impl Notice {
    pub(super) fn level(&self) -> Level {
        match self {
            Notice::Stopping { .. }
            | Notice::Reloading { .. }
            | Notice::Reloaded { .. }
            | Notice::StopsAlready { .. }
            | Notice::Upgraded { .. } => Level::Info,
            Notice::NewMasterLost { end, is_replaced: false } if end.is_clean() => Level::Info,
            Notice::ReloadFailed { .. }
            | Notice::UpgradeFailed { .. }
            | Notice::NewMasterLost { .. } => Level::Error,
            Notice::Killing { .. } | Notice::Ignored { .. } => Level::Warn,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Stopping { signal, within } => {
                write!(f, "{signal}: stopping; open connections have {within:?}")
            }
            Notice::Killing { left, why } => {
                let why = match why {
                    Hurry::SecondSignal => "a second signal",
                    Hurry::Deadline => "time is up",
                };
                let workers = if *left == 1 { "worker" } else { "workers" };
                write!(f, "{why}: killing {left} {workers}")
            }
            Notice::Ignored { signal, why } => {
                let why = match why {
                    Busy::Starting => "the pool is still starting",
                    Busy::Changing => "another change is under way",
                    Busy::Stopping => "the pool stops",
                };
                write!(f, "{signal}: ignored, as {why}")
            }
            Notice::StopsAlready { signal } => write!(
                f,
                "{signal}: this master ends anyway, and lets open connections finish; another \
                 signal ends them"
            ),
            Notice::Reloading { workers } => write!(f, "reloading: starting {workers} new workers"),
            Notice::Reloaded { workers } => {
                write!(f, "reloaded: {workers} new workers serve; the old ones finish what is open")
            }
            Notice::ReloadFailed { cause } => {
                write!(f, "the reload failed, and the old workers serve on: a new one {cause}")
            }
            Notice::Upgraded { within } => {
                write!(f, "upgraded: the new master serves; open connections have {within:?} here")
            }
            Notice::UpgradeFailed { cause } => {
                write!(f, "the upgrade failed, and this master goes on: the new one {cause}")
            }
            Notice::NewMasterLost { end, is_replaced } => {
                write!(f, "the new master {end} after it had taken over")?;
                f.write_str(if *is_replaced { "; this one serves again" } else { "" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_says_why_and_what_comes_next() {
        let killed = End::Killed { signal: 9, core_dumped: false };
        let fate = |next| Fate::Ended { end: killed, next };
        let restart = |millis| Next::Restart { after: Duration::from_millis(millis) };
        for (fate, level, words) in [
            (fate(restart(0)), Level::Warn, "was killed by SIGKILL; restarting at once"),
            (fate(restart(200)), Level::Warn, "was killed by SIGKILL; restarting in 200ms"),
            (fate(Next::Nothing), Level::Warn, "was killed by SIGKILL"),
            (
                fate(Next::GiveUp),
                Level::Error,
                "was killed by SIGKILL before the pool was ready; giving up",
            ),
        ] {
            assert_eq!((fate.level(), fate.to_string().as_str()), (level, words));
        }
        let clean = Fate::Ended { end: End::Exited { code: 0 }, next: Next::Nothing };
        assert_eq!(clean.level(), Level::Debug);
    }
}
