//! Lines of the access log: combined or JSON. Whatever a client sends, a line stays one line, of
//! at most 4 KiB, and no field can pretend to be another. Writes to no file.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::RequestId;
use crate::config::LogFormat;

/// The longest line: what a pipe takes whole, whoever else writes to it (pipe(7), `PIPE_BUF`). The
/// limits of the parts below, escaped, and what stands between them, are less.
pub(crate) const LINE_BYTES_MAX: usize = 4096;
const METHOD_BYTES_MAX: usize = 64;
const TARGET_BYTES_MAX: usize = 1600;
const HOST_BYTES_MAX: usize = 300;
const TEXT_BYTES_MAX: usize = 700;

/// What there is to tell of a request, before there is a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) client: Option<IpAddr>,
    /// `None`: what came was no request.
    pub(crate) request: Option<RequestPart<'a>>,
}

/// What a request's head says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestPart<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) version: &'a str,
    pub(crate) host: Option<&'a str>,
    pub(crate) referer: Option<&'a [u8]>,
    pub(crate) user_agent: Option<&'a [u8]>,
    pub(crate) id: RequestId<'a>,
}

impl Line<'_> {
    /// Writes all of it that is known beforehand; [`middle`] puts the status in.
    pub(crate) fn begin(&self, format: LogFormat, stamp: &Stamp, out: &mut Vec<u8>) {
        match format {
            LogFormat::Combined => self.begin_combined(stamp, out),
            LogFormat::Json => self.begin_json(stamp, out),
        }
    }

    fn begin_combined(&self, stamp: &Stamp, out: &mut Vec<u8>) {
        write_address(self.client, out);
        out.extend_from_slice(b" - - [");
        out.extend_from_slice(stamp.combined.as_bytes());
        out.extend_from_slice(b"] \"");
        match &self.request {
            Some(request) => {
                escape_combined(request.method.as_bytes(), METHOD_BYTES_MAX, out);
                out.push(b' ');
                escape_combined(request.target.as_bytes(), TARGET_BYTES_MAX, out);
                out.extend_from_slice(b" HTTP/");
                out.extend_from_slice(request.version.as_bytes());
            }
            None => out.push(b'-'),
        }
        out.extend_from_slice(b"\" ");
        out.push(STATUS_HERE);
        let texts = self.request.map_or([None, None], |it| [it.referer, it.user_agent]);
        for text in texts {
            out.extend_from_slice(b" \"");
            escape_combined(text.unwrap_or(b"-"), TEXT_BYTES_MAX, out);
            out.push(b'"');
        }
        out.push(b' ');
        match &self.request {
            Some(request) => request.id.write_to(out),
            None => out.push(b'-'),
        }
    }

    fn begin_json(&self, stamp: &Stamp, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(stamp.json.as_bytes());
        out.extend_from_slice(b"\",\"client\":\"");
        write_address(self.client, out);
        if let Some(request) = &self.request {
            out.extend_from_slice(b"\",\"method\":\"");
            escape_json(request.method.as_bytes(), METHOD_BYTES_MAX, out);
            out.extend_from_slice(b"\",\"target\":\"");
            escape_json(request.target.as_bytes(), TARGET_BYTES_MAX, out);
            out.extend_from_slice(b"\",\"version\":\"");
            out.extend_from_slice(request.version.as_bytes());
            optional_json("host", request.host.map(str::as_bytes), HOST_BYTES_MAX, out);
            optional_json("referer", request.referer, TEXT_BYTES_MAX, out);
            optional_json("user_agent", request.user_agent, TEXT_BYTES_MAX, out);
            out.extend_from_slice(b"\",\"id\":\"");
            request.id.write_to(out);
        }
        out.push(b'"');
    }
}

/// Stands for status and bytes in a line that was begun: no other control character is written.
const STATUS_HERE: u8 = 0;

/// Appends a line that was begun, with the response's status and the bytes of its body.
pub(crate) fn middle(format: LogFormat, begun: &[u8], status: u16, bytes: u64, out: &mut Vec<u8>) {
    match format {
        LogFormat::Combined => {
            let at = memchr::memchr(STATUS_HERE, begun).unwrap_or(begun.len());
            out.extend_from_slice(&begun[..at]);
            number(status.into(), out);
            out.push(b' ');
            number(bytes, out);
            out.extend_from_slice(begun.get(at + 1..).unwrap_or_default());
        }
        LogFormat::Json => {
            out.extend_from_slice(begun);
            out.extend_from_slice(b",\"status\":");
            number(status.into(), out);
            out.extend_from_slice(b",\"bytes\":");
            number(bytes, out);
        }
    }
}

