//! From a request's path to a name below the root. Knows no files.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The name below the root that a request's path means, without a slash at its begin; `None` for
/// what is never served: names with a NUL, a hidden slash or no UTF-8, and dotfiles. Decoded once.
pub(super) fn decode(path: &str) -> Option<Cow<'_, str>> {
    let path = path.trim_start_matches('/');
    let name = percent_decode_str(path).decode_utf8().ok()?;
    let slashes = |text: &str| memchr::memchr_iter(b'/', text.as_bytes()).count();
    let is_changed = matches!(name, Cow::Owned(_));
    let is_hidden = name.starts_with('.') || name.contains("/.");
    if is_hidden || (is_changed && (name.contains('\0') || slashes(&name) != slashes(path))) {
        return None;
    }
    Some(name)
}

/// Whether the name is that of a directory, as seen from its text alone.
pub(super) fn is_directory(name: &str) -> bool {
    name.is_empty() || name.ends_with('/')
}

/// A pattern for names below the root: `*` stands for any text, slashes included; one that begins
/// with a slash is matched with the whole path, any other with its end from some slash on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn new(text: &str) -> Option<Pattern> {
        (!text.is_empty() && !text.contains(char::is_control)).then(|| Pattern(text.to_owned()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        if let Some(whole) = self.0.strip_prefix('/') {
            return matches(whole.as_bytes(), name.as_bytes());
        }
        let slashes = name.match_indices('/').map(|(at, _)| at + 1);
        let mut starts = std::iter::once(0).chain(slashes);
        starts.any(|at| matches(self.0.as_bytes(), &name.as_bytes()[at..]))
    }
}

/// Goes back to the last star only, so the time is at most the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_hides_no_slash() {
        let path = |text| decode(text).map(Cow::into_owned);
        assert_eq!(path("/a%20b/c.txt").as_deref(), Some("a b/c.txt"));
        assert_eq!(path("//a").as_deref(), Some("a"));
        assert_eq!(path("/a%252f").as_deref(), Some("a%2f"));
        assert_eq!(path("/").as_deref(), Some(""));
        for never in ["/a%2fb", "/a%00", "/.git/config", "/a/.env", "/..", "/%2e%2e/x", "/%ff"] {
            assert_eq!(path(never), None, "{never}");
        }
        assert!(matches!(decode("/a/b.css"), Some(Cow::Borrowed("a/b.css"))), "no copy");
    }

    #[test]
    fn patterns_match_whole_paths_or_their_ends() {
        for (pattern, yes, no) in [
            ("*.css", &["a.css", "x/y/a.css"][..], &["a.css.map", "css"][..]),
            ("/assets/*", &["assets/a", "assets/b/c"], &["x/assets/a", "assets"]),
            ("/index.html", &["index.html"], &["docs/index.html"]),
            ("index.html", &["index.html", "docs/index.html"], &["myindex.html"]),
            ("*", &["", "a/b"], &[]),
            ("/a*b*c", &["abc", "a/b/xbc"], &["ab", "abcd"]),
        ] {
            let matcher = Pattern::new(pattern).unwrap();
            yes.iter().for_each(|name| assert!(matcher.matches(name), "{pattern} {name}"));
            no.iter().for_each(|name| assert!(!matcher.matches(name), "{pattern} {name}"));
        }
        let costly = Pattern::new(&"*a".repeat(100)).unwrap();
        assert!(!costly.matches(&"a".repeat(2000).replace("aaaaa", "aaaab")));
        assert!(Pattern::new("").is_none() && Pattern::new("a\n").is_none());
    }
}
