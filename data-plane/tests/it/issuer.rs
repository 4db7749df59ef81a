//! An identity provider that says exactly what a test wants it to: discovery, keys, and a token
//! endpoint that knows one code and one refresh token at a time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The gateway's secret there, with a character that Basic has to encode.
pub const SECRET: &str = "s3cr3t+/%";

pub struct Issuer {
    pub url: String,
    state: Arc<State>,
}

struct State {
    url: Mutex<String>,
    key: EncodingKey,
    /// `nonce` and `code_challenge` of the person who has logged in.
    login: Mutex<Option<(String, String)>>,
    /// Claims that are added to the ID token.
    claims: Mutex<Value>,
    /// Documents at other paths: those of clients.
    pages: Mutex<HashMap<String, Value>>,
    disabled: Mutex<bool>,
    failing: Mutex<bool>,
    named: Mutex<bool>,
    refreshed: Mutex<usize>,
    /// Requests for other paths.
    visits: Mutex<usize>,
}

impl Issuer {
    pub async fn start() -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            url: Mutex::new(url.clone()),
            key: EncodingKey::from_ec_der(pair.as_ref()),
            login: Mutex::default(),
            claims: Mutex::new(json!({"sub": "alice", "groups": ["staff"]})),
            pages: Mutex::default(),
            disabled: Mutex::default(),
            failing: Mutex::default(),
            named: Mutex::default(),
            refreshed: Mutex::default(),
            visits: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { url, state }
    }

    /// Somebody logs in with what the gateway sent the browser here with; gives the code.
    pub fn log_in(&self, nonce: &str, challenge: &str) -> &'static str {
        *self.state.login.lock() = Some((nonce.to_owned(), challenge.to_owned()));
        "upstream-code"
    }

    pub fn claims(&self, claims: Value) {
        *self.state.claims.lock() = claims;
    }

    /// The person is shut out: refresh tokens are worth nothing any more.
    pub fn disable(&self) {
        *self.state.disabled.lock() = true;
    }

    /// The token endpoint is broken, or mended.
    pub fn fail(&self, failing: bool) {
        *self.state.failing.lock() = failing;
    }

    /// Says that its answers name it (RFC 9207).
    pub fn names_itself(&self) {
        *self.state.named.lock() = true;
    }

    /// Serves a document, as the web of clients does; gives its URL.
    pub fn page(&self, path: &str, document: impl FnOnce(&str) -> Value) -> String {
        let url = format!("{}{path}", self.url);
        let document = document(&url);
        self.state.pages.lock().insert(path.to_owned(), document);
        url
    }

    /// How often somebody came for such a document, or for one that there is not.
    pub fn visits(&self) -> usize {
        *self.state.visits.lock()
    }

    /// A token as the provider itself would give to whoever is not the gateway.
    pub fn token(&self, claims: Value) -> String {
        self.state.sign(claims)
    }
}

impl State {
    fn sign(&self, claims: Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k1".to_owned());
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    fn id_token(&self, nonce: Option<&str>) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = self.claims.lock().clone();
        claims["iss"] = self.url.lock().clone().into();
        if claims.get("aud").is_none() {
            claims["aud"] = "weir".into();
        }
        claims["exp"] = (now + 300).into();
        claims["iat"] = now.into();
        if let Some(nonce) = nonce
            && claims.get("nonce").is_none()
        {
            claims["nonce"] = nonce.into();
        }
        self.sign(claims)
    }

    fn tokens(&self, form: &HashMap<String, String>, basic: Option<&str>) -> Result<Value, Value> {
        let wrong = |code: &str| json!({"error": code});
        let encoded: String = form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let expect = format!("Basic {}", STANDARD.encode(format!("weir:{encoded}")));
        if basic != Some(expect.as_str()) {
            return Err(wrong("invalid_client"));
        }
        assert!(!form.contains_key("resource"), "some providers refuse what they do not know");
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let nonce = match field("grant_type") {
            "authorization_code" => {
                let (nonce, challenge) =
                    self.login.lock().take().ok_or_else(|| wrong("invalid_grant"))?;
                let verifier = field("code_verifier").as_bytes();
                let proof = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier);
                if field("code") != "upstream-code" || URL_SAFE_NO_PAD.encode(proof) != challenge {
                    return Err(wrong("invalid_grant"));
                }
                Some(nonce)
            }
            _ if *self.disabled.lock() => return Err(wrong("invalid_grant")),
            _ => {
                let mut count = self.refreshed.lock();
                if field("refresh_token") != format!("upstream-refresh-{count}") {
                    return Err(wrong("invalid_grant"));
                }
                *count += 1;
                None
            }
        };
        Ok(json!({
            "token_type": "Bearer",
            "access_token": "opaque",
            "id_token": self.id_token(nonce.as_deref()),
            "refresh_token": format!("upstream-refresh-{}", self.refreshed.lock()),
        }))
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let url = state.url.lock().clone();
    let (status, value) = match head.uri.path() {
        "/.well-known/openid-configuration" => (
            200,
            json!({
                "issuer": url, "jwks_uri": format!("{url}/keys"),
                "authorization_endpoint": format!("{url}/authorize?tenant=a"),
                "token_endpoint": format!("{url}/token"),
                "authorization_response_iss_parameter_supported": *state.named.lock(),
            }),
        ),
        "/keys" => {
            let mut jwk = Jwk::from_encoding_key(&state.key, Algorithm::ES256).unwrap();
            jwk.common.key_id = Some("k1".to_owned());
            (200, json!({"keys": [jwk]}))
        }
        "/token" if *state.failing.lock() => (500, Value::Null),
        "/token" => {
            let form = form_urlencoded::parse(&body).into_owned().collect();
            let basic = head.headers.get("authorization").map(|v| v.to_str().unwrap().to_owned());
            match state.tokens(&form, basic.as_deref()) {
                Ok(value) => (200, value),
                Err(value) => (400, value),
            }
        }
        path => {
            *state.visits.lock() += 1;
            match state.pages.lock().get(path) {
                Some(page) => (200, page.clone()),
                None => (404, Value::Null),
            }
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}
