//! Signals as values: blocked, so that they interrupt nothing, and read from a descriptor.
//! Says what a signal asks for, not what becomes of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

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
const RECORDS_MAX: usize = 16;

const STOP: [Number; 3] = [Number::SIGTERM, Number::SIGINT, Number::SIGQUIT];
const OTHERS: [Number; 4] = [Number::SIGHUP, Number::SIGUSR1, Number::SIGUSR2, Number::SIGCHLD];

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// `SIGTERM`, `SIGINT` or `SIGQUIT`: stop; finish first what is open.
    Stop { name: &'static str },
    /// `SIGHUP` or `SIGUSR1`: go on with new settings and new workers.
    Reload { name: &'static str },
    /// `SIGUSR2`: go on as another program.
    Upgrade { name: &'static str },
}

/// A signal's number, and the process that sent it; none when it was the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    pub(crate) number: Number,
    pub(crate) sender: Option<u32>,
}

impl Received {
    /// What it asks for; none when that is another one's business.
    pub(crate) fn signal(self) -> Option<Signal> {
        let name = self.number.as_str();
        match self.number {
            Number::SIGTERM | Number::SIGINT | Number::SIGQUIT => Some(Signal::Stop { name }),
            Number::SIGHUP | Number::SIGUSR1 => Some(Signal::Reload { name }),
            Number::SIGUSR2 => Some(Signal::Upgrade { name }),
            _ => None,
        }
    }
}

/// The master's signals: blocked in this thread until this is dropped, and readable instead.
#[derive(Debug)]
pub(crate) struct MasterSignals {
    descriptor: SignalFd,
    asked: SigSet,
    /// The thread's mask as it was.
    before: SigSet,
}

impl MasterSignals {
    /// Blocks every signal that [`Signal`] knows, and what tells of children that stop, for children
    /// to come as well.
    ///
    /// # Errors
    ///
    /// No descriptor left.
    pub(crate) fn begin() -> io::Result<MasterSignals> {
        let asked: SigSet = STOP.into_iter().chain(OTHERS).collect();
        let descriptor = descriptor(&asked)?;
        let before = asked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(MasterSignals { descriptor, asked, before })
    }

    /// Blocks and reads this one as well.
    ///
    /// # Errors
    ///
    /// As sigprocmask(2) and signalfd(2) have them.
    pub(crate) fn add(&mut self, number: Number) -> io::Result<()> {
        self.asked.add(number);
        self.asked.thread_block()?;
        Ok(self.descriptor.set_mask(&self.asked)?)
    }
}

impl AsRawFd for MasterSignals {
    /// To be read from in [`read_buffer`]s.
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_fd().as_raw_fd()
    }
}

impl Drop for MasterSignals {
    fn drop(&mut self) {
        let _restored = self.before.thread_set_mask(); // what was a mask is one
    }
}

/// What the kernel tells a worker by that its master has died (`PR_SET_PDEATHSIG`), beside the end of
/// its channel: a signal that the kernel sends to nobody by itself, and that means something to init
/// alone.
pub(crate) const MASTERS_END: Number = Number::SIGPWR;

/// Makes a forked child deaf to the signals that are the master's, `others` among them, and to those
/// that ask it to stop, which its descriptor tells of.
///
/// # Errors
///
/// No descriptor left.
pub(crate) fn of_new_worker(others: &[Number]) -> io::Result<OwnedFd> {
    let known = [Number::SIGHUP, Number::SIGUSR1, Number::SIGUSR2, Number::SIGPIPE];
    let others = others.iter().copied().filter(|other| !STOP.contains(other));
    for number in known.into_iter().chain(others) {
        sys::ignore_signal(number)?;
    }
    let stop: SigSet = STOP.into_iter().collect();
    stop.thread_set_mask()?;
    Ok(descriptor(&stop)?.into())
}

/// Room for all signals that can be waiting.
pub(crate) fn read_buffer() -> Vec<u8> {
    Vec::with_capacity(RECORDS_MAX * RECORD_BYTES)
}

/// The signals of what was read.
pub(crate) fn decode(records: &[u8]) -> impl Iterator<Item = Received> {
    records.chunks_exact(RECORD_BYTES).filter_map(|record| {
        let number = Number::try_from(u32_at(record, NUMBER_AT) as i32).ok()?;
        let sender = Some(u32_at(record, SENDER_AT)).filter(|pid| *pid != 0);
        Some(Received { number, sender })
    })
}

fn descriptor(signals: &SigSet) -> io::Result<SignalFd> {
    Ok(SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC)?)
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
                Received { number: Number::SIGHUP, sender: Some(7) },
                Received { number: Number::SIGTERM, sender: None },
            ]
        );
        let meanings: Vec<_> = received.into_iter().map(Received::signal).collect();
        assert_eq!(
            meanings,
            [Some(Signal::Reload { name: "SIGHUP" }), Some(Signal::Stop { name: "SIGTERM" })]
        );
    }

    #[test]
    fn a_cut_record_is_left_out_and_one_of_a_child_means_nothing() {
        let bytes = [record(Number::SIGCHLD, 1), record(Number::SIGINT, 1)].concat();
        assert_eq!(decode(&bytes).next().and_then(Received::signal), None);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]).count(), cut / RECORD_BYTES);
        }
    }

    #[test]
    fn a_real_signal_reads_as_we_decode_it() {
        use std::io::Read;
        let signals = MasterSignals::begin().unwrap();
        let mut file =
            std::fs::File::from(signals.descriptor.as_fd().try_clone_to_owned().unwrap());
        raise(Number::SIGUSR1).unwrap(); // to this thread, which has it blocked
        let mut buffer = [0; RECORD_BYTES];
        assert_eq!(file.read(&mut buffer).unwrap(), RECORD_BYTES);
        let received = decode(&buffer).next().unwrap();
        assert_eq!(received.signal(), Some(Signal::Reload { name: "SIGUSR1" }));
        assert_eq!(received.sender, Some(std::process::id()));
    }
}
