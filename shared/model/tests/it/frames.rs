//! Frames as a release sent them are read by the next one as they were meant.
//!
//! `frames/v1.txt` is a record and is only ever added to: a line that no longer reads as it did
//! means that planes of two releases no longer understand each other. `UPDATE=1` adds what is
//! new and changes nothing that is there.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use weir_model::id::{Digest, Revision};
use weir_model::observation::{Observation, Offer, Offered, Seen};
use weir_model::resource::{DefinitionKind, ObservedEra};
use weir_model::seal::NodePublic;
use weir_model::sync::report::ReportPart;
use weir_model::sync::statement::SignedStatement;
use weir_model::sync::{
    Applied, Hello, NodeFrame, PlaneFrame, Refused, TokenUse, UpdateHead, UpdatePart,
};
use weir_model::wire;
use weir_proto::prost::Message as _;
use weir_proto::sync::v1;

fn applied() -> Applied {
    Applied { revision: Revision(7), digest: Digest([7; 32]) }
}

fn report(seen: Seen) -> NodeFrame {
    let [group, server, version] = ["acme", "billing", "v1"].map(|n| n.parse().unwrap());
    let observation = Observation { group, server, version, seen };
    NodeFrame::Report(Box::new(ReportPart { sequence: 3, part: 0, parts: 1, observation }))
}

fn node_frames() -> BTreeMap<&'static str, NodeFrame> {
    let refused = vec![Refused { key: "Policy/acme/p".to_owned(), message: "odd".to_owned() }];
    let offer = Offer {
        era: ObservedEra::Dual,
        revision: "2026-07-28".to_owned(),
        server_info: serde_json::json!({"name": "billing"}),
        capabilities: serde_json::json!({"tools": {}}),
        instructions: Some("Be kind.".to_owned()),
        definitions: vec![Offered {
            kind: DefinitionKind::Tool,
            name: "refund".to_owned(),
            json: "{\"name\": \"refund\"}".to_owned(),
        }],
    };
    let used = TokenUse { group: "acme".parse().unwrap(), id: "a1".to_owned(), at: 9 };
    BTreeMap::from([
        ("node-tokens-used", NodeFrame::TokensUsed(vec![used])),
        (
            "node-hello",
            NodeFrame::Hello(Hello {
                node: "n1".parse().unwrap(),
                region: "eu".parse().unwrap(),
                build: "0.1.0".to_owned(),
                schema: 1,
                applied: applied(),
                sealing_key: NodePublic([9; 32]),
                refused: refused.clone(),
            }),
        ),
        ("node-ack", NodeFrame::Ack { nonce: 2, applied: applied(), refused: Vec::new() }),
        ("node-nack", NodeFrame::Ack { nonce: 2, applied: applied(), refused }),
        ("node-heartbeat", NodeFrame::Heartbeat(applied())),
        ("node-resync", NodeFrame::Resync { nonce: 2, message: "digest".to_owned() }),
        ("node-report-up", report(Seen::Up)),
        ("node-report-down", report(Seen::Down("refused".to_owned()))),
        ("node-report-offer", report(Seen::Offer(offer))),
    ])
}

fn plane_frames() -> BTreeMap<&'static str, PlaneFrame> {
    let statement = SignedStatement {
        signature: Bytes::from_static(b"signature"),
        signer: Bytes::from_static(b"signer"),
        signer_not_after: 1_800_000_000,
        endorsement: Bytes::from_static(b"endorsement"),
    };
    let update = UpdatePart {
        head: UpdateHead {
            nonce: 2,
            parts: 2,
            target: applied(),
            base: Some(Applied { revision: Revision(6), digest: Digest([6; 32]) }),
            rollback: true,
            statement,
        },
        part: 1,
        upserts: vec![("Group/acme".to_owned(), Bytes::from_static(b"{}"))],
        removals: vec!["Region/eu".to_owned()],
        secrets: vec![("secret-1".to_owned(), Bytes::from_static(b"sealed"))],
    };
    BTreeMap::from([
        (
            "plane-welcome",
            PlaneFrame::Welcome { replica: "cp-1".to_owned(), revision: Revision(7) },
        ),
        ("plane-update", PlaneFrame::Update(Box::new(update))),
        ("plane-heartbeat", PlaneFrame::Heartbeat(applied())),
        ("plane-report-stored", PlaneFrame::ReportStored { sequence: 3 }),
    ])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

#[test]
fn recorded_frames_read_as_they_were_meant() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/frames/v1.txt");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut recorded: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, hex)| (name.to_owned(), hex.to_owned()))
        .collect();
    let mut now = BTreeMap::new();
    for (name, frame) in node_frames() {
        now.insert(name.to_owned(), hex(&wire::to_node_frame(frame).encode_to_vec()));
    }
    for (name, frame) in plane_frames() {
        now.insert(name.to_owned(), hex(&wire::to_plane_frame(frame).encode_to_vec()));
    }
    if std::env::var_os("UPDATE").is_some() {
        for (name, hex) in now {
            recorded.entry(name).or_insert(hex);
        }
        let lines: String = recorded.iter().map(|(name, hex)| format!("{name} {hex}\n")).collect();
        std::fs::write(&path, lines).unwrap();
    }
    let of = |name: &str| unhex(recorded.get(name).unwrap_or_else(|| panic!("{name}: UPDATE=1")));
    for (name, frame) in node_frames() {
        let read = v1::NodeFrame::decode(of(name).as_slice()).unwrap();
        assert_eq!(wire::from_node_frame(read).unwrap(), frame, "{name}");
    }
    for (name, frame) in plane_frames() {
        let read = v1::PlaneFrame::decode(of(name).as_slice()).unwrap();
        assert_eq!(wire::from_plane_frame(read).unwrap(), frame, "{name}");
    }
}
