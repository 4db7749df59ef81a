//! The asking side: one HTTP/2 connection per proxy that has been asked, kept while it is good.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weir_model::bounds;
use weir_model::sync::identity::NodeId;

use super::wire::{self, PATIENCE, REFUSAL_BYTES_MAX};
use super::{Ask, Body, Cut, Holder, Lost, tls};
use crate::config::Identity;

/// Connections by address and node.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<HashMap<(String, String), Arc<Peer>>>);

#[derive(Debug, Default)]
struct Peer {
    /// Locked while one asker connects and the others wait for it.
    connection: tokio::sync::Mutex<Option<SendRequest<Body>>>,
}

impl Peers {
    pub(super) async fn ask(
        &self,
        own: &Identity,
        (holder, address): (&Holder, &str),
        ask: Ask,
    ) -> Result<Body, Lost> {
        let unreachable = |why: String| Lost::Unreachable(why);
        let peer = self.peer(holder, address)?;
        let mut sender = peer.sender(own, (holder, address)).await.map_err(unreachable)?;
        let request = wire::request(holder, ask).map_err(|e| unreachable(e.to_string()))?;
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request));
        let answer = answer.await.map_err(|_| unreachable("it took too long".to_owned()))?;
        let answer = answer.map_err(|e| unreachable(e.to_string()))?;
        let status = answer.status().as_u16();
        let body = answer.into_body();
        match status {
            200 => Ok(body.map_err(|_| Cut).boxed_unsync()),
            404 => Err(Lost::Gone),
            422 => {
                let told = Limited::new(body, REFUSAL_BYTES_MAX).collect();
                let told = tokio::time::timeout(PATIENCE, told).await;
                let told = told.ok().and_then(Result::ok).map(|body| body.to_bytes());
                Err(Lost::Refused(wire::told(&told.unwrap_or_default())))
            }
            503 => Err(Lost::Busy),
            other => Err(unreachable(format!("it answered {other}"))),
        }
    }

    fn peer(&self, holder: &Holder, address: &str) -> Result<Arc<Peer>, Lost> {
        let mut peers = self.0.lock();
        let key = (address.to_owned(), holder.node.clone());
        if let Some(peer) = peers.get(&key) {
            return Ok(Arc::clone(peer));
        }
        if peers.len() >= bounds::HOP_PEERS_MAX {
            // Those that are connected stay; the rest can be made again.
            peers.retain(|_, peer| peer.alive());
        }
        if peers.len() >= bounds::HOP_PEERS_MAX {
            return Err(Lost::Busy);
        }
        let peer = Arc::<Peer>::default();
        peers.insert(key, Arc::clone(&peer));
        Ok(peer)
    }
}

impl Peer {
    fn alive(&self) -> bool {
        match self.connection.try_lock() {
            Ok(connection) => connection.as_ref().is_some_and(|sender| !sender.is_closed()),
            // Somebody connects.
            Err(_) => true,
        }
    }

    async fn sender(
        &self,
        own: &Identity,
        (holder, address): (&Holder, &str),
    ) -> Result<SendRequest<Body>, String> {
        let limit = Duration::from_millis(bounds::HOP_CONNECT_MS);
        let late = |_| "no connection in time".to_owned();
        let connected = async {
            let mut connection = self.connection.lock().await;
            if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
                return Ok(sender.clone());
            }
            let sender = connect(own, holder, address).await?;
            *connection = Some(sender.clone());
            Ok(sender)
        };
        tokio::time::timeout(limit, connected).await.map_err(late)?
    }
}

async fn connect(
    own: &Identity,
    holder: &Holder,
    address: &str,
) -> Result<SendRequest<Body>, String> {
    let told = |e: &dyn std::fmt::Display| e.to_string();
    let (region, node) = holder.node.split_once('/').ok_or("its node has no name")?;
    let bad = |_| "its node has no name".to_owned();
    let wanted = NodeId { region: region.parse().map_err(bad)?, node: node.parse().map_err(bad)? };
    let tls = tls::client(own, wanted).map_err(|e| told(&e))?;
    let socket = TcpStream::connect(address).await.map_err(|e| told(&e))?;
    socket.set_nodelay(true).map_err(|e| told(&e))?;
    let name = ServerName::try_from(tls::SERVER_NAME).map_err(|e| told(&e))?;
    let stream = TlsConnector::from(tls).connect(name, socket).await.map_err(|e| told(&e))?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(bounds::SSE_KEEPALIVE_MS))
        .keep_alive_timeout(Duration::from_millis(bounds::HOP_ANSWER_MS))
        .max_header_list_size(u32::try_from(bounds::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| told(&e))?;
    let node = holder.node.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(node, %error, "the connection to another proxy ended");
        }
    });
    Ok(sender)
}
