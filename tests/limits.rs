//! What a stranger may cost: bytes, time, connections, memory. Others are served meanwhile.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, Server, eventually, in_every_mode, kill_hard};
use nix::sys::signal::Signal;

const CLOSE: Option<&str> = Some("close");

/// One worker with these limits and timeouts.
fn server(tables: &str) -> Server {
    Server::configured(&format!("workers = 1\n{tables}"), &[])
}

fn error(server: &Server, kind: &str) -> u64 {
    server.status()["errors"][kind].as_u64().unwrap()
}

#[test]
fn heads_targets_fields_and_bodies_have_limits_of_their_own() {
    let server = server(
        "[limits]\nhead_bytes_max = \"2KiB\"\ntarget_bytes_max = 100\nfields_max = 5\n\
         body_bytes_max = 10\n",
    );
    let long = |count: usize| "x".repeat(count);
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", long(99)), 404),
        (format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", long(100)), 414),
        (format!("GET / HTTP/1.1\r\nHost: t\r\nA: {}\r\n\r\n", long(1900)), 200),
        (format!("GET / HTTP/1.1\r\nHost: t\r\nA: {}\r\n\r\n", long(2100)), 431),
        (format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "A: b\r\n".repeat(4)), 200),
        (format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "A: b\r\n".repeat(5)), 431),
        ("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n0123456789".into(), 200),
        ("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\n".into(), 413),
    ] {
        assert_eq!(server.connect().ask(&request).status(), status, "{request}");
    }
    assert_eq!(error(&server, "too_large"), 4);
}

#[test]
fn a_connection_has_so_many_requests_and_says_which_is_the_last() {
    for count in [1, 3] {
        let server = server(&format!("[limits]\nrequests_per_connection = {count}\n"));
        let mut client = server.connect();
        for number in 1..=count {
            let answer = client.get("/plaintext");
            let is_last = number == count;
            assert_eq!((answer.status(), answer.header("Connection") == CLOSE), (200, is_last));
        }
        assert!(client.is_closed_by_server());
    }
}

#[test]
fn an_old_connection_ends_with_an_answer() {
    let server = server("[timeouts]\nconnection = \"200ms\"\n");
    let mut client = server.connect();
    let give_up = Instant::now() + PATIENCE;
    while client.get("/plaintext").header("Connection") != CLOSE {
        assert!(Instant::now() < give_up, "it lives for ever");
    }
    assert!(client.is_closed_by_server());
}

#[test]
fn a_handler_that_takes_too_long_is_answered_for() {
    let server = server("[timeouts]\nrequest = \"200ms\"\n");
    let mut client = server.connect();
    // The handler waits for the rest of the body.
    let answer = client.ask("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello");
    assert_eq!((answer.status(), answer.header("Connection")), (503, CLOSE));
    assert_eq!(error(&server, "request_timeouts"), 1);
}

/// Says a byte now and then until the server has had enough; returns what it says to that.
fn trickle(client: &mut Client, begin: &str) -> String {
    client.say(begin);
    let give_up = Instant::now() + PATIENCE;
    while client.try_say("x") && Instant::now() < give_up {
        thread::sleep(Duration::from_millis(20)); // the pace of a slow client
    }
    client.hear_all()
}

#[test]
fn whoever_drips_a_head_or_a_body_is_cut_off_however_regular_the_drops() {
    let server = server(
        "[timeouts]\nhead = \"300ms\"\nbody = \"300ms\"\n[limits]\nreceive_rate_min = 1000\n",
    );
    let heard = trickle(&mut server.connect(), "GET / HTTP/1.1\r\nHost: t\r\nA: ");
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 408 "), "{heard}");
    // The echo has begun before the body is there, and ends with it.
    let upload = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n";
    let heard = trickle(&mut server.connect(), upload);
    assert!(heard.len() < 10_000, "{heard}");
    assert_eq!((error(&server, "head_timeouts"), error(&server, "body_timeouts")), (1, 1));
}

