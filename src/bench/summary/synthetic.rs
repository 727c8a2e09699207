//! Runs that never happened, with figures that are known beforehand: for tests of everything that
//! reads one.

use fastrand::Rng;

use super::{Load, Setup, Summary, WarmupWish};
use crate::bench::measure::{Measured, Sample, Server};
use crate::bench::record::{Answer, Collector, Fault, Record, Settings};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

/// A server that is modelled by its service time, under load.
#[derive(Clone, Debug)]
pub(crate) struct Synthetic {
    pub(crate) seed: u64,
    /// Requests a second; of a closed loop, `None`.
    pub(crate) rate: Option<f64>,
    pub(crate) connections: u32,
    pub(crate) seconds: u64,
    /// The server does nothing from … to …, in milliseconds.
    pub(crate) stall: Option<(u64, u64)>,
    /// It never answers again from this second on.
    pub(crate) hangs_from: Option<u64>,
    /// Service times are multiplied with this.
    pub(crate) slower: f64,
    /// And until this millisecond, with ten.
    pub(crate) cold_until: u64,
    /// One in so many answers is a 503.
    pub(crate) fails_every: Option<u64>,
    pub(crate) warmup: WarmupWish,
}

impl Synthetic {
    pub(crate) fn open(rate: f64, seconds: u64) -> Synthetic {
        Synthetic {
            seed: 1,
            rate: Some(rate),
            connections: 64,
            seconds,
            stall: None,
            hangs_from: None,
            slower: 1.0,
            cold_until: 0,
            fails_every: None,
            warmup: WarmupWish::Auto,
        }
    }

    pub(crate) fn closed(connections: u32, seconds: u64) -> Synthetic {
        Synthetic { rate: None, connections, ..Synthetic::open(0.0, seconds) }
    }

    pub(crate) fn summary(&self) -> Summary {
        let (setup, record, measured) = self.parts();
        Summary::new(setup, record, measured)
    }

    pub(crate) fn parts(&self) -> (Setup, Record, Measured) {
        let load = match self.rate {
            None => Load::Closed,
            Some(rate) => Load::Open { rate, arrival: "constant".to_owned(), is_steady: true },
        };
        let setup = Setup {
            targets: vec!["GET http://127.0.0.1:8080/".to_owned()],
            started_at: 1_790_000_000,
            connections: u64::from(self.connections),
            threads: 1,
            load,
            pipeline: 1,
            keep_alive: true,
            seed: self.seed,
            load_end: self.end(),
            warmup: self.warmup,
            enters: Some(1_000),
            ..Setup::default()
        };
        (setup, self.record(), self.measured())
    }

    fn end(&self) -> u64 {
        // None is half a second.
        if self.seconds == 0 { SECOND / 2 } else { self.seconds * SECOND }
    }

    fn service(&self, at: u64, random: &mut Rng) -> u64 {
        // Exponential above a floor: a long tail.
        let nanos = (400_000.0 - 300_000.0 * (1.0 - random.f64()).ln()) * self.slower;
        let cold = if at < self.cold_until * MILLI { 10 } else { 1 };
        nanos as u64 * cold
    }

    /// When a request that was sent is answered, if ever.
    fn done(&self, sent: u64, random: &mut Rng) -> Option<u64> {
        let done = sent + self.service(sent, random);
        if self.hangs_from.is_some_and(|from| done >= from * SECOND) {
            return None;
        }
        match self.stall {
            Some((from, to)) if (from * MILLI..to * MILLI).contains(&done) => {
                Some(to * MILLI + random.u64(..10_000))
            }
            _ => Some(done),
        }
    }

    fn record(&self) -> Record {
        let settings = Settings { open_loop: self.rate.is_some(), expected: Some(self.end()) };
        let mut collector = Collector::new(settings);
        let mut recorder = collector.recorder(self.connections as usize, 1);
        let mut random = Rng::with_seed(self.seed);
        let end = self.end();
        // Everything that happens, in the order of its time: a send, or an answer or its absence.
        let mut events: Vec<(u64, u32, u64, u64, bool)> = Vec::new();
        let mut send = |intended: u64, connection: u32, at: u64| {
            let done = self.done(at, &mut random);
            events.push((at, connection, intended, at, false));
            events.push((done.unwrap_or(u64::MAX), connection, intended, at, true));
            done
        };
        match self.rate {
            Some(rate) => {
                let due = (0_u32..).map(|number| (f64::from(number) * 1e9 / rate) as u64);
                for (number, intended) in (0..).zip(due.take_while(|due| *due < end)) {
                    send(intended, number % self.connections, intended + 5_000);
                }
            }
            None => {
                for connection in 0..self.connections {
                    let mut at = u64::from(connection) * 1_000;
                    while at < end {
                        let Some(done) = send(at, connection, at) else { break };
                        at = done + 20_000;
                    }
                }
            }
        }
        events.sort_unstable();
        for connection in 0..u64::from(self.connections) {
            recorder.on_connect(connection * 1_000, 80_000 + connection * 100);
        }
        let (mut last, mut answers) = (end, 0_u64);
        for (at, connection, intended, sent, is_done) in events {
            if !is_done {
                recorder.on_send(at, 5_000, 64, 1);
            } else if at == u64::MAX {
                recorder.on_unfinished(intended, Some(sent), last);
            } else {
                last = last.max(at);
                answers += 1;
                let is_failure = self.fails_every.is_some_and(|every| answers % every == 0);
                let status = if is_failure { 503 } else { 200 };
                let answer = Answer {
                    intended,
                    sent,
                    first_byte: at - 1_000,
                    done: at,
                    bytes: 180,
                    status,
                    target: 0,
                    connection,
                    count: 1,
                };
                if is_failure {
                    recorder.on_unexpected(&answer, Fault::Status);
                } else {
                    recorder.on_answer(&answer);
                }
            }
            collector.collect();
        }
        collector.finish([recorder.finish(last)])
    }

    fn measured(&self) -> Measured {
        let at = |tenth: u64| {
            let at = tenth * 100 * MILLI;
            Sample {
                at,
                client_cpu: at / 3,
                client_busiest: at / 4,
                client_waited: at / 1_000,
                client_switches: tenth * 40,
                server_cpu: Some(at / 2),
                server_busiest: Some(at / 2),
                machine_all: 2 * at,
                machine_idle: at,
                segments: Some(tenth * 1_000),
                retransmits: Some(0),
                listen_overflows: Some(0),
                listen_drops: Some(0),
                ..Sample::default()
            }
        };
        let server = Server { pid: 42, name: "server".to_owned(), processes: 2, died: 0 };
        Measured {
            samples: (0..=self.end() / (100 * MILLI)).map(at).collect(),
            cores: 2,
            server: Some(server),
            workers: Some(vec![510, 490]),
        }
    }
}
