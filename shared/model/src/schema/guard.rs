//! What a schema would cost, found out without compiling it.
//!
//! Small schemas become expensive in a few ways, and the library bounds none of them: references
//! that fan out (each step of a ladder doubles the work), chains that recurse deep, nested
//! `unevaluated*` on one value (each evaluates all below it again), and patterns that backtrack.
//! They are measured on the graph of subschemas whose edges are keywords and references.
//!
//! Stricter than the specification in three points, which tools do not use: a reference must stay
//! within the schema, only the outermost schema may have an `$id`, and no schema may apply itself
//! to the same value.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::bounds;

/// What validation by a schema may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Subschemas that one value can meet when every reference is followed.
    expansion: u64,
    /// References back to a schema that is being applied further up.
    returns: u64,
    /// Longest run of subschemas that apply to one and the same value.
    chain: usize,
}

/// How much may be said about a value that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Everything.
    All,
    /// The first violation: finding all of them would take too long.
    First,
    /// That there is one. Unlike a verdict, a list of violations is not remembered per part of a
    /// recursive value, so that it can take exponential time.
    Verdict,
}

impl Shape {
    /// Says why a value is too large or too deep to be checked, when it is.
    pub(super) fn affords(self, value: &Value) -> Result<Detail, String> {
        let mut size = Size::default();
        size.measure(value, 1);
        if size.depth > bounds::JSON_DEPTH_MAX
            || size.depth.saturating_mul(self.chain) > bounds::SCHEMA_FRAMES_MAX
        {
            return Err("is nested too deep to be checked".to_owned());
        }
        let work = size.nodes.saturating_mul(self.expansion);
        if work > bounds::SCHEMA_WORK_MAX {
            return Err("is too large to be checked".to_owned());
        }
        let depth = u32::try_from(size.depth).unwrap_or(u32::MAX);
        let listing = work.saturating_mul(self.returns.max(1).saturating_pow(depth));
        Ok(match listing <= bounds::SCHEMA_LISTING_MAX {
            true => Detail::All,
            false if self.returns == 0 => Detail::First,
            false => Detail::Verdict,
        })
    }
}

#[derive(Debug, Default)]
struct Size {
    nodes: u64,
    depth: usize,
}

impl Size {
    fn measure(&mut self, value: &Value, depth: usize) {
        self.nodes += 1;
        self.depth = self.depth.max(depth);
        // Parsers stop at 128 levels; nothing deeper gets here.
        match value {
            Value::Array(items) => items.iter().for_each(|v| self.measure(v, depth + 1)),
            Value::Object(map) => map.values().for_each(|v| self.measure(v, depth + 1)),
            _ => {}
        }
    }
}

/// Keywords whose value is a schema that applies to the same value.
const SAME_ONE: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords whose value is a list of schemas that apply to the same value.
const SAME_LIST: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords whose value maps names to schemas that apply to the same value.
const SAME_MAP: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Keywords whose value is a schema that applies to members or elements.
const BELOW_ONE: [&str; 8] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "contentSchema",
];
/// Keywords whose value is a list of schemas that apply to elements.
const BELOW_LIST: [&str; 2] = ["prefixItems", "items"];
/// Keywords whose value maps names to schemas that apply to members.
const BELOW_MAP: [&str; 2] = ["properties", "patternProperties"];
/// Keywords whose value maps names to schemas that apply when something refers to them.
const STORE: [&str; 2] = ["$defs", "definitions"];

type Address = *const Value;

fn address(schema: &Value) -> Address {
    std::ptr::from_ref(schema)
}

/// Measures a schema.
///
/// # Errors
/// Says which bound it breaks.
pub(super) fn measure(schema: &Value) -> Result<Shape, String> {
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return Err("must be an object".to_owned());
    }
    if depth(schema) > bounds::SCHEMA_DEPTH_MAX {
        return Err(format!("is nested deeper than {} levels", bounds::SCHEMA_DEPTH_MAX));
    }
    if length(schema) > bounds::SCHEMA_BYTES_MAX {
        return Err(format!("is longer than {} bytes", bounds::SCHEMA_BYTES_MAX));
    }
    let mut index = Index { root: schema, base: own_id(schema), anchors: HashMap::new(), count: 0 };
    index.read(schema, true)?;
    let mut walk = Walk {
        index: &index,
        known: HashMap::new(),
        open: HashSet::new(),
        seen: Vec::new(),
        visits: 0,
    };
    let Weight { expansion, returns } = walk.weigh(schema)?.0;
    if expansion > bounds::SCHEMA_EXPANSION_MAX {
        return Err(format!(
            "expands to more than {} subschemas when its references are followed",
            bounds::SCHEMA_EXPANSION_MAX
        ));
    }
    let run = longest_runs(&index, walk.seen)?;
    if run.unevaluated > bounds::SCHEMA_UNEVALUATED_MAX {
        return Err(format!(
            "nests unevaluatedProperties or unevaluatedItems more than {} times",
            bounds::SCHEMA_UNEVALUATED_MAX
        ));
    }
    if run.length > bounds::SCHEMA_CHAIN_MAX {
        return Err(format!(
            "applies more than {} subschemas in a row to one value",
            bounds::SCHEMA_CHAIN_MAX
        ));
    }
    Ok(Shape { expansion, returns, chain: run.length })
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Bytes of the compact form.
fn length(value: &Value) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}

