//! A node's claims on limits that count over all nodes, between the wire and the ledger.

use tonic::Status;
use weir_model::bounds;
use weir_model::budget::Claim;
use weir_model::id::Digest;
use weir_model::sync::identity::NodeId;
use weir_proto::sync::v1;
use weir_proto::sync::v1::claim::Of;

use crate::budget::{Budget, QuotaClaim, RateClaim};

/// Longest label that is kept.
const LABEL_CHARS_MAX: usize = 300;

/// Answers each claim in its place.
pub(super) async fn settle(
    budget: &Budget,
    node: &NodeId,
    request: v1::BudgetRequest,
) -> Result<v1::BudgetResponse, Status> {
    if request.claims.len() > bounds::BUDGET_CLAIMS_MAX {
        return Err(Status::invalid_argument("too many claims at once"));
    }
    let (mut quotas, mut rates) = (Vec::new(), Vec::new());
    let mut grants = vec![v1::Grant::default(); request.claims.len()];
    let (mut quota_places, mut rate_places) = (Vec::new(), Vec::new());
    for (place, claim) in request.claims.into_iter().enumerate() {
        let id = <[u8; 32]>::try_from(claim.id.as_ref()).map(Digest);
        let id = id.map_err(|_| Status::invalid_argument("a claim without a digest"))?;
        match claim.of {
            Some(Of::Quota(quota)) => {
                if quota.ends <= quota.starts {
                    return Err(Status::invalid_argument("a window that ends before it starts"));
                }
                quotas.push(QuotaClaim {
                    id,
                    label: claim.label.chars().take(LABEL_CHARS_MAX).collect(),
                    window: (quota.starts, quota.ends),
                    quota: quota.quota,
                    claim: Claim { spent: quota.spent, wanted: quota.wanted },
                });
                quota_places.push(place);
            }
            Some(Of::Rate(rate)) => {
                rates.push(RateClaim { id, capacity: rate.capacity, demand: rate.demand });
                rate_places.push(place);
            }
            None => return Err(Status::invalid_argument("a claim on nothing")),
        }
    }
    for (place, share) in rate_places.into_iter().zip(budget.shares(node, &rates)) {
        grants[place].permille = share;
    }
    let process = format!("{node}#{}", request.epoch);
    let settled = budget.settle(process, quotas).await.map_err(Status::unavailable)?;
    for (place, grant) in quota_places.into_iter().zip(settled) {
        grants[place].granted = grant.granted;
        grants[place].exhausted = grant.exhausted;
    }
    Ok(v1::BudgetResponse { grants })
}
