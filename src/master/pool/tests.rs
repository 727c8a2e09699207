//! Each rule of the pool, in virtual time.

use std::collections::BTreeMap;

use super::*;
use crate::process::EXIT_CANNOT_START;
use Act::{Adopt, Examine, Finish, Fork, Kill, ReportReady, Send, StartUpgrade, TakeBack};
use Act::{DropReload, ReadSettings, SettleReload};
use Act::{ForwardReload, KillUpgrade, OfferUpgrade, Resume, StopUpgrade};

const STOP: Event = Event::Signal(Signal::Stop { name: "SIGTERM" });
const UPGRADE: Event = Event::Signal(Signal::Upgrade { name: "SIGUSR2" });
const HUP: Event = Event::Signal(Signal::Reload { name: "SIGHUP" });
const READ: Wanted = Wanted { reads: true, workers: None };
const CRASHED: End = End::Killed { signal: 11, core_dumped: false };
const KILLED: End = End::Killed { signal: 9, core_dumped: false };
const CLEAN: End = End::Exited { code: 0 };
const CANNOT_START: End = End::Exited { code: EXIT_CANNOT_START };
const SHUTDOWN: Message = Message::Shutdown { deadline_ms: 30_000 };
const RELOAD: Message = Message::Reload { deadline_ms: 30_000 };

/// What the pool wants to have done to whom; workers by their place.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Act {
    Fork(usize),
    Send(usize, Message),
    Kill(usize),
    Examine(usize),
    Adopt(usize, usize),
    TakeBack(usize),
    ReportReady,
    ReadSettings(Wanted),
    SettleReload,
    DropReload,
    StartUpgrade,
    OfferUpgrade,
    StopUpgrade,
    KillUpgrade,
    ForwardReload(Wanted),
    Resume,
    Finish(Verdict),
}

/// The settings of a reload are there.
fn reload_to(workers: usize) -> Event {
    Event::Reload { workers, ready_timeout: secs(10) }
}

/// A pool with the default settings, its clock, and what it wants to have done.
struct Scene {
    pool: Pool,
    now: Instant,
    /// The last process of each place.
    newest: BTreeMap<usize, Life>,
    /// Who serves, by the pool's word.
    serving: Vec<Life>,
    /// Who was told to be alone at its listeners.
    alone: Vec<Life>,
    /// The master was told to accept no more, and has not said that nobody waits.
    has_queue: bool,
    /// Nobody is let in.
    is_closed: bool,
}

impl Scene {
    /// A pool that is about to fork its workers.
    fn new(workers: usize) -> Scene {
        Scene::with(workers, &PoolConfig::default())
    }

    fn with(workers: usize, config: &PoolConfig) -> Scene {
        let now = Instant::now();
        let pool = Pool::new(workers, Rules::of(config), 1, now);
        let (serving, alone) = (Vec::new(), Vec::new());
        let newest = BTreeMap::new();
        Scene { pool, now, newest, serving, alone, has_queue: false, is_closed: false }
    }

    /// A pool that has started.
    fn running(workers: usize) -> Scene {
        let mut scene = Scene::new(workers);
        scene.pass(Duration::ZERO);
        (0..workers).for_each(|id| drop(scene.ready(id)));
        scene
    }

    /// The commands that follow from an event, without what is only told. As long as nobody waits in
    /// the master, that says so at once.
    fn event(&mut self, event: Event) -> Vec<Act> {
        let mut acts = self.event_beside_a_queue(event);
        if std::mem::take(&mut self.has_queue) {
            acts.extend(self.event_beside_a_queue(Event::QueueEmpty));
        }
        acts
    }

    fn event_beside_a_queue(&mut self, event: Event) -> Vec<Act> {
        let mut commands = Vec::new();
        self.pool.handle(event, self.now, &mut commands);
        self.acts(commands)
    }

