//! What one edit among many tools costs on its way: the control plane's difference and signature,
//! the bytes of the update, the proxy's check and compilation.
//!
//! `cargo bench -p weir-model --bench apply -- 100000 [GROUPS]` prints medians over 200 edits.

#![allow(clippy::print_stdout)] // Its figures are its output.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;
use weir_model::id::{Name, Revision};
use weir_model::resource::{Kind, Resource, ResourceKey, ResourceSet, Spec};
use weir_model::seal::NodeKey;
use weir_model::snapshot::{Secrets, Snapshot};
use weir_model::sync::delta::Heading;
use weir_model::sync::publisher::{Plan, View};
use weir_model::sync::statement::{Anchor, Signer};
use weir_model::sync::subscriber::{Action, Node, Subscriber};
use weir_model::sync::{Assembled, Held, Now, PlaneFrame, Timing, UpdatePart, secrets_of};
use weir_model::testing::World;
use weir_model::wire;

const TOOLS_PER_SERVER: usize = 10;
const EDITS: usize = 200;

fn world(tools: usize, groups: usize) -> ResourceSet {
    let mut world = World::new();
    for group in 0..groups {
        let group = format!("unit-{group}");
        world = world.group(&group).account(&group, "ci").allow(&group, "ci", "*", "*");
    }
    for server in 0..tools / TOOLS_PER_SERVER {
        let (group, name) = (format!("unit-{}", server % groups), format!("server-{server}"));
        world = world.server(&group, &name, "https://server.internal.example/mcp");
        for tool in 0..TOOLS_PER_SERVER {
            let text = format!("Does the thing number {tool} of server {server}, at some length. ");
            let definition = json!({
                "name": format!("tool_{tool}"), "description": text.repeat(3),
                "inputSchema": {"type": "object", "required": ["customer"], "properties": {
                    "customer": {"type": "string", "description": format!("{server}/{tool}")},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                    "verbose": {"type": "boolean"}}}
            });
            world = world.tool_of(&group, &name, &definition);
        }
    }
    world.set()
}

/// The server after an edit of one field.
fn edited(set: &ResourceSet, server: usize, groups: usize, edit: usize) -> Arc<Resource> {
    let group: Name = format!("unit-{}", server % groups).parse().expect("is a name");
    let key = ResourceKey::grouped(Kind::Server, &group, format!("server-{server}"));
    let mut spec = set.get(&key).expect("is there").spec.clone();
    if let Spec::Server(server) = &mut spec {
        server.versions[0].timeout_ms = Some(10_000 + edit as u64);
    }
    Arc::new(Resource::new(key, spec).expect("is a server"))
}

struct Times(Vec<(&'static str, Vec<Duration>)>);

impl Times {
    fn of<T>(&mut self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.add(what, started.elapsed());
        result
    }

    fn add(&mut self, what: &'static str, took: Duration) {
        match self.0.iter_mut().find(|(known, _)| *known == what) {
            Some((_, times)) => times.push(took),
            None => self.0.push((what, vec![took])),
        }
    }

    fn print(&mut self) {
        for (what, times) in &mut self.0 {
            times.sort_unstable();
            let at = |share: usize| times[(times.len() - 1) * share / 100];
            println!("{what}: p50 {:?}, p99 {:?}", at(50), at(99));
        }
    }
}

fn assembled(node: &mut Subscriber, frames: Vec<PlaneFrame>, now: Now) -> Assembled {
    let mut actions = Vec::new();
    for frame in frames {
        actions.extend(node.on_message(frame, now));
    }
    match actions.pop() {
        Some(Action::Apply(assembled)) => *assembled,
        other => panic!("no update: {other:?}"),
    }
}

fn main() {
    let mut numbers = std::env::args().filter_map(|a| a.parse::<usize>().ok());
    let (tools, groups) = (numbers.next().unwrap_or(10_000), numbers.next().unwrap_or(10));
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("makes a key");
    let anchor = Anchor(key.public_key().as_ref().to_vec().into());
    let endorse = |b: &[u8]| key.sign(&SystemRandom::new(), b).map(|s| s.as_ref().to_vec());
    let signer = Signer::new(2_000, endorse).expect("makes a key");
    let region: Name = "eu".parse().expect("is a name");
    let now = Now { mono: Duration::ZERO, unix: 1_000 };
    let mut set = world(tools, groups);
    println!("{} documents, {} bytes, {groups} groups", set.len(), set.bytes());
    let mut view = Arc::new(View::new(Revision(1), set.clone()));
    let statement = Some(signer.sign(&region, view.applied));
    // It has every secret already; what is in them is not looked at here.
    let sealed = secrets_of(&set).map(|id| (id.to_owned(), Default::default())).collect();
    let held = Held { applied: view.applied, set: set.clone(), sealed, statement };
    let started = Instant::now();
    let mut snapshot = Snapshot::compile(Revision(1), &set, Secrets::new(), None);
    println!("compile from nothing: {:?}", started.elapsed());
    let who = Node {
        node: "n".parse().expect("is a name"),
        region: region.clone(),
        build: String::new(),
        sealing_key: NodeKey::generate().public(),
    };
    let mut node = Subscriber::new(Timing::default(), who, held, Vec::new(), 1);
    node.on_tick(now);
    node.on_connected(now);
    let (mut times, mut bytes) = (Times(Vec::new()), 0);
    for edit in 1..=EDITS {
        let server = edit * 7919 % (tools / TOOLS_PER_SERVER);
        let document = edited(&set, server, groups, edit);
        let revision = Revision(edit as u64 + 1);
        let next = times.of("control plane: set and digest", || {
            set.insert(document);
            Arc::new(View::new(revision, set.for_region(&region)))
        });
        let heading = Heading {
            nonce: edit as u64,
            target: next.applied,
            base: Some(view.applied),
            rollback: false,
        };
        let plan = Plan { heading, from: Some(Arc::clone(&view)), to: Arc::clone(&next) };
        let delta = times.of("control plane: difference, for all nodes", || Arc::new(plan.delta()));
        let statement = times
            .of("control plane: signature, for all nodes", || signer.sign(&region, next.applied));
        let frames: Vec<_> = times.of("control plane: messages, for each node", || {
            let mut parts = plan.into_parts(delta, statement, Vec::new());
            std::iter::from_fn(|| parts.frame()).collect()
        });
        let size = |frame: &PlaneFrame| match frame {
            PlaneFrame::Update(part) => wire::encode_update(UpdatePart::clone(part)).len(),
            _ => 0,
        };
        bytes += frames.iter().map(size).sum::<usize>();
        let update = assembled(&mut node, frames, now);
        let nonce = update.nonce();
        let applying = Instant::now();
        let held = times.of("proxy: check", || update.resolve(&anchor, &region, now));
        let held = held.expect("is what was signed");
        let compiled = times.of("proxy: compile", || {
            Snapshot::compile(revision, &held.set, Secrets::new(), Some(&snapshot))
        });
        let dropped = std::mem::replace(&mut snapshot, compiled);
        times.of("proxy: let go of the one before", || drop(dropped));
        times.add("proxy: all of it", applying.elapsed());
        node.on_applied(nonce, Ok((held, Vec::new())));
        view = next;
    }
    times.print();
    println!("update on the wire, before TLS: {} bytes", bytes / EDITS);
}
