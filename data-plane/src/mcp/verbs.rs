//! The gateway's own verbs: short names for standard methods that one plain HTTP request can use,
//! without handshake, session or mirrored headers. Off unless the group turns them on.
//!
//! A verb is an alias and nothing else: it is replaced by the method that it stands for before
//! anything is decided, so phases, checks, limits and audit are those of that method.

use weir_model::reason::{Reason, Refusal};

use super::envelope::Message;

/// One verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `mcp.handshake`: `server/discover` with what the caller may use of every list.
    Handshake,
    /// `tool.invoke`: `tools/call`.
    Invoke,
    /// `resource.get`: `resources/read`.
    Get,
    /// `prompt.render`: `prompts/get`.
    Render,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 4] = [Self::Handshake, Self::Invoke, Self::Get, Self::Render];

    /// On the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "mcp.handshake",
            Self::Invoke => "tool.invoke",
            Self::Get => "resource.get",
            Self::Render => "prompt.render",
        }
    }

    /// The method that it stands for.
    pub fn method(self) -> &'static str {
        match self {
            Self::Handshake => "server/discover",
            Self::Invoke => "tools/call",
            Self::Get => "resources/read",
            Self::Render => "prompts/get",
        }
    }

    /// Replaces the verb of a request by its method. None for all other messages.
    ///
    /// # Errors
    /// [`Reason::MethodUnknown`] for a verb where the group has them off.
    pub fn take(message: &mut Message, on: bool) -> Result<Option<Self>, Refusal> {
        let Message::Request { method, .. } = message else { return Ok(None) };
        let Some(verb) = Self::ALL.into_iter().find(|verb| verb.name() == &**method) else {
            return Ok(None);
        };
        if !on {
            return Err(
                Refusal::new(Reason::MethodUnknown, "verbs are off").hint("Method not found.")
            );
        }
        *method = verb.method().into();
        Ok(Some(verb))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{envelope, methods};
    use super::*;
    use bytes::Bytes;

    fn message(method: &str) -> Message {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        envelope::read(&Bytes::from(text)).unwrap()
    }

    #[test]
    fn verbs_become_methods_where_they_are_on() {
        for verb in Verb::ALL {
            let mut sent = message(verb.name());
            assert_eq!(Verb::take(&mut sent, true).unwrap(), Some(verb));
            assert_eq!(sent.method(), Some(verb.method()));
            assert!(methods::find(verb.method()).is_some());
            assert!(methods::find(verb.name()).is_none(), "no method of its own");
            let off = Verb::take(&mut message(verb.name()), false).unwrap_err();
            assert_eq!(off.reason, Reason::MethodUnknown);
        }
        let mut other = message("tools/call");
        assert_eq!(Verb::take(&mut other, true).unwrap(), None);
        assert_eq!(other.method(), Some("tools/call"));
    }
}
