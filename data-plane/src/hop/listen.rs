//! The answering side: a listener for nodes of this installation alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use weir_model::bounds;
use weir_model::sync::identity::NodeId;
use weir_runtime::drain::Watch;

use super::wire::{self, PATIENCE};
use super::{Body, Cut, Hop, ITSELF, Lost, tls};
use crate::config::State;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    /// Binds an address; port 0 picks one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await? })
    }

    /// The address in fact bound.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Answers other proxies to the very end: while this one drains, what it holds is still asked
    /// for through others.
    ///
    /// # Errors
    /// When this proxy has no certificate that can be shown.
    pub async fn serve(self, hop: Hop, config: Arc<State>, drain: Watch) -> anyhow::Result<()> {
        let identity = hop.0.identity.as_ref().context("the hop needs an enrolled node")?;
        let tls = TlsAcceptor::from(tls::server(identity).context("hop.address")?);
        let room = Arc::new(Semaphore::new(bounds::HOP_CONNECTIONS_MAX));
        loop {
            let (place, accepted) = tokio::select! {
                both = async {
                    let place = Arc::clone(&room).acquire_owned().await;
                    (place, self.socket.accept().await)
                } => both,
                () = drain.immediate() => return Ok(()),
            };
            let (Ok(place), Ok((socket, peer))) = (place, accepted) else {
                // Out of descriptors, most likely: connections that end make room.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (hop, tls, drain) = (hop.clone(), tls.clone(), drain.clone());
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                tokio::select! {
                    ended = connection(hop, config, tls, socket) => if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "a proxy's connection ended");
                    },
                    () = drain.immediate() => {}
                }
                drop(place);
            });
        }
    }
}

async fn connection(
    hop: Hop,
    config: Arc<State>,
    tls: TlsAcceptor,
    socket: TcpStream,
) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let limit = Duration::from_millis(bounds::HOP_CONNECT_MS);
    let stream = tokio::time::timeout(limit, tls.accept(socket)).await??;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let node = shown.and_then(tls::node_of).context("the certificate names no node")?;
    tracing::debug!(%node, "a proxy has connected");
    let service = service_fn(move |request: Request<Incoming>| {
        // Asked anew each time: a node may be cut off while it is connected.
        let revoked = config.current().revoked_nodes.contains(&node.node);
        let (hop, node) = (hop.clone(), node.clone());
        async move {
            Ok::<_, Infallible>(match revoked {
                true => wire::response(Err(Lost::Gone)),
                false => answer(&hop, &node, request).await,
            })
        }
    });
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds::HOP_STREAMS_MAX)
        .max_header_list_size(u32::try_from(bounds::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_millis(bounds::SSE_KEEPALIVE_MS))
        .keep_alive_timeout(Duration::from_millis(bounds::HOP_ANSWER_MS))
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn answer(hop: &Hop, from: &NodeId, request: Request<Incoming>) -> Response<Body> {
    let gone = || wire::response(Err(Lost::Gone));
    let Some(asked) = wire::asked(&request) else { return gone() };
    let itself = asked.holding == ITSELF;
    if asked.epoch != hop.0.epoch && !(itself && asked.epoch == ITSELF) {
        return gone();
    }
    let body = request.into_body().map_err(|_| Cut).boxed_unsync();
    let answer = if itself {
        let Some(neighbour) = hop.0.neighbour.get() else { return gone() };
        tokio::time::timeout(PATIENCE, neighbour.ask(from, &asked.verb, body)).await
    } else {
        let Some(holding) = hop.0.holdings.find(&asked.holding, &asked.owner) else {
            return gone();
        };
        tokio::time::timeout(PATIENCE, holding.ask(&asked.verb, body)).await
    };
    wire::response(match answer {
        Ok(answer) => answer.map_err(Lost::Refused),
        Err(_) => Err(Lost::Busy),
    })
}
