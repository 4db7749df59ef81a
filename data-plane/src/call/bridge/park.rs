//! Calls at servers of older revisions that wait until their stateless client comes back.
//!
//! The call stays open at this proxy, with its questions; the client gets `input_required` and a
//! request state that names the place. Its retry reaches [`Waiting`] through the hop, answers the
//! questions and gets what the server says next. A state is good for one retry: each round has a
//! place of its own. Who does not come back in [`bounds::PARKED_MS`] loses the call, and the
//! server is told.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use super::{frames, state};
use crate::hop::{Body, Holding, streamed};
use crate::mcp::members::{self, Members};
use crate::upstream::Message;

/// What a retry asks of a parked call.
pub(super) const RESUME: &str = "resume";

/// How many calls of each principal are parked here.
#[derive(Debug, Clone, Default)]
pub struct Parking(Arc<Mutex<HashMap<String, usize>>>);

/// One of them.
#[derive(Debug)]
pub(super) struct Place {
    parking: Parking,
    principal: String,
}

impl Parking {
    /// One more, of whom the group may allow less than the gateway.
    pub(super) fn take(&self, principal: &str, most: Option<u32>) -> Result<Place, Refusal> {
        let most = most.map_or(bounds::PARKED_PER_PRINCIPAL_MAX, |most| most as usize);
        let mut parked = self.0.lock();
        let count = parked.entry(principal.to_owned()).or_default();
        if *count >= most {
            return Err(Refusal::new(Reason::ConcurrencyLimited, "calls that wait for input")
                .hint("Too many calls wait for input: bring some to their end first.")
                .retry_after(5));
        }
        *count += 1;
        Ok(Place { parking: self.clone(), principal: principal.to_owned() })
    }

    /// How many are parked.
    pub fn count(&self) -> usize {
        self.0.lock().values().sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut parked = self.parking.0.lock();
        if let Some(count) = parked.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                parked.remove(&self.principal);
            }
        }
    }
}

/// Where messages go.
pub(super) type Sink = mpsc::Sender<Result<Message, Refusal>>;

/// A client that has come back.
#[derive(Debug)]
pub(super) struct Back {
    /// Its answers, by key, raw.
    pub(super) responses: HashMap<String, Bytes>,
    /// Where the rest goes.
    pub(super) sink: Sink,
}

/// A parked call, from outside.
#[derive(Debug)]
pub(super) struct Waiting(pub(super) mpsc::Sender<Back>);

#[async_trait]
impl Holding for Waiting {
    async fn ask(&self, verb: &str, body: Body) -> Result<Body, Refusal> {
        if verb != RESUME {
            return Err(Refusal::new(Reason::InvalidRequest, "not something that is parked"));
        }
        let body = Limited::new(body, bounds::REQUEST_BODY_BYTES_MAX).collect().await;
        let cut = |_| Refusal::new(Reason::InvalidRequest, "the input did not arrive");
        let responses = responses(&body.map_err(cut)?.to_bytes())?;
        let (sink, messages) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
        let again = |_| state::refused("the call goes on already");
        self.0.try_send(Back { responses, sink }).map_err(again)?;
        let written = ReceiverStream::new(messages)
            .filter_map(|message| std::future::ready(frames::write(&message).map(Ok)));
        Ok(streamed(written))
    }
}

fn responses(raw: &Bytes) -> Result<HashMap<String, Bytes>, Refusal> {
    let invalid = || {
        Refusal::new(Reason::InvalidParams, "inputResponses")
            .hint("The parameter inputResponses must hold one object for each input request.")
    };
    let text = std::str::from_utf8(raw).map_err(|_| invalid())?;
    let all = Members::parse(text).map_err(Refusal::from)?;
    let mut responses = HashMap::new();
    for (key, value) in all.iter() {
        if !members::is_object(value) {
            return Err(invalid());
        }
        responses.insert(key.to_owned(), raw.slice_ref(value.get().as_bytes()));
    }
    Ok(responses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_calls_are_counted_per_principal() {
        let parking = Parking::default();
        let most = bounds::PARKED_PER_PRINCIPAL_MAX;
        let mut held: Vec<_> = (0..most).map(|_| parking.take("a", None).unwrap()).collect();
        assert_eq!(parking.take("a", None).unwrap_err().reason, Reason::ConcurrencyLimited);
        assert!(parking.take("b", Some(1)).is_ok() && parking.take("a", Some(1)).is_err());
        held.pop();
        assert!(parking.take("a", None).is_ok());
        held.clear();
        assert_eq!(parking.count(), 0);
        assert!(parking.0.lock().is_empty());
    }

    #[test]
    fn answers_are_objects() {
        let read = |text: &str| responses(&Bytes::copy_from_slice(text.as_bytes()));
        let all = read(r#"{"a":{"action":"accept"},"b":{}}"#).unwrap();
        assert_eq!(all["a"], r#"{"action":"accept"}"#);
        for bad in [r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":"x"}"#] {
            assert_eq!(read(bad).unwrap_err().reason, Reason::InvalidParams, "{bad}");
        }
    }
}
