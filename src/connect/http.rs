//! HTTP to the gateway and to authorization servers: requests, whole bodies, event streams.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use data_plane::upstream::sse::{Event, Parser};
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use weir_model::bounds;

use crate::client::trusting;

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection without a sign of life for so long is tested by the system.
const ALIVE: Duration = Duration::from_secs(15);
/// Longest wait for the head of an answer: longer than any gateway lets a call run.
pub(super) const CALL: Duration = Duration::from_secs(600);
/// Longest wait for an answer that needs no upstream.
pub(super) const SHORT: Duration = Duration::from_secs(20);
/// Gateways send a keep-alive every 15 s: a stream that is silent for longer than this is dead.
const SILENCE: Duration = Duration::from_secs(90);

/// A client. Clones share connections.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The request certainly did not arrive.
    #[error("cannot connect: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("the connection broke: {0}")]
    Lost(String),
}

impl Http {
    pub(super) fn new(ca: Option<&Path>) -> anyhow::Result<Self> {
        weir_runtime::tls::install_provider();
        let tls = match ca {
            None => HttpsConnectorBuilder::new()
                .with_native_roots()
                .context("the system's authorities")?,
            Some(file) => HttpsConnectorBuilder::new().with_tls_config(trusting(file)?),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(ALIVE));
        tcp.set_keepalive_interval(Some(ALIVE / 3));
        let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(bounds::IDLE_CONNECTION_MS) / 2)
            .build(connector);
        Ok(Self { client })
    }

    /// Sends a request and waits for the head of its answer, `patience` at most.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Response<Incoming>, Failed> {
        match tokio::time::timeout(patience, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(Failed::NotSent(causes(&error))),
            Ok(Err(error)) => Err(Failed::Lost(causes(&error))),
            Err(_) => Err(Failed::Lost(format!("no answer within {} s", patience.as_secs()))),
        }
    }

    /// A request whose answer is short; status and body.
    pub(super) async fn short(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Failed> {
        let response = self.send(request, SHORT).await?;
        let (parts, body) = response.into_parts();
        Ok((parts.status, whole(body, bounds::JWKS_BYTES_MAX).await?))
    }

    /// GET of a JSON document.
    pub(super) async fn get(&self, url: &str) -> Result<(StatusCode, Bytes), Failed> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(url)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, super::USER_AGENT)
            .body(Full::default())
            .map_err(|_| Failed::NotSent(format!("{url} is no address")))?;
        self.short(request).await
    }
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    weir_runtime::telemetry::chain(error).to_string()
}

/// A body of at most `max` bytes.
pub(super) async fn whole(body: Incoming, max: usize) -> Result<Bytes, Failed> {
    let read = tokio::time::timeout(CALL, Limited::new(body, max).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Failed::Lost(error.to_string())),
        Err(_) => Err(Failed::Lost("the answer never ended".to_owned())),
    }
}

/// True when the answer is a stream of events.
pub(super) fn streams<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("text/event-stream")
}

/// An address that a token may travel to: `https`, or `http` within this machine; without user,
/// query or fragment.
pub(super) fn endpoint(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?;
    let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let scheme = uri.scheme_str()?;
    let plain = !url.contains('#') && uri.query().is_none();
    let nobody = !uri.authority()?.as_str().contains('@');
    ((scheme == "https" || scheme == "http" && local) && plain && nobody).then_some(uri)
}

/// `https://host:port` of an address.
pub(super) fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    format!("{}://{}", uri.scheme_str().unwrap_or("https"), authority.to_ascii_lowercase())
}

/// A stream of events that is being read.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Event>,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        let parser = Parser::new(bounds::UPSTREAM_MESSAGE_BYTES_MAX);
        Self { body, parser, ready: VecDeque::new() }
    }

    /// The next event; nothing once the stream has ended, however it did.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let frame = match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => return None,
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "a stream broke");
                    return None;
                }
                Err(_) => {
                    tracing::debug!("a stream fell silent");
                    return None;
                }
            };
            let Ok(bytes) = frame.into_data() else { continue };
            let ready = &mut self.ready;
            if let Err(error) = self.parser.push(&bytes, &mut |event| ready.push_back(event)) {
                tracing::warn!(%error, "a stream cannot be read");
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_travel_over_tls_or_within_this_machine() {
        for (url, fine) in [
            ("https://gw.example/acme/mcp", true),
            ("http://127.0.0.1:7777/acme/mcp", true),
            ("http://localhost/acme/mcp", true),
            ("http://gw.example/acme/mcp", false),
            ("http://127.0.0.1.evil.example/mcp", false),
            ("https://user@gw.example/mcp", false),
            ("https://gw.example/mcp?x=1", false),
            ("https://gw.example/mcp#x", false),
            ("file:///etc/passwd", false),
            ("acme/mcp", false),
        ] {
            assert_eq!(endpoint(url).is_some(), fine, "{url}");
        }
        let uri = endpoint("https://GW.example:8443/a").unwrap();
        assert_eq!(origin(&uri), "https://gw.example:8443");
    }
}
