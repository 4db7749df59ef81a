//! Single steps of the machines; the simulation in `tests/` runs them against each other.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::delta::{Delta, Heading};
use super::publisher::{self, Plan, Publisher, View};
use super::statement::{Anchor, Signer};
use super::subscriber::{self, Node, Subscriber};
use super::*;
use crate::resource::{Group, Kind, Resource, ResourceKey, ResourceSet};
use crate::seal::NodeKey;

fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), unix: 1_000 }
}

fn region() -> Name {
    "eu".parse().unwrap()
}

fn set(groups: &[&str]) -> ResourceSet {
    let mut set = ResourceSet::default();
    for group in groups {
        let key = ResourceKey::global(Kind::Group, *group);
        set.insert(Arc::new(Resource::new(key, Spec::Group(Group::default())).unwrap()));
    }
    set
}

fn view(revision: u64, groups: &[&str]) -> Arc<View> {
    Arc::new(View::new(Revision(revision), set(groups)))
}

struct Ends {
    anchor: Anchor,
    signer: Signer,
    publisher: Publisher,
    subscriber: Subscriber,
}

/// A stream on which the Hello has been said.
fn ends(newest: Arc<View>, held: Held) -> (Ends, Vec<publisher::Action>) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let anchor = Anchor(key.public_key().as_ref().to_vec().into());
    let endorse = |b: &[u8]| key.sign(&SystemRandom::new(), b).map(|s| s.as_ref().to_vec());
    let signer = Signer::new(2_000, endorse).unwrap();
    let node = Node {
        node: "n1".parse().unwrap(),
        region: region(),
        build: "test".to_owned(),
        sealing_key: NodeKey::generate().public(),
    };
    let mut subscriber = Subscriber::new(Timing::default(), node, held, Vec::new(), 1);
    let mut publisher =
        Publisher::new(Timing::default(), "cp".to_owned(), newest, Vec::new(), at(0));
    assert!(matches!(subscriber.on_tick(at(0))[..], [subscriber::Action::Connect { attempt: 0 }]));
    let hello = sent(subscriber.on_connected(at(0)));
    let actions = publisher.on_message(hello, at(0));
    (Ends { anchor, signer, publisher, subscriber }, actions)
}

fn sent(mut actions: Vec<subscriber::Action>) -> NodeFrame {
    match actions.pop() {
        Some(subscriber::Action::Send(frame)) if actions.is_empty() => frame,
        other => panic!("{other:?} after {actions:?}"),
    }
}

fn plan(actions: Vec<publisher::Action>) -> Plan {
    let plan = actions.into_iter().find_map(|action| match action {
        publisher::Action::Publish(plan) => Some(plan),
        _ => None,
    });
    plan.expect("an update")
}

impl Ends {
    fn parts(&self, plan: Plan) -> Vec<UpdatePart> {
        let delta = plan.delta();
        self.parts_of(plan, delta)
    }

    fn parts_of(&self, plan: Plan, delta: Delta) -> Vec<UpdatePart> {
        let statement = self.signer.sign(&region(), plan.heading.target);
        plan.into_parts(Arc::new(delta), statement, Vec::new()).collect()
    }

    fn give(&mut self, part: UpdatePart) -> Vec<subscriber::Action> {
        self.subscriber.on_message(PlaneFrame::Update(Box::new(part)), at(0))
    }

    /// Applies what the node was given, and answers.
    fn apply(&mut self, mut actions: Vec<subscriber::Action>) -> NodeFrame {
        let Some(subscriber::Action::Apply(assembled)) = actions.pop() else {
            panic!("nothing to apply: {actions:?}")
        };
        let nonce = assembled.nonce();
        let outcome = assembled.resolve(&self.anchor, &region(), at(0));
        sent(self.subscriber.on_applied(nonce, outcome.map(|held| (held, Vec::new()))))
    }

    fn deliver(&mut self, plan: Plan) -> Vec<publisher::Action> {
        let mut parts = self.parts(plan);
        assert_eq!(parts.len(), 1);
        let actions = self.give(parts.remove(0));
        let answer = self.apply(actions);
        self.publisher.on_message(answer, at(0))
    }
}

