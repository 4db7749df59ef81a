//! Domain to protobuf and back: the only place that knows both. Errors name the field.
//!
//! Both directions of each message stand side by side. Bounds on sizes are the business of the
//! transport (message size) and of the machines in [`crate::sync`] (sums over parts).

mod report;

use bytes::Bytes;
use weir_proto::sync::v1;

use crate::bounds;
use crate::id::{Digest, Name, Revision};
use crate::seal::NodePublic;
use crate::sync::statement::{PUBLIC_KEY_BYTES, SIGNATURE_BYTES_MAX, SignedStatement};
use crate::sync::{
    Applied, Hello, NodeFrame, PlaneFrame, Refused, TokenUse, UpdateHead, UpdatePart,
};

/// A message that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct WireError {
    /// Path of the field: `hello.node`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

fn bad(field: &'static str, problem: impl std::fmt::Display) -> WireError {
    WireError { field, problem: problem.to_string() }
}

fn name(field: &'static str, text: &str) -> Result<Name, WireError> {
    text.parse().map_err(|e| bad(field, e))
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| bad(field, "is missing"))
}

fn applied(field: &'static str, revision: u64, digest: &[u8]) -> Result<Applied, WireError> {
    let digest = if digest.is_empty() && revision == 0 {
        Digest::default()
    } else {
        Digest(digest.try_into().map_err(|_| bad(field, "must be 32 bytes"))?)
    };
    Ok(Applied { revision: Revision(revision), digest })
}

fn digest(applied: Applied) -> Bytes {
    Bytes::copy_from_slice(&applied.digest.0)
}

fn from_refused(refused: Vec<v1::Refused>) -> Vec<Refused> {
    refused.into_iter().map(|r| Refused { key: r.key, message: r.message }).collect()
}

fn to_refused(refused: Vec<Refused>) -> Vec<v1::Refused> {
    refused.into_iter().map(|r| v1::Refused { key: r.key, message: r.message }).collect()
}

/// Reads a frame of a node.
///
/// # Errors
/// The first field that is not what it should be.
pub fn from_node_frame(frame: v1::NodeFrame) -> Result<NodeFrame, WireError> {
    use v1::node_frame::Body;
    Ok(match required("body", frame.body)? {
        Body::Hello(h) => NodeFrame::Hello(Hello {
            node: name("hello.node", &h.node)?,
            region: name("hello.region", &h.region)?,
            build: h.build,
            schema: h.schema,
            applied: applied("hello.digest", h.revision, &h.digest)?,
            sealing_key: NodePublic::try_from(h.sealing_key.as_ref())
                .map_err(|_| bad("hello.sealing_key", "must be 32 bytes"))?,
            refused: from_refused(h.refused),
        }),
        Body::Ack(a) => NodeFrame::Ack {
            nonce: a.nonce,
            applied: applied("ack.digest", a.revision, &a.digest)?,
            refused: Vec::new(),
        },
        Body::Nack(n) => NodeFrame::Ack {
            nonce: n.nonce,
            applied: applied("nack.digest", n.revision, &n.digest)?,
            refused: from_refused(n.refused),
        },
        Body::Heartbeat(h) => {
            NodeFrame::Heartbeat(applied("heartbeat.digest", h.revision, &h.digest)?)
        }
        Body::Resync(r) => NodeFrame::Resync { nonce: r.nonce, message: r.message },
        Body::Report(r) => NodeFrame::Report(Box::new(report::from_report(r)?)),
        Body::TokensUsed(used) => {
            if used.uses.len() > bounds::TOKEN_USES_MAX {
                return Err(bad("tokens_used.uses", "too many"));
            }
            let uses = used.uses.into_iter().map(|u| {
                Ok(TokenUse { group: name("tokens_used.group", &u.group)?, id: u.id, at: u.at })
            });
            NodeFrame::TokensUsed(uses.collect::<Result<_, WireError>>()?)
        }
    })
}

/// Writes a frame of a node.
pub fn to_node_frame(frame: NodeFrame) -> v1::NodeFrame {
    use v1::node_frame::Body;
    let body = match frame {
        NodeFrame::Hello(h) => Body::Hello(v1::Hello {
            node: h.node.to_string(),
            region: h.region.to_string(),
            build: h.build,
            schema: h.schema,
            revision: h.applied.revision.0,
            digest: digest(h.applied),
            sealing_key: Bytes::copy_from_slice(&h.sealing_key.0),
            refused: to_refused(h.refused),
        }),
        NodeFrame::Ack { nonce, applied, refused } if refused.is_empty() => {
            Body::Ack(v1::Ack { nonce, revision: applied.revision.0, digest: digest(applied) })
        }
        NodeFrame::Ack { nonce, applied, refused } => Body::Nack(v1::Nack {
            nonce,
            revision: applied.revision.0,
            digest: digest(applied),
            refused: to_refused(refused),
        }),
        NodeFrame::Heartbeat(applied) => Body::Heartbeat(v1::NodeHeartbeat {
            revision: applied.revision.0,
            digest: digest(applied),
        }),
        NodeFrame::Resync { nonce, message } => Body::Resync(v1::Resync { nonce, message }),
        NodeFrame::Report(part) => Body::Report(report::to_report(*part)),
        NodeFrame::TokensUsed(uses) => {
            let uses = uses.into_iter().map(|u| v1::TokenUse {
                group: u.group.to_string(),
                id: u.id,
                at: u.at,
            });
            Body::TokensUsed(v1::TokensUsed { uses: uses.collect() })
        }
    };
    v1::NodeFrame { body: Some(body) }
}

