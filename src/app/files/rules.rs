//! What is said of a file by its name alone: type, caching, whether it is a download.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::path::Pattern;
use crate::proto::h1::is_field_value;

/// A value of Cache-Control for the files of some names, written `PATTERN: VALUE`.
///
/// In the pattern, `*` stands for any text. One that begins with a slash is the whole path of a
/// file, any other one the end of it: `/assets/*`, `*.css`, `index.html`.
///
/// ```
/// use uring_pool::app::files::CacheRule;
///
/// let rule: CacheRule = "/assets/*: public, max-age=31536000, immutable".parse().unwrap();
/// assert!("/assets/*".parse::<CacheRule>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheRule {
    pattern: Pattern,
    value: String,
}

impl FromStr for CacheRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<CacheRule, InvalidRule> {
        let invalid = || InvalidRule(text.to_owned());
        let (pattern, value) = text.split_once(':').ok_or_else(invalid)?;
        let (pattern, value) = (pattern.trim(), value.trim());
        if value.is_empty() || !is_field_value(value.as_bytes()) {
            return Err(invalid());
        }
        let pattern = Pattern::new(pattern).ok_or_else(invalid)?;
        Ok(CacheRule { pattern, value: value.to_owned() })
    }
}

impl fmt::Display for CacheRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pattern.text(), self.value)
    }
}

/// Text that is no [`CacheRule`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidRule(String);

impl fmt::Display for InvalidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no rule such as `*.css: max-age=3600`", self.0)
    }
}

impl std::error::Error for InvalidRule {}

#[derive(Clone, Default, Debug)]
pub(super) struct Rules {
    pub(super) cache_control: Vec<CacheRule>,
    pub(super) downloads: Vec<Pattern>,
}

impl Rules {
    /// The value of the first rule that matches.
    pub(super) fn cache_control(&self, name: &str) -> Option<&str> {
        let rule = self.cache_control.iter().find(|rule| rule.pattern.matches(name))?;
        Some(&rule.value)
    }

    pub(super) fn is_download(&self, name: &str) -> bool {
        self.downloads.iter().any(|pattern| pattern.matches(name))
    }

    /// By the extension; what is text says its charset.
    pub(super) fn content_type(name: &str) -> Cow<'static, str> {
        match mime_guess::from_path(name).first_raw() {
            Some(text) if text.starts_with("text/") || text == "application/javascript" => {
                Cow::Owned(format!("{text}; charset=utf-8"))
            }
            Some(other) => Cow::Borrowed(other),
            None => Cow::Borrowed("application/octet-stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_text_say_their_charset() {
        let content_type = Rules::content_type;
        assert_eq!(content_type("a.html"), "text/html; charset=utf-8");
        assert_eq!(content_type("b/a.png"), "image/png");
        assert_eq!(content_type("a"), "application/octet-stream");
    }

    #[test]
    fn the_first_rule_that_matches_counts_and_is_written_as_it_was_read() {
        let rule = |text: &str| text.parse::<CacheRule>();
        let rules = Rules {
            cache_control: vec![rule("/a/*:no-store").unwrap(), rule("*: max-age=60").unwrap()],
            downloads: Vec::new(),
        };
        assert_eq!(rules.cache_control("a/b.css"), Some("no-store"));
        assert_eq!(rules.cache_control("b.css"), Some("max-age=60"));
        assert_eq!(rules.cache_control[0].to_string(), "/a/*: no-store");
        for wrong in ["", "*.css", "*.css:", ": no-store", "*.css: a\u{7}b", "a\nb: c"] {
            let refusal = rule(wrong).unwrap_err().to_string();
            assert!(refusal.contains("is no rule such as"), "{refusal}");
        }
    }
}
