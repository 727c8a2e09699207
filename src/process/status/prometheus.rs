//! The status in the text format 0.0.4 of Prometheus:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write};

use super::{Status, WorkerStatus};

/// Buckets of the histogram end at powers of two nanoseconds, from 16 us to 17 s: 21 of them, and
/// counts are exact there.
const BUCKETS_BITS: std::ops::RangeInclusive<u32> = 14..=34;

impl Status {
    /// The same numbers as metrics, for Prometheus to scrape: text of the exposition format 0.0.4,
    /// to be served as `text/plain; version=0.0.4; charset=utf-8`. Times are in seconds.
    pub fn to_prometheus(&self) -> String {
        let mut text = Text(String::with_capacity(8 * 1024));
        self.write_pool(&mut text);
        self.write_durations(&mut text);
        self.write_errors(&mut text);
        self.write_workers(&mut text);
        text.0
    }

    fn write_pool(&self, text: &mut Text) {
        text.gauge("up", "Whether some worker serves, or is about to.", u8::from(self.is_running));
        text.gauge("uptime_seconds", "Since the pool started.", self.uptime_seconds);
        text.gauge("workers", "Workers that there should be.", self.total_workers);
        text.gauge("active_workers", "Workers that serve.", self.active_workers);
        text.gauge("alive_workers", "Workers whose process exists.", self.alive_workers);
        text.counter("requests_total", "Requests that were understood.", self.total_requests);
        text.begin("responses_total", "counter", "Final responses by class of status.");
        for (class, count) in (1..).zip(self.responses) {
            text.sample("responses_total", &format!("class=\"{class}xx\""), count);
        }
        text.gauge("connections", "Connections open now.", self.active_connections);
        let (opened, closed) = (self.total_connections, self.closed_connections);
        text.counter("connections_opened_total", "Connections that workers took.", opened);
        text.counter("connections_closed_total", "Connections that were closed.", closed);
        text.counter("received_bytes_total", "Bytes received.", self.bytes_received);
        text.counter("sent_bytes_total", "Bytes sent.", self.bytes_sent);
        text.counter("cache_hits_total", "Files that were in memory.", self.cache_hits);
        text.counter("cache_misses_total", "Files that were not.", self.cache_misses);
        text.gauge("queue_size", "Connections that wait for a worker.", self.queue_size);
        text.counter("dispatched_total", "Connections that the master took.", self.dispatched);
        text.counter("refused_total", "Connections that the master refused.", self.refused);
        let handed_over = self.handed_over;
        text.counter("handed_over_total", "Connections that changed their worker.", handed_over);
        let (lines, dropped) = (self.access_log_lines, self.access_log_dropped);
        text.gauge("held_bytes", "Memory that open connections hold.", self.memory_held);
        text.counter("access_log_lines_total", "Lines of the access log.", lines);
        text.counter("access_log_dropped_total", "Lines that found no room.", dropped);
        let lost = self.lost_connections;
        text.counter("lost_connections_total", "Connections that a worker's death ended.", lost);
        let unread = self.dropped_messages;
        text.counter("dropped_messages_total", "Messages that no worker read.", unread);
        text.counter("reloads_total", "Reloads that succeeded.", self.reloads);
        text.counter("upgrades_total", "Binary upgrades that succeeded.", self.upgrades);
    }

    fn write_durations(&self, text: &mut Text) {
        const NAME: &str = "request_duration_seconds";
        text.begin(NAME, "histogram", "From a head's last byte to its response's.");
        let bucket = format!("{NAME}_bucket");
        for bits in BUCKETS_BITS {
            // `le` is inclusive, and a nanosecond the smallest step.
            let le = seconds((1 << bits) - 1);
            text.sample(&bucket, &format!("le=\"{le}\""), self.durations.below(bits));
        }
        text.sample(&bucket, "le=\"+Inf\"", self.durations.count);
        text.sample(&format!("{NAME}_sum"), "", seconds(self.durations.nanos));
        text.sample(&format!("{NAME}_count"), "", self.durations.count);
    }

    fn write_errors(&self, text: &mut Text) {
        let errors = &self.errors;
        text.begin("errors_total", "counter", "What went wrong, by kind.");
        for (kind, count) in [
            ("malformed", errors.malformed),
            ("too_large", errors.too_large),
            ("head_timeout", errors.head_timeouts),
            ("idle_timeout", errors.idle_timeouts),
            ("body_timeout", errors.body_timeouts),
            ("write_timeout", errors.write_timeouts),
            ("broken_connection", errors.broken_connections),
            ("handler_panic", errors.handler_panics),
            ("cut_off_response", errors.cut_off_responses),
            ("failed_accept", errors.failed_accepts),
            ("rate_limited", errors.rate_limited),
            ("out_of_memory", errors.out_of_memory),
            ("request_timeout", errors.request_timeouts),
            ("too_many_connections", errors.too_many_connections),
            ("made_room", errors.made_room),
        ] {
            text.sample("errors_total", &format!("kind=\"{kind}\""), count);
        }
    }

