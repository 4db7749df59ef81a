//! What is wrong with a set of resources, as it is found.

use std::collections::BTreeMap;

use crate::bounds;
use crate::resource::{FieldError, ResourceKey};

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<FieldError>,
    pub(super) missing_secrets: Vec<FieldError>,
    pub(super) quarantined: BTreeMap<ResourceKey, String>,
}

impl Report {
    /// Something that admission refuses and that harms nobody else.
    pub(super) fn problem(
        &mut self,
        key: &ResourceKey,
        path: impl Into<String>,
        message: impl Into<String>,
    ) {
        if self.problems.len() < bounds::FIELD_ERRORS_MAX {
            self.problems.push(FieldError::new(key, path, message));
        }
    }

    /// A resource that cannot be used.
    pub(super) fn unusable(
        &mut self,
        key: &ResourceKey,
        path: impl Into<String>,
        message: impl Into<String>,
    ) {
        let (path, message) = (path.into(), message.into());
        self.quarantined.entry(key.clone()).or_insert_with(|| match path.as_str() {
            "" => message.clone(),
            path => format!("{path}: {message}"),
        });
        self.problem(key, path, message);
    }

    /// A resource that cannot be used because a secret of it is not here.
    pub(super) fn missing_secret(&mut self, key: &ResourceKey, path: impl Into<String>) {
        let (path, message) = (path.into(), "the secret is not here");
        self.quarantined.entry(key.clone()).or_insert_with(|| format!("{path}: {message}"));
        if self.missing_secrets.len() < bounds::FIELD_ERRORS_MAX {
            self.missing_secrets.push(FieldError::new(key, path, message));
        }
    }

    /// How much was found so far: what did not grow, found nothing.
    pub(super) fn findings(&self) -> usize {
        self.problems.len() + self.missing_secrets.len() + self.quarantined.len()
    }
}
