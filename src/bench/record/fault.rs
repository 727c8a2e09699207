//! What can go wrong with a request or a connection, by name.

use serde::{Deserialize, Serialize};

/// Why a request or a connection failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The host's name has no address.
    Dns,
    /// Nobody listens there.
    Refused,
    /// There is no way to the address.
    Unreachable,
    /// The connection was not open in time.
    ConnectTimeout,
    /// No local port is left for a connection to this address.
    NoPort,
    /// No descriptor is left for a connection.
    NoDescriptor,
    /// The peer broke the connection: ECONNRESET, EPIPE.
    Reset,
    /// The peer closed the connection before a byte of the answer.
    Closed,
    /// The peer closed the connection within the answer.
    CutShort,
    /// The answer did not come in time.
    Timeout,
    /// What came is not HTTP, or HTTP that can be understood in more than one way.
    Malformed,
    /// An answer with another status than expected.
    Status,
    /// An answer with another body, or another length of it, than expected.
    Body,
    /// Anything else that the kernel refused.
    Other,
}

/// How many there are.
pub(super) const FAULTS: usize = Fault::ALL.len();

impl Fault {
    /// In the order of their numbers.
    pub const ALL: [Fault; 14] = [
        Fault::Dns,
        Fault::Refused,
        Fault::Unreachable,
        Fault::ConnectTimeout,
        Fault::NoPort,
        Fault::NoDescriptor,
        Fault::Reset,
        Fault::Closed,
        Fault::CutShort,
        Fault::Timeout,
        Fault::Malformed,
        Fault::Status,
        Fault::Body,
        Fault::Other,
    ];

    /// It is the generator's own: the target has nothing to do with it.
    pub fn is_own(self) -> bool {
        matches!(self, Fault::NoPort | Fault::NoDescriptor)
    }

    /// For people: as [`text`](Fault::text), of a connection that no request is to blame for.
    pub fn text_of_connection(self) -> &'static str {
        match self {
            Fault::Malformed => "connections with bytes that no request asked for",
            fault => fault.text(),
        }
    }

    /// For people: follows a count, as in "3 connections refused".
    pub fn text(self) -> &'static str {
        match self {
            Fault::Dns => "names without an address",
            Fault::Refused => "connections refused",
            Fault::Unreachable => "addresses unreachable",
            Fault::ConnectTimeout => "connections not open in time",
            Fault::NoPort => "times no local port left",
            Fault::NoDescriptor => "times no descriptor left",
            Fault::Reset => "connections reset",
            Fault::Closed => "connections closed without an answer",
            Fault::CutShort => "answers cut short",
            Fault::Timeout => "answers not in time",
            Fault::Malformed => "answers that are no HTTP",
            Fault::Status => "answers with an unexpected status",
            Fault::Body => "answers with an unexpected body",
            Fault::Other => "other errors",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_in_the_order_of_their_numbers() {
        for (number, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, number);
        }
    }
}
