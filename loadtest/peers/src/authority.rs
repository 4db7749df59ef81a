//! A small authorization server: what a browser and `weir connect` need to sign somebody in.
//!
//! It keeps the rules that clients must not break (PKCE with S256, exact redirects, single use of
//! codes, rotation of refresh tokens, RFC 8707 resources) and consents to everything without a
//! page. For loopback only: it checks no password.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, header};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Who everybody is.
const SUBJECT: &str = "alice";
const KEY_ID: &str = "k1";

/// How it behaves.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Takes registrations.
    pub registers: bool,
    /// Seconds that an access token lives.
    pub lifetime_secs: u64,
    /// A client that is known beforehand, and where it may be sent back to.
    pub client: Option<(String, String)>,
}

impl Default for Manners {
    fn default() -> Self {
        Self { registers: true, lifetime_secs: 600, client: None }
    }
}

/// How often each thing was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Registrations.
    pub registered: usize,
    /// Consents in a browser.
    pub consents: usize,
    /// Tokens by refresh token.
    pub refreshed: usize,
}

/// A code that was given out.
#[derive(Debug)]
struct Pending {
    client: String,
    redirect: String,
    challenge: String,
    resource: String,
    scope: String,
}

/// What a refresh token is good for.
#[derive(Debug, Clone)]
struct Granted {
    client: String,
    scope: String,
}

#[derive(Debug, Default)]
struct Book {
    clients: HashMap<String, Vec<String>>,
    codes: HashMap<String, Pending>,
    refresh: HashMap<String, Granted>,
    counts: Counts,
}

struct Inner {
    issuer: String,
    key: EncodingKey,
    manners: Mutex<Manners>,
    book: Mutex<Book>,
}

/// The server. Clones share everything.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Authority").field(&self.0.issuer).finish()
    }
}

/// A refusal as RFC 6749 shapes it.
struct Refused(&'static str, String);

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.0, "error_description": self.1 });
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    }
}

fn refused(error: &'static str, why: &str) -> Refused {
    Refused(error, why.to_owned())
}

fn random() -> String {
    let mut bytes = [0_u8; 24];
    rand::fill(&mut bytes).expect("the system has entropy");
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Authority {
    /// Serves on a free loopback port until the runtime ends.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(manners: Manners) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let issuer = format!("http://{}", listener.local_addr()?);
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| anyhow::anyhow!("no key"))?;
        let mut book = Book::default();
        if let Some((id, redirect)) = &manners.client {
            book.clients.insert(id.clone(), vec![redirect.clone()]);
        }
        let inner = Inner {
            issuer,
            key: EncodingKey::from_ec_der(der.as_ref()),
            manners: Mutex::new(manners),
            book: Mutex::new(book),
        };
        let authority = Self(Arc::new(inner));
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/keys", get(keys))
            .route("/register", post(register))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(authority.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(authority)
    }

    /// Its name, which is its address.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Where its keys are.
    pub fn keys_url(&self) -> String {
        format!("{}/keys", self.0.issuer)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.0.book.lock().counts
    }

    /// Makes every refresh token worthless.
    pub fn revoke_all(&self) {
        self.0.book.lock().refresh.clear();
    }

    /// An access token as it gives them out.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(&self, audience: &str, scope: &str) -> anyhow::Result<String> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": self.0.issuer, "aud": audience, "sub": SUBJECT, "scope": scope,
            "iat": now, "exp": now + self.0.manners.lock().lifetime_secs, "jti": random(),
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        Ok(jsonwebtoken::encode(&header, &claims, &self.0.key)?)
    }
}

async fn metadata(State(Authority(inner)): State<Authority>) -> Json<Value> {
    let issuer = &inner.issuer;
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "scopes_supported": ["offline_access"],
        "authorization_response_iss_parameter_supported": true,
    });
    if inner.manners.lock().registers {
        document["registration_endpoint"] = json!(format!("{issuer}/register"));
    }
    Json(document)
}

async fn keys(State(Authority(inner)): State<Authority>) -> Result<Json<Value>, StatusCode> {
    let jwk = Jwk::from_encoding_key(&inner.key, Algorithm::ES256);
    let mut jwk = jwk.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    jwk.common.key_id = Some(KEY_ID.to_owned());
    Ok(Json(json!({ "keys": [jwk] })))
}

#[derive(Deserialize)]
struct Registration {
    redirect_uris: Vec<String>,
    application_type: Option<String>,
}

