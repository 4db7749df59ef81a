//! The gateway's own access tokens: short JWTs (RFC 9068) for one endpoint of one group.
//!
//! They are signed with Ed25519 keys that every proxy derives from the keys that seal sessions, so
//! that any proxy verifies what any other issued, and rotating those keys rotates these. The
//! public halves are published for others who want to verify.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::hkdf;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_model::id::{Digest, Name};
use weir_model::principal::{Presented, Principal, Proof};
use weir_model::reason::{Reason, Refusal};
use weir_model::secret::Secret;
use weir_model::snapshot::GroupView;

use super::sealed::Grant;

/// Sealing keys as a snapshot has them.
pub type Keyring = [(String, Arc<Secret<Vec<u8>>>)];

/// The beginning of every header: the key's id follows.
const HEAD: &str = r#"{"alg":"EdDSA","typ":"at+jwt","kid":"weir-"#;
/// Seconds by which clocks of two proxies may differ.
const SKEW_SECS: i64 = 30;

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    client_id: String,
    scope: String,
    iat: i64,
    exp: i64,
    jti: String,
    sid: String,
    weir: About,
}

/// What only we understand.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    group: Name,
    provider: Name,
    memberships: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login: Option<String>,
}

/// True for texts that begin like our tokens. Says nothing about who made them.
pub fn looks_like_ours(token: &str) -> bool {
    static BEGIN: OnceLock<String> = OnceLock::new();
    let begin = BEGIN.get_or_init(|| {
        // Three bytes make four characters; what is left over depends on what follows.
        URL_SAFE_NO_PAD.encode(&HEAD[..HEAD.len() / 3 * 3])
    });
    token.starts_with(begin.as_str())
}

fn pair(key: &Secret<Vec<u8>>) -> Option<Ed25519KeyPair> {
    struct Seed;
    impl hkdf::KeyType for Seed {
        fn len(&self) -> usize {
            32
        }
    }
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"weir access tokens v1");
    let prk = salt.extract(key.expose());
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    prk.expand(&[b"ed25519"], Seed).ok()?.fill(&mut *seed).ok()?;
    Ed25519KeyPair::from_seed_unchecked(&*seed).ok()
}

/// Signs an access token for what was granted.
///
/// # Errors
/// `SnapshotMissing` when there is no key to sign with.
pub(super) fn issue(
    keyring: &Keyring,
    issuer: &str,
    grant: &Grant,
    (now, secs): (i64, i64),
) -> Result<String, Refusal> {
    let none = || Refusal::new(Reason::SnapshotMissing, "no key to sign tokens with");
    let (id, key) = keyring.first().ok_or_else(none)?;
    let pair = pair(key).ok_or_else(none)?;
    let claims = Claims {
        iss: issuer.to_owned(),
        aud: grant.resource.clone(),
        sub: grant.subject.clone(),
        client_id: grant.label.clone(),
        scope: grant.scope.clone(),
        iat: now,
        exp: grant.until.min(now + secs),
        jti: uuid::Uuid::new_v4().simple().to_string(),
        sid: grant.session.clone(),
        weir: About {
            group: grant.group.clone(),
            provider: grant.provider.clone(),
            memberships: grant.memberships.clone(),
            login: grant.login.clone(),
        },
    };
    let header = URL_SAFE_NO_PAD.encode(format!("{HEAD}{id}\"}}"));
    let claims = serde_json::to_vec(&claims)
        .map_err(|_| Refusal::new(Reason::Internal, "claims that are no JSON"))?;
    let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = pair.sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
    Ok(token)
}

/// A token that was verified: who it is from, and the second from which it may be used.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    /// Who.
    pub principal: Arc<Principal>,
    /// The sign-in that it goes back to.
    pub session: Arc<str>,
    /// From its issue.
    pub from: i64,
    /// To its end.
    pub until: i64,
}

