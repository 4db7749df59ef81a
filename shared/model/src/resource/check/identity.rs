//! Who may come in.

use serde_json::Value;

use super::Findings;
use super::place::audience;
use super::text::{self, UrlRules};
use crate::bounds;
use crate::resource::{IdentityProvider, KeySource, ServiceAccount};

/// Forgiven clock skew, in seconds.
const LEEWAY_SECS_MAX: u64 = 300;
/// Audiences of one issuer.
const AUDIENCES_MAX: usize = 64;
/// Names of claims with one meaning.
const CLAIMS_MAX: usize = 16;
/// Longest public part of an API token.
const TOKEN_ID_CHARS_MAX: usize = 64;

pub(super) fn provider(f: &mut Findings, spec: &IdentityProvider) {
    let https = |query| UrlRules { plain: spec.allow_private, path: true, query };
    f.add_if("spec.issuer", text::url(&spec.issuer, https(false)));
    f.count("spec.audiences", spec.audiences.len(), (1, AUDIENCES_MAX));
    for (i, text) in spec.audiences.iter().enumerate() {
        f.add_if(format!("spec.audiences[{i}]"), audience(text));
    }
    match &spec.keys {
        KeySource::Discovery => {}
        KeySource::JwksUrl(url) => f.add_if("spec.keys.jwksUrl", text::url(url, https(true))),
        KeySource::Jwks(json) => f.add_if("spec.keys.jwks", jwks(json)),
    }
    f.count("spec.algorithms", spec.algorithms.len(), (1, 16));
    f.unique(spec.algorithms.iter().map(|a| format!("{a:?}")), |i| format!("spec.algorithms[{i}]"));
    claims(f, spec);
    if let Some(client) = &spec.sign_in {
        f.add_if("spec.signIn.clientId", text::attribute(&client.client_id));
        f.count("spec.signIn.scopes", client.scopes.len(), (0, CLAIMS_MAX));
        for (i, scope) in client.scopes.iter().enumerate() {
            let word = !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic());
            if !word {
                f.add(format!("spec.signIn.scopes[{i}]"), "must be one word");
            }
        }
        if !client.scopes.is_empty() && !client.scopes.iter().any(|scope| scope == "openid") {
            f.add("spec.signIn.scopes", "must have openid, else nobody says who signed in");
        }
        if let Some(secret) = &client.client_secret {
            let path = "spec.signIn.clientSecret.secret";
            f.add_if(path, text::id(&secret.secret, 64, "-_"));
        }
    }
    f.count("spec.logoutClients", spec.logout_clients.len(), (0, AUDIENCES_MAX));
    f.unique(&spec.logout_clients, |i| format!("spec.logoutClients[{i}]"));
    for (i, client) in spec.logout_clients.iter().enumerate() {
        f.add_if(format!("spec.logoutClients[{i}]"), text::attribute(client));
    }
    if spec.leeway_secs > LEEWAY_SECS_MAX {
        f.add("spec.leewaySecs", format!("must be at most {LEEWAY_SECS_MAX}"));
    }
}

fn claims(f: &mut Findings, spec: &IdentityProvider) {
    if let Some(subject) = &spec.claims.subject {
        f.add_if("spec.claims.subject", text::attribute(subject));
    }
    let lists = [
        ("memberships", &spec.claims.memberships),
        ("scopes", &spec.claims.scopes),
        ("client", &spec.claims.client),
    ];
    for (name, list) in lists {
        let Some(list) = list else { continue };
        let path = format!("spec.claims.{name}");
        f.count(&path, list.len(), (0, CLAIMS_MAX));
        for (i, claim) in list.iter().enumerate() {
            f.add_if(format!("{path}[{i}]"), text::attribute(claim));
        }
    }
}

/// What is wrong with a key set that is given in the document. Which of its keys are usable is
/// decided where they are used; a key that must not be here is refused.
fn jwks(json: &str) -> Option<String> {
    let fail = |text: &str| Some(text.to_owned());
    if json.len() > bounds::JWKS_BYTES_MAX {
        return Some(format!("must be at most {} bytes long", bounds::JWKS_BYTES_MAX));
    }
    let Ok(set) = serde_json::from_str::<Value>(json) else {
        return fail("must be a JSON Web Key Set as JSON text");
    };
    let Some(keys) = set.get("keys").and_then(Value::as_array) else {
        return fail("must be a JSON Web Key Set: an object with the list keys");
    };
    if keys.is_empty() || keys.len() > bounds::JWKS_KEYS_MAX {
        return Some(format!("must have 1 to {} keys", bounds::JWKS_KEYS_MAX));
    }
    for key in keys {
        match key.get("kty").and_then(Value::as_str) {
            None => return fail("each key must be an object with kty"),
            Some("oct") => return fail("must not have a symmetric key: whoever reads it can sign"),
            Some(_) if key.get("d").is_some() => {
                return fail("must not have a private key; give the public part alone");
            }
            Some(_) => {}
        }
    }
    None
}

pub(super) fn account(f: &mut Findings, spec: &ServiceAccount) {
    f.add_if("spec.displayName", text::display(spec.display_name.as_deref()));
    for (name, list) in [("memberships", &spec.memberships), ("scopes", &spec.scopes)] {
        let path = format!("spec.{name}");
        f.count(&path, list.len(), (0, bounds::PRINCIPAL_ATTRIBUTES_MAX));
        for (i, item) in list.iter().enumerate() {
            f.add_if(format!("{path}[{i}]"), text::attribute(item));
        }
    }
    f.count("spec.tokens", spec.tokens.len(), (0, bounds::API_TOKENS_MAX));
    f.unique(spec.tokens.iter().map(|t| &t.id), |i| format!("spec.tokens[{i}].id"));
    f.unique(spec.tokens.iter().map(|t| t.sha256), |i| format!("spec.tokens[{i}].sha256"));
    for (i, token) in spec.tokens.iter().enumerate() {
        f.add_if(format!("spec.tokens[{i}].id"), text::id(&token.id, TOKEN_ID_CHARS_MAX, ""));
    }
}
