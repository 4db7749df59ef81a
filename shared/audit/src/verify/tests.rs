//! Every way of tampering with a log of two epochs, in files and in a topic.

use std::sync::Arc;

use super::*;
use crate::certificate::AUTHORITY;
use crate::leaves::Leaves;
use crate::merkle::Hash;
use crate::note::Signer;
use crate::proof::Proof;

/// Records of the first and of the second epoch.
const SIZES: [u64; 2] = [9, 7];
/// Records between checkpoints.
const EVERY: u64 = 3;

struct World {
    authority: Signer,
    witness: Signer,
    lines: Vec<String>,
    /// The newest checkpoint of each epoch.
    newest: Vec<Note>,
}

fn record(epoch: u64, sequence: u64) -> String {
    format!(
        "{{\"metadata\":{{\"uid\":\"eu-1/{epoch}/{sequence}\",\"log_name\":\"weir.audit\"}},\
         \"time\":{sequence},\"what\":\"said {sequence}\"}}"
    )
}

/// Two epochs of node `eu-1`: 100, which ended, and 200, which goes on.
fn world() -> World {
    world_with(true)
}

/// The same, with or without lists of leaves in its checkpoints.
fn world_with(lists: bool) -> World {
    let [authority, node, witness] = [(); 3].map(|()| Signer::generate().unwrap());
    let certificate =
        Certificate { node: "eu-1".into(), region: "eu".into(), key: node.public(), since: 1 };
    let certificate: Arc<str> = certificate.sign(&authority).unwrap().to_string().into();
    let (mut lines, mut newest, mut previous) = (Vec::new(), Vec::new(), None);
    for (epoch, size) in [100, 200].into_iter().zip(SIZES) {
        let mut tree = Tree::default();
        let (node_name, region) = ("eu-1".to_owned(), "eu".to_owned());
        let begin =
            line::SegmentHead { node: node_name, region, epoch, tree: tree.clone(), previous };
        lines.push(begin.to_string());
        let (mut sealed, mut unlisted) = (Vec::new(), Vec::new());
        let mut seal = |tree: &Tree, new: &mut Vec<Hash>, end| {
            let head = Head { epoch, size: tree.size(), root: tree.root() };
            let first = head.size + 1 - new.len() as u64;
            let leaves = Leaves::of(first, std::mem::take(new).into_iter()).filter(|_| lists);
            let listed = leaves.as_ref().map(Leaves::listed);
            let checkpoint =
                Checkpoint { node: "eu-1".into(), head, previous, leaves: listed, lost: 0, end };
            sealed.push(Sealed {
                note: checkpoint.sign(&node).unwrap(),
                checkpoint,
                peaks: Some(tree.peaks().to_vec()),
                leaves,
                key: node.public(),
                certificate: Some(Arc::clone(&certificate)),
                region: "eu".into(),
                time_ms: 1,
            });
            sealed.last().unwrap().render()
        };
        for sequence in 1..=size {
            let line = record(epoch, sequence);
            let leaf = merkle::leaf(line.as_bytes());
            tree.push(leaf);
            unlisted.push(leaf);
            lines.push(line);
            if sequence % EVERY == 0 {
                lines.push(seal(&tree, &mut unlisted, false));
            }
        }
        if epoch == 100 {
            lines.push(seal(&tree, &mut unlisted, true));
        }
        let last = sealed.pop().unwrap();
        previous = Some(last.checkpoint.head);
        newest.push(last.note);
    }
    World { authority, witness, lines, newest }
}

impl World {
    fn trust(&self) -> Trust {
        let authority = self.authority.verifier(AUTHORITY);
        Trust { authority, witnessed: self.newest.clone(), ..Trust::default() }
    }
    fn report(&self, lines: &[String], order: Order) -> Report {
        verified(lines, order, self.trust())
    }
    fn at(&self, epoch: u64, sequence: u64) -> usize {
        let wanted = record(epoch, sequence);
        self.lines.iter().position(|line| *line == wanted).unwrap()
    }
}

fn verified(lines: &[String], order: Order, trust: Trust) -> Report {
    let mut verification = Verification::new(order, trust);
    // The heads of segments never leave their files.
    let leaves_file = |line: &&String| !line.starts_with("{\"weir_audit_segment");
    let lines: Vec<&String> =
        lines.iter().filter(|line| order == Order::Written || leaves_file(line)).collect();
    for (number, line) in lines.into_iter().enumerate() {
        verification.line(line.as_bytes(), &format!("line {}", number + 1));
    }
    verification.finish()
}

