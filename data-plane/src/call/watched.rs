//! Streams that outlive the decision that let them be opened: asked about again whenever the
//! configuration changes, those of calls with the arguments and at the time of their call. Those that
//! belong to no call are asked about every [`bounds::STREAM_LOOK_MS`], too, at the time that it is
//! then: what rules allow by the hour ends with the hour. They are counted per caller, and end with
//! the caller's token and with the session that they are of. Updates of resources are told on
//! either only for as long as the caller may read those, and news of tasks for as long as it may call
//! the tools that made them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use weir_model::bounds;
use weir_model::id::{Name, Revision};
use weir_model::policy::Action;
use weir_model::principal::{Principal, Proof};
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::{GroupView, Hints};
use weir_runtime::clock::SharedClock;

use super::Gateway;
use super::forward::Scope;
use super::resolve::{Errand, Upstream};
use super::sight::Sight;
use super::tasks::{self, Task, Tasks};
use crate::config::State;
use crate::mcp::envelope::utf8;
use crate::mcp::members::{self, Members};
use crate::mcp::methods::Kind;
use crate::sessions::{Ending, InUse, OpenStream};

/// What a stream is held against while it is open.
#[derive(Debug)]
pub struct Watched {
    standing: Option<Standing>,
    revisions: watch::Receiver<Revision>,
    config: Arc<State>,
    sight: Sight,
    server: Option<Name>,
    session: Option<String>,
    /// What the call is about.
    target: Option<Subject>,
    /// Of its session, for streams that belong to no call.
    ended: Option<Ending>,
    _in_use: Option<InUse>,
    _counted: Option<OpenStream>,
}

/// When a stream that belongs to no call ends, and when it is looked at.
#[derive(Debug)]
struct Standing {
    until: Instant,
    look: Instant,
    clock: SharedClock,
}

impl Standing {
    const EVERY: Duration = Duration::from_millis(bounds::STREAM_LOOK_MS);

    fn next(&self) -> Instant {
        self.until.min(self.look)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX)
    }
}

