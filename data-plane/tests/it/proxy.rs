//! A whole proxy in the process of the test, on a free port, with a scripted configuration and a
//! client that says exactly what the test wants to say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use data_plane::app::{self, Parts};
use data_plane::config::{Identity, State};
use data_plane::gateway::Gateway;
use data_plane::lanes::{self, Lanes};
use data_plane::settings::Settings;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_audit::memory::MemoryLog;
use weir_audit::{Builder, Origin};
use weir_model::seal::NodeKey;
use weir_model::secret::Secret;
use weir_model::testing::World;
use weir_runtime::clock::{SharedClock, SystemClock};
use weir_runtime::drain::{self, Drain};
use weir_runtime::metrics::Metrics;
use weir_runtime::otlp::{Spans, span::Span};
use weir_runtime::ready::Ready;
use weir_runtime::testing::{Ca, eventually};
use weir_runtime::tls::{certificates, private_key};

use crate::ledger::Shared;

/// Longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Proxy {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub hop: Option<SocketAddr>,
    pub config: Arc<State>,
    pub gateway: Arc<Gateway>,
    pub log: MemoryLog,
    pub drain: Drain,
    /// Spans of calls that are recorded.
    pub traced: tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Vec<Span>>>,
    pub served: tokio::task::JoinHandle<anyhow::Result<()>>,
    /// Where the settings want threads of its own.
    _lanes: Option<lanes::Running>,
}

impl Proxy {
    pub async fn start(world: &World) -> Self {
        Self::with(world, |_| ()).await
    }

    pub async fn with(world: &World, change: impl FnOnce(&mut Settings)) -> Self {
        Self::built(world, (None, None, SystemClock::shared()), change).await
    }

    /// A proxy whose sign-ins are counted together with those of others.
    pub async fn counted(
        world: &World,
        ledger: Arc<Shared>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::built(world, (None, Some(ledger), SystemClock::shared()), change).await
    }

    /// An enrolled node that other nodes of the same authority reach.
    pub async fn node(
        world: &World,
        ca: &Ca,
        name: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::node_at(world, (ca, name), SystemClock::shared(), change).await
    }

    /// The same by a clock that the test sets.
    pub async fn node_at(
        world: &World,
        (ca, name): (&Ca, &str),
        clock: SharedClock,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let issued = ca.client("node", &format!("spiffe://weir/region/test/node/{name}"));
        let first = |pem: &str| certificates(pem.as_bytes(), "test").unwrap().remove(0).to_vec();
        let key = private_key(issued.key.as_bytes(), "test").unwrap();
        let key = Secret::new(key.secret_der().to_vec());
        let (own, authority) = (first(&issued.chain), first(&ca.pem()));
        let identity = Identity::new(own, key, authority, NodeKey::generate()).unwrap();
        Self::built(world, (Some(identity), None, clock), |settings| {
            settings.hop.address = Some(([127, 0, 0, 1], 0).into());
            change(settings);
        })
        .await
    }

    /// Two proxies of one installation that reach each other.
    pub async fn two(world: &World) -> [Self; 2] {
        let ca = Ca::new("weir");
        let start = async |name: &str| Self::node(world, &ca, name, |_| ()).await;
        let both = [start("node-1").await, start("node-2").await];
        Self::acquaint(&both).await;
        both
    }

    /// Makes proxies known to each other, as the control plane does.
    pub async fn acquaint(all: &[Self]) {
        let place =
            |proxy: &Self| (proxy.gateway.hop.node().unwrap(), proxy.hop.unwrap().to_string());
        for proxy in all {
            proxy.gateway.neighbours.listed(all.iter().map(place).collect());
        }
        for proxy in all {
            let met = async || proxy.gateway.neighbours.count() == (all.len() - 1, all.len() - 1);
            assert!(eventually(PATIENCE, met).await, "{:?}", proxy.gateway.neighbours.count());
        }
    }

