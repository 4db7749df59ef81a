//! Time, and a network with moods.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use weir_model::sync::{NodeFrame, Now, PlaneFrame};

use super::world::Random;

pub(crate) enum Event {
    Tick,
    Connect { node: usize, life: u32, replica: usize },
    ToNode { conn: u64, frame: PlaneFrame },
    ToPlane { conn: u64, frame: NodeFrame },
    Cut { conn: u64 },
    Applied { node: usize, life: u32, nonce: u64 },
    Follow { replica: usize },
}

#[derive(Default)]
pub(crate) struct Network {
    pub(crate) now_ms: u64,
    pub(crate) trouble: bool,
    /// Node and replica by connection.
    pub(crate) conns: BTreeMap<u64, (usize, usize)>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    counter: u64,
}

impl Network {
    pub(crate) fn now(&self) -> Now {
        Now { mono: Duration::from_millis(self.now_ms), unix: 1_000 }
    }

    pub(crate) fn at(&mut self, ms: u64, event: Event) {
        self.counter += 1;
        self.queue.push(Reverse((ms, self.counter)));
        self.events.insert(self.counter, event);
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now_ms + ms, event);
    }

    pub(crate) fn next(&mut self, end_ms: u64) -> Option<Event> {
        let Reverse((ms, id)) = self.queue.pop()?;
        self.now_ms = ms;
        if ms > end_ms { None } else { self.events.remove(&id) }
    }

    pub(crate) fn open(&mut self, node: usize, replica: usize) -> u64 {
        self.counter += 1;
        self.conns.insert(self.counter, (node, replica));
        self.counter
    }

    pub(crate) fn send_to_plane(&mut self, conn: u64, frame: &NodeFrame, random: &mut Random) {
        for delay in self.fate(conn, random) {
            self.after(delay, Event::ToPlane { conn, frame: frame.clone() });
        }
    }

    pub(crate) fn send_to_node(&mut self, conn: u64, frame: &PlaneFrame, random: &mut Random) {
        for delay in self.fate(conn, random) {
            let mut frame = frame.clone();
            if self.trouble && random.below(30) == 0 {
                damage(&mut frame);
            }
            self.after(delay, Event::ToNode { conn, frame });
        }
    }

    /// The delays of the copies that arrive.
    fn fate(&mut self, conn: u64, random: &mut Random) -> Vec<u64> {
        if !self.trouble {
            // A real stream: in order, all of it.
            return vec![5];
        }
        match random.below(40) {
            0 | 1 => Vec::new(),
            2 | 3 => vec![random.below(400), random.below(400)],
            4 => {
                self.after(random.below(400), Event::Cut { conn });
                vec![random.below(400)]
            }
            5..=15 => vec![random.below(400)],
            _ => vec![5],
        }
    }
}

/// What no checksum of the network would find.
fn damage(frame: &mut PlaneFrame) {
    let PlaneFrame::Update(part) = frame else { return };
    if part.upserts.pop().is_none() {
        part.removals.clear();
        part.secrets.clear();
    }
}
