//! Observations on the wire.

use bytes::Bytes;
use serde_json::Value;
use weir_proto::sync::v1;

use super::{WireError, bad, name, required};
use crate::observation::{Observation, Offer, Offered, Seen};
use crate::resource::{DefinitionKind, ObservedEra};
use crate::sync::report::ReportPart;

pub(super) fn from_report(r: v1::Report) -> Result<ReportPart, WireError> {
    if r.part >= r.parts {
        return Err(bad("report.part", "must be below parts"));
    }
    let seen = match required("report.seen", r.seen)? {
        v1::report::Seen::Up(v1::Up {}) => Seen::Up,
        v1::report::Seen::Down(down) => Seen::Down(down.message),
        v1::report::Seen::Offer(offer) => Seen::Offer(from_offer(offer)?),
    };
    Ok(ReportPart {
        sequence: r.sequence,
        part: r.part,
        parts: r.parts,
        observation: Observation {
            group: name("report.group", &r.group)?,
            server: name("report.server", &r.server)?,
            version: name("report.version", &r.version)?,
            seen,
        },
    })
}

pub(super) fn to_report(part: ReportPart) -> v1::Report {
    let Observation { group, server, version, seen } = part.observation;
    v1::Report {
        sequence: part.sequence,
        part: part.part,
        parts: part.parts,
        group: group.to_string(),
        server: server.to_string(),
        version: version.to_string(),
        seen: Some(match seen {
            Seen::Up => v1::report::Seen::Up(v1::Up {}),
            Seen::Down(message) => v1::report::Seen::Down(v1::Down { message }),
            Seen::Offer(offer) => v1::report::Seen::Offer(to_offer(offer)),
        }),
    }
}

fn from_offer(offer: v1::Offer) -> Result<Offer, WireError> {
    let definitions = offer.definitions.into_iter().map(|d| {
        let json = String::from_utf8(d.json.into())
            .map_err(|_| bad("report.offer.definitions.json", "must be UTF-8"))?;
        Ok(Offered { kind: from_kind(&d.kind)?, name: d.name, json })
    });
    Ok(Offer {
        era: from_era(&offer.era)?,
        revision: offer.revision,
        server_info: json("report.offer.server_info", &offer.server_info)?,
        capabilities: json("report.offer.capabilities", &offer.capabilities)?,
        instructions: offer.instructions,
        definitions: definitions.collect::<Result<_, WireError>>()?,
    })
}

fn to_offer(offer: Offer) -> v1::Offer {
    let definition = |d: Offered| v1::OfferedDefinition {
        kind: to_kind(d.kind).to_owned(),
        name: d.name,
        json: Bytes::from(d.json),
    };
    v1::Offer {
        era: to_era(offer.era).to_owned(),
        revision: offer.revision,
        server_info: offer.server_info.to_string().into(),
        capabilities: offer.capabilities.to_string().into(),
        instructions: offer.instructions,
        definitions: offer.definitions.into_iter().map(definition).collect(),
    }
}

fn json(field: &'static str, bytes: &[u8]) -> Result<Value, WireError> {
    serde_json::from_slice(bytes).map_err(|e| bad(field, format!("is no JSON: {e}")))
}

fn from_era(text: &str) -> Result<ObservedEra, WireError> {
    match text {
        "legacy" => Ok(ObservedEra::Legacy),
        "modern" => Ok(ObservedEra::Modern),
        "dual" => Ok(ObservedEra::Dual),
        _ => Err(bad("report.offer.era", "must be legacy, modern or dual")),
    }
}

fn to_era(era: ObservedEra) -> &'static str {
    match era {
        ObservedEra::Legacy => "legacy",
        ObservedEra::Modern => "modern",
        ObservedEra::Dual => "dual",
    }
}

fn from_kind(text: &str) -> Result<DefinitionKind, WireError> {
    match text {
        "tool" => Ok(DefinitionKind::Tool),
        "resource" => Ok(DefinitionKind::Resource),
        "template" => Ok(DefinitionKind::Template),
        "prompt" => Ok(DefinitionKind::Prompt),
        _ => {
            Err(bad("report.offer.definitions.kind", "must be tool, resource, template or prompt"))
        }
    }
}

fn to_kind(kind: DefinitionKind) -> &'static str {
    match kind {
        DefinitionKind::Tool => "tool",
        DefinitionKind::Resource => "resource",
        DefinitionKind::Template => "template",
        DefinitionKind::Prompt => "prompt",
    }
}
