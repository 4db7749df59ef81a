//! The floor: a proxy that reads the envelope, looks the tool up, and passes the body on.
//!
//! It has no sessions, no identity, no rules, no log and no metrics. What it costs is what any
//! gateway written on hyper must cost on this machine.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use tokio::net::TcpListener;

/// Largest body, either way.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Streams pass through as they come.
type Body = Either<Full<Bytes>, Incoming>;

#[derive(Deserialize)]
struct Envelope<'a> {
    method: Option<&'a str>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    name: Option<&'a str>,
}

struct Floor {
    client: Client<HttpConnector, Full<Bytes>>,
    to: Uri,
    tools: HashSet<&'static str>,
}

/// Proxies to `to` until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, to: Uri) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let floor = Arc::new(Floor { client, to, tools: HashSet::from(["echo", "progress"]) });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let floor = Arc::clone(&floor);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let floor = Arc::clone(&floor);
                async move {
                    let answer = floor.pass(request).await.unwrap_or_else(|_| {
                        let mut response = Response::new(Either::Left(Full::default()));
                        *response.status_mut() = StatusCode::BAD_GATEWAY;
                        response
                    });
                    Ok::<_, Infallible>(answer)
                }
            });
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

impl Floor {
    async fn pass(&self, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let body = whole(body).await?;
        if !body.is_empty() {
            let envelope: Envelope<'_> = serde_json::from_slice(&body)?;
            anyhow::ensure!(envelope.method.is_some(), "a request has a method");
            let tool = envelope.params.and_then(|params| params.name);
            anyhow::ensure!(tool.is_none_or(|tool| self.tools.contains(tool)), "no such tool");
        }
        parts.uri = self.to.clone();
        parts.headers.remove("host");
        let response = self.client.request(Request::from_parts(parts, Full::new(body))).await?;
        let (parts, body) = response.into_parts();
        let kind = parts.headers.get("content-type").map(|value| value.as_bytes());
        let body = match kind {
            Some(b"text/event-stream") => Either::Right(body),
            _ => Either::Left(Full::new(whole(body).await?)),
        };
        Ok(Response::from_parts(parts, body))
    }
}

async fn whole(body: Incoming) -> anyhow::Result<Bytes> {
    let whole = Limited::new(body, BODY_BYTES_MAX).collect().await;
    Ok(whole.map_err(anyhow::Error::from_boxed)?.to_bytes())
}
