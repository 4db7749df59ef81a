use super::*;
use crate::observation::{Observation, Offer, Offered, Seen};
use crate::resource::{DefinitionKind, ObservedEra};
use crate::sync::report::ReportPart;

fn state() -> Applied {
    Applied { revision: Revision(7), digest: Digest::of(b"x") }
}

fn observation(seen: Seen) -> NodeFrame {
    let (group, server) = ("acme".parse().unwrap(), "billing".parse().unwrap());
    let observation = Observation { group, server, version: "v1".parse().unwrap(), seen };
    NodeFrame::Report(Box::new(ReportPart { sequence: 3, part: 0, parts: 2, observation }))
}

fn node_frames() -> Vec<NodeFrame> {
    let refused = vec![Refused { key: "Policy/acme/p".to_owned(), message: "no".to_owned() }];
    let hello = Hello {
        node: "n1".parse().unwrap(),
        region: "eu".parse().unwrap(),
        build: "1".to_owned(),
        schema: 1,
        applied: state(),
        sealing_key: NodePublic([3; 32]),
        refused: refused.clone(),
    };
    let fresh = Hello { applied: Applied::default(), ..hello.clone() };
    let definition = |kind| Offered { kind, name: "a".to_owned(), json: "{\"n\": 1.0}".to_owned() };
    let offer = |era, instructions| {
        let kinds = [
            DefinitionKind::Tool,
            DefinitionKind::Resource,
            DefinitionKind::Template,
            DefinitionKind::Prompt,
        ];
        Seen::Offer(Offer {
            era,
            revision: "2026-07-28".to_owned(),
            server_info: serde_json::json!({"name": "x"}),
            capabilities: serde_json::json!({}),
            instructions,
            definitions: kinds.map(definition).to_vec(),
        })
    };
    vec![
        NodeFrame::Hello(hello),
        NodeFrame::Hello(fresh),
        NodeFrame::Ack { nonce: 4, applied: state(), refused: Vec::new() },
        NodeFrame::Ack { nonce: 4, applied: state(), refused },
        NodeFrame::Heartbeat(state()),
        NodeFrame::Resync { nonce: 4, message: "why".to_owned() },
        NodeFrame::TokensUsed(vec![TokenUse {
            group: "acme".parse().unwrap(),
            id: "a1b2".to_owned(),
            at: 1_800_000_000,
        }]),
        observation(Seen::Up),
        observation(Seen::Down("refused".to_owned())),
        observation(offer(ObservedEra::Legacy, None)),
        observation(offer(ObservedEra::Modern, Some(String::new()))),
        observation(offer(ObservedEra::Dual, Some("hi".to_owned()))),
    ]
}

fn update() -> UpdatePart {
    let statement = SignedStatement {
        signature: Bytes::from_static(b"s"),
        signer: Bytes::from_static(b"k"),
        signer_not_after: -5,
        endorsement: Bytes::from_static(b"e"),
    };
    UpdatePart {
        head: UpdateHead {
            nonce: 9,
            parts: 3,
            target: state(),
            base: Some(Applied { revision: Revision(6), digest: Digest::of(b"y") }),
            rollback: true,
            statement,
        },
        part: 2,
        upserts: vec![("Group/acme".to_owned(), Bytes::from_static(b"{}"))],
        removals: vec!["Region/eu".to_owned()],
        secrets: vec![("s1".to_owned(), Bytes::from_static(b"c"))],
    }
}

#[test]
fn frames_round_trip() {
    for frame in node_frames() {
        assert_eq!(from_node_frame(to_node_frame(frame.clone())), Ok(frame));
    }
    let mut full = update();
    full.head.base = None;
    full.head.rollback = false;
    let frames = [
        PlaneFrame::Welcome { replica: "cp-1".to_owned(), revision: Revision(3) },
        PlaneFrame::Update(Box::new(update())),
        PlaneFrame::Update(Box::new(full)),
        PlaneFrame::Heartbeat(state()),
        PlaneFrame::Heartbeat(Applied::default()),
        PlaneFrame::ReportStored { sequence: 3 },
    ];
    for frame in frames {
        assert_eq!(from_plane_frame(to_plane_frame(frame.clone())), Ok(frame));
    }
}

#[test]
fn updates_are_kept_as_bytes() {
    let bytes = encode_update(update());
    assert_eq!(decode_update(bytes.clone().into()), Ok(update()));
    assert_eq!(
        decode_update(bytes[..bytes.len() - 1].to_vec().into()).unwrap_err().field,
        "update"
    );
}

#[test]
fn errors_name_the_field() {
    use v1::node_frame::Body as Node;
    let hello = |change: fn(&mut v1::Hello)| {
        let mut frame = to_node_frame(node_frames().remove(0));
        if let Some(Node::Hello(hello)) = &mut frame.body {
            change(hello);
        }
        from_node_frame(frame).unwrap_err().field
    };
    assert_eq!(hello(|h| h.node = "A B".to_owned()), "hello.node");
    assert_eq!(hello(|h| h.region.clear()), "hello.region");
    assert_eq!(hello(|h| h.digest = Bytes::from_static(b"short")), "hello.digest");
    assert_eq!(hello(|h| h.sealing_key = Bytes::new()), "hello.sealing_key");
    assert_eq!(from_node_frame(v1::NodeFrame { body: None }).unwrap_err().field, "body");
    assert_eq!(from_plane_frame(v1::PlaneFrame { body: None }).unwrap_err().field, "body");

    let plane = |change: fn(&mut v1::Update)| {
        let mut wire = to_update(update());
        change(&mut wire);
        from_update(wire).unwrap_err().field
    };
    assert_eq!(plane(|u| u.statement = None), "update.statement");
    assert_eq!(plane(|u| u.part = 3), "update.part");
    assert_eq!(plane(|u| u.nonce = 0), "update.nonce");
    assert_eq!(plane(|u| u.digest = Bytes::new()), "update.digest");
    let long = |u: &mut v1::Update| {
        u.statement.as_mut().unwrap().signature = vec![0; 73].into();
    };
    assert_eq!(plane(long), "update.statement.signature");

    let report = |change: fn(&mut v1::Report)| {
        let mut frame = to_node_frame(node_frames().remove(10));
        if let Some(Node::Report(report)) = &mut frame.body {
            change(report);
        }
        from_node_frame(frame).unwrap_err().field
    };
    fn offer(report: &mut v1::Report) -> &mut v1::Offer {
        match &mut report.seen {
            Some(v1::report::Seen::Offer(offer)) => offer,
            _ => unreachable!(),
        }
    }
    assert_eq!(report(|r| r.seen = None), "report.seen");
    assert_eq!(report(|r| r.group = "?".to_owned()), "report.group");
    assert_eq!(report(|r| offer(r).era = "old".to_owned()), "report.offer.era");
    assert_eq!(
        report(|r| offer(r).capabilities = Bytes::from_static(b"{")),
        "report.offer.capabilities"
    );
    assert_eq!(
        report(|r| offer(r).definitions[0].kind = "x".to_owned()),
        "report.offer.definitions.kind"
    );
    assert_eq!(
        report(|r| offer(r).definitions[0].json = Bytes::from_static(&[255])),
        "report.offer.definitions.json"
    );
}
