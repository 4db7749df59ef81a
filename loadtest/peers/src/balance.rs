//! A load balancer that knows nothing of MCP: each HTTP request goes to the next target in turn.
//!
//! Behind it, whatever a proxy keeps to itself shows at once. Bodies stream both ways; whoever
//! leaves on one side is seen to have left on the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::uri::{Authority, Scheme};
use http::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

#[derive(Debug)]
struct Balancer {
    targets: Vec<Authority>,
    turn: AtomicUsize,
    client: Client<HttpConnector, Body>,
}

/// Serves on `listener` until the task is dropped. Targets are `HOST:PORT`.
///
/// # Errors
/// When there is no target, or one is no address, or the listener fails.
pub async fn serve(listener: TcpListener, targets: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(!targets.is_empty(), "give at least one target");
    let parse = |target: &String| target.parse().with_context(|| format!("target {target}"));
    let balancer = Balancer {
        targets: targets.iter().map(parse).collect::<Result<_, _>>()?,
        turn: AtomicUsize::new(0),
        client: Client::builder(TokioExecutor::new()).build_http(),
    };
    let router = axum::Router::new().fallback(pass).with_state(Arc::new(balancer));
    Ok(axum::serve(listener, router).await?)
}

async fn pass(State(balancer): State<Arc<Balancer>>, mut request: Request) -> Response {
    let turn = balancer.turn.fetch_add(1, Ordering::Relaxed) % balancer.targets.len();
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(balancer.targets[turn].clone());
    let Ok(uri) = Uri::from_parts(parts) else { return StatusCode::BAD_REQUEST.into_response() };
    *request.uri_mut() = uri;
    match balancer.client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            tracing::warn!(%error, target = %balancer.targets[turn], "a target did not answer");
            StatusCode::BAD_GATEWAY.into_response()
        }
    }
}
