//! Tells the control plane what this proxy uses of limits that count over all proxies, every
//! [`bounds::BUDGET_REPORT_MS`] and at once when a grant is used up. Any replica will do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use weir_model::bounds;
use weir_model::budget::Grant;
use weir_proto::sync::v1;
use weir_proto::sync::v1::claim::Of;
use weir_runtime::drain::Watch;

use super::{Identity, Options, link};
use crate::limits::Limits;
use crate::limits::fleet::{Heard, Told};

/// The least time between two reports, however urgent.
const PAUSE: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub struct Accountant {
    options: Options,
    identity: Arc<ArcSwap<Identity>>,
    /// One run of this process: charges of a run before stay charged.
    epoch: u64,
}

impl Accountant {
    pub(super) fn new(options: Options, identity: Arc<ArcSwap<Identity>>) -> Self {
        let epoch = options.clock.now_ms();
        Self { options, identity, epoch }
    }

    /// Reports until the drain, and once more then: what calls that are still in flight spend is
    /// within what was granted, or ahead of it by the head start.
    pub async fn run(self, limits: Arc<Limits>, drain: Watch) {
        let interval = Duration::from_millis(bounds::BUDGET_REPORT_MS);
        let mut endpoints = self.options.endpoints.iter().cycle();
        let mut client = None;
        let mut last = Instant::now();
        let mut ending = false;
        while !ending {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = limits.news() => tokio::time::sleep(PAUSE).await,
                () = drain.drained() => ending = true,
            }
            let told = limits.tell(last.elapsed());
            last = Instant::now();
            if told.is_empty() {
                continue;
            }
            let mut connected = match client.take() {
                Some(client) => client,
                None => {
                    let Some(endpoint) = endpoints.next() else { return };
                    match self.connect(endpoint).await {
                        Ok(client) => client,
                        Err(error) => {
                            tracing::debug!(%endpoint, error, "no ledger there");
                            continue;
                        }
                    }
                }
            };
            let mut request = tonic::Request::new(self.request(&told));
            request.set_timeout(Duration::from_millis(bounds::BUDGET_CALL_MS));
            match connected.budget(request).await {
                Ok(answer) => {
                    for (told, grant) in told.iter().zip(answer.into_inner().grants) {
                        limits.hear(told, heard(told, &grant));
                    }
                    client = Some(connected);
                }
                // What is told is totals: the next report tells it again, to the next replica.
                Err(status) => tracing::debug!(%status, "the ledger did not answer"),
            }
        }
    }

    async fn connect(&self, endpoint: &link::Endpoint) -> Result<link::Client, String> {
        let tls = self.identity.load().tls().map_err(|error| error.to_string())?;
        link::connect(endpoint, tls).await
    }

    fn request(&self, told: &[Told]) -> v1::BudgetRequest {
        let claims = told.iter().map(|told| match told {
            Told::Quota(due) => v1::Claim {
                id: due.id.0.to_vec().into(),
                label: due.label.clone(),
                of: Some(Of::Quota(v1::QuotaClaim {
                    starts: due.window.0,
                    ends: due.window.1,
                    quota: due.quota,
                    spent: due.claim.spent,
                    wanted: due.claim.wanted,
                })),
            },
            Told::Rate(rate) => v1::Claim {
                id: rate.id.0.to_vec().into(),
                label: rate.label.clone(),
                of: Some(Of::Rate(v1::RateClaim { capacity: rate.capacity, demand: rate.demand })),
            },
        });
        v1::BudgetRequest { epoch: self.epoch, claims: claims.collect() }
    }
}

fn heard(told: &Told, grant: &v1::Grant) -> Heard {
    match told {
        Told::Quota(_) => {
            Heard::Grant(Grant { granted: grant.granted, exhausted: grant.exhausted })
        }
        Told::Rate(_) => Heard::Share(grant.permille),
    }
}
