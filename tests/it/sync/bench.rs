//! Planes and nodes for the tests of how configuration travels.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control_plane::admit::Proposal;
use control_plane::author::{Author, Mode};
use control_plane::ca::Ca;
use control_plane::enrol::Enrolment;
use control_plane::fleet::{self, Fleet};
use control_plane::index::{self, Index};
use control_plane::observe::Observer;
use control_plane::observe::intake::Intake;
use control_plane::publish::{self, Publish};
use control_plane::sign_ins::SignIns;
use control_plane::store::embedded::{Embedded, History};
use control_plane::store::{Op, Store};
use control_plane::vault::{LocalKeys, Vault};
use control_plane::witness::Witness;
use data_plane::config::{Config, ConfigError, Endpoint, Options, State};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_model::id::Revision;
use weir_model::observation::{Observation, Offer, Offered, Seen};
use weir_model::resource::{
    DefinitionKind, ObservedEra, Resource, ResourceKey, Spec, parse_documents,
};
use weir_model::secret::Secret;
use weir_model::sync::Timing;
use weir_runtime::clock::{ManualClock, SharedClock, SystemClock};
use weir_runtime::drain::{self, Drain};

const LIMIT: Duration = Duration::from_secs(20);

/// Waits until it holds, or fails.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(weir_runtime::testing::eventually(LIMIT, condition).await, "never: {what}");
}

/// Quick enough for tests, slow enough for a busy machine.
fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(500),
        missed: 6,
        lag: Duration::from_secs(1),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(300),
        ..Timing::default()
    }
}

pub(crate) fn group(name: &str, display: &str) -> String {
    format!(
        "apiVersion: weir/v1\nkind: Group\nmetadata: {{name: {name}}}\n\
         spec: {{displayName: {display}}}\n"
    )
}

/// Tools whose definitions have about that many bytes each.
pub(crate) fn offer(
    group: &str,
    server: &str,
    version: &str,
    tools: usize,
    bytes: usize,
) -> Observation {
    let text = "x".repeat(bytes);
    let tool = |at: usize| Offered {
        kind: DefinitionKind::Tool,
        name: format!("tool{at}"),
        json: serde_json::json!({"name": format!("tool{at}"), "description": text,
            "inputSchema": {"type": "object"}})
        .to_string(),
    };
    let seen = Seen::Offer(Offer {
        era: ObservedEra::Dual,
        revision: "2026-07-28".to_owned(),
        server_info: serde_json::json!({"name": server}),
        capabilities: serde_json::json!({"tools": {}}),
        instructions: None,
        definitions: (0..tools).map(tool).collect(),
    });
    let [group, server, version] = [group, server, version].map(|n| n.parse().unwrap());
    Observation { group, server, version, seen }
}

/// What all replicas share.
pub(crate) struct Shared {
    store: Arc<dyn Store>,
    vault: Vault,
}

impl Shared {
    pub(crate) async fn new() -> Self {
        let store = Arc::new(Embedded::in_memory(History::default()).unwrap());
        let keys = LocalKeys::generate().unwrap();
        let vault = Vault::new(Arc::new(LocalKeys::parse(keys.expose()).unwrap()));
        let timing = control_plane::settings::KeyringSettings::default().timing();
        control_plane::keyring::Keys::new(
            Arc::clone(&store) as Arc<dyn Store>,
            vault.clone(),
            weir_runtime::clock::SystemClock::shared(),
            timing,
        )
        .ensure()
        .await
        .unwrap();
        Self { store, vault }
    }
}

/// A replica.
pub(crate) struct Plane {
    store: Arc<dyn Store>,
    index: Index,
    author: Author,
    fleet: Fleet,
    enrolment: Enrolment,
    /// The same an hour ago.
    before: Enrolment,
    address: SocketAddr,
    pipe: mpsc::Sender<DuplexStream>,
    drain: Drain,
    tasks: Vec<JoinHandle<()>>,
}

impl Plane {
    pub(crate) async fn start(shared: &Shared, replica: &str) -> Self {
        Self::start_at(shared, replica, None).await
    }

