//! Commands about results that are there already: compare, merge, report. They load nothing.

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;

use clap::Args;
use uring_pool::bench::report;
use uring_pool::bench::summary::compare;

use super::super::Failure;
use super::EX_USAGE;
use super::output::{OutputFlags, print, read};

#[derive(Args, Clone, Debug)]
pub(super) struct CompareFlags {
    /// The result to compare with
    a: PathBuf,
    /// The result to compare
    b: PathBuf,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
pub(super) struct MergeFlags {
    /// Results of generators that ran at the same time
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputFlags,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ReportFlags {
    /// A result that `--json` wrote
    file: PathBuf,
    #[command(flatten)]
    output: OutputFlags,
}

/// Compares two results, figure by figure.
pub(super) fn compare_results(flags: &CompareFlags) -> Result<(), Failure> {
    let (a, b) = (read(&flags.a)?, read(&flags.b)?);
    let comparison = compare(&a, &b);
    if flags.json {
        print(&(serde_json::to_string(&comparison).expect("all its keys are text") + "\n"));
    } else {
        print(&format!("  A  {}\n  B  {}\n\n", flags.a.display(), flags.b.display()));
        print(&report::changes(&comparison, stdout().is_terminal()));
    }
    Ok(())
}

/// Makes one result of several.
pub(super) fn merge(flags: &MergeFlags) -> Result<(), Failure> {
    let output = flags.output.prepare()?;
    let mut results =
        flags.files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?.into_iter();
    let first = results.next().expect("clap wants two");
    let merged = first.merge(results).map_err(|reason| Failure::new(EX_USAGE, reason))?;
    output.deliver(&merged)
}

/// Shows a result again.
pub(super) fn report_again(flags: &ReportFlags) -> Result<(), Failure> {
    flags.output.prepare()?.deliver(&read(&flags.file)?)
}
