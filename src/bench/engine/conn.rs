//! One connection of the asking side: what was asked on it, and what is in flight in the ring.
//! Does no I/O.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::super::scan::Scanner;

/// A request that was sent, or is to be as soon as its connection is open; or a run of such.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// When it was due.
    pub(super) intended: u64,
    /// When it was handed to the ring; zero before.
    pub(super) sent: u64,
    /// Its number on the lane's menu.
    pub(super) request: u32,
    /// How many are so in all of this: what a pipeline sends at once.
    pub(super) count: u32,
}

impl Asked {
    /// Adds it to what leaves together, if it can to the last run.
    #[inline]
    pub(super) fn append_to(self, batch: &mut Vec<Asked>) {
        match batch.last_mut() {
            Some(last) if (last.intended, last.request) == (self.intended, self.request) => {
                last.count += self.count;
            }
            _ => batch.push(self),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// No socket.
    Closed,
    /// In the queue of those that will be opened.
    Queued,
    Connecting {
        since: u64,
    },
    Open,
    /// The last answer is there, and the server is to close.
    Ending {
        since: u64,
    },
    /// Our close is under way; everything in flight completes before it is over.
    Closing {
        since: u64,
    },
}

pub(super) struct Conn {
    pub(super) lane: u32,
    pub(super) phase: Phase,
    pub(super) socket: Option<OwnedFd>,
    pub(super) connecting: bool,
    pub(super) receiving: bool,
    pub(super) sending: bool,
    /// Its close has not completed.
    pub(super) closing: bool,
    pub(super) scanner: Scanner,
    /// Sent and not answered, in order: runs of what is alike.
    pub(super) asked: VecDeque<Asked>,
    /// How many that is.
    pub(super) asked_count: usize,
    /// What the connection is being opened for.
    pub(super) errand: Option<Asked>,
    /// By how much the generator was late to begin that.
    pub(super) late: u64,
    /// Requests sent since it was opened.
    pub(super) requests: u64,
    /// Of its session, how many are to follow.
    pub(super) session_left: u64,
    /// When the first byte of the answer that is under way came; zero before.
    pub(super) first_byte: u64,
    /// Since when it could have taken another request.
    pub(super) ready_at: u64,
    /// It stands in its lane's queue of idle ones.
    pub(super) is_idle: bool,
    /// It waits for its time to send.
    pub(super) is_thinking: bool,
}

impl Conn {
    pub(super) fn new(lane: u32) -> Conn {
        Conn {
            lane,
            phase: Phase::Closed,
            socket: None,
            connecting: false,
            receiving: false,
            sending: false,
            closing: false,
            scanner: Scanner::default(),
            asked: VecDeque::new(),
            asked_count: 0,
            errand: None,
            late: 0,
            requests: 0,
            session_left: 0,
            first_byte: 0,
            ready_at: 0,
            is_idle: false,
            is_thinking: false,
        }
    }

    /// Requests that leave now.
    #[inline]
    pub(super) fn ask(&mut self, asked: Asked) {
        self.asked_count += asked.count as usize;
        self.asked.push_back(asked);
    }

    /// So many of the first run have their answers, or never will; it has no fewer.
    #[inline]
    pub(super) fn settle(&mut self, count: u32) -> Option<Asked> {
        let first = self.asked.front_mut()?;
        let asked = *first;
        first.count -= count;
        if first.count == 0 {
            self.asked.pop_front();
        }
        self.asked_count -= count as usize;
        Some(Asked { count, ..asked })
    }

    /// Nothing of it is in the ring any more: closing is a join.
    pub(super) fn is_quiet(&self) -> bool {
        !(self.connecting || self.receiving || self.sending || self.closing)
    }
}
