//! The resources of one stream at the servers that they come from: one task per server, which
//! tries again, later and later, while the server does not answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::snapshot::{GroupView, Snapshot, UpstreamKey, VersionView};

use crate::call::credential::{self, Headers};
use crate::upstream::{Front, Outbound, Upstreams};

/// First and longest pause before a server is asked again.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Which resources to follow at which server.
#[derive(Debug, Default)]
pub(super) struct Homes(HashMap<UpstreamKey, (Arc<VersionView>, Vec<String>)>);

impl Homes {
    /// Adds a resource of a server version.
    pub(super) fn add(&mut self, version: Arc<VersionView>, uri: &str) {
        let home = self.0.entry(version.key.clone()).or_insert_with(|| (version, Vec::new()));
        home.1.push(uri.to_owned());
    }
}

/// Follows resources for one stream. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Follower {
    upstreams: Upstreams,
    front: Front,
    at: HashMap<UpstreamKey, Following>,
    /// None until something is followed.
    updates: Option<Updates>,
}

/// Which server says that which resource has changed.
pub(super) type Update = (Name, String);
/// What servers tell, from their tasks.
type Updates = (mpsc::Sender<Update>, mpsc::Receiver<Update>);

/// One server.
#[derive(Debug)]
struct Following {
    version: Arc<VersionView>,
    credentials: Headers,
    uris: Vec<String>,
    /// Those that the server has accepted; none while it has not answered.
    accepted: watch::Receiver<Option<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    pub(super) fn new(upstreams: Upstreams, front: Front) -> Self {
        Self { upstreams, front, at: HashMap::new(), updates: None }
    }

    /// Follows these from now on; what stays the same is not disturbed.
    pub(super) fn set(&mut self, homes: Homes, snapshot: &Snapshot, group: &GroupView) {
        let mut before = std::mem::take(&mut self.at);
        for (key, (version, uris)) in homes.0 {
            // Without its credential a server cannot be asked.
            let Ok(credentials) = credential::open(snapshot, group, &version) else { continue };
            let same = before.remove(&key).filter(|one| {
                one.version.spec == version.spec
                    && one.credentials == credentials
                    && one.uris == uris
            });
            let following = same.unwrap_or_else(|| self.start(version, credentials, uris));
            self.at.insert(key, following);
        }
    }

    fn start(
        &mut self,
        version: Arc<VersionView>,
        credentials: Headers,
        uris: Vec<String>,
    ) -> Following {
        let mut front = self.front.clone();
        // A session of its own at servers of older revisions.
        front.isolation = format!("{} listens {}", front.isolation, uuid::Uuid::new_v4());
        let request = Outbound {
            version: Arc::clone(&version),
            front,
            id: None,
            method: String::new(),
            params: None,
            name: None,
            tool: None,
            param_headers: Vec::new(),
            credentials: credentials.clone(),
            session: None,
            // The stream that this is for ends before.
            deadline: Instant::now() + Duration::from_millis(2 * bounds::STREAM_MS),
            traceparent: None,
            retries: Arc::default(),
        };
        let (tell, accepted) = watch::channel(None);
        let updates = || mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
        let sender = self.updates.get_or_insert_with(updates).0.clone();
        let work = follow(self.upstreams.clone(), request, uris.clone(), (sender, tell));
        Following { version, credentials, uris, accepted, task: tokio::spawn(work) }
    }

    /// What the servers have accepted by then, in the order of URIs. Servers are waited for all at
    /// once.
    pub(super) async fn accepted(&mut self, patience: Duration) -> Vec<String> {
        let waits = self.at.values().map(|one| {
            let mut accepted = one.accepted.clone();
            async move {
                let told = accepted.wait_for(Option::is_some);
                match tokio::time::timeout(patience, told).await {
                    Ok(Ok(uris)) => uris.clone().unwrap_or_default(),
                    _ => Vec::new(),
                }
            }
        });
        let mut all = futures_util::future::join_all(waits).await.concat();
        all.sort();
        all
    }

    /// The next resource that has changed.
    pub(super) async fn updated(&mut self) -> Update {
        let update = match &mut self.updates {
            Some((_, updates)) => updates.recv().await,
            None => None,
        };
        match update {
            Some(update) => update,
            // Nothing is followed. It is never none otherwise: a sender is kept.
            None => std::future::pending().await,
        }
    }
}

async fn follow(
    upstreams: Upstreams,
    request: Outbound,
    uris: Vec<String>,
    (updates, accepted): (mpsc::Sender<Update>, watch::Sender<Option<Vec<String>>>),
) {
    let of = |uri: String| (request.version.key.server.clone(), uri);
    let mut pause = PAUSE;
    loop {
        match upstreams.follow_resources(request.clone(), &uris).await {
            Ok(mut followed) => {
                pause = PAUSE;
                let before = accepted.send_replace(Some(followed.accepted().to_vec()));
                if before.is_some() {
                    // Nobody knows what has changed in between.
                    for uri in followed.accepted() {
                        if updates.send(of(uri.clone())).await.is_err() {
                            return;
                        }
                    }
                }
                while let Some(uri) = followed.next().await {
                    if updates.send(of(uri)).await.is_err() {
                        return;
                    }
                }
            }
            Err(refusal) => {
                tracing::debug!(server = %request.version.key, %refusal, "no subscription");
                // Whoever waits need not wait for the next attempt.
                accepted.send_if_modified(|told| {
                    let first = told.is_none();
                    told.get_or_insert_default();
                    first
                });
            }
        }
        tokio::select! {
            () = updates.closed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
