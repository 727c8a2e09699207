//! Where a dying process leaves a text for its master. Written with stores alone, so that a signal
//! handler may write.

use std::sync::atomic::{AtomicU64, Ordering};

/// A stack of some forty frames with their names.
const BYTES: usize = 8 * 1024;
const WORDS: usize = BYTES / size_of::<u64>();

/// A text in shared memory. All zeroes is none.
pub(crate) struct LastWords {
    /// Stored last.
    len: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl LastWords {
    /// Leaves the first 8 KiB of a text. Async-signal-safe: nothing but atomic stores.
    pub(crate) fn write(&self, text: &[u8]) {
        let text = &text[..text.len().min(BYTES)];
        for (word, bytes) in self.words.iter().zip(text.chunks(size_of::<u64>())) {
            let mut padded = [0; size_of::<u64>()];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
        }
        self.len.store(text.len() as u64, Ordering::Release);
    }

    /// The text, if there is any.
    pub(crate) fn read(&self) -> Option<String> {
        let len = (self.len.load(Ordering::Acquire) as usize).min(BYTES);
        let words = self.words.iter().map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let text: Vec<u8> = words.flatten().take(len).collect();
        (len > 0).then(|| String::from_utf8_lossy(&text).into_owned())
    }

    pub(crate) fn clear(&self) {
        self.len.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_are_kept_up_to_their_bound() {
        let last_words =
            LastWords { len: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] };
        assert_eq!(last_words.read(), None);
        for len in (1..40).chain(BYTES - 9..BYTES + 9) {
            let text: String = ('a'..='z').cycle().take(len).collect();
            last_words.write(text.as_bytes());
            assert_eq!(last_words.read().unwrap(), text[..len.min(BYTES)]);
        }
        last_words.clear();
        assert_eq!(last_words.read(), None);
    }
}
