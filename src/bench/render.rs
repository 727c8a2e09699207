//! Requests as bytes, made before the run. Reads no files, opens no sockets.

use bytes::Bytes;

use crate::proto::h1::{is_field_name, is_field_value};

/// A request, ready to be sent as often as one likes.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    /// One after which another may follow.
    pub(super) keep: Bytes,
    /// One that asks the server to close; the same where nobody will ask so.
    pub(super) close: Bytes,
    /// Which of the targets it belongs to.
    pub(super) target: u32,
    /// Its answer has no body.
    pub(super) is_head: bool,
}

/// A request before its placeholders are filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Draft {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) authority: String,
    /// In order; one of an empty value that was given without one is left out.
    pub(super) fields: Vec<Field>,
    /// With the type that it is said to be of, unless a field says otherwise.
    pub(super) body: Option<(Vec<u8>, &'static str, String)>,
}

/// A header line, as `-H` has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// `None`: not even the one that would be there otherwise.
    pub(super) value: Option<String>,
}

impl Field {
    pub(super) fn new(name: &str, value: &str) -> Field {
        Field { name: name.into(), value: Some(value.into()) }
    }

    /// Reads `Name: value`, `Name:` (leaves it out) or `Name;` (an empty value), as curl has it.
    pub(super) fn parse(text: &str) -> Option<Field> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, value.trim()),
            None => (text.strip_suffix(';')?, ";"),
        };
        let value = match value {
            "" => None,
            ";" if !text.contains(':') => Some(String::new()),
            value => Some(value.to_owned()),
        };
        let is_valid = is_field_name(name.as_bytes())
            && value.as_ref().is_none_or(|value| is_field_value(value.as_bytes()));
        is_valid.then(|| Field { name: name.to_owned(), value })
    }
}

/// A column's name and its value in one row.
pub(super) type Filling<'a> = (&'a str, &'a str);

