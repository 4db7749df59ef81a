//! A slow oracle for rules: one Cedar authorizer over everything at once, unsliced and without a
//! cache, with all attributes, entities and requests checked against the schema; and generated
//! documents and questions to put to it.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::collections::BTreeSet;

use cedar_policy::{
    Authorizer, Context as CedarContext, Entities, EntityUid, Policy as CedarPolicy, PolicyId,
    PolicySet, Request, Schema,
};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::questions::{self, Docs};
use crate::policy::review::Ask;
use crate::policy::{Action, Decision, Rules, SCHEMA};
use crate::principal::Proof;
use crate::resource::Subject;
use crate::snapshot::Hints;

/// The oracle for one set of documents.
#[derive(Debug)]
pub struct Oracle {
    schema: Schema,
    policies: PolicySet,
}

/// What of a decision the oracle knows too.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// As decided.
    pub allowed: bool,
    /// Ids of the deciding rules.
    pub rules: BTreeSet<String>,
    /// A rule could not be evaluated.
    pub failed: bool,
}

impl Verdict {
    /// Of a decision.
    pub fn of(decision: &Decision) -> Self {
        Self {
            allowed: decision.allowed,
            rules: decision.rules.iter().map(ToString::to_string).collect(),
            failed: !decision.errors.is_empty(),
        }
    }
}

impl Oracle {
    /// For documents and the rules that they were compiled to.
    pub fn new(docs: &Docs, rules: &Rules) -> Self {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).unwrap();
        let mut policies = PolicySet::new();
        let texts = docs.policies.iter().map(|(name, p)| {
            let revoked = docs.powerless.contains(name);
            (format!("policy:{name}#"), p.cedar.as_str(), revoked)
        });
        let roles = std::iter::once((String::new(), rules.cedar_of_roles(), false));
        for (at, (prefix, text, revoked)) in roles.chain(texts).enumerate() {
            let parsed: PolicySet = text.parse().unwrap();
            // What was revoked permits nothing, and forbids what it did.
            let counts = |p: &&CedarPolicy| !revoked || p.effect() == cedar_policy::Effect::Forbid;
            for policy in parsed.policies().filter(counts) {
                let number = policy.id().to_string().replace("policy", "");
                let label = policy.annotation("id").unwrap_or(&number);
                let id = PolicyId::new(format!("{at}/{number} {prefix}{label}"));
                policies.add(policy.new_id(id)).unwrap();
            }
        }
        let validator = cedar_policy::Validator::new(schema.clone());
        let checked = validator.validate(&policies, cedar_policy::ValidationMode::Strict);
        assert!(checked.validation_passed(), "{checked}");
        Self { schema, policies }
    }

    /// Decides; open arguments are none to it.
    pub fn decide(&self, ask: &Ask) -> Verdict {
        let (principal, action, resource) = uids(ask);
        let (arguments, tagged) = arguments(ask.arguments.as_ref().unwrap_or(&Value::Null));
        let entities = entities(ask, &principal, &resource, tagged);
        let entities = Entities::from_json_value(entities, Some(&self.schema)).unwrap();
        let context =
            CedarContext::from_json_value(context(ask, &arguments), Some((&self.schema, &action)))
                .unwrap();
        let request =
            Request::new(principal, action, resource, context, Some(&self.schema)).unwrap();
        let response = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        let failed: Vec<String> = response
            .diagnostics()
            .errors()
            .map(|error| {
                let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
                error.policy_id().to_string()
            })
            .collect();
        let allowed = response.decision() == cedar_policy::Decision::Allow && failed.is_empty();
        let mut rules: Vec<String> =
            response.diagnostics().reason().map(ToString::to_string).collect();
        if !failed.is_empty() {
            // Permits that were satisfied beside a failure decide nothing.
            let permits = |id: &String| {
                let policy = self.policies.policy(&PolicyId::new(id)).unwrap();
                policy.effect() == cedar_policy::Effect::Permit
            };
            rules.retain(|id| !permits(id));
            rules.extend(failed.clone());
        }
        let short = |id: String| id.split_once(' ').unwrap().1.to_owned();
        Verdict {
            allowed,
            rules: rules.into_iter().map(short).collect(),
            failed: !failed.is_empty(),
        }
    }
}

