//! Observations on their way up: split into parts, kept until stored, put together again.

use std::collections::{BTreeMap, HashMap};

use crate::bounds;
use crate::id::Name;
use crate::observation::{Observation, Offer, Offered, Seen};
use crate::snapshot::UpstreamKey;

/// Bytes of definitions after which a further part is begun.
const PART_BYTES: usize = bounds::SYNC_MESSAGE_BYTES_MAX / 2;

/// A part of an observation. The first part holds everything but the definitions that did not
/// fit; further parts hold those.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportPart {
    /// Grows with every report of a node's process.
    pub sequence: u64,
    /// From zero.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
    /// The observation, with this part's definitions.
    pub observation: Observation,
}

impl ReportPart {
    fn definitions(&self) -> &[Offered] {
        match &self.observation.seen {
            Seen::Offer(offer) => &offer.definitions,
            Seen::Up | Seen::Down(_) => &[],
        }
    }
}

/// Splits an observation so that every part fits into a message.
pub fn split(sequence: u64, observation: &Observation) -> Vec<ReportPart> {
    let whole = |seen| Observation { seen, ..observation.clone() };
    let Seen::Offer(offer) = &observation.seen else {
        let observation = observation.clone();
        return vec![ReportPart { sequence, part: 0, parts: 1, observation }];
    };
    let mut chunks: Vec<Vec<Offered>> = vec![Vec::new()];
    let mut bytes = 0;
    for definition in &offer.definitions {
        let more = definition.json.len() + definition.name.len();
        if bytes + more > PART_BYTES && bytes > 0 {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(definition.clone());
        }
    }
    let parts = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    let part = |(at, definitions): (usize, Vec<Offered>)| {
        let offer = if at == 0 {
            Offer { definitions, ..offer.clone() }
        } else {
            Offer {
                server_info: serde_json::Value::Null,
                capabilities: serde_json::Value::Null,
                instructions: None,
                definitions,
                ..offer.clone()
            }
        };
        let part = u32::try_from(at).unwrap_or(u32::MAX);
        ReportPart { sequence, part, parts, observation: whole(Seen::Offer(offer)) }
    };
    chunks.into_iter().enumerate().map(part).collect()
}

/// Puts the parts of one node's reports together.
#[derive(Debug, Default)]
pub struct Assembly {
    begun: Option<(ReportPart, usize)>,
}

impl Assembly {
    /// Takes a part; gives the observation and its sequence when it is whole.
    ///
    /// # Errors
    /// A sentence, when the parts do not fit together or break a bound.
    pub fn push(&mut self, part: ReportPart) -> Result<Option<(u64, Observation)>, String> {
        let bytes: usize = part.definitions().iter().map(|d| d.json.len() + d.name.len()).sum();
        let (whole, bytes) = if part.part == 0 {
            (part, bytes)
        } else {
            let Some((mut whole, before)) = self.begun.take() else {
                return Err("a report begins with its first part".to_owned());
            };
            let follows = whole.sequence == part.sequence
                && whole.part + 1 == part.part
                && whole.parts == part.parts;
            let (Seen::Offer(into), Seen::Offer(from), true) =
                (&mut whole.observation.seen, part.observation.seen, follows)
            else {
                return Err("a part of a report does not follow the one before".to_owned());
            };
            into.definitions.extend(from.definitions);
            whole.part = part.part;
            (whole, before + bytes)
        };
        if bytes > bounds::OFFER_BYTES_MAX
            || whole.definitions().len() > bounds::CATALOG_ENTRIES_MAX * 4
        {
            return Err("a report is too large".to_owned());
        }
        if whole.part + 1 < whole.parts {
            self.begun = Some((whole, bytes));
            return Ok(None);
        }
        Ok(Some((whole.sequence, whole.observation)))
    }
}

/// What a node has to report: the newest offer and the newest health of every server version,
/// until the control plane has stored it.
#[derive(Debug, Default)]
pub struct Outbox {
    next: u64,
    waiting: BTreeMap<u64, Observation>,
    /// The sequence of what waits, by version and whether it is about its health.
    newest: HashMap<(UpstreamKey, bool), u64>,
}

impl Outbox {
    /// Takes an observation. It replaces an older one of the same sort about the same version.
    /// An offer that cannot travel is reported as a server that is down for that reason.
    pub fn put(&mut self, mut observation: Observation) -> u64 {
        if let Some(why) = too_large(&observation.seen) {
            observation.seen = Seen::Down(why);
        }
        let key = key_of(&observation);
        self.next += 1;
        if self.waiting.len() < bounds::OUTBOX_ENTRIES_MAX || self.newest.contains_key(&key) {
            let before = self.newest.insert(key, self.next);
            before.map(|before| self.waiting.remove(&before));
            self.waiting.insert(self.next, observation);
        }
        self.next
    }

    /// The parts of one report, when it still waits.
    pub fn parts(&self, sequence: u64) -> Vec<ReportPart> {
        self.waiting.get(&sequence).map(|seen| split(sequence, seen)).unwrap_or_default()
    }

