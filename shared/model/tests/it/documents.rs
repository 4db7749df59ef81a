//! Documents: what is accepted, and what is said about what is not.

use bytes::Bytes;
use weir_model::resource::{Document, FieldError, Resource, parse_documents};

fn parse(text: &str) -> Result<Vec<Document>, Vec<FieldError>> {
    let mut count = 0;
    parse_documents(text, &mut || {
        count += 1;
        format!("id-{count}")
    })
}

/// The text has exactly these errors: `document | path | beginning of the message`.
fn refused(text: &str, expected: &[&str]) {
    let errors = parse(text).expect_err("must be refused");
    let got: Vec<String> =
        errors.iter().map(|e| format!("{} | {} | {}", e.document, e.path, e.message)).collect();
    let fits = |g: &String, e: &&str| g.starts_with(*e);
    let same = got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| fits(g, e));
    assert!(same, "\ngot:\n  {}\nexpected:\n  {}", got.join("\n  "), expected.join("\n  "));
}

#[test]
fn a_server_in_yaml_becomes_a_resource_whose_canonical_form_reads_back() {
    let text = "apiVersion: weir/v1\nkind: Server\nmetadata: {name: billing, group: acme}\n\
                spec:\n  versions:\n  - name: v1\n    upstream: {http: {url: 'https://b.example/mcp'}}\n";
    let documents = parse(text).expect("is fine");
    let resource = &documents[0].resource;
    assert_eq!(resource.key.to_string(), "Server/acme/billing");
    assert_eq!(
        std::str::from_utf8(&resource.canonical).unwrap(),
        r#"{"apiVersion":"weir/v1","kind":"Server","metadata":{"name":"billing","group":"acme"},"spec":{"versions":[{"name":"v1","upstream":{"http":{"url":"https://b.example/mcp","allowPrivate":false}}}]}}"#
    );
    let again = Resource::from_canonical(resource.canonical.clone()).expect("reads back");
    assert_eq!(&again, resource);
    assert_eq!(again.spec, resource.spec);
}

#[test]
fn several_errors_of_several_documents_come_at_once() {
    refused(
        "apiVersion: weir/v2\nkind: Server\nmetadata: {name: Billing, group: acme, labels: {}}\n\
         spec:\n  displayNam: x\n  versions:\n  - upstream: {http: {url: 'ftp://x', allowPrivate: sure}}\n\
         \x20   timeoutMs: -1\n  - {name: v2, upstream: {carrier: {}}}\n  traffic: [{version: v2, percent: 300}]\n\
         ---\nkind: Regoin\nmetadata: {name: eu}\n---\n- 1\n",
        &[
            "document 1 (Server) | apiVersion | must be weir/v1",
            "document 1 (Server) | metadata.name | must be 1 to 40",
            "document 1 (Server) | metadata.labels | unknown field",
            "document 1 (Server) | spec.displayNam | unknown field; known are: displayName",
            "document 1 (Server) | spec.versions[0].upstream.http.allowPrivate | must be true or false, not text",
            "document 1 (Server) | spec.versions[0].timeoutMs | must be a whole number from 0",
            "document 1 (Server) | spec.versions[0].name | is missing",
            "document 1 (Server) | spec.versions[1].upstream.carrier | must be one of: http, stdio",
            "document 1 (Server) | spec.traffic[0].percent | must be a whole number from 0 to 255",
            "document 1 (Server) | spec.versions[0].upstream.http.url | must be a URL",
            "document 2 | apiVersion | is missing",
            "document 2 | kind | unknown kind Regoin",
            "document 2 | spec | is missing",
            "document 3 |  | must be a mapping",
        ],
    );
}

#[test]
fn bytes_that_are_no_document_are_refused() {
    assert!(Resource::from_canonical(Bytes::from_static(b"[]")).is_err());
}

fn document(kind: &str, metadata: &str, spec: &str) -> String {
    format!("apiVersion: weir/v1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n")
}

#[test]
fn lists_and_items_stand_for_their_members() {
    let one = r#"{"apiVersion":"weir/v1","kind":"Group","metadata":{"name":"a"},"spec":{}}"#;
    let two = one.replace("\"a\"", "\"b\"");
    let yaml = "apiVersion: weir/v1\nkind: Group\nmetadata: {name: a}\nspec: {}\n---\n\
                apiVersion: weir/v1\nkind: Group\nmetadata: {name: b}\nspec: {}\n---\n";
    for text in [
        format!("[{one},{two}]"),
        format!("{{\"items\":[{one},{two}]}}"),
        format!(
            "\u{feff}  {{\"apiVersion\":\"weir/v1\",\"kind\":\"List\",\"items\":[{one},{two}]}}"
        ),
        format!("items:\n- {one}\n- {two}\n"),
        format!("- {one}\n---\n{two}\n"),
        yaml.to_owned(),
        format!("# a comment\n---\n{yaml}"),
    ] {
        let documents = parse(&text).unwrap_or_else(|e| panic!("{text}\n{e:#?}"));
        let keys: Vec<String> = documents.iter().map(|d| d.resource.key.to_string()).collect();
        assert_eq!(keys, ["Group/a", "Group/b"], "{text}");
    }
}