    fn write_workers(&self, text: &mut Text) {
        /// A metric of each worker.
        type Metric = (&'static str, &'static str, &'static str, fn(&WorkerStatus) -> String);
        const METRICS: [Metric; 9] = [
            ("worker_alive", "gauge", "Whether there is a process.", |worker| {
                u8::from(worker.is_alive).to_string()
            }),
            ("worker_active", "gauge", "Whether it serves.", |worker| {
                u8::from(worker.state.is_active()).to_string()
            }),
            ("worker_connections", "gauge", "Connections open now.", |worker| {
                worker.connections.to_string()
            }),
            ("worker_requests_total", "counter", "Requests that were understood.", |worker| {
                worker.total_requests.to_string()
            }),
            ("worker_restarts_total", "counter", "Successors so far.", |worker| {
                worker.restarts.to_string()
            }),
            ("worker_turns_total", "counter", "Enters of its ring.", |worker| {
                worker.turns.to_string()
            }),
            ("worker_resident_bytes", "gauge", "Memory when it was last active.", |worker| {
                worker.memory_usage.to_string()
            }),
            ("worker_loop_delay_seconds", "gauge", "Longest turn of its process.", |worker| {
                format!("{:.6}", worker.loop_delay_ms / 1000.0)
            }),
            ("worker_idle_seconds", "gauge", "Since it served a request.", |worker| {
                worker.idle_time.to_string()
            }),
        ];
        for (name, kind, help, value) in METRICS {
            text.begin(name, kind, help);
            for worker in &self.workers {
                text.sample(name, &format!("worker=\"{}\"", worker.worker_id), value(worker));
            }
        }
    }
}

/// Nanoseconds as seconds, exactly.
fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// Lines of the format.
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.begin(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.begin(name, "counter", help);
        self.sample(name, "", value);
    }

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP uring_pool_{name} {help}"));
        self.line(format_args!("# TYPE uring_pool_{name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        if labels.is_empty() {
            self.line(format_args!("uring_pool_{name} {value}"));
        } else {
            self.line(format_args!("uring_pool_{name}{{{labels}}} {value}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use crate::process::clock::Moment;
    use crate::process::scoreboard::Scoreboard;
    use std::collections::HashSet;

    fn text() -> String {
        let (scoreboard, _memory) = Scoreboard::create(Moment::default()).unwrap();
        scoreboard.pool().workers.set(2);
        let page = scoreboard.claim(1, Moment::default()).unwrap();
        page.figures.requests.add(3);
        [200, 200, 404].into_iter().for_each(|code| page.figures.on_response(code));
        [16_383, 16_384, 20_000_000_000]
            .into_iter()
            .for_each(|nanos| page.figures.durations.record(nanos, 1));
        scoreboard.status(Moment::default()).to_prometheus()
    }

    #[test]
    fn every_sample_follows_its_help_and_type_and_stands_once() {
        let text = text();
        assert!(text.ends_with('\n'));
        let (mut name, mut seen) = (String::new(), HashSet::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                name = help.split_once(' ').unwrap().0.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (typed, kind) = kind.split_once(' ').unwrap();
                assert!(typed == name && ["counter", "gauge", "histogram"].contains(&kind));
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(series.starts_with(&name) && value.parse::<f64>().is_ok(), "{line}");
                assert!(seen.insert(series.to_owned()), "{line} stands twice");
            }
        }
    }

    #[test]
    fn counts_and_buckets_are_those_of_the_scoreboard() {
        let text = text();
        for line in [
            "uring_pool_requests_total 3",
            "uring_pool_responses_total{class=\"2xx\"} 2",
            "uring_pool_responses_total{class=\"4xx\"} 1",
            "uring_pool_request_duration_seconds_bucket{le=\"0.000016383\"} 1",
            "uring_pool_request_duration_seconds_bucket{le=\"0.000032767\"} 2",
            "uring_pool_request_duration_seconds_bucket{le=\"17.179869183\"} 2",
            "uring_pool_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "uring_pool_request_duration_seconds_sum 20.000032767",
            "uring_pool_request_duration_seconds_count 3",
            "uring_pool_worker_requests_total{worker=\"0\"} 0",
            "uring_pool_worker_requests_total{worker=\"1\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} isn't in {text}");
        }
    }
}
