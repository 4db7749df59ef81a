//! Configuration on its way: a real control plane and real proxies' ends, over mutual TLS on
//! loopback and through the in-memory pipe.

mod bench;

use std::time::{Duration, Instant};

use bench::{Node, Plane, Shared, eventually, group, offer};
use data_plane::config::{ConfigError, Endpoint};
use weir_model::id::Name;
use weir_model::resource::{Kind, Policy, Resource, ResourceKey, Spec};

use crate::way::Way;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_proxy_joins_gets_everything_and_then_what_changes() {
    let shared = Shared::new().await;
    let plane = Plane::start(&shared, "cp-1").await;
    plane.apply(&group("acme", "one")).await;
    let node = Node::join(&plane, "eu", "n1", vec![plane.tcp()]).await;
    node.has("acme", "one").await;
    let applied = plane.apply(&group("acme", "two")).await;
    node.has("acme", "two").await;
    assert_eq!(node.state().current().revision, applied);
    plane.knows("n1", applied, &[]).await;
    plane.delete("Group/acme").await;
    eventually("the group is gone", async || node.state().current().groups.is_empty()).await;
}

#[tokio::test]
async fn the_pipe_carries_the_same_with_secrets() {
    let shared = Shared::new().await;
    let plane = Plane::start(&shared, "cp-1").await;
    plane.apply(&group("acme", "one")).await;
    let node = Node::join(&plane, "eu", "n1", vec![plane.pipe()]).await;
    node.has("acme", "one").await;
    plane
        .apply(
            "apiVersion: weir/v1\nkind: Credential\nmetadata: {name: key, group: acme}\n\
             spec: {header: {name: X-Key, value: s3cr3t}}\n",
        )
        .await;
    let holds = |state: &data_plane::config::State| {
        let snapshot = state.current();
        snapshot.secrets.values().any(|secret| secret.expose() == b"s3cr3t")
    };
    eventually("the secret is there", async || holds(node.state())).await;
    let node = node.restart(vec![Endpoint::Tcp("127.0.0.1:9".to_owned())]).await;
    assert!(holds(node.state()), "opened again from disk");
    let disk = std::fs::read(node.folder().join("checkpoint")).unwrap();
    assert!(!disk.windows(6).any(|w| w == b"s3cr3t"), "sealed on disk");
}

#[tokio::test]
async fn what_a_proxy_cannot_use_it_names_and_quarantines() {
    let shared = Shared::new().await;
    let plane = Plane::start(&shared, "cp-1").await;
    plane.apply(&group("acme", "one")).await;
    plane.apply(&group("other", "one")).await;
    let node = Node::join(&plane, "eu", "n1", vec![plane.tcp()]).await;
    node.has("acme", "one").await;
    // Past admission, as a newer release might.
    let key = ResourceKey::grouped(Kind::Policy, &name("acme"), "odd");
    let spec = Spec::Policy(Policy { cedar: "permit (principal, nonsense".to_owned() });
    let revision = plane.commit(&Resource::new(key, spec).unwrap()).await;
    plane.knows("n1", revision, &["Policy/acme/odd"]).await;
    let snapshot = node.state().current();
    assert!(snapshot.groups["acme"].quarantined.is_some());
    assert!(snapshot.groups["other"].quarantined.is_none(), "the rest is in force");
    let mended = plane.delete("Policy/acme/odd").await;
    plane.knows("n1", mended, &[]).await;
    assert!(node.state().current().groups["acme"].quarantined.is_none());
}

#[tokio::test]
async fn a_proxy_outlives_its_control_plane_and_follows_the_next() {
    let shared = Shared::new().await;
    let plane = Plane::start(&shared, "cp-1").await;
    plane.apply(&group("acme", "one")).await;
    let node = Node::join(&plane, "eu", "n1", vec![plane.tcp()]).await;
    node.has("acme", "one").await;
    let address = plane.address();
    plane.stop().await;
    assert_eq!(node.state().current().groups.len(), 1, "what is in force stays");

    let node = node.restart(vec![Endpoint::Tcp(address.to_string())]).await;
    assert_eq!(node.state().current().groups.len(), 1, "it serves from disk");

    let plane = Plane::start_at(&shared, "cp-2", Some(address)).await;
    let applied = plane.apply(&group("acme", "two")).await;
    node.has("acme", "two").await;
    plane.knows("n1", applied, &[]).await;
}

