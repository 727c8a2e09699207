//! Conditional requests for files (RFC 9110 section 13), case by case.

mod common;

use std::fs;
use std::time::{Duration, SystemTime};

use common::Server;

/// A day in 2020, in whole seconds.
const MODIFIED: u64 = 1_600_000_000;

/// What a request says beside its line and its host; `$E` stands for the `ETag`, `$W` for a weak one
/// of the same text, `$M` for the date of the last modification, `$L` and `$S` for dates a second
/// later and sooner.
const CASES: &[(&str, &str, u16)] = &[
    // If-Match, section 13.1.1
    ("If-Match: $E", "13.1.1", 200),
    ("If-Match: *", "13.1.1", 200),
    ("If-Match: \"x\", $E", "13.1.1", 200),
    ("If-Match: \"x\"\r\nIf-Match: $E", "13.1.1", 200),
    ("If-Match: \"x\"", "13.1.1", 412),
    ("If-Match: $W", "13.1.1: compared strongly", 412),
    ("If-Match: nonsense", "13.1.1", 412),
    // If-None-Match, section 13.1.2
    ("If-None-Match: $E", "13.1.2", 304),
    ("If-None-Match: $W", "13.1.2: compared weakly", 304),
    ("If-None-Match: *", "13.1.2", 304),
    ("If-None-Match: \"x\" , $W", "13.1.2", 304),
    ("If-None-Match: \"x\"", "13.1.2", 200),
    ("If-None-Match: nonsense", "13.1.2", 200),
    // If-Modified-Since, section 13.1.3
    ("If-Modified-Since: $M", "13.1.3", 304),
    ("If-Modified-Since: $L", "13.1.3", 304),
    ("If-Modified-Since: $S", "13.1.3", 200),
    ("If-Modified-Since: yesterday", "13.1.3: ignored if invalid", 200),
    ("If-Modified-Since: $M\r\nIf-Modified-Since: $M", "13.1.3: ignored if not one date", 200),
    // If-Unmodified-Since, section 13.1.4
    ("If-Unmodified-Since: $M", "13.1.4", 200),
    ("If-Unmodified-Since: $L", "13.1.4", 200),
    ("If-Unmodified-Since: $S", "13.1.4", 412),
    ("If-Unmodified-Since: yesterday", "13.1.4: ignored if invalid", 200),
    // Precedence, section 13.2.2
    ("If-Match: $E\r\nIf-Unmodified-Since: $S", "13.2.2 step 1 before 2", 200),
    ("If-Match: \"x\"\r\nIf-Unmodified-Since: $L", "13.2.2 step 1 before 2", 412),
    ("If-None-Match: \"x\"\r\nIf-Modified-Since: $L", "13.2.2 step 3 before 4", 200),
    ("If-None-Match: $E\r\nIf-Modified-Since: $S", "13.2.2 step 3 before 4", 304),
    ("If-Match: $E\r\nIf-None-Match: $E", "13.2.2 step 1, then 3", 304),
    ("If-Match: \"x\"\r\nIf-None-Match: $E", "13.2.2 step 1, then 3", 412),
    ("If-Unmodified-Since: $L\r\nIf-Modified-Since: $L", "13.2.2 step 2, then 4", 304),
    ("If-Unmodified-Since: $S\r\nIf-Modified-Since: $L", "13.2.2 step 2, then 4", 412),
    // If-Range, section 13.1.5, and Range after all others
    ("Range: bytes=0-1", "14.2", 206),
    ("Range: bytes=0-1\r\nIf-Range: $E", "13.1.5", 206),
    ("Range: bytes=0-1\r\nIf-Range: $W", "13.1.5: compared strongly", 200),
    ("Range: bytes=0-1\r\nIf-Range: \"x\"", "13.1.5", 200),
    ("Range: bytes=0-1\r\nIf-Range: $M", "13.1.5", 206),
    ("Range: bytes=0-1\r\nIf-Range: $L", "13.1.5: an exact match", 200),
    ("Range: bytes=0-1\r\nIf-Range: $S", "13.1.5", 200),
    ("Range: bytes=0-1\r\nIf-Range: nonsense", "13.1.5", 200),
    ("If-Range: \"x\"", "13.1.5: ignored without Range", 200),
    ("Range: bytes=99-\r\nIf-Range: \"x\"", "13.2.2 step 5: as if there were no Range", 200),
    ("Range: bytes=0-1\r\nIf-None-Match: $E", "13.2.2 step 3 before 5", 304),
    ("Range: bytes=0-1\r\nIf-Match: \"x\"", "13.2.2 step 1 before 5", 412),
    ("Range: bytes=99-\r\nIf-None-Match: $E", "13.2.2 step 3 before 6", 304),
    ("Range: bytes=99-", "15.5.17", 416),
];

#[test]
fn every_condition_has_its_verdict() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    fs::write(&path, "0123456789").unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED);
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let server = Server::start(&["--workers", "1", "--root", directory.path().to_str().unwrap()]);
    let mut client = server.connect();
    let whole = client.get("/a.txt");
    let etag = whole.header("ETag").unwrap().to_owned();
    assert_eq!(whole.header("Last-Modified"), Some("Sun, 13 Sep 2020 12:26:40 GMT"));
    for method in ["GET", "HEAD"] {
        for (fields, section, status) in CASES {
            let text = fields
                .replace("$E", &etag)
                .replace("$W", &format!("W/{etag}"))
                .replace("$M", "Sun, 13 Sep 2020 12:26:40 GMT")
                .replace("$L", "Sun, 13 Sep 2020 12:26:41 GMT")
                .replace("$S", "Sun, 13 Sep 2020 12:26:39 GMT");
            client.say(format!("{method} /a.txt HTTP/1.1\r\nHost: t\r\n{text}\r\n\r\n"));
            let head = client.hear_head();
            // RFC 9110 section 14.2: Range is for GET alone.
            let expected = match (method, *status) {
                ("HEAD", 206 | 416) => 200,
                (_, status) => status,
            };
            let line = format!("HTTP/1.1 {expected} ");
            assert!(head.starts_with(&line), "{method} {fields} ({section}): {head}");
            let has = |name: &str| head.contains(&format!("\r\n{name}: "));
            if expected == 304 {
                assert!(has("ETag") && !has("Content-Length") && !has("Content-Type"), "{head}");
            }
            if matches!(expected, 200 | 206) {
                assert!(has("ETag") && has("Last-Modified"), "{head}");
            }
            if method == "GET" && expected != 304 {
                client.hear_body(&head);
            }
        }
    }
    assert_eq!(client.get("/a.txt").body(), "0123456789", "the connection is in step");
}
