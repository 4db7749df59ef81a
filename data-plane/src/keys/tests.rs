//! Every fault that a token can have, keys that rotate, issuers that fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use weir_model::principal::Proof;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::Snapshot;
use weir_model::testing::World;

use super::*;

mod presets;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://id.example/realms/a";
const JWKS: &str = "https://id.example/keys";

/// Documents by URL, and how often each was asked for.
#[derive(Debug, Default)]
struct Web {
    pages: Mutex<HashMap<String, Result<Value, String>>>,
    asked: Mutex<HashMap<String, usize>>,
    slow: Mutex<Option<Duration>>,
}

impl Web {
    fn put(&self, url: &str, page: Value) {
        self.pages.lock().insert(url.to_owned(), Ok(page));
    }
    fn fail(&self, url: &str) {
        self.pages.lock().insert(url.to_owned(), Err("answered HTTP 500".to_owned()));
    }
    fn asked(&self, url: &str) -> usize {
        self.asked.lock().get(url).copied().unwrap_or_default()
    }
}

#[async_trait]
impl Fetch for Web {
    async fn get_json(&self, url: &str, _: bool) -> Result<Bytes, String> {
        *self.asked.lock().entry(url.to_owned()).or_default() += 1;
        let slow = *self.slow.lock();
        if let Some(slow) = slow {
            tokio::time::sleep(slow).await;
        }
        let page = self.pages.lock().get(url).cloned();
        let page = page.unwrap_or_else(|| Err("answered HTTP 404".to_owned()))?;
        Ok(Bytes::from(page.to_string()))
    }
    async fn post_form(
        &self,
        url: &str,
        _: bool,
        _: String,
        _: Option<String>,
    ) -> Result<(u16, Bytes), String> {
        panic!("a form was posted to {url}");
    }
}

/// A key pair of an issuer.
struct Pair {
    id: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
}

impl Pair {
    fn ed(id: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self { id, algorithm: Algorithm::EdDSA, private }
    }
    fn ec(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self { id, algorithm: Algorithm::ES256, private: EncodingKey::from_ec_der(der.as_ref()) }
    }
    fn rsa(id: &'static str, algorithm: Algorithm) -> Self {
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let der = pair.as_der().unwrap();
        // PKCS#8 wraps the PKCS#1 key that the library wants.
        let at = der.as_ref().windows(2).skip(4).position(|w| w == [0x04, 0x82]).unwrap() + 4 + 4;
        Self { id, algorithm, private: EncodingKey::from_rsa_der(&der.as_ref()[at..]) }
    }
    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["use"] = json!("sig");
        jwk
    }
    fn sign(&self, claims: &Value) -> String {
        self.sign_as(claims, |_| {})
    }
    fn sign_as(&self, claims: &Value, change: impl FnOnce(&mut Header)) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        change(&mut header);
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "weir", "sub": "alice", "exp": NOW + 600})
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn provider(name: &str, more: &str) -> String {
    format!(
        "apiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {{group: acme, name: {name}}}\n\
         spec:\n  issuer: {ISSUER}\n  audiences: [weir, https://gw.example/acme/mcp]\n{more}"
    )
}

fn snapshot(documents: &str) -> Snapshot {
    let world = World::new().group("acme").account("acme", "ci");
    let world = if documents.is_empty() { world } else { world.documents(documents) };
    let snapshot = world.snapshot();
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    snapshot
}

/// A web with an issuer that publishes these keys, and the group that trusts it.
struct Scene {
    web: Arc<Web>,
    keys: Keys,
    snapshot: Snapshot,
}

