//! The scoreboard at one moment, as operators read it: a JSON document by serde, and the metrics
//! that Prometheus scrapes.

mod prometheus;

use std::time::Duration;

use serde::Serialize;

use super::clock::Moment;
use super::scoreboard::{Scoreboard, State, WorkerPage};
use crate::figures::{CLASSES, Durations, Fault};

/// What the pool is doing, over all workers and for each. Sums go on over restarts of workers.
///
/// Durations of requests are milliseconds from the turn that received a head's last byte to the
/// turn that saw the response's last byte taken by the kernel; they are 0 before the first. The
/// average is exact; the others come from a histogram, and are up to 1/32 (3.125 %) off: too short
/// for the shortest, too long for the rest.
#[derive(Clone, PartialEq, Serialize, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Some worker serves, or is about to.
    pub is_running: bool,
    /// How connections reach the workers: `shared`, `dispatch` or `steered`.
    pub architecture: &'static str,
    /// Seconds since the pool started.
    pub uptime_seconds: u64,
    /// Workers that there should be.
    pub total_workers: usize,
    /// Workers that serve.
    pub active_workers: usize,
    /// Workers whose process exists.
    pub alive_workers: usize,
    /// Requests so far whose heads were understood.
    pub total_requests: u64,
    /// Responses so far with a status of 1xx (final ones), 2xx or 3xx.
    pub successful_requests: u64,
    /// Responses so far with a status of 4xx or 5xx, also to what was no request.
    pub failed_requests: u64,
    /// Responses so far by class of status, from 1xx to 5xx.
    pub responses: [u64; CLASSES],
    /// Requests a second, on average since the pool started.
    pub requests_per_second: f64,
    /// Milliseconds; the average.
    pub avg_request_duration_ms: f64,
    /// Milliseconds; the shortest.
    pub min_request_duration_ms: f64,
    /// Milliseconds; the longest.
    pub max_request_duration_ms: f64,
    /// Milliseconds that half of the requests didn't exceed.
    pub p50_request_duration_ms: f64,
    /// Milliseconds that 90 % didn't exceed.
    pub p90_request_duration_ms: f64,
    /// Milliseconds that 99 % didn't exceed.
    pub p99_request_duration_ms: f64,
    /// Milliseconds that 99.9 % didn't exceed.
    pub p999_request_duration_ms: f64,
    /// Connections open now.
    pub active_connections: u64,
    /// Connections accepted so far.
    pub total_connections: u64,
    /// Connections closed so far.
    pub closed_connections: u64,
    /// Connections so far that were closed since something took too long: a head, a body, the next
    /// request, or the peer's reading.
    pub timed_out_connections: u64,
    /// Bytes received so far.
    pub bytes_received: u64,
    /// Bytes sent so far.
    pub bytes_sent: u64,
    /// Requests so far for files that were in memory.
    pub cache_hits: u64,
    /// Requests so far for files that had to be looked for, or read.
    pub cache_misses: u64,
    /// The share of the former, from 0 to 1; 0 before the first.
    pub cache_hit_rate: f64,
    /// Connections that wait in the master for a worker now.
    pub queue_size: u64,
    /// Connections so far that the master has accepted for its workers.
    pub dispatched: u64,
    /// Connections so far that the master has answered with 503.
    pub refused: u64,
    /// Idle connections so far that went from one worker to another.
    pub handed_over: u64,
    /// Connections so far that ended with a worker that died, rather than by its doing.
    pub lost_connections: u64,
    /// Messages so far, sent by [`PoolHandle::send`](crate::PoolHandle::send), that were dropped
    /// since their worker read none.
    pub dropped_messages: u64,
    /// Reloads that have succeeded.
    pub reloads: u64,
    /// Binary upgrades that have succeeded.
    pub upgrades: u64,
    /// Bytes of memory that open connections hold: parts of requests, and responses that wait.
    pub memory_held: u64,
    /// Lines of the access log that were written so far.
    pub access_log_lines: u64,
    /// Lines of the access log that were dropped so far, as the file was full, or too slow.
    pub access_log_dropped: u64,
    /// What went wrong so far.
    pub errors: Errors,
    /// Each worker, in order.
    pub workers: Vec<WorkerStatus>,
    /// For the histogram of Prometheus.
    #[serde(skip)]
    durations: Durations,
}

