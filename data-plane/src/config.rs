//! How this proxy gets its configuration, and keeps it.
//!
//! [`Config::open`] finds out who the proxy is (enrolling it when it is new) and puts the last
//! good configuration from disk in force, if there is one; for that nobody else is needed.
//! [`Config::run`] then follows the control plane for ever: connects, applies, acknowledges,
//! reports, renews the certificate. Whatever happens to the stream, what is in force stays.

mod account;
mod apply;
mod checkpoint;
mod directory;
mod files;
mod follow;
mod identity;
mod join;
mod link;
mod metrics;
mod renew;
mod sign_ins;
mod state;
mod uses;
mod witness;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use weir_model::id::Name;
use weir_model::observation::Observation;
use weir_model::secret::Secret;
use weir_model::sync::identity::NodeId;
use weir_model::sync::{Held, Refused, Timing};
use weir_runtime::clock::SharedClock;
use weir_runtime::drain::Watch;

use crate::authorization::ledger::Ledger;

pub use account::Accountant;
pub use directory::Directory;
pub use identity::Identity;
pub use join::enrol;
pub use link::{Client, Endpoint, connect_over};
pub use metrics::ConfigMetrics;
pub use state::State;

/// Where and how a proxy follows the control plane.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder for what the proxy keeps: who it is, and the last good configuration.
    pub folder: PathBuf,
    /// Replicas of the control plane; one is tried after the other.
    pub endpoints: Vec<Endpoint>,
    /// Enrolment token; needed once, ignored when the proxy has enrolled.
    pub token: Option<Arc<Secret<String>>>,
    /// The name that it wants; needed when the token names no node.
    pub node: Option<Name>,
    /// How long streams wait for what.
    pub timing: Timing,
    /// The time.
    pub clock: SharedClock,
}

/// Why a proxy cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file of the state folder.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The proxy is new and has nothing to show.
    #[error("this proxy has not enrolled yet and has no token: get one from the control plane")]
    NoToken,
    /// The token's text is not one.
    #[error("the enrolment token is malformed: copy the whole text")]
    BadToken,
    /// There is nobody to follow.
    #[error("no address of a control plane is set")]
    NoEndpoint,
    /// The control plane said no.
    #[error("the control plane refuses to enrol this proxy: {0}")]
    Refused(String),
    /// The process ends before the proxy could enrol.
    #[error("draining before the proxy could enrol: {0}")]
    Draining(String),
    /// Keys or certificates.
    #[error("{0}")]
    Crypto(String),
}

/// See the module.
#[derive(Debug)]
pub struct Config {
    options: Options,
    identity: Arc<ArcSwap<Identity>>,
    state: Arc<State>,
    held: Held,
    refused: Vec<Refused>,
    /// What is held needs the control plane to be complete.
    wanting: bool,
}

impl Config {
    /// Finds out who the proxy is, and puts what it has on disk in force. A new proxy enrols
    /// here, and waits for the control plane as long as that takes.
    ///
    /// # Errors
    /// See [`ConfigError`]. A broken checkpoint is no error: it is set aside.
    pub async fn open(options: Options, drain: &Watch) -> Result<Self, ConfigError> {
        if options.endpoints.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        files::prepare(&options.folder)?;
        let identity = match Identity::load(&options.folder)? {
            Some(identity) => identity,
            None => {
                let identity = join::enrol(&options, drain).await?;
                identity.save(&options.folder)?;
                tracing::info!(node = %identity.id, "enrolled");
                identity
            }
        };
        let anchor = identity.anchor()?;
        let restored = {
            let (folder, region) = (options.folder.clone(), identity.id.region.clone());
            let read = move || checkpoint::read(&folder, &anchor, &region);
            tokio::task::spawn_blocking(read).await.ok().flatten()
        };
        let (held, age) = restored.unwrap_or_default();
        let identity = Arc::new(identity);
        let (state, refused, wanting) = restore(&held, age, Arc::clone(&identity)).await;
        Ok(Self {
            options,
            identity: Arc::new(ArcSwap::new(identity)),
            state: Arc::new(state),
            held,
            refused,
            wanting,
        })
    }

    /// The configuration in force, now and later.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Who this proxy is.
    pub fn node(&self) -> NodeId {
        self.identity.load().id.clone()
    }

    /// The same with its certificate, which is renewed in here.
    pub fn identity(&self) -> Arc<ArcSwap<Identity>> {
        Arc::clone(&self.identity)
    }

    /// Shows the audit log's checkpoints to the control plane, until the log has ended.
    pub fn witness(&self, spool: weir_audit::spool::Handle) -> impl Future<Output = ()> + use<> {
        witness::run(self.options.clone(), Arc::clone(&self.identity), spool)
    }

    /// Asks the control plane for the turns of people's sign-ins.
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        let identity = Arc::clone(&self.identity);
        Arc::new(sign_ins::Remote::new(self.options.clone(), identity))
    }

    /// Tells the control plane what is used of limits that count over all proxies.
    pub fn accountant(&self) -> Accountant {
        Accountant::new(self.options.clone(), Arc::clone(&self.identity))
    }

    /// Asks the control plane which other proxies there are.
    pub fn directory(&self) -> Directory {
        Directory::new(self.options.clone(), Arc::clone(&self.identity))
    }

    /// Follows the control plane until the drain, and sends up what the proxy sees.
    pub async fn run(self, reports: mpsc::Receiver<Observation>, drain: Watch) {
        let renew = renew::run(self.options.clone(), Arc::clone(&self.identity));
        tokio::select! {
            () = follow::run(self, reports, drain) => {}
            () = renew => {}
        }
    }
}

/// Compiles what came from disk.
async fn restore(held: &Held, age: Duration, node: Arc<Identity>) -> (State, Vec<Refused>, bool) {
    if held.statement.is_none() {
        return (State::default(), Vec::new(), false);
    }
    let held = held.clone();
    let compile = move || apply::compile(&held, &node.sealing, &Default::default());
    match tokio::task::spawn_blocking(compile).await {
        Ok(applied) => {
            let wanting = applied.unopened > 0;
            let revision = applied.snapshot.revision;
            tracing::info!(%revision, ?age, "serving the configuration from disk");
            (State::restored(applied.snapshot, age), applied.refused, wanting)
        }
        // It aborted; the control plane will say what to do instead.
        Err(_) => (State::default(), Vec::new(), true),
    }
}

#[cfg(test)]
mod tests;