impl Scene {
    fn new(pairs: &[&Pair], documents: &str) -> Self {
        let web = Arc::new(Web::default());
        web.put(JWKS, json!({"keys": pairs.iter().map(|p| p.public()).collect::<Vec<_>>()}));
        let metadata = json!({"issuer": ISSUER, "jwks_uri": JWKS});
        web.put(&format!("{ISSUER}/.well-known/openid-configuration"), metadata);
        let keys = Keys::new(Arc::<Web>::clone(&web), KeyMetrics::default());
        Self { web, keys, snapshot: snapshot(documents) }
    }
    async fn verify(&self, token: &str) -> Result<Arc<Principal>, Refusal> {
        self.at(token, NOW).await
    }
    async fn at(&self, token: &str, now: i64) -> Result<Arc<Principal>, Refusal> {
        self.keys.verify(token, (&self.snapshot.groups["acme"], None), now).await
    }
    async fn reason(&self, token: &str) -> Option<Reason> {
        self.verify(token).await.err().map(|refusal| {
            let shown = format!("{refusal:?}");
            assert!(token.len() < 8 || !shown.contains(token), "a refusal quotes the token");
            refusal.reason
        })
    }
}

#[tokio::test]
async fn every_fault_of_a_token_has_its_reason() {
    let (good, other) = (Pair::ed("k1"), Pair::ed("k1"));
    let scene = Scene::new(&[&good], &provider("okta", ""));
    let mut tampered = good.sign(&claims());
    let end = tampered.len() - 4;
    let swap = if tampered.as_bytes()[end] == b'A' { "B" } else { "A" };
    tampered.replace_range(end..=end, swap);
    let invalid = Some(Reason::TokenInvalid);
    let (expired, audience) = (Some(Reason::TokenExpired), Some(Reason::TokenAudience));
    let cases: Vec<(&str, String, Option<Reason>)> = vec![
        ("good", good.sign(&claims()), None),
        ("one of several audiences", good.sign(&with("aud", json!(["x", "weir"]))), None),
        ("expired", good.sign(&with("exp", json!(NOW - 31))), expired),
        ("expired within the leeway", good.sign(&with("exp", json!(NOW - 29))), None),
        ("no exp", good.sign(&without("exp")), invalid),
        ("exp as text", good.sign(&with("exp", json!("2099"))), invalid),
        ("exp as null", good.sign(&with("exp", Value::Null)), invalid),
        ("exp as fraction", good.sign(&with("exp", json!(1_800_000_600.5))), None),
        ("exp without bounds", good.sign(&with("exp", json!(1e300))), None),
        ("exp before all time", good.sign(&with("exp", json!(-1e300))), expired),
        ("not yet valid", good.sign(&with("nbf", json!(NOW + 31))), invalid),
        ("not yet valid within the leeway", good.sign(&with("nbf", json!(NOW + 29))), None),
        ("nbf as text", good.sign(&with("nbf", json!("x"))), invalid),
        ("wrong audience", good.sign(&with("aud", json!("other"))), audience),
        ("wrong audiences", good.sign(&with("aud", json!(["other", 3]))), audience),
        ("no aud", good.sign(&without("aud")), audience),
        ("empty aud", good.sign(&with("aud", json!([]))), audience),
        ("null aud", good.sign(&with("aud", Value::Null)), audience),
        ("audience of another case", good.sign(&with("aud", json!("Weir"))), audience),
        ("wrong issuer", good.sign(&with("iss", json!("https://evil.example"))), invalid),
        ("issuer with a slash", good.sign(&with("iss", json!(format!("{ISSUER}/")))), invalid),
        ("issuers", good.sign(&with("iss", json!([ISSUER]))), invalid),
        ("no issuer", good.sign(&without("iss")), invalid),
        ("no subject", good.sign(&without("sub")), invalid),
        ("empty subject", good.sign(&with("sub", json!(""))), invalid),
        ("subject with a line", good.sign(&with("sub", json!("a\nb"))), invalid),
        ("long subject", good.sign(&with("sub", json!("a".repeat(600)))), invalid),
        ("number as subject", good.sign(&with("sub", json!(7))), invalid),
        ("another key of the same id", other.sign(&claims()), invalid),
        ("tampered", tampered, invalid),
        (
            "critical extension",
            good.sign_as(&claims(), |h| h.crit = Some(vec!["x".into()])),
            invalid,
        ),
        ("unknown key id", good.sign_as(&claims(), |h| h.kid = Some("k9".into())), invalid),
        ("no key id", good.sign_as(&claims(), |h| h.kid = None), None),
        (
            "a logout token",
            good.sign(&with(
                "events",
                json!({"http://schemas.openid.net/event/backchannel-logout": {}}),
            )),
            invalid,
        ),
        ("nonsense", "nonsense".to_owned(), invalid),
        ("two parts", "a.b".to_owned(), invalid),
        ("five parts", "a.b.c.d.e".to_owned(), invalid),
        ("no base64", "a.!.c".to_owned(), invalid),
        ("empty", String::new(), invalid),
        ("long", "a".repeat(17_000), invalid),
        (
            "too many groups",
            good.sign(&with("groups", json!((0..600).map(|i| i.to_string()).collect::<Vec<_>>()))),
            invalid,
        ),
    ];
    for (what, token, expect) in cases {
        assert_eq!(scene.reason(&token).await, expect, "{what}");
    }
}

