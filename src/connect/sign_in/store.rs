//! The file that keeps what was signed in for: `weir/connect.json` in the user's folder for
//! configuration, for its owner's eyes only.
//!
//! Several bridges share it. Whoever changes it holds a lock beside it and reads it anew first.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::discovery::Found;
use super::grant::Tokens;
use super::{PERSON, SignInError};

/// Wait between two looks at a lock that somebody else holds.
const LOOK: Duration = Duration::from_millis(50);

/// Everything in the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    grants: Vec<Grant>,
}

/// What one authorization server granted.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Grant {
    /// Exactly as it names itself.
    pub(super) issuer: String,
    pub(super) token_endpoint: String,
    pub(super) client: Client,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
    /// By endpoint.
    endpoints: BTreeMap<String, Access>,
}

/// The token for one endpoint.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Access {
    /// What it is for (RFC 8707).
    pub(super) resource: String,
    pub(super) token: String,
    /// Seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("resource", &self.resource).finish_non_exhaustive()
    }
}

impl Grant {
    pub(super) fn new(found: &Found, client: &Client, tokens: &Tokens) -> Self {
        Self {
            issuer: found.issuer(),
            token_endpoint: found.server.token_endpoint.clone(),
            client: client.clone(),
            refresh_token: tokens.refresh_token.clone(),
            endpoints: BTreeMap::new(),
        }
    }
}

impl Access {
    pub(super) fn new(resource: &str, tokens: &Tokens, asked: Option<String>, now: u64) -> Self {
        Self {
            resource: resource.to_owned(),
            token: tokens.access_token.clone(),
            expires_at: tokens.expires_in.map(|secs| now.saturating_add(secs)),
            // A server that grants what was asked need not repeat it.
            scope: tokens.scope.clone().or(asked),
        }
    }
}

impl Kept {
    pub(super) fn access(&self, url: &str) -> Option<&Access> {
        self.grants.iter().find_map(|grant| grant.endpoints.get(url))
    }

    /// The grant that an endpoint's token came from, and what the token is for.
    pub(super) fn grant_for(&self, url: &str) -> Option<(&Grant, String)> {
        self.grants.iter().find_map(|grant| {
            grant.endpoints.get(url).map(|access| (grant, access.resource.clone()))
        })
    }

    /// A client that registered itself at an issuer.
    pub(super) fn client(&self, issuer: &str) -> Option<Client> {
        self.grants.iter().find(|grant| grant.issuer == issuer).map(|grant| grant.client.clone())
    }

    fn holding(&mut self, url: &str) -> Option<&mut Grant> {
        self.grants.iter_mut().find(|grant| grant.endpoints.contains_key(url))
    }

    pub(super) fn drop_refresh(&mut self, url: &str) {
        if let Some(grant) = self.holding(url) {
            grant.refresh_token = None;
        }
    }

    /// A refresh worked. What the answer leaves out stays as it was.
    pub(super) fn renewed(&mut self, url: &str, tokens: Tokens, now: u64) {
        let Some(grant) = self.holding(url) else { return };
        if let Some(access) = grant.endpoints.get_mut(url) {
            *access = Access::new(&access.resource.clone(), &tokens, access.scope.clone(), now);
        }
        grant.refresh_token = tokens.refresh_token.or(grant.refresh_token.take());
    }

    /// A refresh by the grant of one endpoint gave tokens for another and its resource.
    pub(super) fn borrowed(&mut self, from: &str, url: &str, tokens: (&str, Tokens), now: u64) {
        let (resource, tokens) = tokens;
        for grant in &mut self.grants {
            grant.endpoints.remove(url);
        }
        let Some(grant) = self.holding(from) else { return };
        let scope = grant.endpoints.get(from).and_then(|access| access.scope.clone());
        grant.endpoints.insert(url.to_owned(), Access::new(resource, &tokens, scope, now));
        grant.refresh_token = tokens.refresh_token.or(grant.refresh_token.take());
    }

    /// Somebody signed in. An older grant of the same client is replaced; its tokens live on.
    pub(super) fn granted(&mut self, mut grant: Grant, url: String, access: Access) {
        let same = |old: &Grant| old.issuer == grant.issuer && old.client.id == grant.client.id;
        if let Some(at) = self.grants.iter().position(same) {
            let old = self.grants.swap_remove(at);
            grant.refresh_token = grant.refresh_token.take().or(old.refresh_token);
            grant.endpoints = old.endpoints;
        }
        for other in &mut self.grants {
            other.endpoints.remove(&url);
        }
        grant.endpoints.insert(url, access);
        self.grants.push(grant);
        self.grants.retain(|grant| !grant.endpoints.is_empty());
    }

    /// Throws away the tokens of endpoints, and grants that are left without any.
    pub(super) fn forget(&mut self, urls: &[String]) {
        for grant in &mut self.grants {
            grant.endpoints.retain(|url, _| !urls.contains(url));
        }
        self.grants.retain(|grant| !grant.endpoints.is_empty());
    }
}

/// The file, and what it held when it was last read.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    cached: Mutex<Arc<Kept>>,
}

/// The file while nobody else may change it.
#[derive(Debug)]
pub(super) struct Locked {
    kept: Kept,
    /// Let go of when it is dropped.
    _lock: File,
}

impl Locked {
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn kept_mut(&mut self) -> &mut Kept {
        &mut self.kept
    }
}

