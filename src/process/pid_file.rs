//! A file that says which process is the master. Signals nobody.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Everybody may read it.
const MODE: u32 = 0o644;

/// A second: looking and writing takes a thousandth of it.
const LOCK_TRIES: u32 = 200;
const LOCK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// A file with the id of the process that created it. Removed on drop, but neither by a forked
/// child nor when another process's id is in it by then.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    owner: u32,
}

impl PidFile {
    /// Writes this process's id to `path`, at once: nobody ever reads half of it. A file that a
    /// dead process left is replaced, and so is that of the process `replaces`, which a new
    /// binary's master takes over from.
    ///
    /// # Errors
    ///
    /// The file names another living process, or is no such file at all, or can't be written.
    pub(crate) fn create(path: &Path, replaces: Option<u32>) -> Result<PidFile, PidFileError> {
        let error = |fault| PidFileError { path: path.to_owned(), fault };
        let owner = process::id();
        let _alone = lock_beside(path);
        match named(path).map_err(error)? {
            Some(pid) if pid != owner && Some(pid) != replaces && is_alive(pid) => {
                return Err(error(Fault::Running(pid)));
            }
            _ => {}
        }
        let absolute = std::path::absolute(path).map_err(|e| error(Fault::System(e)))?; // chdir(2)
        write(&absolute, owner).map_err(|e| error(Fault::System(e)))?;
        Ok(PidFile { path: absolute, owner })
    }

    /// Finds out whether [`create`](PidFile::create) would write it now.
    ///
    /// # Errors
    ///
    /// As for `create`.
    pub(crate) fn check(path: &Path) -> Result<(), PidFileError> {
        let error = |fault| PidFileError { path: path.to_owned(), fault };
        let owner = process::id();
        match named(path).map_err(error)? {
            Some(pid) if pid != owner && is_alive(pid) => return Err(error(Fault::Running(pid))),
            _ => {}
        }
        let temporary = beside(path, owner);
        let written = write_new(&temporary, owner);
        let _ = fs::remove_file(&temporary);
        written.map_err(|e| error(Fault::System(e)))
    }

    /// Whether it is this file, and still names the process that created it.
    pub(crate) fn stands_at(&self, path: &Path) -> bool {
        std::path::absolute(path).is_ok_and(|path| path == self.path) && self.names_owner()
    }

    fn names_owner(&self) -> bool {
        named(&self.path).ok().flatten() == Some(self.owner)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if process::id() != self.owner {
            return;
        }
        let _alone = lock_beside(&self.path); // a new owner may be writing it
        if !self.names_owner() {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Two masters that start at once look at the file and write it one after the other, or each would
/// find that nobody has it; and one that ends removes it before another one writes it, or not at all. The lock is on the directory, as the file is replaced, and ends on drop;
/// where nobody can be locked out, or somebody else keeps us out, there is none.
fn lock_beside(path: &Path) -> Option<Flock<File>> {
    let absolute = std::path::absolute(path).ok()?;
    let mut directory = File::open(absolute.parent()?).ok()?;
    for _ in 0..LOCK_TRIES {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Some(locked),
            Err((again, Errno::EWOULDBLOCK)) => directory = again,
            Err(_) => return None,
        }
        thread::sleep(LOCK_AGAIN_AFTER);
    }
    None
}

/// The process that the file names; none when there is no file, or an empty one.
fn named(path: &Path) -> Result<Option<u32>, Fault> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::System(error)),
        Ok(metadata) if !metadata.is_file() => return Err(Fault::NoPidFile), // a FIFO would block
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => Fault::NoPidFile,
        _ => Fault::System(error),
    })?;
    match text.trim() {
        "" => Ok(None),
        text => text.parse().ok().filter(|pid| *pid > 0).map(Some).ok_or(Fault::NoPidFile),
    }
}

/// Whether there is such a process, be it another user's.
fn is_alive(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

fn write(path: &Path, pid: u32) -> io::Result<()> {
    let temporary = beside(path, pid);
    let _ = fs::remove_file(&temporary); // of an earlier process with our id, if at all
    let result = write_new(&temporary, pid).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Where it is written, to be moved then.
fn beside(path: &Path, pid: u32) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{pid}.new"));
    path.with_file_name(name)
}

fn write_new(path: &Path, pid: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(MODE))?; // whatever the umask
    writeln!(file, "{pid}")
}

/// A file that can't have this process's id.
#[derive(Debug)]
pub struct PidFileError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    Running(u32),
    NoPidFile,
    System(io::Error),
}

impl PidFileError {
    /// A name for programs, which stays the same whatever the words become.
    pub fn code(&self) -> &'static str {
        match self.fault {
            Fault::Running(_) => "PID_FILE_IN_USE",
            Fault::NoPidFile => "PID_FILE_FOREIGN",
            Fault::System(_) => "PID_FILE_ERROR",
        }
    }
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Running(pid) => write!(
                f,
                "`pid_file` {path} names process {pid}, which is alive: stop it, or remove the \
                 file if that is no server"
            ),
            Fault::NoPidFile => {
                write!(
                    f,
                    "`pid_file` {path} has something else than a process id; it was left alone"
                )
            }
            Fault::System(error) => write!(f, "`pid_file` {path} cannot be written: {error}"),
        }
    }
}

