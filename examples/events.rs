//! Server-sent events: whatever anybody says, all who listen hear at once.
//!
//! ```sh
//! cargo run --release --example events
//! curl -N 127.0.0.1:8080/events &
//! curl -d 'hello' 127.0.0.1:8080/say
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use uring_pool::{BodyError, Event, Method, Pool, Request, Response, Status};

fn main() -> uring_pool::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    // One worker: who listens is known in its memory alone.
    Pool::bind(&address)?
        .workers(1)?
        .on_ready(|ready| println!("the news serves {}", ready.addresses[0]))
        .serve(|_worker| {
            let listeners: Rc<RefCell<Vec<Weak<RefCell<Mailbox>>>>> = Rc::default();
            async move |request: &Request| -> Result<Response, BodyError> {
                Ok(match (request.method(), request.path()) {
                    (Method::Get, "/events") => {
                        let mailbox = Rc::<RefCell<Mailbox>>::default();
                        listeners.borrow_mut().push(Rc::downgrade(&mailbox));
                        Response::events(Listener(mailbox))
                    }
                    (Method::Post, "/say") => {
                        let text = request.text().await?;
                        listeners.borrow_mut().retain(|listener| {
                            listener.upgrade().is_some_and(|mailbox| {
                                mailbox.borrow_mut().put(Event::new(&text));
                                true
                            })
                        });
                        Response::text(format!("{} heard it\n", listeners.borrow().len()))
                    }
                    _ => Response::plain(Status::NOT_FOUND),
                })
            }
        })
}

/// What somebody who listens hasn't heard yet.
#[derive(Default)]
struct Mailbox {
    events: VecDeque<Event>,
    reader: Option<Waker>,
}

impl Mailbox {
    fn put(&mut self, event: Event) {
        self.events.push_back(event);
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

/// Dropped with the response, when its client has gone.
struct Listener(Rc<RefCell<Mailbox>>);

impl Stream for Listener {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut mailbox = self.0.borrow_mut();
        if let Some(event) = mailbox.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        mailbox.reader = Some(context.waker().clone());
        Poll::Pending
    }
}
