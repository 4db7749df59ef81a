//! Who is at which end: the names in certificates, and the token with which a node joins.

use std::fmt;

use crate::id::{Digest, Name};

/// The DNS name in the certificate of every replica's sync listener. Nodes reach replicas under
/// whatever address, and trust this name under the one CA.
pub const PLANE_SERVER_NAME: &str = "control-plane.weir.internal";

const URI_PREFIX: &str = "spiffe://weir/region/";

/// A node of a region, as its certificate names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Region.
    pub region: Name,
    /// Node, unique within the region.
    pub node: Name,
}

impl NodeId {
    /// The URI in the certificate: `spiffe://weir/region/{region}/node/{node}`.
    pub fn uri(&self) -> String {
        format!("{URI_PREFIX}{}/node/{}", self.region, self.node)
    }

    /// Reads what [`Self::uri`] writes.
    pub fn parse_uri(uri: &str) -> Option<Self> {
        let (region, node) = uri.strip_prefix(URI_PREFIX)?.split_once("/node/")?;
        Some(Self { region: region.parse().ok()?, node: node.parse().ok()? })
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.node)
    }
}

/// The text of an enrolment token: the token, and the SHA-256 of the CA's certificate, by which
/// a node knows its control plane when they first meet.
pub fn join_token(token: &str, authority: &Digest) -> String {
    format!("{token}.{authority}")
}

/// Splits what [`join_token`] made.
pub fn split_join_token(text: &str) -> Option<(&str, Digest)> {
    let (token, authority) = text.trim().rsplit_once('.')?;
    (!token.is_empty()).then_some((token, authority.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_name_one_node() {
        let id = NodeId { region: "eu".parse().unwrap(), node: "node-1".parse().unwrap() };
        assert_eq!(id.uri(), "spiffe://weir/region/eu/node/node-1");
        assert_eq!(NodeId::parse_uri(&id.uri()), Some(id));
        for bad in ["", "spiffe://weir/region/eu", "spiffe://other/region/eu/node/n", "x"] {
            assert_eq!(NodeId::parse_uri(bad), None, "{bad}");
        }
        assert_eq!(NodeId::parse_uri("spiffe://weir/region/eu/node/a/node/b"), None);
    }

    #[test]
    fn join_tokens_carry_the_authority() {
        let authority = Digest::of(b"ca");
        let text = join_token("weir_en_1_x", &authority);
        assert_eq!(split_join_token(&format!(" {text}\n")), Some(("weir_en_1_x", authority)));
        for bad in ["", "weir_en_1_x", "weir_en_1_x.12", &authority.hex(), &format!(".{authority}")]
        {
            assert_eq!(split_join_token(bad), None, "{bad}");
        }
    }
}
