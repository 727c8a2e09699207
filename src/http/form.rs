//! `application/x-www-form-urlencoded`: pairs of queries and forms, and values made of them.
//! Writes none.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;
use serde::de::value::{Error, MapDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The decoded pairs (WHATWG URL, section 5.1): `+` is a space, a name without `=` has an empty
/// value, and what isn't UTF-8 becomes U+FFFD.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    text.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let equals = memchr::memchr(b'=', pair);
        let (name, value) = equals.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        (decode(name), decode(value))
    })
}

/// The value that the pairs of a form make.
pub(super) fn from_bytes<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let pairs = pairs(text).map(|(name, value)| (Part(name), Part(value)));
    T::deserialize(MapDeserializer::new(pairs))
}

fn decode(text: &[u8]) -> Cow<'_, str> {
    if memchr::memchr2(b'+', b'%', text).is_none() {
        return String::from_utf8_lossy(text);
    }
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_decode(&spaced).decode_utf8_lossy().into_owned())
}

/// A name or a value, which is whatever its text can be read as.
struct Part<'a>(Cow<'a, str>);

impl IntoDeserializer<'_> for Part<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! read_from_text {
    ($($deserialize:ident $visit:ident)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let value = self.0.parse().map_err(|error| unreadable(&self.0, &error))?;
            visitor.$visit(value)
        })*
    };
}

impl<'de> Deserializer<'de> for Part<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0.into_owned())
    }

    read_from_text! {
        deserialize_bool visit_bool
        deserialize_u8 visit_u8
        deserialize_u16 visit_u16
        deserialize_u32 visit_u32
        deserialize_u64 visit_u64
        deserialize_i8 visit_i8
        deserialize_i16 visit_i16
        deserialize_i32 visit_i32
        deserialize_i64 visit_i64
        deserialize_f32 visit_f32
        deserialize_f64 visit_f64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.0.into_owned().into_deserializer())
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

fn unreadable(text: &str, error: &impl fmt::Display) -> Error {
    Error::custom(format_args!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let pairs = |text: &'static str| -> Vec<(String, String)> {
            let owned = |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into(), value.into());
            pairs(text.as_bytes()).map(owned).collect()
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("a=b&&c"), [pair("a", "b"), pair("c", "")]);
        assert_eq!(pairs("a+b=%63+%26&=x=y"), [pair("a b", "c &"), pair("", "x=y")]);
        assert_eq!(pairs("%=%4&a=%ff"), [pair("%", "%4"), pair("a", "\u{fffd}")]);
    }

    #[derive(serde::Deserialize, PartialEq, Debug)]
    struct Order {
        what: String,
        count: u16,
        price: Option<f64>,
        #[serde(default)]
        gift: bool,
        size: Size,
    }

    #[derive(serde::Deserialize, PartialEq, Debug)]
    #[serde(rename_all = "lowercase")]
    enum Size {
        Small,
        Large,
    }

    #[test]
    fn a_form_makes_a_value() {
        let order: Order = from_bytes(b"what=a+cup&count=2&price=1.5&size=large&x=y").unwrap();
        let what = "a cup".to_owned();
        let expected = Order { what, count: 2, price: Some(1.5), gift: false, size: Size::Large };
        assert_eq!(order, expected);
        let pairs: Vec<(String, u8)> = from_bytes(b"a=1&b=2&a=3").unwrap();
        assert_eq!(pairs, [("a".to_owned(), 1), ("b".to_owned(), 2), ("a".to_owned(), 3)]);
    }

    #[test]
    fn what_makes_no_value_is_named() {
        for (text, words) in [
            ("what=x&count=-1&size=small", "`-1`: invalid digit"),
            ("what=x&count=70000&size=small", "`70000`: number too large"),
            ("what=x&size=small", "missing field `count`"),
            ("what=x&count=1&size=huge", "unknown variant `huge`"),
            ("what=x&what=y&count=1&size=small", "duplicate field `what`"),
        ] {
            let error = from_bytes::<Order>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
