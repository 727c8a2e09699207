//! What the master tells its operator: each sentence and its level, in one place. Logs nothing itself.

use std::fmt;
use std::time::Duration;

use log::Level;

use super::end::End;

/// What happened to one worker; reads on from "worker 0 (pid 123) ".
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Ready,
    NotReady { after: Duration },
    Unreachable { after: Duration },
    Ended { end: End, next: Next },
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
    Stopping { signal: &'static str, within: Duration },
    Killing { left: usize, why: Hurry },
    Ignored { signal: &'static str },
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
        }
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Next::Restart { after: Duration::ZERO } => f.write_str("; restarting at once"),
            Next::Restart { after } => write!(f, "; restarting in {after:?}"),
            Next::Nothing => Ok(()),
            Next::GiveUp => f.write_str(" before the pool was ready; giving up"),
        }
    }
}

impl Notice {
    pub(super) fn level(&self) -> Level {
        match self {
            Notice::Stopping { .. } => Level::Info,
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
            Notice::Ignored { signal } => write!(f, "{signal} means nothing yet: ignored"),
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
