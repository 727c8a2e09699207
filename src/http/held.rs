//! Bytes that are kept in a file in memory, so that they can be sent as a file is: without being
//! copied. Knows no names and no limits.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Holds begin on pages, so that none shares its last one.
const PAGE: u64 = 4096;

/// A file in memory that many [`Held`] lie in: one descriptor for all of them.
pub(crate) struct Arena {
    file: Rc<OwnedFd>,
    /// Where the next begins. Places aren't used again: there are 2^51 pages.
    next: Cell<u64>,
}

impl Arena {
    /// # Errors
    ///
    /// As memfd_create(2) has them: no descriptor left, say.
    pub(crate) fn new() -> io::Result<Arena> {
        let file = memfd_create(c"uring-pool-files", MFdFlags::MFD_CLOEXEC)?;
        Ok(Arena { file: Rc::new(file), next: Cell::new(0) })
    }

    /// Keeps a copy of these bytes.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub(crate) fn hold(&self, bytes: &[u8]) -> io::Result<Held> {
        let held = Held {
            file: Rc::clone(&self.file),
            offset: self.next.get(),
            length: bytes.len() as u64,
        };
        self.next.set(held.offset + held.length.next_multiple_of(PAGE));
        File::from(self.file.as_fd().try_clone_to_owned()?).write_all_at(bytes, held.offset)?;
        Ok(held) // or it is dropped, and with it what was written
    }
}

/// Bytes in an [`Arena`]. Their memory is free when this is dropped and they are all sent.
pub(crate) struct Held {
    file: Rc<OwnedFd>,
    offset: u64,
    length: u64,
}

impl Held {
    pub(super) fn file(&self) -> &Rc<OwnedFd> {
        &self.file
    }

    /// Where they begin in the file.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.length == 0 {
            return;
        }
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (offset, length) = (self.offset, self.length.next_multiple_of(PAGE));
        let freed = fallocate(&self.file, flags, offset.cast_signed(), length.cast_signed());
        if let Err(error) = freed {
            log::warn!("cannot give back {length} bytes of cached files: {error}");
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arena")
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn bytes_are_there_until_they_are_dropped() {
        let arena = Arena::new().unwrap();
        let file = File::from(arena.file.try_clone().unwrap());
        let read = |held: &Held| {
            let mut bytes = vec![0; held.length as usize];
            file.read_exact_at(&mut bytes, held.offset()).unwrap();
            bytes
        };
        let memory = || file.metadata().unwrap().blocks() * 512;
        let first = arena.hold(&[1; 10_000]).unwrap();
        let second = arena.hold(&[2; 5_000]).unwrap();
        assert_eq!((read(&first), read(&second)), (vec![1; 10_000], vec![2; 5_000]));
        assert_eq!(memory(), 5 * 4096);
        drop(first);
        assert_eq!((memory(), read(&second)), (2 * 4096, vec![2; 5_000]));
        drop((second, arena.hold(&[]).unwrap()));
        assert_eq!(memory(), 0);
    }
}
