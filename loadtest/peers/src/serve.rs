//! Puts a server on stdio or on Streamable HTTP, for both eras of the protocol.
//!
//! Over HTTP it can demand a bearer token: whoever reaches it through the gateway proves by that
//! alone that the gateway attached the credential, because no agent knows it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, ServiceExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves one client on stdin and stdout, until stdin ends.
///
/// # Errors
/// When the client does not begin as the protocol demands, or the task dies.
pub async fn stdio<S: ServerHandler>(server: S) -> anyhow::Result<()> {
    let running = server.serve(rmcp::transport::stdio()).await?;
    running.waiting().await?;
    Ok(())
}

/// A server over HTTP that runs until it is dropped or stopped.
#[derive(Debug)]
pub struct HttpServer {
    /// Its MCP endpoint.
    pub url: String,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl HttpServer {
    /// Waits until the server ends by itself.
    ///
    /// # Errors
    /// When its listener fails.
    pub async fn wait(mut self) -> anyhow::Result<()> {
        (&mut self.task).await??;
        Ok(())
    }

    /// Ends all sessions and closes the listener.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves on `listen` (port 0 picks a free one) at `/mcp`. With `token`, every request must
/// carry it as a bearer token.
///
/// # Errors
/// When the address cannot be bound.
pub async fn http<S, F>(
    make: F,
    listen: &str,
    token: Option<String>,
    stop: CancellationToken,
) -> anyhow::Result<HttpServer>
where
    S: ServerHandler,
    F: Fn() -> S + Send + Sync + 'static,
{
    http_demanding(make, listen, Demands { token, eras: Eras::Both }, stop).await
}

/// What requests must have to be served.
#[derive(Debug, Clone, Default)]
pub struct Demands {
    /// A bearer token.
    pub token: Option<String>,
    /// A generation of the protocol.
    pub eras: Eras,
}

/// Which generations of clients are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Eras {
    /// All.
    #[default]
    Both,
    /// Up to 2025-11-25: stateless requests meet somebody who never heard of them.
    Legacy,
    /// 2026-07-28: there is no handshake.
    Modern,
}

/// As [`http`], with more to demand.
///
/// # Errors
/// When the address cannot be bound.
pub async fn http_demanding<S, F>(
    make: F,
    listen: &str,
    demands: Demands,
    stop: CancellationToken,
) -> anyhow::Result<HttpServer>
where
    S: ServerHandler,
    F: Fn() -> S + Send + Sync + 'static,
{
    let listener = TcpListener::bind(listen).await.with_context(|| format!("bind {listen}"))?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let config = StreamableHttpServerConfig::default()
        .with_allowed_origins(["http://localhost:*", "http://127.0.0.1:*"])
        .with_cancellation_token(stop.child_token());
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(make()), sessions, config);
    let router = axum::Router::new()
        .nest_service("/mcp", service)
        .layer(middleware::from_fn_with_state(Arc::new(demands), demand));
    let ended = stop.clone();
    let task = tokio::spawn(async move {
        let serving = axum::serve(listener, router);
        // Sessions of agents that stay connected must not keep the process: no graceful wait.
        tokio::select! {
            served = serving => served,
            () = ended.cancelled() => Ok(()),
        }
    });
    Ok(HttpServer { url, stop, task })
}

async fn demand(State(demands): State<Arc<Demands>>, request: Request, next: Next) -> Response {
    let value = |request: &Request, name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned).unwrap_or_default()
    };
    if let Some(token) = &demands.token
        && value(&request, "authorization").strip_prefix("Bearer ") != Some(token)
    {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"demo\"")];
        return (StatusCode::UNAUTHORIZED, challenge, "a bearer token is needed\n").into_response();
    }
    let stateless = value(&request, "mcp-protocol-version").as_str() >= "2026";
    match (demands.eras, stateless) {
        (Eras::Legacy, true) => refused(-32000, "Bad Request: Unsupported protocol version", None),
        (Eras::Modern, false) => {
            let data = serde_json::json!({ "supported": ["2026-07-28"] });
            refused(-32022, "Unsupported protocol version", Some(data))
        }
        _ => next.run(request).await,
    }
}

/// As servers of the kind refuse what they do not speak.
fn refused(code: i32, message: &str, data: Option<serde_json::Value>) -> Response {
    let mut error = serde_json::json!({ "code": code, "message": message });
    if let Some(data) = data {
        error["data"] = data;
    }
    let body = serde_json::json!({ "jsonrpc": "2.0", "id": null, "error": error });
    (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
}

/// Writes `{"url": ...}` to a file that exists only once it is complete.
///
/// # Errors
/// When the file cannot be written.
pub fn write_ready(file: &Path, url: &str) -> anyhow::Result<()> {
    let partial = file.with_extension("partial");
    std::fs::write(&partial, serde_json::json!({ "url": url }).to_string())
        .with_context(|| format!("write {}", partial.display()))?;
    std::fs::rename(&partial, file).with_context(|| format!("write {}", file.display()))
}

/// Ends with SIGTERM or Ctrl-C.
pub async fn told_to_stop() {
    let term = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = term => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
