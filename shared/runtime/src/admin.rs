//! The admin listener: is it alive, is it ready, what does it measure, how much does it log.
//!
//! - `GET /livez`: 200 while the process turns its wheels.
//! - `GET /readyz`: 200, or 503 with the names that are pending or `draining`.
//! - `GET /metrics`: OpenMetrics; `GET /metrics/names`: what there is, also where it is empty.
//! - `GET` and `PUT /loglevel`: the directives in force, as text.
//! - whatever JSON pages the plane mounts.
//!
//! It has no authentication, so it belongs on loopback or on a network of operators; nothing
//! that it shows is secret. Connections, headers and bodies are bounded.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::drain::Watch;
use crate::metrics::{self, Metrics};
use crate::ready::Ready;
use crate::task;
use crate::telemetry::LogLevel;

/// Connections at a time; probes and scrapers need a handful.
const CONNECTIONS_MAX: usize = 64;
/// Body of a `PUT`.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// Time for a request's headers, and for its whole exchange.
const HEADERS_WAIT: Duration = Duration::from_secs(5);
const EXCHANGE_WAIT: Duration = Duration::from_secs(60);

/// Computes a page when it is asked for.
pub type Page = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What the listener shows.
#[derive(Clone)]
pub struct Admin {
    ready: Ready,
    metrics: Metrics,
    level: Option<LogLevel>,
    watch: Watch,
    pages: BTreeMap<&'static str, Page>,
}

/// A bound listener.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    admin: Arc<Admin>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("pages", &self.pages.keys()).finish_non_exhaustive()
    }
}

impl Admin {
    /// Shows readiness and metrics; `level` is absent where no log subscriber is ours to change.
    pub fn new(ready: Ready, metrics: Metrics, level: Option<LogLevel>, watch: Watch) -> Self {
        Self { ready, metrics, level, watch, pages: BTreeMap::new() }
    }

    /// Mounts a JSON page.
    #[must_use]
    pub fn page(
        mut self,
        path: &'static str,
        page: impl Fn() -> serde_json::Value + Send + Sync + 'static,
    ) -> Self {
        self.pages.insert(path, Arc::new(page));
        self
    }

    /// Binds the address; port 0 picks one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(self, address: SocketAddr) -> std::io::Result<Bound> {
        let listener = TcpListener::bind(address).await?;
        Ok(Bound { listener, admin: Arc::new(self) })
    }

    /// Answers one request.
    async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: hyper::body::Body + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::PUT, "/loglevel") => self.set_level(request.into_body()).await,
            (&Method::GET | &Method::HEAD, path) => self.show(path),
            _ => {
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, PUT"));
                answer
            }
        }
    }

    fn show(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => {
                let mut answer = text(StatusCode::OK, self.metrics.render());
                let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                answer
            }
            "/metrics/names" => json(StatusCode::OK, &serde_json::json!(self.metrics.catalogue())),
            "/loglevel" => match &self.level {
                Some(level) => text(StatusCode::OK, level.get() + "\n"),
                None => text(StatusCode::NOT_FOUND, "logs are not set up by this process\n"),
            },
            other => match self.pages.get(other) {
                Some(page) => json(StatusCode::OK, &page()),
                None => json(StatusCode::NOT_FOUND, &self.index()),
            },
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let mut pending = self.ready.pending();
        if self.watch.is_draining() {
            pending.push("draining".to_owned());
        }
        let ready = pending.is_empty();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, &serde_json::json!({ "ready": ready, "pending": pending }))
    }

    fn index(&self) -> serde_json::Value {
        let fixed = ["/livez", "/readyz", "/metrics", "/metrics/names", "/loglevel"];
        let paths: Vec<&str> = fixed.into_iter().chain(self.pages.keys().copied()).collect();
        serde_json::json!({ "error": "no such page", "pages": paths })
    }

    async fn set_level<B>(&self, body: B) -> Response<Full<Bytes>>
    where
        B: hyper::body::Body + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(level) = &self.level else { return self.show("/loglevel") };
        let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
            return text(StatusCode::BAD_REQUEST, "send the directives as a short text\n");
        };
        let body = body.to_bytes();
        let Ok(directives) = std::str::from_utf8(&body) else {
            return text(StatusCode::BAD_REQUEST, "send UTF-8\n");
        };
        match level.set(directives.trim()) {
            Ok(()) => {
                tracing::info!(directives = directives.trim(), "log level changed");
                text(StatusCode::OK, level.get() + "\n")
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

impl Bound {
    /// The address in fact bound.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until patience is over: probes see the drain while calls in flight end.
    pub async fn serve(self) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let watch = self.admin.watch.clone();
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = watch.immediate() => return,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors: give others a moment to return theirs.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let admin = Arc::clone(&self.admin);
            task::spawn("admin connection", async move {
                serve_connection(admin, stream).await;
                drop(permit);
            });
        }
    }
}

async fn serve_connection(admin: Arc<Admin>, stream: tokio::net::TcpStream) {
    let watch = admin.watch.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A peer that breaks off is its own affair.
        _ = connection => {}
        () = tokio::time::sleep(EXCHANGE_WAIT) => {}
        () = watch.immediate() => {}
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut answer = text(status, value.to_string() + "\n");
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests;
