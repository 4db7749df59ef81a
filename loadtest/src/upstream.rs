//! The fast upstream: an MCP server that does as little as one can, in both eras.
//!
//! Written apart from the gateway's own protocol code, so that a shared mistake cannot hide. It
//! knows `initialize`, `server/discover`, `ping`, `tools/list`, `tools/call` of `echo` and of
//! `progress`, DELETE, and GET for a quiet stream. The path says what kind of server it is:
//!
//! - `/mcp`: both eras, no sessions;
//! - `/typed`: the same, and `echo` has an output schema and structured content;
//! - `/legacy`: up to 2025-11-25 only, with sessions that it checks;
//! - `/tools/N`: both eras, N tools.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

/// Largest request body.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most tools that a path may ask for.
const TOOLS_MAX: usize = 10_000;
/// In front of the numbers that are sessions.
const SESSION: &str = "fast-";

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallParams<'a> {
    name: String,
    #[serde(default)]
    arguments: Arguments,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    token: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    #[serde(default)]
    text: String,
    #[serde(default)]
    events: u32,
    #[serde(default)]
    every_ms: u32,
}

/// What kind of server a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    modern: bool,
    typed: bool,
    sessions: bool,
    tools: usize,
}

/// What all connections share.
struct Server {
    tools: usize,
    sessions: AtomicU64,
    /// Lists by kind, made once each.
    listings: Mutex<Vec<(Kind, Arc<str>)>>,
}

/// Answers until the process ends. `tools` is how many it lists where the path does not say.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, tools: usize) -> anyhow::Result<()> {
    let server = Arc::new(Server {
        tools: tools.clamp(1, TOOLS_MAX),
        sessions: AtomicU64::new(0),
        listings: Mutex::default(),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&server)));
            // A client that leaves is no event for a load generator's upstream.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

impl Server {
    fn kind(&self, path: &str) -> Option<Kind> {
        let plain = Kind { modern: true, typed: false, sessions: false, tools: self.tools };
        match path {
            "/mcp" => Some(plain),
            "/typed" => Some(Kind { typed: true, ..plain }),
            "/legacy" => Some(Kind { modern: false, sessions: true, ..plain }),
            _ => {
                let tools: usize = path.strip_prefix("/tools/")?.parse().ok()?;
                (1..=TOOLS_MAX).contains(&tools).then_some(Kind { tools, ..plain })
            }
        }
    }

    fn listing(&self, kind: Kind) -> Arc<str> {
        let mut listings = self.listings.lock();
        if let Some((_, listing)) = listings.iter().find(|(of, _)| *of == kind) {
            return Arc::clone(listing);
        }
        let tool = |at: usize| match at {
            0 => echo(kind.typed),
            1 => progress(),
            at => filler(at),
        };
        let listing: Arc<str> =
            json!((0..kind.tools).map(tool).collect::<Vec<_>>()).to_string().into();
        listings.push((kind, Arc::clone(&listing)));
        listing
    }
}

fn echo(typed: bool) -> serde_json::Value {
    let text = json!({"type": "object", "properties": {"text": {"type": "string"}},
        "required": ["text"], "additionalProperties": false});
    let mut tool = json!({
        "name": "echo",
        "description": "Gives back its text.",
        "inputSchema": text,
        "annotations": {"readOnlyHint": true, "idempotentHint": true},
    });
    if typed {
        tool["outputSchema"] = text;
    }
    tool
}

fn progress() -> serde_json::Value {
    json!({
        "name": "progress",
        "description": "Sends progress before it answers.",
        "inputSchema": {"type": "object", "properties": {
            "events": {"type": "integer", "minimum": 0, "maximum": 1000},
            "everyMs": {"type": "integer", "minimum": 0, "maximum": 10000}}},
    })
}

/// About 500 bytes, like a tool that somebody described.
fn filler(at: usize) -> serde_json::Value {
    json!({
        "name": format!("tool_{at}"),
        "description": "Looks something up in a system of record and gives back what was found, newest first. One of many tools of the load test's upstream.",
        "inputSchema": {"type": "object", "properties": {
            "query": {"type": "string", "description": "What to look for", "maxLength": 200},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}},
            "required": ["query"], "additionalProperties": false},
        "annotations": {"readOnlyHint": true, "idempotentHint": true},
    })
}

