//! Each rule of dispatching, as a conversation in virtual time. Connections are numbers.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use super::super::balance::{Candidate, Client, LeastConnections, RoundRobin, Sticky};
use super::Command::{Reclaim, Refuse, Release};
use super::Refusal::{QueueFull, QueueTimeout, Stopping};
use super::*;

const A: Life = Life { worker: 0, number: 1 };
const B: Life = Life { worker: 1, number: 1 };
const C: Life = Life { worker: 2, number: 1 };

/// A dispatcher and its clock. Workers are asked in turn.
struct Scene {
    dispatcher: Dispatcher<u32>,
    now: Instant,
}

impl Scene {
    fn new(balancer: impl Balancer + 'static) -> Scene {
        let config = PoolConfig { queue_max: 3, ..PoolConfig::default() };
        let address = |conn: &u32| Some(Ipv4Addr::from_bits(*conn).into());
        let dispatcher = Dispatcher::new(&config, Box::new(balancer), address);
        Scene { dispatcher, now: Instant::now() }
    }

    /// Workers with room for as many connections each.
    fn with(workers: &[Life], connections_max: u64) -> Scene {
        let mut scene = Scene::new(RoundRobin::new());
        for life in workers {
            scene.dispatcher.handle_worker_ready(*life, 1, connections_max);
        }
        scene
    }

    /// What is to be done now.
    fn poll(&mut self) -> Vec<Command<u32>> {
        let mut commands = Vec::new();
        self.dispatcher.poll_commands(self.now, &mut commands);
        assert!(self.dispatcher.poll_timeout().is_none_or(|at| at > self.now), "it would spin");
        commands
    }

    /// What is to be done when these connections have come.
    fn arrive(&mut self, conns: impl IntoIterator<Item = u32>) -> Vec<Command<u32>> {
        for conn in conns {
            self.dispatcher.handle_connection(conn, Origin::Accepted, self.now);
        }
        self.poll()
    }

    /// What time alone brings. As the master does, wakes up when asked to.
    fn pass(&mut self, time: Duration) -> Vec<Command<u32>> {
        let end = self.now + time;
        let mut commands = Vec::new();
        while let Some(at) = self.dispatcher.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            commands.extend(self.poll());
        }
        self.now = end;
        commands
    }

    /// The batch was sent.
    fn sent(&mut self, life: Life, conns: impl IntoIterator<Item = u32>) -> Vec<Command<u32>> {
        let conns = conns.into_iter().collect();
        self.dispatcher.handle_passed(life, conns, Passed::Sent, self.now);
        self.poll()
    }

    fn full(&mut self, life: Life, conns: impl IntoIterator<Item = u32>) -> Vec<Command<u32>> {
        let conns = conns.into_iter().collect();
        self.dispatcher.handle_passed(life, conns, Passed::Full, self.now);
        self.poll()
    }

    /// This was all that could be read back.
    fn reclaimed(&mut self, life: Life, seqs: Range<u64>) -> Vec<Command<u32>> {
        self.dispatcher.handle_reclaimed(life, &[seqs, 0..0], self.now);
        self.poll()
    }

    /// The worker's page shows so many taken and so many open.
    fn shows(&mut self, life: Life, taken: u64, open: u64) -> Vec<Command<u32>> {
        let progress = Progress { taken, open, ..Progress::default() };
        self.dispatcher.handle_progress(life, progress, self.now);
        self.poll()
    }

    fn gone(&mut self, life: Life, taken: u64) -> Vec<Command<u32>> {
        self.dispatcher.handle_worker_gone(life, taken);
        self.poll()
    }

    /// Nothing is on its way, nothing waits, nobody has to wake up.
    fn assert_at_ease(&self) {
        assert_eq!(self.dispatcher.poll_timeout(), None);
        assert_eq!(self.dispatcher.queue_len(), 0);
        assert!(!self.dispatcher.wants_progress());
    }
}

/// The command to pass connections that were accepted.
fn pass(life: Life, first_seq: u64, conns: impl IntoIterator<Item = u32>) -> Command<u32> {
    let conns: Vec<u32> = conns.into_iter().collect();
    Command::Pass { life, first_seq, origins: vec![Origin::Accepted; conns.len()], conns }
}

