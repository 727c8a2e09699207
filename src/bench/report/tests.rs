//! What is written can be read: by people, by other tools, by a browser.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;
use crate::bench::record::times;
use crate::bench::summary::synthetic::Synthetic;
use crate::bench::summary::{WarmupWish, compare};

fn stalled() -> Summary {
    Synthetic { stall: Some((3_000, 4_000)), cold_until: 800, ..Synthetic::open(2_000.0, 10) }
        .summary()
}

fn hung() -> Summary {
    Synthetic { hangs_from: Some(4), fails_every: Some(50), ..Synthetic::open(1_000.0, 6) }
        .summary()
}

#[test]
fn the_text_says_what_matters_in_few_lines_of_80_columns() {
    for run in [stalled(), hung(), Synthetic::closed(64, 2).summary()] {
        let text = text(&run, false);
        println!("{text}");
        assert!(text.lines().count() <= 30);
        let wide = text.lines().filter(|line| line.chars().count() > 80).collect::<Vec<_>>();
        assert!(wide.is_empty(), "{wide:?}");
        for part in [run.verdict.status.text(), "p99.9", "rate", "ok", "failed", "unfinished"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains('\x1b'));
    }
    assert!(text(&stalled(), false).contains("warm-up"));
    assert!(text(&hung(), false).contains("≥"));
    assert!(text(&hung(), false).contains("503"));
    assert!(text(&stalled(), true).contains("\x1b[1;32mVALID\x1b[0m"));
}

#[test]
fn a_comparison_says_what_is_noise() {
    let base = Synthetic::open(2_000.0, 10).summary();
    let slow = Synthetic { seed: 2, slower: 1.2, ..Synthetic::open(2_000.0, 10) }.summary();
    let text = changes(&compare(&base, &slow), false);
    println!("{text}");
    assert!(text.contains("worse by") && text.contains("noise"));
}

#[test]
fn an_interval_log_has_every_answer() {
    let run = Synthetic::open(1_000.0, 3).summary();
    let log = hlog(&run);
    let (mut untagged, mut tagged) = (times(), 0);
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            let bytes = base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                interval.encoded_histogram(),
            );
            let read: Histogram<u64> =
                Deserializer::new().deserialize(&mut &bytes.unwrap()[..]).unwrap();
            match interval.tag() {
                None => untagged.add(read).unwrap(),
                Some(_) => tagged += read.len(),
            }
        }
    }
    assert_eq!((untagged.len(), tagged), (3_000, 6_000));
    assert_eq!(&untagged, run.response().known());
}

#[test]
fn the_series_is_a_table() {
    let run = stalled();
    let text = csv(&run);
    let lines: Vec<Vec<&str>> = text
        .split("\r\n")
        .filter(|line| !line.is_empty())
        .map(|line| line.split(',').collect())
        .collect();
    assert_eq!(lines.len(), run.series.len() + 1);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()));
    assert!(lines[1..9].iter().all(|line| line[1] == "true") && lines[20][1] == "false");
}

#[test]
fn the_page_needs_nothing_else_and_escapes_what_it_is_told() {
    let (mut setup, record, mut measured) = Synthetic::open(1_000.0, 3).parts();
    setup.targets =
        vec!["GET http://h/<script>alert('1')</script>?a&b".to_owned(), "\"x\"".to_owned()];
    setup.command = vec!["bench".to_owned(), "<img src=x>".to_owned()];
    measured.server.as_mut().unwrap().name = "</section><script>".to_owned();
    let page = html(&Summary::new(setup, record, measured));
    for markup in ["<script", "<img", "http-equiv", "url(", "@import", "<link"] {
        assert!(!page.contains(markup), "{markup}");
    }
    assert!(page.contains("&lt;script&gt;"));
    assert!(!page.contains("NaN") && !page.contains("inf"));
    for tag in ["section", "table", "svg", "dl", "ul", "p", "tr", "div"] {
        let count = |text: &str| page.matches(text).count();
        let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
        assert_eq!(opened, count(&format!("</{tag}>")), "{tag}");
    }
}

#[test]
fn runs_with_nothing_in_them_have_a_report_too() {
    let record =
        crate::bench::record::Collector::new(crate::bench::record::Settings::default()).finish([]);
    let nothing =
        Summary::new(Setup::default(), record, crate::bench::measure::Measured::default());
    let endless =
        Synthetic { warmup: WarmupWish::Fixed(u64::MAX), ..Synthetic::open(10.0, 1) }.summary();
    for run in [nothing, endless] {
        assert!(text(&run, true).contains("rate"));
        assert!(markdown(&run).contains("p99"));
        let page = html(&run);
        assert!(page.ends_with("</html>") && !page.contains("NaN"));
        csv(&run);
        hlog(&run);
    }
}

#[test]
fn sparklines_go_from_nothing_to_the_most() {
    assert_eq!(sparkline(&[0.0, 0.01, 4.0, 8.0], 4), "·▁▄█");
    assert_eq!(sparkline(&[1.0; 100], 3), "███");
    assert_eq!(sparkline(&[0.0; 3], 9), "···");
}

/// To look at: `REPORT_PAGES=/tmp cargo test --lib pages_to_look_at`.
#[test]
fn pages_to_look_at() {
    let Some(directory) = std::env::var_os("REPORT_PAGES") else { return };
    let pages =
        [("stalled", stalled()), ("hung", hung()), ("closed", Synthetic::closed(64, 5).summary())];
    for (name, run) in pages {
        let path = std::path::Path::new(&directory).join(name);
        std::fs::write(path.with_extension("html"), html(&run)).unwrap();
        std::fs::write(path.with_extension("json"), run.to_json()).unwrap();
    }
}
