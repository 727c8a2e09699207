//! A run in numbers: what was recorded and measured, summed up and judged. Computed from the record
//! alone, so that it is the same whenever it is computed; knows no screens.
//!
//! # The JSON document
//!
//! [`Summary`] is the document that `--json` writes; its fields are the keys. `schema` is
//! [`SCHEMA`], whose number changes when a key changes its meaning or goes; keys may be added. All
//! times are nanoseconds, rates are per second, shares go from 0 to 1. A percentile is `null` when
//! there are too few samples to know it, and named in `at_least` when it is a lower bound. `record`
//! and `measured` hold everything that the rest was computed from, without loss.

mod check;
mod compare;
mod percentile;
mod setup;
pub mod stats;
#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;
mod verdict;
mod warmup;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::measure::{Measured, Sample};
use super::record::{Clock, Counts, Fault, Record, Share, compressed};
pub use check::{Assertion, Check, Regression, regressions};
pub use compare::{Change, Comparison, compare};
pub use percentile::{Censored, Percentile, SAMPLES_ABOVE};
pub use setup::{Host, Load, Setup, WarmupWish};
pub use verdict::{Facts, Limiter, Reason, Status, Verdict, judge};
pub use warmup::warmup_slots;

/// Generators whose runs began further apart, in seconds, did not run at the same time.
const APART_MAX: u64 = 2;

/// The format of the JSON document, and its version.
pub const SCHEMA: &str = "uring-pool-bench/1";

/// A run in numbers.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Of the program that computed this.
    pub version: &'static str,
    /// What was asked for.
    pub setup: Setup,
    /// Whether the run says something, and what limited it.
    pub verdict: Verdict,
    /// Requests of the whole run: `offered = ok + failed + unfinished`.
    pub counts: Totals,
    /// The part of the run that rates, latencies and CPU time are of.
    pub window: Window,
    /// Requests that were answered as they should be, per second of the window.
    pub rate: f64,
    /// Requests that were due, per second until the generator stopped sending.
    pub offered_rate: f64,
    /// Bytes of answers as they should be, per second of the window.
    pub received_rate: f64,
    /// How long it took.
    pub latency: Latency,
    /// CPU time of both sides.
    pub cpu: Cpu,
    /// What else happened on the machine.
    pub machine: Machine,
    /// How evenly the load was shared.
    pub fairness: Fairness,
    /// What each target got; further ones than are told apart come last, together.
    pub targets: Vec<Target>,
    /// Slot by slot.
    pub series: Vec<Point>,
    /// What surrounded the run, sample by sample.
    pub measured: Measured,
    /// All that was recorded.
    pub record: Record,
}

/// The part of the document that isn't computed.
#[derive(Deserialize)]
struct Source {
    schema: String,
    setup: Setup,
    measured: Measured,
    record: Record,
}

/// How many requests there were.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Totals {
    /// That were due.
    pub offered: u64,
    /// That were sent.
    pub sent: u64,
    /// That were answered as they should be.
    pub ok: u64,
    /// That failed, or were answered otherwise.
    pub failed: u64,
    /// That were not sent, or not answered, when the run ended.
    pub unfinished: u64,
    /// Of these, that were due and not sent.
    pub unsent: u64,
    /// Connections that were opened.
    pub connects: u64,
    /// Connections that could not be.
    pub connect_failures: u64,
    /// Answers by status code.
    pub statuses: BTreeMap<String, u64>,
    /// Failed requests by what failed.
    pub faults: BTreeMap<Fault, u64>,
    /// Connections that could not be opened, likewise.
    pub connect_faults: BTreeMap<Fault, u64>,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes of answers as they should be.
    pub bytes_received: u64,
}

/// The measured part of a run, in nanoseconds since its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Window {
    /// Its begin: the end of the warm-up.
    pub from: u64,
    /// Its end: when the generator stopped sending.
    pub to: u64,
    /// Until when it waited for answers.
    pub drained: u64,
    /// Answers within the window, and later.
    pub answers: u64,
    /// Answers within the warm-up, which latencies and rates leave out.
    pub warmup_answers: u64,
    /// Their median response time.
    pub warmup_p50: Option<u64>,
}

