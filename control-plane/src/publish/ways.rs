//! What updates have in common: the difference between two views, and the signature over one.
//! Nodes of a region go the same ways at the same time; each way is worked out once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use weir_model::id::{Digest, Name};
use weir_model::sync::Applied;
use weir_model::sync::delta::Delta;
use weir_model::sync::publisher::Plan;
use weir_model::sync::statement::{SignedStatement, Signer};

/// Ways that are remembered. One is a list of references, at most as long as the configuration.
const WAYS_MAX: usize = 32;

type Way = (Option<Digest>, Digest);
/// Made by who asks first; others wait for it.
type Made = Arc<OnceCell<Arc<Delta>>>;
/// What was signed last, and by whom.
type Signed = (Applied, Arc<Signer>, SignedStatement);

#[derive(Default)]
pub(super) struct Ways {
    deltas: Mutex<VecDeque<(Way, Made)>>,
    /// By region.
    signed: Mutex<HashMap<Name, Signed>>,
}

impl Ways {
    /// The content of an update; none when comparing failed.
    pub(super) async fn delta(&self, plan: &Plan) -> Option<Arc<Delta>> {
        let cell = self.cell(plan.way());
        let (from, to) = (plan.from.clone(), Arc::clone(&plan.to));
        // Large sets take long enough to hold up other tasks.
        let compare = move || Delta::between(from.as_ref().map(|from| &from.set), &to.set);
        let delta = cell.get_or_try_init(|| async move {
            tokio::task::spawn_blocking(compare).await.map(Arc::new)
        });
        delta.await.inspect_err(|error| tracing::error!(%error, "comparing aborted")).ok().cloned()
    }

    fn cell(&self, way: Way) -> Made {
        let mut deltas = self.deltas.lock();
        if let Some((_, known)) = deltas.iter().find(|(known, _)| *known == way) {
            return Arc::clone(known);
        }
        if deltas.len() >= WAYS_MAX {
            deltas.pop_front();
        }
        let cell = Arc::new(OnceCell::new());
        deltas.push_back((way, Arc::clone(&cell)));
        cell
    }

    /// The signature over what a region has, of the signer of the day.
    pub(super) fn statement(
        &self,
        region: &Name,
        applied: Applied,
        signer: &Arc<Signer>,
    ) -> SignedStatement {
        let mut signed = self.signed.lock();
        if let Some((over, by, statement)) = signed.get(region)
            && *over == applied
            && Arc::ptr_eq(by, signer)
        {
            return statement.clone();
        }
        let statement = signer.sign(region, applied);
        signed.insert(region.clone(), (applied, Arc::clone(signer), statement.clone()));
        statement
    }
}
