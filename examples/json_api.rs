//! JSON in and out, with state that belongs to one worker: an `Rc` and a `RefCell`, no locks.
//!
//! ```sh
//! cargo run --release --example json_api
//! curl -d '{"text":"buy milk"}' 127.0.0.1:8080/notes
//! curl 127.0.0.1:8080/notes
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use uring_pool::{Method, Pool, Request, Response, Status};

#[derive(Serialize, Deserialize, Clone)]
struct Note {
    text: String,
}

fn main() -> uring_pool::Result<()> {
    // One worker: notes live in its memory alone.
    Pool::bind("127.0.0.1:8080")?.workers(1)?.serve(|_worker| {
        let notes: Rc<RefCell<Vec<Note>>> = Rc::default();
        async move |req: &Request| match (req.method(), req.path()) {
            (Method::Get, "/notes") => Response::json(&*notes.borrow()),
            (Method::Post, "/notes") => match serde_json::from_slice::<Note>(req.body()) {
                Ok(note) => {
                    notes.borrow_mut().push(note.clone());
                    Response::json(&note).with_status(Status::new(201))
                }
                Err(error) => Response::text(format!("{error}\n")).with_status(Status::BAD_REQUEST),
            },
            _ => Response::plain(Status::NOT_FOUND),
        }
    })
}
