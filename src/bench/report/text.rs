//! The final text: what one must know in five seconds, most important first, 80 columns wide.

use std::fmt::Write;

use super::units::{bytes, count, digits, percent, rate, seconds, time_or_not};
use super::{limiter_words, load_words, target_words, warmup_words};
use crate::bench::record::Fault;
use crate::bench::summary::{Change, Check, Comparison, Status, Summary};

/// Columns of what is wrapped.
const WIDTH: usize = 80;

/// The final text. `is_colored` for a terminal.
pub fn text(summary: &Summary, is_colored: bool) -> String {
    let paint = Paint { is_colored };
    let mut text = String::new();
    let out = &mut text;
    let mut say = |line: String| {
        out.push_str(line.trim_end());
        out.push('\n');
    };
    let setup = &summary.setup;
    say(paint.bold(&target_words(setup)));
    say(load_words(setup));
    for line in setup.notes.iter().flat_map(|note| wrapped(note, WIDTH)) {
        say(line);
    }
    say(String::new());
    let verdict = &summary.verdict;
    say(format!("  {}  {}", paint.status(verdict.status), limiter_words(summary)));
    for reason in &verdict.reasons {
        for (number, line) in wrapped(&reason.text, WIDTH - 6).into_iter().enumerate() {
            say(format!("    {} {line}", if number == 0 { "·" } else { " " }));
        }
    }
    say(String::new());
    let window = &summary.window;
    say(format!(
        "  {:<10} {}/s   {}/s received   over {}",
        "rate",
        paint.bold(&rate(summary.rate)),
        bytes(summary.received_rate),
        seconds(window.to - window.from),
    ));
    let counts = &summary.counts;
    let mut line = format!("  {:<10} {} ok", "requests", count(counts.ok));
    let _ = write!(
        line,
        "   {}",
        paint.bad(counts.failed > 0, &format!("{} failed", count(counts.failed)))
    );
    let unfinished = format!("{} unfinished", count(counts.unfinished));
    let _ = write!(line, "   {unfinished}");
    if setup.load.is_open() {
        let _ = write!(line, "   of {} due", count(counts.offered));
    }
    say(line);
    for (fault, number) in &counts.faults {
        say(format!("  {:<10} {} {}", "", count(*number), fault_words(*fault, summary)));
    }
    for (fault, number) in &counts.connect_faults {
        say(format!("  {:<10} {} {}", "", count(*number), fault.text_of_connection()));
    }
    if let Some(words) = warmup_words(summary) {
        say(format!("  {:<10} {words}", "warm-up"));
    }
    say(String::new());
    latencies(summary, &paint, &mut say);
    say(String::new());
    let loaded = summary.series.iter().take_while(|point| point.at < window.to);
    let rates: Vec<f64> = loaded.map(|point| point.ok).collect();
    if rates.len() > 2 {
        say(format!("  {:<10} {}", "over time", sparkline(&rates, 60)));
    }
    for (number, line) in cpu_lines(summary).into_iter().enumerate() {
        say(format!("  {:<10} {line}", if number == 0 { "CPU" } else { "" }));
    }
    if let Some(workers) = &summary.measured.workers {
        let shares: Vec<String> = workers.iter().map(|requests| count(*requests)).collect();
        say(format!("  {:<10} {}", "workers", shares.join("  ")));
    }
    if summary.targets.len() > 1 {
        say(String::new());
        say(paint.dim(&format!(
            "  {:>12}{:>12}{:>12}{:>12}{:>12}  each target's response",
            "ok", "failed", "p50", "p99", "max"
        )));
        for target in &summary.targets {
            let [p50, p99, max] = [target.response.p50, target.response.p99, target.response.max]
                .map(|nanos| time_or_not(nanos, false));
            let (ok, failed) = (count(target.answers), count(target.failed));
            say(format!("  {ok:>12}{failed:>12}{p50:>12}{p99:>12}{max:>12}  {}", target.name));
        }
    }
    text
}

/// The table of times.
fn latencies(summary: &Summary, paint: &Paint, say: &mut impl FnMut(String)) {
    let setup = &summary.setup;
    say(paint.dim(&format!(
        "  {:<10}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "", "p50", "p90", "p99", "p99.9", "max"
    )));
    let latency = &summary.latency;
    let mut times = vec![("response", &latency.response)];
    if setup.load.is_open() {
        times.extend([
            ("service", &latency.service),
            ("wait", &latency.wait),
            ("lag", &latency.lag),
        ]);
    }
    if !setup.keep_alive {
        times.extend([("connect", &latency.connect), ("first byte", &latency.ttfb)]);
        times.push(("close", &latency.close));
    }
    times.push(("unexpected", &latency.unexpected));
    for (name, times) in times {
        if times.count == 0 && name != "response" {
            continue;
        }
        let cells = times.percentiles().map(|(percentile, nanos)| {
            format!("{:>12}", time_or_not(nanos, times.is_at_least(percentile)))
        });
        let line = format!("  {name:<10}{}", cells.concat());
        say(if name == "response" { paint.bold(&line) } else { line });
    }
    if latency.response.censored > 0 {
        say(format!(
            "  {:<10} ≥ because {} requests had no answer",
            "",
            count(latency.response.censored)
        ));
    } else if latency.response.p999.is_none() && latency.response.count > 0 {
        let samples = match latency.response.count {
            1 => "1 sample is".to_owned(),
            several => format!("{} samples are", count(several)),
        };
        say(format!("  {:<10} – where {samples} too few", ""));
    }
}

