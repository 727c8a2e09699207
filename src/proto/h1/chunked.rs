//! The chunked transfer coding (RFC 9112 section 7.1), resumable at every byte. Drops extensions,
//! keeps no payload.

use std::fmt;

use super::Step;
use super::body::split_data;
use super::class::{self, TOKEN, VALUE};

/// Digits of a chunk's size, leading zeros counted: 16 are what a `u64` holds, so none overflows.
const SIZE_DIGITS_MAX: u8 = 16;

/// Bytes of extensions in one body, with the whitespace before them. Nobody uses extensions, and
/// RFC 9112 section 7.1.1 wants a limit: 1 KiB for a line, and 16 such lines a body, keep an
/// attacker from sending a body of nothing else.
const EXTENSION_LINE_BYTES_MAX: u16 = 1024;
const EXTENSION_BODY_BYTES_MAX: u16 = 16 * EXTENSION_LINE_BYTES_MAX;

/// Trailer lines of one body, and their bytes: a quarter of what a head may have.
const TRAILERS_MAX: u8 = 32;
const TRAILER_BYTES_MAX: u16 = 4 * 1024;

/// Decodes a chunked body (RFC 9112 section 7.1).
///
/// Trailers are held to the grammar of field lines and kept apart: merging them into the head,
/// unasked, is how they have been used for smuggling (RFC 9110 section 6.5.1).
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Trailer lines as they came.
    trailers: Vec<u8>,
    extension_bytes_left: u16,
    trailer_bytes_left: u16,
    trailers_left: u8,
}

/// What the next byte must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A digit of a size; behind the first also the CR, or what may begin an extension.
    Size {
        size: u64,
        digits: u8,
    },
    /// A byte of an extension, or the CR behind it.
    Extension {
        size: u64,
        line: u16,
        place: Place,
    },
    /// The LF that ends a size.
    SizeLf {
        size: u64,
    },
    /// Payload.
    Data {
        left: u64,
    },
    /// The CR, then the LF, behind a chunk's payload.
    DataCr,
    DataLf,
    /// The first byte of a trailer, or the CR of the last line.
    Line,
    /// A byte of a trailer's name, or the colon behind it.
    TrailerName,
    /// A byte of a trailer's value, or the CR behind it.
    TrailerValue,
    /// The LF that ends a trailer.
    TrailerLf,
    /// The last byte of the body.
    LastLf,
    /// Nothing.
    Ended,
}

/// Where in `BWS ";" BWS name [ BWS "=" BWS value ]` (RFC 9112 section 7.1.1) the last byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In whitespace before a semicolon.
    Before,
    /// Behind the semicolon.
    Semicolon,
    Name,
    /// In whitespace behind the name.
    NameEnd,
    /// Behind the equals sign.
    Equals,
    Value,
    Quoted,
    /// Behind a backslash in quotes.
    Escape,
    /// Behind the closing quote.
    QuoteEnd,
}

impl Place {
    /// The place of the next byte. A CR ends the line where `may_end` says so.
    fn next(self, byte: u8) -> Option<Place> {
        let is_space = matches!(byte, b' ' | b'\t');
        match (self, byte) {
            (Place::Before | Place::Semicolon | Place::Equals | Place::NameEnd, _) if is_space => {
                Some(self)
            }
            (Place::Name, _) if is_space => Some(Place::NameEnd),
            (Place::Value | Place::QuoteEnd, _) if is_space => Some(Place::Before),
            (
                Place::Before | Place::Name | Place::NameEnd | Place::Value | Place::QuoteEnd,
                b';',
            ) => Some(Place::Semicolon),
            (Place::Name | Place::NameEnd, b'=') => Some(Place::Equals),
            (Place::Equals, b'"') => Some(Place::Quoted),
            (Place::Quoted, b'"') => Some(Place::QuoteEnd),
            (Place::Quoted, b'\\') => Some(Place::Escape),
            (Place::Quoted | Place::Escape, _) => class::is(byte, VALUE).then_some(Place::Quoted),
            (Place::Semicolon | Place::Name, _) => class::is(byte, TOKEN).then_some(Place::Name),
            (Place::Equals | Place::Value, _) => class::is(byte, TOKEN).then_some(Place::Value),
            (Place::Before | Place::NameEnd | Place::QuoteEnd, _) => None,
        }
    }

    /// Whether the line may end behind it.
    fn may_end(self) -> bool {
        matches!(self, Place::Name | Place::Value | Place::QuoteEnd)
    }
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self {
            state: State::Size { size: 0, digits: 0 },
            trailers: Vec::new(),
            extension_bytes_left: EXTENSION_BODY_BYTES_MAX,
            trailer_bytes_left: TRAILER_BYTES_MAX,
            trailers_left: TRAILERS_MAX,
        }
    }
}

