//! Compiles the pinned definitions of one server version.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{
    CatalogView, Hints, ParamHeader, PlainView, PromptArgument, ServerView, ToolView, headers,
};
use crate::bounds;
use crate::id::{Digest, Name};
use crate::naming;
use crate::resource::{Catalog, CatalogEntry, Definition, DefinitionKind, Spec};
use crate::schema::Schema;

/// Schemas of one compilation, by digest of the text: versions of a server, and tools that take
/// nothing, share theirs.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    known: RefCell<HashMap<Digest, Result<Arc<Schema>, String>>>,
}

impl Schemas {
    fn get(&self, text: Bytes, value: &Value) -> Result<Arc<Schema>, String> {
        let digest = Digest::of(&text);
        if let Some(known) = self.known.borrow().get(&digest) {
            return known.clone();
        }
        let schema = Schema::new(text, value).map(Arc::new);
        self.known.borrow_mut().insert(digest, schema.clone());
        schema
    }
}

/// What earlier catalogs of the same server lend, by digest of the definition.
#[derive(Debug, Default)]
pub(super) struct Lender<'a> {
    tools: HashMap<Digest, &'a Arc<ToolView>>,
    plain: HashMap<(DefinitionKind, Digest), &'a Arc<PlainView>>,
}

impl<'a> Lender<'a> {
    pub(super) fn of(server: Option<&'a ServerView>) -> Self {
        let mut lender = Self::default();
        let catalogs =
            server.into_iter().flat_map(|s| &s.versions).filter_map(|v| v.catalog.as_ref());
        for catalog in catalogs {
            lender.tools.extend(catalog.tools.iter().map(|t| (t.digest, t)));
            let kinds = [
                (DefinitionKind::Resource, &catalog.resources),
                (DefinitionKind::Template, &catalog.templates),
                (DefinitionKind::Prompt, &catalog.prompts),
            ];
            for (kind, list) in kinds {
                lender.plain.extend(list.iter().map(|p| ((kind, p.digest), p)));
            }
        }
        lender
    }
}

/// Compiles a catalog. `definition` finds a definition by digest.
///
/// # Errors
/// The index and digest of the first entry whose definition is missing.
pub(super) fn compile<'a>(
    server: &Name,
    (catalog, digest): (&Catalog, Digest),
    (lender, schemas): (&Lender<'_>, &Schemas),
    definition: impl Fn(&Digest) -> Option<&'a Spec>,
) -> Result<CatalogView, (usize, Digest)> {
    let mut view = CatalogView::empty(catalog.era);
    view.digest = digest;
    view.server_info = catalog.server_info.clone();
    view.capabilities = catalog.capabilities.clone();
    view.instructions.clone_from(&catalog.instructions);
    for (at, entry) in catalog.entries.iter().enumerate() {
        // Also what earlier views lend must still be in the set: what is gone is not served.
        let spec = definition(&entry.digest).ok_or((at, entry.digest))?;
        let Spec::Definition(Definition { json }) = spec else {
            let reason = "its definition cannot be read by this build".to_owned();
            view.dropped.push((entry.name.clone(), reason));
            continue;
        };
        let added = match entry.kind {
            DefinitionKind::Tool => {
                let lent = lender.tools.get(&entry.digest).filter(|t| t.name == entry.name);
                let tool = match lent {
                    Some(tool) => Ok(Arc::clone(tool)),
                    None => tool((server, schemas), entry, json).map(Arc::new),
                };
                tool.and_then(|tool| view.add_tool(tool))
            }
            kind => {
                let lent = lender.plain.get(&(kind, entry.digest)).filter(|p| p.name == entry.name);
                let plain = match lent {
                    Some(plain) => Ok(Arc::clone(plain)),
                    None => plain(server, entry, json).map(Arc::new),
                };
                plain.and_then(|plain| view.add_plain(kind, plain))
            }
        };
        if let Err(reason) = added {
            view.dropped.push((entry.name.clone(), reason));
        }
    }
    Ok(view)
}

const TAKEN: &str = "another definition has the same name";

