//! `x-mcp-header`: arguments that a 2026-07-28 client mirrors into `Mcp-Param-*` headers.
//!
//! An annotation counts only where it can be reached from the root of the input schema through
//! `properties` alone. Anywhere else, or with a name or a type that a header cannot have, it makes
//! the tool invalid: a client must not be shown it.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::tool::{ParamHeader, ParamType};
use crate::bounds;

const ANNOTATION: &str = "x-mcp-header";
const PREFIX: &str = "mcp-param-";
/// Longest name of a header.
const NAME_BYTES_MAX: usize = 128;

/// The arguments that the published definition of a tool wants mirrored into headers; none when it
/// has no input schema that could be read.
///
/// # Errors
/// Why clients over HTTP must not be shown the tool.
pub fn param_headers(definition: &str) -> Result<Vec<ParamHeader>, String> {
    #[derive(Deserialize)]
    struct Definition {
        #[serde(default, rename = "inputSchema")]
        schema: Value,
    }
    serde_json::from_str::<Definition>(definition).map_or(Ok(Vec::new()), |tool| read(&tool.schema))
}

/// The annotations of an input schema.
///
/// # Errors
/// Why the tool must not be listed.
pub(super) fn read(schema: &Value) -> Result<Vec<ParamHeader>, String> {
    let mut reader = Reader { found: Vec::new(), names: HashSet::new() };
    if let Value::Object(map) = schema {
        if map.contains_key(ANNOTATION) {
            return Err(format!(
                "{ANNOTATION} stands on the whole schema; it belongs to a property"
            ));
        }
        reader.properties(map, &mut Vec::new())?;
    }
    Ok(reader.found)
}

struct Reader {
    found: Vec<ParamHeader>,
    names: HashSet<String>,
}

impl Reader {
    /// Reads the properties of an object schema; all its other keywords must have no annotation.
    fn properties(
        &mut self,
        schema: &Map<String, Value>,
        path: &mut Vec<String>,
    ) -> Result<(), String> {
        for (keyword, value) in schema {
            match (keyword.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    for (name, property) in properties {
                        path.push(name.clone());
                        self.property(property, path)?;
                        path.pop();
                    }
                }
                // What these hold is data, not schema.
                (ANNOTATION | "const" | "enum" | "default" | "examples", _) => {}
                (_, other) if mentions(other) => {
                    return Err(format!("{ANNOTATION} below {keyword} cannot be mirrored"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn property(&mut self, property: &Value, path: &mut Vec<String>) -> Result<(), String> {
        let Value::Object(schema) = property else { return Ok(()) };
        if let Some(name) = schema.get(ANNOTATION) {
            self.annotation(name, schema, path)?;
        }
        self.properties(schema, path)
    }

    fn annotation(
        &mut self,
        name: &Value,
        schema: &Map<String, Value>,
        path: &[String],
    ) -> Result<(), String> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let name = name
            .as_str()
            .filter(|n| !n.is_empty() && n.len() <= NAME_BYTES_MAX && n.bytes().all(token))
            .ok_or_else(|| format!("{ANNOTATION} is not the name of a header"))?;
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("string") => ParamType::String,
            Some("integer") => ParamType::Integer,
            Some("boolean") => ParamType::Boolean,
            _ => return Err(format!("{ANNOTATION} {name} is not on a string, integer or boolean")),
        };
        let header = format!("{PREFIX}{}", name.to_ascii_lowercase());
        if !self.names.insert(header.clone()) {
            return Err(format!("{ANNOTATION} {name} is given twice"));
        }
        if self.found.len() >= bounds::HEADERS_MAX / 2 {
            return Err(format!("{ANNOTATION} is given too often"));
        }
        self.found.push(ParamHeader { path: path.to_vec(), header, kind });
        Ok(())
    }
}

/// True when the annotation occurs anywhere inside. Schemas are bounded in depth by then, or are
/// refused for it elsewhere.
fn mentions(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, inner)| key == ANNOTATION || mentions(inner)),
        Value::Array(items) => items.iter().any(mentions),
        _ => false,
    }
}
