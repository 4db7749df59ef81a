//! Lists that were rendered before.
//!
//! What one caller sees of one configuration stays the same as long as no rule that had a say
//! reads where and when the call comes from. Such first pages are kept, whole, under everything
//! that they depend on. A change of the configuration changes its digest, so that old lists are
//! never found again; they go when they were not asked for, or for want of room.

use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use weir_model::bounds;
use weir_model::id::Digest;

/// The cache. One per proxy.
#[derive(Debug)]
pub struct Lists(Cache<Digest, Bytes>);

/// Time after which a list that nobody asks for is let go.
const IDLE: Duration = Duration::from_secs(60);

impl Default for Lists {
    fn default() -> Self {
        let weigh = |_: &Digest, list: &Bytes| u32::try_from(list.len() + 128).unwrap_or(u32::MAX);
        let most = bounds::LISTS_KEPT_BYTES;
        Self(Cache::builder().max_capacity(most).weigher(weigh).time_to_idle(IDLE).build())
    }
}

impl Lists {
    /// The list, if it is here.
    pub fn get(&self, key: &Digest) -> Option<Bytes> {
        self.0.get(key)
    }

    /// Keeps a list.
    pub fn keep(&self, key: Digest, list: &Bytes) {
        self.0.insert(key, list.clone());
    }
}
