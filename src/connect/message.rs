//! What has to be known of a message to carry it.

use std::borrow::Cow;

use bytes::Bytes;
use data_plane::mcp::envelope::{self, Message, Params};
use data_plane::mcp::members::{self, Members};
use serde_json::json;
use weir_model::reason::Refusal;

const CLAIM: &str = "io.modelcontextprotocol/protocolVersion";

/// A message of the host.
#[derive(Debug)]
pub(super) struct FromHost {
    /// As it came.
    pub(super) text: Bytes,
    /// The same, read.
    pub(super) message: Message,
    /// The stateless revision that it claims in `_meta`.
    pub(super) revision: Option<String>,
}

impl FromHost {
    /// Reads one line.
    ///
    /// # Errors
    /// The answer that the host gets instead.
    pub(super) fn read(text: Bytes) -> Result<Self, Bytes> {
        let message = envelope::read(&text).map_err(|unreadable| {
            refused(unreadable.id.as_deref().unwrap_or(b"null"), &unreadable.refusal)
        })?;
        let meta = message.params().and_then(|params| params.meta.clone());
        let revision = meta.as_deref().and_then(|meta| {
            let members = Members::parse(std::str::from_utf8(meta).ok()?).ok()?;
            members.text(CLAIM).map(Cow::into_owned)
        });
        Ok(Self { text, message, revision })
    }

    /// A request of the bridge itself.
    pub(super) fn own(number: u64, method: &str, params: &[u8]) -> Self {
        let id = format!("\"weir-connect-{number}\"");
        let params = String::from_utf8_lossy(params);
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":{},"params":{params}}}"#,
            json!(method)
        );
        let text = Bytes::from(text);
        // Composed of a known method and parameters that a host's message had.
        let message = envelope::read(&text).expect("a message that was composed here");
        Self { text, message, revision: None }
    }

    /// The raw id of a request; `null` for what needs no answer.
    pub(super) fn id(&self) -> &[u8] {
        match &self.message {
            Message::Request { id, .. } => id.raw(),
            _ => b"null",
        }
    }

    /// What the id means, to compare it with others.
    pub(super) fn key(&self) -> Option<&str> {
        self.message.id().map(envelope::Id::key)
    }

    /// The method; empty for an answer.
    pub(super) fn method(&self) -> &str {
        self.message.method().unwrap_or_default()
    }

    pub(super) fn params(&self) -> Option<&Params> {
        self.message.params()
    }

    /// True when it speaks a stateless revision.
    pub(super) fn modern(&self) -> bool {
        self.revision.is_some()
    }
}

/// A message of the gateway, as far as the bridge looks.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    /// What its id means.
    pub(super) key: Option<String>,
    /// Of requests and notifications.
    pub(super) method: Option<Cow<'a, str>>,
    /// Raw.
    pub(super) params: Option<&'a str>,
    /// Raw, of answers.
    pub(super) result: Option<&'a str>,
    /// Raw, of answers.
    pub(super) error: Option<&'a str>,
}

impl<'a> Seen<'a> {
    /// Nothing when it is no JSON-RPC message.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let members = Members::parse(std::str::from_utf8(text).ok()?).ok()?;
        let raw = |name: &str| members.get(name).map(serde_json::value::RawValue::get);
        let seen = Self {
            key: members.get("id").and_then(envelope::id_key),
            method: members.text("method"),
            params: raw("params"),
            result: raw("result"),
            error: raw("error"),
        };
        (seen.method.is_some() || seen.result.is_some() || seen.error.is_some()).then_some(seen)
    }

    /// True when it answers the request whose id means `key`.
    pub(super) fn answers(&self, key: Option<&str>) -> bool {
        self.method.is_none() && self.key.as_deref() == key
    }

    /// Code and `data.reason` of an error.
    pub(super) fn failure(&self) -> Option<(i64, Option<String>)> {
        let error: serde_json::Value = serde_json::from_str(self.error?).ok()?;
        let reason = error["data"]["reason"].as_str().map(str::to_owned);
        Some((error["code"].as_i64()?, reason))
    }
}

