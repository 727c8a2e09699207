//! Interim responses (RFC 9110 section 15.2) that a handler asks for while it is polled; its
//! connection takes them right afterwards. Knows no connections.

use std::cell::{Cell, RefCell};
use std::mem;

use crate::proto::h1::{EncodeError, encode_field, encode_status_line};

thread_local! {
    /// Looked at after every poll: a word.
    static IS_PENDING: Cell<bool> = const { Cell::new(false) };
    static PENDING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Asks for a 103 (RFC 8297) with these fields.
pub(super) fn push<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), EncodeError> {
    const EARLY_HINTS: u16 = 103;
    let mut response = Vec::with_capacity(128);
    encode_status_line(&mut response, EARLY_HINTS)?;
    for (name, value) in fields {
        encode_field(&mut response, name.as_bytes(), value.as_bytes())?;
    }
    response.extend_from_slice(b"\r\n");
    PENDING.with_borrow_mut(|pending| pending.extend_from_slice(&response));
    IS_PENDING.set(true);
    Ok(())
}

/// Whether there is something to [`take`].
#[inline]
pub(crate) fn is_pending() -> bool {
    IS_PENDING.get()
}

/// What was asked for since the last call, as it is sent.
#[cold]
pub(crate) fn take() -> Vec<u8> {
    IS_PENDING.set(false);
    PENDING.with_borrow_mut(mem::take)
}
