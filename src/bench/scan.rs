//! HTTP/1 responses in a stream of bytes: where each ends, and what it says. Knows no sockets, no
//! clock, and keeps no bodies.

use std::fmt;
use std::ops::Range;

use crate::proto::h1::{BodyDecoder, Framing, Step, body_allowed};

/// Heads may be this long: twice what common servers send at most. A server that never ends its
/// head costs no more memory than this a connection.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Fields of one head.
const FIELDS_MAX: usize = 128;
/// Interim responses (1xx) before one final one; more is a server in a loop.
const INTERIM_MAX: u8 = 16;
/// Of responses whose head repeats the last one, each so many-th is parsed all the same.
const FULL_CHECK_EVERY: u32 = 1024;

/// A response, whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Bytes of the body, without its framing.
    pub(super) body_bytes: u64,
    /// Bytes on the wire, head and framing included, interim responses not.
    pub(super) wire_bytes: u64,
    /// Another request can follow on this connection.
    pub(super) keeps_alive: bool,
}

/// Why this is no response of HTTP/1: whose fault it is stands in the first word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ScanError {
    /// Not the grammar of a response head.
    Head,
    /// A head beyond `HEAD_BYTES_MAX`, or of too many fields.
    HeadSize,
    /// A length that is no number, two that differ, or one beside `Transfer-Encoding`.
    Length,
    /// A chunked body that breaks its grammar.
    Chunk,
    /// Interim responses without end, or one that switches protocols unasked.
    Interim,
    /// Bytes that no request asked for.
    Unasked,
    /// The connection ended within the response.
    Cut,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScanError::Head => "a response that is no HTTP",
            ScanError::HeadSize => "a response head beyond 64 KiB or 128 fields",
            ScanError::Length => "a response with a wrong or contradictory length",
            ScanError::Chunk => "a chunked body that breaks its grammar",
            ScanError::Interim => "interim responses (1xx) without end",
            ScanError::Unasked => "bytes that no request asked for",
            ScanError::Cut => "a connection that ended within a response",
        })
    }
}

/// What a head says about the bytes that follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shape {
    head_bytes: usize,
    status: u16,
    body: BodyShape,
    keeps_alive: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BodyShape {
    Length(u64),
    Chunked,
    /// Until the server closes.
    Close,
}

/// The last head that was parsed, for those that repeat it: all bytes but the date's. One of them
/// serves all connections that ask for the same.
#[derive(Default, Debug)]
pub(super) struct Memory {
    head: Vec<u8>,
    date: Range<usize>,
    shape: Option<Shape>,
    repeats: u32,
}

impl Memory {
    /// The shape of a head that repeats the last one.
    #[inline]
    fn recall(&mut self, input: &[u8]) -> Option<Shape> {
        let shape = self.shape?;
        let head = input.get(..self.head.len())?;
        let Range { start, end } = self.date;
        if head[..start] != self.head[..start] || head[end..] != self.head[end..] {
            return None;
        }
        self.repeats += 1;
        if self.repeats >= FULL_CHECK_EVERY {
            self.repeats = 0;
            return None;
        }
        Some(shape)
    }

    /// How many responses at the begin of `input`, at most `most`, are byte for byte the one that was
    /// just read as `whole`: they say the same, and need no reading.
    #[inline]
    pub(super) fn copies(&mut self, whole: &[u8], input: &[u8], most: usize) -> usize {
        let fit = most.min(input.len() / whole.len());
        if fit == 0 || input[..whole.len()] != *whole {
            return 0;
        }
        // What equals itself moved by one response repeats it.
        let rest = fit * whole.len() - whole.len();
        let count = if input[whole.len()..][..rest] == input[..rest] {
            fit
        } else {
            let copies = input.chunks_exact(whole.len()).take(fit);
            copies.take_while(|copy| *copy == whole).count()
        };
        self.repeats = self.repeats.saturating_add(count as u32);
        count
    }

    fn remember(&mut self, head: &[u8], date: Range<usize>, shape: Shape) {
        self.head.clear();
        self.head.extend_from_slice(head);
        self.date = date;
        self.shape = Some(shape);
    }
}

