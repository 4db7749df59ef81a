//! The canonical form: compact JSON, members in declaration order.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::lenient;
use super::{FieldError, tree};
use crate::id::Name;
use crate::resource::{API_VERSION, Kind, ResourceKey, Spec};

/// What every document looks like from outside.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    api_version: &'static str,
    kind: Kind,
    metadata: WrittenMetadata<'a>,
    spec: &'a Spec,
}

#[derive(Serialize)]
struct WrittenMetadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a Name>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Read<'a> {
    api_version: String,
    kind: Kind,
    metadata: ReadMetadata,
    #[serde(borrow)]
    spec: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadMetadata {
    name: String,
    #[serde(default)]
    group: Option<Name>,
}

macro_rules! by_kind {
    ($($kind:ident)*) => {
        impl Serialize for Spec {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$kind(spec) => spec.serialize(s),)*
                    Self::Unreadable(_) => s.serialize_none(),
                }
            }
        }

        impl Spec {
            /// The kind of document that says this; none when it cannot be read.
            pub fn kind(&self) -> Option<Kind> {
                match self {
                    $(Self::$kind(_) => Some(Kind::$kind),)*
                    Self::Unreadable(_) => None,
                }
            }
        }

        fn spec_from_json(kind: Kind, json: &str) -> Result<Spec, serde_json::Error> {
            match kind { $(Kind::$kind => serde_json::from_str(json).map(Spec::$kind),)* }
        }

        /// Reads a spec and notes everything that is wrong. Where something is, the spec may
        /// still come back, with harmless values in place of the bad ones.
        pub(super) fn spec_from_value(kind: Kind, value: &Value) -> lenient::Reading<Spec> {
            match kind { $(Kind::$kind => lenient::read("spec", value).map(Spec::$kind),)* }
        }
    };
}

by_kind! {
    Region Group Server IdentityProvider ServiceAccount Role RoleBinding Policy Limit Credential
    Revocation NodeRevocation Catalog Definition Keyring
}

/// The canonical bytes of a document.
pub(super) fn write(key: &ResourceKey, spec: &Spec) -> Vec<u8> {
    let metadata = WrittenMetadata { name: &key.name, group: key.group.as_ref() };
    let written = Written { api_version: API_VERSION, kind: key.kind, metadata, spec };
    serde_json::to_vec(&written).expect("specs have text keys and finite numbers only")
}

/// Reads canonical bytes.
pub(super) fn read(bytes: &[u8]) -> Result<(ResourceKey, Spec), Vec<FieldError>> {
    let whole = |message: String| vec![FieldError::new("document", "", message)];
    let text = std::str::from_utf8(bytes).map_err(|_| whole("is not UTF-8".to_owned()))?;
    // serde would also accept a list in place of each mapping.
    if !text.starts_with('{') {
        return Err(whole("is not a JSON object".to_owned()));
    }
    let read: Read<'_> = serde_json::from_str(text).map_err(|e| whole(e.to_string()))?;
    if read.api_version != API_VERSION {
        return Err(vec![FieldError::new(
            "document",
            "apiVersion",
            format!("must be {API_VERSION}"),
        )]);
    }
    let ReadMetadata { name, group } = read.metadata;
    let key = ResourceKey { kind: read.kind, group, name };
    match spec_from_json(read.kind, read.spec.get()) {
        Ok(spec) => Ok((key, spec)),
        Err(error) => Err(explain(&key, read.spec.get(), &error)),
    }
}

/// Reads a spec once more, to say everything that is wrong with it.
fn explain(key: &ResourceKey, json: &str, error: &serde_json::Error) -> Vec<FieldError> {
    let complaints = serde_json::from_str::<tree::Tree>(json)
        .map(|tree| spec_from_value(key.kind, &tree.value).complaints)
        .unwrap_or_default();
    if complaints.is_empty() {
        return vec![FieldError::new(key, "spec", error.to_string())];
    }
    complaints.into_iter().map(|(path, text)| FieldError::new(key, path, text)).collect()
}
