//! Settings of what stands between strangers and handlers: rates, proxies, the access log.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::checked::within;
use super::{ConfigError, TrustedPeers};

/// How often each client may ask, over all workers together. A client is an IPv4 address, or the
/// first 64 bits of an IPv6 one: what one household has.
///
/// A client that has been quiet may ask `requests` times at once, and regains one each
/// `window / requests`. Beyond it the answer is 429, with Retry-After.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimit {
    /// Whether there is a limit. Default: no.
    pub enabled: bool,
    /// Requests in a window, 1 to 1,000,000. Default: 100.
    pub requests: u32,
    /// How long a window is, 1 s to a day; but no more than a million requests a second.
    /// Default: 60 s.
    pub window: Duration,
    /// Whether every response tells how many requests are left; 429 always does. Default: yes.
    pub headers: bool,
}

impl Default for RateLimit {
    fn default() -> RateLimit {
        RateLimit { enabled: false, requests: 100, window: Duration::from_secs(60), headers: true }
    }
}

impl RateLimit {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("rate_limit.requests", self.requests, 1..=1_000_000)?;
        let day = Duration::from_secs(86_400);
        within("rate_limit.window", self.window, Duration::from_secs(1)..=day)
    }
}

/// Whom to believe about clients behind them, and how they tell.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Proxies {
    /// Who may speak for others. Default: nobody.
    pub trusted: TrustedPeers,
    /// Whether trusted peers begin each connection with a PROXY protocol header, version 1 or 2.
    /// One that doesn't is not served. Default: no.
    pub protocol: bool,
    /// The header field in which trusted peers tell. Default: `X-Forwarded-For`.
    pub header: ForwardedHeader,
}

impl Proxies {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.protocol && self.trusted.is_empty() {
            return Err(ConfigError::OutOfRange {
                key: "proxies.protocol",
                value: "true".to_owned(),
                range: "used together with `proxies.trusted`: whom to believe".to_owned(),
            });
        }
        Ok(())
    }
}

/// The header field in which a trusted proxy tells of its client. Another one may come from the
/// client itself, so there is one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// None is believed.
    None,
}

impl ForwardedHeader {
    const NAMES: [(&'static str, ForwardedHeader); 3] = [
        ("x-forwarded-for", ForwardedHeader::XForwardedFor),
        ("forwarded", ForwardedHeader::Forwarded),
        ("none", ForwardedHeader::None),
    ];
}

impl FromStr for ForwardedHeader {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<ForwardedHeader, ConfigError> {
        named(text, "proxies.header", &ForwardedHeader::NAMES)
    }
}

impl fmt::Display for ForwardedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(self, &ForwardedHeader::NAMES))
    }
}

/// A line for each answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessLog {
    /// The file to append to, or `-` for standard output. A named pipe is one that nobody needs to
    /// read. Default: no log.
    pub path: Option<PathBuf>,
    /// What a line looks like. Default: combined.
    pub format: LogFormat,
    /// Bytes of lines that each worker holds back while the file is slow, 16 KiB to 64 MiB. Lines
    /// for which there is no room are dropped, and counted. Default: 256 KiB.
    pub buffer_bytes: usize,
    /// How long a line may be held back to be written together with others, 10 ms to a minute.
    /// Default: 1 s.
    pub flush: Duration,
}

impl Default for AccessLog {
    fn default() -> AccessLog {
        AccessLog {
            path: None,
            format: LogFormat::Combined,
            buffer_bytes: 256 << 10,
            flush: Duration::from_secs(1),
        }
    }
}

impl AccessLog {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("access_log.buffer_bytes", self.buffer_bytes, 16 << 10..=64 << 20)?;
        let range = Duration::from_millis(10)..=Duration::from_secs(60);
        within("access_log.flush", self.flush, range)
    }
}

/// What a line of the access log looks like.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum LogFormat {
    /// Apache's combined format, with the duration in seconds and the request's id after it.
    #[default]
    Combined,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    const NAMES: [(&'static str, LogFormat); 2] =
        [("combined", LogFormat::Combined), ("json", LogFormat::Json)];
}

impl FromStr for LogFormat {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<LogFormat, ConfigError> {
        named(text, "access_log.format", &LogFormat::NAMES)
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(self, &LogFormat::NAMES))
    }
}

fn named<T: Copy>(
    text: &str,
    key: &'static str,
    names: &[(&'static str, T)],
) -> Result<T, ConfigError> {
    let found = names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        ConfigError::OutOfRange { key, value: text.to_owned(), range: known.join(" or ") }
    })
}

fn name<T: PartialEq>(value: &T, names: &[(&'static str, T)]) -> &'static str {
    names.iter().find(|(_, other)| other == value).expect("every value has a name").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_themselves_again_and_others_say_which_there_are() {
        for header in ["x-forwarded-for", "forwarded", "none"] {
            assert_eq!(header.parse::<ForwardedHeader>().unwrap().to_string(), header);
        }
        for format in ["combined", "json"] {
            assert_eq!(format.parse::<LogFormat>().unwrap().to_string(), format);
        }
        let error = "xml".parse::<LogFormat>().unwrap_err().to_string();
        assert_eq!(error, "`access_log.format` is xml: it must be combined or json");
    }
}
