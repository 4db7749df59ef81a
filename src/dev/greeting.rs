//! What `weir dev` tells people and scripts once it serves.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use weir_model::secret::Secret;

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Whereabouts {
    /// For agents: `http://127.0.0.1:7777`.
    pub url: String,
    /// For operators: `http://127.0.0.1:7778`.
    pub admin_url: String,
    /// Of the first admin.
    pub admin_token: Secret<String>,
    /// Folder of state, snapshot and audit records.
    pub data_dir: String,
    /// Health and metrics of the proxy and of the control plane, where they were asked for.
    pub metrics: [Option<SocketAddr>; 2],
    /// Groups that are configured, by name.
    pub groups: Vec<String>,
}

#[derive(Serialize)]
struct ReadyFile<'a> {
    url: &'a str,
    admin_url: &'a str,
    admin_token: &'a str,
    data_dir: &'a str,
    endpoints: Vec<String>,
    metrics_urls: Vec<String>,
}

impl Whereabouts {
    /// What Prometheus scrapes.
    fn metrics_urls(&self) -> Vec<String> {
        let url = |address| format!("http://{address}/metrics");
        self.metrics.iter().flatten().map(url).collect()
    }

    fn endpoint(&self, group: &str) -> String {
        format!("{}/{group}/mcp", self.url)
    }

    /// The text for people: addresses, the token, and configurations to paste into clients.
    pub fn tell(&self) -> String {
        let group = self.groups.first().map_or("GROUP", String::as_str);
        let endpoint = self.endpoint(group);
        let mut text = String::from("\nWeir serves.\n\n");
        let endpoints = match self.groups.as_slice() {
            [] => format!(
                "{}  (no group is configured yet: weir apply -f ...)",
                self.endpoint("{group}")
            ),
            groups => groups.iter().map(|g| self.endpoint(g)).collect::<Vec<_>>().join("  "),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "agents       {endpoints}");
        let _ = writeln!(text, "operators    {}  (described at /v1/openapi.json)", self.admin_url);
        let _ = writeln!(text, "admin token  {}", self.admin_token.expose());
        let _ = writeln!(text, "data         {}\n", self.data_dir);
        let _ = writeln!(text, "For the command line:");
        let _ = writeln!(
            text,
            "  export WEIR_URL={} WEIR_TOKEN={}",
            self.admin_url,
            self.admin_token.expose()
        );
        let _ = writeln!(text, "  weir token create ACCOUNT -g {group}   # an agent's token\n");
        text + &clients(&endpoint)
    }

    /// Writes the same for scripts. The file holds a token: only its owner may read it. It is
    /// there only once it is complete.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let ready = ReadyFile {
            url: &self.url,
            admin_url: &self.admin_url,
            admin_token: self.admin_token.expose(),
            data_dir: &self.data_dir,
            metrics_urls: self.metrics_urls(),
            endpoints: self.groups.iter().map(|group| self.endpoint(group)).collect(),
        };
        let text = serde_json::to_string_pretty(&ready)? + "\n";
        write_private(file, &text)
    }
}

/// Writes a file that only its owner may read, as a whole or not at all.
pub(super) fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    let place = || format!("write {}", file.display());
    let partial = file.with_extension("partial");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut open = options.open(&partial).with_context(place)?;
    open.write_all(text.as_bytes()).and_then(|()| open.sync_all()).with_context(place)?;
    std::fs::rename(&partial, file).with_context(place)
}

/// Configurations of clients. None of them holds a token: each says where it comes from.
fn clients(endpoint: &str) -> String {
    let cursor = json!({ "mcpServers": { "weir": {
        "url": endpoint,
        "headers": { "Authorization": "Bearer ${env:WEIR_AGENT_TOKEN}" },
    } } });
    let vscode = json!({
        "inputs": [{
            "type": "promptString", "id": "weir-token", "description": "Weir API token",
            "password": true,
        }],
        "servers": { "weir": {
            "type": "http", "url": endpoint,
            "headers": { "Authorization": "Bearer ${input:weir-token}" },
        } },
    });
    let pretty = |value: &serde_json::Value| {
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        text.lines().map(|line| format!("  {line}\n")).collect::<String>()
    };
    format!(
        "Connect an agent:\n\n\
         Claude Code\n  claude mcp add --transport http weir {endpoint} \\\n    \
         --header \"Authorization: Bearer $WEIR_AGENT_TOKEN\"\n\n\
         Cursor (.cursor/mcp.json)\n{}\nVS Code (.vscode/mcp.json)\n{}",
        pretty(&cursor),
        pretty(&vscode),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somewhere(groups: &[&str]) -> Whereabouts {
        Whereabouts {
            url: "http://127.0.0.1:1".into(),
            admin_url: "http://127.0.0.1:2".into(),
            admin_token: Secret::new("weir_op_x".to_owned()),
            data_dir: ".weir".into(),
            metrics: [None; 2],
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }

    #[test]
    fn people_get_configurations_that_parse_and_hold_no_token() {
        let text = somewhere(&["demo"]).tell();
        assert!(text.contains("--transport http weir http://127.0.0.1:1/demo/mcp"), "{text}");
        let clients = clients("http://127.0.0.1:1/demo/mcp");
        assert!(!clients.contains("weir_op_x"));
        for (start, member) in [("mcp.json)\n", "mcpServers"), (".vscode/mcp.json)\n", "servers")] {
            let json = clients.split(start).nth(1).unwrap();
            let first = serde_json::Deserializer::from_str(json).into_iter::<serde_json::Value>();
            let value = first.last().unwrap_or_else(|| panic!("{json}"));
            let value = value.or_else(|_| {
                let mut values = serde_json::Deserializer::from_str(json).into_iter();
                values.next().unwrap()
            });
            assert!(value.unwrap()[member]["weir"].is_object(), "{json}");
        }
        assert!(somewhere(&[]).tell().contains("no group is configured yet"));
    }

    #[test]
    fn scripts_get_a_file_that_others_cannot_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ready.json");
        somewhere(&["demo"]).write(&file).unwrap();
        let ready: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(ready["endpoints"][0], "http://127.0.0.1:1/demo/mcp");
        assert_eq!(ready["admin_token"], "weir_op_x");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!folder.path().join("ready.partial").exists());
    }
}