/// Says who a token of ours is from. `audiences` are the URLs that it may be for.
///
/// # Errors
/// `TokenInvalid`, `TokenExpired`, `TokenAudience`.
pub(super) fn verify(
    keyring: &Keyring,
    token: &str,
    (group, audiences): (&GroupView, &[&str]),
    now: i64,
) -> Result<Verified, Refusal> {
    let invalid = |detail: &str| Refusal::new(Reason::TokenInvalid, detail);
    let claims = opened(keyring, token).ok_or_else(|| invalid("the signature does not fit"))?;
    if claims.weir.group != group.name {
        return Err(Refusal::new(Reason::TokenAudience, "a token of another group"));
    }
    if !audiences.contains(&claims.aud.as_str()) {
        return Err(Refusal::new(Reason::TokenAudience, "a token for another endpoint"));
    }
    if claims.exp <= now {
        return Err(Refusal::new(Reason::TokenExpired, "the access token has expired"));
    }
    let from = claims.iat - SKEW_SECS;
    if from > now {
        return Err(invalid("the access token comes from the future"));
    }
    // Whoever the group trusts no more cannot have sent somebody.
    let known = group
        .providers
        .iter()
        .any(|provider| provider.name == claims.weir.provider && provider.spec.sign_in.is_some());
    if !known || group.spec.sign_in.is_none() {
        return Err(invalid("signed in with a provider that the group does not use any more"));
    }
    let sorted = |mut words: Vec<&str>| -> Arc<[Arc<str>]> {
        words.sort_unstable();
        words.dedup();
        words.into_iter().map(Arc::from).collect()
    };
    let principal = Principal {
        proof: Proof::Jwt,
        provider: Some(claims.weir.provider),
        subject: claims.sub.into(),
        memberships: sorted(claims.weir.memberships.iter().map(String::as_str).collect()),
        scopes: sorted(claims.scope.split_ascii_whitespace().collect()),
        credential: Some(claims.client_id.into()),
        expires: Some(claims.exp),
        token: Some(Arc::new(Presented {
            sha256: Digest::of(token.as_bytes()),
            id: Some(claims.jti),
            session: Some(claims.sid.clone()),
            login: claims.weir.login,
            issued: Some(claims.iat),
        })),
    };
    let session = claims.sid.into();
    Ok(Verified { principal: Arc::new(principal), session, from, until: claims.exp })
}

/// The claims of a token that one of our keys signed.
fn opened(keyring: &Keyring, token: &str) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header = URL_SAFE_NO_PAD.decode(header).ok()?;
    let id = std::str::from_utf8(&header).ok()?.strip_prefix(HEAD)?.strip_suffix("\"}")?;
    let (_, key) = keyring.iter().find(|(known, _)| known == id)?;
    let pair = pair(key)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let public = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
    public.verify(signed.as_bytes(), &signature).ok()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// The public halves of the keys, as a JWKS.
