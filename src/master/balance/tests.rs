//! How even each balancer is, and what it does when workers come and go.

use std::cell::Cell;
use std::net::Ipv4Addr;

use super::*;

fn worker(worker_id: usize, connections: u64) -> Candidate {
    Candidate { worker_id, connections, weight: 1 }
}

fn weighted(weights: &[u32]) -> Vec<Candidate> {
    let ids = weights.iter().enumerate();
    ids.map(|(worker_id, weight)| Candidate { weight: *weight, ..worker(worker_id, 0) }).collect()
}

/// The id of the worker that gets a client without an address.
fn pick(balancer: &mut dyn Balancer, candidates: &[Candidate]) -> usize {
    candidates[balancer.select(&Client::unknown(), candidates).unwrap()].worker_id
}

/// The id of the worker that gets the client with this number.
fn pick_for(balancer: &mut dyn Balancer, client: u32, candidates: &[Candidate]) -> usize {
    let address = || Some(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + client)));
    candidates[balancer.select(&Client::new(&address), candidates).unwrap()].worker_id
}

/// What each of the workers gets of `clients` connections that stay.
fn shares(balancer: &mut dyn Balancer, workers: usize, clients: u32) -> Vec<u64> {
    let mut candidates: Vec<Candidate> = (0..workers).map(|id| worker(id, 0)).collect();
    for client in 0..clients {
        let id = pick_for(balancer, client, &candidates);
        candidates[id].connections += 1;
    }
    candidates.iter().map(|worker| worker.connections).collect()
}

#[test]
fn the_fewest_connections_win_and_equals_take_turns() {
    let mut least = LeastConnections::new();
    assert_eq!(pick(&mut least, &[worker(0, 3), worker(1, 2), worker(2, 5)]), 1);
    let equal = [worker(0, 7), worker(1, 7), worker(2, 7)];
    let turns: Vec<usize> = (0..6).map(|_| pick(&mut least, &equal)).collect();
    assert_eq!(turns, [2, 0, 1, 2, 0, 1]);
    assert_eq!(shares(&mut least, 7, 700), [100; 7]);
}

#[test]
fn turns_go_on_after_the_last_one_whoever_comes_and_goes() {
    let mut turns = RoundRobin::new();
    let all = [worker(0, 0), worker(1, 9), worker(2, 0), worker(3, 0)];
    assert_eq!([(); 5].map(|()| pick(&mut turns, &all)), [0, 1, 2, 3, 0]);
    assert_eq!(pick(&mut turns, &[all[0], all[2], all[3]]), 2, "the next one is away");
    assert_eq!(pick(&mut turns, &all), 3);
    assert_eq!(pick(&mut turns, &[all[2], all[1]]), 1, "their order in the slice says nothing");
    turns.reset();
    assert_eq!(pick(&mut turns, &all), 0);
}

#[test]
fn each_cycle_has_exactly_the_weights_and_the_heavy_ones_turns_lie_apart() {
    let mut balancer = Weighted::new();
    let candidates = weighted(&[5, 1, 1]);
    assert_eq!([(); 7].map(|()| pick(&mut balancer, &candidates)), [0, 0, 1, 0, 2, 0, 0]);
    for weights in [&[1, 1][..], &[3, 2], &[1000, 1, 999], &[7, 11, 13, 17, 1]] {
        let mut balancer = Weighted::new();
        let candidates = weighted(weights);
        for _cycle in 0..3 {
            let mut counts = vec![0; weights.len()];
            for _ in 0..weights.iter().sum() {
                counts[pick(&mut balancer, &candidates)] += 1;
            }
            assert_eq!(counts, weights);
        }
    }
}

#[test]
fn a_worker_that_leaves_begins_a_new_cycle_among_the_others() {
    let mut balancer = Weighted::new();
    let all = weighted(&[5, 2, 1]);
    for before in 0..8 {
        for _ in 0..before {
            pick(&mut balancer, &all);
        }
        balancer.on_worker_removed(0);
        let mut counts = [0; 3];
        (0..3).for_each(|_| counts[pick(&mut balancer, &all[1..])] += 1);
        assert_eq!(counts, [0, 2, 1]);
        balancer.reset();
    }
}

