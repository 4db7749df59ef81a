//! Connections to the control plane: over TCP, or through an in-memory pipe where both planes
//! run in one process. TLS, identities and the protocol are the same on both.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use weir_model::bounds;
use weir_model::sync::identity::PLANE_SERVER_NAME;
use weir_proto::sync::v1::sync_client::SyncClient;

/// Where a replica of the control plane is.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// `host:port`.
    Tcp(String),
    /// In this process.
    Pipe(mpsc::Sender<DuplexStream>),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Pipe(_) => f.write_str("in this process"),
        }
    }
}

/// Bytes that a pipe holds.
const PIPE_BYTES: usize = 256 * 1024;

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Speaks to one replica.
pub type Client = SyncClient<Channel>;

/// Connects, shakes hands, and gives a client. A replica that refuses our certificate shows with
/// the first call only.
pub(super) async fn connect(endpoint: &Endpoint, tls: Arc<ClientConfig>) -> Result<Client, String> {
    let endpoint = endpoint.clone();
    let open = move || {
        let endpoint = endpoint.clone();
        async move { endpoint.open().await }
    };
    connect_over(open, tls).await
}

/// The same over a stream of bytes that `open` makes.
///
/// # Errors
/// What went wrong, in a sentence: with the stream, the handshake or HTTP/2.
pub async fn connect_over<F, S>(
    open: impl Fn() -> F + Send + 'static,
    tls: Arc<ClientConfig>,
) -> Result<Client, String>
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connector = tower::service_fn(move |_| {
        let (stream, tls) = (open(), Arc::clone(&tls));
        async move { secured(stream.await?, tls).await.map(TokioIo::new) }
    });
    let limit = Duration::from_millis(bounds::CONNECT_MS);
    let channel = tonic::transport::Endpoint::from_static("http://control-plane.weir.internal")
        .connect_timeout(limit * 2)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|e| chain(&e))?;
    Ok(SyncClient::new(channel)
        .max_decoding_message_size(bounds::SYNC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(bounds::SYNC_MESSAGE_BYTES_MAX))
}

impl Endpoint {
    async fn open(&self) -> io::Result<Box<dyn Bytes>> {
        let limit = Duration::from_millis(bounds::CONNECT_MS);
        match self {
            Self::Tcp(address) => {
                let stream = tokio::time::timeout(limit, TcpStream::connect(address)).await??;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Pipe(pipe) => {
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                let gone = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody serves");
                tokio::time::timeout(limit, pipe.send(theirs)).await?.map_err(|_| gone())?;
                Ok(Box::new(ours))
            }
        }
    }
}

async fn secured<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tls: Arc<ClientConfig>,
) -> io::Result<tokio_rustls::client::TlsStream<S>> {
    let limit = Duration::from_millis(bounds::CONNECT_MS);
    let name = ServerName::try_from(PLANE_SERVER_NAME).map_err(io::Error::other)?;
    tokio::time::timeout(limit, TlsConnector::from(tls).connect(name, stream)).await?
}

/// An error with its causes. What went wrong in a handshake is only in the last of them.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