/// Appends the end of a line: how long the response took, and whether all of it was sent.
pub(crate) fn end(format: LogFormat, nanos: u64, is_complete: bool, out: &mut Vec<u8>) {
    let micros = nanos / 1000;
    match format {
        LogFormat::Combined => {
            out.push(b' ');
            number(micros / 1_000_000, out);
            fraction(micros % 1_000_000, 6, out);
            out.extend_from_slice(if is_complete { b"\n" } else { b" cut-off\n" });
        }
        LogFormat::Json => {
            out.extend_from_slice(b",\"duration_ms\":");
            number(micros / 1000, out);
            fraction(micros % 1000, 3, out);
            let complete: &[u8] =
                if is_complete { b",\"complete\":true}\n" } else { b",\"complete\":false}\n" };
            out.extend_from_slice(complete);
        }
    }
}

fn optional_json(name: &str, value: Option<&[u8]>, bytes_max: usize, out: &mut Vec<u8>) {
    if let Some(value) = value {
        out.extend_from_slice(b"\",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":\"");
        escape_json(value, bytes_max, out);
    }
}

fn write_address(address: Option<IpAddr>, out: &mut Vec<u8>) {
    match address {
        None => out.push(b'-'),
        Some(IpAddr::V4(v4)) => {
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                number(octet.into(), out);
            }
        }
        Some(IpAddr::V6(v6)) => {
            use std::io::Write;
            write!(out, "{v6}").expect("a vector takes everything");
        }
    }
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `.` and so many digits.
fn fraction(value: u64, digits: u32, out: &mut Vec<u8>) {
    out.push(b'.');
    for place in (0..digits).rev() {
        out.push(b'0' + (value / 10_u64.pow(place) % 10) as u8);
    }
}

/// Whether a byte may stand in a line as it is, in both formats.
fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// The common case at the speed of copying.
fn copy_plain(text: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> bool {
    // Without an early end, so that many bytes are looked at at once.
    let are_plain = text.iter().fold(true, |all, byte| all & is_plain(*byte));
    let fits = are_plain && text.len() <= bytes_max;
    if fits {
        out.extend_from_slice(text);
    }
    fits
}

/// As nginx does it: `\x22` for what isn't plain.
fn escape_combined(text: &[u8], bytes_max: usize, out: &mut Vec<u8>) {
    if copy_plain(text, bytes_max, out) {
        return;
    }
    let room = out.len() + bytes_max;
    for byte in text {
        if out.len() + ESCAPE_BYTES_MAX > room {
            return out.extend_from_slice(CUT);
        }
        if is_plain(*byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 0xf)]);
        }
    }
}

/// As RFC 8259 section 7 wants it; bytes that are no UTF-8 are taken for Latin-1.
fn escape_json(text: &[u8], bytes_max: usize, out: &mut Vec<u8>) {
    if copy_plain(text, bytes_max, out) {
        return;
    }
    let room = out.len() + bytes_max;
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if out.len() + ESCAPE_BYTES_MAX > room {
                return out.extend_from_slice(CUT);
            }
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                // Also those that some reader takes for the end of a line.
                _ if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    escape_unit(c as u16, out); // control characters are below U+00A0
                }
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            if out.len() + ESCAPE_BYTES_MAX > room {
                return out.extend_from_slice(CUT);
            }
            escape_unit((*byte).into(), out);
        }
    }
}

/// The longest escape, or character.
const ESCAPE_BYTES_MAX: usize = 6;

/// Stands for the rest.
const CUT: &[u8] = b"...";

fn escape_unit(unit: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    [12, 8, 4, 0].iter().for_each(|shift| out.push(hex((unit >> shift & 0xf) as u8)));
}

fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}

/// The time of this second, as lines have it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Stamp {
    combined: String,
    json: String,
}