/// One connection's place in its stream of responses.
#[derive(Default, Debug)]
pub(super) struct Scanner {
    phase: Phase,
    /// The head so far, when it came in pieces. Keeps no memory between responses.
    pieces: Vec<u8>,
    interim: u8,
}

#[derive(Default, Debug)]
enum Phase {
    #[default]
    Head,
    /// The rest of a body whose length is known.
    Length {
        shape: Shape,
        left: u64,
    },
    Chunked {
        shape: Shape,
        decoder: Box<BodyDecoder>,
        body_bytes: u64,
        framing_bytes: u64,
    },
    Close {
        shape: Shape,
        body_bytes: u64,
    },
}

impl Scanner {
    /// Nothing of a response has come yet.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.pieces.is_empty() && self.interim == 0
    }

    /// Reads on: to the end of a response, or of the input. Says how many bytes it used; without a
    /// reply that is all of them. `is_head`: it answers a HEAD request, so it has no body.
    ///
    /// # Errors
    ///
    /// It is no response. The connection is lost, and this must not be called again.
    #[inline]
    pub(super) fn scan(
        &mut self,
        memory: &mut Memory,
        is_head: bool,
        input: &[u8],
    ) -> Result<(usize, Option<Reply>), ScanError> {
        // Most often: a whole response, with the head of the last one.
        if matches!(self.phase, Phase::Head)
            && self.pieces.is_empty()
            && let Some(shape) = memory.recall(input)
            && let BodyShape::Length(length) = shape.body
            && (input.len() - shape.head_bytes) as u64 >= length
        {
            self.interim = 0;
            return Ok((shape.head_bytes + length as usize, Some(shape.reply(length))));
        }
        self.scan_on(memory, is_head, input)
    }

    fn scan_on(
        &mut self,
        memory: &mut Memory,
        is_head: bool,
        input: &[u8],
    ) -> Result<(usize, Option<Reply>), ScanError> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match &mut self.phase {
                Phase::Head => {
                    let Some((head_used, shape)) = self.head(memory, is_head, rest)? else {
                        return Ok((input.len(), None));
                    };
                    used += head_used;
                    if shape.status < 200 {
                        self.interim += 1;
                        if self.interim > INTERIM_MAX || shape.status == 101 {
                            return Err(ScanError::Interim);
                        }
                        continue;
                    }
                    self.interim = 0;
                    self.phase = match shape.body {
                        BodyShape::Length(0) => return Ok((used, Some(shape.reply(0)))),
                        BodyShape::Length(left) => Phase::Length { shape, left },
                        BodyShape::Chunked => Phase::Chunked {
                            shape,
                            decoder: Box::new(BodyDecoder::new(Framing::Chunked)),
                            body_bytes: 0,
                            framing_bytes: 0,
                        },
                        BodyShape::Close => Phase::Close { shape, body_bytes: 0 },
                    };
                }
                Phase::Length { shape, left } => {
                    let count = (rest.len() as u64).min(*left);
                    *left -= count;
                    used += count as usize;
                    if *left > 0 {
                        return Ok((used, None));
                    }
                    let BodyShape::Length(length) = shape.body else { unreachable!() };
                    let reply = shape.reply(length);
                    self.phase = Phase::Head;
                    return Ok((used, Some(reply)));
                }
                Phase::Chunked { shape, decoder, body_bytes, framing_bytes } => {
                    match decoder.decode(rest).map_err(|_| ScanError::Chunk)? {
                        Step::Data { data, used: step } => {
                            *body_bytes += data.len() as u64;
                            *framing_bytes += (step - data.len()) as u64;
                            used += step;
                        }
                        Step::More => {
                            *framing_bytes += rest.len() as u64;
                            return Ok((input.len(), None));
                        }
                        Step::End { used: step } => {
                            used += step;
                            let framing = *framing_bytes + step as u64;
                            let mut reply = shape.reply(*body_bytes);
                            reply.wire_bytes += framing;
                            self.phase = Phase::Head;
                            return Ok((used, Some(reply)));
                        }
                    }
                }
                Phase::Close { body_bytes, .. } => {
                    *body_bytes += rest.len() as u64;
                    return Ok((input.len(), None));
                }
            }
        }
    }

    /// The server has closed: the end of a response that lasts until then, or of none.
    ///
    /// # Errors
    ///
    /// A response was under way.
    pub(super) fn end(&mut self) -> Result<Option<Reply>, ScanError> {
        if let Phase::Close { shape, body_bytes } = self.phase {
            self.phase = Phase::Head;
            return Ok(Some(shape.reply(body_bytes)));
        }
        if self.is_idle() { Ok(None) } else { Err(ScanError::Cut) }
    }

    /// The shape of the next head, and how many bytes of `input` belong to it; `None` when it goes
    /// on behind `input`, which is kept then.
    fn head(
        &mut self,
        memory: &mut Memory,
        is_head: bool,
        input: &[u8],
    ) -> Result<Option<(usize, Shape)>, ScanError> {
        if self.pieces.is_empty() {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some(shape) = memory.recall(input) {
                return Ok(Some((shape.head_bytes, shape)));
            }
            if let Some(shape) = parse(memory, is_head, input)? {
                return Ok(Some((shape.head_bytes, shape)));
            }
        }
        let before = self.pieces.len();
        let room = HEAD_BYTES_MAX - before;
        self.pieces.extend_from_slice(&input[..input.len().min(room)]);
        // Each head ends with a line feed, so that without one there is nothing new to find.
        if before > 0
            && input.contains(&b'\n')
            && let Some(shape) = parse(memory, is_head, &self.pieces)?
        {
            self.pieces = Vec::new();
            return Ok(Some((shape.head_bytes - before, shape)));
        }
        if input.len() >= room { Err(ScanError::HeadSize) } else { Ok(None) }
    }
}