async fn answer(
    request: Request<Incoming>,
    server: Arc<Server>,
) -> Result<Response<Body>, Infallible> {
    let Some(kind) = server.kind(request.uri().path()) else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let session = header("mcp-session-id").and_then(|id| id.strip_prefix(SESSION)?.parse().ok());
    let known = session.is_some_and(|id: u64| id < server.sessions.load(Ordering::Relaxed));
    if *request.method() == Method::DELETE {
        return Ok(empty(StatusCode::OK));
    }
    if *request.method() == Method::GET {
        return Ok(match !kind.sessions || known {
            true => quiet(),
            false => empty(StatusCode::NOT_FOUND),
        });
    }
    if *request.method() != Method::POST {
        return Ok(empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    let modern = kind.modern && request.headers().contains_key("mcp-method");
    let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
        return Ok(empty(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let body = body.to_bytes();
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&body) else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    if kind.sessions && !known && envelope.method != "initialize" {
        return Ok(empty(StatusCode::NOT_FOUND));
    }
    Ok(reply(&envelope, kind, modern, &server))
}

fn reply(envelope: &Envelope<'_>, kind: Kind, modern: bool, server: &Server) -> Response<Body> {
    let Some(id) = envelope.id else { return empty(StatusCode::ACCEPTED) };
    let complete = if modern { r#""resultType":"complete","# } else { "" };
    let cache = if modern { r#""ttlMs":60000,"cacheScope":"public","# } else { "" };
    let info = r#"{"name":"weir-fast-upstream","version":"1"}"#;
    let result = match envelope.method.as_str() {
        "initialize" => {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"2025-11-25","capabilities":{{"tools":{{}}}},"serverInfo":{info}}}}}"#
            );
            let mut response = json_body(StatusCode::OK, body);
            if kind.sessions {
                let session = server.sessions.fetch_add(1, Ordering::Relaxed);
                let session = format!("{SESSION}{session}").parse().expect("visible ASCII");
                response.headers_mut().insert("mcp-session-id", session);
            }
            return response;
        }
        "server/discover" if kind.modern => format!(
            r#"{{{complete}{cache}"supportedVersions":["2026-07-28","2025-11-25"],"capabilities":{{"tools":{{}}}},"_meta":{{"io.modelcontextprotocol/serverInfo":{info}}}}}"#
        ),
        "ping" if !modern => "{}".to_owned(),
        "tools/list" => format!(r#"{{{complete}{cache}"tools":{}}}"#, server.listing(kind)),
        "tools/call" => {
            let params = envelope.params.map(|p| serde_json::from_str::<CallParams<'_>>(p.get()));
            match params {
                Some(Ok(call)) if call.name == "echo" => {
                    let text = json!(call.arguments.text);
                    let structured = match kind.typed {
                        true => format!(r#","structuredContent":{{"text":{text}}}"#),
                        false => String::new(),
                    };
                    format!(
                        r#"{{{complete}"content":[{{"type":"text","text":{text}}}]{structured}}}"#
                    )
                }
                Some(Ok(call)) if call.name == "progress" => {
                    return progressing(id, complete, &call);
                }
                _ => return error(id, -32602, "Unknown tool"),
            }
        }
        _ => return error(id, -32601, "Method not found"),
    };
    json_body(StatusCode::OK, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

/// Events at their pace, the first at once, and the answer after the last.
fn progressing(id: &RawValue, complete: &str, call: &CallParams<'_>) -> Response<Body> {
    let token = call.meta.as_ref().and_then(|meta| meta.token).map_or("null", RawValue::get);
    let events = call.arguments.events.min(1_000);
    let every = Duration::from_millis(u64::from(call.arguments.every_ms.min(10_000)));
    let token = token.to_owned();
    let last = format!(
        "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{{complete}\"content\":[{{\"type\":\"text\",\"text\":\"done\"}}]}}}}\n\n"
    );
    let events = stream::unfold(0, move |at| {
        let (token, last) = (token.clone(), last.clone());
        async move {
            if at > events {
                return None;
            }
            if at > 0 {
                tokio::time::sleep(every).await;
            }
            let event = match at < events {
                true => format!(
                    "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{token},\"progress\":{at},\"total\":{events}}}}}\n\n"
                ),
                false => last,
            };
            Some((Ok(Frame::data(Bytes::from(event))), at + 1))
        }
    });
    event_stream(StreamBody::new(events).boxed_unsync())
}

/// A stream on which nothing ever comes.
fn quiet() -> Response<Body> {
    event_stream(StreamBody::new(stream::pending()).boxed_unsync())
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = hyper::http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert("content-type", kind);
    response
}

fn error(id: &RawValue, code: i32, message: &str) -> Response<Body> {
    let status = if code == -32601 { StatusCode::NOT_FOUND } else { StatusCode::OK };
    let body =
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#);
    json_body(status, body)
}

fn json_body(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    let json = hyper::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    response
}