/// How long it took, clock by clock.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Latency {
    /// From when requests were due to the end of their answers: what users would have waited.
    pub response: Distribution,
    /// From when they were sent.
    pub service: Distribution,
    /// From when they were due to when they were sent.
    pub wait: Distribution,
    /// By how much the generator was late with sends that nothing else held up.
    pub lag: Distribution,
    /// Opening connections.
    pub connect: Distribution,
    /// From sent to the first byte of the answer.
    pub ttfb: Distribution,
    /// Closing connections.
    pub close: Distribution,
    /// Answers that were not as they should be; all others leave them out.
    pub unexpected: Distribution,
}

/// A distribution of times, in nanoseconds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Distribution {
    /// Samples, known or bounded.
    pub count: u64,
    /// Of these, lower bounds: requests without an answer.
    pub censored: u64,
    /// Of those that are known.
    pub mean: Option<f64>,
    /// The shortest.
    pub min: Option<u64>,
    /// The median.
    pub p50: Option<u64>,
    /// The 90th percentile.
    pub p90: Option<u64>,
    /// The 99th.
    pub p99: Option<u64>,
    /// The 99.9th.
    pub p999: Option<u64>,
    /// The longest.
    pub max: Option<u64>,
    /// Which of those are lower bounds.
    pub at_least: Vec<&'static str>,
    /// Those that are known, as `HdrHistogram`'s compressed V2 format in base64.
    pub histogram: String,
    /// The lower bounds, likewise; empty if there are none.
    pub histogram_at_least: String,
}

/// CPU time of both sides in the window.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct Cpu {
    /// Microseconds of this process for each answer.
    pub client_us_per_request: Option<f64>,
    /// Microseconds of the server's processes.
    pub server_us_per_request: Option<f64>,
    /// Cores that this process used.
    pub client_cores: Option<f64>,
    /// Cores that the server used.
    pub server_cores: Option<f64>,
    /// How busy the busiest load thread was.
    pub client_busiest: Option<f64>,
    /// How busy the server's busiest thread was.
    pub server_busiest: Option<f64>,
    /// Times that the generator entered the kernel, for each answer.
    pub client_enters_per_request: Option<f64>,
    /// Switches of load threads, per second.
    pub client_switches_per_second: Option<f64>,
}

/// The machine in the window. Shares of the time of all its cores.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct Machine {
    /// Idle.
    pub idle: Option<f64>,
    /// Given to other guests.
    pub stolen: Option<f64>,
    /// In soft interrupts.
    pub softirq: Option<f64>,
    /// Share of the time in which something waited for a core.
    pub pressure_cpu: Option<f64>,
    /// Share of the time in which something waited for a disk.
    pub pressure_io: Option<f64>,
    /// Share of the time in which a load thread was ready and had no core.
    pub client_waited: Option<f64>,
    /// Segments sent again.
    pub retransmits: Option<u64>,
    /// Segments sent.
    pub segments: Option<u64>,
    /// Connections that found a listener's queue full.
    pub listen_overflows: Option<u64>,
    /// Connections that listeners dropped.
    pub listen_drops: Option<u64>,
}

/// How evenly the load was shared: 1 is even, 1/n is all to one of n (Jain's index).
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub struct Fairness {
    /// Answers over connections.
    pub connections: Option<f64>,
    /// Fewest and most answers of a connection.
    pub connection_answers: Option<(u64, u64)>,
    /// Requests over the server's workers.
    pub workers: Option<f64>,
}

/// What one target got.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Target {
    /// Its method and URL.
    pub name: String,
    /// Answers as expected.
    pub answers: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Bytes of answers.
    pub bytes: u64,
    /// The mean service time.
    pub service_mean: Option<u64>,
    /// The longest.
    pub service_max: Option<u64>,
    /// Response times of its answers, of the whole run. Requests without an answer, which have no
    /// place in them, are among the failed.
    pub response: Distribution,
}

