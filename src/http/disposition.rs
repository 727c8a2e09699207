//! Names for what is downloaded: Content-Disposition (RFC 6266) with names in any script (RFC 8187).

use std::fmt::Write as _;

/// The value of Content-Disposition that has a client save a response under this name. Any text is
/// a name; what no name can have, control characters and slashes, becomes `_`.
///
/// A name with other than plain characters is given twice: in ASCII for old clients, and whole.
pub(crate) fn attachment(name: &str) -> String {
    let clean = |c: char| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c };
    let name: String = name.chars().map(clean).collect();
    let mut value = String::from("attachment; filename=\"");
    for c in name.chars() {
        match c {
            // A percent sign, since some decode it here as well (RFC 6266 appendix D).
            '"' | '%' => value.push('_'),
            ' '..='~' => value.push(c),
            _ => value.push('_'),
        }
    }
    value.push('"');
    if !name.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'%')) {
        value.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                value.push(char::from(byte)); // attr-char, RFC 8187 section 3.2.1
            } else {
                write!(value, "%{byte:02X}").expect("a string takes everything");
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::attachment;
    use crate::proto::h1::is_field_value;

    #[test]
    fn names_survive_in_old_and_new_clients() {
        for (name, value) in [
            ("a.txt", r#"attachment; filename="a.txt""#),
            ("a b.txt", r#"attachment; filename="a b.txt""#),
            (
                "\u{20ac} rates.txt", // RFC 8187 section 3.2.2
                r#"attachment; filename="_ rates.txt"; filename*=UTF-8''%E2%82%AC%20rates.txt"#,
            ),
            ("a\"b", r#"attachment; filename="a_b"; filename*=UTF-8''a%22b"#),
            ("100%.txt", r#"attachment; filename="100_.txt"; filename*=UTF-8''100%25.txt"#),
            ("../x", r#"attachment; filename=".._x""#),
            ("a\r\nSet-Cookie: x", r#"attachment; filename="a__Set-Cookie: x""#),
        ] {
            assert_eq!(attachment(name), value);
        }
    }

    #[test]
    fn no_name_leaves_its_field() {
        for c in (0..0x2100_u32).filter_map(char::from_u32) {
            let value = attachment(&format!("a{c}b"));
            assert!(is_field_value(value.as_bytes()) && value.is_ascii(), "{c:?}: {value}");
            assert_eq!(value.matches('"').count(), 2, "{value}");
        }
    }
}
