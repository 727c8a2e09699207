//! Handlers that wait block nobody else: sleep, a time-out, and a task that runs beside requests.
//!
//! ```sh
//! cargo run --release --example waiting
//! curl 127.0.0.1:8080/slow & curl 127.0.0.1:8080/
//! ```

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use uring_pool::{Pool, Request, Response, Status, rt};

fn main() -> uring_pool::Result<()> {
    Pool::bind("127.0.0.1:8080")?.serve(|worker| {
        let (id, ticks) = (worker.id(), Rc::new(Cell::new(0_u64)));
        async move |req: &Request| match req.path() {
            "/slow" => {
                rt::sleep(Duration::from_secs(2)).await;
                Response::text("worth the wait\n")
            }
            "/hopeless" => {
                let answer = rt::timeout(Duration::from_millis(100), std::future::pending()).await;
                match answer {
                    Ok(()) => Response::text("never\n"),
                    Err(elapsed) => Response::text(format!("{elapsed}\n"))
                        .with_status(Status::SERVICE_UNAVAILABLE),
                }
            }
            "/tick" => {
                let counter = Rc::clone(&ticks);
                rt::spawn(async move {
                    rt::sleep(Duration::from_secs(1)).await;
                    counter.set(counter.get() + 1);
                });
                Response::text("it will\n")
            }
            _ => Response::text(format!("worker {id}: {} ticks\n", ticks.get())),
        }
    })
}
