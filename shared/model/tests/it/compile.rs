//! Snapshots: what becomes of resources that fit together, and of those that do not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use weir_model::id::{Digest, Name, Revision};
use weir_model::principal::Proof;
use weir_model::resource::{
    AuditClass, Definition, DefinitionKind, Kind, Resource, ResourceKey, ResourceSet, Subject,
};
use weir_model::schema::Schema;
use weir_model::snapshot::{CatalogView, ParamHeader, ParamType, Snapshot, ToolView};
use weir_model::testing::World;

fn acme() -> World {
    World::new()
        .group("acme")
        .server("acme", "billing", "http://127.0.0.1:9/mcp")
        .tool("acme", "billing", "refund")
        .tool("acme", "billing", "list.invoices")
        .server("acme", "files", "http://127.0.0.1:9/mcp")
        .tool("acme", "files", "read")
        .account("acme", "ci")
        .allow("acme", "ci", "*", "*")
        .group("other")
        .server("other", "billing", "http://127.0.0.1:9/mcp")
}

fn catalog<'a>(snapshot: &'a Snapshot, server: &str) -> &'a Arc<CatalogView> {
    snapshot.groups["acme"].servers[server].versions[0].catalog.as_ref().expect("is pinned")
}

/// These are the problems: `document | path | beginning of the message`, and the quarantined keys.
fn wrong(snapshot: &Snapshot, problems: &[&str], quarantined: &[&str]) {
    let got: Vec<String> = snapshot
        .problems
        .iter()
        .map(|e| format!("{} | {} | {}", e.document, e.path, e.message))
        .collect();
    let same =
        got.len() == problems.len() && got.iter().zip(problems).all(|(g, e)| g.starts_with(e));
    assert!(same, "{got:#?}");
    let keys: Vec<String> = snapshot.quarantined.keys().map(ToString::to_string).collect();
    assert_eq!(keys, quarantined);
}

#[test]
fn what_fits_together_is_served() {
    let snapshot = acme().snapshot();
    wrong(&snapshot, &[], &[]);
    let group = snapshot.group("acme").unwrap();
    assert_eq!(group.quarantined, None);
    let names: Vec<&str> = group.servers.keys().map(Name::as_str).collect();
    assert_eq!(names, ["billing", "files"]);
    assert_eq!(snapshot.sealing[0].0, "k1");
    let token = &group.tokens[&Digest::of(World::token("acme", "ci").as_bytes())];
    assert_eq!(token.principal.proof, Proof::ApiToken);
    assert_eq!(token.principal.id(), "account:ci");
    assert_eq!(token.principal.credential.as_deref(), Some(token.id.as_str()));
    assert!(snapshot.group("other").unwrap().servers["billing"].versions[0].catalog.is_none());
    assert_eq!(snapshot.digest, acme().set().digest());
}

#[test]
fn accounts_lend_their_attributes_to_their_tokens() {
    let text = format!(
        "apiVersion: weir/v1\nkind: ServiceAccount\nmetadata: {{name: ci, group: acme}}\n\
         spec: {{memberships: [ops, dev, ops], scopes: [z, a], tokens: [{{id: t1, sha256: {}, expires: 7}}]}}",
        Digest::of(b"t").hex()
    );
    let snapshot = World::new().group("acme").documents(&text).snapshot();
    let token = &snapshot.groups["acme"].tokens[&Digest::of(b"t")];
    assert_eq!(token.expires, Some(7));
    assert_eq!(*token.principal.memberships, ["dev".into(), "ops".into()]);
    assert_eq!(*token.principal.scopes, ["a".into(), "z".into()]);
}