async fn register(
    State(Authority(inner)): State<Authority>,
    Json(wanted): Json<Registration>,
) -> Result<Response, Refused> {
    let loopback = |uri: &String| uri.starts_with("http://127.0.0.1:");
    if !wanted.redirect_uris.iter().all(loopback)
        || wanted.application_type.as_deref() != Some("native")
    {
        return Err(refused("invalid_redirect_uri", "native clients come back to 127.0.0.1"));
    }
    let id = format!("client-{}", random());
    let mut book = inner.book.lock();
    book.counts.registered += 1;
    let answer = json!({
        "client_id": id, "redirect_uris": wanted.redirect_uris,
        "token_endpoint_auth_method": "none",
    });
    book.clients.insert(id, wanted.redirect_uris);
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

#[derive(Deserialize)]
struct Authorization {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    state: String,
    code_challenge: String,
    code_challenge_method: String,
    resource: String,
    #[serde(default)]
    scope: String,
}

async fn authorize(
    State(Authority(inner)): State<Authority>,
    Query(wanted): Query<Authorization>,
) -> Result<Response, Refused> {
    let mut book = inner.book.lock();
    let redirects = book.clients.get(&wanted.client_id);
    if !redirects.is_some_and(|all| all.contains(&wanted.redirect_uri)) {
        return Err(refused("invalid_request", "unknown client or redirect"));
    }
    if wanted.response_type != "code" || wanted.code_challenge_method != "S256" {
        return Err(refused("invalid_request", "a code with S256 is all there is"));
    }
    book.counts.consents += 1;
    let code = random();
    let location = format!(
        "{}?code={code}&state={}&iss={}",
        wanted.redirect_uri,
        wanted.state,
        inner.issuer.replace(':', "%3A").replace('/', "%2F")
    );
    let pending = Pending {
        client: wanted.client_id,
        redirect: wanted.redirect_uri,
        challenge: wanted.code_challenge,
        resource: wanted.resource,
        scope: wanted.scope,
    };
    book.codes.insert(code, pending);
    Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    client_id: String,
    code: Option<String>,
    redirect_uri: Option<String>,
    code_verifier: Option<String>,
    refresh_token: Option<String>,
    resource: Option<String>,
}

async fn token(
    State(authority): State<Authority>,
    Form(wanted): Form<TokenRequest>,
) -> Result<Json<Value>, Refused> {
    let granted = match wanted.grant_type.as_str() {
        "authorization_code" => redeem(&authority, &wanted)?,
        "refresh_token" => renew(&authority, &wanted)?,
        _ => return Err(refused("unsupported_grant_type", "codes and refresh tokens only")),
    };
    let resource = wanted.resource.as_deref().unwrap_or_default();
    let access = authority.sign(resource, &granted.scope);
    let access = access.map_err(|error| Refused("server_error", error.to_string()))?;
    let mut answer = json!({
        "access_token": access, "token_type": "Bearer", "scope": granted.scope,
        "expires_in": authority.0.manners.lock().lifetime_secs,
    });
    if granted.scope.split(' ').any(|scope| scope == "offline_access") {
        // Good for one use: whoever loses the newest one has to ask the person again.
        let refresh = random();
        answer["refresh_token"] = json!(refresh);
        authority.0.book.lock().refresh.insert(refresh, granted);
    }
    Ok(Json(answer))
}

fn redeem(authority: &Authority, wanted: &TokenRequest) -> Result<Granted, Refused> {
    let mut book = authority.0.book.lock();
    let code = wanted.code.as_deref().unwrap_or_default();
    let pending =
        book.codes.remove(code).ok_or_else(|| refused("invalid_grant", "unknown code"))?;
    let proof = digest(&SHA256, wanted.code_verifier.as_deref().unwrap_or_default().as_bytes());
    let fits = pending.client == wanted.client_id
        && wanted.redirect_uri.as_deref() == Some(pending.redirect.as_str())
        && wanted.resource.as_deref() == Some(pending.resource.as_str())
        && URL_SAFE_NO_PAD.encode(proof) == pending.challenge;
    match fits {
        true => Ok(Granted { client: pending.client, scope: pending.scope }),
        false => Err(refused("invalid_grant", "the code was given to somebody else")),
    }
}

fn renew(authority: &Authority, wanted: &TokenRequest) -> Result<Granted, Refused> {
    let mut book = authority.0.book.lock();
    let token = wanted.refresh_token.as_deref().unwrap_or_default();
    let granted = book.refresh.remove(token);
    let granted = granted.filter(|granted| granted.client == wanted.client_id);
    let granted = granted.ok_or_else(|| refused("invalid_grant", "unknown refresh token"))?;
    book.counts.refreshed += 1;
    Ok(granted)
}
