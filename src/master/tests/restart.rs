//! What happens when a worker ends that shouldn't, or misbehaves.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use nix::sys::socket::{MsgFlags, send};
use uring_ring::Features;

use super::server::{Server, answer, descriptors, eventually, zombies_of};
use super::workers::{polite, say_ready, sleep_forever};
use super::{config, millis, with_each_kernel};
use crate::config::PoolConfig;
use crate::process::scoreboard::State;
use crate::process::seat::Seat;

#[test]
fn a_killed_worker_is_named_with_its_cause_and_replaced() {
    with_each_kernel(|features| {
        let server = Server::start(&config(), 2, features, &polite);
        let (first, other) = (server.worker(1), server.worker(0));
        server.shoot(1);
        server.logs("was killed by SIGKILL; restarting at once");
        server.awaits(1, State::Ready, first);
        let restarts = |id| server.page(id).restarts();
        assert_eq!((restarts(0), restarts(1)), (0, 1));
        assert_eq!(server.worker(0), other);
        assert_eq!(zombies_of(server.pid), 0);
    });
}

#[test]
fn a_client_that_comes_while_its_worker_is_dead_is_served_by_the_successor() {
    with_each_kernel(|features| {
        let config = PoolConfig { restart_delay: millis(400), ..config() };
        let server = Server::start(&config, 1, features, &polite);
        let first = server.worker(0);
        server.shoot(0); // replaced at once
        server.awaits(0, State::Ready, first);
        let second = server.worker(0);
        server.shoot(0); // replaced after the delay
        let client = TcpStream::connect(server.tcp()).unwrap();
        assert_eq!(server.page(0).state(), State::Failed, "nobody is there");
        let (id, third) = answer(client);
        assert_eq!(id, 0);
        assert!(![first, second].contains(&third));
        server.logs("was killed by SIGKILL; restarting in ");
    });
}

#[test]
fn a_worker_that_crashes_in_a_loop_leaves_the_others_alone() {
    with_each_kernel(|features| {
        let server = Server::start(&config(), 2, features, &|seat| {
            let restarted = seat.page.restarts() > 0;
            if restarted && seat.worker_id == 1 { 3 } else { polite(seat) }
        });
        let other = server.worker(0);
        server.shoot(1);
        server.logs("failed 6 times in a row before it was ready: worker 0 serves its clients");
        assert_eq!(server.page(1).restarts(), 5);
        assert_eq!((server.worker(0), server.page(0).state()), (other, State::Ready));
        assert_eq!(zombies_of(server.pid), 0);
    });
}

#[test]
fn a_fork_that_fails_is_tried_again() {
    with_each_kernel(|features| {
        let server = Server::start(&config(), 1, features, &polite);
        let first = server.worker(0);
        descriptors_max(&server, 3);
        server.shoot(0);
        server.logs("worker 0 could not be forked: Too many open files (os error 24); restarting");
        assert_eq!(server.page(0).state(), State::Failed);
        descriptors_max(&server, 1000);
        server.awaits(0, State::Ready, first);
        assert_eq!(server.ask().0, 0);
    });
}

/// Of a master that runs.
fn descriptors_max(server: &Server, count: usize) {
    let (pid, limit) = (format!("--pid={}", server.pid), format!("--nofile={count}:"));
    assert!(Command::new("prlimit").args([pid, limit]).status().unwrap().success());
}

/// Whatever it is that the last descriptor is missing for, be it the one that tells of a worker's end.
#[test]
fn who_was_forked_with_the_last_descriptors_is_buried_like_others() {
    with_each_kernel(|features| {
        thread::scope(|scope| {
            for spare in 0..12 {
                scope.spawn(move || fork_with_few_descriptors(features, spare));
            }
        });
    });
}

fn fork_with_few_descriptors(features: Features, spare: usize) {
    let server = Server::start(&config(), 1, features, &polite);
    let mut last = server.worker(0);
    server.shoot(0);
    server.awaits(0, State::Ready, last);
    last = server.worker(0);
    descriptors_max(&server, descriptors(server.pid).len() - 4 + spare);
    server.shoot(0);
    eventually("a fork, or none", || {
        let failed = server.log().contains("could not be forked");
        (failed || server.worker(0) != last).then_some(())
    });
    descriptors_max(&server, 1000);
    for _ in 0..2 {
        server.awaits(0, State::Ready, last);
        last = server.worker(0);
        server.shoot(0);
    }
    server.awaits(0, State::Ready, last);
    assert_eq!(server.ask().0, 0);
    eventually("nobody is left unburied", || (zombies_of(server.pid) == 0).then_some(()));
}

#[test]
fn what_a_worker_says_wrong_is_logged_and_harms_nothing() {
    fn babbling(seat: Seat) -> i32 {
        let long = vec![b' '; seat.limit.0 + 1000];
        for packet in [&b"\xff\x00"[..], br#"{"type":"dance"}"#, &long] {
            send(seat.channel.as_raw_fd(), packet, MsgFlags::empty()).unwrap();
        }
        polite(seat)
    }
    with_each_kernel(|features| {
        let server = Server::start(&config(), 1, features, &babbling);
        server.logs("was not understood: it is no message: expected value");
        server.logs("was not understood: it is no message: unknown variant `dance`");
        server.logs("was not understood: it is longer than 65536 bytes");
        assert_eq!(server.ask().0, 0);
    });
}

#[test]
fn a_worker_without_a_channel_is_killed_and_replaced() {
    with_each_kernel(|features| {
        let server = Server::start(&config(), 1, features, &|seat| {
            if seat.page.restarts() > 0 {
                return polite(seat);
            }
            say_ready(&seat);
            drop(seat);
            sleep_forever()
        });
        let first = server.worker(0);
        server.logs("lives on 1s after it closed its channel: killing it");
        server.awaits(0, State::Ready, first);
    });
}
