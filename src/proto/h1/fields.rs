//! What the fields of a request say to the server itself. Every other field is the handler's.

use super::{Framing, HeadError, Span, Version, authority};

/// What has been read of the fields that steer the connection.
#[derive(Debug, Default)]
pub(super) struct Directives<'a> {
    pub(super) host: Option<Span>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    connection: Connection,
    has_upgrade: bool,
    expect: Expect,
}

/// The options of Connection that we know.
#[derive(Debug, Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Expect {
    #[default]
    Nothing,
    Continue,
    Unknown,
}

impl<'a> Directives<'a> {
    /// Takes one field in; `span` is where its value lies. Most names are told apart by length.
    #[inline]
    pub(super) fn note(
        &mut self,
        name: &[u8],
        value: &'a [u8],
        span: Span,
    ) -> Result<(), HeadError> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.note_host(value, span),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.note_expect(value);
                Ok(())
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.has_upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.note_connection(value);
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                set_once(&mut self.content_length, value, HeadError::ContentLengthDuplicate)
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                set_once(&mut self.transfer_encoding, value, HeadError::TransferEncodingInvalid)
            }
            _ => Ok(()),
        }
    }

    /// RFC 9110 section 7.2. Empty is valid: a target without an authority has none to send.
    #[inline]
    fn note_host(&mut self, value: &[u8], span: Span) -> Result<(), HeadError> {
        if !value.is_empty() && authority::parse(value).is_none() {
            return Err(HeadError::HostInvalid);
        }
        set_once(&mut self.host, span, HeadError::HostDuplicate)
    }

    /// RFC 9110 section 7.6.1. Unknown options name fields for proxies to drop.
    fn note_connection(&mut self, value: &[u8]) {
        for option in members(value) {
            self.connection.close |= option.eq_ignore_ascii_case(b"close");
            self.connection.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    /// RFC 9110 section 10.1.1.
    fn note_expect(&mut self, value: &[u8]) {
        for expectation in members(value) {
            self.expect = match self.expect {
                Expect::Unknown => Expect::Unknown,
                _ if expectation.eq_ignore_ascii_case(b"100-continue") => Expect::Continue,
                _ => Expect::Unknown,
            };
        }
    }

    /// Whether Host is there where it must be (RFC 9112 section 3.2).
    #[inline]
    pub(super) fn check_host(&self, version: Version) -> Result<(), HeadError> {
        match (version, self.host) {
            (Version::Http11, None) => Err(HeadError::HostMissing),
            _ => Ok(()),
        }
    }

    /// How the body is delimited.
    #[inline]
    pub(super) fn framing(&self, version: Version) -> Result<Framing, HeadError> {
        Framing::declared(version, self.content_length, self.transfer_encoding)
    }

    /// Whether another request may follow on the connection (RFC 9112 section 9.3).
    #[inline]
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.connection.close && (version == Version::Http11 || self.connection.keep_alive)
    }

    /// Whether the client offers protocols to upgrade to (RFC 9110 section 7.8).
    #[inline]
    pub(super) fn upgrade(&self, version: Version) -> bool {
        version == Version::Http11 && self.connection.upgrade && self.has_upgrade
    }

    /// Whether the client waits for a 100. Expect doesn't exist in HTTP/1.0, and without a body
    /// there is nothing to wait for (RFC 9110 section 10.1.1).
    #[inline]
    pub(super) fn expect_continue(
        &self,
        version: Version,
        framing: Framing,
    ) -> Result<bool, HeadError> {
        match (version, &self.expect) {
            (Version::Http10, _) | (_, Expect::Nothing) => Ok(false),
            (Version::Http11, Expect::Continue) => Ok(framing.has_body()),
            (Version::Http11, Expect::Unknown) => Err(HeadError::ExpectationUnknown),
        }
    }
}

#[inline]
fn set_once<T>(slot: &mut Option<T>, value: T, again: HeadError) -> Result<(), HeadError> {
    if slot.replace(value).is_some() { Err(again) } else { Ok(()) }
}

/// The members of a comma-separated list, empty ones left out (RFC 9110 section 5.6.1).
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}
