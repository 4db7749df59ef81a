//! Reading everything that a server offers, byte for byte.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::observation::{Offer, Offered};
use weir_model::reason::Refusal;
use weir_model::resource::DefinitionKind;
use weir_model::snapshot::VersionView;

use crate::call::credential::Headers;
use crate::upstream::handshake::Description;
use crate::upstream::{Front, Message, Outbound, Upstreams, adapt, raw, refuse};

/// How long one question may take, whatever the server's own limit for calls.
const QUESTION: Duration = Duration::from_secs(30);

/// What a server may have, in the order in which it is reported: the capability, the method, the
/// member that holds the list, the member that names an entry.
const LISTS: [(&str, &str, &str, &str, DefinitionKind); 4] = [
    ("tools", "tools/list", "tools", "name", DefinitionKind::Tool),
    ("resources", "resources/list", "resources", "uri", DefinitionKind::Resource),
    (
        "resources",
        "resources/templates/list",
        "resourceTemplates",
        "uriTemplate",
        DefinitionKind::Template,
    ),
    ("prompts", "prompts/list", "prompts", "name", DefinitionKind::Prompt),
];

/// What the observer says it can be asked: everything, since some servers offer tools only to
/// clients that can. Nobody stands behind it: roots are none, all else is answered as unknown.
const ABLE: &str = r#"{"roots":{},"sampling":{},"elicitation":{"form":{},"url":{}}}"#;

/// A question of the gateway itself.
pub(super) fn request(version: &Arc<VersionView>, credentials: Headers) -> Outbound {
    Outbound {
        version: Arc::clone(version),
        front: Front {
            modern: true,
            revision: adapt::MODERN.to_owned(),
            client_info: None,
            capabilities: Bytes::from_static(ABLE.as_bytes()),
            isolation: "weir observer".to_owned(),
            log_level: None,
        },
        id: None,
        method: String::new(),
        params: None,
        name: None,
        tool: None,
        param_headers: Vec::new(),
        credentials,
        session: None,
        deadline: Instant::now() + QUESTION,
        traceparent: None,
        retries: Arc::default(),
    }
}

/// The request for the stream of changes.
pub(super) fn listen(version: &Arc<VersionView>, credentials: Headers) -> Outbound {
    let filter = Bytes::from_static(
        br#"{"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}}"#,
    );
    let mut question = request(version, credentials);
    // A session of its own: that of a look ends with the look.
    question.front.isolation.push_str(" that listens");
    Outbound {
        method: "subscriptions/listen".to_owned(),
        params: Some(filter),
        deadline: Instant::now() + Duration::from_millis(bounds::STREAM_MS),
        ..question
    }
}

/// Everything that the server offers, and whether it tells listeners of changes.
pub(super) async fn offer(
    upstreams: &Upstreams,
    request: &Outbound,
) -> Result<(Offer, bool), Refusal> {
    let described = upstreams.describe(request).await?;
    let capabilities = raw::member(&described.offer, "capabilities").map(value);
    let capabilities = capabilities.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let mut definitions = Vec::new();
    for (capability, method, member, name, kind) in LISTS {
        if capabilities.get(capability).is_none_or(Value::is_null) {
            continue;
        }
        let list = List { method, member, name, kind };
        list.read(upstreams, request, &mut definitions).await?;
    }
    let listens = ["tools", "resources", "prompts"].iter().any(|one| {
        capabilities.get(one).and_then(|c| c.get("listChanged")) == Some(&Value::Bool(true))
    });
    Ok((about(described, capabilities, definitions), listens))
}

fn about(described: Description, capabilities: Value, definitions: Vec<Offered>) -> Offer {
    let raw = &described.offer;
    let info = raw::member(raw, "serverInfo")
        .or_else(|| raw::at(raw, &["_meta", "io.modelcontextprotocol/serverInfo"]));
    let instructions = raw::text(raw, "instructions")
        .filter(|text| text.len() <= bounds::INSTRUCTIONS_BYTES_MAX && !text.is_empty());
    Offer {
        era: described.verdict.observed(),
        revision: described.revision,
        server_info: info.map_or(Value::Null, value),
        capabilities,
        instructions,
        definitions,
    }
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or(Value::Null)
}

