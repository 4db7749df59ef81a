//! Documents of the control plane itself. Their content comes from MCP servers, so that it is
//! checked like anybody else's.

use super::Findings;
use super::text;
use crate::bounds;
use crate::id::Digest;
use crate::resource::{Catalog, Definition, DefinitionKind, Keyring};

/// Keys of one keyring.
const KEYS_MAX: usize = 4;
/// Bytes of `serverInfo` and `capabilities`, each.
const INFO_BYTES_MAX: usize = 64 * 1024;

pub(super) fn catalog_name(f: &mut Findings, name: &str, spec: &Catalog) {
    let expected = Catalog::name_of(&spec.server, &spec.version);
    if name != expected {
        f.add("metadata.name", format!("must be {expected}, from server and version"));
    }
}

pub(super) fn definition_name(f: &mut Findings, name: &str, spec: &Definition) {
    if name != Definition::name_of(&Digest::of(spec.json.as_bytes())) {
        f.add("metadata.name", "must be the beginning of the digest of the definition");
    }
}

pub(super) fn catalog(f: &mut Findings, spec: &Catalog) {
    for (path, list) in [
        ("spec.entries", &spec.entries),
        ("spec.waiting", &spec.waiting),
        ("spec.absent", &spec.absent),
    ] {
        for kind in [
            DefinitionKind::Tool,
            DefinitionKind::Resource,
            DefinitionKind::Template,
            DefinitionKind::Prompt,
        ] {
            let count = list.iter().filter(|e| e.kind == kind).count();
            f.count(path, count, (0, bounds::CATALOG_ENTRIES_MAX));
        }
        f.unique(list.iter().map(|e| (e.kind, &e.name)), |i| format!("{path}[{i}]"));
        for (i, entry) in list.iter().enumerate() {
            f.add_if(format!("{path}[{i}].name"), entry_name(entry.kind, &entry.name));
        }
    }
    for (path, value) in
        [("spec.serverInfo", &spec.server_info), ("spec.capabilities", &spec.capabilities)]
    {
        if value.to_string().len() > INFO_BYTES_MAX {
            f.add(path, format!("must be at most {INFO_BYTES_MAX} bytes long"));
        }
    }
    if spec.instructions.as_ref().is_some_and(|t| t.len() > bounds::INSTRUCTIONS_BYTES_MAX) {
        let max = bounds::INSTRUCTIONS_BYTES_MAX;
        f.add("spec.instructions", format!("must be at most {max} bytes long"));
    }
}

/// What is wrong with the name of a definition.
pub(in crate::resource) fn entry_name(kind: DefinitionKind, name: &str) -> Option<String> {
    let (length, max) = match kind {
        DefinitionKind::Tool | DefinitionKind::Prompt => {
            (name.chars().count(), bounds::TOOL_NAME_CHARS_MAX)
        }
        DefinitionKind::Resource | DefinitionKind::Template => (name.len(), bounds::URI_BYTES_MAX),
    };
    if length == 0 || length > max {
        return Some(format!("must be 1 to {max} characters long"));
    }
    name.chars().any(char::is_control).then(|| "must not have control characters".to_owned())
}

pub(super) fn definition(f: &mut Findings, spec: &Definition) {
    f.add_if("spec.json", definition_json(&spec.json));
}

/// What is wrong with the text of a definition.
pub(in crate::resource) fn definition_json(json: &str) -> Option<String> {
    if json.len() > bounds::DEFINITION_BYTES_MAX {
        return Some(format!("must be at most {} bytes long", bounds::DEFINITION_BYTES_MAX));
    }
    if nesting(json) > bounds::JSON_DEPTH_MAX {
        return Some(format!("must be nested at most {} levels deep", bounds::JSON_DEPTH_MAX));
    }
    if !json.starts_with('{') || serde_json::from_str::<serde::de::IgnoredAny>(json).is_err() {
        return Some("must be one JSON object, without spaces around it".to_owned());
    }
    None
}

/// How deep brackets nest, outside of strings.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

pub(super) fn keyring(f: &mut Findings, spec: &Keyring) {
    f.count("spec.keys", spec.keys.len(), (1, KEYS_MAX));
    f.unique(spec.keys.iter().map(|k| &k.id), |i| format!("spec.keys[{i}].id"));
    for (i, key) in spec.keys.iter().enumerate() {
        f.add_if(format!("spec.keys[{i}].id"), text::id(&key.id, 16, ""));
        f.add_if(format!("spec.keys[{i}].key.secret"), text::id(&key.key.secret, 64, "-_"));
    }
}
