//! Why a request's body can't be had, and how that is answered. Reads no bodies.

use std::fmt;

use super::{IntoResponse, Response, Status};

/// Why a request's body can't be had.
///
/// As the error of a handler's result it is answered with [`status`](BodyError::status) and what it
/// says; where the body's end can't be found, the connection closes after that.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// It has more bytes than may be, or than may be collected.
    TooLarge,
    /// The client stopped sending it for longer than `timeouts.body`.
    TimedOut,
    /// Its framing isn't HTTP's (RFC 9112 section 7.1).
    Malformed,
    /// The connection ended before it did.
    CutOff,
    /// It was read before, or by another.
    Taken,
    /// It isn't of the type that it is read as, by its Content-Type.
    WrongType {
        /// What it should be.
        expected: &'static str,
    },
    /// It isn't what its Content-Type says, and why.
    Invalid(String),
    /// It has more parts, or more bytes in one of them or in its head, than may be.
    PartTooLarge,
    /// It couldn't be stored: an error of the server's file system.
    Storage(String),
}

impl BodyError {
    /// The status code that answers it (RFC 9110 section 15).
    pub fn status(&self) -> Status {
        match self {
            BodyError::TooLarge | BodyError::PartTooLarge => Status::CONTENT_TOO_LARGE,
            BodyError::TimedOut => Status::REQUEST_TIMEOUT,
            BodyError::WrongType { .. } => Status::UNSUPPORTED_MEDIA_TYPE,
            BodyError::Malformed | BodyError::CutOff | BodyError::Invalid(_) => Status::BAD_REQUEST,
            BodyError::Taken | BodyError::Storage(_) => Status::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::TooLarge => f.write_str("the request's body is too large"),
            BodyError::TimedOut => f.write_str("the request's body came too slowly"),
            BodyError::Malformed => f.write_str("the request's body is malformed"),
            BodyError::CutOff => f.write_str("the request's body was cut off"),
            BodyError::Taken => f.write_str("the request's body was read before"),
            BodyError::WrongType { expected } => {
                write!(f, "the request's body is not {expected} by its Content-Type")
            }
            BodyError::Invalid(why) => write!(f, "the request's body is invalid: {why}"),
            BodyError::PartTooLarge => f.write_str("a part of the request's body is too large"),
            BodyError::Storage(why) => write!(f, "the request's body can't be stored: {why}"),
        }
    }
}

impl std::error::Error for BodyError {}

/// What the client did wrong is told to it; what the server did, to the log.
impl IntoResponse for BodyError {
    fn into_response(self) -> Response {
        let status = self.status();
        match self {
            BodyError::Taken | BodyError::Storage(_) => {
                log::error!("a handler failed: {self}");
                Response::plain(status)
            }
            BodyError::WrongType { .. } | BodyError::Invalid(_) => {
                Response::text(format!("{self}\n")).with_status(status)
            }
            _ => Response::plain(status),
        }
    }
}
