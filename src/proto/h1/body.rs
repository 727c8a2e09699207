//! Request bodies, piece by piece, without copying. Knows no limit of their total size.

use super::{ChunkError, ChunkedDecoder, Framing};

/// What a decoder made of its input.
///
/// ```
/// # use uring_pool::proto::h1::{BodyDecoder, Framing, Step};
/// let mut input: &[u8] = b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n";
/// let mut decoder = BodyDecoder::new(Framing::Chunked);
/// let mut body = Vec::new();
/// loop {
///     match decoder.decode(input)? {
///         Step::Data { data, used } => {
///             body.extend_from_slice(data);
///             input = &input[used..];
///         }
///         Step::More => break, // come back with the bytes that follow
///         Step::End { used } => {
///             input = &input[used..];
///             break;
///         }
///     }
/// }
/// assert_eq!((body.as_slice(), input), (&b"hello"[..], &b"GET / HTTP/1.1\r\n"[..]));
/// # Ok::<(), uring_pool::proto::h1::ChunkError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A piece of the payload, never empty. It ends where the `used` bytes of input end.
    Data {
        /// The payload, a part of the input.
        data: &'a [u8],
        /// Bytes of the input that are done with: the data, and framing before it.
        used: usize,
    },
    /// All of the input is used, and the body goes on.
    More,
    /// The body is over. What follows the `used` bytes of input is the next request.
    End {
        /// Bytes of the input that belonged to the body.
        used: usize,
    },
}

/// Decodes the body of a request, however it is delimited.
#[derive(Clone, Debug)]
pub enum BodyDecoder {
    /// By its length, which is 0 where there is no body.
    Length(LengthDecoder),
    /// By chunks.
    Chunked(ChunkedDecoder),
}

impl BodyDecoder {
    /// A decoder for the body that follows a head with this framing.
    #[inline]
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(LengthDecoder::new(0)),
            Framing::Length(length) => Self::Length(LengthDecoder::new(length)),
            Framing::Chunked => Self::Chunked(ChunkedDecoder::default()),
        }
    }

    /// Takes the next step. Call it until it wants more or the body ends; after an error, never.
    #[inline]
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, ChunkError> {
        match self {
            Self::Length(decoder) => Ok(decoder.decode(input)),
            Self::Chunked(decoder) => decoder.decode(input),
        }
    }

    /// Bytes of payload that are sure to come if the peer keeps its word: the whole rest of a body
    /// of known length, the rest of the chunk that has begun otherwise.
    #[inline]
    pub fn announced(&self) -> u64 {
        match self {
            Self::Length(decoder) => decoder.left(),
            Self::Chunked(decoder) => decoder.chunk_left(),
        }
    }

    /// Whether the last byte of the body has been used.
    #[inline]
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Length(decoder) => decoder.left() == 0,
            Self::Chunked(decoder) => decoder.is_ended(),
        }
    }
}

/// Counts a body of known length down (RFC 9112 section 6.2).
#[derive(Clone, Debug)]
pub struct LengthDecoder {
    left: u64,
}

impl LengthDecoder {
    /// A decoder of `length` bytes.
    pub fn new(length: u64) -> Self {
        Self { left: length }
    }

    /// Bytes that haven't come yet.
    #[inline]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes the next step. No byte can be wrong here.
    #[inline]
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        match split_data(input, self.left) {
            _ if self.left == 0 => Step::End { used: 0 },
            [] => Step::More,
            data => {
                self.left -= data.len() as u64;
                Step::Data { data, used: data.len() }
            }
        }
    }
}

/// As many bytes of `input` as belong to a run of payload with `left` bytes to go.
#[inline]
pub(super) fn split_data(input: &[u8], left: u64) -> &[u8] {
    let len = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    &input[..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_known_length_takes_its_bytes_and_no_more() {
        let mut decoder = LengthDecoder::new(5);
        assert_eq!(decoder.decode(b""), Step::More);
        assert_eq!(decoder.decode(b"abc"), Step::Data { data: b"abc", used: 3 });
        assert_eq!(decoder.decode(b"deGET"), Step::Data { data: b"de", used: 2 });
        assert_eq!(decoder.decode(b"GET"), Step::End { used: 0 });
        assert_eq!(decoder.decode(b""), Step::End { used: 0 });
    }

    #[test]
    fn no_body_ends_at_once() {
        for framing in [Framing::None, Framing::Length(0)] {
            let mut decoder = BodyDecoder::new(framing);
            assert!(decoder.is_ended());
            assert_eq!(decoder.decode(b"GET"), Ok(Step::End { used: 0 }));
        }
    }

    #[test]
    fn the_largest_length_counts_down() {
        let mut decoder = LengthDecoder::new(u64::MAX);
        assert_eq!(decoder.decode(b"ab"), Step::Data { data: b"ab", used: 2 });
        assert_eq!(decoder.left(), u64::MAX - 2);
    }
}
