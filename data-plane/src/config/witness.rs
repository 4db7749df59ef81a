//! Shows the audit log's checkpoints to the control plane, which keeps the newest out of this
//! machine's reach and certifies the key that signs them.
//!
//! Over the sync service, with the node's certificate and the proof that the log only grew. Only the newest checkpoint counts: those
//! that were made while nobody could be reached are covered by it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tonic::Code;
use weir_audit::spool::Handle;
use weir_audit::witness::{self, Answer, Showing, Witness};
use weir_model::bounds;
use weir_proto::sync::v1;
use weir_runtime::backoff::Backoff;

use super::{Identity, Options, link};

/// Waits between attempts to reach somebody.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_CAP: Duration = Duration::from_secs(15);

/// Why a checkpoint was not taken.
enum NotSeen {
    /// Somebody else may take it, or the same one later.
    Passing(String),
    /// It will not be taken.
    Refused(String),
}

/// Runs until the spool has ended.
pub(super) async fn run(options: Options, identity: Arc<ArcSwap<Identity>>, spool: Handle) {
    let mut endpoints = options.endpoints.iter().cycle();
    let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_CAP);
    let mut client = None;
    let mut checkpoints = spool.checkpoints();
    checkpoints.mark_changed();
    while checkpoints.changed().await.is_ok() {
        let Some(sealed) = checkpoints.borrow_and_update().clone() else { continue };
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => {
                let Some(endpoint) = endpoints.next() else { return };
                connect(&identity, endpoint).await
            }
        };
        let shown = match connected {
            Ok(client) => {
                let mut plane = Plane { client };
                let seen = witness::show(&mut plane, &spool, &sealed).await;
                seen.map(|seen| (plane.client, seen))
            }
            Err(error) => Err(NotSeen::Passing(error)),
        };
        match shown {
            Ok((connected, seen)) => {
                client = Some(connected);
                backoff.reset();
                if !seen {
                    tracing::error!("the records that the audit log's witness asks for are gone");
                }
            }
            Err(NotSeen::Refused(error)) => {
                tracing::error!(error, "the control plane does not witness the audit log");
            }
            Err(NotSeen::Passing(error)) => {
                // The first time may be a restart of the control plane.
                match backoff.tries() {
                    0 => tracing::debug!(error, "the audit log waits for its witness"),
                    _ => tracing::warn!(error, "the audit log waits for its witness"),
                }
                checkpoints.mark_changed();
                backoff.sleep().await;
            }
        }
    }
}

async fn connect(
    identity: &ArcSwap<Identity>,
    endpoint: &link::Endpoint,
) -> Result<link::Client, String> {
    let tls = identity.load().tls().map_err(|error| error.to_string())?;
    link::connect(endpoint, tls).await
}

/// A replica of the control plane.
struct Plane {
    client: link::Client,
}

#[async_trait]
impl Witness for Plane {
    type Error = NotSeen;

    async fn see(&mut self, showing: Showing<'_>) -> Result<Answer, NotSeen> {
        let mut call = tonic::Request::new(v1::WitnessRequest {
            note: showing.sealed.note.to_string(),
            key: showing.sealed.key.to_vec().into(),
            certificate: showing.certificate.to_owned(),
            from: showing.from,
            proof: showing.proof.iter().map(|hash| hash.0.to_vec().into()).collect(),
            past_gone: showing.past_gone,
        });
        call.set_timeout(Duration::from_millis(bounds::ENROL_CALL_MS));
        let answer = self.client.witness(call).await.map_err(|status| match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => {
                NotSeen::Refused(status.message().to_owned())
            }
            _ => NotSeen::Passing(link::chain(&status)),
        })?;
        let v1::WitnessResponse { certificate, wants_epoch, wants_from } = answer.into_inner();
        Ok(match wants_epoch {
            0 => Answer::Kept(certificate),
            epoch => Answer::Wants { epoch, from: wants_from },
        })
    }
}
