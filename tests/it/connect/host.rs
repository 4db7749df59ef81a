//! A host that starts `weir connect` as a process and talks to it in lines.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use weir_peers::agent::{Agent, Era};

/// Generous: the machine may be busy with other tests.
const BOUND: Duration = Duration::from_secs(30);

/// A binary that is built beside ours.
pub(super) fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name(name);
    assert!(path.exists(), "{name} is not built; run cargo build --workspace first");
    path
}

/// The process with an environment of its own.
pub(super) fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary("weir"));
    command
        .arg("connect")
        .args(["--log", "error"])
        .args(arguments)
        .env_remove("WEIR_AGENT_TOKEN")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    command
}

/// One host, one bridge.
pub(super) struct Host {
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
    /// Messages that were no answer.
    pub(super) heard: Vec<Value>,
    last: u64,
    _folder: Option<tempfile::TempDir>,
}

impl Host {
    /// With a folder of its own for tokens.
    pub(super) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        let mut host = Self::start_with(arguments, &[("XDG_CONFIG_HOME", &path)]);
        host._folder = Some(folder);
        host
    }

    pub(super) fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = command(arguments, environment).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, to, from, heard: Vec::new(), last: 0, _folder: None }
    }

    pub(super) async fn send_text(&mut self, line: &str) {
        self.to.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(super) async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub(super) async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(BOUND, self.from.next_line()).await;
        let line = line.expect("an answer in time").unwrap().expect("the bridge runs");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Sends a request without waiting; gives its id.
    pub(super) async fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        let id = self.last;
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        id
    }

    /// The answer to a request; what comes before it is kept in `heard`.
    pub(super) async fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.next().await;
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
            self.heard.push(message);
        }
    }

    pub(super) async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        self.answer(id).await
    }

    pub(super) async fn ask_modern(&mut self, method: &str, mut params: Value) -> Value {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        self.ask(method, params).await
    }

    pub(super) async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// The handshake.
    pub(super) async fn initialize(&mut self, revision: &str) -> Value {
        let params = json!({
            "protocolVersion": revision, "capabilities": {},
            "clientInfo": { "name": "test-host", "version": "1" },
        });
        let answer = self.ask("initialize", params).await;
        self.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        answer
    }

    /// Closes its side; the bridge has to end by itself.
    pub(super) async fn end(self) {
        let Self { mut child, to, mut from, .. } = self;
        drop(to);
        let ended = async {
            while let Ok(Some(_)) = from.next_line().await {}
            child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(BOUND, ended).await.expect("the bridge ends");
        assert!(status.success(), "{status}");
    }
}

/// A client on another implementation of the protocol, through a bridge of its own.
pub(super) async fn agent(arguments: &[&str], era: Era) -> Agent {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let mut child = command(arguments, &[("XDG_CONFIG_HOME", &path)]).spawn().unwrap();
    let streams = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    // The bridge ends when its stdin does; the folder has nothing that it needs by then.
    tokio::spawn(async move {
        drop(child.wait().await);
        drop(folder);
    });
    Agent::over(streams, era).await.unwrap()
}