/// One slot of the run.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct Point {
    /// When it begins, in nanoseconds since the run's epoch.
    pub at: u64,
    /// Requests that were sent, per second.
    pub sent: f64,
    /// Answers, per second.
    pub ok: f64,
    /// Requests that failed, per second.
    pub failed: f64,
    /// The median response time.
    pub p50: Option<u64>,
    /// The 99th percentile.
    pub p99: Option<u64>,
    /// The longest.
    pub max: Option<u64>,
    /// Cores that this process used.
    pub client_cores: Option<f64>,
    /// Cores that the server used.
    pub server_cores: Option<f64>,
}

impl Summary {
    /// Sums up a run.
    pub fn new(setup: Setup, record: Record, measured: Measured) -> Summary {
        let total = record.total();
        let first = first_slot(&setup, &record);
        let window = window(&setup, &record, first);
        let seconds = seconds(window.to - window.from);
        let within = counts_until(&record, first, window.to);
        let used = measured.between(window.from, window.to);
        let latency = Latency::of(&record, first);
        let fairness = Fairness::of(&record, &measured);
        let answered = within.answers + within.unexpected;
        let mut summary = Summary {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            verdict: Verdict::default(),
            counts: Totals::of(&total, &record.statuses),
            window,
            rate: ratio(within.answers as f64, seconds).unwrap_or(0.0),
            offered_rate: ratio(total.offered() as f64, self::seconds(window.to)).unwrap_or(0.0),
            received_rate: ratio(within.bytes_received as f64, seconds).unwrap_or(0.0),
            cpu: used.map_or_else(Cpu::default, |used| Cpu::of(&used, answered)),
            machine: used.map_or_else(Machine::default, |used| Machine::of(&used)),
            targets: targets(&setup, &record),
            series: series(&record, &measured),
            latency,
            fairness,
            setup,
            measured,
            record,
        };
        summary.cpu.client_enters_per_request =
            summary.setup.enters.and_then(|enters| ratio(enters as f64, total.answers as f64));
        summary.verdict = judge(&Facts::of(&summary)).with(&summary.setup.inherited);
        summary
    }

    /// Reads the document that [`to_json`](Summary::to_json) writes, and computes the rest anew.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for people.
    pub fn from_json(text: &str) -> Result<Summary, String> {
        #[derive(Deserialize)]
        struct Versioned {
            schema: Option<String>,
        }
        let refusal = |error| format!("this is no result of `bench --json`: {error}");
        let Versioned { schema } = serde_json::from_str(text).map_err(refusal)?;
        match schema.as_deref() {
            Some(SCHEMA) => {}
            Some(other) => {
                return Err(format!("its schema is `{other}`, and this program reads `{SCHEMA}`"));
            }
            None => {
                return Err("this is no result of `bench --json`: it names no schema".to_owned());
            }
        }
        let source: Source = serde_json::from_str(text).map_err(refusal)?;
        assert_eq!(source.schema, SCHEMA);
        Ok(Summary::new(source.setup, source.record, source.measured))
    }

