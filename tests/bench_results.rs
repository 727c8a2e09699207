//! What `uring-pool bench` writes: whole, readable again, comparable, and a judge in pipelines.

#![cfg(feature = "bench")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use common::{Server, program};

fn bench(arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("bench").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must end with this status, and returns what it printed.
fn ends_with(status: i32, arguments: &[&str]) -> String {
    let output = bench(arguments);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{said}");
    said
}

/// The result of a short run against a server of ours, in every format.
struct Run {
    directory: TempDir,
    printed: String,
}

impl Run {
    fn new(more: &[&str]) -> Run {
        let server = Server::start(&[]);
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (json, html, hdr) = (path("run.json"), path("run.html"), path("run.hlog"));
        let url = format!("http://{}/plaintext", server.address());
        let mut arguments = vec!["-c", "8", "-z", "1500ms", "--warmup", "0s", &url];
        arguments.extend(["--json", &json, "--html", &html, "--hdr", &hdr]);
        arguments.extend(more);
        let output = bench(&arguments);
        // A busy machine may make the run invalid; that is the verdict's business.
        let (status, said) = (output.status.code().unwrap(), text(&output.stderr));
        assert!([0, 98].contains(&status), "{status}: {said}");
        Run { printed: text(&output.stdout), directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn json(&self) -> String {
        self.path("run.json").to_str().unwrap().to_owned()
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_result_is_written_in_every_format_and_reads_itself_again() {
    let run = Run::new(&["-R", "500"]);
    let document = read(&run.path("run.json"));
    let counts = &document["counts"];
    assert_eq!(counts["offered"], 750, "{counts}");
    assert!(run.printed.contains("p99.9") && run.printed.contains("750 due"), "{}", run.printed);
    assert!(fs::read_to_string(run.path("run.html")).unwrap().ends_with("</html>"));
    assert!(fs::read_to_string(run.path("run.hlog")).unwrap().contains("Tag=service,"));
    let again = ends_with(0, &["report", &run.json(), "-o", "json"]);
    assert_eq!(again.trim_end(), fs::read_to_string(run.path("run.json")).unwrap());
    assert!(ends_with(0, &["report", &run.json(), "-o", "md"]).contains("| response |"));
    assert!(ends_with(0, &["report", &run.json(), "-o", "csv"]).lines().count() > 10);
    assert_eq!(ends_with(0, &["report", &run.json()]), run.printed);
}

#[test]
fn promises_are_kept_or_end_with_99() {
    let run = Run::new(&["-R", "500"]);
    let json = run.json();
    let kept =
        ["report", &json, "--assert", "p50<60s", "--assert", "failed=0", "--assert", "rate>1"];
    assert!(ends_with(0, &kept).contains("holds"));
    let broken = ends_with(99, &["report", &json, "--assert", "rate>1M", "--assert", "p50<1ns"]);
    assert!(broken.contains("FAILS") && broken.contains("2 conditions are not met"), "{broken}");
    let unknown = ends_with(99, &["report", &json, "--assert", "connect.p999<1h"]);
    assert!(unknown.contains("not known"), "{unknown}");
    assert!(ends_with(2, &["report", &json, "--assert", "p98<1ms"]).contains("p999"));
    assert!(ends_with(0, &["report", &json, "--baseline", &json]).contains("noise"));
    assert!(ends_with(2, &["report", &json, "--baseline", "/nowhere"]).contains("/nowhere"));
    assert!(ends_with(2, &["report", &json, "--html", "/nowhere/x.html"]).contains("/nowhere"));
}

#[test]
fn results_are_compared_and_merged() {
    let run = Run::new(&[]);
    let json = run.json();
    let same = ends_with(0, &["compare", &json, &json]);
    assert!(
        same.contains("1.000") && !same.contains("worse") && !same.contains("better"),
        "{same}"
    );
    let comparison: Value =
        serde_json::from_str(&ends_with(0, &["compare", &json, &json, "--json"])).unwrap();
    assert_eq!(comparison["changes"][0]["figure"], "rate");
    let both: Value =
        serde_json::from_str(&ends_with(0, &["merge", &json, &json, "-o", "json"])).unwrap();
    let one = read(&run.path("run.json"));
    let ok = |document: &Value| document["counts"]["ok"].as_u64().unwrap();
    assert_eq!(ok(&both), 2 * ok(&one));
    assert_eq!(both["setup"]["connections"], 16);
}

#[test]
fn what_is_no_result_is_refused_in_words() {
    for (content, hint) in [("", "no result"), ("{}", "no schema"), ("\u{0}\u{1}", "no result")] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("x.json");
        fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap();
        assert!(ends_with(2, &["report", path]).contains(hint), "{content:?}");
        assert!(ends_with(2, &["compare", path, path]).contains(path));
        assert!(ends_with(2, &["merge", path, path]).contains(path));
    }
    ends_with(2, &["report", "/nowhere.json"]);
    ends_with(2, &["report"]);
    ends_with(2, &["merge", "one.json"]);
}
