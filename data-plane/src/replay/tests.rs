use std::sync::atomic::Ordering;

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weir_model::secret::Secret;
use weir_runtime::drain;
use weir_runtime::metrics::Metrics;

use super::*;
use crate::hop::{Ask, Lost, whole};
use http_body_util::BodyExt as _;

struct Scene {
    replays: Replays,
    hop: Hop,
    sealer: Arc<Sealer>,
    drain: Watch,
    _drain: drain::Drain,
}

const BOND: &[u8] = b"acme\0files\0ci";

fn scene() -> Scene {
    let key = ("k".to_owned(), Arc::new(Secret::new(vec![1; 32])));
    let (signal, watch) = drain::new(Duration::from_secs(1));
    Scene {
        replays: Replays::new(Duration::from_millis(bounds::RESUME_MS), None),
        hop: Hop::new(None, None, &Metrics::new()),
        sealer: Arc::new(Sealer::new(&[key]).unwrap()),
        drain: watch,
        _drain: signal,
    }
}

impl Scene {
    fn track(&self, principal: &str) -> (mpsc::Sender<Frame>, Sent) {
        let (sender, frames) = mpsc::channel(1);
        (sender, self.track_of(principal, Box::pin(ReceiverStream::new(frames))))
    }

    fn track_of(&self, principal: &str, frames: Frames) -> Sent {
        let owner = Owner {
            bond: BOND.to_vec(),
            principal: principal.to_owned(),
            sealer: Arc::clone(&self.sealer),
            primes: false,
            request: Some(Bytes::from_static(b"1")),
        };
        self.replays.track(&self.hop, owner, frames, &self.drain)
    }

    fn open(&self, event: &Bytes) -> EventId {
        let text = std::str::from_utf8(event).unwrap();
        let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
        EventId::open(&self.sealer, BOND, id).unwrap()
    }

    async fn resume(&self, id: &EventId) -> Result<crate::hop::Body, Lost> {
        let body = whole(id.at.to_string());
        let ask = Ask { owner: Digest::of(BOND), verb: RESUME, body };
        self.hop.relay(&id.holder, ask).await
    }

    fn held(&self) -> usize {
        self.replays.0.bytes.load(Ordering::Acquire)
    }
}

fn event(text: &str) -> Frame {
    Frame::Message(sse_message(text))
}

fn sse_message(text: &str) -> Bytes {
    crate::mcp::sse::message(&[text.as_bytes()])
}

async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_the_server_back() {
    let scene = scene();
    let (server, mut sent) = scene.track("ci");
    let mut taken = 0;
    let full = Duration::from_secs(1);
    while tokio::time::timeout(full, server.send(event("x"))).await.is_ok() {
        taken += 1;
        assert!(taken <= 2 * bounds::STREAM_QUEUE_MESSAGES, "no bound");
    }
    assert!(taken >= bounds::STREAM_QUEUE_MESSAGES, "{taken}");
    assert!(sent.next().await.is_some());
    server.send(event("y")).await.unwrap();
    // Large ones are counted by their bytes.
    let (server, _sent) = scene.track("other");
    let large = "z".repeat(bounds::REPLAY_BYTES_MAX / 2);
    let mut taken = 0;
    while tokio::time::timeout(full, server.send(event(&large))).await.is_ok() {
        taken += 1;
    }
    assert!(taken <= 5, "{taken}");
}

/// So that it leaves with the head of the answer, and its reader wakes once.
#[tokio::test(start_paused = true)]
async fn what_is_there_already_waits_for_nobody() {
    let scene = scene();
    for frames in [vec![event("a")], vec![event("a"), event("b")]] {
        let left = frames.len() - 1;
        let mut sent = scene.track_of("ci", futures_util::stream::iter(frames).boxed());
        let first = sent.next().now_or_never().flatten().expect("an event that is there");
        assert_eq!(scene.open(&first).at, 0);
        assert_eq!(sent.count().await, left, "what comes later is not lost");
    }
    let none = scene.track_of("ci", futures_util::stream::empty().boxed());
    assert_eq!(none.count().await, 0, "a stream may end before it begins");
}

