//! Requests and responses as handlers see them. Knows no sockets and no wire format beyond the
//! parsed head that a request keeps.

pub(crate) mod body;
mod body_error;
mod client;
pub(crate) mod disposition;
mod events;
mod form;
mod inlet;
pub(crate) mod interim;
mod multipart;
mod request;
mod response;
mod status;
mod upgrade;

pub use body::{Body, Frame};
pub use body_error::BodyError;
pub(crate) use client::{Client, household, local_of, peer_of};
pub use client::{Origin, Scheme};
pub use events::Event;
pub use inlet::BodyStream;
pub(crate) use inlet::{BodyLimits, Inlet};
pub use multipart::{Multipart, Part, TempFile};
pub use request::Request;
pub(crate) use request::RequestPool;
pub(crate) use response::{ContentType, ReadyFields, ResponseField};
pub use response::{IntoResponse, Response};
pub use status::Status;
pub(crate) use upgrade::Pipe;
pub use upgrade::{Upgrade, Upgraded};

pub use crate::proto::h1::{Method, Version};
