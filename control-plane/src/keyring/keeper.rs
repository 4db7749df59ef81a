//! Rotates the keyring when it is time, and records that it was done.

use std::time::Duration;

use weir_audit::Pipeline;
use weir_model::audit::{Facts, Outcome};
use weir_model::resource::AuditClass;
use weir_runtime::clock::SharedClock;
use weir_runtime::drain::Watch;

use super::{Done, Keys};

/// Between two looks at the keyring.
const LOOK: Duration = Duration::from_secs(10);
/// After a step: the next one may be due as well.
const SOON: Duration = Duration::from_secs(1);

/// Looks until the drain. Replicas look too: whoever commits first has made the step.
pub async fn keep(
    keys: Keys,
    audit: Pipeline,
    (replica, clock): (String, SharedClock),
    drain: Watch,
) {
    loop {
        let pause = match keys.turn().await {
            Ok(Some(done)) => {
                tracing::info!(step = %done.step, revision = %done.revision, "the keyring was rotated");
                record(&audit, &done, (&replica, &clock)).await;
                SOON
            }
            Ok(None) => LOOK,
            Err(error) => {
                tracing::warn!(%error, "the keyring cannot be rotated at the moment");
                LOOK
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = drain.drained() => return,
        }
    }
}

/// The record of a step that no operator asked for.
async fn record(audit: &Pipeline, done: &Done, (replica, clock): (&str, &SharedClock)) {
    let Ok(slot) = audit.reserve(AuditClass::Counted) else { return };
    let facts = Facts {
        request_id: uuid::Uuid::now_v7().to_string(),
        time_ms: clock.now_ms(),
        principal: Some(format!("control-plane:{replica}")),
        method: Some("keyring.rotate".to_owned()),
        target: Some(format!("Keyring/{}: {}", super::SESSIONS, done.step)),
        revision: done.revision,
        allowed: Some(true),
        outcome: Outcome::Success,
        class: AuditClass::Counted,
        ..Facts::default()
    };
    if let Err(reason) = slot.finish(facts).await {
        tracing::error!(%reason, "the record of a rotation is late or lost");
    }
}