#[test]
fn exposed_names_lead_to_tools_and_back() {
    let long = "a.name-that-is-much-too-long-to-be-shown-to-any-model".repeat(2);
    let world = acme()
        .tool("acme", "billing", &long)
        .tool("acme", "billing", "_x")
        .tool("acme", "billing", "y__z")
        .tool("acme", "billing", "list_invoices")
        .define("acme", "billing", DefinitionKind::Prompt, &json!({"name": "ask me"}));
    let snapshot = world.snapshot();
    let group = snapshot.group("acme").unwrap();
    let catalog = catalog(&snapshot, "billing");
    assert_eq!(catalog.tools.len(), 6);
    for tool in &catalog.tools {
        assert!(tool.exposed.len() <= 64);
        assert_eq!(group.exposing_server(&tool.exposed).unwrap().name.as_str(), "billing");
        assert_eq!(catalog.exposed_tool(&tool.exposed).unwrap().name, tool.name);
        assert_eq!(catalog.tool(&tool.name).unwrap().exposed, tool.exposed);
        let shown: serde_json::Value = serde_json::from_slice(&tool.raw_exposed).unwrap();
        assert_eq!(shown["name"], tool.exposed.as_str());
    }
    assert_eq!(catalog.tool("refund").unwrap().exposed, "billing__refund");
    assert_eq!(catalog.tool("_x").unwrap().exposed, "billing___x");
    let prompt = catalog.prompt("ask me").unwrap();
    assert_eq!(catalog.exposed_prompt(&prompt.exposed).unwrap().name, "ask me");
    for unknown in
        ["billing__nothing", "refund", "nobody__refund", "billing_refund", "__refund", ""]
    {
        let found = group.exposing_server(unknown).and_then(|_| catalog.exposed_tool(unknown));
        assert!(found.is_none(), "{unknown}");
    }
    // The name that a tool has upstream is not a name on the joined endpoint.
    assert!(catalog.exposed_tool("billing__list.invoices").is_none());
}

#[test]
fn definitions_travel_byte_for_byte() {
    let text = "{ \"description\" : \"caf\\u00e9 1.10\", \"name\"\t:\n\"refund\" ,\"n\":12345678901234567890123,\
                \"inputSchema\":{\"type\":\"object\",\"properties\":{\"name\":{\"name\":\"name\"}}} }";
    let world = World::new()
        .group("acme")
        .server("acme", "b", "http://127.0.0.1:9/mcp")
        .define_raw("acme", "b", (DefinitionKind::Tool, "refund"), text);
    let snapshot = world.snapshot();
    let tool = &catalog(&snapshot, "b").tools[0];
    assert_eq!(tool.raw, Bytes::from(text));
    assert_eq!(tool.raw_exposed, Bytes::from(text.replace("\"refund\"", "\"b__refund\"")));
    assert_eq!(tool.digest, Digest::of(text.as_bytes()));
}

#[test]
fn hints_have_the_defaults_of_the_specification() {
    let tool = |annotations: serde_json::Value| {
        let definition =
            json!({"name": "t", "inputSchema": {"type": "object"}, "annotations": annotations});
        let world = World::new().group("acme").server("acme", "b", "http://127.0.0.1:9/mcp");
        let snapshot = world.tool_of("acme", "b", &definition).snapshot();
        let hints = catalog(&snapshot, "b").tools[0].hints;
        (hints.read_only, hints.destructive, hints.idempotent, hints.open_world)
    };
    assert_eq!(tool(json!({})), (false, true, false, true));
    assert_eq!(tool(json!(null)), (false, true, false, true));
    assert_eq!(
        tool(
            json!({"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": "no"})
        ),
        (true, false, true, true)
    );
}

fn usable(schema: &Result<Arc<Schema>, String>) -> bool {
    schema.as_ref().is_ok_and(|schema| schema.validator().is_ok())
}

/// The tool that a schema makes.
fn with_schema(schema: serde_json::Value) -> Arc<ToolView> {
    let definition = json!({"name": "t", "inputSchema": schema});
    let world = World::new().group("acme").server("acme", "b", "http://127.0.0.1:9/mcp");
    Arc::clone(&catalog(&world.tool_of("acme", "b", &definition).snapshot(), "b").tools[0])
}

