//! Whether a run says something about the server, by named rules, and what limited it. Each rule is
//! a pure function of [`Facts`]: a run judges itself from what it measured, never from a guess.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Percentile, Summary};
use crate::bench::record::{Clock, Fault};

/// What a run is worth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Its figures are those of the server under this load.
    #[default]
    Valid,
    /// They may be, but something else played a part: read the reasons.
    Suspect,
    /// They are not.
    Invalid,
}

impl Status {
    /// As it is printed.
    pub fn text(self) -> &'static str {
        match self {
            Status::Valid => "VALID",
            Status::Suspect => "SUSPECT",
            Status::Invalid => "INVALID",
        }
    }
}

/// What kept the rate from being higher.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limiter {
    /// The server's CPU.
    Server,
    /// The generator's CPU: the server could do more.
    Generator,
    /// The machine's CPU, which both sides share.
    Machine,
    /// The schedule: no more was asked for.
    Schedule,
    /// The number of connections: each waits for its answer, and nobody's CPU is full.
    Connections,
    /// Nothing was answered, so nothing was limited.
    Failure,
    /// Not known, mostly because the server's CPU time isn't (`--server-pid`).
    #[default]
    Unknown,
}

impl Limiter {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Limiter::Server => "the server's CPU",
            Limiter::Generator => "the load generator's CPU",
            Limiter::Machine => "the CPU of this machine, which both sides share",
            Limiter::Schedule => "what was asked for: no more was due",
            Limiter::Connections => "the number of connections: each waits for its answer",
            Limiter::Failure => "failure: nothing was answered",
            Limiter::Unknown => "not known (--server-pid PID would tell more)",
        }
    }
}

/// Why a run isn't simply valid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// The rule's name.
    pub rule: Cow<'static, str>,
    /// What it makes of the run.
    pub status: Status,
    /// What was seen, and what to do about it.
    pub text: String,
}

impl Reason {
    /// Requests or connections failed, but not all of them.
    pub fn is_failure(&self) -> bool {
        matches!(&*self.rule, "failures" | "connect_failures")
    }

    /// It is the target that failed; else it is the generator, or something around both.
    pub fn is_targets(&self) -> bool {
        self.is_failure() || self.rule == "nothing_answered"
    }
}

/// The judgement.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub struct Verdict {
    /// The worst of its reasons.
    pub status: Status,
    /// Worst first.
    pub reasons: Vec<Reason>,
    /// What kept the rate from being higher.
    pub limiter: Limiter,
}

/// What the rules look at. Shares go from 0 to 1; times are nanoseconds.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Facts {
    /// Requests were due at times of a schedule.
    pub is_open: bool,
    /// The load was the same from begin to end.
    pub is_steady: bool,
    /// Seconds of the window.
    pub seconds: f64,
    /// Requests that were due.
    pub offered: u64,
    /// Answered as they should be, in the whole run.
    pub ok: u64,
    /// Failed.
    pub failed: u64,
    /// Neither.
    pub unfinished: u64,
    /// Due and never sent.
    pub unsent: u64,
    /// The commonest kind of failure.
    pub commonest_fault: Option<Fault>,
    /// Connections opened.
    pub connects: u64,
    /// Connections that could not be.
    pub connect_failures: u64,
    /// The commonest reason for that.
    pub commonest_connect_fault: Option<Fault>,
    /// Failures of requests and connections that are the generator's own: no port, no descriptor.
    pub own_failures: u64,
    /// Answers in the window.
    pub samples: u64,
    /// Of the response times.
    pub p50: Option<Percentile>,
    /// Likewise.
    pub p99: Option<Percentile>,
    /// The 99th percentile of the generator's lag.
    pub lag_p99: Option<u64>,
    /// Sends within 100 µs of when they could have been.
    pub paced: Option<f64>,
    /// How busy the busiest load thread was.
    pub client_busiest: Option<f64>,
    /// How long a load thread was ready and had no core.
    pub client_waited: Option<f64>,
    /// How busy the server's busiest thread was.
    pub server_busiest: Option<f64>,
    /// How much of the machine was idle.
    pub idle: Option<f64>,
    /// How much was given to other guests.
    pub stolen: Option<f64>,
    /// Segments sent again.
    pub retransmits: Option<u64>,
    /// Segments sent.
    pub segments: Option<u64>,
    /// Connections that found a listener's queue full, or were dropped there.
    pub listen_drops: Option<u64>,
    /// Median response time in the second half of the window to that in the first.
    pub drift: Option<f64>,
    /// Jain's index over the connections, if it means something: all ask the same place, and have
    /// asked often enough.
    pub fairness: Option<f64>,
    /// A closed loop that was told to go slowly: to think, or to open few connections.
    pub is_held_back: bool,
    /// Intervals that were too long because the collector was late.
    pub overdue: u64,
    /// Processes of the server that died.
    pub died: u64,
}

