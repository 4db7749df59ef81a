//! One replica of the control plane, behind the truth by a moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::id::{Name, Revision};
use weir_model::resource::ResourceSet;
use weir_model::sync::publisher::{Action, Publisher, View};
use weir_model::sync::{Applied, Hello, NodeFrame, Now, Refused};

use super::node::timing;
use super::world::Truth;

/// Earlier views that are kept for nodes that come back.
const KNOWN: usize = 3;

pub(crate) struct Replica {
    name: String,
    revision: Revision,
    set: ResourceSet,
    views: BTreeMap<Name, Vec<Arc<View>>>,
    streams: BTreeMap<u64, (Name, Publisher)>,
}

type Todo = Vec<(u64, Vec<Action>)>;

impl Replica {
    pub(crate) fn new(at: usize, truth: &Truth) -> Self {
        Self {
            name: format!("cp-{at}"),
            revision: truth.revision(),
            set: truth.set().clone(),
            views: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    pub(crate) fn restart(&mut self, truth: &Truth) -> Vec<u64> {
        self.revision = truth.revision();
        self.set = truth.set().clone();
        self.views.clear();
        std::mem::take(&mut self.streams).into_keys().collect()
    }

    fn view(&mut self, region: &Name) -> Arc<View> {
        let views = self.views.entry(region.clone()).or_default();
        let view = View::new(self.revision, self.set.for_region(region));
        if views.last().is_none_or(|v| v.applied != view.applied) {
            views.push(Arc::new(view));
        }
        if views.len() > KNOWN {
            views.remove(0);
        }
        Arc::clone(views.last().unwrap())
    }

    pub(crate) fn accept(&mut self, conn: u64, region: &Name, now: Now) {
        let newest = self.view(region);
        let known = self.views[region].clone();
        let publisher = Publisher::new(timing(), self.name.clone(), newest, known, now);
        self.streams.insert(conn, (region.clone(), publisher));
    }

    pub(crate) fn follow(&mut self, truth: &Truth, now: Now) -> Todo {
        self.revision = truth.revision();
        self.set = truth.set().clone();
        let regions: Vec<Name> = self.streams.values().map(|(r, _)| r.clone()).collect();
        let views: BTreeMap<Name, Arc<View>> =
            regions.into_iter().map(|r| (r.clone(), self.view(&r))).collect();
        let step = |(conn, (region, publisher)): (&u64, &mut (Name, Publisher))| {
            (*conn, publisher.on_change(Arc::clone(&views[region]), now))
        };
        self.streams.iter_mut().map(step).collect()
    }

    pub(crate) fn tick(&mut self, now: Now) -> Todo {
        self.streams.iter_mut().map(|(conn, (_, p))| (*conn, p.on_tick(now))).collect()
    }

    /// Where `history` is given, a node's state that is not known is looked for in it.
    pub(crate) fn message(
        &mut self,
        conn: u64,
        frame: NodeFrame,
        (history, now): (Option<&Truth>, Now),
    ) -> Vec<Action> {
        let Some((region, publisher)) = self.streams.get_mut(&conn) else { return Vec::new() };
        if let (NodeFrame::Hello(hello), Some(history), None) = (&frame, history, publisher.hello())
            && !publisher.knows(hello.applied)
            && let Some(view) = history.past(region, hello.applied)
        {
            publisher.recall(Arc::new(view));
        }
        publisher.on_message(frame, now)
    }

    pub(crate) fn hello(&self, conn: u64) -> Option<Hello> {
        self.streams.get(&conn)?.1.hello().cloned()
    }

    pub(crate) fn status(&self, conn: u64) -> (Applied, Vec<Refused>) {
        let (applied, refused) = self.streams[&conn].1.status();
        (applied, refused.to_vec())
    }

    pub(crate) fn drop_stream(&mut self, conn: u64) {
        self.streams.remove(&conn);
    }
}
