//! One Unix stream socket, and the file that names it. Knows no TCP.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind as bind_to, connect, socket,
};

use super::error::Reason;
use crate::process::sys;

/// Binds a socket to `path` and listens on it. The file of a socket that nobody listens on any
/// more is replaced; any other file is left alone.
pub(super) fn bind(path: &Path, backlog: u32) -> Result<(OwnedFd, SocketFile), Reason> {
    let address = UnixAddr::new(path).map_err(|errno| Reason::of(&errno.into()))?;
    let socket = Reason::checked(new_socket(SockFlag::empty()))?;
    match bind_to(socket.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) => {
            remove_stale(path, &address)?;
            bind_to(socket.as_raw_fd(), &address).map_err(|errno| Reason::of(&errno.into()))?;
        }
        other => other.map_err(|errno| Reason::of(&errno.into()))?,
    }
    let file = Reason::checked(SocketFile::of(path))?;
    Reason::checked(sys::listen(socket.as_fd(), backlog))?;
    Ok((socket, file))
}

/// Removes a socket file whose listener is gone, which only a refused connection tells.
fn remove_stale(path: &Path, address: &UnixAddr) -> Result<(), Reason> {
    let metadata = Reason::checked(fs::symlink_metadata(path))?;
    if !metadata.file_type().is_socket() {
        return Err(Reason::NoSocketFile);
    }
    // Without blocking: a live listener with a full queue would have us wait.
    let client = Reason::checked(new_socket(SockFlag::SOCK_NONBLOCK))?;
    match connect(client.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => Reason::checked(fs::remove_file(path)),
        Err(errno @ (Errno::EACCES | Errno::EPERM)) => Err(Reason::of(&errno.into())),
        _ => Err(Reason::InUse),
    }
}

fn new_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

/// The file of a bound socket; removed on drop, but neither by a forked child nor when another
/// process has put its own in the place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    /// The process that removes it; nobody does when it is zero.
    owner: Cell<u32>,
}

impl SocketFile {
    /// The file at `path`, which is this process's from now on.
    pub(super) fn of(path: &Path) -> io::Result<SocketFile> {
        let path = std::path::absolute(path)?; // the working directory may change
        Ok(SocketFile { identity: identity(&path)?, path, owner: Cell::new(process::id()) })
    }

    /// The file at `path`, which is another process's until it is [owned](SocketFile::own).
    pub(super) fn of_another(path: &Path) -> io::Result<SocketFile> {
        let file = SocketFile::of(path)?;
        file.leave();
        Ok(file)
    }

    /// It is this process's from now on.
    pub(super) fn own(&self) {
        self.owner.set(process::id());
    }

    /// Whether it is where it was.
    pub(super) fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }

    /// Leaves it to somebody else.
    pub(super) fn leave(&self) {
        self.owner.set(0);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = self.owner.get() == process::id() && self.is_there();
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn the_file_lives_as_long_as_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let (socket, file) = bind(&path, 16).unwrap();
        UnixStream::connect(&path).unwrap();
        drop((socket, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let stale = new_socket(SockFlag::empty()).unwrap(); // bound, but never listened on
        bind_to(stale.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        let (_socket, _file) = bind(&path, 16).unwrap();
        assert_eq!(bind(&path, 16).unwrap_err(), Reason::InUse);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_live_socket_with_a_full_queue_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let (_socket, _file) = bind(&path, 1).unwrap();
        let _clients = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
        assert_eq!(bind(&path, 16).unwrap_err(), Reason::InUse);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert_eq!(bind(&path, 16).unwrap_err(), Reason::NoSocketFile);
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn the_socket_of_whoever_took_the_place_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let (_socket, file) = bind(&path, 16).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn a_missing_directory_is_named_as_such() {
        assert_eq!(bind(Path::new("/no/such/app.sock"), 16).unwrap_err(), Reason::NoDirectory);
    }
}
