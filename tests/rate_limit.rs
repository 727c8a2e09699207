//! So many requests a client, counted exactly: over workers, reloads and proxies.

mod common;

use std::collections::BTreeMap;
use std::thread;

use common::{Answer, Client, Server, foster_parent};
use nix::sys::signal::Signal;

/// A limit that nothing is regained of while a test runs.
fn server(workers: usize, requests: u32, more: &str) -> Server {
    Server::configured(
        &format!(
            "workers = {workers}\n{more}\n[rate_limit]\nenabled = true\nrequests = {requests}\n\
             window = \"1d\"\n"
        ),
        &[],
    )
}

fn from(server: &Server, forwarded_for: &str) -> Answer {
    server.connect().ask(&format!(
        "GET /plaintext HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {forwarded_for}\r\n\
         Connection: close\r\n\r\n"
    ))
}

#[test]
fn of_all_requests_in_parallel_exactly_as_many_are_answered_as_are_allowed() {
    const ALLOWED: u32 = 100;
    const CLIENTS: usize = 8;
    const EACH: usize = 50;
    for accept in ["shared", "dispatch"] {
        let server = server(4, ALLOWED, &format!("accept = \"{accept}\""));
        let address = server.address();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                thread::spawn(move || {
                    let mut counts = BTreeMap::<u16, u32>::new();
                    let mut client = Client::connect(address);
                    for request in 0..EACH {
                        // Some come back over and over, and meet all workers.
                        if number % 2 == 0 || request % 10 == 0 {
                            client = Client::connect(address);
                        }
                        *counts.entry(client.get("/plaintext").status()).or_default() += 1;
                    }
                    counts
                })
            })
            .collect();
        let mut counts = BTreeMap::<u16, u32>::new();
        for client in clients {
            for (status, count) in client.join().unwrap() {
                *counts.entry(status).or_default() += count;
            }
        }
        let refused = (CLIENTS * EACH) as u32 - ALLOWED;
        assert_eq!(counts, BTreeMap::from([(200, ALLOWED), (429, refused)]), "{accept}");
    }
}

#[test]
fn a_response_tells_what_is_left_and_a_refusal_when_to_come_back() {
    let server = server(1, 2, "");
    let mut client = server.connect();
    for left in ["1", "0"] {
        let answer = client.get("/plaintext");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header("X-RateLimit-Limit"), Some("2"));
        assert_eq!(answer.header("X-RateLimit-Remaining"), Some(left));
        assert_eq!(answer.header("RateLimit-Policy"), Some("\"client\";q=2;w=86400"));
        let limit = answer.header("RateLimit").unwrap();
        assert!(limit.starts_with(&format!("\"client\";r={left};t=")), "{limit}");
        assert_eq!(answer.header("Retry-After"), None);
    }
    let refused = client.get("/plaintext");
    assert_eq!((refused.status(), refused.header("Connection")), (429, None));
    let seconds: u64 = refused.header("Retry-After").unwrap().parse().unwrap();
    assert!((43_100..=43_200).contains(&seconds), "{seconds}");
    assert_eq!(client.get("/plaintext").status(), 429, "the connection goes on");
    let upload = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";
    let refused = client.ask(upload);
    assert_eq!((refused.status(), refused.header("Connection")), (429, Some("close")));
    assert_eq!(Client::connect_from([127, 0, 0, 2], server.address()).get("/").status(), 200);
}

#[test]
fn clients_behind_a_trusted_proxy_are_told_apart_and_households_are_not() {
    let server = server(2, 1, "[proxies]\ntrusted = [\"127.0.0.0/8\"]");
    for (client, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("6.6.6.6, 192.0.2.2", 429),
        ("2001:db8::1", 200),
        ("2001:db8::ffff:2", 429),
        ("2001:db8:0:1::1", 200),
    ] {
        assert_eq!(from(&server, client).status(), status, "{client}");
    }
}

#[test]
fn what_an_untrusted_peer_claims_counts_for_nothing() {
    let server = server(2, 1, "");
    assert_eq!(from(&server, "192.0.2.1").status(), 200);
    assert_eq!(from(&server, "192.0.2.2").status(), 429);
}

#[test]
fn a_reload_and_an_upgrade_forgive_nobody() {
    foster_parent();
    let mut server = server(2, 1, "");
    assert_eq!(server.connect().get("/plaintext").status(), 200);
    server.signal(Signal::SIGHUP);
    server.wait_for_log("reloaded");
    assert_eq!(server.connect().get("/plaintext").status(), 429);
    server.upgrade();
    assert_eq!(server.connect().get("/plaintext").status(), 429);
    let mut other = Client::connect_from([127, 0, 0, 2], server.address());
    assert_eq!(other.get("/plaintext").status(), 200);
}
