//! What a pool costs that has nothing to do, and what its processes hold.

use std::thread;

use super::server::{Server, descriptors, eventually, proc_status};
use super::workers::polite;
use super::{config, millis, with_each_kernel};
use crate::process::scoreboard::State;

#[test]
fn a_master_at_ease_never_wakes_up() {
    with_each_kernel(|features| {
        let server = Server::start(&config(), 2, features, &polite);
        let switches = || {
            ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
                .map(|key| proc_status(server.pid, key).unwrap())
        };
        thread::sleep(millis(300)); // it has just told us that it is ready
        let before = switches();
        thread::sleep(millis(2_000));
        assert_eq!(switches(), before);
    });
}

#[test]
fn a_worker_holds_its_own_descriptors_and_no_others() {
    with_each_kernel(|features| {
        let server = Server::start(&config(), 3, features, &polite);
        let first = server.worker(1);
        server.shoot(1); // a successor is forked when the master holds everyone's channels
        server.awaits(1, State::Ready, first);
        let stdio: Vec<String> = descriptors(server.worker(0))[..3].to_vec();
        let mut sockets = Vec::new();
        for id in 0..3 {
            let links = descriptors(server.worker(id));
            assert_eq!(links[..3], stdio);
            let (its_own, programs): (Vec<_>, Vec<_>) = links[3..]
                .iter()
                .partition(|link| link.starts_with("socket:") || link.starts_with("anon_inode:"));
            // What the program had open before the pool stays: its log, and this test's pipe.
            assert_eq!(programs.len(), 2, "{links:?}");
            assert!(programs[0].ends_with("/log") && programs[1].starts_with("pipe:"), "{links:?}");
            let (own_sockets, others): (Vec<_>, Vec<_>) =
                its_own.into_iter().partition(|link| link.starts_with("socket:"));
            let mut others: Vec<&str> = others.into_iter().map(String::as_str).collect();
            others.sort_unstable();
            assert_eq!(others, ["anon_inode:[eventfd]", "anon_inode:[signalfd]"], "{links:?}");
            assert_eq!(own_sockets.len(), 3, "{links:?}");
            sockets.extend(own_sockets.into_iter().cloned());
        }
        sockets.sort();
        sockets.dedup();
        assert_eq!(sockets.len(), 9, "no two workers share a listener, or a line to the master");
        // stdio, log, pipe; signalfd, ring, bell, the handle's bell, scoreboard; a listener, a
        // channel and both ends of the line for descriptors for each worker, and a pidfd where the
        // ring can't wait for a child
        let each = if features.waitid { 4 } else { 5 };
        eventually("the master leaks nothing", || {
            (descriptors(server.pid).len() == 3 + 2 + 5 + 3 * each).then_some(())
        });
    });
}