fn uid(kind: &str, id: &str) -> EntityUid {
    EntityUid::from_json(json!({"type": kind, "id": id})).unwrap()
}

fn uids(ask: &Ask) -> (EntityUid, EntityUid, EntityUid) {
    let kind = match ask.principal.proof {
        Proof::Anonymous => "Anonymous",
        Proof::Jwt => "User",
        Proof::ApiToken => "ServiceAccount",
        Proof::Certificate => "Certificate",
    };
    let (action, resource) = match ask.action {
        Action::CallTool => ("CallTool", "Tool"),
        Action::ReadResource => ("ReadResource", "Resource"),
        Action::GetPrompt => ("GetPrompt", "Prompt"),
        Action::UseServer => ("UseServer", "Server"),
    };
    let resource = match ask.action {
        Action::UseServer => uid(resource, ask.server.as_str()),
        _ => uid(resource, &format!("{}/{}", ask.server, ask.target)),
    };
    (uid(kind, &ask.principal.subject), uid("Action", action), resource)
}

fn reference(uid: &EntityUid) -> Value {
    json!({"type": uid.type_name().to_string(), "id": uid.id().unescaped()})
}

fn entities(ask: &Ask, principal: &EntityUid, resource: &EntityUid, tagged: Vec<Value>) -> Value {
    let who = &ask.principal;
    let list = |l: &[std::sync::Arc<str>]| l.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    let proof = serde_json::to_value(who.proof).unwrap();
    let server = json!({"type": "Server", "id": ask.server.as_str()});
    let mut all = vec![
        json!({"uid": reference(principal), "parents": [], "attrs": {
            "subject": &*who.subject, "memberships": list(&who.memberships),
            "scopes": list(&who.scopes), "proof": proof,
            "provider": who.provider.as_ref().map_or("", |p| p.as_str()),
            "credential": who.credential.as_deref().unwrap_or(""),
        }}),
        json!({"uid": {"type": "Group", "id": "acme"}, "parents": [], "attrs": {}}),
        json!({"uid": server, "parents": [{"type": "Group", "id": "acme"}],
            "attrs": {"name": ask.server.as_str(), "server": ask.server.as_str()}}),
    ];
    let mut attrs = json!({"name": ask.target, "server": ask.server.as_str()});
    match ask.action {
        Action::CallTool => {
            attrs["readOnly"] = json!(ask.hints.read_only);
            attrs["destructive"] = json!(ask.hints.destructive);
            attrs["idempotent"] = json!(ask.hints.idempotent);
            attrs["openWorld"] = json!(ask.hints.open_world);
        }
        Action::ReadResource => attrs["uri"] = json!(ask.target),
        Action::GetPrompt | Action::UseServer => {}
    }
    if ask.action != Action::UseServer {
        all.push(json!({"uid": reference(resource), "parents": [server], "attrs": attrs}));
    }
    all.extend(tagged);
    Value::Array(all)
}

