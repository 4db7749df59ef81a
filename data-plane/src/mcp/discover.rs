//! What the gateway says about itself: answers to `initialize` and `server/discover`.
//!
//! On an endpoint of one server they tell what is pinned of that server, less what cannot be
//! carried between eras. On the endpoint that joins all servers they are the union of what the
//! servers offer that this caller may use.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use weir_model::bounds;

use super::extensions::TASKS;
use super::list::Source;
use super::revision::Revision;

/// Name and version under which the gateway itself appears.
fn own_info() -> Value {
    json!({ "name": "weir", "title": "Weir", "version": env!("CARGO_PKG_VERSION") })
}

/// Who answers on an endpoint: the server, where it is one that says who it is, else the gateway.
pub fn info_of(source: Option<&Source<'_>>) -> Value {
    match source.map(|source| &source.catalog.server_info) {
        Some(info @ Value::Object(members)) if members.contains_key("name") => info.clone(),
        _ => own_info(),
    }
}

/// What an endpoint says about itself.
#[derive(Debug)]
pub struct About {
    capabilities: Value,
    info: Value,
    instructions: Option<String>,
}

impl About {
    /// Of the endpoint that joins these servers.
    pub fn all(sources: &[Source<'_>]) -> Self {
        let mut capabilities = Map::new();
        for source in sources {
            let own = &source.catalog.capabilities;
            let catalog = source.catalog;
            let offers = |name: &str, some: bool| some || own.get(name).is_some();
            if offers("tools", !catalog.tools.is_empty()) {
                capabilities.insert("tools".into(), json!({ "listChanged": true }));
            }
            if offers("resources", !catalog.resources.is_empty() || !catalog.templates.is_empty()) {
                let before = capabilities.get("resources").is_some_and(|r| r["subscribe"] == true);
                let subscribe = before || subscribes(own);
                let resources = json!({ "listChanged": true, "subscribe": subscribe });
                capabilities.insert("resources".into(), resources);
            }
            if offers("prompts", !catalog.prompts.is_empty()) {
                capabilities.insert("prompts".into(), json!({ "listChanged": true }));
            }
            for name in ["completions", "logging"] {
                if own.get(name).is_some() {
                    capabilities.insert(name.into(), json!({}));
                }
            }
        }
        let capabilities = Value::Object(capabilities);
        Self { capabilities, info: own_info(), instructions: joined_instructions(sources) }
    }

    /// Of one server, for a client of the other era than the server's.
    pub fn one(source: &Source<'_>) -> Self {
        let catalog = source.catalog;
        let mut capabilities = Map::new();
        for name in ["tools", "resources", "prompts", "completions", "logging"] {
            if catalog.capabilities.get(name).is_none() {
                continue;
            }
            // What is announced is the gateway's: that the caller's view of a list has changed.
            let offered = match name {
                "completions" | "logging" => json!({}),
                "resources" if subscribes(&catalog.capabilities) => {
                    json!({ "listChanged": true, "subscribe": true })
                }
                _ => json!({ "listChanged": true }),
            };
            capabilities.insert(name.to_owned(), offered);
        }
        // Tools that run as tasks are bridged, so the extension is there for who knows it.
        if catalog.capabilities["tasks"]["requests"]["tools"].get("call").is_some() {
            capabilities.insert("extensions".to_owned(), json!({ TASKS: {} }));
        }
        let instructions = catalog.instructions.clone();
        let info = info_of(Some(source));
        Self { capabilities: Value::Object(capabilities), info, instructions }
    }

    /// The result of `initialize`. Without extensions: tasks are of the newer era.
    pub fn initialize(mut self, revision: Revision) -> Bytes {
        if let Value::Object(capabilities) = &mut self.capabilities {
            capabilities.remove("extensions");
        }
        let mut result = json!({
            "protocolVersion": revision.as_str(),
            "capabilities": self.capabilities,
            "serverInfo": self.info,
        });
        add_instructions(&mut result, self.instructions);
        result.to_string().into()
    }

    /// The result of `server/discover`. Without `logging`, which the revision has on its way out:
    /// a request that wants log messages says so itself.
    pub fn discover(mut self) -> Bytes {
        if let Value::Object(capabilities) = &mut self.capabilities {
            capabilities.remove("logging");
        }
        let mut result = json!({
            "resultType": "complete",
            "ttlMs": bounds::LIST_TTL_MS,
            "cacheScope": "private",
            "supportedVersions": Revision::all(),
            "capabilities": self.capabilities,
            "_meta": { "io.modelcontextprotocol/serverInfo": self.info },
        });
        add_instructions(&mut result, self.instructions);
        result.to_string().into()
    }
}

/// True when a server tells of changes of single resources.
fn subscribes(capabilities: &Value) -> bool {
    capabilities.get("resources").is_some_and(|resources| resources["subscribe"] == true)
}

fn add_instructions(result: &mut Value, instructions: Option<String>) {
    if let (Some(text), Value::Object(object)) = (instructions, result) {
        object.insert("instructions".into(), text.into());
    }
}

/// Every server's instructions under its name, at most [`bounds::INSTRUCTIONS_BYTES_MAX`].
fn joined_instructions(sources: &[Source<'_>]) -> Option<String> {
    let mut text = String::new();
    for source in sources {
        let Some(own) = source.catalog.instructions.as_deref().filter(|t| !t.is_empty()) else {
            continue;
        };
        let section = format!("## {}\n\n{}\n\n", source.server, own.trim());
        if text.len() + section.len() > bounds::INSTRUCTIONS_BYTES_MAX {
            break;
        }
        text.push_str(&section);
    }
    (!text.is_empty()).then(|| text.trim_end().to_owned())
}

/// The revision that a handshake settles on.
pub fn negotiate(requested: Option<&str>) -> Revision {
    requested
        .and_then(Revision::parse)
        .filter(|revision| !revision.modern())
        .unwrap_or(Revision::NEWEST_LEGACY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::resource::ObservedEra;
    use weir_model::snapshot::CatalogView;

    fn catalog(capabilities: Value, instructions: Option<&str>) -> CatalogView {
        let mut catalog = CatalogView::empty(ObservedEra::Legacy);
        catalog.server_info = json!({"name": "files", "version": "1"});
        catalog.capabilities = capabilities;
        catalog.instructions = instructions.map(str::to_owned);
        catalog
    }

    #[test]
    fn handshakes_settle_on_a_revision_with_a_handshake() {
        for (asked, got) in [
            (Some("2025-06-18"), Revision::V2025_06_18),
            (Some("2024-11-05"), Revision::V2024_11_05),
            (Some("2026-07-28"), Revision::V2025_11_25),
            (Some("1999-01-01"), Revision::V2025_11_25),
            (None, Revision::V2025_11_25),
        ] {
            assert_eq!(negotiate(asked), got, "{asked:?}");
        }
    }

    #[test]
    fn the_union_names_its_servers() {
        let a = catalog(json!({"tools": {}, "logging": {}}), Some("Use a."));
        let b = catalog(json!({"prompts": {}, "completions": {}}), Some("Use b."));
        let names = ["a", "b"].map(|n| n.parse().unwrap());
        let sources =
            [Source { server: &names[0], catalog: &a }, Source { server: &names[1], catalog: &b }];
        let result = About::all(&sources).initialize(Revision::V2025_06_18);
        let result: Value = serde_json::from_slice(&result).unwrap();
        assert_eq!(result["protocolVersion"], "2025-06-18");
        assert_eq!(result["instructions"], "## a\n\nUse a.\n\n## b\n\nUse b.");
        let names: Vec<&String> = result["capabilities"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["tools", "logging", "prompts", "completions"]);
        let found: Value = serde_json::from_slice(&About::one(&sources[0]).discover()).unwrap();
        assert_eq!(found["capabilities"], json!({"tools": {"listChanged": true}}));
        assert_eq!(found["cacheScope"], "private");
        assert_eq!(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "files");
    }
}
