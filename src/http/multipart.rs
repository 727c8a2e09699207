//! Forms with files: parts as they come, and files that vanish with whoever holds them. Parses
//! nothing itself.

use std::fs::{self, File};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::{env, fmt};

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::linkat;

use super::{BodyError, BodyStream};
use crate::proto::multipart::{MultipartDecoder, MultipartStep, PartHead};

/// Parts of a form. Ten times what a large form of a browser has.
const PARTS_MAX: usize = 1000;

/// A form of type `multipart/form-data`, part by part, in the order of the client.
///
/// ```
/// use uring_pool::{BodyError, Request, Response};
///
/// async fn upload(request: &Request) -> Result<Response, BodyError> {
///     let mut form = request.multipart()?;
///     let mut said = String::new();
///     while let Some(mut part) = form.next_part().await? {
///         if part.file_name().is_some() {
///             let file = part.into_temp_file().await?;
///             said += &format!("a file of {} bytes\n", file.len());
///         } else {
///             said += &format!("{}: {}\n", part.name().to_owned(), part.text().await?);
///         }
///     }
///     Ok(Response::text(said))
/// }
/// ```
///
/// Nothing is received that isn't asked for, and at most 1,000 parts; a part that isn't read is
/// skipped. Parts that are collected count against `limits.collected_bytes_max` together.
pub struct Multipart {
    decoder: MultipartDecoder,
    body: BodyStream,
    /// Received and not taken apart yet.
    kept: BytesMut,
    /// In a part whose end hasn't been seen.
    is_in_part: bool,
    parts_left: usize,
    /// Bytes that may still be collected.
    collected_left: usize,
}

impl Multipart {
    /// The form of a body with this Content-Type; `None` when that isn't of one.
    pub(super) fn new(
        content_type: &str,
        body: BodyStream,
        collected_bytes_max: usize,
    ) -> Option<Multipart> {
        Some(Multipart {
            decoder: MultipartDecoder::new(content_type)?,
            body,
            kept: BytesMut::new(),
            is_in_part: false,
            parts_left: PARTS_MAX,
            collected_left: collected_bytes_max,
        })
    }

    /// The next part; `None` behind the last. What is left of the one before is skipped.
    ///
    /// # Errors
    ///
    /// As [`Request::chunk`](super::Request::chunk); or it is no form.
    pub async fn next_part(&mut self) -> Result<Option<Part<'_>>, BodyError> {
        loop {
            match self.step().await? {
                Step::Part(head) => {
                    self.parts_left =
                        self.parts_left.checked_sub(1).ok_or(BodyError::PartTooLarge)?;
                    return Ok(Some(Part { head, form: self }));
                }
                Step::Data(_) | Step::PartEnd => {}
                Step::End => return Ok(None),
            }
        }
    }

    async fn step(&mut self) -> Result<Step, BodyError> {
        loop {
            let (step, used) = self
                .decoder
                .decode(&self.kept)
                .map_err(|error| BodyError::Invalid(error.to_string()))?;
            let bytes = self.kept.split_to(used);
            return Ok(match step {
                MultipartStep::Part(head) => {
                    self.is_in_part = true;
                    Step::Part(head)
                }
                MultipartStep::Data => Step::Data(bytes.freeze()),
                MultipartStep::PartEnd => {
                    self.is_in_part = false;
                    Step::PartEnd
                }
                MultipartStep::End => {
                    self.kept.clear();
                    let rest = poll_fn(|context| self.body.poll_chunk(context)).await;
                    if rest.transpose()?.is_some() {
                        continue; // an epilogue, which nobody sends and nobody reads
                    }
                    Step::End
                }
                MultipartStep::More => {
                    let more = poll_fn(|context| self.body.poll_chunk(context)).await;
                    let Some(more) = more.transpose()? else {
                        return Err(BodyError::Invalid("a form without its end".to_owned()));
                    };
                    if self.kept.is_empty() {
                        self.kept = BytesMut::from(more);
                    } else {
                        self.kept.extend_from_slice(&more);
                    }
                    continue;
                }
            });
        }
    }
}

/// What comes next of a form.
enum Step {
    Part(PartHead),
    Data(Bytes),
    PartEnd,
    End,
}

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Multipart")
    }
}

