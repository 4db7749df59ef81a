//! Renews the certificate after two thirds of its life, with a fresh key.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use weir_model::bounds;
use weir_model::seal::NodeKey;
use weir_proto::sync::v1;

use super::{Identity, Options, join, link};

/// Between two looks at the clock: the machine may sleep, and its clock may jump.
const LOOK: Duration = Duration::from_secs(30);

/// Runs for ever.
pub(super) async fn run(options: Options, identity: Arc<ArcSwap<Identity>>) {
    let mut endpoints = options.endpoints.iter().cycle();
    loop {
        let now = i64::try_from(options.clock.now_secs()).unwrap_or(i64::MAX);
        let current = identity.load_full();
        if now >= current.renew_at() {
            let Some(endpoint) = endpoints.next() else { return };
            match renew(&current, endpoint).await {
                Ok(renewed) => {
                    if let Err(error) = renewed.save(&options.folder) {
                        tracing::error!(%error, "the renewed certificate cannot be kept");
                    }
                    tracing::info!(node = %renewed.id, "the certificate was renewed");
                    identity.store(Arc::new(renewed));
                }
                Err(error) => {
                    tracing::warn!(%endpoint, error, "the certificate cannot be renewed yet");
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn renew(
    current: &Identity,
    endpoint: &link::Endpoint,
) -> Result<Identity, String> {
    let told = |e: super::ConfigError| e.to_string();
    let mut client = link::connect(endpoint, current.tls().map_err(told)?).await?;
    let (key, certificate_request) = join::request().map_err(told)?;
    let mut call =
        tonic::Request::new(v1::RenewRequest { certificate_request: certificate_request.into() });
    call.set_timeout(Duration::from_millis(bounds::ENROL_CALL_MS));
    let answer = client.renew(call).await.map_err(|e| link::chain(&e))?.into_inner();
    if answer.authority != current.authority.as_ref() {
        return Err("the control plane has another authority now: enrol again".to_owned());
    }
    let sealing =
        NodeKey::from_bytes(current.sealing.to_bytes().expose()).map_err(|e| e.to_string())?;
    let renewed = Identity::new(answer.certificate.into(), key, answer.authority.into(), sealing)
        .map_err(told)?;
    if renewed.id != current.id {
        return Err(format!("the certificate is for {}, not for {}", renewed.id, current.id));
    }
    Ok(renewed)
}