    async fn built(
        world: &World,
        (identity, ledger, clock): (Option<Identity>, Option<Arc<Shared>>, SharedClock),
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings::default();
        settings.listen.address = ([127, 0, 0, 1], 0).into();
        settings.admin.address = Some(([127, 0, 0, 1], 0).into());
        change(&mut settings);
        let running = (settings.lanes > 0).then(|| lanes::start(settings.lanes).unwrap());
        let snapshot = world.snapshot();
        let log = MemoryLog::default();
        let metrics = Metrics::new();
        let origin = Origin { node: "node-1".into(), region: "test".into() };
        let audit = Builder::new(origin, Box::new(log.sink()), metrics.clone()).start();
        let (drain, _) = drain::new(Duration::from_millis(settings.drain_ms));
        let config = Arc::new(State::new(snapshot));
        let (_, reload) = tokio::sync::watch::channel(0);
        let (spans, traced) = Spans::to_test(64);
        let spans = Some(spans);
        let parts = Parts {
            config: Arc::clone(&config),
            ledger: ledger.unwrap_or_default(),
            identity: identity.map(|identity| Arc::new(ArcSwap::from_pointee(identity))),
            audit,
            metrics,
            ready: Ready::new(),
            level: None,
            drain: drain.clone(),
            reload,
            clock,
            control: tokio::runtime::Handle::current(),
            lanes: running.as_ref().map_or_else(Lanes::default, |all| all.lanes().clone()),
            spans,
        };
        let bound = app::build(&settings, parts).await.unwrap();
        let addresses = bound.addresses();
        Self {
            address: addresses.traffic,
            admin: addresses.admin.unwrap(),
            hop: addresses.hop,
            config,
            gateway: Arc::clone(bound.gateway()),
            log,
            drain,
            traced: tokio::sync::Mutex::new(traced),
            served: tokio::spawn(bound.serve()),
            _lanes: running,
        }
    }

    /// Puts another configuration in force.
    pub fn apply(&self, world: &World) {
        let next = world.after(&self.config.current());
        self.config.store(Arc::new(next));
    }

    /// What operators get at a path.
    pub async fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.admin).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        text
    }

    /// The facts of every record so far, once there are at least `count`.
    pub async fn records(&self, count: usize) -> Vec<Value> {
        let enough = eventually(PATIENCE, async || self.log.records().len() >= count).await;
        assert!(enough, "{} records, not {count}", self.log.records().len());
        let parse = |r: &weir_audit::Record| serde_json::from_slice(r.bytes()).unwrap();
        self.log.records().iter().map(parse).collect()
    }

    pub async fn send(&self, ask: Ask) -> Answer {
        Answer::of(self.open(ask).await).await
    }

    /// Sends and gives the answer when its headers are there.
    pub async fn open(&self, ask: Ask) -> http::Response<Incoming> {
        self.open_on(TcpStream::connect(self.address).await.unwrap(), ask).await
    }

    /// The same over a connection that is there.
    pub async fn open_on(&self, socket: TcpStream, ask: Ask) -> http::Response<Incoming> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(ask.http).uri(&ask.path);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(ask.body)).unwrap();
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap()
    }
}

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Ask {
    pub http: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Ask {
    /// A POST with what every client sends.
    pub fn post(path: &str, body: impl Into<String>) -> Self {
        let headers = vec![
            ("host", "localhost".to_owned()),
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
        ];
        let body = Bytes::from(body.into());
        Self { http: Method::POST, path: path.to_owned(), headers, body }
    }

    /// A stateless request as it should be.
    pub fn modern(path: &str, method: &str, mut params: Value) -> Self {
        let meta = &mut params["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
        if meta.get("io.modelcontextprotocol/clientCapabilities").is_none() {
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "tester", "version": "1"});
        let name = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str);
        let name = name.map(str::to_owned);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut ask = Self::post(path, body.to_string())
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        if let Some(name) = name {
            ask = ask.header("mcp-name", name);
        }
        ask
    }

    /// A request within a session of an older revision.
    pub fn legacy(path: &str, session: &str, method: &str, params: &Value) -> Self {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        Self::post(path, body.to_string())
            .header("mcp-protocol-version", "2025-11-25")
            .header("mcp-session-id", session)
    }

    pub fn initialize(path: &str, revision: &str) -> Self {
        let params = json!({
            "protocolVersion": revision,
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "tester", "version": "1"},
        });
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        Self::post(path, body.to_string())
    }

    pub fn bodiless(http: Method, path: &str, session: &str) -> Self {
        let mut ask = Self::post(path, "");
        ask.http = http;
        ask.without("content-type").header("mcp-session-id", session)
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    /// The same with another value for a header.
    #[must_use]
    pub fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        self.without(name).header(name, value)
    }

    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub async fn of(response: http::Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
        Self { status: head.status, headers: head.headers, body: body.to_bytes() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// JSON-RPC messages of a stream.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"), "{}", self.text());
        messages(self.text())
    }

    pub fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_else(|| panic!("{}", self.text()))
    }
}

pub fn messages(stream: &str) -> Vec<Value> {
    stream
        .split("\n\n")
        .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
        .filter(|data| !data.is_empty())
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// Reads a stream until it contains `needle`.
pub async fn read_until(body: &mut Incoming, needle: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(needle) {
            let frame = body.frame().await.unwrap_or_else(|| panic!("ended: {text}")).unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, read).await.is_ok();
    assert!(in_time, "no {needle} in {text}");
    text
}
