//! The scoreboard at one moment, as the document that operators read. Written by nobody but serde.

use std::time::SystemTime;

use serde::Serialize;

use super::scoreboard::{Scoreboard, State, WorkerPage, unix_seconds};

/// What the pool is doing, over all workers and for each.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Some worker serves, or is about to.
    pub is_running: bool,
    /// How connections reach the workers.
    pub architecture: &'static str,
    /// Since the pool started.
    pub uptime_seconds: u64,
    /// Workers that there should be.
    pub total_workers: usize,
    /// Workers that serve.
    pub active_workers: usize,
    /// Requests so far.
    pub total_requests: u64,
    /// Connections open now.
    pub active_connections: u64,
    /// Connections accepted so far.
    pub total_connections: u64,
    /// Connections closed so far.
    pub closed_connections: u64,
    /// Bytes received so far.
    pub bytes_received: u64,
    /// Bytes sent so far.
    pub bytes_sent: u64,
    /// Each worker, in order.
    pub workers: Vec<WorkerStatus>,
}

/// What one worker is doing. Counts go on over its restarts.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
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
    /// Connections open now.
    pub connections: u64,
    /// Connections accepted so far.
    pub total_connections: u64,
    /// Requests so far.
    pub total_requests: u64,
    /// Seconds since it was forked; 0 while there is no process.
    pub uptime: u64,
    /// Successors so far.
    pub restarts: u64,
    /// Enters of its ring so far.
    pub turns: u64,
}

impl Scoreboard {
    /// What the scoreboard shows now. Values are read one by one, so sums may be off by what
    /// happens meanwhile.
    pub(crate) fn status(&self, now: SystemTime) -> Status {
        let now = unix_seconds(now);
        let target = self.pool().workers.read() as usize;
        let workers: Vec<WorkerStatus> =
            (0..target).map(|id| WorkerStatus::of(id, *self, now)).collect();
        let sum = |value: fn(&WorkerPage) -> u64| self.used().map(value).sum();
        Status {
            is_running: self.used().any(|page| page.state().is_running()),
            architecture: self.architecture(),
            uptime_seconds: now.saturating_sub(self.started_at()),
            total_workers: workers.len(),
            active_workers: workers.iter().filter(|worker| worker.state.is_active()).count(),
            total_requests: sum(|page| page.traffic.requests.read()),
            active_connections: sum(|page| page.traffic.connections.read()),
            total_connections: sum(|page| page.traffic.connections_total.read()),
            closed_connections: sum(|page| page.traffic.connections_closed.read()),
            bytes_received: sum(|page| page.traffic.bytes_received.read()),
            bytes_sent: sum(|page| page.traffic.bytes_sent.read()),
            workers,
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

impl WorkerStatus {
    fn of(worker_id: usize, scoreboard: Scoreboard, now: u64) -> WorkerStatus {
        let sum = |value: fn(&WorkerPage) -> u64| scoreboard.of_worker(worker_id).map(value).sum();
        let newest = scoreboard.newest(worker_id);
        let state = newest.map_or(State::Starting, WorkerPage::state);
        let uptime = newest.map_or(0, |page| now.saturating_sub(page.started_at()));
        WorkerStatus {
            worker_id,
            pid: newest.map_or(0, WorkerPage::pid),
            core: newest.and_then(WorkerPage::core),
            state,
            connections: sum(|page| page.traffic.connections.read()),
            total_connections: sum(|page| page.traffic.connections_total.read()),
            total_requests: sum(|page| page.traffic.requests.read()),
            uptime: if state.is_alive() { uptime } else { 0 },
            restarts: newest.map_or(0, WorkerPage::restarts),
            turns: sum(|page| page.traffic.turns.read()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn the_document_has_this_shape() {
        let start = UNIX_EPOCH + Duration::from_secs(1_000);
        let (scoreboard, _memory) = Scoreboard::create(1, start).unwrap();
        scoreboard.pool().workers.set(1);
        let page = scoreboard.claim(0, start).unwrap();
        page.on_birth(123, Some(0));
        page.set_state(State::Ready);
        page.traffic.connections.set(3);
        page.traffic.connections_total.add(10);
        page.traffic.connections_closed.add(7);
        page.traffic.requests.add(1234);
        page.traffic.bytes_received.add(123);
        page.traffic.bytes_sent.add(456);
        page.traffic.turns.add(99);
        let status = scoreboard.status(start + Duration::from_secs(12));
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            concat!(
                r#"{"is_running":true,"architecture":"shared","uptime_seconds":12,"#,
                r#""total_workers":1,"active_workers":1,"total_requests":1234,"#,
                r#""active_connections":3,"total_connections":10,"closed_connections":7,"#,
                r#""bytes_received":123,"bytes_sent":456,"workers":[{"worker_id":0,"pid":123,"#,
                r#""core":0,"state":"ready","connections":3,"total_connections":10,"#,
                r#""total_requests":1234,"uptime":12,"restarts":0,"turns":99}]}"#,
            )
        );
    }

    #[test]
    fn sums_go_over_all_workers_and_only_serving_ones_are_active() {
        let (scoreboard, _memory) = Scoreboard::create(4, UNIX_EPOCH).unwrap();
        scoreboard.pool().workers.set(4);
        let doing = [State::Busy, State::Starting, State::Stopping, State::Failed];
        for (worker, state) in doing.into_iter().enumerate() {
            let page = scoreboard.claim(worker, UNIX_EPOCH).unwrap();
            page.set_state(state);
            page.traffic.requests.add(10);
        }
        let status = scoreboard.status(UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!((status.total_workers, status.active_workers), (4, 1));
        assert_eq!((status.total_requests, status.is_running), (40, true));
        let uptimes: Vec<u64> = status.workers.iter().map(|worker| worker.uptime).collect();
        assert_eq!(uptimes, [5, 5, 5, 0]);
    }

    #[test]
    fn a_pool_whose_workers_stop_is_not_running() {
        let (scoreboard, _memory) = Scoreboard::create(2, UNIX_EPOCH).unwrap();
        scoreboard.claim(0, UNIX_EPOCH).unwrap().set_state(State::Stopping);
        scoreboard.claim(1, UNIX_EPOCH).unwrap().set_state(State::Stopped);
        assert!(!scoreboard.status(UNIX_EPOCH).is_running);
    }
}