#[test]
fn broken_texts_say_where() {
    refused("", &["document 1 |  | there is no document"]);
    refused("---\n# nothing\n", &["document 1 |  | there is no document"]);
    refused(
        "{\"a\": 1,\n \"b\" 2}",
        &["document 1 |  | not valid JSON at line 2, column 6: expected `:`"],
    );
    refused("[1, 2", &["document 1 |  | not valid JSON at line 1"]);
    let good = document("Group", "{name: a}", "{}");
    refused(
        &format!("{good}---\nkind: [a\nx: }}"),
        &["document 2 |  | not valid YAML at line 7, column "],
    );
    refused("a: b: c", &["document 1 |  | not valid YAML at line 1, column "]);
    refused("a: &x [*y]", &["document 1 |  | not valid YAML at line 1, column "]);
    refused("a: 1\n  b: 2", &["document 1 |  | not valid YAML at line 2, column "]);
    refused(&format!("x: {}", "[".repeat(100_000)), &["document 1 |  | not valid YAML at line 1"]);
    refused(&"[".repeat(100_000), &["document 1 |  | not valid JSON at line 1"]);
    refused(&" ".repeat(9 * 1024 * 1024), &["document 1 |  | the text is longer than"]);
    refused("just words", &["document 1 |  | must be a mapping"]);
}

#[test]
fn bombs_do_not_go_off() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let inner = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs += &format!("a{i}: &a{i} [{inner}]\n");
    }
    let started = std::time::Instant::now();
    refused(&laughs, &["document 1 |  | not valid YAML"]);
    let documents = "---\na: 1\n".repeat(200_000);
    let errors = parse(&documents).expect_err("too many");
    assert!(errors.len() <= 200);
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn too_many_documents_are_too_many() {
    let group = |i: usize| document("Group", &format!("{{name: g{i}}}"), "{}");
    let fits: String = (0..100).map(|i| group(i) + "---\n").collect();
    assert_eq!(parse(&fits).unwrap().len(), 100);
    refused(&(fits + &group(100)), &["document 101 |  | more than 100 documents"]);
}

#[test]
fn repeated_keys_are_refused_wherever_they_are() {
    refused(
        r#"{"apiVersion":"weir/v1","kind":"Group","metadata":{"name":"a","name":"b"},"spec":{"audit":"strict","audit":"counted"}}"#,
        &["Group/a | metadata.name | is given twice", "Group/a | spec.audit | is given twice"],
    );
    let yaml = document(
        "Server",
        "{name: s, group: g}",
        "{versions: [{name: v, name: w, upstream: {stdio: {command: c, env: {A B: x, A B: y}}}}]}",
    );
    refused(
        &format!("{yaml}---\nkind: Group\nkind: Group\n"),
        &[
            "Server/g/s | spec.versions[0].name | is given twice",
            "Server/g/s | spec.versions[0].upstream.stdio.env[\"A B\"] | is given twice",
            "document 2 (Group) | kind | is given twice",
            "document 2 (Group) | apiVersion | is missing",
            "document 2 (Group) | metadata | is missing",
            "document 2 (Group) | spec | is missing",
        ],
    );
    let twice = document("Group", "{name: a}", "{}");
    refused(&format!("{twice}---\n{twice}"), &["Group/a | metadata.name | the same document"]);
}

#[test]
fn kinds_know_whether_they_belong_to_a_group() {
    refused(
        &document("Role", "{name: r}", "{rules: [{servers: ['*'], tools: ['*']}]}"),
        &["document 1 (Role r) | metadata.group | is missing"],
    );
    refused(
        &document("Region", "{name: eu, group: g}", "{}"),
        &["Region/eu | metadata.group | must not be given"],
    );
    for kind in ["Catalog", "Definition", "Keyring"] {
        let beginning = format!("document 1 ({kind}");
        let errors = parse(&document(kind, "{name: x}", "{}")).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].document.starts_with(&beginning) || errors[0].document.starts_with(kind));
        assert!(errors[0].message.contains("control plane alone"));
    }
}

