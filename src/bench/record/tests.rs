//! What recorders write is what the collector reads: nothing is lost, doubled or moved.

use super::*;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

fn answer(intended: u64, sent: u64, done: u64) -> Answer {
    Answer {
        intended,
        sent,
        first_byte: done,
        done,
        bytes: 100,
        status: 200,
        target: 0,
        connection: 0,
        count: 1,
    }
}

fn whole(record: &Record, clock: Clock) -> (u64, u64) {
    let times = record.times(clock, 0);
    (times.len(), times.max())
}

#[test]
fn the_three_clocks_start_and_stop_where_they_should() {
    let mut collector = Collector::new(Settings::default());
    let mut recorder = collector.recorder(1, 1);
    recorder.on_send(30, 5, 80, 1);
    recorder.on_answer(&Answer { first_byte: 70, ..answer(10, 30, 100) });
    let record = collector.finish([recorder.finish(200)]);
    assert_eq!(whole(&record, Clock::Wait), (1, 20));
    assert_eq!(whole(&record, Clock::Service), (1, 70));
    assert_eq!(whole(&record, Clock::Response), (1, 90));
    assert_eq!(whole(&record, Clock::Lag), (1, 5));
    assert_eq!(whole(&record, Clock::FirstByte), (1, 40));
    assert_eq!(record.end, 200);
}

#[test]
fn a_request_without_an_answer_has_waited_until_now() {
    let mut collector = Collector::new(Settings::default());
    let mut recorder = collector.recorder(1, 1);
    recorder.on_unfinished(1_000, Some(1_200), 2_000);
    recorder.on_unfinished(1_500, None, 2_000);
    let failure = Failure {
        intended: 100,
        sent: Some(150),
        at: 400,
        fault: Fault::Timeout,
        target: 0,
        connection: 0,
    };
    recorder.on_failure(&failure);
    recorder.on_failure(&Failure { sent: None, fault: Fault::Refused, ..failure });
    let record = collector.finish([recorder.finish(2_000)]);
    assert_eq!(whole(&record, Clock::ResponseAtLeast), (4, 1_000));
    assert_eq!(whole(&record, Clock::ServiceAtLeast), (2, 800));
    assert_eq!(whole(&record, Clock::WaitAtLeast), (2, 500));
    assert_eq!(whole(&record, Clock::Wait), (2, 200));
    let total = record.total();
    assert_eq!((total.unanswered, total.unsent, total.broken, total.dropped), (1, 1, 1, 1));
    assert_eq!(total.faults[Fault::Refused as usize], 1);
    assert_eq!(total.failed() + total.unfinished(), 4);
}

#[test]
fn an_answer_that_was_not_expected_is_kept_apart() {
    let mut collector = Collector::new(Settings::default());
    let mut recorder = collector.recorder(1, 1);
    recorder.on_unexpected(&Answer { status: 503, ..answer(0, 0, 700) }, Fault::Status);
    let record = collector.finish([recorder.finish(1_000)]);
    assert_eq!(whole(&record, Clock::Unexpected), (1, 700));
    assert_eq!(whole(&record, Clock::Response).0, 0);
    assert_eq!((record.statuses[503], record.total().answers), (1, 0));
}

#[test]
fn a_closed_loop_keeps_no_times_that_are_zero() {
    let mut collector = Collector::new(Settings { open_loop: false, expected: None });
    let mut recorder = collector.recorder(1, 1);
    recorder.on_answer(&answer(5, 5, 1_000));
    let record = collector.finish([recorder.finish(2_000)]);
    assert_eq!(whole(&record, Clock::Response).0 + whole(&record, Clock::Wait).0, 0);
    assert_eq!(whole(&record, record.settings.response()), (1, 995));
}

/// Threads that are at different times, a collector that looks now and then, pauses: whatever the
/// order, each answer is counted once, in the slot in which it came.
#[test]
fn every_answer_is_in_its_slot() {
    for rounds_between_looks in [1, 7, 50] {
        let mut collector = Collector::new(Settings::default());
        let span = collector.span();
        let mut recorders: Vec<Recorder> = (0..3).map(|_| collector.recorder(2, 1)).collect();
        let mut expected = vec![0_u64; 100];
        for round in 0..100_u64 {
            for (thread, recorder) in (0..).zip(&mut recorders) {
                if (40..60).contains(&round) && thread == 1 {
                    continue; // it is stuck
                }
                let done = round * span + thread * 1_000 + span / 2;
                recorder.on_answer(&answer(done - 500, done - 500, done));
                expected[round as usize] += 1;
            }
            if round % rounds_between_looks == 0 {
                collector.collect();
            }
        }
        let rests: Vec<Rest> =
            recorders.into_iter().map(|recorder| recorder.finish(100 * span)).collect();
        let record = collector.finish(rests);
        let counts: Vec<u64> = record.slots.iter().map(|slot| slot.counts.answers).collect();
        assert_eq!(counts.iter().sum::<u64>(), expected.iter().sum::<u64>());
        assert_eq!(whole(&record, Clock::Service).0, expected.iter().sum::<u64>());
        if rounds_between_looks == 1 {
            assert_eq!(counts, expected);
            assert_eq!(record.overdue, 0);
        } else {
            assert!(record.overdue > 0 || rounds_between_looks < INTERVALS_ALL);
        }
        assert_eq!(record.connections.len(), 6);
    }
}

