//! What a send owns: written bytes, then shared ones. Knows no sockets.

use bytes::Bytes;

/// Bytes on their way to a socket: a `head` that the sender wrote, and a `body` that may be
/// shared with others and is never copied. Keeps count of what has gone out.
#[derive(Debug, Default)]
pub struct SendBuffer {
    head: Vec<u8>,
    /// Most have none, and nothing to drop then.
    body: Option<Bytes>,
    sent: usize,
}

impl SendBuffer {
    /// A buffer of `head` alone.
    pub fn new(head: Vec<u8>) -> SendBuffer {
        SendBuffer { head, body: None, sent: 0 }
    }

    /// A buffer of `head`, then `body`.
    pub fn with_body(head: Vec<u8>, body: Bytes) -> SendBuffer {
        SendBuffer { head, body: Some(body), sent: 0 }
    }

    /// Notes that `count` more bytes went out.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.left(), "sent more than there was");
        self.sent += count;
    }

    /// Bytes that have not gone out yet.
    pub fn left(&self) -> usize {
        self.head.len() + self.body.as_ref().map_or(0, Bytes::len) - self.sent
    }

    /// Gives the written part's memory back, for the next response.
    pub fn into_head(self) -> Vec<u8> {
        self.head
    }

    /// What is left to send, in order; the second part is empty unless there is a body.
    pub(crate) fn rest(&self) -> (&[u8], &[u8]) {
        let in_body = self.sent.saturating_sub(self.head.len());
        let body = self.body.as_ref().map_or(&[][..], |body| &body[in_body..]);
        (&self.head[self.sent.min(self.head.len())..], body)
    }
}

impl From<Vec<u8>> for SendBuffer {
    fn from(head: Vec<u8>) -> SendBuffer {
        SendBuffer::new(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_what_has_not_gone_out_for_every_count() {
        let whole = b"headbody";
        for sent in 0..=whole.len() {
            let mut buffer = SendBuffer::with_body(b"head".to_vec(), Bytes::from_static(b"body"));
            buffer.advance(sent);
            let (head, body) = buffer.rest();
            assert_eq!([head, body].concat(), &whole[sent..]);
            assert_eq!(buffer.left(), whole.len() - sent);
        }
    }

    #[test]
    #[should_panic(expected = "sent more than there was")]
    fn more_than_everything_can_not_go_out() {
        SendBuffer::new(b"head".to_vec()).advance(5);
    }
}
