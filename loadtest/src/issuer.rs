//! An identity provider's key and tokens of it, so that a gateway can be measured with JWTs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

/// A key that was made now, and its public half.
#[derive(Debug, Clone)]
pub struct Issued {
    /// JWKS, as JSON text.
    pub keys: String,
    /// Tokens, RS256 with 2048 bits; one for each subject.
    pub tokens: Vec<String>,
}

/// What a token says.
#[derive(Debug, Clone, clap::Args)]
pub struct Claims {
    /// `iss`.
    #[arg(long)]
    pub issuer: String,
    /// `aud`.
    #[arg(long)]
    pub audience: String,
    /// `sub`; of several tokens, followed by a number from the second on.
    #[arg(long)]
    pub subject: String,
    /// How many tokens.
    #[arg(long, default_value_t = 1)]
    pub count: usize,
    /// `groups`, any number.
    #[arg(long = "group")]
    pub groups: Vec<String>,
    /// Gives each token a session (`sid`) of its own.
    #[arg(long)]
    pub sessions: bool,
    /// Seconds until it expires.
    #[arg(long, default_value_t = 86_400)]
    pub valid_secs: u64,
}

/// Makes a key and tokens.
///
/// # Errors
/// When the machine has no randomness to give.
pub fn issue(claims: &Claims) -> anyhow::Result<Issued> {
    let pair = KeyPair::generate(KeySize::Rsa2048).context("cannot make a key")?;
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().context("cannot write the key")?;
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    let key = EncodingKey::from_rsa_pem(pem.as_bytes())?;
    let mut public = Jwk::from_encoding_key(&key, Algorithm::RS256)?;
    public.common.key_id = Some("load".to_owned());
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some("load".to_owned());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let until = now + Duration::from_secs(claims.valid_secs);
    let token = |at: usize| {
        let subject = match at {
            0 => claims.subject.clone(),
            at => format!("{}-{at}", claims.subject),
        };
        let mut said = json!({
            "iss": claims.issuer, "aud": claims.audience, "sub": subject,
            "groups": claims.groups, "iat": now.as_secs(), "exp": until.as_secs(),
        });
        if claims.sessions {
            said["sid"] = format!("session-{subject}").into();
        }
        encode(&header, &said, &key)
    };
    let tokens = (0..claims.count).map(token).collect::<Result<_, _>>()?;
    Ok(Issued { keys: serde_json::to_string(&JwkSet { keys: vec![public] })?, tokens })
}