/// So many rounds without a look make a recorder run out of intervals.
const INTERVALS_ALL: u64 = 4;

#[test]
fn a_run_that_lasts_longer_than_expected_gets_longer_slots() {
    let mut collector = Collector::new(Settings { open_loop: true, expected: Some(10 * SECOND) });
    let mut recorder = collector.recorder(1, 1);
    assert_eq!(collector.span(), 100 * MILLI);
    for tenth in 0..2_000 {
        let now = tenth * 100 * MILLI;
        recorder.on_answer(&answer(now, now, now + MILLI));
        collector.collect();
    }
    let record = collector.finish([recorder.finish(200 * SECOND)]);
    assert_eq!(record.slot_nanos, 400 * MILLI);
    assert_eq!(record.slots.len(), 500);
    assert!(record.slots.iter().all(|slot| slot.counts.answers == 4));
    assert_eq!(record.counts(250).answers, 1_000);
    assert_eq!(record.times(Clock::Response, 250).len(), 1_000);
}

#[test]
fn slots_suit_the_length_of_the_run() {
    for (seconds, millis) in
        [(1, 100), (59, 100), (100, 200), (250, 500), (599, 1_000), (9_999, 1_000)]
    {
        let expected = Some(seconds * SECOND);
        let collector = Collector::new(Settings { open_loop: true, expected });
        assert_eq!(collector.span(), millis * MILLI, "{seconds} s");
    }
}

#[test]
fn records_of_two_generators_add_up() {
    let run = |expected: u64, target: u32, every: u64| {
        let mut collector =
            Collector::new(Settings { open_loop: true, expected: Some(expected * SECOND) });
        let mut recorder = collector.recorder(1, 3);
        for now in (0..50).map(|number| number * every) {
            recorder.on_answer(&Answer { target, ..answer(now, now, now + every / 2) });
            collector.collect();
        }
        collector.finish([recorder.finish(50 * every)])
    };
    let (fine, coarse) = (run(10, 1, 100 * MILLI), run(100, 99, 200 * MILLI));
    let mut sum = fine.clone();
    sum.add(&coarse);
    let mut same = coarse.clone();
    same.add(&fine);
    assert_eq!(sum.slots, same.slots);
    assert_eq!((sum.total().answers, sum.slot_nanos, sum.end), (100, 200 * MILLI, 10 * SECOND));
    assert_eq!(sum.times(Clock::Response, 0).len(), 100);
    let targets: Vec<u64> = sum.targets.iter().map(|target| target.answers).collect();
    assert_eq!(targets, [0, 50, 0, 50], "what has no place is counted as others");
}

#[test]
fn a_view_sees_what_was_handed_over() {
    let mut collector = Collector::new(Settings::default());
    let mut recorder = collector.recorder(1, 1);
    recorder.gauge(64, 12, 3);
    for tenth in 0..10 {
        let now = tenth * 100 * MILLI;
        recorder.on_answer(&answer(now, now, now + MILLI));
        collector.collect();
    }
    let live = collector.live();
    assert_eq!((live.connections, live.in_flight, live.backlog), (64, 12, 3));
    assert_eq!((live.total.answers, live.response.len()), (9, 9));
    let newest: Vec<u64> = live.newest.iter().map(|interval| interval.from / MILLI).collect();
    assert_eq!(newest, [600, 700, 800]);
}

#[test]
fn recording_allocates_nothing() {
    let mut collector = Collector::new(Settings::default());
    let mut recorder = collector.recorder(64, 1);
    let allocated = allocation_counter::measure(|| {
        for number in 0..100_000_u64 {
            let now = number * 50_000; // 5 s: runs out of intervals and goes on
            recorder.on_send(now, 300, 64, 1);
            recorder.on_answer(&answer(now, now + 300, now + 40_000 + number % 977));
            recorder.gauge(64, 1, 0);
        }
        recorder.on_unfinished(1, None, 5 * SECOND);
    });
    assert_eq!(allocated.count_total, 0);
    assert_eq!(collector.finish([recorder.finish(6 * SECOND)]).total().answers, 100_000);
}

/// Not asserted, since machines differ: `cargo test --release --lib record_takes -- --nocapture`.
#[test]
fn a_record_takes_some_nanoseconds() {
    for open_loop in [false, true] {
        let mut collector = Collector::new(Settings { open_loop, expected: None });
        let mut recorder = collector.recorder(64, 1);
        let rounds = 100_000_u64;
        let mut now = 0;
        let fastest = (0..20).map(|_| {
            let began = std::time::Instant::now();
            for number in 0..rounds {
                now += 90;
                recorder.on_send(now, 300 + (number & 0xff), 64, 1);
                recorder.on_answer(&answer(now, now + 300, now + 40_000 + ((number * 7) & 0xffff)));
            }
            began.elapsed().as_nanos() / u128::from(rounds)
        });
        println!("open loop {open_loop}: {} ns for a request", fastest.min().unwrap());
        assert_eq!(collector.finish([recorder.finish(now)]).total().answers, 20 * rounds);
    }
}