/// One of the lists.
struct List {
    method: &'static str,
    member: &'static str,
    name: &'static str,
    kind: DefinitionKind,
}

impl List {
    /// Reads all pages. A server that does not have the method after all has an empty list.
    async fn read(
        &self,
        upstreams: &Upstreams,
        request: &Outbound,
        into: &mut Vec<Offered>,
    ) -> Result<(), Refusal> {
        let mut names = HashSet::new();
        let mut cursor: Option<String> = None;
        for _ in 0..bounds::LIST_PAGES_MAX {
            let params = cursor.as_ref().map(|cursor| format!("{{\"cursor\":{cursor}}}").into());
            let question = Outbound {
                method: self.method.to_owned(),
                params,
                deadline: Instant::now() + QUESTION,
                ..request.clone()
            };
            let Some(page) = answer(upstreams, question).await? else { return Ok(()) };
            self.page(&page, &mut names, into)?;
            let next = raw::member(&page, "nextCursor").map(RawValue::get);
            match next.filter(|next| *next != "null") {
                None => return Ok(()),
                Some(next) if cursor.as_deref() == Some(next) => {
                    return Err(refuse::protocol(format!("{} repeats a cursor", self.method)));
                }
                Some(next) => cursor = Some(next.to_owned()),
            }
        }
        Err(refuse::protocol(format!("{} has too many pages", self.method)))
    }

    fn page(
        &self,
        page: &Bytes,
        names: &mut HashSet<String>,
        into: &mut Vec<Offered>,
    ) -> Result<(), Refusal> {
        let broken = || refuse::protocol(format!("{} has no list", self.method));
        let list = raw::member(page, self.member).ok_or_else(broken)?;
        let entries: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| broken())?;
        for entry in entries {
            let text = entry.get();
            let Some(name) = raw::text(text.as_bytes(), self.name) else {
                tracing::warn!(method = self.method, "a definition without a name is left out");
                continue;
            };
            if text.len() > bounds::DEFINITION_BYTES_MAX || name.len() > bounds::URI_BYTES_MAX {
                tracing::warn!(method = self.method, "a definition over the bound is left out");
                continue;
            }
            // The first of a name is the one that is served.
            if !names.insert(name.clone()) {
                continue;
            }
            if names.len() > bounds::CATALOG_ENTRIES_MAX {
                return Err(refuse::protocol(format!("{} has too many entries", self.method)));
            }
            into.push(Offered { kind: self.kind, name, json: text.to_owned() });
        }
        Ok(())
    }
}

/// The result of a question; none when the server does not know the method.
async fn answer(upstreams: &Upstreams, question: Outbound) -> Result<Option<Bytes>, Refusal> {
    let method = question.method.clone();
    let last = upstreams.call(question).await?.last().await?;
    match last {
        Message::Result(result) => Ok(Some(result)),
        Message::Error(error) => {
            let code = raw::member(&error, "code").map(RawValue::get).unwrap_or_default();
            if code == "-32601" {
                return Ok(None);
            }
            Err(refuse::protocol(format!("{method} was answered with error {code}")))
        }
        _ => Err(refuse::protocol(format!("{method} has no answer"))),
    }
}

/// Of everything in an offer, to see whether it is news.
pub(super) fn digest(offer: &Offer) -> Digest {
    let mut text = format!(
        "{:?} {} {} {} {:?}",
        offer.era, offer.revision, offer.server_info, offer.capabilities, offer.instructions
    );
    for one in &offer.definitions {
        text.push_str(&format!(
            "\n{:?} {} {}",
            one.kind,
            one.name,
            Digest::of(one.json.as_bytes())
        ));
    }
    Digest::of(text.as_bytes())
}
