//! What a sign-in has to remember between its steps. It travels with the browser or the client,
//! sealed with the keys that all proxies share, so that any proxy takes any step.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weir_model::id::{Digest, Name};
use weir_model::seal::{SealError, Sealer};

/// Seconds from the consent page to the code.
pub(super) const SIGN_IN_SECS: i64 = 600;
/// Seconds that a code is good for.
pub(super) const CODE_SECS: i64 = 60;

/// One step's memory.
pub(super) trait Sealed: Serialize + DeserializeOwned {
    /// No text of one step opens as another's.
    const PURPOSE: &'static str;

    /// Seals it, bound to `to`.
    ///
    /// # Errors
    /// [`SealError::TooLong`], most likely because of very many groups.
    fn seal(&self, sealer: &Sealer, to: &[u8]) -> Result<String, SealError> {
        let json = serde_json::to_vec(self).map_err(|_| SealError::Malformed)?;
        sealer.seal(Self::PURPOSE, to, &json)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Whatever is wrong with it is nobody's business.
    fn open(sealer: &Sealer, to: &[u8], text: &str) -> Result<Self, SealError> {
        let json = sealer.open(Self::PURPOSE, to, text)?;
        serde_json::from_slice(&json).map_err(|_| SealError::Malformed)
    }
}

/// A client that registered itself (RFC 7591): its id is this, sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Registered {
    #[serde(rename = "n")]
    pub name: String,
    #[serde(rename = "r")]
    pub redirects: Vec<String>,
    /// True for clients that asked for a secret.
    #[serde(rename = "c", default)]
    pub confidential: bool,
}
impl Sealed for Registered {
    const PURPOSE: &'static str = "oauth client";
}

/// The secret of such a client: sealed to its id.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ClientSecret {}
impl Sealed for ClientSecret {
    const PURPOSE: &'static str = "oauth client secret";
}

/// What a client asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Of the client's id.
    #[serde(rename = "c")]
    pub client: Digest,
    /// What tokens and records call it.
    #[serde(rename = "l")]
    pub label: String,
    #[serde(rename = "r")]
    pub redirect: String,
    /// The client's `state`.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// PKCE, S256.
    #[serde(rename = "h")]
    pub challenge: String,
    /// The endpoint's URL.
    #[serde(rename = "u")]
    pub resource: String,
    #[serde(rename = "g")]
    pub group: Name,
    #[serde(rename = "o")]
    pub scope: String,
}

/// On the consent page, in its form.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Consenting {
    #[serde(flatten)]
    pub asked: Asked,
    /// Of the cookie.
    #[serde(rename = "k")]
    pub cookie: Digest,
    #[serde(rename = "x")]
    pub expires: i64,
}
impl Sealed for Consenting {
    const PURPOSE: &'static str = "oauth consent";
}

/// At the identity provider, as `state`. Made only after consent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Away {
    #[serde(flatten)]
    pub asked: Asked,
    /// The provider's resource name.
    #[serde(rename = "p")]
    pub provider: Name,
    /// Of the cookie.
    #[serde(rename = "k")]
    pub cookie: Digest,
    /// `nonce` of the ID token.
    #[serde(rename = "n")]
    pub nonce: String,
    /// PKCE towards the provider.
    #[serde(rename = "v")]
    pub verifier: String,
    /// What the person said to being asked again.
    #[serde(rename = "m", default)]
    pub consent: Consent,
    #[serde(rename = "x")]
    pub expires: i64,
}
impl Sealed for Away {
    const PURPOSE: &'static str = "oauth state";
}

/// What a person said about an application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Consent {
    /// Yes, this time.
    #[default]
    Once,
    /// Yes, and do not ask again.
    Remember,
    /// Nothing today: this one said so before, and it counts for nobody else.
    Before(Digest),
}

/// Who signed in, and for what: in codes and refresh tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Grant {
    /// The sign-in that it goes back to; `sid` of its tokens.
    #[serde(rename = "i")]
    pub session: String,
    #[serde(rename = "l")]
    pub label: String,
    #[serde(rename = "u")]
    pub resource: String,
    #[serde(rename = "g")]
    pub group: Name,
    #[serde(rename = "o")]
    pub scope: String,
    #[serde(rename = "p")]
    pub provider: Name,
    #[serde(rename = "s")]
    pub subject: String,
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub memberships: Vec<String>,
    /// The session at the provider (`sid` of its ID token), for when it is signed out of there.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The provider's refresh token: it says whether the person may still come in.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// When the person signed in.
    #[serde(rename = "b", default)]
    pub began: i64,
    /// When the sign-in ends, however often it is refreshed.
    #[serde(rename = "e")]
    pub until: i64,
}

impl Grant {
    /// Who signed in, as revocations name callers.
    pub(super) fn principal(&self) -> weir_model::principal::Principal {
        weir_model::principal::Principal {
            proof: weir_model::principal::Proof::Jwt,
            provider: Some(self.provider.clone()),
            subject: self.subject.as_str().into(),
            // Whoever signed in anew after a revocation does not fall under it.
            token: Some(std::sync::Arc::new(weir_model::principal::Presented {
                sha256: Digest::of(self.session.as_bytes()),
                id: None,
                session: Some(self.session.clone()),
                login: self.login.clone(),
                issued: Some(self.began),
            })),
            ..weir_model::principal::Principal::anonymous()
        }
    }
}

/// An authorization code. Sealed to the client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Code {
    #[serde(flatten)]
    pub grant: Grant,
    #[serde(rename = "h")]
    pub challenge: String,
    #[serde(rename = "r")]
    pub redirect: Digest,
    #[serde(rename = "x")]
    pub expires: i64,
}
impl Sealed for Code {
    const PURPOSE: &'static str = "oauth code";
}

/// A refresh token. Sealed to the client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refresh {
    #[serde(flatten)]
    pub grant: Grant,
    /// Which turn of the sign-in it is.
    #[serde(rename = "n", default = "first")]
    pub turn: u64,
}

fn first() -> u64 {
    1
}

impl Sealed for Refresh {
    const PURPOSE: &'static str = "oauth refresh";
}

/// 256 random bits as text.
pub(super) fn random() -> String {
    use base64::Engine as _;
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
