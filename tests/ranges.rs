//! Ranges of files (RFC 9110 section 14), from memory and from the disk alike.

mod common;

use std::fs;

use common::{Answer, Client, Server};

fn get(client: &mut Client, path: &str, range: &str) -> Answer {
    client.ask(&format!("GET {path} HTTP/1.1\r\nHost: t\r\nRange: {range}\r\n\r\n"))
}

fn bytes(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn single_and_multiple_ranges_are_what_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    let sizes = [10_000_u32, 200_000];
    sizes
        .iter()
        .for_each(|size| fs::write(directory.path().join(size.to_string()), bytes(*size)).unwrap());
    let server = Server::start(&["--workers", "1", "--root", root]);
    let mut client = server.connect();
    for size in sizes {
        let (path, whole) = (format!("/{size}"), bytes(size));
        let last = size as usize - 1;
        for (range, from, to) in [
            ("bytes=0-0", 0, 0),
            ("bytes=0-", 0, last),
            ("bytes=500-999", 500, 999),
            ("bytes=-500", last - 499, last),
            ("bytes=9500-99999999999", 9500, last),
            ("bytes=-99999999999", 0, last),
            ("bytes=1-5000,4000-9000", 1, 9000), // they overlap
            ("bytes=0-10,5000000-", 0, 10),      // one isn't there
        ] {
            let answer = get(&mut client, &path, range);
            assert_eq!(answer.status(), 206, "{path} {range}");
            let content_range = format!("bytes {from}-{to}/{size}");
            assert_eq!(answer.header("Content-Range"), Some(content_range.as_str()), "{range}");
            assert!(answer.body == whole[from..=to], "{path} {range}");
        }
        for range in ["bytes=999999999-", "bytes=-0"] {
            let answer = get(&mut client, &path, range);
            let content_range = format!("bytes */{size}");
            assert_eq!(answer.status(), 416, "{range}");
            assert_eq!(answer.header("Content-Range"), Some(content_range.as_str()));
        }
        for range in ["bytes=5-1", "lines=0-1", "bytes=x", "bytes=", "0-1"] {
            let answer = get(&mut client, &path, range);
            assert!(answer.status() == 200 && answer.body == whole, "{range} is ignored");
            assert_eq!(answer.header("Content-Range"), None);
        }
        let parts = [(9000, 9499), (0, 99), (last - 49, last)];
        let specs = parts.map(|(from, to)| format!("{from}-{to}")).join(", ");
        let answer = get(&mut client, &path, &format!("bytes={specs}"));
        assert_eq!(answer.status(), 206);
        check_multipart(&answer, &whole, &parts);
        // As many as may be asked for, and one more.
        let many = |count: usize| {
            (0..count).map(|n| format!("{}-{}", n * 100, n * 100)).collect::<Vec<_>>().join(",")
        };
        let answer = get(&mut client, &path, &format!("bytes={}", many(64)));
        let expected: Vec<(usize, usize)> = (0..64).map(|n| (n * 100, n * 100)).collect();
        check_multipart(&answer, &whole, &expected);
        assert_eq!(get(&mut client, &path, &format!("bytes={}", many(65))).status(), 200);
    }
    fs::write(directory.path().join("empty"), "").unwrap();
    assert_eq!(get(&mut client, "/empty", "bytes=0-").status(), 416);
    assert_eq!(get(&mut client, "/empty", "bytes=-5").status(), 200);
    let twice = client
        .ask("GET /10000 HTTP/1.1\r\nHost: t\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\n\r\n");
    assert_eq!(twice.status(), 200, "two fields are none");
}

/// The parts of a multipart/byteranges (RFC 9110 section 14.6).
fn check_multipart(answer: &Answer, whole: &[u8], expected: &[(usize, usize)]) {
    let content_type = answer.header("Content-Type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut rest = &answer.body[..];
    for (number, (from, to)) in expected.iter().enumerate() {
        let separator = if number == 0 { "" } else { "\r\n" };
        let head = format!(
            "{separator}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {from}-{to}/{}\r\n\r\n",
            whole.len()
        );
        rest = rest.strip_prefix(head.as_bytes()).unwrap_or_else(|| panic!("part {number}"));
        rest = rest.strip_prefix(&whole[*from..=*to]).unwrap_or_else(|| panic!("part {number}"));
    }
    assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes());
}
