//! Sessions of people whose tokens come from an identity provider: the token is judged with every
//! request, the session is the person's.

use serde_json::{Value, json};
use weir_model::resource::{Rule, Subject};
use weir_model::testing::World;

use crate::issuer::Issuer;
use crate::peer::Peer;
use crate::proxy::{Answer, Ask, Proxy};
use crate::world;

const PATH: &str = "/acme/mcp";

fn people(url: &str, issuer: &str) -> World {
    let documents = format!(
        "apiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {{name: corp, group: acme}}\n\
         spec:\n  issuer: {issuer}\n  audiences: [weir]\n  allowPrivate: true\n"
    );
    let rule = Rule { servers: vec!["*".into()], tools: vec!["echo".into()], ..Rule::default() };
    let anybody = vec![Subject::Membership("staff".into())];
    world(url).documents(&documents).grant("acme", vec![rule], anybody)
}

struct Scene {
    issuer: Issuer,
    proxy: Proxy,
    _peer: Peer,
}

impl Scene {
    async fn start() -> Self {
        let (issuer, peer) = (Issuer::start().await, Peer::start().await);
        let proxy = Proxy::start(&people(&peer.url, &issuer.url)).await;
        Self { issuer, proxy, _peer: peer }
    }

    /// A token of `person`, with `change` made to what it says.
    fn token(&self, person: &str, change: Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({"iss": self.issuer.url, "sub": person, "aud": "weir",
            "groups": ["staff"], "iat": now - 600, "exp": now + 600});
        for (name, value) in change.as_object().into_iter().flatten() {
            match value {
                Value::Number(offset) => claims[name] = (now + offset.as_i64().unwrap()).into(),
                other => claims[name] = other.clone(),
            }
        }
        self.issuer.token(claims)
    }

    async fn send(&self, ask: Ask, token: &str) -> Answer {
        self.proxy.send(ask.token(token)).await
    }
}

fn ping(session: &str) -> Ask {
    Ask::legacy(PATH, session, "ping", &json!({}))
}

#[tokio::test]
async fn a_session_goes_on_with_the_next_token_of_its_person() {
    let scene = Scene::start().await;
    let alice = scene.token("alice", json!({}));
    let hello = scene.send(Ask::initialize(PATH, "2025-11-25"), &alice).await;
    assert_eq!(hello.status, 200, "{}", hello.text());
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let next = scene.token("alice", json!({"jti": "another", "exp": 900}));
    assert_eq!(scene.send(ping(&session), &next).await.status, 200);
    // Somebody else's is unknown to her, whatever she may do.
    let bob = scene.token("bob", json!({}));
    assert_eq!(scene.send(ping(&session), &bob).await.status, 404);
}

/// 401 and how to get a good one: the session is not told of, and is as good as before.
#[tokio::test]
async fn a_token_that_is_no_good_is_refused_with_a_challenge() {
    let scene = Scene::start().await;
    let alice = scene.token("alice", json!({}));
    let hello = scene.send(Ask::initialize(PATH, "2025-11-25"), &alice).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let whole = scene.token("alice", json!({}));
    for (what, bad) in [
        ("expired", scene.token("alice", json!({"exp": -120}))),
        ("not yet", scene.token("alice", json!({"nbf": 500}))),
        ("for somebody else", scene.token("alice", json!({"aud": "elsewhere"}))),
        ("for nobody", scene.token("alice", json!({"aud": null}))),
        ("of another issuer", scene.token("alice", json!({"iss": "https://evil.example"}))),
        ("with a bad signature", format!("{}AAAA", &whole[..whole.len() - 4])),
    ] {
        for ask in [ping(&session), Ask::modern(PATH, "tools/list", json!({}))] {
            let answer = scene.send(ask, &bad).await;
            assert_eq!(answer.status, 401, "{what}: {}", answer.text());
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            let told =
                challenge.contains("invalid_token") && challenge.contains("resource_metadata=");
            assert!(told, "{what}: {challenge}");
            assert!(!answer.text().contains(&bad), "{what}: not told back");
        }
    }
    assert_eq!(scene.send(ping(&session), &alice).await.status, 200);
}
