//! A view fits into whatever room there is, and shows what was recorded.

use ratatui::backend::TestBackend;

use super::*;
use crate::bench::record::{Answer, Collector};

const SECOND: u64 = 1_000_000_000;

/// A run of some seconds, looked at as it goes.
fn watched(open_loop: bool, mut look: impl FnMut(&mut History, &Live<'_>, Duration)) {
    let settings = Settings { open_loop, expected: Some(10 * SECOND) };
    let mut collector = Collector::new(settings);
    let mut recorder = collector.recorder(64, 1);
    let mut history = History {
        title: "GET http://127.0.0.1:8080/".to_owned(),
        load: "64 connections, 1 thread, 5,000/s constant".to_owned(),
        expected: Some(Duration::from_secs(10)),
        requests: None,
        settings,
        slots: VecDeque::new(),
    };
    recorder.gauge(64, 12, 3);
    for number in 0..40_000_u64 {
        let intended = number * 200_000;
        let took =
            300_000 + number * 7_919 % 900_000 + if number % 500 == 0 { 20_000_000 } else { 0 };
        recorder.on_send(intended + 1_000, 1_000, 64, 1);
        recorder.on_answer(&Answer {
            intended,
            sent: intended + 1_000,
            first_byte: intended + took,
            done: intended + took,
            bytes: 180,
            status: 200,
            target: 0,
            connection: 0,
            count: 1,
        });
        if number % 250 == 0 {
            collector.collect();
            look(&mut history, &collector.live(), Duration::from_nanos(intended));
        }
    }
}

fn drawn(history: &History, live: &Live<'_>, elapsed: Duration, size: (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| screen::draw(frame, history, live, elapsed)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn the_screen_shows_rate_times_and_heat() {
    for size in [(80, 24), (200, 50)] {
        let mut last = String::new();
        watched(true, |history, live, elapsed| {
            history.take(live);
            if elapsed > Duration::from_millis(7_900) {
                last = drawn(history, live, elapsed, size);
            }
        });
        println!("{last}");
        for part in ["127.0.0.1", "8 of 10 s", "now", "p99.9", "64 connections", "3 due", "█", "µs"]
        {
            assert!(last.contains(part), "{part}");
        }
        assert!(last.contains("4,999") || last.contains("5,000"), "the rate");
    }
}

#[test]
fn a_number_of_requests_is_shown_as_far_as_it_got() {
    let mut last = String::new();
    watched(false, |history, live, elapsed| {
        history.take(live);
        (history.expected, history.requests) = (None, Some(80_000));
        last = drawn(history, live, elapsed, (80, 24));
    });
    assert!(last.contains(" of 80,000 requests"), "{last}");
}

#[test]
fn every_size_of_terminal_will_do() {
    let mut looks = 0;
    watched(false, |history, live, elapsed| {
        history.take(live);
        looks += 1;
        if looks % 40 == 1 {
            for size in
                (1..60).flat_map(|width| (0..26).step_by(5).map(move |height| (width, height)))
            {
                drawn(history, live, elapsed, size);
            }
        }
    });
}

#[test]
fn lines_are_for_logs() {
    let mut lines = Vec::new();
    watched(true, |history, live, elapsed| {
        history.take(live);
        lines.push(history.line(live, elapsed));
    });
    let last = lines.last().unwrap();
    assert!(last.contains("/s") && last.contains("p99") && last.contains("backlog 3"), "{last}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{last}");
}
