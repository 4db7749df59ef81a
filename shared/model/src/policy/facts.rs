//! A question as Cedar sees it: request and entities, with only those attributes that the policies
//! at hand read.

use std::collections::HashMap;
use std::sync::LazyLock;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request,
    RestrictedExpression as Value,
};

use super::arguments;
use super::clock::Moment;
use super::reads::{Reads, Used, Wanted};
use super::{Action, Question};
use crate::id::Name;
use crate::principal::{Principal, Proof};

struct Types {
    user: EntityTypeName,
    account: EntityTypeName,
    certificate: EntityTypeName,
    anonymous: EntityTypeName,
    group: EntityTypeName,
    server: EntityTypeName,
    targets: [EntityTypeName; 4],
    actions: [EntityUid; 4],
}

static TYPES: LazyLock<Types> = LazyLock::new(|| Types {
    user: type_name("User"),
    account: type_name("ServiceAccount"),
    certificate: type_name("Certificate"),
    anonymous: type_name("Anonymous"),
    group: type_name("Group"),
    server: type_name("Server"),
    targets: Action::ALL.map(|action| type_name(action.target_type())),
    actions: Action::ALL.map(|action| uid(&type_name("Action"), action.as_str())),
});

pub(super) fn type_name(text: &str) -> EntityTypeName {
    text.parse().expect("the names of entity types are Cedar names")
}

pub(super) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// Text that no evaluation can fail on; a failure to build facts denies the call.
type Fault = String;

/// What Cedar needs for one question.
pub(super) struct Facts {
    pub request: Request,
    pub entities: Entities,
}

impl Facts {
    /// Builds the facts that are wanted. `arguments` are read only where they are given.
    pub(super) fn new(
        question: &Question<'_>,
        group: Option<&Name>,
        wanted: Wanted<'_>,
    ) -> Result<Self, Fault> {
        let types = &*TYPES;
        let mut entities = Vec::with_capacity(8);
        let principal = caller(question.principal, wanted, &mut entities)?;
        let resource = target(question, group, wanted, &mut entities)?;
        let mut context = Vec::new();
        if wanted.any(|reads| &reads.context) {
            describe(question, wanted, &mut context);
        }
        if let (true, Some(given)) = (wanted.arguments(), question.arguments) {
            let record = arguments::entities(given, wanted, &mut entities)?;
            context.push(("arguments".to_owned(), record));
        }
        let context = Context::from_pairs(context).map_err(|e| e.to_string())?;
        let action = types.actions[question.action.index()].clone();
        let request =
            Request::new(principal, action, resource, context, None).map_err(|e| e.to_string())?;
        let entities = Entities::from_entities(entities, None).map_err(|e| e.to_string())?;
        Ok(Self { request, entities })
    }
}

/// Attributes under construction: those that are wanted.
struct Attributes<'a> {
    wanted: Wanted<'a>,
    part: fn(&Reads) -> &Used,
    values: HashMap<String, Value>,
}

impl<'a> Attributes<'a> {
    fn new(wanted: Wanted<'a>, part: fn(&Reads) -> &Used) -> Self {
        Self { wanted, part, values: HashMap::new() }
    }
    fn add(&mut self, name: &str, value: impl FnOnce() -> Value) {
        if self.wanted.has(self.part, name) {
            self.values.insert(name.to_owned(), value());
        }
    }
}

/// As rules read it.
pub(super) fn proof(proof: Proof) -> &'static str {
    match proof {
        Proof::Jwt => "jwt",
        Proof::ApiToken => "api_token",
        Proof::Certificate => "certificate",
        Proof::Anonymous => "anonymous",
    }
}

