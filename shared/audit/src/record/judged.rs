//! What a decision was made of, as a record tells it: enough to make it again.

use std::borrow::Cow;

use serde::Serialize;
use weir_model::audit::Judged;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::snapshot::Hints;

use super::shape::Cut;
use super::text::TEXT_CHARS_MAX;

#[derive(Serialize)]
pub(super) struct Shape<'a> {
    rules_sha256: Digest,
    principal_sha256: Digest,
    at: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memberships: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hints: Option<Hints>,
}

impl<'a> Shape<'a> {
    pub(super) fn of(judged: &'a Judged, cut: &mut Cut) -> Self {
        let mut words = |list: &'a [std::sync::Arc<str>]| {
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
