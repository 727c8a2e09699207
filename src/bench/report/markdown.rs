//! A summary as Markdown, for a pull request or an issue.

use std::fmt::Write;

use super::units::{bytes, count, digits, rate, seconds, time_or_not};
use super::{limiter_words, load_words, target_words, warmup_words};
use crate::bench::summary::Summary;

/// The summary.
pub fn markdown(summary: &Summary) -> String {
    let mut text = String::new();
    let out = &mut text;
    let (verdict, window) = (&summary.verdict, &summary.window);
    let _ = writeln!(out, "### `{}`\n", target_words(&summary.setup).replace('`', "'"));
    let _ = writeln!(out, "{}\n", load_words(&summary.setup));
    for note in &summary.setup.notes {
        let _ = writeln!(out, "{note}\n");
    }
    let _ = writeln!(out, "**{}**, {}", verdict.status.text(), limiter_words(summary));
    for reason in &verdict.reasons {
        let _ = writeln!(out, "- {} ({})", reason.text, reason.rule);
    }
    let counts = &summary.counts;
    let _ = writeln!(
        out,
        "\n**{}/s** over {}, {}/s received; {} ok, {} failed, {} unfinished",
        rate(summary.rate),
        seconds(window.to - window.from),
        bytes(summary.received_rate),
        count(counts.ok),
        count(counts.failed),
        count(counts.unfinished),
    );
    if let Some(words) = warmup_words(summary) {
        let _ = writeln!(out, "\n{words}");
    }
    let _ = writeln!(out, "\n| | p50 | p90 | p99 | p99.9 | max |\n|---|---:|---:|---:|---:|---:|");
    for (name, times) in summary.latency.each() {
        if times.count > 0 {
            let cells = times.percentiles().map(|(percentile, nanos)| {
                format!(" {} |", time_or_not(nanos, times.is_at_least(percentile)))
            });
            let _ = writeln!(out, "| {name} |{}", cells.concat());
        }
    }
    let cpu = &summary.cpu;
    let sides = [
        ("client", cpu.client_us_per_request, cpu.client_cores),
        ("server", cpu.server_us_per_request, cpu.server_cores),
    ];
    let sides = sides.into_iter().filter_map(|(side, each, cores)| {
        Some(format!("{side} {} µs a request ({} cores)", digits(each?), digits(cores?)))
    });
    let sides: Vec<String> = sides.collect();
    if !sides.is_empty() {
        let _ = writeln!(out, "\nCPU: {}", sides.join(", "));
    }
    text
}
