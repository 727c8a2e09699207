//! Conversations with a connection in virtual time.

mod downloads;
mod tunnel;

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_core::Stream;

use super::*;
use crate::app::{Handler, Service, service};
use crate::figures::{Durations, Fault, Figures};
use crate::guard::Guard;
use crate::http::Body;
use crate::offline;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection, its peer, and all that surrounds them.
struct Talk {
    connection: Connection,
    service: Box<dyn Service>,
    settings: Settings,
    pools: Pools,
    guard: Guard,
    figures: Box<Figures>,
    date: DateField,
    now: Instant,
    begin: Instant,
    wakes: Arc<Wakes>,
    draining: Draining,
    /// What was given out to be sent and isn't acknowledged yet.
    in_flight: Option<Outgoing>,
    reads_done: usize,
    /// Files are in memory.
    sends_files: bool,
    files_sent: usize,
    received: Vec<u8>,
    write_ended: bool,
    closed: bool,
    aborted: bool,
    /// The peer reads at once.
    reads: bool,
    /// Whoever is woken is polled.
    follows_wakes: bool,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Talk {
    fn with(handler: impl Handler) -> Talk {
        let now = Instant::now();
        let settings = Settings {
            body: BodyLimits { bytes_max: 64 * 1024, collected_bytes_max: 64 * 1024 },
            head_timeout: HEAD_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            ..Settings::for_tests()
        };
        let date = DateField::new(now, SystemTime::UNIX_EPOCH);
        let service = service(handler);
        let connection = Connection::new(-1, now + HEAD_TIMEOUT);
        Talk {
            connection,
            service,
            settings,
            pools: Pools::default(),
            guard: Guard::new(1),
            figures: Box::new(Figures::new()),
            date,
            now,
            begin: now,
            wakes: Arc::default(),
            draining: Draining::No,
            in_flight: None,
            reads_done: 0,
            sends_files: false,
            files_sent: 0,
            received: Vec::new(),
            write_ended: false,
            closed: false,
            aborted: false,
            reads: true,
            follows_wakes: false,
        }
    }

    /// A server that says what it was asked.
    fn echoing() -> Talk {
        let mut talk = Talk::with(async |request: &Request| -> Result<String, BodyError> {
            let body = request.text().await?;
            Ok(format!("{} {} {body}", request.method_text(), request.path()))
        });
        talk.follows_wakes = true;
        talk
    }

    fn tell(&mut self, fact: impl FnOnce(&mut Connection, &mut Env<'_>)) {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut env = Env {
            now: self.now,
            nanos: (self.now - self.begin).as_nanos() as u64,
            settings: &self.settings,
            service: &*self.service,
            waker: &waker,
            date: &self.date,
            pools: &mut self.pools,
            guard: &mut self.guard,
            figures: &self.figures,
            draining: self.draining,
        };
        fact(&mut self.connection, &mut env);
        while let Some(action) = self.connection.poll_action(&mut env) {
            assert!(!self.closed, "nothing follows a close");
            match action {
                Action::Send => {
                    let outgoing = self.connection.take_outgoing(&env);
                    assert!(self.in_flight.is_none(), "one send at a time");
                    self.received.extend_from_slice(&outgoing.head);
                    self.received.extend_from_slice(outgoing.body.as_deref().unwrap_or_default());
                    self.in_flight = Some(outgoing);
                }
                Action::Read(read) => {
                    assert!(self.in_flight.is_none(), "nothing is read ahead");
                    self.reads_done += 1;
                    let (buffer, result) = offline::run(*read);
                    self.connection.handle_read(buffer, result, &mut env);
                }
                Action::SendFile(mut send) => {
                    assert!(self.in_flight.is_none(), "one send at a time");
                    self.files_sent += 1;
                    if self.sends_files {
                        let mut file = vec![0; send.left() as usize];
                        let clone = File::from(send.file().try_clone_to_owned().unwrap());
                        let count = clone.read_at(&mut file, send.offset()).unwrap();
                        file.truncate(count);
                        self.received.extend_from_slice(send.head());
                        self.received.extend_from_slice(&file);
                        send.advance(send.head().len() + count);
                    }
                    self.connection.handle_file_sent(*send, &mut env);
                }
                Action::ShutdownWrite => self.write_ended = true,
                Action::Abort => (self.closed, self.aborted) = (true, true),
                Action::Close => self.closed = true,
            }
        }
        if self.reads {
            self.read();
        }
        if self.follows_wakes && self.wakes.0.swap(0, Ordering::Relaxed) > 0 {
            self.wake();
        }
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.tell(|connection, env| connection.handle_bytes(bytes.as_ref(), env));
    }

    /// The peer reads what is in flight.
    fn read(&mut self) {
        while let Some(Outgoing { head, .. }) = self.in_flight.take() {
            self.tell(|connection, env| connection.handle_sent(head, env));
        }
    }

    fn end(&mut self) {
        self.tell(Connection::handle_end);
    }

    fn wake(&mut self) {
        self.tell(Connection::handle_wake);
    }

    /// Lets the time pass, and the alarm go off if it is set for then or before.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.connection.poll_timeout().is_some_and(|at| at <= self.now) {
            self.tell(Connection::handle_timeout);
        }
    }

    /// What has arrived at the peer since the last call, without Date fields.
    fn heard(&mut self) -> String {
        let text = String::from_utf8(std::mem::take(&mut self.received)).unwrap();
        text.replace("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "")
    }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn refused(line: &str) -> String {
    let reason = line.split_once(' ').unwrap().1;
    format!(
        "HTTP/1.1 {line}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{reason}",
        reason.len()
    )
}

#[test]
fn a_request_is_answered_and_the_connection_stays() {
    let mut talk = Talk::echoing();
    for _ in 0..3 {
        talk.say("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(talk.heard(), ok("GET /a "));
    }
    assert!(!talk.closed && talk.connection.wants_input() && talk.connection.is_proven());
    assert_eq!(talk.figures.requests.read(), 3);
}

#[test]
fn every_split_of_the_corpus_gives_the_same_answers() {
    let corpus: &[&str] = &[
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\nHEAD /c HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n",
        "GET /old HTTP/1.0\r\n\r\n",
        "GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /new HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /never HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "GET /a HTTP/1.1\nHost: x\n\n",
        "GET /a HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}",
    ];
    for conversation in corpus {
        let conversation = conversation.as_bytes();
        let outcome = |pieces: &[&[u8]]| {
            let mut talk = Talk::echoing();
            pieces.iter().for_each(|piece| talk.say(piece));
            talk.end();
            assert!(talk.closed, "an ended connection is closed");
            talk.heard()
        };
        let whole = outcome(&[conversation]);
        assert!(whole.starts_with("HTTP/1.1 "), "{whole}");
        for cut in 0..=conversation.len() {
            let (begin, end) = conversation.split_at(cut);
            assert_eq!(outcome(&[begin, end]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = conversation.chunks(1).collect();
        assert_eq!(outcome(&bytes), whole, "byte by byte");
    }
}

#[test]
fn pipelined_answers_leave_in_one_send() {
    let mut talk = Talk::echoing();
    talk.reads = false;
    talk.say("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(16));
    let first = talk.in_flight.as_ref().unwrap();
    assert_eq!(String::from_utf8_lossy(&first.head).matches("GET /1 ").count(), 16);
}

#[test]
fn what_arrives_during_a_send_is_answered_after_it_in_order() {
    let mut talk = Talk::echoing();
    talk.reads = false;
    talk.say("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
    talk.say("GET /2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HT");
    talk.say("TP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(talk.heard(), ok("GET /1 "));
    talk.read();
    assert_eq!(talk.heard(), ok("GET /2 ") + &ok("GET /3 "));
}

#[test]
fn a_peer_that_does_not_read_stops_the_answering_and_then_the_reading() {
    let mut talk = Talk::with(async |_: &Request| Bytes::from(vec![b'x'; 10_000]));
    talk.reads = false;
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut said = 0;
    while talk.connection.wants_input() {
        talk.say(request);
        said += 1;
        assert!(said < 1000, "it never stops reading");
    }
    assert!(
        talk.figures.requests.read() <= 2,
        "{} answers are made for nobody",
        talk.figures.requests.read()
    );
    talk.read();
    talk.reads = true;
    talk.say("");
    assert_eq!(talk.figures.requests.read(), said);
    assert!(talk.connection.wants_input());
}

#[test]
fn expect_continue_is_answered_before_the_body() {
    let mut talk = Talk::echoing();
    talk.say("POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(talk.heard(), "HTTP/1.1 100 Continue\r\n\r\n");
    talk.say("hi");
    assert_eq!(talk.heard(), ok("POST /p hi"));
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_invited_or_as_it_comes() {
    for request in [
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 65537\r\n\r\n"
            .to_owned(),
        format!(
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n{}",
            "x".repeat(0x10001)
        ),
    ] {
        let mut talk = Talk::echoing();
        talk.say(request);
        assert_eq!(talk.heard(), refused("413 Content Too Large"));
        assert!(talk.write_ended && !talk.closed, "the peer can read the refusal first");
        talk.end();
        assert!(talk.closed);
    }
}

#[test]
fn lingering_ends_by_time_or_by_size() {
    let garbage = "GET / HTTP/9.9\r\n\r\n";
    let mut talk = Talk::echoing();
    talk.say(garbage);
    assert!(talk.write_ended && !talk.closed);
    talk.pass(LINGER);
    assert!(talk.closed);

    let mut talk = Talk::echoing();
    talk.say(garbage);
    for _ in 0..=LINGER_BYTES_MAX / 10_000 {
        assert!(!talk.closed);
        talk.say([0; 10_000]);
    }
    assert!(talk.closed);
}

#[test]
fn each_phase_has_its_time() {
    let mut new = Talk::echoing();
    new.pass(HEAD_TIMEOUT);
    assert!(new.closed && new.heard().is_empty(), "who says nothing hears nothing");

    let mut slow_head = Talk::echoing();
    slow_head.say("GET / HT");
    slow_head.pass(HEAD_TIMEOUT / 2);
    slow_head.say("TP/1.1\r\n"); // more bytes don't buy more time
    slow_head.pass(HEAD_TIMEOUT / 2);
    assert_eq!(slow_head.heard(), refused("408 Request Timeout"));

    let mut slow_body = Talk::echoing();
    slow_body.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nh");
    slow_body.pass(BODY_TIMEOUT / 2);
    slow_body.say("e"); // progress does
    slow_body.pass(BODY_TIMEOUT / 2);
    assert!(slow_body.heard().is_empty());
    slow_body.pass(BODY_TIMEOUT / 2);
    assert_eq!(slow_body.heard(), refused("408 Request Timeout"));

    let mut idle = Talk::echoing();
    idle.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    idle.heard();
    idle.pass(IDLE_TIMEOUT / 2);
    assert!(!idle.closed);
    idle.pass(IDLE_TIMEOUT / 2);
    assert!(idle.closed && idle.heard().is_empty());

    let mut deaf = Talk::echoing();
    deaf.reads = false;
    deaf.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    deaf.pass(WRITE_TIMEOUT / 2);
    deaf.tell(|connection, env| connection.handle_send_progress(env));
    deaf.pass(WRITE_TIMEOUT / 2);
    assert!(!deaf.closed);
    deaf.pass(WRITE_TIMEOUT / 2);
    assert!(deaf.closed);
}

#[test]
fn a_waiting_handler_keeps_later_requests_waiting_in_order() {
    let mut talk = Talk::with(async |request: &Request| {
        let mut polls = 0;
        poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls > 1 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        request.path().to_owned()
    });
    talk.say("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((talk.heard(), talk.wakes.0.load(Ordering::Relaxed)), (String::new(), 1));
    assert_eq!(talk.connection.poll_timeout(), None, "the handler decides how long");
    talk.wake();
    assert_eq!(talk.heard(), ok("/1"));
    talk.wake();
    assert_eq!(talk.heard(), ok("/2"));
    talk.wake(); // one too many is harmless
    assert!(talk.heard().is_empty() && !talk.closed);
}

#[test]
fn a_panic_costs_its_request_alone() {
    let mut talk = Talk::with(async |request: &Request| {
        assert!(request.path() != "/panic", "as asked");
        "fine"
    });
    talk.say("GET /panic HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let heard = talk.heard();
    assert!(heard.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{heard}");
    assert!(heard.ends_with(&ok("fine")), "{heard}");
}

#[test]
fn a_handler_cannot_inject_a_header() {
    let mut talk = Talk::with(async |_: &Request| {
        Response::text("x").with_header("X-Evil", "a\r\nSet-Cookie: b")
    });
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let heard = talk.heard();
    assert!(heard.starts_with("HTTP/1.1 500 ") && !heard.contains("Set-Cookie"), "{heard}");
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let mut talk = Talk::echoing();
    talk.say("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(talk.heard(), ok("HEAD /a ").replace("\r\n\r\nHEAD /a ", "\r\n\r\n"));
}

#[test]
fn a_status_without_a_body_has_none() {
    for (status, length) in [(204, ""), (304, "Content-Length: 4\r\n")] {
        let mut talk = Talk::with(async move |_: &Request| {
            Response::new("body").with_status(Status::new(status))
        });
        talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let heard = talk.heard();
        assert!(
            heard.ends_with(&format!("\r\n{length}\r\n")) && !heard.contains("body"),
            "{heard}"
        );
    }
}

#[test]
fn a_half_closed_peer_gets_all_its_answers() {
    let mut talk = Talk::echoing();
    talk.reads = false;
    talk.say("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
    talk.end();
    assert!(!talk.closed);
    talk.read();
    assert_eq!(talk.heard(), ok("GET /1 "));
    assert!(talk.closed);
}

#[test]
fn a_draining_worker_answers_what_comes_soon_and_says_close() {
    let mut talk = Talk::echoing();
    talk.say("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
    talk.heard();
    talk.draining = Draining::Closing;
    talk.tell(|connection, env| connection.handle_drain(env.now + DRAIN_GRACE));
    talk.say("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    let heard = talk.heard();
    assert!(heard.contains("Connection: close\r\n") && heard.ends_with("GET /2 "), "{heard}");
    assert!(talk.write_ended);

    let mut idle = Talk::echoing();
    idle.draining = Draining::Closing;
    idle.tell(|connection, env| connection.handle_drain(env.now + DRAIN_GRACE));
    assert!(!idle.closed);
    idle.pass(DRAIN_GRACE);
    assert!(idle.closed && idle.heard().is_empty());
}

/// A stream of given pieces; `None` is a pause.
struct Pieces(Vec<Option<io::Result<Bytes>>>);

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        match self.0.remove(0) {
            None => Poll::Pending,
            piece => Poll::Ready(piece),
        }
    }
}

fn streaming(length: Option<u64>, pieces: fn() -> Vec<Option<io::Result<Bytes>>>) -> Talk {
    Talk::with(async move |_: &Request| {
        Response::new(match length {
            None => Body::stream(Pieces(pieces())),
            Some(length) => Body::sized_stream(length, Pieces(pieces())),
        })
    })
}

fn small_pieces() -> Vec<Option<io::Result<Bytes>>> {
    let piece = |text: &'static str| Some(Ok(Bytes::from_static(text.as_bytes())));
    vec![piece("hello "), None, piece(""), piece("world")]
}

#[test]
fn a_stream_is_chunked_and_flushed_as_it_comes() {
    let mut talk = streaming(None, small_pieces);
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(
        talk.heard(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n"
    );
    talk.wake();
    let second = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n";
    assert_eq!(talk.heard(), format!("5\r\nworld\r\n0\r\n\r\n{second}"));
}

#[test]
fn a_stream_for_an_old_client_ends_with_the_connection() {
    let mut talk = streaming(None, small_pieces);
    talk.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    talk.wake();
    assert_eq!(talk.heard(), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world");
    assert!(talk.closed);
}

#[test]
fn large_pieces_follow_their_chunk_heads_and_are_not_copied() {
    let mut talk = streaming(None, || {
        vec![Some(Ok(Bytes::from(vec![b'x'; 300_000]))), Some(Ok(Bytes::from(vec![b'y'; 10])))]
    });
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let heard = talk.heard();
    let body = heard.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body, format!("493e0\r\n{}\r\na\r\nyyyyyyyyyy\r\n0\r\n\r\n", "x".repeat(300_000)));
}

#[test]
fn a_stream_that_breaks_its_word_cuts_the_connection() {
    let failing = || vec![Some(Ok(Bytes::from_static(b"a"))), Some(Err(io::Error::other("disk")))];
    for (length, pieces) in [
        (Some(100), small_pieces as fn() -> _),
        (Some(3), small_pieces as fn() -> _),
        (None, failing as fn() -> _),
    ] {
        let mut talk = streaming(length, pieces);
        talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        talk.wake();
        assert!(talk.closed && !talk.heard().ends_with("0\r\n\r\n"), "{length:?}");
    }
    let mut right = streaming(Some(11), small_pieces);
    right.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    right.wake();
    assert_eq!(right.heard(), "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world");
    assert!(!right.closed);
}

#[test]
fn a_failed_stream_costs_no_answer_before_it_and_is_never_taken_for_whole() {
    let failing = || vec![Some(Ok(Bytes::from_static(b"a"))), Some(Err(io::Error::other("disk")))];
    let mut talk = Talk::with(async move |request: &Request| match request.path() {
        "/ok" => Response::text("fine"),
        _ => Response::new(Body::stream(Pieces(failing()))),
    });
    talk.say("GET /ok HTTP/1.1\r\nHost: x\r\n\r\nGET /fails HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(talk.heard().starts_with(&ok("fine")));
    assert!(talk.closed && !talk.aborted, "the missing last chunk tells");

    let mut old = streaming(None, failing);
    old.say("GET / HTTP/1.0\r\n\r\n");
    assert!(old.aborted, "only a reset tells");
}

/// Panics, when it is polled or when it is dropped.
struct Bomb {
    in_poll: bool,
}

impl Stream for Bomb {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        assert!(!self.in_poll, "in poll");
        Poll::Ready(None)
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(self.in_poll, "in drop");
    }
}

#[test]
fn a_panic_anywhere_in_a_handler_s_code_ends_no_worker() {
    for (method, in_poll) in [("GET", true), ("GET", false), ("HEAD", false)] {
        let mut talk =
            Talk::with(async move |_: &Request| Response::new(Body::stream(Bomb { in_poll })));
        talk.say(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(talk.closed, in_poll, "{method}");
    }
    let mut waiting = Talk::with(async |_: &Request| {
        let _bomb = Bomb { in_poll: false };
        std::future::pending::<&str>().await
    });
    waiting.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    waiting.tell(|connection, env| connection.handle_failure(env));
    assert!(waiting.closed);
}

#[test]
fn a_peer_that_has_closed_its_side_is_not_waited_for_for_ever() {
    let mut talk = Talk::with(async |_: &Request| std::future::pending::<&str>().await);
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    talk.end();
    assert!(!talk.closed, "it may still read");
    talk.pass(WRITE_TIMEOUT);
    assert!(talk.closed);
}

#[test]
fn a_line_end_too_many_leaves_the_connection_idle() {
    let mut talk = Talk::echoing();
    talk.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi\r\n");
    talk.heard();
    talk.pass(HEAD_TIMEOUT);
    assert!(!talk.closed && talk.heard().is_empty());
    talk.say("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(talk.heard(), ok("GET /a "));
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let mut talk = Talk::echoing();
    talk.say("HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    assert!(talk.heard().ends_with("Connection: close\r\n\r\n"));
}

#[test]
fn an_idle_connection_holds_no_memory_but_itself() {
    let mut talk = Talk::echoing();
    talk.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Le");
    talk.say("ngth: 3\r\n\r\nabc");
    assert_eq!(talk.connection.input.capacity(), 0);
    assert!(!talk.connection.output.is_busy());
}

impl Talk {
    /// Faults that were counted, each once.
    fn faults(&self) -> Vec<Fault> {
        let count = |fault: &Fault| self.figures.faults(*fault);
        assert!(Fault::ALL.iter().all(|fault| count(fault) <= 1));
        Fault::ALL.into_iter().filter(|fault| count(fault) > 0).collect()
    }

    fn durations(&self) -> Durations {
        let mut durations = Durations::new();
        durations.add(&self.figures.durations);
        durations
    }

    /// Request lines in the black box.
    fn in_flight(&self) -> Vec<(String, bool)> {
        let unfinished = self.figures.black_box.read(0);
        assert_eq!(unfinished.more, 0);
        let requests = unfinished.requests.into_iter();
        requests.map(|it| (it.method_and_target, it.is_running)).collect()
    }
}

#[test]
fn refusals_count_by_class_and_kind() {
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    let connect = "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n";
    let large = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n";
    let no_chunk = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n";
    for (said, fault, responses) in [
        ("GET / HTTP/1.1\r\n\r\n", Fault::Malformed, [0, 0, 0, 1, 0]),
        ("GET / HTTP/9.9\r\n\r\n", Fault::Malformed, [0, 0, 0, 0, 1]),
        (connect, Fault::Malformed, [0, 0, 0, 0, 1]),
        (no_chunk, Fault::Malformed, [0, 0, 0, 1, 0]),
        (&long, Fault::TooLarge, [0, 0, 0, 1, 0]),
        (large, Fault::TooLarge, [0, 0, 0, 1, 0]),
    ] {
        let mut talk = Talk::echoing();
        talk.say(said);
        assert_eq!((talk.faults(), talk.figures.responses()), (vec![fault], responses), "{said}");
        assert_eq!(talk.durations().count, 1);
        talk.end();
        assert_eq!(talk.faults(), [fault], "counted once");
    }
}

#[test]
fn timeouts_count_by_what_took_too_long() {
    let body = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nh";
    for (said, wait, fault) in [
        ("", HEAD_TIMEOUT, Fault::IdleTimeout),
        ("GET / HT", HEAD_TIMEOUT, Fault::HeadTimeout),
        (body, BODY_TIMEOUT, Fault::BodyTimeout),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", IDLE_TIMEOUT, Fault::IdleTimeout),
    ] {
        let mut talk = Talk::echoing();
        talk.say(said);
        assert_eq!(talk.faults(), []);
        talk.pass(wait);
        assert_eq!(talk.faults(), [fault], "{said}");
    }
    let mut talk = Talk::echoing();
    talk.reads = false;
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    talk.pass(WRITE_TIMEOUT);
    assert_eq!((talk.faults(), talk.durations().count), (vec![Fault::WriteTimeout], 0));

    let mut gone = Talk::with(async |_: &Request| std::future::pending::<&str>().await);
    gone.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    gone.end();
    gone.pass(WRITE_TIMEOUT);
    assert_eq!((gone.faults(), gone.in_flight()), (vec![Fault::WriteTimeout], vec![]));

    let mut drained = Talk::echoing();
    drained.draining = Draining::Closing;
    drained.tell(|connection, env| connection.handle_drain(env.now + DRAIN_GRACE));
    drained.pass(DRAIN_GRACE);
    assert!(drained.closed && drained.faults().is_empty(), "it was us who wanted to go");
}

#[test]
fn panics_broken_sockets_and_cut_off_responses_are_counted() {
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut panics = Talk::with(async |_: &Request| -> &str { panic!("on purpose") });
    panics.say(get);
    assert_eq!((panics.faults(), panics.figures.responses()[4]), (vec![Fault::Panicked], 1));

    let mut broken = Talk::echoing();
    broken.tell(|connection, env| connection.handle_failure(env));
    assert_eq!(broken.faults(), [Fault::Broken]);

    let mut cut_off = streaming(Some(100), small_pieces);
    cut_off.say(get);
    (0..9).for_each(|_| cut_off.wake());
    assert_eq!((cut_off.faults(), cut_off.in_flight()), (vec![Fault::CutOff], vec![]));
    assert_eq!(cut_off.durations().count, 0, "it never ended");
}

#[test]
fn a_duration_goes_from_the_head_s_last_byte_to_the_end_of_the_send() {
    let step = Duration::from_millis(1);
    let mut talk = Talk::echoing();
    talk.reads = false;
    talk.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Le");
    talk.pass(step * 100);
    talk.say("ngth: 2\r\n\r\nh");
    talk.pass(step * 3);
    talk.say("i");
    talk.pass(step * 4);
    let Outgoing { head, .. } = talk.in_flight.take().unwrap();
    talk.tell(|connection, env| connection.handle_send_progress(env)); // moves its deadline
    talk.pass(step * 5);
    talk.tell(|connection, env| connection.handle_sent(head, env));
    let durations = talk.durations();
    assert_eq!((durations.count, durations.nanos.div_ceil(1_000_000)), (1, 12));
}

#[test]
fn responses_that_leave_together_count_once_each() {
    let get = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut talk = Talk::echoing();
    talk.reads = false;
    talk.say(get.repeat(3));
    talk.pass(Duration::from_millis(1));
    talk.say(get.repeat(2));
    talk.pass(Duration::from_millis(1));
    talk.say(get);
    talk.pass(Duration::from_millis(1));
    talk.read();
    // Three after 3 ms; three behind them, counted from when the first of these came.
    let durations = talk.durations();
    assert_eq!((durations.count, durations.nanos.div_ceil(1_000_000)), (6, 3 * 3 + 3 * 2));
    assert_eq!(talk.figures.responses(), [0, 6, 0, 0, 0]);
}

#[test]
fn a_waiting_handler_s_time_counts_and_its_line_is_in_the_black_box() {
    let mut talk = Talk::with(async |request: &Request| {
        let mut pending = request.path() != "/ready";
        poll_fn(|_| if std::mem::take(&mut pending) { Poll::Pending } else { Poll::Ready(()) })
            .await;
        "done"
    });
    talk.say("GET /slow?a=b HTTP/1.1\r\nHost: x\r\n\r\nGET /slower HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(talk.in_flight(), [("GET /slow?a=b".to_owned(), false)]);
    talk.pass(Duration::from_millis(7));
    talk.wake();
    assert_eq!(talk.in_flight(), [("GET /slower".to_owned(), false)], "it came next");
    assert_eq!(talk.durations().nanos.div_ceil(1_000_000), 7);
    talk.wake();
    assert_eq!(talk.in_flight(), []);
    talk.say("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((talk.in_flight(), talk.durations().count), (vec![], 3));
    talk.say("GET /gone HTTP/1.1\r\nHost: x\r\n\r\n");
    talk.tell(|connection, env| connection.handle_failure(env));
    assert_eq!(talk.in_flight(), [], "who is gone isn't served");
}

#[test]
fn a_stream_stays_in_the_black_box_until_it_ends() {
    let mut talk = streaming(None, small_pieces);
    talk.say("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(talk.in_flight(), [("GET /stream".to_owned(), false)]);
    assert_eq!(talk.durations().count, 0);
    (0..9).for_each(|_| talk.wake());
    assert_eq!((talk.in_flight(), talk.durations().count), (vec![], 1));
}

/// A handler that takes its body piece by piece, each when `next` is woken.
fn sipping() -> Talk {
    let mut talk = Talk::with(async |request: &Request| -> Result<String, BodyError> {
        let mut sizes = Vec::new();
        while let Some(chunk) = request.chunk().await? {
            sizes.push(chunk.len().to_string());
        }
        Ok(sizes.join(" "))
    });
    talk.follows_wakes = true;
    talk
}

const POST_5: &str = "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";

#[test]
fn a_body_comes_as_far_as_it_is_asked_for() {
    let mut talk = Talk::with(async |request: &Request| {
        let mut pending = true; // busy with something else
        poll_fn(|_| if std::mem::take(&mut pending) { Poll::Pending } else { Poll::Ready(()) })
            .await;
        request.text().await
    });
    talk.say(POST_5);
    assert!(!talk.connection.wants_input(), "nobody has asked for the body");
    assert_eq!(talk.connection.poll_timeout(), None, "the peer is not waited for");
    talk.wake();
    assert!(talk.connection.wants_input(), "now somebody has");
    talk.pass(BODY_TIMEOUT / 2);
    talk.say("hel");
    talk.say("lo");
    assert!(talk.connection.wants_input(), "the next request may come");
    talk.wake();
    assert_eq!(talk.heard(), ok("hello"));
}

#[test]
fn a_body_in_pieces_is_taken_in_pieces() {
    let mut talk = sipping();
    talk.say(POST_5);
    talk.say("he");
    talk.say("l");
    talk.say("loGET");
    assert_eq!(talk.heard(), ok("2 1 2"));
    talk.say(" / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(talk.heard(), ok(""));
}

#[test]
fn what_came_with_the_head_is_there_at_once() {
    let mut talk = Talk::with(async |request: &Request| request.text().await);
    talk.say(format!("{POST_5}hello"));
    assert_eq!(talk.heard(), ok("hello"));
    assert_eq!(talk.wakes.0.load(Ordering::Relaxed), 0);
    assert!(talk.connection.upload.is_none());
}

#[test]
fn a_continue_is_sent_when_the_body_is_asked_for() {
    let asking = "POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut refusing = Talk::with(async |_: &Request| (Status::FORBIDDEN, "no"));
    refusing.say(asking);
    let heard = refusing.heard();
    assert!(
        heard.starts_with("HTTP/1.1 403 ") && heard.contains("Connection: close\r\n"),
        "{heard}"
    );
    assert!(refusing.write_ended, "the client may send the body, or not: nobody can tell");

    let mut hasty = Talk::echoing();
    hasty.say(format!("{asking}hello"));
    assert_eq!(hasty.heard(), ok("POST /p hello"), "there is nothing to invite");

    let mut streaming =
        Talk::with(async |request: &Request| Response::new(Body::stream(request.body_stream())));
    streaming.follows_wakes = true;
    streaming.say(asking);
    let begin =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(streaming.heard(), begin);
    streaming.say("hello");
    assert_eq!(streaming.heard(), "5\r\nhello\r\n0\r\n\r\n");
    streaming.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(streaming.heard().ends_with("\r\n\r\n0\r\n\r\n"), "it goes on");
}

#[test]
fn what_a_handler_leaves_is_thrown_away_when_it_is_short() {
    let handler = async |_: &Request| "fine";
    let next = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let longest = 64 * 1024 + 1; // one byte has come
    for (length, stays) in [(5, true), (longest, true), (longest + 1, false)] {
        let mut talk = Talk::with(handler);
        talk.settings.body.bytes_max = 1 << 20;
        talk.say(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nx"));
        let heard = talk.heard();
        assert_eq!(!heard.contains("Connection: close\r\n"), stays, "{length}: {heard}");
        assert_eq!(talk.write_ended, !stays, "{length}");
        if stays {
            talk.say(format!("{}{next}", "x".repeat(length - 1)));
            assert_eq!(talk.heard(), ok("fine"), "{length}");
            assert!(talk.connection.upload.is_none());
        }
    }

    // In chunks, the length is known when it is over.
    let mut talk = Talk::with(handler);
    talk.settings.body.bytes_max = 1 << 20;
    talk.say("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(talk.heard(), ok("fine"));
    for _ in 0..8 {
        talk.say(format!("2000\r\n{}\r\n", "x".repeat(0x2000)));
        assert!(!talk.write_ended && talk.connection.wants_input());
    }
    talk.say("1\r\nx\r\n");
    assert!(talk.write_ended, "too much of what nobody wants");
}

#[test]
fn a_body_over_the_limit_of_what_is_collected_is_a_413_and_streams_all_the_same() {
    for (path, status) in [("/collect", "413 Content Too Large"), ("/stream", "200 OK")] {
        let mut talk = Talk::with(async |request: &Request| -> Result<String, BodyError> {
            if request.path() == "/collect" {
                return Ok(request.bytes().await?.len().to_string());
            }
            let mut size = 0;
            while let Some(chunk) = request.chunk().await? {
                size += chunk.len();
            }
            Ok(size.to_string())
        });
        talk.follows_wakes = true;
        talk.settings.body.collected_bytes_max = 9;
        talk.say(format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
        talk.say("5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n");
        let heard = talk.heard();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {heard}");
    }
}

#[test]
fn a_body_that_breaks_tells_its_handler_why_and_closes() {
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (head, rest, line, fault) in [
        (chunked, "x\r\n", "400 Bad Request", Fault::Malformed),
        (chunked, "10001\r\n", "413 Content Too Large", Fault::TooLarge),
        (chunked, "ffffffffffffffff\r\n", "413 Content Too Large", Fault::TooLarge),
    ] {
        for mut talk in [Talk::echoing(), sipping()] {
            talk.say(head);
            talk.say(rest);
            assert_eq!(talk.heard(), refused(line));
            assert!(talk.write_ended && !talk.closed);
            assert_eq!(talk.faults(), [fault]);
            talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(talk.heard(), "", "what follows has no begin");
        }
    }
    let mut cut_off = Talk::echoing();
    cut_off.say(format!("{POST_5}hel"));
    cut_off.end();
    assert_eq!(cut_off.heard(), refused("400 Bad Request"));
    assert!(cut_off.closed);
}

#[test]
fn whoever_holds_a_body_beyond_its_response_hears_of_its_end() {
    use std::cell::RefCell;
    use std::rc::Rc;
    let kept = Rc::new(RefCell::new(None));
    let keeper = Rc::clone(&kept);
    let mut talk = Talk::with(async move |request: &Request| {
        keeper.replace(Some(request.body_stream()));
        "answered"
    });
    talk.say(POST_5);
    assert_eq!(talk.heard(), ok("answered"));
    let stream = kept.borrow_mut().take().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let next = stream.poll_chunk(&mut context);
    assert_eq!(next, Poll::Ready(Some(Err(BodyError::CutOff))));
    talk.say("hello");
    assert_eq!(stream.poll_chunk(&mut context), Poll::Ready(Some(Err(BodyError::CutOff))));
}

#[test]
fn a_task_beside_the_handler_may_ask_for_the_body() {
    use std::cell::RefCell;
    use std::rc::Rc;
    let kept = Rc::new(RefCell::new(None));
    let keeper = Rc::clone(&kept);
    let mut talk = Talk::with(async move |request: &Request| {
        keeper.replace(Some(request.body_stream()));
        std::future::pending::<&str>().await
    });
    talk.say("POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let stream = kept.borrow_mut().take().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert!(stream.poll_chunk(&mut context).is_pending());
    assert_eq!(talk.wakes.0.swap(0, Ordering::Relaxed), 1, "the connection has to know");
    talk.wake();
    assert_eq!(talk.heard(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(talk.connection.wants_input());
    talk.say("hello");
    assert_eq!(stream.poll_chunk(&mut context), Poll::Ready(Some(Ok("hello".into()))));
    assert_eq!(stream.poll_chunk(&mut context), Poll::Ready(None));
}

#[test]
fn a_request_knows_its_types_its_cookies_and_its_trailers() {
    #[derive(serde::Deserialize)]
    struct Order {
        count: u8,
    }
    let mut talk = Talk::with(async |request: &Request| -> Result<String, BodyError> {
        Ok(match request.path() {
            "/json" => request.json::<Order>().await?.count.to_string(),
            "/form" => request.form::<Order>().await?.count.to_string(),
            "/twice" => request.text().await? + &request.text().await?,
            "/trailers" => format!("{:?}", request.trailers().await?),
            "/query" => format!("{:?}", request.query_pairs().collect::<Vec<_>>()),
            _ => format!("{:?} {:?}", request.cookie("b"), request.cookies().collect::<Vec<_>>()),
        })
    });
    let mut ask = |line: &str, fields: &str, body: &str| {
        let length = body.len();
        talk.say(format!(
            "{line} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        ));
        let heard = talk.heard();
        let (begin, rest) = heard.split_once("\r\n\r\n").unwrap();
        (begin[9..12].to_owned(), rest.to_owned())
    };
    let mut expect = |line, fields, body, status: &str, words: &str| {
        let (code, text) = ask(line, fields, body);
        assert!(code == status && text.contains(words), "{line} {body}: {code} {text}");
    };
    let json = "Content-Type: application/json; charset=utf-8\r\n";
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    expect("POST /json", json, r#"{"count":7}"#, "200", "7");
    expect("POST /json", "Content-Type: application/a+json\r\n", r#"{"count":7}"#, "200", "7");
    expect("POST /json", json, r#"{"count":"7"}"#, "400", "invalid type: string");
    expect("POST /json", json, "{", "400", "EOF while parsing");
    expect("POST /json", form, r#"{"count":7}"#, "415", "not application/json");
    expect("POST /form", form, "count=7&more=x", "200", "7");
    expect("POST /form", form, "count=300", "400", "number too large");
    expect("POST /form", json, "count=7", "415", "x-www-form-urlencoded");
    expect("POST /twice", "", "x", "500", "Internal Server Error");
    expect("GET /query?a=b%20c&d", "", "", "200", r#"[("a", "b c"), ("d", "")]"#);
    let cookies = "Cookie: a=1; b=2=3;c ; =4\r\nCookie: b=5\r\n";
    let pairs = r#"Some("2=3") [("a", "1"), ("b", "2=3"), ("", "4"), ("b", "5")]"#;
    expect("GET /cookies", cookies, "", "200", pairs);
    talk.say("POST /trailers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA:  b \r\n\r\n");
    assert!(talk.heard().ends_with(r#"[("A", [98])]"#));
}

#[test]
fn a_205_says_that_it_has_no_body_whatever_its_handler_gave_it() {
    for number in 0..3 {
        let mut talk = Talk::with(async move |_: &Request| {
            let reset = Status::RESET_CONTENT;
            match number {
                0 => Response::empty(reset),
                1 => Response::text("reset, please").with_status(reset),
                _ => Response::new(Body::chunks(["reset", "please"])).with_status(reset),
            }
        });
        talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let heard = talk.heard();
        assert!(heard.starts_with("HTTP/1.1 205 Reset Content\r\n"), "{heard}");
        assert!(heard.contains("\r\nContent-Length: 0\r\n") && heard.ends_with("\r\n\r\n"));
        assert!(!heard.contains("Transfer-Encoding") && !talk.closed);
    }
}

#[test]
fn a_head_request_that_comes_too_slowly_gets_no_body() {
    let mut talk = Talk::echoing();
    talk.say("HEAD / HTTP/1.1\r\nHost:");
    talk.pass(HEAD_TIMEOUT);
    let heard = talk.heard();
    assert!(heard.starts_with("HTTP/1.1 408 ") && heard.ends_with("\r\n\r\n"), "{heard}");
}

#[test]
fn whoever_sends_more_than_it_said_is_read_from_before_the_close() {
    let last = "GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut talk = Talk::echoing();
    talk.say(format!("{last}and more"));
    assert!(talk.write_ended && !talk.closed && talk.connection.wants_input());
    talk.say("and more");
    talk.end();
    assert!(talk.closed);
    let mut talk = Talk::echoing();
    talk.say(last);
    assert!(talk.closed && !talk.write_ended, "who keeps its word costs nothing");

    // Who is told to go may have sent more.
    let mut talk = Talk::echoing();
    talk.settings.requests_per_connection = 1;
    talk.say("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(talk.heard().contains("Connection: close") && talk.write_ended && !talk.closed);
}

#[test]
fn a_chunk_beyond_the_limit_is_refused_by_its_size_alone() {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in ["10001\r\n", "8000\r\n", "fffffffffffffff\r\n"] {
        let mut talk = Talk::echoing();
        talk.say(format!("{head}8001\r\n"));
        talk.say("x".repeat(0x8001));
        talk.say("\r\n");
        assert_eq!(talk.heard(), "");
        talk.say(chunks);
        assert!(talk.heard().starts_with("HTTP/1.1 413 "), "{chunks}");
    }
}