#[tokio::test]
async fn only_the_algorithms_of_the_document_count() {
    let (ed, ec) = (Pair::ed("ed"), Pair::ec("ec"));
    let (rs, ps) = (Pair::rsa("rs", Algorithm::RS256), Pair::rsa("ps", Algorithm::PS256));
    let scene = Scene::new(&[&ed, &ec, &rs, &ps], &provider("okta", ""));
    for pair in [&ed, &ec, &rs, &ps] {
        assert_eq!(scene.reason(&pair.sign(&claims())).await, None, "{:?}", pair.algorithm);
    }
    let only = Scene::new(&[&ed, &ec, &rs], &provider("okta", "  algorithms: [ES256]\n"));
    assert_eq!(only.reason(&ec.sign(&claims())).await, None);
    for pair in [&ed, &rs] {
        let reason = only.reason(&pair.sign(&claims())).await;
        assert_eq!(reason, Some(Reason::TokenInvalid), "{:?}", pair.algorithm);
    }

    // `none`, and HMAC with the public key as the secret.
    let encode = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let body = encode(&claims());
    for algorithm in ["none", "None", "NONE"] {
        let token = format!("{}.{body}.", encode(&json!({"alg": algorithm, "kid": "rs"})));
        assert_eq!(scene.reason(&token).await, Some(Reason::TokenInvalid), "{algorithm}");
    }
    let jwk = rs.public();
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    for secret in [modulus, jwk.to_string().into_bytes(), jwk["n"].as_str().unwrap().into()] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("rs".to_owned());
        let token =
            jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(scene.reason(&token).await, Some(Reason::TokenInvalid));
    }
}

#[tokio::test]
async fn keys_that_must_not_verify_do_not() {
    let pair = Pair::ed("k1");
    let verdict = |change: fn(&mut Value)| {
        let mut jwk = pair.public();
        change(&mut jwk);
        let odd = [json!({"kty": "oct", "k": "AAAA", "kid": "k1"}), json!({"kty": "?"}), json!(7)];
        let scene = Scene::new(&[], &provider("okta", ""));
        let mut all = odd.to_vec();
        all.push(jwk);
        scene.web.put(JWKS, json!({ "keys": all }));
        let token = pair.sign(&claims());
        async move { scene.reason(&token).await }
    };
    assert_eq!(verdict(|_| {}).await, None, "odd keys do not spoil the good one");
    assert_eq!(verdict(|k| drop(k.as_object_mut().unwrap().remove("use"))).await, None);
    assert_eq!(verdict(|k| k["use"] = json!("enc")).await, Some(Reason::IdentityUnavailable));
    let wrong = verdict(|k| k["key_ops"] = json!(["sign"])).await;
    assert_eq!(wrong, Some(Reason::IdentityUnavailable));
    assert_eq!(verdict(|k| k["alg"] = json!("ES256")).await, Some(Reason::IdentityUnavailable));
}

