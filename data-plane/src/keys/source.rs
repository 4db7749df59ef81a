//! Where an issuer's keys come from, and keeping them fresh.
//!
//! Keys are fetched when a token first needs them, again ahead of their age, and again when a
//! token names a key that they lack, but for that not more often than once in
//! [`bounds::JWKS_UNKNOWN_KEY_FLOOR_SECS`] on average and [`bounds::JWKS_UNKNOWN_KEY_BURST`] times in
//! a row: tokens with made-up key ids must not make the proxy hammer an issuer. However many calls wait, one fetch runs per source. When a fetch fails the
//! last good keys stay in use, up to [`bounds::JWKS_STALE_SECS`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use moka::sync::Cache;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::{IdentityProvider, KeySource};

use super::jwks::{self, Header, Key};
use super::metrics::{FetchResult, KeyMetrics};
use crate::upstream::fetch::Fetcher;

/// Gets small JSON documents from issuers.
#[async_trait]
pub trait Fetch: Send + Sync + std::fmt::Debug {
    /// The body at `url`, when it is JSON of a bounded size.
    ///
    /// # Errors
    /// A sentence for logs.
    async fn get_json(&self, url: &str, allow_private: bool) -> Result<Bytes, String>;

    /// Posts a form, which may hold secrets; gives status and body of the answer, whatever they
    /// are.
    ///
    /// # Errors
    /// A sentence for logs. It quotes neither form nor answer.
    async fn post_form(
        &self,
        url: &str,
        allow_private: bool,
        form: String,
        authorization: Option<String>,
    ) -> Result<(u16, Bytes), String>;
}

#[async_trait]
impl Fetch for Fetcher {
    async fn get_json(&self, url: &str, allow_private: bool) -> Result<Bytes, String> {
        let limit = Duration::from_millis(bounds::JWKS_FETCH_MS);
        let body = Fetcher::get_json(self, url, allow_private, bounds::JWKS_BYTES_MAX, limit).await;
        body.map_err(|error| error.to_string())
    }

    async fn post_form(
        &self,
        url: &str,
        allow_private: bool,
        form: String,
        authorization: Option<String>,
    ) -> Result<(u16, Bytes), String> {
        let limits = (bounds::JWKS_BYTES_MAX, Duration::from_millis(bounds::JWKS_FETCH_MS));
        let answer = Fetcher::post_form(self, (url, allow_private), form, authorization, limits);
        answer.await.map_err(|error| error.to_string())
    }
}

/// Keys as they were at one time.
#[derive(Debug)]
pub(super) struct KeySet {
    digest: Digest,
    keys: Vec<Key>,
}

impl KeySet {
    fn read(body: &[u8]) -> Result<Self, String> {
        Ok(Self { digest: Digest::of(body), keys: jwks::read(body)? })
    }

    /// Keys that may have signed a token with this header.
    pub(super) fn candidates<'a>(
        &'a self,
        header: &'a Header,
    ) -> impl Iterator<Item = &'a Key> + 'a {
        self.keys.iter().filter(|key| key.fits(header)).take(bounds::JWKS_TRIES_MAX)
    }
}

/// One place that keys come from, shared by all providers that name it.
#[derive(Debug)]
pub(super) struct Source {
    issuer: String,
    from: KeySource,
    allow_private: bool,
    fetch: Arc<dyn Fetch>,
    metrics: KeyMetrics,
    current: ArcSwapOption<KeySet>,
    described: ArcSwapOption<Described>,
    times: Mutex<Times>,
    /// Held by the one that fetches.
    turn: tokio::sync::Mutex<()>,
}

/// What an issuer said about itself.
#[derive(Debug)]
struct Described {
    document: Arc<Value>,
    at: Instant,
}

#[derive(Debug, Default)]
struct Times {
    fetched: Option<Instant>,
    tried: Option<Instant>,
    /// Until when looks for unknown keys are paid for.
    paid: Option<Instant>,
    failure: Option<String>,
}

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// `iss`.
    pub issuer: String,
    /// Keys in use.
    pub keys: usize,
    /// Seconds since they were fetched.
    pub age_secs: Option<u64>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<String>,
}

impl Source {
    /// True while these keys are the current ones: a key that the issuer took back verifies
    /// nothing any more, remembered tokens included.
    pub(super) fn holds(&self, keys: &Arc<KeySet>) -> bool {
        let stale = Duration::from_secs(bounds::JWKS_STALE_SECS);
        let fresh =
            matches!(self.from, KeySource::Jwks(_)) || self.age().is_some_and(|a| a < stale);
        fresh && self.current.load().as_ref().is_some_and(|now| now.digest == keys.digest)
    }

