//! A scripted MCP server of both eras, over HTTP/1.1 on a free port. Written by the book and not
//! with the data plane's own code, so that a mistake on both sides cannot hide.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

/// A request as the server received it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub http: Method,
    pub headers: HeaderMap,
    pub raw: Bytes,
    pub body: Value,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    /// Woken when a call is dropped by the gateway before its answer.
    dropped: Notify,
    answers: Notify,
    answered: Mutex<Option<Value>>,
    /// Events that the tool `flood` could write.
    flooded: AtomicUsize,
    /// Every answer to something that a tool asked.
    said: Mutex<Vec<Value>>,
    speaks: Speaks,
}

/// What a server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speaks {
    #[default]
    Both,
    Legacy,
    Modern,
}

/// The server.
#[derive(Debug, Clone)]
pub struct Peer {
    pub url: String,
    shared: Arc<Shared>,
}

type Body = BoxBody<Bytes, Infallible>;

/// The session that the server gives to clients of the older era.
pub const SESSION: &str = "upstream-session-1";
/// The task that the tool `task` makes.
pub const TASK: &str = "upstream-task-1";
/// The task of `task-liar`, whose result breaks the schema of its tool.
pub const LIAR: &str = "upstream-task-liar";
/// The task of `task-slow`, whose result does not come.
pub const SLOW: &str = "upstream-task-slow";
/// The task of `task-only`, a tool that runs in no other way.
pub const ONLY: &str = "upstream-task-only";
/// The same of `task-waits`, which wants input, and of `task-endless`.
pub const WAITS: &str = "upstream-task-waits";
pub const ENDLESS: &str = "upstream-task-endless";

impl Peer {
    pub async fn start() -> Self {
        Self::only(Speaks::Both).await
    }

    pub async fn only(speaks: Speaks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { speaks, ..Shared::default() });
        let own = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&own);
                let service = hyper::service::service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(answer(shared, request).await) }
                });
                tokio::spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { url, shared }
    }

    /// Requests with that JSON-RPC method.
    pub fn seen(&self, method: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock();
        seen.iter().filter(|s| s.body["method"] == method).cloned().collect()
    }

    /// Forgets every request and answer.
    pub fn forget(&self) {
        self.shared.seen.lock().retain(|s| s.body["method"] == "initialize");
        self.shared.said.lock().clear();
    }

    /// Answers to the question with that id.
    pub fn said(&self, id: &str) -> Vec<Value> {
        self.shared.said.lock().iter().filter(|s| s["id"] == id).cloned().collect()
    }

    /// All requests.
    pub fn all(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// Events that the tool `flood` could write.
    pub fn flooded(&self) -> usize {
        self.shared.flooded.load(Ordering::Acquire)
    }

    /// Returns when the gateway has given up on a call.
    pub async fn dropped(&self) {
        tokio::time::timeout(Duration::from_secs(10), self.shared.dropped.notified())
            .await
            .expect("the gateway gives up on the call");
    }
}

impl Shared {
    fn calls_of(&self, tool: &str) -> usize {
        self.seen.lock().iter().filter(|s| s.body["params"]["name"] == tool).count()
    }
}

