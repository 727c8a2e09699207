//! `uring-pool serve`: which app, where. Knows no processes.

use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;

use uring_pool::app::demo::Demo;
use uring_pool::app::files::Files;
use uring_pool::config::Address;
use uring_pool::{Handler, Pool, Ready, Reload, Request, Response, Status};

use super::flags::Flags;
use super::settings::{CompressionSettings, Settings, SiteSettings};
use super::{EX_NOINPUT, Failure};

/// The exposition format that scrapers get.
const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until told to stop. A reload reads the file again, and opens the directory again.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let Settings { pool, worker, site, debug } = Settings::read(flags)?;
    super::log::set_debug(debug);
    let content = Content::open(&site, debug)?;
    let flags = flags.clone();
    let pool = Pool::new(pool, worker)?.on_ready(announce).on_reload(move || {
        let Settings { pool, worker, site, debug } = Settings::read(&flags)?;
        let content = Content::open(&site, debug)?;
        let reload = Reload::new(pool, worker).with(content);
        Ok(reload.on_success(move || super::log::set_debug(debug)))
    });
    pool.serve(|worker| {
        let worker = *worker;
        let status = move || Response::json(&worker.pool_status());
        let metrics = move || {
            Response::new(worker.pool_status().to_prometheus()).with_content_type(PROMETHEUS_TYPE)
        };
        let demo = || Demo::new(status).with_metrics(metrics);
        let content = worker.reloaded().unwrap_or(&content);
        let Content { has_demo, files, compression, debug } = content;
        super::log::set_debug(*debug); // while a reload is under way the master's is another one
        let site = Site { demo: has_demo.then(demo), files: files.clone() };
        compressed(site, compression)
    })?;
    Ok(())
}

#[cfg(feature = "compression")]
fn compressed(site: Site, settings: &CompressionSettings) -> impl Handler + use<> {
    let CompressionSettings { enabled, codings, bytes_min, types } = settings.clone();
    uring_pool::app::compress::Compress::new(site)
        .with_codings(codings)
        .with_bytes_min(if enabled { bytes_min } else { u64::MAX })
        .with_types(if enabled { types } else { Vec::new() })
}

#[cfg(not(feature = "compression"))]
fn compressed(site: Site, _: &CompressionSettings) -> Site {
    site
}

/// What new workers serve.
struct Content {
    has_demo: bool,
    files: Option<Rc<Files>>,
    compression: CompressionSettings,
    debug: bool,
}

impl Content {
    fn open(site: &SiteSettings, debug: bool) -> Result<Content, Failure> {
        let files = open_root(site)?.map(Rc::new);
        Ok(Content { has_demo: site.demo, files, compression: site.compression.clone(), debug })
    }
}

/// Opens the directory that is to be served, if any.
///
/// # Errors
///
/// It isn't there, or is no directory.
pub(super) fn open_root(site: &SiteSettings) -> Result<Option<Files>, Failure> {
    let open = |root: &Path| {
        let files = Files::open(root).map_err(|error| {
            Failure::new(EX_NOINPUT, format_args!("cannot serve {}: {error}", root.display()))
        })?;
        let settings = site.files.clone();
        Ok(files
            .with_index(settings.index)
            .with_listing(settings.listing)
            .with_precompressed(settings.precompressed)
            .with_cache_control(settings.cache_control)
            .with_downloads(&settings.downloads)
            .with_cache(settings.cache))
    };
    site.root.as_deref().map(open).transpose()
}

/// One line for whoever started us, on standard output.
fn announce(ready: &Ready<'_>) {
    let addresses: Vec<String> = ready.addresses.iter().map(Address::to_string).collect();
    let (workers, s) = (ready.workers, if ready.workers == 1 { "" } else { "s" });
    let addresses = addresses.join(", ");
    let line = format!(
        "uring-pool serves {addresses} with {workers} worker{s} ({}; kernel features: {})\n",
        ready.accept, ready.features
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
            && let Some(response) = demo.answer(request).await
        {
            return response;
        }
        match &self.files {
            Some(files) => files.answer(request).await,
            None => Response::plain(Status::NOT_FOUND),
        }
    }
}
