//! One endpoint: requests to it, the session it may need, and the check of its answers.

use std::borrow::Cow;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::http::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::net::TcpStream;

use crate::era::Era;
use crate::events::Events;
use crate::plan::{Target, Work};
use crate::push::Push;

/// What is sent before `params`.
const INFO: &str =
    concat!(r#"{"name":"weir-loadtest","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// One open connection to a target, with its session where the revision has one.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
    era: Era,
    fixed: Fixed,
    session: Option<HeaderValue>,
    push: Option<Push>,
    next_id: u64,
}

/// What every request of a connection has.
#[derive(Debug)]
struct Fixed {
    host: HeaderValue,
    path: String,
    token: Option<HeaderValue>,
}

/// A JSON-RPC response, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Answer<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallResult<'a> {
    #[serde(borrow)]
    content: Vec<Content<'a>>,
    #[serde(rename = "isError", default)]
    is_error: bool,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ListResult {
    tools: Vec<IgnoredAny>,
    #[serde(rename = "nextCursor")]
    next_cursor: Option<String>,
}

/// Opens a bare connection to where a URL leads.
///
/// # Errors
/// When nobody listens there.
pub async fn connect(uri: &hyper::http::Uri) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let authority = uri.authority().context("the url has no host")?;
    let address = format!("{}:{}", authority.host(), uri.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(&address).await.context(address)?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection's task ends with the sender; its error shows at the next request.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

impl Connection {
    /// Connects, and starts a session where the revision has them.
    ///
    /// # Errors
    /// When the target cannot be reached or refuses the session.
    pub async fn open(target: &Target, era: Era) -> anyhow::Result<Self> {
        let mut this = Self::bare(target, era).await?;
        if !era.modern() {
            this.initialize().await?;
        }
        Ok(this)
    }

    /// Connects and says nothing yet.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub async fn bare(target: &Target, era: Era) -> anyhow::Result<Self> {
        let url = match (era, &target.sse_url) {
            (Era::Y2024, Some(url)) => url,
            (Era::Y2024, None) => bail!("{} has no sse_url", target.name),
            _ => &target.url,
        };
        let uri: hyper::http::Uri = url.parse()?;
        let fixed = Fixed {
            host: uri.authority().context("the url has no host")?.as_str().parse()?,
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            token: match target.next_token() {
                Some(token) => Some(format!("Bearer {token}").parse()?),
                None => None,
            },
        };
        let sender = connect(&uri).await?;
        let target = target.clone();
        let mut this = Self { sender, target, era, fixed, session: None, push: None, next_id: 0 };
        if era == Era::Y2024 {
            this.open_push(&uri).await?;
        }
        Ok(this)
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What it speaks.
    pub fn era(&self) -> Era {
        self.era
    }

    async fn open_push(&mut self, uri: &hyper::http::Uri) -> anyhow::Result<()> {
        let (push, path) = Push::open(uri, self.fixed.token.as_ref()).await?;
        self.push = Some(push);
        self.fixed.path = path;
        Ok(())
    }

    /// Starts a session.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn initialize(&mut self) -> anyhow::Result<()> {
        self.session = None;
        let params = format!(
            r#"{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{INFO}}}"#,
            self.era.as_str()
        );
        let (session, result) = self.request("initialize", &params, None).await?;
        ensure!(contains(&result, b"\"protocolVersion\""), "initialize settled on nothing");
        self.session = session;
        let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let response = self.post(Bytes::from_static(note.as_bytes()), None).await?;
        ensure!(response.status() == 202, "initialized was answered {}", response.status());
        response.into_body().collect().await?;
        Ok(())
    }

    /// Ends the session.
    ///
    /// # Errors
    /// When the target does not answer.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let mut request = self.head(Method::DELETE, Bytes::new());
        request.headers_mut().insert("mcp-session-id", session);
        let response = self.send(request).await?;
        let status = response.status();
        let fine = status.is_success() || status == StatusCode::METHOD_NOT_ALLOWED;
        ensure!(fine, "DELETE was answered {status}");
        response.into_body().collect().await?;
        Ok(())
    }

    /// Does the work once, and checks the answer. Gives the moment that counts: of the answer, or
    /// of the first event.
    ///
    /// # Errors
    /// When the answer is not what the work must give.
    pub async fn run(&mut self, work: &Work, text: &str) -> anyhow::Result<Instant> {
        match work {
            Work::Call { tool, .. } => {
                let name = format!("{}{tool}", self.target.tool_prefix);
                let params = format!(r#"{{"name":"{name}","arguments":{{"text":"{text}"}}}}"#);
                let (_, result) = self.request("tools/call", &params, Some(&name)).await?;
                let at = Instant::now();
                echoed(&result, text)?;
                Ok(at)
            }
            Work::List { tools } => self.list(*tools).await,
            Work::Session if self.era.modern() => {
                self.request("server/discover", "{}", None).await?;
                Ok(Instant::now())
            }
            Work::Session => {
                if self.push.is_some() {
                    let target = self.target.clone();
                    *self = Self::bare(&target, self.era).await?;
                }
                // The connection's own session is for the work that comes after.
                let own = self.session.take();
                self.initialize().await?;
                self.end().await?;
                let at = Instant::now();
                self.session = own;
                Ok(at)
            }
            Work::Stream { events, every_ms } => self.stream(*events, *every_ms).await,
        }
    }

    async fn list(&mut self, expected: Option<usize>) -> anyhow::Result<Instant> {
        let (mut seen, mut cursor, mut pages) = (0, None::<String>, 0);
        loop {
            let params = match &cursor {
                Some(cursor) => format!(r#"{{"cursor":"{cursor}"}}"#),
                None => "{}".to_owned(),
            };
            let (_, result) = self.request("tools/list", &params, None).await?;
            let at = Instant::now();
            let page: ListResult = serde_json::from_slice(&result).context("tools/list")?;
            seen += page.tools.len();
            cursor = page.next_cursor;
            pages += 1;
            if cursor.is_none() || pages == 1_000 {
                let fine = expected.map_or(seen > 0, |expected| seen == expected);
                ensure!(fine, "{seen} tools are listed, {expected:?} were expected");
                return Ok(at);
            }
        }
    }

    async fn stream(&mut self, events: u32, every_ms: u32) -> anyhow::Result<Instant> {
        let name = format!("{}progress", self.target.tool_prefix);
        let params = format!(
            r#"{{"name":"{name}","arguments":{{"events":{events},"everyMs":{every_ms}}},"_meta":{{"progressToken":"p"{}}}}}"#,
            if self.era.modern() { format!(",{}", self.meta()) } else { String::new() }
        );
        let id = self.id();
        let body = whole(id, "tools/call", &params);
        let response = self.post(body, Some(("tools/call", Some(&name)))).await?;
        let status = response.status();
        let mut source = match &mut self.push {
            Some(push) => {
                response.into_body().collect().await?;
                Source::Push(push)
            }
            None => Source::Body(Events::new(response.into_body())),
        };
        let (mut first, mut seen) = (None, 0);
        loop {
            let event = source.next().await?;
            let event = event.with_context(|| format!("the stream ({status}) just ended"))?;
            if contains(&event, b"notifications/progress") {
                seen += 1;
                first.get_or_insert_with(Instant::now);
                continue;
            }
            let answer: Answer<'_> = serde_json::from_slice(&event)?;
            if answer.id == Some(id) {
                ensure!(answer.result.is_some(), "error {:?}", answer.error);
                ensure!(seen == events, "{seen} of {events} events came");
                if let Source::Body(rest) = &mut source {
                    // Whoever leaves before the end of a body cannot use its connection again.
                    let more = rest.next().await?;
                    ensure!(more.is_none(), "the stream goes on after the answer");
                }
                return first.context("no event came");
            }
        }
    }

    /// Opens the stream on which the target pushes what belongs to no call, and waits for its head.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn listen(&mut self) -> anyhow::Result<Incoming> {
        let response = if self.era.modern() {
            let params = format!(
                r#"{{"notifications":{{"toolsListChanged":true}},"_meta":{{{}}}}}"#,
                self.meta()
            );
            let body = whole(self.id(), "subscriptions/listen", &params);
            self.post(body, Some(("subscriptions/listen", None))).await?
        } else {
            let request = self.head(Method::GET, Bytes::new());
            self.send(request).await?
        };
        ensure!(response.status() == 200, "a stream was answered {}", response.status());
        Ok(response.into_body())
    }

    /// Sends a request and gives the session and the result of its answer.
    async fn request(
        &mut self,
        method: &str,
        params: &str,
        name: Option<&str>,
    ) -> anyhow::Result<(Option<HeaderValue>, Bytes)> {
        let id = self.id();
        let body = if self.era.modern() {
            let open = params.strip_suffix('}').unwrap_or(params);
            let comma = if open.len() > 1 { "," } else { "" };
            whole(id, method, &format!(r#"{open}{comma}"_meta":{{{}}}}}"#, self.meta()))
        } else {
            whole(id, method, params)
        };
        let response = self.post(body, Some((method, name))).await?;
        let status = response.status();
        let session = response.headers().get("mcp-session-id").cloned();
        let mut body = response.into_body().collect().await?.to_bytes();
        if let (Some(push), StatusCode::ACCEPTED) = (&mut self.push, status) {
            body = push.answer(id).await?;
        }
        let result = answer(&body, id);
        Ok((session, result.with_context(|| format!("{method} was answered {status}"))?))
    }

    fn meta(&self) -> String {
        format!(
            r#""io.modelcontextprotocol/protocolVersion":"{}","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{INFO}"#,
            self.era.as_str()
        )
    }

    async fn post(
        &mut self,
        body: Bytes,
        mirrored: Option<(&str, Option<&str>)>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = self.head(Method::POST, body);
        if let (Some((method, name)), true) = (mirrored, self.era.modern()) {
            request.headers_mut().insert("mcp-method", method.parse()?);
            if let Some(name) = name {
                request.headers_mut().insert("mcp-name", name.parse()?);
            }
        }
        Ok(self.send(request).await?)
    }

    /// The connection's own task may still be at the end of the last answer.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    fn head(&self, method: Method, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.uri_mut() = self.fixed.path.parse().unwrap_or_default();
        let accept = if method == Method::GET {
            "text/event-stream"
        } else {
            "application/json, text/event-stream"
        };
        *request.method_mut() = method;
        let headers = request.headers_mut();
        headers.insert("host", self.fixed.host.clone());
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("accept", HeaderValue::from_static(accept));
        if self.era.versioned() {
            let revision = HeaderValue::from_static(self.era.as_str());
            headers.insert("mcp-protocol-version", revision);
        }
        if let Some(token) = &self.fixed.token {
            headers.insert("authorization", token.clone());
        }
        if let Some(session) = &self.session {
            headers.insert("mcp-session-id", session.clone());
        }
        request
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Where the events of a call come from.
enum Source<'a> {
    Push(&'a mut Push),
    Body(Events),
}

impl Source<'_> {
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        match self {
            Self::Push(push) => push.next().await,
            Self::Body(events) => events.next().await,
        }
    }
}

fn whole(id: u64, method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#).into()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn echoed(result: &[u8], text: &str) -> anyhow::Result<()> {
    let result: CallResult<'_> = serde_json::from_slice(result).context("tools/call")?;
    let first = result.content.first().map(|content| &*content.text);
    ensure!(!result.is_error, "the tool failed: {first:?}");
    ensure!(first == Some(text), "the tool answered {first:?}");
    Ok(())
}

/// The `result` of a JSON or SSE body that answers `id`.
fn answer(body: &Bytes, id: u64) -> anyhow::Result<Bytes> {
    let body = if body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
        body.clone()
    } else {
        let text = std::str::from_utf8(body)?;
        let mut data = text.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim);
        let last = data.rfind(|d| d.contains("\"id\"")).context("no answer in the stream")?;
        body.slice_ref(last.as_bytes())
    };
    let answer: Answer<'_> = serde_json::from_slice(&body)?;
    if let Some(error) = answer.error {
        bail!("error {error}");
    }
    ensure!(answer.id == Some(id), "the answer has another id");
    let result = answer.result.context("the answer has no result")?;
    Ok(body.slice_ref(result.get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_in_json_and_in_streams() {
        let json = Bytes::from_static(br#"{"jsonrpc":"2.0","id":3,"result":{"a":1}}"#);
        assert_eq!(answer(&json, 3).expect("an answer"), r#"{"a":1}"#);
        let sse = Bytes::from_static(b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"n\"}\n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}\n\n");
        assert_eq!(answer(&sse, 3).expect("an answer"), "{}");
        assert!(answer(&json, 4).is_err());
        let error = Bytes::from_static(br#"{"id":3,"error":{"code":1}}"#);
        assert!(answer(&error, 3).is_err());
    }

    #[test]
    fn what_a_tool_answers_is_compared() {
        assert!(echoed(br#"{"content":[{"type":"text","text":"ab"}]}"#, "ab").is_ok());
        for wrong in [
            r#"{"content":[{"type":"text","text":"ac"}]}"#,
            r#"{"content":[]}"#,
            r#"{"content":[{"type":"text","text":"ab"}],"isError":true}"#,
        ] {
            assert!(echoed(wrong.as_bytes(), "ab").is_err(), "{wrong}");
        }
    }
}
