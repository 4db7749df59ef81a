//! What a decision was made of, as a record tells it: enough to make it again.

use serde::Serialize;
use weir_model::audit::Judged;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::snapshot::Hints;

use super::shape::Cut;
use super::text::TEXT_CHARS_MAX;

#[derive(Serialize)]
pub(super) struct Shape {
    rules_sha256: Digest,
    principal_sha256: Digest,
    at: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memberships: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hints: Option<Hints>,
}

impl Shape {
    pub(super) fn of(judged: &Judged, cut: &mut Cut) -> Self {
        let mut words = |list: &[std::sync::Arc<str>]| {
            cut.cut |= list.len() > bounds::AUDIT_WORDS_MAX;
            list.iter()
                .take(bounds::AUDIT_WORDS_MAX)
                .map(|word| cut.peer(word, TEXT_CHARS_MAX))
                .collect()
        };
        let (memberships, scopes) = (words(&judged.memberships), words(&judged.scopes));
        Self {
            rules_sha256: judged.rules,
            principal_sha256: judged.principal,
            at: judged.at,
            memberships,
            scopes,
            client: judged.client.as_deref().map(|name| cut.peer(name, TEXT_CHARS_MAX)),
            hints: (judged.hints != Hints::default()).then_some(judged.hints),
        }
    }
}
