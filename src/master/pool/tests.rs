//! Each rule of the pool, in virtual time.

use super::Command::{
    Finish, Fork, Kill, ReportReady, Retire, Send, Serve, StopAccepting, Tell, TellOf,
};
use super::*;
use crate::process::EXIT_CANNOT_START;

const STOP: Event = Event::Signal(Signal::Stop { name: "SIGTERM" });
const CRASHED: End = End::Killed { signal: 11, core_dumped: false };
const CLEAN: End = End::Exited { code: 0 };
const CANNOT_START: End = End::Exited { code: EXIT_CANNOT_START };
const SHUTDOWN: Message = Message::Shutdown { deadline_ms: 30_000 };

/// A pool with the default settings, its clock, and what it wants to have done.
struct Scene {
    pool: Pool,
    now: Instant,
}

impl Scene {
    /// A pool that is about to fork its workers.
    fn new(workers: usize) -> Scene {
        let now = Instant::now();
        Scene { pool: Pool::new(workers, &PoolConfig::default(), now), now }
    }

    /// A pool that has started.
    fn running(workers: usize) -> Scene {
        let mut scene = Scene::new(workers);
        scene.pass(Duration::ZERO);
        (0..workers).for_each(|id| drop(scene.event(Event::WorkerReady(id))));
        scene
    }

    /// The commands that follow from an event, without what is only told.
    fn event(&mut self, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        self.pool.handle(event, self.now, &mut commands);
        acts(commands)
    }

    /// The commands that follow from time alone. As the master does, wakes up when asked to.
    fn pass(&mut self, time: Duration) -> Vec<Command> {
        let end = self.now + time;
        let mut commands = Vec::new();
        while let Some(at) = self.pool.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.pool.handle_timeout(self.now, &mut commands);
            assert!(self.pool.poll_timeout().is_none_or(|at| at > self.now), "it would spin");
        }
        self.now = end;
        acts(commands)
    }

    fn ended(&mut self, id: usize, end: End) -> Vec<Command> {
        self.event(Event::WorkerEnded(id, end))
    }

    /// How long a pool of one waits before it forks its worker again.
    fn restart_delay(&self) -> Duration {
        self.pool.poll_timeout().expect("a restart is due") - self.now
    }
}

fn acts(commands: Vec<Command>) -> Vec<Command> {
    commands.into_iter().filter(|command| !matches!(command, Tell(_) | TellOf(..))).collect()
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
    assert_eq!(scene.event(Event::WorkerReady(1)), []);
    assert_eq!(scene.event(Event::WorkerReady(0)), [ReportReady]);
    assert_eq!(scene.event(Event::WorkerReady(0)), [], "said twice");
    scene.ended(0, CRASHED);
    assert_eq!(scene.pass(Duration::ZERO), [Fork(0)]);
    assert_eq!(scene.event(Event::WorkerReady(0)), [], "nothing new to the operator");
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
        assert_eq!(scene.restart_delay(), delay);
        assert_eq!(scene.pass(delay), [Fork(0)]);
    }
}

#[test]
fn the_clients_of_a_worker_that_can_serve_never_wait_long_for_its_successor() {
    let mut scene = Scene::running(1);
    for delay in [0, 100, 200, 400, 500, 500, 500].map(millis) {
        scene.ended(0, CRASHED);
        assert_eq!(scene.restart_delay(), delay);
        assert_eq!(scene.pass(delay), [Fork(0)]);
        scene.event(Event::WorkerReady(0));
    }
}

#[test]
fn a_worker_that_others_kill_before_it_is_ready_is_not_held_to_be_broken() {
    let shot = End::Killed { signal: 9, core_dumped: false };
    let mut scene = Scene::running(1);
    for delay in [0, 100, 200, 400, 500, 500].map(millis) {
        scene.ended(0, shot);
        assert_eq!(scene.restart_delay(), delay);
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
    assert_eq!(scene.pool.rules.delay_after(u32::MAX), secs(10));
}

#[test]
fn a_worker_that_was_healthy_starts_the_count_afresh() {
    let mut scene = Scene::running(1);
    for _ in 0..5 {
        scene.pass(secs(10)); // ready for that long
        scene.ended(0, CRASHED);
        assert_eq!(scene.restart_delay(), Duration::ZERO);
        scene.pass(Duration::ZERO);
        scene.event(Event::WorkerReady(0));
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
    scene.event(Event::ChannelClosed(0));
    scene.event(Event::ChannelClosed(1));
    scene.ended(0, CRASHED); // as the channel said
    assert_eq!(scene.pass(millis(999)), [Fork(0)]);
    assert_eq!(scene.pass(millis(1)), [Kill(1)]);
}

#[test]
fn a_pool_that_never_was_ready_gives_up_when_a_worker_cannot_start() {
    let mut scene = Scene::new(3);
    scene.pass(Duration::ZERO);
    scene.event(Event::WorkerReady(0));
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
    assert_eq!(scene.restart_delay(), millis(100));
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
    assert_eq!(scene.event(Event::WorkerReady(0)), [], "no start is reported any more");
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
fn signals_without_a_meaning_yet_change_nothing() {
    let mut scene = Scene::running(1);
    assert_eq!(scene.event(Event::Signal(Signal::Unused { name: "SIGHUP" })), []);
    assert_eq!(scene.pool.poll_timeout(), None);
}

/// Whatever happens, in whatever order: no place is forked twice, nobody is killed or told who
/// isn't there, the pool never spins, and a pool that is told to stop ends.
#[test]
fn any_order_of_events_keeps_the_invariants() {
    for seed in 0..2_000_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut pick = move |count: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % count
        };
        let mut scene = Scene::new(3);
        let mut alive = [false; 3];
        let mut finished = false;
        for step in 0..200 {
            let id = pick(3) as usize;
            let end = [CRASHED, CLEAN, CANNOT_START][pick(3) as usize];
            let commands = match pick(12) {
                0..=3 => scene.pass(millis(pick(3_000))),
                4 | 5 if alive[id] => scene.event(Event::WorkerReady(id)),
                6 if alive[id] => scene.event(Event::ChannelClosed(id)),
                7..=9 if alive[id] => {
                    alive[id] = false;
                    scene.ended(id, end)
                }
                10 if step > 100 => scene.event(STOP),
                _ => continue,
            };
            for command in commands {
                assert!(!finished, "seed {seed}: {command:?} after the end");
                match command {
                    Fork(id) => assert!(!std::mem::replace(&mut alive[id], true), "seed {seed}"),
                    Kill(id) | Send(id, _) => assert!(alive[id], "seed {seed}: {command:?}"),
                    Finish(_) => finished = true,
                    ReportReady | Tell(_) | TellOf(..) => {}
                }
            }
            if finished {
                assert_eq!(alive, [false; 3], "seed {seed}");
                break;
            }
        }
    }
}
