//! The buckets: sharded, bounded, swept as they grow.

use std::collections::HashMap;

use parking_lot::Mutex;
use weir_model::id::Digest;

const SHARDS: usize = 64;
/// A shard sweeps when it has grown to twice what the last sweep left, and from here on.
const SWEEP_FROM: usize = 128;
/// The whole of a rate.
pub(super) const WHOLE: u32 = 1_000;
/// A rate, or calls in flight, are told to the fleet when this part of them is asked for here.
const WORTH_TELLING: u64 = 8;

/// What a limit demands of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Nanoseconds between two units, and how far ahead of that pace a burst may be.
    pub(super) rate: Option<(u64, u64)>,
    /// No call at all.
    pub(super) closed: bool,
    /// Calls in flight.
    pub(super) concurrency: Option<u32>,
}

impl Shape {
    /// False for limits that have a quota only.
    pub(super) fn counts(&self) -> bool {
        self.rate.is_some() || self.closed || self.concurrency.is_some()
    }
}

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) shape: Shape,
    pub(super) units: u64,
    /// Nanoseconds since the limits were made.
    pub(super) now: u64,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Rate { wait_nanos: u64 },
    Closed,
    Concurrency,
    Buckets,
}

#[derive(Debug)]
struct Bucket {
    /// When everything taken so far is paid off.
    settled: u64,
    in_flight: u32,
    /// This proxy's part of the rate, of [`WHOLE`].
    share: u32,
    /// Calls in flight that the whole fleet may have, and this proxy's part of them.
    most: u32,
    part: u32,
    /// The most that were in flight or wanted to be since the fleet heard of it.
    wanted: u32,
    /// Units asked for since the fleet heard of it, refused ones included.
    demand: u64,
    interval: u64,
    name: (Digest, String),
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<u128, Bucket>,
    sweep_at: usize,
}

/// All buckets of a proxy.
#[derive(Debug)]
pub(super) struct Buckets {
    shards: Box<[Mutex<Shard>]>,
    per_shard: usize,
}

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    /// A rate: nanoseconds per unit of the whole of it.
    Rate { interval: u64 },
    /// Calls in flight: how many of them.
    Concurrency { most: u32 },
}

/// A rate or concurrency that the fleet should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) key: u128,
    pub(super) name: (Digest, String),
    pub(super) of: Shared,
    /// Units, or calls.
    pub(super) demand: u64,
}

impl Buckets {
    /// Room for about so many.
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

    /// Takes capacity, or says why not; `name` is asked for when the bucket is new.
    pub(super) fn take(
        &self,
        key: u128,
        demand: Demand,
        name: impl FnOnce() -> (Digest, String),
    ) -> Result<(), Full> {
        let Demand { shape, units, now } = demand;
        if shape.closed {
            return Err(Full::Closed);
        }
        let mut shard = self.shard(key).lock();
        if !shard.buckets.contains_key(&key) {
            shard.make_room(now, self.per_shard)?;
            shard.buckets.insert(key, Bucket::new(shape, name()));
        }
        let bucket = shard.buckets.get_mut(&key).ok_or(Full::Buckets)?;
        bucket.demand = bucket.demand.saturating_add(units);
        if shape.concurrency.is_some() {
            let over = bucket.in_flight >= bucket.room();
            let more = if over { bucket.wanted.saturating_add(1) } else { bucket.in_flight + 1 };
            bucket.wanted = bucket.wanted.max(more);
            if over {
                return Err(Full::Concurrency);
            }
        }
        if let Some((interval, ahead)) = shape.rate {
            let settled = bucket.settled.max(now);
            let debt = settled - now;
            if debt > ahead {
                return Err(Full::Rate { wait_nanos: debt - ahead });
            }
            bucket.settled = settled.saturating_add(bucket.price(interval, units));
        }
        if shape.concurrency.is_some() {
            bucket.in_flight += 1;
        }
        Ok(())
    }

    /// Undoes a take whose call did not happen.
    pub(super) fn give_back(&self, key: u128, shape: Shape, units: u64) {
        let mut shard = self.shard(key).lock();
        if let Some(bucket) = shard.buckets.get_mut(&key) {
            if let Some((interval, _)) = shape.rate {
                bucket.settled = bucket.settled.saturating_sub(bucket.price(interval, units));
            }
            if shape.concurrency.is_some() {
                bucket.in_flight = bucket.in_flight.saturating_sub(1);
            }
        }
    }

    /// A call has ended.
    pub(super) fn release(&self, key: u128) {
        let mut shard = self.shard(key).lock();
        if let Some(bucket) = shard.buckets.get_mut(&key) {
            bucket.in_flight = bucket.in_flight.saturating_sub(1);
        }
    }

    /// The rates that were asked for enough in the last `nanos` to matter to others, at most
    /// `most`; begins to count anew.
    pub(super) fn asked(&self, nanos: u64, most: usize) -> Vec<Asked> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for (key, bucket) in &mut shard.lock().buckets {
                all.extend(bucket.asked_concurrency(*key).filter(|_| all.len() < most));
                let demand = std::mem::take(&mut bucket.demand);
                if bucket.interval == 0 || demand == 0 || all.len() >= most {
                    continue;
                }
                let capacity = nanos / bucket.interval;
                if bucket.share < WHOLE || demand.saturating_mul(WORTH_TELLING) > capacity {
                    let (name, interval) = (bucket.name.clone(), bucket.interval);
                    all.push(Asked { key: *key, name, of: Shared::Rate { interval }, demand });
                }
            }
        }
        all
    }

    /// From now on this proxy has such a part of it.
    pub(super) fn share(&self, key: u128, of: Shared, share: u32) {
        if let Some(bucket) = self.shard(key).lock().buckets.get_mut(&key) {
            match of {
                Shared::Rate { .. } => bucket.share = share.clamp(1, WHOLE),
                Shared::Concurrency { .. } => bucket.part = share.clamp(1, WHOLE),
            }
        }
    }
}

impl Bucket {
    fn new(shape: Shape, name: (Digest, String)) -> Self {
        let interval = shape.rate.map_or(0, |(interval, _)| interval);
        let most = shape.concurrency.unwrap_or(0);
        Self {
            settled: 0,
            in_flight: 0,
            share: WHOLE,
            most,
            part: WHOLE,
            wanted: 0,
            demand: 0,
            interval,
            name,
        }
    }

    /// Calls that may be in flight here. One may, however small the part is: nobody starves.
    fn room(&self) -> u32 {
        let part = u64::from(self.most) * u64::from(self.part) / u64::from(WHOLE);
        u32::try_from(part).unwrap_or(u32::MAX).max(1).min(self.most)
    }

    /// What the fleet should hear of calls in flight; what is in flight still is wanted still.
    fn asked_concurrency(&mut self, key: u128) -> Option<Asked> {
        let demand = std::mem::replace(&mut self.wanted, self.in_flight);
        let demand = u64::from(demand.max(self.in_flight));
        let matters = self.part < WHOLE || demand.saturating_mul(WORTH_TELLING) > self.most.into();
        (demand > 0 && matters).then(|| Asked {
            key,
            name: self.name.clone(),
            of: Shared::Concurrency { most: self.most },
            demand,
        })
    }

    /// Nanoseconds that so many units take at this proxy's share.
    fn price(&self, interval: u64, units: u64) -> u64 {
        let whole = interval.saturating_mul(units);
        if self.share >= WHOLE {
            return whole;
        }
        whole.saturating_mul(u64::from(WHOLE)) / u64::from(self.share)
    }
}

impl Shard {
    /// Room for one more bucket. Sweeps by growth, so that the work stays constant per take.
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
