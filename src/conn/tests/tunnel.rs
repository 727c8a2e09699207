//! Connections that change to another protocol.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::http::{Status, Upgraded};

const OFFER: &str =
    "GET /x HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n";

/// A server that accepts what it is offered, and serves it with this.
fn serving<F>(serve: F) -> Talk
where
    F: AsyncFn(Upgraded) + 'static,
{
    let serve = Rc::new(serve);
    let mut talk = Talk::with(async move |request: &Request| {
        let Some(upgrade) = request.upgrade("ECHO") else { return Response::text("plain") };
        let serve = Rc::clone(&serve);
        upgrade.accept(async move |stream| serve(stream).await)
    });
    talk.follows_wakes = true;
    talk
}

async fn echo(stream: Upgraded) {
    while let Ok(Some(piece)) = stream.chunk().await {
        if stream.write_all(&piece).await.is_err() {
            return;
        }
    }
}

#[test]
fn bytes_go_both_ways_also_those_right_behind_the_head() {
    let conversation = format!("{OFFER}GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    for cut in 0..=conversation.len() {
        let (begin, end) = conversation.split_at(cut);
        let mut talk = serving(echo);
        talk.say(begin);
        talk.say(end);
        assert_eq!(talk.heard(), format!("{SWITCHED}GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "{cut}");
        talk.say("and more");
        assert_eq!(talk.heard(), "and more");
        assert!(!talk.closed && talk.connection.wants_input() && !talk.connection.may_move());
        talk.end();
        assert!(talk.closed, "the echo is over with what it repeats");
    }
}

#[test]
fn who_is_offered_nothing_or_wants_nothing_answers_as_ever() {
    for head in [
        "GET /x HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\r\n",
        "GET /x HTTP/1.0\r\nHost: x\r\nConnection: keep-alive, upgrade\r\nUpgrade: echo\r\n\r\n",
    ] {
        let mut talk = serving(echo);
        talk.say(head.repeat(2));
        assert_eq!(talk.heard().matches("200 OK").count(), 2, "{head}");
        assert!(!talk.closed);
    }
}

#[test]
fn what_cannot_be_a_change_is_an_error() {
    let body = "POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\
                Content-Length: 5\r\n\r\n";
    let mut talk = serving(echo);
    talk.say(body);
    assert!(talk.heard().starts_with("HTTP/1.1 500 "), "its body isn't read");
    // With the whole body there, nothing is in the way.
    let mut talk = serving(echo);
    talk.say(format!("{body}helloworld"));
    assert_eq!(talk.heard(), format!("{SWITCHED}world"));
    for spoil in [
        (|response: Response| response.with_status(Status::OK)) as fn(Response) -> Response,
        |response| response.with_header("X-A", "1\r\nX-B: 2"),
    ] {
        let mut talk = Talk::with(async move |request: &Request| {
            spoil(request.upgrade("echo").expect("it is offered").accept(echo))
        });
        talk.say(OFFER);
        assert!(talk.heard().starts_with("HTTP/1.1 500 "));
        talk.say(OFFER);
        assert!(talk.heard().starts_with("HTTP/1.1 500 "), "it is still HTTP");
    }
}

#[test]
fn an_offer_accepted_for_another_request_is_an_error() {
    let kept = RefCell::new(None);
    let mut talk = Talk::with(async move |request: &Request| {
        if let Some(upgrade) = request.upgrade("echo") {
            *kept.borrow_mut() = Some(upgrade);
            return Response::text("later");
        }
        kept.take().expect("it was offered before").accept(echo)
    });
    talk.say(OFFER);
    talk.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(talk.heard().contains("HTTP/1.1 500 "));
}

#[test]
fn whoever_does_not_read_makes_the_other_side_wait() {
    let written = Rc::new(Cell::new(0));
    let count = Rc::clone(&written);
    let mut talk = serving(async move |stream: Upgraded| {
        while stream.write_all(&[b'x'; 1000]).await.is_ok() {
            count.set(count.get() + 1000);
        }
    });
    talk.reads = false;
    talk.say(OFFER);
    for _ in 0..10 {
        talk.say("");
    }
    assert!((60_000..300_000).contains(&written.get()), "{} bytes", written.get());
    let before = written.get();
    talk.read();
    assert!(written.get() > before);
    talk.pass(WRITE_TIMEOUT);
    assert!(talk.closed, "and not for ever");
    assert_eq!(talk.connection.held_bytes(), 0);

    // And the other way round.
    let mut talk = serving(async |stream: Upgraded| {
        stream.stopping().await;
        echo(stream).await;
    });
    talk.say(OFFER);
    let mut said = 0;
    while talk.connection.wants_input() {
        talk.say([b'y'; 1000]);
        said += 1000;
        assert!(said < 100_000, "it never stops reading");
    }
    talk.heard();
    talk.tell(Connection::handle_leaving);
    talk.say("");
    assert_eq!(talk.heard().len(), said);
    assert!(talk.connection.wants_input());
}

#[test]
fn one_side_may_end_before_the_other() {
    let mut talk = serving(async |stream: Upgraded| {
        let mut buffer = [0; 3];
        stream.read_exact(&mut buffer).await.unwrap();
        stream.write_all(&buffer).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(stream.write_all(b"more").await.is_err());
        while stream.read(&mut buffer).await.unwrap() > 0 {}
    });
    talk.say(OFFER);
    talk.say("abcdef");
    assert_eq!(talk.heard(), format!("{SWITCHED}abc"));
    assert!(talk.write_ended && !talk.closed && talk.connection.wants_input());
    talk.say("ghi");
    talk.end();
    assert!(talk.closed && !talk.aborted);
}

#[test]
fn it_may_idle_as_long_as_a_connection_or_as_it_says() {
    let mut talk = serving(echo);
    talk.say(OFFER);
    talk.pass(IDLE_TIMEOUT / 2);
    talk.say("x");
    talk.pass(IDLE_TIMEOUT / 2);
    assert!(!talk.closed);
    talk.pass(IDLE_TIMEOUT / 2);
    assert!(talk.closed);
    let mut talk = serving(async |stream: Upgraded| {
        stream.set_idle_timeout(None);
        echo(stream).await;
    });
    talk.say(OFFER);
    talk.pass(IDLE_TIMEOUT * 100);
    assert!(!talk.closed && talk.connection.poll_timeout().is_none());
}

#[test]
fn a_worker_that_leaves_says_so_and_a_panic_is_a_reset() {
    let mut talk = serving(async |stream: Upgraded| {
        stream.stopping().await;
        let _ = stream.write_all(b"goodbye").await;
    });
    talk.say(OFFER);
    assert_eq!(talk.heard(), SWITCHED);
    talk.tell(Connection::handle_leaving);
    assert_eq!(talk.heard(), "goodbye");
    assert!(talk.write_ended);
    talk.end();
    assert!(talk.closed && !talk.aborted);

    let mut talk = serving(async |stream: Upgraded| {
        let _ = stream.chunk().await;
        panic!("it has to be this way");
    });
    talk.say(OFFER);
    talk.say("x");
    assert!(talk.aborted);
}

#[test]
fn a_broken_connection_takes_the_future_with_it_and_ends_its_copies() {
    let copies = Rc::new(RefCell::new(Vec::new()));
    let (kept, is_dropped) = (Rc::clone(&copies), Rc::new(Cell::new(false)));
    struct Tell(Rc<Cell<bool>>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let dropped = Rc::clone(&is_dropped);
    let mut talk = serving(async move |stream: Upgraded| {
        let _tell = Tell(Rc::clone(&dropped));
        kept.borrow_mut().push(stream.clone());
        echo(stream).await;
    });
    talk.say(OFFER);
    // A task beside it may write as well.
    let copy = copies.borrow()[0].clone();
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(copy.poll_write(&mut context, b"aside"), Poll::Ready(Ok(5))));
    talk.say("");
    assert_eq!(talk.heard(), format!("{SWITCHED}aside"));
    talk.tell(|connection, env| connection.handle_failure(env));
    assert!(talk.closed && is_dropped.get());
    assert!(matches!(copy.poll_write(&mut context, b"late"), Poll::Ready(Err(_))));
    assert!(matches!(copy.poll_read(&mut context, &mut [0]), Poll::Ready(Err(_))));
}