/// Judges a run.
pub fn judge(facts: &Facts) -> Verdict {
    let mut reasons: Vec<Reason> = RULES
        .iter()
        .filter_map(|(rule, check)| {
            let (status, text) = check(facts)?;
            Some(Reason { rule: Cow::Borrowed(rule), status, text })
        })
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.status));
    let status = reasons.first().map_or(Status::Valid, |reason| reason.status);
    Verdict { status, reasons, limiter: limiter(facts) }
}

impl Verdict {
    /// With reasons that were found elsewhere.
    #[must_use]
    pub fn with(mut self, reasons: &[Reason]) -> Verdict {
        self.reasons.extend_from_slice(reasons);
        self.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.status));
        self.status = self.reasons.first().map_or(Status::Valid, |reason| reason.status);
        self
    }
}

type Rule = fn(&Facts) -> Option<(Status, String)>;

const RULES: &[(&str, Rule)] = &[
    ("nothing_answered", nothing_answered),
    ("own_failures", own_failures),
    ("failures", failures),
    ("connect_failures", connect_failures),
    ("unfinished", unfinished),
    ("rate_not_reached", rate_not_reached),
    ("generator_lag", generator_lag),
    ("pacing", pacing),
    ("generator_saturated", generator_saturated),
    ("generator_starved", generator_starved),
    ("stolen", stolen),
    ("too_few_samples", too_few_samples),
    ("listen_queue", listen_queue),
    ("retransmits", retransmits),
    ("not_steady", not_steady),
    ("unfair", unfair),
    ("server_died", server_died),
    ("collector_late", collector_late),
];

/// So much of its time on a core, and a thread has next to nothing left: what it waits for in the
/// kernel would show as idle.
const SATURATED: f64 = 0.95;

/// So large a part of the sends is to be within 100 µs of its time.
const PACED: f64 = 0.99;
/// Failures that an ordinary run may have.
const FAILED_SUSPECT: f64 = 0.000_1;
const FAILED_INVALID: f64 = 0.01;
/// A thousand answers make the 99th percentile known.
const SAMPLES_MIN: u64 = 1_000;

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn percent(share: f64) -> String {
    // All but a few are not all.
    let percent = if share < 1.0 { (share * 100.0).min(99.0) } else { share * 100.0 };
    if percent >= 10.0 { format!("{percent:.0} %") } else { format!("{percent:.2} %") }
}

fn nothing_answered(facts: &Facts) -> Option<(Status, String)> {
    (facts.ok == 0).then(|| {
        let fault = facts.commonest_fault.or(facts.commonest_connect_fault);
        let why = fault.map_or(String::new(), |fault| format!(": {}", fault.text()));
        (Status::Invalid, format!("no request was answered as it should be{why}"))
    })
}

fn own_failures(facts: &Facts) -> Option<(Status, String)> {
    let count = facts.own_failures;
    (count > 0).then(|| {
        let text = format!(
            "{count} times the generator itself had no port or no descriptor left: use fewer \
             connections, keep them, or add addresses (--source)"
        );
        (Status::Invalid, text)
    })
}

fn failures(facts: &Facts) -> Option<(Status, String)> {
    let part = share(facts.failed, facts.offered);
    if facts.ok == 0 || part < FAILED_SUSPECT {
        return None;
    }
    let status = if part >= FAILED_INVALID { Status::Invalid } else { Status::Suspect };
    let kind = facts.commonest_fault.map_or("", Fault::text);
    Some((status, format!("{} of the requests failed, mostly {kind}", percent(part))))
}

