//! The binary as operators run it: checked, started, restarted, ended by a signal.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use weir_runtime::testing::eventually;

const BOUND: Duration = Duration::from_secs(20);

fn command(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-control-plane"));
    command
        .env_clear()
        .env("WEIR_CP_LISTEN__ADDRESS", format!("127.0.0.1:{port}"))
        .env("WEIR_CP_SYNC__ADDRESS", "127.0.0.1:0")
        .env("WEIR_CP_ADMIN__ADDRESS", "127.0.0.1:0")
        .env("WEIR_CP_STORE__PATH", folder.join("store"))
        .env("WEIR_CP_VAULT__KEYS_FILE", folder.join("keys"))
        .env("WEIR_CP_AUDIT__DIR", folder.join("audit"))
        .env("WEIR_CP_BOOTSTRAP__TOKEN_FILE", folder.join("token"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> (bool, String) {
    let ended = tokio::time::timeout(BOUND, command.output()).await;
    let Output { status, stdout, stderr } = ended.expect("it ends").unwrap();
    let text = [stdout, stderr].concat();
    (status.success(), String::from_utf8_lossy(&text).into_owned())
}

async fn answers(port: u16) -> bool {
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
}

async fn terminate(child: Child) -> (bool, String) {
    let id = child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let ended = tokio::time::timeout(BOUND, child.wait_with_output()).await;
    let Output { status, stdout, stderr } = ended.expect("it drains").unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn settings_are_checked_and_shown_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let mut good = command(folder.path(), 0);
    good.arg("--check").env("WEIR_CP_VAULT__KEYS", crate::plane::KEY);
    let (ok, text) = output(good).await;
    assert!(ok && text.contains("listen.address = \"127.0.0.1:0\""), "{text}");
    assert!(!text.contains(crate::plane::KEY), "{text}");
    assert!(!folder.path().join("store").exists(), "a check makes nothing");
    for (variable, value, word) in [
        ("WEIR_CP_LISTEN__ADDRESS", "0.0.0.0:80", "listen.tls"),
        ("WEIR_CP_LISTEN__PORT", "80", "listen"),
        ("WEIR_CP_DRAIN_MS", "soon", "drain_ms"),
    ] {
        let mut bad = command(folder.path(), 0);
        bad.arg("--check").env(variable, value);
        let (ok, text) = output(bad).await;
        assert!(!ok && text.contains(word), "{variable}: {text}");
    }
}

#[tokio::test]
async fn it_starts_hands_out_one_token_and_ends_by_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let (port, path) = (free_port(), folder.path());
    let first = command(path, port).spawn().unwrap();
    assert!(eventually(BOUND, async || answers(port).await).await);
    let read = || std::fs::read_to_string(path.join("token")).unwrap_or_default();
    assert!(eventually(BOUND, async || read().ends_with('\n')).await);
    let token = read();
    assert!(token.starts_with("weir_op_"), "{token}");

    let (ok, text) = output(command(path, free_port())).await;
    assert!(!ok, "{text}");
    assert!(text.contains("in use"), "the same folder twice: {text}");

    let (ok, log) = terminate(first).await;
    assert!(ok, "{log}");
    assert!(!log.contains(token.trim()), "{log}");
    assert!(!answers(port).await);

    let again = command(path, port).spawn().unwrap();
    assert!(eventually(BOUND, async || answers(port).await).await);
    assert_eq!(std::fs::read_to_string(path.join("token")).unwrap(), token);
    assert!(terminate(again).await.0);
}