#[test]
fn a_bad_schema_spoils_its_tool_alone() {
    for schema in [
        json!({"type": "strin"}),
        json!({"type": "array"}),
        json!({}),
        json!("x"),
        json!({"type": "object", "properties": {"a": {"$ref": "http://a.example"}}}),
    ] {
        assert!(!usable(&with_schema(schema.clone()).input), "{schema}");
    }
    assert!(usable(&with_schema(json!({"type": "object"})).input));
    let bad_output =
        json!({"name": "t", "inputSchema": {"type": "object"}, "outputSchema": {"type": 1}});
    let snapshot = acme().tool_of("acme", "billing", &bad_output).snapshot();
    wrong(&snapshot, &[], &[]);
    let tool = |name| catalog(&snapshot, "billing").tool(name).unwrap();
    assert!(usable(&tool("t").input) && !usable(tool("t").output.as_ref().unwrap()));
    assert!(usable(&tool("refund").input));
}

#[test]
fn mirrored_headers_are_read_or_spoil_the_tool() {
    let object =
        |properties: serde_json::Value| json!({"type": "object", "properties": properties});
    let header = |name: &str, kind: &str| json!({"type": kind, "x-mcp-header": name});
    let good = object(json!({
        "region": header("Region", "string"),
        "deep": {"type": "object", "properties": {"n": header("N", "integer"), "x-mcp-header": {"type": "string"}}},
        "on": header("On!", "boolean"),
        "word": {"const": {"x-mcp-header": "data, not schema"}}
    }));
    let read = |path: &[&str], header: &str, kind| ParamHeader {
        path: path.iter().map(|p| (*p).to_owned()).collect(),
        header: header.to_owned(),
        kind,
    };
    assert_eq!(
        with_schema(good).param_headers,
        Ok(vec![
            read(&["region"], "mcp-param-region", ParamType::String),
            read(&["deep", "n"], "mcp-param-n", ParamType::Integer),
            read(&["on"], "mcp-param-on!", ParamType::Boolean),
        ])
    );
    for bad in [
        object(json!({"a": header("", "string")})),
        object(json!({"a": header("a b", "string")})),
        object(json!({"a": header("a\r\nb", "string")})),
        object(json!({"a": header("ä", "string")})),
        object(json!({"a": header("A", "number")})),
        object(json!({"a": header("A", "array")})),
        object(json!({"a": {"x-mcp-header": "A"}})),
        object(json!({"a": {"type": "string", "x-mcp-header": 1}})),
        object(json!({"a": header("A", "string"), "b": header("a", "string")})),
        object(json!({"a": {"type": "array", "items": header("A", "string")}})),
        object(json!({"a": {"anyOf": [header("A", "string")]}})),
        json!({"type": "object", "x-mcp-header": "A"}),
        json!({"type": "object", "allOf": [object(json!({"a": header("A", "string")}))]}),
        json!({"type": "object", "$defs": {"a": header("A", "string")}, "properties": {"a": {"$ref": "#/$defs/a"}}}),
    ] {
        assert!(with_schema(bad.clone()).param_headers.is_err(), "{bad}");
    }
}

#[test]
fn definitions_that_contradict_their_catalog_are_dropped() {
    let tool = |text: &str, name: &str| {
        acme().define_raw("acme", "files", (DefinitionKind::Tool, name), text).snapshot()
    };
    for text in [
        r#"{"name":"other","inputSchema":{"type":"object"}}"#,
        r#"{"name":"t","name":"t","inputSchema":{"type":"object"}}"#,
        r#"{"name":1}"#,
        r#"{}"#,
    ] {
        let snapshot = tool(text, "t");
        wrong(&snapshot, &[], &[]);
        let catalog = catalog(&snapshot, "files");
        assert_eq!(catalog.dropped.len(), 1, "{text}");
        assert_eq!(catalog.dropped[0].0, "t");
        assert_eq!(catalog.tools.len(), 1);
    }
}

#[test]
fn references_to_nothing_are_problems_and_take_little_with_them() {
    let world = acme()
        .group_with("acme", |group| group.regions = vec!["eu".parse().unwrap()])
        .server_with("acme", "billing", |s| {
            s.versions[0].credential = Some("none".parse().unwrap())
        });
    let snapshot = world.snapshot();
    wrong(
        &snapshot,
        &[
            "Server/acme/billing | spec.versions[0].credential | there is no Credential none",
            "Group/acme | spec.regions[0] | there is no Region eu",
        ],
        &["Server/acme/billing"],
    );
    let group = snapshot.group("acme").unwrap();
    assert_eq!(group.quarantined, None);
    assert!(group.servers["billing"].quarantined.is_some());
    assert_eq!(group.servers["files"].quarantined, None);

    let orphan = World::new().server("acme", "billing", "http://127.0.0.1:9/mcp").snapshot();
    wrong(
        &orphan,
        &["Server/acme/billing | metadata.group | there is no Group acme"],
        &["Server/acme/billing"],
    );
}

