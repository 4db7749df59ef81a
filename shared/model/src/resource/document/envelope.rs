//! Who a document is: `apiVersion`, `kind`, `metadata`; and the secrets that it brings.

use serde_json::{Map, Value, json};

use super::lenient::Complaint;
use super::path::{join_key, shown};
use crate::id::Name;
use crate::resource::{API_VERSION, Kind, ResourceKey};
use crate::secret::Secret;

/// The outside of a document.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) key: PartialKey,
    /// What errors call the document.
    pub(super) label: String,
    /// None when it is missing, which is a complaint already.
    pub(super) spec: Option<Value>,
}

/// As much of a key as could be read.
#[derive(Debug, Default)]
pub(super) struct PartialKey {
    pub(super) kind: Option<Kind>,
    group: Option<Name>,
    name: Option<Name>,
}

impl PartialKey {
    /// The key, when all of it could be read.
    pub(super) fn complete(&self) -> Option<ResourceKey> {
        let (kind, name) = (self.kind?, self.name.as_ref()?);
        let group = self.group.clone().filter(|_| kind.is_grouped());
        (group.is_some() == kind.is_grouped()).then(|| ResourceKey {
            kind,
            group,
            name: name.to_string(),
        })
    }
}

/// Reads the outside of a document.
pub(super) fn read(number: usize, tree: Value, complaints: &mut Vec<Complaint>) -> Envelope {
    let mut key = PartialKey::default();
    let mut complain = |path: &str, text: String| complaints.push((path.to_owned(), text));
    let Value::Object(mut members) = tree else {
        complain("", "must be a mapping with apiVersion, kind, metadata and spec".to_owned());
        return Envelope { key, label: format!("document {number}"), spec: None };
    };
    match members.remove("apiVersion") {
        Some(Value::String(text)) if text == API_VERSION => {}
        None => complain("apiVersion", format!("is missing; write {API_VERSION}")),
        Some(_) => complain("apiVersion", format!("must be {API_VERSION}")),
    }
    let kinds = || {
        let names = Kind::ALL.iter().filter(|k| !k.is_system()).map(|k| k.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    match members.remove("kind") {
        Some(Value::String(text)) => {
            key.kind = Kind::parse(&text);
            if key.kind.is_none() {
                complain("kind", format!("unknown kind {}; known are: {}", shown(&text), kinds()));
            }
        }
        None => complain("kind", format!("is missing; known are: {}", kinds())),
        Some(_) => complain("kind", format!("must be one of: {}", kinds())),
    }
    match members.remove("metadata") {
        Some(Value::Object(metadata)) => read_metadata(metadata, &mut key, &mut complain),
        None => complain("metadata", "is missing; it holds the name".to_owned()),
        Some(_) => complain("metadata", "must be a mapping with name and group".to_owned()),
    }
    let spec = members.remove("spec");
    if spec.is_none() {
        complain("spec", "is missing; write spec: {} when there is nothing to say".to_owned());
    }
    for (unknown, _) in members {
        let text = "unknown field; known are: apiVersion, kind, metadata, spec";
        complain(&join_key("", &unknown), text.to_owned());
    }
    let label = label(number, &key);
    Envelope { key, label, spec }
}

fn read_metadata(
    mut metadata: Map<String, Value>,
    key: &mut PartialKey,
    complain: &mut dyn FnMut(&str, String),
) {
    let grouped = key.kind.map(Kind::is_grouped);
    match metadata.remove("name") {
        Some(Value::String(text)) => match text.parse() {
            Ok(name) => key.name = Some(name),
            Err(error) => complain("metadata.name", format!("{error}")),
        },
        None => complain("metadata.name", "is missing".to_owned()),
        Some(_) => complain("metadata.name", "must be text; put it in quotes".to_owned()),
    }
    match (metadata.remove("group"), grouped) {
        (Some(_), Some(false)) => {
            let text = "must not be given: documents of this kind belong to no group";
            complain("metadata.group", text.to_owned());
        }
        (Some(Value::String(text)), _) => match text.parse() {
            Ok(name) => key.group = Some(name),
            Err(error) => complain("metadata.group", format!("{error}")),
        },
        (Some(_), _) => complain("metadata.group", "must be text; put it in quotes".to_owned()),
        (None, Some(true)) => {
            complain("metadata.group", "is missing; name the group it belongs to".to_owned());
        }
        (None, _) => {}
    }
    for (unknown, _) in metadata {
        let text = "unknown field; known are: name, group";
        complain(&join_key("metadata", &unknown), text.to_owned());
    }
}

fn label(number: usize, key: &PartialKey) -> String {
    match (key.complete(), key.kind, &key.name) {
        (Some(key), _, _) => key.to_string(),
        (None, Some(kind), Some(name)) => format!("document {number} ({kind} {name})"),
        (None, Some(kind), None) => format!("document {number} ({kind})"),
        (None, None, _) => format!("document {number}"),
    }
}

/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 8 * 1024;

/// Takes secrets out of a spec, and puts references to fresh ids in their place.
pub(super) fn take_secrets(
    kind: Kind,
    spec: &mut Value,
    new_secret_id: &mut dyn FnMut() -> String,
    secrets: &mut Vec<(String, Secret<String>)>,
    complaints: &mut Vec<Complaint>,
) {
    // The places of documents where an operator writes a secret.
    let (pointer, path) = match kind {
        Kind::Credential => ("/header/value", "spec.header.value"),
        Kind::IdentityProvider => ("/signIn/clientSecret", "spec.signIn.clientSecret"),
        _ => return,
    };
    let Some(slot) = spec.pointer_mut(pointer) else { return };
    let complaint = match slot {
        Value::Object(_) => return,
        Value::String(text) => secret_complaint(text),
        _ => Some("must be text; put it in quotes"),
    };
    if let Some(complaint) = complaint {
        complaints.push((path.to_owned(), complaint.to_owned()));
        *slot = json!({ "secret": "unreadable" });
        return;
    }
    let id = new_secret_id();
    if let Value::String(text) = std::mem::replace(slot, json!({ "secret": id })) {
        secrets.push((id, Secret::new(text)));
    }
}

/// What a secret must be to fit into a header.
fn secret_complaint(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("must not be empty");
    }
    if text.len() > SECRET_BYTES_MAX {
        return Some("must be at most 8,192 bytes long");
    }
    let visible = text.bytes().all(|b| (0x20..=0x7e).contains(&b));
    let trimmed = text.trim() == text;
    (!visible || !trimmed)
        .then_some("must be printable ASCII without spaces or line ends around it")
}