#[test]
fn whoever_does_not_read_is_cut_off() {
    let server = server("[timeouts]\nwrite = \"300ms\"\n");
    let mut deaf = server.connect();
    for _ in 0..20 {
        deaf.say("GET /body/1000000 HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    eventually("it is cut off", || error(&server, "write_timeouts") == 1);
}

#[test]
fn at_the_limit_whoever_has_idled_longest_makes_room_be_it_silent_or_served() {
    let server = server("[limits]\nconnections_max = 3\n");
    let mut silent = server.connect();
    eventually("it is in", || server.status()["active_connections"] == 2);
    let mut answered = server.connect();
    assert_eq!(answered.get("/plaintext").status(), 200);
    let mut busy = server.connect();
    busy.say("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello");
    // Each newcomer waits until somebody has idled for a second.
    let mut first = server.connect();
    assert_eq!(first.get("/plaintext").status(), 200);
    assert!(silent.is_closed_by_server());
    let mut second = server.connect();
    assert_eq!(second.get("/plaintext").status(), 200);
    assert!(answered.is_closed_by_server());
    busy.say("world");
    assert_eq!(busy.hear().body(), "helloworld");
    drop((busy, first));
    eventually("there is room", || server.status()["errors"]["made_room"] == 2);
}

#[test]
fn in_every_mode_newcomers_get_in_where_all_idle() {
    in_every_mode(|mode| {
        let text = "workers = 2\n[limits]\nconnections_max = 2\n";
        let server = Server::configured(text, &["--accept", mode]);
        // Silent ones, who have idled from their first moment on.
        let silent: Vec<Client> = (0..12).map(|_| server.connect()).collect();
        let mut answered: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for client in &mut answered {
            assert_eq!(client.get("/plaintext").status(), 200, "{mode}");
        }
        let made_room = server.status()["errors"]["made_room"].as_u64().unwrap();
        assert!(made_room >= 12, "{mode}: {made_room}");
        drop(silent);
    });
}

#[test]
fn while_nobody_idles_a_newcomer_waits_for_whoever_goes() {
    let server = server("[limits]\nconnections_max = 1\n");
    let mut busy = server.connect();
    busy.say(
        "POST /echo HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhello",
    );
    let mut waiting = server.connect();
    waiting.say("GET /plaintext HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    busy.say("world");
    assert_eq!(busy.hear().body(), "helloworld");
    drop(busy);
    assert_eq!(waiting.hear().status(), 200);
}

#[test]
fn a_client_has_so_many_connections_and_others_have_theirs() {
    let server = server("[limits]\nconnections_per_client = 2\n");
    let address = server.address();
    let mut own = [server.connect(), server.connect()];
    own.iter_mut().for_each(|client| assert_eq!(client.get("/plaintext").status(), 200));
    assert!(server.connect().is_closed_by_server());
    let mut other = Client::connect_from([127, 0, 0, 2], address);
    assert_eq!(other.get("/plaintext").status(), 200);
    own.iter_mut().for_each(|client| assert_eq!(client.get("/plaintext").status(), 200));
    drop(own);
    eventually("its share is back", || {
        server.connect().try_get("/plaintext").is_some_and(|answer| answer.status() == 200)
    });
    let status = other.get("/status");
    let status: serde_json::Value = serde_json::from_str(status.body()).unwrap();
    assert!(status["errors"]["too_many_connections"].as_u64().unwrap() >= 1);
}

/// How many of these connections a server keeps open.
fn kept(clients: &mut Vec<Client>) -> usize {
    clients.retain_mut(|client| {
        client.try_get("/plaintext").is_some_and(|answer| answer.status() == 200)
    });
    clients.len()
}

#[test]
fn a_client_s_share_is_one_over_all_workers_also_when_some_die_or_are_replaced() {
    common::foster_parent();
    in_every_mode(|mode| {
        let text = "workers = 3\n[limits]\nconnections_per_client = 5\n";
        let mut server = Server::configured(text, &["--accept", mode]);
        let address = server.address();
        let several = || (0..20).map(|_| Client::connect_from([127, 0, 0, 2], address)).collect();
        let mut clients: Vec<Client> = several();
        assert!(kept(&mut clients) <= 5, "{mode}");
        // One at a time, exactly as many as there may be.
        while clients.len() < 5 {
            let mut one = vec![Client::connect_from([127, 0, 0, 2], address)];
            kept(&mut one);
            clients.append(&mut one);
        }
        assert_eq!(kept(&mut several()), 0, "{mode}");
        // What dies with a worker is free again.
        server.workers().into_iter().for_each(kill_hard);
        eventually("there are new workers", || {
            clients.clear();
            // One at a time: of two at once both may be one too many.
            for _ in 0..5 {
                let mut one = vec![Client::connect_from([127, 0, 0, 2], address)];
                kept(&mut one);
                clients.append(&mut one);
            }
            clients.len() == 5
        });
        // New workers count what the old ones have, and a new master's as well.
        server.signal(Signal::SIGHUP);
        server.wait_for_log("reloaded");
        eventually("the old workers have gone", || server.workers().len() == 3);
        assert_eq!(kept(&mut clients), 5, "{mode}: they are handed over");
        assert_eq!(kept(&mut several()), 0, "{mode}: after a reload");
        server.upgrade();
        assert_eq!(kept(&mut clients), 5, "{mode}: they are handed over");
        assert_eq!(kept(&mut several()), 0, "{mode}: after an upgrade");
    });
}

#[test]
fn while_memory_is_short_new_work_is_refused_and_later_it_is_not() {
    let server = server("[limits]\nmemory_bytes_max = \"1MiB\"\n");
    let mut patient = server.connect();
    assert_eq!(patient.get("/plaintext").status(), 200);
    let mut begun = server.connect();
    begun.say("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello");
    let head = format!("GET / HTTP/1.1\r\nHost: t\r\nA: {}", "x".repeat(15_000));
    let mut hoarders: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    hoarders.iter_mut().for_each(|hoarder| hoarder.say(&head));
    eventually("memory is short", || patient.get("/plaintext").status() == 503);
    let refused = patient.get("/plaintext");
    assert_eq!((refused.header("Retry-After"), refused.header("Connection")), (Some("1"), None));
    begun.say("world");
    assert_eq!(begun.hear().body(), "helloworld", "what has begun is finished");
    drop(hoarders);
    eventually("memory is back", || patient.get("/plaintext").status() == 200);
    assert!(error(&server, "out_of_memory") >= 2);
    eventually("all of it", || server.status()["memory_held"].as_u64().unwrap() < 64 << 10);
}

#[test]
fn a_crowd_is_let_in_turn_by_turn() {
    let server = server("[limits]\naccepts_per_turn = 1\n");
    let mut crowd: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut crowd {
        assert_eq!(client.get("/plaintext").status(), 200);
    }
}
