//! Keys as issuers publish them, and what a token's header may ask for.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm as Alg, DecodingKey, Validation};
use serde_json::{Map, Value};
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::{Algorithm, IdentityProvider};

/// What the header of a token says, as far as it may be followed.
#[derive(Debug)]
pub(super) struct Header {
    algorithm: Alg,
    pub key_id: Option<String>,
}

impl Header {
    /// # Errors
    /// `TokenInvalid` for what is no signed JWT, names an algorithm that the provider's document
    /// does not, or demands an extension.
    pub(super) fn read(token: &str, provider: &IdentityProvider) -> Result<Self, Refusal> {
        let invalid = |detail: &str| Refusal::new(Reason::TokenInvalid, detail);
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| invalid("the header is none of a JWT signed with a known algorithm"))?;
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(invalid("the header demands an extension"));
        }
        if !provider.algorithms.iter().any(|allowed| of(*allowed) == header.alg) {
            return Err(invalid("the provider's document does not allow the algorithm"));
        }
        Ok(Self { algorithm: header.alg, key_id: header.kid })
    }
}

fn of(algorithm: Algorithm) -> Alg {
    match algorithm {
        Algorithm::RS256 => Alg::RS256,
        Algorithm::RS384 => Alg::RS384,
        Algorithm::RS512 => Alg::RS512,
        Algorithm::PS256 => Alg::PS256,
        Algorithm::PS384 => Alg::PS384,
        Algorithm::PS512 => Alg::PS512,
        Algorithm::ES256 => Alg::ES256,
        Algorithm::ES384 => Alg::ES384,
        Algorithm::EdDSA => Alg::EdDSA,
    }
}

/// One public key that may verify.
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Alg>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithms", &self.algorithms).finish()
    }
}

impl Key {
    fn read(entry: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(entry.clone()).ok()?;
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature);
        let verifies = |ops: &Vec<KeyOperations>| ops.contains(&KeyOperations::Verify);
        if !signs || !common.key_operations.as_ref().is_none_or(verifies) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => {
                vec![Alg::RS256, Alg::RS384, Alg::RS512, Alg::PS256, Alg::PS384, Alg::PS512]
            }
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => vec![Alg::ES256],
                EllipticCurve::P384 => vec![Alg::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                vec![Alg::EdDSA]
            }
            _ => return None,
        };
        if let Some(only) = &common.key_algorithm {
            let only = only.to_string();
            algorithms.retain(|algorithm| format!("{algorithm:?}") == only);
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let id = common.key_id.clone();
        (!algorithms.is_empty()).then_some(Self { id, algorithms, key })
    }

    /// True when the key may have signed a token with this header.
    pub(super) fn fits(&self, header: &Header) -> bool {
        let id_fits = match (&header.key_id, &self.id) {
            (Some(wanted), Some(id)) => wanted == id,
            // Small issuers leave out ids on one side or both; then every key is tried.
            _ => true,
        };
        id_fits && self.algorithms.contains(&header.algorithm)
    }

    pub(super) fn has_id(&self, id: &str) -> bool {
        self.id.as_deref().is_none_or(|own| own == id)
    }

    /// The claims, when the signature fits. Claims are judged by the caller.
    pub(super) fn verify(&self, token: &str, header: &Header) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(header.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        jsonwebtoken::decode(token, &self.key, &validation).ok().map(|data| data.claims)
    }
}

/// Reads a JWKS. Entries that are of no use (symmetric, for encryption, of unknown kinds) are left
/// out; they do not spoil the others.
///
/// # Errors
/// A sentence, when there is no list of keys or none of them can verify.
pub(super) fn read(body: &[u8]) -> Result<Vec<Key>, String> {
    let document: Value = serde_json::from_slice(body).map_err(|_| "it is no JSON".to_owned())?;
    let entries = document["keys"].as_array().ok_or("it has no member `keys` with an array")?;
    if entries.len() > bounds::JWKS_KEYS_MAX {
        let (have, most) = (entries.len(), bounds::JWKS_KEYS_MAX);
        return Err(format!("it has {have} keys, at most {most} are read"));
    }
    let keys: Vec<Key> = entries.iter().filter_map(Key::read).collect();
    if keys.is_empty() {
        return Err("no key of it can verify signatures".to_owned());
    }
    Ok(keys)
}
