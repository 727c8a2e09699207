//! Files of a directory: type, length, `index.html`. Never anything outside of it, never anything
//! but regular files. Knows no caching and no ranges.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use percent_encoding::percent_decode_str;

use super::Handler;
use crate::http::{Body, Method, Request, Response, Status};

/// Files up to this size are read at once; larger ones in pieces of it. It bounds the memory that
/// a slow reader holds.
const CHUNK_BYTES: usize = 128 * 1024;

/// Serves the files below a directory.
#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
}

impl Files {
    /// Opens the directory; it may be renamed afterwards.
    ///
    /// # Errors
    ///
    /// As open(2) has them, `ENOTDIR` for what is no directory.
    pub fn open(root: &Path) -> io::Result<Files> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Files { root: open(root, flags, Mode::empty())? })
    }

    /// The answer to a request: a file, a redirect to a directory's own name, or why not.
    pub fn answer(&self, request: &Request) -> Response {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return Response::plain(Status::METHOD_NOT_ALLOWED).with_header("Allow", "GET, HEAD");
        }
        let Some(path) = decode(request.path()) else {
            return Response::plain(Status::NOT_FOUND);
        };
        match self.find(&path) {
            Ok(Found::File { file, length, name }) => {
                respond(file, length, &name, request.method())
            }
            Ok(Found::Directory) => {
                let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
                // Collapsed slashes: `//host/` in Location would lead to another host.
                let location = format!("/{}/{query}", request.path().trim_matches('/'));
                Response::plain(Status::MOVED_PERMANENTLY).with_header("Location", location)
            }
            Err(error) => Response::plain(status_of(&error)),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Found> {
        let wants_directory =
            path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let name = if wants_directory { path.join("index.html") } else { path.to_owned() };
        let file = self.open_beneath(&name)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() && !wants_directory {
            return Ok(Found::Directory);
        }
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Found::File { file, length: metadata.len(), name })
    }

    /// Opens without waiting (a FIFO would) and without leaving the root, whatever `..` or a
    /// symbolic link says.
    fn open_beneath(&self, name: &Path) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(&self.root, name, how)?.into())
    }
}

impl Handler for Files {
    async fn handle(&self, request: &Request) -> Response {
        self.answer(request)
    }
}

enum Found {
    File {
        file: File,
        length: u64,
        name: PathBuf,
    },
    /// Asked for without the slash that its relative links need.
    Directory,
}

/// The path below the root that a request's path means; `None` for what is never served: names
/// with a NUL or a hidden slash, and dotfiles.
fn decode(path: &str) -> Option<PathBuf> {
    let decoded = percent_decode_str(path.trim_start_matches('/')).decode_utf8().ok()?;
    let slashes = |text: &str| text.bytes().filter(|&byte| byte == b'/').count();
    let is_hidden = |name: &str| name.starts_with('.');
    if decoded.contains('\0')
        || slashes(&decoded) != slashes(path.trim_start_matches('/'))
        || decoded.split('/').any(is_hidden)
    {
        return None;
    }
    Some(PathBuf::from(decoded.into_owned()))
}

fn status_of(error: &io::Error) -> Status {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => Status::FORBIDDEN,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => Status::SERVICE_UNAVAILABLE,
        Some(Errno::EIO) => Status::INTERNAL_SERVER_ERROR,
        // Absent, a loop of links, a name too long, a way out of the root: not here.
        _ => Status::NOT_FOUND,
    }
}

fn respond(file: File, length: u64, name: &Path, method: Method) -> Response {
    let mut chunks = FileChunks { file, offset: 0, left: length };
    let body = if length <= CHUNK_BYTES as u64 && method == Method::Get {
        match chunks.read() {
            Ok(bytes) => Body::from(bytes),
            Err(error) => return Response::plain(status_of(&error)),
        }
    } else {
        Body::sized_stream(length, chunks)
    };
    Response::new(body).with_content_type(content_type(name))
}

fn content_type(name: &Path) -> Cow<'static, str> {
    let guess = mime_guess::from_path(name);
    match guess.first_raw() {
        Some(text) if text.starts_with("text/") || text == "application/javascript" => {
            Cow::Owned(format!("{text}; charset=utf-8"))
        }
        Some(other) => Cow::Borrowed(other),
        None => Cow::Borrowed("application/octet-stream"),
    }
}

/// A file's bytes from the page cache, one piece at a time.
struct FileChunks {
    file: File,
    offset: u64,
    left: u64,
}

impl FileChunks {
    /// The next piece, never empty unless nothing is left.
    fn read(&mut self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.left.min(CHUNK_BYTES as u64) as usize];
        self.file.read_exact_at(&mut bytes, self.offset)?; // an error when the file has shrunk
        self.offset += bytes.len() as u64;
        self.left -= bytes.len() as u64;
        Ok(bytes.into())
    }
}

impl Stream for FileChunks {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Poll::Ready((self.left > 0).then(|| self.read()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_hides_no_slash() {
        let path = |text| decode(text).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(path("/a%20b/c.txt").as_deref(), Some("a b/c.txt"));
        assert_eq!(path("//a").as_deref(), Some("a"));
        assert_eq!(path("/a%252f").as_deref(), Some("a%2f"));
        for never in ["/a%2fb", "/a%00", "/.git/config", "/a/.env", "/..", "/%2e%2e/x", "/%ff"] {
            assert_eq!(path(never), None, "{never}");
        }
    }

    #[test]
    fn types_of_text_say_their_charset() {
        assert_eq!(content_type(Path::new("a.html")), "text/html; charset=utf-8");
        assert_eq!(content_type(Path::new("a.png")), "image/png");
        assert_eq!(content_type(Path::new("a")), "application/octet-stream");
    }
}
