//! What the operators did, and who signs it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use weir_model::id::{Digest, Name, Revision};
use weir_model::resource::{
    Credential, Group, HeaderCredential, Kind, Policy, Resource, ResourceKey, ResourceSet,
    SecretRef, Spec,
};
use weir_model::seal::seal_to;
use weir_model::sync::publisher::{Plan, View};
use weir_model::sync::statement::{Anchor, Signer};
use weir_model::sync::{Applied, Hello, PlaneFrame};

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len() as u64) as usize;
        from.get(at).copied()
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The store, with all that was ever published.
pub(crate) struct Truth {
    history: Vec<(Revision, ResourceSet)>,
    /// Digests by region and revision; several after a backup was restored.
    published: BTreeMap<(Name, Revision), BTreeSet<Digest>>,
    changes: u64,
}

impl Truth {
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut truth = Self { history: Vec::new(), published: BTreeMap::new(), changes: 0 };
        truth.push(Revision(1), ResourceSet::default());
        for _ in 0..5 {
            truth.change(random);
        }
        truth
    }
    pub(crate) fn revision(&self) -> Revision {
        self.history.last().unwrap().0
    }
    pub(crate) fn set(&self) -> &ResourceSet {
        &self.history.last().unwrap().1
    }
    pub(crate) fn was_published(&self, region: &Name, revision: Revision, digest: Digest) -> bool {
        self.published.get(&(region.clone(), revision)).is_some_and(|d| d.contains(&digest))
    }

    /// True when history, as it is now, has that state.
    pub(crate) fn holds(&self, region: &Name, applied: Applied) -> bool {
        let at = self.history.iter().find(|(revision, _)| *revision == applied.revision);
        at.is_some_and(|(_, set)| set.for_region(region).digest() == applied.digest)
    }

    /// What a region had, as far as history goes.
    pub(crate) fn past(&self, region: &Name, applied: Applied) -> Option<View> {
        let at = self.history.iter().find(|(revision, _)| *revision == applied.revision);
        let view = at.map(|(revision, set)| View::new(*revision, set.for_region(region)))?;
        (view.applied.digest == applied.digest).then_some(view)
    }

    /// An apply of a few documents.
    pub(crate) fn change(&mut self, random: &mut Random) {
        let revision = Revision(self.revision().0 + 1 + random.below(3));
        let mut set = self.set().clone();
        for _ in 0..=random.below(3) {
            self.changes += 1;
            let resource = document(random, self.changes);
            if random.below(3) == 0 {
                set.remove(&resource.key);
            } else {
                set.insert(Arc::new(resource));
            }
        }
        self.push(revision, set);
    }

    /// History is cut, and goes on another way.
    pub(crate) fn restore_backup(&mut self, random: &mut Random) {
        let keep = 1 + random.below(self.history.len() as u64) as usize;
        self.history.truncate(keep);
        if random.below(2) == 0 {
            self.change(random);
        }
    }

    fn push(&mut self, revision: Revision, set: ResourceSet) {
        for region in ["eu", "us"] {
            let digest = set.for_region(&name(region)).digest();
            self.published.entry((name(region), revision)).or_default().insert(digest);
        }
        self.history.push((revision, set));
    }
}

fn document(random: &mut Random, change: u64) -> Resource {
    let group = name(["a", "b", "c"][random.below(3) as usize]);
    let own = ["x", "y", "z"][random.below(3) as usize];
    let (key, spec) = match random.below(4) {
        0 | 1 => {
            let regions = match random.below(3) {
                0 => Vec::new(),
                1 => vec![name("eu")],
                _ => vec![name("us")],
            };
            let display_name = Some(format!("change {change}"));
            let spec = Group { regions, display_name, ..Group::default() };
            (ResourceKey::global(Kind::Group, group.as_str()), Spec::Group(spec))
        }
        2 => {
            let cedar = format!("forbid (principal, action, resource); // {change}");
            let key = ResourceKey::grouped(Kind::Policy, &group, own);
            (key, Spec::Policy(Policy { cedar }))
        }
        _ => {
            let value = SecretRef { secret: format!("secret-{change}") };
            let header =
                HeaderCredential { name: "x-key".to_owned(), prefix: String::new(), value };
            let key = ResourceKey::grouped(Kind::Credential, &group, own);
            (key, Spec::Credential(Credential::Header(header)))
        }
    };
    Resource::new(key, spec).unwrap()
}

/// The CA, with one signer for all replicas.
pub(crate) struct Authority {
    pub(crate) anchor: Anchor,
    signer: Signer,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let anchor = Anchor(key.public_key().as_ref().to_vec().into());
        let endorse =
            |bytes: &[u8]| key.sign(&SystemRandom::new(), bytes).map(|s| s.as_ref().to_vec());
        Self { anchor, signer: Signer::new(2_000, endorse).unwrap() }
    }

    pub(crate) fn parts(&self, plan: Plan, hello: &Hello) -> Vec<PlaneFrame> {
        let statement = self.signer.sign(&hello.region, plan.heading.target);
        let seal = |id: String| {
            let sealed = seal_to(hello.sealing_key, &id, id.as_bytes()).unwrap();
            (id, sealed.into())
        };
        let delta = Arc::new(plan.delta());
        let secrets = delta.secret_ids().iter().cloned().map(seal).collect();
        let mut parts = plan.into_parts(delta, statement, secrets);
        std::iter::from_fn(|| parts.frame()).collect()
    }
}
