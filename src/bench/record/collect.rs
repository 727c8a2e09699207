//! Puts together what the threads have recorded: slot by slot while the run goes on, whole when it
//! is over. Runs on a thread of its own and may allocate; its memory is bounded all the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

use super::interval::{CLOCKS, Clock, Counts, Interval, Times, times};
use super::json;
use super::{Gauges, Heat, Kept, Recorder, Rest, STATUSES, Settings, Share, TARGETS_MAX};

/// Slots of a record: when there would be more, each becomes twice as long. With lossless times of
/// some hundred bytes a clock, some MiB.
pub(super) const SLOTS_MAX: u64 = 600;
/// How long an interval may be, in nanoseconds: what a live view shows is at most so old.
const SPANS: [u64; 4] = [100_000_000, 200_000_000, 500_000_000, 1_000_000_000];
/// Intervals of one recorder that go round: one to write to, and for the collector to be late by
/// three.
const INTERVALS: usize = 4;
/// Slots whose times are not encoded yet, because a thread may still add to them.
const OPEN_SLOTS: usize = 3;

/// Collects what the recorders of all threads have recorded.
#[derive(Debug)]
pub struct Collector {
    settings: Settings,
    span: u64,
    threads: Vec<Thread>,
    record: Record,
    /// The newest slots, with their numbers.
    open: VecDeque<(u64, Interval)>,
    spare: Vec<Interval>,
    encoder: Encoder,
    total: Counts,
    response: Histogram<u64>,
}

#[derive(Debug)]
struct Thread {
    full: Receiver<Box<Interval>>,
    empty: SyncSender<Box<Interval>>,
    gauges: Arc<Gauges>,
}

/// A run as it is so far.
#[derive(Debug)]
pub struct Live<'a> {
    /// All until now.
    pub total: &'a Counts,
    /// Response times of all answers until now.
    pub response: &'a Histogram<u64>,
    /// The newest slots, the oldest first; the last ones may still lack what slow threads add.
    pub newest: Vec<&'a Interval>,
    /// Connections that are open.
    pub connections: u64,
    /// Requests that were sent and have no answer yet.
    pub in_flight: u64,
    /// Requests that are due and not sent.
    pub backlog: u64,
}

/// All that was recorded of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// How it was recorded.
    pub settings: Settings,
    /// Nanoseconds that a slot spans.
    #[serde(deserialize_with = "json::slot_nanos")]
    pub slot_nanos: u64,
    /// From the run's epoch on, without a gap.
    #[serde(deserialize_with = "json::slots")]
    pub slots: Vec<Slot>,
    /// When the last thread finished.
    pub end: u64,
    /// Answers by status code: 600 counts; those of no known code are at 0.
    #[serde(with = "json::statuses")]
    pub statuses: Vec<u64>,
    /// How long requests took, by when they were due.
    pub heat: Heat,
    /// What each connection got, thread by thread.
    pub connections: Vec<Share>,
    /// What each target got. One more than there are, or than [`TARGETS_MAX`]: the last one is for
    /// those that have no place of their own.
    pub targets: Vec<Share>,
    /// Response times of the answers of each of them, in the same order; empty if there is only one
    /// target, whose times are those of all.
    #[serde(default, with = "json::histograms", skip_serializing_if = "Vec::is_empty")]
    pub target_times: Vec<Histogram<u64>>,
    /// Intervals that lasted longer than they should, because the collector was late.
    pub overdue: u64,
    /// Threads that recorded.
    pub threads: u64,
}

/// What happened in one stretch of time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// How many.
    pub counts: Counts,
    /// How long: of each clock a histogram in `HdrHistogram`'s V2 format, or nothing.
    #[serde(with = "json::times")]
    times: [Box<[u8]>; CLOCKS],
}

impl Collector {
    /// Collects what the recorders that it makes will record.
    pub fn new(settings: Settings) -> Collector {
        let wide_enough = |span: &u64| settings.expected.is_none_or(|all| all / span < SLOTS_MAX);
        let span = SPANS.into_iter().find(wide_enough).unwrap_or(SPANS[SPANS.len() - 1]);
        Collector {
            settings,
            span,
            threads: Vec::new(),
            record: Record::new(settings, span),
            open: VecDeque::new(),
            spare: Vec::new(),
            encoder: Encoder::new(),
            total: Counts::default(),
            response: times(),
        }
    }