/// Puts a name into an index and, where the exposed name is not just server and name, the exposed
/// name into the other.
fn enter(
    (names, short): (&mut HashMap<String, usize>, &mut HashMap<String, usize>),
    (name, exposed): (&str, &str),
    at: usize,
) -> Result<(), String> {
    if names.contains_key(name) || short.contains_key(exposed) {
        return Err(TAKEN.to_owned());
    }
    names.insert(name.to_owned(), at);
    if naming::split(exposed).is_none_or(|(_, part)| part != name) {
        short.insert(exposed.to_owned(), at);
    }
    Ok(())
}

impl CatalogView {
    fn add_tool(&mut self, tool: Arc<ToolView>) -> Result<(), String> {
        let index = (&mut self.index.tools, &mut self.index.short_tools);
        enter(index, (&tool.name, &tool.exposed), self.tools.len())?;
        self.tools.push(tool);
        Ok(())
    }

    fn add_plain(&mut self, kind: DefinitionKind, plain: Arc<PlainView>) -> Result<(), String> {
        match kind {
            DefinitionKind::Prompt => {
                let index = (&mut self.index.prompts, &mut self.index.short_prompts);
                enter(index, (&plain.name, &plain.exposed), self.prompts.len())?;
                self.prompts.push(plain);
            }
            DefinitionKind::Resource => {
                if self.index.resources.contains_key(&plain.name) {
                    return Err(TAKEN.to_owned());
                }
                self.index.resources.insert(plain.name.clone(), self.resources.len());
                self.resources.push(plain);
            }
            DefinitionKind::Template | DefinitionKind::Tool => self.templates.push(plain),
        }
        Ok(())
    }
}

/// The members of a tool that the gateway reads. A repeated one is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolDefinition<'a> {
    name: String,
    #[serde(default, borrow)]
    input_schema: Option<&'a RawValue>,
    #[serde(default, borrow)]
    output_schema: Option<&'a RawValue>,
    #[serde(default)]
    annotations: Option<Value>,
    #[serde(default, borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

fn tool(
    (server, schemas): (&Name, &Schemas),
    entry: &CatalogEntry,
    json: &str,
) -> Result<ToolView, String> {
    verify(entry, json)?;
    let raw = Bytes::copy_from_slice(json.as_bytes());
    let tool: ToolDefinition<'_> =
        serde_json::from_slice(&raw).map_err(|e| format!("is no definition of a tool: {e}"))?;
    if tool.name != entry.name {
        return Err("its definition has another name than its catalog".to_owned());
    }
    let exposed = naming::exposed(server, &tool.name);
    let renamed = naming::rename(json, &exposed).ok_or("its name cannot be found")?;
    let within = |text: &RawValue| raw.slice_ref(text.get().as_bytes());
    let (input, param_headers) = match tool.input_schema {
        Some(text) => input(within(text), schemas),
        None => (Err("the tool has no inputSchema".to_owned()), Ok(Vec::new())),
    };
    let output = tool.output_schema.map(|text| {
        let text = within(text);
        let value = parsed(&text)?;
        schemas.get(text, &value)
    });
    let input_digest = tool.input_schema.map(digest);
    let output_digest = tool.output_schema.map(digest);
    Ok(ToolView {
        name: tool.name,
        exposed,
        raw_exposed: Bytes::from(renamed),
        digest: entry.digest,
        hints: hints(tool.annotations.as_ref()),
        cost: cost(tool.meta),
        raw,
        input,
        output,
        input_digest,
        output_digest,
        param_headers,
    })
}

fn digest(schema: &RawValue) -> Digest {
    Digest::of(schema.get().as_bytes())
}

type Input = (Result<Arc<Schema>, String>, Result<Vec<ParamHeader>, String>);

