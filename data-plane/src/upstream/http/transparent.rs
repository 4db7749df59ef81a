//! A legacy client that sees through to a legacy server's own session.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::sync::mpsc;
use weir_model::bounds;
use weir_model::reason::Refusal;

use super::super::handshake::negotiated;
use super::super::hop::Hop;
use super::super::link::Link as _;
use super::super::{
    Channel, Exchange, Message, Messages, Opened, Outbound, adapt, envelope, headers,
};
use super::legacy::Cancel;
use super::post::{Body, Post};
use super::relay::Relay;
use super::{Failure, Remote, Seat, session_header};

impl Remote {
    pub(super) async fn call_transparent(
        self: &Arc<Self>,
        outbound: &Outbound,
    ) -> Result<Exchange, Failure> {
        let Some(session) = &outbound.session else {
            return self.initialize_for_client(outbound).await;
        };
        if let Some(pair) = self.pair_of(session)? {
            let messages = self.exchange_paired(pair, outbound).await?;
            let back_revision = outbound.front.revision.clone();
            return Ok(Exchange { back_revision, session: None, messages });
        }
        let seat = Seat {
            session: session_header(session)?,
            revision: &outbound.front.revision,
            credentials: &outbound.credentials,
            deadline: outbound.deadline,
        };
        let adapted = adapt::to_legacy(outbound, None)?;
        let raw_id = outbound.id.clone().unwrap_or_else(|| self.next_id());
        let mut hop = Hop::new(outbound, raw_id, false);
        hop.transparent = true;
        let mut cancel = Cancel::new(self, &seat, &hop.raw_id);
        let body = envelope::request(&hop.raw_id, &outbound.method, adapted.params.as_deref());
        let answer = self.post(&seat, body, outbound).await?;
        let messages = match answer.body {
            Body::Events(events) => {
                let remote = Arc::clone(self);
                let relay = Relay::transparent(remote, hop, *events, cancel, outbound.deadline);
                self.streamed_answer(relay)
            }
            _ => {
                cancel.disarm();
                self.legacy_messages(&hop, &answer, seat.session.is_some())?
            }
        };
        Ok(Exchange { back_revision: outbound.front.revision.clone(), session: None, messages })
    }

    /// `initialize` in the client's own words; the server's session comes back.
    async fn initialize_for_client(
        self: &Arc<Self>,
        outbound: &Outbound,
    ) -> Result<Exchange, Failure> {
        if self.paired.holds() {
            match self.initialize_paired(outbound).await {
                Err(failure) if failure.is_contradiction() => self.paired.forget(),
                other => return other,
            }
        }
        match self.post_initialize(outbound).await {
            Err(failure) if failure.is_contradiction() => {
                match self.initialize_paired(outbound).await {
                    Ok(exchange) => {
                        self.paired.remember();
                        Ok(exchange)
                    }
                    Err(_) => Err(failure),
                }
            }
            other => other,
        }
    }

    async fn post_initialize(self: &Arc<Self>, outbound: &Outbound) -> Result<Exchange, Failure> {
        let adapted = adapt::to_legacy(outbound, None)?;
        let raw_id = outbound.id.clone().unwrap_or_else(|| self.next_id());
        let hop = Hop::new(outbound, raw_id, false);
        let mut head = HeaderMap::new();
        headers::trace(outbound, &mut head);
        let body = envelope::request(&hop.raw_id, "initialize", adapted.params.as_deref());
        let answer = self
            .send(Post {
                method: Method::POST,
                credentials: &outbound.credentials,
                headers: head,
                body,
                deadline: outbound.deadline,
            })
            .await?;
        let text = |id: &http::HeaderValue| id.to_str().map(str::to_owned).unwrap_or_default();
        let session = answer.session.as_ref().map(text).unwrap_or_default();
        if let (Body::Json(body), true) = (&answer.body, !answer.status.is_success())
            && let Some(error) = super::answer::own_error(&hop, body)
            && !matches!(answer.status.as_u16(), 404 | 405)
        {
            let messages = Messages::One(error?);
            let back_revision = outbound.front.revision.clone();
            return Ok(Exchange { back_revision, session: None, messages });
        }
        let result = self.initialized(answer, &hop.id, outbound.deadline).await?;
        let back_revision = negotiated(&result)?;
        let messages = Messages::One(Message::Result(result));
        let session = Some(Opened { id: session, local: false });
        Ok(Exchange { back_revision, session, messages })
    }

    /// A notification or a response of the client.
    pub(crate) async fn deliver(&self, channel: &Channel, message: Bytes) -> Result<(), Refusal> {
        if let Some(pair) = self.pair_of(&channel.session)? {
            return pair.send(&message, channel.deadline).await.map_err(Failure::into_refusal);
        }
        let seat = Seat::of(channel)?;
        self.post_message(&seat, message).await.map_err(Failure::into_refusal)
    }

    /// The stream of what belongs to no call.
    pub(crate) async fn open_stream(
        self: &Arc<Self>,
        channel: &Channel,
        last_event_id: Option<&str>,
    ) -> Result<Exchange, Refusal> {
        if let Some(pair) = self.pair_of(&channel.session)? {
            return Ok(Exchange {
                back_revision: channel.revision.clone(),
                session: None,
                messages: Messages::Stream(pair.mux().listen()?),
            });
        }
        let events = self.get(&Seat::of(channel)?, last_event_id).await?;
        let (sink, messages) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
        tokio::spawn(Relay::push(Arc::clone(self), events, channel.deadline).run(sink));
        Ok(Exchange {
            back_revision: channel.revision.clone(),
            session: None,
            messages: Messages::Stream(messages),
        })
    }

    /// Ends the client's session.
    pub(crate) async fn delete_session(&self, channel: &Channel) -> Result<(), Refusal> {
        if let Some(pair) = self.pair_of(&channel.session)? {
            self.pairs.lock().remove(&channel.session);
            pair.leave();
            return Ok(());
        }
        self.delete(&Seat::of(channel)?).await
    }
}
