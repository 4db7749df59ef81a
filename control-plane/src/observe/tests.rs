use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use weir_model::id::Name;
use weir_model::observation::{Observation, Offer, Offered, Seen};
use weir_model::resource::{DefinitionKind, ObservedEra, ResourceKey, Spec, parse_documents};
use weir_model::sync::identity::NodeId;

use super::intake::Intake;
use super::{ObserveError, Observer, Version};
use crate::admit::Proposal;
use crate::author::{Author, Mode};
use crate::fleet::{Fleet, Presence};
use crate::index::Index;
use crate::store::Store;
use crate::store::embedded::{Embedded, History};
use crate::vault::{LocalKeys, Vault};

struct World {
    index: Index,
    author: Author,
    observer: Observer,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn world(pin: &str) -> World {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
    let index = Index::start(Arc::clone(&store), CancellationToken::new()).await.unwrap();
    let keys = LocalKeys::parse(LocalKeys::generate().unwrap().expose()).unwrap();
    let author = Author::new(Arc::clone(&store), Vault::new(Arc::new(keys)), index.newest());
    let text = format!(
        "apiVersion: weir/v1\nkind: Group\nmetadata: {{name: acme}}\nspec: {{pin: {pin}}}\n---\n\
         apiVersion: weir/v1\nkind: Server\nmetadata: {{name: billing, group: acme}}\n\
         spec: {{versions: [{{name: v1, upstream: {{http: {{url: 'https://billing.example/mcp'}}}}}}]}}\n"
    );
    let documents = parse_documents(&text, &mut || "none".to_owned()).unwrap();
    let proposal = Proposal { documents, ..Proposal::default() };
    author.change(proposal, None, Mode::Commit).await.unwrap();
    let observer = Observer::new(store, author.clone());
    World { index, author, observer }
}

fn offer(tools: usize, text: &str) -> Offer {
    let definitions = (0..tools).map(|at| Offered {
        kind: DefinitionKind::Tool,
        name: format!("tool_{at}"),
        json: json!({"name": format!("tool_{at}"), "description": text,
            "inputSchema": {"type": "object"}})
        .to_string(),
    });
    Offer {
        era: ObservedEra::Legacy,
        revision: "2025-11-25".to_owned(),
        server_info: json!({"name": "billing"}),
        capabilities: json!({"tools": {}}),
        instructions: None,
        definitions: definitions.collect(),
    }
}

impl World {
    fn catalog(&self) -> (usize, usize) {
        let newest = self.index.newest();
        let set = &newest.borrow().set;
        let key = ResourceKey::parse("Catalog/acme/billing.v1").unwrap();
        match set.get(&key).map(|resource| resource.spec.clone()) {
            Some(Spec::Catalog(catalog)) => (catalog.entries.len(), catalog.waiting.len()),
            _ => (0, 0),
        }
    }
}

/// Names the version that all of these tests are about.
struct Billing(Name, Name, Name);

impl Billing {
    fn new() -> Self {
        Self(name("acme"), name("billing"), name("v1"))
    }
    fn version(&self) -> Version<'_> {
        Version { group: &self.0, server: &self.1, version: &self.2 }
    }
}

#[tokio::test]
async fn the_same_offer_from_several_proxies_is_one_write() {
    let world = world("first").await;
    let first = world.observer.offer(Billing::new().version(), offer(3, "x")).await.unwrap();
    assert!(first.changed);
    assert_eq!(world.catalog(), (3, 0));
    for _ in 0..3 {
        let again = world.observer.offer(Billing::new().version(), offer(3, "x")).await.unwrap();
        assert_eq!((again.changed, again.revision), (false, first.revision));
    }
}

#[tokio::test]
async fn a_changed_offer_waits_until_it_is_pinned() {
    let world = world("first").await;
    world.observer.offer(Billing::new().version(), offer(2, "x")).await.unwrap();
    let changed = world.observer.offer(Billing::new().version(), offer(2, "y")).await.unwrap();
    assert_eq!((changed.waiting, world.catalog()), (2, (2, 2)));
    let pinned = world.observer.pin(Billing::new().version()).await.unwrap();
    assert_eq!((pinned.waiting, world.catalog()), (0, (2, 0)));
    world.author.sweep(None).await.unwrap();
    let definitions = world.index.newest().borrow().set.iter().count();
    assert_eq!(definitions, 2 + 1 + 2, "group and server, catalog, the pinned definitions");
}

