//! One worker's alarms and spawned tasks. Polls tasks when told to; never waits.

use std::cell::{Cell, RefCell};
use std::collections::btree_map::OccupiedEntry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use serde_json::Value;

use super::wake::{TaskWaker, WakeQueue, Woken};
use crate::app::guarded;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
}

/// Messages to the master that wait for it: many more than anybody sends in a turn.
const MESSAGES_WAITING_MAX: usize = 1024;

/// So many messages wait for the master already.
pub(crate) struct TooMany;

type OnMessage = Box<dyn FnMut(Value)>;

type LocalTask = Pin<Box<dyn Future<Output = ()>>>;

/// What `rt`'s futures find through the thread that they run on.
pub(in crate::worker) struct Runtime {
    now: Cell<Instant>,
    /// By time, then by number: two alarms of one instant are two.
    alarms: RefCell<BTreeMap<(Instant, u64), Waker>>,
    tasks: RefCell<HashMap<u64, (LocalTask, Waker)>>,
    next_number: Cell<u64>,
    queue: Arc<WakeQueue>,
    /// Messages for the master.
    outbox: RefCell<VecDeque<Value>>,
    /// Who hears messages of the master's.
    on_message: RefCell<Option<OnMessage>>,
    is_draining: Cell<bool>,
    /// Who waits for that, by number.
    awaiting_drain: RefCell<BTreeMap<u64, Waker>>,
}

impl Runtime {
    pub(in crate::worker) fn new(now: Instant, queue: Arc<WakeQueue>) -> Rc<Runtime> {
        Rc::new(Runtime {
            now: Cell::new(now),
            alarms: RefCell::default(),
            tasks: RefCell::default(),
            next_number: Cell::new(0),
            queue,
            outbox: RefCell::default(),
            on_message: RefCell::default(),
            is_draining: Cell::new(false),
            awaiting_drain: RefCell::default(),
        })
    }

    /// Makes it the runtime of this thread, until another one is. It is `now`.
    pub(in crate::worker) fn enter(self: &Rc<Self>, now: Instant) {
        self.now.set(now);
        CURRENT.with(|current| current.replace(Some(Rc::clone(self))));
    }

    /// The runtime of this thread.
    pub(super) fn current() -> Rc<Runtime> {
        CURRENT
            .with(|current| current.borrow().clone())
            .expect("uring_pool::rt works inside of a worker: in handlers, and in what they spawn")
    }

    /// The turn's time.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Wakes those whose time has come.
    pub(in crate::worker) fn handle_time(&self, now: Instant) {
        while let Some(waker) = self.due(now) {
            waker.wake();
        }
    }

    /// Takes the next waker whose time has come; waking it may set alarms.
    fn due(&self, now: Instant) -> Option<Waker> {
        let mut alarms = self.alarms.borrow_mut();
        alarms.first_entry().filter(|alarm| alarm.key().0 <= now).map(OccupiedEntry::remove)
    }

    /// When the next alarm goes off.
    pub(in crate::worker) fn poll_timeout(&self) -> Option<Instant> {
        self.alarms.borrow().first_key_value().map(|((at, _), _)| *at)
    }

    /// Polls a spawned task that was woken.
    pub(in crate::worker) fn handle_wake(&self, number: u64) {
        // Out of the table while it runs: it may spawn others.
        let Some((mut task, waker)) = self.tasks.borrow_mut().remove(&number) else { return };
        let mut context = Context::from_waker(&waker);
        let polled = guarded("a task", || task.as_mut().poll(&mut context));
        if polled.is_some_and(|poll| poll.is_pending()) {
            self.tasks.borrow_mut().insert(number, (task, waker));
        }
    }

    pub(super) fn spawn(&self, task: LocalTask) {
        let number = self.insert(task);
        self.queue.push(Woken::Task(number));
    }

    /// As [`spawn`](Runtime::spawn), and polls it at once.
    pub(in crate::worker) fn start(&self, task: LocalTask) {
        self.handle_wake(self.insert(task));
    }

    fn insert(&self, task: LocalTask) -> u64 {
        let number = self.number();
        let waker =
            Waker::from(Arc::new(TaskWaker { queue: Arc::clone(&self.queue), task: number }));
        self.tasks.borrow_mut().insert(number, (task, waker));
        number
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// The worker drains from now on.
    pub(in crate::worker) fn begin_drain(&self) {
        self.is_draining.set(true);
        self.awaiting_drain.take().into_values().for_each(Waker::wake);
    }

    /// Wakes a task when the worker drains; instead of another one, if there is a number already.
    pub(super) fn await_drain(&self, number: Option<u64>, waker: Waker) -> u64 {
        let number = number.unwrap_or_else(|| self.number());
        let replaced = self.awaiting_drain.borrow_mut().insert(number, waker);
        drop(replaced); // as of alarms
        number
    }

    pub(super) fn forget_drain(&self, number: u64) {
        let forgotten = self.awaiting_drain.borrow_mut().remove(&number);
        drop(forgotten);
    }

    pub(super) fn set_alarm(&self, at: Instant, waker: Waker) -> (Instant, u64) {
        let key = (at, self.number());
        self.alarms.borrow_mut().insert(key, waker);
        key
    }

    /// Wakes another task at that time, or says that the time has come.
    pub(super) fn update_alarm(&self, key: (Instant, u64), waker: &Waker) -> bool {
        let replaced = match self.alarms.borrow_mut().get_mut(&key) {
            Some(set) => mem::replace(set, waker.clone()),
            None => return false,
        };
        drop(replaced); // outside of the borrow: what a waker owns may clear an alarm
        true
    }

    pub(super) fn clear_alarm(&self, key: (Instant, u64)) {
        let cleared = self.alarms.borrow_mut().remove(&key);
        drop(cleared); // likewise
    }

    /// Sends a message with this turn, unless too many wait for the master to read them.
    pub(super) fn send(&self, payload: Value) -> Result<(), TooMany> {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.len() >= MESSAGES_WAITING_MAX {
            return Err(TooMany);
        }
        outbox.push_back(payload);
        Ok(())
    }

    /// The next message for the master.
    pub(in crate::worker) fn poll_outbox(&self) -> Option<Value> {
        self.outbox.borrow_mut().pop_front()
    }

    pub(super) fn set_on_message(&self, on_message: OnMessage) {
        self.on_message.replace(Some(on_message));
    }

    /// A message of the master's arrived.
    pub(in crate::worker) fn deliver(&self, payload: Value) {
        // Out of its place while it runs: it may put another one there.
        let Some(mut on_message) = self.on_message.take() else {
            log::warn!("nobody listens to the master's message {payload}");
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| on_message(payload))).is_err() {
            log::error!("what listens to messages panicked");
        }
        self.on_message.borrow_mut().get_or_insert(on_message);
    }

    fn number(&self) -> u64 {
        self.next_number.replace(self.next_number.get() + 1)
    }
}
