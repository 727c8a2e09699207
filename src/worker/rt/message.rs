//! The embedder's own messages, to the master and from it. Checks no lengths.

use serde_json::Value;

use super::runtime::{Runtime, TooMany};

/// Sends a message to the master, with this turn of the loop.
///
/// # Errors
///
/// Too many wait, as the master doesn't read.
pub(crate) fn send_message(payload: Value) -> Result<(), TooMany> {
    Runtime::current().send(payload)
}

/// Calls this with each message of the master's, instead of what was set before.
pub(crate) fn on_message(listener: impl FnMut(Value) + 'static) {
    Runtime::current().set_on_message(Box::new(listener));
}