pub(super) fn jwks(keyring: &Keyring) -> Value {
    let key = |(id, key): &(String, Arc<Secret<Vec<u8>>>)| {
        let public = URL_SAFE_NO_PAD.encode(pair(key)?.public_key().as_ref());
        Some(json!({
            "kty": "OKP", "crv": "Ed25519", "x": public,
            "kid": format!("weir-{id}"), "use": "sig", "alg": "EdDSA",
        }))
    };
    json!({"keys": keyring.iter().filter_map(key).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use weir_model::testing::World;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const URL: &str = "https://gw.example/acme/mcp";

    fn key(id: &str, byte: u8) -> (String, Arc<Secret<Vec<u8>>>) {
        (id.to_owned(), Arc::new(Secret::new(vec![byte; 32])))
    }

    fn grant() -> Grant {
        Grant {
            session: "s1".to_owned(),
            label: "client".to_owned(),
            resource: URL.to_owned(),
            group: "acme".parse().unwrap(),
            scope: "mcp".to_owned(),
            provider: "okta".parse().unwrap(),
            subject: "alice".to_owned(),
            memberships: vec!["staff".to_owned()],
            login: Some("theirs".to_owned()),
            upstream: None,
            began: NOW,
            until: NOW + 10_000,
        }
    }

    fn world() -> World {
        World::new().group("acme").group("beta").documents(
            "apiVersion: weir/v1\nkind: Group\nmetadata: {name: acme}\nspec: {signIn: {}}\n---\n\
             apiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {name: okta, group: acme}\n\
             spec: {issuer: 'https://id.example', audiences: [x], signIn: {clientId: weir}}\n",
        )
    }

    #[test]
    fn a_token_is_good_for_its_endpoint_its_group_and_its_time() {
        let (ring, other) = ([key("k1", 1)], [key("k1", 2)]);
        let token = issue(&ring, "https://gw.example", &grant(), (NOW, 600)).unwrap();
        assert!(looks_like_ours(&token));
        assert!(!looks_like_ours("eyJhbGciOiJFZERTQSJ9.e30."));
        let snapshot = world().snapshot();
        assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
        let (acme, beta) = (&snapshot.groups["acme"], &snapshot.groups["beta"]);
        let retired = world().without("IdentityProvider/acme/okta").snapshot();
        let retired = &retired.groups["acme"];
        let longer = [key("k2", 9), key("k1", 1)];
        type Case<'a> = (&'a str, &'a Keyring, &'a GroupView, &'a str, i64, Option<Reason>);
        let cases: [Case<'_>; 9] = [
            ("good", &ring, acme, URL, NOW, None),
            ("after a rotation", &longer, acme, URL, NOW, None),
            ("another key", &other, acme, URL, NOW, Some(Reason::TokenInvalid)),
            ("no key", &[], acme, URL, NOW, Some(Reason::TokenInvalid)),
            ("another group", &ring, beta, URL, NOW, Some(Reason::TokenAudience)),
            (
                "another endpoint",
                &ring,
                acme,
                "https://gw.example/x",
                NOW,
                Some(Reason::TokenAudience),
            ),
            ("expired", &ring, acme, URL, NOW + 600, Some(Reason::TokenExpired)),
            ("from the future", &ring, acme, URL, NOW - 31, Some(Reason::TokenInvalid)),
            ("a provider that is gone", &ring, retired, URL, NOW, Some(Reason::TokenInvalid)),
        ];
        for (what, ring, group, url, now, expect) in cases {
            let got = verify(ring, &token, (group, &[url]), now);
            assert_eq!(got.as_ref().err().map(|refusal| refusal.reason), expect, "{what}");
        }
        let who = verify(&ring, &token, (acme, &[URL]), NOW).unwrap().principal;
        assert_eq!(who.id(), "jwt:okta:alice");
        assert_eq!((&*who.memberships[0], &*who.scopes[0]), ("staff", "mcp"));
        let shown = who.token.as_ref().unwrap();
        assert_eq!(
            (shown.session.as_deref(), shown.login.as_deref()),
            (Some("s1"), Some("theirs"))
        );
        for at in (0..token.len()).step_by(7) {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(bytes).unwrap();
            if altered != token {
                assert!(verify(&ring, &altered, (acme, &[URL]), NOW).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn tokens_end_with_their_sign_in_and_others_can_verify_them() {
        let ring = [key("k1", 1), key("k0", 3)];
        let short = Grant { until: NOW + 60, ..grant() };
        let token = issue(&ring, "https://gw.example", &short, (NOW, 600)).unwrap();
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(jwks(&ring)).unwrap();
        assert_eq!(set.keys.len(), 2);
        let header = jsonwebtoken::decode_header(&token).unwrap();
        let jwk = set.find(header.kid.as_deref().unwrap()).unwrap();
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
        validation.validate_exp = false;
        validation.set_audience(&[URL]);
        let key = jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap();
        let data = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
        assert_eq!(data.claims["exp"], NOW + 60);
        assert_eq!(data.claims["iss"], "https://gw.example");
    }
}
