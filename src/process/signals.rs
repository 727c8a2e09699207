//! Signals as values: blocked, so that they interrupt nothing, and read from a descriptor.
//! Says what a signal asks for, not what becomes of it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::sys;

/// Bytes of one record, `struct signalfd_siginfo` (signalfd(2)).
const RECORD_BYTES: usize = 128;
/// Where a record has the signal's number, a `u32`.
const NUMBER_AT: usize = 0;
/// Where a record has the sender's process id, a `u32`; 0 when the kernel sent it (Ctrl-C).
const SENDER_AT: usize = 12;
/// Different signals that can be waiting at once, of those that we ask for.
const RECORDS_MAX: usize = 5;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// `SIGTERM` or `SIGINT`: stop; finish first what is open.
    Stop { name: &'static str },
    /// `SIGHUP`, `SIGUSR1` or `SIGUSR2`: nothing yet, but they must not end the process.
    Unused { name: &'static str },
}

/// A signal, and the process that sent it; none when it was the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    pub(crate) sender: Option<u32>,
}

/// The master's signals: blocked in this thread until this is dropped, and readable instead.
#[derive(Debug)]
pub(crate) struct MasterSignals {
    descriptor: OwnedFd,
    /// The thread's mask as it was.
    before: SigSet,
}

impl MasterSignals {
    /// Blocks every signal that [`Signal`] knows, for children to come as well.
    ///
    /// # Errors
    ///
    /// No descriptor left.
    pub(crate) fn begin() -> io::Result<MasterSignals> {
        let asked: SigSet =
            [Number::SIGTERM, Number::SIGINT, Number::SIGHUP, Number::SIGUSR1, Number::SIGUSR2]
                .into_iter()
                .collect();
        let descriptor = descriptor(&asked)?;
        Ok(MasterSignals { descriptor, before: asked.thread_swap_mask(SigmaskHow::SIG_BLOCK)? })
    }
}

impl AsRawFd for MasterSignals {
    /// To be read from in [`read_buffer`]s.
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl Drop for MasterSignals {
    fn drop(&mut self) {
        let _restored = self.before.thread_set_mask(); // what was a mask is one
    }
}

/// Makes a forked child deaf to all but `SIGTERM` and `SIGINT`, which its descriptor tells of.
///
/// # Errors
///
/// No descriptor left.
pub(crate) fn of_new_worker() -> io::Result<OwnedFd> {
    for number in [Number::SIGHUP, Number::SIGUSR1, Number::SIGUSR2, Number::SIGPIPE] {
        sys::ignore_signal(number)?;
    }
    let stop: SigSet = [Number::SIGTERM, Number::SIGINT].into_iter().collect();
    stop.thread_set_mask()?;
    descriptor(&stop)
}

/// Room for all signals that can be waiting.
pub(crate) fn read_buffer() -> Vec<u8> {
    Vec::with_capacity(RECORDS_MAX * RECORD_BYTES)
}

/// The signals of what was read; one that we never asked for is left out.
pub(crate) fn decode(records: &[u8]) -> impl Iterator<Item = Received> {
    records.chunks_exact(RECORD_BYTES).filter_map(|record| {
        let number = Number::try_from(u32_at(record, NUMBER_AT) as i32).ok()?;
        let name = number.as_str();
        let signal = match number {
            Number::SIGTERM | Number::SIGINT => Signal::Stop { name },
            Number::SIGHUP | Number::SIGUSR1 | Number::SIGUSR2 => Signal::Unused { name },
            _ => return None,
        };
        let sender = Some(u32_at(record, SENDER_AT)).filter(|pid| *pid != 0);
        Some(Received { signal, sender })
    })
}

fn descriptor(signals: &SigSet) -> io::Result<OwnedFd> {
    Ok(SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC)?.into())
}

fn u32_at(record: &[u8], offset: usize) -> u32 {
    let bytes = record[offset..offset + 4].try_into().expect("four bytes");
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    fn record(number: Number, sender: u32) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        record[NUMBER_AT..][..4].copy_from_slice(&(number as u32).to_ne_bytes());
        record[SENDER_AT..][..4].copy_from_slice(&sender.to_ne_bytes());
        record
    }

    #[test]
    fn records_become_signals_in_their_order() {
        let bytes = [record(Number::SIGHUP, 7), record(Number::SIGTERM, 0)].concat();
        let received: Vec<Received> = decode(&bytes).collect();
        assert_eq!(
            received,
            [
                Received { signal: Signal::Unused { name: "SIGHUP" }, sender: Some(7) },
                Received { signal: Signal::Stop { name: "SIGTERM" }, sender: None },
            ]
        );
    }

    #[test]
    fn a_cut_record_and_one_that_nobody_asked_for_are_left_out() {
        let bytes = [record(Number::SIGCHLD, 1), record(Number::SIGINT, 1)].concat();
        assert_eq!(decode(&bytes).count(), 1);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]).count(), 0);
        }
    }

    #[test]
    fn a_real_signal_reads_as_we_decode_it() {
        use std::io::Read;
        let signals = MasterSignals::begin().unwrap();
        let mut file = std::fs::File::from(signals.descriptor.try_clone().unwrap());
        raise(Number::SIGUSR1).unwrap(); // to this thread, which has it blocked
        let mut buffer = [0; RECORD_BYTES];
        assert_eq!(file.read(&mut buffer).unwrap(), RECORD_BYTES);
        let received = decode(&buffer).next().unwrap();
        assert_eq!(received.signal, Signal::Unused { name: "SIGUSR1" });
        assert_eq!(received.sender, Some(std::process::id()));
    }
}
