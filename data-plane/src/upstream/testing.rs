//! Requests for tests, with everything filled in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_model::resource::{HttpUpstream, ObservedEra, ServerVersion, StdioUpstream, Upstream};
use weir_model::snapshot::{CatalogView, UpstreamKey, VersionView};

use super::{Front, Outbound};

/// A server version without a catalog.
///
/// # Panics
/// Never: the names are legal.
pub fn version(upstream: Upstream) -> Arc<VersionView> {
    let name = |text: &str| text.parse().expect("a legal name");
    Arc::new(VersionView {
        key: UpstreamKey { group: name("dev"), server: name("demo"), version: name("v1") },
        name: name("v1"),
        spec: ServerVersion { name: name("v1"), upstream, credential: None, timeout_ms: None },
        catalog: None,
    })
}

/// A server over HTTP on this machine.
pub fn http(url: &str) -> Arc<VersionView> {
    version(Upstream::Http(HttpUpstream { url: url.to_owned(), allow_private: true }))
}

/// The same with a catalog that says which era it speaks.
pub fn pinned(url: &str, era: ObservedEra) -> Arc<VersionView> {
    let plain = http(url);
    Arc::new(VersionView {
        key: plain.key.clone(),
        name: plain.name.clone(),
        spec: plain.spec.clone(),
        catalog: Some(Arc::new(CatalogView::empty(era))),
    })
}

/// A server over stdio.
pub fn stdio(command: &str, args: &[&str]) -> Arc<VersionView> {
    version(Upstream::Stdio(StdioUpstream {
        command: command.to_owned(),
        args: args.iter().map(ToString::to_string).collect(),
        env: std::collections::BTreeMap::default(),
        cwd: None,
        memory_mib: weir_model::bounds::CHILD_MEMORY_MIB,
        processes: weir_model::bounds::CHILD_PROCESSES,
    }))
}

/// A client of 2026-07-28.
pub fn modern_front(isolation: &str) -> Front {
    Front {
        log_level: None,
        modern: true,
        revision: "2026-07-28".to_owned(),
        client_info: Some(Bytes::from_static(b"{\"name\":\"test\",\"version\":\"1\"}")),
        capabilities: Bytes::from_static(b"{}"),
        isolation: isolation.to_owned(),
    }
}

/// A client of 2025-11-25.
pub fn legacy_front(isolation: &str) -> Front {
    Front { modern: false, revision: "2025-11-25".to_owned(), ..modern_front(isolation) }
}

/// A request of a modern client to a server over HTTP.
pub fn outbound(url: &str, method: &str) -> Outbound {
    request(http(url), method)
}

/// A request of a modern client to a server version.
pub fn request(version: Arc<VersionView>, method: &str) -> Outbound {
    Outbound {
        version,
        front: modern_front("alice"),
        id: None,
        method: method.to_owned(),
        params: None,
        name: None,
        tool: None,
        param_headers: Vec::new(),
        credentials: Vec::new(),
        session: None,
        deadline: Instant::now() + Duration::from_secs(5),
        traceparent: None,
        retries: Arc::default(),
    }
}
