//! Signing in at a real authorization server, with a browser that agrees to everything.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use weir_peers::authority::{Authority, Counts, Manners};

use super::host::{Host, binary, command};
use super::{endpoint, product};
use crate::product::Product;

/// Lets in whoever the authority vouches for.
fn provider(authority: &Authority, audience: &str) -> String {
    format!(
        "---\napiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {{group: shop, name: people}}\nspec:\n  \
         issuer: '{}'\n  audiences: ['{audience}']\n  keys: {{jwksUrl: '{}'}}\n  allowPrivate: true\n",
        authority.issuer(),
        authority.keys_url(),
    )
}

/// The gateway's own address is the audience: it is known once it listens.
async fn guarded(manners: Manners) -> (Authority, Product) {
    let authority = Authority::start(manners).await.unwrap();
    let product = product("---\n").await;
    let documents = provider(&authority, &endpoint(&product));
    let file = product.file("people.yaml", &documents);
    product.weir(&["apply", "--wait", "-f", &file]).await.unwrap();
    (authority, product)
}

fn host(folder: &Path, arguments: &[&str]) -> Host {
    let browser = binary("demo-browser");
    let environment =
        [("XDG_CONFIG_HOME", folder.to_str().unwrap()), ("BROWSER", browser.to_str().unwrap())];
    Host::start_with(arguments, &environment)
}

async fn lists(mut host: Host) -> Value {
    host.initialize("2025-11-25").await;
    let listed = host.ask("tools/list", json!({})).await;
    host.end().await;
    listed
}

fn counts(registered: usize, consents: usize, refreshed: usize) -> Counts {
    Counts { registered, consents, refreshed }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_signs_in_once_and_stays_signed_in() {
    let (authority, product) = guarded(Manners::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = endpoint(&product);
    let listed = lists(host(folder.path(), &[&url])).await;
    assert!(listed["result"]["tools"].is_array(), "{listed}");
    assert_eq!(authority.counts(), counts(1, 1, 0));

    // The next bridge finds the token.
    let file = folder.path().join("weir/connect.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    lists(host(folder.path(), &[&url])).await;
    assert_eq!(authority.counts(), counts(1, 1, 0));

    // A token that has run out is renewed, and the refresh token that comes with it kept.
    for refreshed in 1..=2 {
        age(&file);
        let listed = lists(host(folder.path(), &[&url])).await;
        assert!(listed["result"]["tools"].is_array(), "{listed}");
        assert_eq!(authority.counts(), counts(1, 1, refreshed));
    }

    // A refresh that is refused leads to the browser again.
    authority.revoke_all();
    age(&file);
    let listed = lists(host(folder.path(), &[&url])).await;
    assert!(listed["result"]["tools"].is_array(), "{listed}");
    assert_eq!(authority.counts().consents, 2);

    let forgotten =
        command(&["--sign-out", &url], &[("XDG_CONFIG_HOME", folder.path().to_str().unwrap())]);
    assert!({ forgotten }.status().await.unwrap().success());
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["grants"], json!([]));
    product.stop().await;
}

/// Makes every access token in the file one that has run out.
fn age(file: &Path) {
    let mut kept: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for grant in kept["grants"].as_array_mut().unwrap() {
        for access in grant["endpoints"].as_object_mut().unwrap().values_mut() {
            access["expires_at"] = json!(1);
            access["token"] = json!("worn.out.token");
        }
    }
    std::fs::write(file, kept.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_hosts_that_start_at_once_ask_the_person_once() {
    let (authority, product) = guarded(Manners::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = endpoint(&product);
    lists(host(folder.path(), &[&url])).await;
    age(&folder.path().join("weir/connect.json"));
    let all = (0..3).map(|_| lists(host(folder.path(), &[&url])));
    for listed in futures_util::future::join_all(all).await {
        assert!(listed["result"]["tools"].is_array(), "{listed}");
    }
    // The rotated refresh token was good for one use: whoever waited took the new token.
    assert_eq!(authority.counts(), counts(1, 1, 1));
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_registered_needs_no_registration() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let redirect = format!("http://127.0.0.1:{port}/callback");
    let client = Some(("weir-desktop".to_owned(), redirect));
    let (authority, product) =
        guarded(Manners { registers: false, client, ..Manners::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let url = endpoint(&product);

    let mut unknown = host(folder.path(), &[&url]);
    let refused = unknown.initialize("2025-11-25").await;
    assert_eq!(refused["error"]["data"]["reason"], "not_signed_in", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("--client-id"), "{refused}");
    unknown.end().await;

    let port = port.to_string();
    let known = ["--client-id", "weir-desktop", "--callback-port", &port, &url];
    let listed = lists(host(folder.path(), &known)).await;
    assert!(listed["result"]["tools"].is_array(), "{listed}");
    assert_eq!(authority.counts(), counts(0, 1, 0));
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_environment_is_used_as_it_is() {
    let (authority, product) = guarded(Manners::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().to_str().unwrap();
    let url = endpoint(&product);
    let token = authority.sign(&url, "").unwrap();
    let environment = [("XDG_CONFIG_HOME", config), ("WEIR_AGENT_TOKEN", token.as_str())];
    let listed = lists(Host::start_with(&[&url], &environment)).await;
    assert!(listed["result"]["tools"].is_array(), "{listed}");

    let environment = [("XDG_CONFIG_HOME", config), ("WEIR_AGENT_TOKEN", "wrong")];
    let mut host = Host::start_with(&[&url], &environment);
    let refused = host.initialize("2025-11-25").await;
    assert_eq!(refused["error"]["data"]["reason"], "not_signed_in", "{refused}");
    host.end().await;
    assert_eq!(authority.counts(), Counts::default());
    product.stop().await;
}
