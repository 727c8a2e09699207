//! Heads that come in pieces: remembers how far they were searched. Holds no bytes.

use super::{Field, Head, HeadError, HeadLimits, METHOD_BYTES_MAX, fault, head, parse_head};

/// [`parse_head`] for bytes that arrive bit by bit, at a cost linear in their number.
///
/// A head that is whole at first sight is parsed at once. Otherwise the parser only looks for line
/// ends among the new bytes, and parses twice more at most: when the request line is there, to
/// refuse early, and when the head's end is.
///
/// It is empty again after a head was returned, ready for the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadParser {
    /// Bytes without an end of the head.
    searched: u16,
    /// Whether a line end other than that of a leading empty line is among them.
    has_request_line: bool,
}

const _: () = assert!(size_of::<HeadParser>() == 4);

impl HeadParser {
    /// Parses the head that `bytes` begin with; they are those of the last call, and more.
    ///
    /// Results, `limits` and `fields` are those of [`parse_head`]. After an error the connection is
    /// lost, and this must not be called again.
    ///
    /// # Panics
    ///
    /// If bytes were taken away since the last call, but for a head that was returned.
    #[inline]
    pub fn parse(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
        fields: &mut Vec<Field>,
    ) -> Result<Option<Head>, HeadError> {
        if self.searched > 0 && !self.search(bytes, *limits)? {
            return Ok(None);
        }
        // Looked at where it lies, not unpacked and packed again: that would copy it twice.
        let result = parse_head(bytes, limits, fields);
        match &result {
            Ok(Some(_)) => *self = Self::default(),
            Ok(None) if self.searched == 0 => {
                self.search(bytes, *limits)?;
            }
            Ok(None) | Err(_) => {}
        }
        result
    }

    /// Searches the new bytes for a line end that makes parsing worth its cost.
    #[cold]
    fn search(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<bool, HeadError> {
        let window = &bytes[..bytes.len().min(limits.head_bytes_max.into())];
        let searched = usize::from(self.searched);
        assert!(searched <= window.len(), "bytes of a head were taken away during its parsing");
        self.searched = window.len() as u16;

        let mut worth_parsing = false;
        for at in memchr::memchr_iter(b'\n', &window[searched..]).map(|at| searched + at) {
            let Some(b'\r') = at.checked_sub(1).map(|before| window[before]) else {
                // What is wrong before it comes first, as in a head that is parsed whole.
                let start = head::skip_empty_lines(window)?;
                return Err(fault::first_fault(&window[start..]).unwrap_or(HeadError::BareLf));
            };
            let is_empty = at == 1 || window[at - 2] == b'\n';
            match (self.has_request_line, is_empty) {
                (true, true) => return Ok(true),
                (false, false) => {
                    self.has_request_line = true;
                    worth_parsing = true;
                }
                (true, false) | (false, true) => {}
            }
        }
        if !worth_parsing {
            check_unfinished(window, self.has_request_line, limits)?;
        }
        Ok(worth_parsing)
    }
}

/// What can be said against `window` although the end of its head is missing.
#[cold]
pub(super) fn check_unfinished(
    window: &[u8],
    has_request_line: bool,
    limits: HeadLimits,
) -> Result<(), HeadError> {
    let is_full = window.len() >= usize::from(limits.head_bytes_max);
    if has_request_line {
        return if is_full { Err(HeadError::TooLarge) } else { Ok(()) };
    }
    let line = &window[head::skip_empty_lines(window)?..];
    let Some(space) = line.iter().take(METHOD_BYTES_MAX + 1).position(|&byte| byte == b' ') else {
        return match (line.len() > METHOD_BYTES_MAX, is_full) {
            (true, _) => Err(HeadError::MethodTooLong),
            (false, true) => Err(HeadError::TooLarge),
            (false, false) => Ok(()),
        };
    };
    let target_len = line.len() - (space + 1);
    let is_too_long = target_len > usize::from(limits.target_bytes_max) + " HTTP/1.1\r".len();
    if is_too_long || is_full { Err(HeadError::TargetTooLong) } else { Ok(()) }
}
