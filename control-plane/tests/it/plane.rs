//! A control plane in this process, spoken to over its real socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control_plane::app::{self, Parts};
use control_plane::operator::{Operators, Role, Wanted};
use control_plane::settings::Settings;
use control_plane::store::Store;
use control_plane::store::embedded::{Embedded, History};
use control_plane::vault::{LocalKeys, Vault};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::watch;
use weir_audit::memory::MemoryLog;
use weir_audit::{Builder, Origin};
use weir_runtime::clock::SystemClock;
use weir_runtime::drain::{self, Drain};
use weir_runtime::metrics::Metrics;
use weir_runtime::ready::Ready;

pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// The same key-encryption key at every replica.
pub(crate) const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(crate) struct Plane {
    pub(crate) base: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) operators: Operators,
    pub(crate) audit: MemoryLog,
    pub(crate) drain: Drain,
    /// Of an admin for all groups.
    pub(crate) admin: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }
    /// The label of the problem.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text);
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        let uri = body["type"].as_str().unwrap();
        uri.strip_prefix("urn:weir:problem:").unwrap().to_owned()
    }
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}

/// A request to be sent.
pub(crate) struct Ask<'a> {
    plane: &'a Plane,
    request: http::request::Builder,
    token: Option<String>,
    body: Bytes,
}

impl Plane {
    /// Alone, over a store in memory.
    pub(crate) async fn alone() -> Self {
        let store = Embedded::in_memory(History::default()).unwrap();
        Self::over(Arc::new(store)).await
    }

    pub(crate) async fn over(store: Arc<dyn Store>) -> Self {
        let mut settings = Settings::default();
        settings.listen.address.set_port(0);
        settings.sync.address = None;
        settings.admin.address = None;
        let audit = MemoryLog::default();
        let metrics = Metrics::new();
        let origin = Origin { node: "cp-test".into(), region: String::new() };
        let pipeline = Builder::new(origin, Box::new(audit.sink()), metrics.clone()).start();
        let (drain, _) = drain::new(Duration::from_secs(5));
        let parts = Parts {
            store: Arc::clone(&store),
            vault: Vault::new(Arc::new(LocalKeys::parse(KEY).unwrap())),
            audit: pipeline,
            metrics,
            ready: Ready::new(),
            level: None,
            drain: drain.clone(),
            reload: watch::channel(0).1,
            clock: SystemClock::shared(),
        };
        let bound = app::build(&settings, parts).await.unwrap();
        let base = format!("http://{}", bound.addresses().rest);
        let operators = bound.operators().clone();
        tokio::spawn(bound.serve());
        let http = Client::builder(TokioExecutor::new()).build_http();
        let mut plane = Self { base, store, operators, audit, drain, admin: String::new(), http };
        plane.admin = plane.token(Role::Admin, &[]).await;
        plane
    }

    pub(crate) async fn token(&self, role: Role, groups: &[&str]) -> String {
        let groups = groups.iter().map(|group| group.parse().unwrap()).collect();
        let wanted = Wanted { name: "test".into(), role, groups, expires_in: None };
        self.operators.mint(wanted, "test").await.unwrap().1.expose().clone()
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask<'_> {
        let method: Method = method.parse().unwrap();
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        Ask { plane: self, request, token: Some(self.admin.clone()), body: Bytes::new() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).send().await
    }

    pub(crate) async fn apply(&self, documents: &str) -> Answer {
        self.ask("POST", "/v1/apply").yaml(documents).send().await
    }

    /// Audit records as text.
    pub(crate) fn records(&self) -> Vec<Value> {
        let records = self.audit.records();
        records.iter().map(|record| serde_json::from_slice(record.bytes()).unwrap()).collect()
    }
}

impl Ask<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }
    pub(crate) fn nobody(mut self) -> Self {
        self.token = None;
        self
    }
    pub(crate) fn yaml(self, text: &str) -> Self {
        self.body("application/yaml", text.as_bytes())
    }
    pub(crate) fn json(self, value: &Value) -> Self {
        self.body("application/json", value.to_string().as_bytes())
    }
    pub(crate) fn body(mut self, kind: &str, bytes: &[u8]) -> Self {
        self.body = Bytes::copy_from_slice(bytes);
        self.header("content-type", kind)
    }
    pub(crate) async fn send(self) -> Answer {
        let mut request = self.request;
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(self.body)).unwrap();
        let sent = tokio::time::timeout(BOUND, self.plane.http.request(request)).await;
        let (parts, body) = sent.expect("an answer in time").unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }
}