#[test]
fn the_whole_state_comes_first_and_then_what_changed() {
    let (mut ends, actions) = ends(view(5, &["a", "b"]), Held::default());
    let whole = plan(actions);
    let Heading { base, rollback, .. } = whole.heading;
    assert_eq!((base, whole.delta().upserts().len(), rollback), (None, 2, false));
    assert!(ends.deliver(whole).is_empty());
    assert!(ends.publisher.is_current());
    let delta = plan(ends.publisher.on_change(view(6, &["b", "c"]), at(0)));
    assert_eq!(delta.heading.base.map(|b| b.revision), Some(Revision(5)));
    let content = delta.delta();
    assert_eq!((content.upserts().len(), content.removals().len()), (1, 1));
    ends.deliver(delta);
    assert_eq!(ends.subscriber.held().set, set(&["b", "c"]));
}

#[test]
fn a_slow_node_skips_revisions() {
    let (mut ends, actions) = ends(view(5, &["a"]), Held::default());
    let whole = plan(actions);
    for revision in 6..9 {
        assert!(ends.publisher.on_change(view(revision, &["b"]), at(0)).is_empty());
    }
    let next = plan(ends.deliver(whole));
    assert_eq!(next.heading.target.revision, Revision(8));
}

#[test]
fn a_node_that_comes_back_gets_what_changed() {
    let (mut first, actions) = ends(view(5, &["a"]), Held::default());
    first.deliver(plan(actions));
    let held = Held::clone(first.subscriber.held());
    let (same, actions) = ends(view(5, &["a"]), held.clone());
    assert!(same.publisher.is_current());
    assert!(matches!(actions[..], [publisher::Action::Send(PlaneFrame::Welcome { .. })]));
    // The same content under another revision moves the revision alone.
    let (_, actions) = ends(view(9, &["a"]), held.clone());
    let moved = plan(actions);
    assert_eq!((moved.delta().upserts().len(), moved.heading.base.is_some()), (0, true));
    // A rewritten history is told as such.
    let (_, actions) = ends(view(5, &["b"]), held);
    let rewritten = plan(actions);
    assert_eq!((rewritten.heading.base, rewritten.heading.rollback), (None, true));
}

#[test]
fn a_replica_that_is_behind_waits_before_it_goes_back() {
    let (mut first, actions) = ends(view(5, &["a"]), Held::default());
    first.deliver(plan(actions));
    let held = Held::clone(first.subscriber.held());
    let (mut ends, actions) = ends(view(4, &["b"]), held);
    assert_eq!(actions.len(), 1, "only Welcome");
    let lag = u64::try_from(Timing::default().lag.as_millis()).unwrap();
    let beat = |ends: &mut Ends, ms| {
        let frame = NodeFrame::Heartbeat(ends.subscriber.held().applied);
        ends.publisher.on_message(frame, at(ms));
        ends.publisher.on_tick(at(ms))
    };
    for ms in (0..lag).step_by(5_000) {
        let updates = beat(&mut ends, ms);
        assert!(!updates.iter().any(|a| matches!(a, publisher::Action::Publish(_))), "{ms}");
    }
    let back = plan(beat(&mut ends, lag));
    assert!(back.heading.rollback);
    ends.deliver(back);
    assert_eq!(ends.subscriber.held().applied.revision, Revision(4));
}

#[test]
fn silence_and_missing_answers_end_the_stream() {
    let (mut ends, actions) = ends(view(5, &["a"]), Held::default());
    let silence = u64::try_from(Timing::default().silence().as_millis()).unwrap();
    let closed = |actions: Vec<publisher::Action>| {
        actions.iter().any(|a| matches!(a, publisher::Action::Close(_)))
    };
    drop(actions);
    assert!(!closed(ends.publisher.on_tick(at(silence))));
    assert!(matches!(ends.subscriber.on_tick(at(silence + 1))[..], [subscriber::Action::Close(_)]));
    assert!(!ends.subscriber.is_connected());
    let ack = u64::try_from(Timing::default().ack.as_millis()).unwrap();
    for ms in (0..=ack).step_by(10_000) {
        assert!(!closed(ends.publisher.on_tick(at(ms))), "{ms}");
        ends.publisher.on_message(NodeFrame::Heartbeat(Applied::default()), at(ms));
    }
    assert!(closed(ends.publisher.on_tick(at(ack + 1))));
    assert!(ends.publisher.on_tick(at(ack * 2)).is_empty(), "once");
}

#[test]
fn pauses_grow_up_to_a_bound_and_shrink_after_success() {
    let (mut ends, _) = ends(view(5, &["a"]), Held::default());
    let Timing { backoff_min, backoff_max, .. } = Timing::default();
    let mut now = Duration::ZERO;
    let mut pauses = Vec::new();
    for _ in 0..12 {
        ends.subscriber.on_disconnected(Now { mono: now, unix: 0 });
        let from = now;
        while ends.subscriber.on_tick(Now { mono: now, unix: 0 }).is_empty() {
            now += Duration::from_millis(1);
        }
        pauses.push(now - from);
    }
    assert!(pauses[0] >= backoff_min / 2 && pauses[0] <= backoff_min);
    assert!(pauses[11] >= backoff_max / 2 && pauses[11] <= backoff_max, "{pauses:?}");
}

