//! Bodies that come later: from files, from streams that fall silent, with trailers.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::*;
use crate::http::Frame;
use crate::http::body::{Piece, Pieces};

/// A file that nobody else knows, of bytes that tell their place.
fn file(length: usize) -> (Rc<OwnedFd>, Vec<u8>) {
    let bytes: Vec<u8> = (0..length).map(|at| b'a' + (at % 26) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    (Rc::new(file.into()), bytes)
}

/// The body of the only response, which says that it is so long.
fn body_of(heard: &str) -> &str {
    let (fields, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(fields.contains(&format!("\r\nContent-Length: {}", body.len())), "{fields}");
    body
}

#[test]
fn a_part_of_a_file_follows_its_head_whatever_its_size() {
    let (shared, bytes) = file(500_000);
    for range in [0..1, 0..10, 7..5_000, 0..131_072, 1..131_074, 0..500_000, 499_999..500_000] {
        for sends_files in [true, false] {
            let (shared, part) = (Rc::clone(&shared), range.clone());
            let mut talk = Talk::with(async move |_: &Request| {
                let range = part.start as u64..part.end as u64;
                Response::new(Body::part_of(Rc::clone(&shared), range))
            });
            talk.sends_files = sends_files;
            talk.say("GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
            let heard = talk.heard();
            let (first, second) = heard.split_at(heard.len() / 2);
            assert_eq!(first, second, "two requests are two answers");
            assert!(body_of(first).as_bytes() == &bytes[range.clone()], "{range:?}");
            assert!(!talk.closed);
            let durations = &mut Durations::new();
            durations.add(&talk.figures.durations);
            assert_eq!(durations.count, 2, "{range:?}");
            assert_eq!(talk.reads_done == 0, sends_files && range.len() >= 16 * 1024);
        }
    }
}

#[test]
fn the_first_bytes_of_a_file_leave_with_the_head_and_one_window_is_held() {
    let (shared, _) = file(400_000);
    let mut talk = Talk::with(async move |_: &Request| {
        Response::new(Body::part_of(Rc::clone(&shared), 0..400_000))
    });
    talk.reads = false;
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut sizes = Vec::new();
    while let Some(Outgoing { head, body }) = talk.in_flight.take() {
        assert!(body.is_none(), "it is all in one buffer");
        sizes.push(head.len());
        talk.tell(|connection, env| connection.handle_sent(head, env));
    }
    assert_eq!(sizes.len(), 4, "{sizes:?}");
    assert!(sizes[0] > 131_072 && sizes[1..3] == [131_072; 2], "{sizes:?}");
}

#[test]
fn pieces_of_memory_and_of_files_come_in_their_order() {
    let (shared, bytes) = file(200_000);
    let mut talk = Talk::with(async move |_: &Request| {
        let mut pieces = Pieces::default();
        pieces.push(Piece::Bytes("begin ".into()));
        for offset in [150_000, 0] {
            pieces.push(Piece::of(Rc::clone(&shared), &(offset..offset + 50_000)));
            pieces.push(Piece::Bytes(Bytes::new()));
        }
        pieces.push(Piece::Bytes(vec![b'.'; 10_000].into()));
        pieces.push(Piece::Bytes(" end".into()));
        Response::new(Body::from(pieces))
    });
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let expected =
        [b"begin ", &bytes[150_000..], &bytes[..50_000], &[b'.'; 10_000], b" end"].concat();
    assert!(body_of(&talk.heard()).as_bytes() == expected);
}

#[test]
fn a_file_that_became_shorter_ends_its_connection() {
    let (shared, bytes) = file(1000);
    let mut talk = Talk::with(async move |_: &Request| {
        Response::new(Body::part_of(Rc::clone(&shared), 0..2000))
    });
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /never HTTP/1.1\r\nHost: x\r\n\r\n");
    let heard = talk.heard();
    assert!(heard.ends_with(std::str::from_utf8(&bytes).unwrap()) && talk.write_ended);
    assert!(heard.contains("Content-Length: 2000\r\n"));
    assert_eq!(talk.figures.faults(Fault::CutOff), 1);
}

#[test]
fn a_read_that_fails_ends_its_connection() {
    let file = Rc::new(OwnedFd::from(File::open("/").unwrap())); // which nobody can read
    let mut talk = Talk::with(async move |_: &Request| {
        Response::new(Body::part_of(Rc::clone(&file), 0..2000))
    });
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(talk.closed && talk.figures.faults(Fault::CutOff) == 1);
}

#[test]
fn a_head_request_reads_no_file() {
    let (shared, _) = file(1000);
    let mut talk = Talk::with(async move |_: &Request| {
        Response::new(Body::part_of(Rc::clone(&shared), 0..1000))
    });
    talk.say("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(talk.heard(), "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    assert_eq!(talk.reads_done, 0);
}

#[test]
fn a_peer_that_has_closed_its_side_gets_the_whole_file_if_it_reads() {
    let (shared, bytes) = file(400_000);
    let mut talk = Talk::with(async move |_: &Request| {
        Response::new(Body::part_of(Rc::clone(&shared), 0..400_000))
    });
    talk.reads = false;
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    talk.end();
    while let Some(Outgoing { head, .. }) = talk.in_flight.take() {
        talk.pass(WRITE_TIMEOUT / 2);
        talk.tell(|connection, env| connection.handle_sent(head, env));
    }
    assert!(body_of(&talk.heard()).as_bytes() == bytes && talk.closed);
}

#[test]
fn many_windows_are_small_ones() {
    let mut pools = Pools::default();
    let windows: Vec<_> = (0..400).map(|_| pools.open_window()).collect();
    assert_eq!(windows[0].size(), 128 * 1024);
    assert_eq!(windows[399].size(), 16 * 1024);
    let taken: usize = windows.iter().map(env::Window::size).sum();
    assert!(taken <= (32 << 20) + 400 * 16 * 1024);
    drop(windows);
    assert_eq!(pools.open_window().size(), 128 * 1024, "they are given back");
}

/// Gives these frames, then waits for ever.
struct Given(Vec<Frame>, bool);

impl Stream for Given {
    type Item = io::Result<Frame>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame>>> {
        if self.0.is_empty() {
            return if self.1 { Poll::Ready(None) } else { Poll::Pending };
        }
        Poll::Ready(Some(Ok(self.0.remove(0))))
    }
}

fn with_trailers(trailers: Vec<(&'static str, &'static str)>) -> Talk {
    Talk::with(async move |_: &Request| {
        let fields = trailers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let frames = vec![Frame::Data("data".into()), Frame::Trailers(fields.collect())];
        Response::new(Body::frames(Given(frames, true)))
    })
}

#[test]
fn trailers_follow_the_last_chunk_where_there_are_chunks() {
    let mut talk = with_trailers(vec![("Server-Timing", "db;dur=1"), ("X-Sum", "1")]);
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let (_, body) =
        talk.heard().split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(body, "4\r\ndata\r\n0\r\nServer-Timing: db;dur=1\r\nX-Sum: 1\r\n\r\n");
    assert!(!talk.closed);
    talk.say("GET / HTTP/1.0\r\n\r\n");
    assert!(talk.heard().ends_with("\r\n\r\ndata") && talk.closed);
}

#[test]
fn a_trailer_that_would_be_more_than_that_ends_the_connection() {
    for trailer in
        [("Content-Length", "1"), ("transfer-encoding", "x"), ("a", "b\r\nc: d"), ("a b", "")]
    {
        let mut talk = with_trailers(vec![("X-Fine", "1"), trailer]);
        talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let heard = talk.heard();
        assert!(heard.ends_with("4\r\ndata\r\n") && talk.closed, "{heard}");
    }
}

#[test]
fn a_stream_that_falls_silent_shows_that_it_lives() {
    let mut talk = Talk::with(async |_: &Request| {
        let mut response = Response::new(Body::frames(Given(vec![Frame::Data("a".into())], false)));
        if let crate::http::body::Kind::Stream(stream) = &mut response.body.0 {
            stream.idle = Some((Duration::from_secs(15), b":\n\n"));
        }
        response
    });
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(talk.heard().ends_with("1\r\na\r\n"));
    talk.pass(Duration::from_secs(14));
    assert_eq!(talk.heard(), "");
    for _ in 0..3 {
        talk.pass(Duration::from_secs(15));
        assert_eq!(talk.heard(), "3\r\n:\n\n\r\n");
    }
    talk.end(); // it has gone, or won't say so
    talk.pass(WRITE_TIMEOUT);
    assert!(talk.closed);
}

#[test]
fn an_iterator_gives_its_chunks_and_an_empty_one_ends_nothing() {
    let mut talk = Talk::with(async |_: &Request| {
        Response::new(Body::chunks(["one", "", "two"].map(Bytes::from)))
    });
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(talk.heard().ends_with("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"));
}

#[test]
fn early_hints_come_before_the_answer_and_never_to_an_old_client() {
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let mut talk = Talk::with(async |request: &Request| {
        request.early_hints([("Link", "</a.css>; rel=preload"), ("X", "a\r\nb: c")]);
        request.early_hints([("Link", "</a.css>; rel=preload")]);
        if request.path() == "/slow" {
            let mut is_first = true;
            poll_fn(
                |_| if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) },
            )
            .await;
        }
        "done"
    });
    talk.say("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(talk.heard(), HINTS);
    talk.wake();
    assert_eq!(talk.heard(), ok("done"));
    talk.say("GET /fast HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(talk.heard(), [HINTS, &ok("done")].concat());
    talk.say("GET /slow HTTP/1.0\r\n\r\n");
    assert_eq!(talk.heard(), "");
    talk.wake();
    assert!(talk.heard().starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn events_are_sent_as_they_come() {
    struct Two(u8);
    impl Stream for Two {
        type Item = String;
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<String>> {
            self.0 += 1;
            if self.0 > 2 { Poll::Pending } else { Poll::Ready(Some(format!("event {}", self.0))) }
        }
    }
    let mut talk = Talk::with(async |_: &Request| Response::events(Two(0)));
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let heard = talk.heard();
    assert!(heard.contains("Content-Type: text/event-stream\r\nCache-Control: no-store\r\n"));
    assert!(heard.ends_with("f\r\ndata: event 1\n\n\r\nf\r\ndata: event 2\n\n\r\n"), "{heard}");
    talk.pass(Duration::from_secs(15));
    assert_eq!(talk.heard(), "3\r\n:\n\n\r\n");
}
