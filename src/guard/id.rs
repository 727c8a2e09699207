//! Request ids: unique over workers and restarts, for the price of an addition.

use std::fmt;

/// A request's id: 32 hexadecimal digits, or what a trusted proxy has called it (`X-Request-Id`).
///
/// ```
/// use uring_pool::{Request, Response};
///
/// async fn handler(request: &Request) -> Response {
///     Response::text(format!("request {}\n", request.id()))
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId<'a>(pub(crate) Kind<'a>);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind<'a> {
    Made(MadeId),
    Given(&'a str),
}

/// The longest id that is taken from a proxy.
pub(crate) const GIVEN_BYTES_MAX: usize = 128;

impl RequestId<'_> {
    /// Appends what `Display` writes.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        match self.0 {
            Kind::Made(id) => out.extend_from_slice(&id.digits()),
            Kind::Given(text) => out.extend_from_slice(text.as_bytes()),
        }
    }
}

impl fmt::Display for RequestId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Made(id) => write!(f, "{:016x}{:016x}", id.process, id.number),
            Kind::Given(text) => f.write_str(text),
        }
    }
}

/// Whether a proxy's id may go into logs and responses as it is: visible ASCII without what quotes.
pub(crate) fn is_usable(id: &[u8]) -> bool {
    (1..=GIVEN_BYTES_MAX).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=@,".contains(byte))
}

/// An id that was made here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct MadeId {
    process: u64,
    number: u64,
}

impl MadeId {
    fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        let (eights, _) = digits.as_chunks_mut::<8>();
        let words = [self.process >> 32, self.process, self.number >> 32, self.number];
        for (eight, word) in eights.iter_mut().zip(words) {
            *eight = hex_digits(word as u32);
        }
        digits
    }
}

/// The eight digits of a number, all at once.
fn hex_digits(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut nibbles = u64::from(number);
    nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | nibbles << 4) & (ONES * 0xf);
    let are_letters = (nibbles + ONES * 6) >> 4 & ONES;
    (nibbles + ONES * u64::from(b'0') + are_letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// Makes ids.
#[derive(Debug)]
pub(crate) struct Ids {
    last: MadeId,
}

impl Ids {
    /// Ids of one process. `seed` is random: no two processes have the same.
    pub(crate) fn new(seed: u64) -> Ids {
        Ids { last: MadeId { process: seed, number: 0 } }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> MadeId {
        self.last.number += 1;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_and_look_the_same_by_either_way() {
        let mut ids = Ids::new(0x0123_4567_89ab_cdef);
        ids.next();
        let id = RequestId(Kind::Made(ids.next()));
        assert_eq!(id.to_string(), "0123456789abcdef0000000000000002");
        let mut written = Vec::new();
        id.write_to(&mut written);
        assert_eq!(written, id.to_string().as_bytes());
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 1, 9, 10, 15, 16, 0x1234_5678, 0x89ab_cdef, u32::MAX] {
            assert_eq!(hex_digits(number), *format!("{number:08x}").as_bytes());
        }
    }

    #[test]
    fn an_id_that_could_break_a_log_is_not_taken() {
        assert!(is_usable(b"7b1c-4f.a/b=") && is_usable(&[b'a'; GIVEN_BYTES_MAX]));
        for id in [&b""[..], b"a b", b"a\"b", b"a\\b", b"a\tb", b"\xc3\xa9", &[b'a'; 129]] {
            assert!(!is_usable(id), "{id:?}");
        }
    }
}