#[test]
fn what_does_not_fit_is_not_applied() {
    let (mut ends, actions) = ends(view(5, &["a"]), Held::default());
    let whole = plan(actions);
    let part = ends.parts(whole).remove(0);
    let refuse = |ends: &mut Ends, nonce: u64, change: &dyn Fn(&mut UpdatePart)| {
        let mut part = part.clone();
        part.head.nonce = nonce;
        change(&mut part);
        let actions = ends.give(part);
        let applies = matches!(actions[..], [subscriber::Action::Apply(_)]);
        let answer = if applies { ends.apply(actions) } else { sent(actions) };
        assert!(matches!(answer, NodeFrame::Resync { .. }), "{nonce}: {answer:?}");
        assert!(ends.subscriber.held().set.is_empty());
    };
    refuse(&mut ends, 2, &|p| {
        p.head.base = Some(Applied { revision: Revision(4), ..p.head.target })
    });
    refuse(&mut ends, 3, &|p| p.head.target.revision = Revision(6));
    refuse(&mut ends, 4, &|p| p.upserts.clear());
    refuse(&mut ends, 5, &|p| p.upserts[0].0 = "Group/b".to_owned());
    refuse(&mut ends, 6, &|p| p.upserts[0].0 = "Gruppe/a".to_owned());
    refuse(&mut ends, 7, &|p| p.removals.push("nothing".to_owned()));
    refuse(&mut ends, 8, &|p| p.head.statement.signature = Bytes::new());
    refuse(&mut ends, 9, &|p| p.head.target.revision = Revision(0));
    let mut good = part.clone();
    good.head.nonce = 10;
    let actions = ends.give(good);
    assert!(matches!(ends.apply(actions), NodeFrame::Ack { .. }));
}

#[test]
fn a_document_that_cannot_be_read_is_kept_and_told() {
    let (mut ends, actions) = ends(view(5, &["a"]), Held::default());
    let mut whole = plan(actions);
    let newer = br#"{"apiVersion":"weir/v2","kind":"Group","metadata":{"name":"z"},"spec":{}}"#;
    let key = ResourceKey::global(Kind::Group, "z");
    let newer = Resource::unreadable(key, Bytes::from_static(newer), String::new());
    let mut after = set(&["a"]);
    after.insert(Arc::new(newer.clone()));
    let mut upserts = whole.delta().upserts().to_vec();
    upserts.push(Arc::new(newer));
    whole.heading.target.digest = after.digest();
    let part = ends.parts_of(whole, Delta::new(upserts, Vec::new())).remove(0);
    let actions = ends.give(part);
    assert!(matches!(ends.apply(actions), NodeFrame::Ack { .. }));
    let held = ends.subscriber.held();
    let z = held.set.get(&ResourceKey::global(Kind::Group, "z")).unwrap();
    assert!(matches!(&z.spec, Spec::Unreadable(why) if why.contains("apiVersion")), "{:?}", z.spec);
    assert_eq!(held.set.digest(), after.digest());
}

#[test]
fn parts_are_bounded_and_in_order() {
    let check = |change: &dyn Fn(&mut UpdatePart)| {
        let (mut ends, actions) = ends(view(5, &["a"]), Held::default());
        let mut part = ends.parts(plan(actions)).remove(0);
        change(&mut part);
        let actions = ends.give(part);
        assert!(matches!(actions[..], [subscriber::Action::Close(_)]), "{actions:?}");
    };
    check(&|p| p.part = 1);
    check(&|p| p.head.parts = u32::try_from(bounds::SYNC_PARTS_MAX).unwrap() + 1);
    check(&|p| p.upserts[0].1 = vec![b' '; bounds::RESOURCE_BYTES_MAX + 1].into());
}

#[test]
fn a_node_that_never_manages_is_given_up() {
    let (mut ends, _) = ends(view(5, &["a"]), Held::default());
    let mut closed = false;
    for _ in 0..5 {
        let resync = NodeFrame::Resync { nonce: 0, message: "no".to_owned() };
        let actions = ends.publisher.on_message(resync, at(0));
        closed |= actions.iter().any(|a| matches!(a, publisher::Action::Close(_)));
    }
    assert!(closed);
}