#[test]
fn losing_a_worker_moves_its_clients_alone_and_they_return_with_it() {
    const CLIENTS: u32 = 10_000;
    let all: Vec<Candidate> = (0..8).map(|id| worker(id, 0)).collect();
    let mut balancer = Sticky::new(42);
    let homes: Vec<usize> = (0..CLIENTS).map(|c| pick_for(&mut balancer, c, &all)).collect();
    for lost in 0..8 {
        let left: Vec<Candidate> = all.iter().copied().filter(|w| w.worker_id != lost).collect();
        balancer.on_worker_removed(lost);
        let mut moved = [0; 8];
        for (client, home) in (0..).zip(&homes) {
            let now = pick_for(&mut balancer, client, &left);
            assert!(now == *home || *home == lost, "client {client} of {home} went to {now}");
            moved[now] += u32::from(*home == lost);
        }
        let least = moved.iter().enumerate().filter(|(id, _)| *id != lost).map(|(_, n)| n).min();
        assert!(*least.unwrap() > 100, "its 1250 clients spread over the other seven: {moved:?}");
    }
    let back: Vec<usize> = (0..CLIENTS).map(|c| pick_for(&mut balancer, c, &all)).collect();
    assert_eq!(homes, back);
}

#[test]
fn sticky_clients_spread_by_weight() {
    for seed in 0..5 {
        for share in shares(&mut Sticky::new(seed), 4, 10_000) {
            assert!((2250..=2750).contains(&share), "{share} of 10,000 for one of four");
        }
        let candidates = weighted(&[1, 3]);
        let mut balancer = Sticky::new(seed);
        let heavy = (0..10_000).filter(|c| pick_for(&mut balancer, *c, &candidates) == 1).count();
        assert!((7300..=7700).contains(&heavy), "{heavy} of 10,000 for three quarters");
    }
}

#[test]
fn a_client_is_the_same_in_ipv4_and_in_ipv6s_clothes_and_ipv6_spreads_as_well() {
    let candidates: Vec<Candidate> = (0..16).map(|id| worker(id, 0)).collect();
    let mut balancer = Sticky::new(7);
    for client in 0..100 {
        let mapped = || Some(Ipv4Addr::from_bits(0x0a00_0000 + client).to_ipv6_mapped().into());
        let index = balancer.select(&Client::new(&mapped), &candidates);
        assert_eq!(index, Some(pick_for(&mut balancer, client, &candidates)));
    }
    let mut counts = [0; 16];
    for client in 0..16_000_u128 {
        let address = || Some(IpAddr::V6((0x2001_0db8 << 96 | client << 64).into()));
        counts[balancer.select(&Client::new(&address), &candidates).unwrap()] += 1;
    }
    assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
}

#[test]
fn a_client_without_an_address_goes_where_the_fewest_are() {
    let mut balancer = Sticky::new(1);
    assert_eq!(pick(&mut balancer, &[worker(0, 3), worker(1, 2), worker(2, 5)]), 1);
}

#[test]
fn the_address_is_looked_up_by_the_sticky_one_alone() {
    for balance in [
        Balance::LeastConnections,
        Balance::RoundRobin,
        Balance::Weighted,
        Balance::Sticky,
        Balance::PowerOfTwo,
    ] {
        let asked = Cell::new(0);
        let address = || {
            asked.set(asked.get() + 1);
            None
        };
        let chosen = of(balance, 1).select(&Client::new(&address), &[worker(3, 0)]);
        assert_eq!(chosen, Some(0), "{balance}");
        assert_eq!(asked.get(), u32::from(balance == Balance::Sticky), "{balance}");
    }
}

#[test]
fn two_draws_never_take_the_most_loaded_and_reach_all_others() {
    let mut balancer = PowerOfTwo::new(3);
    let candidates = [worker(0, 9), worker(1, 1), worker(2, 1), worker(3, 1)];
    let mut counts = [0; 4];
    (0..3000).for_each(|_| counts[pick(&mut balancer, &candidates)] += 1);
    assert_eq!(counts[0], 0);
    assert!(counts[1..].iter().all(|count| (900..1100).contains(count)), "{counts:?}");
}

#[test]
fn two_draws_keep_staying_connections_close_together() {
    for seed in 0..20 {
        let counts = shares(&mut PowerOfTwo::new(seed), 10, 10_000);
        // One draw would differ by some 100 here.
        assert!(counts.iter().all(|count| count.abs_diff(1000) <= 6), "seed {seed}: {counts:?}");
    }
}
