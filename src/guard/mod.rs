//! What stands between strangers and handlers, and is no connection's own business: rates, request
//! ids, lines of the access log, the memory that connections hold together. Knows no connections,
//! no processes and no clock.

mod clients;
mod id;
mod line;
mod lines;
mod rate;

use std::time::SystemTime;

pub(crate) use clients::{ClientTable, PLACES_MAX};
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
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    pub(crate) table: RateTable,
    pub(crate) quota: Quota,
    /// Whether every response tells.
    pub(crate) has_headers: bool,
    /// What is the same in each.
    quota_fields: String,
}

impl Rate {
    pub(crate) fn new(table: RateTable, quota: Quota, has_headers: bool) -> Rate {
        Rate { table, quota, has_headers, quota_fields: quota_fields(&quota) }
    }

    /// Appends what a response tells. `now` is in seconds since 1970.
    pub(crate) fn write_fields(&self, verdict: &Verdict, now: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.quota_fields.as_bytes());
        write_verdict_fields(verdict, now, out);
    }
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

/// The fields that tell of a quota, whoever asks: those of draft-ietf-httpapi-ratelimit-headers-10,
/// and the ones that everybody had before.
pub(crate) fn quota_fields(quota: &Quota) -> String {
    let (requests, seconds) = (quota.requests, quota.window.as_secs());
    format!(
        "RateLimit-Policy: \"client\";q={requests};w={seconds}\r\nX-RateLimit-Limit: {requests}\r\n"
    )
}

/// Appends the fields that tell a client how much it may still ask. `now` is in seconds since 1970.
pub(crate) fn write_verdict_fields(verdict: &Verdict, now: u64, out: &mut Vec<u8>) {
    let mut number = |text: &[u8], value: u64| {
        out.extend_from_slice(text);
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    };
    let reset = verdict.reset.div_ceil(1_000_000);
    number(b"RateLimit: \"client\";r=", verdict.remaining.into());
    number(b";t=", reset);
    number(b"\r\nX-RateLimit-Remaining: ", verdict.remaining.into());
    number(b"\r\nX-RateLimit-Reset: ", now + reset);
    if !verdict.is_allowed {
        number(b"\r\nRetry-After: ", verdict.retry_after.div_ceil(1_000_000).max(1));
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
        let verdict =
            Verdict { is_allowed: false, remaining: 0, reset: 59_000_001, retry_after: 1 };
        let mut out = quota_fields(&quota).into_bytes();
        write_verdict_fields(&verdict, 1000, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "RateLimit-Policy: \"client\";q=100;w=60\r\nX-RateLimit-Limit: 100\r\n\
             RateLimit: \"client\";r=0;t=60\r\nX-RateLimit-Remaining: 0\r\n\
             X-RateLimit-Reset: 1060\r\nRetry-After: 1\r\n"
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