    /// The keys, fetched if there are none yet.
    pub(super) async fn keys(self: &Arc<Self>) -> Result<Arc<KeySet>, Refusal> {
        let secs = Duration::from_secs;
        match (self.current.load_full(), self.age()) {
            (Some(keys), _) if matches!(self.from, KeySource::Jwks(_)) => Ok(keys),
            (Some(keys), Some(age)) if age < secs(bounds::JWKS_STALE_SECS) => {
                if age > secs(bounds::JWKS_REFRESH_SECS) {
                    self.refresh_behind();
                }
                Ok(keys)
            }
            (old, _) => {
                self.refresh(old.as_ref(), secs(bounds::JWKS_RETRY_FLOOR_SECS)).await;
                let fresh = self.age().is_some_and(|age| age < secs(bounds::JWKS_STALE_SECS));
                let inline = matches!(self.from, KeySource::Jwks(_));
                self.current.load_full().filter(|_| fresh || inline).ok_or_else(|| {
                    let why = self.times.lock().failure.clone().unwrap_or_default();
                    let detail = format!("no keys of {}: {why}", self.issuer);
                    Refusal::new(Reason::IdentityUnavailable, detail).retry_after(5)
                })
            }
        }
    }

    /// The keys; fetched again when they have none of that id, as after a rotation.
    pub(super) async fn keys_for(
        self: &Arc<Self>,
        id: Option<&str>,
    ) -> Result<Arc<KeySet>, Refusal> {
        let keys = self.keys().await?;
        let Some(id) = id else { return Ok(keys) };
        if keys.keys.iter().any(|key| key.has_id(id)) {
            return Ok(keys);
        }
        if self.may_look_for_a_key(Instant::now()) {
            self.refresh(Some(&keys), Duration::ZERO).await;
        } else {
            // Somebody may be looking already.
            drop(self.turn.lock().await);
        }
        Ok(self.current.load_full().unwrap_or(keys))
    }

    /// Pays for one more look at the issuer's keys, while there is something to pay with.
    fn may_look_for_a_key(&self, now: Instant) -> bool {
        let price = Duration::from_secs(bounds::JWKS_UNKNOWN_KEY_FLOOR_SECS);
        let mut times = self.times.lock();
        let paid = times.paid.filter(|paid| *paid > now).unwrap_or(now);
        let may = paid <= now + price * (bounds::JWKS_UNKNOWN_KEY_BURST - 1);
        if may {
            times.paid = Some(paid + price);
        }
        may
    }

    fn age(&self) -> Option<Duration> {
        self.times.lock().fetched.map(|at| at.elapsed())
    }

    fn refresh_behind(self: &Arc<Self>) {
        let source = Arc::clone(self);
        weir_runtime::task::spawn("issuer-keys", async move {
            let seen = source.current.load_full();
            source.refresh(seen.as_ref(), Duration::from_secs(bounds::JWKS_RETRY_FLOOR_SECS)).await;
        });
    }

    /// Fetches, unless somebody did since `seen` or tried within `floor`.
    async fn refresh(&self, seen: Option<&Arc<KeySet>>, floor: Duration) {
        let began = Instant::now();
        let _turn = self.turn.lock().await;
        let changed = match (self.current.load().as_ref(), seen) {
            (Some(now), Some(seen)) => !Arc::ptr_eq(now, seen),
            (now, seen) => now.is_some() != seen.is_some(),
        };
        let tried = self.times.lock().tried;
        if changed || tried.is_some_and(|at| at >= began || at.elapsed() < floor) {
            return;
        }
        self.times.lock().tried = Some(Instant::now());
        let result = self.load().await;
        let mut times = self.times.lock();
        times.tried = Some(Instant::now());
        match result {
            Ok(set) => {
                let same = self.current.load().as_ref().is_some_and(|c| c.digest == set.digest);
                self.metrics.fetch(if same { FetchResult::Same } else { FetchResult::Changed });
                times.fetched = Some(Instant::now());
                times.failure = None;
                self.current.store(Some(Arc::new(set)));
            }
            Err(why) => {
                self.metrics.fetch(FetchResult::Failed);
                tracing::warn!(issuer = self.issuer, why, "an issuer's keys cannot be fetched");
                times.failure = Some(why);
            }
        }
    }

    async fn load(&self) -> Result<KeySet, String> {
        let body = match &self.from {
            KeySource::Jwks(text) => Bytes::from(text.clone()),
            KeySource::JwksUrl(url) => self.get(url).await?,
            KeySource::Discovery => {
                let url = self.discover().await?;
                self.get(&url).await?
            }
        };
        KeySet::read(&body).map_err(|why| format!("the key set cannot be used: {why}"))
    }

    async fn get(&self, url: &str) -> Result<Bytes, String> {
        let body = self.fetch.get_json(url, self.allow_private).await;
        body.map_err(|why| format!("{url}: {why}"))
    }

    /// `jwks_uri` of the issuer's own description.
    async fn discover(&self) -> Result<String, String> {
        let document = self.fetch_description().await?;
        let jwks = document["jwks_uri"].as_str();
        jwks.map(str::to_owned).ok_or_else(|| format!("{} names no jwks_uri", self.issuer))
    }

