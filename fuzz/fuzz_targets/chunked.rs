//! Chunked bodies: whole or in pieces they hold the same, and what is accepted ends where it says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use uring_pool::proto::h1::{ChunkError, ChunkedDecoder, Step};

/// Payload, trailers and length of a body whose end has come.
type Decoded = Option<(Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, usize)>;

fn decode(bytes: &[u8], step: usize) -> Result<Decoded, ChunkError> {
    let (mut decoder, mut payload, mut at) = (ChunkedDecoder::default(), Vec::new(), 0);
    for end in (0..=bytes.len()).step_by(step).chain([bytes.len()]) {
        loop {
            match decoder.decode(&bytes[at..end])? {
                Step::Data { data, used } => {
                    assert!(!data.is_empty() && used <= end - at);
                    payload.extend_from_slice(data);
                    at += used;
                }
                Step::More => {
                    at = end;
                    break;
                }
                Step::End { used } => {
                    let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
                    let trailers = decoder.trailers().map(owned).collect();
                    return Ok(Some((payload, trailers, at + used)));
                }
            }
        }
    }
    Ok(None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(whole, decode(bytes, usize::from(step).max(1)));
    let Ok(Some((payload, trailers, length))) = whole else { return };
    assert!(bytes[..length].ends_with(b"\r\n") && payload.len() < length);
    for (name, value) in trailers {
        assert!(!name.is_empty() && !name.contains(&b' ') && !value.contains(&b'\n'));
    }
});
