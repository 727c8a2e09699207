//! `uring-pool serve`: which app, where. Knows no processes.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::Args;
use uring_pool::app::demo::Demo;
use uring_pool::app::files::Files;
use uring_pool::config::{Address, PoolConfig, WorkerConfig, WorkerCount};
use uring_pool::{Handler, Pool, Ready, Request, Response, Status};

use super::Failure;

/// Names features of the kernel to do without, to try the fallbacks.
const MASK_VARIABLE: &str = "URING_POOL_MASK";

/// The exposition format that scrapers get.
const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Wrong use of the command line (sysexits.h).
const EX_USAGE: u8 = 64;
/// A file or directory that can't be used.
const EX_NOINPUT: u8 = 66;

#[derive(Args)]
pub(super) struct Flags {
    // Not documentation comments: brackets and colons would be links there.
    #[arg(help = "Where to listen: 127.0.0.1:8080, [::1]:8080, :8080, unix:/path; repeatable")]
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: Vec<Address>,
    /// Worker processes: a number, or `auto` for one a core
    #[arg(long, value_name = "N", default_value = "auto")]
    workers: WorkerCount,
    /// Serve the files of this directory
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Serve the demo's endpoints, too (without --root they are all there is)
    #[arg(long)]
    demo: bool,
}

/// Serves until told to stop.
pub(super) fn run(flags: Flags) -> Result<(), Failure> {
    let mask = env::var(MASK_VARIABLE).unwrap_or_default();
    let mask = mask.parse().map_err(|error| Failure {
        reason: format!("{MASK_VARIABLE}: {error}"),
        exit_code: EX_USAGE,
    })?;
    let files = flags.root.as_deref().map(open).transpose()?.map(Rc::new);
    let with_demo = flags.demo || files.is_none();
    let config =
        PoolConfig { listen: flags.listen, workers: flags.workers, mask, ..PoolConfig::default() };
    let pool = Pool::new(config, WorkerConfig::default()).on_ready(announce);
    pool.serve(|worker| {
        let worker = *worker;
        let status = move || Response::json(&worker.pool_status());
        let metrics = move || {
            Response::new(worker.pool_status().to_prometheus()).with_content_type(PROMETHEUS_TYPE)
        };
        let demo = || Demo::new(status).with_metrics(metrics);
        Site { demo: with_demo.then(demo), files: files.clone() }
    })?;
    Ok(())
}

fn open(root: &Path) -> Result<Files, Failure> {
    Files::open(root).map_err(|error| Failure {
        reason: format!("cannot serve {}: {error}", root.display()),
        exit_code: EX_NOINPUT,
    })
}

/// One line for whoever started us, on standard output.
fn announce(ready: &Ready<'_>) {
    let addresses: Vec<String> = ready.addresses.iter().map(Address::to_string).collect();
    let (workers, s) = (ready.workers, if ready.workers == 1 { "" } else { "s" });
    let addresses = addresses.join(", ");
    let line = format!(
        "uring-pool serves {addresses} with {workers} worker{s} (kernel features: {})\n",
        ready.features
    );
    // Whoever closed our standard output doesn't want to know.
    let _ = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
}

/// The demo's endpoints first, then files.
struct Site {
    demo: Option<Demo>,
    files: Option<Rc<Files>>,
}

impl Handler for Site {
    async fn handle(&self, request: &Request) -> Response {
        if let Some(demo) = &self.demo
            && let Some(response) = demo.answer(request)
        {
            return response;
        }
        match &self.files {
            Some(files) => files.answer(request),
            None => Response::plain(Status::NOT_FOUND),
        }
    }
}
