//! Whether parts of files lie in the page cache, as far as samples tell. Waits for no disk.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use crate::kernel;

/// What the kernel reads ahead at once: one sample is taken for each.
const STEP: usize = 128 * 1024;

/// What is sent all the time stays in the page cache; so long it isn't asked about again.
const HOLDS: Duration = Duration::from_millis(100);

/// Parts whose last samples are kept. A power of two.
const PARTS: usize = 64;

/// What was found lately.
pub(crate) struct Residency {
    recent: [Option<Sample>; PARTS],
}

/// One that found its byte.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// Closed and opened anew it can be another file's: that is found out after a while.
    file: RawFd,
    place: u64,
    at: Instant,
}

impl Residency {
    pub(crate) fn new() -> Residency {
        Residency { recent: [None; PARTS] }
    }

    /// How many of these bytes are there, from the first one on: as many steps as have their last
    /// byte there.
    pub(crate) fn count(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
        now: Instant,
    ) -> usize {
        let mut begin = 0;
        while begin < count {
            let end = count.min(begin + STEP);
            if !self.has(file, offset + end as u64 - 1, now) {
                break;
            }
            begin = end;
        }
        begin
    }

    fn has(&mut self, file: BorrowedFd<'_>, place: u64, now: Instant) -> bool {
        let number = file.as_raw_fd();
        let spread = (u64::from(number.cast_unsigned()) ^ place.rotate_right(17))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let recent = &mut self.recent[(spread >> 58) as usize];
        if let Some(sample) = recent
            && (sample.file, sample.place) == (number, place)
            && now.saturating_duration_since(sample.at) < HOLDS
        {
            return true;
        }
        let has = kernel::is_resident(file, place);
        *recent = has.then_some(Sample { file: number, place, at: now });
        has
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri has no preadv2")]
    fn a_sample_holds_for_a_while() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 1000]).unwrap();
        let mut residency = Residency::new();
        let now = Instant::now();
        let mut count = |offset, count, now| residency.count(file.as_fd(), offset, count, now);
        assert_eq!(count(0, 1000, now), 1000);
        assert_eq!(count(0, 1001, now), 0, "there is no such byte");
        assert_eq!(count(2000, 0, now), 0);
        file.set_len(0).unwrap(); // as if it had been evicted
        assert_eq!(count(0, 1000, now + HOLDS / 2), 1000);
        assert_eq!(count(0, 999, now + HOLDS / 2), 0, "another byte");
        assert_eq!(count(0, 1000, now + HOLDS), 0);
        assert_eq!(count(0, 1000, now + HOLDS / 2), 0, "what was found last counts");
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri has no preadv2")]
    fn what_is_there_is_found_step_by_step() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 2 * STEP + 10]).unwrap();
        let (mut residency, now) = (Residency::new(), Instant::now());
        let mut count = |offset, count| residency.count(file.as_fd(), offset, count, now);
        assert_eq!(count(0, 2 * STEP + 10), 2 * STEP + 10);
        assert_eq!(count(0, 2 * STEP + 11), 2 * STEP);
        assert_eq!(count(11, 2 * STEP), STEP);
        assert_eq!(count(2 * STEP as u64, 11), 0);
    }
}
