//! Programs of embedders, from `examples/`: mostly the one whose handlers and factory misbehave when
//! they are told to, `misbehaving.rs`.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use super::{Server, of_this_kernel};

const NAME: &str = "misbehaving";

/// Starts it on a free port of loopback, and waits until it is ready.
pub(crate) fn start(flags: &[&str]) -> Server {
    start_example(NAME, flags)
}

/// Starts another one.
pub(crate) fn start_example(name: &str, flags: &[&str]) -> Server {
    let mut command = of_this_kernel(Command::new(example(name)));
    command.args(["--listen", "127.0.0.1:0"]).args(flags);
    Server::of(command)
}

/// Where it is.
pub(crate) fn program() -> PathBuf {
    example(NAME)
}

/// Where an example is. `cargo test` builds examples, but not those of a single test.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut built = BUILT.lock().unwrap();
    let test = env::current_exe().unwrap(); // target/debug/deps/name-hash
    let directory = test.ancestors().nth(2).unwrap();
    if !built.iter().any(|it| it == name) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--profile", "test", "--example", name]);
        cargo.arg("--target-dir").arg(directory.parent().unwrap());
        assert!(cargo.status().unwrap().success(), "examples/{name}.rs doesn't build");
        built.push(name.to_owned());
    }
    directory.join("examples").join(name)
}