    /// The whole document.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("all its keys are text")
    }

    /// One result of several generators that ran at the same time against the same server. CPU time
    /// is left out, as each has measured its own machine; what made a generator's figures doubtful
    /// makes these so.
    ///
    /// # Errors
    ///
    /// One was a closed loop and another an open one: their times mean different things.
    pub fn merge(self, others: impl IntoIterator<Item = Summary>) -> Result<Summary, String> {
        let mut inherited = self.own_reasons(1);
        let (mut setup, mut record) = (self.setup, self.record);
        for (number, other) in (2..).zip(others) {
            if other.setup.load.is_open() != setup.load.is_open() {
                return Err("a closed loop and one at a rate can't be one result".to_owned());
            }
            inherited.extend(other.own_reasons(number));
            if other.setup.started_at.abs_diff(setup.started_at) > APART_MAX {
                inherited.push(Reason {
                    rule: "apart".into(),
                    status: Status::Suspect,
                    text: format!(
                        "generator {number} began {} s before or after the first: rates are added \
                         as if they had run at the same time",
                        other.setup.started_at.abs_diff(setup.started_at)
                    ),
                });
            }
            record.add(&other.record);
            let theirs = other.setup;
            setup.connections += theirs.connections;
            setup.threads += theirs.threads;
            setup.load_end = setup.load_end.max(theirs.load_end);
            setup.enters = setup.enters.zip(theirs.enters).map(|(ours, more)| ours + more);
            if let (Load::Open { rate, .. }, Load::Open { rate: more, .. }) =
                (&mut setup.load, &theirs.load)
            {
                *rate += more;
            }
            if setup.targets != theirs.targets {
                setup.targets.clear(); // their numbers mean different ones
            }
        }
        setup.inherited = inherited;
        Ok(Summary::new(setup, record, Measured::default()))
    }

    /// Why this generator's figures are doubtful, as far as its record alone doesn't tell.
    fn own_reasons(&self, number: usize) -> Vec<Reason> {
        let of_record = judge(&Facts::of(&Summary::new(
            Setup { inherited: Vec::new(), ..self.setup.clone() },
            self.record.clone(),
            Measured::default(),
        )));
        let is_told =
            |reason: &&Reason| of_record.reasons.iter().any(|told| told.rule == reason.rule);
        let reasons = self.verdict.reasons.iter().filter(|reason| !is_told(reason));
        let named = |reason: &Reason| Reason {
            text: format!("generator {number}: {}", reason.text),
            ..reason.clone()
        };
        reasons.map(named).collect()
    }

    /// The response times of the window.
    pub fn response(&self) -> Censored {
        censored(&self.record, self.first_slot(), Clock::Response)
    }

    /// The first slot of the window.
    pub fn first_slot(&self) -> usize {
        (self.window.from / self.record.slot_nanos) as usize
    }
}

/// The clock's times from this slot on, with the bounds that belong to them.
fn censored(record: &Record, first: usize, clock: Clock) -> Censored {
    let (known, at_least) = match clock {
        Clock::Response => (record.settings.response(), Some(record.settings.response_at_least())),
        Clock::Service => (clock, Some(Clock::ServiceAtLeast)),
        Clock::Wait => (clock, Some(Clock::WaitAtLeast)),
        _ => (clock, None),
    };
    let at_least = at_least.map_or_else(super::record::times, |it| record.times(it, first));
    Censored::new(record.times(known, first), at_least)
}

fn first_slot(setup: &Setup, record: &Record) -> usize {
    match setup.warmup {
        WarmupWish::Fixed(nanos) => {
            let slots = nanos.div_ceil(record.slot_nanos) as usize;
            slots.min(record.slots.len())
        }
        WarmupWish::Auto if setup.load.is_steady() => {
            let loaded = (setup.load_end / record.slot_nanos) as usize;
            let slots = &record.slots[..loaded.min(record.slots.len())];
            let service: Vec<f64> = slots
                .iter()
                .map(|slot| match slot.times(Clock::Service) {
                    Some(times) => times.value_at_quantile(0.5) as f64,
                    None => f64::INFINITY,
                })
                .collect();
            let mut first = warmup_slots(&service);
            if !setup.load.is_open() {
                let costs: Vec<f64> =
                    slots.iter().map(|slot| 1.0 / slot.counts.answers as f64).collect();
                first = first.max(warmup_slots(&costs));
            }
            first
        }
        WarmupWish::Auto => 0,
    }
}

fn window(setup: &Setup, record: &Record, first: usize) -> Window {
    let end = if setup.load_end == 0 { record.end } else { setup.load_end.min(record.end) };
    let from = (first as u64 * record.slot_nanos).min(end);
    let mut warmup = super::record::times();
    for slot in &record.slots[..first] {
        if let Some(times) = slot.times(record.settings.response()) {
            warmup.add(times).expect("their bounds are the same");
        }
    }
    let answers = record.counts(first).answers;
    Window {
        from,
        to: end,
        drained: record.end,
        answers,
        warmup_answers: record.total().answers - answers,
        warmup_p50: (!warmup.is_empty()).then(|| warmup.value_at_quantile(0.5)),
    }
}

