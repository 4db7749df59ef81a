//! What stateless revisions repeat in headers, and which requests may be repeated.
//!
//! On stdio a host sends no headers: the bridge derives them from the body. Arguments that a tool
//! wants mirrored are known from the lists that pass through.

use std::borrow::Cow;
use std::collections::HashMap;

use data_plane::mcp::headers::encode;
use http::header::HeaderMap;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde_json::Value;
use weir_model::bounds;
use weir_model::snapshot::{ParamHeader, ParamType};

use super::message::FromHost;

/// What was listed of one tool.
#[derive(Debug, Default)]
struct Tool {
    mirrored: Vec<ParamHeader>,
    /// It says that calling twice is calling once.
    repeatable: bool,
}

/// The tools that were listed.
#[derive(Debug, Default)]
pub(super) struct Tools {
    known: Mutex<HashMap<String, Tool>>,
}

impl Tools {
    /// Takes note of a result of `tools/list`.
    pub(super) fn listed(&self, result: &str) {
        let Ok(result) = serde_json::from_str::<Value>(result) else { return };
        let mut known = self.known.lock();
        for tool in result["tools"].as_array().into_iter().flatten() {
            let Some(name) = tool["name"].as_str() else { continue };
            if known.len() >= bounds::CATALOG_ENTRIES_MAX && !known.contains_key(name) {
                return;
            }
            let hint = |hint: &str| tool["annotations"][hint] == true;
            let noted = Tool {
                mirrored: ParamHeader::declared(&tool["inputSchema"]).unwrap_or_default(),
                repeatable: hint("readOnlyHint") || hint("idempotentHint"),
            };
            known.insert(name.to_owned(), noted);
        }
    }

    /// Adds what mirrors the body of a stateless message.
    pub(super) fn head(&self, message: &FromHost, headers: &mut HeaderMap) {
        let mut put = |name: &[u8], value: &str| {
            let value = HeaderValue::from_str(value);
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
                headers.insert(name, value);
            }
        };
        put(b"mcp-protocol-version", message.revision.as_deref().unwrap_or_default());
        put(b"mcp-method", message.method());
        let Some(params) = message.params() else { return };
        let name = match message.method() {
            "tools/call" | "prompts/get" => params.name.as_deref(),
            "resources/read" => params.uri.as_deref(),
            "tasks/get" | "tasks/update" | "tasks/cancel" => params.task.as_deref(),
            _ => None,
        };
        if let Some(name) = name {
            put(b"mcp-name", &encode(name));
        }
        if message.method() != "tools/call" {
            return;
        }
        let known = self.known.lock();
        let Some(tool) = params.name.as_deref().and_then(|name| known.get(name)) else { return };
        let arguments = params.arguments.as_deref().unwrap_or(b"{}");
        let Ok(arguments) = serde_json::from_slice::<Value>(arguments) else { return };
        for header in &tool.mirrored {
            if let Some(value) = mirrored(header, &arguments) {
                put(header.header.as_bytes(), &encode(&value));
            }
        }
    }

    /// True when carrying a request out twice is the same as once.
    pub(super) fn repeatable(&self, message: &FromHost) -> bool {
        match message.method() {
            "tools/call" => {
                let known = self.known.lock();
                let name = message.params().and_then(|params| params.name.as_deref());
                name.and_then(|name| known.get(name)).is_some_and(|tool| tool.repeatable)
            }
            "initialize"
            | "ping"
            | "server/discover"
            | "tools/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "prompts/list"
            | "prompts/get"
            | "completion/complete"
            | "logging/setLevel"
            | "subscriptions/listen"
            | "tasks/get"
            | "tasks/list"
            | "tasks/result"
            | "tasks/cancel"
            | "skills/list"
            | "skills/get"
            | "resources/directory/read" => true,
            _ => false,
        }
    }
}

fn mirrored<'a>(header: &ParamHeader, arguments: &'a Value) -> Option<Cow<'a, str>> {
    let value = header.path.iter().try_fold(arguments, |value, name| value.get(name))?;
    match (header.kind, value) {
        (ParamType::String, Value::String(text)) => Some(Cow::Borrowed(text)),
        (ParamType::Boolean, Value::Bool(flag)) => Some(Cow::Owned(flag.to_string())),
        (ParamType::Integer, Value::Number(number)) => {
            let whole = number.as_i64().map(|n| n.to_string());
            // 42.0 is the integer 42.
            let float = number.as_f64().filter(|f| f.fract() == 0.0).map(|f| format!("{f:.0}"));
            whole.or(float).map(Cow::Owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn host(method: &str, params: &Value) -> FromHost {
        let mut params = params.clone();
        params["_meta"] = serde_json::json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let text =
            serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        FromHost::read(Bytes::from(text.to_string())).unwrap()
    }

    fn head(tools: &Tools, method: &str, params: &Value) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        tools.head(&host(method, params), &mut headers);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn tools() -> Tools {
        let tools = Tools::default();
        tools.listed(
            r#"{"tools":[
              {"name":"ü","inputSchema":{"type":"object","properties":{
                "region":{"type":"string","x-mcp-header":"Region"},
                "n":{"type":"integer","x-mcp-header":"N"}}}},
              {"name":"reads","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}},
              {"name":"odd","inputSchema":{"type":"object","x-mcp-header":"A"}}]}"#,
        );
        tools
    }

    #[test]
    fn headers_mirror_method_name_and_declared_arguments() {
        let params = serde_json::json!({ "name": "ü", "arguments": { "region": "eu", "n": 4.0 } });
        let got = head(&tools(), "tools/call", &params);
        let want = |name: &str, value: &str| {
            assert!(got.contains(&(name.to_owned(), value.to_owned())), "{name} in {got:?}");
        };
        want("mcp-protocol-version", "2026-07-28");
        want("mcp-method", "tools/call");
        want("mcp-name", "=?base64?w7w=?=");
        want("mcp-param-region", "eu");
        want("mcp-param-n", "4");
        let read = head(&tools(), "resources/read", &serde_json::json!({ "uri": "a:b" }));
        assert!(read.contains(&("mcp-name".to_owned(), "a:b".to_owned())), "{read:?}");
        let list = head(&tools(), "tools/list", &serde_json::json!({ "name": "x" }));
        assert_eq!(list.len(), 2, "{list:?}");
    }

    #[test]
    fn only_what_changes_nothing_is_repeated() {
        let tools = tools();
        let call = |name: &str| host("tools/call", &serde_json::json!({ "name": name }));
        assert!(tools.repeatable(&call("reads")));
        assert!(!tools.repeatable(&call("ü")));
        assert!(!tools.repeatable(&call("never listed")));
        let empty = serde_json::json!({});
        assert!(tools.repeatable(&host("tools/list", &empty)));
        assert!(!tools.repeatable(&host("vendor/do", &empty)));
    }
}
