//! The command line: flags to settings, errors to words and exit statuses. Serves nothing itself.

#[cfg(feature = "bench")]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "rates and times are positive and below 2^53"
)]
mod bench;
mod check;
mod doctor;
mod file;
mod flags;
mod identity;
mod log;
mod serve;
mod settings;
mod units;

use std::fmt::{self, Display};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Wrong use of the command line (sysexits.h).
const EX_USAGE: u8 = 64;
/// A file or directory that can't be used.
const EX_NOINPUT: u8 = 66;
/// A configuration file with something wrong in it.
const EX_CONFIG: u8 = 78;

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
    Serve(flags::Flags),
    /// Say whether `serve` would take these settings, and which are in effect.
    Check(flags::Flags),
    /// Say what this machine offers, what is in the way, and which accept mode fits.
    Doctor,
    /// Load a server, and say how it was.
    #[cfg(feature = "bench")]
    Bench(Box<bench::BenchFlags>),
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    log::install();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            let _ = error.print(); // nowhere left to complain
            let usage = if is_bench() { 2 } else { EX_USAGE };
            return ExitCode::from(if error.use_stderr() { usage } else { 0 });
        }
    };
    let result = match &command {
        Command::Serve(flags) => serve::run(flags),
        Command::Check(flags) => check::run(flags),
        Command::Doctor => doctor::run(),
        #[cfg(feature = "bench")]
        Command::Bench(flags) => bench::run(flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("uring-pool: {}", failure.reason);
            ExitCode::from(failure.exit_code)
        }
    }
}

/// `bench` has exit statuses of its own.
fn is_bench() -> bool {
    std::env::args().nth(1).is_some_and(|command| command == "bench")
}

/// Why the program ends without success.
#[derive(Debug)]
struct Failure {
    reason: String,
    exit_code: u8,
}

impl Failure {
    fn new(exit_code: u8, reason: impl Display) -> Failure {
        Failure { reason: reason.to_string(), exit_code }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Failure {}

impl From<uring_pool::Error> for Failure {
    fn from(error: uring_pool::Error) -> Failure {
        Failure { reason: error.to_string(), exit_code: error.exit_code() }
    }
}
