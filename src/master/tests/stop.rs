//! How a pool ends: asked to, hurried, or shot.

use std::mem;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};

use super::server::{Server, eventually, has_ended};
use super::workers::{polite, say_ready, stubborn};
use super::{config, millis, with_each_kernel};
use crate::config::{Address, PoolConfig};
use crate::process::channel;
use crate::process::scoreboard::State;

#[test]
fn sigterm_reaches_the_workers_as_a_message_and_ends_the_pool() {
    with_each_kernel(|features| {
        let mut server = Server::start(&config(), 2, features, &polite);
        server.stop();
        let log = server.log();
        assert!(log.contains("INFO SIGTERM: stopping; open connections have 30s"), "{log}");
        assert_eq!(log.matches("a worker was told to stop within 30000 ms").count(), 2, "{log}");
        assert!(!log.contains("WARN"), "{log}");
        for id in 0..2 {
            assert_eq!(server.page(id).state(), State::Stopped);
            assert!(has_ended(server.worker(id)));
        }
    });
}

#[test]
fn ctrl_c_reaches_master_and_workers_and_ends_the_pool() {
    with_each_kernel(|features| {
        let mut server = Server::start(&config(), 2, features, &polite);
        killpg(server.pid, Signal::SIGINT).unwrap(); // as a terminal does it
        assert_eq!(server.exit_code(), Some(0));
        assert!(server.log().contains("SIGINT: stopping"));
    });
}

#[test]
fn workers_that_dont_stop_in_time_are_killed() {
    with_each_kernel(|features| {
        let config = PoolConfig { stop_timeout: millis(300), ..config() };
        let mut server = Server::start(&config, 2, features, &stubborn);
        let start = Instant::now();
        server.stop();
        assert!(start.elapsed() >= millis(300), "they had their time");
        assert!(server.log().contains("time is up: killing 2 workers"));
    });
}

#[test]
fn a_second_signal_ends_the_pool_at_once() {
    with_each_kernel(|features| {
        let mut server = Server::start(&config(), 2, features, &stubborn);
        server.signal(Signal::SIGINT);
        server.logs("SIGINT: stopping");
        let start = Instant::now();
        server.stop();
        assert!(start.elapsed() < Duration::from_secs(10), "not the deadline's doing");
        assert!(server.log().contains("a second signal: killing 2 workers"));
    });
}

#[test]
fn no_worker_outlives_its_master() {
    with_each_kernel(|features| {
        let mut server = Server::start(&config(), 2, features, &|mut seat| {
            say_ready(&seat);
            // Only the signal is to tell: nobody ever closes this channel's other end.
            let (endless, _other_end) = channel::pair().unwrap();
            let _its_own = mem::replace(&mut seat.channel, endless);
            polite(seat)
        });
        let workers = [server.worker(0), server.worker(1)];
        server.signal(Signal::SIGKILL);
        assert_eq!(server.exit_code(), None);
        for worker in workers {
            eventually("a worker ends with its master", || has_ended(worker).then_some(()));
        }
        assert_eq!(server.log().matches("was stopped by a signal").count(), 2);
    });
}

#[test]
fn the_file_of_a_unix_socket_goes_with_the_pool() {
    with_each_kernel(|features| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let config = PoolConfig { listen: vec![Address::Unix(path.clone())], ..config() };
        let mut server = Server::start(&config, 2, features, &polite);
        let first = server.worker(0);
        server.shoot(0);
        server.awaits(0, State::Ready, first);
        assert!(path.exists(), "no worker takes it along");
        server.stop();
        assert!(!path.exists());
    });
}

#[test]
fn signals_that_are_none_of_a_workers_business_dont_end_it() {
    with_each_kernel(|features| {
        let mut server = Server::start(&config(), 1, features, &polite);
        let worker = server.worker(0);
        for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGPIPE] {
            kill(worker, signal).unwrap();
        }
        server.signal(Signal::SIGCHLD);
        assert_eq!(server.ask(), (0, worker));
        for signal in [Signal::SIGHUP, Signal::SIGUSR1] {
            let before = server.worker(0);
            server.signal(signal);
            server.awaits(0, State::Ready, before);
        }
        // Until it is told to go, it accepts beside its successor.
        eventually("the first worker has gone", || (server.ask() != (0, worker)).then_some(()));
        server.stop();
    });
}
