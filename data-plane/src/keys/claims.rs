//! What a JWT claims, judged: issuer, audience, times, subject, memberships, scopes, client.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use weir_model::bounds;
use weir_model::principal::{Principal, Proof};
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::IdentityProvider;
use weir_model::snapshot::ProviderView;

/// The payload of a token.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::TokenInvalid, detail)
}

impl Claims {
    /// Reads the payload without believing it.
    pub(super) fn unverified(token: &str) -> Result<Self, Refusal> {
        let mut parts = token.split('.');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
        let [Some(_), Some(payload), Some(_), None] = parts else {
            return Err(invalid("neither a JWT nor an API token"));
        };
        let bytes = URL_SAFE_NO_PAD.decode(payload).map_err(|_| invalid("no base64 payload"))?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(claims)) => Ok(Self(claims)),
            _ => Err(invalid("the payload is no JSON object")),
        }
    }

    /// Claims whose signature was verified.
    pub(super) fn verified(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// `iss`.
    pub(super) fn issuer(&self) -> Result<&str, Refusal> {
        self.0.get("iss").and_then(Value::as_str).ok_or_else(|| invalid("no `iss` claim"))
    }

    /// The principal, and the second from which on the token may be used.
    pub(super) fn principal(
        &self,
        provider: &ProviderView,
        audience: Option<&str>,
        now: i64,
    ) -> Result<(Principal, i64), Refusal> {
        let spec = &provider.spec;
        if self.issuer()? != spec.issuer {
            return Err(invalid("another issuer"));
        }
        let leeway = i64::try_from(spec.leeway_secs.min(300)).unwrap_or(0);
        let expires = self.time("exp")?.ok_or_else(|| invalid("no `exp` claim"))?;
        let expires = expires.saturating_add(leeway);
        if expires <= now {
            return Err(Refusal::new(Reason::TokenExpired, "the JWT has expired"));
        }
        let from = self.time("nbf")?.unwrap_or(i64::MIN).saturating_sub(leeway);
        if from > now {
            return Err(invalid("the JWT is not valid yet"));
        }
        self.check_audience(spec, audience)?;
        let client = spec.claims.client.iter().find_map(|name| self.at(name)?.as_str());
        let principal = Principal {
            proof: Proof::Jwt,
            provider: Some(provider.name.clone()),
            subject: self.subject(&spec.claims.subject)?.into(),
            memberships: self.words(&spec.claims.memberships, false)?,
            scopes: self.words(&spec.claims.scopes, true)?,
            credential: client.map(Arc::from),
            expires: Some(expires),
        };
        Ok((principal, from))
    }

    fn check_audience(&self, spec: &IdentityProvider, own: Option<&str>) -> Result<(), Refusal> {
        let fits = |value: &Value| {
            let text = value.as_str();
            text.is_some()
                && (spec.audiences.iter().any(|a| Some(a.as_str()) == text) || text == own)
        };
        let wrong = |detail: &str| Refusal::new(Reason::TokenAudience, detail);
        match self.0.get("aud") {
            None | Some(Value::Null) => Err(wrong("no `aud` claim")),
            Some(Value::Array(all)) if all.iter().any(fits) => Ok(()),
            Some(one) if fits(one) => Ok(()),
            Some(_) => Err(wrong("the JWT is for another audience")),
        }
    }

    fn subject(&self, name: &str) -> Result<&str, Refusal> {
        let subject = self.at(name).and_then(Value::as_str).unwrap_or_default();
        let fine = !subject.is_empty()
            && subject.len() <= bounds::SUBJECT_BYTES_MAX
            && !subject.chars().any(char::is_control);
        fine.then_some(subject).ok_or_else(|| invalid(format!("no usable `{name}` claim")))
    }

    /// A NumericDate; fractions are cut off.
    #[allow(clippy::cast_possible_truncation)] // saturates, which is what is wanted here
    fn time(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Number(n)) => Ok(n.as_i64().or_else(|| n.as_f64().map(|f| f as i64))),
            Some(_) => Err(invalid(format!("`{name}` is no number"))),
        }
    }

    /// Strings of several claims together, sorted. What is no string says nothing.
    fn words(&self, names: &[String], split: bool) -> Result<Arc<[Arc<str>]>, Refusal> {
        let mut all: BTreeSet<&str> = BTreeSet::new();
        for name in names {
            match self.at(name) {
                Some(Value::String(text)) if split => all.extend(text.split_ascii_whitespace()),
                Some(Value::String(text)) => drop(all.insert(text)),
                Some(Value::Array(items)) => all.extend(items.iter().filter_map(Value::as_str)),
                _ => {}
            }
        }
        // To leave some out could leave out the one that a forbid is about.
        if all.len() > bounds::PRINCIPAL_ATTRIBUTES_MAX {
            let (have, most) = (all.len(), bounds::PRINCIPAL_ATTRIBUTES_MAX);
            return Err(invalid(format!("{have} values in {names:?}, at most {most} are read")));
        }
        Ok(all.into_iter().map(Arc::from).collect())
    }

    /// The claim of that name, or else the value at that dotted path.
    fn at(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(name) {
            return Some(value);
        }
        let mut parts = name.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_object()?.get(part))
    }
}
