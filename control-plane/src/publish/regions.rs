//! What each region sees, computed once per change and shared by the streams of its nodes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use weir_model::id::{Digest, Name};
use weir_model::resource::{Kind, ResourceKey, ResourceSet};
use weir_model::sync::Applied;
use weir_model::sync::publisher::View;

use crate::index::{Indexed, Newest};
use crate::store::Store;

/// Earlier views that are kept, for nodes that come back after a moment. Neighbours share almost
/// everything.
const KNOWN_MAX: usize = 128;
/// Longest wait for a view from the store's history; a node that waits longer gets everything.
const PAST: Duration = Duration::from_secs(10);

pub(super) struct Regions {
    newest: Newest,
    store: Arc<dyn Store>,
    feeds: Mutex<HashMap<Name, Feed>>,
    /// What history did not know. Held while it is read: who waits for the same view, or for the
    /// same disappointment, finds it after.
    reading: tokio::sync::Mutex<VecDeque<Applied>>,
}

struct Feed {
    /// What the newest view is a view of.
    of: Arc<Indexed>,
    tell: watch::Sender<Arc<View>>,
    known: VecDeque<Arc<View>>,
}

impl Regions {
    pub(super) fn new(newest: Newest, store: Arc<dyn Store>) -> Self {
        Self { newest, store, feeds: Mutex::default(), reading: Default::default() }
    }

    /// A view of a region that a node says to have, from the store's history where this replica
    /// has not seen it itself. None when it cannot be had, or is another than the node says.
    pub(super) async fn past(&self, region: &Name, applied: Applied) -> Option<Arc<View>> {
        // A node that wants everything says so with a digest of nothing.
        if applied.digest == Digest::default() {
            return None;
        }
        let read = async {
            let mut missed = self.reading.lock().await;
            if let Some(known) = self.known(region, applied.digest) {
                return Some(known);
            }
            if missed.contains(&applied) {
                return None;
            }
            if missed.len() >= KNOWN_MAX {
                missed.pop_front();
            }
            missed.push_back(applied);
            let indexed = Indexed::past(&*self.store, applied.revision).await;
            let indexed = indexed.inspect_err(|error| {
                tracing::info!(%error, revision = %applied.revision, "history does not reach back");
            });
            let view = view(&indexed.ok()?, region, None)?;
            if view.applied.digest != applied.digest {
                return None;
            }
            missed.pop_back();
            if let Some(feed) = self.feeds.lock().get_mut(region) {
                feed.remember(Arc::clone(&view));
            }
            Some(view)
        };
        tokio::time::timeout(PAST, read).await.ok().flatten()
    }

    fn known(&self, region: &Name, digest: Digest) -> Option<Arc<View>> {
        let feeds = self.feeds.lock();
        let known = &feeds.get(region)?.known;
        known.iter().find(|view| view.applied.digest == digest).cloned()
    }

    /// A region's newest view and its changes, and earlier views, the newest last.
    pub(super) fn follow(&self, region: &Name) -> (watch::Receiver<Arc<View>>, Vec<Arc<View>>) {
        let mut feeds = self.feeds.lock();
        let feed = feeds.entry(region.clone()).or_insert_with(|| {
            let indexed = self.newest.borrow().clone();
            // Of nothing, nothing is seen: later views are made from this one.
            let view = view(&indexed, region, None).map(|view| (indexed, view));
            let (of, view) = view.unwrap_or_default();
            let known = VecDeque::from([Arc::clone(&view)]);
            Feed { of, known, tell: watch::Sender::new(view) }
        });
        (feed.tell.subscribe(), feed.known.iter().cloned().collect())
    }

    /// True for a node that is cut off.
    pub(super) fn revoked(&self, node: &Name) -> bool {
        let key = ResourceKey::global(Kind::NodeRevocation, node.as_str());
        self.newest.borrow().set.get(&key).is_some()
    }

    /// Follows the configuration, for ever.
    pub(super) async fn run(&self, changed: impl Fn(&Indexed)) {
        let mut newest = self.newest.clone();
        newest.mark_changed();
        while newest.changed().await.is_ok() {
            let indexed = newest.borrow_and_update().clone();
            let before: Vec<(Name, Arc<Indexed>, Arc<View>)> = {
                let feeds = self.feeds.lock();
                let each = feeds.iter();
                let of = |(region, feed): (&Name, &Feed)| {
                    (region.clone(), Arc::clone(&feed.of), Arc::clone(&feed.tell.borrow()))
                };
                each.map(of).collect()
            };
            let source = Arc::clone(&indexed);
            // Digests of large sets take long enough to hold up other tasks.
            let views = tokio::task::spawn_blocking(move || {
                let each = before.into_iter().map(|(region, of, seen)| {
                    let view = view(&source, &region, Some((&of.set, &seen.set)));
                    Some((region, view?))
                });
                each.flatten().collect::<Vec<_>>()
            });
            let Ok(views) = views.await else { continue };
            let mut feeds = self.feeds.lock();
            // Regions without nodes cost nothing; they are computed anew when one comes.
            feeds.retain(|_, feed| feed.tell.receiver_count() > 0);
            for (region, view) in views {
                if let Some(feed) = feeds.get_mut(&region) {
                    feed.of = Arc::clone(&indexed);
                    feed.push(view);
                }
            }
            drop(feeds);
            changed(&indexed);
        }
    }
}

impl Feed {
    fn push(&mut self, view: Arc<View>) {
        if self.tell.borrow().applied == view.applied {
            return;
        }
        self.remember(Arc::clone(&view));
        self.tell.send_replace(view);
    }

    fn remember(&mut self, view: Arc<View>) {
        let at = self.known.partition_point(|known| known.applied.revision < view.applied.revision);
        self.known.insert(at, view);
        if self.known.len() > KNOWN_MAX {
            self.known.pop_front();
        }
    }
}

/// None when this replica cannot read all of the configuration: what it would publish might lack
/// a rule, so its nodes keep what they have.
fn view(
    indexed: &Indexed,
    region: &Name,
    before: Option<(&ResourceSet, &ResourceSet)>,
) -> Option<Arc<View>> {
    if let Some((path, why)) = indexed.broken.first_key_value() {
        let revision = indexed.revision;
        tracing::error!(%revision, path, why, "not published: a document cannot be read");
        return None;
    }
    let set = match before {
        Some(before) => indexed.set.for_region_after(region, before),
        None => indexed.set.for_region(region),
    };
    Some(Arc::new(View::new(indexed.revision, set)))
}
