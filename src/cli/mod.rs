//! The command line: flags to settings, errors to words and exit statuses. Serves nothing itself.

mod log;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An io_uring-native, pre-fork HTTP server for Linux.
#[derive(Parser)]
#[command(name = "uring-pool", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a directory, or a demo of the server itself.
    Serve(serve::Flags),
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    log::install();
    let Command::Serve(flags) = Cli::parse().command;
    match serve::run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("uring-pool: {}", failure.reason);
            ExitCode::from(failure.exit_code)
        }
    }
}

/// Why the program ends without success.
struct Failure {
    reason: String,
    exit_code: u8,
}

impl From<uring_pool::Error> for Failure {
    fn from(error: uring_pool::Error) -> Failure {
        Failure { reason: error.to_string(), exit_code: error.exit_code() }
    }
}
