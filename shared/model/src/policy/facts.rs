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
use super::weaken::Reads;
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
    /// Builds the facts that `reads` names. `arguments` are read only where they are given.
    pub(super) fn new(
        question: &Question<'_>,
        group: Option<&Name>,
        reads: &Reads,
    ) -> Result<Self, Fault> {
        let types = &*TYPES;
        let mut entities = Vec::with_capacity(8);
        let principal = caller(question.principal, reads.principal, &mut entities)?;
        let resource = target(question, group, &mut entities)?;
        let mut context = Vec::new();
        if reads.any_context() {
            describe(question, reads, &mut context);
        }
        if let (true, Some(given)) = (reads.arguments, question.arguments) {
            let record = arguments::entities(given, reads.paths.as_ref(), &mut entities)?;
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

fn caller(who: &Principal, attributes: bool, into: &mut Vec<Entity>) -> Result<EntityUid, Fault> {
    let (kind, proof) = match who.proof {
        Proof::Jwt => (&TYPES.user, "jwt"),
        Proof::ApiToken => (&TYPES.account, "api_token"),
        Proof::Certificate => (&TYPES.certificate, "certificate"),
        Proof::Anonymous => (&TYPES.anonymous, "anonymous"),
    };
    let uid = uid(kind, &who.subject);
    if attributes {
        let words = |list: &[std::sync::Arc<str>]| {
            Value::new_set(list.iter().map(|word| Value::new_string((**word).to_owned())))
        };
        let attributes = [
            ("subject", text(&who.subject)),
            ("memberships", words(&who.memberships)),
            ("scopes", words(&who.scopes)),
            ("provider", text(who.provider.as_ref().map_or("", Name::as_str))),
            ("proof", text(proof)),
            ("credential", text(who.credential.as_deref().unwrap_or(""))),
        ];
        into.push(entity(uid.clone(), attributes, None)?);
    }
    Ok(uid)
}

fn target(
    question: &Question<'_>,
    group: Option<&Name>,
    into: &mut Vec<Entity>,
) -> Result<EntityUid, Fault> {
    let server_name = question.server.as_str();
    let server = uid(&TYPES.server, server_name);
    let group = group.map(|group| uid(&TYPES.group, group.as_str()));
    let attributes = [("name", text(server_name)), ("server", text(server_name))];
    into.push(entity(server.clone(), attributes, group)?);
    if question.action == Action::UseServer {
        return Ok(server);
    }
    let kind = &TYPES.targets[question.action.index()];
    let own = uid(kind, &target_id(server_name, question.target));
    let mut attributes = vec![("name", text(question.target)), ("server", text(server_name))];
    match question.action {
        Action::CallTool => attributes.extend([
            ("readOnly", Value::new_bool(question.hints.read_only)),
            ("destructive", Value::new_bool(question.hints.destructive)),
            ("idempotent", Value::new_bool(question.hints.idempotent)),
            ("openWorld", Value::new_bool(question.hints.open_world)),
        ]),
        Action::ReadResource => attributes.push(("uri", text(question.target))),
        Action::GetPrompt | Action::UseServer => {}
    }
    into.push(entity(own.clone(), attributes, Some(server))?);
    Ok(own)
}

/// The identifier of a target: `billing/refund`. A server's name holds no slash.
pub(super) fn target_id(server: &str, target: &str) -> String {
    format!("{server}/{target}")
}

fn entity(
    uid: EntityUid,
    attributes: impl IntoIterator<Item = (&'static str, Value)>,
    parent: Option<EntityUid>,
) -> Result<Entity, Fault> {
    let attributes: HashMap<String, Value> =
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Entity::new(uid, attributes, parent.into_iter().collect()).map_err(|e| e.to_string())
}

fn text(text: &str) -> Value {
    Value::new_string(text.to_owned())
}

fn describe(question: &Question<'_>, reads: &Reads, into: &mut Vec<(String, Value)>) {
    let context = question.context;
    let moment = Moment::at(context.now);
    let mut add = |name: &str, value: &dyn Fn() -> Option<Value>| {
        if reads.whole_context || reads.context.contains(name) {
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
}
