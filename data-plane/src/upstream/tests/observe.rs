//! What the observer reports of servers, and how often it asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;
use weir_model::observation::{Observation, Seen};
use weir_model::resource::{DefinitionKind, ObservedEra, Upstream};
use weir_model::snapshot::Snapshot;
use weir_model::testing::World;
use weir_runtime::drain::Watch;

use super::super::observe::{Observer, Pace};
use super::super::testing;
use super::fake::{Asked, Fake, Reply, event};
use super::*;
use crate::config::State;

/// Observes one server; with a tool it counts as pinned.
fn observed(
    upstream: Upstream,
    pinned: bool,
    pace: Pace,
) -> (mpsc::Receiver<Observation>, Arc<State>) {
    let state = Arc::new(State::default());
    let world = World::new().group("dev").server_at("dev", "demo", upstream);
    let world = if pinned { world.tool("dev", "demo", "t") } else { world };
    state.store(Arc::new(world.snapshot()));
    let (reports, seen) = mpsc::channel(8);
    let observer = Observer::new(upstreams(), Arc::clone(&state), reports, pace);
    tokio::spawn(observer.run(Watch::never()));
    (seen, state)
}

fn http(url: &str) -> Upstream {
    testing::http(url).spec.upstream.clone()
}

fn quick() -> Pace {
    Pace {
        every: Duration::from_millis(200),
        retry: Duration::from_millis(20),
        rest: Duration::from_millis(10),
    }
}

async fn next(seen: &mut mpsc::Receiver<Observation>) -> Seen {
    let next = tokio::time::timeout(Duration::from_secs(10), seen.recv()).await;
    next.expect("a report in time").expect("a report").seen
}

fn lists(asked: &Asked) -> Option<Reply> {
    let second = asked.body["params"]["cursor"] == "";
    Some(match asked.rpc() {
        "tools/list" if second => {
            Reply::result(asked, r#"{"tools":[{"name":"b","x":1.10}],"nextCursor":null}"#)
        }
        "tools/list" => Reply::result(
            asked,
            r#"{"tools":[{"name":"a", "big":12345678901234567890123},{"name":"a"}],"nextCursor":""}"#,
        ),
        "resources/list" => Reply::result(asked, r#"{"resources":[{"uri":"x://1"}]}"#),
        "resources/templates/list" => Reply::error(200, &asked.body["id"], -32601, "no"),
        "prompts/list" => unreachable!("not among the capabilities"),
        _ => return None,
    })
}

#[tokio::test]
async fn everything_is_reported_byte_for_byte() {
    let legacy = super::legacy::server(|asked| lists(asked).unwrap_or(Reply::status(202))).await;
    let modern = Fake::start(|asked| match asked.rpc() {
        "server/discover" => Reply::result(
            asked,
            r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"resources":{}},"instructions":"hi","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m"}}}"#,
        ),
        "initialize" => Reply::error(404, &asked.body["id"], -32601, "no"),
        _ => lists(asked).unwrap_or(Reply::status(404)),
    })
    .await;
    for (fake, era) in [(modern, ObservedEra::Modern), (legacy, ObservedEra::Legacy)] {
        let (mut seen, _state) = observed(http(&fake.url), false, Pace::default());
        let Seen::Offer(offer) = next(&mut seen).await else { panic!("no offer") };
        assert_eq!(offer.era, era);
        if era == ObservedEra::Legacy {
            assert!(offer.definitions.is_empty(), "it has no capabilities");
            until("the end of its sessions", || {
                let methods = fake.methods();
                let count = |what: &str| methods.iter().filter(|m| *m == what).count();
                count("DELETE") == count("initialize")
            })
            .await;
            continue;
        }
        assert_eq!((offer.instructions.as_deref(), &*offer.revision), (Some("hi"), "2026-07-28"));
        assert_eq!(offer.server_info["name"], "m");
        let found: Vec<_> =
            offer.definitions.iter().map(|one| (one.kind, &*one.name, &*one.json)).collect();
        assert_eq!(
            found,
            [
                (DefinitionKind::Tool, "a", r#"{"name":"a", "big":12345678901234567890123}"#),
                (DefinitionKind::Tool, "b", r#"{"name":"b","x":1.10}"#),
                (DefinitionKind::Resource, "x://1", r#"{"uri":"x://1"}"#),
            ]
        );
    }
}

#[tokio::test]
async fn health_is_told_when_it_changes() {
    let up = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&up);
    let fake = super::modern::server(move |asked| match state.load(Ordering::SeqCst) {
        true => Reply::result(asked, r#"{"tools":[]}"#),
        false => Reply::status(503),
    })
    .await;
    let (mut seen, _state) = observed(http(&fake.url), true, quick());
    assert!(matches!(next(&mut seen).await, Seen::Offer(_)));
    up.store(false, Ordering::SeqCst);
    let Seen::Down(why) = next(&mut seen).await else { panic!("not down") };
    assert!(!why.contains("127.0.0.1"), "{why}");
    until("several looks", || fake.seen("tools/list").len() > 6).await;
    up.store(true, Ordering::SeqCst);
    assert_eq!(next(&mut seen).await, Seen::Up);
}

#[tokio::test]
async fn a_dead_server_is_asked_less_and_less() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let fake = Fake::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Reply::status(503)
    })
    .await;
    let pace = Pace { every: Duration::from_secs(60), ..quick() };
    let (mut seen, _state) = observed(http(&fake.url), false, pace);
    assert!(matches!(next(&mut seen).await, Seen::Down(_)));
    tokio::time::sleep(Duration::from_millis(700)).await;
    let asked = asked.load(Ordering::SeqCst);
    assert!((3..=7).contains(&asked), "{asked} questions with pauses of 20, 40, 80, 160, 320 ms");
}

