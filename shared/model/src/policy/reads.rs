//! What policies read of a question, told from their text, so that only that is laid out for them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::weaken::{attribute_of, conditions, each_child, is_var, single};

/// Which attributes of something are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// All of them, or which ones cannot be told.
    whole: bool,
    names: BTreeSet<String>,
}

impl Used {
    fn add(&mut self, name: &str) {
        self.names.insert(name.to_owned());
    }
    fn merge(&mut self, other: &Self) {
        self.whole |= other.whole;
        self.names.extend(other.names.iter().cloned());
    }
    pub(super) fn any(&self) -> bool {
        self.whole || !self.names.is_empty()
    }
    pub(super) fn has(&self, name: &str) -> bool {
        self.whole || self.names.contains(name)
    }
}

/// What a policy, or a slice of policies, reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reads {
    pub principal: Used,
    pub resource: Used,
    /// Without the arguments.
    pub context: Used,
    pub arguments: bool,
    /// By type: `text`, `number`, ...
    pub kinds: Used,
    /// Paths of the arguments.
    pub paths: Used,
}

impl Reads {
    pub(super) fn of_policy(policy: &Value) -> Self {
        let mut reads = Self::default();
        conditions(policy).for_each(|(_, body)| reads.walk(body));
        if reads.context.whole {
            reads.open_arguments();
        }
        reads
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.principal.merge(&other.principal);
        self.resource.merge(&other.resource);
        self.context.merge(&other.context);
        self.arguments |= other.arguments;
        self.kinds.merge(&other.kinds);
        self.paths.merge(&other.paths);
    }

    fn open_arguments(&mut self) {
        self.arguments = true;
        self.kinds.whole = true;
        self.paths.whole = true;
    }

    fn walk(&mut self, expr: &Value) {
        let Some((op, body)) = single(expr) else { return };
        if let Some((kind, path)) = tag(expr) {
            self.arguments = true;
            self.kinds.add(kind);
            self.paths.add(path);
        } else if attribute_of(expr, "context") == Some("arguments") {
            self.open_arguments();
        } else if let Some(name) = attribute_of(expr, "context") {
            self.context.add(name);
        } else if let Some(name) = attribute_of(expr, "principal") {
            self.principal.add(name);
        } else if let Some(name) = attribute_of(expr, "resource") {
            self.resource.add(name);
        } else if is_var(expr, "context") {
            self.context.whole = true;
        } else if is_var(expr, "principal") {
            self.principal.whole = true;
        } else if is_var(expr, "resource") {
            self.resource.whole = true;
        } else if matches!(op, "==" | "!=" | "in" | "is") {
            // Comparing an entity reads who it is, not what it is like.
            for side in ["left", "right", "in"].map(|side| &body[side]) {
                if !is_var(side, "principal") && !is_var(side, "resource") {
                    self.walk(side);
                }
            }
        } else {
            each_child(expr, &mut |child| self.walk(child));
        }
    }
}

/// Kind and path of `context.arguments.KIND.hasTag("path")` and `getTag`, the path a literal.
fn tag(expr: &Value) -> Option<(&str, &str)> {
    let (op, body) = single(expr)?;
    let (inner, kind) = single(&body["left"])?;
    let arguments = &kind["left"];
    let direct = matches!(op, "hasTag" | "getTag")
        && inner == "."
        && attribute_of(arguments, "context") == Some("arguments")
        && single(arguments)?.0 == ".";
    if direct { Some((kind["attr"].as_str()?, body["right"]["Value"].as_str()?)) } else { None }
}

/// What several slices read together, without putting it together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a>(pub &'a [&'a Reads]);

impl<'a> Wanted<'a> {
    pub(super) fn any(self, part: fn(&Reads) -> &Used) -> bool {
        self.0.iter().any(|reads| part(reads).any())
    }
    pub(super) fn has(self, part: fn(&Reads) -> &Used, name: &str) -> bool {
        self.0.iter().any(|reads| part(reads).has(name))
    }
    pub(super) fn arguments(self) -> bool {
        self.0.iter().any(|reads| reads.arguments)
    }
    /// Paths of the arguments that policies name, some of them twice; none when that cannot be
    /// told and all are needed.
    pub(super) fn paths(self) -> Option<impl Iterator<Item = &'a str>> {
        let told = !self.0.iter().any(|reads| reads.paths.whole);
        told.then(|| self.0.iter().flat_map(|reads| reads.paths.names.iter().map(String::as_str)))
    }
}
