//! One HTML page that needs nothing else: to keep beside the result, or to send to a colleague.
//! No scripts, no fonts, nothing to fetch.

use std::fmt::{self, Display, Write};

use super::chart::{Chart, Scale, count_label, time_label};
use super::units::{bytes, count, digits, percent, rate, seconds, time_or_not};
use super::{limiter_words, load_words, target_words, warmup_words};
use crate::bench::record::Heat;
use crate::bench::summary::{Censored, Point, Status, Summary};

/// The page.
pub fn html(summary: &Summary) -> String {
    let mut page = String::new();
    let out = &mut page;
    let title = Escaped(&target_words(&summary.setup)).to_string();
    let _ = write!(
        out,
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>\
         <meta name='viewport' content='width=device-width, initial-scale=1'>\
         <title>{title} · {}</title><style>{}</style></head><body><header><h1>{title}</h1>\
         <p class='soft'>{}</p></header>",
        summary.verdict.status.text(),
        include_str!("page.css"),
        Escaped(&load_words(&summary.setup)),
    );
    verdict(out, summary);
    tiles(out, summary);
    latencies(out, summary);
    percentile_curve(out, summary);
    heat_map(out, summary);
    over_time(out, summary);
    cpu(out, summary);
    shares(out, summary);
    setup(out, summary);
    let _ = write!(
        out,
        "<footer>uring-pool bench {} · percentiles that too few samples can’t tell are left out; \
         unanswered requests count as lower bounds (≥)</footer></body></html>",
        summary.version
    );
    page
}

/// Text that is no markup.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

fn verdict(out: &mut String, summary: &Summary) {
    let verdict = &summary.verdict;
    let class = match verdict.status {
        Status::Valid => "",
        Status::Suspect => " suspect",
        Status::Invalid => " invalid",
    };
    let _ = write!(
        out,
        "<section class='verdict{class}'><p><strong>{}</strong> &nbsp;{}</p>",
        verdict.status.text(),
        Escaped(&limiter_words(summary))
    );
    if !verdict.reasons.is_empty() {
        out.push_str("<ul>");
        for reason in &verdict.reasons {
            let _ = write!(
                out,
                "<li>{} <span class='soft'>{}</span></li>",
                Escaped(&reason.text),
                reason.rule
            );
        }
        out.push_str("</ul>");
    }
    out.push_str("</section>\n");
}

fn tiles(out: &mut String, summary: &Summary) {
    let response = &summary.latency.response;
    let counts = &summary.counts;
    let nanos = |name| time_or_not(response.percentile(name), response.is_at_least(name));
    let mut tiles = vec![
        (rate(summary.rate), "requests per second", false),
        (nanos("p50"), "p50 response time", false),
        (nanos("p99"), "p99 response time", false),
        (nanos("max"), "longest", false),
        (count(counts.failed), "failed", counts.failed > 0),
    ];
    if counts.unfinished > 0 {
        tiles.push((
            count(counts.unfinished),
            "unfinished",
            counts.unfinished * 1_000 > counts.offered,
        ));
    }
    if let Some(each) = summary.cpu.client_us_per_request {
        tiles.push((format!("{} µs", digits(each)), "client CPU a request", false));
    }
    if let Some(each) = summary.cpu.server_us_per_request {
        tiles.push((format!("{} µs", digits(each)), "server CPU a request", false));
    }
    out.push_str("<div class='tiles'>");
    for (value, name, is_bad) in tiles {
        let class = if is_bad { " bad" } else { "" };
        let _ = write!(out, "<div class='tile{class}'><b>{value}</b><span>{name}</span></div>");
    }
    out.push_str("</div>\n");
}

fn latencies(out: &mut String, summary: &Summary) {
    let meanings = [
        ("response", "from when it was due: what a user would have waited"),
        ("service", "from when it was sent"),
        ("wait", "from due to sent"),
        ("lag", "the generator’s own lateness"),
        ("connect", "opening a connection"),
        ("ttfb", "from sent to the first byte"),
        ("close", "closing a connection"),
        ("unexpected", "answers that were not as they should be; not in the rows above"),
    ];
    out.push_str(
        "<section><h2>Times</h2><div class='scroll'><table><tr><th></th><th>p50</th><th>p90</th>\
         <th>p99</th><th>p99.9</th><th>max</th><th>samples</th><th></th></tr>",
    );
    for (name, times) in summary.latency.each() {
        if times.count == 0 {
            continue;
        }
        let meaning = meanings.iter().find(|(known, _)| *known == name).map_or("", |(_, it)| it);
        let class = if name == "response" { " class='first'" } else { "" };
        let _ = write!(out, "<tr{class}><td>{name}</td>");
        for (percentile, nanos) in times.percentiles() {
            let _ = write!(out, "<td>{}</td>", time_or_not(nanos, times.is_at_least(percentile)));
        }
        let _ = write!(
            out,
            "<td class='soft'>{}</td><td class='means'>{meaning}</td></tr>",
            count(times.count)
        );
    }
    out.push_str("</table></div></section>\n");
}

