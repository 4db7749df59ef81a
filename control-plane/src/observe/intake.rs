//! From the streams of nodes to catalogs and health: a bounded queue and one worker.
//!
//! What the store cannot take at the moment waits here; what does not fit into the queue is sent
//! again by its node, which forgets nothing until it is told that it was kept.

use std::time::Duration;

use tokio::sync::mpsc;
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::observation::{Observation, Seen};
use weir_model::resource::{Kind, ResourceKey, ResourceSet, Spec};
use weir_model::snapshot::UpstreamKey;
use weir_model::sync::identity::NodeId;

use super::{ObserveError, Observer, Version};
use crate::fleet::Fleet;

/// First and last pause while the store is not available.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(10);

type Done = Box<dyn FnOnce() + Send>;

/// Takes observations of all nodes. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    queue: mpsc::Sender<(NodeId, Observation, Done)>,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("room", &self.queue.capacity()).finish()
    }
}

impl Intake {
    /// An intake, and the worker that serves it until all clones are gone.
    pub fn new(observer: Observer, fleet: Fleet) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, work) = mpsc::channel(bounds::OBSERVE_QUEUE);
        (Self { queue }, Worker { observer, fleet }.run(work))
    }

    /// Takes what a node saw; `done` is called when it is kept. False when there is no room: then
    /// `done` is never called.
    pub fn take(
        &self,
        node: NodeId,
        observation: Observation,
        done: impl FnOnce() + Send + 'static,
    ) -> bool {
        self.queue.try_send((node, observation, Box::new(done))).is_ok()
    }
}

struct Worker {
    observer: Observer,
    fleet: Fleet,
}

impl Worker {
    async fn run(self, mut work: mpsc::Receiver<(NodeId, Observation, Done)>) {
        while let Some((node, observation, done)) = work.recv().await {
            let server = key_of(&observation);
            let mut pause = PAUSE_FIRST;
            while let Err(error) = self.keep(&node, &server, &observation.seen).await {
                tracing::warn!(%error, %server, "an observation waits for the store");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_LAST);
            }
            done();
        }
    }

    /// An error means that trying again may help.
    async fn keep(
        &self,
        node: &NodeId,
        server: &UpstreamKey,
        seen: &Seen,
    ) -> Result<(), ObserveError> {
        let health = match seen {
            Seen::Up => (true, None),
            Seen::Down(why) => (false, Some(why.clone())),
            Seen::Offer(offer) => {
                let newest = self.observer.author.newest();
                if !serves(&newest.borrow().set, &server.group, &node.region) {
                    tracing::warn!(%node, %server, "a report about a group of another region");
                    return Ok(());
                }
                let UpstreamKey { group, server: name, version } = server;
                let of = Version { group, server: name, version };
                match self.observer.offer(of, offer.clone()).await {
                    Ok(observed) => (true, told(&observed.dropped)),
                    // The server has gone meanwhile.
                    Err(ObserveError::Unknown(..)) => return Ok(()),
                    Err(error @ ObserveError::Unfit(_)) => (false, Some(error.to_string())),
                    Err(error) => return Err(error),
                }
            }
        };
        self.fleet.health(node, server, health);
        Ok(())
    }
}

/// Whether the proxies of a region have any business with a group.
fn serves(set: &ResourceSet, group: &Name, region: &Name) -> bool {
    let resource = set.get(&ResourceKey::global(Kind::Group, group.as_str()));
    match resource.map(|r| &r.spec) {
        Some(Spec::Group(group)) => group.regions.is_empty() || group.regions.contains(region),
        _ => false,
    }
}

fn key_of(observation: &Observation) -> UpstreamKey {
    let Observation { group, server, version, .. } = observation;
    UpstreamKey { group: group.clone(), server: server.clone(), version: version.clone() }
}

fn told(dropped: &[String]) -> Option<String> {
    let first = dropped.first()?;
    Some(format!("{} definitions are left out, the first: {first}", dropped.len()))
}
