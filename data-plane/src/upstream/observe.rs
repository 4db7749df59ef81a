//! What servers offer, seen by the proxy that has the network: reported to the control plane.
//!
//! One task per server version of the snapshot. It asks at the start, when the document changes,
//! when the server says that its lists have changed, and at an interval; while a server does not
//! answer it asks less and less often, and so it does while a server tells of changes that are none.
//! Few ask at a time, and none asks a server again within seconds: a probe must not be what brings
//! a server down.

mod catalog;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, broadcast, mpsc};
use tokio::task::JoinHandle;
use weir_model::bounds;
use weir_model::id::{Digest, Name};
use weir_model::observation::{Observation, Offer, Seen};
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::{DefinitionKind, ObservedEra, ServerVersion, Upstream};
use weir_model::snapshot::{GroupView, Snapshot, UpstreamKey, VersionView, param_headers};
use weir_runtime::drain::Watch;

use super::{Exchange, Messages, Upstreams};
use crate::call::credential::{self, Headers};
use crate::config::State;

/// How often the observer looks, and how patient it is.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two looks at a server that answers; a fifth more or less, at random.
    pub every: Duration,
    /// Before the second look at a server that does not; doubles up to `every`.
    pub retry: Duration,
    /// At least this long between two looks at one server; longer where it asks for many.
    pub rest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(bounds::OBSERVE_EVERY_MS),
            retry: Duration::from_secs(1),
            rest: Duration::from_millis(250),
        }
    }
}

/// Looks in a row that a server asked for, from which on the rest between them grows.
const BURST: u32 = 4;
/// How often it doubles then, as long as the looks find news.
const DOUBLINGS: u32 = 5;

/// A whole catalog is reported again after this many looks that found nothing new.
const AGAIN: u32 = 12;

/// Looks at the servers of the snapshot in force.
#[derive(Debug)]
pub struct Observer {
    eye: Arc<Eye>,
    watched: HashMap<UpstreamKey, Watched>,
    /// What `watched` was last brought in line with.
    last: Arc<Snapshot>,
}

/// What the tasks share.
#[derive(Debug)]
struct Eye {
    upstreams: Upstreams,
    state: Arc<State>,
    reports: mpsc::Sender<Observation>,
    turns: Semaphore,
    pace: Pace,
}

/// One server version that is looked at.
#[derive(Debug)]
struct Watched {
    spec: ServerVersion,
    credential: Digest,
    nudge: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    /// An observer that sends what it sees to `reports`.
    pub fn new(
        upstreams: Upstreams,
        state: Arc<State>,
        reports: mpsc::Sender<Observation>,
        pace: Pace,
    ) -> Self {
        let turns = Semaphore::new(bounds::OBSERVATIONS_AT_ONCE_MAX);
        let eye = Arc::new(Eye { upstreams, state, reports, turns, pace });
        Self { eye, watched: HashMap::new(), last: Arc::default() }
    }