struct WakeOnDrop(Arc<Shared>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let raw = body.collect().await.map(|c| c.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&raw).unwrap_or(Value::Null);
    let seen = Seen { http: head.method.clone(), headers: head.headers, raw, body: body.clone() };
    let session = seen.header("mcp-session-id").map(str::to_owned);
    shared.seen.lock().push(seen);
    let modern = body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_string();
    match head.method {
        Method::GET if session.as_deref() == Some(SESSION) => {
            let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            let status = json!({"jsonrpc": "2.0", "method": "notifications/tasks/status",
                "params": {"taskId": TASK, "status": "working"}});
            let both = vec![format!("id: g-1\ndata: {note}\n\n"), format!("data: {status}\n\n")];
            return events(both, None, shared);
        }
        Method::DELETE => return status(StatusCode::NO_CONTENT),
        Method::POST => {}
        _ => return status(StatusCode::METHOD_NOT_ALLOWED),
    }
    let Some(method) = body["method"].as_str() else {
        // The client's answer to something that a tool asked.
        *shared.answered.lock() = Some(body.clone());
        shared.said.lock().push(body.clone());
        shared.answers.notify_one();
        return status(StatusCode::ACCEPTED);
    };
    if body.get("id").is_none() {
        return status(StatusCode::ACCEPTED);
    }
    match (shared.speaks, modern) {
        (Speaks::Legacy, true) => return status(StatusCode::BAD_REQUEST),
        (Speaks::Modern, false) => {
            let mut refused = error(&body["id"], -32022, "Unsupported protocol version");
            *refused.status_mut() = StatusCode::BAD_REQUEST;
            return refused;
        }
        _ => {}
    }
    if !modern && method != "initialize" && session.as_deref() != Some(SESSION) {
        return status(StatusCode::NOT_FOUND);
    }
    call(shared, method, modern, &body).await
}

async fn call(shared: Arc<Shared>, method: &str, modern: bool, body: &Value) -> Response<Body> {
    let id = body["id"].clone();
    let params = &body["params"];
    let capabilities = json!({"tools": {"listChanged": true}, "resources": {}, "prompts": {},
        "completions": {}, "logging": {}});
    let result = match (method, modern) {
        ("initialize", false) => json!({
            "protocolVersion": params["protocolVersion"],
            "capabilities": capabilities,
            "serverInfo": {"name": "peer", "version": "1", "x-own": 1.0},
        }),
        ("server/discover", true) => json!({
            "supportedVersions": ["2026-07-28", "2025-11-25"],
            "capabilities": capabilities,
            "ttlMs": 1000,
            "cacheScope": "public",
        }),
        ("tools/list", _) => json!({"tools": [
            {"name": "echo", "inputSchema": {"type": "object"}},
            {"name": "hidden", "inputSchema": {"type": "object"}},
        ]}),
        ("resources/list", _) => json!({"resources": []}),
        ("resources/templates/list", _) => json!({"resourceTemplates": []}),
        ("prompts/list", _) => json!({"prompts": []}),
        ("resources/read", _) if params["uri"] == "test://t/gone" => {
            let code = if modern { -32602 } else { -32002 };
            return error(&id, code, "Resource not found");
        }
        ("resources/read", _) => json!({
            "contents": [{"uri": params["uri"], "text": "text"}],
            "ttlMs": 5, "cacheScope": "public",
        }),
        ("prompts/get", _) => json!({"messages": [], "description": params["name"]}),
        ("completion/complete", _) => json!({"completion": {"values": [params["ref"]["name"]]}}),
        ("subscriptions/listen", true) => {
            let tag = json!({"io.modelcontextprotocol/subscriptionId": id});
            let ack = json!({"jsonrpc": "2.0",
                "method": "notifications/subscriptions/acknowledged",
                "params": {"_meta": tag, "notifications": {"toolsListChanged": true,
                    "resourceSubscriptions": params["notifications"]["resourceSubscriptions"],
                    "taskIds": params["notifications"]["taskIds"]}}});
            let mut notes = vec![format!("data: {ack}\n\n")];
            let uris = params["notifications"]["resourceSubscriptions"].as_array();
            // It tells of what nobody asked for, too.
            let stray = Value::from("hidden://x");
            for uri in uris.map(|_| &stray).into_iter().chain(uris.into_iter().flatten()) {
                let note = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
                    "params": {"_meta": tag, "uri": uri}});
                notes.push(format!("data: {note}\n\n"));
            }
            for id in params["notifications"]["taskIds"].as_array().into_iter().flatten() {
                let note = json!({"jsonrpc": "2.0", "method": "notifications/tasks",
                    "params": {"_meta": tag, "taskId": id, "status": "working"}});
                notes.push(format!("data: {note}\n\n"));
            }
            return events(notes, None, shared);
        }
        ("skills/list", _) => json!({"skills": [
            {"uri": "test://s/SKILL.md", "frontmatter": {}, "resources": "dynamic"},
            {"uri": "hidden://s/SKILL.md", "frontmatter": {}, "resources": "dynamic"},
        ]}),
        ("skills/get" | "resources/directory/read", _) => json!({"uri": params["uri"]}),
        ("tasks/get" | "tasks/cancel" | "tasks/result", _) => {
            return task(shared, &id, (method, params["taskId"].as_str()), modern);
        }
        ("tasks/list", false) => json!({"tasks": [{"taskId": TASK, "status": "working"}]}),
        ("logging/setLevel" | "resources/subscribe" | "resources/unsubscribe", false) => json!({}),
        ("tools/call", _) => return tool(shared, &id, params, modern).await,
        _ => return error(&id, -32601, "Method not found"),
    };
    result_of(&id, result, modern)
}

