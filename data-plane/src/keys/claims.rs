//! What a JWT claims, judged: issuer, audience, times, subject, memberships, scopes, client.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::principal::{Presented, Principal, Proof};
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::{ClaimNames, IdentityProvider, Overage};
use weir_model::snapshot::ProviderView;

use super::sign_out::EVENT;

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

    /// The claim of exactly that name.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// What the person is a member of.
    pub(super) fn memberships(&self, names: &ClaimNames) -> Result<Arc<[Arc<str>]>, Refusal> {
        self.words(&names.memberships, false)
    }

    /// `iss`.
    pub(super) fn issuer(&self) -> Result<&str, Refusal> {
        self.0.get("iss").and_then(Value::as_str).ok_or_else(|| invalid("no `iss` claim"))
    }

    /// The principal, and the second from which on the token may be used. `audiences` are good
    /// besides those of the provider's document.
    pub(super) fn principal(
        &self,
        provider: &ProviderView,
        audiences: &[&str],
        (token, now): (&str, i64),
    ) -> Result<(Principal, i64), Refusal> {
        let spec = &provider.spec;
        if self.issuer()? != spec.issuer {
            return Err(invalid("another issuer"));
        }
        // It is signed by the same key, for an audience that may be one of ours.
        if self.get("events").and_then(|events| events.get(EVENT)).is_some() {
            return Err(invalid("a logout token lets nobody in"));
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
        self.check_audience(spec, audiences)?;
        let names = &provider.claims;
        if spec.overage == Overage::Refuse {
            self.check_overage(names)?;
        }
        let client = names.client.iter().find_map(|name| self.at(name)?.as_str());
        let principal = Principal {
            proof: Proof::Jwt,
            provider: Some(provider.name.clone()),
            subject: self.subject(&names.subject)?.into(),
            memberships: self.words(&names.memberships, false)?,
            scopes: self.words(&names.scopes, true)?,
            credential: client.map(Arc::from),
            expires: Some(expires),
            token: Some(Arc::new(self.presented(token)?)),
        };
        Ok((principal, from))
    }

    /// By what the token can be told from others.
    fn presented(&self, token: &str) -> Result<Presented, Refusal> {
        let text = |name: &str| {
            let text = self.0.get(name).and_then(Value::as_str);
            text.filter(|text| text.len() <= bounds::SUBJECT_BYTES_MAX).map(str::to_owned)
        };
        Ok(Presented {
            sha256: Digest::of(token.as_bytes()),
            id: text("jti").or_else(|| text("uti")),
            session: text("sid"),
            login: None,
            issued: self.time("iat")?,
        })
    }

    /// A token whose groups were left out because there are too many (OIDC distributed claims,
    /// and what Entra writes into tokens of the implicit flow) says nothing about what its bearer
    /// is a member of: a rule that forbids something to a group could be missed.
    fn check_overage(&self, names: &ClaimNames) -> Result<(), Refusal> {
        let elsewhere = self.0.get("_claim_names").and_then(Value::as_object);
        let left_out = |name: &&String| elsewhere.is_some_and(|e| e.contains_key(name.as_str()));
        let has_groups = match self.0.get("hasgroups") {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => text == "true",
            _ => false,
        };
        let missing = names.memberships.iter().find(left_out);
        if missing.is_none() && !has_groups {
            return Ok(());
        }
        let name = missing.map_or("groups", String::as_str);
        Err(invalid(format!("the provider left the claim `{name}` out: too many groups")).hint(
            "The identity provider left your groups out of the token because they are too many; \
             ask its administrator to send only the groups that are assigned to this application.",
        ))
    }

    fn check_audience(&self, spec: &IdentityProvider, own: &[&str]) -> Result<(), Refusal> {
        let fits = |value: &Value| {
            value
                .as_str()
                .is_some_and(|text| spec.audiences.iter().any(|a| a == text) || own.contains(&text))
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
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Number(n)) => Ok(n.as_i64().or_else(|| n.as_f64().map(|f| f as i64))),
            Some(_) => Err(invalid(format!("`{name}` is no number"))),
        }
    }

    /// Strings of several claims together, sorted. What is no string says nothing.
    fn words(&self, names: &[String], split: bool) -> Result<Arc<[Arc<str>]>, Refusal> {
        let mut all: BTreeSet<String> = BTreeSet::new();
        for name in names {
            self.visit(name, &mut |prefix, value| {
                let mut add = |word: &str| match prefix {
                    Some(prefix) => drop(all.insert(format!("{prefix}/{word}"))),
                    None => drop(all.insert(word.to_owned())),
                };
                match value {
                    Value::String(text) if split => {
                        text.split_ascii_whitespace().for_each(&mut add);
                    }
                    Value::String(text) => add(text),
                    Value::Array(items) => {
                        items.iter().filter_map(Value::as_str).for_each(&mut add);
                    }
                    _ => {}
                }
            });
        }
        // To leave some out could leave out the one that a forbid is about.
        if all.len() > bounds::PRINCIPAL_ATTRIBUTES_MAX {
            let (have, most) = (all.len(), bounds::PRINCIPAL_ATTRIBUTES_MAX);
            return Err(invalid(format!("{have} values in {names:?}, at most {most} are read")));
        }
        Ok(all.into_iter().map(Arc::from).collect())
    }

    /// Every value that a claim name means; see [`ClaimNames`].
    fn visit<'a>(&'a self, name: &str, found: &mut dyn FnMut(Option<&str>, &'a Value)) {
        if let Some(ending) = name.strip_prefix('*').filter(|ending| ending.starts_with('/')) {
            let named = self.0.iter().filter(|(claim, _)| claim.ends_with(ending));
            return named.for_each(|(_, value)| found(None, value));
        }
        if let Some((before, after)) = name.split_once(".*.")
            && !self.0.contains_key(name)
        {
            let members = self.at(before).and_then(Value::as_object).into_iter().flatten();
            for (member, value) in members {
                let value = after.split('.').try_fold(value, |v, part| v.as_object()?.get(part));
                if let Some(value) = value {
                    found(Some(member), value);
                }
            }
            return;
        }
        if let Some(value) = self.at(name) {
            found(None, value);
        }
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
