//! Forms: whole or in pieces they hold the same parts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use uring_pool::proto::multipart::{MultipartDecoder, MultipartError, MultipartStep, PartHead};

type Parts = Vec<(PartHead, Vec<u8>)>;

/// The parts of a form, if its end has come.
fn decode(mut decoder: MultipartDecoder, bytes: &[u8], step: usize) -> Result<Option<Parts>, MultipartError> {
    let (mut kept, mut parts, mut is_open) = (Vec::new(), Parts::new(), false);
    for piece in bytes.chunks(step) {
        kept.extend_from_slice(piece);
        loop {
            let (next, used) = decoder.decode(&kept)?;
            let taken: Vec<u8> = kept.drain(..used).collect();
            match next {
                MultipartStep::Part(head) => {
                    assert!(!is_open);
                    is_open = true;
                    parts.push((head, Vec::new()));
                }
                MultipartStep::Data => {
                    assert!(is_open && !taken.is_empty());
                    parts.last_mut().unwrap().1.extend(taken);
                }
                MultipartStep::PartEnd => {
                    assert!(is_open);
                    is_open = false;
                }
                MultipartStep::More => {
                    assert!(kept.len() <= 8192, "more is kept than a head may have");
                    break;
                }
                MultipartStep::End => return Ok(Some(parts)),
            }
        }
    }
    Ok(None)
}

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (step, content_type, bytes) = input;
    let _ = MultipartDecoder::new(content_type);
    let decoder = MultipartDecoder::new("multipart/form-data; boundary=b").unwrap();
    let whole = decode(decoder.clone(), bytes, bytes.len().max(1));
    assert_eq!(whole, decode(decoder, bytes, usize::from(step).max(1)));
    let Ok(Some(parts)) = whole else { return };
    for (head, payload) in parts {
        assert!(!payload.windows(5).any(|at| at == b"\r\n--b"));
        assert!(!head.file_name.unwrap_or_default().contains(['/', '\\']));
    }
});
