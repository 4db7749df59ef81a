//! What the two sides say about themselves before the first call, in either era.

use bytes::Bytes;
use weir_model::reason::Refusal;

use super::adapt::{LEGACY, MODERN, NEWEST_LEGACY};
use super::era::Verdict;
use super::{Front, raw, refuse};

/// What a server says about itself.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    /// The eras that it speaks.
    pub(crate) verdict: Verdict,
    /// The newest revision that both sides speak.
    pub(crate) revision: String,
    /// The result of `server/discover` or `initialize`, raw.
    pub(crate) offer: Bytes,
}

/// Who the gateway is, where it speaks for itself.
fn own_info() -> String {
    format!(r#"{{"name":"weir","version":"{}"}}"#, env!("CARGO_PKG_VERSION"))
}

/// The revision to ask a legacy server for on behalf of a client: its own where it is one with a
/// handshake, so that the server sends nothing that the client does not know.
pub(crate) fn asks_for(front: &Front) -> &'static str {
    LEGACY.iter().find(|one| **one == front.revision).copied().unwrap_or(NEWEST_LEGACY)
}

/// `params` of `initialize`.
pub(crate) fn hello(revision: &str, capabilities: &[u8], client_info: Option<&Bytes>) -> Bytes {
    let own = own_info();
    let info = client_info.map_or(own.as_bytes(), |info| info);
    let mut params = format!(r#"{{"protocolVersion":"{revision}","capabilities":"#).into_bytes();
    params.extend_from_slice(capabilities);
    params.extend_from_slice(br#","clientInfo":"#);
    params.extend_from_slice(info);
    params.push(b'}');
    params.into()
}

/// The revision in a result of `initialize`, when it is one that has a handshake.
pub(crate) fn negotiated(offer: &[u8]) -> Result<String, Refusal> {
    let revision = raw::text(offer, "protocolVersion")
        .ok_or_else(|| refuse::protocol("the answer to initialize names no protocolVersion"))?;
    if LEGACY.contains(&revision.as_str()) {
        Ok(revision)
    } else {
        Err(refuse::protocol("the server wants a revision that the gateway does not speak"))
    }
}

/// `params` of `server/discover`.
pub(crate) fn discover_params() -> Bytes {
    let info = own_info();
    format!(
        "{{\"_meta\":{{\"io.modelcontextprotocol/protocolVersion\":\"{MODERN}\",\
         \"io.modelcontextprotocol/clientCapabilities\":{{}},\
         \"io.modelcontextprotocol/clientInfo\":{info}}}}}"
    )
    .into()
}

/// Which revisions that we know a list of a server names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The modern one.
    pub(crate) modern: bool,
    /// One with a handshake.
    pub(crate) legacy: bool,
}

impl Listed {
    /// Reads a JSON array of revisions; none when it is no such thing.
    pub(crate) fn of(list: &str) -> Option<Self> {
        let names: Vec<String> = serde_json::from_str(list).ok()?;
        Some(Self {
            modern: names.iter().any(|name| name == MODERN),
            legacy: names.iter().any(|name| LEGACY.contains(&name.as_str())),
        })
    }

    /// Of a result of `server/discover`.
    pub(crate) fn of_offer(offer: &[u8]) -> Option<Self> {
        Self::of(raw::member(offer, "supportedVersions")?.get())
    }

    /// Of a -32022 error.
    pub(crate) fn of_error(error: &[u8]) -> Option<Self> {
        Self::of(raw::at(error, &["data", "supported"])?.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_say_is_json() {
        let said = hello("2025-06-18", b"{}", None);
        let said: serde_json::Value = serde_json::from_slice(&said).expect("json");
        assert_eq!(said["protocolVersion"], "2025-06-18");
        assert_eq!(said["clientInfo"]["name"], "weir");
        let asked: serde_json::Value = serde_json::from_slice(&discover_params()).expect("json");
        assert_eq!(asked["_meta"]["io.modelcontextprotocol/clientInfo"]["name"], "weir");
    }

    #[test]
    fn only_revisions_with_a_handshake_are_negotiated() {
        assert!(negotiated(br#"{"protocolVersion":"2024-11-05"}"#).is_ok());
        assert!(negotiated(br#"{"protocolVersion":"2026-07-28"}"#).is_err());
        assert!(negotiated(b"{}").is_err());
        let listed = Listed::of(r#"["2026-07-28","2025-11-25","x"]"#);
        assert_eq!(listed, Some(Listed { modern: true, legacy: true }));
        assert_eq!(Listed::of("{}"), None);
    }
}
