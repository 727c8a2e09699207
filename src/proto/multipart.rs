//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1), resumable at every byte. Keeps no
//! payload, knows no files.

use std::fmt;

use memchr::memmem::Finder;

/// The longest boundary (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// Bytes of a part's head: name, file name and type need a tenth of it.
const HEAD_BYTES_MAX: usize = 4 * 1024;

/// Fields of a part's head. RFC 7578 section 4.8 knows three.
const FIELDS_MAX: usize = 8;

/// Whitespace behind a boundary (RFC 2046 calls it transport padding); nobody sends any.
const PADDING_BYTES_MAX: usize = 16;

/// Takes a body apart. The caller keeps the bytes, and drops those that were used.
///
/// ```
/// # use uring_pool::proto::multipart::{MultipartDecoder, MultipartStep};
/// let mut decoder = MultipartDecoder::new("multipart/form-data; boundary=b").unwrap();
/// let mut body: &[u8] = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nhi\r\n--b--\r\n";
/// let mut said = Vec::new();
/// loop {
///     let (step, used) = decoder.decode(body)?;
///     match step {
///         MultipartStep::Part(head) => said.push(head.name),
///         MultipartStep::Data => said.push(String::from_utf8_lossy(&body[..used]).into_owned()),
///         MultipartStep::PartEnd => {}
///         MultipartStep::More => unreachable!("there is no more"),
///         MultipartStep::End => break,
///     }
///     body = &body[used..];
/// }
/// assert_eq!(said, ["a", "hi"]);
/// # Ok::<(), uring_pool::proto::multipart::MultipartError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MultipartDecoder {
    /// CR LF, two dashes and the boundary.
    delimiter: Finder<'static>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before the first delimiter, which has no CR LF.
    Start,
    /// Behind a delimiter: a part follows, or nothing.
    Between,
    /// In a part's head.
    Head,
    /// In a part's payload.
    Data,
    /// Behind the last delimiter.
    Ended,
}

/// What comes next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MultipartStep {
    /// A part begins, and that is what its head says.
    Part(PartHead),
    /// The bytes that were used are payload of the part.
    Data,
    /// The part is over.
    PartEnd,
    /// What follows can't be told from these bytes: add more behind those that weren't used.
    More,
    /// The last part is over. What follows doesn't belong to the form, and is to be dropped.
    End,
}

/// What the head of a part says (RFC 7578 section 4).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PartHead {
    /// The name of the form's field.
    pub name: String,
    /// The name that the client has for the file, without directories; `None` for what is no file.
    pub file_name: Option<String>,
    /// Content-Type as sent.
    pub content_type: Option<String>,
}

impl MultipartDecoder {
    /// A decoder for a body of this Content-Type; `None` when that isn't `multipart/form-data` with
    /// a valid boundary.
    pub fn new(content_type: &str) -> Option<MultipartDecoder> {
        let (media_type, parameters) = content_type.split_once(';')?;
        if !media_type.trim_ascii().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary")?;
        let is_valid = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
            && boundary.bytes().all(is_boundary_byte)
            && !boundary.ends_with(' ');
        let delimiter = Finder::new(&format!("\r\n--{boundary}")).into_owned();
        is_valid.then_some(MultipartDecoder { delimiter, state: State::Start })
    }