fn connect_failures(facts: &Facts) -> Option<(Status, String)> {
    if facts.ok == 0 || facts.connect_failures == 0 {
        return None;
    }
    let kind = facts.commonest_connect_fault.map_or("", Fault::text_of_connection);
    let count = facts.connect_failures;
    let all = facts.connects + count;
    Some((Status::Suspect, format!("{count} of {all} connections failed, mostly {kind}")))
}

fn unfinished(facts: &Facts) -> Option<(Status, String)> {
    let part = share(facts.unfinished, facts.offered);
    // Of a closed loop each connection may have one.
    (facts.ok > 0 && part >= 0.001).then(|| {
        let text = format!(
            "{} of the requests had no end when the run ended: they count as lower bounds",
            percent(part)
        );
        (Status::Suspect, text)
    })
}

fn rate_not_reached(facts: &Facts) -> Option<(Status, String)> {
    let part = share(facts.unsent, facts.offered);
    (facts.is_open && facts.ok > 0 && part >= 0.01).then(|| {
        let text = format!(
            "{} of the requests that were due could not be sent: the rate was not reached",
            percent(part)
        );
        (Status::Suspect, text)
    })
}

/// The generator's own lateness is part of response times; it must not be what they show.
fn generator_lag(facts: &Facts) -> Option<(Status, String)> {
    let (lag, p99) = (facts.lag_p99?, facts.p99?.nanos);
    let part = share(lag, p99);
    if !facts.is_open || lag < 100_000 || part < 0.1 {
        return None;
    }
    let status = if part >= 0.5 && lag >= 1_000_000 { Status::Invalid } else { Status::Suspect };
    let text = format!(
        "the generator was late: 1 % of its sends by {:.2} ms or more, {} of the p99",
        lag as f64 / 1e6,
        percent(part)
    );
    Some((status, text))
}

fn pacing(facts: &Facts) -> Option<(Status, String)> {
    let paced = facts.paced?;
    (facts.is_open && paced < PACED).then(|| {
        let part = (paced * 1_000.0).floor() / 10.0;
        let text = format!("only {part:.1} % of the sends were within 100 µs of their time");
        (Status::Suspect, text)
    })
}

fn generator_saturated(facts: &Facts) -> Option<(Status, String)> {
    let busiest = facts.client_busiest?;
    // Who waits for the time of a request by looking at the clock is busy, and on time.
    let only_polls =
        (facts.is_open || facts.is_held_back) && facts.paced.is_some_and(|paced| paced >= PACED);
    (busiest >= SATURATED && !only_polls).then(|| {
        let text = format!(
            "a load thread was {} busy: this may be the generator's limit, not the server's \
             (more threads, or another machine)",
            percent(busiest.min(1.0))
        );
        (Status::Suspect, text)
    })
}

fn generator_starved(facts: &Facts) -> Option<(Status, String)> {
    let waited = facts.client_waited?;
    if waited < 0.05 {
        return None;
    }
    let status = if waited >= 0.3 { Status::Invalid } else { Status::Suspect };
    let text = format!(
        "a load thread was ready and had no core for {} of the time: others use the same cores",
        percent(waited)
    );
    Some((status, text))
}

fn stolen(facts: &Facts) -> Option<(Status, String)> {
    let stolen = facts.stolen?;
    if stolen < 0.01 {
        return None;
    }
    let status = if stolen >= 0.05 { Status::Invalid } else { Status::Suspect };
    Some((status, format!("the hypervisor took {} of the CPU time away (steal)", percent(stolen))))
}

fn too_few_samples(facts: &Facts) -> Option<(Status, String)> {
    (facts.ok > 0 && facts.samples < SAMPLES_MIN).then(|| {
        let samples = match facts.samples {
            1 => "1 answer is".to_owned(),
            several => format!("{several} answers are"),
        };
        (Status::Suspect, format!("{samples} too few to know the p99: run for longer"))
    })
}

fn listen_queue(facts: &Facts) -> Option<(Status, String)> {
    let drops = facts.listen_drops.filter(|drops| *drops > 0)?;
    let text = format!(
        "{drops} connections found a full listen queue, and waited for a retransmission \
         (on this machine, whoever's they were): raise the server's backlog and net.core.somaxconn"
    );
    Some((Status::Suspect, text))
}

