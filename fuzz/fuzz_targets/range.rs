//! Range fields: the parts lie within the file, apart from each other, and never exceed it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uring_pool::offline;

fuzz_target!(|input: (u64, &[u8])| {
    let (length, field) = input;
    for field in [field.to_vec(), [b"bytes=", field].concat()] {
        let parts = offline::ranges(&field, length);
        assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
        let mut sorted = parts.clone();
        sorted.sort_by_key(|part| part.start);
        assert!(sorted.windows(2).all(|pair| pair[0].end < pair[1].start));
        let total: u64 = parts.iter().map(|part| part.end - part.start).sum();
        assert!(total <= length);
    }
});