/// Reads a frame of the control plane.
///
/// # Errors
/// The first field that is not what it should be.
pub fn from_plane_frame(frame: v1::PlaneFrame) -> Result<PlaneFrame, WireError> {
    use v1::plane_frame::Body;
    Ok(match required("body", frame.body)? {
        Body::Welcome(w) => {
            PlaneFrame::Welcome { replica: w.replica, revision: Revision(w.revision) }
        }
        Body::Update(u) => PlaneFrame::Update(Box::new(from_update(u)?)),
        Body::Heartbeat(h) => {
            PlaneFrame::Heartbeat(applied("heartbeat.digest", h.revision, &h.digest)?)
        }
        Body::ReportStored(r) => PlaneFrame::ReportStored { sequence: r.sequence },
    })
}

/// Writes a frame of the control plane.
pub fn to_plane_frame(frame: PlaneFrame) -> v1::PlaneFrame {
    use v1::plane_frame::Body;
    let body = match frame {
        PlaneFrame::Welcome { replica, revision } => {
            Body::Welcome(v1::Welcome { replica, revision: revision.0 })
        }
        PlaneFrame::Update(part) => Body::Update(to_update(*part)),
        PlaneFrame::Heartbeat(applied) => Body::Heartbeat(v1::PlaneHeartbeat {
            revision: applied.revision.0,
            digest: digest(applied),
        }),
        PlaneFrame::ReportStored { sequence } => Body::ReportStored(v1::ReportStored { sequence }),
    };
    v1::PlaneFrame { body: Some(body) }
}

fn from_update(u: v1::Update) -> Result<UpdatePart, WireError> {
    let statement = required("update.statement", u.statement)?;
    let base = u.base.map(|b| applied("update.base.digest", b.revision, &b.digest)).transpose()?;
    let head = UpdateHead {
        nonce: u.nonce,
        parts: u.parts,
        target: applied("update.digest", u.revision, &u.digest)?,
        base,
        rollback: u.rollback,
        statement: from_statement(statement)?,
    };
    if head.nonce == 0 {
        return Err(bad("update.nonce", "must be above zero"));
    }
    if u.part >= head.parts {
        return Err(bad("update.part", "must be below parts"));
    }
    Ok(UpdatePart {
        head,
        part: u.part,
        upserts: u.upserts.into_iter().map(|d| (d.key, d.canonical)).collect(),
        removals: u.removals,
        secrets: u.secrets.into_iter().map(|s| (s.id, s.ciphertext)).collect(),
    })
}

fn to_update(part: UpdatePart) -> v1::Update {
    let UpdatePart { head, part, upserts, removals, secrets } = part;
    v1::Update {
        nonce: head.nonce,
        part,
        parts: head.parts,
        revision: head.target.revision.0,
        digest: digest(head.target),
        base: head.base.map(|b| v1::Base { revision: b.revision.0, digest: digest(b) }),
        rollback: head.rollback,
        statement: Some(to_statement(head.statement)),
        upserts: upserts
            .into_iter()
            .map(|(key, canonical)| v1::Document { key, canonical })
            .collect(),
        removals,
        secrets: secrets
            .into_iter()
            .map(|(id, ciphertext)| v1::SealedSecret { id, ciphertext })
            .collect(),
    }
}

fn from_statement(s: v1::Statement) -> Result<SignedStatement, WireError> {
    let within = |field, bytes: Bytes, max| {
        if bytes.len() > max { Err(bad(field, "is too long")) } else { Ok(bytes) }
    };
    Ok(SignedStatement {
        signature: within("update.statement.signature", s.signature, SIGNATURE_BYTES_MAX)?,
        signer: within("update.statement.signer", s.signer, PUBLIC_KEY_BYTES)?,
        signer_not_after: s.signer_not_after,
        endorsement: within("update.statement.endorsement", s.endorsement, SIGNATURE_BYTES_MAX)?,
    })
}

fn to_statement(s: SignedStatement) -> v1::Statement {
    v1::Statement {
        signature: s.signature,
        signer: s.signer,
        signer_not_after: s.signer_not_after,
        endorsement: s.endorsement,
    }
}

/// The bytes of an update, as checkpoints keep it.
pub fn encode_update(part: UpdatePart) -> Vec<u8> {
    use weir_proto::prost::Message as _;
    to_update(part).encode_to_vec()
}

/// Reads what [`encode_update`] wrote.
///
/// # Errors
/// The first field that is not what it should be.
pub fn decode_update(bytes: Bytes) -> Result<UpdatePart, WireError> {
    use weir_proto::prost::Message as _;
    from_update(v1::Update::decode(bytes).map_err(|e| bad("update", e))?)
}

#[cfg(test)]
mod tests;