/// A plain reading of the documentation: every path of the arguments under the type that it has.
fn arguments(given: &Value) -> (Value, Vec<Value>) {
    fn walk(path: &str, value: &Value, paths: &mut Vec<String>, tags: &mut [Value; 5]) {
        let mut below: Vec<(String, &Value)> = Vec::new();
        match value {
            Value::Object(members) => below.extend(members.iter().map(|(k, v)| (k.clone(), v))),
            Value::Array(items) => {
                below.extend(items.iter().enumerate().map(|(i, v)| (i.to_string(), v)));
            }
            _ => {}
        }
        for (name, value) in below {
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            paths.push(path.clone());
            match value {
                Value::String(s) => tags[0][&path] = json!(s),
                Value::Number(n) => {
                    if let Some(n) = n.as_i64() {
                        tags[1][&path] = json!(n);
                    }
                    let text = format!("{:.4}", n.as_f64().unwrap());
                    // Only what four places hold exactly, and what Cedar's range holds.
                    if text.parse::<f64>().unwrap() == n.as_f64().unwrap()
                        && n.as_f64().unwrap().abs() < 9e14
                    {
                        tags[2][&path] = json!({"__extn": {"fn": "decimal", "arg": text}});
                    }
                }
                Value::Bool(b) => tags[3][&path] = json!(b),
                Value::Array(items) if items.iter().all(Value::is_string) => {
                    tags[4][&path] = json!(items);
                }
                _ => {}
            }
            walk(&path, value, paths, tags);
        }
    }
    let mut tags = [json!({}), json!({}), json!({}), json!({}), json!({})];
    let mut paths = Vec::new();
    walk("", given, &mut paths, &mut tags);
    let kinds = ["Text", "Number", "Fraction", "Flag", "Words"];
    let entity = |(kind, tags)| json!({"uid": {"type": kind, "id": "a"}, "attrs": {}, "parents": [], "tags": tags});
    let of = |kind: &str| json!({"__entity": {"type": kind, "id": "a"}});
    let record = json!({"text": of("Text"), "number": of("Number"), "decimal": of("Fraction"),
        "flag": of("Flag"), "words": of("Words"), "paths": paths});
    (record, kinds.into_iter().zip(tags).map(entity).collect())
}

fn context(ask: &Ask, arguments: &Value) -> Value {
    let given = &ask.context;
    let at = jiff::Timestamp::from_second(given.now).unwrap();
    let zoned = at.to_zoned(jiff::tz::TimeZone::UTC);
    let mut context = json!({
        "region": given.region, "epoch": given.now, "hour": zoned.hour(), "minute": zoned.minute(),
        "weekday": zoned.weekday().to_monday_one_offset(), "revision": given.revision,
        "era": match given.revision.as_str() { "2026-07-28" => "modern", _ => "legacy" },
        "client": given.client.as_deref().unwrap_or(""), "arguments": arguments,
        "now": {"__extn": {"fn": "datetime", "arg": format!("{at}")}},
    });
    if let Some(peer) = given.peer {
        context["peer"] = json!({"__extn": {"fn": "ip", "arg": peer.to_string()}});
    }
    context
}

/// Conditions about everything that a rule can read: caller, target, hints, every type of argument,
/// time, place, client and era. The last one fails whenever it is reached.
const ATOMS: &[&str] = &[
    "true",
    "{a: resource}.a.name like \"s*\"",
    "[principal].containsAny([principal, User::\"b\"])",
    "(resource has name && resource is Resource && resource.uri like \"*:*\")",
    "(resource is Resource && resource.uri like \"a://b*\")",
    "(context.arguments == context.arguments && context.arguments.words.hasTag(\"o/1/s\"))",
    "principal.memberships.contains(\"ops\")",
    "principal.memberships.isEmpty()",
    "principal.subject == \"a\"",
    "principal.provider == \"okta\"",
    "principal.proof == \"api_token\"",
    "principal.credential like \"c*\"",
    "principal is ServiceAccount",
    "principal == User::\"a\"",
    "principal.scopes.containsAny([\"x\", \"y\"])",
    "resource.name like \"s*\"",
    "resource.server == \"crm\"",
    "resource in Server::\"erp\"",
    "(resource is Tool && resource.destructive)",
    "(resource is Tool && resource.readOnly && !resource.openWorld)",
    "(resource has idempotent && resource.idempotent)",
    "action == Action::\"CallTool\"",
    "context.hour < 12",
    "context.hour * 60 + context.minute >= 180",
    "context.weekday <= 5",
    "context.region == \"eu\"",
    "(context has peer && context.peer.isInRange(ip(\"10.0.0.0/8\")))",
    "(context has peer && context.peer.isIpv6())",
    "context.client like \"x*\"",
    "context.era == \"legacy\"",
    "context.revision == \"2026-07-28\"",
    "context.now > datetime(\"2026-11-25\")",
    "context.now.toTime() < duration(\"6h\")",
    "context.arguments.number.hasTag(\"n\")",
    "(context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") > 5)",
    // Fails for large numbers.
    "(context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") * 4 > 5)",
    "(context.arguments.text.hasTag(\"o/s\") && context.arguments.text.getTag(\"o/s\") like \"e*\")",
    "(context.arguments.text.hasTag(\"n\") && context.arguments.text.getTag(\"n\") == principal.subject)",
    "context.arguments.text.hasTag(principal.subject)",
    "context.arguments.paths.contains(\"o\")",
    "(context.arguments.flag.hasTag(\"n\") && context.arguments.flag.getTag(\"n\"))",
    "(context.arguments.words.hasTag(\"w\") && [\"e\", \"f\"].containsAll(context.arguments.words.getTag(\"w\")))",
    "(context.arguments.decimal.hasTag(\"n\") && context.arguments.decimal.getTag(\"n\").lessThan(decimal(\"2.5\")))",
    "context.epoch * 9223372036854775807 > 0",
];

