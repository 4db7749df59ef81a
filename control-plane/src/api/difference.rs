//! What differs between two documents, field by field.

use serde::Serialize;
use serde_json::Value;

/// Fields that one document's difference names.
const FIELDS_MAX: usize = 200;

/// One field that differs; absent on the side where it does not exist.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Field {
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Value>,
}

/// The smallest fields that differ, in the order of the documents.
pub(super) fn fields(before: &Value, after: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    compare(&mut found, "", Some(before), Some(after));
    found
}

fn compare(found: &mut Vec<Field>, path: &str, before: Option<&Value>, after: Option<&Value>) {
    if before == after || found.len() >= FIELDS_MAX {
        return;
    }
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|name| !old.contains_key(*name));
            for name in old.keys().chain(added) {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                compare(found, &path, old.get(name), new.get(name));
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for i in 0..old.len().max(new.len()) {
                compare(found, &format!("{path}[{i}]"), old.get(i), new.get(i));
            }
        }
        (before, after) => found.push(Field {
            path: path.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_smallest_fields_that_differ_are_named() {
        let before = json!({"a": 1, "b": {"c": [1, 2], "gone": true}, "same": {"x": 1}});
        let after = json!({"a": 1, "b": {"c": [1, 3, 4]}, "same": {"x": 1}, "new": null});
        let told: Vec<_> = fields(&before, &after)
            .into_iter()
            .map(|field| (field.path, field.before, field.after))
            .collect();
        assert_eq!(
            told,
            [
                ("b.c[1]".to_owned(), Some(json!(2)), Some(json!(3))),
                ("b.c[2]".to_owned(), None, Some(json!(4))),
                ("b.gone".to_owned(), Some(json!(true)), None),
                ("new".to_owned(), None, Some(json!(null))),
            ]
        );
        assert!(fields(&before, &before).is_empty());
    }
}