/// What went wrong so far with connections and requests.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[non_exhaustive]
pub struct Errors {
    /// Heads and bodies that HTTP doesn't allow, or that ask for what isn't there (400, 417, 501,
    /// 505).
    pub malformed: u64,
    /// Heads, targets and bodies over their limits (431, 414, 413).
    pub too_large: u64,
    /// Heads that took too long (408).
    pub head_timeouts: u64,
    /// Connections that brought no further request, or none at all, in their time. Many are well.
    pub idle_timeouts: u64,
    /// Bodies that took too long (408).
    pub body_timeouts: u64,
    /// Peers that didn't read, or had closed their side and had to wait too long for an answer.
    pub write_timeouts: u64,
    /// Sockets that failed, mostly since the peer reset the connection.
    pub broken_connections: u64,
    /// Handlers that panicked (500).
    pub handler_panics: u64,
    /// Responses that were cut off, as their stream failed.
    pub cut_off_responses: u64,
    /// Accepts that failed.
    pub failed_accepts: u64,
    /// Requests of clients that asked too often (429).
    pub rate_limited: u64,
    /// Requests that came while connections held too much memory (503).
    pub out_of_memory: u64,
    /// Handlers that took too long to answer (503).
    pub request_timeouts: u64,
    /// Connections that were closed at once, since their client had too many.
    pub too_many_connections: u64,
    /// Idle connections that were closed to make room for others.
    pub made_room: u64,
}

/// What one worker is doing. Counts go on over its restarts.
#[derive(Clone, PartialEq, Serialize, Debug)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Its place in the pool, from 0.
    pub worker_id: usize,
    /// Its process id; that of the last process while there is none.
    pub pid: u32,
    /// The core that it is pinned to.
    pub core: Option<usize>,
    /// What it is doing.
    pub state: State,
    /// Whether there is a process.
    pub is_alive: bool,
    /// Connections open now.
    pub connections: u64,
    /// Connections accepted so far.
    pub total_connections: u64,
    /// Requests so far.
    pub total_requests: u64,
    /// When its process was forked, in seconds since 1970; 0 before the first.
    pub started_at: u64,
    /// When its process last served a request, in seconds since 1970; none before the first.
    pub last_activity_at: Option<u64>,
    /// Seconds since it was forked; 0 while there is no process.
    pub uptime: u64,
    /// Seconds since it served a request, or was forked; 0 while there is no process.
    pub idle_time: u64,
    /// Bytes in RAM (the resident set) when it was last active; 0 while there is no process.
    pub memory_usage: u64,
    /// Milliseconds; the longest that its process has worked before it looked for news, or does
    /// now. What arrived meanwhile had to wait so long.
    pub loop_delay_ms: f64,
    /// Successors so far.
    pub restarts: u64,
    /// Enters of its ring so far.
    pub turns: u64,
}

