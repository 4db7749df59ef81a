//! Consents that need not be asked for again: of one person, to one client at one address, for one
//! endpoint and its scopes.
//!
//! They are kept by the browser that they were given in, sealed, in a cookie of their own; no proxy
//! keeps any. Only clients that are sent back over `https` are remembered: an application on the
//! person's own machine cannot be told from another one that uses its id (RFC 8252, section 8.6).
//! What was remembered counts for the person who gave it: whoever comes back from the identity
//! provider is compared with it.
//!
//! A consent ends with its time (`consentSecs`); when the person forgets it at `/authorize/consents`
//! or asks to be asked (`prompt=consent`); and when an operator revokes the person, or its id, which
//! the audit record of giving it names as the token.

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use weir_model::id::{Digest, Name};
use weir_model::principal::{Presented, Principal, Proof};
use weir_model::snapshot::GroupView;

use super::sealed::{Asked, Consent, Sealed, random};
use super::{Desk, answer, page};
use crate::call::Body;

/// The cookie.
const CONSENTS: &str = "weir-consents";
/// Consents of one browser; the oldest goes first.
const CONSENTS_MAX: usize = 8;
/// Longest cookie that is set; browsers take four kilobytes with name and attributes.
const COOKIE_BYTES_MAX: usize = 3_600;

/// One consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Given {
    /// By which it can be revoked.
    #[serde(rename = "i")]
    pub id: String,
    #[serde(rename = "c")]
    client: Digest,
    #[serde(rename = "l")]
    label: String,
    #[serde(rename = "r")]
    redirect: Digest,
    #[serde(rename = "u")]
    resource: String,
    #[serde(rename = "o")]
    scope: String,
    /// Where the person signs in.
    #[serde(rename = "p")]
    pub provider: Name,
    #[serde(rename = "s")]
    subject: String,
    #[serde(rename = "b")]
    given: i64,
    #[serde(rename = "e")]
    until: i64,
}

impl Given {
    /// What somebody consents to now.
    pub(super) fn new(
        asked: &Asked,
        (provider, subject): (&Name, &str),
        (now, secs): (i64, u32),
    ) -> Self {
        Self {
            id: random()[..22].to_owned(),
            client: asked.client,
            label: asked.label.chars().take(80).collect(),
            redirect: Digest::of(asked.redirect.as_bytes()),
            resource: asked.resource.clone(),
            scope: asked.scope.clone(),
            provider: provider.clone(),
            subject: subject.to_owned(),
            given: now,
            until: now + i64::from(secs),
        }
    }

    /// What goes along to the identity provider.
    pub(super) fn before(&self) -> Consent {
        Consent::Before(subject_digest(&self.subject))
    }

    fn same_client(&self, asked: &Asked) -> bool {
        self.client == asked.client
            && self.redirect == Digest::of(asked.redirect.as_bytes())
            && self.resource == asked.resource
    }

    /// True when it covers what is asked for, and nobody has taken it back.
    fn covers(&self, asked: &Asked, group: &GroupView, now: i64) -> bool {
        let mut scopes = asked.scope.split_ascii_whitespace();
        let known = |scope: &str| self.scope.split_ascii_whitespace().any(|had| had == scope);
        let lasts = group.spec.sign_in.as_ref().map_or(0, |front| i64::from(front.consent_secs));
        let signs_in = |name: &Name| {
            group.providers.iter().any(|p| p.name == *name && p.spec.sign_in.is_some())
        };
        self.same_client(asked)
            && scopes.all(known)
            && (self.given..self.until.min(self.given + lasts)).contains(&now)
            && signs_in(&self.provider)
            && group.withdrawn.caller(&self.principal(), now).is_none()
    }

    /// Who gave it, as revocations name callers; its id stands for a token's.
    fn principal(&self) -> Principal {
        let presented = Presented {
            sha256: Digest::of(self.id.as_bytes()),
            id: Some(self.id.clone()),
            session: None,
            login: None,
            issued: Some(self.given),
        };
        Principal {
            proof: Proof::Jwt,
            provider: Some(self.provider.clone()),
            subject: self.subject.as_str().into(),
            token: Some(std::sync::Arc::new(presented)),
            ..Principal::anonymous()
        }
    }
}