/// The headers and the body of the newest request.
fn told(shared: &Shared) -> String {
    let seen = shared.seen.lock();
    seen.last().map_or_else(String::new, |seen| format!("{:?} {}", seen.headers, seen.body))
}

async fn tool(shared: Arc<Shared>, id: &Value, params: &Value, modern: bool) -> Response<Body> {
    let result = match params["name"].as_str().unwrap_or_default() {
        "echo" | "look" | "new" => {
            json!({"content": [], "structuredContent": params["arguments"]})
        }
        name @ ("task-only" | "task-waits" | "task-endless")
            if !modern && params["task"].is_null() =>
        {
            return error(id, -32601, &format!("{name} runs as a task"));
        }
        "task-only" | "task-waits" | "task-endless" if modern && !declared(params) => {
            let needed = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
            let error = json!({"code": -32021, "message": "needs tasks",
                "data": {"requiredCapabilities": needed}});
            let mut refused = json_body(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
            *refused.status_mut() = StatusCode::BAD_REQUEST;
            return refused;
        }
        name if name.starts_with("task") => {
            let id = match name {
                "task" => TASK,
                "task-liar" => LIAR,
                "task-slow" => SLOW,
                "task-only" => ONLY,
                "task-waits" => WAITS,
                _ => ENDLESS,
            };
            match modern {
                true => json!({"resultType": "task", "taskId": id, "status": "working",
                    "ttlMs": null}),
                false => json!({"task": {"taskId": id, "status": "working", "ttl": 60_000,
                    "pollInterval": 20}}),
            }
        }
        "fail" => json!({"content": [{"type": "text", "text": "no"}], "isError": true}),
        "broken" => return error(id, -32000, "broken"),
        // Tells everything that it was told, as servers in a debugging mode do.
        "mirror" => {
            let told = told(&shared);
            json!({"content": [{"type": "text", "text": told}], "structuredContent": params})
        }
        "mirror-error" => return error(id, -32000, &told(&shared)),
        "liar" => json!({"content": [], "structuredContent": {"n": "not a number"}}),
        "ask-modern" if params.get("inputResponses").is_some() => json!({
            "content": [],
            "structuredContent": {"got": params["inputResponses"], "state": params["requestState"]},
        }),
        "url-error" if shared.calls_of("url-error") < 2 => {
            let error = json!({"code": -32042, "message": "Visit first", "data": {"elicitations": [
                {"mode": "url", "elicitationId": "e-1", "url": "https://a.example", "message": "Go"}]}});
            return json_body(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
        }
        "url-error" => json!({"content": [], "structuredContent": {"visited": true}}),
        "ask-modern" => json!({
            "resultType": "input_required", "requestState": "s-1",
            "inputRequests": {"name": {"method": "elicitation/create", "params": {}}},
        }),
        "hang" => {
            let _wake = WakeOnDrop(Arc::clone(&shared));
            std::future::pending::<()>().await;
            Value::Null
        }
        "progress" => {
            let token = &params["_meta"]["progressToken"];
            let note = |n: u32| {
                let note = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": n}});
                format!("event: message\ndata: {note}\n\n")
            };
            let mut result = json!({"content": []});
            if modern {
                result["resultType"] = "complete".into();
            }
            let last = json!({"jsonrpc": "2.0", "id": id, "result": result});
            return events(vec![note(1), note(2), format!("data: {last}\n\n")], Some(()), shared);
        }
        "stream-hang" => {
            let note = json!({"jsonrpc": "2.0", "method": "notifications/message",
                "params": {"level": "info", "data": "working"}});
            return events(vec![format!("data: {note}\n\n")], None, shared);
        }
        "talk" => {
            let note = |level: &str| {
                let note = json!({"jsonrpc": "2.0", "method": "notifications/message",
                    "params": {"level": level, "data": "working"}});
                format!("data: {note}\n\n")
            };
            let mut result = json!({"content": []});
            if modern {
                result["resultType"] = "complete".into();
            }
            let last = json!({"jsonrpc": "2.0", "id": id, "result": result});
            let last = format!("data: {last}\n\n");
            return events(vec![note("info"), note("error"), last], Some(()), shared);
        }
        "prime" => return events(vec!["id: p-1\nretry: 250\ndata: \n\n".into()], Some(()), shared),
        "ask" => return ask(shared, id),
        "flood" => return flood(shared),
        "ask-many" => return ask_many(shared, id),
        _ => return error(id, -32602, "Unknown tool"),
    };
    result_of(id, result, modern)
}

/// True for a request of a client that knows tasks.
fn declared(params: &Value) -> bool {
    let own = &params["_meta"]["io.modelcontextprotocol/clientCapabilities"]["extensions"];
    own["io.modelcontextprotocol/tasks"].is_object()
}

/// What the server says of one of its tasks.
fn task(
    shared: Arc<Shared>,
    id: &Value,
    (method, task): (&str, Option<&str>),
    modern: bool,
) -> Response<Body> {
    let Some(task @ (TASK | LIAR | SLOW | ONLY | WAITS | ENDLESS)) = task else {
        return error(id, -32602, "Unknown task");
    };
    let made = json!({"content": [{"type": "text", "text": "made"}]});
    let times = || shared.seen.lock().iter().filter(|s| s.body["method"] == method).count();
    let wrong = json!({"content": [], "structuredContent": {"n": "not a number"}});
    let related = json!({"io.modelcontextprotocol/related-task": {"taskId": task}});
    let result = match (method, task) {
        ("tasks/result", SLOW) => {
            let note = json!({"jsonrpc": "2.0", "method": "notifications/message",
                "params": {"level": "info", "data": "working"}});
            return events(vec![format!("data: {note}\n\n")], None, shared);
        }
        ("tasks/result", LIAR) => json!({"_meta": related, "content": [],
            "structuredContent": wrong["structuredContent"]}),
        ("tasks/result", ONLY) => json!({"content": made["content"], "_meta": related}),
        ("tasks/result", _) => json!({"content": [], "_meta": related}),
        ("tasks/get", ONLY) if !modern => json!({"taskId": task, "status": "completed",
            "ttl": 60_000, "pollInterval": 20}),
        ("tasks/get", ONLY) if times() > 1 => {
            json!({"taskId": task, "status": "completed", "result": made})
        }
        ("tasks/get", WAITS) => json!({"taskId": task, "status": "input_required"}),
        ("tasks/get", LIAR) if modern => {
            json!({"taskId": task, "status": "completed", "result": wrong})
        }
        _ => json!({"taskId": task, "status": "working"}),
    };
    result_of(id, result, modern)
}

/// Log messages for as long as anybody takes them.
fn flood(shared: Arc<Shared>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let note = json!({"jsonrpc": "2.0", "method": "notifications/message",
            "params": {"level": "info", "data": "flood".repeat(2_000)}});
        while sender.send(format!("data: {note}\n\n")).await.is_ok() {
            shared.flooded.fetch_add(1, Ordering::AcqRel);
        }
        shared.dropped.notify_one();
    });
    sse(receiver)
}

