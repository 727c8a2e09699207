//! Files of a root, as a client sees them: what is served and what never is, caching, names,
//! listings. Conditions are in `conditional.rs`, ranges in `ranges.rs`.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Client, Server, eventually};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

/// A root with these files, and a server of it.
fn serve(files: &[(&str, &str)], flags: &[&str]) -> (TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(directory.path(), name, text);
    }
    let root = directory.path().to_str().unwrap();
    let server = Server::start(&[&["--workers", "1", "--root", root], flags].concat());
    (directory, server)
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn get_with(client: &mut Client, path: &str, fields: &str) -> common::Answer {
    client.ask(&format!("GET {path} HTTP/1.1\r\nHost: t\r\n{fields}\r\n"))
}

#[test]
fn a_file_comes_with_what_describes_it() {
    let (_root, server) = serve(&[("a.css", "p {}"), ("b.bin", "\u{1}")], &[]);
    let mut client = server.connect();
    let css = client.get("/a.css");
    assert_eq!((css.status(), css.body()), (200, "p {}"));
    assert_eq!(css.header("Content-Type"), Some("text/css; charset=utf-8"));
    assert_eq!(css.header("Accept-Ranges"), Some("bytes"));
    let etag = css.header("ETag").unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 10, "{etag}");
    assert!(css.header("Last-Modified").unwrap().ends_with(" GMT"));
    for absent in ["Vary", "Cache-Control", "Content-Disposition", "Content-Encoding"] {
        assert_eq!(css.header(absent), None, "{absent}");
    }
    let binary = client.get("/b.bin");
    assert_eq!(binary.header("Content-Type"), Some("application/octet-stream"));
    assert_ne!(binary.header("ETag"), css.header("ETag"));
    client.say("HEAD /a.css HTTP/1.1\r\nHost: t\r\n\r\n");
    let without_date = |head: &str| -> Vec<String> {
        head.lines().filter(|line| !line.starts_with("Date: ")).map(str::to_owned).collect()
    };
    assert_eq!(without_date(&client.hear_head()), without_date(&css.head), "HEAD mirrors GET");
}