impl Store {
    /// # Errors
    /// When the folder cannot be had, or the file is not what this program writes.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("make {}, where tokens are kept", folder.display()))?;
        let file = folder.join("connect.json");
        let kept = read(&file).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self { file, cached: Mutex::new(Arc::new(kept)) })
    }

    /// As last read or written.
    pub(super) fn cached(&self) -> Arc<Kept> {
        Arc::clone(&self.cached.lock())
    }

    pub(super) fn remember(&self, kept: &Kept) {
        *self.cached.lock() = Arc::new(kept.clone());
    }

    /// Waits until nobody else changes the file, and reads it.
    pub(super) async fn lock(&self) -> Result<Locked, SignInError> {
        let path = self.file.with_extension("lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&path).map_err(|error| unusable(&path, &error))?;
        let wait = async {
            loop {
                match lock.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
                    Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
                }
            }
        };
        let timed_out = || SignInError::File(format!("{} is locked", path.display()));
        tokio::time::timeout(PERSON, wait).await.map_err(|_| timed_out())??;
        Ok(Locked { kept: read(&self.file)?, _lock: lock })
    }

    /// Writes the file as a whole.
    pub(super) fn save(&self, file: &mut Locked) -> Result<(), SignInError> {
        let place = |error: std::io::Error| unusable(&self.file, &error);
        let partial = self.file.with_extension("partial");
        // One that was left behind may have other permissions.
        drop(std::fs::remove_file(&partial));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut open = options.open(&partial).map_err(place)?;
        let text = serde_json::to_string_pretty(&file.kept).unwrap_or_default();
        open.write_all(text.as_bytes()).and_then(|()| open.sync_all()).map_err(place)?;
        std::fs::rename(&partial, &self.file).map_err(place)?;
        self.remember(&file.kept);
        Ok(())
    }

    /// Reads, changes and writes the file.
    pub(super) async fn change(&self, change: impl FnOnce(&mut Kept)) -> Result<(), SignInError> {
        let mut file = self.lock().await?;
        change(&mut file.kept);
        self.save(&mut file)
    }
}

fn read(file: &Path) -> Result<Kept, SignInError> {
    match std::fs::read(file) {
        // The error would repeat what it read.
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|_| SignInError::File(format!("{} is damaged: remove it", file.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(error) => Err(unusable(file, &error)),
    }
}

fn unusable(file: &Path, error: &std::io::Error) -> SignInError {
    SignInError::File(format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn grant(refresh: Option<&str>) -> Grant {
        Grant {
            issuer: "https://as".into(),
            token_endpoint: "https://as/token".into(),
            client: Client::public("c"),
            refresh_token: refresh.map(str::to_owned),
            endpoints: BTreeMap::new(),
        }
    }

    fn tokens(access: &str, refresh: Option<&str>) -> Tokens {
        Tokens {
            access_token: access.into(),
            refresh_token: refresh.map(str::to_owned),
            expires_in: Some(60),
            scope: None,
        }
    }

    #[tokio::test]
    async fn the_file_is_its_owners_and_others_see_changes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("weir")).unwrap();
        let access = Access::new("r", &tokens("t1", None), Some("a".into()), 100);
        store.change(|kept| kept.granted(grant(Some("r1")), "u".into(), access)).await.unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.file), 0o600);
        assert_eq!(mode(store.file.parent().unwrap()), 0o700);

        let other = Store::open(&folder.path().join("weir")).unwrap();
        assert_eq!(other.cached().access("u").unwrap().expires_at, Some(160));
        // While one holds the file, nobody else gets it.
        let held = store.lock().await.unwrap();
        let early = tokio::time::timeout(LOOK * 3, other.lock()).await;
        assert!(early.is_err());
        drop(held);
        other.lock().await.unwrap();

        std::fs::write(&store.file, "{\"secret\":").unwrap();
        let error = Store::open(&folder.path().join("weir")).unwrap_err().to_string();
        assert!(error.contains("connect.json is damaged") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_rotated_refresh_token_is_kept_and_a_missing_one_stays() {
        let mut kept = Kept::default();
        let access = Access::new("r", &tokens("t1", None), Some("a".into()), 0);
        kept.granted(grant(Some("r1")), "u".into(), access);
        kept.renewed("u", tokens("t2", Some("r2")), 10);
        kept.renewed("u", tokens("t3", None), 20);
        let (grant, resource) = kept.grant_for("u").unwrap();
        assert_eq!((grant.refresh_token.as_deref(), resource.as_str()), (Some("r2"), "r"));
        let access = kept.access("u").unwrap();
        assert_eq!((access.token.as_str(), access.scope.as_deref()), ("t3", Some("a")));
        kept.borrowed("u", "v", ("rv", tokens("t4", Some("r3"))), 30);
        assert_eq!(kept.grant_for("v").unwrap().0.refresh_token.as_deref(), Some("r3"));
        kept.forget(&["u".into()]);
        assert!(kept.access("u").is_none() && kept.access("v").is_some());
        kept.forget(&["v".into()]);
        assert!(kept.grants.is_empty());
    }

    #[test]
    fn tokens_do_not_show() {
        let mut kept = Kept::default();
        let access = Access::new("r", &tokens("sesame", None), None, 0);
        kept.granted(grant(Some("sesame")), "u".into(), access);
        assert!(!format!("{kept:?}").contains("sesame"));
    }
}
