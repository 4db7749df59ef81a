//! Signing in: OAuth 2.1 with PKCE in the user's browser, as MCP 2026-07-28 describes it.
//!
//! - [`discovery`]: from an endpoint to its authorization server;
//! - [`client`]: who asks: a client that was registered beforehand, a client id metadata document,
//!   or one that registers itself;
//! - [`browser`]: the person's consent, and the code that comes back to this machine;
//! - [`grant`]: codes and refresh tokens become access tokens;
//! - [`store`]: the file that keeps them.
//!
//! One process signs in at a time: whoever waited finds the token in the file. A refresh that
//! fails because of the network keeps the refresh token; one that the server refuses throws it
//! away and signs in anew.

mod browser;
mod client;
mod discovery;
mod grant;
mod store;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_model::secret::Secret;

use super::credentials::Challenge;
use super::http::Http;
use client::Client;
use discovery::Found;
use grant::Tokens;
use store::{Access, Grant, Store};

/// A token is renewed when it has less than this to live.
const AHEAD_SECS: u64 = 30;
/// How long the person may take.
const PERSON: Duration = Duration::from_secs(300);

/// What the command line says about signing in.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<Secret<String>>,
    /// URL of a client id metadata document.
    pub(super) client_metadata: Option<String>,
    /// Instead of what the endpoint asks for.
    pub(super) scope: Option<String>,
    /// Where the browser comes back to; 0 is any.
    pub(super) callback_port: u16,
    /// Nothing: do not open one. The inner value: a program instead of the system's.
    pub(super) browser: Option<Option<String>>,
}

/// Why there is no token, and what a person can do.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignInError {
    #[error("the token in WEIR_AGENT_TOKEN was refused")]
    TokenRefused,
    #[error("WEIR_AGENT_TOKEN is set: there is nothing to sign in for")]
    TokenGiven,
    #[error("the endpoint does not say where to sign in: {0}")]
    NoAuthorizationServer(String),
    #[error("{0} does not know this client, and takes no registrations: give --client-id")]
    NotRegistered(String),
    #[error("the authorization server refused: {0}")]
    Refused(String),
    #[error("nobody signed in within {} minutes", PERSON.as_secs() / 60)]
    Nobody,
    #[error("the new token was refused like the old one")]
    InVain,
    #[error("{0}")]
    Network(String),
    #[error("{0}")]
    File(String),
}

/// Signs in, and keeps what comes of it.
#[derive(Debug)]
pub(super) struct SignIn {
    http: Http,
    wishes: Wishes,
    store: Store,
    urls: Vec<String>,
    /// One at a time in this process.
    alone: tokio::sync::Mutex<()>,
}

impl SignIn {
    /// `urls` are all endpoints of this bridge: a grant for one may do for the others.
    pub(super) fn new(
        http: Http,
        wishes: Wishes,
        folder: &Path,
        urls: &[String],
    ) -> anyhow::Result<Self> {
        let store = Store::open(folder)?;
        Ok(Self { http, wishes, store, urls: urls.to_vec(), alone: tokio::sync::Mutex::default() })
    }

    /// The token for an endpoint, renewed ahead of its end.
    pub(super) async fn token(&self, url: &str) -> Option<Secret<String>> {
        let access = self.store.cached().access(url)?.clone();
        if access.expires_at.is_none_or(|end| now() + AHEAD_SECS < end) {
            return Some(Secret::new(access.token.clone()));
        }
        let _alone = self.alone.lock().await;
        match self.refresh(url, Some(&access.token)).await {
            Ok(Some(token)) => Some(token),
            // The endpoint decides whether the old one will still do.
            Ok(None) | Err(_) => Some(Secret::new(access.token.clone())),
        }
    }

    /// Replaces a token that was refused.
    pub(super) async fn renew(
        &self,
        url: &str,
        refused: Option<&str>,
        challenge: &Challenge,
    ) -> Result<(), SignInError> {
        let _alone = self.alone.lock().await;
        if let Some(access) = self.store.cached().access(url)
            && Some(access.token.as_str()) != refused
        {
            return Ok(());
        }
        if !challenge.wants_scope() && self.refresh(url, refused).await?.is_some() {
            return Ok(());
        }
        self.ask(url, challenge).await
    }

    /// Signs in at an endpoint, whether it asks for that or not.
    pub(super) async fn begin(&self, url: &str) -> Result<(), SignInError> {
        let _alone = self.alone.lock().await;
        self.ask(url, &Challenge::default()).await
    }

    /// Throws away what is kept for the endpoints.
    pub(super) async fn forget(&self) -> anyhow::Result<()> {
        self.store.change(|kept| kept.forget(&self.urls)).await?;
        Ok(())
    }

