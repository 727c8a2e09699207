//! How connections reach the workers, and which worker gets one. Picks none itself.

use std::fmt;
use std::str::FromStr;

use super::ConfigError;

/// How connections reach the workers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Accept {
    /// Each worker accepts from a socket of its own; the kernel spreads connections by their hash.
    #[default]
    Shared,
    /// The master accepts, a [`Balance`] picks the worker, and the descriptor is passed to it.
    Dispatch,
    /// As `Shared`, but a program in the kernel sends each new connection to the less loaded of
    /// two workers. Needs the right to load one (`CAP_BPF`, capabilities(7)); else as `Shared`.
    Steered,
}

impl Accept {
    const NAMES: [(&'static str, Accept); 3] =
        [("shared", Accept::Shared), ("dispatch", Accept::Dispatch), ("steered", Accept::Steered)];
}

/// Which worker gets a connection in [`Accept::Dispatch`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Balance {
    /// The one with the fewest open connections, by the scoreboard's true counts.
    #[default]
    LeastConnections,
    /// One after the other.
    RoundRobin,
    /// One after the other, each as often as its weight says.
    Weighted,
    /// All connections of a client's address to the same one; when a worker goes, only its own
    /// clients move.
    Sticky,
    /// The less loaded of two that are drawn at random.
    PowerOfTwo,
}

impl Balance {
    const NAMES: [(&'static str, Balance); 5] = [
        ("least-connections", Balance::LeastConnections),
        ("round-robin", Balance::RoundRobin),
        ("weighted", Balance::Weighted),
        ("sticky", Balance::Sticky),
        ("p2c", Balance::PowerOfTwo),
    ];
}

impl FromStr for Accept {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Accept, ConfigError> {
        named("accept", text, &Accept::NAMES)
    }
}

impl FromStr for Balance {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Balance, ConfigError> {
        named("balance", text, &Balance::NAMES)
    }
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(*self, &Accept::NAMES))
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(*self, &Balance::NAMES))
    }
}

fn named<V: Copy>(
    key: &'static str,
    text: &str,
    names: &[(&'static str, V)],
) -> Result<V, ConfigError> {
    let found = names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| ConfigError::OutOfRange {
        key,
        value: text.to_owned(),
        range: names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", or "),
    })
}

fn name_of<V: Copy + PartialEq>(value: V, names: &[(&'static str, V)]) -> &'static str {
    names.iter().find(|(_, named)| *named == value).expect("each value has its name").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_itself_again_and_others_are_refused() {
        for (name, mode) in Accept::NAMES {
            assert_eq!((name.parse(), mode.to_string().as_str()), (Ok(mode), name));
        }
        for (name, balance) in Balance::NAMES {
            assert_eq!((name.parse(), balance.to_string().as_str()), (Ok(balance), name));
        }
        let refusal = "central".parse::<Accept>().unwrap_err().to_string();
        assert_eq!(refusal, "`accept` is central: it must be shared, or dispatch, or steered");
    }
}
