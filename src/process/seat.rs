//! What a worker is given when it begins. Everything else that its parent had open is closed.

use std::os::fd::OwnedFd;
use std::time::Duration;

use uring_ring::Features;

use super::accept::Company;
use super::channel::Limit;
use super::scoreboard::WorkerPage;
use super::steer::Slot;
use crate::config::Identity;

/// A worker's place: its sockets, its line to the master, its page. A successor gets an equal one.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Its place in the pool, from 0.
    pub(crate) worker_id: usize,
    /// The core that it is pinned to.
    pub(crate) core: Option<usize>,
    /// Listening sockets in the order of the configured addresses; blocking, as a ring wants them.
    pub(crate) listeners: Vec<OwnedFd>,
    /// Who else may accept from each of the listeners.
    pub(crate) companies: Vec<Company>,
    /// Whether it accepts from none of them before it is told to ([`Message::Listening`]): another
    /// master serves, until this worker's takes over.
    ///
    /// [`Message::Listening`]: super::channel::Message::Listening
    pub(crate) is_held: bool,
    /// Messages from and to the master, see [`channel`](super::channel). Its end is the master's.
    pub(crate) channel: OwnedFd,
    /// Descriptors from and to the master, as [`parcel`](super::parcel) tells.
    pub(crate) passing: OwnedFd,
    /// An eventfd that wakes the master.
    pub(crate) bell: OwnedFd,
    /// How long messages may be.
    pub(crate) limit: Limit,
    /// Where the load of a steered listener is shown, for each of the listeners.
    pub(crate) slots: Vec<Option<&'static Slot>>,
    /// `SIGTERM`, `SIGINT` and `SIGQUIT`, see [`signals`](super::signals). All ask to drain.
    pub(crate) signals: OwnedFd,
    /// How long it drains when its master dies.
    pub(crate) stop_timeout: Duration,
    /// Its figures.
    pub(crate) page: &'static WorkerPage,
    /// What the kernel can do.
    pub(crate) features: Features,
    /// Whom it runs as, once it has its ring.
    pub(crate) identity: Option<Identity>,
    /// Whether it can never gain rights.
    pub(crate) no_new_privs: bool,
    /// Whether it may leave a core dump, although it changes its user.
    pub(crate) dumps_core: bool,
}
