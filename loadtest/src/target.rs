//! One endpoint: requests to it, the session it may need, and the check of its answers.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::http::{HeaderValue, request::Builder};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::scenario::{Target, Work};

/// The revisions that the tool speaks.
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// One open connection to a target, with its session where the revision has one.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
    authority: String,
    path: String,
    session: Option<HeaderValue>,
    next_id: u64,
}

impl Connection {
    /// Connects, and initializes a session unless the target is modern.
    ///
    /// # Errors
    /// When the target cannot be reached or refuses the session.
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        let uri: hyper::http::Uri = target.url.parse()?;
        let authority = uri.authority().context("the url has no host")?.to_string();
        let address = match uri.port_u16() {
            Some(_) => authority.clone(),
            None => format!("{authority}:80"),
        };
        let stream = TcpStream::connect(&address).await.context(address)?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The connection's task ends with the sender; its error shows at the next request.
        tokio::spawn(async move { connection.await.ok() });
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let mut this =
            Self { sender, target: target.clone(), authority, path, session: None, next_id: 0 };
        if !target.modern {
            this.initialize().await?;
        }
        Ok(this)
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    async fn initialize(&mut self) -> anyhow::Result<()> {
        self.session = None;
        let id = self.id();
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": {
            "protocolVersion": LEGACY, "capabilities": {},
            "clientInfo": {"name": "weir-loadtest", "version": env!("CARGO_PKG_VERSION")}}});
        let request = self.post().body(Full::new(body.to_string().into()))?;
        let response = self.send(request).await?;
        self.session = response.headers().get("mcp-session-id").cloned();
        let body = response.into_body().collect().await?.to_bytes();
        answer(&body, id).context("initialize")?;
        let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        let request = self.post().body(Full::new(note.into()))?;
        let response = self.send(request).await?;
        ensure!(response.status() == 202, "initialized was answered {}", response.status());
        response.into_body().collect().await?;
        Ok(())
    }

    /// Does the work once, and checks the answer.
    ///
    /// # Errors
    /// When the answer is not what the work must give.
    pub async fn run(&mut self, work: &Work, text: &str) -> anyhow::Result<()> {
        match work {
            Work::Call { tool, .. } => {
                let name = format!("{}{tool}", self.target.tool_prefix);
                let params = json!({"name": name, "arguments": {"text": text}});
                let result = self.request("tools/call", params, Some(&name)).await?;
                let echoed = result.pointer("/content/0/text").and_then(Value::as_str);
                ensure!(echoed == Some(text), "the tool answered {echoed:?}");
            }
            Work::List => {
                let result = self.request("tools/list", json!({}), None).await?;
                let tools = result.get("tools").and_then(Value::as_array);
                ensure!(tools.is_some_and(|t| !t.is_empty()), "no tools are listed");
            }
            Work::Session => {
                ensure!(!self.target.modern, "2026-07-28 has no sessions");
                self.initialize().await?;
                self.request("ping", json!({}), None).await?;
            }
        }
        Ok(())
    }

    async fn request(
        &mut self,
        method: &str,
        mut params: Value,
        name: Option<&str>,
    ) -> anyhow::Result<Value> {
        let id = self.id();
        let mut builder = self.post();
        if self.target.modern {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            builder = builder.header("mcp-method", method);
            if let Some(name) = name {
                builder = builder.header("mcp-name", name);
            }
        }
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let request = builder.body(Full::new(body.to_string().into()))?;
        let response = self.send(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        answer(&body, id).with_context(|| format!("{method} was answered {status}"))
    }

    /// The connection's own task may still be at the end of the last answer.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    fn post(&self) -> Builder {
        let revision = if self.target.modern { MODERN } else { LEGACY };
        let mut builder = Request::post(&self.path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", revision);
        if let Some(token) = &self.target.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        if let Some(session) = &self.session {
            builder = builder.header("mcp-session-id", session.clone());
        }
        builder
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// The `result` of a JSON or SSE body that answers `id`.
fn answer(body: &[u8], id: u64) -> anyhow::Result<Value> {
    let text = std::str::from_utf8(body)?;
    let json = if text.trim_start().starts_with('{') {
        text
    } else {
        let mut data = text.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim);
        data.rfind(|d| d.contains("\"id\"")).context("no answer in the stream")?
    };
    let mut message: Value = serde_json::from_str(json)?;
    if let Some(error) = message.get("error") {
        bail!("error {error}");
    }
    ensure!(message.get("id").and_then(Value::as_u64) == Some(id), "the answer has another id");
    Ok(message.get_mut("result").context("the answer has no result")?.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_in_json_and_in_streams() {
        let json = br#"{"jsonrpc":"2.0","id":3,"result":{"a":1}}"#;
        assert_eq!(answer(json, 3).expect("an answer"), json!({"a": 1}));
        let sse = b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"n\"}\n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}\n\n";
        assert_eq!(answer(sse, 3).expect("an answer"), json!({}));
        assert!(answer(json, 4).is_err());
        assert!(answer(br#"{"id":3,"error":{"code":1}}"#, 3).is_err());
    }
}