    /// Takes the next step into `input`, and tells how many of its bytes are done with. After an
    /// error, never.
    pub fn decode(&mut self, input: &[u8]) -> Result<(MultipartStep, usize), MultipartError> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.state {
                State::Start => match self.first_delimiter(rest)? {
                    0 => return Ok((MultipartStep::More, used)),
                    len => (self.state, used) = (State::Between, used + len),
                },
                State::Between => match line_behind(rest)? {
                    Behind::More => return Ok((MultipartStep::More, used)),
                    Behind::Nothing => self.state = State::Ended,
                    Behind::Part(len) => (self.state, used) = (State::Head, used + len),
                },
                State::Head => {
                    let Some((head, len)) = parse_head(rest)? else {
                        return Ok((MultipartStep::More, used));
                    };
                    self.state = State::Data;
                    return Ok((MultipartStep::Part(head), used + len));
                }
                State::Data => match self.delimiter.find(rest) {
                    Some(0) => {
                        self.state = State::Between;
                        let len = self.delimiter.needle().len();
                        return Ok((MultipartStep::PartEnd, used + len));
                    }
                    Some(at) => return Ok((MultipartStep::Data, used + at)),
                    None => {
                        let step = match self.sure_payload(rest) {
                            0 => MultipartStep::More,
                            _ => MultipartStep::Data,
                        };
                        return Ok((step, used + self.sure_payload(rest)));
                    }
                },
                State::Ended => return Ok((MultipartStep::End, input.len())),
            }
        }
    }

    /// Length of the delimiter that a body begins with; 0 while it may still be one. RFC 2046 allows
    /// a preamble; nobody sends any, and what hides there is refused.
    fn first_delimiter(&self, bytes: &[u8]) -> Result<usize, MultipartError> {
        let delimiter = &self.delimiter.needle()[b"\r\n".len()..];
        if bytes.starts_with(delimiter) {
            return Ok(delimiter.len());
        }
        if delimiter.starts_with(bytes) { Ok(0) } else { Err(MultipartError::NoBegin) }
    }

    /// How many of these bytes, among which there is no whole delimiter, belong to none.
    fn sure_payload(&self, bytes: &[u8]) -> usize {
        let start = bytes.len().saturating_sub(self.delimiter.needle().len());
        let may_begin = |at: &usize| self.delimiter.needle().starts_with(&bytes[*at..]);
        let mut ends = memchr::memchr_iter(b'\r', &bytes[start..]).map(|at| start + at);
        ends.find(may_begin).unwrap_or(bytes.len())
    }
}

/// What stands behind a delimiter.
enum Behind {
    More,
    /// Two dashes: it was the last.
    Nothing,
    /// The end of the line, of so many bytes.
    Part(usize),
}

fn line_behind(bytes: &[u8]) -> Result<Behind, MultipartError> {
    let padding = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match &bytes[padding..] {
        _ if padding > PADDING_BYTES_MAX => Err(MultipartError::BoundaryInvalid),
        [b'-', b'-', ..] if padding == 0 => Ok(Behind::Nothing),
        [b'\r', b'\n', ..] => Ok(Behind::Part(padding + 2)),
        [] | [b'\r'] => Ok(Behind::More),
        [b'-'] if padding == 0 => Ok(Behind::More),
        _ => Err(MultipartError::BoundaryInvalid),
    }
}

/// A part's head and its length, once it is whole.
fn parse_head(bytes: &[u8]) -> Result<Option<(PartHead, usize)>, MultipartError> {
    let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let Some(end) = memchr::memmem::find(window, b"\r\n\r\n") else {
        let is_full = window.len() == HEAD_BYTES_MAX;
        return if is_full { Err(MultipartError::HeadTooLarge) } else { Ok(None) };
    };
    let head = &window[..end + 4];
    let is_bare = |at: usize| at == 0 || head[at - 1] != b'\r';
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    if memchr::memchr_iter(b'\n', head).any(is_bare)
        || httparse::parse_headers(head, &mut fields).is_err()
    {
        return Err(MultipartError::HeadInvalid);
    }
    let field = |name: &str| {
        let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    };
    let disposition = field("content-disposition").ok_or(MultipartError::NameMissing)?;
    let (kind, parameters) = disposition.split_once(';').ok_or(MultipartError::NameMissing)?;
    if !kind.trim_ascii().eq_ignore_ascii_case("form-data") {
        return Err(MultipartError::NameMissing);
    }
    let part = PartHead {
        name: parameter(parameters, "name").ok_or(MultipartError::NameMissing)?,
        file_name: parameter(parameters, "filename").map(|name| base_name(&name).to_owned()),
        content_type: field("content-type").map(str::to_owned),
    };
    Ok(Some((part, head.len())))
}

/// The value of a parameter of a field (RFC 9110 section 5.6.6). Browsers escape quotes in names as
/// `%22` and leave backslashes alone, others write `\"`: a backslash escapes a quote or another
/// backslash, and is itself before all the rest.
fn parameter(mut text: &str, wanted: &str) -> Option<String> {
    loop {
        text = text.trim_ascii_start().trim_start_matches([';', ' ', '\t']);
        let (name, rest) = text.split_once('=')?;
        let (value, rest) = if let Some(quoted) = rest.strip_prefix('"') {
            unquote(quoted)?
        } else {
            let (value, rest) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
            (value.trim_ascii().to_owned(), rest)
        };
        if name.trim_ascii().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        text = rest;
    }
}

