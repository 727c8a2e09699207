//! What a master leaves to the master of another binary: the sockets, the scoreboard, two lines to
//! talk on. Starts nobody.

use std::env;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::listen::{Handed, Listeners};
use super::sys;

/// The environment variable that tells the new master.
pub(crate) const VARIABLE: &str = "URING_POOL_INHERIT";

/// As it is written into the environment.
#[derive(Serialize, Deserialize)]
struct Letter {
    /// Who wrote it, for whom it started.
    from: i32,
    listeners: Vec<Handed>,
    scoreboard: RawFd,
    messages: RawFd,
    passing: RawFd,
}

/// What the new master has from the old one.
pub(crate) struct Inheritance {
    pub(crate) from: Pid,
    pub(crate) listeners: Listeners,
    /// The memory of the scoreboard.
    pub(crate) scoreboard: OwnedFd,
    /// For messages, and for connections.
    pub(crate) messages: OwnedFd,
    pub(crate) passing: OwnedFd,
}

impl Inheritance {
    /// What this process was left; none when nobody left it anything.
    ///
    /// # Errors
    ///
    /// It is not what it claims to be.
    pub(crate) fn take() -> io::Result<Option<Inheritance>> {
        let Ok(letter) = env::var(VARIABLE) else { return Ok(None) };
        let letter: Letter = serde_json::from_str(&letter)?;
        // Whoever wrote it may be gone by now, so that the parent is another; but it is who made the
        // line. In a stale letter, further down, this number is somebody else's or nobody's.
        let Ok(messages) = sys::take_descriptor(letter.messages) else { return Ok(None) };
        let maker = getsockopt(&messages, sockopt::PeerCredentials).map(|maker| maker.pid());
        if maker != Ok(letter.from) {
            let _not_ours_to_close = messages.into_raw_fd();
            return Ok(None);
        }
        Ok(Some(Inheritance {
            from: Pid::from_raw(letter.from),
            listeners: Listeners::inherit(letter.listeners)?,
            scoreboard: sys::take_descriptor(letter.scoreboard)?,
            messages,
            passing: sys::take_descriptor(letter.passing)?,
        }))
    }
}

/// Descriptors on their way to a new master: copies that survive its exec, closed here on drop.
pub(crate) struct Bequest {
    /// Open until the new master has its own.
    _copies: Vec<OwnedFd>,
    letter: String,
}

impl Bequest {
    /// # Errors
    ///
    /// No descriptor left.
    pub(crate) fn new(
        listeners: &Listeners,
        scoreboard: BorrowedFd<'_>,
        messages: BorrowedFd<'_>,
        passing: BorrowedFd<'_>,
    ) -> io::Result<Bequest> {
        let mut copies = Vec::new();
        let mut copy = |fd: BorrowedFd<'_>| -> io::Result<RawFd> {
            let copy = sys::duplicate_for_exec(fd)?;
            let number = copy.as_raw_fd();
            copies.push(copy);
            Ok(number)
        };
        let letter = Letter {
            from: Pid::this().as_raw(),
            listeners: listeners.hand(&mut copy)?,
            scoreboard: copy(scoreboard)?,
            messages: copy(messages)?,
            passing: copy(passing)?,
        };
        Ok(Bequest { _copies: copies, letter: serde_json::to_string(&letter)? })
    }

    /// The value of [`VARIABLE`].
    pub(crate) fn letter(&self) -> &str {
        &self.letter
    }
}
