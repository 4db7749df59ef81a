//! One proxy: a machine, a disk, and what must hold whenever it applies something.

use std::time::Duration;

use weir_model::id::Name;
use weir_model::resource::{Kind, ResourceSet};
use weir_model::seal::NodeKey;
use weir_model::sync::subscriber::{self, Action, Subscriber};
use weir_model::sync::{Applied, Assembled, Held, Now, Refused, Timing};

use super::world::{Authority, Truth, name};

pub(crate) fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(500),
        missed: 3,
        ack: Duration::from_secs(3),
        lag: Duration::from_secs(4),
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_secs(2),
    }
}

/// What nodes of this simulation cannot use.
pub(crate) fn refusals(set: &ResourceSet) -> Vec<Refused> {
    let bad = set.iter().filter(|r| r.key.kind == Kind::Policy && r.key.name == "z");
    bad.map(|r| Refused { key: r.key.to_string(), message: "z".to_owned() }).collect()
}

pub(crate) struct Node {
    pub(crate) name: Name,
    pub(crate) region: Name,
    pub(crate) machine: Subscriber,
    pub(crate) conn: Option<u64>,
    pub(crate) applying: Option<Box<Assembled>>,
    /// Counts restarts, so that what an earlier life began does not end in this one.
    pub(crate) life: u32,
    pub(crate) applied: u64,
    key: NodeKey,
    disk: Option<Held>,
    seed: u64,
    /// What this life has applied last.
    last: Applied,
}

impl Node {
    pub(crate) fn new(at: usize, region: &str, seed: u64, _: &Authority) -> Self {
        let key = NodeKey::generate();
        let (own, region) = (name(&format!("n{at}")), name(region));
        let seed = seed * 10 + at as u64;
        let machine = machine(&own, &region, &key, Held::default(), seed);
        Self {
            name: own,
            region,
            machine,
            conn: None,
            applying: None,
            life: 0,
            applied: 0,
            key,
            disk: None,
            seed,
            last: Applied::default(),
        }
    }

    pub(crate) fn restart(&mut self, wipe: bool, authority: &Authority) {
        if wipe {
            self.disk = None;
        }
        let held = self.disk.clone().map_or_else(Held::default, |held| {
            let again =
                Held::from_parts(held.to_parts().collect(), &authority.anchor, &self.region);
            assert_eq!(again.as_ref(), Ok(&held));
            held
        });
        self.life += 1;
        self.last = held.applied;
        self.applying = None;
        self.seed += 1_000_000;
        self.machine = machine(&self.name, &self.region, &self.key, held, self.seed);
    }

    pub(crate) fn apply(
        &mut self,
        nonce: u64,
        now: Now,
        keep: bool,
        (truth, authority): (&Truth, &Authority),
    ) -> Vec<Action> {
        let assembled = self.applying.take().expect("was asked to");
        assert_eq!(assembled.nonce(), nonce);
        let outcome = assembled.resolve(&authority.anchor, &self.region, now).map(|held| {
            self.check(&held, truth);
            if keep {
                self.disk = Some(held.clone());
            }
            self.applied += 1;
            let refused = refusals(&held.set);
            (held, refused)
        });
        self.machine.on_applied(nonce, outcome)
    }

    /// The invariants.
    fn check(&mut self, held: &Held, truth: &Truth) {
        let revision = held.applied.revision;
        assert!(
            truth.was_published(&self.region, revision, held.set.digest()),
            "{} applies what was never published as revision {revision}",
            self.name
        );
        assert!(
            revision > self.last.revision || !truth.holds(&self.region, self.last),
            "{} goes from {:?} to {:?}, though history was not rewritten",
            self.name,
            self.last,
            held.applied
        );
        self.last = held.applied;
        for resource in held.set.iter() {
            for id in weir_model::sync::secret_ids(&resource.spec) {
                let sealed = held.sealed.get(id).unwrap_or_else(|| panic!("{id} is missing"));
                assert_eq!(self.key.open(id, sealed).unwrap().expose(), id.as_bytes());
            }
        }
    }
}

fn machine(own: &Name, region: &Name, key: &NodeKey, held: Held, seed: u64) -> Subscriber {
    let node = subscriber::Node {
        node: own.clone(),
        region: region.clone(),
        build: "sim".to_owned(),
        sealing_key: key.public(),
    };
    let refused = refusals(&held.set);
    Subscriber::new(timing(), node, held, refused, seed)
}