fn retransmits(facts: &Facts) -> Option<(Status, String)> {
    let part = share(facts.retransmits?, facts.segments?);
    (part >= 0.001).then(|| {
        (Status::Suspect, format!("{} of the TCP segments were sent again", percent(part)))
    })
}

fn not_steady(facts: &Facts) -> Option<(Status, String)> {
    let drift = facts.drift.filter(|drift| *drift >= 1.2 || *drift <= 1.0 / 1.2)?;
    facts.is_steady.then(|| {
        let text = format!(
            "the median response time of the second half is {drift:.2} × that of the first: \
             run for longer, or find out what changes"
        );
        (Status::Suspect, text)
    })
}

fn unfair(facts: &Facts) -> Option<(Status, String)> {
    let fairness = facts.fairness.filter(|fairness| *fairness < 0.8)?;
    (facts.samples >= SAMPLES_MIN).then(|| {
        let text = format!(
            "connections were not served alike (fairness {fairness:.2} of 1): percentiles are \
             mostly those of the favoured ones"
        );
        (Status::Suspect, text)
    })
}

fn server_died(facts: &Facts) -> Option<(Status, String)> {
    let died = facts.died;
    (died > 0).then(|| (Status::Suspect, format!("{died} processes of the server ended meanwhile")))
}

fn collector_late(facts: &Facts) -> Option<(Status, String)> {
    let overdue = facts.overdue;
    (overdue > 0).then(|| {
        let text = format!(
            "figures were collected late {overdue} times: the series is coarser there, totals are right"
        );
        (Status::Suspect, text)
    })
}

fn limiter(facts: &Facts) -> Limiter {
    let full = |busy: Option<f64>| busy.is_some_and(|busy| busy >= SATURATED);
    let asked_for_no_more =
        facts.is_held_back || (facts.is_open && share(facts.unfinished, facts.offered) < 0.01);
    if facts.ok == 0 {
        Limiter::Failure
    } else if asked_for_no_more {
        Limiter::Schedule
    } else if full(facts.server_busiest) {
        Limiter::Server
    } else if full(facts.client_busiest) {
        Limiter::Generator
    } else if facts.idle.is_some_and(|idle| idle < 0.03) {
        Limiter::Machine
    } else if facts.server_busiest.is_some() && !facts.is_open {
        Limiter::Connections
    } else {
        Limiter::Unknown
    }
}

impl Facts {
    /// The facts of a run, whose verdict isn't looked at.
    pub fn of(summary: &Summary) -> Facts {
        let (counts, record) = (&summary.counts, &summary.record);
        let commonest = |faults: &std::collections::BTreeMap<Fault, u64>| {
            faults.iter().max_by_key(|(_, count)| **count).map(|(fault, _)| *fault)
        };
        let response = &summary.latency.response;
        let percentile = |name: &'static str, nanos: Option<u64>| {
            Some(Percentile { nanos: nanos?, at_least: response.is_at_least(name) })
        };
        let lag = record.times(Clock::Lag, summary.first_slot());
        let paced = (!lag.is_empty()).then(|| lag.percentile_below(PACED_NANOS) / 100.0);
        let lost = |name: Option<u64>, more: Option<u64>| Some(name?.max(more?));
        Facts {
            is_open: summary.setup.load.is_open(),
            is_steady: summary.setup.load.is_steady(),
            seconds: super::seconds(summary.window.to - summary.window.from),
            offered: counts.offered,
            ok: counts.ok,
            failed: counts.failed,
            unfinished: counts.unfinished,
            unsent: counts.unsent,
            commonest_fault: commonest(&counts.faults),
            connects: counts.connects,
            connect_failures: counts.connect_failures,
            commonest_connect_fault: commonest(&counts.connect_faults),
            own_failures: counts.own_failures(),
            samples: summary.window.answers,
            p50: percentile("p50", response.p50),
            p99: percentile("p99", response.p99),
            lag_p99: summary.latency.lag.p99,
            paced,
            client_busiest: summary.cpu.client_busiest,
            client_waited: summary.machine.client_waited,
            server_busiest: summary.cpu.server_busiest,
            idle: summary.machine.idle,
            stolen: summary.machine.stolen,
            retransmits: summary.machine.retransmits,
            segments: summary.machine.segments,
            listen_drops: lost(summary.machine.listen_overflows, summary.machine.listen_drops),
            drift: drift(summary),
            fairness: fairness(summary),
            is_held_back: summary.setup.is_held_back(),
            overdue: record.overdue,
            died: summary.measured.server.as_ref().map_or(0, |server| server.died),
        }
    }
}