impl ChunkedDecoder {
    /// Takes the next step: to a piece of payload, to the end of the input, or to that of the body.
    ///
    /// After an error the connection is lost, and this must not be called again.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, ChunkError> {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            match self.state {
                State::Data { left } => {
                    let data = split_data(&input[used..], left);
                    self.state = match left - data.len() as u64 {
                        0 => State::DataCr,
                        left => State::Data { left },
                    };
                    return Ok(Step::Data { data, used: used + data.len() });
                }
                State::Ended => break,
                state => {
                    self.state = self.after(state, byte)?;
                    used += 1;
                }
            }
        }
        Ok(if self.is_ended() { Step::End { used } } else { Step::More })
    }

    /// Whether the last byte of the body has been used.
    #[inline]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Bytes of the chunk that has begun which haven't come yet: as many as its size says, and no
    /// promise of what follows.
    #[inline]
    pub fn chunk_left(&self) -> u64 {
        match self.state {
            State::Data { left } => left,
            State::SizeLf { size } => size,
            _ => 0,
        }
    }

    /// The trailers that have come whole, names as sent and values without the whitespace around.
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let end = memchr::memrchr(b'\n', &self.trailers).map_or(0, |at| at + 1);
        self.trailers[..end].split_inclusive(|&byte| byte == b'\n').map(|line| {
            let colon = memchr::memchr(b':', line).expect("a trailer has a colon");
            (&line[..colon], line[colon + 1..].trim_ascii())
        })
    }

    /// The state behind a byte of framing.
    #[inline]
    fn after(&mut self, state: State, byte: u8) -> Result<State, ChunkError> {
        match state {
            State::Size { size, digits: 1.. } if matches!(byte, b';' | b' ' | b'\t') => {
                self.spend_extension_byte(0)?;
                let place = if byte == b';' { Place::Semicolon } else { Place::Before };
                Ok(State::Extension { size, line: 1, place })
            }
            State::Size { size, digits } => size_after(size, digits, byte),
            State::Extension { size, place, .. } if byte == b'\r' && place.may_end() => {
                Ok(State::SizeLf { size })
            }
            State::Extension { size, line, place } => {
                self.spend_extension_byte(line)?;
                let place = place.next(byte).ok_or(ChunkError::ExtensionInvalid)?;
                Ok(State::Extension { size, line: line + 1, place })
            }
            State::SizeLf { size: 0 } => line_feed(byte, State::Line),
            State::TrailerLf => {
                self.trailers.push(byte);
                line_feed(byte, State::Line)
            }
            State::SizeLf { size } => line_feed(byte, State::Data { left: size }),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataCr => Err(ChunkError::DataTooLong),
            State::DataLf => line_feed(byte, State::Size { size: 0, digits: 0 }),
            State::Line if byte == b'\r' => Ok(State::LastLf),
            State::Line => {
                self.trailers_left =
                    self.trailers_left.checked_sub(1).ok_or(ChunkError::TrailersTooMany)?;
                self.keep_trailer_byte(byte)?;
                token_byte(byte, State::TrailerName)
            }
            State::TrailerName => {
                self.keep_trailer_byte(byte)?;
                match byte {
                    b':' => Ok(State::TrailerValue),
                    _ => token_byte(byte, State::TrailerName),
                }
            }
            State::TrailerValue => {
                self.keep_trailer_byte(byte)?;
                match byte {
                    b'\r' => Ok(State::TrailerLf),
                    byte if class::is(byte, VALUE) => Ok(State::TrailerValue),
                    _ => Err(ChunkError::TrailerInvalid),
                }
            }
            State::LastLf => line_feed(byte, State::Ended),
            State::Data { .. } | State::Ended => unreachable!("neither takes a byte of framing"),
        }
    }

    fn spend_extension_byte(&mut self, line: u16) -> Result<(), ChunkError> {
        match self.extension_bytes_left.checked_sub(1) {
            Some(left) if line < EXTENSION_LINE_BYTES_MAX => self.extension_bytes_left = left,
            _ => return Err(ChunkError::ExtensionsTooLarge),
        }
        Ok(())
    }

    fn keep_trailer_byte(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.trailer_bytes_left =
            self.trailer_bytes_left.checked_sub(1).ok_or(ChunkError::TrailersTooLarge)?;
        self.trailers.push(byte);
        Ok(())
    }
}

#[inline]
fn size_after(size: u64, digits: u8, byte: u8) -> Result<State, ChunkError> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b'\r' if digits > 0 => return Ok(State::SizeLf { size }),
        _ => return Err(ChunkError::SizeInvalid),
    };
    if digits == SIZE_DIGITS_MAX {
        return Err(ChunkError::SizeTooLong);
    }
    Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
}

fn token_byte(byte: u8, next: State) -> Result<State, ChunkError> {
    if class::is(byte, TOKEN) { Ok(next) } else { Err(ChunkError::TrailerInvalid) }
}

#[inline]
fn line_feed(byte: u8, next: State) -> Result<State, ChunkError> {
    if byte == b'\n' { Ok(next) } else { Err(ChunkError::BareCr) }
}

/// The fault of a chunked body: always the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChunkError {
    /// A chunk doesn't begin with hexadecimal digits, or something else than CRLF or an extension
    /// follows them; a lone LF, for instance.
    SizeInvalid,
    /// More digits than a `u64` has.
    SizeTooLong,
    /// An extension that isn't a name with an optional value; a lone LF in it, for instance.
    ExtensionInvalid,
    /// More bytes of extensions than one line, or one body, may have.
    ExtensionsTooLarge,
    /// No CRLF where the payload of a chunk must end.
    DataTooLong,
    /// A CR that no LF follows.
    BareCr,
    /// A trailer is no field line: a token, a colon, no control bytes.
    TrailerInvalid,
    /// More trailers than a body may have.
    TrailersTooMany,
    /// More bytes of trailers than a body may have.
    TrailersTooLarge,
}

impl ChunkError {
    /// The status code that answers it: 400, as nothing but the peer is to blame.
    pub fn status(self) -> u16 {
        400
    }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SizeInvalid => "a chunk size is not a hexadecimal number on a line of its own",
            Self::SizeTooLong => "a chunk size has too many digits",
            Self::ExtensionInvalid => "a chunk extension is not a name with an optional value",
            Self::ExtensionsTooLarge => "too many bytes of chunk extensions",
            Self::DataTooLong => "a chunk is longer than its size",
            Self::BareCr => "a carriage return without a line feed in a chunked body",
            Self::TrailerInvalid => "a trailer is not a valid field line",
            Self::TrailersTooMany => "too many trailers",
            Self::TrailersTooLarge => "too many bytes of trailers",
        })
    }
}

impl std::error::Error for ChunkError {}
