//! Sessions of clients that speak a revision up to 2025-11-25, without a table.
//!
//! The session id *is* the session: what `initialize` settled, sealed with keys that every proxy
//! has, and bound to the group, the server and the principal. Any proxy continues any session; an
//! id that was forged, altered, made for somebody else or is too old is an unknown session. Being
//! in possession of an id proves nothing: every request is authenticated by itself.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::reason::{Reason, Refusal};
use weir_model::seal::{SealError, Sealer};

use super::revision::Revision;
use crate::hop::Holder;

/// The header, on the way in and out.
pub const HEADER: &str = "mcp-session-id";

const PURPOSE: &str = "session";

/// What `initialize` settled.
#[derive(Debug, Serialize, Deserialize)]
pub struct Session {
    /// Random: tells sessions of one caller apart.
    #[serde(rename = "n")]
    pub nonce: String,
    /// Negotiated revision.
    #[serde(rename = "r")]
    pub revision: String,
    /// The client's `capabilities`.
    #[serde(rename = "c")]
    pub capabilities: Box<RawValue>,
    /// The client's `clientInfo`.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub client_info: Option<Box<RawValue>>,
    /// The server's own session, on endpoints of one server.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The proxy that alone has that session, where one does.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Holder>,
    /// The version of the server that the session was opened on.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Name>,
    /// Seconds since the epoch.
    #[serde(rename = "t")]
    pub created: i64,
}

/// What a session belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Bond<'a> {
    /// Group of the endpoint.
    pub group: &'a str,
    /// Server of the endpoint; none where all are joined.
    pub server: Option<&'a str>,
    /// [`weir_model::principal::Principal::id`].
    pub principal: &'a str,
    /// Of the group's document: raised to void all that was sealed before.
    pub epoch: u32,
}

impl Bond<'_> {
    /// Associated data: no two bonds read alike, since names contain no zero bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = [self.group, self.server.unwrap_or(""), self.principal].join("\0");
        if self.epoch > 0 {
            text.push_str(&format!("\0{}", self.epoch));
        }
        text.into_bytes()
    }
}

impl Session {
    /// The negotiated revision.
    ///
    /// # Errors
    /// [`Reason::SessionUnknown`] when it is none that this build knows.
    pub fn revision(&self) -> Result<Revision, Refusal> {
        Revision::parse(&self.revision).ok_or_else(|| unknown("revision"))
    }

    /// The session id.
    ///
    /// # Errors
    /// [`Reason::InvalidParams`] when the client said too much about itself to be carried,
    /// [`Reason::SnapshotMissing`] when there is no key yet.
    pub fn seal(&self, sealer: &Sealer, bond: Bond<'_>) -> Result<String, Refusal> {
        let plain = serde_json::to_vec(self)
            .map_err(|e| Refusal::new(Reason::Internal, format!("session to JSON: {e}")))?;
        sealer.seal(PURPOSE, &bond.bytes(), &plain).map_err(|error| match error {
            SealError::TooLong => Refusal::new(Reason::InvalidParams, "session too long")
                .hint("The client's capabilities and clientInfo are too large."),
            other => Refusal::new(Reason::SnapshotMissing, other.to_string()),
        })
    }

    /// Opens a session id.
    ///
    /// # Errors
    /// [`Reason::SessionUnknown`] for whatever this gateway did not give to this principal for
    /// this endpoint within [`bounds::SESSION_SECS_MAX`].
    pub fn open(sealer: &Sealer, bond: Bond<'_>, id: &str, now: i64) -> Result<Self, Refusal> {
        let plain =
            sealer.open(PURPOSE, &bond.bytes(), id).map_err(|error| unknown(&error.to_string()))?;
        let session: Self =
            serde_json::from_slice(&plain).map_err(|_| unknown("not a session of this build"))?;
        if now.saturating_sub(session.created) > bounds::SESSION_SECS_MAX {
            return Err(unknown("too old"));
        }
        Ok(session)
    }
}

/// The refusal upon which clients start anew.
pub fn unknown(detail: &str) -> Refusal {
    Refusal::new(Reason::SessionUnknown, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use weir_model::secret::Secret;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&[("k".to_owned(), Arc::new(Secret::new(vec![byte; 32])))]).unwrap()
    }

    fn session() -> Session {
        Session {
            nonce: "n".into(),
            revision: "2025-11-25".into(),
            capabilities: RawValue::from_string(r#"{"sampling": {}}"#.into()).unwrap(),
            client_info: None,
            upstream: Some("up".into()),
            home: None,
            version: Some("v1".parse().unwrap()),
            created: 1_000,
        }
    }

    const BOND: Bond<'_> =
        Bond { group: "dev", server: Some("files"), principal: "jwt:okta:alice", epoch: 0 };

    #[test]
    fn a_session_comes_back_as_it_was() {
        let id = session().seal(&sealer(1), BOND).unwrap();
        assert!(id.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{id}");
        let back = Session::open(&sealer(1), BOND, &id, 1_001).unwrap();
        assert_eq!(back.capabilities.get(), r#"{"sampling": {}}"#);
        assert_eq!(back.upstream.as_deref(), Some("up"));
        assert_eq!(back.revision().unwrap(), Revision::V2025_11_25);
    }

    #[test]
    fn everything_else_is_unknown() {
        let id = session().seal(&sealer(1), BOND).unwrap();
        let reason = |sealer: &Sealer, bond: Bond<'_>, id: &str, now: i64| {
            Session::open(sealer, bond, id, now).map(|_| ()).map_err(|r| r.reason)
        };
        let unknown = Err(Reason::SessionUnknown);
        let mine = sealer(1);
        assert_eq!(reason(&mine, Bond { principal: "jwt:okta:bob", ..BOND }, &id, 1), unknown);
        assert_eq!(reason(&mine, Bond { server: None, ..BOND }, &id, 1), unknown);
        assert_eq!(reason(&mine, Bond { group: "prod", ..BOND }, &id, 1), unknown);
        assert_eq!(reason(&mine, Bond { epoch: 1, ..BOND }, &id, 1), unknown);
        assert_eq!(reason(&sealer(2), BOND, &id, 1), unknown);
        assert_eq!(reason(&mine, BOND, &id, 1_000 + bounds::SESSION_SECS_MAX + 1), unknown);
        for at in 0..id.len() {
            let mut forged = id.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(reason(&mine, BOND, &forged, 1), unknown, "{at}");
        }
        for junk in ["", "x", "k.", "k.AAAA", &"A".repeat(10_000)] {
            assert_eq!(reason(&mine, BOND, junk, 1), unknown, "{junk}");
        }
    }

    #[test]
    fn a_client_that_says_too_much_is_told_so() {
        let mut session = session();
        let big = format!(r#"{{"x":"{}"}}"#, "y".repeat(bounds::SEALED_BYTES_MAX));
        session.capabilities = RawValue::from_string(big).unwrap();
        assert_eq!(session.seal(&sealer(1), BOND).unwrap_err().reason, Reason::InvalidParams);
    }
}
