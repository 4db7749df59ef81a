//! Connections of nodes: accepted from a socket or a pipe, shaken hands with, each in its own
//! task, and handed to gRPC with the identity that the handshake proved.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use weir_model::bounds;
use weir_model::sync::identity::NodeId;
use weir_runtime::drain::Watch;
use weir_runtime::tls::{ServerCertificate, TlsError, peer_identity, provider};

use super::verify::Verifier;
use super::{Identity, Parts, ServeError};

/// The control plane's end of an in-memory network: every stream is a connection of a node.
pub type Pipe = mpsc::Receiver<DuplexStream>;

/// An in-memory network. The sender is the nodes' end.
pub fn pipe() -> (mpsc::Sender<DuplexStream>, Pipe) {
    mpsc::channel(16)
}

/// Who is at the other end; an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// None when it has shown no certificate.
    pub identity: Option<Identity>,
}

/// What the listener shows, replaced while it serves.
pub(super) struct Certificate(Arc<ServerCertificate>);

fn now(parts: &Parts) -> i64 {
    i64::try_from(parts.clock.now_secs()).unwrap_or(i64::MAX)
}

impl Certificate {
    pub(super) fn new(parts: &Parts) -> Result<Self, ServeError> {
        let (chain, key) = parts.ca.issue_listener(now(parts), bounds::PLANE_CERTIFICATE_SECS)?;
        Ok(Self(ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes())?))
    }

    pub(super) fn renew(&self, parts: &Parts) -> Result<(), ServeError> {
        let (chain, key) = parts.ca.issue_listener(now(parts), bounds::PLANE_CERTIFICATE_SECS)?;
        Ok(self.0.replace(chain.as_bytes(), key.as_bytes())?)
    }
}

/// Any byte stream.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// One connection after its handshake.
pub(super) struct Connection {
    stream: Box<dyn Bytes>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct Door {
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<io::Result<Connection>>,
    room: Arc<Semaphore>,
    /// Handshakes under way: when all nodes come at once, those that begin also end in time.
    shaking: Semaphore,
}

/// The stream of connections that have shaken hands.
pub(super) fn incoming(
    (tcp, pipe): (Option<TcpListener>, Option<Pipe>),
    certificate: &Certificate,
    parts: &Parts,
    drain: Watch,
) -> Result<impl Stream<Item = io::Result<Connection>> + use<>, ServeError> {
    let verifier = Verifier::new(parts.ca.certificate())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(
            Arc::clone(&certificate.0) as Arc<dyn rustls::server::ResolvesServerCert>
        );
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (ready, connections) = mpsc::channel(16);
    let door = Arc::new(Door {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        ready,
        room: Arc::new(Semaphore::new(bounds::CONNECTIONS_MAX)),
        shaking: Semaphore::new(bounds::SYNC_HANDSHAKES_MAX),
    });
    if let Some(tcp) = tcp {
        weir_runtime::task::spawn("sync-accept", accept_tcp(tcp, Arc::clone(&door), drain.clone()));
    }
    if let Some(pipe) = pipe {
        weir_runtime::task::spawn("sync-pipe", accept_pipe(pipe, door, drain));
    }
    Ok(ReceiverStream::new(connections))
}

async fn accept_tcp(tcp: TcpListener, door: Arc<Door>, drain: Watch) {
    loop {
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            () = drain.drained() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a node left at once");
                }
                door.admit(stream);
            }
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "a node's connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn accept_pipe(mut pipe: Pipe, door: Arc<Door>, drain: Watch) {
    loop {
        tokio::select! {
            stream = pipe.recv() => match stream {
                Some(stream) => door.admit(stream),
                // Nobody can connect any more, but those who have may stay.
                None => return drain.drained().await,
            },
            () = drain.drained() => return,
        }
    }
}

impl Door {
    /// Shakes hands in a task of its own, so that nobody holds up the others.
    fn admit(self: &Arc<Self>, stream: impl Bytes + 'static) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            tracing::warn!("too many nodes are connected; one was turned away");
            return;
        };
        let door = Arc::clone(self);
        weir_runtime::task::spawn("sync-handshake", async move {
            let limit = Duration::from_millis(bounds::SYNC_HANDSHAKE_MS);
            let Ok(turn) = door.shaking.acquire().await else { return };
            let shaken = tokio::time::timeout(limit, door.acceptor.accept(stream)).await;
            drop(turn);
            match shaken {
                Ok(Ok(stream)) => {
                    let certificates = stream.get_ref().1.peer_certificates();
                    let peer = Peer { identity: certificates.and_then(|c| identity(c.first()?)) };
                    let connection = Connection { stream: Box::new(stream), peer, _permit: permit };
                    // An error means that the service is over.
                    let _ = door.ready.send(Ok(connection)).await;
                }
                Ok(Err(error)) => tracing::warn!(%error, "a node's handshake failed"),
                Err(_) => tracing::warn!("a node's handshake took too long"),
            }
        });
    }
}

fn identity(certificate: &rustls::pki_types::CertificateDer<'_>) -> Option<Identity> {
    let peer = peer_identity(certificate).ok()?;
    let id = NodeId::parse_uri(peer.sole_uri()?)?;
    let not_after = i64::try_from(peer.not_after_ms / 1000).ok()?;
    Some(Identity { id, not_after })
}