/// An input schema, and the headers that it asks for.
fn input(text: Bytes, schemas: &Schemas) -> Input {
    let refused = |reason| (Err(reason), Ok(Vec::new()));
    let value = match parsed(&text) {
        Ok(value) => value,
        Err(reason) => return refused(reason),
    };
    // Clients refuse a whole list for one tool whose schema is of another type.
    if value.get("type").and_then(Value::as_str) != Some("object") {
        return refused("the inputSchema must have the type object".to_owned());
    }
    match schemas.get(text, &value) {
        Ok(schema) => (Ok(schema), headers::read(&value)),
        Err(reason) => refused(reason),
    }
}

fn parsed(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(text).map_err(|e| format!("is no JSON: {e}"))
}

/// What the server says that a call costs; anything but a number within bounds is 1.
fn cost(meta: Option<&RawValue>) -> u32 {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "dev.weir/cost")]
        cost: u32,
    }
    let said = meta.and_then(|meta| serde_json::from_str::<Meta>(meta.get()).ok());
    said.map_or(1, |meta| meta.cost.clamp(1, bounds::TOOL_COST_MAX))
}

fn hints(annotations: Option<&Value>) -> Hints {
    let default = Hints::default();
    let hint = |name: &str, default: bool| {
        annotations.and_then(|a| a.get(name)).and_then(Value::as_bool).unwrap_or(default)
    };
    Hints {
        read_only: hint("readOnlyHint", default.read_only),
        destructive: hint("destructiveHint", default.destructive),
        idempotent: hint("idempotentHint", default.idempotent),
        open_world: hint("openWorldHint", default.open_world),
    }
}

/// The member that names a definition of another kind. A repeated one is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlainDefinition {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    uri: Option<String>,
    #[serde(default)]
    uri_template: Option<String>,
    #[serde(default)]
    arguments: Option<Value>,
}

fn plain(server: &Name, entry: &CatalogEntry, json: &str) -> Result<PlainView, String> {
    verify(entry, json)?;
    let plain: PlainDefinition =
        serde_json::from_str(json).map_err(|e| format!("is no definition: {e}"))?;
    let named = match entry.kind {
        DefinitionKind::Resource => plain.uri,
        DefinitionKind::Template => plain.uri_template,
        DefinitionKind::Prompt | DefinitionKind::Tool => plain.name,
    };
    if named.as_deref() != Some(entry.name.as_str()) {
        return Err("its definition has another name than its catalog".to_owned());
    }
    let arguments = match (entry.kind, plain.arguments) {
        (DefinitionKind::Prompt, Some(list)) => Some(prompt_arguments(list)?),
        _ => None,
    };
    let raw = Bytes::copy_from_slice(json.as_bytes());
    let (exposed, raw_exposed) = if entry.kind == DefinitionKind::Prompt {
        let exposed = naming::exposed(server, &entry.name);
        let renamed = naming::rename(json, &exposed).ok_or("its name cannot be found")?;
        (exposed, Bytes::from(renamed))
    } else {
        (entry.name.clone(), raw.clone())
    };
    let (name, digest) = (entry.name.clone(), entry.digest);
    Ok(PlainView { name, exposed, raw, raw_exposed, digest, arguments })
}

/// The arguments that a prompt declares, sorted by name.
fn prompt_arguments(list: Value) -> Result<Vec<PromptArgument>, String> {
    #[derive(Deserialize)]
    struct Declared {
        name: String,
        #[serde(default)]
        required: Option<bool>,
    }
    let all: Vec<Declared> = serde_json::from_value(list)
        .map_err(|e| format!("its arguments are no list of arguments: {e}"))?;
    let mut all: Vec<PromptArgument> = all
        .into_iter()
        .map(|one| PromptArgument { name: one.name, required: one.required.unwrap_or(false) })
        .collect();
    all.sort();
    if all.windows(2).any(|two| two[0].name == two[1].name) {
        return Err("two of its arguments have the same name".to_owned());
    }
    Ok(all)
}

/// A definition document is named by a part of the digest; the catalog says all of it.
fn verify(entry: &CatalogEntry, json: &str) -> Result<(), String> {
    if Digest::of(json.as_bytes()) == entry.digest {
        Ok(())
    } else {
        Err("its definition has another digest than its catalog says".to_owned())
    }
}