    pub(crate) async fn start_at(
        shared: &Shared,
        replica: &str,
        address: Option<SocketAddr>,
    ) -> Self {
        let (store, vault) = (Arc::clone(&shared.store), shared.vault.clone());
        let clock = SystemClock::shared();
        let now = i64::try_from(clock.now_secs()).unwrap();
        let ca = Arc::new(Ca::load_or_make(&*store, &vault, now).await.unwrap());
        let index = Index::start(store.clone(), CancellationToken::new()).await.unwrap();
        let author = Author::new(store.clone(), vault.clone(), index.newest());
        let fleet = Fleet::new(store.clone(), replica.to_owned(), clock.clone());
        let observer = Observer::new(store.clone(), author.clone());
        let (intake, worker) = Intake::new(observer, fleet.clone());
        let enrolment = Enrolment::new(store.clone(), ca.clone(), clock.clone());
        let then = ManualClock::at_ms(clock.now_ms() - 3_600_000);
        let before = Enrolment::new(store.clone(), ca.clone(), Arc::new(then));
        let witness = Witness::load_or_make(&store, &vault, clock.clone()).await.unwrap();
        let parts = publish::Parts {
            replica: replica.to_owned(),
            newest: index.newest(),
            ca,
            enrolment: enrolment.clone(),
            fleet: fleet.clone(),
            intake,
            witness,
            sign_ins: SignIns::new(store.clone(), author.clone(), clock.clone()),
            audit: None,
            clock,
            timing: timing(),
        };
        let publish = Publish::new(parts, store.clone(), vault).unwrap();
        let wanted = address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(wanted).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let (pipe, theirs) = publish::pipe();
        let (drain, watch) = drain::new(Duration::from_secs(5));
        let served = publish.serve(Some(listener), Some(theirs), watch.clone());
        let tasks = vec![
            tokio::spawn(async move { served.await.unwrap() }),
            tokio::spawn(fleet.clone().run(watch)),
            tokio::spawn(worker),
        ];
        Self { store, index, author, fleet, enrolment, before, address, pipe, drain, tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
    pub(crate) fn tcp(&self) -> Endpoint {
        Endpoint::Tcp(self.address.to_string())
    }
    pub(crate) fn pipe(&self) -> Endpoint {
        Endpoint::Pipe(self.pipe.clone())
    }

    pub(crate) async fn apply(&self, text: &str) -> Revision {
        let mut at = 0;
        let mut new_id = || {
            at += 1;
            format!("secret-{at}")
        };
        let documents = parse_documents(text, &mut new_id).unwrap();
        let proposal = Proposal { documents, ..Proposal::default() };
        self.author.change(proposal, None, Mode::Commit).await.unwrap().revision
    }

    pub(crate) async fn delete(&self, key: &str) -> Revision {
        let deletes = vec![ResourceKey::parse(key).unwrap()];
        let proposal = Proposal { deletes, ..Proposal::default() };
        self.author.change(proposal, None, Mode::Commit).await.unwrap().revision
    }

    /// Writes a document without asking whether it may be.
    pub(crate) async fn commit(&self, resource: &Resource) -> Revision {
        let base = self.index.newest().borrow().revision;
        let (guard, head) = index::head(base);
        let put = Op::Put(index::path(&resource.key), resource.canonical.clone());
        self.store.commit(vec![guard], vec![head, put]).await.unwrap()
    }

    pub(crate) async fn token(&self, region: &str) -> String {
        minted(&self.enrolment, region).await
    }

    /// One whose time is over.
    pub(crate) async fn late_token(&self, region: &str) -> String {
        minted(&self.before, region).await
    }

    pub(crate) async fn nodes(&self) -> Vec<fleet::Node> {
        self.fleet.list().await.unwrap()
    }

    /// Waits until this replica knows that a node has a revision, and what it refuses of it.
    pub(crate) async fn knows(&self, node: &str, revision: Revision, refused: &[&str]) {
        let what = format!("{node} is at {revision} and refuses {refused:?}");
        eventually(&what, async || {
            self.nodes().await.iter().any(|n| {
                let keys: Vec<&str> = n.refused.iter().map(|r| r.key.as_str()).collect();
                n.node.as_str() == node && n.revision == revision && n.connected && keys == refused
            })
        })
        .await;
    }

    pub(crate) async fn sees(&self, node: &str, server: &str) {
        eventually("a node's view of a server", async || {
            let nodes = self.nodes().await;
            let node = nodes.iter().find(|n| n.node.as_str() == node);
            node.is_some_and(|n| n.servers.get(server).is_some_and(|s| s.up))
        })
        .await;
    }

    /// Definitions of a catalog that wait for an operator.
    pub(crate) fn waiting(&self, catalog: &str) -> usize {
        let newest = self.index.newest();
        let set = &newest.borrow().set;
        match set.get(&ResourceKey::parse(catalog).unwrap()).map(|r| &r.spec) {
            Some(Spec::Catalog(catalog)) => catalog.waiting.len(),
            _ => 0,
        }
    }

    pub(crate) async fn stop(self) {
        self.drain.start();
        for task in self.tasks.into_iter().take(2) {
            tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
        }
    }
}

/// A proxy's end.
pub(crate) struct Node {
    folder: TempDir,
    state: Arc<State>,
    reports: mpsc::Sender<Observation>,
    drain: Drain,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) async fn join(
        plane: &Plane,
        region: &str,
        node: &str,
        endpoints: Vec<Endpoint>,
    ) -> Self {
        Self::join_with(&plane.token(region).await, node, endpoints).await.unwrap()
    }

    pub(crate) async fn join_with(
        token: &str,
        node: &str,
        endpoints: Vec<Endpoint>,
    ) -> Result<Self, ConfigError> {
        Self::join_within(token, node, endpoints, LIMIT).await
    }

    /// Joins, or gives up after a while.
    pub(crate) async fn join_within(
        token: &str,
        node: &str,
        endpoints: Vec<Endpoint>,
        limit: Duration,
    ) -> Result<Self, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path(), endpoints, SystemClock::shared());
        options.token = Some(Arc::new(Secret::new(token.to_owned())));
        options.node = Some(node.parse().unwrap());
        Self::begin(folder, options, limit).await
    }

    /// Starts in a folder where it has been before.
    pub(crate) async fn open(folder: TempDir, endpoints: Vec<Endpoint>) -> Self {
        let options = options(folder.path(), endpoints, SystemClock::shared());
        Self::begin(folder, options, LIMIT).await.unwrap()
    }

    async fn begin(
        folder: TempDir,
        options: Options,
        limit: Duration,
    ) -> Result<Self, ConfigError> {
        let (drain, watch) = drain::new(Duration::from_secs(5));
        let config = {
            let mut opening = std::pin::pin!(Config::open(options, &watch));
            match tokio::time::timeout(limit, &mut opening).await {
                Ok(opened) => opened?,
                Err(_) => {
                    drain.start();
                    opening.await?
                }
            }
        };
        let state = Arc::clone(config.state());
        let (reports, seen) = mpsc::channel(16);
        let task = tokio::spawn(config.run(seen, watch));
        Ok(Self { folder, state, reports, drain, task })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
    pub(crate) fn state(&self) -> &State {
        &self.state
    }
    pub(crate) fn display(&self, group: &str) -> Option<String> {
        self.state.current().groups.get(group)?.spec.display_name.clone()
    }
    pub(crate) async fn has(&self, group: &str, display: &str) {
        let what = format!("{group} is {display}");
        eventually(&what, async || self.display(group).as_deref() == Some(display)).await;
    }
    pub(crate) async fn report(&self, observation: Observation) {
        self.reports.send(observation).await.unwrap();
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.drain.start();
        tokio::time::timeout(LIMIT, self.task).await.unwrap().unwrap();
        self.folder
    }

    pub(crate) async fn restart(self, endpoints: Vec<Endpoint>) -> Self {
        Self::open(self.stop().await, endpoints).await
    }

    /// Restarts with a clock that is ahead.
    pub(crate) async fn restart_later(self, endpoints: Vec<Endpoint>, by: Duration) -> Self {
        let folder = self.stop().await;
        let clock = ManualClock::at_ms(SystemClock::shared().now_ms());
        clock.advance(by);
        let options = options(folder.path(), endpoints, Arc::new(clock));
        Self::begin(folder, options, LIMIT).await.unwrap()
    }
}

fn options(folder: &Path, endpoints: Vec<Endpoint>, clock: SharedClock) -> Options {
    let folder = folder.to_owned();
    Options { folder, endpoints, token: None, node: None, timing: timing(), clock }
}

async fn minted(enrolment: &Enrolment, region: &str) -> String {
    enrolment.mint(region.parse().unwrap(), None, 60).await.unwrap().1.expose().clone()
}