#[tokio::test]
async fn claims_become_a_principal() {
    let pair = Pair::ed("k1");
    let mapped = "  claims:\n    subject: email\n    memberships: [realm_access.roles, 'https://x.example/groups', team]\n    scopes: [scope, scp]\n    client: [azp, cid]\n";
    let scene = Scene::new(&[&pair], &provider("keycloak", mapped));
    let principal = scene
        .verify(&pair.sign(&json!({
            "iss": ISSUER, "aud": "weir", "sub": "0af", "email": "alice@example.com",
            "exp": NOW + 600, "realm_access": {"roles": ["ops", "dev", 7]},
            "https://x.example/groups": ["a b"], "team": "blue", "scope": "read  write",
            "scp": ["admin", "read"], "cid": "cli",
        })))
        .await
        .unwrap();
    assert_eq!(principal.id(), "jwt:keycloak:alice@example.com");
    assert_eq!(principal.proof, Proof::Jwt);
    let words = |list: &Arc<[Arc<str>]>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(words(&principal.memberships), ["a b", "blue", "dev", "ops"]);
    assert_eq!(words(&principal.scopes), ["admin", "read", "write"]);
    assert_eq!(principal.credential.as_deref(), Some("cli"));
    assert_eq!(principal.expires, Some(NOW + 630));
}