fn own_id(schema: &Value) -> Option<&str> {
    let id = schema.get("$id").or_else(|| schema.get("id")).and_then(Value::as_str)?;
    Some(id.strip_suffix('#').unwrap_or(id))
}

/// How an edge of the graph applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// To the same value.
    Same,
    /// To a member or an element.
    Below,
    /// Not by itself.
    Stored,
}

/// The schemas that the keywords of a schema hold.
fn children<'a>(map: &'a Map<String, Value>, mut each: impl FnMut(Edge, &'a Value)) {
    for (keyword, value) in map {
        let keyword = keyword.as_str();
        match value {
            Value::Object(members) => {
                let edge = match keyword {
                    k if SAME_ONE.contains(&k) => return_one(&mut each, Edge::Same, value),
                    k if BELOW_ONE.contains(&k) => return_one(&mut each, Edge::Below, value),
                    k if SAME_MAP.contains(&k) => Some(Edge::Same),
                    k if BELOW_MAP.contains(&k) => Some(Edge::Below),
                    k if STORE.contains(&k) => Some(Edge::Stored),
                    _ => None,
                };
                if let Some(edge) = edge {
                    // `dependencies` may also hold lists of names.
                    members.values().filter(|v| !v.is_array()).for_each(|v| each(edge, v));
                }
            }
            Value::Bool(_) if SAME_ONE.contains(&keyword) => each(Edge::Same, value),
            Value::Bool(_) if BELOW_ONE.contains(&keyword) => each(Edge::Below, value),
            Value::Array(items) if SAME_LIST.contains(&keyword) => {
                items.iter().for_each(|v| each(Edge::Same, v));
            }
            Value::Array(items) if BELOW_LIST.contains(&keyword) => {
                items.iter().for_each(|v| each(Edge::Below, v));
            }
            _ => {}
        }
    }
}

fn return_one<'a>(
    each: &mut impl FnMut(Edge, &'a Value),
    edge: Edge,
    value: &'a Value,
) -> Option<Edge> {
    each(edge, value);
    None
}

/// What references can lead to.
struct Index<'a> {
    root: &'a Value,
    base: Option<&'a str>,
    anchors: HashMap<&'a str, &'a Value>,
    count: usize,
}

impl<'a> Index<'a> {
    fn read(&mut self, schema: &'a Value, outermost: bool) -> Result<(), String> {
        self.count += 1;
        if self.count > bounds::SCHEMA_SUBSCHEMAS_MAX {
            return Err(format!("has more than {} subschemas", bounds::SCHEMA_SUBSCHEMAS_MAX));
        }
        let Value::Object(map) = schema else { return Ok(()) };
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(name)) = map.get(keyword) {
                self.anchors.insert(name, schema);
            }
        }
        for keyword in ["$id", "id"] {
            if let (Some(Value::String(id)), false) = (map.get(keyword), outermost) {
                match id.strip_prefix('#') {
                    Some(name) => drop(self.anchors.insert(name, schema)),
                    None => return Err("has an inner schema with an id of its own".to_owned()),
                }
            }
        }
        let mut below = Vec::new();
        children(map, |_, child| below.push(child));
        below.into_iter().try_for_each(|child| self.read(child, false))
    }

    /// What a schema applies, by keyword or by reference.
    fn edges(&self, map: &'a Map<String, Value>) -> Result<Vec<(Edge, &'a Value)>, String> {
        let mut edges = Vec::new();
        children(map, |edge, child| edges.push((edge, child)));
        edges.retain(|(edge, _)| *edge != Edge::Stored);
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(Value::String(reference)) = map.get(keyword) {
                let target = self.resolve(reference).ok_or(
                    "has a reference that leads nowhere within the schema; nothing is fetched",
                )?;
                edges.push((Edge::Same, target));
            }
        }
        Ok(edges)
    }

    /// What a reference leads to; none when it leaves the schema or leads nowhere.
    fn resolve(&self, reference: &str) -> Option<&'a Value> {
        let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        if !base.is_empty() && Some(base) != self.base {
            return None;
        }
        let fragment = percent_decoded(fragment)?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return self.root.pointer(&fragment);
        }
        self.anchors.get(fragment.as_str()).copied()
    }
}

/// The longest ways through steps that stay on one value.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Subschemas.
    length: usize,
    /// Subschemas with `unevaluated*`. Nested through members they cost nothing extra: each
    /// looks at its own value only.
    unevaluated: usize,
}

