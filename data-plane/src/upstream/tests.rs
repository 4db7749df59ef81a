//! The back edge against servers that do what real ones do, and what they should not.

mod bridge;
mod fake;
mod legacy;
mod modern;
mod observe;
mod paired;
mod resources;
mod stdio;
mod tls;

use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_model::reason::{Reason, Refusal};

use super::{Commands, Exchange, Message, Messages, Outbound, Settings, Upstreams};

fn upstreams() -> Upstreams {
    let settings = Settings { commands: Commands::Any, ..Settings::default() };
    Upstreams::new(settings).expect("roots")
}

/// Every message of an exchange, or the refusal that ended it.
async fn all(exchange: Exchange) -> (Vec<Message>, Option<Refusal>) {
    let mut messages = Vec::new();
    match exchange.messages {
        Messages::One(message) => messages.push(message),
        Messages::Stream(mut stream) => {
            while let Some(next) = stream.recv().await {
                match next {
                    // Nobody answers here: the server is told so.
                    Ok(Message::Ask(question)) => drop(question),
                    Ok(message) => messages.push(message),
                    Err(refusal) => return (messages, Some(refusal)),
                }
            }
        }
    }
    (messages, None)
}

/// The result of a call that must have one.
async fn result(upstreams: &Upstreams, outbound: Outbound) -> String {
    let exchange = upstreams.call(outbound).await.expect("an exchange");
    let (messages, refusal) = all(exchange).await;
    assert!(refusal.is_none(), "{refusal:?}");
    match messages.into_iter().next_back() {
        Some(Message::Result(raw)) => String::from_utf8(raw.to_vec()).expect("text"),
        other => panic!("no result but {other:?}"),
    }
}

/// The reason for which a call fails, at once or within its stream.
async fn reason(upstreams: &Upstreams, outbound: Outbound) -> Reason {
    match upstreams.call(outbound).await {
        Err(refusal) => refusal.reason,
        Ok(exchange) => all(exchange).await.1.expect("a refusal").reason,
    }
}

/// Waits until something is so, for at most ten seconds.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn json(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}