/// A part of a form: a field, or a file.
#[derive(Debug)]
pub struct Part<'a> {
    head: PartHead,
    form: &'a mut Multipart,
}

impl Part<'_> {
    /// The name of the form's field.
    pub fn name(&self) -> &str {
        &self.head.name
    }

    /// The name of the file on the client's side, without directories; `None` for what is no file.
    /// Never use it as a name on this side without a look.
    pub fn file_name(&self) -> Option<&str> {
        self.head.file_name.as_deref()
    }

    /// The type that the client says it has.
    pub fn content_type(&self) -> Option<&str> {
        self.head.content_type.as_deref()
    }

    /// The next piece; `None` at its end.
    ///
    /// # Errors
    ///
    /// As [`Multipart::next_part`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        if !self.form.is_in_part {
            return Ok(None);
        }
        match self.form.step().await? {
            Step::Data(bytes) => Ok(Some(bytes)),
            Step::PartEnd => Ok(None),
            Step::Part(_) | Step::End => unreachable!("a part ends before another begins"),
        }
    }

    /// All of it.
    ///
    /// # Errors
    ///
    /// As [`Multipart::next_part`]; or it is too large.
    pub async fn bytes(&mut self) -> Result<Bytes, BodyError> {
        let mut all = BytesMut::new();
        while let Some(bytes) = self.chunk().await? {
            let left = self.form.collected_left.checked_sub(bytes.len());
            self.form.collected_left = left.ok_or(BodyError::PartTooLarge)?;
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// All of it, as text.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Part::bytes); or it isn't UTF-8.
    pub async fn text(&mut self) -> Result<String, BodyError> {
        let text = String::from_utf8(self.bytes().await?.into());
        text.map_err(|error| BodyError::Invalid(error.utf8_error().to_string()))
    }

    /// All of it, in a file that vanishes when it is dropped.
    ///
    /// It is written as it comes, in pieces of at most some ten KiB, into the page cache of the
    /// directory for temporary files (`TMPDIR`, else `/tmp`).
    ///
    /// # Errors
    ///
    /// As [`Multipart::next_part`]; or it can't be stored.
    pub async fn into_temp_file(mut self) -> Result<TempFile, BodyError> {
        let stored = |error: io::Error| BodyError::Storage(error.to_string());
        let mut temp = TempFile::create(&env::temp_dir()).map_err(stored)?;
        while let Some(bytes) = self.chunk().await? {
            temp.file.write_all(&bytes).map_err(stored)?;
            temp.len += bytes.len() as u64;
        }
        Ok(temp)
    }
}

/// A file without a name, which vanishes when it is dropped, however the process ends.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    len: u64,
}

impl TempFile {
    /// An empty one (`O_TMPFILE` of open(2)).
    fn create(directory: &Path) -> io::Result<TempFile> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        match open(directory, flags | OFlag::O_TMPFILE, mode) {
            Ok(file) => Ok(TempFile { file: file.into(), len: 0 }),
            // A file system that has none: a name that is gone at once.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR) => {
                let name = format!(".uring-pool-{}-{:p}", std::process::id(), &raw const flags);
                let path = directory.join(name);
                let file = open(&path, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode)?;
                fs::remove_file(&path)?;
                Ok(TempFile { file: file.into(), len: 0 })
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file, written up to its end.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it a name, so that it stays: that of a file that isn't there yet, on the same file
    /// system.
    ///
    /// # Errors
    ///
    /// As linkat(2) has them: `EEXIST`, `EXDEV` for another file system.
    pub fn keep_as(self, path: &Path) -> io::Result<File> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(AT_FDCWD, own.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?;
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_temporary_file_has_no_name_until_it_is_given_one() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let mut temp = TempFile::create(directory.path()).unwrap();
        temp.file.write_all(b"content").unwrap();
        assert_eq!(temp.file().metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let path = directory.path().join("kept");
        temp.keep_as(&path).unwrap();
        let mut content = String::new();
        File::open(&path).unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        let other = TempFile::create(directory.path()).unwrap();
        assert_eq!(other.keep_as(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(TempFile::create(Path::new("/nowhere")).is_err());
    }
}