fn legend(out: &mut String, entries: &[(&str, &str)]) {
    out.push_str("<p class='legend'>");
    for (class, words) in entries {
        let _ = write!(
            out,
            "<span><svg viewBox='0 0 22 10'><path class='line {class}' d='M1 5H21'/></svg>{words}</span>"
        );
    }
    out.push_str("</p>");
}

fn percentile_curve(out: &mut String, summary: &Summary) {
    let response = summary.response();
    if response.is_empty() {
        return;
    }
    // As many nines as there are samples for.
    let nines = (response.len() as f64).log10().clamp(1.0, 7.0);
    let service = Censored::new(
        summary.record.times(crate::bench::record::Clock::Service, summary.first_slot()),
        summary.record.times(crate::bench::record::Clock::ServiceAtLeast, summary.first_slot()),
    );
    let is_open = summary.setup.load.is_open();
    let least =
        response.lowest().min().min(if is_open { service.lowest().min() } else { u64::MAX });
    let y = Scale::decades(least as f64, response.lowest().max() as f64);
    let mut chart = Chart::new("Percentiles of response times", 320.0, Scale::Linear(nines), y);
    chart.y_axis(time_label);
    let names = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %", "99.99999 %"];
    let labels = (0_u8..).map(f64::from).zip(names).take_while(|(place, _)| *place <= nines);
    let median = (2_f64.log10(), "50 %".to_owned());
    chart.x_labels(labels.map(|(place, name)| (place, name.to_owned())).chain([median]));
    // Beyond this, single samples decide.
    let known = (response.len() as f64 / crate::bench::summary::SAMPLES_ABOVE as f64).log10();
    chart.shade(known.max(0.0), nines, "too few samples to know");
    let places = |from: f64, to: f64| {
        (0..=480_u32).map(move |step| from + (to - from) * f64::from(step) / 480.0)
    };
    let value = |times: &Censored, place: f64| {
        times.lowest().value_at_quantile(1.0 - 10_f64.powf(-place)) as f64
    };
    let mut entries = Vec::new();
    if is_open && !service.is_empty() {
        chart.line("two", places(0.0, nines).map(|place| (place, Some(value(&service, place)))));
        entries.push(("two", "service (from when it was sent)"));
    }
    // Where unanswered requests decide, the curve is a lower bound.
    let bounded_from = response.at_least().len();
    let is_bound = |place: f64| {
        let part = 1.0 - 10_f64.powf(-place);
        bounded_from > 0 && response.percentile(part).is_none_or(|percentile| percentile.at_least)
    };
    let split = places(0.0, nines).find(|place| is_bound(*place)).unwrap_or(nines);
    chart.line("one", places(0.0, split).map(|place| (place, Some(value(&response, place)))));
    entries.insert(0, ("one", "response (from when it was due)"));
    if bounded_from > 0 && split < nines {
        chart.line(
            "one dash",
            places(split, nines).map(|place| (place, Some(value(&response, place)))),
        );
        entries.insert(1, ("one dash", "at least: requests without an answer"));
    }
    for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        if let Some(percentile) = response.percentile(part) {
            let words =
                format!("{name}: {}", time_or_not(Some(percentile.nanos), percentile.at_least));
            chart.mark("one", -(1.0_f64 - part).log10(), percentile.nanos as f64, &words);
        }
    }
    out.push_str("<section><h2>Percentiles</h2><p class='soft'>The further right, the rarer: each step is a tenth of the requests before.</p>");
    legend(out, &entries);
    out.push_str(&chart.finish());
    out.push_str("</section>\n");
}

fn shaded(chart: &mut Chart, summary: &Summary) {
    let window = &summary.window;
    chart.shade(0.0, window.from as f64 / 1e9, "warm-up");
    chart.shade(window.to as f64 / 1e9, window.drained as f64 / 1e9, "waiting for answers");
}

fn whole(summary: &Summary) -> Scale {
    Scale::Linear((summary.window.drained as f64 / 1e9).max(0.001))
}

fn heat_map(out: &mut String, summary: &Summary) {
    let heat = &summary.record.heat;
    let filled = |row: &usize| heat.columns().any(|column| column[*row] > 0);
    let Some(rows) = heat.columns().next().map(<[u32]>::len) else { return };
    let (Some(first), Some(last)) = ((0..rows).find(filled), (0..rows).rev().find(filled)) else {
        return;
    };
    let shortest = Heat::row_begin(first).max(1_000) as f64;
    let longest = Heat::row_begin(last + 1) as f64;
    let y = Scale::Log(shortest * 0.9, longest.max(shortest * 4.0) * 1.1);
    let mut chart = Chart::new("Response times over time", 300.0, whole(summary), y);
    chart.heat(heat);
    chart.y_axis(time_label);
    chart.seconds_axis();
    shaded(&mut chart, summary);
    out.push_str(
        "<section><h2>Every request, by when it was due</h2><p class='soft'>The stronger the colour, the more \
         requests that were due at this time took this long (logarithmic). A stall is a slope: \
         whoever came at its begin waited longest.</p>",
    );
    out.push_str(&chart.finish());
    out.push_str("</section>\n");
}