fn first(report: &Report) -> Option<(u64, u64)> {
    report.findings.first().map(|finding| (finding.at.1, finding.at.2))
}

#[test]
fn what_is_whole_is_said_to_be() {
    let world = world();
    for order in [Order::Written, Order::Any] {
        let report = world.report(&world.lines, order);
        assert!(report.is_good(), "{report:#?}");
        assert!(report.notes.is_empty(), "{report:#?}");
        let [first, second] = &report.epochs[..] else { panic!("{report:#?}") };
        assert_eq!((first.records, first.signed, first.ended), ((1, 9), 9, true));
        assert_eq!((second.records, second.signed, second.ended), ((1, 7), 6, false));
    }
    // A topic gives partitions in any order, and some messages twice.
    let mut lines: Vec<String> = world.lines.iter().rev().cloned().collect();
    lines.extend_from_slice(&world.lines[..4]);
    let report = world.report(&lines, Order::Any);
    assert!(report.is_good() && report.epochs[0].repeats == 3, "{report:#?}");
}

type Tamper = fn(&World, &mut Vec<String>);

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_tampering_is_found_and_named() {
    // What is done, what the first finding names in files, and in a topic.
    type Case = (&'static str, Tamper, (u64, u64), Option<(u64, u64)>);
    let cases: [Case; 16] = [
        ("removed", |w, l| drop(l.remove(w.at(100, 5))), (100, 5), Some((100, 5))),
        // In a topic that is what retention does: it is told, and nobody can say more.
        ("first removed", |w, l| drop(l.remove(w.at(100, 1))), (100, 1), None),
        (
            "changed",
            |w, l| l[w.at(100, 5)] = record(100, 5).replace("said", "SAID"),
            (100, 5),
            Some((100, 5)),
        ),
        (
            "swapped places",
            |w, l| l.swap(w.at(100, 4), w.at(100, 5)),
            (100, 4),
            // Order in a topic is by number; nothing is wrong with it.
            None,
        ),
        (
            "swapped contents",
            |w, l| {
                l[w.at(100, 4)] = record(100, 4).replace("said 4", "said 5");
                l[w.at(100, 5)] = record(100, 5).replace("said 5", "said 4");
            },
            (100, 4),
            Some((100, 4)),
        ),
        (
            "several changed",
            |w, l| {
                l[w.at(200, 6)] = record(200, 6).replace("said", "SAID");
                l[w.at(200, 5)] = record(200, 5).replace("said", "SAID");
            },
            (200, 5),
            Some((200, 5)),
        ),
        (
            "inserted",
            |w, l| l.insert(w.at(100, 5), record(100, 5).replace("said", "never said")),
            (100, 5),
            Some((100, 5)),
        ),
        (
            "inserted, and what follows numbered anew",
            |w, l| {
                l[w.at(100, 6)] = record(100, 6).replace("said 6", "said 5");
                l[w.at(100, 5)] = record(100, 5).replace("said 5", "never said");
            },
            (100, 5),
            Some((100, 5)),
        ),
        (
            "its list changed with the record",
            |w, l| {
                l[w.at(100, 5)] = record(100, 5).replace("said", "SAID");
                let at = w.at(100, 6) + 1;
                let Ok(Line::Checkpoint(mut sealed)) = line::parse(l[at].as_bytes()) else {
                    panic!("a checkpoint")
                };
                let hashes: Vec<Hash> =
                    (3..6).map(|n| merkle::leaf(l[w.at(100, 4) + n - 3].as_bytes())).collect();
                sealed.leaves = Leaves::of(4, hashes.into_iter());
                l[at] = sealed.render();
            },
            // The checkpoint that was tampered with; its records are judged by the next.
            (100, 4),
            Some((100, 4)),
        ),
        (
            "inserted at the end",
            |w, l| l.insert(w.at(200, 1) - 1, record(100, 10)),
            (100, 10),
            Some((100, 10)),
        ),
        ("doubled", |w, l| l.insert(w.at(100, 5), record(100, 5)), (100, 5), None),
        ("tail cut", |w, l| l.truncate(w.at(200, 4)), (200, 4), Some((200, 4))),
        ("epoch cut", |w, l| l.truncate(w.at(200, 1) - 1), (200, 0), Some((200, 0))),
        ("epoch removed", |w, l| drop(l.drain(..w.at(200, 1) - 1)), (0, 0), Some((0, 0))),
        (
            "cut in the middle",
            |w, l| drop(l.drain(w.at(100, 8)..w.at(200, 1))),
            (100, 8),
            Some((100, 8)),
        ),
        ("garbage", |_, l| l.insert(2, "{\"half\":".into()), (0, 0), Some((0, 0))),
    ];
    let world = world();
    for (name, tamper, in_files, in_topic) in cases {
        let mut lines = world.lines.clone();
        tamper(&world, &mut lines);
        for (order, expect) in [(Order::Written, Some(in_files)), (Order::Any, in_topic)] {
            let report = world.report(&lines, order);
            if name == "epoch removed" {
                // Older than all there is: retention does that, and it is told.
                assert!(report.is_good(), "{name}: {report:#?}");
                assert!(report.notes.iter().any(|note| note.contains("epoch 100")), "{report:#?}");
                continue;
            }
            assert_eq!(first(&report), expect, "{name}, {order:?}: {report:#?}");
            assert!(expect.is_some() || name != "first removed" || report.notes.len() == 1);
        }
    }
}

/// Partitions lose their beginnings one by one: what is missing before the first record of each is
/// told, and what is missing behind it is found.
#[test]
fn uneven_retention_is_told_and_hides_nothing_behind_it() {
    let world = world();
    let alone = Trust { witnessed: Vec::new(), ..world.trust() };
    // Records go to two partitions by turns, checkpoints to a third; the second has lost more.
    let judged = |gone: &[(u64, u64)]| {
        let mut verification = Verification::new(Order::Any, alone.clone());
        for text in &world.lines {
            match line::parse(text.as_bytes()) {
                Ok(Line::Record(head)) => {
                    let (epoch, sequence) = (head.id.epoch, head.id.sequence);
                    let part = i32::from(sequence % 2 == 0);
                    if !gone.contains(&(epoch, sequence)) {
                        verification.line_of(Some(part), text.as_bytes(), &part);
                    }
                }
                Ok(Line::Checkpoint(_)) => verification.line_of(None, text.as_bytes(), &"third"),
                _ => {}
            }
        }
        verification.finish()
    };
    let report = judged(&[(100, 2), (100, 4)]);
    assert!(report.is_good(), "{report:#?}");
    assert!(report.notes.iter().any(|note| note.contains("before record 6")), "{report:#?}");
    assert_eq!((report.epochs[0].signed, report.epochs[0].ended), (9, true));
    let report = judged(&[(100, 1), (100, 2), (100, 4)]);
    assert!(report.is_good() && report.epochs[0].records == (3, 9), "{report:#?}");
    // Behind the first that is left of its partition, a hole is a hole.
    let report = judged(&[(100, 2), (100, 4), (100, 8)]);
    assert_eq!(first(&report), Some((100, 8)), "{report:#?}");
    let report = judged(&[(200, 3)]);
    assert_eq!(first(&report), Some((200, 3)), "{report:#?}");
}

#[test]
fn an_end_that_is_missing_everywhere_is_seen_by_the_witness_alone() {
    let world = world();
    let cut = &world.lines[..world.at(200, 4)];
    let alone = Trust { witnessed: Vec::new(), ..world.trust() };
    let report = verified(cut, Order::Any, alone);
    assert!(report.is_good() && report.notes.len() == 1, "{report:#?}");
    assert!(report.notes[0].contains("missing end"));
    let report = world.report(cut, Order::Any);
    assert_eq!(first(&report), Some((200, 4)));
    assert!(report.findings[0].what.contains("the control plane has signed for 6"), "{report:#?}");
}

#[test]
fn who_rewrites_a_log_needs_the_nodes_key_and_then_meets_the_witness() {
    let (world, other) = (world(), self::world());
    // Everything anew, under another key and another control plane.
    let report = world.report(&other.lines, Order::Written);
    assert!(report.findings.iter().any(|f| f.what.contains("weir.control-plane")), "{report:#?}");
    // With the same keys, the witness still knows better.
    let trust = Trust { authority: other.authority.verifier(AUTHORITY), ..world.trust() };
    let mut lines = other.lines.clone();
    lines[1] = lines[1].replace("said 1", "said 2");
    let report = verified(&lines, Order::Written, trust);
    assert_eq!(first(&report), Some((100, 1)), "{report:#?}");
}

#[test]
fn what_is_left_of_a_log_is_judged_from_the_first_checkpoint_on() {
    let world = world();
    let lines = &world.lines[world.at(100, 5)..];
    for order in [Order::Written, Order::Any] {
        let report = world.report(lines, order);
        assert!(report.is_good(), "{report:#?}");
        let first = &report.epochs[0];
        assert_eq!((first.records, first.signed, first.before), ((5, 9), 9, 0));
        // Lists of leaves speak of those too that stand before the first checkpoint.
        for changed in [5, 6, 8] {
            let mut lines = lines.to_vec();
            let at = lines.iter().position(|line| *line == record(100, changed)).unwrap();
            lines[at] = lines[at].replace("said", "SAID");
            let report = world.report(&lines, order);
            assert_eq!(self::first(&report), Some((100, changed)), "{report:#?}");
            lines.remove(at);
            let report = world.report(&lines, order);
            // Where the data begins, that is what retention does.
            let named = (changed > 5).then_some((100, changed));
            assert_eq!(self::first(&report), named, "{report:#?}");
        }
    }
}

/// Logs of builds that signed for no lists.
#[test]
fn without_a_list_the_checkpoints_around_a_changed_record_are_named() {
    let world = world_with(false);
    for order in [Order::Written, Order::Any] {
        assert!(world.report(&world.lines, order).is_good());
        let mut lines = world.lines.clone();
        lines[world.at(100, 5)] = record(100, 5).replace("said", "SAID");
        let report = world.report(&lines, order);
        assert_eq!(first(&report), Some((100, 4)), "{report:#?}");
        assert!(report.findings[0].what.contains("or one up to 6"), "{report:#?}");
        // Nobody can judge what stands before the first checkpoint of what is left.
        let left = &world.lines[world.at(100, 5)..];
        assert_eq!(world.report(left, order).epochs[0].before, 2);
    }
}

#[test]
fn a_topic_may_have_holes_behind_everything_that_is_signed_for() {
    let world = world();
    let mut lines = world.lines.clone();
    lines.push(record(200, 9));
    let report = world.report(&lines, Order::Any);
    assert!(report.is_good() && report.notes.len() == 1, "{report:#?}");
    assert_eq!((report.epochs[1].open, report.epochs[1].signed), (Some(8), 6));
    assert_eq!(first(&world.report(&lines, Order::Written)), Some((200, 8)));
    // So it is where the partition of the first record is late.
    let report = world.report(&[record(300, 3), record(300, 6)], Order::Any);
    assert!(report.is_good() && report.epochs[0].open == Some(4), "{report:#?}");
    // What comes in any order is good at every moment in which checkpoints follow their records.
    let mut verification = Verification::new(Order::Any, world.trust());
    for line in &world.lines[1..] {
        verification.line(line.as_bytes(), &"pipe");
        assert!(verification.so_far().is_good(), "{line}");
    }
    verification.line(record(200, 5).replace("said", "SAID").as_bytes(), &"pipe");
    assert!(!verification.so_far().is_good());
}

/// A line with the certificate of its checkpoint taken out: that is not part of what is signed.
fn uncertified(line: &str) -> String {
    let mut json: serde_json::Value = serde_json::from_str(line).unwrap();
    if let Some(unmapped) = json["unmapped"].as_object_mut() {
        unmapped.remove("certificate");
    }
    json.to_string()
}

#[test]
fn a_key_that_was_certified_later_was_the_nodes_before() {
    let world = world();
    let sealed = |line: &String| line.contains("weir.audit.checkpoint");
    let last = world.lines.iter().rposition(sealed).unwrap();
    for (certified, good) in [(true, true), (false, false)] {
        let mut lines = world.lines.clone();
        for (at, line) in lines.iter_mut().enumerate().filter(|(_, line)| sealed(line)) {
            if at != last || !certified {
                *line = uncertified(line);
            }
        }
        let report = world.report(&lines, Order::Written);
        assert_eq!(report.is_good(), good, "{report:#?}");
        assert_eq!(report.findings.len(), usize::from(!good), "{report:#?}");
        let mut verification = Verification::new(Order::Any, world.trust());
        verification.want(EventId { node: "eu-1".into(), epoch: 100, sequence: 1 });
        lines.iter().for_each(|line| verification.line(line.as_bytes(), &"pipe"));
        let proof = verification.prove().unwrap();
        let authority = world.authority.verifier(AUTHORITY).unwrap();
        assert_eq!(proof.check(Some(&authority)).is_ok(), good);
    }
    // A certificate of one node's key says nothing about another's.
    let mut lines = world.lines.clone();
    lines.iter_mut().filter(|line| sealed(line)).for_each(|line| *line = uncertified(line));
    lines.extend(self::world().lines);
    let report = world.report(&lines, Order::Any);
    assert!(report.findings.iter().any(|found| found.what.contains(UNCERTIFIED)), "{report:#?}");
}

#[test]
fn a_key_is_the_nodes_when_the_control_plane_has_cosigned_what_it_signed() {
    let world = world();
    let mut lines = world.lines.clone();
    let sealed = |line: &&mut String| line.contains("weir.audit.checkpoint");
    lines.iter_mut().filter(sealed).for_each(|line| *line = uncertified(line));
    let plain = world.trust();
    let stranger = Signer::generate().unwrap();
    for (by, good) in [(&world.authority, true), (&stranger, false)] {
        let mut trust = plain.clone();
        for note in &mut trust.witnessed {
            by.cosign(AUTHORITY, note, 5).unwrap();
        }
        assert_eq!(verified(&lines, Order::Written, trust).is_good(), good);
    }
    // What was cosigned for one node's key says nothing about another's.
    let mut other = self::world();
    other.newest.iter_mut().for_each(|note| world.authority.cosign(AUTHORITY, note, 5).unwrap());
    let trust = Trust { witnessed: other.newest, ..plain };
    let report = verified(&lines, Order::Written, trust);
    assert!(report.findings.iter().any(|found| found.what.contains(UNCERTIFIED)), "{report:#?}");
}

#[test]
fn witnesses_that_are_asked_for_must_have_signed() {
    let world = world();
    let cosigner = world.witness.verifier("auditor.test").unwrap().cosigner();
    let mut trust = Trust { cosigners: vec![cosigner], ..world.trust() };
    let report = verified(&world.lines, Order::Any, trust.clone());
    assert_eq!(report.findings.len(), 2, "{report:#?}");
    for note in &mut trust.witnessed {
        world.witness.cosign("auditor.test", note, 1_800_000_000).unwrap();
    }
    assert!(verified(&world.lines, Order::Any, trust).is_good());
}

#[test]
fn one_record_is_proved_without_the_others() {
    let world = world();
    let authority = world.authority.verifier(AUTHORITY).unwrap();
    for sequence in 1..=6 {
        let prove = |lines: &[String]| {
            let mut verification = Verification::new(Order::Any, world.trust());
            verification.want(EventId { node: "eu-1".into(), epoch: 200, sequence });
            lines.iter().for_each(|line| verification.line(line.as_bytes(), &"pipe"));
            verification.prove()
        };
        let text = prove(&world.lines).unwrap().to_string();
        let proof: Proof = text.parse().unwrap();
        let checkpoint = proof.check(Some(&authority)).unwrap();
        assert_eq!(checkpoint.head.size, sequence.div_ceil(EVERY) * EVERY);
        let other = format!("said {}", 1 + sequence % 6);
        assert!(!String::from_utf8_lossy(&proof.record).contains(&other), "one record alone");
        let mut forged = proof.clone();
        forged.record = record(200, sequence).replace("said", "SAID").into_bytes();
        assert!(forged.check(Some(&authority)).is_err());
        let forged = Proof { index: proof.index + 1, ..proof.clone() };
        assert!(forged.check(Some(&authority)).is_err());
        let forged = Proof { certificate: None, ..proof.clone() };
        assert!(forged.check(Some(&authority)).is_err() && forged.check(None).is_ok());
        let stranger = self::world().authority.verifier(AUTHORITY).unwrap();
        assert!(proof.check(Some(&stranger)).is_err());
        // A log that was tampered with gives no proof.
        let mut lines = world.lines.clone();
        lines[world.at(200, 1 + sequence % 3)] = record(200, 1 + sequence % 3).replace('s', "S");
        assert!(sequence > 3 || prove(&lines).is_err());
    }
    let mut verification = Verification::new(Order::Any, world.trust());
    verification.want(EventId { node: "eu-1".into(), epoch: 200, sequence: 7 });
    world.lines.iter().for_each(|line| verification.line(line.as_bytes(), &"pipe"));
    assert!(verification.prove().unwrap_err().contains("no checkpoint covers it yet"));
    for bad in ["", "x\n\ny", "c2sp.org/tlog-proof@v1\nindex 1\n\nx"] {
        assert!(bad.parse::<Proof>().is_err());
    }
}
