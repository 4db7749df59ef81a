//! Batches of JSON-RPC messages, which revision 2025-03-26 has and no other.
//!
//! A batch is split here and nothing more: each item is read, checked, limited, recorded and
//! answered as a call of its own.

use bytes::Bytes;
use serde_json::value::RawValue;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use super::envelope::{self, Message};
use super::members;

/// One message of a batch.
#[derive(Debug, Clone)]
pub struct Item {
    /// As received.
    pub raw: Bytes,
    /// JSON-RPC answers neither notifications nor responses, not even with an error.
    pub silent: bool,
}

/// True when a body is an array: what JSON allows before it is skipped.
pub fn is_one(body: &[u8]) -> bool {
    body.iter().find(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n')) == Some(&b'[')
}

/// The items of a batch, in order.
///
/// # Errors
/// [`Reason::MalformedJson`], [`Reason::TooDeep`], and [`Reason::InvalidRequest`] for an empty
/// batch, one of more than [`bounds::BATCH_MAX`] items, one within another, and a handshake in
/// one (2025-03-26, lifecycle).
pub fn split(body: &Bytes) -> Result<Vec<Item>, Refusal> {
    let text = members::scan(body)?;
    let parts: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|_| Refusal::from(Reason::MalformedJson))?;
    if parts.is_empty() || parts.len() > bounds::BATCH_MAX {
        let detail = format!("a batch of {}", parts.len());
        return Err(Refusal::new(Reason::InvalidRequest, detail)
            .hint(format!("A batch has 1 to {} messages.", bounds::BATCH_MAX)));
    }
    parts.into_iter().map(|part| item(body.slice_ref(part.get().as_bytes()))).collect()
}

fn item(raw: Bytes) -> Result<Item, Refusal> {
    let invalid = |hint: &str| Refusal::new(Reason::InvalidRequest, "batch").hint(hint);
    if is_one(&raw) {
        return Err(invalid("A batch must not hold another batch."));
    }
    let message = envelope::read(&raw);
    if message.as_ref().is_ok_and(|message| message.method() == Some("initialize")) {
        return Err(invalid("initialize must not be part of a batch."));
    }
    let silent = matches!(message, Ok(Message::Notification { .. } | Message::Response { .. }));
    Ok(Item { raw, silent })
}

/// Why other revisions get none.
pub fn refused() -> Refusal {
    Refusal::new(Reason::InvalidRequest, "a batch")
        .hint("Send one message; batches exist in revision 2025-03-26 only.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_split_into_their_bytes() {
        let body = Bytes::from_static(
            br#" [ {"jsonrpc":"2.0","id":1,"method":"a", "params":{"n":1.10}},
                {"jsonrpc":"2.0","method":"b"},{"jsonrpc":"2.0","id":1,"result":{}}, 7 ]"#,
        );
        assert!(is_one(&body));
        let items = split(&body).unwrap();
        let silent: Vec<bool> = items.iter().map(|item| item.silent).collect();
        assert_eq!(silent, [false, true, true, false]);
        assert_eq!(
            items[0].raw,
            &br#"{"jsonrpc":"2.0","id":1,"method":"a", "params":{"n":1.10}}"#[..]
        );
        assert!(!is_one(b"{}") && !is_one(b"  ") && !is_one(b"\"[\""));
    }

    #[test]
    fn batches_are_bounded() {
        let of = |count: usize| Bytes::from(format!("[{}]", vec!["1"; count].join(",")));
        let reason = |body: Bytes| split(&body).map(|items| items.len()).map_err(|r| r.reason);
        assert_eq!(reason(of(bounds::BATCH_MAX)), Ok(bounds::BATCH_MAX));
        assert_eq!(reason(of(bounds::BATCH_MAX + 1)), Err(Reason::InvalidRequest));
        assert_eq!(reason(of(0)), Err(Reason::InvalidRequest));
        assert_eq!(reason(Bytes::from_static(b"[1,")), Err(Reason::MalformedJson));
        for bad in [r#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#, "[[1]]"] {
            assert_eq!(reason(Bytes::from_static(bad.as_bytes())), Err(Reason::InvalidRequest));
        }
        let deep = "[".repeat(65) + &"]".repeat(65);
        assert_eq!(reason(deep.into()), Err(Reason::TooDeep));
    }
}
