//! What a server of an older revision asks of its client while a call is in flight.

use bytes::Bytes;

use super::{adapt, envelope, raw};

/// Sends one message to the server that asked, without waiting.
pub(crate) type Reply = Box<dyn FnOnce(Bytes) + Send>;

/// A request of a server on a session that the gateway keeps for a client. It is answered in any
/// case: one that is dropped is answered as a client would that does not know the method, so that
/// no server hangs.
pub struct Question {
    /// As the server wrote it.
    pub id: Bytes,
    /// `elicitation/create`, `sampling/createMessage`, `roots/list`, or whatever it may be.
    pub method: String,
    /// Raw object.
    pub params: Option<Bytes>,
    reply: Option<Reply>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Question {
    pub(crate) fn new(id: Bytes, method: String, whole: &Bytes, reply: Reply) -> Self {
        let params = raw::member(whole, "params").map(|p| whole.slice_ref(p.get().as_bytes()));
        Self { id, method, params, reply: Some(reply) }
    }

    /// Answers with a `result` or an `error`, raw.
    pub fn answer(mut self, member: Member, body: &[u8]) {
        self.send(member.name(), body);
    }

    /// True when `raw` is the id of this question.
    pub fn is(&self, raw: &[u8]) -> bool {
        envelope::Id::of(raw) == envelope::Id::of(&self.id)
    }

    fn send(&mut self, member: &str, body: &[u8]) {
        if let Some(reply) = self.reply.take() {
            reply(envelope::response(&self.id, member, body));
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if self.reply.is_some() {
            let (member, body) = adapt::stand_in(&self.method);
            self.send(member, body);
        }
    }
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// A result.
    Result,
    /// A JSON-RPC error.
    Error,
}

impl Member {
    fn name(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Error => "error",
        }
    }
}
