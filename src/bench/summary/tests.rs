//! Runs whose figures follow from arithmetic.

use super::synthetic::Synthetic;
use super::*;

const MILLI: u64 = 1_000_000;

fn near(found: Option<u64>, expected: u64, part: f64) {
    let found = found.expect("enough samples");
    let error = (found as f64 / expected as f64 - 1.0).abs();
    assert!(error <= part, "{found} instead of {expected}");
}

/// The test of honesty: of a stalled server, most load generators report a few milliseconds.
#[test]
fn a_stall_is_in_the_percentiles_as_arithmetic_has_it() {
    // For 1 s of 4 s nothing is answered: 1,000 of 4,000 requests wait 0 to 1 s.
    let run = Synthetic { stall: Some((1_500, 2_500)), ..Synthetic::open(1_000.0, 4) }.summary();
    assert_eq!(run.window.warmup_answers, 0, "a stall is no warm-up");
    near(run.latency.response.p90, 600 * MILLI, 0.05);
    near(run.latency.response.p99, 960 * MILLI, 0.05);
    // For 2.5 s of 5 s: half of them wait 0 to 2.5 s.
    let run = Synthetic { stall: Some((1_000, 3_500)), ..Synthetic::open(1_000.0, 5) }.summary();
    near(run.latency.response.p90, 2_000 * MILLI, 0.05);
    near(run.latency.response.p99, 2_450 * MILLI, 0.05);
}

#[test]
fn a_server_that_hangs_for_good_shows_lower_bounds() {
    let run = Synthetic { hangs_from: Some(2), ..Synthetic::open(1_000.0, 4) }.summary();
    let response = &run.latency.response;
    assert_eq!(run.counts.offered, 4_000);
    assert!((1_998..=2_002).contains(&run.counts.unfinished), "{:?}", run.counts);
    assert_eq!(run.counts.offered, run.counts.ok + run.counts.failed + run.counts.unfinished);
    assert!(response.is_at_least("p90") && response.is_at_least("p99"), "{:?}", response.at_least);
    near(response.p99, 1_960 * MILLI, 0.05);
    assert_eq!(response.censored, run.counts.unfinished);
    assert_eq!(run.verdict.status, Status::Suspect);
    assert_eq!(run.verdict.reasons[0].rule, "unfinished");
}

#[test]
fn a_cold_begin_is_dropped_and_shown() {
    let run = Synthetic { cold_until: 1_000, ..Synthetic::open(2_000.0, 10) }.summary();
    assert!((10..=11).contains(&(run.window.from / (100 * MILLI))), "{:?}", run.window);
    assert!((1_900..=2_300).contains(&run.window.warmup_answers), "{:?}", run.window);
    assert!(run.window.warmup_p50 > run.latency.response.p99, "it was ten times as slow");
    assert_eq!(run.counts.ok, 20_000, "counts are those of the whole run");
    assert_eq!(run.window.answers + run.window.warmup_answers, run.counts.ok);
    let all = Synthetic { warmup: WarmupWish::Fixed(0), ..Synthetic::open(2_000.0, 10) }.summary();
    assert_eq!(all.window.from, 0);
    let wish = WarmupWish::Fixed(3 * 1_000 * MILLI);
    let fixed = Synthetic { warmup: wish, ..Synthetic::open(2_000.0, 10) }.summary();
    assert_eq!(fixed.window.from, 3_000 * MILLI);
    near(Some(fixed.window.answers), 14_000, 0.01);
    let endless = WarmupWish::Fixed(u64::MAX);
    let nothing = Synthetic { warmup: endless, ..Synthetic::open(2_000.0, 1) }.summary();
    assert_eq!((nothing.window.from, nothing.window.to), (1_000 * MILLI, 1_000 * MILLI));
    assert!(nothing.rate.abs() < 1e-9);
}

#[test]
fn rates_and_cpu_are_those_of_the_window() {
    let run = Synthetic::open(1_000.0, 10).summary();
    assert!((run.rate - 1_000.0).abs() < 5.0, "{}", run.rate);
    assert!((run.offered_rate - 1_000.0).abs() < 1.0);
    // A third of a core over 1,000 requests a second.
    let client = run.cpu.client_us_per_request.unwrap();
    assert!((client - 333.3).abs() < 2.0, "{client}");
    assert!((run.cpu.client_cores.unwrap() - 1.0 / 3.0).abs() < 0.001);
    assert!((run.machine.idle.unwrap() - 0.5).abs() < 0.001);
    assert!(run.fairness.connections.unwrap() > 0.99);
    assert_eq!(run.fairness.connection_answers, Some((156, 157)));
    assert_eq!(run.verdict.status, Status::Valid, "{:?}", run.verdict.reasons);
    assert_eq!(run.verdict.limiter, Limiter::Schedule);
}

