//! JSON in and out, with state that belongs to one worker: an `Rc` and a `RefCell`, no locks.
//!
//! ```sh
//! cargo run --release --example json_api
//! curl --json '{"text":"buy milk"}' 127.0.0.1:8080/notes
//! curl 127.0.0.1:8080/notes
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use uring_pool::{BodyError, Method, Pool, Request, Response, Status};

#[derive(Serialize, Deserialize, Clone)]
struct Note {
    text: String,
}

fn main() -> uring_pool::Result<()> {
    // One worker: notes live in its memory alone.
    Pool::bind("127.0.0.1:8080")?.workers(1)?.serve(|_worker| {
        let notes: Rc<RefCell<Vec<Note>>> = Rc::default();
        async move |req: &Request| -> Result<Response, BodyError> {
            Ok(match (req.method(), req.path()) {
                (Method::Get, "/notes") => Response::json(&*notes.borrow()),
                (Method::Post, "/notes") => {
                    let note: Note = req.json().await?; // or a 400, 413, 415 that says why
                    notes.borrow_mut().push(note.clone());
                    Response::json(&note).with_status(Status::new(201))
                }
                _ => Response::plain(Status::NOT_FOUND),
            })
        }
    })
}
