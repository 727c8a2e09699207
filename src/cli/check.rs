//! `uring-pool check`: whether `serve` would take these settings. Binds nothing.

use std::io::{self, Write};

use super::Failure;
use super::flags::Flags;
use super::serve::open_root;
use super::settings::Settings;

/// Prints `ok` and the settings in effect, as a file that sets them.
///
/// # Errors
///
/// What `serve` would fail with before it binds anything.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let settings = Settings::read(flags)?;
    open_root(&settings.site)?;
    // Whoever closed our standard output doesn't want to know.
    let _ = write!(io::stdout(), "ok\n\n{settings}");
    Ok(())
}