#[tokio::test(start_paused = true)]
async fn what_was_read_is_kept_within_bounds() {
    let scene = scene();
    let (server, mut sent) = scene.track("ci");
    let text = "z".repeat(10_000);
    let mut first = None;
    for _ in 0..200 {
        server.send(event(&text)).await.unwrap();
        let got = sent.next().await.unwrap();
        first.get_or_insert(got);
        assert!(scene.held() <= bounds::REPLAY_BYTES_MAX + 20_000, "{}", scene.held());
    }
    let lost = scene.resume(&scene.open(&first.unwrap())).await;
    assert!(matches!(lost, Err(Lost::Refused(_))), "too long ago");
    drop((server, sent));
    let linger = Duration::from_millis(bounds::REPLAY_LINGER_MS);
    tokio::time::sleep(linger * 2).await;
    assert_eq!(scene.held(), 0, "all is let go of");
    assert!(scene.replays.0.callers.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_newest_reader_reads_and_misses_nothing() {
    let scene = scene();
    let (server, mut first) = scene.track("ci");
    for text in ["a", "b", "c"] {
        server.send(event(text)).await.unwrap();
    }
    let a = first.next().await.unwrap();
    first.next().await.unwrap();
    let mut second = scene.resume(&scene.open(&a)).await.unwrap().into_data_stream();
    assert!(first.next().await.is_none(), "a message goes to one stream");
    let mut texts = Vec::new();
    for _ in 0..2 {
        texts.push(String::from_utf8(second.next().await.unwrap().unwrap().to_vec()).unwrap());
    }
    assert!(texts[0].contains("data: b") && texts[1].contains("data: c"), "{texts:?}");
    drop(server);
    assert!(second.next().await.is_none(), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_for_ever() {
    let scene = scene();
    let (server, sent) = scene.track("ci");
    server.send(event("a")).await.unwrap();
    drop(sent);
    let grace = Duration::from_millis(bounds::RESUME_MS);
    tokio::time::sleep(grace / 2).await;
    assert!(!server.is_closed());
    tokio::time::sleep(grace).await;
    assert!(server.is_closed(), "the call is cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_caller_has_so_many_and_no_more() {
    let scene = scene();
    let most = bounds::REPLAYS_PER_PRINCIPAL_MAX;
    let mut running: Vec<_> = (0..most).map(|_| scene.track("ci")).collect();
    let (server, mut sent) = scene.track("ci");
    server.send(event("a")).await.unwrap();
    assert_eq!(sent.next().await.unwrap(), sse_message("a"), "served, without an id");
    let (server, mut sent) = scene.track("other");
    server.send(event("a")).await.unwrap();
    scene.open(&sent.next().await.unwrap());
    // One that has ended makes room.
    let (ended, mut rest) = running.remove(0);
    drop(ended);
    assert!(rest.next().await.is_none());
    settle().await;
    let (server, mut sent) = scene.track("ci");
    server.send(event("a")).await.unwrap();
    scene.open(&sent.next().await.unwrap());
}

#[test]
fn ids_say_nothing_and_fit_their_owner_alone() {
    let scene = scene();
    let holder = Holder { node: "eu/a".into(), epoch: "e".into(), address: None, id: "i".into() };
    let id = EventId { holder, at: 7, upstream: Some("up".into()), request: None };
    let text = id.seal(&scene.sealer, BOND).unwrap();
    assert!(!text.contains("eu") && text.bytes().all(|b| (0x21..=0x7e).contains(&b)));
    assert_eq!(EventId::open(&scene.sealer, BOND, &text).unwrap().at, 7);
    assert!(EventId::open(&scene.sealer, b"acme\0files\0other", &text).is_none());
}

proptest! {
    /// Whatever order reading, leaving and coming back have: what a client has in the end is
    /// every event once, in order.
    #[test]
    fn readers_get_every_event_in_order(steps in proptest::collection::vec(0u8..4, 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let track = Arc::new(Track::new(Arc::default(), None));
            let (mut pushed, mut got) = (0u32, Vec::new());
            let mut reader = Some(track.read());
            for step in steps {
                match (step, &mut reader) {
                    (0 | 1, _) => {
                        track.push(Bytes::from(pushed.to_string()));
                        pushed += 1;
                    }
                    (2, Some(sent)) if got.len() < pushed as usize => {
                        got.push(sent.next().await.unwrap());
                    }
                    (3, Some(_)) => reader = None,
                    (3, None) => {
                        let held = got.len() as u64;
                        reader = match held.checked_sub(1) {
                            Some(last) => Some(track.after(last).unwrap()),
                            None => Some(track.read()),
                        };
                    }
                    _ => {}
                }
            }
            let expected: Vec<Bytes> =
                (0..got.len()).map(|n| Bytes::from(n.to_string())).collect();
            assert_eq!(got, expected);
        });
    }
}