#[test]
fn a_missing_definition_quarantines_its_server() {
    let definition =
        Definition::name_of(&Digest::of(br#"{"name":"read","inputSchema":{"type":"object"}}"#));
    let snapshot = acme().without(&format!("Definition/{definition}")).snapshot();
    wrong(
        &snapshot,
        &["Catalog/acme/files.v1 | spec.entries[0].digest | there is no Definition"],
        &["Catalog/acme/files.v1"],
    );
    let group = snapshot.group("acme").unwrap();
    assert!(group.servers["files"].quarantined.is_some());
    assert_eq!(group.servers["billing"].quarantined, None);
}

#[test]
fn a_rule_that_may_be_missing_takes_its_group_with_it() {
    let unbound = acme().without("Role/acme/grant-1").snapshot();
    wrong(
        &unbound,
        &["RoleBinding/acme/grant-1 | spec.role | there is no Role grant-1"],
        &["RoleBinding/acme/grant-1"],
    );
    assert!(unbound.group("acme").unwrap().quarantined.is_some());
    assert_eq!(unbound.group("other").unwrap().quarantined, None);

    let cedar = acme().policy("acme", "broken", "permit (principal").snapshot();
    assert_eq!(cedar.problems[0].document, "Policy/acme/broken");
    assert_eq!(cedar.problems[0].path, "spec.cedar");
    assert!(cedar.group("acme").unwrap().quarantined.is_some());

    let account = acme().without("ServiceAccount/acme/ci").snapshot();
    wrong(
        &account,
        &[
            "RoleBinding/acme/grant-1 | spec.subjects[0].serviceAccount | there is no ServiceAccount ci",
        ],
        &[],
    );
    assert_eq!(account.group("acme").unwrap().quarantined, None);
}

#[test]
fn secrets_that_are_not_here_are_no_problem_of_the_documents() {
    let world = acme().credential("acme", "billing", "X-Api-Key", "s3cret");
    let whole = world.snapshot();
    wrong(&whole, &[], &[]);
    let credential = &whole.groups["acme"].credentials["billing"];
    assert_eq!(whole.secrets[credential.secret_id()].expose(), b"s3cret");

    let bare = Snapshot::compile(Revision(1), &world.set(), Default::default(), None);
    assert_eq!(bare.problems, []);
    let missing: Vec<&str> = bare.missing_secrets.iter().map(|e| e.document.as_str()).collect();
    assert_eq!(missing, ["Credential/acme/billing", "Keyring/sessions"]);
    assert!(bare.groups["acme"].servers["billing"].quarantined.is_some());
    assert_eq!(bare.groups["acme"].servers["files"].quarantined, None);
    assert!(bare.sealing.is_empty());

    // The secrets arrive later, with the same documents.
    let later = Snapshot::compile(Revision(2), &world.set(), world.secrets(), Some(&bare));
    wrong(&later, &[], &[]);
    assert_eq!(later.groups["acme"].servers["billing"].quarantined, None);
    let gone = Snapshot::compile(Revision(3), &world.set(), Default::default(), Some(&later));
    assert!(gone.groups["acme"].servers["billing"].quarantined.is_some());
}

#[test]
fn a_token_of_two_accounts_proves_neither() {
    let entry = |account: &str| {
        format!(
            "apiVersion: weir/v1\nkind: ServiceAccount\nmetadata: {{name: {account}, group: acme}}\n\
             spec: {{tokens: [{{id: same, sha256: {}}}]}}\n---\n",
            Digest::of(account.as_bytes()).hex()
        )
    };
    let snapshot = World::new().group("acme").documents(&(entry("a") + &entry("b"))).snapshot();
    wrong(
        &snapshot,
        &["ServiceAccount/acme/b | spec.tokens[0] | ServiceAccount/acme/a has a token"],
        &["ServiceAccount/acme/b"],
    );
    assert_eq!(snapshot.groups["acme"].tokens.len(), 1);
}

#[test]
fn documents_of_a_newer_build_take_with_them_what_they_may_bear_on() {
    let with = |key: &str| {
        let mut set = acme().set();
        let key = ResourceKey::parse(key).unwrap();
        let resource = Resource::unreadable(key, Bytes::from_static(b"{}"), "unknown field".into());
        set.insert(Arc::new(resource));
        Snapshot::compile(Revision(1), &set, acme().secrets(), None)
    };
    let whole = |snapshot: &Snapshot| snapshot.group("acme").unwrap().quarantined.is_some();
    for key in [
        "Limit/acme/x",
        "Policy/acme/x",
        "IdentityProvider/acme/x",
        "RoleBinding/acme/x",
        "Group/acme",
    ] {
        let snapshot = with(key);
        assert!(whole(&snapshot), "{key}");
        assert_eq!(snapshot.group("other").unwrap().quarantined, None);
    }
    for key in
        ["Server/acme/x", "Credential/acme/x", "ServiceAccount/acme/x", "Catalog/acme/files.v1"]
    {
        let snapshot = with(key);
        assert!(!whole(&snapshot), "{key}");
        assert_eq!(snapshot.quarantined.len(), 1, "{key}");
        let spoilt = snapshot.groups["acme"].servers["files"].quarantined.is_some();
        assert_eq!(spoilt, key.starts_with("Catalog"), "{key}");
    }
}

fn resource_of(world: &World, key: &str) -> Arc<Resource> {
    Arc::clone(world.set().get(&ResourceKey::parse(key).unwrap()).unwrap())
}

#[test]
fn what_has_not_changed_is_taken_over() {
    let before = acme().snapshot();
    let same = acme().after(&before);
    assert!(Arc::ptr_eq(&before.groups["acme"], &same.groups["acme"]));
    assert_eq!(same.revision, Revision(2));

    let changed = acme().server("acme", "files", "http://127.0.0.1:10/mcp").after(&before);
    let (old, new) = (&before.groups["acme"], &changed.groups["acme"]);
    assert!(!Arc::ptr_eq(old, new));
    assert!(Arc::ptr_eq(&old.rules, &new.rules));
    assert!(Arc::ptr_eq(&old.tokens, &new.tokens));
    assert!(Arc::ptr_eq(&old.servers["billing"], &new.servers["billing"]));
    assert!(!Arc::ptr_eq(&old.servers["files"], &new.servers["files"]));
    assert!(Arc::ptr_eq(catalog(&before, "files"), catalog(&changed, "files")));
    assert!(Arc::ptr_eq(&before.groups["other"], &changed.groups["other"]));

    let more = acme().tool("acme", "files", "write").after(&before);
    assert!(!Arc::ptr_eq(catalog(&before, "files"), catalog(&more, "files")));
    assert!(Arc::ptr_eq(&catalog(&before, "files").tools[0], &catalog(&more, "files").tools[0]));

    let rules = acme().allow("acme", "ci", "files", "read").after(&before);
    assert!(!Arc::ptr_eq(&old.rules, &rules.groups["acme"].rules));
    let group = acme().group_with("acme", |g| g.audit = AuditClass::Strict).after(&before);
    assert_eq!(group.groups["acme"].spec.audit, AuditClass::Strict);

    let definition = Definition::name_of(&catalog(&before, "files").tools[0].digest);
    let gone = acme().without(&format!("Definition/{definition}")).after(&before);
    assert!(gone.groups["acme"].servers["files"].quarantined.is_some());
    let back = acme().after(&gone);
    assert_eq!(back.groups["acme"].servers["files"].quarantined, None);
    assert_eq!(resource_of(&acme(), "Server/acme/files").key.kind, Kind::Server);
}

/// Everything that a snapshot says, without what it shares.
fn facts(snapshot: &Snapshot) -> String {
    let mut groups: Vec<_> = snapshot.groups.iter().collect();
    groups.sort_by_key(|(name, _)| (*name).clone());
    let mut text = format!(
        "{:?}\n{:?}\n{:?}\n",
        snapshot.quarantined, snapshot.problems, snapshot.missing_secrets
    );
    for (name, group) in groups {
        let mut tokens: Vec<_> = group.tokens.values().map(|t| format!("{t:?}")).collect();
        tokens.sort();
        let mut credentials: Vec<_> = group.credentials.iter().collect();
        credentials.sort_by_key(|(name, _)| (*name).clone());
        text += &format!(
            "{name} {:?} {:?} {:?} {tokens:?} {:?} {:?} {credentials:?}\n",
            group.spec, group.quarantined, group.providers, group.rules.digest, group.limits
        );
        for server in group.servers.values() {
            text += &format!("{} {:?} {:?}\n", server.name, server.spec, server.quarantined);
            for version in &server.versions {
                let catalog = version.catalog.as_ref();
                let tools = catalog
                    .map(|c| c.tools.iter().map(|t| (&t.exposed, t.digest)).collect::<Vec<_>>());
                text += &format!("{} {:?} {:?}\n", version.key, version.spec, tools);
            }
        }
    }
    text
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(48))]

    /// Whatever was taken over from whichever predecessor, the result is that of a fresh start.
    #[test]
    fn a_snapshot_depends_on_its_set_alone(
        before in weir_model::testing::strategies::resource_set(),
        after in weir_model::testing::strategies::resource_set(),
        some in proptest::collection::vec(proptest::bool::ANY, 60),
    ) {
        let keep = |set: &ResourceSet, flip: bool| -> Vec<Arc<Resource>> {
            let kept = set.iter().zip(some.iter().cycle()).filter(|(_, keep)| **keep != flip);
            kept.map(|(resource, _)| Arc::clone(resource)).collect()
        };
        let mixed: ResourceSet = keep(&before, false).into_iter().chain(keep(&after, true)).collect();
        let first = Snapshot::compile(Revision(1), &before, Default::default(), None);
        let next = Snapshot::compile(Revision(2), &mixed, Default::default(), Some(&first));
        let fresh = Snapshot::compile(Revision(2), &mixed, Default::default(), None);
        proptest::prop_assert_eq!(facts(&next), facts(&fresh));
        let again = Snapshot::compile(Revision(3), &mixed, Default::default(), Some(&next));
        proptest::prop_assert_eq!(facts(&again), facts(&fresh));
    }
}

