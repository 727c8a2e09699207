//! What an answer must be to count as one. Compares no bodies.

use std::fmt;
use std::str::FromStr;

use super::super::record::Fault;
use super::super::scan::Reply;
use super::units::Malformed;

/// What every answer must be: `200`, `200|304`, `2xx`, `bytes=13`, and several with commas.
///
/// ```
/// use uring_pool::bench::Expect;
///
/// assert!("200,bytes=13".parse::<Expect>().is_ok());
/// assert!("teapot".parse::<Expect>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expect {
    /// From, to: inclusive.
    statuses: Vec<(u16, u16)>,
    body_bytes: Option<u64>,
}

impl Default for Expect {
    /// Anything but an error: a status below 400.
    fn default() -> Expect {
        Expect { statuses: vec![(200, 399)], body_bytes: None }
    }
}

impl Expect {
    /// What is wrong with a reply.
    #[inline]
    pub(in super::super) fn fault(&self, reply: &Reply) -> Option<Fault> {
        if !self.statuses.iter().any(|(from, to)| (*from..=*to).contains(&reply.status)) {
            return Some(Fault::Status);
        }
        match self.body_bytes {
            Some(bytes) if bytes != reply.body_bytes => Some(Fault::Body),
            _ => None,
        }
    }
}

impl FromStr for Expect {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Expect, Malformed> {
        let mut expect = Expect { statuses: Vec::new(), body_bytes: None };
        for part in text.split(',') {
            if let Some(bytes) = part.strip_prefix("bytes=") {
                let bytes = bytes.parse().map_err(|_| refusal(part))?;
                expect.body_bytes = Some(bytes);
                continue;
            }
            for status in part.split('|') {
                expect.statuses.push(statuses(status).ok_or_else(|| refusal(part))?);
            }
        }
        if expect.statuses.is_empty() {
            expect.statuses = Expect::default().statuses;
        }
        Ok(expect)
    }
}

fn refusal(part: &str) -> Malformed {
    Malformed(format!("`{part}` is none of a status (200, 200|304, 2xx) and bytes=N"))
}

fn statuses(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (2..=5).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let status = text.parse().ok().filter(|status| (200..600).contains(status))?;
    Some((status, status))
}

impl fmt::Display for Expect {
    /// Follows "expected", as in "a status of 200 and a body of 13 bytes".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<String> = self
            .statuses
            .iter()
            .map(|(from, to)| if from == to { from.to_string() } else { format!("{from} to {to}") })
            .collect();
        write!(f, "a status of {}", statuses.join(" or "))?;
        match self.body_bytes {
            Some(bytes) => write!(f, " and a body of {bytes} bytes"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body_bytes: u64) -> Reply {
        Reply { status, body_bytes, wire_bytes: 0, keeps_alive: true }
    }

    #[test]
    fn expectations_are_met_or_name_what_is_not() {
        let check = |text: &str, status, bytes| {
            text.parse::<Expect>().unwrap().fault(&reply(status, bytes))
        };
        assert_eq!(check("200,bytes=13", 200, 13), None);
        assert_eq!(check("200,bytes=13", 201, 13), Some(Fault::Status));
        assert_eq!(check("200,bytes=13", 200, 12), Some(Fault::Body));
        assert_eq!(check("bytes=0", 304, 0), None);
        assert_eq!(check("bytes=0", 404, 0), Some(Fault::Status));
        assert_eq!((check("200|304", 304, 1), check("4xx", 404, 1)), (None, None));
        assert_eq!(Expect::default().fault(&reply(399, 1)), None);
        assert_eq!(Expect::default().fault(&reply(500, 1)), Some(Fault::Status));
        for text in ["", "20", "100", "6xx", "xx", "200,", "bytes=", "bytes=x", "ok"] {
            assert!(text.parse::<Expect>().is_err(), "{text}");
        }
        let text = "200|2xx,bytes=1".parse::<Expect>().unwrap().to_string();
        assert_eq!(text, "a status of 200 or 200 to 299 and a body of 1 bytes");
    }
}
