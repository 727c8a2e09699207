//! How connections end: nobody loses an answer to a reset.

mod common;

use common::{Client, Server};

/// More than a socket's buffer takes, so that some of it is unread when the answer is sent.
const JUNK: usize = 300_000;

#[test]
fn who_sends_more_behind_its_last_request_still_hears_the_whole_answer() {
    let server = Server::start(&["--workers", "1"]);
    let junk = "x".repeat(JUNK);
    for (request, length) in [
        ("GET /body/1000000 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 1_000_000),
        ("GET /body/100 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 100),
        ("GET /body/100 HTTP/1.0\r\n\r\n", 100),
    ] {
        for _ in 0..5 {
            let mut client = server.connect();
            client.say(format!("{request}{junk}"));
            let answer = client.hear();
            assert_eq!((answer.status(), answer.body.len()), (200, length));
            assert!(client.is_closed_by_server());
        }
    }
}

#[test]
fn who_sends_more_than_it_may_ask_hears_its_last_answer() {
    let server = Server::configured(
        "workers = 1\nlisten = [\"127.0.0.1:0\"]\n[limits]\nrequests_per_connection = 3\n",
        &[],
    );
    let request = "GET /body/1000 HTTP/1.1\r\nHost: t\r\n\r\n";
    for _ in 0..20 {
        let mut client = server.connect();
        client.say(request.repeat(500));
        for last in [None, None, Some("close")] {
            let answer = client.hear();
            assert_eq!((answer.status(), answer.header("Connection")), (200, last));
        }
        assert!(client.is_closed_by_server());
    }
}

#[test]
fn what_is_no_request_is_answered_however_much_of_it_there_is() {
    let server = Server::start(&["--workers", "1"]);
    let mut client: Client = server.connect();
    client.try_say(format!("NONSENSE\r\n\r\n{}", "x".repeat(JUNK)));
    assert_eq!(client.hear().status(), 400);
    let mut client = server.connect();
    client.try_say(format!(
        "POST /upload HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999\r\n\r\n{}",
        "x".repeat(JUNK)
    ));
    assert_eq!(client.hear().status(), 413);
}
