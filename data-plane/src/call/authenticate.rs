//! Phase 2: who calls. Exactly one bearer token in the header, or nobody where the group lets
//! nobody in.

use std::sync::{Arc, LazyLock};

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri};
use weir_model::bounds;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::GroupView;

use super::endpoint::Endpoint;
use super::inbound::Conn;
use crate::authorization::metadata;
use crate::authorization::own::{self, Keyring};
use crate::gateway::Gateway;

/// The caller that presented nothing.
static NOBODY: LazyLock<Arc<Principal>> = LazyLock::new(|| Arc::new(Principal::anonymous()));

/// Finds out who calls an endpoint.
///
/// # Errors
/// `Unauthenticated` without a usable `Authorization` header, else what [`crate::keys::Keys::verify`] says.
/// Answer those of status 401 with [`challenge`].
pub async fn caller(
    gateway: &Gateway,
    (conn, head): (&Conn, &Parts),
    (endpoint, keyring): (&Endpoint, &Keyring),
    now: i64,
) -> Result<Arc<Principal>, Refusal> {
    let group = &endpoint.group;
    let Some(token) = token(&head.headers)? else {
        let (Some(chain), Some(accepted)) = (&conn.certificates, &group.spec.certificates) else {
            return nobody(group);
        };
        let who = gateway.certificates.verify(chain, (group, accepted), now)?;
        not_revoked(group, &who, now)?;
        return Ok(who);
    };
    let resource = gateway.site.own_url(conn, head);
    let resource = resource.map(|base| metadata::resource_url(&base, head.uri.path()));
    let who = match own::looks_like_ours(token) {
        true => gateway.front.verify(token, (group, resource.as_deref()), keyring, now)?,
        false => gateway.keys.verify(token, (group, resource.as_deref()), now).await?,
    };
    not_revoked(group, &who, now)?;
    Ok(who)
}

/// # Errors
/// `TokenRevoked`, when an operator took back what the caller came in with, or the caller.
pub fn not_revoked(group: &GroupView, who: &Principal, now: i64) -> Result<(), Refusal> {
    match group.withdrawn.caller(who, now) {
        Some(name) => Err(Refusal::new(Reason::TokenRevoked, format!("by Revocation {name}"))),
        None => Ok(()),
    }
}

/// Who calls without a token.
fn nobody(group: &GroupView) -> Result<Arc<Principal>, Refusal> {
    if group.spec.anonymous {
        return Ok(Arc::clone(&NOBODY));
    }
    Err(Refusal::new(Reason::Unauthenticated, "no Authorization header"))
}

/// The bearer token of a request; none without an `Authorization` header.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => bearer(value).map(Some),
        (Some(_), Some(_)) => {
            let detail = "more than one Authorization header";
            Err(Refusal::new(Reason::InvalidRequest, detail).hint("Send one Authorization header."))
        }
    }
}

fn bearer(value: &HeaderValue) -> Result<&str, Refusal> {
    let refused = |detail: &str| Refusal::new(Reason::Unauthenticated, detail);
    let text = value.to_str().map_err(|_| refused("the Authorization header is no ASCII"))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused("another scheme than Bearer"));
    }
    let token = token.trim_matches(' ');
    if token.is_empty() {
        return Err(refused("no token after Bearer"));
    }
    if token.len() > bounds::TOKEN_BYTES_MAX {
        let detail = format!("a token of {} bytes", token.len());
        return Err(Refusal::new(Reason::TokenInvalid, detail));
    }
    // The alphabet of RFC 6750, section 2.1.
    let fine =
        |b: u8| b.is_ascii_alphanumeric() | matches!(b, b'-'..=b'/' | b'_' | b'~' | b'+' | b'=');
    // Without leaving early, which the compiler turns into few instructions.
    if !token.bytes().fold(true, |all, b| all & fine(b)) {
        return Err(Refusal::new(Reason::TokenInvalid, "characters that no token has"));
    }
    Ok(token)
}

/// Refuses tokens in the URL: they end up in logs and histories.
///
/// # Errors
/// `InvalidRequest`, when the query has an `access_token`.
pub fn refuse_token_in_query(uri: &Uri) -> Result<(), Refusal> {
    let query = uri.query().unwrap_or_default();
    let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    if names.into_iter().any(|name| decoded(name).eq_ignore_ascii_case("access_token")) {
        let hint = "Send the token in the Authorization header, not in the URL.";
        return Err(Refusal::new(Reason::InvalidRequest, "a token in the URL").hint(hint));
    }
    Ok(())
}