fn expression() -> impl Strategy<Value = String> {
    let (last, others) = ATOMS.split_last().unwrap();
    // So it is rare.
    let atom = prop_oneof![
        40 => select(others).prop_map(str::to_owned),
        1 => Just((*last).to_owned()),
    ];
    atom.prop_recursive(3, 8, 2, |inner| {
        let two = || (inner.clone(), inner.clone());
        prop_oneof![
            two().prop_map(|(a, b)| format!("({a} && {b})")),
            two().prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("(if {a} then {b} else {c})")),
            inner.clone().prop_map(|a| format!("[{a}].contains(true)")),
            inner.clone().prop_map(|a| format!("{{\"Value\": {a}}}.Value")),
        ]
    })
}

/// One policy.
pub fn cedar() -> impl Strategy<Value = String> {
    let effect = select(vec!["permit", "permit", "forbid"]);
    let principal =
        select(vec!["principal", "principal", "principal is User", "principal == User::\"a\""]);
    let action = select(vec![
        "action",
        "action == Action::\"CallTool\"",
        "action in [Action::\"ReadResource\", Action::\"GetPrompt\"]",
        "action == Action::\"UseServer\"",
    ]);
    let resource = select(vec![
        "resource",
        "resource in Group::\"acme\"",
        "resource in Server::\"crm\"",
        "resource is Tool in Server::\"erp\"",
        "resource is Tool",
        "resource == Tool::\"crm/send\"",
        "resource == Server::\"erp\"",
        "resource == Prompt::\"crm/send\"",
        "resource == Resource::\"crm/a://b\"",
    ]);
    let conditions = proptest::collection::vec(
        (select(vec!["when", "unless"]), expression()).prop_map(|(k, e)| format!("{k} {{ {e} }}")),
        0..3,
    );
    (effect, principal, action, resource, conditions)
        .prop_map(|(e, p, a, r, c)| format!("@note(\"x\")\n{e} ({p}, {a}, {r})\n{};", c.join("\n")))
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        select(vec!["a", "b"]).prop_map(|s| Subject::User(s.to_owned())),
        select(vec!["ops", "\"q\\uote\\"]).prop_map(|s| Subject::Membership(s.to_owned())),
        Just(Subject::ServiceAccount("a".parse().unwrap())),
        Just(Subject::Authenticated(true)),
        Just(Subject::Anonymous(true)),
    ]
}

