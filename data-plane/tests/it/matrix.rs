//! Who sees and calls what, through a whole proxy: a table of callers and of what they try, at both
//! kinds of endpoint and in both eras. Lists and calls must agree, nothing that was refused leaves,
//! and every decision can be made again of its record.

use std::collections::HashMap;

use serde_json::{Value, json};
use weir_model::id::Digest;
use weir_model::policy::review::{self, Recorded};
use weir_model::resource::{
    ApiTokenEntry, DefinitionKind, Kind, ResourceKey, Rule, ServiceAccount, Spec, Subject,
};
use weir_model::testing::World;

use crate::issuer::Issuer;
use crate::peer::Peer;
use crate::proxy::{Ask, Proxy, read_until};

/// What each caller gets.
///
/// | cell | lists | an attempt |
/// |---|---|---|
/// | `ok` | show it | is served |
/// | `no` | hide it | is told that there is no such thing |
/// | `arg` | show it | is told that these arguments are not allowed |
/// | `ask` | show it | waits for an approval |
/// | `step` | hide it | is told which scope would do |
/// | `new` | as `ok` to stateless clients, as `no` to older ones | the same |
/// | `gone` | the server's own endpoint is not there; on the joined one it is `no` | the same |
/// | `out` | the group does not know the caller | the same |
const TABLE: &str = r#"
group what                                     | support finance lead auditor guest
acme  call files/echo {}                       | ok      ok      ok   no      gone
acme  call files/look {}                       | ok      no      no   ok      gone
acme  call files/fail {}                       | ok      ask     ask  no      gone
acme  call files/none {}                       | no      no      no   no      gone
acme  call pay/echo {"n":7}                    | gone    ok      ok   no      gone
acme  call pay/echo {"n":70}                   | gone    arg     ok   no      gone
acme  call pay/echo {"n":"7"}                  | gone    arg     ok   no      gone
acme  call pay/echo {"n":7.5}                  | gone    arg     ok   no      gone
acme  call pay/echo {}                         | gone    arg     ok   no      gone
acme  call pay/fail {}                         | gone    ok      step no      gone
acme  call pay/new {}                          | gone    new     new  no      gone
acme  call nobody/echo {}                      | gone    gone    gone gone    gone
acme  read files/files://a                     | ok      no      no   no      gone
acme  read files/files://t/7                   | ok      no      no   ok      gone
acme  read files/files://secret                | no      no      ok   no      gone
acme  read files/files://none                  | no      no      no   no      gone
acme  read files/files://t/7/8                 | no      no      no   no      gone
acme  read pay/pay://ledger                    | gone    ok      ok   no      gone
acme  prompt files/greet {}                    | ok      no      no   no      gone
acme  prompt files/letter {"to":"team"}        | ok      no      no   no      gone
acme  prompt files/letter {"to":"all"}         | arg     no      no   no      gone
acme  prompt files/letter {}                   | arg     no      no   no      gone
acme  prompt files/none {}                     | no      no      no   no      gone
acme  complete files/greet                     | ok      no      no   no      gone
acme  complete files/none                      | no      no      no   no      gone
acme  complete files/files://t/{id}            | ok      no      no   ok      gone
acme  complete files/files://x/{id}            | no      no      no   no      gone
acme  subscribe files/files://a                | ok      no      no   no      gone
acme  subscribe files/files://secret           | no      no      ok   no      gone
acme  subscribe files/files://none             | no      no      no   no      gone
beta  call files/echo {}                       | no      out     out  out     ok
beta  call files/look {}                       | ok      out     out  out     ok
beta  call pay/echo {"n":7}                    | gone    out     out  out     gone
beta  read files/files://a                     | no      out     out  out     ok
"#;

