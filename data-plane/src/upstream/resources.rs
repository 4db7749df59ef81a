//! Following single resources at a server, in whatever era it speaks.
//!
//! A modern server is asked for one subscription stream. At an older one the resources are
//! subscribed to on a session of their own, whose push stream is followed; it ends with this.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use super::{Exchange, Message, Messages, Outbound, Pushed, Upstreams, Wire, raw, refuse};

/// How long a server may take to accept one subscription.
const ACCEPT: Duration = Duration::from_secs(15);

/// Resources that are followed at one server. Dropping it ends that.
#[derive(Debug)]
pub struct Followed {
    stream: Pushed,
    accepted: Vec<String>,
    /// At a server of an older revision: whose session has to be ended.
    ends: Option<(Upstreams, Outbound)>,
}

impl Followed {
    /// Those of the resources that the server tells of.
    pub fn accepted(&self) -> &[String] {
        &self.accepted
    }

    /// The next resource that has changed, or a part of one; none when the server tells no more.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            let Message::Notification(whole) = self.stream.recv().await?.ok()? else { continue };
            if raw::text(&whole, "method").as_deref() != Some("notifications/resources/updated") {
                continue;
            }
            let uri = raw::at(&whole, &["params", "uri"]);
            let uri = uri.and_then(|uri| serde_json::from_str::<String>(uri.get()).ok());
            if let Some(uri) = uri.filter(|uri| uri.len() <= bounds::URI_BYTES_MAX) {
                return Some(uri);
            }
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let (Some((upstreams, request)), Ok(handle)) =
            (self.ends.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        handle.spawn(async move {
            upstreams.release(&request.version, &request.front.isolation).await;
        });
    }
}

impl Upstreams {
    /// Follows resources of a server. `request` says at which version, for whom and with what
    /// credential; its isolation must be used for nothing else.
    ///
    /// # Errors
    /// When the server cannot be asked or has no way to tell.
    pub async fn follow_resources(
        &self,
        request: Outbound,
        uris: &[String],
    ) -> Result<Followed, Refusal> {
        let opened = async {
            let wire = self.wire(&request.version, true, &request.credentials).await?;
            match wire {
                Wire::Modern => self.listened(request, uris).await,
                Wire::Legacy => self.subscribed(request, uris).await,
            }
        };
        let late = |_| refuse::timeout("no subscription before the deadline");
        tokio::time::timeout(ACCEPT, Box::pin(opened)).await.map_err(late)?
    }

    async fn listened(&self, request: Outbound, uris: &[String]) -> Result<Followed, Refusal> {
        let params = json!({ "notifications": { "resourceSubscriptions": uris } });
        let listen = Outbound {
            method: "subscriptions/listen".to_owned(),
            params: Some(params.to_string().into()),
            ..request
        };
        let Exchange { messages: Messages::Stream(mut stream), .. } = self.call(listen).await?
        else {
            return Err(refuse::protocol("the server answers a subscription without a stream"));
        };
        let first = match stream.recv().await {
            Some(first) => first?,
            None => return Err(refuse::closed("the subscription ended before it began")),
        };
        Ok(Followed { stream, accepted: acknowledged(&first, uris), ends: None })
    }

    async fn subscribed(&self, request: Outbound, uris: &[String]) -> Result<Followed, Refusal> {
        let stream = self.follow(&request).await?;
        let ends = Some((self.clone(), request.clone()));
        let mut followed = Followed { stream, accepted: Vec::new(), ends };
        for uri in uris {
            let subscribe = Outbound {
                method: "resources/subscribe".to_owned(),
                params: Some(Bytes::from(json!({ "uri": uri }).to_string())),
                deadline: Instant::now() + ACCEPT,
                ..request.clone()
            };
            if let Message::Result(_) = self.call(subscribe).await?.last().await? {
                followed.accepted.push(uri.clone());
            }
        }
        if followed.accepted.is_empty() {
            return Err(Refusal::new(Reason::MethodUnknown, "the server takes no subscription"));
        }
        Ok(followed)
    }
}

/// Those of the resources that an acknowledgement names.
fn acknowledged(first: &Message, uris: &[String]) -> Vec<String> {
    let Message::Notification(whole) = first else { return Vec::new() };
    let named = raw::at(whole, &["params", "notifications", "resourceSubscriptions"]);
    let named: Vec<Value> =
        named.and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default();
    uris.iter().filter(|uri| named.iter().any(|one| one == uri.as_str())).cloned().collect()
}
