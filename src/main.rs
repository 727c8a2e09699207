//! The `uring-pool` program. Everything but the exit status happens in `cli`.

#![deny(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
