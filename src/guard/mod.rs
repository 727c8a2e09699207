//! What stands between strangers and handlers, and is no connection's own business: rates, request
//! ids, lines of the access log, the memory that connections hold together. Knows no connections,
//! no processes and no clock.

mod id;
mod line;
mod lines;
mod rate;

use std::time::SystemTime;

pub use id::RequestId;
pub(crate) use id::{Ids, Kind as IdKind, MadeId, is_usable as is_usable_id};
pub(crate) use line::{LINE_BYTES_MAX, Line, RequestPart};
pub(crate) use lines::Lines;
pub(crate) use rate::{Quota, RateTable, Verdict};

/// What the connections of a worker share for their protection.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) ids: Ids,
    /// How often each client may ask, if that is limited.
    pub(crate) rate: Option<Rate>,
    /// Lines for the access log, if there is one.
    pub(crate) lines: Option<Lines>,
    pub(crate) memory: Memory,
    /// Field lines for the response that is being written.
    pub(crate) fields: Vec<u8>,
    /// The response whose head was written last.
    pub(crate) answered: Answered,
}

/// What a line of the access log tells of a response.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// Of the body, as far as that is known beforehand.
    pub(crate) body_bytes: u64,
}

impl Guard {
    /// A guard without limits, whose ids begin with `seed`.
    pub(crate) fn new(seed: u64) -> Guard {
        Guard {
            ids: Ids::new(seed),
            rate: None,
            lines: None,
            memory: Memory { held: 0, bytes_max: u64::MAX },
            fields: Vec::new(),
            answered: Answered::default(),
        }
    }

    /// Another second has begun.
    pub(crate) fn set_time(&mut self, time: SystemTime) {
        if let Some(lines) = &mut self.lines {
            lines.set_time(time);
        }
    }
}

/// The limit of each client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) table: RateTable,
    pub(crate) quota: Quota,
    /// Whether every response tells.
    pub(crate) has_headers: bool,
}

/// What connections hold in memory together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    held: u64,
    bytes_max: u64,
}

impl Memory {
    pub(crate) fn new(bytes_max: u64) -> Memory {
        Memory { held: 0, bytes_max }
    }

    /// A connection that held so many bytes holds that many now.
    #[inline]
    pub(crate) fn change(&mut self, before: u32, after: u32) {
        self.held = self.held + u64::from(after) - u64::from(before);
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Whether there is no room for new work.
    #[inline]
    pub(crate) fn is_short(&self) -> bool {
        self.held > self.bytes_max
    }
}

/// Appends the fields by which a client can tell how much it may still ask: those of
/// draft-ietf-httpapi-ratelimit-headers-10, and the ones that everybody had before. `now` is in
/// seconds since 1970.
pub(crate) fn write_rate_fields(quota: &Quota, verdict: &Verdict, now: u64, out: &mut Vec<u8>) {
    let mut number = |text: &[u8], value: u64| {
        out.extend_from_slice(text);
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    };
    let (limit, remaining) = (quota.requests.into(), verdict.remaining.into());
    let reset = verdict.reset.as_millis().div_ceil(1000) as u64;
    number(b"RateLimit-Policy: \"client\";q=", limit);
    number(b";w=", quota.window.as_secs());
    number(b"\r\nRateLimit: \"client\";r=", remaining);
    number(b";t=", reset);
    number(b"\r\nX-RateLimit-Limit: ", limit);
    number(b"\r\nX-RateLimit-Remaining: ", remaining);
    number(b"\r\nX-RateLimit-Reset: ", now + reset);
    if !verdict.is_allowed {
        number(b"\r\nRetry-After: ", verdict.retry_after.as_millis().div_ceil(1000).max(1) as u64);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn fields_tell_what_is_left_and_when() {
        let quota = Quota::new(100, Duration::from_secs(60));
        let verdict = Verdict {
            is_allowed: false,
            remaining: 0,
            reset: Duration::from_millis(59_001),
            retry_after: Duration::from_millis(1),
        };
        let mut out = Vec::new();
        write_rate_fields(&quota, &verdict, 1000, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "RateLimit-Policy: \"client\";q=100;w=60\r\nRateLimit: \"client\";r=0;t=60\r\n\
             X-RateLimit-Limit: 100\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 1060\r\n\
             Retry-After: 1\r\n"
        );
    }

    #[test]
    fn memory_is_short_from_the_first_byte_too_many() {
        let mut memory = Memory::new(100);
        memory.change(0, 100);
        assert!(!memory.is_short());
        memory.change(50, 51);
        assert!(memory.is_short());
        memory.change(101, 0);
        assert_eq!(memory.held(), 0);
    }
}
