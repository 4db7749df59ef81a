//! The data plane from outside: a proxy on a free port between a client and a server that say
//! exactly what the tests want them to.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::too_many_lines, // tables
    missing_debug_implementations,
    unreachable_pub
)]

mod apart;
mod batch;
mod binary;
mod bounded;
mod bridging;
mod bypass;
mod certificates;
mod cross;
mod http_sse;
mod issuer;
mod joined;
mod ledger;
mod legacy;
mod logins;
mod matrix;
mod modern;
mod peer;
mod proxy;
mod records;
mod refusals;
mod resume;
mod revoked;
mod sealed;
mod secret;
mod secrets;
mod sign_in;
mod sockets;
mod subscriptions;
mod table;
mod tasks;
mod traced;
mod verbs;

use serde_json::json;
use weir_model::resource::{DefinitionKind, Rule, Subject};
use weir_model::testing::World;

/// The token of the caller that may do most things.
pub fn token() -> String {
    World::token("acme", "ci")
}

/// The tools that `ci` may call.
const TOOLS: [&str; 19] = [
    "echo",
    "mirror",
    "mirror-error",
    "talk",
    "strict",
    "fail",
    "broken",
    "liar",
    "hang",
    "progress",
    "prime",
    "ask",
    "ask-many",
    "url-error",
    "ask-modern",
    "stream-hang",
    "region",
    "flood",
    "die",
];

fn granted(url: &str) -> World {
    let rule = Rule {
        servers: vec!["files".into()],
        tools: TOOLS.map(str::to_owned).into(),
        resources: vec!["test://*".into()],
        prompts: vec!["greet".into()],
    };
    World::new()
        .group("acme")
        .server("acme", "files", url)
        .account("acme", "ci")
        .account("acme", "guest")
        .grant("acme", vec![rule], vec![Subject::ServiceAccount("ci".parse().unwrap())])
}

/// One group with one server at `url`; `ci` may use all of it but what is called hidden, `guest`
/// nothing.
pub fn world(url: &str) -> World {
    let any = json!({"type": "object"});
    let strict = json!({
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}},
        "required": ["n"],
    });
    let mut world = granted(url)
        .tool_of("acme", "files", &json!({"name": "strict", "inputSchema": strict, "x-n": 1.10}))
        .tool_of(
            "acme",
            "files",
            &json!({"name": "liar", "inputSchema": any, "outputSchema": {
                "type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"],
            }}),
        )
        .tool_of(
            "acme",
            "files",
            &json!({"name": "region", "inputSchema": {"type": "object", "properties": {
                "region": {"type": "string", "x-mcp-header": "Region"}}}}),
        );
    for tool in [
        "echo",
        "mirror",
        "mirror-error",
        "talk",
        "fail",
        "broken",
        "hang",
        "progress",
        "prime",
        "ask",
        "ask-many",
        "url-error",
        "ask-modern",
        "stream-hang",
        "flood",
        "die",
        "hidden",
    ] {
        world = world.tool("acme", "files", tool);
    }
    world
        .define("acme", "files", DefinitionKind::Resource, &json!({"uri": "test://a", "name": "a"}))
        .define(
            "acme",
            "files",
            DefinitionKind::Template,
            &json!({"uriTemplate": "test://t/{id}", "name": "t"}),
        )
        .define("acme", "files", DefinitionKind::Prompt, &json!({"name": "greet"}))
        .define("acme", "files", DefinitionKind::Prompt, &json!({"name": "secret"}))
}