#[tokio::test]
async fn an_offer_too_large_for_one_transaction_is_written_in_parts() {
    let world = world("first").await;
    world.observer.offer(Billing::new().version(), offer(300, "x")).await.unwrap();
    assert_eq!(world.catalog(), (300, 0));
}

#[tokio::test]
async fn two_replicas_agree_on_one_catalog() {
    let world = world("always").await;
    let other = Observer::new(Arc::clone(&world.observer.store), world.author.clone());
    let billing = Billing::new();
    let (a, b) = tokio::join!(
        world.observer.offer(billing.version(), offer(5, "x")),
        other.offer(billing.version(), offer(5, "x"))
    );
    let changed = [a.unwrap().changed, b.unwrap().changed];
    assert_eq!(changed.iter().filter(|changed| **changed).count(), 1);
    assert_eq!(world.catalog(), (5, 0));
}

#[tokio::test]
async fn what_is_not_registered_has_no_catalog() {
    let world = world("ask").await;
    let (group, server, version) = (name("acme"), name("gone"), name("v1"));
    let gone = Version { group: &group, server: &server, version: &version };
    let refused = world.observer.offer(gone, offer(1, "x")).await;
    assert!(matches!(refused, Err(ObserveError::Unknown(..))), "{refused:?}");
    let refused = world.observer.pin(Billing::new().version()).await;
    assert!(matches!(refused, Err(ObserveError::Unobserved(_))), "{refused:?}");
}

async fn see(intake: &Intake, region: &str, seen: Seen) {
    let node = NodeId { region: name(region), node: name("n1") };
    let Billing(group, server, version) = Billing::new();
    let (tell, done) = tokio::sync::oneshot::channel();
    let observation = Observation { group, server, version, seen };
    assert!(intake.take(node, observation, move || tell.send(()).unwrap()));
    tokio::time::timeout(Duration::from_secs(10), done).await.unwrap().unwrap();
}

#[tokio::test]
async fn reports_of_nodes_become_catalogs_and_health() {
    let world = world("first").await;
    let clock = weir_runtime::clock::SystemClock::shared();
    let fleet = Fleet::new(Arc::clone(&world.observer.store), "cp".to_owned(), clock);
    let id = NodeId { region: name("eu"), node: name("n1") };
    let _connected = fleet.connected(Presence { id, build: String::new(), schema: 1 });
    let (intake, work) = Intake::new(world.observer.clone(), fleet.clone());
    let worker = tokio::spawn(work);
    let health = async || fleet.list().await.unwrap()[0].servers["acme/billing@v1"].clone();

    see(&intake, "eu", Seen::Down("refused".to_owned())).await;
    assert!(!health().await.up);
    let mut mixed = offer(2, "x");
    mixed.definitions[0].json = "no JSON".to_owned();
    see(&intake, "eu", Seen::Offer(mixed)).await;
    assert_eq!(world.catalog(), (1, 0));
    let told = health().await;
    assert!(told.up && told.message.unwrap().starts_with("1 definitions are left out"));
    see(&intake, "eu", Seen::Up).await;
    assert_eq!(health().await.message, None);

    drop(intake);
    tokio::time::timeout(Duration::from_secs(10), worker).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_region_has_no_say_in_groups_of_another() {
    let world = world("first").await;
    let text = "apiVersion: weir/v1\nkind: Group\nmetadata: {name: acme}\nspec: {regions: [us]}\n\
                ---\napiVersion: weir/v1\nkind: Region\nmetadata: {name: us}\nspec: {}\n";
    let documents = parse_documents(text, &mut || "none".to_owned()).unwrap();
    let proposal = Proposal { documents, ..Proposal::default() };
    world.author.change(proposal, None, Mode::Commit).await.unwrap();
    let clock = weir_runtime::clock::SystemClock::shared();
    let fleet = Fleet::new(Arc::clone(&world.observer.store), "cp".to_owned(), clock);
    let (intake, work) = Intake::new(world.observer.clone(), fleet);
    tokio::spawn(work);
    see(&intake, "eu", Seen::Offer(offer(1, "x"))).await;
    assert_eq!(world.catalog(), (0, 0));
    see(&intake, "us", Seen::Offer(offer(1, "x"))).await;
    assert_eq!(world.catalog(), (1, 0));
}
