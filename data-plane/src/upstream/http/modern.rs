//! Calls to servers that speak 2026-07-28: one POST each, no state.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use super::super::adapt::{self, MODERN};
use super::super::handshake::Listed;
use super::super::hop::Hop;
use super::super::{Exchange, Messages, Outbound, envelope, headers, refuse};
use super::answer::{any_error, by_status, own_error};
use super::post::{Answer, Body, Post};
use super::relay::Relay;
use super::{Failure, Remote, unexpected};

impl Remote {
    pub(super) async fn call_modern(
        self: &Arc<Self>,
        outbound: &Outbound,
    ) -> Result<Exchange, Failure> {
        adapt::exists(&outbound.method, true)?;
        let id = self.next_id();
        let ours = String::from_utf8_lossy(&id).into_owned();
        let adapted = adapt::to_modern(outbound, &ours)?;
        let mut hop = Hop::new(outbound, id, true);
        hop.token = adapted.token;
        let mut head = HeaderMap::new();
        head.insert(headers::VERSION, HeaderValue::from_static(MODERN));
        let declared = self.declared.of(outbound);
        headers::mirror(outbound, &declared, &mut head);
        headers::trace(outbound, &mut head);
        let body = envelope::request(&hop.raw_id, &outbound.method, adapted.params.as_deref());
        let answer = self
            .send(Post {
                method: Method::POST,
                credentials: &outbound.credentials,
                headers: head,
                body,
                deadline: outbound.deadline,
            })
            .await?;
        let messages = self.modern_messages(hop, answer, outbound)?;
        Ok(Exchange { back_revision: MODERN.to_owned(), session: None, messages })
    }

    fn modern_messages(
        self: &Arc<Self>,
        hop: Hop,
        answer: Answer,
        outbound: &Outbound,
    ) -> Result<Messages, Failure> {
        let status = answer.status;
        match answer.body {
            Body::Events(events) => {
                let relay = Relay::modern(Arc::clone(self), hop, *events, outbound.deadline);
                Ok(self.streamed_answer(relay))
            }
            Body::Json(body) if status.is_success() => Ok(self.whole_answer(&hop, &body)?),
            Body::Json(body) => {
                let error = any_error(&body);
                if let Some((-32020, _)) = &error {
                    let refusal = refuse::protocol("the server finds other headers than it wants");
                    return Err(Failure::Mismatch(refusal));
                }
                if let Some((-32022, error)) = error
                    && Listed::of_error(&error).is_some_and(|listed| !listed.modern)
                {
                    return Err(Failure::Contradiction(unexpected(status)));
                }
                match own_error(&hop, &body) {
                    Some(message) => Ok(Messages::One(message?)),
                    None => Err(by_status(status)),
                }
            }
            Body::Other => Err(by_status(status)),
        }
    }
}
