//! Conditional requests (RFC 9110 section 13): what the fields of a request make of it, given the
//! validators of what it asks for. Knows no files.

use std::time::SystemTime;

use crate::http::{Method, Request};

/// What identifies the selected representation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validators<'a> {
    /// A strong one, with its quotes.
    pub(super) etag: &'a str,
    /// In whole seconds.
    pub(super) modified: SystemTime,
    /// Whether that can tell two versions apart: it lies at least a second before this response
    /// (RFC 9110 section 8.8.2.2).
    pub(super) is_date_strong: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is answered as if there were no conditions; `range` says whether Range counts.
    Proceed { range: bool },
    /// 304
    NotModified,
    /// 412
    Failed,
}

/// Which of the fields a request has, found in one pass: most have none.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Fields {
    if_match: bool,
    if_none_match: bool,
    if_modified_since: bool,
    if_unmodified_since: bool,
    if_range: bool,
    range: bool,
    pub(super) accept_encoding: bool,
}

impl Fields {
    pub(super) fn of(request: &Request) -> Fields {
        let mut fields = Fields::default();
        for (name, _) in request.headers() {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            match name.len() {
                5 => fields.range |= is("range"),
                8 => {
                    fields.if_match |= is("if-match");
                    fields.if_range |= is("if-range");
                }
                13 => fields.if_none_match |= is("if-none-match"),
                15 => fields.accept_encoding |= is("accept-encoding"),
                17 => fields.if_modified_since |= is("if-modified-since"),
                19 => fields.if_unmodified_since |= is("if-unmodified-since"),
                _ => {}
            }
        }
        fields
    }

    /// Evaluates the conditions in the order of RFC 9110 section 13.2.2.
    pub(super) fn evaluate(self, request: &Request, validators: Validators<'_>) -> Verdict {
        let Validators { etag, modified, .. } = validators;
        if self.if_match {
            if !values(request, "if-match").any(|tags| has_tag(tags, etag, Comparison::Strong)) {
                return Verdict::Failed;
            }
        } else if self.if_unmodified_since
            && date(request, "if-unmodified-since").is_some_and(|date| modified > date)
        {
            return Verdict::Failed;
        }
        if self.if_none_match {
            if values(request, "if-none-match").any(|tags| has_tag(tags, etag, Comparison::Weak)) {
                return Verdict::NotModified;
            }
        } else if self.if_modified_since
            && date(request, "if-modified-since").is_some_and(|date| modified <= date)
        {
            return Verdict::NotModified;
        }
        let is_get = request.method() == Method::Get; // RFC 9110 section 14.2
        let range = self.range && is_get && (!self.if_range || holds(request, validators));
        Verdict::Proceed { range }
    }
}

/// Whether If-Range holds (RFC 9110 section 13.1.5).
fn holds(request: &Request, validators: Validators<'_>) -> bool {
    let mut fields = values(request, "if-range");
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    if field.starts_with(b"\"") || field.starts_with(b"W/") {
        return field == validators.etag.as_bytes(); // a weak one is none
    }
    validators.is_date_strong && parse_date(field) == Some(validators.modified)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity-tags has this strong one, or is `*` (RFC 9110 section 8.8.3.2). What is
/// malformed ends the list.
fn has_tag(mut list: &[u8], etag: &str, comparison: Comparison) -> bool {
    if list == b"*" {
        return true;
    }
    loop {
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let (is_weak, tag) = match list.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, list),
        };
        let Some(end) = tag.strip_prefix(b"\"").and_then(|tag| memchr::memchr(b'"', tag)) else {
            return false;
        };
        let (tag, rest) = tag.split_at(end + 2);
        if tag == etag.as_bytes() && !(is_weak && comparison == Comparison::Strong) {
            return true;
        }
        let rest = rest.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return false;
        }
        list = rest;
    }
}

/// The date of a field; none when it is there twice, or no date: then it is ignored.
fn date(request: &Request, name: &'static str) -> Option<SystemTime> {
    let mut values = values(request, name);
    let date = parse_date(values.next()?)?;
    values.next().is_none().then_some(date)
}

fn parse_date(field: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(field).ok()?).ok()
}

pub(super) fn values<'a>(
    request: &'a Request,
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> {
    let is_named = move |(found, _): &(&str, &[u8])| found.eq_ignore_ascii_case(name);
    request.headers().filter(is_named).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_lists_and_compared_as_asked() {
        use Comparison::{Strong, Weak};
        for (list, strong, weak) in [
            (r#""a""#, true, true),
            (r#"W/"a""#, false, true),
            (r#""b", "a""#, true, true),
            (r#""b",W/"c" ,	"a""#, true, true),
            (r#",, "a","#, true, true),
            ("*", true, true),
            (r#""A""#, false, false),
            ("a", false, false),
            (r#""b" "a""#, false, false),
            (r#"x"a""#, false, false),
            (r#"w/"a""#, false, false),
            (r#""a"#, false, false),
            (r#""b,"a""#, false, false),
            ("", false, false),
            (r#"*, "b""#, false, false),
        ] {
            assert_eq!(has_tag(list.as_bytes(), r#""a""#, Strong), strong, "{list}");
            assert_eq!(has_tag(list.as_bytes(), r#""a""#, Weak), weak, "{list}");
        }
    }

    #[test]
    fn all_three_forms_of_a_date_are_read() {
        let expected = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(text.as_bytes()), Some(expected), "{text}");
        }
        assert_eq!(parse_date(b"yesterday"), None);
        assert_eq!(parse_date(b"\xff"), None);
    }
}
