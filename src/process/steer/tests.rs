//! On the kernel that runs them. Where it doesn't permit this, they check that it says so, and
//! say so themselves.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrStorage, bind,
    sendto, setsockopt, socket, sockopt,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Uid, setuid};

use super::*;
use crate::process::sys::{Fork, fork};

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

/// `None` where the kernel can't or won't, which is told.
fn steering(slots_max: usize) -> Option<Steering> {
    match Steering::new(slots_max) {
        Ok(steering) => return Some(steering),
        Err(SteerError::NotPermitted) => assert!(!may_steer(), "it should be permitted"),
        Err(SteerError::NotHere) => {}
        Err(error) => panic!("{error}"),
    }
    eprintln!("not tested: {}", Steering::new(slots_max).unwrap_err());
    None
}

/// Whether this process has `CAP_BPF`, which is number 39, where the whole machine's users are.
fn may_steer() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_initial = users.split_whitespace().eq(["0", "0", "4294967295"]);
    is_initial && u64::from_str_radix(effective.trim(), 16).unwrap() >> 39 & 1 == 1
}

/// Connections that were sent anywhere.
fn assigned(steering: &Steering) -> u64 {
    steering.slots().iter().map(Slot::assigned).sum()
}

/// Listeners on one address.
struct Group {
    address: SocketAddr,
    listeners: Vec<TcpListener>,
}

impl Group {
    fn listen(address: &str, count: usize, backlog: u32) -> Group {
        let mut group = Group { address: address.parse().unwrap(), listeners: Vec::new() };
        (0..count).for_each(|_| group.add(backlog));
        group
    }

    fn add(&mut self, backlog: u32) {
        let listener = listener(self.address, backlog).unwrap();
        self.address = listener.local_addr().unwrap();
        self.listeners.push(listener);
    }

    fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd).collect()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// Accepts what is there, from whichever sockets.
    fn accept_now(&self) -> Vec<(usize, TcpStream)> {
        let accept = |listener: &TcpListener| listener.accept().ok().map(|(stream, _)| stream);
        let of = |(at, listener)| std::iter::from_fn(move || Some((at, accept(listener)?)));
        self.listeners.iter().enumerate().flat_map(of).collect()
    }

    /// Waits for the next connection.
    fn accept(&self) -> (usize, TcpStream) {
        self.accept_within(Duration::from_secs(5)).expect("a connection was lost")
    }

    fn accept_within(&self, patience: Duration) -> Option<(usize, TcpStream)> {
        let since = Instant::now();
        loop {
            for (at, listener) in self.listeners.iter().enumerate() {
                match listener.accept() {
                    Ok((stream, _)) => return Some((at, stream)),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            if since.elapsed() > patience {
                return None;
            }
            thread::yield_now();
        }
    }

    /// Makes `count` connections, one after the other, each closed before the next, and counts
    /// where they arrived. What `slots` pend stays zero.
    fn spread(&self, count: usize, slots: &[Slot]) -> Vec<usize> {
        let mut arrived = vec![0; self.listeners.len()];
        for _ in 0..count {
            let client = self.connect();
            let (at, _stream) = self.accept();
            slots[at].take(1);
            arrived[at] += 1;
            drop(client);
        }
        arrived
    }
}

fn listener(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    sys::listen(socket.as_fd(), backlog)?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Runs `child` in a forked process; whether it returned true.
fn in_child(child: impl FnOnce() -> bool) -> bool {
    match fork().unwrap() {
        Fork::Child => crate::process::sys::exit_at_once(i32::from(!child())),
        Fork::Parent { child } => {
            matches!(waitpid(child, None).unwrap(), WaitStatus::Exited(_, 0))
        }
    }
}

#[test]
fn equal_slots_get_equal_shares_and_every_connection_counts_once() {
    for count in [1, 2, 3, 8] {
        let Some(mut steering) = steering(8) else { return };
        let group = Group::listen(V4, count, 64);
        steering.attach(&group.sockets()).unwrap();
        let arrived = group.spread(2000, steering.slots());
        let share = 2000 / count;
        for (at, arrived) in arrived.into_iter().enumerate() {
            // Six standard deviations of a fair choice are less than this, for every count.
            assert!(arrived.abs_diff(share) <= 140, "{arrived} of 2000 to {at} of {count}");
            assert_eq!(steering.slot(at).assigned(), arrived as u64);
            assert_eq!(steering.slot(at).pending(), 0);
        }
    }
}

#[test]
fn who_is_away_gets_nothing_while_another_is_here() {
    let Some(mut steering) = steering(5) else { return };
    let group = Group::listen(V4, 5, 64);
    steering.attach(&group.sockets()).unwrap();
    for away in 0_u32..(1 << 5) - 1 {
        let is_away = |at: &usize| away >> at & 1 == 1;
        (0..5).for_each(|at| steering.slot(at).set_away(is_away(&at)));
        let arrived = group.spread(60, steering.slots());
        assert!((0..5).filter(is_away).all(|at| arrived[at] == 0), "{away:#b}: {arrived:?}");
        assert!((0..5).all(|at| is_away(&at) || arrived[at] > 0), "{away:#b}: {arrived:?}");
    }
    assert_eq!(assigned(&steering), 31 * 60);
}

#[test]
fn a_large_group_is_not_too_much_for_the_verifier() {
    let Some(mut steering) = steering(1024) else { return };
    let group = Group::listen(V4, 256, 64);
    steering.attach(&group.sockets()).unwrap();
    let (few, many) = steering.slots().split_at(64);
    few[1..].iter().for_each(|slot| slot.set_away(true));
    let arrived = group.spread(500, steering.slots());
    assert_eq!(arrived[1..64], [0; 63]);
    assert!(many.iter().any(|slot| slot.assigned() > 0));
}

#[test]
fn when_all_are_away_the_hash_decides_and_nothing_counts() {
    let Some(mut steering) = steering(2) else { return };
    let group = Group::listen(V4, 2, 64);
    steering.attach(&group.sockets()).unwrap();
    steering.slots().iter().for_each(|slot| slot.set_away(true));
    let arrived = group.spread(200, steering.slots());
    assert!(arrived.iter().all(|arrived| *arrived > 50), "{arrived:?}");
    assert_eq!(assigned(&steering), 0);
    // They took what they were not sent, and owe nothing for it: the next one here gets it all.
    steering.slot(0).set_away(false);
    assert_eq!(group.spread(50, steering.slots()), [50, 0]);
}

#[test]
fn the_busier_of_two_gets_nothing() {
    let Some(mut steering) = steering(2) else { return };
    let group = Group::listen(V4, 2, 64);
    steering.attach(&group.sockets()).unwrap();
    for (open, expected) in [([1, 0], [0, 200]), ([5, 1 << 40], [200, 0])] {
        steering.slots().iter().zip(open).for_each(|(slot, open)| slot.show(open));
        assert_eq!(group.spread(200, steering.slots()), expected);
    }
}

#[test]
fn who_accepts_nothing_gets_no_more_than_it_has() {
    let Some(mut steering) = steering(2) else { return };
    let group = Group::listen(V4, 2, 256);
    steering.attach(&group.sockets()).unwrap();
    let frozen = steering.slot(0);
    let clients: Vec<TcpStream> = (0..200)
        .map(|_| {
            let client = group.connect();
            let taken = group.listeners[1].accept().is_ok();
            steering.slot(1).take(u64::from(taken));
            client
        })
        .collect();
    assert_eq!(frozen.pending(), 1, "the other one had nothing waiting");
    assert_eq!(clients.len() as u64, assigned(&steering));
    // The other one gets slow too: both get the same.
    let more: Vec<TcpStream> = (0..100).map(|_| group.connect()).collect();
    let pending = steering.slots().iter().map(Slot::pending);
    assert!(pending.clone().max().unwrap() - pending.min().unwrap() <= 1);
    frozen.forgive_pending();
    assert_eq!(frozen.pending(), 0);
    drop(more);
}

#[test]
fn who_accepts_nothing_is_tried_again_now_and_then() {
    let Some(mut steering) = steering(2) else { return };
    let group = Group::listen(V4, 2, 256);
    steering.attach(&group.sockets()).unwrap();
    steering.slot(1).set_away(true);
    let frozen: Vec<TcpStream> = (0..5).map(|_| group.connect()).collect();
    steering.slot(1).set_away(false);
    let mut taker = Taker::new(steering.slot(1), Instant::now());
    let mut serve = || {
        let _client = group.connect();
        taker.on_accept(u64::from(group.listeners[1].accept().is_ok()), Instant::now());
    };
    (0..20).for_each(|_| serve());
    assert_eq!(steering.slot(0).assigned(), 5);
    thread::sleep(program::FADES_AFTER + Duration::from_millis(50));
    (0..20).for_each(|_| serve());
    assert_eq!(steering.slot(0).assigned(), 6);
    drop(frozen);
}

#[test]
fn a_group_grows_shrinks_and_changes_its_order_without_a_loss() {
    const EACH: usize = 200;
    let Some(mut steering) = steering(6) else { return };
    let mut group = Group::listen(V4, 2, 1024);
    let address = group.address;
    let client = thread::spawn(move || {
        for _ in 0..6 * EACH {
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
    });
    let serve = |group: &Group, slots: &[Slot]| {
        let mut arrived = vec![0; group.listeners.len()];
        for _ in 0..EACH {
            let (at, mut stream) = group.accept();
            arrived[at] += 1;
            stream.write_all(b"!").unwrap();
            slots.iter().for_each(Slot::forgive_pending);
        }
        arrived
    };
    let all_of = |arrived: &[usize]| arrived.iter().all(|arrived| *arrived > 0);
    let before = serve(&group, steering.slots());
    assert!(all_of(&before), "by hash: {before:?}");
    steering.attach(&group.sockets()).unwrap();
    assert!(all_of(&serve(&group, steering.slots())));

    group.add(1024);
    group.add(1024);
    steering.attach(&group.sockets()).unwrap();
    assert!(all_of(&serve(&group, steering.slots())));

    let reversed: Vec<_> = group.sockets().into_iter().rev().collect();
    steering.attach(&reversed).unwrap();
    steering.slot(0).set_away(true);
    steering.slot(1).set_away(true);
    let arrived = serve(&group, steering.slots());
    assert!(arrived[..2].iter().all(|arrived| *arrived > 0), "{arrived:?}");
    steering.slots().iter().for_each(|slot| slot.set_away(false));

    steering.attach(&reversed[2..]).unwrap();
    let arrived = serve(&group, steering.slots());
    assert!(arrived[2..].iter().sum::<usize>() <= 2, "may have been on their way: {arrived:?}");
    steering.attach(&group.sockets()).unwrap();
    assert!(all_of(&serve(&group, steering.slots())));
    client.join().unwrap();
    assert_eq!(steering.groups.len(), 1, "it was one group all the time");
}

#[test]
fn groups_share_the_slots() {
    let Some(mut steering) = steering(2) else { return };
    let other = if listener(V6.parse().unwrap(), 1).is_ok() { V6 } else { V4 };
    let groups = [Group::listen(V4, 2, 64), Group::listen(other, 2, 64)];
    for group in &groups {
        steering.attach(&group.sockets()).unwrap();
    }
    let waiting: Vec<TcpStream> = (0..6).map(|_| groups[0].connect()).collect();
    steering.slot(0).show(10);
    assert_eq!(groups[1].spread(4, steering.slots()), [0, 4]);
    assert_eq!(assigned(&steering), 10);
    drop(waiting);
}

#[test]
fn what_a_child_shows_decides_in_the_parents_kernel() {
    let Some(mut steering) = steering(2) else { return };
    let group = Group::listen(V4, 2, 64);
    steering.attach(&group.sockets()).unwrap();
    let (free, busy) = (steering.slot(0), steering.slot(1));
    assert!(in_child(|| {
        busy.show(1);
        true
    }));
    assert_eq!(group.spread(100, steering.slots()), [100, 0]);
    drop(steering); // what is attached stays, and so do the slots
    for _ in 0..100 {
        let (_client, (at, _stream)) = (group.connect(), group.accept());
        assert_eq!(at, 0);
        free.take(1);
    }
}

#[test]
fn its_descriptors_are_known_and_stay_behind_on_exec() {
    let Some(mut steering) = steering(2) else { return };
    let group = Group::listen(V4, 2, 64);
    steering.attach(&group.sockets()).unwrap();
    assert_eq!(steering.descriptors().count(), 2, "the slots', and the group's");
    for fd in steering.descriptors() {
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        assert_ne!(i32::from_str_radix(flags, 8).unwrap() & libc::O_CLOEXEC, 0);
    }
}

/// A segment that belongs to no connection makes the kernel look for a listener, too.
#[test]
fn an_acknowledgement_out_of_the_blue_counts_as_nothing() {
    let Some(mut steering) = steering(2) else { return };
    let group = Group::listen(V4, 2, 64);
    steering.attach(&group.sockets()).unwrap();
    let Ok(raw) = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Tcp)
    else {
        return eprintln!("not tested: no raw sockets");
    };
    let SocketAddr::V4(to) = group.address else { unreachable!() };
    for (flags, counted) in [(0x10, 0), (0x12, 0), (0x04, 0), (0x02, 1)] {
        let segment = segment(to.port(), flags);
        sendto(raw.as_raw_fd(), &segment, &SockaddrIn::from(to), MsgFlags::empty()).unwrap();
        let assigned = assigned(&steering);
        assert_eq!(assigned, counted, "flags {flags:#x}");
    }
}

/// A TCP header from port 9 of 127.0.0.1 to another one there.
fn segment(port: u16, flags: u8) -> [u8; 20] {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&9_u16.to_be_bytes());
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[12] = 5 << 4; // words
    header[13] = flags;
    header[14..16].copy_from_slice(&1024_u16.to_be_bytes()); // window
    let address = [0x7f00, 1, 0x7f00, 1, 6, 20]; // pseudo header: from, to, protocol, length
    let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = address.into_iter().sum::<u32>() + words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[16..18].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    header
}

/// What is refused because a queue is full comes again, and is then counted again.
#[test]
fn a_full_queue_repels_and_loses_nothing() {
    let Some(mut steering) = steering(2) else { return };
    let group = Group::listen(V4, 2, 2);
    steering.attach(&group.sockets()).unwrap();
    steering.slot(1).show(1 << 20);
    // The queue of slot 0 takes three; what comes next is dropped there, and sent again in a second.
    let clients: Vec<TcpStream> = (0..3).map(|_| group.connect()).collect();
    let address = group.address;
    let late = thread::spawn(move || TcpStream::connect(address).unwrap());
    thread::sleep(Duration::from_millis(300));
    assert_eq!(steering.slot(0).assigned(), 4);
    steering.slot(1).show(0); // now this one is the less loaded
    let late = late.join().unwrap();
    assert_eq!((steering.slot(0).assigned(), steering.slot(1).assigned()), (4, 1));
    assert_eq!(group.accept_now().iter().filter(|(at, _)| *at == 1).count(), 1);
    drop((clients, late));
}

#[test]
fn who_has_no_right_is_told_which() {
    let Some(steering) = steering(2) else { return };
    drop(steering);
    assert!(in_child(|| {
        setuid(Uid::from_raw(65534)).unwrap();
        let error = Steering::new(2).unwrap_err();
        error == SteerError::NotPermitted && error.to_string().contains("CAP_BPF")
    }));
}

#[test]
fn a_refused_program_tells_what_the_verifier_says() {
    let Some(steering) = steering(2) else { return };
    drop(steering);
    let program = assembly::assemble(&[assembly::Line::Exit]);
    let refusal = SteerError::from(sys::load_reuseport_program(&program).unwrap_err()).to_string();
    assert!(refusal.contains("R0 !read_ok"), "{refusal}");
}

#[test]
fn another_masters_sockets_are_taken_over_as_soon_as_the_kernel_lets_go_of_them() {
    let (Some(mut old), Some(mut new)) = (steering(2), steering(2)) else { return };
    let group = Group::listen(V4, 2, 64);
    old.attach(&group.sockets()).unwrap();
    let now = Instant::now();
    let mut claim = Claim::begin(now);
    while !new.try_take_over(&group.sockets()).unwrap() {
        claim = claim.next(Instant::now()).expect("it lets go in time");
        // For as long as the master would sleep, were there nothing else to do.
        thread::sleep(claim.at.saturating_duration_since(Instant::now()));
        old.let_go();
    }
    assert!(claim.at > now, "what another one steers takes more than a try");
    new.slot(1).set_away(true);
    assert_eq!(group.spread(50, new.slots()), [50, 0]);
}

#[test]
fn sockets_of_another_steering_and_of_no_group_are_refused() {
    let (Some(mut first), Some(mut second)) = (steering(2), steering(2)) else { return };
    let group = Group::listen(V4, 2, 64);
    first.attach(&group.sockets()).unwrap();
    assert_eq!(second.attach(&group.sockets()).unwrap_err(), SteerError::Taken);
    let alone = TcpListener::bind(V4).unwrap();
    let refused = second.attach(&[alone.as_fd()]).unwrap_err();
    assert_eq!(refused, SteerError::Other { step: Step::Place, errno: libc::EINVAL });
}