    /// The commands that follow from time alone. As the master does, wakes up when asked to.
    fn pass(&mut self, time: Duration) -> Vec<Act> {
        let end = self.now + time;
        let mut commands = Vec::new();
        while let Some(at) = self.pool.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.pool.handle_timeout(self.now, &mut commands);
            assert!(self.pool.poll_timeout().is_none_or(|at| at > self.now), "it would spin");
        }
        self.now = end;
        self.acts(commands)
    }

    fn acts(&mut self, commands: Vec<Command>) -> Vec<Act> {
        let mut acts = Vec::new();
        for command in commands {
            acts.push(match command {
                Command::Fork(life) | Command::ForkNext(life) => {
                    self.newest.insert(life.worker, life);
                    Fork(life.worker)
                }
                Command::Serve(life) => {
                    assert!(!self.serving.contains(&life), "{life:?} serves already");
                    self.serving.push(life);
                    continue;
                }
                Command::Retire(life) => {
                    self.serving.retain(|serving| *serving != life);
                    self.alone.retain(|alone| *alone != life);
                    continue;
                }
                Command::Tell(_) | Command::TellOf(..) => continue,
                Command::StopAccepting => {
                    self.has_queue = true;
                    continue;
                }
                Command::CloseListeners => {
                    assert!(!self.is_closed, "they are closed already");
                    self.is_closed = true;
                    continue;
                }
                Command::TellAlone(life) => {
                    assert!(self.serving.contains(&life), "{life:?} doesn't serve");
                    assert!(!self.alone.contains(&life), "{life:?} knows already");
                    self.alone.push(life);
                    continue;
                }
                Command::Send(life, message) => Send(life.worker, message),
                Command::Kill(life) => Kill(life.worker),
                Command::Examine(life) => Examine(life.worker),
                Command::Adopt { worker, by } => Adopt(worker, by.worker),
                Command::TakeBack { worker } => TakeBack(worker),
                Command::ReportReady => ReportReady,
                Command::ReadSettings(wanted) => ReadSettings(wanted),
                Command::SettleReload => SettleReload,
                Command::DropReload => DropReload,
                Command::StartUpgrade => StartUpgrade,
                Command::OfferUpgrade => OfferUpgrade,
                Command::StopUpgrade => StopUpgrade,
                Command::KillUpgrade => KillUpgrade,
                Command::ForwardReload(wanted) => ForwardReload(wanted),
                Command::Resume => Resume,
                Command::Finish(verdict) => Finish(verdict),
            });
        }
        acts
    }

    fn life(&self, id: usize) -> Life {
        self.newest[&id]
    }

    fn ready(&mut self, id: usize) -> Vec<Act> {
        self.event(Event::WorkerReady(self.life(id)))
    }

    fn ended(&mut self, id: usize, end: End) -> Vec<Act> {
        self.event(Event::WorkerEnded(self.life(id), end))
    }

    /// Somebody wants a reload, and the settings are good, for so many workers.
    fn reload(&mut self, workers: usize) -> Vec<Act> {
        let acts = self.event(HUP);
        if acts == [ReadSettings(READ)] { self.event(reload_to(workers)) } else { acts }
    }

    fn closed(&mut self, id: usize) -> Vec<Act> {
        self.event(Event::ChannelClosed(self.life(id)))
    }

    /// How long a pool of one waits before it forks its worker again.
    fn restart_delay(&self) -> Duration {
        self.pool.poll_timeout().expect("a restart is due") - self.now
    }

    /// That is `wanted`, or up to a quarter less.
    fn assert_delay(&self, wanted: Duration) -> Duration {
        let delay = self.restart_delay();
        assert!((wanted * 3 / 4..=wanted).contains(&delay), "{delay:?} for {wanted:?}");
        delay
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn all_workers_are_forked_at_once_and_reported_ready_once() {
    let mut scene = Scene::new(2);
    assert_eq!(scene.pass(Duration::ZERO), [Fork(0), Fork(1)]);
    assert_eq!(scene.ready(1), []);
    assert_eq!(scene.ready(0), [ReportReady]);
    assert_eq!(scene.ready(0), [], "said twice");
    scene.ended(0, CRASHED);
    assert_eq!(scene.pass(Duration::ZERO), [Fork(0)]);
    assert_eq!(scene.ready(0), [], "nothing new to the operator");
}

#[test]
fn a_pool_at_ease_never_wakes_up() {
    assert_eq!(Scene::running(8).pool.poll_timeout(), None);
}

#[test]
fn a_worker_that_ends_is_replaced_at_once_then_ever_later() {
    let mut scene = Scene::running(1);
    for delay in [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000].map(millis) {
        scene.ended(0, CRASHED);
        let delay = scene.assert_delay(delay);
        assert_eq!(scene.pass(delay), [Fork(0)]);
    }
}

#[test]
fn the_clients_of_a_worker_that_can_serve_never_wait_long_for_its_successor() {
    let mut scene = Scene::running(1);
    for delay in [0, 100, 200, 400, 500, 500, 500].map(millis) {
        scene.ended(0, CRASHED);
        let delay = scene.assert_delay(delay);
        assert_eq!(scene.pass(delay), [Fork(0)]);
        scene.ready(0);
    }
}

#[test]
fn a_worker_that_others_kill_before_it_is_ready_is_not_held_to_be_broken() {
    let shot = End::Killed { signal: 9, core_dumped: false };
    let mut scene = Scene::running(1);
    for delay in [0, 100, 200, 400, 500, 500].map(millis) {
        scene.ended(0, shot);
        let delay = scene.assert_delay(delay);
        assert_eq!(scene.pass(delay), [Fork(0)]);
    }
}

#[test]
fn the_delay_never_overflows() {
    let mut scene = Scene::running(1);
    for _ in 0..100 {
        scene.ended(0, CRASHED);
        scene.pass(secs(10));
    }
    assert!(scene.pool.delay_after(u32::MAX) <= secs(10));
}

#[test]
fn a_worker_that_was_healthy_starts_the_count_afresh() {
    let mut scene = Scene::running(1);
    for _ in 0..5 {
        scene.pass(secs(10)); // ready for that long
        scene.ended(0, CRASHED);
        assert_eq!(scene.restart_delay(), Duration::ZERO);
        scene.pass(Duration::ZERO);
        scene.ready(0);
    }
}

#[test]
fn a_worker_that_crashes_in_a_loop_costs_the_others_nothing() {
    let mut scene = Scene::running(3);
    let mut forks = 0;
    for _ in 0..3600 {
        for command in scene.pass(secs(1)) {
            assert_eq!(command, Fork(1), "only the one that crashes");
            forks += 1;
            scene.ended(1, CRASHED);
        }
        if forks == 0 {
            scene.ended(1, CRASHED);
        }
    }
    assert!((300..400).contains(&forks), "{forks} forks in an hour");
}

#[test]
fn a_worker_that_isnt_ready_in_time_is_killed_and_replaced() {
    let mut scene = Scene::new(1);
    scene.pass(Duration::ZERO);
    assert_eq!(scene.pass(millis(9_999)), []);
    assert_eq!(scene.pass(millis(1)), [Kill(0)]);
    assert_eq!(scene.pass(secs(60)), [], "killed once");
    scene.ended(0, CRASHED);
    assert_eq!(scene.pass(Duration::ZERO), [Fork(0)]);
}

#[test]
fn a_worker_that_closes_its_channel_ends_or_is_killed() {
    let mut scene = Scene::running(2);
    scene.closed(0);
    scene.closed(1);
    scene.ended(0, CRASHED); // as the channel said
    assert_eq!(scene.pass(millis(999)), [Fork(0)]);
    assert_eq!(scene.pass(millis(1)), [Kill(1)]);
}

#[test]
fn a_pool_that_never_was_ready_gives_up_when_a_worker_cannot_start() {
    let mut scene = Scene::new(3);
    scene.pass(Duration::ZERO);
    scene.ready(0);
    assert_eq!(scene.ended(1, CANNOT_START), [Send(0, SHUTDOWN), Send(2, SHUTDOWN)]);
    assert_eq!(scene.ended(0, CLEAN), []);
    let verdict = Verdict::GaveUp { worker: 1, end: CANNOT_START };
    assert_eq!(scene.ended(2, CANNOT_START), [Finish(verdict)], "the first one's error counts");
}

#[test]
fn a_pool_that_never_was_ready_gives_up_at_the_third_failure_of_a_worker() {
    let mut scene = Scene::new(1);
    for _ in 1..START_TRIES_MAX {
        assert_eq!(scene.pass(millis(100)), [Fork(0)]);
        assert_eq!(scene.ended(0, CRASHED), []);
    }
    assert_eq!(scene.pass(millis(100)), [Fork(0)]);
    let verdict = Verdict::GaveUp { worker: 0, end: CRASHED };
    assert_eq!(scene.ended(0, CRASHED), [Finish(verdict)]);
}

#[test]
fn a_fork_that_fails_is_a_failure_like_others() {
    let end = End::NotForked(uring_ring::Errno::new(libc::EAGAIN));
    let mut scene = Scene::running(1);
    scene.ended(0, CRASHED);
    scene.pass(Duration::ZERO);
    scene.ended(0, end);
    scene.assert_delay(millis(100));
}

#[test]
fn a_pool_that_was_ready_never_gives_up() {
    let mut scene = Scene::running(1);
    for _ in 0..10 {
        assert_eq!(scene.ended(0, CANNOT_START), []);
        assert_eq!(scene.pass(scene.restart_delay()), [Fork(0)]);
    }
}

#[test]
fn the_first_signal_is_passed_on_and_the_pool_ends_with_its_last_worker() {
    let mut scene = Scene::running(2);
    assert_eq!(scene.event(STOP), [Send(0, SHUTDOWN), Send(1, SHUTDOWN)]);
    assert_eq!(scene.ended(1, CLEAN), []);
    assert_eq!(scene.ended(0, CLEAN), [Finish(Verdict::Stopped)]);
}

#[test]
fn workers_serve_until_nobody_waits_in_the_master_and_then_nobody_is_let_in() {
    let mut scene = Scene::running(2);
    assert_eq!(scene.event_beside_a_queue(STOP), []);
    assert_eq!(scene.serving.len(), 2, "they are passed what waits");
    assert_eq!(scene.pass(secs(10)), []);
    let told = Message::Shutdown { deadline_ms: 20_000 };
    let acts = scene.event_beside_a_queue(Event::QueueEmpty);
    assert_eq!(acts, [Send(0, told.clone()), Send(1, told)], "what is left of their time");
    assert_eq!(scene.serving, []);
    assert_eq!(scene.event(Event::AcceptStopped(scene.life(0))), []);
    assert!(!scene.is_closed, "the other one may still take somebody");
    assert_eq!(scene.ended(1, CRASHED), []);
    assert!(scene.is_closed, "whatever is open yet");
    assert_eq!(scene.ended(0, CLEAN), [Finish(Verdict::Stopped)]);

    let mut scene = Scene::running(1);
    scene.event_beside_a_queue(STOP);
    assert_eq!(scene.event_beside_a_queue(STOP), [Kill(0)], "a second one waits for nobody");
    let end = Event::WorkerEnded(scene.life(0), KILLED);
    assert_eq!(scene.event_beside_a_queue(end), [], "and yet everybody is told");
    assert_eq!(scene.event_beside_a_queue(Event::QueueEmpty), [Finish(Verdict::Stopped)]);
    assert!(scene.is_closed);
}

#[test]
fn a_pool_that_stops_replaces_nobody() {
    let mut scene = Scene::running(2);
    scene.ended(0, CRASHED); // due at once, but the signal is first
    assert_eq!(scene.event(STOP), [Send(1, SHUTDOWN)]);
    assert_eq!(scene.pass(secs(29)), []);
    assert_eq!(scene.ended(1, CRASHED), [Finish(Verdict::Stopped)]);
}

#[test]
fn a_worker_that_only_starts_is_told_to_stop_as_well() {
    let mut scene = Scene::new(1);
    scene.pass(Duration::ZERO);
    assert_eq!(scene.event(STOP), [Send(0, SHUTDOWN)]);
    assert_eq!(scene.ready(0), [], "no start is reported any more");
    assert_eq!(scene.ended(0, CLEAN), [Finish(Verdict::Stopped)]);
}

#[test]
fn a_pool_without_a_process_stops_at_once() {
    let mut scene = Scene::running(1);
    scene.ended(0, CRASHED);
    assert_eq!(scene.event(STOP), [Finish(Verdict::Stopped)]);
}

#[test]
fn what_is_left_at_the_deadline_is_killed() {
    let mut scene = Scene::running(3);
    scene.event(STOP);
    scene.ended(1, CLEAN);
    assert_eq!(scene.pass(secs(30)), [], "workers have their whole time");
    assert_eq!(scene.pass(STOP_GRACE), [Kill(0), Kill(2)]);
    assert_eq!(scene.pool.poll_timeout(), None, "nothing more than to reap them");
    scene.ended(0, CRASHED);
    assert_eq!(scene.ended(2, CRASHED), [Finish(Verdict::Stopped)]);
}

#[test]
fn a_second_signal_kills_at_once_and_a_third_changes_nothing() {
    let mut scene = Scene::running(2);
    scene.event(STOP);
    scene.ended(1, CLEAN);
    assert_eq!(scene.event(STOP), [Kill(0)]);
    assert_eq!(scene.event(STOP), []);
    assert_eq!(scene.ended(0, CRASHED), [Finish(Verdict::Stopped)]);
}

#[test]
fn a_reload_starts_new_workers_first_and_then_the_old_ones_leave() {
    let mut scene = Scene::running(2);
    let old = [scene.life(0), scene.life(1)];
    assert_eq!(scene.event(HUP), [ReadSettings(READ)]);
    assert_eq!(scene.event(reload_to(2)), [Fork(0), Fork(1)]);
    assert_eq!(scene.ready(1), []);
    assert_eq!(scene.serving, old, "not before all are ready");
    assert_eq!(scene.ready(0), [SettleReload, Send(0, RELOAD), Send(1, RELOAD)]);
    assert_eq!(scene.serving, [scene.life(0), scene.life(1)]);
    assert_eq!(scene.event(Event::WorkerEnded(old[0], CLEAN)), []);
    assert_eq!(scene.pass(secs(30) + STOP_GRACE), [Kill(1)], "the other one had its time");
    scene.event(Event::WorkerEnded(old[1], KILLED));
    assert_eq!(scene.pool.poll_timeout(), None);
}

#[test]
fn a_reload_with_more_or_fewer_workers_changes_their_number() {
    for workers in [1, 3] {
        let mut scene = Scene::running(2);
        assert_eq!(scene.reload(workers).len(), workers);
        (0..workers).for_each(|id| drop(scene.ready(id)));
        assert_eq!(scene.serving.len(), workers);
        assert_eq!(scene.pool.leaving.len(), 2);
        assert_eq!(scene.ended(workers - 1, CRASHED), []);
        assert_eq!(scene.pass(Duration::ZERO), [Fork(workers - 1)]);
    }
}

#[test]
fn a_reload_that_fails_leaves_the_old_workers() {
    for fails in [0, 1, 2] {
        let mut scene = Scene::running(2);
        let old = scene.serving.clone();
        scene.reload(3);
        assert_eq!(scene.ready(2), []);
        let acts = match fails {
            0 => scene.ended(1, CANNOT_START),
            1 => scene.pass(secs(10)), // nobody else gets ready
            _ => {
                scene.closed(0);
                scene.pass(CHANNEL_GRACE)
            }
        };
        let count = |is: fn(&&Act) -> bool| acts.iter().filter(is).count();
        let kills = count(|act| matches!(act, Kill(_)));
        let asked = count(|act| matches!(act, Send(_, RELOAD)));
        let expected = [(0, 2), (2, 1), (1, 2)][fails];
        assert_eq!((kills, asked), expected, "whoever may have clients finishes with them");
        assert_eq!(acts.last(), Some(&DropReload));
        assert_eq!(scene.serving, old);
        assert_eq!(scene.pool.places.len(), 2);
        assert_eq!(scene.reload(2), [Fork(0), Fork(1)], "once more");
    }
}

#[test]
fn a_worker_that_crashes_meanwhile_is_restarted_and_leaves_with_the_others() {
    let mut scene = Scene::running(2);
    let old = scene.life(0);
    scene.reload(2);
    let successors = scene.newest.clone();
    scene.event(Event::WorkerEnded(old, CRASHED));
    assert_eq!(scene.pass(Duration::ZERO), [Fork(0)]);
    let restarted = scene.life(0);
    scene.event(Event::WorkerReady(successors[&1]));
    scene.event(Event::WorkerReady(successors[&0]));
    assert_eq!(scene.serving, [successors[&0], successors[&1]]);
    assert!(scene.pool.leaving.iter().any(|leaving| leaving.life == restarted));
}

#[test]
fn reloads_come_one_after_the_other_and_settings_are_read_when_their_turn_comes() {
    let mut scene = Scene::running(1);
    assert_eq!(scene.reload(1), [Fork(0)]);
    assert!(scene.pool.is_reloading());
    assert_eq!(scene.event(HUP), []);
    assert_eq!(scene.event(HUP), []);
    let settled = [SettleReload, Send(0, RELOAD), ReadSettings(READ)];
    assert_eq!(scene.ready(0), settled, "read once, and only now");
    assert_eq!(scene.event(Event::ReloadRefused), []);
    assert!(!scene.pool.is_reloading());
    assert_eq!(scene.reload(2), [Fork(0), Fork(1)], "bad settings keep nothing from changing");
}

#[test]
fn the_last_word_about_the_number_of_workers_counts() {
    let scale = |workers| Event::Scale { workers };
    for (events, wanted) in [
        ([scale(3), scale(2)], Wanted { reads: false, workers: Some(2) }),
        ([HUP, scale(2)], Wanted { reads: true, workers: Some(2) }),
        ([scale(2), HUP], READ),
    ] {
        let mut scene = Scene::running(1);
        scene.reload(1);
        events.into_iter().for_each(|event| drop(scene.event(event)));
        assert_eq!(scene.ready(0).last(), Some(&ReadSettings(wanted)), "{events:?}");
    }
}

#[test]
fn workers_of_a_reload_have_the_time_that_its_settings_give_them() {
    let mut scene = Scene::running(1);
    scene.event(HUP);
    let (workers, ready_timeout) = (1, secs(40));
    assert_eq!(scene.event(Event::Reload { workers, ready_timeout }), [Fork(0)]);
    assert_eq!(scene.pass(secs(40).saturating_sub(millis(1))), []);
    assert_eq!(scene.pass(millis(1)), [Kill(0), DropReload]);
}

#[test]
fn who_is_restarted_during_a_reload_has_the_settings_in_use() {
    let mut scene = Scene::running(2);
    let mut commands = Vec::new();
    scene.event(HUP);
    scene.pool.handle(reload_to(2), scene.now, &mut commands);
    let next = commands.iter().filter(|command| matches!(command, Command::ForkNext(_))).count();
    assert_eq!(next, 2, "{commands:?}");
    commands.clear();
    let old = scene.life(0);
    scene.pool.handle(Event::WorkerEnded(old, CRASHED), scene.now, &mut commands);
    scene.pool.handle_timeout(scene.now, &mut commands);
    let restarts = |command: &Command| matches!(command, Command::Fork(life) if life.worker == 0);
    assert!(commands.iter().any(restarts), "{commands:?}");
}

#[test]
fn recycling_replaces_one_worker_at_a_time() {
    let mut scene = Scene::running(2);
    let old = [scene.life(0), scene.life(1)];
    let due = |life| Event::RecycleDue(life, RecycleReason::Requests);
    assert_eq!(scene.event(due(old[1])), [Fork(1)]);
    assert_eq!(scene.event(due(old[0])), [], "not two at once");
    assert_eq!(scene.ready(1), [Send(1, RELOAD), Fork(0)]);
    assert_eq!(scene.ready(0), [Send(0, RELOAD)]);
    assert_eq!(scene.event(due(old[0])), [], "it leaves already");
}

#[test]
fn a_worker_whose_successor_fails_serves_on_and_is_recycled_later() {
    let mut scene = Scene::running(1);
    let old = scene.life(0);
    scene.event(Event::RecycleDue(old, RecycleReason::Memory));
    assert_eq!(scene.ended(0, CRASHED), []);
    assert_eq!(scene.serving, [old]);
    assert_eq!(scene.pass(secs(10).saturating_sub(millis(1))), []);
    assert_eq!(scene.pass(millis(1)), [Fork(0)]);
}

#[test]
fn a_worker_that_hangs_writes_down_where_and_is_replaced() {
    let mut scene = Scene::running(2);
    let hung = scene.life(1);
    assert_eq!(scene.event(Event::WorkerHangs(hung, Hang::Busy, secs(30))), [Examine(1)]);
    assert_eq!(scene.event(Event::WorkerHangs(hung, Hang::Busy, secs(31))), [], "it is seen to");
    assert_eq!(scene.serving, [scene.life(0)]);
    assert_eq!(scene.pass(LAST_WORDS_GRACE), [Kill(1)]);
    scene.ended(1, KILLED);
    assert_eq!(scene.pass(Duration::ZERO), [Fork(1)]);
}

#[test]
fn a_worker_that_was_stopped_can_say_nothing_and_is_replaced() {
    let mut scene = Scene::running(1);
    let stopped = Event::WorkerHangs(scene.life(0), Hang::Stopped, secs(30));
    assert_eq!(scene.event(stopped), [Kill(0)]);
    scene.ended(0, KILLED);
    assert_eq!(scene.pass(Duration::ZERO), [Fork(0)]);
}

#[test]
fn where_the_master_accepts_there_is_nothing_to_lend() {
    let config = PoolConfig { accept: Accept::Dispatch, ..PoolConfig::default() };
    let mut scene = Scene::with(2, &config);
    scene.pass(Duration::ZERO);
    (0..2).for_each(|id| drop(scene.ready(id)));
    for _ in 0..2 * LOOP_FAILURES {
        assert_eq!(scene.ended(1, CRASHED), []);
        assert_eq!(scene.pass(scene.restart_delay()), [Fork(1)]);
    }
    assert_eq!(scene.ready(1), []);
}

#[test]
fn the_clients_of_a_worker_that_never_starts_are_served_by_another_one() {
    let mut scene = Scene::running(2);
    scene.ended(1, CRASHED);
    let mut acts = Vec::new();
    for _ in 1..LOOP_FAILURES {
        acts.extend(scene.pass(scene.restart_delay()));
        acts.extend(scene.ended(1, CRASHED));
    }
    assert_eq!(acts.iter().filter(|act| **act == Adopt(1, 0)).count(), 1, "{acts:?}");
    scene.pass(scene.restart_delay());
    assert_eq!(scene.ended(1, CRASHED), [], "they have somebody");
    scene.pass(scene.restart_delay());
    assert_eq!(scene.ready(1), [TakeBack(1)]);
    assert_eq!(scene.alone, [scene.life(0), scene.life(1)], "whoever was lent them but watches");
}

#[test]
fn a_successor_is_on_its_guard_until_nothing_is_left_of_a_dead_worker() {
    let mut scene = Scene::running(2);
    let (other, dead) = (scene.life(0), scene.life(1));
    scene.event(Event::EstateLeft(dead));
    scene.ended(1, KILLED);
    scene.pass(Duration::ZERO);
    scene.ready(1);
    assert_eq!(scene.alone, [other], "the kernel may tell the dead one of its clients");
    scene.event(Event::EstateGone(dead));
    assert_eq!(scene.alone, [other, scene.life(1)]);
}

#[test]
fn what_is_left_of_a_worker_that_had_let_go_of_its_listeners_matters_to_nobody() {
    let mut scene = Scene::running(1);
    let old = scene.life(0);
    scene.reload(1);
    scene.ready(0);
    scene.event(Event::AcceptStopped(old));
    scene.event(Event::EstateLeft(old));
    scene.event(Event::WorkerEnded(old, KILLED));
    scene.ended(0, CRASHED);
    scene.pass(Duration::ZERO);
    scene.ready(0);
    assert_eq!(scene.alone, [scene.life(0)]);
}

#[test]
fn an_upgrade_hands_over_once_the_new_master_serves() {
    let mut scene = Scene::running(2);
    assert_eq!(scene.event(UPGRADE), [StartUpgrade]);
    assert_eq!(scene.event(UPGRADE), [], "one at a time");
    assert_eq!(scene.event(Event::UpgradeServes), [], "nothing was offered");
    assert_eq!(scene.event(Event::UpgradeReady), [OfferUpgrade]);
    assert_eq!(scene.serving.len(), 2, "until it has taken over");
    assert_eq!(scene.event(Event::UpgradeServes), [Send(0, RELOAD), Send(1, RELOAD)]);
    assert_eq!(scene.event(Event::AcceptStopped(scene.life(0))), []);
    assert_eq!(scene.ended(0, CLEAN), []);
    assert_eq!(scene.ended(1, CLEAN), [Finish(Verdict::Upgraded)]);
}

#[test]
fn whoever_takes_a_place_hears_when_nobody_else_has_its_listeners() {
    let mut scene = Scene::running(2);
    let old = [scene.life(0), scene.life(1)];
    assert_eq!(scene.alone, old, "nobody was there before");
    scene.reload(3);
    (0..3).for_each(|id| drop(scene.ready(id)));
    assert_eq!(scene.alone, [], "the old ones serve on");
    scene.event(Event::AcceptStopped(old[0]));
    assert_eq!(scene.alone, [], "listeners may have gone to another place");
    scene.event(Event::WorkerEnded(old[1], CRASHED));
    let new = [scene.life(0), scene.life(1), scene.life(2)];
    assert_eq!(scene.alone, new);
    scene.event(Event::WorkerEnded(old[0], CLEAN));
    scene.event(Event::RecycleDue(new[1], RecycleReason::Lifetime));
    scene.ready(1);
    assert_eq!(scene.alone, [new[0], new[2]], "only the place that changes is on its guard");
    scene.event(Event::AcceptStopped(new[1]));
    assert_eq!(scene.alone, [new[0], new[2], scene.life(1)]);
}

#[test]
fn the_workers_of_a_new_master_are_alone_once_the_old_one_has_gone() {
    let mut scene = Scene::new(2);
    scene.pool.set_beside_old_master(true);
    scene.pass(Duration::ZERO);
    (0..2).for_each(|id| drop(scene.ready(id)));
    assert_eq!(scene.alone, []);
    scene.event(Event::OldMasterGone);
    assert_eq!(scene.alone, [scene.life(0), scene.life(1)]);
}

/// A pool whose new master serves.
fn upgraded(workers: usize) -> Scene {
    let mut scene = Scene::running(workers);
    for event in [UPGRADE, Event::UpgradeReady, Event::UpgradeServes] {
        scene.event(event);
    }
    scene
}

#[test]
fn an_upgrade_that_fails_changes_nothing() {
    let mut scene = Scene::running(1);
    scene.event(UPGRADE);
    assert_eq!(scene.event(Event::UpgradeFailed(Cause::IsInit)), []);
    assert_eq!(scene.event(UPGRADE), [StartUpgrade]);
    assert_eq!(scene.event(Event::UpgradeEnded(CRASHED)), []);
    assert_eq!(scene.event(UPGRADE), [StartUpgrade]);
    assert_eq!(scene.event(Event::UpgradeReady), [OfferUpgrade]);
    assert_eq!(scene.event(Event::UpgradeEnded(CRASHED)), [Resume], "it may have taken something");
    assert_eq!(scene.reload(1), [Fork(0)]);
    assert_eq!(scene.serving.len(), 1);
}

#[test]
fn a_new_master_that_is_late_has_time_to_go_and_nobody_is_started_before_it_has() {
    let mut scene = Scene::running(1);
    scene.event(UPGRADE);
    assert_eq!(scene.pass(secs(60)), [StopUpgrade]);
    assert_eq!(scene.event(Event::UpgradeReady), [], "too late");
    assert_eq!(scene.event(UPGRADE), [], "there is one still");
    assert_eq!(scene.reload(1), [Fork(0)], "other changes may begin");
    scene.ready(0);
    assert_eq!(scene.pass(secs(30) + STOP_GRACE), [StopUpgrade, Kill(0)], "at once, now");
    assert_eq!(scene.pass(CHANNEL_GRACE), [KillUpgrade]);
    scene.event(Event::UpgradeEnded(KILLED));
    assert_eq!(scene.event(UPGRADE), [StartUpgrade]);
}

#[test]
fn a_new_master_that_never_takes_over_what_it_is_offered_is_killed() {
    let mut scene = Scene::running(1);
    scene.event(UPGRADE);
    scene.event(Event::UpgradeReady);
    assert_eq!(scene.pass(secs(60)), [KillUpgrade]);
    assert_eq!(scene.event(Event::UpgradeEnded(KILLED)), [Resume]);
    assert_eq!(scene.event(UPGRADE), [StartUpgrade]);
}

#[test]
fn a_new_master_that_dies_after_all_leaves_everything_to_this_one() {
    let mut scene = upgraded(2);
    let old = [scene.life(0), scene.life(1)];
    scene.event(Event::WorkerEnded(old[0], CLEAN));
    assert_eq!(scene.event(Event::UpgradeEnded(CRASHED)), [Resume]);
    assert_eq!(scene.pass(Duration::ZERO), [Fork(0), Fork(1)]);
    (0..2).for_each(|id| drop(scene.ready(id)));
    assert_eq!(scene.serving.len(), 2);
    assert_eq!(scene.alone, [], "an old one still accepts");
    scene.event(Event::WorkerEnded(old[1], CLEAN));
    assert_eq!(scene.alone, [scene.life(0), scene.life(1)], "the new master's watched");
    assert_eq!(scene.event(UPGRADE), [StartUpgrade]);
}

#[test]
fn a_new_master_that_dies_when_the_last_old_worker_has_gone_is_replaced_as_well() {
    let mut scene = upgraded(1);
    assert_eq!(scene.ended(0, CLEAN), [Finish(Verdict::Upgraded)], "but for what is on its way");
    assert_eq!(scene.event(Event::UpgradeEnded(KILLED)), [Resume]);
    assert_eq!(scene.pass(Duration::ZERO), [Fork(0)]);
    scene.ready(0);
    assert_eq!(scene.serving.len(), 1);
}

#[test]
fn a_new_master_that_somebody_stops_is_not_replaced() {
    let mut scene = upgraded(1);
    assert_eq!(scene.event(Event::UpgradeEnded(CLEAN)), []);
    assert_eq!(scene.ended(0, CLEAN), [Finish(Verdict::Stopped)]);
}

#[test]
fn a_reload_during_an_upgrade_is_for_whoever_serves_then() {
    let mut scene = Scene::running(1);
    scene.event(UPGRADE);
    assert_eq!(scene.event(HUP), []);
    assert_eq!(scene.event(Event::UpgradeEnded(CRASHED)), [ReadSettings(READ)]);
    let mut scene = Scene::running(1);
    scene.event(UPGRADE);
    scene.event(HUP);
    scene.event(Event::UpgradeReady);
    assert_eq!(scene.event(Event::UpgradeServes), [ForwardReload(READ), Send(0, RELOAD)]);
    assert_eq!(scene.event(HUP), [ForwardReload(READ)], "and later on");
}

#[test]
fn a_number_of_workers_that_is_wished_for_during_an_upgrade_is_for_whoever_serves_then() {
    let wanted = Wanted { reads: false, workers: Some(5) };
    let scale = Event::Scale { workers: 5 };
    let mut scene = Scene::running(1);
    scene.event(UPGRADE);
    assert_eq!(scene.event(scale), []);
    assert_eq!(scene.event(Event::UpgradeEnded(CRASHED)), [ReadSettings(wanted)]);
    let mut scene = Scene::running(1);
    scene.event(UPGRADE);
    scene.event(Event::UpgradeReady);
    scene.event(scale);
    assert_eq!(scene.event(Event::UpgradeServes), [ForwardReload(wanted), Send(0, RELOAD)]);
    assert_eq!(scene.event(scale), [ForwardReload(wanted)], "and later on");
    let mut new = Scene::running(1);
    assert_eq!(new.event(Event::Renew(wanted)), [ReadSettings(wanted)]);
    new.event(STOP);
    assert_eq!(new.event(scale), [], "it is too late, and said so");
}

#[test]
fn a_master_that_ends_after_an_upgrade_gives_requests_their_time_although_it_is_told_to_stop() {
    let mut scene = upgraded(1);
    assert_eq!(scene.event(STOP), [], "it does");
    assert_eq!(scene.event(STOP), [Kill(0)], "a second one counts");
    assert!(!scene.is_closed, "the new master serves");
}

#[test]
fn a_stop_ends_what_is_under_way() {
    let mut scene = Scene::running(1);
    let old = scene.life(0);
    scene.reload(1);
    let acts = scene.event(STOP);
    assert_eq!(acts, [DropReload, Send(0, SHUTDOWN), Send(0, SHUTDOWN)]);
    assert_eq!(scene.ended(0, CLEAN), []);
    assert_eq!(scene.event(Event::WorkerEnded(old, CLEAN)), [Finish(Verdict::Stopped)]);
}

#[test]
fn a_stop_ends_a_new_master_and_waits_for_it() {
    let mut scene = Scene::running(1);
    scene.event(UPGRADE);
    assert_eq!(scene.event(STOP), [StopUpgrade, Send(0, SHUTDOWN)]);
    assert_eq!(scene.ended(0, CLEAN), [], "it has clients, too");
    assert_eq!(scene.pass(secs(30) + STOP_GRACE), [StopUpgrade]);
    assert_eq!(scene.pass(CHANNEL_GRACE), [KillUpgrade]);
    let finish = scene.event(Event::UpgradeEnded(KILLED));
    assert_eq!(finish, [Finish(Verdict::Stopped)]);
    let mut scene = Scene::running(1);
    scene.event(UPGRADE);
    scene.event(STOP);
    assert_eq!(scene.event(STOP), [StopUpgrade, Kill(0)], "nobody is to wait");
}

#[test]
fn without_restarts_the_pool_ends_with_its_last_worker() {
    let config = PoolConfig { restart: false, ..PoolConfig::default() };
    let mut scene = Scene::with(2, &config);
    scene.pass(Duration::ZERO);
    (0..2).for_each(|id| drop(scene.ready(id)));
    assert_eq!(scene.ended(0, CRASHED), []);
    assert_eq!(scene.pass(secs(60)), []);
    assert_eq!(scene.ended(1, CLEAN), [Finish(Verdict::Stopped)]);
}

/// Whatever happens, in whatever order: nobody serves beside another one in the same place, nobody
/// is killed or told who isn't there, the pool never spins, always gets back to full strength, and
/// ends when it is told to.
#[test]
fn any_order_of_events_keeps_the_invariants() {
    for seed in 0..3_000_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut pick = move |count: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % count
        };
        let mut world = World {
            scene: Scene::new(3),
            alive: Vec::new(),
            estates: Vec::new(),
            upgrades: false,
            reads: false,
        };
        let mut finished = false;
        for step in 0..300 {
            let end = [CRASHED, CLEAN, CANNOT_START, KILLED][pick(4) as usize];
            let life = match world.alive.len() as u64 {
                0 => None,
                count => Some(world.alive[pick(count) as usize]),
            };
            let event = match (pick(20), life) {
                (0..=4, _) => None,
                (5..=8, Some(life)) => Some(Event::WorkerReady(life)),
                (9, Some(life)) => Some(Event::ChannelClosed(life)),
                (10 | 11, Some(life)) => {
                    world.alive.retain(|alive| *alive != life);
                    if pick(3) == 0 {
                        world.estates.push(life);
                        let commands = world.step(Some(Event::EstateLeft(life)), Duration::ZERO);
                        world.check(commands, finished, seed);
                    }
                    Some(Event::WorkerEnded(life, end))
                }
                (11, None) => world.estates.pop().map(Event::EstateGone),
                (12, Some(life)) => Some(Event::AcceptStopped(life)),
                (13, Some(life)) => Some(Event::RecycleDue(life, RecycleReason::Lifetime)),
                (14, Some(life)) => {
                    let hang = [Hang::Busy, Hang::Stopped][pick(2) as usize];
                    Some(Event::WorkerHangs(life, hang, secs(9)))
                }
                (15, _) if std::mem::take(&mut world.reads) => Some(match pick(4) {
                    0 => Event::ReloadRefused,
                    workers => reload_to(workers as usize),
                }),
                (15, _) => Some(HUP),
                (16, _) => Some(UPGRADE),
                (17, _) if world.upgrades => {
                    world.upgrades = false;
                    Some(Event::UpgradeEnded(end))
                }
                (18, _) if world.upgrades => Some(match pick(4) {
                    0 => Event::UpgradeServes,
                    _ => Event::UpgradeReady,
                }),
                (19, _) if std::mem::take(&mut world.scene.has_queue) => Some(Event::QueueEmpty),
                (19, _) if step > 200 => Some(STOP),
                _ => continue,
            };
            let commands = world.step(event, millis(pick(3_000)));
            finished = world.check(commands, finished, seed);
            if finished {
                break;
            }
        }
        if !matches!(world.scene.pool.stage, Stage::Stopping { .. }) {
            world.settle(seed);
            let workers = world.scene.pool.places.len();
            let mut serving: Vec<usize> =
                world.scene.serving.iter().map(|life| life.worker).collect();
            serving.sort_unstable();
            assert_eq!(serving, (0..workers).collect::<Vec<_>>(), "seed {seed}");
            assert_eq!(world.scene.alone.len(), workers, "seed {seed}");
            let commands = world.step(Some(STOP), Duration::ZERO);
            finished = world.check(commands, finished, seed);
        }
        while !finished {
            let commands = if std::mem::take(&mut world.scene.has_queue) {
                world.step(Some(Event::QueueEmpty), Duration::ZERO)
            } else if let Some(life) = world.alive.pop() {
                world.step(Some(Event::WorkerEnded(life, CLEAN)), Duration::ZERO)
            } else {
                assert!(std::mem::take(&mut world.upgrades), "seed {seed}: it doesn't end");
                world.step(Some(Event::UpgradeEnded(CLEAN)), Duration::ZERO)
            };
            finished = world.check(commands, finished, seed);
        }
    }
}

