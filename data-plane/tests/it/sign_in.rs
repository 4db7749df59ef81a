//! Logging in through the gateway, as real clients do it: over two proxies that know nothing of
//! each other, with every way in which it must not work.

mod counted;
mod refused;
mod secret;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use weir_model::resource::{Rule, Subject};
use weir_model::testing::World;

use crate::issuer::{Issuer, SECRET};
use crate::ledger::Shared;
use crate::peer::Peer;
use crate::proxy::{Answer, Ask, Proxy};
use crate::world;

const BASE: &str = "https://gw.example";
const VERIFIER: &str = "0123456789012345678901234567890123456789abc";

struct Scene {
    issuer: Issuer,
    proxies: [Proxy; 2],
    ledger: Arc<Shared>,
    world: World,
    turn: std::cell::Cell<usize>,
    _peer: Peer,
}

fn documents(issuer: &str) -> String {
    format!(
        "apiVersion: weir/v1\nkind: Group\nmetadata: {{name: acme}}\n\
         spec:\n  displayName: Acme\n  scopes: [mcp]\n  signIn:\n    allowPrivate: true\n    clients:\n\
         \x20   - {{id: vscode, redirectUris: ['http://127.0.0.1:33418', 'https://vscode.dev/redirect']}}\n\
         ---\napiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {{name: corp, group: acme}}\n\
         spec:\n  issuer: {issuer}\n  audiences: [elsewhere]\n  allowPrivate: true\n\
         \x20 signIn: {{clientId: weir, clientSecret: '{SECRET}'}}\n\
         ---\napiVersion: weir/v1\nkind: Policy\nmetadata: {{name: pay, group: acme}}\n\
         spec: {{cedar: '@scope(\"pay\") forbid (principal, action == Action::\"CallTool\", \
         resource) when {{ resource.name == \"strict\" && !principal.scopes.contains(\"pay\") }};'}}\n"
    )
}

impl Scene {
    async fn start() -> Self {
        let (issuer, peer) = (Issuer::start().await, Peer::start().await);
        let everything =
            Rule { servers: vec!["*".into()], tools: vec!["*".into()], ..Rule::default() };
        let world = world(&peer.url).documents(&documents(&issuer.url)).grant(
            "acme",
            vec![everything],
            vec![Subject::Membership("staff".into())],
        );
        let ledger = Arc::new(Shared::default());
        let proxy = async |world: &World| {
            Proxy::counted(world, Arc::clone(&ledger), |settings| {
                settings.public_url = Some(BASE.to_owned());
                settings.hosts = vec!["gw.example".to_owned()];
            })
            .await
        };
        let proxies = [proxy(&world).await, proxy(&world).await];
        assert_eq!(proxies[0].config.current().problems, []);
        Self { issuer, proxies, ledger, world, turn: std::cell::Cell::new(0), _peer: peer }
    }

    /// The next request goes to the other proxy, as behind a load balancer.
    async fn send(&self, ask: Ask) -> Answer {
        self.turn.set(self.turn.get() + 1);
        self.proxies[self.turn.get() % 2].send(ask.with("host", "gw.example")).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(get(path)).await
    }

    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(form(path, fields)).await
    }

    async fn register(&self, body: Value) -> Answer {
        self.send(Ask::post("/register", body.to_string())).await
    }

    /// A client that registers itself, and what it asks then.
    async fn registered(&self, redirect: &str) -> Request {
        let registered = self.register(json!({"redirect_uris": [redirect]})).await.json();
        Request::new(registered["client_id"].as_str().unwrap(), redirect)
    }

    async fn call(&self, path: &str, tool: &str, token: &str) -> Answer {
        let params = json!({"name": tool, "arguments": {"n": 1}});
        self.send(Ask::modern(path, "tools/call", params).token(token)).await
    }
}

fn get(path: &str) -> Ask {
    let mut ask = Ask::post(path, "").without("content-type");
    ask.http = http::Method::GET;
    ask
}