fn refuse(conn: u32, why: Refusal) -> Command<u32> {
    Refuse { conn, origin: Origin::Accepted, why }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_connection_is_passed_and_released_when_the_worker_has_it() {
    let mut scene = Scene::with(&[A], 100);
    scene.assert_at_ease();
    assert_eq!(scene.arrive([7]), [pass(A, 1, [7])]);
    assert_eq!(scene.sent(A, [7]), []);
    assert!(scene.dispatcher.wants_progress());
    assert_eq!(scene.shows(A, 1, 1), [Release(vec![7])]);
    scene.assert_at_ease();
}

#[test]
fn a_worker_may_have_taken_it_before_the_sending_is_known_to_be_over() {
    let mut scene = Scene::with(&[A], 100);
    scene.arrive([7, 8, 9]);
    assert_eq!(scene.shows(A, 2, 2), []);
    assert_eq!(scene.sent(A, [7, 8, 9]), [Release(vec![7, 8])]);
    assert_eq!(scene.shows(A, 3, 3), [Release(vec![9])]);
    scene.assert_at_ease();
}

#[test]
fn what_arrives_together_travels_together_and_what_comes_meanwhile_waits_for_the_next_batch() {
    let mut scene = Scene::with(&[A, B], 1000);
    assert_eq!(scene.arrive(0..6), [pass(A, 1, [0, 2, 4]), pass(B, 1, [1, 3, 5])]);
    assert_eq!(scene.arrive(6..10), [], "both are being sent to");
    assert_eq!(scene.sent(B, [1, 3, 5]), [pass(B, 4, [7, 9])]);
    assert_eq!(scene.arrive([10]), []);
    assert_eq!(scene.sent(A, [0, 2, 4]), [pass(A, 4, [6, 8, 10])]);
}

#[test]
fn a_message_has_as_many_as_the_kernel_passes() {
    let mut scene = Scene::with(&[A], 10_000);
    assert_eq!(scene.arrive(0..400), [pass(A, 1, 0..253)]);
    assert_eq!(scene.sent(A, 0..253), [pass(A, 254, 253..400)]);
}

#[test]
fn a_worker_gets_no_more_than_it_may_have_open() {
    let mut scene = Scene::with(&[A], 2);
    assert_eq!(scene.arrive(0..4), [pass(A, 1, [0, 1])]);
    assert_eq!(scene.dispatcher.queue_len(), 2);
    scene.sent(A, [0, 1]);
    assert_eq!(scene.shows(A, 2, 2), [Release(vec![0, 1])], "full, now with open ones");
    assert!(scene.dispatcher.wants_progress(), "somebody waits");
    assert_eq!(scene.shows(A, 2, 1), [pass(A, 3, [2])]);
}

#[test]
fn connections_on_their_way_to_one_worker_are_bounded() {
    let mut scene = Scene::with(&[A], 10_000);
    scene.dispatcher.queue_max = 10_000;
    scene.arrive(0..600);
    assert_eq!(scene.dispatcher.queue_len(), 600 - UNCONFIRMED_MAX);
    scene.sent(A, 0..253);
    let commands = scene.shows(A, 3, 3);
    assert_eq!(commands, [Release(vec![0, 1, 2])]);
    assert_eq!(scene.dispatcher.queue_len(), 600 - UNCONFIRMED_MAX - 3);
}

#[test]
fn a_full_queue_refuses_the_newest() {
    let mut scene = Scene::with(&[A], 1);
    assert_eq!(
        scene.arrive(0..6),
        [refuse(5, QueueFull), refuse(4, QueueFull), pass(A, 1, [0])],
        "one goes, three wait"
    );
    assert_eq!(scene.arrive([6]), [refuse(6, QueueFull)]);
    assert_eq!(scene.dispatcher.queue_len(), 3);
}

#[test]
fn what_is_handed_over_is_never_refused_because_the_queue_is_full() {
    let mut scene = Scene::with(&[], 1);
    let origin = Origin::HandedOver { by: A };
    (0..10).for_each(|conn| scene.dispatcher.handle_connection(conn, origin, scene.now));
    assert_eq!(scene.poll(), []);
    assert_eq!(scene.arrive(10..14), [refuse(13, QueueFull)], "nor do they take others' places");
    (14..20).for_each(|conn| scene.dispatcher.handle_connection(conn, origin, scene.now));
    assert_eq!(scene.arrive([20]), [refuse(20, QueueFull)]);
    assert_eq!(scene.dispatcher.queue_len(), 19);
}

#[test]
fn what_comes_back_is_never_refused_because_the_queue_is_full() {
    let mut scene = Scene::with(&[A], 2);
    scene.arrive(0..5);
    scene.sent(A, [0, 1]);
    assert_eq!(scene.gone(A, 0), []);
    assert_eq!(scene.dispatcher.queue_len(), 5);
    assert_eq!(scene.arrive([5]), [refuse(5, QueueFull)]);
    scene.dispatcher.handle_worker_ready(B, 1, 100);
    assert_eq!(scene.poll(), [pass(B, 1, 0..5)], "in order of arrival");
}

#[test]
fn who_waits_too_long_is_refused_and_those_that_came_back_have_their_first_deadline() {
    let mut scene = Scene::with(&[A], 1);
    scene.arrive([0]);
    scene.sent(A, [0]);
    scene.pass(millis(4_000));
    scene.arrive([1]);
    scene.gone(A, 0);
    assert_eq!(scene.pass(millis(5_999)), []);
    assert_eq!(scene.pass(millis(1)), [refuse(0, QueueTimeout)], "10 s after it came");
    assert_eq!(scene.pass(millis(3_999)), []);
    assert_eq!(scene.pass(millis(1)), [refuse(1, QueueTimeout)]);
    scene.assert_at_ease();
}

#[test]
fn a_worker_that_dies_keeps_what_it_took_and_the_rest_goes_to_others_in_order() {
    let mut scene = Scene::with(&[A, B], 1000);
    scene.arrive(0..8);
    scene.sent(A, [0, 2, 4, 6]);
    scene.sent(B, [1, 3, 5, 7]);
    let commands = scene.gone(A, 2);
    assert_eq!(commands, [pass(B, 5, [4, 6]), Release(vec![0, 2])]);
}

#[test]
fn what_is_being_sent_to_a_worker_that_dies_comes_back_too() {
    let mut scene = Scene::with(&[A], 1000);
    scene.arrive([0, 1]);
    scene.sent(A, [0, 1]);
    scene.arrive([2, 3]); // being sent
    scene.arrive([4]); // next
    scene.gone(A, 1);
    scene.dispatcher.handle_worker_ready(B, 1, 1000);
    assert_eq!(scene.poll(), [pass(B, 1, [1, 4])]);
    assert_eq!(scene.sent(A, [2, 3]), [], "nobody was there to take them");
    assert_eq!(scene.sent(B, [1, 4]), [pass(B, 3, [2, 3])]);
    assert_eq!(scene.dispatcher.workers.len(), 1, "nothing of the dead one is left");
}

#[test]
fn the_dead_and_their_successors_are_not_mistaken_for_each_other() {
    let successor = Life { worker: 0, number: 2 };
    let mut scene = Scene::with(&[A], 1000);
    scene.gone(A, 0);
    scene.dispatcher.handle_worker_ready(successor, 1, 1000);
    assert_eq!(scene.arrive([0]), [pass(successor, 1, [0])]);
    scene.sent(successor, [0]);
    assert_eq!(scene.shows(A, 1, 1), []);
    assert_eq!(scene.gone(A, 1), []);
    assert_eq!(scene.shows(successor, 1, 1), [Release(vec![0])]);
}

#[test]
fn a_worker_that_leaves_gets_nothing_new_and_keeps_what_is_on_its_way() {
    let mut scene = Scene::with(&[A, B], 1000);
    scene.arrive([0, 1]);
    scene.arrive([2, 3]); // each has one in its next batch
    scene.dispatcher.handle_worker_leaving(A);
    assert_eq!(scene.sent(B, [1]), [pass(B, 2, [3, 2])]);
    assert_eq!(scene.sent(A, [0]), []);
    assert_eq!(scene.arrive([4]), []);
    assert_eq!(scene.shows(A, 1, 1), [Release(vec![0])]);
    assert_eq!(scene.sent(B, [3, 2]), [pass(B, 4, [4])]);
}

#[test]
fn a_handed_over_connection_never_goes_back_to_its_giver() {
    let mut scene = Scene::with(&[A, B], 1);
    let origin = Origin::HandedOver { by: A };
    scene.dispatcher.handle_connection(0, origin, scene.now);
    scene.dispatcher.handle_connection(1, origin, scene.now);
    let passed = Command::Pass { life: B, first_seq: 1, origins: vec![origin], conns: vec![0] };
    assert_eq!(scene.poll(), [passed]);
    assert_eq!(scene.arrive([2]), [pass(A, 1, [2])], "others don't wait for it");
    scene.sent(A, [2]);
    scene.sent(B, [0]);
    scene.shows(A, 1, 1);
    scene.shows(B, 1, 1);
    let refused = Refuse { conn: 1, origin, why: QueueTimeout };
    assert_eq!(scene.pass(millis(10_000)), [refused]);
}

#[test]
fn a_worker_that_stalls_loses_what_it_left_to_one_with_room() {
    let mut scene = Scene::with(&[A, B], 1000);
    scene.arrive([0, 1, 2]);
    scene.sent(A, [0, 2]);
    scene.sent(B, [1]);
    scene.shows(B, 1, 1);
    assert_eq!(scene.pass(millis(9)), []);
    assert_eq!(scene.pass(millis(1)), [Reclaim { life: A }]);
    assert_eq!(scene.arrive([3, 4]), [pass(B, 2, [3, 4])], "nothing more to the one that stalls");
    scene.sent(B, [3, 4]);
    scene.shows(B, 3, 3);
    assert_eq!(scene.reclaimed(A, 1..3), [pass(B, 4, [0, 2])]);
    scene.sent(B, [0, 2]);
    scene.shows(B, 5, 5);
    scene.assert_at_ease();
}

#[test]
fn one_that_has_nothing_left_to_take_is_tried_with_one_connection() {
    let mut scene = Scene::with(&[A, B], 1000);
    scene.arrive([0]);
    scene.sent(A, [0]);
    assert_eq!(scene.pass(STALLED_AFTER), [Reclaim { life: A }]);
    assert_eq!(scene.reclaimed(A, 1..2), [pass(B, 1, [0])]);
    scene.sent(B, [0]);
    scene.shows(B, 1, 1);
    scene.assert_at_ease();
    scene.pass(REST);
    assert_eq!(scene.arrive(10..14), [pass(A, 2, [10]), pass(B, 2, [11, 12, 13])]);
    scene.sent(A, [10]);
    scene.sent(B, [11, 12, 13]);
    scene.shows(B, 4, 4);
    scene.shows(A, 2, 1);
    assert_eq!(scene.arrive(20..24), [pass(A, 3, [20, 22]), pass(B, 5, [21, 23])]);
}

#[test]
fn one_that_is_known_to_hang_is_not_tried() {
    let mut scene = Scene::with(&[A, B], 100);
    scene.arrive([1]);
    scene.sent(A, [1]);
    scene.pass(STALLED_AFTER);
    scene.dispatcher.handle_stuck(A, true);
    assert_eq!(scene.reclaimed(A, 1..2), [pass(B, 1, [1])]);
    scene.sent(B, [1]);
    scene.shows(B, 1, 0);
    for conn in 2..20 {
        scene.pass(REST);
        assert_eq!(scene.arrive([conn]), [pass(B, conn.into(), [conn])], "B alone");
        scene.sent(B, [conn]);
        scene.shows(B, conn.into(), 0);
    }
    scene.dispatcher.handle_stuck(A, false);
    scene.pass(REST);
    assert_eq!(scene.arrive([20]), [pass(A, 2, [20])], "it is tried");
}

#[test]
fn a_worker_that_stalls_is_asked_again_but_not_in_haste() {
    let mut scene = Scene::with(&[A, B], 1000);
    scene.arrive([0]);
    scene.sent(A, [0]);
    assert_eq!(scene.pass(STALLED_AFTER), [Reclaim { life: A }]);
    assert_eq!(scene.pass(millis(50)), [], "one at a time");
    assert_eq!(scene.reclaimed(A, 0..0), [Reclaim { life: A }]);
    assert_eq!(scene.reclaimed(A, 0..0), []);
    assert_eq!(scene.pass(millis(9)), []);
    assert_eq!(scene.pass(millis(1)), [Reclaim { life: A }]);
    assert_eq!(scene.shows(A, 1, 1), [], "too late to say whether it took that or what came after");
    assert_eq!(scene.reclaimed(A, 0..0), [Release(vec![0])]);
    assert_eq!(scene.arrive([1, 2]).len(), 2, "it is trusted again");
}

#[test]
fn a_worker_that_takes_one_after_the_other_does_not_stall() {
    let mut scene = Scene::with(&[A, B], 1000);
    scene.dispatcher.handle_worker_leaving(B);
    scene.arrive(0..10);
    scene.sent(A, 0..10);
    scene.dispatcher.handle_worker_ready(C, 1, 1000);
    for taken in 1..=10 {
        assert_eq!(scene.pass(millis(9)), []);
        assert_eq!(scene.shows(A, taken, taken), [Release(vec![taken as u32 - 1])]);
    }
    scene.assert_at_ease();
}

#[test]
fn when_all_stall_nothing_is_moved_about_until_one_takes_again() {
    let mut scene = Scene::with(&[A, B], 1000);
    scene.arrive([0, 1]);
    scene.sent(A, [0]);
    scene.sent(B, [1]);
    assert_eq!(scene.pass(millis(1_000)), []);
    assert_eq!(scene.dispatcher.poll_timeout(), None, "only a worker can change it");
    assert!(scene.dispatcher.wants_progress());
    assert_eq!(scene.arrive([2]), []);
    assert_eq!(scene.dispatcher.queue_len(), 1);
    let commands = scene.shows(B, 1, 1);
    assert_eq!(commands, [pass(B, 2, [2]), Reclaim { life: A }, Release(vec![1])]);
}

#[test]
fn a_full_channel_gives_back_all_and_rests() {
    let mut scene = Scene::with(&[A, B], 1000);
    scene.arrive([0, 1]);
    scene.sent(B, [1]);
    scene.arrive([2, 3]);
    scene.sent(B, [3]);
    assert_eq!(scene.full(A, [0]), [pass(B, 3, [0, 2])], "and what had collected meanwhile");
    scene.shows(B, 2, 2);
    assert_eq!(scene.arrive([4]), [], "in B's next batch");
    assert_eq!(scene.sent(B, [0, 2]), [pass(B, 5, [4])]);
    scene.shows(A, 0, 1);
    assert_eq!(scene.arrive([5]), [pass(A, 2, [5])], "its own connection: it is at work");
}

#[test]
fn a_full_channel_of_the_only_worker_is_tried_again_without_a_hurry() {
    let mut scene = Scene::with(&[A], 1000);
    scene.arrive([0, 1]);
    assert_eq!(scene.full(A, [0, 1]), []);
    assert_eq!(scene.pass(millis(99)), []);
    assert_eq!(scene.pass(millis(1)), [pass(A, 3, [0])]);
    scene.sent(A, [0]);
    assert_eq!(scene.shows(A, 3, 1), [pass(A, 4, [1]), Release(vec![0])]);
}

#[test]
fn what_a_worker_has_no_descriptors_for_goes_to_another_until_it_closes_some() {
    let mut scene = Scene::with(&[A, B], 1000);
    scene.arrive(0..6);
    scene.sent(A, [0, 2, 4]);
    scene.sent(B, [1, 3, 5]);
    scene.shows(B, 3, 3);
    // The page runs ahead of the message that says which two of three it lacks.
    let progress = Progress { taken: 1, open: 1, refused_total: 2, closed_total: 0 };
    scene.dispatcher.handle_progress(A, progress, scene.now);
    assert_eq!(scene.poll(), []);
    scene.dispatcher.handle_refused(A, 2, 2, scene.now);
    assert_eq!(scene.poll(), [pass(B, 4, [2, 4]), Release(vec![0])]);
    scene.sent(B, [2, 4]);
    scene.shows(B, 5, 5);
    assert_eq!(scene.arrive([6, 7]), [pass(B, 6, [6, 7])]);
    scene.dispatcher.handle_progress(
        A,
        Progress { open: 0, closed_total: 1, ..progress },
        scene.now,
    );
    assert_eq!(scene.arrive([8, 9]), [pass(A, 4, [8])], "the other one is in B's next batch");
}

#[test]
fn at_a_stop_nothing_waits() {
    let mut scene = Scene::with(&[A], 2);
    scene.arrive(0..3);
    scene.dispatcher.begin_stop();
    assert_eq!(scene.poll(), [refuse(2, Stopping)]);
    scene.sent(A, [0, 1]);
    scene.shows(A, 2, 1);
    assert_eq!(scene.arrive([3, 4]), [refuse(4, Stopping), pass(A, 3, [3])]);
    scene.dispatcher.handle_worker_leaving(A);
    assert_eq!(scene.arrive([5]), [refuse(5, Stopping)]);
    scene.sent(A, [3]);
    assert_eq!(scene.gone(A, 2), [refuse(3, Stopping)]);
    scene.assert_at_ease();
}

#[test]
fn the_queue_waits_for_the_first_worker() {
    let mut scene = Scene::with(&[], 0);
    assert_eq!(scene.arrive([0, 1]), []);
    scene.dispatcher.handle_worker_ready(A, 1, 1000);
    assert_eq!(scene.poll(), [pass(A, 1, [0, 1])]);
}

#[test]
fn the_fewest_connections_are_by_the_page_and_what_is_on_its_way() {
    let mut scene = Scene::new(LeastConnections::new());
    scene.dispatcher.handle_worker_ready(B, 1, 1000);
    scene.dispatcher.handle_worker_ready(A, 1, 1000);
    scene.shows(A, 0, 4); // it accepts, too
    scene.shows(B, 0, 2);
    assert_eq!(scene.arrive(0..4), [pass(A, 1, [2]), pass(B, 1, [0, 1, 3])]);
}

#[test]
fn a_sticky_client_rather_waits_for_its_worker() {
    let mut scene = Scene::new(Sticky::new(1));
    for life in [A, B] {
        scene.dispatcher.handle_worker_ready(life, 1, 1000);
    }
    let arrived = scene.arrive([1]);
    let Command::Pass { life, .. } = arrived[0] else { panic!("{arrived:?}") };
    scene.sent(life, [1]);
    assert_eq!(scene.pass(millis(999)), []);
    assert_eq!(scene.pass(millis(1)), [Reclaim { life }]);
}

#[test]
fn a_sticky_clients_connections_meet_in_one_worker_while_it_is_there() {
    let mut scene = Scene::new(Sticky::new(5));
    for life in [A, B, C] {
        scene.dispatcher.handle_worker_ready(life, 1, 1000);
    }
    let [Command::Pass { life: home, .. }] = scene.arrive([77; 3])[..] else {
        panic!("all to one")
    };
    scene.sent(home, [77; 3]);
    assert_eq!(scene.gone(home, 3), [Release(vec![77; 3])]);
    let [Command::Pass { life: second, .. }] = scene.arrive([77])[..] else { panic!("to one") };
    assert_ne!(home, second);
}

/// A balancer that writes down what it is told, and chooses as it is told.
#[derive(Clone, Default)]
struct Scripted {
    answer: Rc<RefCell<Option<usize>>>,
    heard: Rc<RefCell<Vec<(&'static str, usize)>>>,
}

impl Balancer for Scripted {
    fn select(&mut self, _client: &Client<'_>, _candidates: &[Candidate]) -> Option<usize> {
        *self.answer.borrow()
    }
    fn on_connection_established(&mut self, worker_id: usize) {
        self.heard.borrow_mut().push(("established", worker_id));
    }
    fn on_connection_closed(&mut self, worker_id: usize) {
        self.heard.borrow_mut().push(("closed", worker_id));
    }
    fn on_worker_removed(&mut self, worker_id: usize) {
        self.heard.borrow_mut().push(("removed", worker_id));
    }
    fn reset(&mut self) {
        self.heard.borrow_mut().push(("reset", 0));
    }
}

#[test]
fn a_balancer_that_begins_anew_hears_what_is_open() {
    let first = Scripted::default();
    *first.answer.borrow_mut() = Some(0);
    let mut scene = Scene::new(first.clone());
    scene.dispatcher.handle_worker_ready(A, 1, 1000);
    scene.arrive([0, 1, 2]);
    scene.sent(A, [0, 1, 2]);
    let progress = Progress { taken: 3, open: 2, closed_total: 1, refused_total: 0 };
    scene.dispatcher.handle_progress(A, progress, scene.now);
    first.heard.take();
    let config = PoolConfig::default();
    scene.dispatcher.configure(&config, Balancing::AsBefore);
    assert!(first.heard.take().is_empty(), "nothing has changed");
    scene.dispatcher.configure(&config, Balancing::Anew);
    let established = ("established", 0);
    assert_eq!(first.heard.take(), [("reset", 0), established, established]);
    let second = Scripted::default();
    scene.dispatcher.configure(&config, Balancing::By(Box::new(second.clone())));
    assert_eq!(second.heard.take(), [established, established]);
    scene.gone(A, 3);
    assert_eq!(second.heard.take(), [("closed", 0), ("closed", 0), ("removed", 0)]);
    assert!(first.heard.take().is_empty(), "that is over");
}

#[test]
fn another_limit_of_the_queue_counts_from_now_on_and_another_time_for_all() {
    let mut scene = Scene::with(&[], 1000);
    scene.arrive(0..3);
    scene.pass(millis(50));
    let config =
        |queue_max, queue_timeout| PoolConfig { queue_max, queue_timeout, ..PoolConfig::default() };
    scene.dispatcher.configure(&config(2, millis(100)), Balancing::AsBefore);
    assert_eq!(scene.arrive([5]), [refuse(5, Refusal::QueueFull)]);
    assert_eq!(scene.pass(millis(49)), []);
    scene.dispatcher.configure(&config(7, millis(200)), Balancing::AsBefore);
    assert_eq!(scene.arrive([6]), []);
    assert_eq!(scene.pass(millis(100)), []);
    let refused: Vec<_> = (0..3).map(|conn| refuse(conn, Refusal::QueueTimeout)).collect();
    assert_eq!(scene.pass(millis(1)), refused);
    assert_eq!(scene.pass(millis(99)), [refuse(6, Refusal::QueueTimeout)]);
}

#[test]
fn a_balancer_may_let_connections_wait_and_may_be_wrong() {
    let script = Scripted::default();
    let mut scene = Scene::new(script.clone());
    scene.dispatcher.handle_worker_ready(A, 1, 1000);
    assert_eq!(scene.arrive([0]), []);
    *script.answer.borrow_mut() = Some(1); // nobody is there
    assert_eq!(scene.arrive([1]), []);
    *script.answer.borrow_mut() = Some(0);
    assert_eq!(scene.poll(), [pass(A, 1, [0, 1])]);
}

#[test]
fn a_balancer_hears_of_the_end_of_each_connection_whatever_became_of_its_worker() {
    let next = Life { number: 2, ..A };
    for (closed_total, has_successor) in [(0, false), (0, true), (2, true), (3, false)] {
        let script = Scripted::default();
        *script.answer.borrow_mut() = Some(0);
        let mut scene = Scene::new(script.clone());
        scene.dispatcher.handle_worker_ready(A, 1, 1000);
        scene.arrive([0, 1, 2]);
        scene.sent(A, [0, 1, 2]);
        let progress =
            Progress { taken: 3, open: 3 - closed_total, closed_total, refused_total: 0 };
        scene.dispatcher.handle_progress(A, progress, scene.now);
        if has_successor {
            scene.dispatcher.handle_worker_ready(next, 1, 1000);
        }
        scene.gone(A, 3);
        let heard = script.heard.take();
        let count = |what| heard.iter().filter(|heard| **heard == (what, 0)).count();
        assert_eq!((count("established"), count("closed")), (3, 3), "{closed_total} were closed");
        assert_eq!(count("removed"), usize::from(!has_successor));
    }
}

#[test]
fn a_balancer_hears_of_connections_and_workers() {
    let script = Scripted::default();
    *script.answer.borrow_mut() = Some(0);
    let mut scene = Scene::new(script.clone());
    scene.dispatcher.handle_worker_ready(C, 1, 1000);
    scene.arrive([0, 1]);
    scene.sent(C, [0, 1]);
    assert!(script.heard.take().is_empty(), "only on their way");
    let progress = Progress { taken: 2, open: 0, closed_total: 2, refused_total: 0 };
    scene.dispatcher.handle_progress(C, progress, scene.now);
    scene.dispatcher.handle_progress(C, progress, scene.now);
    let heard = ["established", "established", "closed", "closed"].map(|what| (what, 2));
    assert_eq!(script.heard.take(), heard);
    scene.dispatcher.handle_worker_ready(Life { number: 2, ..C }, 1, 1000);
    scene.gone(C, 2);
    assert!(script.heard.take().is_empty(), "its successor has the place already");
    scene.gone(Life { number: 2, ..C }, 0);
    assert_eq!(script.heard.take(), [("removed", 2)]);
}
