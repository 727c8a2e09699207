//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112). Knows no sockets, no clock, no handlers.
//!
//! ```text
//! bytes ─▶ HeadParser ─▶ Head + fields ─▶ BodyDecoder ─▶ pieces of the payload
//!                                         encode_* ◀─ what the response says
//! ```
//!
//! Strict by design: where RFC 9112 lets a recipient choose between repairing a message and
//! refusing it, this one refuses, because two servers that repair differently are how requests
//! are smuggled. Each refusal is the peer's fault, has one exact name, and carries its status.

mod authority;
mod body;
mod chunked;
mod class;
mod encode;
mod error;
mod fault;
mod fields;
mod framing;
mod head;
mod limits;
mod method;
mod parser;
mod span;
mod status;
mod target;
#[cfg(test)]
mod tests;

pub use authority::is_authority;
pub use body::{BodyDecoder, LengthDecoder, Step};
pub use chunked::{ChunkError, ChunkedDecoder};
pub use class::{is_field_name, is_field_value};
pub use encode::{
    CHUNK_END, CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE, CONNECTION_UPGRADE, CONTINUE, EncodeError,
    LAST_CHUNK, TRANSFER_ENCODING_CHUNKED, encode_chunk, encode_chunk_head,
    encode_content_length_value, encode_field, encode_status_line,
};
pub use error::HeadError;
pub use framing::Framing;
pub use head::{Head, parse_head};
pub use limits::{FIELDS_MAX, HeadLimits, METHOD_BYTES_MAX};
pub use method::{Method, Version};
pub use parser::HeadParser;
pub use span::{Field, Span};
pub use status::{body_allowed, content_length_allowed, reason};
pub use target::TargetForm;
