//! From a seat to a running worker: its ring, its limits, its loop.

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};
use uring_ring::{Ring, Setup};

use super::access_log::AccessLog;
use super::connections::{NoRequests, Serve};
use super::gate::{self, GateConfig, Neighbours};
use super::recycle::Recycle;
use super::rt::{Runtime, WakeQueue};
use super::{Parts, Server, Tag, Turn, Worker};
use crate::app::{Inbox, Service};
use crate::config::{Checked, WorkerConfig};
use crate::conn::{BodyLimits, Settings};
use crate::guard::{ClientTable, Guard, Lines, Memory, Quota, Rate, RateTable};
use crate::process::EXIT_CANNOT_START;
use crate::process::log_file::LogFile;
use crate::process::privileges;
use crate::process::scoreboard::{Scoreboard, State};
use crate::process::seat::Seat;
use crate::process::sys;
use crate::proto::h1::HeadLimits;

/// Entries of a worker's submission queue: a turn of 1,024 busy connections fills it once.
const RING_ENTRIES: u32 = 1024;

/// Descriptors that aren't connections: standard streams, listeners, ring, channel, signals, bell,
/// and some for handlers (files, databases). A quarter of a limit so low that this is much.
const DESCRIPTORS_RESERVED: u64 = 64;

/// What a worker has open itself, with some to spare.
const DESCRIPTORS_NEEDED: u64 = 16;

/// Fewer connections than this are said to be few: a browser opens six.
const CONNECTIONS_FEW: usize = 100;

/// What the workers of a pool have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    pub(crate) scoreboard: Scoreboard,
    pub(crate) rates: RateTable,
    pub(crate) clients: ClientTable,
}

/// Serves until it is told to stop; returns the exit status of the process.
pub(crate) fn run(
    seat: Seat,
    config: &Checked<WorkerConfig>,
    shared: Shared,
    service: impl FnOnce() -> Box<dyn Service>,
) -> i32 {
    work(seat, config, shared, |_| Ok(()), service, |worker, ()| turn(worker))
}

/// Gives connections to a handler until it is told to stop; returns the exit status of the process.
pub(crate) fn connect(
    seat: Seat,
    config: &Checked<WorkerConfig>,
    shared: Shared,
    server: impl FnOnce() -> Box<dyn Serve>,
) -> i32 {
    let service = || -> Box<dyn Service> { Box::new(NoRequests) };
    work(
        seat,
        config,
        shared,
        |_| Ok(()),
        service,
        |mut worker, ()| {
            worker.serve_bare(server());
            turn(worker)
        },
    )
}

fn turn(mut worker: Worker) -> Result<(), Box<dyn Error>> {
    loop {
        let turn = worker.turn(Instant::now).map_err(|error| format!("its ring broke: {error}"))?;
        if turn == Turn::Stopped {
            return Ok(());
        }
    }
}

/// Lets an application serve until it is told to stop; returns the exit status of the process.
pub(crate) fn drive(
    seat: Seat,
    config: &Checked<WorkerConfig>,
    shared: Shared,
    application: impl FnOnce(&mut Server) -> Result<(), Box<dyn Error>>,
) -> i32 {
    let inbox = Rc::new(Inbox::default());
    let service = inbox.service();
    let listen = |ring: &mut Ring<Tag>| {
        let notice = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        ring.notify(notice.as_fd())?;
        Ok(notice.into())
    };
    work(
        seat,
        config,
        shared,
        listen,
        || service,
        |worker, notice: OwnedFd| Server::new(worker, inbox, notice).run(application),
    )
}

/// One worker from its begin to its end. `equip` adds something to its ring, for `drive`.
fn work<N>(
    seat: Seat,
    config: &Checked<WorkerConfig>,
    shared: Shared,
    equip: impl FnOnce(&mut Ring<Tag>) -> io::Result<N>,
    service: impl FnOnce() -> Box<dyn Service>,
    drive: impl FnOnce(Worker, N) -> Result<(), Box<dyn Error>>,
) -> i32 {
    let page = seat.page;
    if let Err(error) = sys::install_stack_dump(page) {
        log::warn!("this worker won't tell its stack when it hangs: {error}");
    }
    let (worker, equipment) = match prepare(seat, config, shared, equip, service) {
        Ok(prepared) => prepared,
        Err(error) => {
            log::error!("a worker cannot start: {error}");
            return EXIT_CANNOT_START;
        }
    };
    if let Err(error) = drive(worker, equipment) {
        log::error!("a worker cannot go on: {error}");
        page.set_state(State::Failed);
        return 1;
    }
    page.set_state(State::Stopped);
    0
}