#[test]
fn a_closed_loop_has_no_wait_and_one_latency() {
    let run = Synthetic::closed(16, 3).summary();
    assert_eq!((run.latency.wait.count, run.latency.wait.p50), (0, None));
    assert_eq!(run.latency.response, run.latency.service);
    assert!(run.counts.ok > 10_000);
}

#[test]
fn unexpected_answers_are_failures_and_no_throughput() {
    let run = Synthetic { fails_every: Some(10), ..Synthetic::open(1_000.0, 5) }.summary();
    assert_eq!((run.counts.ok, run.counts.failed), (4_500, 500));
    assert_eq!(run.counts.statuses["503"], 500);
    assert_eq!(run.counts.faults[&Fault::Status], 500);
    assert!((run.rate - 900.0).abs() < 10.0);
    assert_eq!(run.latency.unexpected.count, 500);
    assert_eq!(run.verdict.status, Status::Invalid);
}

#[test]
fn the_series_adds_up() {
    let run = Synthetic { stall: Some((1_000, 2_000)), ..Synthetic::open(1_000.0, 4) }.summary();
    let width = run.record.slot_nanos as f64 / 1e9;
    let whole = run.series.iter().take(40).map(|point| point.ok * width).sum::<f64>();
    assert!((whole - 4_000.0).abs() < 3.0, "{whole}");
    assert!(run.series[15].ok.abs() < 1e-9, "nothing in the stall");
    assert!(run.series[15].p50.is_none());
    assert!(run.series[20].max.unwrap() > 900 * MILLI, "all of it after");
    assert!(run.series[5].server_cores.is_some());
}

#[test]
fn the_document_reads_itself_again() {
    for run in [
        Synthetic { hangs_from: Some(1), fails_every: Some(9), ..Synthetic::open(1_000.0, 2) },
        Synthetic::closed(8, 1),
        Synthetic { warmup: WarmupWish::Fixed(500_000_000), ..Synthetic::open(123.456, 2) },
    ] {
        let summary = run.summary();
        let text = summary.to_json();
        let again = Summary::from_json(&text).unwrap();
        assert_eq!(again, summary);
        assert_eq!(again.to_json(), text);
    }
}

#[test]
fn the_document_has_the_promised_keys() {
    let text = Synthetic::open(1_000.0, 12).summary().to_json();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in ["offered", "sent", "ok", "failed", "unfinished"] {
        assert!(document["counts"][key].is_u64(), "{key}");
    }
    assert!(document["rate"].is_f64());
    for clock in ["response", "service", "wait", "lag", "connect", "ttfb"] {
        for key in ["p50", "p90", "p99", "p999", "max", "histogram"] {
            assert!(document["latency"][clock].get(key).is_some(), "{clock}.{key}");
        }
    }
    assert!(document["latency"]["response"]["p999"].is_u64());
    assert!(document["latency"]["connect"]["p99"].is_null(), "64 connections don't tell");
    for key in ["client_us_per_request", "server_us_per_request"] {
        assert!(document["cpu"][key].is_f64(), "{key}");
    }
    for key in ["status", "reasons", "limiter"] {
        assert!(document["verdict"].get(key).is_some(), "{key}");
    }
    assert_eq!(document["schema"], SCHEMA);
    assert!(document["series"].as_array().is_some_and(|it| it.len() >= 120));
}

#[test]
fn documents_that_are_none_are_refused_in_words() {
    let good = Synthetic::open(100.0, 1).summary().to_json();
    let cases = [
        (String::new(), "no result"),
        ("{}".to_owned(), "no schema"),
        ("[1]".to_owned(), "no result"),
        (good.replace(SCHEMA, "uring-pool-bench/99"), "bench/99"),
        (good.replace("HISTFA", "AAAAAA"), "histogram"),
        (good.replace("\"slot_nanos\":", "\"slot_nanos\":0,\"x\":"), "no length"),
        (good[..good.len() / 2].to_owned(), "no result"),
    ];
    for (text, hint) in cases {
        let Err(refusal) = Summary::from_json(&text) else { panic!("{hint} is not refused") };
        assert!(refusal.contains(hint), "{refusal} instead of {hint}");
    }
}

