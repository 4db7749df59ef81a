//! Calls over a connection that carries many at once: the pipes of a child, or the two halves of
//! an HTTP+SSE session. Answers come in any order; the multiplexer tells them apart.
//!
//! A call that its client leaves, or that runs into its deadline, is cancelled at the server.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_model::bounds;
use weir_model::reason::Refusal;

use super::envelope::{self, Id};
use super::hop::{Hop, Sink};
use super::mux::Mux;
use super::{Message, Messages, refuse};

/// A connection to a server.
pub(crate) trait Link: Debug + Send + Sync + 'static {
    /// Why a message was not sent, or not answered.
    type Failure: From<Refusal> + Send;

    /// Who waits for what on it.
    fn mux(&self) -> &Mux;

    /// Sends one message, waiting for room at most until the deadline.
    fn send(
        &self,
        message: &Bytes,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Self::Failure>> + Send;

    /// Sends one message without waiting, and without caring much.
    fn send_aside(self: &Arc<Self>, message: Bytes);
}

/// One request for a connection.
#[derive(Debug)]
pub(crate) struct Carried<'a> {
    /// Its id, and what its messages mean.
    pub(crate) hop: Hop,
    /// The progress token by which the server names it.
    pub(crate) token: Option<Id>,
    /// Method.
    pub(crate) method: &'a str,
    /// `params` for the wire.
    pub(crate) params: Option<Bytes>,
    /// When to give up.
    pub(crate) deadline: Instant,
}

/// A call in flight: cancelled at the server when dropped before the answer.
#[derive(Debug)]
struct Ticket<L: Link> {
    link: Arc<L>,
    hop: Hop,
    cancels: bool,
}

impl<L: Link> Drop for Ticket<L> {
    fn drop(&mut self) {
        if self.link.mux().unregister(&self.hop.id) && self.cancels {
            let mut params = b"{\"requestId\":".to_vec();
            params.extend_from_slice(&self.hop.raw_id);
            params.extend_from_slice(b",\"reason\":\"The client left.\"}");
            let message = envelope::notification("notifications/cancelled", Some(&params));
            self.link.send_aside(message);
        }
    }
}

/// Sends a request and waits for the first message.
pub(crate) async fn exchange<L: Link>(
    link: Arc<L>,
    call: Carried<'_>,
) -> Result<Messages, L::Failure> {
    let Carried { hop, token, method, params, deadline } = call;
    let message = envelope::request(&hop.raw_id, method, params.as_deref());
    let mut inbox = link.mux().register(hop.clone(), token)?;
    // A handshake may not be cancelled.
    let ticket = Ticket { link, hop, cancels: method != "initialize" };
    ticket.link.send(&message, deadline).await?;
    let late = |_| refuse::timeout("no answer before the deadline");
    let first = tokio::time::timeout_at(deadline.into(), inbox.recv())
        .await
        .map_err(late)?
        .ok_or_else(|| ticket.link.mux().ended())?;
    match first? {
        message @ (Message::Result(_) | Message::Error(_)) => Ok(Messages::One(message)),
        message => {
            let (sink, messages) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
            tokio::spawn(async move {
                forward(message, inbox, sink, deadline).await;
                drop(ticket);
            });
            Ok(Messages::Stream(messages))
        }
    }
}

/// One question of the gateway itself, and its answer.
pub(crate) async fn ask<L: Link>(
    link: &Arc<L>,
    raw_id: Bytes,
    (method, params): (&str, &Bytes),
    deadline: Instant,
) -> Result<Message, L::Failure> {
    let hop = Hop::own(raw_id);
    let message = envelope::request(&hop.raw_id, method, Some(params));
    let mut inbox = link.mux().register(hop.clone(), None)?;
    let ticket = Ticket { link: Arc::clone(link), hop, cancels: false };
    ticket.link.send(&message, deadline).await?;
    let answer = async {
        loop {
            match inbox.recv().await {
                None => return Err(link.mux().ended()),
                Some(Ok(Message::Notification(_) | Message::Prime { .. })) => {}
                Some(other) => return other,
            }
        }
    };
    let answer = tokio::time::timeout_at(deadline.into(), answer).await;
    let late = |_| refuse::timeout(format!("no answer to {method} before the deadline"));
    Ok(answer.map_err(late)??)
}

/// Carries messages on until the answer, the deadline, or the client's leaving.
async fn forward(
    first: Message,
    mut inbox: mpsc::Receiver<Result<Message, Refusal>>,
    sink: Sink,
    deadline: Instant,
) {
    let carry = async {
        let mut next = Some(Ok(first));
        while let Some(message) = next {
            let last = matches!(message, Err(_) | Ok(Message::Result(_) | Message::Error(_)));
            if sink.send(message).await.is_err() || last {
                return;
            }
            next = inbox.recv().await;
        }
    };
    tokio::select! {
        () = sink.closed() => {}
        done = tokio::time::timeout_at(deadline.into(), carry) => {
            if done.is_err() {
                let _ = sink.try_send(Err(refuse::timeout("no answer before the deadline")));
            }
        }
    }
}