/// What was counted from a slot on to the one that ends at or after a time.
fn counts_until(record: &Record, first: usize, to: u64) -> Counts {
    let last = to.div_ceil(record.slot_nanos) as usize;
    let mut counts = Counts::default();
    record.slots.iter().take(last).skip(first).for_each(|slot| counts.add(&slot.counts));
    counts
}

impl Totals {
    /// Failures of requests and connections that are the generator's own.
    pub fn own_failures(&self) -> u64 {
        let all = self.faults.iter().chain(&self.connect_faults);
        all.filter(|(fault, _)| fault.is_own()).map(|(_, count)| count).sum()
    }

    fn of(counts: &Counts, statuses: &[u64]) -> Totals {
        let named = |faults: &[u64]| {
            let each = Fault::ALL.into_iter().zip(faults.iter().copied());
            each.filter(|(_, count)| *count > 0).collect()
        };
        let statuses = statuses.iter().enumerate().filter(|(_, count)| **count > 0);
        Totals {
            offered: counts.offered(),
            sent: counts.sent,
            ok: counts.answers,
            failed: counts.failed(),
            unfinished: counts.unfinished(),
            unsent: counts.unsent,
            connects: counts.connects,
            connect_failures: counts.connect_failures,
            statuses: statuses.map(|(status, count)| (status.to_string(), *count)).collect(),
            faults: named(&counts.faults),
            connect_faults: named(&counts.connect_faults),
            bytes_sent: counts.bytes_sent,
            bytes_received: counts.bytes_received,
        }
    }
}

impl Latency {
    fn of(record: &Record, first: usize) -> Latency {
        let of = |clock| Distribution::of(&censored(record, first, clock));
        Latency {
            response: of(Clock::Response),
            service: of(Clock::Service),
            wait: of(Clock::Wait),
            lag: of(Clock::Lag),
            connect: of(Clock::Connect),
            ttfb: of(Clock::FirstByte),
            close: of(Clock::Close),
            unexpected: of(Clock::Unexpected),
        }
    }

    /// Each with its name.
    pub fn each(&self) -> [(&'static str, &Distribution); 8] {
        [
            ("response", &self.response),
            ("service", &self.service),
            ("wait", &self.wait),
            ("lag", &self.lag),
            ("connect", &self.connect),
            ("ttfb", &self.ttfb),
            ("close", &self.close),
            ("unexpected", &self.unexpected),
        ]
    }
}

impl Distribution {
    /// Of these times.
    pub fn of(times: &Censored) -> Distribution {
        let mut at_least = Vec::new();
        let mut take = |name, percentile: Option<Percentile>| {
            let percentile = percentile?;
            if percentile.at_least {
                at_least.push(name);
            }
            Some(percentile.nanos)
        };
        let text = |times: &hdrhistogram::Histogram<u64>| {
            if times.is_empty() { String::new() } else { compressed(times) }
        };
        Distribution {
            count: times.len(),
            censored: times.at_least().len(),
            mean: times.mean(),
            min: (!times.known().is_empty()).then(|| times.known().min()),
            p50: take("p50", times.percentile(0.5)),
            p90: take("p90", times.percentile(0.9)),
            p99: take("p99", times.percentile(0.99)),
            p999: take("p999", times.percentile(0.999)),
            max: take("max", times.max()),
            at_least,
            histogram: text(times.known()),
            histogram_at_least: text(times.at_least()),
        }
    }

    /// The percentiles with their names, in their order.
    pub fn percentiles(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p999", self.p999),
            ("max", self.max),
        ]
    }

    /// The one with this name is a lower bound.
    pub fn is_at_least(&self, name: &str) -> bool {
        self.at_least.contains(&name)
    }
}

impl Cpu {
    fn of(used: &Sample, answered: u64) -> Cpu {
        let elapsed = used.at as f64;
        let each = |nanos: u64| ratio(nanos as f64 / 1_000.0, answered as f64);
        Cpu {
            client_us_per_request: each(used.client_cpu),
            server_us_per_request: used.server_cpu.and_then(each),
            client_cores: ratio(used.client_cpu as f64, elapsed),
            server_cores: used.server_cpu.and_then(|cpu| ratio(cpu as f64, elapsed)),
            client_busiest: ratio(used.client_busiest as f64, elapsed),
            server_busiest: used.server_busiest.and_then(|cpu| ratio(cpu as f64, elapsed)),
            client_enters_per_request: None,
            client_switches_per_second: ratio(used.client_switches as f64, seconds(used.at)),
        }
    }
}

