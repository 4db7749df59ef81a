//! What an admitted change does, step by step, and the transaction that does it.

use std::sync::Arc;

use bytes::Bytes;
use weir_model::id::Revision;
use weir_model::resource::{Resource, ResourceKey, ResourceSet};
use weir_model::secret::Secret;

use super::settle::Settled;
use crate::index::{head, path};
use crate::store::{Guard, Op};

/// An admitted change.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order in which they were asked for; documents that stay as they are included.
    pub steps: Vec<Step>,
    /// Catalogs that go because what they describe goes.
    pub swept: Vec<Arc<Resource>>,
    /// New secrets: id and text.
    pub secrets: Vec<(String, Secret<String>)>,
    /// Secrets that nothing refers to any more.
    pub secrets_gone: Vec<String>,
}

/// What happens to one document.
#[derive(Debug, Clone)]
pub struct Step {
    /// As it is stored.
    pub before: Option<Arc<Resource>>,
    /// As it will be.
    pub after: Option<Arc<Resource>>,
}

/// What happens to a document, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Create,
    /// It replaces another.
    Update,
    /// It is as it was.
    Unchanged,
    /// It goes.
    Delete,
}

impl Step {
    /// In a word.
    pub fn action(&self) -> Action {
        match (&self.before, &self.after) {
            (None, _) => Action::Create,
            (Some(_), None) => Action::Delete,
            (Some(before), Some(after)) if before == after => Action::Unchanged,
            (Some(_), Some(_)) => Action::Update,
        }
    }

    /// Which document; none for a step without any, which no plan has.
    pub fn key(&self) -> Option<&ResourceKey> {
        self.after.as_ref().or(self.before.as_ref()).map(|resource| &resource.key)
    }
}

impl Plan {
    pub(super) fn put(&mut self, stored: Option<&Arc<Resource>>, settled: Settled) {
        let after = match stored {
            Some(stored) if **stored == settled.resource => Arc::clone(stored),
            _ => Arc::new(settled.resource),
        };
        if let Some(stored) = stored {
            let kept = ids(&after);
            self.secrets_gone.extend(ids(stored).into_iter().filter(|id| !kept.contains(id)));
        }
        self.secrets.extend(settled.secrets);
        self.steps.push(Step { before: stored.cloned(), after: Some(after) });
    }

    pub(super) fn delete(&mut self, stored: &Arc<Resource>) {
        self.secrets_gone.extend(ids(stored));
        self.steps.push(Step { before: Some(Arc::clone(stored)), after: None });
    }

    pub(super) fn sweep(&mut self, stored: &Arc<Resource>) {
        self.swept.push(Arc::clone(stored));
    }

    /// True when a step is about that document.
    pub fn touches(&self, key: &ResourceKey) -> bool {
        self.steps.iter().any(|step| step.key() == Some(key))
    }

    /// True when the document goes.
    pub fn deletes(&self, key: &ResourceKey) -> bool {
        let step = |step: &Step| step.after.is_none() && step.key() == Some(key);
        self.steps.iter().any(step) || self.swept.iter().any(|swept| swept.key == *key)
    }

    /// Documents that the change writes or confirms.
    pub fn written(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.steps.iter().filter_map(|step| step.after.as_ref())
    }

    /// True when nothing would be different.
    pub fn is_empty(&self) -> bool {
        self.swept.is_empty() && self.steps.iter().all(|step| step.action() == Action::Unchanged)
    }

    pub(super) fn applied_to(&self, set: &ResourceSet) -> ResourceSet {
        let mut set = set.clone();
        for step in &self.steps {
            match (&step.after, step.key()) {
                (Some(after), _) => drop(set.insert(Arc::clone(after))),
                (None, Some(key)) => drop(set.remove(key)),
                (None, None) => {}
            }
        }
        for swept in &self.swept {
            set.remove(&swept.key);
        }
        set
    }

    /// The transaction that does it to the configuration at `base`; `sealed` are the new secrets.
    pub fn transaction(
        &self,
        base: Revision,
        sealed: Vec<(String, Vec<u8>)>,
    ) -> (Vec<Guard>, Vec<Op>) {
        let (guard, head) = head(base);
        let mut ops = vec![head];
        for step in self.steps.iter().filter(|step| step.action() != Action::Unchanged) {
            match (&step.after, step.key()) {
                (Some(after), _) => ops.push(Op::Put(path(&after.key), after.canonical.clone())),
                (None, Some(key)) => ops.push(Op::Delete(path(key))),
                (None, None) => {}
            }
        }
        ops.extend(self.swept.iter().map(|swept| Op::Delete(path(&swept.key))));
        let put = |(id, bytes): (String, Vec<u8>)| Op::Put(secret_path(&id), Bytes::from(bytes));
        ops.extend(sealed.into_iter().map(put));
        ops.extend(self.secrets_gone.iter().map(|id| Op::Delete(secret_path(id))));
        (vec![guard], ops)
    }
}

/// Where a sealed secret lives in the store; also the context under which it is sealed.
pub fn secret_path(id: &str) -> String {
    format!("secrets/{id}")
}

fn ids(resource: &Resource) -> Vec<String> {
    resource.secret_refs().into_iter().map(|(_, reference)| reference.secret.clone()).collect()
}
