//! Files of a directory. Never anything outside of it, never anything but regular files, and never
//! by waiting for a disk: what isn't in memory comes through the ring.
//!
//! ```text
//! path ─▶ cache ─▶ (open, stat ─▶ resource) ─▶ coding ─▶ conditions ─▶ ranges ─▶ response
//! ```

mod answer;
mod cache;
mod conditional;
mod listing;
mod path;
pub(crate) mod range;
mod resource;
mod rules;

use std::cell::RefCell;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag, open};
use nix::sys::stat::Mode;

use super::Handler;
use super::coding::Coding;
use crate::errands;
use crate::http::{Method, Request, Response, Status};
use cache::Cache;
use path::Pattern;
use resource::{Resource, Stamp};
use rules::Rules;

pub use rules::{CacheRule, InvalidRule};

/// How often a file that changes while it is looked at is looked at again.
const TRIES_MAX: usize = 3;

/// Serves the files below a directory.
///
/// ```no_run
/// use uring_pool::Pool;
/// use uring_pool::app::files::{CacheRule, Files};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let rule: CacheRule = "/assets/*: public, max-age=31536000, immutable".parse()?;
///     Pool::bind("127.0.0.1:8080")?.serve(move |_worker| {
///         let files = Files::open("/var/www".as_ref()).expect("the root is there");
///         files.with_listing(true).with_cache_control(vec![rule.clone()])
///     })?;
///     Ok(())
/// }
/// ```
///
/// Requests other than GET and HEAD get 405; dotfiles, names outside of the root (by `..` or by a
/// symbolic link), FIFOs, sockets and devices 404. Conditional requests and ranges are those of
/// RFC 9110 sections 13 and 14. A file `a.css.br` (`.zst`, `.gz`) beside `a.css`, and no older than
/// it, is what clients get that accept it.
///
/// Small files are kept in memory, some larger ones open, and all are looked at again after
/// [a second](Files::with_cache). What is large is sent from the page cache, as its client takes it. An app is used inside of a worker: its `answer` panics
/// elsewhere.
#[derive(Debug)]
pub struct Files {
    root: Rc<OwnedFd>,
    index: Vec<String>,
    listing: bool,
    precompressed: Vec<Coding>,
    rules: Rules,
    limits: CacheLimits,
    cache: RefCell<Cache<Resource>>,
    /// Shared by the descriptors that are kept.
    open: Rc<()>,
}

/// What may be kept in memory of files, in each worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheLimits {
    /// Bytes in all: the least recently used go first. 0 keeps nothing. Default: 50 MiB.
    pub bytes_max: usize,
    /// Bytes of one file: a larger one is sent in place, from the page cache. Default: 32 KiB,
    /// where that begins to cost less than a copy.
    pub file_bytes_max: u64,
    /// For how long a file is taken to be unchanged. Default: a second.
    pub fresh: Duration,
}

impl Default for CacheLimits {
    fn default() -> CacheLimits {
        CacheLimits { bytes_max: 50 << 20, file_bytes_max: 32 << 10, fresh: Duration::from_secs(1) }
    }
}