    /// A new token by the refresh token, or the one that another process got meanwhile. Nothing
    /// when only a person can help.
    async fn refresh(
        &self,
        url: &str,
        refused: Option<&str>,
    ) -> Result<Option<Secret<String>>, SignInError> {
        // Held until the new refresh token is on disk: it may be good for one use only.
        let mut file = self.store.lock().await?;
        if let Some(access) = file.kept().access(url)
            && Some(access.token.as_str()) != refused
            && access.expires_at.is_none_or(|end| now() < end)
        {
            let token = access.token.clone();
            self.store.remember(file.kept());
            return Ok(Some(Secret::new(token)));
        }
        let Some((grant, resource)) = file.kept().grant_for(url) else { return Ok(None) };
        let Some(refresh) = grant.refresh_token.clone() else { return Ok(None) };
        let tokens = match grant::refresh(&self.http, grant, &refresh, &resource).await {
            Ok(tokens) => tokens,
            Err(SignInError::Refused(why)) => {
                tracing::info!(why, "the refresh token is of no use any more");
                file.kept_mut().drop_refresh(url);
                self.store.save(&mut file)?;
                return Ok(None);
            }
            Err(other) => return Err(other),
        };
        let token = tokens.access_token.clone();
        file.kept_mut().renewed(url, tokens, now());
        self.store.save(&mut file)?;
        Ok(Some(Secret::new(token)))
    }

    /// Discovers, asks the person, and keeps what comes of it.
    async fn ask(&self, url: &str, challenge: &Challenge) -> Result<(), SignInError> {
        let found = discovery::discover(&self.http, url, challenge).await?;
        let scope = self.scope(url, challenge, &found);
        if challenge.wants_scope() && self.granted(url).is_some_and(|had| covers(&had, &scope)) {
            return Err(SignInError::InVain);
        }
        if !challenge.wants_scope() && self.borrow(url, &found).await? {
            return Ok(());
        }
        let landing = browser::Landing::open(self.wishes.callback_port).await?;
        let known = self.store.cached().client(&found.issuer());
        let client =
            client::find(&self.http, &self.wishes, &found, known, &landing.redirect()).await?;
        let tokens = self.consent(&landing, &found, &client, scope.as_deref()).await?;
        let kept = Grant::new(&found, &client, &tokens);
        let access = Access::new(&found.resource, &tokens, scope, now());
        let url = url.to_owned();
        self.store.change(move |file| file.granted(kept, url, access)).await?;
        tracing::info!("signed in");
        Ok(())
    }

    /// A grant for another region of the same authorization server may do for this one.
    async fn borrow(&self, url: &str, found: &Found) -> Result<bool, SignInError> {
        let other = {
            let kept = self.store.cached();
            let same = |other: &&String| {
                kept.grant_for(other).is_some_and(|(grant, _)| grant.issuer == found.issuer())
            };
            self.urls.iter().filter(|other| *other != url).find(same).cloned()
        };
        let Some(other) = other else { return Ok(false) };
        let mut file = self.store.lock().await?;
        let Some((grant, _)) = file.kept().grant_for(&other) else { return Ok(false) };
        let Some(refresh) = grant.refresh_token.clone() else { return Ok(false) };
        match grant::refresh(&self.http, grant, &refresh, &found.resource).await {
            Ok(tokens) => {
                file.kept_mut().borrowed(&other, url, (&found.resource, tokens), now());
                self.store.save(&mut file)?;
                Ok(true)
            }
            Err(error) => {
                tracing::debug!(%error, "no token for this region by the grant of another");
                Ok(false)
            }
        }
    }

    async fn consent(
        &self,
        landing: &browser::Landing,
        found: &Found,
        client: &Client,
        scope: Option<&str>,
    ) -> Result<Tokens, SignInError> {
        let proof = grant::Proof::new();
        let state = grant::random();
        let asked = grant::authorization_url(found, client, &proof, (&state, scope), landing);
        browser::show(&asked, self.wishes.browser.as_ref());
        let returned = tokio::time::timeout(PERSON, landing.wait(&state)).await;
        let code = returned.map_err(|_| SignInError::Nobody)??.code(found)?;
        grant::redeem(&self.http, found, client, &proof, (&code, landing)).await
    }

    /// What is asked for: the operator's word, else the challenge, else what the endpoint lists;
    /// and whatever was granted before, so that more scope never means less.
    fn scope(&self, url: &str, challenge: &Challenge, found: &Found) -> Option<String> {
        let wanted = self.wishes.scope.clone().or_else(|| challenge.scope.clone());
        let wanted = wanted.or_else(|| found.scopes());
        let before = self.granted(url).filter(|_| challenge.wants_scope()).unwrap_or_default();
        let mut all: Vec<&str> = Vec::new();
        let wanted = wanted.unwrap_or_default();
        // Without it many servers give no refresh token.
        let offline = found.offline().then_some("offline_access");
        for scope in before.split(' ').chain(wanted.split(' ')).chain(offline) {
            if !scope.is_empty() && !all.contains(&scope) {
                all.push(scope);
            }
        }
        (!all.is_empty()).then(|| all.join(" "))
    }

    fn granted(&self, url: &str) -> Option<String> {
        self.store.cached().access(url).and_then(|access| access.scope.clone())
    }
}

fn covers(had: &str, wanted: &Option<String>) -> bool {
    let had: Vec<&str> = had.split(' ').collect();
    wanted.iter().flat_map(|wanted| wanted.split(' ')).all(|scope| had.contains(&scope))
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
