//! What this proxy answers to the others.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};
use weir_model::sync::identity::NodeId;

use super::{MEET, SEEN, Said, TELL, Tiding};
use crate::call::elsewhere;
use crate::gateway::Gateway;
use crate::hop::{Body, Neighbour, streamed, whole};
use crate::mcp::level::Level;

/// The proxy, as the others see it.
#[derive(Debug)]
pub struct Answering(pub Weak<Gateway>);

#[async_trait]
impl Neighbour for Answering {
    async fn ask(&self, from: &NodeId, verb: &str, body: Body) -> Result<Body, Refusal> {
        let gateway = self.0.upgrade().ok_or(Reason::Internal)?;
        match verb {
            TELL => {
                hear(&gateway, from, body).await?;
                Ok(whole(Bytes::new()))
            }
            MEET => {
                hear(&gateway, from, body).await?;
                let pages = gateway.ended.pages(bounds::TIDINGS_AT_ONCE_MAX);
                let lines = pages.into_iter().map(|page| {
                    let mut line = serde_json::to_vec(&page).unwrap_or_default();
                    line.push(b'\n');
                    Ok(line.into())
                });
                Ok(streamed(futures_util::stream::iter(lines)))
            }
            SEEN => {
                let body = Limited::new(body, bounds::SEALED_BYTES_MAX).collect().await;
                let body = body.map_err(|_| Reason::InvalidRequest)?.to_bytes();
                let nonce = String::from_utf8_lossy(&body);
                let sighting = gateway.live.sighting(&nonce, gateway.now_secs());
                Ok(whole(serde_json::to_vec(&sighting).unwrap_or_default()))
            }
            elsewhere::VERB => elsewhere::take(gateway, from, body).await,
            _ => Err(Refusal::new(Reason::InvalidRequest, "not something between proxies")),
        }
    }
}

async fn hear(gateway: &Arc<Gateway>, from: &NodeId, body: Body) -> Result<(), Refusal> {
    let unreadable = || Refusal::new(Reason::InvalidRequest, "not what proxies tell each other");
    let body = Limited::new(body, 2 * bounds::TIDINGS_BYTES_MAX).collect().await;
    let body = body.map_err(|_| unreadable())?.to_bytes();
    let said: Said = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    if let Some(address) = said.address {
        gateway.neighbours.met(from, address);
    }
    let now = gateway.now_secs();
    for tiding in said.tidings {
        match tiding {
            Tiding::Ended(past) => gateway.ended.hear(&past, now),
            Tiding::Cancelled { session, request } => {
                gateway.in_flight.cancel(&session, &request);
            }
            Tiding::Level { session, level } => {
                if let Some(level) = Level::parse(&level) {
                    gateway.levels.set(&session, level);
                }
            }
            Tiding::Subscribed { session, uri, on } => {
                if gateway.subscriptions.set(&session, &uri, on).is_err() {
                    tracing::debug!("a session has too many subscriptions here");
                }
            }
        }
    }
    Ok(())
}