fn longest_runs<'a>(index: &Index<'a>, schemas: Vec<&'a Value>) -> Result<Run, String> {
    let mut known = HashMap::new();
    let mut longest = Run { length: 1, unevaluated: 0 };
    for schema in schemas {
        let run = run_from(index, schema, &mut known)?;
        longest.length = longest.length.max(run.length);
        longest.unevaluated = longest.unevaluated.max(run.unevaluated);
    }
    Ok(longest)
}

/// `known` holds none for a schema whose run is being measured.
fn run_from<'a>(
    index: &Index<'a>,
    schema: &'a Value,
    known: &mut HashMap<Address, Option<Run>>,
) -> Result<Run, String> {
    let Value::Object(map) = schema else { return Ok(Run { length: 1, unevaluated: 0 }) };
    match known.get(&address(schema)) {
        Some(Some(run)) => return Ok(*run),
        Some(None) => return Err("applies itself to the same value without end".to_owned()),
        None => known.insert(address(schema), None),
    };
    let (mut length, mut below) = (1, 0);
    for (edge, child) in index.edges(map)? {
        if edge == Edge::Same {
            let run = run_from(index, child, known)?;
            length = length.max(1 + run.length);
            below = below.max(run.unevaluated);
        }
    }
    let own = map.contains_key("unevaluatedProperties") || map.contains_key("unevaluatedItems");
    let run = Run { length, unevaluated: below + usize::from(own) };
    known.insert(address(schema), Some(run));
    Ok(run)
}

fn percent_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let pair = text.get(at + 1..at + 3)?;
            decoded.push(u8::from_str_radix(pair, 16).ok()?);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    String::from_utf8(decoded).ok()
}

/// What hangs below a subschema.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    /// Subschemas, each as often as it is reached; a cycle counts once.
    expansion: u64,
    /// Steps back into a schema on the way, each as often as it is reached.
    returns: u64,
}

struct Walk<'a> {
    index: &'a Index<'a>,
    known: HashMap<Address, Weight>,
    /// Subschemas on the way from the root.
    open: HashSet<Address>,
    /// Subschemas in the order in which they were first met.
    seen: Vec<&'a Value>,
    visits: u64,
}

impl<'a> Walk<'a> {
    /// The weight of a schema, and whether it depends on where the walk came from (then it must
    /// not be remembered).
    fn weigh(&mut self, schema: &'a Value) -> Result<(Weight, bool), String> {
        let Value::Object(map) = schema else {
            return Ok((Weight { expansion: 1, returns: 0 }, false));
        };
        if let Some(weight) = self.known.get(&address(schema)) {
            return Ok((*weight, false));
        }
        self.visits += 1;
        if self.visits > bounds::SCHEMA_EXPANSION_MAX {
            return Err("has references that are too entangled to be measured".to_owned());
        }
        self.open.insert(address(schema));
        self.seen.push(schema);
        let mut weight = Weight { expansion: own_work(map), returns: 0 };
        let mut depends = false;
        for (_, child) in self.index.edges(map)? {
            if self.open.contains(&address(child)) {
                depends = true;
                weight.returns = weight.returns.saturating_add(1);
                continue;
            }
            let (below, inner) = self.weigh(child)?;
            depends |= inner;
            weight.expansion = weight.expansion.saturating_add(below.expansion);
            weight.returns = weight.returns.saturating_add(below.returns);
        }
        self.open.remove(&address(schema));
        if !depends {
            self.known.insert(address(schema), weight);
        }
        Ok((weight, depends))
    }
}

/// What the plain keywords of one schema cost, in units of a simple one.
fn own_work(map: &Map<String, Value>) -> u64 {
    // Long lists of words may be compared one by one.
    let words = |keyword: &str| map.get(keyword).and_then(Value::as_array).map_or(0, Vec::len);
    let words = u64::try_from((words("enum") + words("required")) / 8).unwrap_or(u64::MAX);
    let named = map.get("patternProperties").and_then(Value::as_object);
    let own = map.get("pattern").and_then(Value::as_str);
    let patterns = named.into_iter().flat_map(Map::keys).map(String::as_str).chain(own);
    let patterns = patterns.map(|p| if backtracks(p) { BACKTRACKING_WORK } else { PATTERN_WORK });
    patterns.fold(1 + words, u64::saturating_add)
}

/// A pattern that is matched in time linear in the text.
const PATTERN_WORK: u64 = 4;
/// A pattern that may use up all its steps on every text.
const BACKTRACKING_WORK: u64 = bounds::SCHEMA_PATTERN_STEPS_MAX as u64 / 2;

/// True when a pattern may need the backtracking engine: look-around, back-references, atomic
/// groups. The engine matches everything else in linear time.
fn backtracks(pattern: &str) -> bool {
    let special =
        ["(?=", "(?!", "(?<", "(?>", "(?(", "(?P", "\\k", "\\G", "\\K", "++", "*+", "?+", "}+"];
    let reference = |pair: &[u8]| pair[0] == b'\\' && pair[1].is_ascii_digit();
    special.iter().any(|s| pattern.contains(s)) || pattern.as_bytes().windows(2).any(reference)
}