/// Percent-decoding of a short name; what cannot be decoded stays as it is.
fn decoded(name: &str) -> String {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = hex.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &tail[2..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The `WWW-Authenticate` header of a refusal (RFC 6750, RFC 9728), for statuses 401 and 403.
/// `scope` names the scopes that would do, separated by spaces.
pub fn challenge(
    reason: Reason,
    resource_metadata_url: &str,
    scope: Option<&str>,
) -> Option<HeaderValue> {
    let error = match reason {
        Reason::Unauthenticated => None,
        Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::TokenAudience
        | Reason::TokenRevoked => Some("invalid_token"),
        Reason::InsufficientScope => Some("insufficient_scope"),
        _ => return None,
    };
    let mut text = String::from("Bearer ");
    if let Some(error) = error {
        let description = reason.remedy();
        text.push_str(&format!("error=\"{error}\", error_description=\"{description}\", "));
    }
    if let Some(scope) = scope {
        text.push_str(&format!("scope=\"{}\", ", quotable(scope)));
    }
    text.push_str(&format!("resource_metadata=\"{}\"", quotable(resource_metadata_url)));
    HeaderValue::from_str(&text).ok()
}

/// Leaves out what would end a quoted string or a header.
fn quotable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii() && !c.is_ascii_control() && !"\"\\".contains(*c)).collect()
}

#[cfg(test)]
mod tests {
    use weir_model::testing::World;

    use super::*;

    #[test]
    fn a_bearer_token_is_read_strictly() {
        let cases = [
            ("Bearer abc", Ok("abc")),
            ("bEaReR  abc ", Ok("abc")),
            ("Bearer a.b-c_d~e+f/g==", Ok("a.b-c_d~e+f/g==")),
            ("Bearer", Err(Reason::Unauthenticated)),
            ("Bearer ", Err(Reason::Unauthenticated)),
            ("Basic YTpi", Err(Reason::Unauthenticated)),
            ("Bearerabc", Err(Reason::Unauthenticated)),
            ("Bearer a b", Err(Reason::TokenInvalid)),
            ("Bearer a,b", Err(Reason::TokenInvalid)),
        ];
        for (text, expect) in cases {
            let value = HeaderValue::from_static(text);
            assert_eq!(bearer(&value).map_err(|r| r.reason), expect, "{text}");
        }
        let long = HeaderValue::try_from(format!("Bearer {}", "a".repeat(17_000))).unwrap();
        assert_eq!(bearer(&long).unwrap_err().reason, Reason::TokenInvalid);
    }

    #[test]
    fn tokens_in_the_url_are_refused() {
        for (uri, refused) in [
            ("/acme/mcp", false),
            ("/acme/mcp?x=access_token", false),
            ("/acme/mcp?access_token=a", true),
            ("/acme/mcp?x=1&Access%5Ftoken=a", true),
            ("/acme/mcp?%zz=1&a%", false),
        ] {
            let got = refuse_token_in_query(&uri.parse().unwrap());
            assert_eq!(got.is_err(), refused, "{uri}");
        }
    }

    #[test]
    fn challenges_say_where_to_get_what() {
        let at = "https://gw/.well-known/oauth-protected-resource/acme/mcp";
        let text =
            |reason, scope| challenge(reason, at, scope).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(
            text(Reason::Unauthenticated, None).unwrap(),
            format!("Bearer resource_metadata=\"{at}\"")
        );
        let expired = text(Reason::TokenExpired, Some("a b\"\r\n")).unwrap();
        assert!(expired.starts_with("Bearer error=\"invalid_token\", error_description=\"Refresh"));
        assert!(expired.contains(", scope=\"a b\", resource_metadata="));
        assert!(text(Reason::InsufficientScope, Some("x")).unwrap().contains("insufficient_scope"));
        assert_eq!(text(Reason::UnknownTarget, None), None);
    }

    #[test]
    fn one_header_says_who_calls() {
        let world = World::new().group("acme");
        let closed = world.snapshot();
        let open = world.group_with("acme", |group| group.anonymous = true).snapshot();
        // headers, and what comes of them
        type Found = Result<Option<&'static str>, Reason>;
        let cases: [(&[&str], Found); 5] = [
            (&[], Ok(None)),
            (&["Bearer abc"], Ok(Some("abc"))),
            (&["Bearer abc", "Bearer abc"], Err(Reason::InvalidRequest)),
            (&["Bearer a b"], Err(Reason::TokenInvalid)),
            (&["Basic YTpi"], Err(Reason::Unauthenticated)),
        ];
        for (values, expect) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(token(&headers).map_err(|refusal| refusal.reason), expect, "{values:?}");
        }
        let who = |snapshot: &weir_model::snapshot::Snapshot| {
            nobody(&snapshot.groups["acme"]).map(|who| who.id()).map_err(|refusal| refusal.reason)
        };
        assert_eq!(who(&closed), Err(Reason::Unauthenticated));
        assert_eq!(who(&open), Ok("anonymous".to_owned()));
    }
}