fn form(path: &str, fields: &[(&str, &str)]) -> Ask {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    Ask::post(path, body).with("content-type", "application/x-www-form-urlencoded")
}

fn query_of(url: &str) -> std::collections::HashMap<String, String> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
    rest.split_once(after).unwrap().0
}

/// The cookie that an answer sets: `name=value`.
fn cookie(answer: &Answer, name: &str) -> String {
    let mut all = answer.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap());
    let set = all.find(|c| c.starts_with(&format!("__Host-{name}=")) && !c.contains("=;"));
    let set = set.unwrap_or_else(|| panic!("no cookie {name}: {:?}", answer.headers));
    for flag in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(set.contains(flag), "{set}");
    }
    set.split(';').next().unwrap().to_owned()
}

/// What a client asks the authorization endpoint.
#[derive(Clone)]
struct Request {
    client: String,
    redirect: String,
    resource: Option<String>,
    scope: Option<String>,
}

impl Request {
    fn new(client: &str, redirect: &str) -> Self {
        Self {
            client: client.to_owned(),
            redirect: redirect.to_owned(),
            resource: Some(format!("{BASE}/acme/mcp")),
            scope: Some("mcp".to_owned()),
        }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
        let mut fields = vec![
            ("response_type", "code".to_owned()),
            ("client_id", self.client.clone()),
            ("redirect_uri", self.redirect.clone()),
            ("state", "client state".to_owned()),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256".to_owned()),
        ];
        fields.extend(self.resource.clone().map(|resource| ("resource", resource)));
        fields.extend(self.scope.clone().map(|scope| ("scope", scope)));
        fields
    }

    fn url(&self) -> String {
        url(&self.fields())
    }
}