/// What stands before the closing quote, and what follows that.
fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices().peekable());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next_if(|(_, next)| matches!(next, '"' | '\\'))?.1),
            char => value.push(char),
        }
    }
    None
}

/// A client may send a path, of its own system (RFC 7578 section 4.2).
fn base_name(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or_default()
}

/// `bcharsnospace`, or a space (RFC 2046 section 5.1.1).
fn is_boundary_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte)
}

/// What is wrong with a form: always the peer's fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum MultipartError {
    /// It doesn't begin with its boundary.
    NoBegin,
    /// Something else than a line end follows a boundary.
    BoundaryInvalid,
    /// A part's head isn't made of field lines.
    HeadInvalid,
    /// A part's head has more bytes than it may.
    HeadTooLarge,
    /// A part has no Content-Disposition `form-data` with a name.
    NameMissing,
}

impl fmt::Display for MultipartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBegin => "a form does not begin with its boundary",
            Self::BoundaryInvalid => "a boundary is not the end of its line",
            Self::HeadInvalid => "the head of a part is invalid",
            Self::HeadTooLarge => "the head of a part is too large",
            Self::NameMissing => "a part has no name",
        })
    }
}

impl std::error::Error for MultipartError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parts with their payload of a body that comes in pieces of `step` bytes.
    fn decode(
        body: &[u8],
        step: usize,
    ) -> Result<Vec<(PartHead, Vec<u8>)>, Option<MultipartError>> {
        let mut decoder = MultipartDecoder::new("multipart/form-data; boundary=xyz").unwrap();
        let (mut kept, mut parts, mut is_open) = (Vec::new(), Vec::new(), false);
        for piece in body.chunks(step) {
            kept.extend_from_slice(piece);
            loop {
                let (next, used) = decoder.decode(&kept).map_err(Some)?;
                let bytes: Vec<u8> = kept.drain(..used).collect();
                match next {
                    MultipartStep::Part(head) => {
                        assert!(!is_open);
                        is_open = true;
                        parts.push((head, Vec::new()));
                    }
                    MultipartStep::Data => {
                        assert!(is_open && !bytes.is_empty());
                        parts.last_mut().unwrap().1.extend(bytes);
                    }
                    MultipartStep::PartEnd => assert!(std::mem::take(&mut is_open)),
                    MultipartStep::More => break,
                    MultipartStep::End => return Ok(parts),
                }
            }
        }
        Err(None)
    }

    const FORM: &[u8] = b"--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--xyz \r\n\
        content-type: text/plain\r\nCONTENT-DISPOSITION: Form-Data; filename=\"C:\\\\d\\\\e \\\"f.txt\"; name=g\r\n\r\n\
        \r\n--xy\r\n\r\r\n--xyz\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n\r\n--xyz--\r\nrest";

    #[test]
    fn a_form_is_the_same_in_pieces_of_any_size() {
        let whole = decode(FORM, FORM.len()).unwrap();
        let [(a, b), (file, content), (unnamed, nothing)] = &whole[..] else { panic!("{whole:?}") };
        assert_eq!((a.name.as_str(), &a.file_name, &b[..]), ("a", &None, &b"b"[..]));
        assert_eq!(file.name, "g");
        assert_eq!(file.file_name.as_deref(), Some("e \"f.txt"));
        assert_eq!(file.content_type.as_deref(), Some("text/plain"));
        assert_eq!(content, b"\r\n--xy\r\n\r");
        assert_eq!((unnamed.name.as_str(), nothing.len()), ("", 0));
        for step in 1..FORM.len() {
            assert_eq!(decode(FORM, step).as_ref(), Ok(&whole), "pieces of {step}");
        }
        let end = FORM.len() - b"\r\nrest".len();
        (0..end).for_each(|cut| assert_eq!(decode(&FORM[..cut], 7), Err(None), "cut at {cut}"));
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let named = "Content-Disposition: form-data; name=a";
        let long = "x".repeat(HEAD_BYTES_MAX);
        let fields = "a: b\r\n".repeat(FIELDS_MAX);
        for (body, error) in [
            ("preamble\r\n--xyz\r\n".to_owned(), MultipartError::NoBegin),
            ("--xya".to_owned(), MultipartError::NoBegin),
            ("--xyz1\r\n".to_owned(), MultipartError::BoundaryInvalid),
            ("--xyz\n".to_owned(), MultipartError::BoundaryInvalid),
            ("--xyz -".to_owned(), MultipartError::BoundaryInvalid),
            (format!("--xyz{}", " ".repeat(17)), MultipartError::BoundaryInvalid),
            (format!("--xyz\r\n{named}\r\n\r\nb\r\n--xyz!"), MultipartError::BoundaryInvalid),
            ("--xyz\r\n: b\r\n\r\n".to_owned(), MultipartError::HeadInvalid),
            (format!("--xyz\r\n{named}\nb: c\r\n\r\n"), MultipartError::HeadInvalid),
            (format!("--xyz\r\n{named}\r\n b\r\n\r\n"), MultipartError::HeadInvalid),
            (format!("--xyz\r\n{fields}{named}\r\n\r\n"), MultipartError::HeadInvalid),
            (format!("--xyz\r\n{long}"), MultipartError::HeadTooLarge),
            ("--xyz\r\n\r\n\r\n\r\n".to_owned(), MultipartError::NameMissing),
            ("--xyz\r\nA: b\r\n\r\n".to_owned(), MultipartError::NameMissing),
            (
                format!("--xyz\r\n{}\r\n\r\n", "Content-Disposition: attachment; name=a"),
                MultipartError::NameMissing,
            ),
            (
                format!("--xyz\r\n{}\r\n\r\n", "Content-Disposition: form-data; name=\"a"),
                MultipartError::NameMissing,
            ),
        ] {
            assert_eq!(decode(body.as_bytes(), body.len()), Err(Some(error)), "{body:?}");
            assert_eq!(decode(body.as_bytes(), 1), Err(Some(error)), "{body:?}");
        }
    }

    #[test]
    fn boundaries_by_content_type() {
        let long = "b".repeat(71);
        for (content_type, is_form) in [
            ("multipart/form-data; boundary=b", true),
            ("Multipart/Form-Data;charset=utf-8;BOUNDARY=\"a b:c\"", true),
            ("multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW", true),
            ("multipart/form-data", false),
            ("multipart/form-data; boundary=", false),
            ("multipart/form-data; boundary=\"b", false),
            ("multipart/form-data; boundary=\"b \"", false),
            ("multipart/form-data; boundary=b@c", false),
            ("multipart/form-data; boundary=\u{e9}", false),
            (&format!("multipart/form-data; boundary={long}"), false),
            ("multipart/mixed; boundary=b", false),
            ("application/json", false),
        ] {
            assert_eq!(MultipartDecoder::new(content_type).is_some(), is_form, "{content_type}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_comes_through_in_any_pieces(
            payloads in prop::collection::vec(prop::collection::vec(
                prop::sample::select(b"\r\n-xyza".to_vec()), 0..30), 0..4),
            step in 1_usize..40,
        ) {
            let mut body = b"--xyz".to_vec();
            for payload in &payloads {
                prop_assume!(memchr::memmem::find(payload, b"\r\n--xyz").is_none());
                body.extend(b"\r\nContent-Disposition: form-data; name=n\r\n\r\n");
                body.extend(payload);
                body.extend(b"\r\n--xyz");
            }
            body.extend(b"--");
            let parts = decode(&body, step).unwrap();
            let heard: Vec<Vec<u8>> = parts.into_iter().map(|(_, payload)| payload).collect();
            // The line end of a delimiter may begin in what looks like payload.
            prop_assert_eq!(heard, payloads);
        }

        #[test]
        fn bytes_of_any_kind_end_in_an_answer(
            body in prop::collection::vec(any::<u8>(), 0..200), step in 1_usize..40,
        ) {
            let body = [b"--xyz\r\n", &body[..]].concat();
            prop_assert_eq!(decode(&body, step), decode(&body, body.len()));
        }
    }
}
