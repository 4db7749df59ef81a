use weir_runtime::clock::ManualClock;
use weir_runtime::testing::eventually;

use super::*;
use crate::store::embedded::{Embedded, History};

fn id(node: &str) -> NodeId {
    NodeId { region: "eu".parse().unwrap(), node: node.parse().unwrap() }
}

fn presence(node: &str) -> Presence {
    Presence { id: id(node), build: "1".to_owned(), schema: 1 }
}

fn applied(revision: u64) -> Applied {
    Applied { revision: Revision(revision), digest: Digest::of(&revision.to_be_bytes()) }
}

fn fleets() -> (Fleet, Fleet, ManualClock) {
    let clock = ManualClock::at_ms(1_800_000_000_000);
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
    let fleet = |name: &str| Fleet::new(store.clone(), name.to_owned(), Arc::new(clock.clone()));
    (fleet("cp-1"), fleet("cp-2"), clock)
}

#[tokio::test]
async fn any_replica_tells_of_all_nodes() {
    let (one, two, clock) = fleets();
    let a = one.connected(presence("a"));
    let b = two.connected(presence("b"));
    a.status(applied(3), &[]);
    let refused = [Refused { key: "Policy/g/p".to_owned(), message: "no".to_owned() }];
    b.status(applied(4), &refused);
    one.write().await;
    two.write().await;
    for fleet in [&one, &two] {
        let nodes = fleet.list().await.unwrap();
        let told: Vec<_> =
            nodes.iter().map(|n| (n.node.as_str(), n.revision.0, n.connected)).collect();
        assert_eq!(told, [("a", 3, true), ("b", 4, true)]);
        assert_eq!(nodes[1].refused, refused);
        assert_eq!(nodes[1].replica, "cp-2");
    }
    // The replica of b dies without a word.
    clock.advance(Duration::from_secs(SILENT_SECS as u64 + 1));
    a.status(applied(3), &[]);
    let nodes = one.list().await.unwrap();
    assert_eq!(nodes.iter().map(|n| n.connected).collect::<Vec<_>>(), [true, false]);
    clock.advance(Duration::from_secs(bounds::FLEET_FORGET_SECS as u64));
    one.forget().await.unwrap();
    assert_eq!(one.list().await.unwrap().len(), 1, "b is forgotten");
}

#[tokio::test]
async fn a_node_that_moved_is_not_reported_gone() {
    let (one, two, _) = fleets();
    let before = one.connected(presence("a"));
    one.write().await;
    let after = two.connected(presence("a"));
    after.status(applied(5), &[]);
    two.write().await;
    drop(before);
    one.write().await;
    let nodes = one.list().await.unwrap();
    assert_eq!((nodes.len(), nodes[0].connected, nodes[0].revision.0), (1, true, 5));
    drop(after);
    two.write().await;
    assert!(!one.list().await.unwrap()[0].connected);
}

#[tokio::test]
async fn a_node_that_leaves_while_it_is_written_is_told_as_gone() {
    let (one, two, _) = fleets();
    let held = one.connected(presence("a"));
    let due = [(id("a"), one.list().await.unwrap().remove(0))];
    let known = one.known(&due).await.unwrap();
    drop(held);
    one.write_some(&due, &known).await;
    one.write().await;
    for fleet in [one, two] {
        assert!(!fleet.list().await.unwrap()[0].connected);
    }
}

#[tokio::test]
async fn a_second_stream_replaces_the_first() {
    let (one, _, _) = fleets();
    let first = one.connected(presence("a"));
    let second = one.connected(presence("a"));
    second.status(applied(2), &[]);
    first.status(applied(1), &[]);
    drop(first);
    let nodes = one.list().await.unwrap();
    assert_eq!((nodes[0].revision.0, nodes[0].connected), (2, true));
}

#[tokio::test]
async fn what_did_not_change_is_written_at_a_low_rate() {
    let (one, _, clock) = fleets();
    let a = one.connected(presence("a"));
    let revision = async |fleet: &Fleet| {
        fleet.shared.store.list(PATH).await.unwrap().entries.first().map(|e| e.revision)
    };
    one.write().await;
    let first = revision(&one).await;
    a.status(Applied::default(), &[]);
    one.write().await;
    assert_eq!(revision(&one).await, first);
    clock.advance(Duration::from_secs(bounds::FLEET_WRITE_SECS));
    a.status(Applied::default(), &[]);
    one.write().await;
    assert_ne!(revision(&one).await, first);
}

