//! The fast upstream: an MCP server that does as little as one can, in both eras.
//!
//! Written apart from the gateway's own protocol code, so that a shared mistake cannot hide. It
//! knows `initialize`, `server/discover`, `ping`, `tools/list` and `tools/call` of `echo`.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

/// Largest request body.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallParams {
    name: String,
    #[serde(default)]
    arguments: Arguments,
}

#[derive(Deserialize, Default)]
struct Arguments {
    #[serde(default)]
    text: String,
}

/// Answers until the process ends. `tools` is how many it lists.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, tools: usize) -> anyhow::Result<()> {
    let listing: Arc<str> = listing(tools).into();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let listing = Arc::clone(&listing);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&listing)));
            // A client that leaves is no event for a load generator's upstream.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

fn listing(tools: usize) -> String {
    let tool = |at: usize| {
        json!({
            "name": if at == 0 { "echo".to_owned() } else { format!("tool_{at}") },
            "description": "Gives back its text. One of many tools of the load test's upstream.",
            "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}},
                "required": ["text"], "additionalProperties": false},
            "annotations": {"readOnlyHint": true, "idempotentHint": true},
        })
    };
    json!((0..tools.max(1)).map(tool).collect::<Vec<_>>()).to_string()
}

async fn answer(
    request: Request<Incoming>,
    listing: Arc<str>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::DELETE {
        return Ok(empty(StatusCode::OK));
    }
    if request.method() != Method::POST {
        return Ok(empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    let modern = request.headers().contains_key("mcp-method");
    let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
        return Ok(empty(StatusCode::PAYLOAD_TOO_LARGE));
    };
    Ok(reply(&body.to_bytes(), modern, &listing))
}

fn reply(body: &[u8], modern: bool, listing: &str) -> Response<Full<Bytes>> {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(body) else {
        return empty(StatusCode::BAD_REQUEST);
    };
    let Some(id) = envelope.id else { return empty(StatusCode::ACCEPTED) };
    let kind = if modern { r#""resultType":"complete","# } else { "" };
    let cache = if modern { r#""ttlMs":60000,"cacheScope":"public","# } else { "" };
    let info = r#"{"name":"weir-fast-upstream","version":"1"}"#;
    let result = match envelope.method.as_str() {
        "initialize" => format!(
            r#"{{"protocolVersion":"2025-11-25","capabilities":{{"tools":{{}}}},"serverInfo":{info}}}"#
        ),
        "server/discover" => format!(
            r#"{{{kind}{cache}"supportedVersions":["2026-07-28","2025-11-25"],"capabilities":{{"tools":{{}}}},"_meta":{{"io.modelcontextprotocol/serverInfo":{info}}}}}"#
        ),
        "ping" if !modern => "{}".to_owned(),
        "tools/list" => format!(r#"{{{kind}{cache}"tools":{listing}}}"#),
        "tools/call" => {
            let params = envelope.params.map(|p| serde_json::from_str::<CallParams>(p.get()));
            match params {
                Some(Ok(call)) if call.name == "echo" => {
                    let text = json!(call.arguments.text);
                    format!(r#"{{{kind}"content":[{{"type":"text","text":{text}}}]}}"#)
                }
                _ => return error(id, -32602, "Unknown tool"),
            }
        }
        _ => return error(id, -32601, "Method not found"),
    };
    json_body(StatusCode::OK, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

fn error(id: &RawValue, code: i32, message: &str) -> Response<Full<Bytes>> {
    let status = if code == -32601 { StatusCode::NOT_FOUND } else { StatusCode::OK };
    let body =
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#);
    json_body(status, body)
}

fn json_body(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let json = hyper::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