/// Roles, bindings and policies of one group, some of them revoked.
pub fn docs() -> impl Strategy<Value = Docs> {
    let pattern = || select(vec!["", "*", "crm", "e*", "s*d", "send,get", "*:*"]);
    let rule = (select(vec!["*", "crm", "e*,x"]), pattern(), pattern(), pattern())
        .prop_map(|(s, t, r, p)| Docs::rule(s, t, r, p));
    let roles = proptest::collection::vec(proptest::collection::vec(rule, 1..3), 1..3);
    let bindings =
        proptest::collection::vec((0..2usize, proptest::collection::vec(subject(), 1..3)), 0..3);
    let policies = proptest::collection::vec(proptest::collection::vec(cedar(), 1..3), 0..4);
    // Which of the policies are revoked.
    let revoked = proptest::collection::vec(proptest::bool::weighted(0.15), 4);
    (roles, bindings, policies, revoked).prop_map(|(roles, bindings, policies, revoked)| {
        let mut docs = Docs::default();
        let count = roles.len();
        for (at, mut rules) in roles.into_iter().enumerate() {
            rules.retain(|r| {
                !(r.tools.is_empty() && r.resources.is_empty() && r.prompts.is_empty())
            });
            if rules.is_empty() {
                rules.push(Docs::rule("none", "none", "", ""));
            }
            docs = docs.role(&format!("r{at}"), rules);
        }
        for (at, (role, subjects)) in bindings.into_iter().enumerate() {
            docs = docs.bind(&format!("b{at}"), &format!("r{}", role % count), subjects);
        }
        for (at, texts) in policies.into_iter().enumerate() {
            // What can never apply is refused at admission; it is not what is tested here.
            let good = |text: &&String| {
                let alone = Docs::default().policy("p", text);
                alone.try_compile().1.is_empty()
            };
            let texts: Vec<&String> = texts.iter().filter(good).collect();
            if !texts.is_empty() {
                let text = texts.iter().map(|t| t.as_str()).collect::<Vec<_>>().join("\n");
                docs = docs.policy(&format!("p{at}"), &text);
                if revoked[at] {
                    docs = docs.revoke(&format!("p{at}"));
                }
            }
        }
        docs
    })
}

/// Where and when calls come from.
const PLACES: &[&str] = &[
    "",
    "region=eu hour=3",
    "region=us hour=23 weekday=7 revision=2026-07-28",
    "peer=10.1.2.3 client=x revision=2025-06-18",
    "peer=2001:db8::1 weekday=4 client=xy revision=2026-07-28",
];

/// A question.
pub fn ask() -> impl Strategy<Value = Ask> {
    let who = select(vec![
        "user:a groups=ops scopes=x",
        "user:a",
        "user:b groups=\"q\\uote\\,z provider=okta credential=cli",
        "account:a groups=ops",
        "certificate:a",
        "anonymous",
    ]);
    let what = select(vec![
        "call crm/send",
        "call crm/get",
        "call erp/send",
        "call erp/see",
        "call x/get",
        "read crm/a://b",
        "read crm/a://b/c",
        "read erp/send",
        "prompt crm/send",
        "prompt erp/x",
    ]);
    let arguments = select(vec![
        "{}",
        "[]",
        "{\"n\": 1}",
        "{\"n\": 2.25, \"o\": null}",
        "{\"n\": \"1\"}",
        "{\"n\": 9223372036854775807}",
        "{\"n\": 7, \"o\": {\"s\": \"evil\"}}",
        "{\"o\": [\"s\", {\"s\": [\"e\"]}], \"n\": true}",
        "{\"w\": [\"e\"], \"n\": \"a\", \"a\": \"b\"}",
        "{\"w\": [\"e\", \"g\"], \"o\": {}}",
    ]);
    let place = select(PLACES);
    let hints = any::<[bool; 4]>().prop_map(|[read_only, destructive, idempotent, open_world]| {
        Hints { read_only, destructive, idempotent, open_world }
    });
    (who, what, arguments, place, hints).prop_map(|(who, what, arguments, place, hints)| {
        let ask = questions::ask(who, &format!("{what} {arguments}"), place);
        // Only tools say something of themselves.
        let hints = if ask.action == Action::CallTool { hints } else { Hints::default() };
        // Reading takes no arguments; whatever somebody sends, rules see none.
        let arguments = match ask.action {
            Action::ReadResource => Some(json!({})),
            _ => ask.arguments,
        };
        Ask { hints, arguments, ..ask }
    })
}
