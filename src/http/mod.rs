//! Requests and responses as handlers see them. Knows no sockets and no wire format beyond the
//! parsed head that a request keeps.

pub(crate) mod body;
mod request;
mod response;
mod status;

pub use body::Body;
pub use request::Request;
pub(crate) use request::RequestPool;
pub(crate) use response::ContentType;
pub use response::{IntoResponse, Response};
pub use status::Status;

pub use crate::proto::h1::{Method, Version};