/// Why the bridge itself answers a request. Codes lie outside of the range that JSON-RPC and MCP
/// reserve; `data.reason` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No region took the request. It was not carried out.
    Unreachable,
    /// The connection broke while the request ran. It may have been carried out.
    Lost,
    /// Nobody is signed in.
    NotSignedIn,
    /// The host has too many requests open.
    TooMany,
    /// What came back is no MCP.
    NoGateway,
}

impl Trouble {
    /// `data.reason`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "gateway_unreachable",
            Self::Lost => "connection_lost",
            Self::NotSignedIn => "not_signed_in",
            Self::TooMany => "too_many_requests",
            Self::NoGateway => "no_gateway",
        }
    }

    fn code(self) -> i64 {
        match self {
            Self::Unreachable => 50390,
            Self::Lost => 50391,
            Self::NotSignedIn => 40190,
            Self::TooMany => 42990,
            Self::NoGateway => 50290,
        }
    }
}

/// The answer to a request that the bridge could not get answered.
pub(super) fn failed(id: &[u8], trouble: Trouble, detail: &str) -> Bytes {
    let error = json!({
        "code": trouble.code(),
        "message": format!("weir connect: {detail}"),
        "data": { "reason": trouble.label() },
    });
    error_with(id, &error.to_string())
}

fn refused(id: &[u8], refusal: &Refusal) -> Bytes {
    let error = json!({ "code": refusal.reason.code(), "message": refusal.message() });
    error_with(id, &error.to_string())
}

/// The answer with that `error` member.
pub(super) fn error_with(id: &[u8], error: &str) -> Bytes {
    let id = String::from_utf8_lossy(id);
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
}

/// The elements of a batch (2025-03-26); none when the line is no array.
pub(super) fn batch(text: &Bytes) -> Option<Vec<Bytes>> {
    if text.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'[') {
        return None;
    }
    // What cannot be read is no batch; reading it as a message says why.
    let text = members::scan(text).ok()?;
    let elements: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.iter().map(|raw| Bytes::copy_from_slice(raw.get().as_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Result<FromHost, String> {
        FromHost::read(Bytes::from_static(text.as_bytes()))
            .map_err(|answer| String::from_utf8_lossy(&answer).into_owned())
    }

    #[test]
    fn the_claim_tells_the_era() {
        let old = read(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).unwrap();
        assert!(!old.modern() && old.id() == b"1");
        let new = read(
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        assert_eq!(new.unwrap().revision.as_deref(), Some("2026-07-28"));
    }

    #[test]
    fn what_cannot_be_read_is_answered_with_its_id_where_it_has_one() {
        let answer = read("{\"jsonrpc\":").unwrap_err();
        assert!(answer.contains("-32700") && answer.contains("\"id\":null"), "{answer}");
        let answer = read(r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#).unwrap_err();
        assert!(answer.contains("-32600") && answer.contains("\"id\":7"), "{answer}");
    }

    #[test]
    fn answers_are_matched_by_what_ids_mean() {
        let asked = read(r#"{"jsonrpc":"2.0","id":"\u0061","method":"ping"}"#).unwrap();
        let seen = Seen::read(br#"{"jsonrpc":"2.0","id":"a","result":{}}"#).unwrap();
        assert!(seen.answers(asked.key()));
        let request = Seen::read(br#"{"jsonrpc":"2.0","id":"a","method":"roots/list"}"#).unwrap();
        assert!(!request.answers(asked.key()));
        let text =
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":50307,"data":{"reason":"draining"}}}"#;
        let failure = Seen::read(text).unwrap().failure();
        assert_eq!(failure, Some((50307, Some("draining".to_owned()))));
        assert!(Seen::read(b"<html>").is_none() && Seen::read(b"{}").is_none());
    }

    #[test]
    fn batches_are_taken_apart() {
        let elements = batch(&Bytes::from_static(b" [{\"a\":1},{\"b\": 2}]")).unwrap();
        assert_eq!(elements, vec!["{\"a\":1}", "{\"b\": 2}"]);
        assert_eq!(batch(&Bytes::from_static(b"{}")), None);
        assert_eq!(batch(&Bytes::from_static(b"[")), None);
    }
}
