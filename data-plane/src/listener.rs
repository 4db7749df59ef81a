//! The sockets of the data plane: TLS, HTTP/1.1 and HTTP/2, and the limits of a connection.
//!
//! Promises: at most [`bounds::CONNECTIONS_MAX`] connections; a peer that is slow with its
//! handshake, its headers or its reading is cut ([`pace`]); certificates are replaced without
//! touching connections; a drain finishes calls in flight and ends everything else. What a request
//! means is not known here: each goes to [`call::serve`].

mod pace;
mod version;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use weir_model::bounds;
use weir_runtime::drain::{InFlight, Watch};

use crate::call::{self, Gateway, inbound::Conn};
use crate::lanes::{Lanes, Seat};
use pace::{Pace, Paced};

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    connections: Arc<Semaphore>,
    lanes: Lanes,
}

impl Listener {
    /// Binds an address; port 0 picks one. Without `tls` it speaks plain HTTP. Connections are
    /// served on the lanes.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        lanes: Lanes,
    ) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let connections = Arc::new(Semaphore::new(bounds::CONNECTIONS_MAX));
        Ok(Self { socket, tls, connections, lanes })
    }

    /// The address in fact bound.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the drain begins. Connections go on until their calls have ended; the drain
    /// waits for them.
    ///
    /// # Errors
    /// When the socket is lost.
    pub async fn serve(self, gateway: Arc<Gateway>) -> std::io::Result<()> {
        let drain = gateway.drain.clone();
        let loopback = self.address()?.ip().is_loopback();
        let tls = self.tls.map(TlsAcceptor::from);
        loop {
            let room = tokio::select! {
                room = Arc::clone(&self.connections).acquire_owned() => room,
                () = drain.drained() => return Ok(()),
            };
            let Ok(room) = room else { return Ok(()) };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = drain.drained() => return Ok(()),
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if lasting(&error) => return Err(error),
                Err(error) => {
                    // Out of descriptors, most likely: connections that end make room.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let conn = Conn { peer, loopback, tls: tls.is_some(), certificates: None };
            let seat = self.lanes.seat();
            let lane = seat.as_ref().map(|seat| seat.runtime().clone());
            let held = Held { _room: room, _seat: seat, _in_flight: drain.guard("connections") };
            // Away from this thread's poller: the lane's own wakes it from now on.
            let Ok(socket) = socket.into_std() else { continue };
            let task = serve_connection(Arc::clone(&gateway), conn, (socket, tls.clone()), held);
            lane.unwrap_or_else(Handle::current).spawn(task);
        }
    }
}

/// What a connection holds until it ends.
struct Held {
    _room: OwnedSemaphorePermit,
    _seat: Option<Seat>,
    _in_flight: InFlight,
}

/// True for errors of the listening socket itself, not of one connection.
fn lasting(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidInput, NotConnected, Unsupported};
    matches!(error.kind(), InvalidInput | NotConnected | Unsupported)
}

async fn serve_connection(
    gateway: Arc<Gateway>,
    conn: Conn,
    (socket, tls): (std::net::TcpStream, Option<TlsAcceptor>),
    held: Held,
) {
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let _ = socket.set_nodelay(true);
    match tls {
        None => http(gateway, conn, socket).await,
        // Boxed: what an encrypted connection needs is no part of a plain one.
        Some(tls) => Box::pin(encrypted(gateway, conn, (socket, tls))).await,
    }
    drop(held);
}

async fn encrypted(gateway: Arc<Gateway>, conn: Conn, (socket, tls): (TcpStream, TlsAcceptor)) {
    let drain = gateway.drain.clone();
    let patience = Duration::from_millis(bounds::HEADER_READ_MS);
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(patience, tls.accept(socket)) => handshake,
        () = drain.drained() => return,
    };
    match handshake {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates();
            let conn = Conn { certificates: shown.map(Into::into), ..conn };
            http(gateway, conn, stream).await;
        }
        Ok(Err(error)) => tracing::debug!(peer = %conn.peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(peer = %conn.peer, "TLS handshake took too long"),
    }
}

async fn http<I>(gateway: Arc<Gateway>, conn: Conn, socket: I)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (drain, peer, since) = (gateway.drain.clone(), conn.peer, Instant::now());
    let patience = Duration::from_millis(bounds::HEADER_READ_MS);
    let told = tokio::select! {
        told = tokio::time::timeout(patience, version::tell(socket)) => told,
        () = drain.drained() => return,
    };
    let (http2, begun) = match told {
        Ok(Ok(told)) => told,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "connection ended"),
        Err(_) => return tracing::debug!(%peer, "connection cut: idle or too slow"),
    };
    let pace = Pace::new(http2, since);
    let io = TokioIo::new(Paced::new(begun, Arc::clone(&pace)));
    let shared = Arc::new((gateway, conn));
    let busy = Arc::clone(&pace);
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        let busy = busy.busy();
        // Boxed: a connection does not keep the room of a call, nor does the stream that answers it.
        // In one piece of more than 8 KiB: a little smaller, it would be allocated where the buffers
        // of connections are, whose 8 KiB are used by half unless something else has used the rest.
        Box::pin(async move {
            let response = call::serve(&shared.0, &shared.1, request).await;
            Ok::<_, Infallible>(response.map(|body| pace::Held::new(body, busy)))
        })
    });
    let watch = (&drain, &*pace, peer);
    match http2 {
        false => drive(pin!(by_http1().serve_connection(io, service)), watch).await,
        true => {
            let connection = by_http2().serve_connection(io, service);
            drive(Box::pin(connection).as_mut(), watch).await;
        }
    }
}

/// Serves until the connection ends, or has to.
async fn drive<C>(mut connection: Pin<&mut C>, (drain, pace, peer): (&Watch, &Pace, SocketAddr))
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "connection ended");
                }
                return;
            }
            () = drain.drained(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = drain.immediate() => return,
            () = pace.exhausted() => {
                tracing::debug!(%peer, "connection cut: idle or too slow");
                return;
            }
        }
    }
}

fn by_http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Time-outs of headers and idleness are kept by the pace, which tells them apart.
        .header_read_timeout(None)
        // `HEADERS_MAX` is what hyper takes by itself; told so, it makes room anew for every request.
        .max_buf_size(2 * bounds::HEADER_BYTES_MAX)
        .max_header_size(bounds::HEADER_BYTES_MAX);
    builder
}

fn by_http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds::HTTP2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(bounds::HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(32)
        .keep_alive_interval(Duration::from_millis(bounds::SSE_KEEPALIVE_MS))
        .keep_alive_timeout(Duration::from_millis(bounds::HEADER_READ_MS));
    builder
}
