//! A question as people write it down.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::Name;
use crate::policy::{Action, Context, Decision, Question, Rules};
use crate::principal::{Principal, Proof};
use crate::snapshot::{GroupView, Hints};

/// Who asks: exactly one of `user`, `serviceAccount`, `certificate`, `anonymous`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Caller {
    /// Subject of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of a service account. Without memberships and scopes it has those of its document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Subject of a client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Nobody in particular.
    pub anonymous: bool,
    /// Identity provider that vouched for a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Name>,
    /// Groups and roles that the identity provider names.
    pub memberships: Vec<String>,
    /// OAuth scopes.
    pub scopes: Vec<String>,
    /// OAuth client, or id of the API token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// What is asked for: exactly one of `tool`, `resource`, `prompt`, `server`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Call {
    /// `server/tool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// `server/uri`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `server/prompt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Connecting to a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Of the call; an empty object when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// What the tool says of itself; as pinned when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hints: Option<Hints>,
}

/// Where and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Place {
    /// Of the proxy.
    pub region: String,
    /// `2026-11-23T09:30:00Z`; now when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Address that the proxy sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// MCP revision of the client; the newest when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// A question that owns its parts.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Who.
    pub principal: Principal,
    /// What.
    pub action: Action,
    /// On which server.
    pub server: Name,
    /// Tool, prompt or URI there; empty for the server itself.
    pub target: String,
    /// Of the tool.
    pub hints: Hints,
    /// None: whether some arguments might be allowed.
    pub arguments: Option<Value>,
    /// Where and when.
    pub context: Context,
}

impl Caller {
    /// # Errors
    /// A sentence, when it does not say who.
    pub fn principal(&self) -> Result<Principal, String> {
        let kinds = [
            (Proof::Jwt, self.user.as_deref()),
            (Proof::ApiToken, self.service_account.as_deref()),
            (Proof::Certificate, self.certificate.as_deref()),
            (Proof::Anonymous, self.anonymous.then_some("anonymous")),
        ];
        let mut given = kinds.into_iter().filter_map(|(proof, who)| Some((proof, who?)));
        let (Some((proof, subject)), None) = (given.next(), given.next()) else {
            let why = "caller: say one of user, serviceAccount, certificate, anonymous: true";
            return Err(why.to_owned());
        };
        let sorted = |list: &[String]| {
            let mut all: Vec<Arc<str>> = list.iter().map(|word| word.as_str().into()).collect();
            all.sort_unstable();
            all.dedup();
            Arc::from(all)
        };
        Ok(Principal {
            proof,
            provider: self.provider.clone(),
            subject: subject.into(),
            memberships: sorted(&self.memberships),
            scopes: sorted(&self.scopes),
            credential: self.credential.as_deref().map(Into::into),
            ..Principal::anonymous()
        })
    }
}

impl Call {
    /// Action, server and target.
    ///
    /// # Errors
    /// A sentence, when it does not say what.
    pub fn target(&self) -> Result<(Action, Name, String), String> {
        let kinds = [
            (Action::CallTool, "tool", &self.tool),
            (Action::ReadResource, "resource", &self.resource),
            (Action::GetPrompt, "prompt", &self.prompt),
            (Action::UseServer, "server", &self.server),
        ];
        let given = kinds.into_iter().filter_map(|(a, what, text)| Some((a, what, text.as_ref()?)));
        let mut given = given;
        let (Some((action, what, text)), None) = (given.next(), given.next()) else {
            return Err("call: say one of tool, resource, prompt, server".to_owned());
        };
        let (server, target) = match (action, text.split_once('/')) {
            (Action::UseServer, None) => (text.as_str(), ""),
            (Action::UseServer, Some(_)) => {
                return Err(format!("call.server: {text:?} is more than the name of a server"));
            }
            (_, Some((server, target))) if !target.is_empty() => (server, target),
            _ => return Err(format!("call.{what}: write server/name, not {text:?}")),
        };
        let server = server.parse().map_err(|why| format!("call.{what}: the server {why}"))?;
        Ok((action, server, target.to_owned()))
    }
}

impl Ask {
    /// Puts a question together; hints that are not given are those that the group has pinned.
    ///
    /// # Errors
    /// A sentence, when caller or call are not told.
    pub fn new(
        group: &GroupView,
        (caller, call, place): (&Caller, &Call, &Place),
        now: i64,
    ) -> Result<Self, String> {
        let principal = as_registered(group, caller.principal()?);
        let (action, server, target) = call.target()?;
        let hints = call.hints.unwrap_or_else(|| pinned_hints(group, &server, &target, action));
        let arguments = match action.has_arguments() {
            true => Some(call.arguments.clone().unwrap_or_else(|| serde_json::json!({}))),
            false => None,
        };
        let now = match &place.time {
            None => now,
            Some(text) => text
                .parse::<jiff::Timestamp>()
                .map(jiff::Timestamp::as_second)
                .map_err(|_| format!("at.time: write 2026-11-23T09:30:00Z, not {text:?}"))?,
        };
        let context = Context {
            region: place.region.clone(),
            now,
            peer: place.peer,
            client: place.client.clone(),
            revision: place.revision.clone().unwrap_or_else(|| "2026-07-28".to_owned()),
        };
        Ok(Self { principal, action, server, target, hints, arguments, context })
    }

    /// Puts the question.
    pub fn put<T>(&self, to: impl FnOnce(&Question<'_>) -> T) -> T {
        to(&Question {
            principal: &self.principal,
            action: self.action,
            server: &self.server,
            target: &self.target,
            hints: self.hints,
            arguments: self.arguments.as_ref(),
            context: &self.context,
        })
    }

    /// The decision.
    pub fn decide(&self, rules: &Rules) -> Decision {
        self.put(|question| rules.decide(question))
    }

    /// Whether lists show it: the decision with open arguments.
    pub fn listed(&self, rules: &Rules) -> bool {
        self.put(|q| rules.decide(&Question { arguments: None, ..*q })).allowed
    }
}

/// A service account of which only the name was told has what the group says it has.
fn as_registered(group: &GroupView, who: Principal) -> Principal {
    let bare = who.proof == Proof::ApiToken && who.memberships.is_empty() && who.scopes.is_empty();
    let mut tokens = group.tokens.values().filter(|_| bare);
    match tokens.find(|token| token.principal.subject == who.subject) {
        Some(token) => Principal {
            memberships: Arc::clone(&token.principal.memberships),
            scopes: Arc::clone(&token.principal.scopes),
            ..who
        },
        None => who,
    }
}

/// What a tool is pinned to say of itself, in the first version that has it.
fn pinned_hints(group: &GroupView, server: &Name, target: &str, action: Action) -> Hints {
    let versions = group.servers.get(server).map(|server| server.versions.as_slice());
    let tool = versions
        .unwrap_or_default()
        .iter()
        .filter_map(|version| version.catalog.as_ref()?.tool(target))
        .next();
    tool.filter(|_| action == Action::CallTool).map_or_else(Hints::default, |tool| tool.hints)
}
