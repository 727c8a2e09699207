//! What one thread does of a plan. Does none of it.

use std::rc::Rc;
use std::sync::Arc;

use uring_ring::Address;

use super::lane::Lane;
use crate::bench::plan::Expect;
use crate::bench::schedule::Schedule;

/// What a loader does, as the plan says it for this thread.
pub(super) struct Task {
    pub(super) lanes: Vec<Lane>,
    /// Where each lane's connections go.
    pub(super) peers: Vec<Rc<Address>>,
    /// Names of the targets, for people.
    pub(super) targets: Arc<[String]>,
    /// The lane of each connection.
    pub(super) connections: Vec<u32>,
    pub(super) is_open_loop: bool,
    pub(super) pipeline: usize,
    pub(super) session: u64,
    pub(super) inflight_max: usize,
    /// Requests of one connection.
    pub(super) requests_per_connection: u64,
    /// When connections may be opened, if that is bounded.
    pub(super) openings: Option<Schedule>,
    pub(super) think: u64,
    pub(super) timeout: u64,
    pub(super) drain: u64,
    /// No request leaves from then on.
    pub(super) end: u64,
    /// At most so many requests leave.
    pub(super) requests: u64,
    pub(super) expect: Expect,
    pub(super) may_spin: bool,
}
