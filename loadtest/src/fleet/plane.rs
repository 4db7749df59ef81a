//! The control plane: a process from its binary, and its REST API.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use weir_model::id::Revision;

use super::Plan;
use crate::process::{self, Usage};

/// Between two looks at whether it serves.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// See the module. It ends with this value.
pub struct Plane {
    binary: PathBuf,
    variables: Vec<(String, String)>,
    rest: u16,
    sync: u16,
    token_file: PathBuf,
    token: String,
    log: PathBuf,
    child: Option<Child>,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("binary", &self.binary).finish_non_exhaustive()
    }
}

/// A port that nobody listens on now, below those that clients are given: a control plane that is
/// killed finds it free again when it comes back.
fn free_port() -> anyhow::Result<u16> {
    for _ in 0..200 {
        let mut random = [0; 2];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("no randomness"))?;
        let port = 20_000 + u16::from_be_bytes(random) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 20000 and 32000")
}

impl Plane {
    /// A control plane that keeps everything in `folder`, or its configuration in the plan's etcd.
    pub(super) fn new(plan: &Plan, folder: &Path) -> anyhow::Result<Self> {
        use base64::Engine as _;
        let (rest, sync) = (free_port()?, free_port()?);
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow::anyhow!("no randomness"))?;
        let path = |name: &str| folder.join(name).display().to_string();
        let mut variables = vec![
            ("NAME", "measured".to_owned()),
            ("LISTEN__ADDRESS", format!("127.0.0.1:{rest}")),
            ("SYNC__ADDRESS", format!("127.0.0.1:{sync}")),
            ("ADMIN__ADDRESS", "127.0.0.1:0".to_owned()),
            ("VAULT__KEYS", base64::engine::general_purpose::STANDARD.encode(key)),
            ("BOOTSTRAP__TOKEN_FILE", path("token")),
            ("AUDIT__DIR", path("audit")),
            ("LOG__FILTER", "warn".to_owned()),
        ];
        match &plan.etcd {
            Some(etcd) => {
                variables.push(("STORE__ETCD__ENDPOINTS", etcd.clone()));
                let prefix = format!("/weir-loadtest-{}-{rest}/", std::process::id());
                variables.push(("STORE__ETCD__PREFIX", prefix));
            }
            None => variables.push(("STORE__PATH", path("store"))),
        }
        let variables =
            variables.into_iter().map(|(name, value)| (format!("WEIR_CP_{name}"), value)).collect();
        Ok(Self {
            binary: plan.binary.clone(),
            variables,
            rest,
            sync,
            token_file: folder.join("token"),
            token: String::new(),
            log: folder.join("control-plane.log"),
            child: None,
            http: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// Starts it, and waits until it serves.
    pub(super) async fn start(&mut self, patience: Duration) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command.envs(self.variables.iter().cloned()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| self.binary.display().to_string())?;
        self.child = Some(child);
        let begun = Instant::now();
        loop {
            if self.serves().await {
                return Ok(());
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || begun.elapsed() > patience {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the control plane does not serve: {log}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn serves(&mut self) -> bool {
        if self.token.is_empty() {
            let text = std::fs::read_to_string(&self.token_file).unwrap_or_default();
            text.trim().clone_into(&mut self.token);
        }
        !self.token.is_empty() && self.ask("GET", "/readyz", None).await.is_ok()
    }

    /// Kills it, as a machine does that fails.
    pub(super) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }

    /// Ends it.
    pub(super) async fn stop(mut self) {
        self.kill().await;
    }

    /// Where proxies connect.
    pub(super) fn sync_address(&self) -> String {
        format!("127.0.0.1:{}", self.sync)
    }

    /// What it has used.
    pub(super) fn usage(&self) -> Usage {
        let pid = self.child.as_ref().and_then(Child::id);
        process::usage(pid.as_slice())
    }

    /// Applies documents; the revision after it.
    pub(super) async fn apply(&self, documents: &[Value]) -> anyhow::Result<Revision> {
        let body = Value::Array(documents.to_vec());
        let answer = self.ask("POST", "/v1/apply", Some(&body)).await?;
        let revision = answer["revision"].as_u64().context("no revision in the answer")?;
        Ok(Revision(revision))
    }

    /// The newest revision.
    pub(super) async fn revision(&self) -> anyhow::Result<Revision> {
        let answer = self.ask("GET", "/v1/nodes", None).await?;
        Ok(Revision(answer["revision"].as_u64().context("no revision in the answer")?))
    }

    /// What one node joins with.
    pub(super) async fn enrolment_token(&self, region: &str, node: &str) -> anyhow::Result<String> {
        let body = json!({"region": region, "node": node});
        let answer = self.ask("POST", "/v1/enrolment-tokens", Some(&body)).await?;
        Ok(answer["token"].as_str().context("no token in the answer")?.to_owned())
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.rest))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::from(body.map(ToString::to_string).unwrap_or_default()))?;
        let response = self.http.request(request).await.context("the control plane is silent")?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}