fn url(fields: &[(&'static str, String)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    format!("/authorize?{query}")
}

/// A person who has consented and stands before the provider.
struct Away {
    /// What the gateway asks the provider.
    asked: std::collections::HashMap<String, String>,
    /// What the gateway knows the browser by.
    browser: String,
}

impl Away {
    /// The way back, once the person has logged in; `more` is what else the provider says.
    fn back(&self, scene: &Scene, more: &str) -> Ask {
        let code = scene.issuer.log_in(&self.asked["nonce"], &self.asked["code_challenge"]);
        let back = format!("/authorize/callback?code={code}&state={}{more}", self.asked["state"]);
        get(&back).header("cookie", &self.browser)
    }
}

/// A person who reads the consent page and consents.
async fn consented(scene: &Scene, request: &Request) -> Away {
    let page = scene.get(&request.url()).await;
    assert_eq!(page.status, 200, "{}", page.text());
    let consent = cookie(&page, "weir-consent");
    let sealed = between(page.text(), "name=\"request\" value=\"", "\"");
    let ask = form("/authorize/consent", &[("request", sealed), ("provider", "corp")]);
    let away = scene.send(ask.header("cookie", consent).header("origin", BASE)).await;
    assert_eq!(away.status, 303, "{}", away.text());
    let location = away.header("location").unwrap();
    assert!(location.starts_with(&format!("{}/authorize?tenant=a&", scene.issuer.url)));
    Away { asked: query_of(location), browser: cookie(&away, "weir-sign-in") }
}

/// What the client is told at the end of the way back.
async fn told(scene: &Scene, back: Ask) -> std::collections::HashMap<String, String> {
    let done = scene.send(back).await;
    assert_eq!(done.status, 303, "{}", done.text());
    query_of(done.header("location").unwrap())
}

/// A person who consents and logs in; gives the code.
async fn code(scene: &Scene, request: &Request) -> String {
    let away = consented(scene, request).await;
    assert_eq!(away.asked["redirect_uri"], format!("{BASE}/authorize/callback"));
    assert!(!away.asked.contains_key("resource"), "Entra refuses it");
    let done = scene.send(away.back(scene, "")).await;
    assert_eq!(done.status, 303, "{}", done.text());
    let location = done.header("location").unwrap();
    assert!(location.starts_with(&request.redirect), "{location}");
    let answer = query_of(location);
    assert_eq!(answer["state"], "client state");
    assert_eq!(answer["iss"], BASE);
    answer.get("code").unwrap_or_else(|| panic!("{location}")).clone()
}

async fn exchange(scene: &Scene, request: &Request, code: &str) -> Answer {
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("client_id", request.client.as_str()),
        ("redirect_uri", request.redirect.as_str()),
        ("code", code),
        ("code_verifier", VERIFIER),
    ];
    fields.extend(request.resource.as_deref().map(|resource| ("resource", resource)));
    scene.form("/token", &fields).await
}

async fn log_in(scene: &Scene, request: &Request) -> Value {
    let code = code(scene, request).await;
    let answer = exchange(scene, request, &code).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

#[tokio::test]
async fn a_client_finds_its_way_from_a_refusal_to_a_call() {
    let scene = Scene::start().await;
    let refused = scene.call("/acme/mcp", "files__echo", "nonsense").await;
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.contains("scope=\"mcp\""), "{challenge}");
    let metadata = between(challenge, "resource_metadata=\"https://gw.example", "\"");
    let metadata = scene.get(metadata).await.json();
    assert_eq!(metadata["resource"], format!("{BASE}/acme/mcp"));
    assert_eq!(metadata["authorization_servers"], json!([BASE]));
    let server = scene.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(server["issuer"], BASE);
    assert_eq!(server["code_challenge_methods_supported"], json!(["S256"]));
    let redirect = "http://127.0.0.1:5000/callback";
    let registered =
        scene.register(json!({"client_name": "My <app>", "redirect_uris": [redirect]})).await;
    assert_eq!(registered.status, 201, "{}", registered.text());
    let id = registered.json()["client_id"].as_str().unwrap().to_owned();
    // A native application gets another port each time.
    let request = Request::new(&id, "http://127.0.0.1:61234/callback");
    let tokens = log_in(&scene, &request).await;
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!((&tokens["token_type"], &tokens["scope"]), (&json!("Bearer"), &json!("mcp")));
    assert_eq!(scene.call("/acme/mcp", "files__echo", access).await.status, 200);
    assert_eq!(scene.call("/acme/files/mcp", "echo", access).await.status, 200, "of the group");
    let records = scene.proxies[0].records(1).await;
    assert!(records.iter().any(|r| r.to_string().contains("jwt:corp:alice")), "{records:?}");

    // Step up: the call needs a scope that the token lacks; the challenge names all of them.
    let refused = scene.call("/acme/files/mcp", "strict", access).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
    assert!(challenge.contains("scope=\"mcp pay\""), "{challenge}");
    let more = Request { scope: Some("mcp pay unknown".to_owned()), ..request };
    let tokens = log_in(&scene, &more).await;
    assert_eq!(tokens["scope"], "mcp pay");
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(scene.call("/acme/files/mcp", "strict", access).await.status, 200);
}

#[tokio::test]
async fn tokens_are_refreshed_as_long_as_the_provider_lets_the_person_in() {
    let scene = Scene::start().await;
    let redirect = "https://app.example/cb";
    let id = scene.issuer.page(
        "/client.json",
        |url| json!({"client_id": url, "client_name": "Doc", "redirect_uris": [redirect]}),
    );
    let request = Request::new(&id, redirect);
    let first = log_in(&scene, &request).await;
    let refresh = |token: &Value| {
        let token = token["refresh_token"].as_str().unwrap().to_owned();
        let id = id.clone();
        move |more: Option<(&'static str, &'static str)>| {
            let mut fields = vec![
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", id.clone()),
                ("refresh_token", token.clone()),
            ];
            fields.extend(more.map(|(name, value)| (name, value.to_owned())));
            let body =
                form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
            Ask::post("/token", body).with("content-type", "application/x-www-form-urlencoded")
        }
    };
    let ask = refresh(&first);
    let more = scene.send(ask(Some(("scope", "mcp pay")))).await;
    assert_eq!(more.json()["error"], "invalid_scope");
    scene.issuer.claims(json!({"sub": "alice", "groups": ["visitors"]}));
    let second = scene.send(ask(Some(("scope", "mcp offline_access")))).await;
    assert_eq!(second.status, 200, "{}", second.text());
    let second = second.json();
    let access = second["access_token"].as_str().unwrap();
    let refused = scene.call("/acme/files/mcp", "echo", access).await;
    assert_eq!(refused.status, 404, "no member of staff any more: {}", refused.text());

    // Used twice, whichever proxy it is shown to.
    scene.ledger.pass(31);
    for proxy in &scene.proxies {
        let again = proxy.send(ask(None).with("host", "gw.example")).await;
        assert_eq!(again.json()["error"], "invalid_grant");
    }
    let third = scene.proxies[0].send(refresh(&second)(None).with("host", "gw.example")).await;
    assert_eq!(third.json()["error"], "invalid_grant", "the whole sign-in has ended");

    scene.issuer.claims(json!({"sub": "alice", "groups": ["staff"]}));
    let other = log_in(&scene, &request).await;
    scene.issuer.claims(json!({"sub": "mallory"}));
    let third = scene.proxies[0].send(refresh(&other)(None).with("host", "gw.example")).await;
    assert_eq!(third.json()["error"], "invalid_grant", "somebody else");

    scene.issuer.claims(json!({"sub": "alice", "groups": ["staff"]}));
    let fresh = Scene::start().await;
    let id = fresh
        .issuer
        .page("/client.json", |url| json!({"client_id": url, "redirect_uris": [redirect]}));
    let tokens = log_in(&fresh, &Request::new(&id, redirect)).await;
    fresh.issuer.disable();
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", id.as_str()),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ];
    let shut_out = fresh.form("/token", &fields).await;
    assert_eq!(
        (shut_out.status.as_u16(), &shut_out.json()["error"]),
        (400, &json!("invalid_grant"))
    );
}

/// What each of the clients does, where it differs from the book.
#[tokio::test]
async fn the_clients_that_people_use_get_in() {
    let scene = Scene::start().await;
    let whole = || Some(format!("{BASE}/acme/mcp"));
    // name, metadata that it looks for, registration (none: known beforehand), redirect URI that it
    // then uses, resource, scope
    type Quirk = (
        &'static str,
        &'static str,
        Option<Value>,
        &'static str,
        Option<String>,
        Option<&'static str>,
    );
    let quirks: [Quirk; 7] = [
        // Takes the origin for the authorization server, whatever the challenge says, and wants a
        // secret.
        (
            "Claude",
            "/.well-known/oauth-authorization-server",
            Some(
                json!({"client_name": "Claude", "token_endpoint_auth_method": "client_secret_post",
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
            "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"], "scope": "claudeai"}),
            ),
            "https://claude.ai/api/mcp/auth_callback",
            whole(),
            Some("claudeai"),
        ),
        // Ignores advertised scopes, asks for none, and still needs a refresh token.
        (
            "Claude Code",
            "/.well-known/oauth-authorization-server/acme/mcp",
            Some(json!({"client_name": "Claude Code", "token_endpoint_auth_method": "none",
            "redirect_uris": ["http://localhost:3118/callback"]})),
            "http://localhost:49152/callback",
            whole(),
            None,
        ),
        // A private scheme, and a registration that must not be answered with 401.
        (
            "Cursor",
            "/.well-known/oauth-protected-resource/acme/mcp",
            Some(json!({"client_name": "Cursor", "redirect_uris":
            ["cursor://anysphere.cursor-mcp/oauth/callback", "https://www.cursor.com/agents/cb"]})),
            "cursor://anysphere.cursor-mcp/oauth/callback",
            whole(),
            Some("mcp"),
        ),
        // Does without registration, with an id that was agreed on, and one of two redirects.
        (
            "VS Code",
            "/.well-known/openid-configuration",
            None,
            "http://127.0.0.1:33418",
            whole(),
            Some("mcp"),
        ),
        (
            "VS Code for the web",
            "/acme/mcp/.well-known/oauth-protected-resource",
            None,
            "https://vscode.dev/redirect",
            whole(),
            None,
        ),
        // Basic authentication, and a slash too many on the resource.
        (
            "ChatGPT",
            "/.well-known/openid-configuration/acme/mcp",
            Some(
                json!({"client_name": "ChatGPT", "token_endpoint_auth_method": "client_secret_basic",
            "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"]}),
            ),
            "https://chatgpt.com/connector_platform_oauth_redirect",
            Some(format!("{BASE}/acme/mcp/")),
            Some("mcp"),
        ),
        // Knows no resource metadata and no resource parameter.
        (
            "2025-03-26",
            "/.well-known/oauth-authorization-server",
            Some(json!({"redirect_uris": ["http://localhost:1/cb"]})),
            "http://localhost:1/cb",
            None,
            None,
        ),
    ];
    for (name, metadata, registration, redirect, resource, scope) in quirks {
        let found = scene.get(metadata).await;
        assert_eq!(found.status, 200, "{name}: {}", found.text());
        let found = found.json();
        let known = found["issuer"] == BASE || found["authorization_servers"] == json!([BASE]);
        assert!(known, "{name}: {found}");
        let (id, secret) = match &registration {
            None => ("vscode".to_owned(), None),
            Some(body) => {
                let answer = scene.register(body.clone()).await;
                assert_eq!(answer.status, 201, "{name}: {}", answer.text());
                let answer = answer.json();
                let secret = answer["client_secret"].as_str().map(str::to_owned);
                (answer["client_id"].as_str().unwrap().to_owned(), secret)
            }
        };
        let scope = scope.map(str::to_owned);
        let request = Request { client: id.clone(), redirect: redirect.into(), resource, scope };
        let code = code(&scene, &request).await;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("redirect_uri", redirect),
            ("code", code.as_str()),
            ("code_verifier", VERIFIER),
        ];
        fields.extend(request.resource.as_deref().map(|resource| ("resource", resource)));
        let ask = match (&secret, registration.as_ref().map(|r| &r["token_endpoint_auth_method"])) {
            (Some(secret), Some(method)) if method == "client_secret_basic" => {
                let word =
                    |t: &str| form_urlencoded::byte_serialize(t.as_bytes()).collect::<String>();
                let basic = STANDARD.encode(format!("{}:{}", word(&id), word(secret)));
                form("/token", &fields).header("authorization", format!("Basic {basic}"))
            }
            (secret, _) => {
                fields.push(("client_id", id.as_str()));
                if let Some(secret) = secret {
                    let wrong = [&fields[..], &[("client_secret", "guessed")]].concat();
                    let answer = scene.form("/token", &wrong).await;
                    assert_eq!(answer.status, 401, "{name}: {}", answer.text());
                    fields.push(("client_secret", secret.as_str()));
                }
                form("/token", &fields)
            }
        };
        let answer = scene.send(ask).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let tokens = answer.json();
        assert!(tokens["refresh_token"].is_string(), "{name} would log in every few minutes");
        let access = tokens["access_token"].as_str().unwrap();
        let call = scene.call("/acme/mcp", "files__echo", access).await;
        assert_eq!(call.status, 200, "{name}: {}", call.text());
    }
    // Nobody without a token gets an empty list in place of a refusal.
    let nobody = Ask::modern("/acme/mcp", "tools/list", json!({}));
    assert_eq!(scene.send(nobody).await.status, 401);
}