    /// Everything that waits, oldest first: what a new stream has to carry.
    pub fn sequences(&self) -> Vec<u64> {
        self.waiting.keys().copied().collect()
    }

    /// The next so many that wait after a sequence, oldest first.
    pub fn after(&self, sequence: u64, count: usize) -> Vec<u64> {
        let later = (std::ops::Bound::Excluded(sequence), std::ops::Bound::Unbounded);
        self.waiting.range(later).map(|(sequence, _)| *sequence).take(count).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The control plane has stored a report.
    pub fn stored(&mut self, sequence: u64) {
        if let Some(seen) = self.waiting.remove(&sequence) {
            self.newest.remove(&key_of(&seen));
        }
    }
}

fn key_of(observation: &Observation) -> (UpstreamKey, bool) {
    let Observation { group, server, version, seen } = observation;
    let key = UpstreamKey {
        group: Name::clone(group),
        server: Name::clone(server),
        version: Name::clone(version),
    };
    (key, !matches!(seen, Seen::Offer(_)))
}

/// Why an offer cannot travel.
fn too_large(seen: &Seen) -> Option<String> {
    let Seen::Offer(offer) = seen else { return None };
    let size = |d: &Offered| d.json.len() + d.name.len();
    if let Some(large) = offer.definitions.iter().find(|d| size(d) > bounds::DEFINITION_BYTES_MAX) {
        let name: String = large.name.chars().take(80).collect();
        return Some(format!("its definition of {name:?} is too large"));
    }
    let head = offer.server_info.to_string().len()
        + offer.capabilities.to_string().len()
        + offer.instructions.as_ref().map_or(0, String::len);
    if head > PART_BYTES / 2 {
        return Some("its serverInfo, capabilities and instructions are too large".to_owned());
    }
    if offer.definitions.iter().map(size).sum::<usize>() > bounds::OFFER_BYTES_MAX {
        return Some("its definitions are too large together".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{DefinitionKind, ObservedEra};

    fn offer(count: usize, bytes: usize) -> Observation {
        let definitions = (0..count).map(|at| Offered {
            kind: DefinitionKind::Tool,
            name: format!("tool{at}"),
            json: "x".repeat(bytes),
        });
        Observation {
            group: "g".parse().unwrap(),
            server: "s".parse().unwrap(),
            version: "v".parse().unwrap(),
            seen: Seen::Offer(Offer {
                era: ObservedEra::Modern,
                revision: "2026-07-28".to_owned(),
                server_info: serde_json::json!({"name": "s"}),
                capabilities: serde_json::json!({"tools": {}}),
                instructions: Some("hi".to_owned()),
                definitions: definitions.collect(),
            }),
        }
    }

    #[test]
    fn parts_make_the_whole_again() {
        for (count, bytes, parts) in [(0, 0, 1), (10, 100, 1), (20, 200_000, 3), (1, 200_000, 1)] {
            let sent = offer(count, bytes);
            let split = split(7, &sent);
            assert_eq!(split.len(), parts, "{count} x {bytes}");
            let mut assembly = Assembly::default();
            let mut got = None;
            for part in split {
                assert!(got.is_none());
                got = assembly.push(part).unwrap();
            }
            assert_eq!(got, Some((7, sent)));
        }
    }

    #[test]
    fn parts_out_of_order_and_floods_are_refused() {
        let parts = split(7, &offer(20, 200_000));
        let mut assembly = Assembly::default();
        assert!(assembly.push(parts[1].clone()).is_err());
        assert!(assembly.push(parts[0].clone()).unwrap().is_none());
        assert!(assembly.push(parts[2].clone()).is_err());
        let mut assembly = Assembly::default();
        let mut part = parts[0].clone();
        part.parts = u32::MAX;
        let mut result = assembly.push(part.clone());
        while let Ok(None) = result {
            part.part += 1;
            result = assembly.push(part.clone());
        }
        assert_eq!(result, Err("a report is too large".to_owned()));
    }

    #[test]
    fn the_outbox_keeps_the_newest_until_it_is_stored() {
        let mut outbox = Outbox::default();
        let first = outbox.put(offer(1, 10));
        let second = outbox.put(offer(2, 10));
        let down = Observation { seen: Seen::Down("gone".to_owned()), ..offer(0, 0) };
        let third = outbox.put(down);
        assert_eq!(outbox.sequences(), [second, third]);
        assert!(outbox.parts(first).is_empty());
        outbox.stored(first);
        outbox.stored(third);
        assert_eq!(outbox.sequences(), [second]);
    }

    #[test]
    fn what_cannot_travel_is_told() {
        for (count, bytes) in [(1, bounds::DEFINITION_BYTES_MAX), (100, 200_000)] {
            let mut outbox = Outbox::default();
            let sequence = outbox.put(offer(count, bytes));
            let parts = outbox.parts(sequence);
            assert!(matches!(&parts[0].observation.seen, Seen::Down(why) if why.contains("large")));
        }
    }
}
