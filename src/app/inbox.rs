//! Requests that wait to be taken, and the tickets by which they are answered: the service of an
//! application that owns the loop. Knows no loop and no connections.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::service::{Service, in_place};
use crate::http::{IntoResponse, Request, Response, Status};

/// Requests with their whole bodies, in the order in which they became whole.
#[derive(Default)]
pub(crate) struct Inbox {
    requests: RefCell<VecDeque<(Request, Ticket)>>,
}

impl Inbox {
    /// The service that fills this inbox.
    pub(crate) fn service(self: &Rc<Self>) -> Box<dyn Service> {
        let inbox = Rc::clone(self);
        in_place(move |request| Rc::clone(&inbox).answer(request))
    }

    async fn answer(self: Rc<Self>, mut request: Request) -> Box<Response> {
        if let Err(error) = request.arrive().await {
            return Box::new(error.into_response());
        }
        let slot = Rc::new(Slot::default());
        let ticket = Ticket { slot: Rc::downgrade(&slot) };
        let lent: Weak<Slot> = Weak::clone(&ticket.slot);
        request.set_lent(lent as Weak<dyn Any>);
        self.requests.borrow_mut().push_back((request, ticket));
        poll_fn(|context| slot.poll(context)).await
    }

    /// Whether a request waits whose client does, too.
    pub(crate) fn has_request(&self) -> bool {
        let mut requests = self.requests.borrow_mut();
        while requests.front().is_some_and(|(_, ticket)| !ticket.is_wanted()) {
            requests.pop_front();
        }
        !requests.is_empty()
    }

    /// The next one.
    pub(crate) fn take(&self) -> Option<(Request, Ticket)> {
        if self.has_request() { self.requests.borrow_mut().pop_front() } else { None }
    }
}

/// The right to answer one request, and the duty: a ticket that is dropped answers 500. Tickets may
/// be used in any order, at any time; on each connection the answers leave in the order of its
/// requests (RFC 9112 section 9.3.2).
///
/// A ticket whose client has gone meanwhile, or was given a 503 after `timeouts.request`, does
/// nothing.
#[must_use = "a ticket that is dropped answers 500"]
pub struct Ticket {
    /// Owned by the connection for as long as it waits.
    slot: Weak<Slot>,
}

impl Ticket {
    /// Answers the request. The answer leaves with the next [`turn`](crate::Server::turn).
    pub fn respond(self, response: impl IntoResponse) {
        if let Some(slot) = self.slot.upgrade() {
            slot.fill(response.into_response());
        }
    }

    /// Whether anybody waits for the answer, as far as this worker has heard: no reason to make one
    /// otherwise.
    pub fn is_wanted(&self) -> bool {
        self.slot.strong_count() > 0
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.upgrade().filter(|slot| !slot.is_filled.get()) {
            log::error!("a ticket was dropped unanswered: its request is answered with 500");
            slot.fill(Response::plain(Status::INTERNAL_SERVER_ERROR));
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("is_wanted", &self.is_wanted()).finish()
    }
}

/// Where an answer is laid for the connection that waits for it.
#[derive(Default)]
struct Slot {
    answer: Cell<Option<Box<Response>>>,
    is_filled: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Slot {
    fn fill(&self, response: Response) {
        self.is_filled.set(true);
        self.answer.set(Some(Box::new(response)));
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Box<Response>> {
        if let Some(answer) = self.answer.take() {
            return Poll::Ready(answer);
        }
        let replaced = self.waiting.replace(Some(context.waker().clone()));
        drop(replaced); // outside of the borrow: a waker may be anybody's code
        Poll::Pending
    }
}
