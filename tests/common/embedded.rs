//! The program of an embedder whose handlers and factory misbehave when they are told to:
//! `examples/misbehaving.rs`.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::{Server, of_this_kernel};

const NAME: &str = "misbehaving";

/// Starts it on a free port of loopback, and waits until it is ready.
pub(crate) fn start(flags: &[&str]) -> Server {
    let mut command = of_this_kernel(Command::new(program()));
    command.args(["--listen", "127.0.0.1:0"]).args(flags);
    Server::of(command)
}

/// Where it is. `cargo test` builds examples, but not those of a single test.
pub(crate) fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = env::current_exe().unwrap(); // target/debug/deps/name-hash
        let directory = test.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--profile", "test", "--example", NAME]);
        cargo.arg("--target-dir").arg(directory.parent().unwrap());
        assert!(cargo.status().unwrap().success(), "examples/{NAME}.rs doesn't build");
        directory.join("examples").join(NAME)
    })
}
