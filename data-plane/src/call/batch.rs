//! A batch of 2025-03-26: as many calls as it has items, side by side.
//!
//! Every item goes through all phases by itself and has its own record; the first one takes the
//! record that was opened for the request. The answer is one JSON array in the order of the
//! items, or, as soon as one of them answers with a stream, one stream that carries the
//! messages of all. Nothing of a batch outlives its client.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;
use tracing::Instrument as _;
use weir_model::snapshot::Snapshot;

use super::client::Client;
use super::endpoint::Endpoint;
use super::inbound::Conn;
use super::record::Record;
use super::respond::{self, Answer, Body};
use super::resume::Once;
use super::{Arrived, Gateway, Stop};
use crate::mcp::batch::{self, Item};
use crate::mcp::revision::Revision;
use crate::mcp::sse;

/// Takes a batch of a client whose session is of the one revision that has them.
///
/// # Errors
/// [`weir_model::reason::Reason::InvalidRequest`] for all other clients.
pub fn accept(items: Vec<Item>, client: &Client) -> Result<Answer, Stop> {
    if client.revision == Revision::V2025_03_26 {
        Ok(Answer::Batch(items))
    } else {
        Err(batch::refused().into())
    }
}

/// What items share of the request that brought them, kept for as long as they run.
pub(super) struct Shared {
    gateway: Arc<Gateway>,
    conn: Conn,
    head: Parts,
    snapshot: Arc<Snapshot>,
    endpoint: Endpoint,
}

impl Shared {
    /// Copies what arrived.
    pub(super) fn of(gateway: &Arc<Gateway>, arrived: Arrived<'_>) -> Self {
        let mut head = arrived.head.clone();
        head.extensions.insert(Once);
        Self {
            gateway: Arc::clone(gateway),
            conn: arrived.conn.clone(),
            head,
            snapshot: Arc::clone(arrived.snapshot),
            endpoint: arrived.endpoint.clone(),
        }
    }

    /// A call with a body of its own. Boxed: the phases are part of what calls this.
    pub(super) fn call(
        self: Arc<Self>,
        body: Bytes,
        record: Option<Record>,
    ) -> futures_util::future::BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let record = match record {
                Some(record) => Ok(record),
                None => {
                    Record::open(&self.gateway, &self.conn, &self.snapshot, Some(&self.endpoint))
                }
            };
            let record = match record {
                Ok(record) => record,
                Err(reason) => return respond::unrecorded(reason),
            };
            let arrived = Arrived {
                conn: &self.conn,
                head: &self.head,
                snapshot: &self.snapshot,
                endpoint: &self.endpoint,
            };
            let span = record.span();
            super::answer(&self.gateway, arrived, Full::new(body), record).instrument(span).await
        })
    }
}

/// Runs the items and joins their answers.
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    arrived: Arrived<'_>,
    items: &[Item],
    record: Record,
) -> Response<Body> {
    let shared = Arc::new(Shared::of(gateway, arrived));
    let mut record = Some(record);
    let mut running: FuturesUnordered<_> = items
        .iter()
        .enumerate()
        .map(|(at, item)| {
            let call = Arc::clone(&shared).call(item.raw.clone(), record.take());
            let silent = item.silent;
            async move { (at, silent, call.await.into_body()) }
        })
        .collect();
    let mut done: Vec<Option<Bytes>> = vec![None; items.len()];
    while let Some((at, silent, body)) = running.next().await {
        match body {
            Body::Whole(raw) => done[at] = raw.filter(|_| !silent),
            Body::Stream(first) => {
                let ended = futures_util::stream::iter(done.into_iter().flatten())
                    .map(|raw| sse::message(&[&raw]));
                let others = running.flat_map_unordered(None, |(_, silent, body)| match body {
                    Body::Whole(raw) => {
                        let raw = raw.filter(|_| !silent).map(|raw| sse::message(&[&raw]));
                        futures_util::stream::iter(raw).boxed()
                    }
                    Body::Stream(frames) => frames,
                });
                let all = futures_util::stream::select(ended.chain(first), others);
                return respond::events(Box::pin(all));
            }
        }
    }
    let mut answers = done.into_iter().flatten().peekable();
    if answers.peek().is_none() {
        return respond::empty(StatusCode::ACCEPTED);
    }
    let mut array = BytesMut::from(&b"["[..]);
    for raw in answers {
        if array.len() > 1 {
            array.put_u8(b',');
        }
        array.put_slice(&raw);
    }
    array.put_u8(b']');
    respond::json(StatusCode::OK, array.freeze())
}