#[test]
fn what_is_no_regular_file_below_the_root_is_never_served_and_blocks_nobody() {
    let (root, server) = serve(&[("root/a.txt", "a"), ("secret", "s"), ("root/.env", "s")], &[]);
    drop(server);
    let below = root.path().join("root");
    symlink("../secret", below.join("out")).unwrap();
    symlink(root.path().join("secret"), below.join("absolute")).unwrap();
    symlink("loop", below.join("loop")).unwrap();
    symlink("a.txt", below.join("in")).unwrap();
    symlink("/dev/zero", below.join("zero")).unwrap();
    mkfifo(&below.join("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(below.join("socket")).unwrap();
    let server = Server::start(&["--workers", "1", "--root", below.to_str().unwrap()]);
    let mut client = server.connect();
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/a.txt/../../secret",
        "/out",
        "/absolute",
        "/loop",
        "/zero",
        "/fifo",
        "/socket",
        "/.env",
        "/%2eenv",
        "/a.txt/",
        "/a.txt%00",
        "/none",
        "/a.txt%2f",
        "//../secret",
        "/./.env",
        "/\u{7f}",
    ] {
        let answer = get_with(&mut client, path, "");
        assert!([400, 404].contains(&answer.status()), "{path}: {}", answer.head);
        if answer.status() == 400 {
            client = server.connect();
        }
    }
    assert_eq!(client.get("/in").body(), "a");
    assert_eq!(client.get("/a.txt?q=/../secret").body(), "a");
}

#[test]
fn the_coding_that_the_client_likes_most_is_sent_if_it_lies_there() {
    let files = [("a.js", "plain"), ("a.js.br", "br"), ("a.js.gz", "gzip"), ("b.js", "plain")];
    let (root, server) = serve(&files, &[]);
    let mut client = server.connect();
    for (accept, body, coding) in [
        ("gzip, deflate, br, zstd", "br", Some("br")),
        ("gzip", "gzip", Some("gzip")),
        ("gzip;q=1, br;q=0.5", "gzip", Some("gzip")),
        ("zstd", "plain", None),
        ("br;q=0, gzip;q=0", "plain", None),
        ("identity;q=1, br;q=0.5", "plain", None),
        ("*", "br", Some("br")),
    ] {
        let answer = get_with(&mut client, "/a.js", &format!("Accept-Encoding: {accept}\r\n"));
        assert_eq!((answer.body(), answer.header("Content-Encoding")), (body, coding), "{accept}");
        assert_eq!(answer.header("Vary"), Some("Accept-Encoding"), "{accept}");
        assert_eq!(answer.header("Content-Type"), Some("text/javascript; charset=utf-8"));
    }
    let plain = client.get("/a.js");
    assert_eq!((plain.body(), plain.header("Vary")), ("plain", Some("Accept-Encoding")));
    let alone = get_with(&mut client, "/b.js", "Accept-Encoding: br\r\n");
    assert_eq!((alone.body(), alone.header("Vary")), ("plain", None));
    let br = get_with(&mut client, "/a.js", "Accept-Encoding: br\r\n");
    assert_ne!(br.header("ETag"), plain.header("ETag"), "RFC 9110 section 8.8.3.3");
    // What is older than what it stands for is of another version.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    fs::File::options()
        .write(true)
        .open(root.path().join("a.js"))
        .unwrap()
        .set_modified(later)
        .unwrap();
    eventually("the new file is served plain", || {
        let answer = get_with(&mut client, "/a.js", "Accept-Encoding: br\r\n");
        answer.header("Content-Encoding").is_none()
    });
}

#[test]
fn a_change_is_seen_and_what_stays_comes_from_memory() {
    let (root, server) = serve(&[("a.txt", "one")], &["--demo"]);
    let mut client = server.connect();
    let hits = |server: &Server| server.status()["cache_hits"].as_u64().unwrap();
    assert_eq!(client.get("/a.txt").body(), "one");
    // A file that has just changed isn't kept; when it has rested for a while, it is.
    eventually("it comes from memory", || {
        (0..5).for_each(|_| assert_eq!(client.get("/a.txt").body(), "one"));
        hits(&server) >= 10
    });
    let before = client.get("/a.txt");
    for text in ["two", "three, and longer", ""] {
        // As an editor does it, and in place.
        write(root.path(), "new", text);
        fs::rename(root.path().join("new"), root.path().join("a.txt")).unwrap();
        eventually("the new file is served", || client.get("/a.txt").body() == text);
        fs::write(root.path().join("a.txt"), format!("{text}!")).unwrap();
        eventually("the change is served", || client.get("/a.txt").body() == format!("{text}!"));
    }
    assert_ne!(client.get("/a.txt").header("ETag"), before.header("ETag"));
    fs::remove_file(root.path().join("a.txt")).unwrap();
    eventually("it has gone", || client.get("/a.txt").status() == 404);
    let status = server.status();
    let rate = status["cache_hit_rate"].as_f64().unwrap();
    assert!(rate > 0.0 && rate < 1.0 && status["cache_misses"].as_u64().unwrap() > 0, "{rate}");
    let metrics = client.get("/metrics");
    assert!(metrics.body().contains("\nuring_pool_cache_hits_total "));
}

#[test]
fn files_of_every_size_come_whole_whether_kept_or_not() {
    for cache in ["0", "50MiB"] {
        let (root, server) = serve(&[], &["--cache-size", cache]);
        let mut client = server.connect();
        for size in [0, 1, 4096, 16_383, 16_384, 32_768, 32_769, 131_072, 131_073, 3_000_000] {
            let bytes: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
            fs::write(root.path().join(size.to_string()), &bytes).unwrap();
            for _ in 0..3 {
                let answer = client.get(&format!("/{size}"));
                assert!(answer.status() == 200 && answer.body == bytes, "{size}");
            }
        }
        // Pipelined, they leave in order.
        let sizes = [3_000_000, 1, 32_769, 0, 131_073, 16_384];
        sizes
            .iter()
            .for_each(|size| client.say(format!("GET /{size} HTTP/1.1\r\nHost: t\r\n\r\n")));
        sizes.iter().for_each(|size| assert_eq!(client.hear().body.len(), *size));
    }
}

#[test]
fn rules_say_how_to_cache_and_what_to_save() {
    let files = [("assets/a.css", "x"), ("a.html", "x"), ("b/\u{20ac} 1.iso", "x")];
    let flags = [
        "--cache-control",
        "/assets/*: public, max-age=31536000, immutable",
        "--cache-control",
        "*.html: no-cache",
        "--download",
        "*.iso",
    ];
    let (_root, server) = serve(&files, &flags);
    let mut client = server.connect();
    let css = client.get("/assets/a.css");
    assert_eq!(css.header("Cache-Control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(client.get("/a.html").header("Cache-Control"), Some("no-cache"));
    let iso = client.get("/b/%E2%82%AC%201.iso");
    assert_eq!((iso.status(), iso.header("Cache-Control")), (200, None));
    let name = "attachment; filename=\"_ 1.iso\"; filename*=UTF-8''%E2%82%AC%201.iso";
    assert_eq!(iso.header("Content-Disposition"), Some(name));
}

#[test]
fn a_directory_is_its_index_or_a_list_or_not_there() {
    let files =
        [("index.htm", "home"), ("docs/a & b.txt", "x"), ("docs/.secret", "x"), ("docs/sub/c", "")];
    let (root, server) =
        serve(&files, &["--index", "default.html", "--index", "index.htm", "--listing"]);
    mkfifo(&root.path().join("docs/fifo"), Mode::S_IRWXU).unwrap();
    let mut client = server.connect();
    assert_eq!(client.get("/").body(), "home");
    let moved = client.get("/docs?a=b");
    assert_eq!((moved.status(), moved.header("Location")), (301, Some("/docs/?a=b")));
    let list = client.get("/docs/");
    assert_eq!(list.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(list.header("Content-Security-Policy").unwrap().starts_with("default-src 'none'"));
    let body = list.body();
    assert!(body.contains("href=\"./a%20%26%20b.txt\"") && body.contains("a &amp; b.txt"));
    assert!(body.contains("href=\"./sub/\"") && !body.contains("secret") && !body.contains("fifo"));
    assert_eq!(client.get("/docs/a%20%26%20b.txt").body(), "x", "the links work");
    let (_root, without) = serve(&files, &[]);
    assert_eq!(without.connect().get("/docs/").status(), 404);
    assert_eq!(without.connect().get("/").status(), 404, "index.htm is no index by default");
}

#[test]
fn what_cant_be_set_is_refused_before_anything_is_bound() {
    for (flags, words) in [
        (&["--cache-control", "*.css"][..], "is no rule such as"),
        (&["--index", "../x"], "names of files"),
        (&["--precompressed", "lzma"], "br, zstd, gzip or none"),
        (&["--download", ""], "patterns such as *.iso"),
    ] {
        let output = common::program().arg("check").args(flags).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(64) && said.contains(words), "{flags:?}: {said}");
    }
}

#[test]
fn a_file_larger_than_any_buffer_streams_in_constant_memory() {
    const BYTES: u64 = 300 << 20;
    let (root, server) = serve(&[], &["--demo"]);
    fs::File::create(root.path().join("large")).unwrap().set_len(BYTES).unwrap(); // sparse
    let memory = || server.status()["workers"][0]["memory_usage"].as_u64().unwrap();
    let before = memory();
    let mut client = server.connect();
    client.say("GET /large HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert!(client.hear_head().contains(&format!("Content-Length: {BYTES}\r\n")));
    assert_eq!(client.count_rest(), BYTES);
    let grown = memory().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
}
