//! Writes server-sent events.

use bytes::{BufMut, Bytes, BytesMut};

/// A comment that keeps intermediaries from closing an idle stream.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An event that carries a JSON-RPC message, whole, without an id.
    Message(Bytes),
    /// An event without a message, with the server's own id.
    Prime {
        /// To resume from.
        id: Option<String>,
        /// How long to wait before that.
        retry_ms: Option<u64>,
    },
    /// A comment.
    Comment,
}

impl Frame {
    /// Bytes of the message, for records.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Message(event) => event.len() as u64,
            Self::Prime { .. } | Self::Comment => 0,
        }
    }

    /// On a stream that its client cannot ask for again: without ids.
    pub fn plain(self) -> Bytes {
        match self {
            Self::Message(event) => event,
            Self::Prime { .. } | Self::Comment => KEEP_ALIVE,
        }
    }
}

/// One event that carries a JSON-RPC message.
///
/// JSON may contain line breaks between its members; each line becomes a `data` line of its own,
/// which readers join again.
pub fn message(parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(length + 24);
    out.put_slice(b"event: message\ndata: ");
    for part in parts {
        put_lines(&mut out, part);
    }
    out.put_slice(b"\n\n");
    out.freeze()
}

/// An event without a message: an id to resume from, and how long to wait before that.
pub fn prime(id: Option<&str>, retry_ms: Option<u64>) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    if let Some(id) = id.filter(|id| !id.contains(['\r', '\n', '\0'])) {
        out.put_slice(b"id: ");
        out.put_slice(id.as_bytes());
        out.put_u8(b'\n');
    }
    if let Some(retry) = retry_ms {
        out.put_slice(format!("retry: {retry}\n").as_bytes());
    }
    out.put_slice(b"data: \n\n");
    out.freeze()
}

fn put_lines(out: &mut BytesMut, part: &[u8]) {
    if !part.iter().any(|b| matches!(b, b'\n' | b'\r')) {
        out.put_slice(part);
        return;
    }
    let mut rest = part;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
        out.put_slice(&rest[..at]);
        out.put_slice(b"\ndata: ");
        let pair = rest[at] == b'\r' && rest.get(at + 1) == Some(&b'\n');
        rest = &rest[at + 1 + usize::from(pair)..];
    }
    out.put_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_primes() {
        assert_eq!(message(&[b"{\"a\":", b"1}"]), "event: message\ndata: {\"a\":1}\n\n");
        assert_eq!(
            message(&[b"{\r\n\"a\":1\n}"]),
            "event: message\ndata: {\ndata: \"a\":1\ndata: }\n\n"
        );
        assert_eq!(prime(Some("s-1"), None), "id: s-1\ndata: \n\n");
        assert_eq!(prime(None, Some(500)), "retry: 500\ndata: \n\n");
        assert_eq!(prime(Some("a\nevent: x"), None), "data: \n\n");
    }
}