    /// The issuer's description, fetched unless there is a fresh one. An old one is better than
    /// none when the issuer does not answer.
    pub(super) async fn describe(&self) -> Result<Arc<Value>, String> {
        let age = Duration::from_secs(bounds::JWKS_REFRESH_SECS);
        let kept = |age: Duration| {
            let described = self.described.load_full()?;
            (described.at.elapsed() < age).then(|| Arc::clone(&described.document))
        };
        if let Some(document) = kept(age) {
            return Ok(document);
        }
        let _turn = self.turn.lock().await;
        if let Some(document) = kept(age) {
            return Ok(document);
        }
        let stale = Duration::from_secs(bounds::JWKS_STALE_SECS);
        self.fetch_description().await.or_else(|why| kept(stale).ok_or(why))
    }

    /// The OpenID configuration, else RFC 8414 metadata.
    async fn fetch_description(&self) -> Result<Arc<Value>, String> {
        let mut failures = Vec::new();
        for url in discovery_urls(&self.issuer) {
            match self.metadata(&url).await {
                Ok(document) => {
                    let (document, at) = (Arc::new(document), Instant::now());
                    let described = Described { document: Arc::clone(&document), at };
                    self.described.store(Some(Arc::new(described)));
                    return Ok(document);
                }
                Err(why) => failures.push(why),
            }
        }
        Err(failures.join("; "))
    }

    async fn metadata(&self, url: &str) -> Result<Value, String> {
        let body = self.get(url).await?;
        let document: Value =
            serde_json::from_slice(&body).map_err(|_| format!("{url}: it is no JSON"))?;
        // A document that speaks for another issuer would let that issuer's keys in here.
        if document["issuer"].as_str() != Some(self.issuer.as_str()) {
            return Err(format!("{url}: it names another issuer than the provider's document"));
        }
        Ok(document)
    }
}

/// Where the metadata of an issuer may be, in the order of trying.
fn discovery_urls(issuer: &str) -> Vec<String> {
    let issuer = issuer.trim_end_matches('/');
    let start = issuer.find("://").map_or(0, |at| at + 3);
    let cut = issuer[start..].find('/').map_or(issuer.len(), |at| start + at);
    let (origin, path) = issuer.split_at(cut);
    vec![
        format!("{issuer}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
    ]
}

/// Every source in use.
#[derive(Debug)]
pub(super) struct Sources {
    fetch: Arc<dyn Fetch>,
    metrics: KeyMetrics,
    by_origin: Cache<Digest, Arc<Source>>,
}

impl Sources {
    pub(super) fn new(fetch: Arc<dyn Fetch>, metrics: KeyMetrics) -> Self {
        let by_origin = Cache::builder()
            .max_capacity(bounds::JWKS_SOURCES_MAX)
            .time_to_idle(Duration::from_secs(bounds::JWKS_STALE_SECS))
            .build();
        Self { fetch, metrics, by_origin }
    }

    /// The source that a provider's document names. Other changes of the document keep it.
    pub(super) fn get(&self, provider: &IdentityProvider) -> Arc<Source> {
        let (kind, place) = match &provider.keys {
            KeySource::Discovery => ("d", ""),
            KeySource::JwksUrl(url) => ("u", url.as_str()),
            KeySource::Jwks(text) => ("t", text.as_str()),
        };
        let private: &[u8] = if provider.allow_private { b"p" } else { b"-" };
        let size = (provider.issuer.len() as u64).to_be_bytes();
        let issuer = provider.issuer.as_bytes();
        let key = Digest::of_parts(&[kind.as_bytes(), private, &size, issuer, place.as_bytes()]);
        self.by_origin.get_with(key, || {
            Arc::new(Source {
                issuer: provider.issuer.clone(),
                from: provider.keys.clone(),
                allow_private: provider.allow_private,
                fetch: Arc::clone(&self.fetch),
                metrics: self.metrics.clone(),
                current: ArcSwapOption::empty(),
                described: ArcSwapOption::empty(),
                times: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
            })
        })
    }

    pub(super) fn status(&self) -> Vec<SourceStatus> {
        let one = |source: Arc<Source>| SourceStatus {
            issuer: source.issuer.clone(),
            keys: source.current.load().as_ref().map_or(0, |set| set.keys.len()),
            age_secs: source.age().map(|age| age.as_secs()),
            failure: source.times.lock().failure.clone(),
        };
        let mut all: Vec<_> = self.by_origin.iter().map(|(_, source)| one(source)).collect();
        all.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_the_standards_say() {
        assert_eq!(
            discovery_urls("https://id.example/realms/a/"),
            [
                "https://id.example/realms/a/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server/realms/a"
            ]
        );
        assert_eq!(
            discovery_urls("https://id.example"),
            [
                "https://id.example/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server"
            ]
        );
    }
}
