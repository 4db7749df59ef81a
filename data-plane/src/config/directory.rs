//! Which other proxies there are: asked of the control plane every [`bounds::NEIGHBOURS_MS`].
//! While it cannot be reached, those that were known stay known.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use weir_model::bounds;
use weir_model::sync::identity::NodeId;
use weir_proto::sync::v1;
use weir_runtime::drain::Watch;
use weir_runtime::ready::Pending;

use super::{Identity, Options, link};
use crate::neighbours::Neighbours;

/// How long a proxy that starts waits for what the others know.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Directory {
    options: Options,
    identity: Arc<ArcSwap<Identity>>,
}

impl Directory {
    pub(super) fn new(options: Options, identity: Arc<ArcSwap<Identity>>) -> Self {
        Self { options, identity }
    }

    /// Asks until the drain. `pending` is dropped when the others were met for the first time, or
    /// that takes too long.
    pub async fn run(self, neighbours: Neighbours, pending: Pending, drain: Watch) {
        let Some(address) = neighbours.own_address().map(str::to_owned) else { return };
        let asking = self.ask(&neighbours, &address);
        let ready = async {
            let _ = tokio::time::timeout(PATIENCE, neighbours.settled()).await;
            drop(pending);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = asking => {}
            () = ready => {}
            () = drain.drained() => {}
        }
    }

    async fn ask(&self, neighbours: &Neighbours, address: &str) {
        let mut endpoints = self.options.endpoints.iter().cycle();
        let mut client = None;
        loop {
            let connected = match client.take() {
                Some(client) => Ok(client),
                None => {
                    let Some(endpoint) = endpoints.next() else { return };
                    self.connect(endpoint).await
                }
            };
            let asked = async {
                let mut connected = connected?;
                let request = v1::NeighboursRequest { address: address.to_owned() };
                let mut request = tonic::Request::new(request);
                request.set_timeout(Duration::from_millis(bounds::BUDGET_CALL_MS));
                let answer = connected.neighbours(request).await.map_err(|s| link::chain(&s))?;
                Ok::<_, String>((connected, answer.into_inner().neighbours))
            };
            match asked.await {
                Ok((connected, all)) => {
                    client = Some(connected);
                    neighbours.listed(all.into_iter().filter_map(read).collect());
                }
                Err(error) => tracing::debug!(error, "which proxies there are is not known now"),
            }
            tokio::time::sleep(Duration::from_millis(bounds::NEIGHBOURS_MS)).await;
        }
    }

    async fn connect(&self, endpoint: &link::Endpoint) -> Result<link::Client, String> {
        let tls = self.identity.load().tls().map_err(|error| error.to_string())?;
        link::connect(endpoint, tls).await
    }
}

fn read(one: v1::Neighbour) -> Option<(NodeId, String)> {
    let node = NodeId { region: one.region.parse().ok()?, node: one.node.parse().ok()? };
    Some((node, one.address))
}