#[tokio::test]
async fn a_damaged_checkpoint_is_set_aside_and_replaced() {
    let shared = Shared::new().await;
    let plane = Plane::start(&shared, "cp-1").await;
    plane.apply(&group("acme", "one")).await;
    let node = Node::join(&plane, "eu", "n1", vec![plane.tcp()]).await;
    node.has("acme", "one").await;
    let path = node.folder().join("checkpoint");
    let kept = async || std::fs::read(&path).is_ok_and(|all| all.windows(3).any(|w| w == b"one"));
    eventually("the configuration is kept", kept).await;
    let folder = node.stop().await;
    let path = folder.path().join("checkpoint");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(3).rposition(|w| w == b"one").unwrap();
    bytes[at] = b'0';
    std::fs::write(&path, bytes).unwrap();

    let node = Node::open(folder, vec![Endpoint::Tcp("127.0.0.1:9".to_owned())]).await;
    assert!(node.state().current().groups.is_empty(), "what was not signed is not served");
    assert!(node.folder().join("checkpoint.broken").exists());
    let node = node.restart(vec![plane.tcp()]).await;
    node.has("acme", "one").await;
}

#[tokio::test]
async fn tokens_are_good_once_and_for_a_while() {
    let shared = Shared::new().await;
    let plane = Plane::start(&shared, "cp-1").await;
    let token = plane.token("eu").await;
    let node = Node::join_with(&token, "n1", vec![plane.tcp()]).await.unwrap();
    let again = Node::join_with(&token, "n2", vec![plane.tcp()]).await;
    assert!(matches!(again, Err(ConfigError::Refused(_))), "{again:?}");
    let bad = Node::join_with("weir_en_x", "n2", vec![plane.tcp()]).await;
    assert!(matches!(bad, Err(ConfigError::BadToken)), "{bad:?}");
    let mut forged = token.clone();
    forged.replace_range(12..13, if &token[12..13] == "0" { "1" } else { "0" });
    let forged = Node::join_with(&forged, "n2", vec![plane.tcp()]).await;
    assert!(matches!(forged, Err(ConfigError::Refused(_))), "{forged:?}");

    let late = plane.late_token("eu").await;
    let late = Node::join_with(&late, "n2", vec![plane.tcp()]).await;
    assert!(matches!(late, Err(ConfigError::Refused(_))), "{late:?}");

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(node.folder().join("identity.json")), 0o600);
    }
    let text = std::fs::read_to_string(node.folder().join("identity.json")).unwrap();
    let node = node.restart(vec![plane.tcp()]).await;
    let kept = std::fs::read_to_string(node.folder().join("identity.json")).unwrap();
    assert_eq!(text, kept, "it enrols once");
}

/// However soon the end comes after a configuration is in force.
#[tokio::test]
async fn what_was_in_force_at_the_end_is_so_at_the_next_start() {
    let shared = Shared::new().await;
    let plane = Plane::start(&shared, "cp-1").await;
    plane.apply(&group("acme", "v0")).await;
    let mut node = Node::join(&plane, "eu", "n1", vec![plane.tcp()]).await;
    node.has("acme", "v0").await;
    let nobody = || Endpoint::Tcp("127.0.0.1:9".to_owned());
    for round in 1..=8 {
        node = node.restart(vec![plane.tcp()]).await;
        let display = Some(format!("v{round}"));
        plane.apply(&group("acme", &format!("v{round}"))).await;
        // Looks without letting others run: the end comes before the proxy has noted what it did.
        let seen = async || {
            let until = Instant::now() + Duration::from_millis(2);
            while Instant::now() < until && node.display("acme") != display {
                std::hint::spin_loop();
            }
            node.display("acme") == display
        };
        let begun = Instant::now();
        while !seen().await {
            assert!(begun.elapsed() < Duration::from_secs(30), "{round} is never in force");
            tokio::task::yield_now().await;
        }
        node = node.restart(vec![nobody()]).await;
        assert_eq!(node.display("acme"), display);
    }
}

#[tokio::test]
async fn strangers_are_not_followed() {
    let (ours, theirs) = (Shared::new().await, Shared::new().await);
    let plane = Plane::start(&ours, "cp-1").await;
    let stranger = Plane::start(&theirs, "evil").await;
    plane.apply(&group("acme", "one")).await;
    stranger.apply(&group("acme", "evil")).await;

    // Whoever answers at the address, the token says who it must be.
    let token = plane.token("eu").await;
    let joined =
        Node::join_within(&token, "n1", vec![stranger.tcp()], Duration::from_secs(1)).await;
    assert!(matches!(joined, Err(ConfigError::Draining(_))), "{joined:?}");
    let mixed = vec![stranger.tcp(), plane.tcp()];
    let node = Node::join_with(&token, "n1", mixed).await.unwrap();
    node.has("acme", "one").await;

    let way = Way::to(&stranger.address().to_string(), Duration::ZERO).await;
    let node = node.restart(vec![Endpoint::Tcp(way.address.to_string())]).await;
    eventually("the node has tried again and again", async || way.taken() >= 6).await;
    assert_eq!(node.display("acme"), Some("one".to_owned()));
    assert!(stranger.nodes().await.is_empty());
}

