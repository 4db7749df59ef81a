//! What an older host's handshake settled, and how it is settled again when the gateway no longer
//! knows the session.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

use super::message::{FromHost, Seen};

/// Revisions from this one on name themselves in a header.
const FIRST_WITH_HEADER: &str = "2025-06-18";
const ID: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// The one session of the host. Nothing before its `initialize` was answered.
#[derive(Debug, Default)]
pub(super) struct Session {
    state: Mutex<State>,
    /// Held by whoever settles it again.
    pub(super) renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// How often it was settled.
    epoch: u64,
    id: Option<HeaderValue>,
    revision: String,
    /// `params` of the host's `initialize`.
    handshake: Option<Bytes>,
    /// What the host asked of the session and would miss: `params` by what they replace.
    wishes: BTreeMap<String, (&'static str, Bytes)>,
}

/// What to send again.
#[derive(Debug)]
pub(super) struct Again {
    /// `params` of `initialize`.
    pub(super) handshake: Bytes,
    /// The revision that has to come out of it: the host speaks no other.
    pub(super) revision: String,
    /// Methods and `params` that the host has sent since.
    pub(super) wishes: Vec<(&'static str, Bytes)>,
}

impl Session {
    /// How often it was settled; 0 before the first time.
    pub(super) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// Takes note of an answered `initialize`.
    pub(super) fn settled(&self, request: &FromHost, headers: &HeaderMap, result: &str) {
        let result: serde_json::Value = serde_json::from_str(result).unwrap_or_default();
        let mut state = self.state.lock();
        state.epoch += 1;
        state.id = headers.get(ID).cloned();
        state.revision = result["protocolVersion"].as_str().unwrap_or_default().to_owned();
        state.handshake = request
            .params()
            .map(|params| params.raw.clone().unwrap_or_else(|| Bytes::from_static(b"{}")));
    }

    /// Takes note of what an answered request changed in the session.
    pub(super) fn wished(&self, request: &FromHost) {
        let Some(params) = request.params() else { return };
        let raw = params.raw.clone().unwrap_or_default();
        let mut state = self.state.lock();
        match (request.method(), &params.uri) {
            ("logging/setLevel", _) => {
                state.wishes.insert("level".to_owned(), ("logging/setLevel", raw));
            }
            ("resources/subscribe", Some(uri)) => {
                state.wishes.insert(format!("uri {uri}"), ("resources/subscribe", raw));
            }
            ("resources/unsubscribe", Some(uri)) => {
                state.wishes.remove(&format!("uri {uri}"));
            }
            _ => {}
        }
    }

    /// What it takes to settle it again; nothing when it never was.
    pub(super) fn again(&self) -> Option<Again> {
        let state = self.state.lock();
        Some(Again {
            handshake: state.handshake.clone()?,
            revision: state.revision.clone(),
            wishes: state.wishes.values().cloned().collect(),
        })
    }

    /// True when there is a session to end.
    pub(super) fn open(&self) -> bool {
        self.state.lock().id.is_some()
    }

    /// Adds the session's headers.
    pub(super) fn head(&self, headers: &mut HeaderMap) {
        let state = self.state.lock();
        if let Some(id) = &state.id {
            headers.insert(ID, id.clone());
        }
        if state.revision.as_str() >= FIRST_WITH_HEADER
            && let Ok(version) = HeaderValue::from_str(&state.revision)
        {
            headers.insert(VERSION, version);
        }
    }
}

/// The revision that a result of `initialize` agrees on.
pub(super) fn agreed(answer: &[u8]) -> Option<String> {
    let result: serde_json::Value = serde_json::from_str(Seen::read(answer)?.result?).ok()?;
    result["protocolVersion"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &'static str) -> FromHost {
        FromHost::read(Bytes::from_static(text.as_bytes())).unwrap()
    }

    #[test]
    fn headers_are_those_of_the_revision_agreed_on() {
        let initialize = host(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"x":1}}"#);
        for (revision, header) in
            [("2025-03-26", false), ("2025-06-18", true), ("2025-11-25", true)]
        {
            let session = Session::default();
            let mut headers = HeaderMap::new();
            session.head(&mut headers);
            assert!(headers.is_empty() && session.again().is_none());
            let given = [(ID, HeaderValue::from_static("s1"))].into_iter().collect();
            session.settled(&initialize, &given, &format!(r#"{{"protocolVersion":"{revision}"}}"#));
            session.head(&mut headers);
            assert_eq!(headers.get(ID).unwrap(), "s1");
            assert_eq!(headers.contains_key(VERSION), header, "{revision}");
            assert_eq!(session.again().unwrap().handshake, "{\"x\":1}");
        }
    }

    #[test]
    fn what_the_host_asked_of_a_session_is_kept_until_taken_back() {
        let session = Session::default();
        let initialize = host(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#);
        session.settled(&initialize, &HeaderMap::new(), "{}");
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"error"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"a:1"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"a:2"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/unsubscribe","params":{"uri":"a:1"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
        ] {
            session.wished(&host(text));
        }
        let wishes = session.again().unwrap().wishes;
        assert_eq!(wishes[0], ("logging/setLevel", Bytes::from_static(b"{\"level\":\"error\"}")));
        assert_eq!(wishes[1], ("resources/subscribe", Bytes::from_static(b"{\"uri\":\"a:2\"}")));
        assert_eq!(wishes.len(), 2);
    }
}