impl std::error::Error for PidFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::System(error) => Some(error),
            Fault::Running(_) | Fault::NoPidFile => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::sys::{Fork, fork};
    use nix::sys::stat::Mode;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{getppid, mkfifo};
    use std::io::Read;

    /// A process that lives as long as the test: whoever started it.
    fn somebody() -> u32 {
        getppid().as_raw().unsigned_abs()
    }

    fn pid_file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.pid");
        (directory, path)
    }

    #[test]
    fn the_file_has_our_id_for_everybody_and_goes_with_us() {
        let (directory, path) = pid_file();
        let file = PidFile::create(&path, None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else");
        let again = PidFile::create(&path, None).expect("our own id is no obstacle");
        drop(file);
        assert!(!path.exists());
        drop(again);
    }

    #[test]
    fn a_file_stands_until_somebody_else_writes_it() {
        let (_directory, path) = pid_file();
        let file = PidFile::create(&path, None).unwrap();
        assert!(file.stands_at(&path));
        assert!(!file.stands_at(&path.with_extension("other")));
        fs::write(&path, format!("{}\n", somebody())).unwrap();
        assert!(!file.stands_at(&path));
    }

    #[test]
    fn a_living_process_keeps_its_file_and_a_dead_one_does_not() {
        let (_directory, path) = pid_file();
        let other = somebody();
        fs::write(&path, format!("{other}\n")).unwrap();
        let error = PidFile::create(&path, None).unwrap_err();
        assert!(error.to_string().contains(&format!("names process {other}")), "{error}");
        assert_eq!(error.code(), "PID_FILE_IN_USE");
        assert!(PidFile::create(&path, Some(other + 1)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{other}\n"));
        assert!(PidFile::create(&path, Some(other)).is_ok(), "its successor's");

        let dead = match fork().unwrap() {
            Fork::Child => crate::process::sys::exit_at_once(0),
            Fork::Parent { child } => child,
        };
        assert_eq!(waitpid(dead, None), Ok(WaitStatus::Exited(dead, 0)));
        for left in [format!("{dead}"), String::new(), "4294967295".to_owned()] {
            fs::write(&path, left).unwrap();
            assert!(PidFile::create(&path, None).is_ok());
            assert!(!path.exists());
        }
    }

    #[test]
    fn of_two_that_start_at_once_one_has_the_file() {
        for _ in 0..20 {
            let (_directory, path) = pid_file();
            let (mut reader, writer) = io::pipe().unwrap();
            let start = || match fork().unwrap() {
                Fork::Parent { child } => child,
                Fork::Child => crate::process::sys::exit_at_once(
                    PidFile::create(&path, None).map_or(0, |file| {
                        std::mem::forget(file); // or the other one would find none
                        1
                    }),
                ),
            };
            let children = [start(), start()];
            drop(writer);
            reader.read_to_end(&mut Vec::new()).unwrap(); // both have ended, and are there still
            let codes = children.map(|child| match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, code) => code,
                other => panic!("{other:?}"),
            });
            assert_eq!(codes.iter().sum::<i32>(), 1, "{codes:?}");
        }
    }

    #[test]
    fn who_leaves_looks_and_removes_while_nobody_writes() {
        let (_directory, path) = pid_file();
        let file = PidFile::create(&path, None).unwrap();
        let lock = lock_beside(&path).unwrap();
        let leaving = thread::spawn(move || drop(file));
        for _ in 0..50 {
            assert!(path.exists(), "it is somebody else's to write");
            thread::sleep(Duration::from_millis(1)); // in which it could be removed
        }
        write(&path, somebody()).unwrap();
        drop(lock);
        leaving.join().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", somebody()));
    }

    #[test]
    fn another_process_id_is_not_removed() {
        let (_directory, path) = pid_file();
        let file = PidFile::create(&path, None).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn a_forked_child_leaves_the_file_to_its_parent() {
        let (_directory, path) = pid_file();
        let file = PidFile::create(&path, None).unwrap();
        match fork().unwrap() {
            Fork::Child => {
                drop(file);
                crate::process::sys::exit_at_once(0)
            }
            Fork::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
                assert!(path.exists());
            }
        }
    }

    #[test]
    fn what_is_no_pid_file_is_left_alone() {
        let (directory, path) = pid_file();
        for text in ["root:x:0:0", "-5", "0", "12 13"] {
            fs::write(&path, text).unwrap();
            let error = PidFile::create(&path, None).unwrap_err();
            assert!(error.to_string().contains("left alone"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(PidFile::create(&path, None).unwrap_err().code(), "PID_FILE_FOREIGN");
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert_eq!(PidFile::create(&path, None).unwrap_err().code(), "PID_FILE_FOREIGN");
        let nowhere = directory.path().join("nowhere/server.pid");
        let error = PidFile::create(&nowhere, None).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
        assert_eq!(error.code(), "PID_FILE_ERROR");
    }
}