#[tokio::test]
async fn api_tokens_are_known_by_their_hash() {
    let scene = Scene::new(&[], "");
    let token = World::token("acme", "ci");
    let principal = scene.verify(&token).await.unwrap();
    assert_eq!((principal.id().as_str(), principal.proof), ("account:ci", Proof::ApiToken));
    let other_id = token.replacen("weir_at_a", "weir_at_b", 1);
    for bad in [&token[..token.len() - 1], &format!("{token}a"), &other_id, "weir_at_", "weir_at_x"]
    {
        assert_eq!(scene.reason(bad).await, Some(Reason::TokenInvalid), "{bad}");
    }

    // The random part is base64url.
    let token = "weir_at_t1_se_cr-et_";
    let digest = weir_model::id::Digest::of(token.as_bytes()).hex();
    let document = format!(
        "apiVersion: weir/v1\nkind: ServiceAccount\nmetadata: {{group: acme, name: old}}\n\
         spec:\n  tokens:\n  - id: t1\n    sha256: {digest}\n    expires: {NOW}\n"
    );
    let scene = Scene::new(&[], &document);
    assert!(scene.at(token, NOW - 1).await.is_ok());
    assert_eq!(scene.reason(token).await, Some(Reason::TokenExpired));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_is_found_and_a_withdrawn_one_forgotten() {
    let (old, new) = (Pair::ed("k1"), Pair::ed("k2"));
    let scene = Scene::new(&[&old], &provider("okta", ""));
    let (by_old, by_new) = (old.sign(&claims()), new.sign(&claims()));
    assert_eq!(scene.reason(&by_old).await, None);
    assert_eq!(scene.web.asked(JWKS), 1);

    // Unknown ids do not make the proxy hammer the issuer: a few looks in a row, then one in a while.
    for _ in 0..20 {
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(scene.reason(&by_new).await, Some(Reason::TokenInvalid));
    }
    let looks = 1 + bounds::JWKS_UNKNOWN_KEY_BURST as usize;
    assert_eq!(scene.web.asked(JWKS), looks, "the floor holds");
    scene.web.put(JWKS, json!({"keys": [new.public()]}));
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(scene.reason(&by_new).await, None, "fetched again for the unknown id");
    assert_eq!(scene.web.asked(JWKS), looks + 1);
    assert_eq!(scene.reason(&by_old).await, Some(Reason::TokenInvalid), "remembered no longer");
}

#[tokio::test(start_paused = true)]
async fn keys_that_rotate_in_a_row_refuse_no_call() {
    let pairs = [Pair::ed("k1"), Pair::ed("k2"), Pair::ed("k3"), Pair::ed("k4")];
    let scene = Scene::new(&[&pairs[0]], &provider("okta", ""));
    for count in 1..=pairs.len() {
        let published: Vec<Value> = pairs[..count].iter().map(Pair::public).collect();
        scene.web.put(JWKS, json!({"keys": published}));
        tokio::time::advance(Duration::from_millis(1)).await;
        for pair in &pairs[..count] {
            assert_eq!(scene.reason(&pair.sign(&claims())).await, None, "{count} keys");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_refreshed_ahead_and_the_last_good_ones_kept() {
    let pair = Pair::ed("k1");
    let scene = Scene::new(&[&pair], &provider("okta", ""));
    let token = pair.sign(&claims());
    assert_eq!(scene.reason(&token).await, None);
    let fresh = || with("jti", json!(scene.web.asked(JWKS)));
    tokio::time::advance(Duration::from_secs(301)).await;
    assert_eq!(scene.reason(&pair.sign(&fresh())).await, None);
    let mut waited = 0;
    while scene.web.asked(JWKS) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        waited += 1;
        assert!(waited < 1_000, "no refresh in the background");
    }
    scene.web.fail(JWKS);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(scene.reason(&pair.sign(&fresh())).await, None, "the last good keys");
    assert_eq!(scene.reason(&token).await, None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scene.keys.status()[0].failure.as_deref().unwrap().contains("HTTP 500"));
    tokio::time::advance(Duration::from_secs(86_400)).await;
    assert_eq!(scene.reason(&token).await, Some(Reason::IdentityUnavailable), "too old");
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_is_said_to_be_and_asked_rarely() {
    let pair = Pair::ed("k1");
    let scene = Scene::new(&[&pair], &provider("okta", ""));
    scene.web.fail(JWKS);
    let token = pair.sign(&claims());
    for _ in 0..10 {
        let refusal = scene.verify(&token).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::IdentityUnavailable);
        assert!(refusal.retry_after_secs.is_some());
    }
    assert_eq!(scene.web.asked(JWKS), 1);
    scene.web.put(JWKS, json!({"keys": [pair.public()]}));
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(scene.reason(&token).await, None);
}

#[tokio::test(start_paused = true)]
async fn however_many_wait_one_fetch_runs() {
    let pair = Pair::ed("k1");
    let scene = Arc::new(Scene::new(&[&pair], &provider("okta", "")));
    *scene.web.slow.lock() = Some(Duration::from_secs(1));
    let calls: Vec<_> = (0..50)
        .map(|i| {
            let (scene, token) = (Arc::clone(&scene), pair.sign(&with("jti", json!(i))));
            tokio::spawn(async move { scene.reason(&token).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), None);
    }
    assert_eq!(scene.web.asked(JWKS), 1);
}

#[tokio::test]
async fn discovery_speaks_for_its_own_issuer_only() {
    let pair = Pair::ed("k1");
    let scene = Scene::new(&[&pair], &provider("okta", ""));
    let openid = format!("{ISSUER}/.well-known/openid-configuration");
    scene.web.put(&openid, json!({"issuer": "https://evil.example", "jwks_uri": JWKS}));
    let refusal = scene.verify(&pair.sign(&claims())).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::IdentityUnavailable);
    assert!(refusal.detail.contains("another issuer"), "{}", refusal.detail);

    // RFC 8414 metadata do as well.
    let scene = Scene::new(&[&pair], &provider("okta", ""));
    scene.web.fail(&openid);
    let rfc8414 = "https://id.example/.well-known/oauth-authorization-server/realms/a";
    scene.web.put(rfc8414, json!({"issuer": ISSUER, "jwks_uri": JWKS}));
    assert_eq!(scene.reason(&pair.sign(&claims())).await, None);
}

#[tokio::test]
async fn other_sources_of_keys_work() {
    let pair = Pair::ed("k1");
    let by_url = provider("okta", &format!("  keys: {{jwksUrl: {JWKS}}}\n"));
    assert_eq!(Scene::new(&[&pair], &by_url).reason(&pair.sign(&claims())).await, None);
    let text = json!({"keys": [pair.public()]}).to_string();
    let inline = provider("okta", &format!("  keys: {{jwks: '{text}'}}\n"));
    let scene = Scene::new(&[], &inline);
    assert_eq!(scene.reason(&pair.sign(&claims())).await, None);
    assert_eq!(scene.web.asked(JWKS), 0);
}

#[tokio::test]
async fn two_providers_of_a_group_keep_apart() {
    let (a, b) = (Pair::ed("k1"), Pair::ed("k1"));
    let second = provider("second", "").replace(ISSUER, "https://b.example");
    let scene = Scene::new(&[&a], &format!("{}---\n{second}", provider("first", "")));
    let metadata = json!({"issuer": "https://b.example", "jwks_uri": "https://b.example/k"});
    scene.web.put("https://b.example/.well-known/openid-configuration", metadata);
    scene.web.put("https://b.example/k", json!({"keys": [b.public()]}));
    let of_b = with("iss", json!("https://b.example"));
    assert_eq!(scene.verify(&a.sign(&claims())).await.unwrap().id(), "jwt:first:alice");
    assert_eq!(scene.verify(&b.sign(&of_b)).await.unwrap().id(), "jwt:second:alice");
    assert_eq!(scene.reason(&b.sign(&claims())).await, Some(Reason::TokenInvalid));
    assert_eq!(scene.reason(&a.sign(&of_b)).await, Some(Reason::TokenInvalid));

    // One issuer twice, for two audiences.
    let twin = provider("twin", "").replace("weir,", "twin,");
    let scene = Scene::new(&[&a], &format!("{}---\n{twin}", provider("first", "")));
    assert_eq!(scene.verify(&a.sign(&claims())).await.unwrap().id(), "jwt:first:alice");
    let for_twin = a.sign(&with("aud", json!("twin")));
    assert_eq!(scene.verify(&for_twin).await.unwrap().id(), "jwt:twin:alice");
    assert_eq!(scene.reason(&a.sign(&with("aud", json!("x")))).await, Some(Reason::TokenAudience));
}

#[tokio::test]
async fn a_remembered_token_obeys_the_clock_and_the_documents() {
    let pair = Pair::ed("k1");
    let scene = Scene::new(&[&pair], &provider("okta", ""));
    let token = pair.sign(&claims());
    assert!(scene.verify(&token).await.is_ok());
    assert_eq!(scene.at(&token, NOW + 700).await.unwrap_err().reason, Reason::TokenExpired);
    assert!(scene.verify(&token).await.is_ok());

    let narrower = provider("okta", "").replace("weir,", "");
    let narrower = snapshot(&narrower);
    let refusal =
        scene.keys.verify(&token, (&narrower.groups["acme"], None), NOW).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::TokenAudience, "verified under other documents");
    assert_eq!(scene.web.asked(JWKS), 1, "but the keys are the same");

    let own = World::new().documents(&provider("okta", "").replace("weir,", ""));
    let own = own.group_with("acme", |g| g.audience = Some("weir".to_owned())).snapshot();
    assert!(
        scene.keys.verify(&token, (&own.groups["acme"], None), NOW).await.is_ok(),
        "the group's own"
    );
}

#[tokio::test]
async fn a_token_for_the_endpoint_itself_needs_no_audience_of_a_document() {
    let pair = Pair::ed("k1");
    let scene = Scene::new(&[&pair], &provider("okta", ""));
    let url = "https://gw.example/acme/files/mcp";
    let token = pair.sign(&with("aud", json!(url)));
    let group = &scene.snapshot.groups["acme"];
    for (resource, good) in
        [(Some(url), true), (Some("https://gw.example/acme/mcp/x"), false), (None, false)]
    {
        // Twice: what is remembered must not be remembered for another endpoint.
        for _ in 0..2 {
            let got = scene.keys.verify(&token, (group, resource), NOW).await;
            assert_eq!(got.is_ok(), good, "{resource:?}");
        }
    }
}

#[tokio::test]
async fn what_was_refused_for_good_is_not_judged_again_for_a_while() {
    let (good, other) = (Pair::ed("k1"), Pair::ed("k1"));
    let scene = Scene::new(&[&good], &provider("okta", ""));
    let forged = other.sign(&claims());
    for _ in 0..3 {
        assert_eq!(scene.reason(&forged).await, Some(Reason::TokenInvalid));
    }
    assert_eq!(scene.keys.refused.iter().count(), 1);
    let unknown = good.sign_as(&claims(), |header| header.kid = Some("k2".into()));
    assert_eq!(scene.reason(&unknown).await, Some(Reason::TokenInvalid));
    assert!(scene.reason(&good.sign(&with("nbf", json!(NOW + 60)))).await.is_some());
    assert_eq!(scene.keys.refused.iter().count(), 1, "a key, or the time, may yet come");
}
