//! The buckets: sharded, bounded, swept as they grow.

use std::collections::HashMap;

use parking_lot::Mutex;

const SHARDS: usize = 64;
/// A shard is swept when it has grown to this, and later to twice what the last sweep left.
const SWEEP_FROM: usize = 128;

/// How much a limit lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Nanoseconds per call, and how far ahead of that pace a burst may run.
    pub rate: Option<(u64, u64)>,
    /// Lets nothing through.
    pub closed: bool,
    pub concurrency: Option<u32>,
}

/// One call's wish.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub shape: Shape,
    /// Nanoseconds since some start.
    pub now: u64,
}

/// Why there was nothing to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Rate { wait_nanos: u64 },
    Closed,
    Concurrency,
    Buckets,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// When the bucket is full again.
    settled: u64,
    in_flight: u32,
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<u128, Bucket>,
    sweep_at: usize,
}

#[derive(Debug)]
pub(super) struct Buckets {
    shards: Box<[Mutex<Shard>]>,
    per_shard: usize,
}

impl Buckets {
    pub(super) fn new(most: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, per_shard: (most / SHARDS).max(1) }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().buckets.len()).sum()
    }

    fn shard(&self, key: u128) -> &Mutex<Shard> {
        // The low bits choose the shard; the map hashes the key anew.
        &self.shards[(key as usize) % SHARDS]
    }

    pub(super) fn take(&self, key: u128, demand: Demand) -> Result<(), Full> {
        let Demand { shape, now } = demand;
        if shape.closed {
            return Err(Full::Closed);
        }
        let mut shard = self.shard(key).lock();
        if !shard.buckets.contains_key(&key) {
            shard.make_room(now, self.per_shard)?;
        }
        let bucket = shard.buckets.entry(key).or_default();
        if shape.concurrency.is_some_and(|most| bucket.in_flight >= most) {
            return Err(Full::Concurrency);
        }
        if let Some((interval, ahead)) = shape.rate {
            let settled = bucket.settled.max(now);
            let debt = settled - now;
            if debt > ahead {
                return Err(Full::Rate { wait_nanos: debt - ahead });
            }
            bucket.settled = settled.saturating_add(interval);
        }
        if shape.concurrency.is_some() {
            bucket.in_flight += 1;
        }
        Ok(())
    }

    /// Undoes a take of a call that was not let through by another limit.
    pub(super) fn give_back(&self, key: u128, shape: Shape) {
        let mut shard = self.shard(key).lock();
        if let Some(bucket) = shard.buckets.get_mut(&key) {
            if let Some((interval, _)) = shape.rate {
                bucket.settled = bucket.settled.saturating_sub(interval);
            }
            if shape.concurrency.is_some() {
                bucket.in_flight = bucket.in_flight.saturating_sub(1);
            }
        }
    }

    pub(super) fn release(&self, key: u128) {
        let mut shard = self.shard(key).lock();
        if let Some(bucket) = shard.buckets.get_mut(&key) {
            bucket.in_flight = bucket.in_flight.saturating_sub(1);
        }
    }
}

impl Shard {
    fn make_room(&mut self, now: u64, most: usize) -> Result<(), Full> {
        let len = self.buckets.len();
        if len >= most || len >= self.sweep_at.max(SWEEP_FROM) {
            // A settled bucket without calls in flight is like one that was never there.
            self.buckets.retain(|_, bucket| bucket.settled > now || bucket.in_flight > 0);
            self.sweep_at = self.buckets.len() * 2;
        }
        if self.buckets.len() >= most { Err(Full::Buckets) } else { Ok(()) }
    }
}
