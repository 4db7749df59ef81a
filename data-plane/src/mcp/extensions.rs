//! Extensions that are carried: an allow list, since a peer that believes in an extension may send
//! what the gateway cannot route.
//!
//! Capabilities are open sets: what is not an extension is passed on unchanged. Of `extensions`,
//! those stay that the gateway knows and those that the group names.

use bytes::Bytes;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::Extension;

use super::adapt::{quoted, replaced};
use super::envelope::utf8;
use super::members::{Members, is_object};

/// Tasks (2026-07-28).
pub const TASKS: &str = "io.modelcontextprotocol/tasks";
/// What the gateway knows, and whether the endpoint that joins all servers can carry it: what
/// has methods of its own needs one server to send them to.
const KNOWN: [(&str, bool); 3] = [
    (TASKS, false),
    ("io.modelcontextprotocol/skills", false),
    ("io.modelcontextprotocol/ui", true),
];

/// What one endpoint carries.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    /// The group's own.
    pub named: &'a [Extension],
    /// The endpoint joins all servers.
    pub joined: bool,
}

impl Carried<'_> {
    fn has(self, id: &str) -> bool {
        let fits = |methods: bool| !self.joined || !methods;
        KNOWN.iter().any(|(known, joins)| *known == id && fits(!joins))
            || self.named.iter().any(|e| e.id == id && fits(!e.methods.is_empty()))
    }

    /// True for a method that one of the group's own extensions adds.
    pub fn adds(self, method: &str) -> bool {
        !self.joined && self.named.iter().any(|e| e.methods.iter().any(|m| m == method))
    }

    /// Capabilities without the extensions that are not carried; every other byte as it was.
    pub fn capabilities(self, raw: &Bytes) -> Bytes {
        self.within(raw, &[])
    }

    /// The same for the `params` of a stateless request.
    pub fn params(self, raw: &Bytes) -> Bytes {
        self.within(raw, &["_meta", "io.modelcontextprotocol/clientCapabilities"])
    }

    /// The same for what has `capabilities`: `initialize`, its result, and discovery's.
    pub fn handshake(self, raw: &Bytes) -> Bytes {
        self.within(raw, &["capabilities"])
    }

    fn within(self, raw: &Bytes, path: &[&str]) -> Bytes {
        let changed = || -> Option<Bytes> {
            let text = std::str::from_utf8(raw).ok().filter(|text| text.contains("extensions"))?;
            let mut part = text;
            for name in path.iter().chain(&["extensions"]) {
                part = Members::parse(part).ok()?.get(name).filter(|raw| is_object(raw))?.get();
            }
            let members = Members::parse(part).ok()?;
            if members.iter().all(|(id, _)| self.has(id)) {
                return None;
            }
            let kept: Vec<String> = members
                .iter()
                .filter(|(id, _)| self.has(id))
                .map(|(id, value)| format!("{}:{}", quoted(id), value.get()))
                .collect();
            Some(replaced(raw, part, &format!("{{{}}}", kept.join(","))))
        };
        changed().unwrap_or_else(|| raw.clone())
    }
}

/// Checks that a client has declared an extension whose method it calls.
///
/// # Errors
/// [`Reason::MissingCapability`], which names it.
pub fn check_declared(capabilities: &Bytes, id: &str) -> Result<(), Refusal> {
    let declared = || -> Option<bool> {
        let members = Members::parse(utf8(capabilities)).ok()?;
        let extensions = Members::parse(members.get("extensions")?.get()).ok()?;
        Some(extensions.get(id).is_some())
    };
    if declared() == Some(true) {
        return Ok(());
    }
    let required = serde_json::json!({ "extensions": { id: {} } });
    Err(Refusal::new(Reason::MissingCapability, id)
        .data(serde_json::json!({ "requiredCapabilities": required })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_that_nobody_named_are_left_out() {
        let named = [
            Extension { id: "com.acme/a".into(), methods: vec!["acme/do".into()] },
            Extension { id: "com.acme/b".into(), methods: vec![] },
        ];
        let one = Carried { named: &named, joined: false };
        let all = Carried { named: &named, joined: true };
        let raw = Bytes::from_static(
            br#"{ "x": 1.10, "extensions": {"com.evil/x":{},"com.acme/a":{"n":1.0},"com.acme/b":{}, "io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{}}, "y":[]}"#,
        );
        assert_eq!(
            utf8(&one.capabilities(&raw)),
            r#"{ "x": 1.10, "extensions": {"com.acme/a":{"n":1.0},"com.acme/b":{},"io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{}}, "y":[]}"#
        );
        assert_eq!(
            utf8(&all.capabilities(&raw)),
            r#"{ "x": 1.10, "extensions": {"com.acme/b":{},"io.modelcontextprotocol/ui":{}}, "y":[]}"#
        );
        let result = Bytes::from_static(br#"{"capabilities":{"extensions":{"com.evil/x":{}}}}"#);
        assert_eq!(utf8(&one.handshake(&result)), r#"{"capabilities":{"extensions":{}}}"#);
        for same in [r#"{"extensions":{"com.acme/b":{}}}"#, "{}", r#"{"extensions":7}"#, "x"] {
            let same = Bytes::from_static(same.as_bytes());
            assert_eq!(one.capabilities(&same), same);
        }
        assert!(one.adds("acme/do") && !all.adds("acme/do") && !one.adds("acme/other"));
    }

    #[test]
    fn callers_have_to_declare_what_they_use() {
        let declares = |text: &'static str| {
            check_declared(&Bytes::from_static(text.as_bytes()), TASKS).map_err(|r| r.reason)
        };
        let missing = Err(Reason::MissingCapability);
        assert_eq!(declares("{}"), missing);
        assert_eq!(declares(r#"{"extensions":{}}"#), missing);
        assert_eq!(declares(r#"{"extensions":[]}"#), missing);
        assert_eq!(declares(r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#), Ok(()));
    }
}
