//! A server that answers as a test tells it, and remembers what it was asked.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// `Null` for an empty body.
    pub(super) body: Value,
    pub(super) raw: Bytes,
}

impl Asked {
    pub(super) fn rpc(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What it answers.
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: mpsc::Receiver<Bytes>,
    /// Keeps the stream open for as long as the test holds the other half.
    pub(super) feed: Option<mpsc::Sender<Bytes>>,
}

impl Reply {
    pub(super) fn new(status: u16, kind: &str, body: impl Into<String>) -> Self {
        let (sender, receiver) = mpsc::channel(16);
        let body: String = body.into();
        if !body.is_empty() {
            sender.try_send(body.into()).expect("room");
        }
        let headers = vec![("content-type", kind.to_owned())];
        Self { status, headers, body: receiver, feed: Some(sender) }
    }
    pub(super) fn json(body: impl Into<String>) -> Self {
        Self::new(200, "application/json", body).closed()
    }
    pub(super) fn status(status: u16) -> Self {
        Self::new(status, "text/plain", "").closed()
    }
    pub(super) fn sse(body: impl Into<String>) -> Self {
        Self::new(200, "text/event-stream; charset=utf-8", body)
    }
    /// Ends after what was given.
    pub(super) fn closed(mut self) -> Self {
        self.feed = None;
        self
    }
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
    /// A result for the request.
    pub(super) fn result(asked: &Asked, result: &str) -> Self {
        Self::json(rpc_result(asked, result))
    }
    /// An error for the request, or for none.
    pub(super) fn error(status: u16, id: &Value, code: i64, message: &str) -> Self {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#
        );
        Self::new(status, "application/json", body).closed()
    }
}

pub(super) fn rpc_result(asked: &Asked, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, asked.body["id"])
}

/// One SSE event.
pub(super) fn event(data: &str) -> String {
    format!("event: message\ndata: {data}\n\n")
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// The running server; gone when dropped.
pub(super) struct Fake {
    pub(super) url: String,
    pub(super) asked: Arc<Mutex<Vec<Asked>>>,
    pub(super) connections: Arc<AtomicUsize>,
    /// Streams whose reader has gone.
    pub(super) left: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(super) async fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}/mcp", listener.local_addr().expect("address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let left = Arc::new(AtomicUsize::new(0));
        let state = (Arc::clone(&asked), Arc::clone(&left), Arc::new(handler) as Arc<Handler>);
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let state = state.clone();
                running.spawn(async move {
                    let service = service_fn(move |request| answer(state.clone(), request));
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, asked, connections, left, task }
    }

    /// The requests of that JSON-RPC method so far.
    pub(super) fn seen(&self, rpc: &str) -> Vec<Asked> {
        self.asked.lock().iter().filter(|asked| asked.rpc() == rpc).cloned().collect()
    }

    pub(super) fn methods(&self) -> Vec<String> {
        self.asked
            .lock()
            .iter()
            .map(|asked| match asked.rpc() {
                "" => asked.method.to_string(),
                rpc => rpc.to_owned(),
            })
            .collect()
    }
}

type State = (Arc<Mutex<Vec<Asked>>>, Arc<AtomicUsize>, Arc<Handler>);

async fn answer(
    (asked, left, handler): State,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let raw = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = serde_json::from_slice(&raw).unwrap_or(Value::Null);
    let path = head.uri.to_string();
    let one = Asked { method: head.method, path, headers: head.headers, body, raw };
    asked.lock().push(one.clone());
    let reply = handler(&one);
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let gone = Gone(left, reply.feed);
    let stream = futures_util::stream::unfold((reply.body, gone), |(mut body, gone)| async move {
        let next = body.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(next)), (body, gone)))
    });
    Ok(response.body(BodyExt::boxed_unsync(StreamBody::new(stream.boxed()))).expect("legal"))
}

/// Counts streams that were dropped while they were kept open.
struct Gone(Arc<AtomicUsize>, Option<mpsc::Sender<Bytes>>);

impl Drop for Gone {
    fn drop(&mut self) {
        if self.1.is_some() {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}
