//! The stream on which a server of an older revision tells a session what belongs to no call: held
//! for the gateway's own sessions, opened again when it breaks off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use weir_model::bounds;
use weir_model::reason::Refusal;

use super::super::envelope::{self, Incoming};
use super::super::hop::Sink;
use super::super::link::Link as _;
use super::super::{Message, Outbound, Pushed, Question};
use super::legacy::Bound;
use super::post::Events;
use super::session::Lease;
use super::{Failure, Remote};

/// Wait before a stream is opened again, when the server names none.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How long a server may take to begin a stream.
const OPEN: Duration = Duration::from_secs(15);
/// Streams in a row that brought nothing before they broke off.
const EMPTY_MAX: u32 = 5;

impl Remote {
    /// See [`super::super::Upstreams::follow`].
    pub(crate) async fn follow(self: &Arc<Self>, outbound: &Outbound) -> Result<Pushed, Refusal> {
        *self.used.lock() = Instant::now();
        let session = self.session(outbound).await.map_err(Failure::into_refusal)?;
        let lease = Lease::new(&session);
        let (sink, pushed) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
        if let Some(pair) = &session.pair {
            let mut inbox = pair.mux().listen()?;
            tokio::spawn(async move {
                while let Some(message) = inbox.recv().await {
                    if sink.send(message).await.is_err() {
                        break;
                    }
                }
                drop(lease);
            });
            return Ok(pushed);
        }
        // The answer's head only; what follows takes its time.
        let opening = outbound.deadline.min(Instant::now() + OPEN);
        let events = self.get(&session.seat(opening), None).await?;
        let remote = Arc::clone(self);
        let bound = Bound { remote, session: lease, deadline: outbound.deadline };
        let follower = Follower { bound, last: None, wait: AGAIN, empty: 0 };
        tokio::spawn(follower.run(events, sink));
        Ok(pushed)
    }
}

/// Reads one session's stream.
struct Follower {
    bound: Bound,
    last: Option<String>,
    wait: Duration,
    empty: u32,
}

impl Follower {
    async fn run(mut self, mut events: Events, sink: Sink) {
        let deadline = self.bound.deadline.into();
        let follow = async {
            loop {
                if !self.read(&mut events, &sink).await || self.empty > EMPTY_MAX {
                    return;
                }
                tokio::time::sleep(self.wait).await;
                let seat = self.bound.session.seat(Instant::now() + OPEN);
                match self.bound.remote.get(&seat, self.last.as_deref()).await {
                    Ok(opened) => events = opened,
                    Err(refusal) => {
                        let _ = sink.send(Err(refusal)).await;
                        return;
                    }
                }
            }
        };
        tokio::select! {
            () = sink.closed() => {}
            _ = tokio::time::timeout_at(deadline, follow) => {}
        }
    }

    /// Reads until the stream ends; false when nobody wants to know any more.
    async fn read(&mut self, events: &mut Events, sink: &Sink) -> bool {
        self.empty += 1;
        while let Ok(Some(event)) = events.next().await {
            if let Some(retry) = event.retry_ms {
                self.wait = Duration::from_millis(retry).min(AGAIN_MAX);
            }
            if event.id.is_some() {
                self.last = event.id;
            }
            let Some(data) = event.data else { continue };
            self.empty = 0;
            let Ok(parts) = envelope::split(&data) else { return false };
            for part in parts {
                match envelope::read(&part) {
                    Ok(Incoming::Notification { method, whole }) => {
                        self.bound.remote.noticed(&method);
                        if sink.send(Ok(Message::Notification(whole))).await.is_err() {
                            return false;
                        }
                    }
                    // Nothing is in flight that it could be asked in: answered by being dropped.
                    Ok(Incoming::Request { id, method, whole }) => {
                        drop(Question::new(id, method, &whole, self.bound.reply()));
                    }
                    // Answers to nothing that was asked here.
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        }
        true
    }
}
