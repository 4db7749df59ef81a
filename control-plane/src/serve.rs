//! The socket of the REST API: TLS or plain, HTTP/1.1 and HTTP/2, bounded and drained.
//!
//! At most [`bounds::OPERATOR_CONNECTIONS_MAX`] connections; slow handshakes and headers are cut.
//! A drain finishes requests in flight. What a request means is not known here.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use weir_model::bounds;
use weir_runtime::drain::Watch;

use crate::api::Peer;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Listener {
    /// Binds an address; port 0 picks one. Without `tls` it speaks plain HTTP.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> std::io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, tls })
    }

    /// The address in fact bound.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the drain begins; requests in flight hold the drain up until they end.
    ///
    /// # Errors
    /// Never; a listener that cannot accept waits for descriptors.
    pub async fn serve(self, router: Router, drain: Watch) -> std::io::Result<()> {
        let connections = Arc::new(Semaphore::new(bounds::OPERATOR_CONNECTIONS_MAX));
        let tls = self.tls.map(TlsAcceptor::from);
        loop {
            let accept = async {
                let room = Arc::clone(&connections).acquire_owned().await;
                (room, self.socket.accept().await)
            };
            let (room, accepted) = tokio::select! {
                accepted = accept => accepted,
                () = drain.drained() => return Ok(()),
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (router, drain, tls) = (router.clone(), drain.clone(), tls.clone());
            tokio::spawn(async move {
                let _room = room;
                let _in_flight = drain.guard("operators' connections");
                connection(router, &drain, (socket, tls), peer).await;
            });
        }
    }
}

async fn connection(
    router: Router,
    drain: &Watch,
    (socket, tls): (TcpStream, Option<TlsAcceptor>),
    peer: SocketAddr,
) {
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else { return http(router, drain, socket, peer).await };
    let patience = Duration::from_millis(bounds::HEADER_READ_MS);
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(patience, tls.accept(socket)) => handshake,
        () = drain.drained() => return,
    };
    match handshake {
        Ok(Ok(stream)) => http(router, drain, stream, peer).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

async fn http<I>(router: Router, drain: &Watch, io: I, peer: SocketAddr)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(bounds::HEADER_READ_MS))
        .max_headers(bounds::HEADERS_MAX)
        .max_buf_size(bounds::HEADER_BYTES_MAX.max(64 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds::HTTP2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(bounds::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_millis(bounds::SSE_KEEPALIVE_MS))
        .keep_alive_timeout(Duration::from_millis(bounds::HEADER_READ_MS));
    let served = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut served = pin!(served);
    let mut draining = false;
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, error, "connection ended");
                }
                return;
            }
            () = drain.drained(), if !draining => {
                draining = true;
                served.as_mut().graceful_shutdown();
            }
            () = drain.immediate() => return,
        }
    }
}
