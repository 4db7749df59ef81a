//! What operators watch of the servers behind a proxy, read when it is asked for.
//!
//! Labels are names out of the configuration and labels of a closed list. What is no longer used
//! or configured is no longer shown.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use weir_model::snapshot::UpstreamKey;

use super::Upstreams;
use super::health::Seen;
use crate::config::State;

/// Reads the servers and the configuration.
#[derive(Debug)]
pub struct UpstreamMetrics {
    upstreams: Upstreams,
    config: Arc<State>,
}

/// What is shown of one server version.
struct Row {
    key: UpstreamKey,
    seen: Seen,
    sessions: usize,
    children: usize,
}

impl UpstreamMetrics {
    /// Of these servers.
    pub fn new(upstreams: Upstreams, config: Arc<State>) -> Self {
        Self { upstreams, config }
    }

    fn rows(&self) -> Vec<Row> {
        let inner = &self.upstreams.inner;
        let mut rows = Vec::new();
        for (key, remote) in inner.remotes.lock().iter() {
            let (seen, sessions) = (remote.health.seen(), remote.session_count());
            rows.push(Row { key: key.clone(), seen, sessions, children: 0 });
        }
        for (key, program) in inner.programs.lock().iter() {
            let (seen, children) = (program.health.seen(), program.child_count());
            rows.push(Row { key: key.clone(), seen, sessions: 0, children });
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        rows
    }

    /// Tools whose schema asks for mirrored headers that cannot be, by server version.
    fn hidden(&self) -> Vec<(UpstreamKey, usize)> {
        let snapshot = self.config.current();
        let servers = snapshot.groups.values().flat_map(|group| group.servers.values());
        let versions = servers.flat_map(|server| &server.versions);
        let hidden = versions.filter_map(|version| {
            let tools = &version.catalog.as_ref()?.tools;
            let count = tools.iter().filter(|tool| tool.param_headers.is_err()).count();
            (count > 0).then(|| (version.key.clone(), count))
        });
        hidden.collect()
    }
}

fn labels(key: &UpstreamKey) -> [(&'static str, String); 3] {
    [
        ("group", key.group.to_string()),
        ("server", key.server.to_string()),
        ("version", key.version.to_string()),
    ]
}

type Encoded = Result<(), std::fmt::Error>;

fn gauge<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: impl Iterator<Item = (&'a UpstreamKey, usize)>,
) -> Encoded {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (key, value) in values {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        family.encode_family(&labels(key))?.encode_gauge(&value)?;
    }
    Ok(())
}

impl Collector for UpstreamMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let rows = self.rows();
        let up = ("upstream_up", "Whether the last call to a server version met a server");
        gauge(&mut encoder, up, rows.iter().map(|r| (&r.key, usize::from(r.seen.up))))?;
        let held =
            ("upstream_held", "Whether calls to a server version are held back at the moment");
        gauge(&mut encoder, held, rows.iter().map(|r| (&r.key, usize::from(r.seen.held))))?;
        let sessions = ("upstream_sessions", "Sessions that are open at a server version");
        gauge(&mut encoder, sessions, rows.iter().map(|r| (&r.key, r.sessions)))?;
        let children = ("upstream_children", "Processes that run a server version");
        gauge(&mut encoder, children, rows.iter().map(|r| (&r.key, r.children)))?;
        let hidden = ("upstream_hidden_tools", "Tools that no client is shown: bad x-mcp-header");
        let counts = self.hidden();
        gauge(&mut encoder, hidden, counts.iter().map(|(key, count)| (key, *count)))?;

        let help = "Calls and looks by how the server version answered";
        let counter = MetricType::Counter;
        let mut family = encoder.encode_descriptor("upstream_calls", help, None, counter)?;
        for row in &rows {
            let [group, server, version] = labels(&row.key);
            for (outcome, count) in &row.seen.counts {
                let outcome = ("outcome", (*outcome).to_owned());
                let all = [group.clone(), server.clone(), version.clone(), outcome];
                family.encode_family(&all)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Commands, Settings, testing};

    #[tokio::test]
    async fn each_server_version_is_shown_by_its_names() {
        let settings = Settings { commands: Commands::Any, ..Settings::default() };
        let upstreams = Upstreams::new(settings).expect("roots");
        let snapshot = weir_model::testing::World::new().group("g").snapshot();
        let state = Arc::new(State::restored(snapshot, std::time::Duration::ZERO));
        let metrics = weir_runtime::metrics::Metrics::new();
        metrics.collector(UpstreamMetrics::new(upstreams.clone(), state));
        // Nobody listens on port 1.
        let call = testing::outbound("http://127.0.0.1:1/mcp", "tools/list");
        assert!(upstreams.call(call).await.is_err());
        let text = metrics.render();
        let labels = r#"group="dev",server="demo",version="v1""#;
        for line in [
            format!("weir_upstream_up{{{labels}}} 0\n"),
            format!("weir_upstream_held{{{labels}}} 0\n"),
            format!("weir_upstream_calls_total{{{labels},outcome=\"upstream_unreachable\"}} 1\n"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