fn over_time(out: &mut String, summary: &Summary) {
    let series = &summary.series;
    let width = summary.record.slot_nanos as f64 / 1e9;
    let middle = |at: u64| at as f64 / 1e9 + width / 2.0;
    let most = series.iter().map(|point| point.ok.max(point.sent)).fold(0.0, f64::max);
    let mut chart = Chart::new("Requests per second", 220.0, whole(summary), Scale::up_to(most));
    shaded(&mut chart, summary);
    chart.y_axis(count_label);
    chart.seconds_axis();
    // A last slot of a few milliseconds tells no rate.
    let is_whole = |point: &&Point| {
        summary.record.end.saturating_sub(point.at) * 2 >= summary.record.slot_nanos
    };
    let told = || series.iter().filter(is_whole);
    // Of what the generator sent it stops at its end; the drain has answers only.
    let loaded = told().filter(|point| point.at < summary.window.to);
    chart.line("three thin", loaded.map(|point| (middle(point.at), Some(point.sent))));
    chart.line("one", told().map(|point| (middle(point.at), Some(point.ok))));
    let has_failed = series.iter().any(|point| point.failed > 0.0);
    let mut entries = vec![("one", "answered"), ("three thin", "sent")];
    if has_failed {
        chart.line("bad", told().map(|point| (middle(point.at), Some(point.failed))));
        entries.push(("bad", "failed"));
    }
    out.push_str("<section><h2>Requests per second</h2>");
    legend(out, &entries);
    out.push_str(&chart.finish());
    out.push_str("</section>\n");
    let times = |point: &Point| [point.p50, point.p99, point.max];
    let all = series.iter().flat_map(times).flatten();
    let (Some(least), Some(most)) = (all.clone().min(), all.max()) else { return };
    let y = Scale::decades(least as f64, most as f64);
    let mut chart = Chart::new("Response times over time", 240.0, whole(summary), y);
    shaded(&mut chart, summary);
    chart.y_axis(time_label);
    chart.seconds_axis();
    let mut entries = Vec::new();
    for (number, class, words) in
        [(2, "three thin", "longest"), (1, "two", "p99"), (0, "one", "p50")]
    {
        if series.iter().any(|point| times(point)[number].is_some()) {
            entries.insert(0, (class, words));
        }
        chart.line(
            class,
            series
                .iter()
                .map(|point| (middle(point.at), times(point)[number].map(|nanos| nanos as f64))),
        );
    }
    out.push_str(
        "<section><h2>Response times, by when they ended</h2><p class='soft'>A gap is a stretch \
         without answers, or with too few to know the percentile.</p>",
    );
    legend(out, &entries);
    out.push_str(&chart.finish());
    out.push_str("</section>\n");
}