impl Files {
    /// Opens the directory; it may be renamed afterwards.
    ///
    /// # Errors
    ///
    /// As open(2) has them, `ENOTDIR` for what is no directory.
    pub fn open(root: &Path) -> io::Result<Files> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let limits = CacheLimits::default();
        Ok(Files {
            root: Rc::new(open(root, flags, Mode::empty())?),
            index: vec!["index.html".to_owned()],
            listing: false,
            precompressed: Coding::ALL.to_vec(),
            rules: Rules::default(),
            limits,
            cache: RefCell::new(Cache::new(limits.bytes_max)),
            open: Rc::new(()),
        })
    }

    /// The names that stand for a directory, in the order in which they are looked for. Default:
    /// `index.html`.
    #[must_use]
    pub fn with_index(self, index: Vec<String>) -> Files {
        Files { index, ..self }
    }

    /// Whether a directory without one of these is answered with a list of what is in it. Default:
    /// no, that is 404.
    #[must_use]
    pub fn with_listing(self, listing: bool) -> Files {
        Files { listing, ..self }
    }

    /// Which precompressed siblings are looked for; among those that a client likes equally, the
    /// first is taken. Default: all.
    #[must_use]
    pub fn with_precompressed(self, precompressed: Vec<Coding>) -> Files {
        Files { precompressed, ..self }
    }

    /// What Cache-Control says: the first rule that matches counts. Default: nothing.
    #[must_use]
    pub fn with_cache_control(mut self, rules: Vec<CacheRule>) -> Files {
        self.rules.cache_control = rules;
        self
    }

    /// Patterns (as those of a [`CacheRule`]) of files that clients are to save instead of showing
    /// them. Empty ones match nothing. Default: none.
    #[must_use]
    pub fn with_downloads(mut self, patterns: &[String]) -> Files {
        self.rules.downloads = patterns.iter().filter_map(|text| Pattern::new(text)).collect();
        self
    }

    /// What may be kept in memory.
    #[must_use]
    pub fn with_cache(self, limits: CacheLimits) -> Files {
        Files { limits, cache: RefCell::new(Cache::new(limits.bytes_max)), ..self }
    }

    /// The answer to a request: a file, a part of it, a redirect to a directory's own name, or why
    /// not.
    ///
    /// # Panics
    ///
    /// When polled outside of a worker.
    pub async fn answer(&self, request: &Request) -> Response {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return Response::plain(Status::METHOD_NOT_ALLOWED).with_header("Allow", "GET, HEAD");
        }
        let Some(name) = path::decode(request.path()) else {
            return Response::plain(Status::NOT_FOUND);
        };
        if let Some(resource) = self.fresh(&name)
            && let Some(response) = Files::answer_from_memory(&resource, request)
        {
            errands::count_cache(true);
            return response;
        }
        match self.find_and_answer(&name, request).await {
            Ok(response) => response,
            Err(error) => refuse(&error),
        }
    }

    /// What is known of a name, if it was looked at lately.
    fn fresh(&self, name: &str) -> Option<Rc<Resource>> {
        let mut cache = self.cache.borrow_mut();
        let resource = cache.find(name)?;
        let is_fresh = errands::now() - resource.checked_at.get() < self.limits.fresh;
        is_fresh.then(|| Rc::clone(resource))
    }

    async fn find_and_answer(&self, name: &str, request: &Request) -> io::Result<Response> {
        let mut tries = 0;
        loop {
            let (resource, opened) = match self.find(name).await? {
                Found::File(resource, opened) => (resource, opened),
                Found::Directory => return Ok(redirect(request)),
                Found::Listing(directory) => {
                    return listing::page(directory, request.path());
                }
            };
            tries += 1;
            match self.answer_from_files(name, &resource, opened, request).await? {
                Some(response) => return Ok(response),
                None if tries < TRIES_MAX => self.cache.borrow_mut().remove(name), // it changes
                None => return Err(io::ErrorKind::Interrupted.into()),
            }
        }
    }

    /// Looks at what a name stands for.
    async fn find(&self, name: &str) -> io::Result<Found> {
        if !path::is_directory(name) {
            return self.find_file(name, name).await;
        }
        let mut refusal = io::ErrorKind::NotFound.into();
        for index in &self.index {
            match self.find_file(name, &format!("{name}{index}")).await {
                Ok(Found::File(resource, opened)) => return Ok(Found::File(resource, opened)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refusal = error,
            }
        }
        if self.listing && refusal.kind() == io::ErrorKind::NotFound {
            let path = if name.is_empty() { "." } else { name };
            let directory = self.open_beneath(path, OFlag::O_DIRECTORY).await?;
            return Ok(Found::Listing(directory));
        }
        Err(refusal)
    }

    /// Looks at the file of this path, and at its siblings; remembers it by its `name`.
    async fn find_file(&self, name: &str, path: &str) -> io::Result<Found> {
        let file = self.open_beneath(path, OFlag::empty()).await?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(Found::Directory);
        }
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // All at once: one turn for all of them.
        let siblings: Vec<_> = self
            .precompressed
            .iter()
            .map(|coding| {
                let path = format!("{path}{}", coding.extension());
                (*coding, self.open_beneath(&path, OFlag::empty()))
            })
            .collect();
        let itself = Stamp::of(&metadata);
        let (mut found, mut opened) = (vec![(None, itself)], vec![Rc::new(file.into())]);
        for (coding, asked) in siblings {
            let Ok(sibling) = asked.await else { continue };
            let metadata = sibling.metadata()?;
            let stamp = Stamp::of(&metadata);
            if metadata.is_file() && stamp.is_as_new_as(&itself) {
                found.push((Some(coding), stamp));
                opened.push(Rc::new(sibling.into()));
            }
        }
        let now = errands::now();
        let known = self.cache.borrow_mut().find(name).map(Rc::clone);
        if let Some(resource) = known.filter(|resource| resource.is_of(&found)) {
            resource.checked_at.set(now);
            return Ok(Found::File(resource, opened));
        }
        let varies = found.len() > 1;
        let resource = Resource::new(path, found, &self.rules, varies, now);
        let resource = Rc::new(resource.map_err(|_| io::ErrorKind::NotFound)?);
        // What has just changed may change again and keep its times: it is looked at each time.
        let seconds = errands::unix_seconds();
        if !resource.variants.iter().any(|variant| variant.stamp.is_recent(seconds)) {
            let weight = resource.weight();
            self.cache.borrow_mut().insert(name, Rc::clone(&resource), weight);
        }
        Ok(Found::File(resource, opened))
    }

    /// Opens without waiting (a FIFO would) and without leaving the root, whatever `..` or a
    /// symbolic link says.
    fn open_beneath(
        &self,
        path: &str,
        more: OFlag,
    ) -> impl Future<Output = io::Result<File>> + use<> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | more;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let path = CString::new(path).expect("a decoded path has no NUL");
        let asked = errands::open(&self.root, path, flags.bits(), resolve.bits());
        async { Ok(asked.await?.into()) }
    }

    /// Reads the whole of a small file; none if it has changed meanwhile.
    async fn read(file: &Rc<OwnedFd>, stamp: Stamp) -> io::Result<Option<Bytes>> {
        let length = stamp.length as usize;
        let mut buffer = Vec::with_capacity(length);
        while buffer.len() < length {
            let (offset, left) = (buffer.len() as u64, length - buffer.len());
            let (read, result) = errands::read_at(file, offset, buffer, left as u32).await;
            buffer = read;
            if result? == 0 {
                return Ok(None);
            }
        }
        let metadata = File::from(file.as_fd().try_clone_to_owned()?).metadata()?;
        Ok((Stamp::of(&metadata) == stamp).then(|| buffer.into()))
    }
}

impl Handler for Files {
    async fn handle(&self, request: &Request) -> Response {
        self.answer(request).await
    }
}

enum Found {
    /// With its variants opened, in their order.
    File(Rc<Resource>, Vec<Rc<OwnedFd>>),
    /// Asked for without the slash that its relative links need.
    Directory,
    /// To be listed.
    Listing(File),
}

/// To a directory's own name.
fn redirect(request: &Request) -> Response {
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    // Collapsed slashes: `//host/` in Location would lead to another host.
    let location = format!("/{}/{query}", request.path().trim_matches('/'));
    Response::plain(Status::MOVED_PERMANENTLY).with_header("Location", location)
}

fn refuse(error: &io::Error) -> Response {
    let status = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => Status::FORBIDDEN,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => Status::SERVICE_UNAVAILABLE,
        Some(Errno::EIO) => Status::INTERNAL_SERVER_ERROR,
        _ if error.kind() == io::ErrorKind::Interrupted => Status::SERVICE_UNAVAILABLE,
        // Absent, a loop of links, a name too long, a way out of the root: not here.
        _ => Status::NOT_FOUND,
    };
    if status != Status::NOT_FOUND {
        log::warn!("cannot serve a file: {error}");
    }
    Response::plain(status)
}