#[test]
fn anonymous_callers_can_be_bound() {
    let rule = weir_model::resource::Rule {
        servers: vec!["*".into()],
        tools: vec!["*".into()],
        ..Default::default()
    };
    let world =
        World::new().group("acme").grant("acme", vec![rule], vec![Subject::Anonymous(true)]);
    wrong(&world.snapshot(), &[], &[]);
}

/// One field changes among very many tools. The bound is generous, for debug builds on a busy
/// machine; `docs/` has measured figures.
#[test]
fn a_small_change_among_many_tools_is_cheap() {
    let mut world = World::new().group("acme");
    for server in 0..40 {
        let server = format!("s{server}");
        world = world.server("acme", &server, "http://127.0.0.1:9/mcp");
        for tool in 0..50 {
            world = world.tool("acme", &server, &format!("{server}_tool{tool}"));
        }
    }
    let (set, secrets) = (world.set(), world.secrets());
    let started = Instant::now();
    let before = Snapshot::compile(Revision(1), &set, secrets.clone(), None);
    let whole = started.elapsed();
    let mut changed = set.clone();
    changed.insert(resource_of(
        &world.server("acme", "s7", "http://127.0.0.1:10/mcp"),
        "Server/acme/s7",
    ));
    let started = Instant::now();
    let after = Snapshot::compile(Revision(2), &changed, secrets, Some(&before));
    let small = started.elapsed();
    assert_eq!(after.groups["acme"].servers.len(), 40);
    assert!(small < whole / 5 || small < Duration::from_millis(20), "{small:?} of {whole:?}");
}
