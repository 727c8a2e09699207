//! How much memory this process has in RAM. Reads one small file, and allocates nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::unistd::{SysconfVar, sysconf};

/// An open `/proc/self/statm`: of the process that opened it, not of its children.
#[derive(Debug)]
pub(crate) struct Memory {
    /// None where `/proc` isn't mounted.
    statm: Option<File>,
    page_bytes: u64,
}

impl Memory {
    pub(crate) fn open() -> Memory {
        let page_bytes =
            sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096).unsigned_abs();
        Memory { statm: File::open("/proc/self/statm").ok(), page_bytes }
    }

    /// The resident set, in bytes.
    pub(crate) fn resident(&self) -> Option<u64> {
        let mut text = [0; 128]; // seven numbers
        let len = self.statm.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..len]).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * self.page_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_is_resident() {
        let memory = Memory::open();
        // Other tests in this process let go of their own memory meanwhile.
        let is_seen = |_| {
            let before = memory.resident().unwrap();
            let touched = std::hint::black_box(vec![1_u8; 64 << 20]);
            let after = memory.resident().unwrap();
            drop(touched);
            after >= before + (32 << 20)
        };
        assert!((0..20).any(is_seen));
    }
}
