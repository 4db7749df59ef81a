//! What this process holds, by ids that nobody can guess.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use parking_lot::Mutex;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::reason::{Reason, Refusal};

use super::{Holder, Holding};

#[derive(Debug, Default)]
pub(super) struct Holdings(Mutex<HashMap<String, Held>>);

#[derive(Debug)]
struct Held {
    owner: Digest,
    holding: Arc<dyn Holding>,
}

/// Something held; forgotten with this.
#[derive(Debug)]
#[must_use = "what is held is forgotten when this is dropped"]
pub struct Kept {
    holdings: Arc<Holdings>,
    holder: Holder,
}

impl Holdings {
    pub(super) fn keep(
        self: &Arc<Self>,
        owner: Digest,
        holding: Arc<dyn Holding>,
        holder: impl FnOnce(String) -> Holder,
    ) -> Result<Kept, Refusal> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut held = self.0.lock();
        if held.len() >= bounds::HOLDINGS_MAX {
            return Err(Refusal::new(Reason::Overloaded, "too much is held here").retry_after(5));
        }
        held.insert(id.clone(), Held { owner, holding });
        Ok(Kept { holdings: Arc::clone(self), holder: holder(id) })
    }

    pub(super) fn find(&self, id: &str, owner: &Digest) -> Option<Arc<dyn Holding>> {
        let held = self.0.lock();
        let found = held.get(id)?;
        let own = verify_slices_are_equal(&found.owner.0, &owner.0).is_ok();
        own.then(|| Arc::clone(&found.holding))
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }
}

impl Kept {
    /// Where it is held, for sealed tokens.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Dropped after the lock is free: a holding's end may itself let go of others.
        let gone = self.holdings.0.lock().remove(&self.holder.id);
        drop(gone);
    }
}