impl Machine {
    fn of(used: &Sample) -> Machine {
        let of_all = |nanos: u64| ratio(nanos as f64, used.machine_all as f64);
        let of_time = |nanos: u64| ratio(nanos as f64, used.at as f64);
        Machine {
            idle: of_all(used.machine_idle),
            stolen: of_all(used.machine_stolen),
            softirq: of_all(used.machine_softirq),
            pressure_cpu: used.pressure_cpu.and_then(of_time),
            pressure_io: used.pressure_io.and_then(of_time),
            client_waited: of_time(used.client_waited),
            retransmits: used.retransmits,
            segments: used.segments,
            listen_overflows: used.listen_overflows,
            listen_drops: used.listen_drops,
        }
    }
}

impl Fairness {
    fn of(record: &Record, measured: &Measured) -> Fairness {
        let answers: Vec<u64> = record.connections.iter().map(|share| share.answers).collect();
        let even = |counts: &[u64]| {
            let counts: Vec<f64> = counts.iter().map(|count| *count as f64).collect();
            stats::fairness(&counts)
        };
        let least = answers.iter().min().copied();
        Fairness {
            connections: even(&answers),
            connection_answers: least.zip(answers.iter().max().copied()),
            workers: measured.workers.as_deref().and_then(even),
        }
    }
}

fn targets(setup: &Setup, record: &Record) -> Vec<Target> {
    let shares = &record.targets;
    let Some((_, named)) = shares.split_last() else { return Vec::new() };
    let of_share = |(number, share): (usize, &Share)| {
        let name = match setup.targets.get(number) {
            Some(name) => name.clone(),
            None if number == named.len() => "others".to_owned(),
            None => format!("target {}", number + 1),
        };
        let times = match record.target_times.get(number) {
            Some(times) => times.clone(),
            None if named.len() == 1 => record.times(record.settings.response(), 0),
            None => super::record::times(),
        };
        Target {
            name,
            answers: share.answers,
            failed: share.failed,
            bytes: share.bytes,
            service_mean: share.service_sum.checked_div(share.answers),
            service_max: (share.answers > 0).then_some(share.service_max),
            response: Distribution::of(&Censored::new(times, super::record::times())),
        }
    };
    let is_used = |share: &Share| share.answers + share.failed > 0;
    let has_place = |(number, share): &(usize, &Share)| *number < named.len() || is_used(share);
    shares.iter().enumerate().filter(has_place).map(of_share).collect()
}

fn series(record: &Record, measured: &Measured) -> Vec<Point> {
    let width = record.slot_nanos;
    let of_slot = |(number, slot): (u64, &super::record::Slot)| {
        let at = number * width;
        // The last one may be cut short; one of a few milliseconds tells no rate of its own.
        let cut = record.end.saturating_sub(at);
        let seconds = seconds(if cut < width / 2 { width } else { cut.min(width) });
        let times = |clock| slot.times(clock).unwrap_or_else(super::record::times);
        let response = Censored::new(
            times(record.settings.response()),
            times(record.settings.response_at_least()),
        );
        let nanos = |percentile: Option<Percentile>| percentile.map(|it| it.nanos);
        let used = measured.around(at, at + width);
        Point {
            at,
            sent: slot.counts.sent as f64 / seconds,
            ok: slot.counts.answers as f64 / seconds,
            failed: slot.counts.failed() as f64 / seconds,
            p50: nanos(response.percentile(0.5)),
            p99: nanos(response.percentile(0.99)),
            max: nanos(response.max()),
            client_cores: used.and_then(|used| ratio(used.client_cpu as f64, used.at as f64)),
            server_cores: used.and_then(|used| ratio(used.server_cpu? as f64, used.at as f64)),
        }
    };
    (0..).zip(&record.slots).map(of_slot).collect()
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// A ratio, if there is one.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}