impl Draft {
    /// The bytes of the request, with each `{name}` filled in.
    pub(super) fn render(&self, fillings: &[Filling<'_>], closes: bool) -> Bytes {
        let fill = |text: &str| fill(text, fillings);
        let has = |name: &str| self.fields.iter().any(|it| it.name.eq_ignore_ascii_case(name));
        let target = fill_target(&self.target, fillings);
        let mut head = format!("{} {target} HTTP/1.1\r\n", self.method);
        let mut line = |name: &str, value: &str| {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        };
        if !has("host") {
            line("Host", &self.authority);
        }
        let filled: Vec<u8>;
        let body: &[u8] = match &self.body {
            None => &[],
            Some((body, ..)) if fillings.is_empty() => body,
            Some((body, ..)) => {
                filled = fill_bytes(body, fillings);
                &filled
            }
        };
        if let Some((_, kind, parameter)) = &self.body
            && !has("content-type")
        {
            line("Content-Type", &format!("{kind}{parameter}"));
        }
        let wants_length = self.body.is_some() || matches!(&*self.method, "POST" | "PUT" | "PATCH");
        if wants_length && !has("content-length") && !has("transfer-encoding") {
            line("Content-Length", &body.len().to_string());
        }
        if closes && !has("connection") {
            line("Connection", "close");
        }
        for field in &self.fields {
            if let Some(value) = &field.value {
                line(&field.name, &fill(value));
            }
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes.into()
    }

    /// The placeholders that occur in it, of these names.
    pub(super) fn uses(&self, name: &str) -> bool {
        let placeholder = format!("{{{name}}}");
        let in_body = |body: &[u8]| memchr::memmem::find(body, placeholder.as_bytes()).is_some();
        // In a target that was typed as a URL, braces stand as they are.
        self.target.contains(&placeholder)
            || self
                .fields
                .iter()
                .any(|f| f.value.as_ref().is_some_and(|v| v.contains(&placeholder)))
            || self.body.as_ref().is_some_and(|(body, ..)| in_body(body))
    }
}

fn fill(text: &str, fillings: &[Filling<'_>]) -> String {
    let mut filled = text.to_owned();
    for (name, value) in fillings {
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        filled = filled.replace(&format!("{{{name}}}"), &value);
    }
    filled
}

/// What is filled into a target is data, not syntax: it is percent-encoded but for what is
/// unreserved (RFC 3986 section 2.3) and slashes.
fn fill_target(target: &str, fillings: &[Filling<'_>]) -> String {
    const DATA: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'/');
    let mut filled = target.to_owned();
    for (name, value) in fillings {
        let value = percent_encoding::utf8_percent_encode(value, DATA).to_string();
        filled = filled.replace(&format!("{{{name}}}"), &value);
    }
    filled
}

fn fill_bytes(body: &[u8], fillings: &[Filling<'_>]) -> Vec<u8> {
    let mut filled = body.to_vec();
    for (name, value) in fillings {
        let placeholder = format!("{{{name}}}");
        let mut rest = filled.as_slice();
        let mut next = Vec::with_capacity(filled.len());
        while let Some(at) = memchr::memmem::find(rest, placeholder.as_bytes()) {
            next.extend_from_slice(&rest[..at]);
            next.extend_from_slice(value.as_bytes());
            rest = &rest[at + placeholder.len()..];
        }
        next.extend_from_slice(rest);
        filled = next;
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft {
            method: "GET".into(),
            target: "/a?b".into(),
            authority: "h:8080".into(),
            fields: Vec::new(),
            body: None,
        }
    }

    fn text(draft: &Draft, fillings: &[Filling<'_>], closes: bool) -> String {
        String::from_utf8(draft.render(fillings, closes).to_vec()).unwrap()
    }

    #[test]
    fn a_plain_request_has_as_few_lines_as_can_be() {
        assert_eq!(text(&draft(), &[], false), "GET /a?b HTTP/1.1\r\nHost: h:8080\r\n\r\n");
        let closing = "GET /a?b HTTP/1.1\r\nHost: h:8080\r\nConnection: close\r\n\r\n";
        assert_eq!(text(&draft(), &[], true), closing);
    }

    #[test]
    fn fields_are_added_replace_or_take_away() {
        let mut draft = draft();
        draft.method = "POST".into();
        draft.body = Some((b"a=b".to_vec(), "application/x-www-form-urlencoded", String::new()));
        let form = "POST /a?b HTTP/1.1\r\nHost: h:8080\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b";
        assert_eq!(text(&draft, &[], false), form);
        draft.fields = ["host: other", "content-type:", "X-Empty;", "x: y:z"]
            .map(|field| Field::parse(field).unwrap())
            .to_vec();
        assert_eq!(
            text(&draft, &[], false),
            "POST /a?b HTTP/1.1\r\nContent-Length: 3\r\nhost: other\r\nX-Empty: \r\nx: y:z\r\n\r\na=b"
        );
        for wrong in ["", "no colon", "a b: c", ": x", "x: a\r\nb: c", "x: \0"] {
            assert_eq!(Field::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn placeholders_are_filled_in_everywhere_and_stay_data() {
        let mut draft = draft();
        draft.target = "/u/{id}?q={q}&{other}".into();
        draft.fields = vec![Field::new("X-Id", "<{id}>")];
        draft.body = Some((b"{\"id\":\"{id}\"}".to_vec(), "application/json", String::new()));
        let fillings = [("id", "7"), ("q", "a b&c\r\n")];
        let got = text(&draft, &fillings, false);
        assert!(got.starts_with("GET /u/7?q=a%20b%26c%0D%0A&{other} HTTP/1.1\r\n"), "{got}");
        assert!(got.contains("X-Id: <7>\r\n") && got.ends_with("\r\n\r\n{\"id\":\"7\"}"), "{got}");
        assert!(draft.uses("id") && draft.uses("q") && !draft.uses("x"));
    }
}
