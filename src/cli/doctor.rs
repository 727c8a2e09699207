//! `uring-pool doctor`: what this machine offers, what is in the way, and which accept mode fits.
//! Serves nothing and changes nothing.

use std::fmt::{self, Display};
use std::io::{self, Write};

use uring_pool::config::Accept;
use uring_pool::system::Info;

use super::Failure;
use super::settings::feature_mask;

/// Something that a server needs isn't there (sysexits.h).
const EX_UNAVAILABLE: u8 = 69;

/// A worker needs some for itself; below this its clients feel it.
const DESCRIPTORS_FEW: u64 = 4096;
/// What the ring of a worker takes of locked memory, with its buffers, and some to spare.
const LOCKED_BYTES_PER_WORKER: u64 = 640 << 10;

/// How the modes compare: CPU a connection by that of shared, as PERF.md has it, and who gets one.
const MODES: [(Accept, &str, &str); 3] = [
    (Accept::Shared, "1.00", "the one that its hash says, busy or not"),
    (Accept::Steered, "1.00", "the less loaded of two, never one that is stopped or dead"),
    (Accept::Dispatch, "1.40", "whom the balancer picks; a queue, then 503, when all are full"),
];

/// Prints what it finds.
///
/// # Errors
///
/// A pool can't serve here.
pub(super) fn run() -> Result<(), Failure> {
    let info = Info::detect(feature_mask()?);
    // Whoever closed our standard output doesn't want to know.
    let _ = write!(io::stdout(), "{}", Report(&info));
    if info.is_usable() {
        return Ok(());
    }
    Err(Failure::new(EX_UNAVAILABLE, "a pool can't serve here: see what is marked `no`"))
}

/// How a finding is marked.
#[derive(Clone, Copy)]
enum Mark {
    Ok,
    /// It works, but not as well as it could.
    Note,
    /// Nothing works without.
    No,
}

impl Mark {
    fn word(self) -> &'static str {
        match self {
            Mark::Ok => "ok",
            Mark::Note => "note",
            Mark::No => "no",
        }
    }
}

/// A line a finding, then the accept modes.
struct Report<'a>(&'a Info);

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report(info) = self;
        line(f, Mark::Ok, "kernel", &info.kernel)?;
        match &info.rings {
            Ok(features) => line(f, Mark::Ok, "io_uring", format_args!("with {features}"))?,
            Err(why) => line(f, Mark::No, "io_uring", why)?,
        }
        if info.rings.as_ref().is_ok_and(|features| !features.no_iowait) {
            let finding =
                "an idle server shows as 100 % iowait before Linux 6.15; it costs nothing";
            line(f, Mark::Note, "iowait", finding)?;
        }
        let quota = info.quota.map_or("no quota".into(), |quota| format!("a quota of {quota}"));
        let Info { cores, workers, .. } = info;
        let finding = format_args!("{cores}, {quota}: {workers} workers by default");
        line(f, Mark::Ok, "cores", finding)?;
        line(f, Mark::Ok, "container", info.container.as_deref().unwrap_or("none seen"))?;
        line_of_descriptors(f, info.descriptors)?;
        line_of_locked_memory(f, info)?;
        ability(f, Mark::No, "sharing a port", &info.reuseport)?;
        ability(f, Mark::Note, "passing descriptors", &info.descriptor_passing)?;
        ability(f, Mark::Note, "steering", &info.steering)?;
        writeln!(f, "\n  accept    CPU   who gets a new connection")?;
        for (mode, cost, who) in MODES {
            let mark = if mode == info.recommended() { '*' } else { ' ' };
            writeln!(f, "{mark} {:<9} {cost}  {who}", mode.to_string())?;
        }
        writeln!(f, "* fits best here; set with --accept (default: shared)")
    }
}

fn line(f: &mut fmt::Formatter<'_>, mark: Mark, what: &str, finding: impl Display) -> fmt::Result {
    writeln!(f, "{:<5} {what:<20} {finding}", mark.word())
}

fn ability(
    f: &mut fmt::Formatter<'_>,
    missing: Mark,
    what: &str,
    can: &Result<(), String>,
) -> fmt::Result {
    match can {
        Ok(()) => line(f, Mark::Ok, what, "tried"),
        Err(why) => line(f, missing, what, why),
    }
}

fn line_of_descriptors(f: &mut fmt::Formatter<'_>, (soft, hard): (u64, u64)) -> fmt::Result {
    let what = "descriptors";
    if hard >= DESCRIPTORS_FEW {
        return line(f, Mark::Ok, what, format_args!("{soft}, at most {hard}"));
    }
    let advice = "few connections a worker; raise it (`ulimit -n`, LimitNOFILE=)";
    line(f, Mark::Note, what, format_args!("{soft}, at most {hard}: {advice}"))
}

fn line_of_locked_memory(f: &mut fmt::Formatter<'_>, info: &Info) -> fmt::Result {
    let what = "locked memory";
    let Some(bytes) = info.locked_memory else { return line(f, Mark::Ok, what, "no limit") };
    let (kib, enough_for) = (bytes >> 10, bytes / LOCKED_BYTES_PER_WORKER);
    if enough_for >= info.workers as u64 {
        return line(f, Mark::Ok, what, format_args!("{kib} KiB a user"));
    }
    let advice = "raise it (`ulimit -l`, LimitMEMLOCK=)";
    let finding = format_args!("{kib} KiB a user, the rings of {enough_for} workers: {advice}");
    line(f, Mark::Note, what, finding)
}