fn cpu(out: &mut String, summary: &Summary) {
    let series = &summary.series;
    let middle = |at: u64| (at as f64 + summary.record.slot_nanos as f64 / 2.0) / 1e9;
    let cores = series.iter().flat_map(|point| [point.client_cores, point.server_cores]);
    let most = cores.flatten().fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    let mut chart = Chart::new("CPU", 190.0, whole(summary), Scale::up_to(most));
    shaded(&mut chart, summary);
    chart.y_axis(|cores| digits(cores).replace(".00", ""));
    chart.seconds_axis();
    chart.line("one", series.iter().map(|point| (middle(point.at), point.client_cores)));
    chart.line("two", series.iter().map(|point| (middle(point.at), point.server_cores)));
    out.push_str("<section><h2>Cores in use</h2>");
    let mut entries = vec![("one", "load generator")];
    if series.iter().any(|point| point.server_cores.is_some()) {
        entries.push(("two", "server"));
    }
    legend(out, &entries);
    out.push_str(&chart.finish());
    let (cpu, machine) = (&summary.cpu, &summary.machine);
    let facts = [
        ("busiest load thread", cpu.client_busiest.map(percent)),
        ("busiest server thread", cpu.server_busiest.map(percent)),
        ("machine idle", machine.idle.map(percent)),
        ("soft interrupts", machine.softirq.map(percent)),
        ("stolen by the hypervisor", machine.stolen.map(percent)),
        ("something waited for a core", machine.pressure_cpu.map(percent)),
        ("something waited for a disk", machine.pressure_io.map(percent)),
        ("a load thread waited for a core", machine.client_waited.map(percent)),
        ("kernel entries a request", cpu.client_enters_per_request.map(digits)),
        ("thread switches a second", cpu.client_switches_per_second.map(rate)),
        ("TCP segments sent again", machine.retransmits.map(count)),
        ("full listen queues", machine.listen_overflows.map(count)),
    ];
    out.push_str("<dl class='facts'>");
    for (name, value) in facts {
        if let Some(value) = value {
            let _ = write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
    }
    out.push_str("</dl></section>\n");
}

fn shares(out: &mut String, summary: &Summary) {
    if summary.targets.len() > 1 {
        out.push_str(
            "<section><h2>Targets</h2><div class='scroll'><table><tr><th></th><th>ok</th>\
             <th>failed</th><th>received</th><th>mean service</th><th>p50</th><th>p90</th>\
             <th>p99</th><th>max</th></tr>",
        );
        for target in &summary.targets {
            let _ = write!(
                out,
                "<tr><td class='wide'>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
                Escaped(&target.name),
                count(target.answers),
                count(target.failed),
                bytes(target.bytes as f64),
                time_or_not(target.service_mean, false),
            );
            let times = &target.response;
            for nanos in [times.p50, times.p90, times.p99, times.max] {
                let _ = write!(out, "<td>{}</td>", time_or_not(nanos, false));
            }
            out.push_str("</tr>");
        }
        out.push_str("</table></div></section>\n");
    }
    if let Some(workers) = &summary.measured.workers {
        out.push_str("<section><h2>Requests of the server’s workers</h2><dl>");
        for (number, requests) in workers.iter().enumerate() {
            let _ = write!(out, "<dt>worker {number}</dt><dd>{}</dd>", count(*requests));
        }
        if let Some(fairness) = summary.fairness.workers {
            let _ = write!(out, "<dt>fairness</dt><dd>{fairness:.3} of 1</dd>");
        }
        out.push_str("</dl></section>\n");
    }
}

fn setup(out: &mut String, summary: &Summary) {
    let (counts, setup, window) = (&summary.counts, &summary.setup, &summary.window);
    let fairness = &summary.fairness;
    let mut facts: Vec<(&str, String)> = vec![
        ("requests due", count(counts.offered)),
        ("sent", count(counts.sent)),
        ("answered", count(counts.ok)),
        ("failed", count(counts.failed)),
        (
            "unfinished",
            format!("{}, of these not sent {}", count(counts.unfinished), count(counts.unsent)),
        ),
    ];
    for (fault, number) in &counts.faults {
        facts.push(("", format!("{} {}", count(*number), fault.text())));
    }
    for (fault, number) in &counts.connect_faults {
        facts.push(("", format!("{} {}", count(*number), fault.text_of_connection())));
    }
    let statuses: Vec<String> = counts
        .statuses
        .iter()
        .map(|(status, number)| format!("{status}: {}", count(*number)))
        .collect();
    facts.extend(setup.notes.iter().map(|note| ("input", note.clone())));
    facts.extend([
        ("statuses", statuses.join(", ")),
        ("measured", format!("{} to {}", seconds(window.from), seconds(window.to))),
        ("warm-up", warmup_words(summary).unwrap_or_else(|| "none found".to_owned())),
        (
            "connections",
            format!("{} opened, {} failed", count(counts.connects), count(counts.connect_failures)),
        ),
    ]);
    if let (Some(index), Some((least, most))) = (fairness.connections, fairness.connection_answers)
    {
        let words =
            format!("{index:.3} of 1; {} to {} answers a connection", count(least), count(most));
        facts.push(("fairness", words));
    }
    facts.extend([
        (
            "received",
            format!("{} ({}/s)", bytes(counts.bytes_received as f64), bytes(summary.received_rate)),
        ),
        ("seed", setup.seed.to_string()),
        (
            "machine",
            format!("{}, {} cores, Linux {}", setup.host.cpu, setup.host.cores, setup.host.kernel),
        ),
    ]);
    if let Some(server) = &summary.measured.server {
        let words =
            format!("{} (process {}, {} processes)", server.name, server.pid, server.processes);
        facts.push(("server", words));
    }
    if setup.started_at > 0 {
        let began = std::time::UNIX_EPOCH + std::time::Duration::from_secs(setup.started_at);
        facts.push(("began", httpdate::fmt_http_date(began)));
    }
    facts.push(("command", setup.command.join(" ")));
    out.push_str("<section><h2>The run</h2><dl>");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let is_code = *name == "command";
        let (open, close) = if is_code { ("<code>", "</code>") } else { ("", "") };
        let _ = write!(out, "<dt>{name}</dt><dd>{open}{}{close}</dd>", Escaped(value));
    }
    out.push_str("</dl></section>\n");
}