/// A scene, and who lives in it.
struct World {
    scene: Scene,
    alive: Vec<Life>,
    /// Their rings outlive them.
    estates: Vec<Life>,
    upgrades: bool,
    /// Settings are being read.
    reads: bool,
}

impl World {
    /// What follows from an event, or from time.
    fn step(&mut self, event: Option<Event>, time: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        let Scene { pool, now, .. } = &mut self.scene;
        if let Some(event) = event {
            pool.handle(event, *now, &mut commands);
        } else {
            *now += time;
            pool.handle_timeout(*now, &mut commands);
            assert!(pool.poll_timeout().is_none_or(|at| at > *now), "it would spin");
        }
        commands
    }

    /// Does what the pool wants, and sees that it makes sense. Returns whether all is over.
    fn check(&mut self, commands: Vec<Command>, mut finished: bool, seed: u64) -> bool {
        for command in &commands {
            let is_told = matches!(command, Command::Tell(_) | Command::TellOf(..));
            assert!(!finished || is_told, "seed {seed}: {command:?} after the end");
            match command {
                Command::Fork(life) | Command::ForkNext(life) => {
                    assert!(!self.alive.contains(life), "seed {seed}");
                    self.alive.push(*life);
                }
                Command::Kill(life) | Command::Send(life, _) | Command::Examine(life) => {
                    assert!(self.alive.contains(life), "seed {seed}: {command:?}");
                }
                Command::Adopt { by, .. } => assert!(self.alive.contains(by), "seed {seed}"),
                Command::ReadSettings(_) => self.reads = true,
                Command::StartUpgrade => {
                    assert!(!self.upgrades, "seed {seed}: two new masters");
                    self.upgrades = true;
                }
                Command::OfferUpgrade | Command::StopUpgrade | Command::KillUpgrade => {
                    assert!(self.upgrades, "seed {seed}: {command:?}");
                }
                Command::Resume => assert!(!self.upgrades, "seed {seed}"),
                Command::Finish(_) => finished = true,
                _ => {}
            }
        }
        self.scene.acts(commands);
        for (at, life) in self.scene.serving.iter().enumerate() {
            let beside = &self.scene.serving[at + 1..];
            assert!(beside.iter().all(|other| other.worker != life.worker), "seed {seed}");
        }
        if finished {
            assert_eq!(self.alive, [], "seed {seed}");
            let Stage::Stopping { verdict, .. } = self.scene.pool.stage else { unreachable!() };
            let is_closed = verdict != Verdict::Upgraded;
            assert_eq!(self.scene.is_closed, is_closed, "seed {seed}: whoever waits is told");
        }
        finished
    }

