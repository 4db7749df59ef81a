//! What each region sees, computed once per change and shared by the streams of its nodes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use weir_model::id::Name;
use weir_model::resource::{Kind, ResourceKey};
use weir_model::sync::publisher::View;

use crate::index::{Indexed, Newest};

/// Earlier views that are kept, for nodes that come back after a moment.
const KNOWN_MAX: usize = 16;

pub(super) struct Regions {
    newest: Newest,
    feeds: Mutex<HashMap<Name, Feed>>,
}

struct Feed {
    tell: watch::Sender<Arc<View>>,
    known: VecDeque<Arc<View>>,
}

impl Regions {
    pub(super) fn new(newest: Newest) -> Self {
        Self { newest, feeds: Mutex::default() }
    }

    /// A region's newest view and its changes, and earlier views, the newest last.
    pub(super) fn follow(&self, region: &Name) -> (watch::Receiver<Arc<View>>, Vec<Arc<View>>) {
        let mut feeds = self.feeds.lock();
        let feed = feeds.entry(region.clone()).or_insert_with(|| {
            let indexed = self.newest.borrow().clone();
            let view = view(&indexed, region).unwrap_or_default();
            Feed { known: VecDeque::from([Arc::clone(&view)]), tell: watch::Sender::new(view) }
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
            let regions: Vec<Name> = self.feeds.lock().keys().cloned().collect();
            let source = Arc::clone(&indexed);
            // Digests of large sets take long enough to hold up other tasks.
            let views = tokio::task::spawn_blocking(move || {
                let each = regions.into_iter().map(|r| (view(&source, &r), r));
                each.filter_map(|(view, region)| Some((region, view?))).collect::<Vec<_>>()
            });
            let Ok(views) = views.await else { continue };
            let mut feeds = self.feeds.lock();
            // Regions without nodes cost nothing; they are computed anew when one comes.
            feeds.retain(|_, feed| feed.tell.receiver_count() > 0);
            for (region, view) in views {
                if let Some(feed) = feeds.get_mut(&region) {
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
        self.known.push_back(Arc::clone(&view));
        if self.known.len() > KNOWN_MAX {
            self.known.pop_front();
        }
        self.tell.send_replace(view);
    }
}

/// None when this replica cannot read all of the configuration: what it would publish might lack
/// a rule, so its nodes keep what they have.
fn view(indexed: &Indexed, region: &Name) -> Option<Arc<View>> {
    if let Some((path, why)) = indexed.broken.first_key_value() {
        let revision = indexed.revision;
        tracing::error!(%revision, path, why, "not published: a document cannot be read");
        return None;
    }
    Some(Arc::new(View::new(indexed.revision, indexed.set.for_region(region))))
}
