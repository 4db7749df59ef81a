//! The planes as processes of their own, killed and started again, with a real MCP server behind.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weir_loadtest::era::Era;
use weir_loadtest::plan::{Target, Work};
use weir_loadtest::target::Connection;
use weir_runtime::testing::eventually;

/// Generous: the machine may be busy with other tests.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
/// The same key-encryption key at every replica.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A process that dies with the test.
pub(crate) struct Process(Child);

impl Process {
    /// As a power cut would: no drain, no last word.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The binary of a plane stands beside the one of this package.
fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name(name);
    assert!(path.exists(), "{name} is not built; run cargo build --workspace first");
    path
}

/// A port that was free a moment ago, below those that clients are given: a process that is killed
/// finds it free again when it comes back.
fn free_port() -> u16 {
    loop {
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let port = 20_000 + u16::from_be_bytes([a, b]) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One replica of the control plane.
pub(crate) struct Control {
    rest: String,
    sync: String,
    folder: PathBuf,
    store: Vec<(&'static str, String)>,
    name: String,
}

impl Control {
    pub(crate) fn new(folder: &Path, name: &str, store: Vec<(&'static str, String)>) -> Self {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let address = || format!("127.0.0.1:{}", free_port());
        Self { rest: address(), sync: address(), folder, store, name: name.to_owned() }
    }

    pub(crate) fn start(&self) -> Process {
        let folder = |part: &str| self.folder.join(part);
        let log = std::fs::File::create(folder("log")).unwrap();
        let mut command = Command::new(binary("weir-control-plane"));
        command
            .env("WEIR_CP_NAME", &self.name)
            .env("WEIR_CP_LISTEN__ADDRESS", &self.rest)
            .env("WEIR_CP_SYNC__ADDRESS", &self.sync)
            .env("WEIR_CP_ADMIN__ADDRESS", "127.0.0.1:0")
            .env("WEIR_CP_VAULT__KEYS", KEY)
            .env("WEIR_CP_BOOTSTRAP__TOKEN_FILE", folder("token"))
            .env("WEIR_CP_AUDIT__DIR", folder("audit"))
            .envs(self.store.iter().map(|(name, value)| (*name, value)))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null());
        Process(command.spawn().unwrap())
    }

    pub(crate) async fn token(&self) -> String {
        let file = self.folder.join("token");
        let read = || std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
        assert!(eventually(BOUND, async || !read().is_empty()).await, "{}", self.log());
        read()
    }

    /// Runs the command line against this replica until it succeeds.
    pub(crate) async fn weir(&self, token: &str, args: &[&str]) -> String {
        let mut last = String::new();
        let done = eventually(BOUND, async || {
            let output = Command::new(env!("CARGO_BIN_EXE_weir"))
                .args(args)
                .env("WEIR_URL", format!("http://{}", self.rest))
                .env("WEIR_TOKEN", token)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            last = String::from_utf8_lossy(if output.status.success() {
                &output.stdout
            } else {
                &output.stderr
            })
            .into_owned();
            output.status.success()
        })
        .await;
        assert!(done, "weir {args:?}: {last}\n{}", self.log());
        last
    }

    /// Runs the command line once; what it prints, and the code that it ends with.
    pub(crate) fn once(&self, token: &str, args: &[&str]) -> (String, Option<i32>) {
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(args)
            .env("WEIR_URL", format!("http://{}", self.rest))
            .env("WEIR_TOKEN", token)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&said).into_owned(), output.status.code())
    }

    /// Its audit log.
    pub(crate) fn audit(&self) -> PathBuf {
        self.folder.join("audit")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// One proxy.
pub(crate) struct Proxy {
    listen: String,
    folder: PathBuf,
    controls: String,
    name: String,
}

impl Proxy {
    pub(crate) fn new(folder: &Path, name: &str, controls: &[&Control], token: &str) -> Self {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("token"), token).unwrap();
        let controls: Vec<_> = controls.iter().map(|control| control.sync.as_str()).collect();
        let listen = format!("127.0.0.1:{}", free_port());
        Self { listen, folder, controls: controls.join(","), name: name.to_owned() }
    }

    pub(crate) fn start(&self) -> Process {
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let mut command = Command::new(binary("weir-data-plane"));
        command
            .env("WEIR_DP_LISTEN__ADDRESS", &self.listen)
            .env("WEIR_DP_ADMIN__ADDRESS", "127.0.0.1:0")
            .env("WEIR_DP_HOP__ADDRESS", "127.0.0.1:0")
            .env("WEIR_DP_NODE", &self.name)
            .env("WEIR_DP_DATA_DIR", self.folder.join("data"))
            .env("WEIR_DP_CONTROL__ADDRESSES", &self.controls)
            .env("WEIR_DP_CONTROL__TOKEN_FILE", self.folder.join("token"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null());
        Process(command.spawn().unwrap())
    }

    /// Its audit log.
    pub(crate) fn audit(&self) -> PathBuf {
        self.folder.join("data/audit")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// One HTTP request on a connection of its own: the whole answer as text.
    pub(crate) async fn http(&self, method: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut text = format!("{method} /acme/mcp HTTP/1.1\r\nhost: {}\r\n", self.listen);
        let length = body.len().to_string();
        let own = [
            ("connection", "close"),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("content-length", &length),
        ];
        for (name, value) in own.iter().chain(headers) {
            text += &format!("{name}: {value}\r\n");
        }
        let mut socket = tokio::net::TcpStream::connect(&self.listen).await.unwrap();
        socket.write_all(format!("{text}\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(BOUND, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// One call on a new session.
    pub(crate) async fn call(&self, token: &str) -> anyhow::Result<()> {
        let target = Target {
            name: self.name.clone(),
            url: format!("http://{}/acme/bench/mcp", self.listen),
            token: Some(token.to_owned()),
            sse_url: None,
            tool_prefix: String::new(),
            era: Era::default(),
            pids: String::new(),
        };
        let mut connection = Connection::open(&target, target.era).await?;
        connection.run(&Work::Call { tool: "echo".to_owned(), bytes: 10 }, "hello").await?;
        Ok(())
    }

    #[track_caller]
    pub(crate) fn answers(&self, token: &str, allowed: bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let mut last = String::new();
            let done = eventually(BOUND, async || {
                let called = self.call(token).await;
                last = called.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default();
                // A proxy that is not there is no refusal.
                called.is_ok() == allowed && !last.contains("refused (os")
            })
            .await;
            assert!(done, "{place}: wanted allowed={allowed}; last: {last}\n{}", self.log());
        }
    }
}

/// A fast MCP server in this process; its URL.
pub(crate) async fn upstream() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(weir_loadtest::upstream::serve(listener, 3));
    format!("http://{address}/mcp")
}

pub(crate) fn documents(folder: &Path, upstream: &str) -> PathBuf {
    let text = format!(
        r#"
apiVersion: weir/v1
kind: Region
metadata: {{name: eu}}
spec: {{}}
---
apiVersion: weir/v1
kind: Group
metadata: {{name: acme}}
spec: {{regions: [eu]}}
---
apiVersion: weir/v1
kind: Server
metadata: {{name: bench, group: acme}}
spec: {{versions: [{{name: v1, upstream: {{http: {{url: '{upstream}', allowPrivate: true}}}}}}]}}
---
apiVersion: weir/v1
kind: ServiceAccount
metadata: {{name: ci, group: acme}}
spec: {{}}
---
apiVersion: weir/v1
kind: Role
metadata: {{name: caller, group: acme}}
spec: {{rules: [{{servers: ['*'], tools: ['*']}}]}}
---
apiVersion: weir/v1
kind: RoleBinding
metadata: {{name: ci, group: acme}}
spec: {{role: caller, subjects: [{{serviceAccount: ci}}]}}
"#
    );
    let file = folder.join("documents.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

/// A policy that forbids everything, as a file.
fn forbid(folder: &Path) -> PathBuf {
    let text = "apiVersion: weir/v1\nkind: Policy\nmetadata: {name: closed, group: acme}\n\
                spec: {cedar: 'forbid (principal, action, resource);'}\n";
    let file = folder.join("forbid.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

pub(crate) fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

/// A control plane that runs on a store of its own, with what is needed to call through proxies.
pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    pub(crate) control: Control,
    /// An operator's token.
    pub(crate) admin: String,
    /// A caller's.
    pub(crate) agent: String,
}

impl Scene {
    /// With further settings of the control plane.
    pub(crate) async fn start(settings: &[(&'static str, &str)]) -> (Self, Process) {
        let folder = TempDir::new().unwrap();
        let at = folder.path();
        let mut store = vec![("WEIR_CP_STORE__PATH", at.join("store").display().to_string())];
        store.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let control = Control::new(at, "control", store);
        let running = control.start();
        let admin = control.token().await;
        control.weir(&admin, &["apply", "-f", path(&documents(at, &upstream().await))]).await;
        let agent = control.weir(&admin, &["token", "create", "ci", "-g", "acme", "--quiet"]).await;
        let agent = agent.trim().to_owned();
        (Self { folder, control, admin, agent }, running)
    }

    /// A proxy that may join; it is not started.
    pub(crate) async fn proxy(&self, name: &str) -> Proxy {
        let args = ["enrol-token", "--region", "eu", "--quiet"];
        let join = self.control.weir(&self.admin, &args).await;
        Proxy::new(self.folder.path(), name, &[&self.control], join.trim())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_without_the_control_plane() {
    let (scene, running) = Scene::start(&[]).await;
    let Scene { folder, control, admin, agent } = &scene;
    let at = folder.path();
    let proxy = scene.proxy("proxy-1").await;
    let serving = proxy.start();
    proxy.answers(agent, true).await;

    running.kill();
    proxy.call(agent).await.expect("a call without the control plane");
    serving.kill();
    let _serving = proxy.start();
    proxy.answers(agent, true).await;

    let _running = control.start();
    control.weir(admin, &["apply", "-f", path(&forbid(at))]).await;
    proxy.answers(agent, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_on_one_etcd_and_two_proxies_agree() {
    let Ok(etcd) = std::env::var("WEIR_TEST_ETCD") else {
        let required = std::env::var("WEIR_REQUIRE_REAL").is_ok_and(|value| value == "1");
        assert!(!required, "WEIR_REQUIRE_REAL=1, but WEIR_TEST_ETCD names no etcd");
        // Past the harness, which swallows what tests that pass print.
        let left_out = "left out (no WEIR_TEST_ETCD): two replicas on one etcd, two proxies\n";
        std::io::stderr().write_all(left_out.as_bytes()).unwrap();
        return;
    };
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let prefix = format!("/weir-planes-{}-{}/", std::process::id(), free_port());
    let store = || {
        vec![
            ("WEIR_CP_STORE__ETCD__ENDPOINTS", etcd.clone()),
            ("WEIR_CP_STORE__ETCD__PREFIX", prefix.clone()),
        ]
    };
    let (one, two) = (Control::new(at, "one", store()), Control::new(at, "two", store()));
    let _one = one.start();
    let admin = one.token().await;
    let _two = two.start();
    one.weir(&admin, &["apply", "-f", path(&documents(at, &upstream().await))]).await;
    let agent = one.weir(&admin, &["token", "create", "ci", "-g", "acme", "--quiet"]).await;
    let agent = agent.trim();
    let join = async |control: &Control| {
        control.weir(&admin, &["enrol-token", "--region", "eu", "--quiet"]).await.trim().to_owned()
    };
    let first = Proxy::new(at, "proxy-1", &[&one], &join(&one).await);
    let second = Proxy::new(at, "proxy-2", &[&two], &join(&two).await);
    let _serving = (first.start(), second.start());
    first.answers(agent, true).await;
    second.answers(agent, true).await;

    two.weir(&admin, &["apply", "-f", path(&forbid(at))]).await;
    first.answers(agent, false).await;
    second.answers(agent, false).await;

    let mut shown = String::new();
    let agree = eventually(BOUND, async || {
        shown = one.weir(&admin, &["nodes", "-o", "json"]).await;
        let nodes: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let (a, b) = (&nodes["nodes"][0], &nodes["nodes"][1]);
        ["revision", "digest"].iter().all(|field| !a[field].is_null() && a[field] == b[field])
            && a["connected"] == true
            && b["connected"] == true
            && a["replica"] != b["replica"]
    })
    .await;
    assert!(agree, "{shown}");
}

/// Everything that one command takes back, at two proxies, and how long it took: the time is
/// printed (`cargo test -p weir --test it revok -- --nocapture`), not asserted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_is_refused_at_every_proxy() {
    let (scene, _running) = Scene::start(&[]).await;
    let Scene { control, admin, agent, .. } = &scene;
    let mut proxies = Vec::new();
    for name in ["proxy-1", "proxy-2"] {
        let proxy = scene.proxy(name).await;
        let process = proxy.start();
        proxy.answers(agent, true).await;
        proxies.push((proxy, process));
    }
    let mut report = String::new();
    for what in [
        &["principal", "account:ci"][..],
        &["server", "bench"],
        &["tool", "bench", "echo"],
        &["role-binding", "ci"],
    ] {
        let args = [&["revoke"], what, &["-g", "acme"]].concat();
        let begun = std::time::Instant::now();
        let told = control.weir(admin, &args).await;
        let command = begun.elapsed();
        for (proxy, _) in &proxies {
            proxy.answers(agent, false).await;
        }
        report += &format!("{what:?}: {command:?} for the command, {:?} in all\n", begun.elapsed());
        let name = told.split("delete revocation ").nth(1).unwrap().split(' ').next().unwrap();
        control.weir(admin, &["delete", "revocation", name, "-g", "acme"]).await;
        for (proxy, _) in &proxies {
            proxy.answers(agent, true).await;
        }
    }
    println!("{report}");

    control.weir(admin, &["revoke", "node", "proxy-2"]).await;
    let logs = || {
        let of_proxies = proxies.iter().map(|(proxy, _)| proxy.log());
        of_proxies.chain([control.log()]).collect::<Vec<_>>().join("\n----\n")
    };
    let mut shown = String::new();
    let cut_off = eventually(BOUND, async || {
        shown = control.weir(admin, &["nodes", "-o", "json"]).await;
        let nodes: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let nodes = nodes["nodes"].as_array().unwrap().clone();
        nodes.iter().all(|node| node["connected"] == (node["name"] == "proxy-1"))
    })
    .await;
    assert!(cut_off, "a node that is cut off is still connected: {shown}\n{}", logs());
    control.weir(admin, &["delete", "noderevocation", "proxy-2"]).await;
    let back = eventually(BOUND, async || {
        let shown = control.weir(admin, &["nodes", "-o", "json"]).await;
        shown.matches("\"connected\": true").count() == 2
    })
    .await;
    assert!(back, "a node that was let in again does not come back\n{}", logs());
}