fn prepare<N>(
    seat: Seat,
    config: &WorkerConfig,
    shared: Shared,
    equip: impl FnOnce(&mut Ring<Tag>) -> io::Result<N>,
    service: impl FnOnce() -> Box<dyn Service>,
) -> Result<(Worker, N), Box<dyn Error>> {
    let setup = Setup { entries: RING_ENTRIES, restricted: true, features: seat.features };
    let mut ring: Ring<Tag> = Ring::new(setup)?;
    let buffers = ring.add_buffers(config.buffers.count, config.buffers.size)?;
    let equipment = equip(&mut ring)?;
    // Opened with the rights of the master, as the rings are made.
    let file = config.access_log.path.as_deref().map(LogFile::open).transpose()?;
    // Memory of rings that are made with more rights counts against nobody's limit.
    if let Some(identity) = seat.identity {
        privileges::drop_to(identity)?;
        if seat.dumps_core {
            privileges::allow_core_dumps()?;
        }
    }
    if seat.no_new_privs {
        privileges::no_new_privs()?;
    }
    ring.enable()?;
    let queue = WakeQueue::new(WakeQueue::bell_descriptor()?);
    let now = Instant::now();
    let runtime = Runtime::new(now, Arc::clone(&queue));
    runtime.enter(now); // a handler's maker may spawn tasks
    let settings = settings(config);
    let neighbours = shared
        .scoreboard
        .place_of(seat.page)
        .map(|place| Neighbours::new(shared.clients, shared.scoreboard, place));
    let parts = Parts {
        ring,
        buffers,
        runtime,
        queue,
        page: seat.page,
        worker_id: seat.worker_id,
        listeners: seat.listeners.into_iter().zip(seat.companies).collect(),
        is_held: seat.is_held,
        slots: seat.slots,
        passing: seat.passing,
        bell: seat.bell,
        limit: seat.limit,
        recycle: Recycle::new(config.recycle, process::id(), now),
        channel: seat.channel,
        signals: seat.signals,
        stop_timeout: seat.stop_timeout,
        gate: GateConfig { neighbours, ..gate_config(config, &settings) },
        guard: guard(config, shared.rates),
        access_log: file.map(|file| {
            AccessLog::new(file, config.access_log.flush, config.access_log.buffer_bytes)
        }),
        settings,
    };
    Ok((Worker::new(parts, service(), now), equipment))
}

fn settings(config: &WorkerConfig) -> Settings {
    let WorkerConfig { limits, timeouts, .. } = config;
    Settings {
        head: HeadLimits {
            head_bytes_max: limits.head_bytes_max,
            target_bytes_max: limits.target_bytes_max,
            fields_max: limits.fields_max,
        },
        body: BodyLimits {
            bytes_max: limits.body_bytes_max,
            collected_bytes_max: limits.collected_bytes_max,
        },
        head_timeout: timeouts.head,
        idle_timeout: timeouts.idle,
        body_timeout: timeouts.body,
        write_timeout: timeouts.write,
        request_timeout: timeouts.request,
        requests_per_connection: limits.requests_per_connection,
        receive_rate_min: limits.receive_rate_min,
        send_rate_min: limits.send_rate_min,
        has_request_id: config.request_id_header,
    }
}

fn gate_config(config: &WorkerConfig, settings: &Settings) -> GateConfig {
    GateConfig {
        connections_max: connections_max(config),
        connections_per_client: config.limits.connections_per_client,
        accepts_per_turn: config.limits.accepts_per_turn,
        connection_timeout: config.timeouts.connection,
        proxies: Rc::new(config.proxies.clone()),
        keeps_records: gate::keeps_records(config, settings),
        neighbours: None,
    }
}

fn guard(config: &WorkerConfig, table: RateTable) -> Guard {
    let WorkerConfig { rate_limit, access_log, .. } = config;
    // Another one in each process: nothing that an id is made of is known before.
    let mut guard = Guard::new(RandomState::new().hash_one(process::id()));
    guard.memory = Memory::new(config.limits.memory_bytes_max);
    guard.rate = rate_limit.enabled.then(|| {
        let quota = Quota::new(rate_limit.requests, rate_limit.window);
        Rate::new(table, quota, rate_limit.headers)
    });
    guard.lines = access_log
        .path
        .is_some()
        .then(|| Lines::new(access_log.format, access_log.buffer_bytes, SystemTime::now()));
    guard
}

/// As configured, but no more than there are descriptors for.
fn connections_max(config: &WorkerConfig) -> usize {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let possible = usize::try_from(connections_possible(descriptors)).unwrap_or(usize::MAX);
    if possible < CONNECTIONS_FEW {
        log::warn!(
            "the limit of descriptors ({descriptors}) leaves this worker {possible} connections: \
             raise it (`ulimit -n`, LimitNOFILE= in a unit)"
        );
    }
    config.limits.connections_max.map_or(possible, |wanted| possible.min(wanted as usize))
}

/// Connections for which there are descriptors.
fn connections_possible(descriptors: u64) -> u64 {
    let reserved = (descriptors / 4).clamp(DESCRIPTORS_NEEDED, DESCRIPTORS_RESERVED);
    descriptors.saturating_sub(reserved).max(1)
}

#[cfg(test)]
mod tests {
    use super::connections_possible;

    #[test]
    fn a_low_limit_of_descriptors_leaves_most_of_them_to_connections() {
        for (descriptors, connections) in
            [(12, 1), (32, 16), (64, 48), (128, 96), (256, 192), (1024, 960), (20_000, 19_936)]
        {
            assert_eq!(connections_possible(descriptors), connections, "{descriptors}");
        }
    }
}
