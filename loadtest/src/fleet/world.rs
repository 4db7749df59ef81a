//! What is configured: groups, servers with one version each, and tools that a proxy reports.

use serde_json::{Value, json};
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::observation::{Observation, Offer, Offered, Seen};
use weir_model::resource::{DefinitionKind, ObservedEra};

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Groups; servers are spread over them.
    pub groups: usize,
    /// Servers in all.
    pub servers: usize,
    /// Tools of each server.
    pub tools_each: usize,
}

fn name(text: &str) -> Name {
    text.parse().expect("letters, digits and dashes are a name")
}

impl World {
    /// Tools in all.
    pub fn tools(&self) -> usize {
        self.servers * self.tools_each
    }

    /// Servers, catalogs and definitions.
    pub fn documents(&self) -> usize {
        self.servers * 2 + self.tools()
    }

    /// The group of a server.
    pub fn group(&self, server: usize) -> Name {
        name(&format!("unit-{}", server % self.groups.max(1)))
    }

    /// A server's name.
    pub fn server(&self, server: usize) -> Name {
        name(&format!("server-{server}"))
    }

    /// Groups, and who may call what in them.
    pub fn groups(&self) -> Vec<Value> {
        let document = |kind: &str, of: Option<usize>, called: &str, spec: Value| {
            let mut metadata = json!({"name": called});
            if let Some(of) = of {
                metadata["group"] = json!(format!("unit-{of}"));
            }
            json!({"apiVersion": "weir/v1", "kind": kind, "metadata": metadata, "spec": spec})
        };
        let mut all = vec![document("Region", None, "eu", json!({}))];
        for at in 0..self.groups.max(1) {
            let group = format!("unit-{at}");
            let rules = json!({"rules": [{"servers": ["*"], "tools": ["*"]}]});
            let binding = json!({"role": "caller", "subjects": [{"membership": "agents"}]});
            all.push(document("Group", None, &group, json!({"pin": "always"})));
            all.push(document("Role", Some(at), "caller", rules));
            all.push(document("RoleBinding", Some(at), "agents", binding));
        }
        all
    }

    /// The document of a server; `revised` is the one field that edits change.
    pub fn server_document(&self, server: usize, revised: u64) -> Value {
        let url = format!("https://server-{server}.internal.example/mcp");
        json!({
            "apiVersion": "weir/v1", "kind": "Server",
            "metadata": {"name": self.server(server), "group": self.group(server)},
            "spec": {"versions": [{
                "name": "v1", "upstream": {"http": {"url": url}}, "timeoutMs": 10_000 + revised,
            }]},
        })
    }

    /// All servers, as many in one change as it takes.
    pub fn servers_in_batches(&self) -> impl Iterator<Item = Vec<Value>> {
        let each = bounds::APPLY_DOCUMENTS_MAX;
        (0..self.servers).step_by(each).map(move |from| {
            let to = (from + each).min(self.servers);
            (from..to).map(|server| self.server_document(server, 0)).collect()
        })
    }

    /// What a proxy sees of every server.
    pub fn observations(&self) -> Vec<Observation> {
        (0..self.servers).map(|server| self.observation(server, 0)).collect()
    }

    /// What a proxy sees of a server whose first tool was revised so many times.
    pub fn observation(&self, server: usize, revised: u64) -> Observation {
        let tool = |tool: usize| {
            let revised = if tool == 0 { revised } else { 0 };
            let json = definition(server, tool, revised).to_string();
            Offered { kind: DefinitionKind::Tool, name: format!("tool_{tool}"), json }
        };
        Observation {
            group: self.group(server),
            server: self.server(server),
            version: name("v1"),
            seen: Seen::Offer(Offer {
                era: ObservedEra::Dual,
                revision: "2025-11-25".to_owned(),
                server_info: json!({"name": self.server(server), "version": "1"}),
                capabilities: json!({"tools": {}}),
                instructions: None,
                definitions: (0..self.tools_each).map(tool).collect(),
            }),
        }
    }
}

fn definition(server: usize, tool: usize, revised: u64) -> Value {
    let text = format!("Does the thing number {tool} of server {server}, at some length. ");
    json!({
        "name": format!("tool_{tool}"),
        "description": format!("{}Revised {revised} times.", text.repeat(3)),
        "inputSchema": {"type": "object", "required": ["customer"], "properties": {
            "customer": {"type": "string", "description": format!("customer {server}/{tool}")},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
            "filters": {"type": "array", "items": {"type": "object", "required": ["field"],
                "properties": {"field": {"type": "string"}, "op": {"enum": ["eq", "lt", "gt"]}}}},
            "verbose": {"type": "boolean"}}}
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_applied_once_and_reports_tools_of_its_own() {
        let world = World { groups: 3, servers: 250, tools_each: 4 };
        let batches: Vec<_> = world.servers_in_batches().collect();
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let mut texts: Vec<String> = world
            .observations()
            .into_iter()
            .flat_map(|seen| match seen.seen {
                Seen::Offer(offer) => offer.definitions,
                _ => Vec::new(),
            })
            .map(|offered| offered.json)
            .collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), world.tools(), "no two tools are alike");
        assert_ne!(world.observation(7, 1), world.observation(7, 0));
    }
}
