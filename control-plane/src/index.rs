//! The configuration as this replica knows it: the store's documents, parsed, at one revision.
//!
//! A single task lists, then watches; readers get the newest state from a `watch` channel, so a
//! slow reader skips revisions instead of queueing them.

use std::sync::Arc;

use weir_model::id::Revision;
use weir_model::resource::ResourceSet;

/// The configuration at one revision.
#[derive(Debug, Clone, Default)]
pub struct Indexed {
    /// Revision of [`crate::store::HEAD`].
    pub revision: Revision,
    /// All documents.
    pub set: ResourceSet,
}

/// The newest configuration and its changes.
pub type Newest = tokio::sync::watch::Receiver<Arc<Indexed>>;