/// A person, without saying who to whoever reads a URL.
pub(super) fn subject_digest(subject: &str) -> Digest {
    Digest::of_parts(&[b"weir consent of", subject.as_bytes()])
}

/// True when a consent to this may be remembered.
pub(super) fn may_be_remembered(asked: &Asked, group: &GroupView) -> bool {
    let secs = group.spec.sign_in.as_ref().map_or(0, |front| front.consent_secs);
    secs > 0 && asked.redirect.starts_with("https://")
}

/// The consents of one browser.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Consents(Vec<Given>);

impl Sealed for Consents {
    const PURPOSE: &'static str = "oauth consents";
}

impl Consents {
    /// Those of the browser that asks; none where there are none that can be read.
    pub(super) fn of(headers: &HeaderMap, desk: &Desk<'_>) -> Self {
        let name = format!("{}{CONSENTS}", if desk.secure() { "__Host-" } else { "" });
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
        let pairs = cookies.flat_map(|text| text.split(';'));
        let mut pairs = pairs.filter_map(|pair| pair.trim_ascii().split_once('='));
        let sealed = pairs.find(|(known, _)| *known == name).map(|(_, value)| value);
        sealed.and_then(|text| Self::open(desk.sealer, b"", text).ok()).unwrap_or_default()
    }

    /// The one that covers what is asked for.
    pub(super) fn to(&self, asked: &Asked, group: &GroupView, now: i64) -> Option<&Given> {
        let given = self.0.iter().find(|given| given.covers(asked, group, now));
        given.filter(|_| may_be_remembered(asked, group))
    }

    /// Adds one, in place of an older one to the same client.
    pub(super) fn add(&mut self, given: Given) {
        let place = |other: &Given| {
            other.client == given.client
                && other.redirect == given.redirect
                && other.resource == given.resource
        };
        self.0.retain(|other| !place(other) && other.until > given.given);
        self.0.push(given);
        let over = self.0.len().saturating_sub(CONSENTS_MAX);
        self.0.drain(..over);
    }

    /// Forgets those to the client that asks.
    pub(super) fn forget(&mut self, asked: &Asked) {
        self.0.retain(|given| !given.same_client(asked));
    }

    /// Gives them to the browser to keep; the oldest go where there is no room.
    pub(super) fn set(mut self, response: &mut Response<Body>, desk: &Desk<'_>) {
        let sealed = loop {
            if self.0.is_empty() {
                break String::new();
            }
            match self.seal(desk.sealer, b"") {
                Ok(sealed) if sealed.len() <= COOKIE_BYTES_MAX => break sealed,
                _ => drop(self.0.remove(0)),
            }
        };
        let until = self.0.iter().map(|given| given.until).max().unwrap_or(desk.now);
        answer::lasting(response, (CONSENTS, &sealed), (until - desk.now, desk.secure()));
    }
}

/// GET `/authorize/consents`: what was remembered, with a way to forget it.
pub(super) fn show(desk: &Desk<'_>, head: &Parts) -> Response<Body> {
    let consents = Consents::of(&head.headers, desk);
    let lasting = consents.0.iter().filter(|given| given.until > desk.now);
    let rows: Vec<_> = lasting.map(|g| (g.label.as_str(), g.resource.as_str())).collect();
    page::consents(&rows)
}

/// POST `/authorize/consents`: forgets everything.
pub(super) fn forget(desk: &Desk<'_>, head: &Parts) -> Response<Body> {
    desk.trail.step("sign_in.forget");
    let mut origins = head.headers.get_all(header::ORIGIN).iter();
    if origins.any(|origin| origin.as_bytes() != desk.base.as_bytes()) {
        return page::problem(StatusCode::BAD_REQUEST, "The wish came from another page.");
    }
    let mut response = page::consents(&[]);
    Consents::default().set(&mut response, desk);
    response
}