#[test]
fn results_of_generators_add_up() {
    let one = Synthetic { seed: 1, ..Synthetic::open(1_000.0, 5) }.summary();
    let two = Synthetic { seed: 2, ..Synthetic::open(500.0, 5) }.summary();
    let both = one.merge([two]).unwrap();
    assert_eq!((both.counts.ok, both.setup.connections), (7_500, 128));
    assert!((both.rate - 1_500.0).abs() < 10.0);
    assert!(matches!(both.setup.load, Load::Open { rate, .. } if (rate - 1_500.0).abs() < 1e-9));
    assert_eq!(
        both.cpu,
        Cpu { client_enters_per_request: both.cpu.client_enters_per_request, ..Cpu::default() }
    );
}

/// What made one generator's figures doubtful isn't forgotten, though it was seen on its machine.
#[test]
fn a_doubtful_generator_makes_the_whole_doubtful() {
    let (setup, record, mut measured) = Synthetic::open(1_000.0, 5).parts();
    for sample in &mut measured.samples {
        sample.client_waited = sample.at / 2;
    }
    let starved = Summary::new(setup, record, measured);
    assert_eq!(starved.verdict.status, Status::Invalid);
    let sound = Synthetic { seed: 2, ..Synthetic::open(500.0, 5) }.summary();
    let both = sound.clone().merge([starved]).unwrap();
    assert_eq!(both.verdict.status, Status::Invalid);
    let texts: Vec<&str> = both.verdict.reasons.iter().map(|it| it.text.as_str()).collect();
    assert!(
        matches!(texts[..], [one] if one.starts_with("generator 2: a load thread")),
        "{texts:?}"
    );
    assert_eq!(Summary::from_json(&both.to_json()).unwrap().verdict, both.verdict);
    assert!(sound.clone().merge([Synthetic::closed(4, 5).summary()]).is_err());
    let mut late = Synthetic { seed: 3, ..Synthetic::open(500.0, 5) }.summary();
    late.setup.started_at += 60;
    let apart = sound.merge([late]).unwrap();
    assert!(apart.verdict.reasons.iter().any(|it| it.rule == "apart"), "{:?}", apart.verdict);
}

/// Few answers each, or places that differ, say nothing about how evenly connections are served.
#[test]
fn connections_are_judged_where_they_could_be_served_alike() {
    let unfair = |connections: u64, places| {
        let (mut setup, mut record, measured) = Synthetic::open(1_000.0, 5).parts();
        let share = record.connections[0];
        record.connections = vec![Share { answers: 0, ..share }; connections as usize];
        record.connections[0].answers = 5_000;
        setup.places = places;
        let summary = Summary::new(setup, record, measured);
        summary.verdict.reasons.iter().any(|it| it.rule == "unfair")
    };
    assert!(unfair(100, 1), "all to one of a hundred");
    assert!(!unfair(1_000, 1), "five answers each");
    assert!(!unfair(100, 2), "one place may be asked more than the other");
}

/// The generator's own shortage is told as such.
#[test]
fn a_generator_without_ports_is_invalid_and_no_failure_of_the_target() {
    let (setup, mut record, measured) = Synthetic::open(1_000.0, 5).parts();
    record.slots[3].counts.connect_failures = 7;
    record.slots[3].counts.connect_faults[Fault::NoPort as usize] = 7;
    let summary = Summary::new(setup, record, measured);
    assert_eq!((summary.counts.own_failures(), summary.verdict.status), (7, Status::Invalid));
    assert_eq!(summary.verdict.reasons[0].rule, "own_failures");
}

#[test]
fn an_empty_run_is_no_catastrophe() {
    let collector = crate::bench::record::Collector::new(crate::bench::record::Settings::default());
    let record = collector.finish([]);
    let summary = Summary::new(Setup::default(), record, Measured::default());
    assert_eq!(
        (summary.verdict.status, summary.verdict.limiter),
        (Status::Invalid, Limiter::Failure)
    );
    assert_eq!(Summary::from_json(&summary.to_json()).unwrap(), summary);
}