    /// From now on everybody behaves: who was killed or told to leave ends, who starts gets ready.
    fn settle(&mut self, seed: u64) {
        if std::mem::take(&mut self.reads) {
            let commands = self.step(Some(reload_to(2)), Duration::ZERO);
            self.check(commands, false, seed);
        }
        if std::mem::take(&mut self.upgrades) {
            let commands = self.step(Some(Event::UpgradeEnded(KILLED)), Duration::ZERO);
            self.check(commands, false, seed);
        }
        while let Some(life) = self.estates.pop() {
            let commands = self.step(Some(Event::EstateGone(life)), Duration::ZERO);
            self.check(commands, false, seed);
        }
        for _ in 0..100 {
            let leaving: Vec<Life> =
                self.scene.pool.leaving.iter().map(|leaving| leaving.life).collect();
            let is_killed = |place: &Place| {
                matches!(place.phase, Phase::Killed | Phase::Unreachable { .. })
                    .then_some(place.life)
            };
            let killed = self.scene.pool.places.iter().filter_map(is_killed).collect::<Vec<_>>();
            for life in leaving.into_iter().chain(killed) {
                self.alive.retain(|alive| *alive != life);
                let commands = self.step(Some(Event::WorkerEnded(life, CLEAN)), Duration::ZERO);
                self.check(commands, false, seed);
            }
            for life in self.alive.clone() {
                let commands = self.step(Some(Event::WorkerReady(life)), Duration::ZERO);
                self.check(commands, false, seed);
            }
            let commands = self.step(None, secs(1));
            self.check(commands, false, seed);
        }
    }
}
