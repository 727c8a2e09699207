//! Handlers and a factory that misbehave when they are told to: to see what the pool does about it.
//!
//! ```sh
//! cargo run --release --example misbehaving -- --accept dispatch --hang-timeout-ms 1000
//! curl 127.0.0.1:8080/busy      # a handler that never returns: its worker is replaced
//! curl 127.0.0.1:8080/wait      # one that waits for ever: others don't notice
//! touch /tmp/broken             # with `--broken-if /tmp/broken 1`, the factory of worker 1 panics
//! ```

mod stderr_log;

use std::cell::RefCell;
use std::env;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};
use std::iter;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use uring_pool::config::{PoolConfig, WorkerConfig, WorkerCount};
use uring_pool::{IntoResponse, Pool, Request, Response, rt};

fn main() -> uring_pool::Result<()> {
    stderr_log::begin();
    let mut config = PoolConfig { workers: WorkerCount::Fixed(2), ..PoolConfig::default() };
    if let Ok(mask) = env::var("URING_POOL_MASK") {
        config.mask = mask.parse().expect("names of kernel features");
    }
    let (mut broken_if, mut broken_worker) = (String::new(), None);
    let (mut scale_to, mut messages) = (None, 0_u64);
    let mut flags = env::args().skip(1);
    while let Some(flag) = flags.next() {
        let mut value = || flags.next().expect("a value follows");
        let millis = |text: String| Duration::from_millis(text.parse().expect("milliseconds"));
        match flag.as_str() {
            "--listen" => config.listen = vec![value().parse().expect("an address")],
            "--accept" => config.accept = value().parse().expect("a mode"),
            "--balance" => config.balance = value().parse().expect("a balancer"),
            "--weights" => {
                let weights = value();
                let weights = weights.split(',').map(|text| text.parse().expect("a number"));
                config.weights = weights.collect();
            }
            "--workers" => config.workers = value().parse().expect("a number"),
            "--hang-timeout-ms" => config.hang_timeout = millis(value()),
            "--stop-timeout-ms" => config.stop_timeout = millis(value()),
            "--restart-delay-ms" => config.restart_delay = millis(value()),
            "--descriptors-max" => config.descriptors_max = value().parse().ok(),
            // The factory panics while this file is there; all workers', or that of one.
            "--broken-if" => {
                broken_if = value();
                broken_worker = value().parse().ok();
            }
            // SIGWINCH sends all workers so many messages.
            "--tell" => messages = value().parse().expect("a number"),
            // SIGWINCH scales the pool to so many workers.
            "--scale-to" => scale_to = value().parse().ok(),
            other => panic!("{other} is no flag of this program"),
        }
    }
    let pool = Pool::new(config, WorkerConfig::default())?;
    let handle = pool.handle();
    // Before anybody is told where it is: whoever knows that may send the signal.
    let scaled = handle.clone();
    const SIGWINCH: i32 = 28;
    let scale = move |_| {
        (0..messages).for_each(|number| scaled.send(None, number.into()));
        scale_to.inspect(|workers| scaled.scale(*workers).expect("not too many"));
    };
    handle.on_signal(SIGWINCH, scale).expect("it can be caught");
    pool.on_ready(|ready| {
        // The master of an upgrade says it once more, to nobody perhaps.
        let (address, workers) = (&ready.addresses[0], ready.workers);
        let _ = writeln!(io::stdout(), "it serves {address} with {workers} workers");
    })
    .serve(move |worker| {
        let is_meant = broken_worker.is_none_or(|id: usize| id == worker.id());
        assert!(!is_meant || !Path::new(&broken_if).exists(), "the database is not there");
        let messages = Rc::new(RefCell::new(Vec::new()));
        let inbox = Rc::clone(&messages);
        worker.on_message(move |number| inbox.borrow_mut().push(number.as_u64()));
        let (worker, hoard) = (*worker, RefCell::new(Vec::new()));
        async move |request: &Request| match request.path() {
            "/busy" => count_to_infinity(),
            path if path.starts_with("/wait") => {
                rt::sleep(Duration::from_secs(3600)).await;
                Response::text("it was worth it\n")
            }
            // As many descriptors as there are, but for a few.
            "/hoard" => {
                hoard.borrow_mut().extend(iter::from_fn(|| File::open("/dev/null").ok()));
                let left = hoard.borrow().len().saturating_sub(4);
                hoard.borrow_mut().truncate(left);
                Response::text("mine\n")
            }
            "/release" => {
                hoard.borrow_mut().clear();
                Response::text("yours\n")
            }
            // How many messages it has heard, and whether in order.
            "/heard" => {
                let read = messages.borrow();
                let how = if read.is_sorted() { "in order" } else { "out of order" };
                Response::text(format!("{} {how}", read.len()))
            }
            "/worker" => Response::text(worker.id().to_string()),
            "/status" => Response::json(&worker.pool_status()),
            "/echo" => request.text().await.map(Response::text).into_response(),
            _ => Response::text("ok\n"),
        }
    })
}

/// Where a worker hangs, by name.
#[inline(never)]
fn count_to_infinity() -> Response {
    for number in 0_u64.. {
        black_box(number);
    }
    unreachable!("infinity is far away")
}