impl Shape {
    #[inline]
    fn reply(self, body_bytes: u64) -> Reply {
        Reply {
            status: self.status,
            body_bytes,
            wire_bytes: self.head_bytes as u64 + body_bytes,
            keeps_alive: self.keeps_alive,
        }
    }
}

/// Parses the head at the beginning of `bytes`, if it is whole, and remembers it.
fn parse(memory: &mut Memory, is_head: bool, bytes: &[u8]) -> Result<Option<Shape>, ScanError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(ScanError::HeadSize),
        Err(_) => return Err(ScanError::Head),
    };
    if head_bytes > HEAD_BYTES_MAX {
        return Err(ScanError::HeadSize);
    }
    let status = response.code.expect("a complete head has a status");
    if !(100..600).contains(&status) {
        return Err(ScanError::Head);
    }
    let mut keeps_alive = response.version == Some(1);
    let (mut length, mut codings, mut date) = (None, None::<bool>, 0..0);
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            for value in field.value.split(|&byte| byte == b',') {
                let value = decimal(value.trim_ascii()).ok_or(ScanError::Length)?;
                if length.is_some_and(|length| length != value) {
                    return Err(ScanError::Length);
                }
                length = Some(value);
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            let last = field.value.rsplit(|&byte| byte == b',').next().unwrap_or_default();
            codings = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        } else if field.name.eq_ignore_ascii_case("connection") {
            for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    keeps_alive = false;
                } else if option.eq_ignore_ascii_case(b"keep-alive") && response.version == Some(0)
                {
                    keeps_alive = true;
                }
            }
        } else if field.name.eq_ignore_ascii_case("date") {
            let start = field.value.as_ptr().addr() - bytes.as_ptr().addr();
            date = start..start + field.value.len();
        }
    }
    let body = match (codings, length) {
        (Some(_), Some(_)) if status >= 200 => return Err(ScanError::Length),
        _ if is_head || !body_allowed(status) => BodyShape::Length(0),
        (Some(true), _) => BodyShape::Chunked,
        (Some(false), _) | (None, None) => BodyShape::Close,
        (None, Some(length)) => BodyShape::Length(length),
    };
    keeps_alive &= body != BodyShape::Close;
    let shape = Shape { head_bytes, status, body, keeps_alive };
    if status >= 200 {
        memory.remember(&bytes[..head_bytes], date, shape);
    }
    Ok(Some(shape))
}