#[test]
fn what_serde_would_let_pass_is_refused() {
    refused(
        &document("Limit", "{name: l, group: g}", "[principal]"),
        &["Limit/g/l | spec | must be a mapping, not a list"],
    );
    refused(
        &document(
            "Limit",
            "{name: l, group: g}",
            "{per: {principal: null}, rate: [5, minute], concurrency: 1.0}",
        ),
        &[
            "Limit/g/l | spec.per | must be the plain word principal",
            "Limit/g/l | spec.rate | must be a mapping, not a list",
            "Limit/g/l | spec.concurrency | must be a whole number",
        ],
    );
    refused(
        &document(
            "Server",
            "{name: 7, group: no}",
            "{displayName: 12, versions: [{name: v1, upstream: http}]}",
        ),
        &[
            "document 1 (Server) | metadata.name | must be text; put it in quotes",
            "document 1 (Server) | spec.displayName | must be text, not a number; put it in quotes",
            "document 1 (Server) | spec.versions[0].upstream | must be a mapping with the member http",
        ],
    );
}

#[test]
fn secrets_are_taken_out_and_references_kept() {
    let text = document(
        "Credential",
        "{name: c, group: g}",
        "{header: {name: X-Api-Key, prefix: 'Key ', value: s3cr3t}}",
    );
    let documents = parse(&text).unwrap();
    assert_eq!(documents[0].secrets.len(), 1);
    assert_eq!(documents[0].secrets[0].0, "id-1");
    assert_eq!(documents[0].secrets[0].1.expose(), "s3cr3t");
    let canonical = std::str::from_utf8(&documents[0].resource.canonical).unwrap();
    assert!(canonical.contains(r#""value":{"secret":"id-1"}"#) && !canonical.contains("s3cr3t"));
    assert_eq!(documents[0].resource.secret_refs()[0].1.secret, "id-1");
    assert!(!format!("{documents:?}").contains("s3cr3t"));

    let again = parse(canonical).unwrap();
    assert!(again[0].secrets.is_empty());
    assert_eq!(again[0].resource, documents[0].resource);
}

#[test]
fn errors_never_repeat_a_secret() {
    let credential = |header: &str| document("Credential", "{name: c, group: g}", header);
    for (spec, path, message) in [
        ("{header: {name: X, value: 's3cr3t\\n'}}", "", ""),
        ("{header: {name: X, value: \"s3cr3t\\n\"}}", "spec.header.value", "must be printable"),
        ("{header: {name: X, value: 4711}}", "spec.header.value", "must be text; put it in quotes"),
        ("{header: {name: X, value: [s3cr3t]}}", "spec.header.value", "must be text"),
        ("{header: {name: X, value: ''}}", "spec.header.value", "must not be empty"),
        ("{header: {name: X, valeu: s3cr3t}}", "spec.header.valeu", "unknown field"),
        ("{header: s3cr3t}", "spec.header", "must be a mapping, not text"),
        ("s3cr3t", "spec", "must be one of: header"),
        (
            "{header: {name: X, value: {secret: s3cr3t?}}}",
            "spec.header.value.secret",
            "must be 1 to 64",
        ),
    ] {
        let Err(errors) = parse(&credential(spec)) else { continue };
        let text = format!("{errors:?}");
        assert!(!text.contains("s3cr3t") && !text.contains("4711"), "{text}");
        assert_eq!(errors[0].path, path, "{text}");
        assert!(errors[0].message.starts_with(message), "{text}");
    }
}

/// A document of a kind with this spec has exactly these errors: `path | beginning`.
fn spec_refused(kind: &str, spec: &str, expected: &[&str]) {
    let grouped = !matches!(kind, "Region" | "Group");
    let metadata = if grouped { "{name: x, group: g}" } else { "{name: x}" };
    let label = if grouped { format!("{kind}/g/x") } else { format!("{kind}/x") };
    let expected: Vec<String> = expected.iter().map(|e| format!("{label} | {e}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    refused(&document(kind, metadata, spec), &expected);
}

#[test]
fn places_are_checked() {
    spec_refused(
        "Region",
        "{displayName: ' ', url: 'https://a/b'}",
        &["spec.displayName | must be one line", "spec.url | must not have a path"],
    );
    spec_refused(
        "Group",
        "{regions: [eu, eu, EU], origins: ['https://a/', 'HTTP://a', a, 'https://a:x'], audience: 'a b', staleAfterSecs: 0, audit: none}",
        &[
            "spec.regions[2] | must be 1 to 40",
            "spec.audit | must be one of: strict, durable, counted",
            "spec.regions[1] | is given twice",
            "spec.origins[0] | must be scheme://",
            "spec.origins[1] | must be scheme://",
            "spec.origins[2] | must be scheme://",
            "spec.origins[3] | must be scheme://",
            "spec.audience | must not have spaces",
            "spec.staleAfterSecs | must be at least 1",
        ],
    );
}

#[test]
fn servers_are_checked() {
    spec_refused("Server", "{versions: []}", &["spec.versions | needs at least one"]);
    spec_refused(
        "Server",
        "{versions: [{name: v1, upstream: {http: {url: 'http://u:p@a/'}}, timeoutMs: 0}, {name: v1, upstream: {stdio: {command: ' ', env: {'A=B': x}, cwd: ''}}}], traffic: [{version: v1, percent: 50}, {version: v2, percent: 49}]}",
        &[
            "spec.versions[1].name | is given twice",
            "spec.versions[0].upstream.http.url | must not have a user",
            "spec.versions[0].timeoutMs | must be from 1",
            "spec.versions[1].upstream.stdio.command | must name a program",
            "spec.versions[1].upstream.stdio.env[\"A=B\"] | the name of a variable",
            "spec.versions[1].upstream.stdio.cwd | must name a directory",
            "spec.traffic[1].version | unknown version; known are: v1",
            "spec.traffic | the percents add up to 99",
        ],
    );
    for url in [
        "ftp://a",
        "a",
        "https://",
        "https://a#b",
        "https://a b",
        "http:///x",
        "https://a:0/",
        "https://a:99999/",
        "//a/b",
        "https://:80/",
        "",
    ] {
        let spec = format!("{{versions: [{{name: v, upstream: {{http: {{url: '{url}'}}}}}}]}}");
        spec_refused("Server", &spec, &["spec.versions[0].upstream.http.url | must "]);
    }
    for url in
        ["http://a", "https://a.example:8443/mcp?x=1", "http://127.0.0.1:9/", "http://[::1]:9/mcp"]
    {
        let spec = format!("{{versions: [{{name: v, upstream: {{http: {{url: '{url}'}}}}}}]}}");
        assert!(parse(&document("Server", "{name: x, group: g}", &spec)).is_ok(), "{url}");
    }
}

#[test]
fn identities_are_checked() {
    spec_refused(
        "IdentityProvider",
        "{issuer: 'http://id.example?x', audiences: [], algorithms: [HS256, none], leewaySecs: 301, keys: {jwks: '{}'}, claims: {subject: '', scopes: ['']}}",
        &[
            "spec.algorithms[0] | must be one of: RS256",
            "spec.algorithms[1] | must be one of: RS256",
            "spec.issuer | must begin with https://",
            "spec.audiences | needs at least one",
            "spec.keys.jwks | must be a JSON Web Key Set",
            "spec.claims.subject | must be one line",
            "spec.claims.scopes[0] | must be one line",
            "spec.leewaySecs | must be at most 300",
        ],
    );
    let keys = |jwks: &str| {
        format!("{{issuer: 'https://id.example', audiences: [a], keys: {{jwks: '{jwks}'}}}}")
    };
    for jwks in [
        "x",
        "{\"keys\":[]}",
        "{\"keys\":[{}]}",
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}",
        "{\"keys\":[{\"kty\":\"OKP\",\"d\":\"s\"}]}",
    ] {
        spec_refused("IdentityProvider", &keys(jwks), &["spec.keys.jwks | "]);
    }
    spec_refused(
        "IdentityProvider",
        "{issuer: 'https://id.example', audiences: [a], keys: {jwksUrl: 'http://id.example/k'}}",
        &["spec.keys.jwksUrl | must begin with https://"],
    );
    let hash = "00".repeat(32);
    spec_refused(
        "ServiceAccount",
        &format!(
            "{{memberships: [''], tokens: [{{id: a_b, sha256: {hash}}}, {{id: c, sha256: '{hash}'}}, {{id: c, sha256: xy}}]}}"
        ),
        &[
            "spec.tokens[2].sha256 | must be 64 hex",
            "spec.memberships[0] | must be one line",
            "spec.tokens[2].id | is given twice",
            "spec.tokens[1].sha256 | is given twice",
            "spec.tokens[0].id | must be 1 to 64",
        ],
    );
}

#[test]
fn access_is_checked() {
    spec_refused("Role", "{rules: []}", &["spec.rules | needs at least one"]);
    spec_refused(
        "Role",
        "{rules: [{servers: [], tools: ['']}, {servers: [A], resources: ['a b']}, {servers: ['*'], prompts: []}]}",
        &[
            "spec.rules[0].servers | needs at least one",
            "spec.rules[0].tools[0] | must not be empty",
            "spec.rules[1].servers[0] | must be made of a-z",
            "spec.rules[1].resources[0] | must not have spaces",
            "spec.rules[2] | grants nothing",
        ],
    );
    spec_refused(
        "RoleBinding",
        "{role: R, subjects: [{user: ''}, {authenticated: false}, {group: x}, {user: a, membership: b}]}",
        &[
            "spec.role | must be 1 to 40",
            "spec.subjects[2].group | must be one of: serviceAccount, user",
            "spec.subjects[3] | must have exactly one of: serviceAccount",
            "spec.subjects[0].user | must be one line",
            "spec.subjects[1] | must be true",
        ],
    );
    spec_refused("Policy", "{cedar: ' '}", &["spec.cedar | must hold at least one"]);
    spec_refused(
        "Policy",
        &format!("{{cedar: '{}'}}", "x".repeat(70_000)),
        &["spec.cedar | must be at most"],
    );
    spec_refused("Limit", "{per: tool}", &["spec | limits nothing"]);
    spec_refused(
        "Limit",
        "{per: tool, tools: ['**************************'], rate: {calls: 0, per: day, burst: 0}, concurrency: 0}",
        &[
            "spec.rate.per | must be one of: second",
            "spec.tools[0] | must have at most 16 stars",
            "spec.rate.calls | must be at least 1",
            "spec.rate.burst | must be at least 1",
            "spec.concurrency | must be at least 1",
        ],
    );
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Cookie",
        "Mcp-Session-Id",
        "MCP-Protocol-Version",
        "Sec-Fetch-Mode",
        "a b",
        "",
    ] {
        let spec = format!("{{header: {{name: '{name}', value: s}}}}");
        spec_refused("Credential", &spec, &["spec.header.name | must "]);
    }
    spec_refused(
        "Credential",
        "{header: {name: X, prefix: \"a\\r\\nb\", value: s}}",
        &["spec.header.prefix | must be printable"],
    );
    assert!(
        parse(&document(
            "Credential",
            "{name: x, group: g}",
            "{header: {name: Authorization, prefix: 'Bearer ', value: s}}"
        ))
        .is_ok()
    );
}

#[test]
fn a_flood_of_errors_is_cut() {
    let versions: String = (0..500).map(|i| format!("{{nam{i}: 1}}, ")).collect();
    let errors =
        parse(&document("Server", "{name: x, group: g}", &format!("{{versions: [{versions}]}}")))
            .unwrap_err();
    assert_eq!(errors.len(), 200);
    let long = document(
        "Server",
        "{name: x, group: g}",
        &format!(
            "{{versions: [{{name: v, upstream: {{stdio: {{command: c, args: [{}]}}}}}}]}}",
            format!("{}, ", "a".repeat(20_000)).repeat(30)
        ),
    );
    refused(&long, &["Server/g/x |  | is longer than"]);
}

#[test]
fn documents_of_the_store_must_be_of_this_schema() {
    let errors =
        |text: &str| Resource::from_canonical(Bytes::copy_from_slice(text.as_bytes())).unwrap_err();
    for bad in [
        "",
        "[]",
        "{}",
        "null",
        r#"["weir/v1","Group",{"name":"a"},{}]"#,
        "\u{0}",
        r#"{"apiVersion":"weir/v2","kind":"Group","metadata":{"name":"a"},"spec":{}}"#,
        r#"{"apiVersion":"weir/v1","kind":"Group","metadata":{"name":"a","group":"b"},"spec":{}}"#,
        r#"{"apiVersion":"weir/v1","kind":"Group","metadata":{"name":"A"},"spec":{}}"#,
        r#"{"apiVersion":"weir/v1","kind":"Role","metadata":{"name":"a"},"spec":{"rules":[{"servers":["*"],"tools":["*"]}]}}"#,
        r#"{"apiVersion":"weir/v1","kind":"Definition","metadata":{"name":"00"},"spec":{"json":"{}"}}"#,
        r#"{"apiVersion":"weir/v1","kind":"Catalog","metadata":{"name":"a.c","group":"g"},"spec":{"server":"a","version":"b","era":"dual","entries":[]}}"#,
    ] {
        assert!(!errors(bad).is_empty());
    }
    let several = errors(
        r#"{"apiVersion":"weir/v1","kind":"Group","metadata":{"name":"a"},"spec":{"audit":"x","future":1}}"#,
    );
    let paths: Vec<&str> = several.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(paths, ["spec.future", "spec.audit"]);
}
