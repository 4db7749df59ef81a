//! etcd's members: one client each, tried in order, beginning with the one that answered last.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use weir_model::bounds;
use weir_model::secret::Secret;

use super::failure::Failure;
use crate::store::StoreError;

pub(super) type Kv = etcd_client::KvClient;

/// One attempt at one member: long enough for an election, short enough to try another member.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// Between rounds over all members.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// One answer. The largest entry fits; pages shrink until they do.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// etcd bans clients that ping more often than every five seconds.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// How etcd is reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `http://host:port` or `https://host:port`, in order of preference.
    pub endpoints: Vec<String>,
    /// Everything lives under it; ends in `/`.
    pub prefix: String,
    /// User and password, when etcd asks for them.
    pub user: Option<(String, Secret<String>)>,
    /// For `https` endpoints.
    pub tls: Tls,
}

/// Certificates as PEM.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Whom to trust instead of the system's roots.
    pub ca: Option<String>,
    /// Our certificate and its key.
    pub identity: Option<(String, Secret<String>)>,
    /// The name to expect in etcd's certificate instead of the endpoint's host.
    pub server_name: Option<String>,
}

#[derive(Debug)]
pub(super) struct Members {
    members: Vec<Member>,
    /// The member that answered last.
    preferred: AtomicUsize,
    options: Options,
}

struct Member {
    endpoint: String,
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.endpoint)
    }
}

impl Members {
    pub(super) fn new(options: Options) -> Result<Self, StoreError> {
        let malformed = |why: String| Err(StoreError::Malformed(why));
        if options.endpoints.is_empty() {
            return malformed("etcd needs at least one endpoint".to_owned());
        }
        if !options.prefix.ends_with('/') || !options.prefix.is_ascii() {
            return malformed("the prefix in etcd must be ASCII and end in '/'".to_owned());
        }
        for endpoint in &options.endpoints {
            let scheme = endpoint.starts_with("http://") || endpoint.starts_with("https://");
            if !scheme || endpoint.parse::<http::Uri>().is_err() || endpoint.contains('@') {
                return malformed(format!(
                    "{endpoint:?} must be http://host:port or https://host:port, without a user"
                ));
            }
        }
        let members = options
            .endpoints
            .iter()
            .map(|endpoint| Member { endpoint: endpoint.clone(), client: Mutex::default() })
            .collect();
        Ok(Self { members, preferred: AtomicUsize::new(0), options })
    }

    /// Calls until a member answers, the failure is final, or time is up.
    pub(super) async fn call<T, F>(&self, mut call: impl FnMut(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + Duration::from_millis(bounds::STORE_CALL_MS);
        let count = self.members.len();
        let mut pause = PAUSE_FIRST;
        let mut said = vec![String::new(); count];
        loop {
            let first = self.preferred.load(Ordering::Relaxed);
            for at in (first..first + count).map(|at| at % count) {
                let attempt = async { call(self.client(at).await?).await };
                let limit = until.min(Instant::now() + ATTEMPT);
                let failure = match timeout_at(limit, attempt).await {
                    Ok(Ok(done)) => {
                        self.preferred.store(at, Ordering::Relaxed);
                        return Ok(done);
                    }
                    Ok(Err(error)) => Failure::of(&error),
                    Err(_) => Failure::Again("no answer in time".to_owned()),
                };
                match failure {
                    Failure::Again(text) => said[at] = text,
                    settled => return Err(settled),
                }
                // The next attempt at this member makes a new connection.
                *self.members[at].client.lock() = None;
            }
            if Instant::now() + pause >= until {
                return Err(Failure::Again(self.told(&said)));
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
    }

    /// Like [`Self::call`], for calls that may answer much.
    pub(super) async fn call_kv<T, F>(&self, mut call: impl FnMut(Kv) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call(|client| call(client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX)))
            .await
    }

    fn told(&self, said: &[String]) -> String {
        let each = self.members.iter().zip(said);
        let each = each.map(|(member, text)| format!("{}: {text}", member.endpoint));
        format!("no member of etcd answers ({})", each.collect::<Vec<_>>().join("; "))
    }

    async fn client(&self, at: usize) -> Result<Client, Error> {
        let member = &self.members[at];
        if let Some(client) = member.client.lock().clone() {
            return Ok(client);
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(ATTEMPT)
            .with_keep_alive(PING.0, PING.1)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if let Some((user, password)) = &self.options.user {
            options = options.with_user(user, password.expose()).with_auto_token_refresh(true);
        }
        if member.endpoint.starts_with("https://") {
            options = options.with_tls(self.tls());
        }
        let connect = Client::connect([&member.endpoint], Some(options));
        let client = timeout(ATTEMPT, connect)
            .await
            .unwrap_or_else(|_| Err(Error::WatchError("no connection in time".to_owned())))?;
        *member.client.lock() = Some(client.clone());
        Ok(client)
    }

    fn tls(&self) -> TlsOptions {
        let options = &self.options.tls;
        let mut tls = TlsOptions::new();
        tls = match &options.ca {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
            None => tls.with_native_roots(),
        };
        if let Some((certificate, key)) = &options.identity {
            tls = tls.identity(Identity::from_pem(certificate, key.expose()));
        }
        if let Some(name) = &options.server_name {
            tls = tls.domain_name(name);
        }
        tls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused() {
        let options = |endpoint: &str, prefix: &str| Options {
            endpoints: vec![endpoint.to_owned()],
            prefix: prefix.to_owned(),
            ..Options::default()
        };
        assert!(Members::new(options("http://127.0.0.1:2379", "/weir/")).is_ok());
        for bad in [
            options("127.0.0.1:2379", "/weir/"),
            options("http://me:secret@etcd:2379", "/weir/"),
            options("http://etcd:2379", "/weir"),
            Options { prefix: "/weir/".to_owned(), ..Options::default() },
        ] {
            assert!(matches!(Members::new(bad), Err(StoreError::Malformed(_))));
        }
    }
}
