//! How a pool starts, or doesn't.

use std::mem;
use std::os::unix::net::UnixStream;

use nix::sched::{CpuSet, sched_getaffinity};

use super::server::{Server, answer};
use super::workers::{polite, sleep_forever};
use super::{config, millis, with_each_kernel};
use crate::config::{Accept, Address, PoolConfig};
use crate::process::EXIT_CANNOT_START;
use crate::process::clock::Moment;
use crate::process::steer::Steering;

#[test]
fn every_worker_gets_ready_and_serves_on_its_own_core() {
    with_each_kernel(|features| {
        let server = Server::start(&config(), 2, features, &polite);
        let mut seen = [None; 2];
        while seen.contains(&None) {
            let (id, pid) = server.ask();
            assert_eq!(pid, server.worker(id));
            seen[id] = Some(pid);
        }
        for (id, pid) in seen.into_iter().flatten().enumerate() {
            let Some(core) = server.page(id).core() else { continue };
            let mut only = CpuSet::new();
            only.set(core).unwrap();
            assert_eq!(sched_getaffinity(pid).unwrap(), only);
        }
        let status = server.scoreboard.status(Moment::now());
        assert_eq!((status.active_workers, status.is_running), (2, true));
    });
}

#[test]
fn workers_share_a_unix_socket_beside_a_tcp_one() {
    with_each_kernel(|features| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let mut config = config();
        config.listen.push(Address::Unix(path.clone()));
        let server = Server::start(&config, 2, features, &polite);
        let (id, pid) = answer(UnixStream::connect(&path).unwrap());
        assert_eq!(pid, server.worker(id));
        let (id, pid) = server.ask();
        assert_eq!(pid, server.worker(id));
    });
}

#[test]
fn a_quick_restart_finds_its_port_free() {
    with_each_kernel(|features| {
        let mut server = Server::start(&config(), 2, features, &polite);
        let address = Address::Tcp(server.tcp());
        server.ask();
        server.stop();
        let config = PoolConfig { listen: vec![address], ..config() };
        assert!(Server::start(&config, 2, features, &polite).is_ready());
    });
}

/// The kernel may not let go of what another master has steered, which takes time to find out.
#[test]
fn how_a_pool_serves_is_told_when_it_is_known() {
    const SLOTS: usize = 16;
    if let Err(error) = Steering::new(SLOTS) {
        return eprintln!("not tested: {error}");
    }
    with_each_kernel(|features| {
        let config = PoolConfig { accept: Accept::Steered, ..config() };
        let server = Server::start(&config, 2, features, &polite);
        server.logs("it serves (steered)");
        let server = Server::start_with(&config, 2, features, &polite, &|listeners| {
            let mut other = Steering::new(SLOTS).unwrap();
            listeners.groups().for_each(|group| other.attach(&group).unwrap());
            mem::forget(other); // as long as the process lives
        });
        server.logs("it serves (");
        let log = server.log();
        assert!(log.contains("it serves (shared)"), "{log}");
        assert!(log.contains("connections go to workers by their hash, not by load"), "{log}");
        server.ask();
    });
}

#[test]
fn a_pool_whose_worker_cannot_start_gives_up_with_its_code() {
    with_each_kernel(|features| {
        let mut server = Server::start(&config(), 3, features, &|seat| match seat.worker_id {
            1 => EXIT_CANNOT_START,
            _ => polite(seat),
        });
        assert!(!server.is_ready());
        assert_eq!(server.exit_code(), Some(EXIT_CANNOT_START));
        let log = server.log();
        assert!(log.contains("cannot start (exit code 69) before the pool was ready"), "{log}");
        assert!(log.contains("ERROR the pool cannot start: worker 1 cannot start"), "{log}");
    });
}

#[test]
fn a_pool_whose_worker_panics_at_every_start_gives_up() {
    with_each_kernel(|features| {
        let mut server = Server::start(&config(), 1, features, &|_| panic!("no database"));
        assert_eq!(server.exit_code(), Some(101));
        let log = server.log();
        assert_eq!(log.matches("worker 0 panicked: no database").count(), 3, "{log}");
        assert!(log.contains("panicked (exit code 101); restarting in "), "{log}");
    });
}

#[test]
fn a_worker_that_never_gets_ready_is_killed() {
    with_each_kernel(|features| {
        let config = PoolConfig { ready_timeout: millis(100), ..config() };
        let mut server = Server::start(&config, 1, features, &|_| sleep_forever());
        assert_eq!(server.exit_code(), Some(70));
        assert_eq!(server.log().matches("was not ready within 100ms: killing it").count(), 3);
    });
}