#[tokio::test]
async fn health_is_kept_per_server_version() {
    let (one, _, clock) = fleets();
    let server = UpstreamKey {
        group: "g".parse().unwrap(),
        server: "s".parse().unwrap(),
        version: "v1".parse().unwrap(),
    };
    let _a = one.connected(presence("a"));
    one.health(&id("a"), &server, (false, Some("refused".to_owned())));
    clock.advance(Duration::from_secs(5));
    one.health(&id("a"), &server, (false, Some("refused".to_owned())));
    one.health(&id("unknown"), &server, (true, None));
    let metrics = weir_runtime::metrics::Metrics::new();
    metrics.collector(FleetMetrics(one.clone()));
    assert!(metrics.render().contains("weir_nodes_connected 1\n"));
    let told = one.list().await.unwrap()[0].servers["g/s@v1"].clone();
    let down = Health { up: false, message: Some("refused".to_owned()), since: 1_800_000_000 };
    assert_eq!(told, down);
    one.health(&id("a"), &server, (true, None));
    assert!(one.list().await.unwrap()[0].servers["g/s@v1"].up);
}

#[tokio::test]
async fn the_end_says_goodbye() {
    let (one, two, _) = fleets();
    let (drain, watch) = weir_runtime::drain::new(Duration::from_secs(5));
    let task = tokio::spawn(one.clone().run(watch));
    let _a = one.connected(presence("a"));
    let seen = eventually(Duration::from_secs(5), async || {
        two.list().await.unwrap().first().is_some_and(|n| n.connected)
    });
    assert!(seen.await);
    drain.start();
    task.await.unwrap();
    assert!(!two.list().await.unwrap()[0].connected);
}

#[tokio::test]
async fn many_nodes_are_written_in_few_transactions() {
    let (one, two, _) = fleets();
    let all: Vec<_> = (0..250).map(|at| one.connected(presence(&format!("n{at}")))).collect();
    assert_eq!(one.write().await, 250);
    let newest = async || one.shared.store.list(PATH).await.unwrap().revision.0;
    let before = newest().await;
    all.iter().for_each(|node| node.status(applied(7), &[]));
    assert_eq!(one.write().await, 250);
    assert!(newest().await - before <= 4, "{} transactions", newest().await - before);
    assert_eq!(one.write().await, 0, "all of it is written");
    let told = two.list().await.unwrap();
    assert_eq!(told.iter().filter(|n| n.revision.0 == 7 && n.connected).count(), 250);
}

#[tokio::test]
async fn one_record_that_another_replica_changed_holds_up_no_other() {
    let (one, two, _) = fleets();
    let mut ours: Vec<_> = (0..6).map(|at| one.connected(presence(&format!("n{at}")))).collect();
    one.write().await;
    // Between reading and writing, a node turns up at the other replica.
    let due: Vec<_> = {
        let nodes = one.shared.nodes.lock();
        nodes.iter().map(|(id, local)| (id.clone(), local.node.clone())).collect()
    };
    let known = one.known(&due).await.unwrap();
    let moved = two.connected(presence("n3"));
    moved.status(applied(9), &[]);
    two.write().await;
    ours.iter().for_each(|node| node.status(applied(8), &[]));
    drop(ours.remove(3));
    let due: Vec<_> = {
        let nodes = one.shared.nodes.lock();
        nodes.iter().map(|(id, local)| (id.clone(), local.node.clone())).collect()
    };
    one.write_some(&due, &known).await;
    let told = two.list().await.unwrap();
    let at = |revision| told.iter().filter(|n| n.revision == Revision(revision)).count();
    assert_eq!((at(8), at(9)), (5, 1), "{told:?}");
}

#[tokio::test]
async fn what_nodes_see_is_told_by_every_replica() {
    let (one, two, _) = fleets();
    let server = UpstreamKey {
        group: "g".parse().unwrap(),
        server: "s".parse().unwrap(),
        version: "v1".parse().unwrap(),
    };
    let node = one.connected(presence("a"));
    one.health(&id("a"), &server, (false, Some("refused".to_owned())));
    one.write().await;
    assert!(!two.list().await.unwrap()[0].servers["g/s@v1"].up);
    // A change of what it runs leaves that alone.
    node.status(applied(3), &[]);
    one.write().await;
    let told = &two.list().await.unwrap()[0];
    assert_eq!((told.revision.0, told.servers.len()), (3, 1));
}