/// What failed; with the statuses, where these are why.
fn fault_words(fault: Fault, summary: &Summary) -> String {
    if fault != Fault::Status {
        return fault.text().to_owned();
    }
    let statuses = summary.counts.statuses.iter();
    let named: Vec<String> =
        statuses.map(|(status, n)| format!("{status}: {}", count(*n))).collect();
    format!("{} ({})", fault.text(), named.join(", "))
}

fn cpu_lines(summary: &Summary) -> Vec<String> {
    let cpu = &summary.cpu;
    let sides = [
        ("client", cpu.client_us_per_request, cpu.client_cores, cpu.client_busiest),
        ("server", cpu.server_us_per_request, cpu.server_cores, cpu.server_busiest),
    ];
    let line = |(side, each, cores, busiest): (&str, Option<f64>, Option<f64>, Option<f64>)| {
        let (each, cores) = (digits(each?), digits(cores?));
        let busiest =
            busiest.map_or(String::new(), |it| format!(", busiest thread {}", percent(it)));
        Some(format!("{side} {each} µs a request, {cores} cores{busiest}"))
    };
    sides.into_iter().filter_map(line).collect()
}

/// What became of assertions.
pub fn checks(checks: &[Check], is_colored: bool) -> String {
    let paint = Paint { is_colored };
    let line = |check: &Check| {
        let word = if check.holds { paint.good("holds") } else { paint.bad(true, "FAILS") };
        format!("  {word}  {:<20} {}\n", check.assertion, check.found)
    };
    checks.iter().map(line).collect()
}

/// A comparison of two runs, figure by figure.
pub fn changes(comparison: &Comparison, is_colored: bool) -> String {
    let paint = Paint { is_colored };
    let mut text = paint.dim(&format!(
        "  {:<10}{:>12}{:>12}{:>9}   {:<16}\n",
        "", "A", "B", "B / A", "95 % interval"
    ));
    for change in &comparison.changes {
        let value = |value: f64| match change.figure {
            "rate" => format!("{}/s", rate(value)),
            "server_us" => format!("{} µs", digits(value)),
            _ => time_or_not(Some(value as u64), false),
        };
        let interval = format!("{:.3} … {:.3}", change.low, change.high);
        let word = match change {
            _ if change.is_noise() => paint.dim("noise: may be chance"),
            _ if change.is_better() => paint.good(&format!("better by {}", difference(change))),
            _ => paint.bad(true, &format!("worse by {}", difference(change))),
        };
        let (a, b) = (value(change.a), value(change.b));
        let name = if change.figure == "server_us" { "server CPU" } else { change.figure };
        let _ = writeln!(
            text,
            "  {name:<10}{a:>12}{b:>12}{:>9.3}   {interval:<16} {word}",
            change.ratio
        );
    }
    for note in &comparison.notes {
        let _ = writeln!(text, "  · {note}");
    }
    let caution = "Intervals are of these two runs. What changes from start to start of a server, \
                   several runs of each show (bench ab).";
    for line in wrapped(caution, WIDTH - 4) {
        let _ = writeln!(text, "  {}", paint.dim(&line));
    }
    text
}

fn difference(change: &Change) -> String {
    percent((change.ratio - 1.0).abs())
}

/// Values as a line of blocks, from zero to the greatest.
pub fn sparkline(values: &[f64], columns: usize) -> String {
    const BLOCKS: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = columns.min(values.len()).max(1);
    let means: Vec<f64> = (0..columns)
        .map(|column| {
            let part =
                &values[column * values.len() / columns..(column + 1) * values.len() / columns];
            part.iter().sum::<f64>() / part.len().max(1) as f64
        })
        .collect();
    let most = means.iter().copied().fold(0.0, f64::max);
    let block = |value: &f64| {
        let height = if most > 0.0 { (value / most * 8.0).round() as usize } else { 0 };
        // Little is not nothing.
        BLOCKS[if *value > 0.0 { height.clamp(1, 8) } else { 0 }]
    };
    means.iter().map(block).collect()
}

/// A text in lines of at most so many characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Colours of a terminal, or none.
struct Paint {
    is_colored: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.is_colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    fn good(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(&self, is_bad: bool, text: &str) -> String {
        if is_bad { self.with("31", text) } else { text.to_owned() }
    }

    fn status(&self, status: Status) -> String {
        let code = match status {
            Status::Valid => "1;32",
            Status::Suspect => "1;33",
            Status::Invalid => "1;31",
        };
        self.with(code, status.text())
    }
}
