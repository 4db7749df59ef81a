//! From text to untyped documents: YAML or JSON, bounded, with repeated keys noticed.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::path::join_key;
use crate::bounds;

/// One document before anything is known about it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// What it says; of a repeated key the first value counts.
    pub(super) value: Value,
    /// Paths of repeated keys.
    pub(super) duplicates: Vec<String>,
}

/// The documents of a text that can be read, and why reading ended early.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) trees: Vec<Tree>,
    /// With the number of the document (from 1) that it is about.
    pub(super) errors: Vec<(usize, String)>,
}

impl Forest {
    fn fail(number: usize, message: impl Into<String>) -> Self {
        Self { trees: Vec::new(), errors: vec![(number, message.into())] }
    }
}

/// Reads all documents of a text. A list, or a mapping with `items`, stands for its members.
pub(super) fn read(text: &str) -> Forest {
    if text.len() > bounds::APPLY_BODY_BYTES_MAX {
        let max = bounds::APPLY_BODY_BYTES_MAX;
        return Forest::fail(1, format!("the text is longer than {max} bytes; split it"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut forest = match text.trim_start().as_bytes().first() {
        Some(b'{' | b'[') => read_json(text).unwrap_or_else(|message| {
            // Flow style YAML begins like JSON. When neither can read it, JSON's complaint is
            // the useful one.
            let forest = read_yaml(text);
            if forest.errors.is_empty() { forest } else { Forest::fail(1, message) }
        }),
        _ => read_yaml(text),
    };
    forest.trees = forest.trees.into_iter().flat_map(members).collect();
    let max = bounds::APPLY_DOCUMENTS_MAX;
    if forest.trees.len() > max {
        forest.errors.push((max + 1, format!("more than {max} documents; apply them in parts")));
        forest.trees.truncate(max);
    }
    forest
}

fn read_json(text: &str) -> Result<Forest, String> {
    let tree = serde_json::from_str::<Tree>(text).map_err(|e| {
        let message = e.to_string();
        let what = message.split(" at line ").next().unwrap_or_default().to_owned();
        format!("not valid JSON at line {}, column {}: {what}", e.line(), e.column())
    })?;
    Ok(Forest { trees: vec![tree], errors: Vec::new() })
}

fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(bounds::APPLY_BODY_BYTES_MAX),
            max_depth: bounds::JSON_DEPTH_MAX,
            flow_nesting_limit: bounds::JSON_DEPTH_MAX,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: bounds::APPLY_BODY_BYTES_MAX,
            max_total_scalar_bytes: bounds::APPLY_BODY_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 1_000,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        // `no` is a word, `010` and `1_000` are texts: nobody is surprised by a guess.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        // A snippet would repeat a secret of the document.
        with_snippet: false,
    }
}

fn read_yaml(text: &str) -> Forest {
    let mut forest = Forest::default();
    let mut reader = text.as_bytes();
    let max = bounds::APPLY_DOCUMENTS_MAX;
    for item in serde_saphyr::read_with_options::<_, Tree>(&mut reader, yaml_options()) {
        match item {
            Ok(tree) => forest.trees.push(tree),
            Err(error) => {
                let number = forest.trees.len() + forest.errors.len() + 1;
                forest.errors.push((number, yaml_message(&error)));
            }
        }
        if forest.trees.len() > max || forest.errors.len() >= bounds::FIELD_ERRORS_MAX {
            break;
        }
    }
    forest
}

fn yaml_message(error: &serde_saphyr::Error) -> String {
    let place = error
        .location()
        .map(|at| format!(" at line {}, column {}", at.line(), at.column()))
        .unwrap_or_default();
    let text = error.to_string();
    // The library repeats the position in front of its own sentence or behind it.
    let text = text.lines().next().unwrap_or_default();
    let text = text.split(" at line ").next().unwrap_or_default();
    let text =
        text.split_once(": ").filter(|(head, _)| head.starts_with("line ")).map_or(text, |p| p.1);
    format!("not valid YAML{place}: {text}")
}

/// What a list, or a mapping with `items`, stands for.
fn members(tree: Tree) -> Vec<Tree> {
    let Tree { value, duplicates } = tree;
    let (prefix, items) = match value {
        Value::Array(items) => (String::new(), items),
        Value::Object(mut map) if map.contains_key("items") && !map.contains_key("spec") => {
            match map.remove("items") {
                Some(Value::Array(items)) => ("items".to_owned(), items),
                Some(other) => {
                    map.insert("items".to_owned(), other);
                    return vec![Tree { value: Value::Object(map), duplicates }];
                }
                None => return Vec::new(),
            }
        }
        value => return vec![Tree { value, duplicates }],
    };
    let mut trees: Vec<Tree> =
        items.into_iter().map(|value| Tree { value, duplicates: Vec::new() }).collect();
    for path in duplicates {
        let owner = path
            .strip_prefix(prefix.as_str())
            .and_then(|rest| rest.strip_prefix('['))
            .and_then(|rest| rest.split_once(']'))
            .and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest)));
        if let Some((index, rest)) = owner {
            if let Some(tree) = trees.get_mut(index) {
                tree.duplicates.push(rest.trim_start_matches('.').to_owned());
            }
        } else if let Some(tree) = trees.first_mut() {
            tree.duplicates.push(path);
        }
    }
    trees
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

fn leaf<E>(value: impl Into<Value>) -> Result<Tree, E> {
    Ok(Tree { value: value.into(), duplicates: Vec::new() })
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Tree, E> {
        leaf(v)
    }
    fn visit_i64<E>(self, v: i64) -> Result<Tree, E> {
        leaf(v)
    }
    fn visit_u64<E>(self, v: u64) -> Result<Tree, E> {
        leaf(v)
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Tree, E> {
        leaf(Number::from_f64(v).ok_or_else(|| E::custom("a number must be finite"))?)
    }
    fn visit_str<E>(self, v: &str) -> Result<Tree, E> {
        leaf(v)
    }
    fn visit_string<E>(self, v: String) -> Result<Tree, E> {
        leaf(v)
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        leaf(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Tree, E> {
        leaf(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Tree, D::Error> {
        Tree::deserialize(d)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let (mut items, mut duplicates) = (Vec::new(), Vec::new());
        while let Some(tree) = seq.next_element::<Tree>()? {
            let index = items.len();
            duplicates.extend(tree.duplicates.into_iter().map(|inner| {
                let dot = if inner.starts_with('[') { "" } else { "." };
                format!("[{index}]{dot}{inner}")
            }));
            items.push(tree.value);
        }
        Ok(Tree { value: Value::Array(items), duplicates })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let (mut map, mut duplicates) = (Map::new(), Vec::new());
        while let Some(key) = access.next_key::<Tree>()? {
            let key = match key.value {
                Value::String(key) => key,
                Value::Number(number) => number.to_string(),
                Value::Bool(word) => word.to_string(),
                _ => return Err(A::Error::custom("a key must be text")),
            };
            let tree = access.next_value::<Tree>()?;
            for inner in tree.duplicates {
                let dot = if inner.starts_with('[') { "" } else { "." };
                duplicates.push(format!("{}{dot}{inner}", join_key("", &key)));
            }
            if map.contains_key(&key) {
                duplicates.push(join_key("", &key));
            } else {
                map.insert(key, tree.value);
            }
        }
        Ok(Tree { value: Value::Object(map), duplicates })
    }
}
