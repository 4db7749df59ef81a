//! What a tool's own schema marks as not to be kept: `writeOnly: true`, `format: "password"`,
//! `x-sensitive: true`. Such values are blanked in what records keep, whatever rules say.
//!
//! The walk errs on the blanking side: every branch of `anyOf` and the like counts, and members that
//! `properties` does not name fall under `additionalProperties` and every pattern. A schema that is too
//! winding to be followed has everything blanked.

use serde_json::Value;

use super::REDACTED;

/// Places of schema and value that are looked at together.
const STEPS_MAX: usize = 20_000;
/// Schemas within schemas.
const DEPTH_MAX: usize = 200;

/// Blanks what the schema marks, in place.
pub(super) fn blank(schema: &Value, value: &mut Value) {
    let mut walk = Walk { root: schema, steps: STEPS_MAX };
    if walk.at(schema, value, 0).is_none() {
        *value = Value::from(REDACTED);
    }
}

struct Walk<'a> {
    root: &'a Value,
    steps: usize,
}

impl Walk<'_> {
    /// None when it takes too long.
    fn at(&mut self, schema: &Value, value: &mut Value, depth: usize) -> Option<()> {
        self.steps = self.steps.checked_sub(1)?;
        if depth > DEPTH_MAX {
            return None;
        }
        if is_marked(schema) {
            *value = Value::from(REDACTED);
            return Some(());
        }
        let depth = depth + 1;
        if let Some(name) = schema["$ref"].as_str() {
            // What lies elsewhere is not fetched, for validation neither.
            let there = name.strip_prefix('#').and_then(|path| self.root.pointer(path));
            self.at(there?, value, depth)?;
        }
        for many in ["allOf", "anyOf", "oneOf"] {
            for branch in schema[many].as_array().into_iter().flatten() {
                self.at(branch, value, depth)?;
            }
        }
        for one in ["if", "then", "else", "not"] {
            if let Some(branch) = schema.get(one) {
                self.at(branch, value, depth)?;
            }
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    self.member(schema, (name, member), depth)?;
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    let own = schema["prefixItems"].get(at).or_else(|| schema["items"].get(at));
                    for schema in own.into_iter().chain([&schema["items"], &schema["contains"]]) {
                        self.at(schema, item, depth)?;
                    }
                }
            }
            _ => {}
        }
        Some(())
    }

    fn member(
        &mut self,
        schema: &Value,
        (name, member): (&str, &mut Value),
        depth: usize,
    ) -> Option<()> {
        if let Some(known) = schema["properties"].get(name) {
            return self.at(known, member, depth);
        }
        let patterns = schema["patternProperties"].as_object().into_iter().flatten();
        let others = ["additionalProperties", "unevaluatedProperties"].map(|name| &schema[name]);
        for schema in patterns.map(|(_, schema)| schema).chain(others) {
            self.at(schema, member, depth)?;
        }
        Some(())
    }
}

fn is_marked(schema: &Value) -> bool {
    let yes = |name: &str| schema[name] == Value::Bool(true);
    yes("writeOnly") || yes("x-sensitive") || schema["format"] == "password"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn marked_values_are_blanked_wherever_the_schema_reaches() {
        let secret = json!({"type": "string", "writeOnly": true});
        let r = REDACTED;
        for (schema, value, expect) in [
            (
                json!({"properties": {"a": secret}}),
                json!({"a": 1, "b": 2}),
                json!({"a": r, "b": 2}),
            ),
            (
                json!({"properties": {"a": {"format": "password"}}}),
                json!({"a": [1]}),
                json!({"a": r}),
            ),
            (
                json!({"properties": {"a": {"x-sensitive": true}}}),
                json!({"a": {}}),
                json!({"a": r}),
            ),
            (
                json!({"items": {"properties": {"a": secret}}}),
                json!([{"a": 1}, 2]),
                json!([{"a": r}, 2]),
            ),
            (json!({"prefixItems": [{}, secret]}), json!([1, 2, 3]), json!([1, r, 3])),
            (
                json!({"anyOf": [{}, {"properties": {"a": secret}}]}),
                json!({"a": 1}),
                json!({"a": r}),
            ),
            (
                json!({"properties": {"b": {}}, "additionalProperties": secret}),
                json!({"a": 1, "b": 2}),
                json!({"a": r, "b": 2}),
            ),
            (json!({"patternProperties": {"^k": secret}}), json!({"k1": 1}), json!({"k1": r})),
            (
                json!({"$ref": "#/$defs/t", "$defs": {"t": {"properties": {"a": secret, "t": {"$ref": "#"}}}}}),
                json!({"t": {"t": {"a": 1}}}),
                json!({"t": {"t": {"a": r}}}),
            ),
            (secret.clone(), json!({"a": 1}), json!(r)),
            (json!({"writeOnly": false, "properties": true}), json!({"a": 1}), json!({"a": 1})),
            // What cannot be followed hides nothing.
            (json!({"$ref": "https://elsewhere.test/s"}), json!({"a": 1}), json!(r)),
            (json!({"$ref": "#"}), json!(1), json!(r)),
            (json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}), json!(1), json!(r)),
        ] {
            let mut got = value.clone();
            blank(&schema, &mut got);
            assert_eq!(got, expect, "{schema} {value}");
        }
    }
}
