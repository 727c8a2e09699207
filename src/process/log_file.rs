//! The file of the access log: opened to append, seen to be replaced, never waited for. Writes
//! nothing itself.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Stands for standard output.
const STDOUT: &str = "-";

/// An open log.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: OwnedFd,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A file with this device and inode.
    Regular(u64, u64),
    /// A pipe, a terminal, a device.
    Other,
}

impl LogFile {
    /// Opens a log, and makes the file if there is none. `-` is standard output.
    ///
    /// # Errors
    ///
    /// There is no such directory, no right to, or it is something that can't be written.
    pub(crate) fn open(path: &Path) -> Result<LogFile, LogFileError> {
        LogFile::try_open(path).map_err(|error| LogFileError { path: path.to_owned(), error })
    }

    fn try_open(path: &Path) -> io::Result<LogFile> {
        let file = if path == Path::new(STDOUT) {
            File::from(io::stdout().as_fd().try_clone_to_owned()?)
        } else {
            open(path)?
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let is_regular = metadata.is_file() && path != Path::new(STDOUT);
        let kind =
            if is_regular { Kind::Regular(metadata.dev(), metadata.ino()) } else { Kind::Other };
        Ok(LogFile { path: path.to_owned(), file: file.into(), kind })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For the ring, while this lives.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Whether one write may be as long as one likes: else it has to be a pipe's, to stay whole.
    pub(crate) fn is_regular(&self) -> bool {
        self.kind != Kind::Other
    }

    /// Whether the path leads elsewhere by now, since the file was renamed or removed.
    pub(crate) fn was_replaced(&self) -> bool {
        match (self.kind, fs::metadata(&self.path)) {
            (Kind::Other, _) => false,
            (kind, Ok(metadata)) => kind != Kind::Regular(metadata.dev(), metadata.ino()),
            (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Opens to append. A named pipe is opened as if somebody read it, so that nobody has to.
fn open(path: &Path) -> io::Result<File> {
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    let mut options = OpenOptions::new();
    if is_pipe {
        options.read(true).write(true);
    } else {
        options.append(true).create(true).mode(0o640);
    }
    let file =
        options.custom_flags(OFlag::O_NONBLOCK.bits() | OFlag::O_NOCTTY.bits()).open(path)?;
    // That was for the opening; a write waits for room, in the ring.
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// A log that can't be opened.
#[derive(Debug)]
pub struct LogFileError {
    path: PathBuf,
    error: io::Error,
}

impl LogFileError {
    /// A name for programs, which stays the same whatever the words become.
    pub fn code(&self) -> &'static str {
        "ACCESS_LOG"
    }
}

impl fmt::Display for LogFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "the access log {path} can't be opened: {} (`access_log.path`)", self.error)
    }
}

impl std::error::Error for LogFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_renamed_or_removed_is_seen_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = LogFile::open(&path).unwrap();
        assert!(log.is_regular() && !log.was_replaced());
        fs::rename(&path, directory.path().join("log.1")).unwrap();
        assert!(log.was_replaced());
        let next = LogFile::open(&path).unwrap();
        assert!(log.was_replaced() && !next.was_replaced());
    }

    #[test]
    fn a_named_pipe_is_opened_although_nobody_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let log = LogFile::open(&path).unwrap();
        assert!(!log.is_regular() && !log.was_replaced());
    }

    #[test]
    fn what_cannot_be_opened_says_what_and_why() {
        for path in ["/", "/no/such/directory/log"] {
            let error = LogFile::open(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("`access_log.path`"), "{error}");
        }
    }
}
