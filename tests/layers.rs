//! Who may import whom: the arrows of ARCHITECTURE.md, checked against every `use` and path.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each layer, and those below it that it may name. `ring` is the crate `uring_ring`.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    // The program is a user of the library: what it may name is what the library exports.
    ("cli", &["app", "config"]),
    // The way in, the one place that knows both master and worker.
    ("pool", &["app", "config", "master", "process", "worker", "ring"]),
    ("offline", &["app", "conn", "figures", "proto"]),
    ("master", &["figures", "process", "config", "ring"]),
    ("worker", &["conn", "app", "errands", "process", "config", "figures", "ring"]),
    ("conn", &["proto", "http", "app", "figures"]),
    ("process", &["config", "figures", "ring"]),
    ("config", &["ring"]), // for the mask of kernel features
    ("app", &["http", "proto", "errands"]),
    ("errands", &["ring"]),
    ("http", &["proto"]),
    ("proto", &[]),
    ("figures", &[]),
];

/// Names of one library module that another may use although no arrow leads there.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    // Settings of a connection hold the parser's limits.
    ("worker", "proto", "src/worker/run.rs"),
];

#[test]
fn imports_follow_the_arrows() {
    let mut wrong = Vec::new();
    for (file, layer) in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if file
            .components()
            .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
        {
            continue; // tests may look anywhere
        }
        let (_, allowed) = LAYERS.iter().find(|(name, _)| *name == layer).unwrap_or_else(|| {
            panic!("{} belongs to no layer of this table", file.display());
        });
        for (line_number, line) in production.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            if code.contains("crate::{") {
                wrong.push(format!("{}: name one module a `use`", file.display()));
            }
            for named in named_layers(code) {
                let is_exception = EXCEPTIONS
                    .iter()
                    .any(|(from, to, path)| *from == layer && *to == named && file.ends_with(path));
                if named != layer && !allowed.contains(&named.as_str()) && !is_exception {
                    wrong.push(format!(
                        "{}:{}: {layer} names {named}",
                        file.display(),
                        line_number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_arrow_leads_back() {
    let below: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    fn reach<'a>(from: &'a str, below: &BTreeMap<&'a str, &'a [&'a str]>, path: &mut Vec<&'a str>) {
        assert!(!path.contains(&from), "a circle: {path:?} to {from}");
        path.push(from);
        for next in below.get(from).copied().unwrap_or_default() {
            reach(next, below, path);
        }
        path.pop();
    }
    for (layer, _) in LAYERS {
        reach(layer, &below, &mut Vec::new());
    }
}

#[test]
fn the_ring_knows_nothing_of_ours() {
    for file in rust_files(Path::new("ring/src")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("uring_pool"), "{} names the crate above it", file.display());
    }
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    for (file, _) in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let has_unsafe = text.lines().any(|line| {
            let code = line.split("//").next().unwrap();
            code.contains("unsafe ") || code.contains("allow(unsafe_code)")
        });
        let is_room = file.ends_with("src/process/sys.rs");
        assert!(is_room || !has_unsafe, "{} has unsafe code", file.display());
    }
}

/// Every source file of the package, with its layer: the first directory or file below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new("src");
    let layer = |file: &PathBuf| {
        let first = file.strip_prefix(root).unwrap().components().next().unwrap();
        Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
    };
    let files = rust_files(root);
    assert!(files.len() > 20, "the sources are not where this test looks for them");
    files
        .into_iter()
        .map(|file| (file.clone(), layer(&file)))
        .filter(|(_, layer)| layer != "lib")
        .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The layers that a line of code names: after `crate::` or `uring_pool::`, and the ring.
fn named_layers(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for prefix in ["crate::", "uring_pool::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            if LAYERS.iter().any(|(layer, _)| *layer == &rest[..end]) {
                named.push(rest[..end].to_owned());
            }
        }
    }
    if code.contains("uring_ring::") {
        named.push("ring".to_owned());
    }
    named
}