    /// A recorder for one more thread, which will have so many connections and targets.
    pub fn recorder(&mut self, connections: usize, targets: usize) -> Recorder {
        let (full, from_recorder) = sync_channel(INTERVALS);
        let (to_recorder, empty) = sync_channel(INTERVALS);
        for _ in 1..INTERVALS {
            to_recorder.try_send(Box::new(Interval::new())).expect("there is room for all");
        }
        let gauges = Arc::new(Gauges::default());
        self.threads.push(Thread {
            full: from_recorder,
            empty: to_recorder,
            gauges: Arc::clone(&gauges),
        });
        Recorder {
            open_loop: self.settings.open_loop,
            span: self.span,
            ends_at: self.span,
            interval: Box::new(Interval::new()),
            full,
            empty,
            gauges,
            kept: Kept {
                statuses: Box::new([0; STATUSES]),
                heat: Heat::new(self.span),
                connections: vec![Share::default(); connections.max(1)],
                targets: vec![Share::default(); targets.min(TARGETS_MAX) + 1],
                target_times: match targets {
                    0 | 1 => Vec::new(),
                    several => vec![times(); several.min(TARGETS_MAX) + 1],
                },
                overdue: 0,
            },
        }
    }

    /// Takes what the recorders have handed over since. To be called about as often as intervals
    /// end, [`span`](Collector::span).
    pub fn collect(&mut self) {
        for thread in 0..self.threads.len() {
            while let Ok(mut interval) = self.threads[thread].full.try_recv() {
                self.take(&interval);
                interval.clear();
                let _its_thread_has_finished = self.threads[thread].empty.try_send(interval);
            }
        }
    }

    /// Nanoseconds that an interval spans.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// The run as it is so far.
    pub fn live(&self) -> Live<'_> {
        let sum = |gauge: fn(&Gauges) -> u64| self.threads.iter().map(|it| gauge(&it.gauges)).sum();
        Live {
            total: &self.total,
            response: &self.response,
            newest: self.open.iter().map(|(_, interval)| interval).collect(),
            connections: sum(Gauges::connections),
            in_flight: sum(Gauges::in_flight),
            backlog: sum(Gauges::backlog),
        }
    }

    /// The whole run, when all threads have finished.
    pub fn finish(mut self, rests: impl IntoIterator<Item = Rest>) -> Record {
        self.collect();
        for Rest { last, kept } in rests {
            self.take(&last);
            self.record.end = self.record.end.max(last.to);
            self.record.threads += 1;
            self.record.overdue += kept.overdue;
            self.record.connections.extend(kept.connections);
            self.record.heat.add(&kept.heat);
            add_each(&mut self.record.statuses, &kept.statuses[..]);
            add_targets(&mut self.record.targets, &kept.targets);
            add_targets(&mut self.record.target_times, &kept.target_times);
        }
        while !self.open.is_empty() {
            self.seal_oldest();
        }
        self.record
    }

    fn take(&mut self, interval: &Interval) {
        if interval.from == interval.to && interval.counts == Counts::default() {
            return; // a thread finished as it began one
        }
        self.total.add(&interval.counts);
        let clock = self.record.settings.response();
        interval.times.add_to(&mut self.response, clock);
        while interval.from / self.record.slot_nanos >= SLOTS_MAX {
            while !self.open.is_empty() {
                self.seal_oldest();
            }
            self.record.coarsen();
        }
        let number = interval.from / self.record.slot_nanos;
        if let Some((_, open)) = self.open.iter_mut().find(|(open, _)| *open == number) {
            open.counts.add(&interval.counts);
            open.times.add(&interval.times);
            open.to = open.to.max(interval.to);
            return;
        }
        if self.open.len() == OPEN_SLOTS {
            self.seal_oldest();
        }
        let mut slot = self.spare.pop().unwrap_or_else(Interval::new);
        slot.from = number * self.record.slot_nanos;
        slot.to = interval.to;
        slot.counts = interval.counts;
        slot.times.add(&interval.times);
        let at = self.open.partition_point(|(open, _)| *open < number);
        self.open.insert(at, (number, slot));
    }

    fn seal_oldest(&mut self) {
        let Some((number, mut interval)) = self.open.pop_front() else { return };
        let slot = self.encoder.slot(&interval.counts, &interval.times);
        self.record.slot(number).add(&slot);
        interval.clear();
        self.spare.push(interval);
    }
}

impl Settings {
    /// The clock that has the response times.
    pub fn response(&self) -> Clock {
        if self.open_loop { Clock::Response } else { Clock::Service }
    }

    /// The clock that has their lower bounds.
    pub fn response_at_least(&self) -> Clock {
        if self.open_loop { Clock::ResponseAtLeast } else { Clock::ServiceAtLeast }
    }
}

impl Record {
    fn new(settings: Settings, span: u64) -> Record {
        Record {
            settings,
            slot_nanos: span,
            slots: Vec::new(),
            end: 0,
            statuses: vec![0; STATUSES],
            heat: Heat::new(span),
            connections: Vec::new(),
            targets: Vec::new(),
            target_times: Vec::new(),
            overdue: 0,
            threads: 0,
        }
    }

    /// All that was counted.
    pub fn total(&self) -> Counts {
        self.counts(0)
    }

    /// What was counted from this slot on.
    pub fn counts(&self, first: usize) -> Counts {
        let mut total = Counts::default();
        self.slots.iter().skip(first).for_each(|slot| total.add(&slot.counts));
        total
    }