/// Digits alone (RFC 9110 section 8.6), up to what a `u64` holds.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `pieces` one by one, and then the end.
    fn replies(pieces: &[&[u8]], is_head: bool) -> Result<Vec<Reply>, ScanError> {
        replies_with(&mut Memory::default(), pieces, is_head)
    }

    fn replies_with(
        memory: &mut Memory,
        pieces: &[&[u8]],
        is_head: bool,
    ) -> Result<Vec<Reply>, ScanError> {
        let (mut scanner, mut replies) = (Scanner::default(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (used, reply) = scanner.scan(memory, is_head, rest)?;
                assert!(reply.is_some() || used == rest.len());
                assert!(used > 0, "no byte is read twice");
                rest = &rest[used..];
                replies.extend(reply);
            }
        }
        replies.extend(scanner.end()?);
        Ok(replies)
    }

    fn short(replies: &[Reply]) -> Vec<(u16, u64, bool)> {
        replies.iter().map(|a| (a.status, a.body_bytes, a.keeps_alive)).collect()
    }

    /// A text, and the status, body bytes and keep-alive of each response in it.
    type Case = (&'static str, &'static [(u16, u64, bool)]);

    const EACH: &[Case] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", &[(200, 5, true)]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &[(200, 0, true)]),
        ("HTTP/1.1 204 No Content\r\n\r\n", &[(204, 0, true)]),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", &[(304, 0, true)]),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", &[(200, 1, false)]),
        (
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx",
            &[(200, 1, true)],
        ),
        (
            "HTTP/1.1 404 Not Found\r\nconnection: foo, close\r\ncontent-length: 2, 2\r\n\r\nno",
            &[(404, 2, false)],
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: t\r\n\r\n",
            &[(200, 6, true)],
        ),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", &[(200, 13, false)]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nuntil", &[(200, 5, false)]),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            &[(200, 2, true)],
        ),
        (
            "HTTP/1.1 200 OK\r\nDate: Mon\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\
             Date: Tue\r\nContent-Length: 2\r\n\r\ncdHTTP/1.1 200 OK\r\nDate: Wed\r\n\
             Content-Length: 3\r\n\r\nxyz",
            &[(200, 2, true), (200, 2, true), (200, 3, true)],
        ),
        ("", &[]),
    ];

    #[test]
    fn every_response_is_the_same_at_every_two_splits() {
        for (text, expected) in EACH {
            let whole = text.as_bytes();
            for first in 0..=whole.len() {
                for second in first..=whole.len() {
                    let pieces = [&whole[..first], &whole[first..second], &whole[second..]];
                    let got = replies(&pieces, false).map(|replies| short(&replies));
                    assert_eq!(got.as_deref(), Ok(*expected), "{text} at {first}, {second}");
                }
            }
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            let got = replies(&bytes, false).unwrap();
            assert_eq!(short(&got), *expected, "{text} byte by byte");
            let wire: u64 = got.iter().map(|reply| reply.wire_bytes).sum();
            let interim = text.find("HTTP/1.1 200").filter(|_| text.contains("HTTP/1.1 100"));
            assert_eq!(wire as usize, whole.len() - interim.unwrap_or(0), "{text}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body_whatever_it_says() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n".repeat(2);
        for cut in 0..=whole.len() {
            let got = replies(&[&whole[..cut], &whole[cut..]], true).unwrap();
            assert_eq!(short(&got), [(200, 0, true); 2]);
        }
    }

    #[test]
    fn what_is_no_response_is_told_apart_at_every_split() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(FIELDS_MAX + 1));
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(usize::from(INTERIM_MAX) + 1);
        let cases = [
            ("SSH-2.0-OpenSSH\r\n", ScanError::Head),
            ("HTTP/1.1 999 Odd\r\n\r\n", ScanError::Head),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", ScanError::Cut),
            ("HTTP/1.1 200 OK\r\nContent-Len", ScanError::Cut),
            ("HTTP/1.1 100 Continue\r\n\r\n", ScanError::Cut),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", ScanError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ScanError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", ScanError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", ScanError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", ScanError::Length),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                ScanError::Length,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", ScanError::Chunk),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", ScanError::Cut),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", ScanError::Interim),
            (&endless, ScanError::Interim),
            (&long, ScanError::HeadSize),
            (&fields, ScanError::HeadSize),
        ];
        for (text, error) in cases {
            let whole = text.as_bytes();
            let step = 1 + whole.len() / 200; // the long ones not at each byte
            for cut in (0..=whole.len()).step_by(step) {
                let got = replies(&[&whole[..cut], &whole[cut..]], false);
                assert_eq!(got, Err(error), "{text:.60} at {cut}");
            }
        }
    }

    #[test]
    fn a_head_that_differs_in_one_byte_is_not_taken_for_the_last() {
        let first = b"HTTP/1.1 200 OK\r\nDate: Mon\r\nContent-Length: 1\r\n\r\nx";
        for at in 0..first.len() - 1 {
            let mut other = first.to_vec();
            other[at] ^= 1;
            let mut memory = Memory::default();
            replies_with(&mut memory, &[first], false).unwrap();
            let remembered = replies_with(&mut memory, &[&other], false);
            let fresh = replies(&[&other], false);
            assert_eq!(remembered, fresh, "byte {at}");
        }
    }

    #[test]
    fn repeated_heads_are_checked_in_full_now_and_then() {
        let one: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
        let many = one.repeat(3 * FULL_CHECK_EVERY as usize);
        let got = replies(&[&many], false).unwrap();
        assert_eq!(got.len(), 3 * FULL_CHECK_EVERY as usize);
        assert!(got.iter().all(|reply| *reply == got[0]));
    }

    #[test]
    fn copies_are_counted_up_to_the_first_byte_that_differs() {
        let one = b"HTTP/1.1 200 OK\r\nDate: Mon\r\nContent-Length: 1\r\n\r\nx";
        let mut memory = Memory::default();
        let many = one.repeat(8);
        for most in 0..12 {
            assert_eq!(memory.copies(one, &many, most), most.min(8));
        }
        for cut in 0..many.len() {
            assert_eq!(memory.copies(one, &many[..cut], 12), cut / one.len(), "cut at {cut}");
            let mut other = many.clone();
            other[cut] ^= 1;
            assert_eq!(memory.copies(one, &other, 12), cut / one.len(), "other at {cut}");
        }
    }

    #[test]
    fn a_large_head_in_pieces_costs_no_memory_afterwards() {
        let (mut scanner, mut memory) = (Scanner::default(), Memory::default());
        for piece in b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n".chunks(3) {
            assert!(scanner.scan(&mut memory, false, piece).unwrap().1.is_none());
        }
        assert_eq!(scanner.pieces.capacity(), 0);
    }

    mod random {
        use proptest::collection::vec;
        use proptest::prelude::*;

        use super::super::*;

        proptest! {
            #[test]
            fn bytes_never_panic_and_never_stall(
                pieces in vec(vec(any::<u8>(), 0..64), 0..16),
                is_head: bool,
                begins_well: bool,
            ) {
                let (mut scanner, mut memory) = (Scanner::default(), Memory::default());
                let begin = if begins_well { &b"HTTP/1.1 200 OK\r\n"[..] } else { b"" };
                for piece in [begin].into_iter().chain(pieces.iter().map(Vec::as_slice)) {
                    let mut rest = piece;
                    while !rest.is_empty() {
                        let Ok((used, reply)) = scanner.scan(&mut memory, is_head, rest) else {
                            return Ok(());
                        };
                        prop_assert!(used > 0 && (reply.is_some() || used == rest.len()));
                        rest = &rest[used..];
                    }
                }
                let _either = scanner.end();
            }

            #[test]
            fn a_mangled_response_is_the_same_however_it_is_split(
                at in 0_usize..80, byte: u8, cut in 0_usize..80,
            ) {
                let mut whole =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello".to_vec();
                let (length, cut) = (whole.len(), cut.min(whole.len()));
                whole[at.min(length - 1)] = byte;
                prop_assert_eq!(
                    super::replies(&[&whole], false),
                    super::replies(&[&whole[..cut], &whole[cut..]], false)
                );
            }
        }
    }
}