#[tokio::test]
async fn changes_are_seen_when_the_server_tells() {
    let grown = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&grown);
    let feed = Arc::new(parking_lot::Mutex::new(None));
    let held = Arc::clone(&feed);
    let fake = Fake::start(move |asked| match asked.rpc() {
        "server/discover" => Reply::result(
            asked,
            r#"{"supportedVersions":["2026-07-28","2025-11-25"],"capabilities":{"tools":{"listChanged":true}}}"#,
        ),
        "subscriptions/listen" => {
            let reply = Reply::sse(event(
                r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{}}"#,
            ));
            (*held.lock()).clone_from(&reply.feed);
            reply
        }
        _ if state.load(Ordering::SeqCst) => Reply::result(asked, r#"{"tools":[{"name":"new"}]}"#),
        _ => Reply::result(asked, r#"{"tools":[]}"#),
    })
    .await;
    let pace = Pace { every: Duration::from_secs(600), ..quick() };
    let (mut seen, state) = observed(http(&fake.url), false, pace);
    let Seen::Offer(offer) = next(&mut seen).await else { panic!("no offer") };
    assert_eq!((offer.era, offer.definitions.len()), (ObservedEra::Dual, 0));
    until("the subscription", || feed.lock().is_some()).await;
    grown.store(true, Ordering::SeqCst);
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    let sender = feed.lock().clone().expect("a feed");
    sender.send(event(changed).into()).await.expect("a listener");
    let Seen::Offer(offer) = next(&mut seen).await else { panic!("no offer") };
    assert_eq!(offer.definitions[0].name, "new");

    // A server that leaves the configuration is left alone.
    let before = fake.asked.lock().len();
    state.store(Arc::new(Snapshot::default()));
    let left = || fake.left.load(Ordering::SeqCst) == 1;
    until("the end of the subscription", left).await;
    assert_eq!(fake.asked.lock().len(), before);
}

#[tokio::test]
async fn older_servers_tell_of_changes_on_their_push_stream() {
    const OFFER: &str = r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"f","version":"1"}}"#;
    let grown = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&grown);
    let feed = Arc::new(parking_lot::Mutex::new(None));
    let held = Arc::clone(&feed);
    let fake = Fake::start(move |asked| match (asked.rpc(), asked.method.as_str()) {
        ("initialize", _) => Reply::result(asked, OFFER).header("mcp-session-id", "s"),
        ("", "GET") => {
            let reply = Reply::sse("id: 1\ndata:\n\n");
            (*held.lock()).clone_from(&reply.feed);
            reply
        }
        ("tools/list", _) if state.load(Ordering::SeqCst) => {
            Reply::result(asked, r#"{"tools":[{"name":"new"}]}"#)
        }
        ("tools/list", _) => Reply::result(asked, r#"{"tools":[]}"#),
        ("server/discover", _) => Reply::status(400),
        _ => Reply::status(202),
    })
    .await;
    let pace = Pace { every: Duration::from_secs(600), ..quick() };
    let (mut seen, _state) = observed(http(&fake.url), false, pace);
    let Seen::Offer(offer) = next(&mut seen).await else { panic!("no offer") };
    assert_eq!((offer.era, offer.definitions.len()), (ObservedEra::Legacy, 0));
    until("the push stream", || feed.lock().is_some()).await;
    grown.store(true, Ordering::SeqCst);
    let push = async |text: &str| {
        let sender = feed.lock().clone().expect("a feed");
        sender.send(event(text).into()).await.expect("a listener");
    };
    push(r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#).await;
    push(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).await;
    let Seen::Offer(offer) = next(&mut seen).await else { panic!("no offer") };
    assert_eq!(offer.definitions[0].name, "new");
    let answered = fake.asked.lock().iter().any(|one| one.body["id"] == 5);
    assert!(answered, "what the server asks on the stream gets an answer");
}

#[tokio::test]
async fn a_child_that_cannot_live_is_told_with_its_last_words() {
    let version = testing::stdio("sh", &["-c", "echo 'no licence' >&2; exit 1"]);
    let (mut seen, _state) = observed(version.spec.upstream.clone(), false, quick());
    let Seen::Down(why) = next(&mut seen).await else { panic!("not down") };
    assert!(why.ends_with("It said last: no licence"), "{why}");
}

#[tokio::test]
async fn a_server_that_is_no_more_is_let_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let alive = folder.path().join("alive");
    // Modern, so that its child stays for other callers; it ends when its input does.
    let script = format!(
        r#"touch {0}
        while IFS= read -r line; do
          id=${{line#*\"id\":}}; id=${{id%%,*}}
          printf '{{"jsonrpc":"2.0","id":%s,"result":{{"supportedVersions":["2026-07-28","2025-11-25"],"capabilities":{{}}}}}}\n' "$id"
        done
        rm {0}"#,
        alive.display()
    );
    let version = testing::stdio("sh", &["-c", &script]);
    let (mut seen, state) = observed(version.spec.upstream.clone(), false, quick());
    assert!(matches!(next(&mut seen).await, Seen::Offer(_)));
    assert!(alive.exists());
    state.store(Arc::new(Snapshot::default()));
    let gone = async || !alive.exists();
    assert!(weir_runtime::testing::eventually(Duration::from_secs(10), gone).await);
}