#[tokio::test]
async fn a_certificate_is_renewed_when_its_time_has_come() {
    let shared = Shared::new().await;
    let plane = Plane::start(&shared, "cp-1").await;
    plane.apply(&group("acme", "one")).await;
    let node = Node::join(&plane, "eu", "n1", vec![plane.tcp()]).await;
    node.has("acme", "one").await;
    let path = node.folder().join("identity.json");
    let before = std::fs::read_to_string(&path).unwrap();
    let node = node.restart_later(vec![plane.tcp()], Duration::from_secs(17 * 3600)).await;
    let renewed = async || std::fs::read_to_string(&path).unwrap() != before;
    eventually("the certificate is renewed", renewed).await;
    let node = node.restart(vec![plane.tcp()]).await;
    let applied = plane.apply(&group("acme", "two")).await;
    plane.knows("n1", applied, &[]).await;
    node.has("acme", "two").await;
}

#[tokio::test]
async fn two_replicas_serve_two_proxies_and_stand_in_for_each_other() {
    let shared = Shared::new().await;
    let (one, two) = (Plane::start(&shared, "cp-1").await, Plane::start(&shared, "cp-2").await);
    one.apply(&group("acme", "one")).await;
    let eu = Node::join(&one, "eu", "n1", vec![one.tcp(), two.tcp()]).await;
    let us = Node::join(&two, "us", "n2", vec![two.tcp()]).await;
    eu.has("acme", "one").await;
    us.has("acme", "one").await;
    let applied = two.apply(&group("acme", "two")).await;
    eu.has("acme", "two").await;
    us.has("acme", "two").await;
    for plane in [&one, &two] {
        plane.knows("n1", applied, &[]).await;
        plane.knows("n2", applied, &[]).await;
    }
    // Only what its region needs.
    one.apply("apiVersion: weir/v1\nkind: Region\nmetadata: {name: us}\nspec: {}\n").await;
    let here = "apiVersion: weir/v1\nkind: Group\nmetadata: {name: here}\nspec: {regions: [us]}\n";
    let applied = one.apply(here).await;
    two.knows("n1", applied, &[]).await;
    two.knows("n2", applied, &[]).await;
    let groups = |node: &Node| node.state().current().groups.len();
    assert_eq!((groups(&eu), groups(&us)), (1, 2));

    one.stop().await;
    two.apply(&group("acme", "three")).await;
    eu.has("acme", "three").await;
}

#[tokio::test]
async fn what_a_proxy_sees_is_pinned_and_comes_back_to_all() {
    let shared = Shared::new().await;
    let plane = Plane::start(&shared, "cp-1").await;
    plane.apply(&group("acme", "one")).await;
    plane
        .apply(
            "apiVersion: weir/v1\nkind: Server\nmetadata: {name: billing, group: acme}\nspec:\n  \
             versions: [{name: v1, upstream: {http: {url: 'https://billing.example/mcp'}}}]\n",
        )
        .await;
    let first = Node::join(&plane, "eu", "n1", vec![plane.tcp()]).await;
    let second = Node::join(&plane, "us", "n2", vec![plane.pipe()]).await;
    let tools = |node: &Node| {
        let snapshot = node.state().current();
        let server = snapshot.groups.get("acme")?.servers.get("billing")?.clone();
        Some(server.versions[0].catalog.as_ref()?.tools.len())
    };
    eventually("the server is there", async || {
        first.state().current().groups.get("acme").is_some_and(|g| g.servers.len() == 1)
    })
    .await;
    // Larger than a message, so that it travels in parts.
    first.report(offer("acme", "billing", "v1", 25, 200_000)).await;
    first.report(offer("acme", "billing", "v1", 30, 200_000)).await;
    second.report(offer("acme", "billing", "v1", 30, 200_000)).await;
    for node in [&first, &second] {
        eventually("the tools are pinned", async || tools(node).is_some_and(|t| t >= 25)).await;
    }
    plane.sees("n1", "acme/billing@v1").await;

    // What is seen while nobody listens is told later.
    let address = plane.address();
    plane.stop().await;
    first.report(offer("acme", "billing", "v1", 30, 100)).await;
    let plane = Plane::start_at(&shared, "cp-2", Some(address)).await;
    eventually("the change waits", async || plane.waiting("Catalog/acme/billing.v1") == 30).await;
}