/// Asks the client something on the stream of its call, and answers with what it said.
fn ask(shared: Arc<Shared>, id: &Value) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(4);
    let id = id.clone();
    tokio::spawn(async move {
        let question = json!({"jsonrpc": "2.0", "id": "q-1", "method": "elicitation/create",
            "params": {"message": "Sure?"}});
        let _ = sender.send(format!("data: {question}\n\n")).await;
        shared.answers.notified().await;
        let said = shared.answered.lock().take().unwrap_or(Value::Null);
        let last = json!({"jsonrpc": "2.0", "id": id,
            "result": {"content": [], "structuredContent": said["result"]}});
        let _ = sender.send(format!("data: {last}\n\n")).await;
    });
    sse(receiver)
}

/// Asks three things at once, says something, and answers with what it was told.
fn ask_many(shared: Arc<Shared>, id: &Value) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(8);
    let id = id.clone();
    tokio::spawn(async move {
        let questions = [
            ("q-1", "elicitation/create", json!({"message": "Sure?", "n": 1.0})),
            ("q-2", "sampling/createMessage", json!({"messages": []})),
            ("q-3", "roots/list", json!({})),
        ];
        for (id, method, params) in questions {
            let question = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
            let _ = sender.send(format!("data: {question}\n\n")).await;
        }
        let told = |id: &str| shared.said.lock().iter().find(|s| s["id"] == id).cloned();
        while ["q-1", "q-2", "q-3"].iter().any(|id| told(id).is_none()) {
            if sender.is_closed() {
                shared.dropped.notify_one();
                return;
            }
            let _ =
                tokio::time::timeout(Duration::from_millis(20), shared.answers.notified()).await;
        }
        let result = |id: &str| {
            let told = told(id).unwrap_or_default();
            told.get("result").or(told.get("error")).cloned()
        };
        let note = json!({"jsonrpc": "2.0", "method": "notifications/message",
            "params": {"level": "info", "data": "thanks"}});
        let _ = sender.send(format!("data: {note}\n\n")).await;
        let all = json!({"form": result("q-1"), "sample": result("q-2"), "roots": result("q-3")});
        let last = json!({"jsonrpc": "2.0", "id": id,
            "result": {"content": [], "structuredContent": all}});
        let _ = sender.send(format!("data: {last}\n\n")).await;
    });
    sse(receiver)
}

