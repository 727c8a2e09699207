//! The byte classes of HTTP's grammar, in one table. Knows no messages.

/// `tchar`: what methods and field names are made of (RFC 9110 section 5.6.2).
pub(super) const TOKEN: u8 = 1;
/// HTAB, SP, VCHAR and obs-text: what field values are made of (RFC 9110 section 5.5).
pub(super) const VALUE: u8 = 2;
/// Visible ASCII but `#`: what a request-target is made of. Wider than RFC 3986, as browsers send
/// `|`, `{` and their like unescaped; a fragment never travels (RFC 9112 section 3.2).
pub(super) const TARGET: u8 = 4;
/// `TARGET` but `?`, which ends a path (RFC 3986 section 3.3).
pub(super) const PATH: u8 = 8;
/// `unreserved` and `sub-delims` without the comma, which would make a list of hosts out of one
/// (RFC 3986 section 3.2.2).
pub(super) const REG_NAME: u8 = 16;

/// Whether `name` can stand as a field's name: a token (RFC 9110 section 5.1).
#[inline]
pub fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty() && run_len(name, TOKEN) == name.len()
}

/// Whether `value` can stand as a field's value: no control byte but HTAB (RFC 9110 section 5.5).
#[inline]
pub fn is_field_value(value: &[u8]) -> bool {
    // Counted instead of searched: without an early exit the compiler makes vector code of it.
    let is_wrong = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    value.iter().filter(|&&byte| is_wrong(byte)).count() == 0
}

/// Whether `byte` belongs to `class`.
#[inline]
pub(super) const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// How many bytes belong to `class` before the first that doesn't.
#[inline]
pub(super) fn run_len(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|&byte| !is(byte, class)).unwrap_or(bytes.len())
}

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut index = 0;
    while index < classes.len() {
        let byte = index as u8;
        if byte.is_ascii_alphanumeric() {
            classes[index] |= TOKEN | REG_NAME;
        }
        if is_in(byte, b"!#$%&'*+-.^_`|~") {
            classes[index] |= TOKEN;
        }
        if is_in(byte, b"-._~!$&'()*+;=") {
            classes[index] |= REG_NAME;
        }
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            classes[index] |= VALUE;
        }
        if byte.is_ascii_graphic() && byte != b'#' {
            classes[index] |= if byte == b'?' { TARGET } else { TARGET | PATH };
        }
        index += 1;
    }
    classes
};

const fn is_in(byte: u8, set: &[u8]) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_grammar() {
        for byte in 0..=u8::MAX {
            let tchar = byte.is_ascii_graphic() && !br#""(),/:;<=>?@[\]{}"#.contains(&byte);
            assert_eq!(is(byte, TOKEN), tchar, "{byte:#x}");
            assert_eq!(is_field_name(&[byte]), tchar, "{byte:#x}");

            let value = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
            assert_eq!(is(byte, VALUE), value, "{byte:#x}");
            assert_eq!(is_field_value(&[b'a', byte, b'z']), value, "{byte:#x}");

            assert_eq!(is(byte, TARGET), (0x21..0x7f).contains(&byte) && byte != b'#');
        }
        assert!(!is_field_name(b""));
        assert!(is_field_value(b""));
    }
}