impl Scoreboard {
    /// What the scoreboard shows now. Values are read one by one, so sums may be off by what happens
    /// meanwhile.
    pub(crate) fn status(&self, now: Moment) -> Status {
        let target = self.pool().workers.read() as usize;
        let workers: Vec<WorkerStatus> =
            (0..target).map(|id| WorkerStatus::of(id, *self, now)).collect();
        let count = |is: fn(State) -> bool| workers.iter().filter(|it| is(it.state)).count();
        let sum = |value: fn(&WorkerPage) -> u64| self.used().map(value).sum();
        let mut durations = Durations::new();
        self.used().for_each(|page| durations.add(&page.figures.durations));
        let quantile = |thousandths| milliseconds(durations.quantile(thousandths));
        let classes = self.used().map(|page| page.figures.responses());
        let responses =
            classes.fold([0; CLASSES], |sums, each| std::array::from_fn(|i| sums[i] + each[i]));
        let errors = Errors::of(|fault| self.used().map(|page| page.figures.faults(fault)).sum());
        let uptime_seconds = now.seconds_since(self.started());
        let total_requests = sum(|page| page.figures.requests.read());
        let cache_hits = sum(|page| page.traffic.cache_hits.read());
        let cache_misses = sum(|page| page.traffic.cache_misses.read());
        Status {
            is_running: self.used().any(|page| page.state().is_running()),
            architecture: self.architecture(),
            uptime_seconds,
            total_workers: workers.len(),
            active_workers: count(State::is_active),
            alive_workers: count(State::is_alive),
            total_requests,
            successful_requests: responses[..3].iter().sum(),
            failed_requests: responses[3..].iter().sum(),
            responses,
            requests_per_second: per_second(total_requests, uptime_seconds),
            avg_request_duration_ms: milliseconds(durations.average()),
            min_request_duration_ms: milliseconds(durations.min()),
            max_request_duration_ms: milliseconds(durations.max()),
            p50_request_duration_ms: quantile(500),
            p90_request_duration_ms: quantile(900),
            p99_request_duration_ms: quantile(990),
            p999_request_duration_ms: quantile(999),
            active_connections: sum(|page| page.traffic.connections.read()),
            total_connections: sum(|page| page.traffic.connections_total.read()),
            closed_connections: sum(|page| page.traffic.connections_closed.read()),
            timed_out_connections: errors.timeouts(),
            bytes_received: sum(|page| page.traffic.bytes_received.read()),
            bytes_sent: sum(|page| page.traffic.bytes_sent.read()),
            cache_hits,
            cache_misses,
            cache_hit_rate: share(cache_hits, cache_hits + cache_misses),
            queue_size: self.pool().queue_size.read(),
            dispatched: self.pool().accepted.read(),
            refused: self.pool().refused.read(),
            handed_over: self.pool().handed_over.read(),
            lost_connections: self.pool().lost.read(),
            dropped_messages: self.pool().dropped_messages.read(),
            reloads: self.pool().reloads.read(),
            upgrades: self.pool().upgrades.read(),
            memory_held: sum(|page| page.traffic.memory_held.read()),
            access_log_lines: sum(|page| page.traffic.lines_logged.read()),
            access_log_dropped: sum(|page| page.traffic.lines_dropped.read()),
            errors,
            workers,
            durations,
        }
    }

    fn architecture(&self) -> &'static str {
        match self.pool().accept.read() {
            1 => "dispatch",
            2 => "steered",
            _ => "shared",
        }
    }
}

impl Errors {
    fn of(count: impl Fn(Fault) -> u64) -> Errors {
        Errors {
            malformed: count(Fault::Malformed),
            too_large: count(Fault::TooLarge),
            head_timeouts: count(Fault::HeadTimeout),
            idle_timeouts: count(Fault::IdleTimeout),
            body_timeouts: count(Fault::BodyTimeout),
            write_timeouts: count(Fault::WriteTimeout),
            broken_connections: count(Fault::Broken),
            handler_panics: count(Fault::Panicked),
            cut_off_responses: count(Fault::CutOff),
            failed_accepts: count(Fault::AcceptFailed),
            rate_limited: count(Fault::RateLimited),
            out_of_memory: count(Fault::OutOfMemory),
            request_timeouts: count(Fault::RequestTimeout),
            too_many_connections: count(Fault::TooManyConnections),
            made_room: count(Fault::MadeRoom),
        }
    }

    fn timeouts(&self) -> u64 {
        self.head_timeouts
            + self.idle_timeouts
            + self.body_timeouts
            + self.write_timeouts
            + self.request_timeouts
    }
}

impl WorkerStatus {
    fn of(worker_id: usize, scoreboard: Scoreboard, now: Moment) -> WorkerStatus {
        let sum = |value: fn(&WorkerPage) -> u64| scoreboard.of_worker(worker_id).map(value).sum();
        let speaker = scoreboard.speaker(worker_id);
        let state = speaker.map_or(State::Starting, WorkerPage::state);
        let alive = speaker.filter(|_| state.is_alive());
        let started = speaker.map_or(0, WorkerPage::started);
        let last_activity = speaker.map(|page| page.life.last_activity.read()).filter(|at| *at > 0);
        let since = |at: u64| alive.map_or(0, |_| now.seconds_since(at));
        let last_activity_at =
            last_activity.map(|at| now.unix_seconds.saturating_sub(now.seconds_since(at)));
        WorkerStatus {
            worker_id,
            pid: speaker.map_or(0, WorkerPage::pid),
            core: speaker.and_then(WorkerPage::core),
            state,
            is_alive: state.is_alive(),
            connections: sum(|page| page.traffic.connections.read()),
            total_connections: sum(|page| page.traffic.connections_total.read()),
            total_requests: sum(|page| page.figures.requests.read()),
            started_at: speaker.map_or(0, WorkerPage::started_at),
            last_activity_at,
            uptime: since(started),
            idle_time: since(last_activity.unwrap_or(started)),
            memory_usage: alive.map_or(0, |page| page.life.memory.read()),
            loop_delay_ms: milliseconds(speaker.map(|page| page.loop_delay(now.nanos))),
            restarts: speaker.map_or(0, WorkerPage::restarts),
            turns: sum(|page| page.traffic.turns.read()),
        }
    }
}