fn caller(who: &Principal, wanted: Wanted<'_>, into: &mut Vec<Entity>) -> Result<EntityUid, Fault> {
    let kind = match who.proof {
        Proof::Jwt => &TYPES.user,
        Proof::ApiToken => &TYPES.account,
        Proof::Certificate => &TYPES.certificate,
        Proof::Anonymous => &TYPES.anonymous,
    };
    let uid = uid(kind, &who.subject);
    if wanted.any(|reads| &reads.principal) {
        let words = |list: &[std::sync::Arc<str>]| {
            Value::new_set(list.iter().map(|word| Value::new_string((**word).to_owned())))
        };
        let mut attributes = Attributes::new(wanted, |reads| &reads.principal);
        attributes.add("subject", || text(&who.subject));
        attributes.add("memberships", || words(&who.memberships));
        attributes.add("scopes", || words(&who.scopes));
        attributes.add("provider", || text(who.provider.as_ref().map_or("", Name::as_str)));
        attributes.add("proof", || text(proof(who.proof)));
        attributes.add("credential", || text(who.credential.as_deref().unwrap_or("")));
        into.push(entity(uid.clone(), attributes, None)?);
    }
    Ok(uid)
}

fn target(
    question: &Question<'_>,
    group: Option<&Name>,
    wanted: Wanted<'_>,
    into: &mut Vec<Entity>,
) -> Result<EntityUid, Fault> {
    let server_name = question.server.as_str();
    let server = uid(&TYPES.server, server_name);
    let group = group.map(|group| uid(&TYPES.group, group.as_str()));
    let attributes = || Attributes::new(wanted, |reads| &reads.resource);
    // Policies read the attributes of the target only, which is the server for one action.
    let mut of_server = attributes();
    if question.action == Action::UseServer {
        of_server.add("name", || text(server_name));
        of_server.add("server", || text(server_name));
    }
    into.push(entity(server.clone(), of_server, group)?);
    if question.action == Action::UseServer {
        return Ok(server);
    }
    let kind = &TYPES.targets[question.action.index()];
    let own = uid(kind, &target_id(server_name, question.target));
    let mut of_target = attributes();
    of_target.add("name", || text(question.target));
    of_target.add("server", || text(server_name));
    if question.action == Action::CallTool {
        of_target.add("readOnly", || Value::new_bool(question.hints.read_only));
        of_target.add("destructive", || Value::new_bool(question.hints.destructive));
        of_target.add("idempotent", || Value::new_bool(question.hints.idempotent));
        of_target.add("openWorld", || Value::new_bool(question.hints.open_world));
    }
    if question.action == Action::ReadResource {
        of_target.add("uri", || text(question.target));
    }
    into.push(entity(own.clone(), of_target, Some(server))?);
    Ok(own)
}

/// The identifier of a target: `billing/refund`. A server's name holds no slash.
pub(super) fn target_id(server: &str, target: &str) -> String {
    format!("{server}/{target}")
}

fn entity(
    uid: EntityUid,
    attributes: Attributes<'_>,
    parent: Option<EntityUid>,
) -> Result<Entity, Fault> {
    let parents = parent.into_iter().collect();
    Entity::new(uid, attributes.values, parents).map_err(|e| e.to_string())
}

fn text(text: &str) -> Value {
    Value::new_string(text.to_owned())
}

fn describe(question: &Question<'_>, wanted: Wanted<'_>, into: &mut Vec<(String, Value)>) {
    let context = question.context;
    let moment = Moment::at(context.now);
    let mut add = |name: &str, value: &dyn Fn() -> Option<Value>| {
        if wanted.has(|reads| &reads.context, name) {
            into.extend(value().map(|value| (name.to_owned(), value)));
        }
    };
    add("region", &|| Some(text(&context.region)));
    add("now", &|| Some(Value::new_datetime(moment.iso())));
    add("epoch", &|| Some(Value::new_long(context.now)));
    add("hour", &|| Some(Value::new_long(moment.hour)));
    add("minute", &|| Some(Value::new_long(moment.minute)));
    add("weekday", &|| Some(Value::new_long(moment.weekday)));
    add("peer", &|| context.peer.map(|peer| Value::new_ip(peer.to_canonical().to_string())));
    add("client", &|| Some(text(context.client.as_deref().unwrap_or(""))));
    add("revision", &|| Some(text(&context.revision)));
    add("era", &|| Some(text(context.era())));
}