/// What a call was allowed.
#[derive(Debug)]
struct Subject {
    action: Action,
    name: String,
    hints: Hints,
    /// As received, `{}` where a call could have had some; none where there never are any.
    arguments: Option<Bytes>,
    /// The task that it is about, and the version of its server.
    task: Option<Box<(Name, Task)>>,
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
        let most = scope.endpoint.group.spec.sessions.streams_per_principal;
        let now = Instant::now();
        Ok(Self {
            standing: Some(Standing {
                until: now + token.map_or(longest, |token| token.min(longest)),
                look: now + Standing::EVERY,
                clock: Arc::clone(&gateway.clock),
            }),
            revisions: gateway.config.subscribe(),
            config: Arc::clone(&gateway.config),
            sight: scope.sight.clone(),
            server: scope.endpoint.server.clone(),
            session: session(scope),
            target: None,
            ended: session(scope).map(|session| gateway.ended.watch(&session)),
            _in_use: session(scope).map(|session| gateway.live.stream(&session, &gateway.clock)),
            _counted: Some(gateway.streams.open(&who.id(), most)?),
        })
    }

    /// The stream that answers a call on this target.
    pub fn call(scope: Scope<'_>, gateway: &Gateway, target: &Upstream) -> Self {
        let name = target.name.clone().unwrap_or_default();
        let arguments = match &target.errand {
            Errand::Request(method) if matches!(method.kind, Kind::CallTool | Kind::GetPrompt) => {
                let params = scope.call.message().and_then(|message| message.params());
                let given = params.and_then(|params| params.arguments.clone());
                Some(given.unwrap_or(Bytes::from_static(b"{}")))
            }
            _ => None,
        };
        let mut revisions = gateway.config.subscribe();
        // What was withdrawn since the call took its snapshot counts too. Looked at after
        // subscribing: what changes later is told.
        let group = &scope.sight.group;
        let newest = gateway.config.current();
        if !newest.groups.get(&group.name).is_some_and(|newest| Arc::ptr_eq(newest, group)) {
            revisions.mark_changed();
        }
        Self {
            standing: None,
            revisions,
            config: Arc::clone(&gateway.config),
            sight: scope.sight.clone(),
            server: Some(target.server.name.clone()),
            session: session(scope),
            target: Some(Subject {
                action: target.action,
                name,
                hints: target.hints(),
                arguments,
                task: target.task.clone().map(|task| Box::new((target.version.name.clone(), task))),
            }),
            ended: None,
            _in_use: None,
            _counted: None,
        }
    }

    /// Lets go of the request that brought the arguments, for a stream that outlasts it.
    #[must_use]
    pub fn lasting(mut self) -> Self {
        if let Some(arguments) = self.target.as_mut().and_then(|target| target.arguments.as_mut()) {
            *arguments = Bytes::copy_from_slice(arguments);
        }
        self
    }

    /// False for an update of a resource of this server that the caller may not read (any more),
    /// and for news of a task that it may not have.
    pub fn may_hear(&self, notification: &[u8], tasks: Option<&Tasks>) -> bool {
        let text = utf8_or_nothing(notification);
        let told = |text: &str| text.contains("updated") || text.contains("notifications/tasks");
        let Some(server) = self.server.as_ref().filter(|_| told(text)) else {
            return true;
        };
        let Ok(members) = Members::parse(text) else { return true };
        let params = members.get("params").map_or("{}", |raw| raw.get());
        match (members.text("method").as_deref(), tasks) {
            (Some("notifications/resources/updated"), _) => {
                let uri = Members::parse(params).ok();
                let uri = uri.and_then(|all| all.text("uri").map(|uri| uri.into_owned()));
                let may =
                    |uri: &str| self.sight.may(server, Action::ReadResource, uri, Hints::default());
                uri.is_some_and(|uri| may(&uri))
            }
            (Some("notifications/tasks" | "notifications/tasks/status"), Some(tasks)) => {
                tasks.may_hear(&self.sight, server, params)
            }
            _ => true,
        }
    }

    /// Returns when the stream has to end.
    pub async fn over(&mut self) {
        loop {
            let may = tokio::select! {
                () = at(self.standing.as_ref().map(Standing::next)) => {
                    let now = Instant::now();
                    match &mut self.standing {
                        Some(standing) if standing.until > now => {
                            standing.look = now + Standing::EVERY;
                        }
                        _ => return,
                    }
                    self.on_time() && self.may_use()
                }
                () = over(self.ended.as_ref()) => return,
                changed = self.revisions.changed() => match changed {
                    Ok(()) => self.on_time() && self.may_go_on(),
                    Err(_) => return std::future::pending().await,
                },
            };
            if !may {
                return;
            }
        }
    }

    /// Takes note of the time; false when the caller's token has expired by it.
    fn on_time(&mut self) -> bool {
        let Some(now) = self.standing.as_ref().map(Standing::now) else { return true };
        if self.sight.who.expires.is_some_and(|expires| expires <= now) {
            return false;
        }
        Arc::make_mut(&mut self.sight.context).now = now;
        true
    }

    /// What time alone can change.
    fn may_use(&self) -> bool {
        let may = |server| self.sight.may(server, Action::UseServer, "", Hints::default());
        self.server.as_ref().is_none_or(may)
    }

    fn may_go_on(&mut self) -> bool {
        let snapshot = self.config.current();
        let Some(group) = snapshot.groups.get(&self.sight.group.name) else { return false };
        self.sight.group = Arc::clone(group);
        let serves = |server: &Name| {
            group.servers.get(server).is_some_and(|server| server.quarantined.is_none())
        };
        group.quarantined.is_none()
            && known(group, &self.sight.who)
            && !self.taken_back(group)
            && self.server.as_ref().is_none_or(serves)
            && self.may_use()
            && self.still_granted()
    }

    /// True when an operator took the caller, its token or its session back. The clock of a call's
    /// stream is that of its beginning, which makes a revocation last longer, not shorter.
    fn taken_back(&self, group: &GroupView) -> bool {
        let now = self.sight.context.now;
        let session = self.session.as_deref();
        group.withdrawn.caller(&self.sight.who, now).is_some()
            || session.is_some_and(|session| group.withdrawn.session(session, now).is_some())
    }

    /// What would be decided of the call today: nobody has approved it where that is wanted now.
    fn still_granted(&self) -> bool {
        let (Some(server), Some(subject)) = (&self.server, &self.target) else { return true };
        if let Some((version, task)) = subject.task.as_deref() {
            let server = self.sight.group.servers.get(server);
            let tool = task.tool.as_deref();
            if !server.is_some_and(|s| tasks::may_have(&self.sight, s, (version, tool))) {
                return false;
            }
        }
        let arguments = match &subject.arguments {
            None => None,
            // It was read when the call began.
            Some(raw) => match members::strict_value(utf8(raw)) {
                Ok(value) => Some(value),
                Err(_) => return false,
            },
        };
        let target = (subject.name.as_str(), subject.hints);
        self.sight
            .decide(server, subject.action, target, arguments.as_ref())
            .and_then(|permit| permit.approved(subject.hints))
            .is_ok()
    }
}

fn utf8_or_nothing(raw: &[u8]) -> &str {
    std::str::from_utf8(raw).unwrap_or_default()
}

fn session(scope: Scope<'_>) -> Option<String> {
    scope.client.session.as_ref().map(|session| session.nonce.clone())
}

/// The refusal of a call whose right was withdrawn while it ran.
pub fn withdrawn() -> Refusal {
    Refusal::new(Reason::Denied, "the right to this call was withdrawn while it ran")
}

async fn over(ended: Option<&Ending>) {
    match ended {
        Some(ended) => ended.over().await,
        None => std::future::pending().await,
    }
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