/// A rate; of a pool that is younger than a second, as if it were one old.
#[expect(clippy::cast_precision_loss, reason = "three decimals of it are shown")]
fn per_second(count: u64, seconds: u64) -> f64 {
    rounded(count as f64 / seconds.max(1) as f64)
}

/// A part of a whole; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "three decimals of it are shown")]
fn share(part: u64, whole: u64) -> f64 {
    rounded(part as f64 / whole.max(1) as f64)
}

/// Milliseconds to the microsecond; 0 for none.
fn milliseconds(duration: Option<Duration>) -> f64 {
    rounded(duration.unwrap_or_default().as_secs_f64() * 1000.0)
}

/// Three decimals.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_this_shape() {
        let start = Moment { unix_seconds: 1_000, nanos: 1_000_000 };
        let (scoreboard, _memory) = Scoreboard::create(start).unwrap();
        scoreboard.pool().workers.set(1);
        let page = scoreboard.claim(0, start).unwrap();
        page.on_birth(123, Some(0));
        page.set_state(State::Ready);
        page.life.last_activity.set(8_001_000_000);
        page.life.memory.set(4_096);
        page.traffic.connections.set(3);
        page.traffic.connections_total.add(10);
        page.traffic.connections_closed.add(7);
        page.traffic.bytes_received.add(123);
        page.traffic.bytes_sent.add(456);
        page.traffic.cache_hits.add(2);
        page.traffic.cache_misses.add(1);
        page.traffic.turns.add(99);
        page.traffic.loop_delay_max.set(2_000_000);
        page.traffic.busy_since.set(12_001_000_000);
        page.figures.requests.add(1234);
        [101, 200, 200, 304, 404, 500].into_iter().for_each(|code| page.figures.on_response(code));
        page.figures.durations.record(1_048_576, 1); // the first of a bucket 32,768 wide
        for (number, fault) in Fault::ALL.into_iter().enumerate() {
            (0..=number).for_each(|_| page.figures.on_fault(fault));
        }
        let figures = scoreboard.pool();
        figures.accepted.set(1);
        figures.refused.set(2);
        figures.handed_over.set(3);
        figures.lost.set(7);
        figures.dropped_messages.set(8);
        figures.reloads.set(4);
        figures.upgrades.set(5);
        figures.queue_size.set(6);
        let status = scoreboard.status(Moment { unix_seconds: 1_012, nanos: 12_004_500_000 });
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            concat!(
                r#"{"is_running":true,"architecture":"shared","uptime_seconds":12,"#,
                r#""total_workers":1,"active_workers":1,"alive_workers":1,"#,
                r#""total_requests":1234,"successful_requests":4,"failed_requests":2,"#,
                r#""responses":[1,2,1,1,1],"requests_per_second":102.833,"#,
                r#""avg_request_duration_ms":1.049,"min_request_duration_ms":1.049,"#,
                r#""max_request_duration_ms":1.081,"p50_request_duration_ms":1.081,"#,
                r#""p90_request_duration_ms":1.081,"p99_request_duration_ms":1.081,"#,
                r#""p999_request_duration_ms":1.081,"#,
                r#""active_connections":3,"total_connections":10,"closed_connections":7,"#,
                r#""timed_out_connections":31,"bytes_received":123,"bytes_sent":456,"#,
                r#""cache_hits":2,"cache_misses":1,"cache_hit_rate":0.667,"#,
                r#""queue_size":6,"dispatched":1,"refused":2,"handed_over":3,"#,
                r#""lost_connections":7,"dropped_messages":8,"reloads":4,"upgrades":5,"#,
                r#""memory_held":0,"access_log_lines":0,"access_log_dropped":0,"#,
                r#""errors":{"malformed":1,"too_large":2,"head_timeouts":3,"#,
                r#""idle_timeouts":4,"body_timeouts":5,"write_timeouts":6,"#,
                r#""broken_connections":7,"handler_panics":8,"cut_off_responses":9,"#,
                r#""failed_accepts":10,"rate_limited":11,"out_of_memory":12,"#,
                r#""request_timeouts":13,"too_many_connections":14,"made_room":15},"workers":[{"worker_id":0,"pid":123,"core":0,"#,
                r#""state":"ready","is_alive":true,"connections":3,"total_connections":10,"#,
                r#""total_requests":1234,"started_at":1000,"last_activity_at":1008,"uptime":12,"#,
                r#""idle_time":4,"memory_usage":4096,"loop_delay_ms":3.5,"restarts":0,"#,
                r#""turns":99}]}"#,
            )
        );
    }

    #[test]
    fn durations_dont_follow_a_wall_clock_that_is_set() {
        let at =
            |unix_seconds, seconds: u64| Moment { unix_seconds, nanos: seconds * 1_000_000_000 };
        let (scoreboard, _memory) = Scoreboard::create(at(5_000, 10)).unwrap();
        scoreboard.pool().workers.set(1);
        let page = scoreboard.claim(0, at(5_000, 10)).unwrap();
        page.set_state(State::Ready);
        page.figures.requests.add(100);
        for wall in [0, 5_030, 1 << 40] {
            page.life.last_activity.set(at(0, 30).nanos);
            let status = scoreboard.status(at(wall, 40));
            let worker = &status.workers[0];
            assert_eq!((status.uptime_seconds, worker.uptime, worker.idle_time), (30, 30, 10));
            assert_eq!(status.requests_per_second.to_string(), "3.333");
            assert_eq!(worker.last_activity_at, Some(wall.saturating_sub(10)));
            assert_eq!(worker.started_at, 5_000);
        }
    }

    #[test]
    fn sums_go_over_all_workers_and_only_serving_ones_are_active() {
        let (scoreboard, _memory) = Scoreboard::create(Moment::default()).unwrap();
        scoreboard.pool().workers.set(4);
        let doing = [State::Busy, State::Starting, State::Stopping, State::Failed];
        for (worker, state) in doing.into_iter().enumerate() {
            let page = scoreboard.claim(worker, Moment::default()).unwrap();
            page.set_state(state);
            page.figures.requests.add(10);
            page.figures.durations.record(1000 << worker, 10);
        }
        let status = scoreboard.status(Moment { nanos: 5_000_000_000, ..Moment::default() });
        let workers = (status.total_workers, status.active_workers, status.alive_workers);
        assert_eq!(workers, (4, 1, 3));
        assert_eq!((status.total_requests, status.is_running), (40, true));
        assert_eq!((status.durations.count, per_second(40, 5).to_string()), (40, "8".to_owned()));
        let uptimes: Vec<u64> = status.workers.iter().map(|worker| worker.uptime).collect();
        assert_eq!(uptimes, [5, 5, 5, 0]);
    }

    #[test]
    fn counts_never_go_back_when_a_worker_is_restarted() {
        let (scoreboard, _memory) = Scoreboard::create(Moment::default()).unwrap();
        scoreboard.pool().workers.set(1);
        let mut last = scoreboard.status(Moment::default());
        for round in 1..=3 {
            let page = scoreboard.claim(0, Moment::default()).unwrap();
            page.figures.requests.add(1);
            page.figures.on_response(200);
            page.figures.on_fault(Fault::Broken);
            page.figures.durations.record(1_000_000, 1);
            page.traffic.busy_since.set(1);
            page.on_end(std::process::id(), State::Failed);
            let next = scoreboard.status(Moment::default());
            assert_eq!(next.durations.count, last.durations.count + 1);
            assert_eq!((next.total_requests, next.successful_requests), (round, round));
            assert_eq!(next.errors.broken_connections, round);
            assert!(next.workers[0].loop_delay_ms.abs() < 1e-9, "who has ended isn't busy");
            last = next;
        }
        assert_eq!(last.workers[0].restarts, 2);
    }

    #[test]
    fn a_pool_whose_workers_stop_is_not_running() {
        let (scoreboard, _memory) = Scoreboard::create(Moment::default()).unwrap();
        scoreboard.claim(0, Moment::default()).unwrap().set_state(State::Stopping);
        scoreboard.claim(1, Moment::default()).unwrap().set_state(State::Stopped);
        assert!(!scoreboard.status(Moment::default()).is_running);
    }
}