/// Where connections have few answers each, chance alone makes them uneven: with so many on average,
/// the index is at least 0.95 though each answer goes to a random one.
const ANSWERS_EACH_MIN: u64 = 20;

/// Fairness over the connections, where they could be served alike.
fn fairness(summary: &Summary) -> Option<f64> {
    let connections = summary.record.connections.len() as u64;
    let is_enough = summary.counts.ok >= connections * ANSWERS_EACH_MIN;
    summary.fairness.connections.filter(|_| is_enough && summary.setup.places <= 1)
}

/// Sends within so many nanoseconds of their time are on time.
const PACED_NANOS: u64 = 100_000;

/// The median response time of the window's second half to that of its first, if both are known.
fn drift(summary: &Summary) -> Option<f64> {
    let record = &summary.record;
    let last = (summary.window.to / record.slot_nanos) as usize;
    let first = summary.first_slot();
    let middle = usize::midpoint(first, last);
    let median = |slots: &[crate::bench::record::Slot]| {
        let mut times = crate::bench::record::times();
        for slot in slots {
            if let Some(more) = slot.times(record.settings.response()) {
                times.add(more).expect("their bounds are the same");
            }
        }
        (times.len() >= SAMPLES_MIN).then(|| times.value_at_quantile(0.5) as f64)
    };
    let slots = record.slots.get(first..last)?;
    let (first_half, second_half) = slots.split_at_checked(middle - first)?;
    super::ratio(median(second_half)?, median(first_half)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run without fault: closed loop, a full server.
    fn sound() -> Facts {
        Facts {
            is_open: false,
            is_steady: true,
            seconds: 10.0,
            offered: 1_000_064,
            ok: 1_000_000,
            unfinished: 64,
            connects: 64,
            samples: 950_000,
            p50: Some(Percentile { nanos: 600_000, at_least: false }),
            p99: Some(Percentile { nanos: 2_000_000, at_least: false }),
            lag_p99: Some(50_000),
            paced: Some(0.999),
            client_busiest: Some(0.6),
            client_waited: Some(0.001),
            server_busiest: Some(0.99),
            idle: Some(0.2),
            stolen: Some(0.0),
            retransmits: Some(0),
            segments: Some(2_000_000),
            listen_drops: Some(0),
            drift: Some(1.01),
            fairness: Some(0.99),
            ..Facts::default()
        }
    }

    fn open() -> Facts {
        Facts { is_open: true, server_busiest: Some(0.5), ..sound() }
    }

    #[test]
    fn a_sound_run_is_valid() {
        for facts in [sound(), open()] {
            assert_eq!(judge(&facts).reasons, []);
            assert_eq!(judge(&facts).status, Status::Valid);
        }
    }

    #[test]
    fn each_rule_has_its_case() {
        use Status::{Invalid, Suspect};
        type Spoil = fn(&mut Facts);
        let cases: &[(&str, Status, Spoil)] = &[
            ("nothing_answered", Invalid, |it| it.ok = 0),
            ("own_failures", Invalid, |it| it.own_failures = 1),
            ("failures", Suspect, |it| it.failed = 200),
            ("failures", Invalid, |it| it.failed = 50_000),
            ("connect_failures", Suspect, |it| it.connect_failures = 1),
            ("unfinished", Suspect, |it| it.unfinished = 2_000),
            ("rate_not_reached", Suspect, |it| it.unsent = 20_000),
            ("generator_lag", Suspect, |it| it.lag_p99 = Some(300_000)),
            ("generator_lag", Invalid, |it| it.lag_p99 = Some(1_500_000)),
            ("pacing", Suspect, |it| it.paced = Some(0.9)),
            ("generator_saturated", Suspect, |it| {
                (it.client_busiest, it.paced) = (Some(0.97), None);
            }),
            ("generator_starved", Suspect, |it| it.client_waited = Some(0.1)),
            ("generator_starved", Invalid, |it| it.client_waited = Some(0.4)),
            ("stolen", Suspect, |it| it.stolen = Some(0.02)),
            ("stolen", Invalid, |it| it.stolen = Some(0.1)),
            ("too_few_samples", Suspect, |it| it.samples = 500),
            ("listen_queue", Suspect, |it| it.listen_drops = Some(7)),
            ("retransmits", Suspect, |it| it.retransmits = Some(5_000)),
            ("not_steady", Suspect, |it| it.drift = Some(1.5)),
            ("not_steady", Suspect, |it| it.drift = Some(0.5)),
            ("unfair", Suspect, |it| it.fairness = Some(0.5)),
            ("server_died", Suspect, |it| it.died = 1),
            ("collector_late", Suspect, |it| it.overdue = 3),
        ];
        for (rule, status, spoil) in cases {
            let mut facts = open();
            spoil(&mut facts);
            let verdict = judge(&facts);
            assert_eq!(verdict.status, *status, "{rule}");
            let rules: Vec<&str> = verdict.reasons.iter().map(|reason| &*reason.rule).collect();
            assert_eq!(rules, [*rule]);
        }
        let tested: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.0).collect();
        let all: std::collections::BTreeSet<&str> = RULES.iter().map(|rule| rule.0).collect();
        assert_eq!(tested, all, "every rule has a case");
    }

    #[test]
    fn what_is_not_known_is_no_reason() {
        let known = sound();
        let unknown =
            Facts { ok: known.ok, offered: known.offered, samples: 5_000, ..Facts::default() };
        assert_eq!(judge(&unknown).reasons, []);
    }

    #[test]
    fn schedules_that_change_may_drift_and_closed_loops_have_no_pace() {
        let ramp = Facts { is_steady: false, drift: Some(9.0), ..open() };
        assert_eq!(judge(&ramp).status, Status::Valid);
        let closed = Facts { paced: Some(0.1), lag_p99: Some(9_000_000), ..sound() };
        assert_eq!(judge(&closed).status, Status::Valid);
    }

    #[test]
    fn who_is_busy_waiting_is_not_saturated() {
        let polling = |facts| Facts { client_busiest: Some(1.0), paced: Some(0.999), ..facts };
        assert_eq!(judge(&polling(open())).status, Status::Valid);
        let held_back = Facts { is_held_back: true, ..polling(sound()) };
        assert_eq!(judge(&held_back).status, Status::Valid);
        assert_eq!(judge(&polling(sound())).status, Status::Suspect, "it never waits");
    }

    #[test]
    fn the_limiter_is_named() {
        assert_eq!(judge(&sound()).limiter, Limiter::Server);
        assert_eq!(judge(&open()).limiter, Limiter::Schedule);
        let cases = [
            (
                Limiter::Generator,
                Facts { server_busiest: None, client_busiest: Some(1.0), ..sound() },
            ),
            (Limiter::Connections, Facts { server_busiest: Some(0.4), ..sound() }),
            (Limiter::Machine, Facts { server_busiest: None, idle: Some(0.01), ..sound() }),
            (Limiter::Schedule, Facts { server_busiest: Some(0.4), is_held_back: true, ..sound() }),
            (Limiter::Unknown, Facts { server_busiest: None, ..sound() }),
            (Limiter::Failure, Facts { ok: 0, ..sound() }),
            (Limiter::Server, Facts { unfinished: 50_000, server_busiest: Some(1.0), ..open() }),
            (Limiter::Unknown, Facts { unfinished: 500_000, ..open() }),
        ];
        for (limiter, facts) in cases {
            assert_eq!(judge(&facts).limiter, limiter);
        }
    }

    #[test]
    fn the_worst_reason_comes_first() {
        let facts = Facts { stolen: Some(0.2), died: 1, failed: 100_000, ..sound() };
        let statuses: Vec<Status> = judge(&facts).reasons.iter().map(|it| it.status).collect();
        assert_eq!(statuses, [Status::Invalid, Status::Invalid, Status::Suspect]);
    }
}
