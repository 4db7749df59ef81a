//! The HTTP client of the back edge: guarded connector, rustls, pooled connections.
//!
//! One client has one setting of the guard. Never share a client between servers whose settings
//! differ: a pooled connection would carry one past the other's guard.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tower::Service;
use weir_model::bounds;

use super::direct::{Answered, Direct, Lost};
use super::guard::{GuardError, Guarded};
use crate::lanes;

/// A pooled client with whole request bodies, for any origin.
pub type HttpClient = Client<Connector, Full<Bytes>>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// Neither the system nor the settings have a root certificate.
    #[error("no root certificates: install the system's, or name a CA file in the settings")]
    NoRoots,
}

/// TLS towards upstreams: the system's roots and those of the settings.
///
/// # Errors
/// When no root certificate can be found or one of the settings is no certificate.
pub fn tls(extra_roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "a system root certificate cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    for extra in extra_roots {
        roots.add(extra.clone())?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The clients of one server, one per lane and made when it calls first: a call meets no other
/// thread on its way to the server and back.
#[derive(Debug)]
pub struct Clients {
    tls: Arc<ClientConfig>,
    allow_private: bool,
    lanes: Box<[OnceLock<OriginClient>]>,
}

impl Clients {
    /// For so many lanes.
    pub fn new(tls: &Arc<ClientConfig>, allow_private: bool, lanes: usize) -> Self {
        let lanes = (0..lanes.max(1)).map(|_| OnceLock::new()).collect();
        Self { tls: Arc::clone(tls), allow_private, lanes }
    }

    /// That of this lane. `server` has the origin that every request goes to.
    pub(crate) fn here(&self, server: &Uri) -> &OriginClient {
        let lane = &self.lanes[lanes::here() % self.lanes.len()];
        lane.get_or_init(|| match server.scheme_str() {
            Some("http") => OriginClient::Plain(Direct::new(Guarded::new(self.allow_private))),
            _ => OriginClient::Encrypted(Box::new(client(&self.tls, self.allow_private))),
        })
    }

    /// Closes plain connections that nobody used for a while. Encrypted ones close themselves.
    pub(crate) fn sweep(&self) {
        for lane in &self.lanes {
            if let Some(OriginClient::Plain(direct)) = lane.get() {
                direct.sweep();
            }
        }
    }
}

/// What requests to one origin go through. Clones share their connections.
#[derive(Debug, Clone)]
pub(crate) enum OriginClient {
    /// HTTP/1.1 without encryption.
    Plain(Direct),
    /// Over TLS, which also settles whether it is HTTP/2.
    Encrypted(Box<HttpClient>),
}

/// Why a request has no answer: the innermost cause.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// There was no connection: the request never left.
    Unconnected(String),
    /// The connection broke; the request may have been executed.
    Broken(String),
}

impl OriginClient {
    /// Sends a request and gives the answer, whose body is still to be read.
    pub(crate) async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Answered>, Unanswered> {
        match self {
            Self::Plain(direct) => direct.request(request).await.map_err(|lost| {
                let cause = root_cause(&lost);
                match lost {
                    Lost::Unconnected(_) => Unanswered::Unconnected(cause),
                    Lost::Broken(_) => Unanswered::Broken(cause),
                }
            }),
            Self::Encrypted(client) => {
                let answer = client.request(request).await.map_err(|error| {
                    let cause = root_cause(&error);
                    match error.is_connect() {
                        true => Unanswered::Unconnected(cause),
                        false => Unanswered::Broken(cause),
                    }
                })?;
                Ok(answer.map(Answered::from))
            }
        }
    }
}

/// Makes a client with a pool of its own.
pub fn client(tls: &Arc<ClientConfig>, allow_private: bool) -> HttpClient {
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(ClientConfig::clone(tls))
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(Guarded::new(allow_private));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_millis(bounds::IDLE_CONNECTION_MS))
        .pool_max_idle_per_host(bounds::UPSTREAM_IDLE_CONNECTIONS_MAX)
        .http1_max_buf_size(bounds::UPSTREAM_READ_BUFFER_BYTES)
        .http2_keep_alive_interval(Duration::from_millis(bounds::SSE_KEEPALIVE_MS))
        .http2_max_header_list_size(bounds::HEADER_BYTES_MAX as u32)
        .build(Connector { https })
}

/// TCP and TLS under one time limit.
#[derive(Debug, Clone)]
pub struct Connector {
    https: HttpsConnector<Guarded>,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().to_owned();
        let connect = self.https.call(uri);
        Box::pin(async move {
            let limit = Duration::from_millis(bounds::CONNECT_MS);
            match tokio::time::timeout(limit, connect).await {
                Ok(done) => done,
                Err(_) => Err(GuardError::Timeout(host).into()),
            }
        })
    }
}

/// The innermost cause of an error, where the useful sentence is.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error;
    while let Some(inner) = at.source() {
        // The guard's own sentences say more than the operating system's below them.
        if at.is::<GuardError>() {
            break;
        }
        at = inner;
    }
    at.to_string()
}
