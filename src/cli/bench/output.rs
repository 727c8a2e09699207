//! Where results go: the screen, files, and a pipeline's conditions.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use uring_pool::bench::report;
use uring_pool::bench::summary::{Assertion, Summary, compare, regressions};

use super::super::Failure;
use super::EX_USAGE;

/// A promise was broken, or a figure is worse than in the baseline.
const EX_ASSERTION: u8 = 99;

/// The flags that say what becomes of a result.
#[derive(Args, Clone, Debug)]
pub(super) struct OutputFlags {
    /// What is printed at the end
    #[arg(short, long, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    output: Format,
    /// Write the whole result, without loss: for compare, merge and report
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write one page with everything, to look at or to send
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Write an interval log of the response times, for the tools of `HdrHistogram`
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hdr: Option<PathBuf>,
    /// Exit with 99 unless this holds: p99<5ms, service.p50<800us, rate>10k, failed<0.1% (which
    /// decides about failures instead of exit status 3), …
    #[arg(long = "assert", value_name = "PROMISE", help_heading = "Checks")]
    assertions: Vec<Assertion>,
    /// Exit with 99 if a figure is worse than in this result of `--json`, beyond chance…
    #[arg(long, value_name = "FILE", help_heading = "Checks")]
    baseline: Option<PathBuf>,
    /// …and by more than this part
    #[arg(long, value_name = "PART", default_value = "3%", value_parser = part, help_heading = "Checks")]
    max_regress: f64,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// What one must know in five seconds
    Text,
    /// The whole result
    Json,
    /// The series, a line a slot
    Csv,
    /// For a pull request
    Md,
}

/// Where a result will go: checked before there is one.
#[derive(Debug)]
pub(super) struct Output {
    flags: OutputFlags,
    baseline: Option<Summary>,
}

impl OutputFlags {
    /// Finds out beforehand what could go wrong afterwards.
    pub(super) fn prepare(&self) -> Result<Output, Failure> {
        let baseline = self.baseline.as_deref().map(read).transpose()?;
        for path in [&self.json, &self.html, &self.hdr].into_iter().flatten() {
            // What is there stays until there is something better.
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map_err(|error| unwritable(path, &error))?;
        }
        Ok(Output { flags: self.clone(), baseline })
    }
}

impl Output {
    /// How many requests may fail is a condition of its own.
    pub(super) fn allows_failures(&self) -> bool {
        self.flags.assertions.iter().any(Assertion::is_about_failures)
    }

    /// Prints and writes a result, and says whether it meets the conditions.
    pub(super) fn deliver(&self, summary: &Summary) -> Result<(), Failure> {
        let flags = &self.flags;
        print(&match flags.output {
            Format::Text => report::text(summary, stdout().is_terminal()),
            Format::Json => summary.to_json() + "\n",
            Format::Csv => report::csv(summary),
            Format::Md => report::markdown(summary),
        });
        write(flags.json.as_deref(), || summary.to_json().into_bytes())?;
        write(flags.html.as_deref(), || report::html(summary).into_bytes())?;
        write(flags.hdr.as_deref(), || report::hlog(summary))?;
        self.check(summary)
    }

    fn check(&self, summary: &Summary) -> Result<(), Failure> {
        let checks: Vec<_> = self.flags.assertions.iter().map(|it| it.check(summary)).collect();
        let mut broken = checks.iter().filter(|check| !check.holds).count();
        let mut text = report::checks(&checks, stderr().is_terminal());
        if let Some(baseline) = &self.baseline {
            let comparison = compare(baseline, summary);
            text += &report::changes(&comparison, stderr().is_terminal());
            for regression in regressions(&comparison, self.flags.max_regress) {
                broken += 1;
                let _infallible = writeln!(
                    text,
                    "  FAILS  {} is {:.1} % worse than in the baseline, {:.1} % are allowed",
                    regression.change.figure,
                    regression.part * 100.0,
                    self.flags.max_regress * 100.0,
                );
            }
            if comparison.changes.is_empty() {
                broken += 1;
                text += "  FAILS  nothing can be compared with the baseline\n";
            }
        }
        if !text.is_empty() {
            eprint!("\n{text}");
        }
        match broken {
            0 => Ok(()),
            1 => Err(Failure::new(EX_ASSERTION, "one condition is not met")),
            many => Err(Failure::new(EX_ASSERTION, format!("{many} conditions are not met"))),
        }
    }
}

/// Reads a result that `--json` wrote.
pub(super) fn read(path: &Path) -> Result<Summary, Failure> {
    let refusal = |error: String| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(EX_USAGE, refusal(error.to_string())))?;
    Summary::from_json(&text).map_err(|error| Failure::new(EX_USAGE, refusal(error)))
}

/// Prints to standard output; whoever closed it (`| head`) has seen enough.
pub(super) fn print(text: &str) {
    let _enough_was_seen = stdout().write_all(text.as_bytes());
}

fn write(path: Option<&Path>, content: impl FnOnce() -> Vec<u8>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, content()).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(EX_USAGE, format!("cannot write {}: {error}", path.display()))
}

/// A part: `3%`, or `0.03`.
fn part(text: &str) -> Result<f64, String> {
    let (number, by) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    match number.trim().parse::<f64>() {
        Ok(part) if part.is_finite() && part >= 0.0 => Ok(part * by),
        _ => Err(format!("`{text}` is no part such as 3%")),
    }
}
