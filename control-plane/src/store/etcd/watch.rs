//! A watch on etcd, as a stream of whole transactions.
//!
//! Silence is probed: etcd is asked for progress, and a watch that gets no answer to several
//! probes has lost touch and ends. Progress says that the connection lives, never that the watch
//! has caught up (older etcd servers let it overtake events).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Client, Error, EventType, WatchOptions, WatchResponse, WatchStream};
use futures_util::stream;
use tokio::time::timeout;
use weir_model::id::Revision;

use super::failure::Failure;
use super::members::Members;
use super::{own_key, signed, unsigned};
use crate::store::{Change, Changes, Op, StoreError};

/// Silence after which etcd is probed.
const PROBE: Duration = Duration::from_secs(10);
/// Probes without an answer after which the watch has lost touch.
const PROBES_MAX: usize = 3;
/// One message may hold the history of many revisions.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

struct Watch {
    stream: WatchStream,
    space: String,
    after: Revision,
    ready: VecDeque<Change>,
}

pub(super) async fn open(
    members: &Members,
    path: Vec<u8>,
    space: String,
    after: Revision,
) -> Result<Changes, StoreError> {
    // From the revision after the last seen one; zero would mean "from now on".
    let from = signed(after)?.saturating_add(1);
    let call = |client: Client| {
        let path = path.clone();
        async move {
            let options = WatchOptions::new().with_prefix().with_start_revision(from);
            let mut watch = client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
            let mut stream = watch.watch(path, Some(options)).await?;
            let first = stream.message().await?;
            Ok((stream, first))
        }
    };
    let (stream, first) = members.call(call).await.map_err(|f| f.into_store(after))?;
    let first = first.ok_or_else(|| unavailable("the watch ended at once"))?;
    let mut watch = Watch { stream, space, after, ready: VecDeque::new() };
    watch.take(&first)?;
    Ok(Box::pin(stream::try_unfold(watch, Watch::next)))
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

impl Watch {
    async fn next(mut self) -> Result<Option<(Change, Self)>, StoreError> {
        let mut probes = 0;
        loop {
            if let Some(change) = self.ready.pop_front() {
                self.after = change.revision;
                return Ok(Some((change, self)));
            }
            match timeout(PROBE, self.stream.message()).await {
                Ok(Ok(Some(message))) => {
                    probes = 0;
                    self.take(&message)?;
                }
                Ok(Ok(None)) => return Err(unavailable("etcd ended the watch")),
                Ok(Err(error)) => return Err(self.failed(&error)),
                Err(_) if probes == PROBES_MAX => {
                    return Err(unavailable("etcd went silent on a watch"));
                }
                Err(_) => {
                    probes += 1;
                    let probe = timeout(PROBE, self.stream.request_progress()).await;
                    probe
                        .unwrap_or_else(|_| Err(Error::WatchError("cannot probe".to_owned())))
                        .map_err(|error| self.failed(&error))?;
                }
            }
        }
    }

    fn failed(&self, error: &Error) -> StoreError {
        Failure::of(error).into_store(self.after)
    }

    /// Takes in one message. A refused watch says `created` and `canceled` at once.
    fn take(&mut self, message: &WatchResponse) -> Result<(), StoreError> {
        if message.canceled() {
            return Err(if message.compact_revision() > 0 {
                StoreError::Compacted(self.after)
            } else {
                StoreError::Unavailable(format!(
                    "etcd refused the watch: {}",
                    message.cancel_reason()
                ))
            });
        }
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            let key = own_key(kv, &self.space)?;
            let op = match event.event_type() {
                EventType::Put => Op::Put(key, Bytes::copy_from_slice(kv.value())),
                EventType::Delete => Op::Delete(key),
            };
            let revision = unsigned(kv.mod_revision());
            match self.ready.back_mut().filter(|change| change.revision == revision) {
                Some(change) => change.ops.push(op),
                None => self.ready.push_back(Change { revision, ops: vec![op] }),
            }
        }
        Ok(())
    }
}