const POLICIES: [(&str, &str); 7] = [
    (
        "cap",
        "@id(\"cap\") forbid (principal, action == Action::\"CallTool\", resource == Tool::\"pay/echo\")
         unless { principal.memberships.contains(\"leads\") ||
           (context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") <= 10) };",
    ),
    (
        "kept",
        "@id(\"kept\") @audit(\"full\") @redact(\"$.card.number\")
         permit (principal, action == Action::\"CallTool\", resource == Tool::\"files/echo\")
         when { principal.memberships.contains(\"finance\") };",
    ),
    (
        "approved",
        "@id(\"approved\") @approval(\"boss\")
         permit (principal, action == Action::\"CallTool\", resource == Tool::\"files/fail\")
         when { principal.memberships.contains(\"finance\") };",
    ),
    (
        "step-up",
        "@id(\"step-up\") @scope(\"pay.write\")
         forbid (principal, action == Action::\"CallTool\", resource == Tool::\"pay/fail\")
         unless { principal.scopes.contains(\"pay.write\") };",
    ),
    (
        "modern",
        "forbid (principal, action == Action::\"CallTool\", resource == Tool::\"pay/new\")
         when { context.era == \"legacy\" };",
    ),
    (
        "auditors",
        "permit (principal, action == Action::\"CallTool\", resource)
         when { principal.memberships.contains(\"auditors\") && resource.readOnly };
         permit (principal, action == Action::\"ReadResource\", resource)
         when { principal.memberships.contains(\"auditors\") && resource.uri like \"files://t/*\" };",
    ),
    (
        "secrets",
        "forbid (principal, action == Action::\"ReadResource\", resource == Resource::\"files/files://secret\")
         unless { principal.memberships.contains(\"leads\") };
         permit (principal, action == Action::\"ReadResource\", resource == Resource::\"files/files://secret\")
         when { principal.memberships.contains(\"leads\") };
         forbid (principal, action == Action::\"GetPrompt\", resource == Prompt::\"files/letter\")
         unless { context.arguments.text.hasTag(\"to\") && context.arguments.text.getTag(\"to\") == \"team\" };",
    ),
];

fn account(world: World, group: &str, name: &str, memberships: &[&str], scopes: &[&str]) -> World {
    let token = World::token(group, name);
    let id = token.strip_prefix("weir_at_").unwrap().rsplit_once('_').unwrap().0.to_owned();
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
    let spec = ServiceAccount {
        memberships: words(memberships),
        scopes: words(scopes),
        tokens: vec![ApiTokenEntry { id, sha256: Digest::of(token.as_bytes()), expires: None }],
        ..ServiceAccount::default()
    };
    let key = ResourceKey::grouped(Kind::ServiceAccount, &group.parse().unwrap(), name);
    world.put(key, Spec::ServiceAccount(spec))
}

/// A server with everything that the table tries.
fn desk(world: World, (group, server): (&str, &str), url: &str, tools: &[&str]) -> World {
    let mut world = world.server(group, server, url);
    for tool in tools {
        let hints = json!({"readOnlyHint": *tool == "look"});
        let tool = json!({"name": tool, "inputSchema": {"type": "object"}, "annotations": hints});
        world = world.tool_of(group, server, &tool);
    }
    let mut define = |kind, json: Value| world = world.clone().define(group, server, kind, &json);
    if server == "pay" {
        define(DefinitionKind::Resource, json!({"uri": "pay://ledger", "name": "l"}));
        return world;
    }
    for uri in ["files://a", "files://secret"] {
        define(DefinitionKind::Resource, json!({"uri": uri, "name": uri}));
    }
    define(DefinitionKind::Template, json!({"uriTemplate": "files://t/{id}", "name": "t"}));
    define(DefinitionKind::Prompt, json!({"name": "greet"}));
    let to = json!([{"name": "to", "required": false}]);
    define(DefinitionKind::Prompt, json!({"name": "letter", "arguments": to}));
    world
}

fn company(url: &str) -> World {
    let rule = |server: &str, all: [&str; 3]| {
        let [tools, resources, prompts] =
            all.map(|pattern| pattern.split(',').filter(|p| !p.is_empty()).map(str::to_owned));
        Rule {
            servers: vec![server.to_owned()],
            tools: tools.collect(),
            resources: resources.collect(),
            prompts: prompts.collect(),
        }
    };
    let member = |name: &str| vec![Subject::Membership(name.to_owned())];
    let mut world = World::new().group("acme").group("beta");
    world = desk(world, ("acme", "files"), url, &["echo", "fail", "look"]);
    world = desk(world, ("acme", "pay"), url, &["echo", "fail", "new"]);
    world = desk(world, ("beta", "files"), url, &["echo", "look"]);
    world = account(world, "acme", "support", &["support"], &[]);
    world = account(world, "acme", "finance", &["finance"], &["pay.write"]);
    world = account(world, "acme", "lead", &["finance", "leads"], &[]);
    world = account(world, "acme", "auditor", &["auditors"], &[]);
    world = account(world, "acme", "guest", &[], &[]);
    // The same names in another group are other people.
    world = account(world, "beta", "support", &["support"], &[]);
    world = account(world, "beta", "guest", &["owners"], &[]);
    for (name, cedar) in POLICIES {
        world = world.policy("acme", name, cedar);
    }
    world
        .grant("acme", vec![rule("files", ["*", "files://*", "*"])], member("support"))
        .grant("acme", vec![rule("pay", ["*", "pay://*", ""])], member("finance"))
        .grant("beta", vec![rule("files", ["look", "", ""])], member("support"))
        .grant("beta", vec![rule("*", ["*", "*", "*"])], member("owners"))
}

/// By group and caller.
type Tokens = HashMap<(&'static str, &'static str), String>;

const CALLERS: [(&str, &str); 7] = [
    ("acme", "support"),
    ("acme", "finance"),
    ("acme", "lead"),
    ("acme", "auditor"),
    ("acme", "guest"),
    ("beta", "support"),
    ("beta", "guest"),
];

/// API tokens of service accounts.
fn accounts() -> Tokens {
    CALLERS.iter().map(|&(group, who)| ((group, who), World::token(group, who))).collect()
}

/// Tokens of people, whose groups, roles and scopes are claims of two issuers: Keycloak's in one
/// group, what most issuers agree on in the other.
fn people(acme: &Issuer, beta: &Issuer) -> Tokens {
    let now = jiff::Timestamp::now().as_second();
    let token = |(group, who): (&'static str, &'static str)| {
        let (issuer, more) = match (group, who) {
            ("acme", "support") => (acme, json!({"groups": ["support", "everybody"]})),
            ("acme", "finance") => {
                (acme, json!({"realm_access": {"roles": ["finance"]}, "scope": "openid pay.write"}))
            }
            ("acme", "lead") => {
                (acme, json!({"groups": ["finance"], "realm_access": {"roles": ["leads"]}}))
            }
            ("acme", "auditor") => (acme, json!({"realm_access": {"roles": ["auditors"]}})),
            ("beta", "support") => (beta, json!({"groups": ["support"]})),
            ("beta", "guest") => (beta, json!({"roles": ["owners"], "scp": "pay.write"})),
            _ => (acme, json!({})),
        };
        let mut claims = json!({"iss": issuer.url, "aud": "weir", "sub": who, "iat": now,
            "exp": now + 3_000});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        ((group, who), issuer.token(claims))
    };
    CALLERS.into_iter().map(token).collect()
}

fn providers(acme: &Issuer, beta: &Issuer) -> String {
    let one = |group: &str, issuer: &Issuer, preset: &str| {
        format!(
            "apiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {{name: corp, group: {group}}}\n\
             spec: {{issuer: '{}', audiences: [weir], preset: {preset}, allowPrivate: true}}\n",
            issuer.url
        )
    };
    format!("{}---\n{}", one("acme", acme, "keycloak"), one("beta", beta, "generic"))
}

/// One row of the table.
#[derive(Debug)]
struct Row {
    group: &'static str,
    verb: &'static str,
    server: &'static str,
    name: &'static str,
    arguments: Value,
    cells: Vec<(&'static str, &'static str)>,
}

fn rows() -> Vec<Row> {
    let mut lines = TABLE.trim().lines();
    let callers = lines.next().unwrap().split_once('|').unwrap().1.split_whitespace();
    let callers: Vec<&str> = callers.collect();
    let row = |line: &'static str| {
        let (what, cells) = line.split_once(" | ").unwrap();
        let (group, what) = what.trim().split_once(' ').unwrap();
        let mut parts = what.trim().splitn(3, ' ');
        let (verb, target) = (parts.next().unwrap(), parts.next().unwrap());
        let (server, name) = target.split_once('/').unwrap();
        let arguments = parts.next().map_or(json!({}), |text| serde_json::from_str(text).unwrap());
        let cells: Vec<&str> = cells.split_whitespace().collect();
        assert_eq!(cells.len(), callers.len(), "{line}");
        let cells = callers.iter().copied().zip(cells).collect();
        Row { group, verb, server, name, arguments, cells }
    };
    lines.map(row).collect()
}

/// One way to a proxy: an era and a kind of endpoint.
struct Way<'a> {
    proxy: &'a Proxy,
    tokens: &'a Tokens,
    modern: bool,
    joined: bool,
    /// Of older clients, by caller and path; none where `initialize` was refused, with its code.
    sessions: HashMap<(String, String), Result<String, i64>>,
}

impl Way<'_> {
    /// Everybody is known to one group only, but for two who are other people in the other.
    fn token(&self, group: &str, who: &str) -> String {
        let own = self.tokens.get(&(group, who));
        own.unwrap_or_else(|| &self.tokens[&("acme", who)]).clone()
    }

    fn path(&self, row: &Row) -> String {
        match self.joined {
            true => format!("/{}/mcp", row.group),
            false => format!("/{}/{}/mcp", row.group, row.server),
        }
    }

    /// As this endpoint spells it.
    fn name(&self, row: &Row) -> String {
        let uri = row.name.contains("://");
        if self.joined && !uri { format!("{}__{}", row.server, row.name) } else { row.name.into() }
    }

    /// The answer to a request; the code of the error where there is not even a session.
    async fn ask(
        &mut self,
        (who, path): (&str, &str),
        method: &str,
        params: Value,
    ) -> Result<Value, i64> {
        let group = if path.starts_with("/beta") { "beta" } else { "acme" };
        let token = self.token(group, who);
        if self.modern {
            let ask = Ask::modern(path, method, params).token(&token);
            return Ok(self.proxy.send(ask).await.json());
        }
        let key = (who.to_owned(), path.to_owned());
        if !self.sessions.contains_key(&key) {
            let hello = Ask::initialize(path, "2025-11-25").token(&token);
            let hello = self.proxy.send(hello).await;
            let session = match hello.header("mcp-session-id") {
                Some(session) => Ok(session.to_owned()),
                None => Err(hello.code()),
            };
            self.sessions.insert(key.clone(), session);
        }
        let session = self.sessions[&key].clone()?;
        Ok(self.proxy.send(Ask::legacy(path, &session, method, &params).token(&token)).await.json())
    }

    /// What is listed of a kind; none where nothing is answered.
    async fn listed(&mut self, at: (&str, &str), kind: [&str; 3]) -> Option<Vec<String>> {
        let [method, member, name] = kind;
        let answer = self.ask(at, method, json!({})).await.ok()?;
        let all = answer["result"][member].as_array()?;
        Some(all.iter().map(|one| one[name].as_str().unwrap().to_owned()).collect())
    }

    /// The code of an attempt; 0 for a result.
    async fn attempt(&mut self, who: &str, row: &Row) -> i64 {
        let (path, name) = (self.path(row), self.name(row));
        let reference = match row.name.contains("://") {
            true => json!({"type": "ref/resource", "uri": name}),
            false => json!({"type": "ref/prompt", "name": name}),
        };
        let (method, params) = match row.verb {
            "call" => ("tools/call", json!({"name": name, "arguments": row.arguments})),
            "prompt" if row.arguments == json!({}) => ("prompts/get", json!({"name": name})),
            "prompt" => ("prompts/get", json!({"name": name, "arguments": row.arguments})),
            "read" => ("resources/read", json!({"uri": name})),
            "complete" => (
                "completion/complete",
                json!({"ref": reference, "argument": {"name": "a", "value": ""}}),
            ),
            "subscribe" if self.modern => return self.hears(who, row).await,
            "subscribe" => ("resources/subscribe", json!({"uri": name})),
            other => panic!("{other}"),
        };
        match self.ask((who, &path), method, params).await {
            Ok(answer) => answer["error"]["code"].as_i64().unwrap_or(0),
            Err(code) => code,
        }
    }

    /// Stateless clients listen: what they may not read is not acknowledged.
    async fn hears(&mut self, who: &str, row: &Row) -> i64 {
        let params = json!({"notifications": {"resourceSubscriptions": [row.name]}});
        let ask = Ask::modern(&self.path(row), "subscriptions/listen", params);
        let answer = self.proxy.open(ask.token(&self.token(row.group, who))).await;
        if answer.headers()["content-type"] != "text/event-stream" {
            return crate::proxy::Answer::of(answer).await.code();
        }
        let mut stream = answer.into_body();
        let text = read_until(&mut stream, "acknowledged").await;
        if text.contains(row.name) { 0 } else { UNKNOWN }
    }
}

const UNKNOWN: i64 = -32602;
/// Of a resource, to older clients.
const NOT_FOUND: i64 = -32002;

/// Whether lists show it, and the code of an attempt.
fn expected(cell: &str, way: &Way<'_>) -> (bool, i64) {
    match cell {
        "ok" => (true, 0),
        "new" if way.modern => (true, 0),
        "arg" => (true, 40300),
        "ask" => (true, 40302),
        "step" => (false, 40301),
        "out" => (false, 40101),
        "gone" if !way.joined => (false, 40400),
        "no" | "new" | "gone" => (false, UNKNOWN),
        other => panic!("{other}"),
    }
}

/// The list that names what a row tries.
fn list_of(row: &Row) -> Option<[&'static str; 3]> {
    match (row.verb, row.name) {
        ("call", _) => Some(["tools/list", "tools", "name"]),
        ("prompt", _) => Some(["prompts/list", "prompts", "name"]),
        ("read", name) if !name.contains("/t/") => Some(["resources/list", "resources", "uri"]),
        ("complete", name) if name.contains('{') => {
            Some(["resources/templates/list", "resourceTemplates", "uriTemplate"])
        }
        _ => None,
    }
}

async fn check(way: &mut Way<'_>, rows: &[Row]) {
    for row in rows {
        for (who, cell) in &row.cells {
            let (shown, code) = expected(cell, way);
            let era = if way.modern { "modern" } else { "legacy" };
            let what = format!("{era} {} {who}: {row:?}", way.path(row));
            let mut got = way.attempt(who, row).await;
            if got == NOT_FOUND && !way.modern {
                got = UNKNOWN;
            }
            assert_eq!(got, code, "{what}");
            if let Some(list) = list_of(row) {
                let path = way.path(row);
                let listed = way.listed((who, &path), list).await.unwrap_or_default();
                assert_eq!(listed.contains(&way.name(row)), shown, "{what}: {listed:?}");
            }
        }
    }
}

#[tokio::test]
async fn service_accounts_see_and_call_what_roles_and_policies_say() {
    let peer = Peer::start().await;
    holds(&peer, &company(&peer.url), &accounts()).await;
}

#[tokio::test]
async fn people_see_and_call_what_roles_and_policies_say_of_their_claims() {
    let (peer, acme, beta) = (Peer::start().await, Issuer::start().await, Issuer::start().await);
    let world = company(&peer.url).documents(&providers(&acme, &beta));
    holds(&peer, &world, &people(&acme, &beta)).await;
}

async fn holds(peer: &Peer, world: &World, tokens: &Tokens) {
    let proxy = Proxy::start(world).await;
    assert_eq!(proxy.config.current().problems, []);
    let rows = rows();
    // Twice: decided, and remembered.
    let mut evaluated = 0;
    for round in 0..2 {
        for (modern, joined) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut way = Way { proxy: &proxy, tokens, modern, joined, sessions: HashMap::new() };
            check(&mut way, &rows).await;
        }
        let counts = proxy.gateway.decisions.counts();
        assert!(counts.finished > 0 && counts.hits > 0 && counts.per_call == 0, "{counts:?}");
        assert!(round == 0 || counts.misses == evaluated, "every decision is found: {counts:?}");
        evaluated = counts.misses;
    }

    // What was refused never left: as many calls came as cells allow them.
    let served = |verb: &str| {
        let cells = rows.iter().filter(|row| row.verb == verb).flat_map(|row| &row.cells);
        let times = |cell: &str| match cell {
            "ok" => 8,
            "new" => 4,
            _ => 0,
        };
        cells.map(|(_, cell)| times(cell)).sum::<usize>()
    };
    for (verb, method) in [
        ("call", "tools/call"),
        ("read", "resources/read"),
        ("prompt", "prompts/get"),
        ("complete", "completion/complete"),
    ] {
        assert_eq!(peer.seen(method).len(), served(verb), "{method}");
    }

    // Every decision can be made again, with arguments that the records hold as digests.
    let texts: HashMap<Digest, String> = rows
        .iter()
        .map(|row| row.arguments.to_string())
        .map(|text| (Digest::of(text.as_bytes()), text))
        .collect();
    let snapshot = proxy.config.current();
    let mut again = 0;
    for record in proxy.records(1).await {
        let Some(read) = Recorded::read(&record) else { continue };
        assert!(read.faithful, "{record}");
        let arguments = read.arguments_digest.and_then(|digest| texts.get(&digest));
        let arguments = arguments.filter(|_| read.ask.arguments.is_none());
        let group = snapshot.group(read.group.as_str()).unwrap();
        let made = review::recompute(group, &read, arguments.map(String::as_str));
        assert_eq!(made.same, Some(true), "{record}\n{made:?}");
        again += 1;
    }
    assert!(again > 500, "{again}");
}

#[tokio::test]
async fn records_keep_what_rules_demand() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&company(&peer.url)).await;
    let card = json!({"card": {"number": "4111111111111111", "name": "Ada"}, "n": 1});
    let tokens = &accounts();
    let mut way =
        Way { proxy: &proxy, tokens, modern: true, joined: true, sessions: HashMap::new() };
    for (who, tool, arguments) in [
        ("finance", "files__echo", &card),
        ("support", "files__echo", &card),
        ("finance", "files__fail", &json!({})),
    ] {
        let params = json!({"name": tool, "arguments": arguments});
        way.ask((who, "/acme/mcp"), "tools/call", params).await.unwrap();
    }
    let records = proxy.records(3).await;
    let kept = &records[0]["unmapped"]["arguments"];
    assert_eq!(*kept, json!({"card": {"number": "[redacted]", "name": "Ada"}, "n": 1}));
    assert!(records[1]["unmapped"].get("arguments").is_none(), "{}", records[1]);
    assert!(!records.iter().any(|record| record.to_string().contains("4111111111111111")));
    assert_eq!(records[2]["status_code"], "approval_required", "{}", records[2]);
    assert!(peer.seen("tools/call").iter().all(|call| call.body["params"]["name"] != "fail"));
}
