//! Files that say what to ask: lists of URLs, rows of data, access logs. Knows no flags but those
//! that name the files.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::units::Speed;
use super::{Order, PlanError};

/// `[WEIGHT] [METHOD] URL` a line; empty lines and those that begin with `#` say nothing.
pub(super) fn targets(file: &Path) -> Result<Vec<Order>, PlanError> {
    let text = read(file, "--targets")?;
    let mut orders = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let refusal =
            |why: &str| PlanError::new(&format!("--targets {}:{number}: {why}", file.display()));
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let mut weight = 1;
        if let Some(first) = words.first()
            && first.bytes().all(|byte| byte.is_ascii_digit())
        {
            weight = first.parse().ok().filter(|weight| *weight > 0).ok_or_else(|| {
                refusal(&format!("`{first}` is no weight: it goes from 1 to {}", u32::MAX))
            })?;
            words.remove(0);
        }
        let (method, url) = match words[..] {
            [url] => (None, url),
            [method, url] => (Some(method.to_owned()), url),
            _ => return Err(refusal("write [WEIGHT] [METHOD] URL")),
        };
        let url = url.parse().map_err(|error: super::Malformed| refusal(&error.to_string()))?;
        orders.push(Order { weight, method, url });
    }
    Ok(orders)
}

/// A table of data: the first line names the columns.
pub(super) struct Table {
    names: csv::StringRecord,
    rows: Vec<csv::StringRecord>,
}

impl Table {
    pub(super) fn read(file: &Path) -> Result<Table, PlanError> {
        let refusal = |why: &str| PlanError::flag("--csv", &file.display().to_string(), why);
        let mut reader = csv::Reader::from_path(file).map_err(|e| refusal(&e.to_string()))?;
        let names = reader.headers().map_err(|e| refusal(&e.to_string()))?.clone();
        let rows: Result<Vec<_>, _> = reader.records().collect();
        let rows = rows.map_err(|error| refusal(&error.to_string()))?;
        if rows.is_empty() {
            return Err(refusal("it has no row below the line with the columns' names"));
        }
        Ok(Table { names, rows })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter()
    }

    /// Each row, as what to fill in.
    pub(super) fn rows(&self) -> impl Iterator<Item = Vec<(&str, &str)>> {
        self.rows.iter().map(|row| self.names.iter().zip(row).collect())
    }
}

/// An access log in the common or the combined format.
pub(super) struct Log {
    /// Each different request: method and target.
    pub(super) requests: Vec<(String, String)>,
    /// When each is due, in nanoseconds from the first, and which of the requests it is.
    pub(super) times: Arc<[u64]>,
    pub(super) order: Arc<[u32]>,
    /// Lines that couldn't be used.
    pub(super) left_out: usize,
}

impl Log {
    /// The log's times are whole seconds; what happened in one is spread evenly over it.
    pub(super) fn read(file: &Path, speed: Speed) -> Result<Log, PlanError> {
        let text = read(file, "--replay")?;
        let (mut entries, mut requests, mut left_out) = (Vec::new(), Vec::new(), 0);
        let mut known: HashMap<(&str, &str), u32> = HashMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let Some((second, method, target)) = entry(line) else {
                left_out += 1;
                continue;
            };
            let request = *known.entry((method, target)).or_insert_with(|| {
                requests.push((method.to_owned(), target.to_owned()));
                requests.len() as u32 - 1
            });
            entries.push((second, request));
        }
        if entries.is_empty() {
            return Err(PlanError::flag(
                "--replay",
                &file.display().to_string(),
                "it has no line of the common or combined log format with a GET or HEAD",
            ));
        }
        entries.sort_by_key(|(second, _)| *second); // a log is in the order of the answers
        let begin = entries[0].0;
        let mut times = Vec::with_capacity(entries.len());
        for same in entries.chunk_by(|(a, _), (b, _)| a == b) {
            for index in 0..same.len() {
                let seconds = (same[0].0 - begin) as f64 + index as f64 / same.len() as f64;
                times.push((seconds / speed.0 * 1e9) as u64);
            }
        }
        let order = entries.into_iter().map(|(_, request)| request).collect();
        Ok(Log { requests, times: times.into(), order, left_out })
    }
}

/// The time, method and target of a line such as
/// `1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 200 2326`.
fn entry(line: &str) -> Option<(i64, &str, &str)> {
    let (_, rest) = line.split_once('[')?;
    let (time, rest) = rest.split_once(']')?;
    let (_, rest) = rest.split_once('"')?;
    let (request, _) = rest.split_once('"')?;
    let mut words = request.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_request = version.starts_with("HTTP/")
        && words.next().is_none()
        && matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS")
        && target.starts_with('/')
        && target.bytes().all(|byte| byte.is_ascii_graphic());
    if is_request { Some((seconds(time)?, method, target)) } else { None }
}

/// `10/Oct/2000:13:55:36 -0700`, in seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (local, zone) = text.split_once(' ')?;
    let mut parts = local.split(['/', ':']);
    let mut number = |least: i64, most: i64| {
        parts.next()?.parse().ok().filter(|number: &i64| (least..=most).contains(number))
    };
    let day = number(1, 31)?;
    let (month, rest) = local.get(3..)?.split_once('/')?;
    let month = MONTHS.iter().position(|name| *name == month)? as i64;
    let mut parts = rest.split(':');
    let mut number = |least: i64, most: i64| {
        parts.next()?.parse().ok().filter(|number: &i64| (least..=most).contains(number))
    };
    let year = number(1970, 9999)?;
    let (hour, minute, second) = (number(0, 23)?, number(0, 59)?, number(0, 60)?);
    let (sign, zone) = match zone.split_at_checked(1)? {
        ("+", zone) => (1, zone),
        ("-", zone) => (-1, zone),
        _ => return None,
    };
    let zone: i64 = zone.parse().ok()?;
    let ahead = sign * (zone / 100 * 3600 + zone % 100 * 60);
    // Days from the civil calendar, with years that begin in March, so that leap days come last.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let since_1970 = days - 719_468;
    Some(since_1970 * 86_400 + hour * 3600 + minute * 60 + second - ahead)
}

fn read(file: &Path, flag: &'static str) -> Result<String, PlanError> {
    fs::read_to_string(file).map_err(|error| {
        PlanError::flag(flag, &file.display().to_string(), &format!("cannot read it: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_logs_are_seconds_of_the_epoch() {
        for (text, expected) in [
            ("10/Oct/2000:13:55:36 -0700", Some(971_211_336)),
            ("01/Jan/1970:00:00:00 +0000", Some(0)),
            ("29/Feb/2024:12:00:00 +0100", Some(1_709_204_400)),
            ("31/Dec/1999:23:59:59 +0000", Some(946_684_799)),
            ("10/Foo/2000:13:55:36 -0700", None),
            ("10/Oct/2000:25:55:36 -0700", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_that_are_no_requests_are_none() {
        let line =
            |request: &str| format!("h - - [10/Oct/2000:13:55:36 -0700] \"{request}\" 200 1");
        assert_eq!(
            entry(&line("GET /a?b HTTP/1.1")).map(|(_, method, target)| (method, target)),
            Some(("GET", "/a?b"))
        );
        for request in
            ["", "-", "POST /a HTTP/1.1", "GET a HTTP/1.1", "GET /a", "GET /a b HTTP/1.1"]
        {
            assert_eq!(entry(&line(request)), None, "{request}");
        }
        assert_eq!(entry("no log line"), None);
    }
}