    /// Runs until the drain begins.
    pub async fn run(mut self, drain: Watch) {
        let mut revisions = self.eye.state.subscribe();
        let mut changes = self.eye.upstreams.changes();
        loop {
            self.reconcile();
            tokio::select! {
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = changes.recv() => match changed {
                    Ok(key) => self.nudge(&key),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.watched.values().for_each(|one| one.nudge.notify_one());
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = drain.drained() => return,
            }
        }
    }

    fn nudge(&self, key: &UpstreamKey) {
        if let Some(watched) = self.watched.get(key) {
            watched.nudge.notify_one();
        }
    }

    /// Starts a task for what is new or changed, ends those of what is gone, and with them
    /// connections, sessions and children. Looks at what is another since it looked last: one edit
    /// among thousands of servers costs that one.
    fn reconcile(&mut self) {
        let snapshot = self.eye.state.current();
        let last = std::mem::replace(&mut self.last, Arc::clone(&snapshot));
        for (name, before) in &last.groups {
            let now = snapshot.groups.get(name);
            if !now.is_some_and(|now| Arc::ptr_eq(now, before)) {
                self.end_gone(before, now);
            }
        }
        for (name, now) in &snapshot.groups {
            let before = last.groups.get(name);
            if !before.is_some_and(|before| Arc::ptr_eq(before, now)) {
                self.begin_new(&snapshot, before, now);
            }
        }
    }

    fn end_gone(&mut self, before: &GroupView, now: Option<&Arc<GroupView>>) {
        for (name, server) in &before.servers {
            let now = now.and_then(|now| now.servers.get(name));
            if now.is_some_and(|now| Arc::ptr_eq(now, server)) {
                continue;
            }
            let now = now.filter(|now| now.quarantined.is_none());
            for version in &server.versions {
                if !now.is_some_and(|now| now.versions.iter().any(|v| v.key == version.key)) {
                    self.watched.remove(&version.key);
                    self.eye.upstreams.let_go(&version.key);
                }
            }
        }
    }

    fn begin_new(
        &mut self,
        snapshot: &Snapshot,
        before: Option<&Arc<GroupView>>,
        now: &Arc<GroupView>,
    ) {
        let known = before.filter(|before| before.credentials == now.credentials);
        for (name, server) in now.servers.iter().filter(|(_, s)| s.quarantined.is_none()) {
            let known = known.and_then(|known| known.servers.get(name));
            if known.is_some_and(|known| Arc::ptr_eq(known, server)) {
                continue;
            }
            for version in &server.versions {
                self.watch(version, fingerprint(snapshot, version));
            }
        }
    }

    fn watch(&mut self, version: &VersionView, credential: Digest) {
        let watched = self.watched.get(&version.key);
        if watched.is_some_and(|w| w.spec == version.spec && w.credential == credential) {
            return;
        }
        let (key, spec) = (version.key.clone(), version.spec.clone());
        let nudge = Arc::new(Notify::new());
        let task = tokio::spawn(watch(Arc::clone(&self.eye), key.clone(), Arc::clone(&nudge)));
        self.watched.insert(key, Watched { spec, credential, nudge, task });
    }
}

/// Tells one credential from the next without keeping it.
fn fingerprint(snapshot: &Snapshot, version: &VersionView) -> Digest {
    let group = snapshot.groups.get(&version.key.group);
    let headers = group.and_then(|group| credential::open(snapshot, group, version).ok());
    let headers = headers.unwrap_or_default();
    let parts = headers
        .iter()
        .flat_map(|(name, value)| [name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"]);
    Digest::of_parts(&parts.collect::<Vec<_>>())
}

/// What was last reported of a server version.
#[derive(Debug, Default)]
struct Told {
    offer: Option<Digest>,
    down: Option<String>,
    quiet: u32,
    failures: u32,
    /// Looks in a row that the server asked for.
    streak: u32,
    /// Those of them that found nothing new.
    vain: u32,
}

impl Told {
    /// How long the server is left alone. A few changes are seen soon; a server that never stops to
    /// change is looked at less often, one that tells of changes which are none ever less.
    fn rest(&self, shortest: Duration) -> Duration {
        let doublings = self.streak.saturating_sub(BURST).min(DOUBLINGS) + self.vain.min(16);
        shortest.saturating_mul(1_u32 << doublings)
    }
}

/// Looks at one server version until it is aborted.
async fn watch(eye: Arc<Eye>, key: UpstreamKey, nudge: Arc<Notify>) {
    let mut told = Told::default();
    let mut listener = None;
    loop {
        let looked = {
            let Ok(_turn) = eye.turns.acquire().await else { return };
            eye.look(&key).await
        };
        match looked {
            Ok(looked) => {
                told.failures = 0;
                if !eye.tell_offer(&key, looked.offer, looked.pinned, &mut told).await {
                    return;
                }
                if looked.listens && listener.as_ref().is_none_or(AbortOnDrop::finished) {
                    let listen = listen(Arc::clone(&eye), key.clone(), looked.modern);
                    listener = Some(AbortOnDrop(tokio::spawn(listen)));
                }
            }
            Err(refusal) => {
                told.failures = told.failures.saturating_add(1);
                tracing::debug!(server = %key, %refusal, "a server was not observed");
                if !eye.tell_down(&key, &refusal, &mut told).await {
                    return;
                }
            }
        }
        let pause = eye.pause(told.failures);
        // Some servers announce changes to every session that opens, ours included.
        let rest = told.rest(eye.pace.rest).min(pause);
        tokio::time::sleep(rest).await;
        (told.streak, told.vain) = tokio::select! {
            () = tokio::time::sleep(pause.saturating_sub(rest)) => (0, 0),
            () = nudge.notified() => (told.streak.saturating_add(1), told.vain.saturating_add(1)),
        };
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    fn finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What one look gave.
struct Looked {
    offer: Offer,
    /// The control plane has a catalog of it.
    pinned: bool,
    /// It tells those who listen when its lists change.
    listens: bool,
    /// It speaks 2026-07-28.
    modern: bool,
}

/// A server version as it is now, and how to speak to it.
struct Sighted {
    version: Arc<VersionView>,
    credentials: Headers,
}

impl Eye {
    fn sight(&self, key: &UpstreamKey) -> Result<Sighted, Refusal> {
        let gone = || Refusal::new(Reason::UnknownEndpoint, "the server version is gone");
        let snapshot = self.state.current();
        let group = snapshot.groups.get(&key.group).ok_or_else(gone)?;
        let server = group.servers.get(&key.server).ok_or_else(gone)?;
        let version = server.versions.iter().find(|one| one.key == *key).ok_or_else(gone)?;
        let credentials = credential::open(&snapshot, group, version)?;
        Ok(Sighted { version: Arc::clone(version), credentials })
    }

    async fn look(&self, key: &UpstreamKey) -> Result<Looked, Refusal> {
        let sighted = self.sight(key)?;
        let request = catalog::request(&sighted.version, sighted.credentials);
        let looked = Box::pin(catalog::offer(&self.upstreams, &request)).await;
        self.upstreams.release(&sighted.version, &request.front.isolation).await;
        let (offer, listens) = looked?;
        let modern = offer.era != ObservedEra::Legacy;
        Ok(Looked { offer, pinned: sighted.version.catalog.is_some(), listens, modern })
    }

    /// False when nobody takes reports any more.
    async fn tell_offer(
        &self,
        key: &UpstreamKey,
        offer: Offer,
        pinned: bool,
        told: &mut Told,
    ) -> bool {
        let digest = catalog::digest(&offer);
        told.quiet += 1;
        let new = told.offer != Some(digest) || !pinned || told.quiet >= AGAIN;
        let up = told.down.take().is_some();
        if new {
            if told.offer != Some(digest) {
                told.vain = 0;
                tell_hidden(key, &offer);
            }
            told.offer = Some(digest);
            told.quiet = 0;
            return self.send(key, Seen::Offer(offer)).await;
        }
        !up || self.send(key, Seen::Up).await
    }

    async fn tell_down(&self, key: &UpstreamKey, refusal: &Refusal, told: &mut Told) -> bool {
        let stderr = self.sight(key).ok().and_then(|one| self.upstreams.stderr(&one.version));
        let why = diagnosis(refusal, stderr.as_deref());
        if told.down.as_ref() == Some(&why) {
            return true;
        }
        told.down = Some(why.clone());
        self.send(key, Seen::Down(why)).await
    }

    async fn send(&self, key: &UpstreamKey, seen: Seen) -> bool {
        let of = |name: &Name| name.clone();
        let (group, server, version) = (of(&key.group), of(&key.server), of(&key.version));
        self.reports.send(Observation { group, server, version, seen }).await.is_ok()
    }

    fn pause(&self, failures: u32) -> Duration {
        let base = match failures.checked_sub(1) {
            None => self.pace.every,
            Some(doublings) => {
                let factor = 1_u32 << doublings.min(16);
                self.pace.retry.saturating_mul(factor).min(self.pace.every)
            }
        };
        // Between four and six fifths.
        let random = u32::try_from(uuid::Uuid::new_v4().as_u128() % 401).unwrap_or(200);
        base.mul_f64(f64::from(800 + random) / 1000.0)
    }
}

/// Says in the log which tools no client is shown, and why.
fn tell_hidden(key: &UpstreamKey, offer: &Offer) {
    let tools = offer.definitions.iter().filter(|one| one.kind == DefinitionKind::Tool);
    for tool in tools {
        if let Err(why) = param_headers(&tool.json) {
            tracing::warn!(server = %key, tool = ?tool.name, why, "a tool is hidden from clients");
        }
    }
}

/// Holds the stream on which a server says that its lists have changed. The upstreams tell of it;
/// here is nothing to do but to read. Older servers that run as children are not kept running for
/// it: they tell while somebody calls them.
async fn listen(eye: Arc<Eye>, key: UpstreamKey, modern: bool) {
    let Ok(sighted) = eye.sight(&key) else { return };
    let request = catalog::listen(&sighted.version, sighted.credentials);
    let opened = match (modern, &sighted.version.spec.upstream) {
        (true, _) => match eye.upstreams.call(request.clone()).await {
            Ok(Exchange { messages: Messages::Stream(stream), .. }) => Ok(stream),
            Ok(_) => return,
            Err(refusal) => Err(refusal),
        },
        (false, Upstream::Http(_)) => eye.upstreams.follow(&request).await,
        (false, Upstream::Stdio(_)) => return,
    };
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(refusal) => {
            tracing::debug!(server = %key, %refusal, "a server has no stream of changes");
            return;
        }
    };
    let end = Instant::now() + Duration::from_millis(bounds::STREAM_MS);
    while Instant::now() < end {
        match stream.recv().await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    drop(stream);
    eye.upstreams.release(&sighted.version, &request.front.isolation).await;
}

/// Why a server is down, for its operator: what to do, and the last words of a child.
fn diagnosis(refusal: &Refusal, stderr: Option<&str>) -> String {
    let mut why = match refusal.reason {
        // What the operator's own document is at odds with.
        Reason::Quarantined => refusal.detail.clone(),
        _ if refusal.detail.contains("allowPrivate") => {
            "The server has a private address; set allowPrivate if that is meant.".to_owned()
        }
        reason => reason.remedy().to_owned(),
    };
    let last = stderr.and_then(|text| text.lines().rev().find(|line| !line.trim().is_empty()));
    if let Some(last) = last {
        why.push_str(" It said last: ");
        why.extend(last.chars().filter(|c| !c.is_control()).take(200));
    }
    why
}

#[cfg(test)]
mod tests {
    use weir_model::observation::Offered;
    use weir_runtime::telemetry;
    use weir_runtime::testing::LogCapture;

    use super::*;

    #[test]
    fn tools_that_cannot_be_called_are_told() {
        let tool = |name: &str, header: &str| {
            let schema = serde_json::json!({"type": "object", "properties": {
                "region": {"type": "string", "x-mcp-header": header}}});
            let json = serde_json::json!({"name": name, "inputSchema": schema}).to_string();
            Offered { kind: DefinitionKind::Tool, name: name.to_owned(), json }
        };
        let offer = Offer {
            era: ObservedEra::Modern,
            revision: "2026-07-28".to_owned(),
            server_info: serde_json::Value::Null,
            capabilities: serde_json::Value::Null,
            instructions: None,
            definitions: vec![tool("good", "Region"), tool("bad", "My Region")],
        };
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let key = UpstreamKey { group: name("g"), server: name("s"), version: name("v1") };
        let log = LogCapture::default();
        let (subscriber, _) =
            telemetry::subscriber(&telemetry::LogSettings::default(), Vec::new(), log.clone())
                .expect("a subscriber");
        tracing::subscriber::with_default(subscriber, || tell_hidden(&key, &offer));
        let text = log.text();
        assert!(
            text.contains("bad") && text.contains("is hidden") && !text.contains("good"),
            "{text}"
        );
    }

    #[test]
    fn the_more_a_server_asks_the_longer_it_is_left_alone() {
        let rest = |streak, vain| {
            let told = Told { streak, vain, ..Told::default() };
            told.rest(Duration::from_millis(250)).as_millis()
        };
        let news = [0, 1, 4, 5, 9, 100].map(|streak| rest(streak, 0));
        assert_eq!(news, [250, 250, 250, 500, 8_000, 8_000]);
        assert_eq!([1, 2, 4].map(|vain| rest(vain, vain)), [500, 1_000, 4_000]);
        assert!(rest(u32::MAX, u32::MAX) > rest(9, 9));
    }
}
