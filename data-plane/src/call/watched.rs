//! Streams that outlive the decision that let them be opened: asked about again whenever the
//! configuration changes. Those that belong to no call are also counted per caller, and end with
//! the caller's token.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weir_model::bounds;
use weir_model::id::{Name, Revision};
use weir_model::policy::Action;
use weir_model::principal::{Principal, Proof};
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::{GroupView, Hints};

use super::Gateway;
use super::forward::Scope;
use super::resolve::Upstream;
use super::sight::Sight;
use crate::config::State;
use crate::sessions::OpenStream;

/// What a stream is held against while it is open.
#[derive(Debug)]
pub struct Watched {
    until: Option<Instant>,
    revisions: watch::Receiver<Revision>,
    config: Arc<State>,
    sight: Sight,
    server: Option<Name>,
    session: Option<String>,
    /// What the call is about.
    target: Option<Subject>,
    _counted: Option<OpenStream>,
}

/// What a call was allowed.
#[derive(Debug)]
struct Subject {
    action: Action,
    name: String,
    hints: Hints,
}

impl Watched {
    /// Counts a stream of this caller.
    ///
    /// # Errors
    /// `ConcurrencyLimited` when the caller has too many.
    pub fn new(scope: Scope<'_>, gateway: &Gateway) -> Result<Self, Refusal> {
        let who = &scope.sight.who;
        let left = who.expires.map(|expires| expires.saturating_sub(scope.sealing.now));
        let token = left.map(|secs| Duration::from_secs(secs.max(0).unsigned_abs()));
        let longest = Duration::from_millis(bounds::STREAM_MS);
        Ok(Self {
            until: Some(Instant::now() + token.map_or(longest, |token| token.min(longest))),
            revisions: gateway.config.subscribe(),
            config: Arc::clone(&gateway.config),
            sight: scope.sight.clone(),
            server: scope.endpoint.server.clone(),
            session: session(scope),
            target: None,
            _counted: Some(gateway.streams.open(&who.id())?),
        })
    }

    /// The stream that answers a call on this target.
    pub fn call(scope: Scope<'_>, gateway: &Gateway, target: &Upstream) -> Self {
        let name = target.name.clone().unwrap_or_default();
        let mut revisions = gateway.config.subscribe();
        // What was withdrawn since the call took its snapshot counts too.
        revisions.mark_changed();
        Self {
            until: None,
            revisions,
            config: Arc::clone(&gateway.config),
            sight: scope.sight.clone(),
            server: Some(target.server.name.clone()),
            session: session(scope),
            target: Some(Subject { action: target.action, name, hints: target.hints() }),
            _counted: None,
        }
    }

    /// Returns when the stream has to end.
    pub async fn over(&mut self) {
        loop {
            tokio::select! {
                () = at(self.until) => return,
                changed = self.revisions.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
            }
            if !self.may_go_on() {
                return;
            }
        }
    }

    fn may_go_on(&mut self) -> bool {
        let snapshot = self.config.current();
        let Some(group) = snapshot.groups.get(&self.sight.group.name) else { return false };
        self.sight.group = Arc::clone(group);
        let allowed = |server: &Name| {
            self.sight.may(server, Action::UseServer, "", Hints::default())
                && group.servers.get(server).is_some_and(|s| s.quarantined.is_none())
        };
        group.quarantined.is_none()
            && known(group, &self.sight.who)
            && !self.taken_back(group)
            && self.server.as_ref().is_none_or(allowed)
            && self.still_granted()
    }

    /// True when an operator took the caller, its token or its session back. The clock is that of
    /// the call's beginning, which makes a revocation last longer, not shorter.
    fn taken_back(&self, group: &GroupView) -> bool {
        let now = self.sight.context.now;
        let session = self.session.as_deref();
        group.withdrawn.caller(&self.sight.who, now).is_some()
            || session.is_some_and(|session| group.withdrawn.session(session, now).is_some())
    }

    /// As far as it can be told without the arguments, which were judged when the call began.
    fn still_granted(&self) -> bool {
        let (Some(server), Some(subject)) = (&self.server, &self.target) else { return true };
        self.sight.may(server, subject.action, &subject.name, subject.hints)
    }
}

fn session(scope: Scope<'_>) -> Option<String> {
    scope.client.session.as_ref().map(|session| session.nonce.clone())
}

/// The refusal of a call whose right was withdrawn while it ran.
pub fn withdrawn() -> Refusal {
    Refusal::new(Reason::Denied, "the right to this call was withdrawn while it ran")
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// True while what the caller came in with is still good for the group.
fn known(group: &GroupView, who: &Principal) -> bool {
    match who.proof {
        Proof::Anonymous => group.spec.anonymous,
        Proof::ApiToken => {
            let id = who.credential.as_deref().unwrap_or_default();
            group
                .tokens
                .values()
                .any(|token| token.id == id && *token.principal.subject == *who.subject)
        }
        Proof::Jwt => group.providers.iter().any(|p| Some(&p.name) == who.provider.as_ref()),
        Proof::Certificate => group.spec.certificates.is_some(),
    }
}