fn result_of(id: &Value, mut result: Value, modern: bool) -> Response<Body> {
    if modern && result.get("resultType").is_none() {
        result["resultType"] = "complete".into();
    }
    if !modern {
        for name in ["ttlMs", "cacheScope"] {
            result.as_object_mut().unwrap().remove(name);
        }
    }
    let mut response = json_body(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    if result.get("protocolVersion").is_some() {
        response.headers_mut().insert("mcp-session-id", SESSION.parse().unwrap());
    }
    response
}

fn error(id: &Value, code: i64, message: &str) -> Response<Body> {
    let error = json!({"code": code, "message": message, "data": {"x": 1.0}});
    json_body(&json!({"jsonrpc": "2.0", "id": id, "error": error}))
}

fn json_body(value: &Value) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(value.to_string())).boxed())
        .unwrap()
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Full::new(Bytes::new()).boxed()).unwrap()
}

/// A stream with these events; it ends with `end`, and stays open without.
fn events(events: Vec<String>, end: Option<()>, shared: Arc<Shared>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(events.len().max(1));
    for event in events {
        sender.try_send(event).unwrap();
    }
    if end.is_none() {
        tokio::spawn(async move {
            sender.closed().await;
            shared.dropped.notify_one();
        });
    }
    sse(receiver)
}

fn sse(receiver: mpsc::Receiver<String>) -> Response<Body> {
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver)
        .map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(event))));
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(BodyExt::boxed(StreamBody::new(stream)))
        .unwrap()
}