    /// What this clock measured from this slot on.
    pub fn times(&self, clock: Clock, first: usize) -> Histogram<u64> {
        let mut total = times();
        self.slots.iter().skip(first).filter_map(|slot| slot.times(clock)).for_each(|slot| {
            total.add(slot).expect("their bounds are the same");
        });
        total
    }

    /// Adds what another generator recorded at the same time; their epochs are taken to be one.
    pub fn add(&mut self, other: &Record) {
        let mut other = other.clone();
        while self.slot_nanos < other.slot_nanos {
            self.coarsen();
        }
        while other.slot_nanos < self.slot_nanos {
            other.coarsen();
        }
        for (number, slot) in (0..).zip(&other.slots) {
            self.slot(number).add(slot);
        }
        self.end = self.end.max(other.end);
        add_each(&mut self.statuses, &other.statuses);
        self.heat.add(&other.heat);
        self.connections.extend(other.connections);
        add_targets(&mut self.targets, &other.targets);
        if self.target_times.is_empty() == other.target_times.is_empty() {
            add_targets(&mut self.target_times, &other.target_times);
        } else {
            self.target_times.clear(); // one of them knows only the sum
        }
        self.overdue += other.overdue;
        self.threads += other.threads;
    }

    /// Makes one slot of two.
    fn coarsen(&mut self) {
        self.slot_nanos *= 2;
        let slots = std::mem::take(&mut self.slots);
        for (number, slot) in (0..).zip(&slots) {
            self.slot(number / 2).add(slot);
        }
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        let number = number as usize;
        if self.slots.len() <= number {
            self.slots.resize_with(number + 1, Slot::empty);
        }
        &mut self.slots[number]
    }
}

impl Slot {
    /// One in which nothing happened.
    pub fn empty() -> Slot {
        Slot { counts: Counts::default(), times: std::array::from_fn(|_| Box::default()) }
    }

    /// What this clock measured, if anything.
    pub fn times(&self, clock: Clock) -> Option<Histogram<u64>> {
        let mut bytes = &self.times[clock as usize][..];
        if bytes.is_empty() {
            return None;
        }
        Some(Deserializer::new().deserialize(&mut bytes).expect("what was serialized here"))
    }

    fn add(&mut self, other: &Slot) {
        self.counts.add(&other.counts);
        for clock in Clock::ALL {
            let Some(more) = other.times(clock) else { continue };
            let place = &mut self.times[clock as usize];
            if place.is_empty() {
                place.clone_from(&other.times[clock as usize]);
                continue;
            }
            let mut sum = self.times(clock).expect("it isn't empty");
            sum.add(more).expect("their bounds are the same");
            self.times[clock as usize] = encode(&sum);
        }
    }
}

/// Makes slots of intervals. Keeps its memory: a histogram is 270 KB, and with one allocated for each
/// slot, between which small ones stay, the heap would grow by as much.
struct Encoder {
    times: Histogram<u64>,
    bytes: Vec<u8>,
    serializer: V2Serializer,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    fn new() -> Encoder {
        Encoder { times: times(), bytes: Vec::new(), serializer: V2Serializer::new() }
    }

    fn slot(&mut self, counts: &Counts, times: &Times) -> Slot {
        let times = Clock::ALL.map(|clock| {
            if times.is_empty(clock) {
                return Box::default();
            }
            self.times.reset();
            times.add_to(&mut self.times, clock);
            self.bytes.clear();
            let serialized = self.serializer.serialize(&self.times, &mut self.bytes);
            serialized.expect("memory takes everything");
            Box::from(&self.bytes[..])
        });
        Slot { counts: *counts, times }
    }
}

pub(super) fn encode(times: &Histogram<u64>) -> Box<[u8]> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(times, &mut bytes).expect("memory takes everything");
    bytes.into_boxed_slice()
}

fn add_each(sums: &mut [u64], more: &[u64]) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// What is kept of each target.
trait OfTarget: Clone {
    fn empty() -> Self;
    fn add(&mut self, more: &Self);
}

impl OfTarget for Share {
    fn empty() -> Share {
        Share::default()
    }

    fn add(&mut self, more: &Share) {
        Share::add(self, more);
    }
}

impl OfTarget for Histogram<u64> {
    fn empty() -> Histogram<u64> {
        times()
    }

    fn add(&mut self, more: &Histogram<u64>) {
        Histogram::add(self, more).expect("their bounds are the same");
    }
}

/// Adds up targets; the last one of each is for those without a place.
fn add_targets<T: OfTarget>(sums: &mut Vec<T>, more: &[T]) {
    let Some((others, named)) = more.split_last() else { return };
    let mut last = sums.pop().unwrap_or_else(T::empty);
    last.add(others);
    if sums.len() < named.len() {
        sums.resize(named.len(), T::empty());
    }
    sums.iter_mut().zip(named).for_each(|(sum, more)| sum.add(more));
    sums.push(last);
}
