//! Which endpoint a path names, before anything of the request is read.

use std::sync::Arc;

use weir_model::id::{Digest, Name};
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::{GroupView, Snapshot};

/// An MCP endpoint of a group that exists.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The group.
    pub group: Arc<GroupView>,
    /// The server that the path names; none for the endpoint that joins all of them. Whether it
    /// exists is not told before the caller is known.
    pub server: Option<Name>,
    /// The path is the one that clients of 2024-11-05 are given.
    pub sse: bool,
    /// Digest of the configuration that all of this is from.
    pub configuration: Digest,
}

/// The parts of `/{group}/mcp` or `/{group}/{server}/mcp`; `sse` in place of `mcp` is the same
/// endpoint for clients of 2024-11-05.
///
/// One trailing slash is forgiven; nothing is decoded, since names need no escapes.
pub fn parse(path: &str) -> Option<(Name, Option<Name>, bool)> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (names, last) = path.strip_prefix('/')?.rsplit_once('/')?;
    let sse = match last {
        "mcp" => false,
        "sse" => true,
        _ => return None,
    };
    let mut parts = names.split('/');
    let group = parts.next()?.parse().ok()?;
    let server = match parts.next() {
        Some(server) => Some(server.parse().ok()?),
        None => None,
    };
    parts.next().is_none().then_some((group, server, sse))
}

/// The endpoint of a path.
///
/// # Errors
/// [`Reason::UnknownEndpoint`], and [`Reason::SnapshotMissing`] before the first configuration.
pub fn find(path: &str, snapshot: &Snapshot) -> Result<Endpoint, Refusal> {
    let unknown = || Refusal::from(Reason::UnknownEndpoint);
    let (group, server, sse) = parse(path).ok_or_else(unknown)?;
    match snapshot.groups.get(&group) {
        Some(group) => {
            let configuration = snapshot.digest;
            Ok(Endpoint { group: Arc::clone(group), server, sse, configuration })
        }
        None if snapshot.revision.0 == 0 => Err(Reason::SnapshotMissing.into()),
        None => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_endpoints() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let joined = Some((name("dev"), None, false));
        let single = Some((name("dev"), Some(name("files")), false));
        for (path, expected) in [
            ("/dev/mcp", joined.clone()),
            ("/dev/mcp/", joined),
            ("/dev/files/mcp", single),
            ("/dev/sse", Some((name("dev"), None, true))),
            ("/dev/files/sse", Some((name("dev"), Some(name("files")), true))),
            ("/dev/sse/mcp", Some((name("dev"), Some(name("sse")), false))),
            ("/dev/messages", None),
            ("/mcp", None),
            ("/dev", None),
            ("/dev/a/b/mcp", None),
            ("//mcp", None),
            ("/dev//mcp", None),
            ("/Dev/mcp", None),
            ("/dev/%61/mcp", None),
            ("dev/mcp", None),
            ("", None),
        ] {
            assert_eq!(parse(path), expected, "{path}");
        }
    }
}