impl Stamp {
    /// Brings it up to date.
    pub(crate) fn set(&mut self, time: SystemTime) {
        use std::fmt::Write;
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let name = MONTHS[month as usize - 1];
        self.combined.clear();
        self.json.clear();
        write!(self.combined, "{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
            .and_then(|()| {
                let date = format_args!("{year}-{month:02}-{day:02}");
                write!(self.json, "{date}T{hour:02}:{minute:02}:{second:02}Z")
            })
            .expect("a string takes everything");
    }
}

/// Year, month and day of a day since 1970, by Howard Hinnant's `civil_from_days`:
/// <https://howardhinnant.github.io/date_algorithms.html>.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since the first of March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // from March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::id::{Ids, Kind};
    use super::*;

    fn stamp() -> Stamp {
        let mut stamp = Stamp::default();
        stamp.set(UNIX_EPOCH + Duration::from_secs(784_111_777));
        stamp
    }

    fn request() -> RequestPart<'static> {
        RequestPart {
            method: "GET",
            target: "/a?b=c",
            version: "1.1",
            host: Some("a.example"),
            referer: None,
            user_agent: Some(b"curl/8"),
            id: RequestId(Kind::Made(Ids::new(1).next())),
        }
    }

    fn line(line: &Line<'_>, format: LogFormat, status: u16, bytes: u64) -> String {
        let (mut begun, mut out) = (Vec::new(), Vec::new());
        line.begin(format, &stamp(), &mut begun);
        middle(format, &begun, status, bytes, &mut out);
        end(format, 1_234_567, true, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_looks_like_this() {
        let client = Some([192, 0, 2, 1].into());
        let whole = Line { client, request: Some(request()) };
        assert_eq!(
            line(&whole, LogFormat::Combined, 200, 13),
            "192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b=c HTTP/1.1\" 200 13 \"-\" \
             \"curl/8\" 00000000000000010000000000000001 0.001234\n"
        );
        assert_eq!(
            line(&whole, LogFormat::Json, 200, 13),
            concat!(
                r#"{"time":"1994-11-06T08:49:37Z","client":"192.0.2.1","method":"GET","#,
                r#""target":"/a?b=c","version":"1.1","host":"a.example","user_agent":"curl/8","#,
                r#""id":"00000000000000010000000000000001","status":200,"bytes":13,"#,
                r#""duration_ms":1.234,"complete":true}"#,
                "\n"
            )
        );
        let none = Line { client: None, request: None };
        assert_eq!(
            line(&none, LogFormat::Combined, 400, 11),
            "- - - [06/Nov/1994:08:49:37 +0000] \"-\" 400 11 \"-\" \"-\" - 0.001234\n"
        );
        assert_eq!(
            line(&none, LogFormat::Json, 400, 11),
            "{\"time\":\"1994-11-06T08:49:37Z\",\"client\":\"-\",\"status\":400,\"bytes\":11,\
             \"duration_ms\":1.234,\"complete\":true}\n"
        );
    }

    #[test]
    fn days_have_their_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_453, (2025, 12, 31)),
            (20_454, (2026, 1, 1)),
        ] {
            assert_eq!(civil(days), date);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_a_line_is_one_line_and_says_what_was_sent(
            agent in prop::collection::vec(any::<u8>(), 0..2000),
            target in "/[ -~]{0,3000}",
        ) {
            let request = RequestPart {
                target: &target,
                referer: Some(&agent),
                user_agent: Some(&agent),
                ..request()
            };
            let address = Some("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap());
            let whole = Line { client: address, request: Some(request) };
            for format in [LogFormat::Combined, LogFormat::Json] {
                let line = line(&whole, format, 200, u64::MAX);
                prop_assert!(line.len() <= LINE_BYTES_MAX);
                let (last, rest) = line.as_bytes().split_last().unwrap();
                prop_assert!(*last == b'\n' && !rest.iter().any(u8::is_ascii_control));
                if format == LogFormat::Json {
                    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                    let shown = value["user_agent"].as_str().unwrap();
                    if let Ok(agent) = std::str::from_utf8(&agent) && agent.len() < 100 {
                        prop_assert_eq!(shown, agent);
                    }
                    prop_assert_eq!(value.as_object().unwrap().len(), 13);
                } else {
                    prop_assert!(line.is_ascii());
                    prop_assert_eq!(line.matches('"').count(), 6);
                }
            }
        }
    }
}
