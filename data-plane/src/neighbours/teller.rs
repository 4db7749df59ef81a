//! Tells one other proxy what it has to know, in order, many things at once when there are many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use weir_model::bounds;
use weir_runtime::backoff::Backoff;
use weir_runtime::clock::SharedClock;

use super::{MEET, Said, TELL, Tiding};
use crate::hop::{Body, Holder, Hop, Lost, whole};
use crate::sessions::{Ended, Past};

/// Waits between attempts to reach it.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_CAP: Duration = Duration::from_secs(10);

/// What waits to be told.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// In the same region.
    pub(super) near: bool,
    waiting: Mutex<Waiting>,
    /// Number of the last tiding that was put in.
    put: watch::Sender<u64>,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct Waiting {
    tidings: VecDeque<(u64, Tiding)>,
    next: u64,
    /// Some were dropped: it is told of everything.
    behind: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Number of the last tiding that it knows.
    told: u64,
    /// None before the first attempt.
    reached: Option<bool>,
}

impl Mailbox {
    pub(super) fn new(near: bool) -> Self {
        Self {
            near,
            waiting: Mutex::default(),
            put: watch::Sender::new(0),
            state: watch::Sender::new(State { told: 0, reached: None }),
        }
    }

    /// Adds a tiding; its number.
    pub(super) fn put(&self, tiding: Tiding) -> u64 {
        let mut waiting = self.waiting.lock();
        waiting.next += 1;
        let number = waiting.next;
        let lasting = matches!(tiding, Tiding::Ended(_));
        // What does not last is not kept for somebody who is away.
        if lasting || self.reached() {
            waiting.tidings.push_back((number, tiding));
        }
        if waiting.tidings.len() > bounds::TIDINGS_MAX {
            waiting.tidings.clear();
            waiting.behind = true;
        }
        drop(waiting);
        self.put.send_replace(number);
        number
    }

    pub(super) fn reached(&self) -> bool {
        self.state.borrow().reached == Some(true)
    }

    /// Returns when it knows, or cannot be reached.
    pub(super) async fn told(&self, number: u64) {
        let known = |state: &State| state.told >= number || state.reached != Some(true);
        let _ = self.state.subscribe().wait_for(known).await;
    }

    /// Returns when it was tried to reach it.
    pub(super) async fn tried(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.reached.is_some()).await;
    }

    #[cfg(test)]
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.lock().behind
    }

    /// What is to be told next, and the number of the last of it; none when there is nothing.
    pub(super) fn take(&self) -> Option<(Vec<Tiding>, u64)> {
        let mut waiting = self.waiting.lock();
        let count = waiting.tidings.len().min(bounds::TIDINGS_AT_ONCE_MAX);
        let mut bytes = 0;
        let mut last = 0;
        let mut taken = Vec::with_capacity(count);
        while let Some((number, tiding)) = waiting.tidings.front() {
            bytes += size(tiding);
            if taken.len() >= count || (bytes > bounds::TIDINGS_BYTES_MAX / 2 && !taken.is_empty())
            {
                break;
            }
            last = *number;
            taken.push(tiding.clone());
            waiting.tidings.pop_front();
        }
        (!taken.is_empty()).then_some((taken, last))
    }

    /// Puts back what was not told and lasts.
    pub(super) fn put_back(&self, tidings: Vec<Tiding>, last: u64) {
        let mut waiting = self.waiting.lock();
        waiting.tidings.retain(|(_, tiding)| matches!(tiding, Tiding::Ended(_)));
        for tiding in tidings.into_iter().rev().filter(|t| matches!(t, Tiding::Ended(_))) {
            waiting.tidings.push_front((last, tiding));
        }
    }
}

fn size(tiding: &Tiding) -> usize {
    let text = match tiding {
        Tiding::Ended(past) => past.session.len(),
        Tiding::Cancelled { session, request } => session.len() + request.len(),
        Tiding::Subscribed { session, uri: text, .. } | Tiding::Level { session, level: text } => {
            session.len() + text.len()
        }
    };
    // JSON may write six characters for one.
    100 + 6 * text
}

/// See the module.
pub(super) struct Teller {
    pub(super) hop: Hop,
    pub(super) to: Holder,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) ended: Ended,
    pub(super) clock: SharedClock,
}

impl Teller {
    /// Runs until it is aborted.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_CAP);
        loop {
            let lost = match self.meet().await {
                Ok(()) => {
                    self.mailbox.state.send_modify(|state| state.reached = Some(true));
                    backoff.reset();
                    self.tell().await
                }
                Err(lost) => lost,
            };
            tracing::debug!(node = self.to.node, ?lost, "another proxy cannot be told");
            self.mailbox.state.send_modify(|state| state.reached = Some(false));
            backoff.sleep().await;
        }
    }

    /// Says where this proxy is, and asks for all that have ended.
    async fn meet(&self) -> Result<(), Lost> {
        let mut body = self.say(MEET, Vec::new()).await?;
        let now = i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX);
        let cut = || Lost::Unreachable("it stopped half way".to_owned());
        let mut line = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| cut())?;
            for byte in frame.data_ref().into_iter().flat_map(|data| data.iter().copied()) {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let page: Vec<Past> = serde_json::from_slice(&line).map_err(|_| cut())?;
                line.clear();
                page.iter().for_each(|past| self.ended.hear(past, now));
            }
            if line.len() > bounds::TIDINGS_BYTES_MAX {
                return Err(cut());
            }
        }
        Ok(())
    }

    /// Tells for as long as it can be reached.
    async fn tell(&self) -> Lost {
        let mut put = self.mailbox.put.subscribe();
        loop {
            put.borrow_and_update();
            let behind = std::mem::take(&mut self.mailbox.waiting.lock().behind);
            if behind {
                if let Err(lost) = self.tell_all().await {
                    self.mailbox.waiting.lock().behind = true;
                    return lost;
                }
                continue;
            }
            let Some((tidings, last)) = self.mailbox.take() else {
                // Whatever was dropped on the way needs not be waited for.
                let number = *put.borrow();
                self.mailbox.state.send_modify(|state| state.told = state.told.max(number));
                if put.changed().await.is_err() {
                    return Lost::Gone;
                }
                continue;
            };
            match self.say(TELL, tidings.clone()).await {
                Ok(_) => {
                    self.mailbox.state.send_modify(|state| state.told = state.told.max(last));
                }
                Err(lost) => {
                    self.mailbox.put_back(tidings, last);
                    return lost;
                }
            }
        }
    }

    async fn tell_all(&self) -> Result<(), Lost> {
        for page in self.ended.pages(bounds::TIDINGS_AT_ONCE_MAX) {
            self.say(TELL, page.into_iter().map(Tiding::Ended).collect()).await?;
        }
        Ok(())
    }

    async fn say(&self, verb: &'static str, tidings: Vec<Tiding>) -> Result<Body, Lost> {
        let said = Said { address: self.hop.address().map(str::to_owned), tidings };
        let body = serde_json::to_vec(&said).unwrap_or_default();
        self.hop.tell(&self.to, verb, whole(body)).await
    }
}
